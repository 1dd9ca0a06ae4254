r"""Simulation-based calibration: does a method find what the model itself made up?

Bodies are drawn from the prior, each is given the person's own design (doses, times of readings) and readings of its own, and
is personalized. If the computation is right, the rank of the true value among the posterior draws is uniform, for every
unknown *and* for quantities that depend on the data: the log likelihood finds the errors that leave the posterior at its prior.
(Talts et al. 2018, arXiv:1804.06788; Modrak et al. 2023, doi:10.1214/23-BA1404; envelopes: Säilynoja et al. 2022,
doi:10.1007/s11222-022-10090-6.)
"""

import dataclasses
import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hybridtwin.engine import double, prepare
from hybridtwin.errors import DeclarationError, ParameterError, RecordError
from hybridtwin.inference.personalize import personalize
from hybridtwin.inference.readings import at_readings, prior_draws, values_of
from hybridtwin.keys import as_key, folded
from hybridtwin.model import Model, bind
from hybridtwin.records import Cohort, Person, Series
from hybridtwin.units import time_factor

LIKELIHOOD, PRIOR = "log likelihood", "log prior"  # test quantities that depend on data and on all unknowns together


def deviations(ranks, draws: int):
    """ECDF of ranks (R,) among `draws` + 1 places, less that of uniform ranks: (draws + 1,)."""
    counts = np.bincount(np.asarray(ranks, int), minlength=draws + 1)[: draws + 1]
    return np.cumsum(counts) / len(ranks) - np.arange(1, draws + 2) / (draws + 1)


def envelope(replicates: int, draws: int, level: float = 0.95, simulated: int = 4000):
    """Simultaneous band of `deviations`: (lower, upper), each (draws + 1,).

    A pointwise band widened until `level` of the simulated uniform rank sets stay inside everywhere.
    """
    rng = np.random.default_rng(0)
    curves = np.array([deviations(rng.integers(0, draws + 1, replicates), draws) for _ in range(simulated)])[:, :-1]
    place = np.argsort(np.argsort(curves, axis=0, kind="stable"), axis=0, kind="stable") / (simulated - 1)
    outermost = np.quantile(np.minimum(place, 1 - place).min(axis=1), 1 - level)
    low, high = np.quantile(curves, [outermost, 1 - outermost], axis=0)
    return np.append(low, 0.0), np.append(high, 0.0)


@dataclasses.dataclass(frozen=True, eq=False)
class Calibration:
    """Ranks of the truth among posterior draws: `ranks[name]` (R,), each in 0 to `draws`.

    `failed` counts bodies of the prior that could not be solved, so that there were no readings to learn from; `red` counts
    replicates whose verdict on the computation was DO NOT USE: they are ranked like the others, for leaving them out would
    choose among the replicates.
    """

    model: str
    method: str
    ranks: dict[str, np.ndarray]
    draws: int
    failed: int
    red: int
    level: float = 0.95

    @property
    def replicates(self) -> int:
        """Replicates that were ranked."""
        return len(next(iter(self.ranks.values())))

    def p_values(self) -> dict[str, float]:
        """How often uniform ranks stray as far from uniform, by the largest deviation of the ECDF."""
        rng, n = np.random.default_rng(1), self.replicates
        uniform = np.array(
            [np.abs(deviations(rng.integers(0, self.draws + 1, n), self.draws)).max() for _ in range(4000)]
        )
        return {k: float(np.mean(uniform >= np.abs(deviations(r, self.draws)).max() - 1e-12)) for k, r in self.ranks.items()}

    @property
    def ok(self) -> bool:
        """Is every quantity calibrated? The smallest p-value is held against the number of quantities (Bonferroni)."""
        p = self.p_values()
        return min(p.values()) * len(p) > 1 - self.level

    def _shape(self, ranks) -> tuple[float, float, float]:
        """Largest deviation of the ECDF; mean of the ranks less a half; their sd over that of uniform ranks."""
        u, far = (ranks + 0.5) / (self.draws + 1), deviations(ranks, self.draws)
        return float(far[np.abs(far).argmax()]), float(u.mean() - 0.5), float(u.std() * np.sqrt(12))

    def to_dataframe(self):
        """One row a quantity: p-value, largest deviation of the ECDF, mean and sd of the ranks over their uniform values."""
        import pandas as pd

        p, rows = self.p_values(), []
        for name, ranks in self.ranks.items():
            far, mean, spread = self._shape(ranks)
            rows.append({"quantity": name, "p": p[name], "deviation": far, "mean": mean, "spread": spread})
        return pd.DataFrame(rows).set_index("quantity")

    def plot(self):
        """ECDF differences of all quantities over their simultaneous envelope; a matplotlib figure."""
        from hybridtwin.plots import calibration

        return calibration.calibration(self)

    def __repr__(self):
        p = self.p_values()
        told = "calibrated" if self.ok else "NOT calibrated"
        lines = [f"Calibration of {self.method} on {self.model}: {told}; {self.replicates} replicates of {self.draws} draws"
                 + (f", {self.failed} bodies could not be solved" if self.failed else "")
                 + (f", {self.red} computed badly (DO NOT USE)" if self.red else "")]  # fmt: skip
        for name in sorted(p, key=p.__getitem__):
            far, mean, spread = self._shape(self.ranks[name])
            width = "too wide" if spread < 0.9 else "too narrow" if spread > 1.1 else ""
            side = "too low" if mean > 0.06 else "too high" if mean < -0.06 else ""
            hint = "; draws " + " and ".join(filter(None, (width, side))) if (width or side) and p[name] < 0.05 else ""
            lines.append(f"  {name}: p = {p[name]:.3f}, ECDF off by {far:+.3f}{hint}")
        return "\n".join(lines)


def calibrate(model: Model, person: Person, method=None, *, key, replicates=256, draws=100, progress=True) -> Calibration:
    """Simulation-based calibration of a method on a model, at the design of one record.

    **Arguments:** `person`: gives doses, covariates and times of readings (its values are replaced); `method`: as in
    `personalize`; `replicates`: simulated bodies; `draws`: posterior draws kept of each, evenly spaced, so that ranks run
    from 0 to `draws`.

    **Raises:** ParameterError for fewer than 20 replicates or draws; RecordError where the record has censored readings
    (their limits are no part of the model); DeclarationError for a model with policies; errors of `personalize`.
    """
    if min(replicates, draws) < 20:
        raise ParameterError("calibrate needs at least 20 replicates and 20 draws. Leave them out for the defaults.")
    if decided := [name for name, sensor in model.sensors.items() if sensor.decides]:
        raise DeclarationError(
            f"calibrate gives every simulated body the doses of one record, but in this model {decided[0]!r} decides on them by "
            "the body. Calibrate the model without its policies."
        )
    prepare()
    root = as_key(key)
    with double():
        problem = bind(model, person)
        if any(np.any(seen.censored) for seen in problem.data.seen.values()):
            raise RecordError("calibrate: the record has censored readings, whose limits are not simulated", person=person.id,
                              remedy="Give a record without them, such as person.without(...)")  # fmt: skip
        truth, people, lost = _simulated(problem, folded(root, 8), replicates)
    twins = personalize(model, Cohort(people), method, key=root, progress=progress)
    fits = [twin.fits[0] for twin in twins.values()]
    ranks = [_ranks(fit, z, draws) for z, fit in zip(truth, fits, strict=True)]
    red = sum(fit.parts["computed"].level == "DO NOT USE" for fit in fits)
    columns = {name: np.array([r[name] for r in ranks]) for name in ranks[0]}
    return Calibration(model.name, type(fits[0].method).__name__, columns, draws, lost, red)


def _simulated(problem, key, count):
    """Bodies of the prior with readings of their own: (coordinates (R, d), people, how many could not be solved)."""
    kernel, data = problem.kernel, jax.tree.map(jnp.asarray, problem.data)
    z = prior_draws(kernel, key, count)
    finer = kernel.stepper.refined()
    _, _, modelled = at_readings(kernel, z, data, substeps=1 if finer is None else 4)
    values = values_of(kernel, z)
    read = {}
    for i, name in enumerate(sorted(modelled)):
        keys = jax.random.split(folded(key, 1000 + i), count)

        def one(k, mean, own, name=name):
            return kernel.sensor_of(name, own).sample(k, mean, data.seen[name])

        own = {s: jnp.asarray(values[s]) for s in kernel.sites_of(name)}
        read[name] = np.array(jax.jit(jax.vmap(one))(keys, jnp.asarray(modelled[name]), own))
    solved = np.all([np.isfinite(v).all(axis=1) for v in read.values()], axis=0)
    kept = np.flatnonzero(solved)
    if not len(kept):
        raise ParameterError("calibrate: no body of the prior could be solved. Look at ht.check(model, person, key=0).")
    return z[kept], [_person(problem, {n: v[r] for n, v in read.items()}, r) for r in kept], int(count - len(kept))


def _person(problem, read: dict[str, Any], number) -> Person:
    """The record with other readings, in the model's units; rows that the likelihood leaves out are left out."""
    person, model = problem.person, problem.model
    scale = time_factor(model.spec.time, person.clock.unit)
    series = dict(person.series)
    for name, values in read.items():
        readings, rows = problem.bound.readings[name], problem.used[name]
        source = name if name in person.series else "DV"
        series[source] = Series.of(readings.time[rows] * scale, values, readings.unit, order=readings.order[rows] - 1,
                                   session=readings.session[rows])  # fmt: skip
    return dataclasses.replace(person, id=f"{person.id} #{number}", series=series)


def _ranks(fit, z, draws) -> dict[str, int]:
    """Ranks of the true coordinates among `draws` evenly spaced posterior draws, and of log likelihood and log prior."""
    kernel, data = fit.kernel, jax.tree.map(jnp.asarray, fit.problem.data)
    flat = fit.z.reshape(-1, fit.z.shape[-1])
    flat = flat[np.linspace(0, len(flat) - 1, draws).round().astype(int)]
    with double():
        every = np.concatenate([z[None], flat])
        finer = kernel.stepper.refined()
        loglik = at_readings(kernel, every, data, substeps=1 if finer is None else 2)[0]
        prior = np.array(jax.vmap(kernel.log_prior)(jnp.asarray(every)))
    rng = np.random.default_rng(zlib.crc32(fit.problem.person.id.encode()))  # ties of discrete quantities are broken by chance

    def rank(value, others):
        return int((others < value).sum() + rng.integers(0, (others == value).sum() + 1))

    found = {name: rank(z[i], flat[:, i]) for i, name in enumerate(kernel.names)}
    return found | {LIKELIHOOD: rank(loglik[0], loglik[1:]), PRIOR: rank(prior[0], prior[1:])}
