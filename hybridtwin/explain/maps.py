"""Maps of an outcome over inputs and time, each with what it is worth: gradients, integrated gradients, local surrogates.

With x(a) = baseline + a (input - baseline), input by input and window by window (the players of `players`):

    gradient        g_i = d v / d a_i at a = 1             what a little more of each would do, times all of it
    integrated      IG_i = integral of d v / d a_i (a, ..., a) for a from 0 to 1;   sum_i IG_i = v(1) - v(0)
    surrogate       v(mask) ~ c + sum_i b_i mask_i, ridge regression with weights that fall with what is masked

Such maps are known to look convincing whatever a network has learned. So where a system has learned terms (arrays without a
prior, such as a neural correction), every map is made again with these arrays randomized, and its *sanity* is the rank
correlation of the two: a map that stays the same (near 1) says nothing of what was learned. A flat map has no order to compare.
Integrated gradients tell how far they miss their sum (the path is cut finer where that is more than a percent: a network of
rectifiers has kinks), surrogates how well they fit. A map describes how the outcome answers to inputs in the model; none is a
reason.

Source: Sundararajan 2017, arXiv:1703.01365 (integrated gradients); Ribeiro 2016, doi:10.1145/2939672.2939778 (local surrogates);
Adebayo 2018, arXiv:1810.03292 (sanity checks by randomization).
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from hybridtwin.engine import double
from hybridtwin.errors import InterventionError
from hybridtwin.explain.players import Player, baselines, players_of, reach, scaled, settled
from hybridtwin.explain.shapley import worth_of
from hybridtwin.explain.tangents import Direction, derivatives
from hybridtwin.finding import Finding
from hybridtwin.fit import Fit
from hybridtwin.inference.readings import generator
from hybridtwin.keys import as_key
from hybridtwin.model import Model
from hybridtwin.outcomes import Outcome, as_outcome, signed
from hybridtwin.system import Parametric

NAMES = ("gradient", "integrated", "surrogate")
_POINTS = 8  # of the path of integrated gradients (Gauss and Legendre), in each of its parts
_PARTS = (1, 2, 4)  # in how many the path is cut, until the sum is met
_MET = 0.01  # how far integrated gradients may miss their sum before the path is cut finer
_NOTHING = 1e-9  # of the outcome's size, below which a map shows rounding
_MASKS = 256  # of a local surrogate where there are too many to take all
_RANDOMIZED = 3  # sets of random arrays behind a sanity score
_SAME = 0.9  # rank correlation from which a map is said not to depend on what was learned
_DRAWS = 40  # of each structure


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Maps(Finding):
    """Maps of one outcome over players: `values[name]` (players, draws), in the outcome's unit.

    `sanity[name]`: mean rank correlation with the map under randomized learned arrays ({} where nothing is learned, NaN of a
    flat map); `completeness`: how far the integrated gradients miss v(1) - v(0), relative to it; `fit`: R^2 of the surrogate (NaN
    where no input moves the outcome).
    """

    outcome: Outcome
    players: tuple[Player, ...]
    values: Mapping[str, np.ndarray]
    sanity: Mapping[str, float]
    completeness: float
    fit: float
    total: np.ndarray

    @property
    def table(self):
        """One row a player and map: median with 5 % and 95 % quantiles, and the map's sanity score."""
        import pandas as pd

        rows = []
        for name in NAMES:
            for p, draws in zip(self.players, self.values[name], strict=True):
                low, middle, high = np.nanquantile(draws, [0.05, 0.5, 0.95])
                rows.append({"map": name, "player": p.label, "value": middle, "q05": low, "q95": high,
                             "unit": self.outcome.unit, "sanity": self.sanity.get(name, np.nan)})  # fmt: skip
        return pd.DataFrame(rows)

    @property
    def text(self) -> str:
        """The maps side by side, each under its own warning."""
        unit = f" {self.outcome.unit}" if self.outcome.unit not in (None, "", "1") else ""
        worth = {"gradient": "", "integrated": f", misses its sum by {100 * self.completeness:.2g} %",
                 "surrogate": f", R^2 {self.fit:.3f}" if np.isfinite(self.fit) else ", nothing to fit"}  # fmt: skip
        lines = [f"How {self.outcome.label} answers to inputs in the model; no map is a reason."]
        for name in NAMES:
            score = self.sanity.get(name)
            check = "nothing is learned here, so there is nothing to randomize" if score is None else (
                "it is flat, so there is no order to compare" if np.isnan(score) else
                f"rank correlation with the map of randomized terms {score:.2f}"
                + (": this map does not depend on what was learned" if score >= _SAME else ""))  # fmt: skip
            lines.append(f"  {name}{worth[name]} ({check}):")
            middle = np.nanmedian(self.values[name], axis=1)
            lines += [f"    {p.label}: {signed(m)}{unit}" for p, m in zip(self.players, middle, strict=True)]
        return "\n".join(lines)


def learned(system) -> bool:
    """Has a system arrays without a prior, its parts among them?"""
    return any(_arrays(getattr(system, name)) for name in _terms(system)) or any(
        learned(getattr(system, f.name)) for f in dataclasses.fields(system) if isinstance(getattr(system, f.name), Parametric)
    )


def _terms(system) -> list[str]:
    """Names of the fields that are neither declared parameters nor parts."""
    declared = type(system)._declared
    names = [f.name for f in dataclasses.fields(system) if f.name not in declared]
    return [n for n in names if not isinstance(getattr(system, n), Parametric)]


def _arrays(value) -> list:
    return [leaf for leaf in jax.tree.leaves(value) if eqx.is_inexact_array(leaf)]


def randomized(system, rng):
    """The same system with every learned array drawn anew: normal numbers of the array's own mean and spread."""

    def anew(leaf):
        if not eqx.is_inexact_array(leaf):
            return leaf
        old = np.asarray(leaf)
        spread = float(old.std()) or abs(float(old.mean())) or 1.0
        with double():
            return jnp.asarray(old.mean() + spread * rng.standard_normal(old.shape), old.dtype)

    copy = system.with_values({})
    for f in dataclasses.fields(system):
        value = getattr(system, f.name)
        if isinstance(value, Parametric):
            object.__setattr__(copy, f.name, randomized(value, rng))
        elif f.name in _terms(system):
            object.__setattr__(copy, f.name, jax.tree.map(anew, value))
    return copy


def _with_system(fit: Fit, system) -> Fit:
    """The same draws in a model of another system of the same fields."""
    old = fit.model
    model = Model(system, start=old.start, name=old.name, varies=old.varies, noise=old.noise, pooling=old.pooling,
                  solver=old.solver, **old.sensors)  # fmt: skip
    problem = dataclasses.replace(fit.problem, model=model, kernel=dataclasses.replace(fit.kernel, model=model))
    return dataclasses.replace(fit, problem=problem)


def maps(twin, outcome: Outcome, *, windows=None, inputs: Sequence[str] | None = None, baseline=None, since=None, key) -> Maps:
    """Maps of an outcome over the inputs of the day, with their sanity scores; see the module.

    **Arguments:** as in `shapley.shares`; `key`: draws the random arrays, and the masks where there are many.

    **Raises:** InterventionError, DeclarationError, PastHorizon.
    """
    outcome, base = as_outcome(outcome), baselines(twin, baseline)
    twin = dataclasses.replace(twin, draws=min(twin.draws, _DRAWS))
    players = players_of(twin, windows=windows, inputs=inputs, baseline=baseline, within=reach(twin, outcome, since, base))
    if not players:
        raise InterventionError(
            "explain: this day has no input that could be mapped. State another baseline with baseline={...}."
        )
    seed = generator(as_key(key), 61)
    masks = _masks(len(players), seed)
    values, total, fit = _all(twin, outcome, players, base, masks)
    for parts in _PARTS[1:]:
        if _missed(values["integrated"], total) <= _MET:
            break
        values["integrated"] = _integrated(twin, outcome, players, base, parts)
    scores: dict[str, list[float]] = {}
    if any(learned(f.model.system) for f in twin.fits):
        for _ in range(_RANDOMIZED):
            fits = tuple(_with_system(f, randomized(f.model.system, seed)) for f in twin.fits)
            other, _, _ = _all(dataclasses.replace(twin, fits=fits), outcome, players, base, masks)
            for name in NAMES:
                scores.setdefault(name, []).append(_rank_correlation(values[name], other[name]))
    sanity = {name: float(np.mean(found)) for name, found in scores.items()}
    missed = _missed(values["integrated"], total)
    return Maps(settled(twin, outcome), tuple(players), values, sanity, missed, fit, total)


def _all(twin, outcome, players, base, masks):
    """(map -> (players, draws), v(1) - v(0), R^2 of the surrogate)."""
    gradient = _slopes(twin, outcome, players, base, 1.0)
    integrated = _integrated(twin, outcome, players, base, _PARTS[0])
    ends = np.concatenate([np.ones((1, len(players)), bool), np.zeros((1, len(players)), bool), masks])
    worth = worth_of(twin, outcome, players, base)(ends)
    least = _NOTHING * float(np.nanmax(np.abs(worth), initial=0.0))
    surrogate, fit = _surrogate(masks, worth[2:], least)
    found = {"gradient": gradient, "integrated": integrated, "surrogate": surrogate, "total": worth[0] - worth[1]}
    found = {name: np.where(np.abs(value) <= least, 0.0, value) for name, value in found.items()}
    return found, found.pop("total"), fit


def _integrated(twin, outcome, players, base, parts) -> np.ndarray:
    """Integrated gradients (players, draws), the path cut into equal parts."""
    points, weights = np.polynomial.legendre.leggauss(_POINTS)
    shares = [(0.5 * (1.0 + x) + k) / parts for k in range(parts) for x in points]
    along = [_slopes(twin, outcome, players, base, share) for share in shares]
    return np.tensordot(0.5 / parts * np.tile(weights, parts), np.stack(along), axes=1)


def _missed(integrated, total) -> float:
    """How far integrated gradients miss their sum in the worst draw, relative to the largest sum; 0 of nothing."""
    missed, whole = np.abs(integrated.sum(axis=0) - total), float(np.nanmax(np.abs(total), initial=0.0))
    return float(np.nanmax(missed, initial=0.0)) / whole if whole > 0 else 0.0


def _slopes(twin, outcome, players, base, share) -> np.ndarray:
    """D v / d a_i with all players present to one share: (players, draws)."""
    here = scaled(twin, players, [share] * len(players), base)
    columns = []
    for which in range(len(twin.fits)):
        directions = [_direction(twin, which, players, base, share, i) for i in range(len(players))]
        found = derivatives(here, which, [outcome], directions, twin.draws_of(which))[0]
        columns.append(np.stack([t.slope for t in found]))
    return np.concatenate(columns, axis=1)


def _direction(twin, which, players, base, share, i) -> Direction:
    def change(world, by):
        shares = [share + by * (k == i) for k in range(len(players))]
        moved = scaled(twin, players, shares, base).world(which)
        return dataclasses.replace(moved, overrides=world.overrides)

    return Direction("scale", players[i].label, players[i].label, "1", share, players[i].start, change)


def _masks(n, rng) -> np.ndarray:
    """Masks of a surrogate (m, n): all of them, or many at random in which few players are missing more often than many."""
    if 2**n <= _MASKS:
        return np.array(list(itertools.product([False, True], repeat=n)), bool).reshape(-1, n)
    missing = rng.random((_MASKS, 1)) ** 2
    return rng.random((_MASKS, n)) >= missing


def _surrogate(masks, worth, least):
    """Coefficients (players, draws) of a weighted ridge regression of worths (m, draws) on masks, and its R^2 over the draws that
    masks move by more than `least` (NaN where there is none).
    """
    gone = 1.0 - masks.mean(axis=1)
    weight = np.exp(-((gone / 0.5) ** 2))
    design = np.column_stack([np.ones(len(masks)), masks.astype(float)])
    solved = np.isfinite(worth).all(axis=0)
    heavy = design * weight[:, None]
    ridge = 1e-6 * np.diag([0.0, *np.ones(masks.shape[1])]) * weight.sum()
    found = np.full((masks.shape[1] + 1, worth.shape[1]), np.nan)
    found[:, solved] = np.linalg.solve(design.T @ heavy + ridge, heavy.T @ worth[:, solved])
    left = weight @ (worth - design @ found)[:, solved] ** 2
    whole = weight @ (worth - (weight @ worth) / weight.sum())[:, solved] ** 2
    moved = whole > least**2 * weight.sum()
    return found[1:], float(np.mean(1.0 - left[moved] / whole[moved])) if moved.any() else float("nan")


def _rank_correlation(one, two) -> float:
    """Spearman's correlation of two maps, of their medians over draws; 1 of maps of one player that agree in sign. NaN where the
    first is flat; where only the second is, they have nothing in common.
    """
    from scipy.stats import rankdata

    a, b = np.nanmedian(one, axis=1), np.nanmedian(two, axis=1)
    if not np.any(a):
        return float("nan")
    if len(a) < 2:
        return float(np.sign(a[0]) == np.sign(b[0]))
    ranks = [rankdata(x) for x in (a, b)]
    if np.ptp(ranks[0]) == 0 or np.ptp(ranks[1]) == 0:
        return float("nan") if np.ptp(ranks[0]) == 0 else 0.0
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])
