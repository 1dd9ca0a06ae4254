"""Several worlds of one twin side by side: one axis of scenarios on every result.

S scenarios are S worlds (S solves of the same draws with the same noise, on the union of their nodes), not combinations of
interventions. The first is what the others are compared with.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from hybridtwin.causal import grounds
from hybridtwin.errors import DeclarationError, UnrelatedTwins
from hybridtwin.fit import Verdict
from hybridtwin.outcomes import Outcome, as_outcome
from hybridtwin.twin import Twin, simulate_worlds


@dataclasses.dataclass(frozen=True, eq=False)
class Scenarios(Mapping):
    """Worlds of one twin by name; the first is the reference. Made by `scenarios` and `care`."""

    worlds: Mapping[str, Twin]

    def __getitem__(self, name: str) -> Twin:
        return self.worlds[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.worlds)

    def __len__(self) -> int:
        return len(self.worlds)

    @property
    def reference(self) -> str:
        """The name of the first."""
        return next(iter(self.worlds))

    @property
    def verdict(self) -> Verdict:
        """Of the twin; what a comparison adds is in `contrast`."""
        return self.worlds[self.reference].verdict

    def simulate(self, at=None, *, prior: bool = False):
        """All worlds at the same times: an `xarray.Dataset` with dims scenario, draw, time; units in the attributes."""
        import xarray as xr

        courses = simulate_worlds(list(self.worlds.values()), at=at, prior=prior)
        each = [course.to_xarray().drop_attrs(deep=False) for course in courses]
        return xr.concat(each, xr.Variable("scenario", list(self.worlds)))

    def table(self, *outcomes: Outcome):
        """One row a scenario and outcome, as a data frame: median and 90 % interval, difference from the first, P(better).

        Under DO NOT USE the numbers are missing.
        """
        import pandas as pd

        asked = [as_outcome(o) for o in outcomes]
        if not asked:
            raise DeclarationError("a table of what? Give at least one outcome, such as ht.outcomes.peak('G').")
        courses = dict(zip(self.worlds, simulate_worlds(list(self.worlds.values())), strict=True))
        refused, rows = self.verdict.headline == "DO NOT USE", []
        for outcome in asked:
            first, told = outcome.of(courses[self.reference]), outcome.settled(courses[self.reference])
            for name, course in courses.items():
                value = outcome.of(course)
                row: dict[str, Any] = {"scenario": name, "outcome": told.label, "unit": told.unit, "better": told.better}
                numbers = _summed("", value) | _summed("difference", value - first if name != self.reference else None)
                numbers["p_better"] = grounds.better(value - first, told.better) if name != self.reference else np.nan
                rows.append(row | (dict.fromkeys(numbers, np.nan) if refused else numbers) | {"verdict": self.verdict.headline})
        return pd.DataFrame(rows)

    def plot(self, output: str | None = None):
        """Median and 90 % band of one output in every world; a matplotlib figure."""
        from hybridtwin.plots import scenarios

        return scenarios.scenarios(self, output)

    def __repr__(self):
        width = max(map(len, self.worlds))
        lines = [f"Scenarios of {self.worlds[self.reference].id}, compared with {self.reference!r}:"]
        return "\n".join([*lines, *(f"  {name:<{width}}  {world.label}" for name, world in self.worlds.items())])


def _summed(word, values) -> dict[str, float]:
    names = [f"{word}_{q}" if word else q for q in ("q05", "q50", "q95")]
    if values is None or not np.isfinite(values).any():
        return dict.fromkeys(names, np.nan)
    return dict(zip(names, map(float, np.nanquantile(values, [0.05, 0.5, 0.95])), strict=True))


def scenarios(worlds: Mapping[str, Twin] | None = None, **named: Twin) -> Scenarios:
    """Worlds of one twin side by side, the first for comparison: `ht.scenarios(lived=twin, earlier=twin.do(...))`.

    **Raises:** DeclarationError for none or for what is no twin, UnrelatedTwins where they are not of one twin on one day.
    """
    found = {**(worlds or {}), **named}
    if not found or not all(isinstance(world, Twin) for world in found.values()):
        raise DeclarationError("scenarios are twins by name. Write ht.scenarios(lived=twin, earlier=twin.do(...)).")
    first = next(iter(found.values()))
    for name, world in found.items():
        if world.root != first.root:
            raise UnrelatedTwins(f"scenario {name!r} is no world of the same twin on the same day. Make it with twin.do(...).")
    return Scenarios(found)


def care(twin: Twin, respond, **do) -> Scenarios:
    """What care makes of a treatment: as lived, with later care frozen as it was lived, and with care that reacts by rules.

    **Arguments:** `respond`: a rule of care or several (`Rescue`, `When`, `Titrate`); `do`: the treatment, as in `twin.do`.

    Ask the dose too (`ht.outcomes.given`): where care reacts, a treatment may change that instead of the outcome.
    """
    return scenarios(lived=twin, frozen=twin.do(**do), reactive=twin.do(respond=respond, **do))
