"""Records of people: what was measured, given and eaten, with units and a clock.

A record names things ("cgm", "meal", compartment 2); what they *are* for a model is decided only when the record is
bound to one (`Person.bind`, in binding.py), so one record serves rival models. Records are immutable.
"""

import dataclasses
import hashlib
import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from numbers import Real
from types import MappingProxyType
from typing import Any

import numpy as np

from hybridtwin import units
from hybridtwin.clock import Clock, Moment, span
from hybridtwin.errors import (
    EmptyRecord,
    ImplausibleValue,
    MissingColumn,
    MissingUnit,
    MissingValue,
    NotANumber,
    RecordError,
    SplitId,
    UnitError,
)
from hybridtwin.signals import Regimen, Signal

ORDERS_A_ROW = 4  # ranks a row of a table takes: a reset, then its reading, then its dose
NOTE_KINDS = ("conversion", "rejected", "no unit", "left out", "seen")


@dataclass(frozen=True)
class Note:
    """Something a reader should know about a record: `kind` is one of those of `NOTE_KINDS`."""

    kind: str
    text: str
    row: int | None = None
    column: str | None = None
    remedy: str = ""

    def __str__(self) -> str:
        parts = [f"row {self.row}"] * (self.row is not None) + [f"column {self.column!r}"] * bool(self.column)
        where = ", ".join(parts)
        return (f"{where}: " if where else "") + self.text + (f". {self.remedy}" if self.remedy else "")


_COLUMNS = {"order": (np.int64, 0), "row": (np.int64, 0), "censored": (np.int8, 0), "limit": (np.float64, np.nan),
            "other": (np.float64, np.nan), "session": (np.int64, 0), "duration": (np.float64, 0.0),
            "amount_sd": (np.float64, 0.0), "time_sd": (np.float64, 0.0)}


@dataclass(frozen=True, eq=False)
class Readings:
    """Readings of one sensor, N of them, sorted by (time, order); every array has shape (N,).

    time, value: float64; value equals `limit` where censored.
    censored: -1 below `limit` ("LOW", BLQ), +1 above it ("HIGH"), else 0; `limit` is NaN where not censored.
    other: the other end of the interval of a censored reading (NONMEM's LIMIT), NaN where there is none.
    order: rank among simultaneous events of the record; row: data row of the table, from 1 (0: none).
    session: number of the sensor session (a new sensor has a new calibration).
    """

    time: np.ndarray
    value: np.ndarray
    unit: str
    censored: np.ndarray
    limit: np.ndarray
    order: np.ndarray
    row: np.ndarray
    session: np.ndarray
    other: np.ndarray

    def __len__(self) -> int:
        return len(self.time)

    def __repr__(self) -> str:
        return f"Readings: {len(self)} in {self.unit}" + (
            f", {np.nanmin(self.value):g} to {np.nanmax(self.value):g}" if len(self) else "")


@dataclass(frozen=True, eq=False)
class Series:
    """One named column of a record: N rows (time, value), in the time unit of the record's clock.

    A NaN value is an event whose amount nobody wrote down; it is never 0. The other columns are as in `Readings`;
    duration, amount_sd (of log amount) and time_sd speak of rows that turn out to be doses.
    """

    time: np.ndarray
    value: np.ndarray
    unit: str
    order: np.ndarray
    row: np.ndarray
    censored: np.ndarray
    limit: np.ndarray
    other: np.ndarray
    session: np.ndarray
    duration: np.ndarray
    amount_sd: np.ndarray
    time_sd: np.ndarray

    @classmethod
    def of(cls, time, value, unit: str, **columns) -> "Series":
        """From array-likes; what is not given takes its default. Sorted by (time, order)."""
        time, value = np.array(time, dtype=np.float64), np.array(value, dtype=np.float64)
        n = time.size
        if time.ndim != 1 or value.shape != time.shape:
            raise MissingValue(f"{value.size} values for {n} times", remedy="Give one value for each time")
        made = {name: np.broadcast_to(np.asarray(columns.pop(name, default), dtype=kind), (n,))
                for name, (kind, default) in _COLUMNS.items()}
        if columns:
            raise TypeError(f"a Series has no column {next(iter(columns))!r}. It has {', '.join(_COLUMNS)}.")
        by = np.lexsort((made["order"], time))
        return cls(time[by], value[by], unit, **{name: array[by] for name, array in made.items()})

    def __len__(self) -> int:
        return len(self.time)

    @property
    def missing(self) -> np.ndarray:
        """(N,) whether the value of an event is unknown."""
        return np.isnan(self.value)

    def take(self, keep) -> "Series":
        """The rows selected by a boolean mask or by indices."""
        return dataclasses.replace(self, **{f.name: getattr(self, f.name)[keep] for f in dataclasses.fields(self)
                                            if f.name != "unit"})


def parsed(unit: str, column: str) -> str:
    """`unit`, checked; UnitError names the column."""
    try:
        units.parse(unit)
    except UnitError as error:
        raise type(error)(f"column {column!r}: {error}") from error
    return unit


def check_plausible(name: str, series: Series, person: str | None) -> None:
    """ImplausibleValue at the first row that no living body has in that unit."""
    limits = units.plausible(name, series.unit)
    if limits is None:
        return
    low, high = limits
    with np.errstate(invalid="ignore"):
        bad = np.flatnonzero((series.value < low) | (series.value > high))
    if bad.size:
        k = bad[0]
        raise ImplausibleValue(
            f"{series.value[k]:g} {series.unit} is outside {low:g} to {high:g} {series.unit}, what a living body has",
            person=person, row=int(series.row[k]) or None, column=name,
            remedy=f"Correct the cell, or give the unit it is really in: units={{{name!r}: ...}}")


@dataclass(frozen=True, eq=False)
class Person:
    """The immutable record of one person. Times are floats in `clock.unit` since `clock.origin`.

    series: readings and events by name, as read. regimens: doses by input name or compartment number (0: the
    default one). signals, covariates: courses over time by name. resets: (time, order) of EVID 3 and 4.
    occasions: (time, number) wherever OCC changes. carry: "LOCF" or "NOCB" for series that prove to be covariates.
    missing: (median, log-sd) of unknown amounts, by name. window: readings outside [low, high) are not used.
    notes: what was converted, rejected, left out or seen.
    """

    id: str
    clock: Clock
    series: Mapping[str, Series] = field(default_factory=dict)
    regimens: Mapping[str | int, Regimen] = field(default_factory=dict)
    signals: Mapping[str, Signal] = field(default_factory=dict)
    covariates: Mapping[str, Signal] = field(default_factory=dict)
    resets: tuple[tuple[float, int], ...] = ()
    occasions: tuple[tuple[float, int], ...] = ()
    carry: str | None = None
    missing: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    window: tuple[float, float] = (-np.inf, np.inf)
    notes: tuple[Note, ...] = ()
    before: Mapping[str, Series] = field(default_factory=dict)  # the row of each series in force where a cut begins

    def __post_init__(self):
        for name in ("series", "regimens", "signals", "covariates", "missing", "before"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))

    @classmethod
    def of(cls, id: str = "person", *, start: Moment | None = None, stop: Moment | None = None,
           time: str | Clock = "h", doses: Mapping[str | int, Regimen] | None = None,
           signals: Mapping[str, Signal] | None = None, covariates: Mapping[str, Any] | None = None,
           readings: Mapping[str, Any] | None = None) -> "Person":
        """A record from values in memory.

        time: unit of all bare times, or a `Clock` with an origin (then clock text such as "11:30" may be used).
        start, stop: the span; by default from the first to the last event.
        readings: name -> (times, values, unit) or a Series. covariates: name -> (value, unit) or a Signal.
        At equal times readings come before doses (a trough), unless `Dose.order` says otherwise.
        Errors: MissingValue, ImplausibleValue, UnitError, AmbiguousTime, EmptyRecord.
        """
        clock = time if isinstance(time, Clock) else Clock(unit=time)
        if start is not None and stop is not None:
            clock = clock.spanning(clock.at(start), clock.at(stop))
        series = {name: _series(id, name, given, clock) for name, given in (readings or {}).items()}
        n = sum(len(s) for s in series.values())
        resolved = {name: dataclasses.replace(r, doses=tuple(
                        dataclasses.replace(d, order=d.order or n + 1 + k) for k, d in enumerate(r.doses)))
                    .resolve(clock, clock.unit, r.unit) for name, r in (doses or {}).items()}
        courses = {name: s.resolve(clock, clock.unit, s.unit) for name, s in (signals or {}).items()}
        fixed = {name: _covariate(name, given).resolve(clock, clock.unit, _covariate(name, given).unit)
                 for name, given in (covariates or {}).items()}
        for name, regimen in resolved.items():
            amounts = [d.amount for d in regimen if d.amount is not None]
            check_plausible(str(name), Series.of(np.zeros(len(amounts)), amounts, regimen.unit), id)
        for name, course in (courses | fixed).items():
            check_plausible(name, Series.of(np.zeros(len(course.left)), course.left, course.unit), id)
        events = [t for s in series.values() for t in s.time] + [d.time for r in resolved.values() for d in r]
        if not events and (start is None or stop is None):
            raise EmptyRecord("there is no reading and no dose", person=id,
                              remedy="Give readings or doses, or the span of the record with start= and stop=")
        clock = clock.spanning(clock.at(start) if start is not None else min(events),
                               clock.at(stop) if stop is not None else max(events))
        if clock.stop < clock.start:
            raise RecordError(f"the record stops ({clock.label(clock.stop)}) before it starts "
                              f"({clock.label(clock.start)})", person=id, remedy="Swap start and stop")
        return cls(id, clock, series, resolved, courses, fixed)

    @classmethod
    def from_csv(cls, table, *, units: Mapping[str, str | None], tz: str | None = None, id: str | None = None,
                 time: str | None = None, covariates: str | None = None, **cells) -> "Person":
        """From a tidy table: a path (.csv, .tsv, .gz), a pandas or polars frame, or a dict of columns.

        Wide (a time column and one column per quantity) or long (columns time, variable, value and perhaps unit,
        duration, amount_sd, time_sd, session); recognized by the column names. In a wide table a cell "?" is an event
        whose amount is unknown; in a long one an empty value is. "LOW", "HIGH", "<0.1" and ">400" are censored.

        units: unit of each quantity, {"cgm": "mg/dL", "meal": "g"}; None leaves a column out on purpose.
        tz: IANA zone of timestamps that carry no offset. time: unit of a time column of numbers.
        id: name of the person; where the table has an id column, the one to read.
        covariates: "LOCF" or "NOCB", needed where a covariate changes.
        cells: how cells are read (`io.tables.Cells`): rename={"time_h": "time"}, categories={"sex": {"male": 0}},
        below={"cgm": 40}, above={"cgm": 400} (limits of the device), missing={"meal": (50, 0.6)} (median and
        log-sd of an unknown amount).
        Errors: the RecordError tree and MissingUnit, each naming person, row, column and remedy.
        """
        from hybridtwin.io import tables, tidy
        return tidy.person(table, units, tz, id, time, covariates, tables.Cells.of(**cells))

    @classmethod
    def from_nonmem(cls, table, *, units: Mapping[str, str], tz: str | None = None, id: str | None = None,
                    covariates: str | None = None, dvid: Mapping[Any, str] | None = None, readings: str | None = None,
                    **cells) -> "Person":
        """From a NONMEM event table of one person (or of several, with `id` naming the one).

        Columns in any case: ID TIME [DATE] DV AMT EVID MDV CMT RATE II SS ADDL DUR DVID CENS LIMIT OCC; every other
        column that `units` names is a covariate (covariates="LOCF" or "NOCB" says how one that changes holds).
        units: {"TIME": "h", "AMT": "mg", "DV": "mg/L", "WT": "kg"}. dvid: {1: "cp", 2: "pca"}, each with its unit in
        `units` under either name. readings: name of DV where there is no DVID. cells: rename=, categories=,
        missing= as in `from_csv`.
        """
        from hybridtwin.io import nonmem, tables
        people = nonmem.people(table, units, tz, covariates, dvid, readings, tables.Cells.of(**cells))
        return one_of(people, id)

    # ------------------------------------------------------------------------------------ using it

    def bind(self, spec, sensors: Mapping[str, str | None] | None = None):
        """The record in the words of a system: a `Bound` in the system's units and time.

        spec: `System.spec`; sensors: name of each sensor -> unit of its readings (None: as recorded).
        Errors: UnknownCompartment, MissingColumn, MissingUnit, UnitError, MissingValue.
        """
        from hybridtwin.binding import bind
        return bind(self, spec, sensors or {})

    def hash(self) -> str:
        """sha256 of everything the record says (hex)."""
        digest = hashlib.sha256()
        parts = [self.id, self.clock, self.resets, self.occasions, self.carry, self.window,
                 sorted(self.missing.items())]
        digest.update(repr(parts).encode())
        for name in sorted(self.series):
            s = self.series[name]
            digest.update(f"series {name} {s.unit}".encode())
            for array in (s.time, s.value, *(getattr(s, c) for c in _COLUMNS)):
                digest.update(np.ascontiguousarray(array).tobytes())
        for name in sorted(self.regimens, key=str):
            digest.update(f"doses {name!r} {self.regimens[name].unit} {self.regimens[name].doses!r}".encode())
        for name in sorted(self.before):
            if len(self.before[name]):
                digest.update(f"before {name} {self.before[name].time[0]!r} {self.before[name].value[0]!r}".encode())
        for group in (self.signals, self.covariates):
            for name in sorted(group):
                t, value, slope = group[name].pieces()
                digest.update(f"signal {name} {group[name].unit}".encode() + t.tobytes() + value.tobytes()
                              + slope.tobytes())
        return digest.hexdigest()

    @property
    def days(self) -> tuple[tuple[float, float], ...]:
        """(start, stop) of each calendar day in the record, cut to the record (clock unit)."""
        edges = [self.clock.start, *self.clock.midnights, self.clock.stop]
        return tuple(itertools.pairwise(edges))

    def between(self, start: Moment | None = None, stop: Moment | None = None, *,
                readings_only: bool = False) -> "Person":
        """The record cut to [start, stop) (to its end where `stop` is None).

        readings_only: keep doses, courses and the span; only readings outside are left out, as for a forecast
        whose inputs are known. Otherwise doses before `start` are cut too: what is still on board then has only
        its prior. Courses (signals, covariates) keep the value in force.
        """
        low = -np.inf if start is None else self.clock.at(start)
        high = np.inf if stop is None else self.clock.at(stop)
        if readings_only:
            window = (max(low, self.window[0]), min(high, self.window[1]))
            return dataclasses.replace(self, window=window)
        clock = self.clock.spanning(max(low, self.clock.start), min(high, self.clock.stop))
        regimens = {name: dataclasses.replace(r, clock=clock, doses=tuple(d for d in r.doses if low <= d.time < high))
                    for name, r in self.regimens.items()}
        series = {name: _held(s, low, high) for name, s in self.series.items()}
        earlier = {name: self.course(name) for name in self.series}
        before = {name: s.take(np.flatnonzero((s.time < low) & ~s.missing)[-1:]) for name, s in earlier.items()}
        cut = sum(len(r) for r in self.regimens.values()) - sum(len(r) for r in regimens.values())
        text = f"cut to {clock.label(clock.start)} - {clock.label(clock.stop)}" + f", {cut} doses left out" * bool(cut)
        return dataclasses.replace(self, clock=clock, series=series, regimens=regimens, before=before,
                                   notes=(*self.notes, Note("seen", text)),
                                   resets=tuple(x for x in self.resets if low <= x[0] < high),
                                   window=(max(low, self.window[0]), self.window[1]))

    def course(self, name: str) -> Series:
        """The series `name` if it is a course: with the value that was in force where the record was cut."""
        earlier = self.before.get(name)
        return self.series[name] if earlier is None else _joined(earlier, self.series[name], name)

    def with_readings(self, readings: Mapping[str, Any]) -> "Person":
        """The record with further readings, name -> (times, values, unit) or a Series; the span grows if it must."""
        series, last = dict(self.series), self.clock.stop
        rank = 1 + max([int(s.order.max()) for s in series.values() if len(s)], default=0)
        for name, given in readings.items():
            new = _series(self.id, name, given, self.clock)
            new = dataclasses.replace(new, order=new.order + rank)
            if name in series:
                new = _joined(series[name], new, name)
            series[name], last = new, max(last, float(new.time.max()))
        clock = self.clock.spanning(self.clock.start, last)
        return dataclasses.replace(self, series=series, clock=clock)

    def with_covariates(self, **covariates: Any) -> "Person":
        """The record with further covariates, `weight=(70, "kg")` or a Signal; one of the same name is replaced.

        Errors: MissingUnit, UnitError, ImplausibleValue.
        """
        courses = {name: _covariate(name, given) for name, given in covariates.items()}
        fixed = {name: s.resolve(self.clock, self.clock.unit, s.unit) for name, s in courses.items()}
        series = {name: s for name, s in self.series.items() if name not in fixed}
        return dataclasses.replace(self, series=series, covariates={**self.covariates, **fixed})

    def uncertain(self, name: str, amount_sd: float = 0.0, time_sd: Any = 0.0) -> "Person":
        """The record with every event of `name` uncertain: each amount and time becomes an unknown of its own.

        amount_sd: standard deviation of the logarithm (0.3: a carbohydrate count that is good to about 30 %).
        time_sd: of the time, "10 min" or a number in the record's unit. Errors: MissingColumn.
        """
        by = {"amount_sd": float(amount_sd), "time_sd": span(time_sd, self.clock.unit)}
        series, regimens = dict(self.series), dict(self.regimens)
        if name in series:
            n = len(series[name])
            series[name] = dataclasses.replace(series[name], **{k: np.full(n, v) for k, v in by.items()})
        elif name in regimens:
            regimens[name] = dataclasses.replace(regimens[name], doses=tuple(
                dataclasses.replace(d, **by) for d in regimens[name].doses))
        else:
            raise MissingColumn(f"the record has no events {name!r}", person=self.id, column=name,
                                remedy=f"It has {', '.join(map(str, (*series, *regimens)))}")
        told = f"amounts to {amount_sd:g} (log sd), times to {time_sd}: each is inferred"
        return dataclasses.replace(self, series=series, regimens=regimens,
                                   notes=(*self.notes, Note("seen", told, column=name)))

    def without(self, *names: str | int) -> "Person":
        """The record without these series, doses, signals or covariates, and a note that says so."""
        groups = {key: {k: v for k, v in getattr(self, key).items() if k not in names}
                  for key in ("series", "regimens", "signals", "covariates")}
        known = {k for key in groups for k in getattr(self, key)}
        if missing := [n for n in names if n not in known]:
            raise MissingColumn(f"the record has no {missing[0]!r}", person=self.id, column=str(missing[0]),
                                remedy=f"It has {', '.join(map(str, sorted(known, key=str)))}")
        notes = tuple(Note("left out", "left out on request", column=str(n)) for n in names)
        return dataclasses.replace(self, **groups, notes=self.notes + notes)

    def plot(self, **options):
        """Readings and events over time (matplotlib)."""
        from hybridtwin import plots
        return plots.record(self, **options)

    def __repr__(self) -> str:
        from hybridtwin.record_text import text
        return text(self)

    def _repr_html_(self) -> str:
        from hybridtwin.record_text import html
        return html(self)


def _held(series: Series, low: float, high: float) -> Series:
    """The rows in [low, high)."""
    return series.take((series.time >= low) & (series.time < high))


def _joined(old: Series, new: Series, name: str) -> Series:
    value = units.convert(new.value, new.unit, old.unit)
    columns = {c: np.concatenate([getattr(old, c), getattr(new, c)]) for c in _COLUMNS}
    for c in ("limit", "other"):
        columns[c] = np.concatenate([getattr(old, c), units.convert(getattr(new, c), new.unit, old.unit)])
    return Series.of(np.concatenate([old.time, new.time]), np.concatenate([old.value, value]), old.unit, **columns)


def _series(person: str, name: str, given, clock: Clock) -> Series:
    if isinstance(given, Series):
        found = given
    else:
        try:
            times, values, unit = given
        except (TypeError, ValueError) as error:
            raise MissingUnit(f"person {person!r}, readings {name!r}: a unit is needed. "
                              "Give (times, values, unit).") from error
        times = [clock.at(t, person=person, column=name) for t in np.asarray(times, dtype=object).ravel()]
        try:
            values = np.asarray(values, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise NotANumber(str(error), person=person, column=name, remedy="Give numbers") from error
        found = Series.of(times, values, unit, order=np.arange(len(times)), row=np.arange(1, len(times) + 1))
    parsed(found.unit, name)
    if not len(found):
        raise EmptyRecord("a series without rows", person=person, column=name, remedy="Leave it out, or give readings")
    if (bad := np.flatnonzero(~np.isfinite(found.value) | ~np.isfinite(found.time))).size:
        raise MissingValue(f"reading {bad[0] + 1} is not finite", person=person, row=int(found.row[bad[0]]) or None,
                           column=name, remedy="Leave out what was not measured")
    check_plausible(name, found, person)
    return found


def _covariate(name: str, given) -> Signal:
    if isinstance(given, Signal):
        return given
    if isinstance(given, tuple) and len(given) == 2 and isinstance(given[0], Real) and isinstance(given[1], str):
        check_plausible(name, Series.of([0.0], [given[0]], parsed(given[1], name)), None)
        return Signal.constant(float(given[0]), given[1])
    raise MissingUnit(f"covariate {name!r}: a unit is needed. Give (value, unit), such as (70, \"kg\"), or a Signal.")


def one_of(people: "list[Person]", id: str | None) -> Person:
    """The only person, or the one called `id`."""
    if id is None and len(people) == 1:
        return people[0]
    names = ", ".join(p.id for p in people[:5]) + (", ..." if len(people) > 5 else "")
    if id is None:
        raise SplitId(f"the table holds {len(people)} people ({names})", remedy="Choose one with id=, or use Cohort")
    for person in people:
        if person.id == str(id):
            return person
    raise EmptyRecord(f"nobody is called {str(id)!r}", person=str(id), remedy=f"The table has {names}")


class Cohort(Mapping):
    """Several people: an immutable mapping id -> Person, in the order of the table."""

    def __init__(self, people: Iterable[Person]):
        people = list(people)
        if not people:
            raise EmptyRecord("a cohort of nobody", remedy="Give at least one Person")
        self._people = {p.id: p for p in people}
        if len(self._people) != len(people):
            twice = next(p.id for k, p in enumerate(people) if p.id in {q.id for q in people[:k]})
            raise SplitId("two people share an id", person=twice, remedy="Ids must be unique; rename one")

    @classmethod
    def from_csv(cls, table, *, id: str = "id", **options) -> "Cohort":
        """All people of a tidy table whose column `id` tells them apart; options as in `Person.from_csv`."""
        from hybridtwin.io import tables, tidy
        named = {key: options.pop(key, None) for key in ("units", "tz", "time", "covariates")}
        return cls(tidy.people(table, named["units"] or {}, named["tz"], id, named["time"], named["covariates"],
                               tables.Cells.of(**options)))

    @classmethod
    def from_nonmem(cls, table, *, units: Mapping[str, str], tz: str | None = None, covariates: str | None = None,
                    dvid: Mapping[Any, str] | None = None, readings: str | None = None, **cells) -> "Cohort":
        """All people of a NONMEM table; options as in `Person.from_nonmem`."""
        from hybridtwin.io import nonmem, tables
        return cls(nonmem.people(table, units, tz, covariates, dvid, readings, tables.Cells.of(**cells)))

    def __getitem__(self, id) -> Person:
        try:
            return self._people[str(id)]
        except KeyError:
            raise MissingColumn(f"nobody in this cohort is called {str(id)!r}",
                                remedy=f"It has {', '.join(list(self._people)[:8])}") from None

    def __iter__(self):
        return iter(self._people)

    def __len__(self) -> int:
        return len(self._people)

    def __contains__(self, id) -> bool:
        return str(id) in self._people

    def subset(self, ids: Iterable[Any]) -> "Cohort":
        """Only these people, in this order."""
        return Cohort([self[i] for i in ids])

    def hash(self) -> str:
        """sha256 over the hashes of the people (hex)."""
        return hashlib.sha256("".join(p.hash() for p in self._people.values()).encode()).hexdigest()

    def __repr__(self) -> str:
        from hybridtwin.record_text import cohort
        return cohort(self)
