"""A check of initial estimates: what the prior expects to be read, beside what was read, before any fit."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from hybridtwin.clock import Clock
from hybridtwin.engine import double, prepare
from hybridtwin.inference.readings import at_readings, prior_draws
from hybridtwin.keys import as_key, folded
from hybridtwin.model import Model


@dataclasses.dataclass(frozen=True, eq=False)
class Check:
    """Prior predictions at each sensor's readings: `modelled[name]` (draws, N), `observed[name]` (N,) at `time[name]` (N,)."""

    person: str
    modelled: dict[str, np.ndarray]
    observed: dict[str, np.ndarray]
    time: dict[str, np.ndarray]
    units: dict[str, str]
    failed: float
    clock: Clock

    def inside(self, name: str) -> float:
        """Share of the readings inside the prior's central 95 % of modelled values."""
        low, high = np.nanquantile(self.modelled[name], [0.025, 0.975], axis=0)
        return float(np.mean((self.observed[name] >= low) & (self.observed[name] <= high)))

    @property
    def ok(self) -> bool:
        """Could the readings have come from the prior?"""
        return all(self.inside(name) >= 0.5 for name in self.modelled) and self.failed < 0.1

    def to_dataframe(self):
        """One row a reading: sensor, time, what was read, quantiles of what the prior expects."""
        import pandas as pd

        parts = []
        for name, draws in self.modelled.items():
            low, middle, high = np.nanquantile(draws, [0.025, 0.5, 0.975], axis=0)
            row = {"sensor": name, "time": self.time[name], "unit": self.units[name], "observed": self.observed[name]}
            parts.append(pd.DataFrame(row | {"prior_q025": low, "prior_q50": middle, "prior_q975": high}))
        return pd.concat(parts, ignore_index=True)

    def plot(self):
        """Readings over what the prior expects; a matplotlib figure."""
        from hybridtwin import plots

        return plots.check(self)

    def __repr__(self):
        lines = [
            f"Check of {self.person}: the prior "
            + ("could have given these readings" if self.ok else "did not expect these readings")
        ]
        for name, draws in self.modelled.items():
            low, middle, high = np.nanquantile(draws, [0.025, 0.5, 0.975])
            seen = self.observed[name]
            factor = np.median(seen) / middle if middle else np.nan
            hint = f"; readings are {factor:.3g} times what is expected: a unit?" if not 0.2 < factor < 5 else ""
            lines.append(
                f"  {name}: expected {middle:.3g} ({low:.3g} to {high:.3g}) {self.units[name]}, read {np.median(seen):.3g} "
                f"({seen.min():.3g} to {seen.max():.3g}), {100 * self.inside(name):.0f} % inside{hint}"
            )
        if self.failed:
            lines.append(f"  {100 * self.failed:.0f} % of the prior's draws could not be solved")
        return "\n".join(lines)


def check(model: Model, person, *, key, draws: int = 128) -> Check:
    """Prior predictions over one person's readings. Errors as in `personalize`."""
    prepare()
    with double():
        problem = model.bind(person)
        z = prior_draws(problem.kernel, folded(as_key(key), 7), draws)
        loglik, _, modelled = at_readings(problem.kernel, z, jax.tree.map(jnp.asarray, problem.data))
    modelled = {name: m for name, m in modelled.items() if not model.sensors[name].decides}  # decisions are no values
    real = {name: problem.data.seen[name].mask for name in modelled}
    return Check(
        problem.bound.person,
        {n: m[:, real[n]] for n, m in modelled.items()},
        {n: problem.data.seen[n].value[real[n]] for n in modelled},
        {n: problem.bound.readings[n].time[problem.used[n]] for n in modelled},
        {n: model.unit_of(model.sensors[n].of) for n in modelled},
        float(np.mean(~np.isfinite(loglik))),
        problem.bound.clock,
    )
