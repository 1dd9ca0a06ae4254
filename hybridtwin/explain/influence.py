"""What each reading has to do with an outcome: the posterior without it, and how the outcome follows its value.

    without i:   E[o | y without i] = sum_d w_d o_d,   log w_d = -(log p(y | theta_d) - log p(y without i | theta_d)) / temper
    a little less of i:   d E[o] / d weight_i = Cov(o, log p(y) - log p(y without i)) / temper
    a little more of y_i: d E[o] / d y_i = Cov(o, d log p(y | theta) / d y_i) / temper

The first deletes the reading by importance weights, smoothed by Pareto tails whose k-hat says whether that can be trusted: above
0.7 the posterior without the reading lies where this one has too few draws. Of those the few that matter most are drawn anew
(`anew`), and told so where that succeeds. The others are exact derivatives of the posterior
mean, from the draws at hand. A reading that stands among correlated errors is left out as if it had not been taken; its
neighbors stay. A whole stretch of readings is left out in the same way.

Where few draws hide a tail, k-hat is taken from the share of the posterior's curvature that the reading brings (`_gaussian`).

Source: Gelfand, Dey and Chang 1992; Vehtari 2017, doi:10.1007/s11222-016-9696-4 (case deletion with Pareto smoothing); Cook 1986,
doi:10.1111/j.2517-6161.1986.tb01398.x (local influence); Gustafson 1996 and Giordano 2018, arXiv:1709.02536 (covariances as
derivatives of posterior means).
"""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np

from hybridtwin import worlds as house
from hybridtwin.engine import Lanes, double
from hybridtwin.errors import InterventionError
from hybridtwin.explain.anew import without as redraw
from hybridtwin.explain.players import _window_text, windows_of
from hybridtwin.explain.variance import outcome_at
from hybridtwin.finding import Finding
from hybridtwin.inference.psis import USABLE, kish, psis
from hybridtwin.inference.readings import generator
from hybridtwin.outcomes import Outcome, as_outcome, signed
from hybridtwin.simulate.run import TILE
from hybridtwin.simulate.steppers import Repeated
from hybridtwin.twin import simulate_worlds
from hybridtwin.units import plain

_ALONE = 0.97  # share of the curvature from which a reading rules alone, so that nothing is known without it
_FEW = 10.0  # effective draws below which nothing is said
_ANEW = 3  # posteriors without a reading that are drawn anew where weights do not reach them
_WIDEST = 10  # unknowns of a body beyond which such an importance sampler is not worth trying
_DRAWS = 1000  # of each structure, where the fit has them


@dataclasses.dataclass(frozen=True, eq=False)
class Reading:
    """What one reading, or all readings of a stretch, have to do with an outcome. Numbers in the outcome's unit.

    `shift`: mean with the reading less mean without it; `spread`: standard deviation with over without; `khat`, `effective`: of
    the weights behind these two, which cannot be trusted above 0.7 or below 10 draws; `drawn`: was the posterior without it drawn
    anew? `local`: shift by the derivative of its weight, which needs no trust but knows no curve; `gaussian`: shift if the
    posterior and what the reading says were Gaussian (NaN where the reading rules alone); `per_unit`: how far the mean follows
    the value, in the outcome's unit per that of the reading (NaN of a stretch and of a censored reading).
    """

    sensor: str
    label: str
    start: float
    stop: float
    count: int
    value: float
    unit: str
    shift: float
    spread: float
    khat: float
    effective: float
    drawn: bool
    local: float
    gaussian: float
    per_unit: float

    @property
    def trusted(self) -> bool:
        """Do the draws reach the posterior without it?"""
        return self.khat <= USABLE and self.effective >= _FEW


    def guess(self, unit: str) -> str:
        """What is known of its shift where it cannot be trusted, in words; `unit` with a space before it."""
        if np.isfinite(self.gaussian):
            return f"about {signed(self.gaussian)}{unit} if all were Gaussian"
        return "by an unknown amount, since nothing else tells what it tells"

    @property
    def doubt(self) -> str:
        """Why the draws may not reach the posterior without it, in words."""
        return f"k-hat {plain(self.khat, 2)}" if self.effective >= _FEW else f"{self.effective:.0f} effective draws"


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Influence(Finding):
    """Influence of readings on the posterior of an outcome; `mean` and `sd` of the outcome with all of them, `draws` used."""

    outcome: Outcome
    readings: tuple[Reading, ...]
    mean: float
    sd: float
    draws: int

    def __getitem__(self, which) -> Reading:
        return self.readings[which]

    @property
    def order(self) -> np.ndarray:
        """Places of the readings, the largest shift first: those that rule alone, then by the best that is known of each."""
        size = [abs(r.shift) if r.trusted else abs(r.gaussian) for r in self.readings]
        return np.argsort(-np.nan_to_num(np.array(size), nan=np.inf), kind="stable")

    @property
    def table(self):
        """One row a reading or stretch, as a data frame; see `Reading`."""
        import pandas as pd

        return pd.DataFrame([dataclasses.asdict(r) | {"trusted": r.trusted} for r in self.readings])

    @property
    def text(self) -> str:
        """The ten of most influence in a line each."""
        unit = f" {self.outcome.unit}" if self.outcome.unit not in (None, "", "1") else ""
        lines = [f"What readings have to do with {self.outcome.label} (mean {plain(self.mean, 4)}, sd {plain(self.sd)}{unit}):"]
        for i in self.order[:10]:
            r = self.readings[i]
            told = f"{signed(r.shift)}{unit} by being there"
            told = told if r.trusted else f"{r.guess(unit)} ({r.doubt}: only a refit without it would tell)"
            follows = f", {signed(r.per_unit)}{unit} per {r.unit}" if np.isfinite(r.per_unit) else ""
            lines.append(f"  {r.label}: {told}{follows}")
        return "\n".join(lines)


@functools.lru_cache(maxsize=16)
def _program(kernel):
    """Compiled: (z (TILE, d), data, keep: sensor -> (G, N), temper, sub-steps) -> log likelihood (TILE,), that of each group kept
    (TILE, G), its gradient by the readings' values, sensor -> (TILE, N), and the log density of all but the readings (TILE,).
    """

    def lane(z, data, keep, temper, substeps):
        here = dataclasses.replace(kernel, stepper=Repeated(kernel.stepper, substeps))
        values = kernel.constrain(z)
        modelled = here.modelled(values, data)

        def likelihood(seen):
            return sum(jnp.sum(t.loglik) for t in kernel.terms_at(modelled, values, data._replace(seen=seen)).values())

        def without(masks):
            return likelihood({n: data.seen[n]._replace(mask=data.seen[n].mask & masks[n]) for n in data.read})

        def at(numbers):
            return likelihood({n: data.seen[n]._replace(value=numbers[n]) for n in data.read})

        full, gradient = jax.value_and_grad(at)({n: jnp.asarray(data.seen[n].value, float) for n in data.read})
        return full, jax.lax.map(without, keep), gradient, kernel.tempered(z, 0.0, temper)

    return Lanes(lane, (0, None, None, None, None))


def _evaluate(fit, z, keep):
    """`_program` at coordinates z (n, d), as NumPy."""
    data, parts = fit.problem.data, []
    with double():
        program = _program(fit.kernel)
        for i in range(0, len(z), TILE):
            some = np.resize(z[i : i + TILE], (TILE, z.shape[1]))
            parts.append(program(some, data, keep, fit.strength, np.int32(2)))
        parts = [jax.tree.map(np.asarray, part) for part in parts]
    return jax.tree.map(lambda *a: np.concatenate(a)[: len(z)], *parts)


def _groups(twin, windows):
    """(sensor, label, start, stop, used rows by sensor) of every reading, or of every stretch that holds readings."""
    problem = twin.fits[0].problem
    clock, bound, found = problem.bound.clock, problem.bound, []
    if windows is None:
        for name, rows in problem.used.items():
            for k, row in enumerate(rows):
                time = float(bound.readings[name].time[row])
                found.append((name, f"{name} at {clock.label(time)}", time, time, {name: [k]}))
        return found
    for start, stop in itertools.pairwise(windows_of(on_lived_day(twin), windows)):
        last = stop >= bound.stop
        inside = {}
        for name, rows in problem.used.items():
            time = bound.readings[name].time[rows]
            inside[name] = np.flatnonzero((time >= start) & ((time < stop) | last)).tolist()
        if any(inside.values()):
            found.append((", ".join(n for n, k in inside.items() if k), f"readings {_window_text(clock, start, stop)}",
                          start, stop, inside))  # fmt: skip
    return found


def on_lived_day(twin):
    """The twin on the day it learned from, nothing done."""
    days = tuple(house.Day(f.problem.bound, f.problem.lived) for f in twin.fits)
    return dataclasses.replace(twin, days=days, dos=(), rules=())


def _drawn(twin, which, count):
    """Indices of the posterior draws behind the draws of a simulation; None where the start of the day is drawn otherwise."""
    fit, day = twin.fits[which], twin.days[which]
    if isinstance(day.start, str):
        return house.thinned(fit.count, count)
    return house._paired(day.start, fit.count, count)[0]


def influence(twin, outcome: Outcome, *, windows=None, draws: int = _DRAWS, anew: int = _ANEW) -> Influence:
    """Influence of each reading (or, with `windows`, of each stretch of readings) on the posterior of an outcome.

    **Arguments:** `outcome`: asked of this world of the twin, on whatever day it is; `windows`: "4 h", edges, or a number of
    equal stretches of the record; `draws`: of each structure, at most those of the fit; `anew`: how many posteriors, of those
    that the draws do not reach, are drawn anew.

    The readings are those of the record that the twin learned from. Of several structures each is reweighted by itself, and their
    shares stay. **Raises:** DeclarationError, PastHorizon, InterventionError.
    """
    outcome = as_outcome(outcome)
    twin = dataclasses.replace(twin, draws=min(draws, *(f.count for f in twin.fits)))
    course = simulate_worlds([twin], names=(outcome.name,) if outcome.name else None)[0]
    values, settled = outcome.of(course), outcome.settled(course)
    groups = _groups(twin, windows)
    if not groups:
        raise InterventionError("explain: no stretch holds a reading. Give windows that cover the record's readings.")
    parts, at = [], 0
    for which, fit in enumerate(twin.fits):
        index = _drawn(twin, which, twin.draws_of(which))
        own = values[at : at + len(index)]
        at += len(index)
        parts.append((len(index), *_deleted(fit, index, own, groups, windows is None)))
    drawn = _redrawn(twin, outcome, groups, parts, anew)
    share = np.array([p[0] for p in parts]) / sum(p[0] for p in parts)
    table = np.tensordot(share, np.stack([p[1] for p in parts]), axes=1)  # (G, 5), see `_deleted`
    khat = np.max(np.stack([p[2] for p in parts]), axis=0)
    effective = np.min(np.stack([p[3] for p in parts]), axis=0)
    good = values[np.isfinite(values)]
    mean, sd = float(good.mean()), float(good.std())
    rows, problem = [], twin.fits[0].problem
    for g, (sensor, label, start, stop, inside) in enumerate(groups):
        without, square, local, per, gaussian = map(float, table[g])
        one = windows is None
        row = problem.used[sensor][inside[sensor][0]] if one else 0
        value = float(problem.bound.readings[sensor].value[row]) if one else float("nan")
        unit = twin.fits[0].model.unit_of(twin.fits[0].model.sensors[sensor].of) if one else ""
        left = np.sqrt(max(square - without**2, 0.0))
        spread = float(sd / left) if left > 0 else float("nan")
        rows.append(Reading(sensor, label, start, stop, sum(map(len, inside.values())), value, unit, mean - without, spread,
                            float(khat[g]), float(effective[g]), g in drawn, local, gaussian, per))  # fmt: skip
    return Influence(settled, tuple(rows), mean, sd, len(good))


def _kept(fit, groups):
    """Masks sensor -> (G, N): which readings are there without each group."""
    data = fit.problem.data
    keep = {n: np.ones((len(groups), len(data.seen[n].value)), bool) for n in data.read}
    for g, (*_, inside) in enumerate(groups):
        for name, rows in inside.items():
            keep[name][g, rows] = False
    return keep


def _redrawn(twin, outcome, groups, parts, anew) -> set[int]:
    """Draw the posterior anew without the groups that matter most of those the weights do not reach; in place.

    Returns the groups whose answer is now of such draws.
    """
    bad = [g for g in range(len(groups)) if any(p[2][g] > USABLE or p[3][g] < _FEW for p in parts)]
    bad.sort(key=lambda g: -max(float(p[2][g]) for p in parts))  # the slope of what rules alone is next to nothing
    found = set()
    for g in bad[:anew]:
        for which, (fit, part) in enumerate(zip(twin.fits, parts, strict=True)):
            if (part[2][g] <= USABLE and part[3][g] >= _FEW) or fit.kernel.size > _WIDEST:
                continue
            one = _kept(fit, [groups[g]])

            def density(z, fit=fit, one=one):
                _, left, _, rest = _evaluate(fit, z, one)
                return rest + left[:, 0] / fit.temper

            z = fit.z.reshape(-1, fit.z.shape[-1])
            full, left, _, _ = _evaluate(fit, z, one)
            logs = np.nan_to_num(-(full - left[:, 0]) / fit.temper, nan=-np.inf)
            z, logs, khat, effective = redraw(density, z, psis(logs)[0], generator(twin.key, 71 + g), _DRAWS)
            if khat > USABLE or effective < _FEW:
                continue
            values = outcome_at(twin, which, outcome, z)
            weights = np.where(np.isfinite(values), np.exp(logs), 0.0)
            weights /= weights.sum()
            values = np.where(np.isfinite(values), values, 0.0)
            part[1][g, :2] = weights @ values, weights @ values**2
            part[2][g], part[3][g] = khat, effective
            found.add(g)
    return found


def _deleted(fit, index, values, groups, one):
    """((G, 5) mean and mean square without each group, local shift, slope by its value, shift if all were Gaussian; (G,) k-hat;
    (G,) effective draws).
    """
    data, z = fit.problem.data, fit.z.reshape(-1, fit.z.shape[-1])[index]
    full, left, gradient, _ = _evaluate(fit, z, _kept(fit, groups))
    good = np.isfinite(values) & np.isfinite(full) & np.isfinite(left).all(axis=1)
    own, said = values[good], (full[:, None] - left)[good] / fit.temper  # what each group says: (n, G)
    logs, khat = psis(-said.T)
    weights = np.exp(logs)
    centered = own - own.mean()
    local = centered @ said / len(own)
    per = np.full(len(groups), np.nan)
    for g, (name, *_, inside) in enumerate(groups):
        if one and name in data.seen and not data.seen[name].censored[inside[name][0]]:
            per[g] = centered @ gradient[name][good, inside[name][0]] / len(own) / fit.temper
    leverage, shift = _gaussian(z[good], said, own)
    tail = np.maximum(khat, leverage)
    # Of few draws k-hat is known worse, and less of it passes (Vehtari 2024): told on the scale on which 0.7 is the limit.
    tail = tail + max(0.0, USABLE - (1.0 - 1.0 / np.log10(max(len(own), 11))))
    return np.stack([weights @ own, weights @ own**2, local, per, shift], axis=1), tail, kish(logs)


def _gaussian(z, said, own):
    """How much of the posterior's curvature each group brings, in the direction in which it brings most (G,), and how far the
    mean of `own` (n,) moves by the group if all is Gaussian (G,), NaN where that direction is the group's alone.

    Where all is Gaussian the first is the tail index of its weights exactly: 1 for a reading that rules alone. A tail that the
    draws do not show, because there are too few of them, shows in it. From a quadratic fit of what each group says, `said`
    (n, G).
    """
    n, d = z.shape
    values, vectors = np.linalg.eigh(np.cov(z, rowvar=False).reshape(d, d))
    u = (z - z.mean(axis=0)) @ (vectors / np.sqrt(np.maximum(values, 1e-300)))
    pairs = [(i, j) for i in range(d) for j in range(i, d)]
    if n < 3 * (len(pairs) + d + 1):
        pairs = [(i, i) for i in range(d)]
    design = np.column_stack([np.ones(n), u, *(u[:, i] * u[:, j] for i, j in pairs)])
    _, linear, found = np.split(np.linalg.lstsq(design, said, rcond=None)[0], [1, 1 + d])
    bent = np.zeros((said.shape[1], d, d))
    for (i, j), row in zip(pairs, found, strict=True):
        bent[:, i, j] -= row
        bent[:, j, i] -= row
    leverage = np.linalg.eigvalsh(bent)[:, -1]
    along = u.T @ (own - own.mean()) / n
    known = leverage < _ALONE
    left = np.where(known[:, None, None], np.eye(d) - bent, np.eye(d))
    shift = np.einsum("i,gij,jg->g", along, np.linalg.inv(left), linear)
    return leverage, np.where(known, shift, np.nan)
