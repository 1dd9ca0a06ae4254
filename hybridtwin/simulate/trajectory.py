"""What a simulation returns: labelled outputs over time, draw by draw, world by world."""

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np

from hybridtwin.clock import Clock
from hybridtwin.signals import Regimen
from hybridtwin.simulate.failures import Failures
from hybridtwin.units import factor, plain


@dataclasses.dataclass(frozen=True, eq=False)
class Act:
    """What one rule of care, or one switch of the system, did: `times` (draws, m) in the trajectory's time, NaN where it did not
    act (so often).
    """

    rule: str
    does: str  # "give", "stop", "titrate" or "switch"
    name: str  # of the dose or signal, or of the switch
    amount: float  # of each dose; NaN where something is stopped or where doses differ (`values`)
    unit: str
    times: np.ndarray
    values: np.ndarray | None = None  # (draws, m) by what later doses were multiplied; of a correction what was given
    ends: np.ndarray | None = None  # (draws, m) of a stop with `until`: when what it stopped went on, NaN where it did not
    listed: bool = False  # are the times a list of the whole day, of which a stretch of it fills in its own?

    def factor_at(self, t: float) -> np.ndarray:
        """(draws,) by what a titration multiplies a dose at time t; 1 before it first acted."""
        values = np.ones_like(self.times) if self.values is None else self.values
        done = np.sum(self.times <= t, axis=1)  # NaN is no time
        return np.where(done > 0, values[np.arange(len(values)), np.maximum(done - 1, 0)], 1.0)

    def off(self) -> tuple[np.ndarray, np.ndarray]:
        """Begin and end (draws, m) of the stretches that a stop keeps off; (inf, inf) where it did not act so often."""
        begin = np.where(np.isfinite(self.times), self.times, np.inf)
        return begin, np.full(begin.shape, np.inf) if self.ends is None else np.where(np.isfinite(self.ends), self.ends, np.inf)

    def total(self, start: float, stop: float) -> np.ndarray:
        """(draws,) how much it gave in [start, stop), in `unit`."""
        inside = (self.times >= start) & (self.times < stop)
        return np.sum(np.where(inside, self.amount if self.values is None else self.values, 0.0), axis=1)

    @property
    def count(self) -> np.ndarray:
        """How often it acted: (draws,)."""
        return np.isfinite(self.times).sum(axis=1)


@dataclasses.dataclass(frozen=True, eq=False)
class Trajectory:
    """Outputs of one world: `values[name]` has shape (draws, times), in `units[name]`; NaN rows are failed draws.

    `structure` (draws,) says which model each draw comes from; `error` is the largest relative change of any output
    when the steps were halved, among the draws that are not masked. `acts`: what the rules of care did, in the order of
    the rules, then the switches of the system. `failures`: which draws failed or missed the tolerance, when, where and why.
    `parameters`: path -> (draws,) of each body, where `simulate` drew it. `solver`: how it was integrated, and why so. `inputs`:
    doses and signals as decided in this world, before what rules of care made of them. `amounts`: dose -> (draws, doses), where
    each draw has amounts of its own.
    """

    time: np.ndarray
    values: Mapping[str, np.ndarray]
    units: Mapping[str, str]
    clock: Clock
    structure: np.ndarray
    failed: np.ndarray
    error: float
    label: str = "as lived"
    notes: tuple[str, ...] = ()
    acts: tuple[Act, ...] = ()
    failures: Failures = dataclasses.field(default_factory=Failures)
    parameters: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    solver: str = ""
    inputs: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    amounts: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def given(self, name: str, start: float | None = None, stop: float | None = None) -> np.ndarray:
        """(draws,) how much of a dose was given in [start, stop): as decided, as rules of care changed it, and by the rules.

        In the dose's unit; of a signal its integral. An infusion counts whole where it begins, a dose with a lag as it was when
        it was taken; uncertain amounts count as recorded. What a rule stopped counts again from the moment at which it went on.
        """
        if name not in self.inputs:
            raise KeyError(f"no dose or signal {name!r} in this world. There are: {', '.join(self.inputs) or 'none'}.")
        first = float(self.time[0]) if start is None else start
        last = float(self.time[-1]) if stop is None else stop
        acts = [act for act in self.acts if act.name == name]
        scales = [act for act in acts if act.does == "titrate"]
        stops = [act.off() for act in acts if act.does == "stop"]
        total = np.zeros(len(self.failed))
        decided = self.inputs[name]
        if isinstance(decided, Regimen):
            for i, dose in enumerate(decided.doses):
                amount = self.amounts[name][:, i] if name in self.amounts else dose.amount
                if first <= dose.time < last and amount is not None:
                    left = np.prod([act.factor_at(dose.time) for act in scales], axis=0) if scales else 1.0
                    off = [((begin <= dose.time) & (dose.time < end)).any(axis=1) for begin, end in stops]
                    stopped = np.any(off, axis=0) if off else False
                    total = total + np.where(stopped, 0.0, amount * left)
        else:
            total = total + self._flowed(decided, scales, stops, first, last)
        for act in acts:
            if act.does == "give":
                total = total + act.total(first, last) * factor(act.unit, decided.unit)
        return np.where(self.failed, np.nan, total)

    def _flowed(self, signal, scales, stops, first, last) -> np.ndarray:
        """(draws,) the integral of a signal, cut where rules changed it."""
        found = np.zeros(len(self.failed))
        for i in range(len(found)):
            off = [pair for begin, end in stops for pair in zip(begin[i], end[i], strict=True)]
            changes = [*(t for act in scales for t in act.times[i]), *itertools.chain.from_iterable(off)]
            edges = [first, *sorted({float(t) for t in changes if first < t < last}), last]
            for a, b in itertools.pairwise(edges):
                if not any(begin <= a < end for begin, end in off):
                    found[i] += signal.integral(a, b) * float(np.prod([act.factor_at(a)[i] for act in scales]))
        return found

    def acted(self):
        """What the rules of care did, one row an act: draw, time, at (clock), rule, does, name, amount (or factor), unit."""
        import pandas as pd

        rows = [
            {"draw": int(i), "time": float(t), "at": self.clock.label(float(t)), "rule": act.rule, "does": act.does,
             "name": act.name, "amount": act.amount if act.values is None else float(act.values[i, j]), "unit": act.unit}
            for act in self.acts
            for i, row in enumerate(act.times)
            for j, t in enumerate(row[np.isfinite(row)])
        ]  # fmt: skip
        return pd.DataFrame(rows, columns=["draw", "time", "at", "rule", "does", "name", "amount", "unit"])

    def __getitem__(self, name: str) -> np.ndarray:
        """Values of one output, (draws, times)."""
        if name not in self.values:
            raise KeyError(f"no output {name!r}. Outputs: {', '.join(self.values)}.")
        return self.values[name]

    def quantile(self, name: str, q) -> np.ndarray:
        """Quantiles over the draws that could be solved: (..., times)."""
        return np.quantile(self[name][~self.failed], q, axis=0)

    def to_xarray(self):
        """An `xarray.Dataset` with dims draw and time; units in the attributes."""
        import xarray as xr

        data = {name: (("draw", "time"), v, {"units": self.units[name]}) for name, v in self.values.items()}
        coords = {"time": ("time", self.time, {"units": self.clock.unit}), "structure": ("draw", self.structure)}
        return xr.Dataset(data, coords, {"world": self.label})

    def to_dataframe(self):
        """One row a time: median and 90 % interval of each output."""
        import pandas as pd

        columns = {"time": self.time}
        for name in self.values:
            low, middle, high = self.quantile(name, [0.05, 0.5, 0.95])
            columns |= {name: middle, f"{name}_q05": low, f"{name}_q95": high}
        return pd.DataFrame(columns)

    def plot(self, *names, ax=None):
        """Median and 90 % band of outputs over time; returns the matplotlib figure."""
        from hybridtwin import plots

        return plots.trajectory(self, names or (next(iter(self.values)),), ax=ax)

    def __repr__(self):
        solved = int((~self.failed).sum())
        lines = [
            f"Trajectory ({self.label}): {len(self.time)} times from {self.clock.label(float(self.time[0]))} to "
            f"{self.clock.label(float(self.time[-1]))}, {solved} of {len(self.failed)} draws solved"
        ]
        for name in self.values:
            if solved:
                low, middle, high = np.quantile(self[name][~self.failed], [0.05, 0.5, 0.95])
                told = f"{plain(middle, 4)} (90 % of values {plain(low, 4)} to {plain(high, 4)})"
                lines.append(f"  {name} [{self.units[name]}]: {told}")
        solver = [f"  solved by {self.solver}"] if self.solver else []
        return "\n".join([*lines, *solver, *(f"  {note}" for note in self.notes)])
