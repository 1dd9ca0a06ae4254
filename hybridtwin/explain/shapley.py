"""Shares of an outcome among the inputs of a day: interventional Shapley values, draw by draw.

    share_i = sum over S without i of |S|! (n - |S| - 1)! / n! (v(S + i) - v(S))

v(S) is the outcome in the world in which the players outside S are taken away by `do` (`players`): what the inputs did, not what
goes along with them. Up to 12 players every coalition is a world; more are met by permutations drawn at random, each with its
reverse, and a standard error. All worlds share one compiled program, the draws of the body and the noise, so each share has an
interval, and the shares of a draw sum to v(all) - v(none) of that draw.

Source: Shapley 1953, doi:10.1515/9781400881970-018; interventional values: Janzing 2020, arXiv:1910.13413; antithetic
permutations: Mitchell 2022, arXiv:2104.12199.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np

from hybridtwin.errors import InterventionError
from hybridtwin.explain.players import EXACT, Player, baselines, by_window, players_of, reach, scaled, settled
from hybridtwin.finding import Finding
from hybridtwin.inference.readings import generator
from hybridtwin.keys import as_key
from hybridtwin.outcomes import Outcome, as_outcome, signed
from hybridtwin.twin import simulate_worlds
from hybridtwin.units import plain

_CHUNK = 64  # worlds of one call of the simulator, beside those that bring all nodes
_TURNS = 32  # permutations drawn where there are too many players


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Shares(Finding):
    """What each player contributed to an outcome: `draws` (players, n), `error` (players,) of the sampled mean, 0 where exact.

    `everything` and `nothing` (n,): the outcome with all players and without any; `baseline`: what signals are without them.
    """

    outcome: Outcome
    players: tuple[Player, ...]
    draws: np.ndarray
    everything: np.ndarray
    nothing: np.ndarray
    error: np.ndarray
    baseline: dict[str, float]
    exact: bool

    @property
    def total(self) -> np.ndarray:
        """All players together, draw by draw."""
        return self.everything - self.nothing

    @property
    def order(self) -> np.ndarray:
        """Places of the players, the largest median share first."""
        return np.argsort(-np.abs(self._quantile(0.5)), kind="stable")

    def _quantile(self, q):
        solved = np.isfinite(self.total)
        return np.quantile(self.draws[:, solved], q, axis=1) if solved.any() else np.full(len(self.players), np.nan)

    @property
    def table(self):
        """One row a player: share with 5 % and 95 % quantiles, and how surely it is positive."""
        import pandas as pd

        low, middle, high = (self._quantile(q) for q in (0.05, 0.5, 0.95))
        positive = np.mean(self.draws[:, np.isfinite(self.total)] > 0, axis=1)
        rows = [
            {"player": p.label, "amount": p.amount, "amount_unit": p.unit, "share": middle[i], "q05": low[i], "q95": high[i],
             "unit": self.outcome.unit or "", "p_positive": positive[i], "standard_error": self.error[i]}
            for i, p in enumerate(self.players)
        ]  # fmt: skip
        return pd.DataFrame(rows)

    @property
    def text(self) -> str:
        """Every share in a line, the largest first."""
        unit = f" {self.outcome.unit}" if self.outcome.unit not in (None, "", "1") else ""
        low, middle, high = (self._quantile(q) for q in (0.05, 0.5, 0.95))
        told = [f"{signed(m)} ({signed(a)} to {signed(b)}){unit}" for a, m, b in zip(low, middle, high, strict=True)]
        lines = [f"{self.players[i].label}: {told[i]}" for i in self.order]
        known = "" if self.exact else f", sampled (standard error at most {plain(np.max(self.error, initial=0.0), 2)}{unit})"
        return "\n".join([f"Shares in {self.outcome.label}{known}:", *("  " + line for line in lines)])


def shapley(value: Callable[[np.ndarray], np.ndarray], n: int, *, key=None, turns: int = _TURNS):
    """Shapley values of a game of n players.

    **Arguments:** `value(coalitions)`: booleans (m, n) -> (m, ...) numbers; `key`: needed beyond 12 players; `turns`:
    permutations then drawn, each with its reverse.

    **Returns:** shares (n, ...), their standard errors (n, ...) (zero where exact), v(all) and v(none).
    """
    if n <= EXACT:
        coalitions = np.array(list(itertools.product([False, True], repeat=n)), bool).reshape(-1, n)
        worth = np.asarray(value(coalitions), float)
        size = coalitions.sum(axis=1)
        place = coalitions @ (1 << np.arange(n)[::-1])
        at = np.empty(len(place), int)
        at[place] = np.arange(len(place))
        shares = np.zeros((n, *worth.shape[1:]))
        for i in range(n):
            out = np.flatnonzero(~coalitions[:, i])
            joined = at[place[out] + (1 << (n - 1 - i))]
            weight = np.array([math.factorial(s) * math.factorial(n - s - 1) / math.factorial(n) for s in size[out]])
            shares[i] = np.tensordot(weight, worth[joined] - worth[out], axes=1)
        return shares, np.zeros_like(shares), worth[at[(1 << n) - 1]], worth[at[0]]
    if key is None:
        raise InterventionError(
            f"explain: {n} players are more than {EXACT}; shares are then sampled. Give key=0, or fewer windows."
        )
    rng = generator(as_key(key), 31)
    orders = [o for _ in range(turns) for p in [rng.permutation(n)] for o in (p, p[::-1])]
    rows = np.zeros((len(orders), n + 1, n), bool)
    for r, order in enumerate(orders):
        for k, player in enumerate(order):
            rows[r, k + 1 :, player] = True
    unique, back = np.unique(rows.reshape(-1, n), axis=0, return_inverse=True)
    worth = np.asarray(value(unique), float)[np.ravel(back)].reshape(len(orders), n + 1, -1)
    gains = np.empty((len(orders), n, worth.shape[-1]))
    for r, order in enumerate(orders):
        gains[r, order] = np.diff(worth[r], axis=0)
    pairs = gains.reshape(turns, 2, n, -1).mean(axis=1)
    shares = pairs.mean(axis=0)
    error = pairs.std(axis=0, ddof=1) / np.sqrt(turns)
    squeeze = (lambda a: a[..., 0]) if np.ndim(value(unique[:1])) == 1 else (lambda a: a)
    return squeeze(shares), squeeze(error), squeeze(worth[0, -1]), squeeze(worth[0, 0])


def worth_of(twin, outcome: Outcome, players: Sequence[Player], base, *, prior: bool = False):
    """The game of a day: `value(coalitions (m, n)) -> (m, draws)`, every world on the same nodes."""
    n = len(players)
    # With all, with none and with each alone there stand all nodes that any coalition has.
    anchors = np.concatenate([np.ones((1, n), bool), np.zeros((1, n), bool), np.eye(n, dtype=bool)])

    def value(coalitions):
        found = []
        for i in range(0, len(coalitions), _CHUNK):
            some = np.concatenate([coalitions[i : i + _CHUNK], anchors])
            worlds = [scaled(twin, players, row.astype(float), base) for row in some]
            names = (outcome.name,) if outcome.name else None
            courses = simulate_worlds(worlds, prior=prior, names=names)
            found += [outcome.of(course) for course in courses[: len(coalitions[i : i + _CHUNK])]]
        return np.stack(found)

    return value


def shares(
    twin,
    outcome: Outcome,
    *,
    windows=None,
    inputs: Sequence[str] | None = None,
    baseline=None,
    since=None,
    together: bool = False,
    key=None,
) -> Shares:
    """Shares of an outcome among doses and stretches of signals, in this world of the twin.

    **Arguments:** `windows`: "4 h", edges, or a number of equal stretches of the day; left out, there are up to 7
    players: the latest doses each alone, the older ones of an input together, each signal. `inputs`: names of doses and
    signals (default all). `baseline`: name -> number or (number, unit) of a signal that is taken away; its mean over the day
    where it is not stated. A dose that is taken away is not given. `since`: inputs before that are kept; left out, those are
    kept that are so old that all of them together move the outcome by less than half a percent, and so are those after its
    window. `together`: all inputs of a window are one player. `key`: needed beyond 12 players.

    **Raises:** InterventionError, DeclarationError, PastHorizon.
    """
    outcome, base = as_outcome(outcome), baselines(twin, baseline)
    within = reach(twin, outcome, since, base)
    if together:
        each = players_of(twin, windows=windows or 4, inputs=inputs, baseline=baseline, within=within)
        found = by_window(each, twin, windows or 4, within)
    else:
        found = players_of(twin, windows=windows, inputs=inputs, baseline=baseline, within=within)
    if not found:
        raise InterventionError(
            "explain: this day has no dose, and no signal that ever leaves its baseline. State another with baseline={...}; "
            "ht.explain tells of the parameters without shares."
        )
    draws_of, error, everything, nothing = shapley(worth_of(twin, outcome, found, base), len(found), key=key)
    solved = np.isfinite(everything - nothing)
    mean_error = np.mean(error[:, solved], axis=1) if solved.any() else np.full(len(found), np.nan)
    return Shares(settled(twin, outcome), tuple(found), draws_of, everything, nothing, mean_error, base, len(found) <= EXACT)
