"""What goes into a body over time: doses (Regimen) and continuous inputs (Signal).

Everything here is immutable, lives on the host, and is NumPy float64. Times are numbers in the time unit of
the owner (`Regimen.time`, `Signal.time`; None means "of whoever resolves me") or clock text such as "11:30",
which only a record can turn into a number: `resolve(clock, time_unit, unit)` does it once, at the edge.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hybridtwin import units
from hybridtwin.clock import Clock, Moment, Span, is_real, span
from hybridtwin.errors import (
    AmbiguousDose,
    AmbiguousTime,
    ImplausibleValue,
    InterventionError,
    MissingValue,
    NotANumber,
    TimeOrder,
    UnitError,
)

__all__ = ["Clock", "Dose", "Regimen", "Signal"]


# ---------------------------------------------------------------------------------------------- doses


@dataclass(frozen=True)
class Dose:
    """One administration. Numbers are in the units of the Regimen that holds it.

    time: when it starts (number, clock text or datetime; floats once resolved).
    amount: how much; None is "given, but nobody wrote down how much" (latent, never 0).
    duration: 0 is a bolus; else an infusion that takes this long, whatever fraction is absorbed.
    rate: amount per time; an infusion of F * amount / rate. Exclusive with `duration`.
    ii, addl, ss: interval, number of further doses, steady state (1 resets the state, 2 adds), as in NONMEM.
        ss with amount 0 and a rate is an infusion since for ever that ends at `time`.
    order: rank among events at an equal time; a record gives its own order.
    modelled: "rate" or "duration" when the system declares it (NONMEM's RATE -1, -2).
    amount_sd: standard deviation of log(amount); time_sd: standard deviation of the time (time unit).
    prior: (median, log-sd) of a missing amount. moved: seconds to add once the time is a number.
    latent: index into `Bound.latent`, set when a record is bound.
    """

    time: Any  # a Moment until resolved, then a float; so are duration, ii (Span) and rate
    amount: float | None
    duration: Any = 0.0
    rate: Any = None
    ii: Any = 0.0
    addl: int = 0
    ss: int = 0
    order: int = 0
    row: int | None = None
    product: str | None = None
    modelled: str | None = None
    amount_sd: float = 0.0
    time_sd: float = 0.0
    prior: tuple[float, float] | None = None
    moved: float = 0.0
    latent: int | None = None

    def __post_init__(self):
        place = {"row": self.row}
        if self.amount is not None:
            if not is_real(self.amount):
                raise NotANumber(f"the amount {self.amount!r} is not a number", remedy="Give a number, or None if "
                                 "it is unknown", **place)
            if not math.isfinite(self.amount):
                raise MissingValue(f"the amount of a dose is {self.amount}",
                                   remedy="Give a number, or None if it is unknown", **place)
            if self.amount < 0:
                raise ImplausibleValue(f"the amount {self.amount:g} of a dose is negative",
                                       remedy="Amounts are 0 or more", **place)
        if is_real(self.duration) and not self.duration >= 0:
            raise ImplausibleValue(f"the duration {self.duration:g} of an infusion is negative or no number",
                                   remedy="Leave it out for a bolus", **place)
        if self.rate is not None and _positive(self.duration):
            raise AmbiguousDose("a dose has a rate and a duration. Give one of the two.")
        if is_real(self.rate) and self.rate <= 0:
            raise ImplausibleValue(f"the rate {self.rate:g} of an infusion is not positive",
                                   remedy="Leave it out for a bolus", **place)
        if self.addl < 0 or (self.addl and not _positive(self.ii)):
            raise ImplausibleValue(f"{self.addl} additional doses every {self.ii}", remedy="Give addl >= 0 and an "
                                   "interval ii > 0", **place)
        if self.ss not in (0, 1, 2) or (self.ss and not _positive(self.ii) and not (self.amount == 0 and self.rate)):
            raise ImplausibleValue(f"steady state {self.ss} with an interval of {self.ii}",
                                   remedy="ss is 0, 1 or 2 and needs an interval ii > 0", **place)

    @property
    def bolus(self) -> bool:
        """Whether all of it is given at once."""
        return self.rate is None and self.modelled is None and not _positive(self.duration)


def _positive(value: Span) -> bool:
    return bool(str(value).strip()) if isinstance(value, str) else value > 0


def _each(at, amount) -> list[tuple[Any, Any]]:
    """(time, amount) of each dose, from one of both, one amount at several times, or an amount for each."""
    moments = list(at) if isinstance(at, (list, tuple, np.ndarray)) else [at]
    amounts = list(amount) if isinstance(amount, (list, tuple, np.ndarray)) else [amount] * len(moments)
    if len(amounts) != len(moments):
        raise AmbiguousDose(f"{len(amounts)} amounts at {len(moments)} times. Give one amount, or one per time.")
    return [(_plain(t), _plain(a)) for t, a in zip(moments, amounts, strict=True)]


@dataclass(frozen=True)
class Regimen:
    """What is decided: doses of one input, in `unit` (amount) and `time` (unit of the numbers; None: the caller's)."""

    doses: tuple[Dose, ...]
    unit: str
    time: str | None = None
    clock: Clock | None = field(default=None, compare=False)

    @classmethod
    def none(cls, unit: str) -> "Regimen":
        """No dose at all."""
        units.parse(unit)
        return cls((), unit)

    @classmethod
    def bolus(cls, amount, unit: str, *, at, product: str | None = None) -> "Regimen":
        """`amount` (unit) at once at `at`: number, clock text or datetime; lists of both give several doses."""
        units.parse(unit)
        return cls(tuple(Dose(t, a, product=product) for t, a in _each(at, amount)), unit)

    @classmethod
    def infusion(cls, amount, unit: str, *, at, over: Span | None = None,
                 rate: float | str | None = None, product: str | None = None) -> "Regimen":
        """`amount` (unit) from `at` on, either `over` a time or at a `rate` (number in unit/time, or "1 g/h").

        Lists of amounts and times give several infusions, alike in `over` or `rate`.
        """
        units.parse(unit)
        if (over is None) == (rate is None):
            raise AmbiguousDose('an infusion needs either over="15 min" or rate="1 g/h". Give exactly one of the two.')
        over = 0.0 if over is None else over
        return cls(tuple(Dose(t, a, duration=over, rate=rate, product=product) for t, a in _each(at, amount)), unit)

    @staticmethod
    def grid(dose, unit: str, *, first, every=None, step: float | None = None, over: Span | None = None,
             max_rate: str | None = None, max_total: str | None = None):
        """Regimens that can be delivered, to choose among (`ht.candidates`, `ht.optimize`): every dose, first time and interval.

        dose: amounts in `unit`, such as range(500, 2001, 250); with `step` each is rounded to a multiple of it.
        first: time of the first dose, or a list of times. every: interval or a list of them (until the day ends);
        left out: a single dose. over: length of an infusion. max_rate: "1 g/h": an infusion as long as this needs, rounded
        up to 15 min. max_total: "4 g" in all or "4 g/d" in any day: what is more is left out, and told.
        Errors: DeclarationError, UnitError.
        """
        from hybridtwin.causal.candidates import Grid
        units.parse(unit)
        return Grid.of(dose, unit, first=first, every=every, step=step, over=over, max_rate=max_rate, max_total=max_total)

    def every(self, interval: Span, *, times: int) -> "Regimen":
        """Each dose given `times` times in all, every `interval`."""
        if times < 1 or any(d.addl for d in self.doses):
            raise InterventionError("every() repeats single doses at least once. Give times >= 1, and call it once.")
        return self._map(lambda d: dataclasses.replace(d, ii=interval, addl=times - 1))

    def steady(self, *, every: Span) -> "Regimen":
        """Each dose as the latest of a series given every `every` since for ever."""
        return self._map(lambda d: dataclasses.replace(d, ii=every, ss=1))

    def modelled(self, part: str = "duration") -> "Regimen":
        """Each dose over the duration (or at the "rate") that its route in the system declares: NONMEM's RATE -2 (or -1)."""
        if part not in ("duration", "rate"):
            raise InterventionError(f'a modelled {part!r}. A route may model the "duration" or the "rate" of a dose; name one.')
        return self._map(lambda d: dataclasses.replace(d, modelled=part, duration=0.0, rate=None))

    def shift(self, by: Span, unit: str | None = None) -> "Regimen":
        """Every dose later by `by` (negative: earlier): a number with its unit, or text such as "-20 min"."""
        seconds = _seconds(by, unit or self.time)

        def later(dose):
            if self.time is not None and is_real(dose.time):
                return dataclasses.replace(dose, time=dose.time + seconds * units.time_factor("s", self.time))
            return dataclasses.replace(dose, moved=dose.moved + seconds)
        return self._map(later)

    def only(self, start: Moment, stop: Moment) -> "Regimen":
        """The doses that begin in [start, stop)."""
        inside = self._window(start, stop)
        return dataclasses.replace(self, doses=tuple(d for d in self.doses if inside(d)))

    def without(self, start: Moment, stop: Moment) -> "Regimen":
        """The doses that do not begin in [start, stop)."""
        inside = self._window(start, stop)
        return dataclasses.replace(self, doses=tuple(d for d in self.doses if not inside(d)))

    def _window(self, start, stop) -> Callable[[Dose], bool]:
        clock = self.clock
        if clock is None and any(not is_real(x) for x in (start, stop, *(d.time for d in self.doses))):
            raise AmbiguousTime("which day? this regimen is not tied to a record yet",
                                remedy="Use numbers, or select inside do(...) where the record's clock is known")
        low, high = (x if clock is None else clock.at(x) for x in (start, stop))
        return lambda dose: low <= dose.time < high

    def __add__(self, other: "Regimen") -> "Regimen":
        """Both. Amounts take the unit of the left."""
        if not isinstance(other, Regimen):
            return NotImplemented
        k = units.factor(other.unit, self.unit)
        time = self.time or other.time
        both = self._timed(time, other.clock).doses + (other * k if k != 1.0 else other)._timed(time, self.clock).doses
        if time is not None and all(is_real(d.time) and not d.moved for d in both):
            both = tuple(sorted(both, key=lambda d: (d.time, d.order)))
        return Regimen(both, self.unit, time, self.clock or other.clock)

    def _timed(self, unit: str | None, clock: Clock | None) -> "Regimen":
        """The same with its bare times in `unit`; where it names none they count as questions to `clock` do, if they differ."""
        own = self.time or (clock.bare if clock is not None else None)
        if unit is None or own is None or own == unit:
            return self
        c = units.time_factor(own, unit)
        return self._map(lambda d: _retimed(d, c))

    def __mul__(self, factor: float) -> "Regimen":
        """Every amount times `factor`, over the same time (an infusion's rate changes, not its duration)."""
        if not is_real(factor):
            return NotImplemented
        return self._map(lambda d: _scaled(d, float(factor)))

    __rmul__ = __mul__

    def __len__(self) -> int:
        return len(self.doses)

    def __iter__(self):
        return iter(self.doses)

    def _map(self, change) -> "Regimen":
        return dataclasses.replace(self, doses=tuple(change(d) for d in self.doses))

    @property
    def total(self) -> float:
        """Sum of the known amounts, in `unit`, repeats included."""
        return float(sum((d.amount or 0.0) * (1 + d.addl) for d in self.doses))

    def resolve(self, clock: Clock, time_unit: str, unit: str, of: str | None = None) -> "Regimen":
        """The same doses with float times in `time_unit`, amounts in `unit`, repeats (addl) written out.

        Steady state stays a flag of its dose. Sorted by (time, order). `of` names the substance where mass
        must become amount. Errors: UnitError, AmbiguousTime.
        """
        own = self.time or clock.bare or clock.unit
        clock = clock.to(time_unit)
        k, c = units.factor(self.unit, unit, of=of), units.time_factor(own, time_unit)
        found = []
        for dose in self.doses:
            at = dose.time * c if is_real(dose.time) else clock.at(dose.time, row=dose.row)
            at += dose.moved * units.time_factor("s", time_unit)
            every = span(dose.ii, time_unit) if isinstance(dose.ii, str) else dose.ii * c
            over = span(dose.duration, time_unit) if isinstance(dose.duration, str) else dose.duration * c
            if over < 0:
                raise ImplausibleValue(f"the duration {dose.duration} of an infusion is negative",
                                       remedy="Leave it out for a bolus", row=dose.row)
            rate = _rate(dose.rate, k / c, f"{unit}/{time_unit}", of)
            first = dataclasses.replace(
                dose, time=float(at), amount=None if dose.amount is None else dose.amount * k, duration=over,
                rate=rate, ii=every if dose.ss else 0.0, addl=0, moved=0.0, time_sd=dose.time_sd * c,
                prior=None if dose.prior is None else (dose.prior[0] * k, dose.prior[1]))
            found.append(first)
            found += [dataclasses.replace(first, time=first.time + n * every, ss=0, ii=0.0)
                      for n in range(1, dose.addl + 1)]
        return Regimen(tuple(sorted(found, key=lambda d: (d.time, d.order))), unit, time_unit, clock)

    def table(self) -> list[dict]:
        """One row (dict) per dose, for people: time, amount, unit and what else was said."""
        rows = []
        for d in self.doses:
            at = self.clock.label(d.time) if self.clock and is_real(d.time) else d.time
            row = {"time": at, "amount": "?" if d.amount is None else d.amount, "unit": self.unit}
            row |= {key: getattr(d, key) for key in ("duration", "rate", "ii", "addl", "ss", "product", "modelled")
                    if getattr(d, key)}
            rows.append(row)
        return rows

    def __repr__(self) -> str:
        if not self.doses:
            return f"Regimen: no dose ({self.unit})"
        unknown = sum(d.amount is None for d in self.doses)
        head = f"Regimen of {len(self)} dose{'s' * (len(self) > 1)}, {self.total:g} {self.unit} in all"
        lines = [head + (f", {unknown} of unknown amount" if unknown else "")]
        for row in self.table()[:8]:
            extra = ", ".join(f"{k} {v}" for k, v in row.items() if k not in ("time", "amount", "unit"))
            at = f"{row['time']:g} {self.time or ''}".strip() if is_real(row["time"]) else str(row["time"])
            amount = row["amount"] if row["amount"] == "?" else f"{row['amount']:g}"
            lines.append(f"  {at}  {amount} {self.unit}" + (f"  ({extra})" if extra else ""))
        return "\n".join(lines + ["  ..."] * (len(self) > 8))


def _seconds(by: Span, unit: str | None) -> float:
    """How far to shift: text with its own unit, or a number in `unit`."""
    if is_real(by) and unit is None:
        raise UnitError('shift by how much? Write shift(-20, "min").')
    return span(by, "s") if isinstance(by, str) else span(by, unit) * units.time_factor(unit or "s", "s")


def _plain(value):
    return value.item() if isinstance(value, np.generic) else value


def _scaled(dose: Dose, k: float) -> Dose:
    rate = dose.rate
    if isinstance(rate, str):
        number, unit = _quantity(rate)
        rate = f"{number * k!r} {unit}"
    elif rate is not None:
        rate = rate * k
    return dataclasses.replace(dose, amount=None if dose.amount is None else dose.amount * k,
                               rate=rate if k > 0 else None,
                               prior=None if dose.prior is None else (dose.prior[0] * k, dose.prior[1]))


def _retimed(dose: Dose, c: float) -> Dose:
    def over(value):
        return value * c if is_real(value) else value
    rate = dose.rate / c if is_real(dose.rate) else dose.rate
    return dataclasses.replace(dose, time=over(dose.time), duration=over(dose.duration), ii=over(dose.ii), rate=rate,
                               time_sd=dose.time_sd * c)


def _quantity(text: str) -> tuple[float, str]:
    number, _, unit = text.strip().partition(" ")
    try:
        return float(number), unit.strip()
    except ValueError as error:
        raise UnitError(f'cannot read {text!r} as a quantity. Write a number, a space and a unit: "1 g/h".') from error


def _rate(rate, k, unit, of):
    if isinstance(rate, str):
        number, given = _quantity(rate)
        return number * units.factor(given, unit, of=of)
    return None if rate is None else rate * k


# -------------------------------------------------------------------------------------------- signals


@dataclass(frozen=True, eq=False)
class Signal:
    """An input over time, piecewise linear: constants, steps, straight lines, and their sums.

    starts, left, right: when each piece begins, its value there, and its value just before the next piece.
    Right-continuous; before the first piece the first value holds, and the last piece holds for ever.
    `time` is the unit of the numbers in `starts` (None: the caller's).
    """

    starts: tuple[Any, ...]  # Moments until resolved, then floats
    left: Any  # array-likes become (N,) float64
    right: Any
    unit: str
    time: str | None = None
    clock: Clock | None = None
    moved: float = 0.0

    def __post_init__(self):
        units.parse(self.unit)
        for name in ("left", "right"):
            values = np.array(getattr(self, name), dtype=np.float64)
            values.flags.writeable = False
            if values.shape != (len(self.starts),) or not len(values):
                raise MissingValue(f"a signal has {values.size} values for {len(self.starts)} times",
                                   remedy="Give one value for each time, and at least one")
            if not np.all(np.isfinite(values)):
                raise MissingValue(f"a signal in {self.unit} has a value that is not finite",
                                   remedy="Leave the time out, or say what the value was")
            object.__setattr__(self, name, values)
        if self.numeric and np.any(np.diff(np.asarray(self.starts, float)) < 0):
            raise TimeOrder("the times of a signal go back", remedy="Sort them")

    @classmethod
    def constant(cls, value: float, unit: str) -> "Signal":
        """The same value for ever."""
        return cls((0.0,), [value], [value], unit)

    @classmethod
    def steps(cls, times, values, unit: str) -> "Signal":
        """values[k] from times[k] until times[k + 1]; values[0] also before."""
        return cls(tuple(_plain(t) for t in times), values, values, unit)

    @classmethod
    def linear(cls, times, values, unit: str) -> "Signal":
        """Straight lines between the points; flat outside them."""
        values = np.asarray(values, dtype=np.float64)
        return cls(tuple(_plain(t) for t in times), values, np.append(values[1:], values[-1:]), unit)

    @functools.cached_property
    def numeric(self) -> bool:
        """Whether all times are numbers (clock text needs `resolve`)."""
        return all(is_real(t) for t in self.starts)

    @property
    def stepwise(self) -> bool:
        """Whether every piece is flat."""
        return bool(np.array_equal(self.left, self.right))

    @functools.cached_property
    def knots(self) -> np.ndarray:
        """Times at which the value or slope changes (not those of a constant). Float64, sorted."""
        t, value, slope = self.pieces()
        before = np.append(value[0], value[:-1] + slope[:-1] * np.diff(t))
        changed = (value != before) | (slope != np.append(0.0, slope[:-1]))
        found = np.unique(t[changed & (len(t) > 1)])
        found.flags.writeable = False
        return found

    def pieces(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Float64 arrays (t, value, slope): on [t[k], t[k+1]) the signal is value[k] + slope[k] (s - t[k])."""
        return self._pieces

    @functools.cached_property
    def _pieces(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if not self.numeric:
            raise AmbiguousTime("which day? this signal has clock times and is not tied to a record yet",
                                remedy="Resolve it against a record, or use numbers")
        t = np.array([float(x) for x in self.starts])
        if self.moved and self.time is not None:
            t = t + self.moved * units.time_factor("s", self.time)
        width = np.append(np.diff(t), np.inf)
        with np.errstate(divide="ignore", invalid="ignore"):
            slope = np.where(width > 0, (self.right - self.left) / width, 0.0)
        t.flags.writeable = slope.flags.writeable = False
        return t, self.left, slope

    def __call__(self, at) -> Any:
        """The value at time(s) `at` (number, array, or clock text once bound to a record); right-continuous."""
        if isinstance(at, str) and self.clock is not None:
            at = self.clock.at(at)
        t, value, slope = self.pieces()
        at = np.asarray(at, dtype=np.float64)
        k = np.searchsorted(t, at, side="right") - 1
        found = np.where(k < 0, value[0], value[k] + slope[k] * (at - t[k]))
        return float(found) if found.ndim == 0 else found

    def integral(self, start: float, stop: float) -> float:
        """Exact integral from `start` to `stop`, in signal unit times time unit."""
        if stop < start:
            return -self.integral(stop, start)
        t, _, _ = self.pieces()
        edges = np.concatenate([[start], t[(t > start) & (t < stop)], [stop]])
        middle = self((edges[1:] + edges[:-1]) / 2)  # exact: every piece is a straight line
        return float(np.sum(middle * np.diff(edges)))

    def shift(self, by: Span, unit: str | None = None) -> "Signal":
        """The same course, later by `by` (negative: earlier); write `s.shift(-20, "min")` or `s.shift("-20 min")`."""
        seconds = _seconds(by, unit or self.time)
        if self.time is not None and self.numeric:
            later = seconds * units.time_factor("s", self.time)
            return self._with_starts(tuple(t + later for t in self.starts))
        return dataclasses.replace(self, moved=self.moved + seconds)

    def within(self, start: Moment, stop: Moment, other: "Signal") -> "Signal":
        """`other` on [start, stop), this signal elsewhere."""
        if self.clock is not None:
            low, high = self.clock.at(start), self.clock.at(stop)
        elif is_real(start) and is_real(stop):
            low, high = float(start), float(stop)
        else:
            raise AmbiguousTime("which day? this signal is not tied to a record yet",
                                remedy="Use numbers, or splice inside do(...) where the record's clock is known")
        if high < low:
            raise InterventionError(f"a window from {low:g} to {high:g} ends before it begins. Swap start and stop.")
        outer, inner = self, self._like(other)
        edges = np.unique(np.concatenate([outer.pieces()[0], inner.pieces()[0], np.array([low, high])]))
        if edges[0] >= low:  # the course before the window must have a piece of its own
            edges = np.append(low - 1.0, edges)
        chosen = [inner if low <= t < high else outer for t in edges]
        return self._joined(edges, [lambda t, s=s: s._sides(t) for s in chosen])

    def _sides(self, edges):
        """(value at edges[0], left limit at edges[1]) on a stretch without a knot inside."""
        first, second = edges
        middle = (first + second) / 2
        value = self(first)
        return value, value + 2 * (self(middle) - value)

    def _joined(self, edges, rules) -> "Signal":
        left, right = [], []
        for k, rule in enumerate(rules):
            a, b = rule((edges[k], edges[k + 1] if k + 1 < len(edges) else edges[k]))
            left.append(a)
            right.append(b)
        return dataclasses.replace(self, starts=tuple(edges.tolist()), left=left, right=right, moved=0.0)

    def _like(self, other: "Signal") -> "Signal":
        k = units.factor(other.unit, self.unit)
        if self.time and other.time is None and self.clock is not None:
            return other.resolve(self.clock, self.time, self.unit)
        if self.time and other.time and self.time != other.time:
            c = units.time_factor(other.time, self.time)
            other = other._with_starts(tuple(t * c for t in other.pieces()[0].tolist()))
        return other if k == 1.0 else dataclasses.replace(other, left=other.left * k, right=other.right * k)

    def _with_starts(self, starts) -> "Signal":
        return dataclasses.replace(self, starts=tuple(float(t) for t in starts), moved=0.0)

    def __add__(self, other):
        """Sum with a signal of the same dimension, or with a number in this signal's unit."""
        if is_real(other):
            return dataclasses.replace(self, left=self.left + other, right=self.right + other)
        if not isinstance(other, Signal):
            return NotImplemented
        if len(other.starts) == 1 and other.stepwise:
            return self + float(other.left[0] * units.factor(other.unit, self.unit))
        if len(self.starts) == 1 and self.stepwise:
            return other._like_unit(self.unit) + float(self.left[0])
        other = self._like(other)
        edges = np.unique(np.concatenate([self.pieces()[0], other.pieces()[0]]))
        both = [lambda t, a=self, b=other: tuple(np.add(a._sides(t), b._sides(t)))] * len(edges)
        return self._joined(edges, both)

    def _like_unit(self, unit: str) -> "Signal":
        k = units.factor(self.unit, unit)
        return dataclasses.replace(self, left=self.left * k, right=self.right * k, unit=unit)

    def __mul__(self, factor: float) -> "Signal":
        if not is_real(factor):
            return NotImplemented
        return dataclasses.replace(self, left=self.left * factor, right=self.right * factor)

    __rmul__ = __mul__
    __radd__ = __add__

    def __neg__(self):
        return self * -1.0

    def __sub__(self, other):
        return self + (-other)

    def resolve(self, clock: Clock, time_unit: str, unit: str, of: str | None = None) -> "Signal":
        """The same course with float times in `time_unit` and values in `unit`."""
        c = units.time_factor(self.time or clock.bare or clock.unit, time_unit)
        clock = clock.to(time_unit)
        late = self.moved * units.time_factor("s", time_unit)
        starts = tuple((t * c if is_real(t) else clock.at(t)) + late for t in self.starts)
        k = units.factor(self.unit, unit, of=of)
        return Signal(starts, self.left * k, self.right * k, unit, time_unit, clock)

    def __repr__(self) -> str:
        if len(self.starts) == 1:
            return f"Signal: {self.left[0]:g} {self.unit} throughout"
        kind = "steps" if self.stepwise else "pieces"
        low, high = min(self.left.min(), self.right.min()), max(self.left.max(), self.right.max())
        first, last = ((self.clock.label(t) if self.clock and is_real(t) else f"{t}")
                       for t in (self.starts[0], self.starts[-1]))
        return f"Signal: {len(self.starts)} {kind} from {first} to {last}, {low:g} to {high:g} {self.unit}"
