"""A record in the words of a system: here names get their roles and everything gets the system's units and time.

| the record has | and the system has | it becomes |
|---|---|---|
| a series, or doses of that name | a dose input | a Regimen (each row of a series one dose) |
| doses into compartment n | a dose input with cmt=n | a Regimen |
| a series or signal | a signal input | a Signal (a series holds until its next row) |
| a series or covariate | a covariate | a Signal |
| a series | (the model) a sensor | Readings |
"""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np

from hybridtwin import units
from hybridtwin.clock import Clock
from hybridtwin.errors import MissingColumn, MissingUnit, MissingValue, RecordError, UnitError, UnknownCompartment
from hybridtwin.records import Note, Person, Readings, Series
from hybridtwin.signals import Dose, Regimen, Signal
from hybridtwin.units import plain

_SUBSTANCE_OF = {"cgm": "glucose", "bg": "glucose", "smbg": "glucose", "cbg": "glucose", "g": "glucose",
                 "g_isf": "glucose", "scr": "creatinine"}
_MISSING_LOG_SD = 0.5  # of an unknown amount around the median of the known ones, when the caller gives no prior


@dataclass(frozen=True)
class Latent:
    """An event of which something is uncertain: amount = median * exp(amount_sd * z), time = recorded + time_sd * z.

    input, index: the dose `bound.inputs[input].doses[index]` (whose `latent` is this entry's place in the list).
    median: in the input's unit, the recorded amount or the prior median of a missing one; time_sd in system time.
    """

    input: str
    index: int
    median: float
    amount_sd: float
    time_sd: float
    missing: bool


@dataclass(frozen=True, eq=False)
class Bound:
    """A record bound to a system: every number is float64 in the system's declared units and time."""

    person: str
    inputs: Mapping[str, Regimen | Signal]
    readings: Mapping[str, Readings]
    resets: tuple[tuple[float, int], ...]
    start: float
    stop: float
    clock: Clock
    latent: tuple[Latent, ...]
    occasions: tuple[float, ...]
    notes: tuple[Note, ...]

    def occasion_edges(self, group: str) -> list[float]:
        """Times strictly inside the record at which an occasion begins: "day" (local midnight) or "occasion" (OCC)."""
        if group == "day":
            return self.clock.midnights
        if group == "occasion":
            return list(self.occasions)
        raise RecordError(f"a record does not know the occasions {group!r}", person=self.person,
                          remedy='Use varies="day", or varies="occasion" with a column OCC')

    def since(self, times) -> np.ndarray:
        """Time since the latest dose began for each of `times`, as recorded (repeats counted); 1e6 before the first."""
        began = [dose.time + float(dose.ii) * np.arange(dose.addl + 1) for regimen in self.inputs.values()
                 if isinstance(regimen, Regimen) for dose in regimen.doses]  # fmt: skip
        starts = np.sort(np.concatenate([[-1e6], *began]))
        return np.minimum(np.asarray(times, float) - starts[np.searchsorted(starts, times, "right") - 1], 1e6)

    @property
    def n_readings(self) -> int:
        return sum(len(r) for r in self.readings.values())


def substance(name: str) -> str | None:
    """The substance whose molar mass a series of that name needs, or None."""
    key = _SUBSTANCE_OF.get(name.lower(), name.lower())
    return key if key in units.SUBSTANCES else None


def convert(value, source: str, target: str, name: str, person: str | None):
    """`value` in `target`; UnitError names person and column."""
    try:
        return units.convert(value, source, target, substance(name))
    except UnitError as error:
        raise UnitError(f"person {person!r}, column {name!r}: {error}") from error


def _noted(notes: list[Note], name: str, source: str, target: str) -> None:
    if units.parse(source) == units.parse(target):
        return
    try:
        text = f"{source} to {target}, x {units.factor(source, target, of=substance(name)):.6g}"
    except UnitError:
        text = f"{source} to {target}"
    if not any(n.column == name and n.text == text for n in notes):
        notes.append(Note("conversion", text, column=name))


def bind(person: Person, spec, sensors: Mapping[str, str | None]) -> Bound:
    """`person` in the words of `spec` (a `System.spec`) and of `sensors` (name -> unit, None: as recorded)."""
    clock, notes = person.clock.to(spec.time), list(person.notes)
    _known_compartments(person, spec)
    scale = units.time_factor(person.clock.unit, spec.time)
    resets = tuple((t * scale, order) for t, order in person.resets)
    ends = (*resets, *_steady_starts(person, spec.time))
    inputs: dict[str, Regimen | Signal] = {}
    for name, field in spec.doses.items():
        inputs[name] = _regimen(person, name, field, spec, clock, ends, notes)
    for name, field in spec.signals.items():
        inputs[name] = _course(person, name, field, clock, notes, "signal")
    for name, field in spec.covariates.items():
        usual: Any = field.default
        if callable(usual):  # worked out from the inputs bound so far: what is usual for this person
            field = dataclasses.replace(field, default=usual(inputs, clock.start, clock.stop))
        inputs[name] = _course(person, name, field, clock, notes, "covariate")
    inputs, latent = _number_latent(person, inputs, spec.doses, notes)
    readings = _all_readings(person, sensors, scale, notes)
    for name in person.series:
        if name not in inputs and name not in readings:
            notes.append(Note("left out", "the model has no input or sensor of this name", column=name))
    occasions = tuple(t * scale for t, _ in person.occasions if clock.start < t * scale < clock.stop)
    return Bound(person.id, inputs, readings, resets, clock.start, clock.stop, clock, tuple(latent), occasions,
                 tuple(notes))


# ---------------------------------------------------------------------------------------------- doses


def _default_input(spec) -> str | None:
    """The dose input that a table without CMT means: the only one, else compartment 1."""
    if len(spec.doses) == 1:
        return next(iter(spec.doses))
    return next((name for name, f in spec.doses.items() if f.cmt == 1), None)


def _target(key, spec) -> str | None:
    if key == 0:
        return _default_input(spec)
    if isinstance(key, int):
        return next((name for name, f in spec.doses.items() if f.cmt == key), None)
    if key in spec.doses:
        return key
    into = [name for name, f in spec.doses.items() if f.into == key]
    return into[0] if len(into) == 1 else None


def _known_compartments(person, spec):
    known = ", ".join(name + (f" (cmt {f.cmt})" if f.cmt else "") for name, f in spec.doses.items()) or "none"
    for key, regimen in person.regimens.items():
        if _target(key, spec) is not None or not len(regimen):
            continue
        row = regimen.doses[0].row
        what = "a dose without a compartment" if key == 0 else f"a dose into {key!r}" if isinstance(key, str) \
            else f"a dose into compartment {key}"
        near = get_close_matches(str(key), list(spec.doses), n=1)
        remedy = f"Did you mean {near[0]!r}?" if near else "Correct CMT, or drop it with person.without(...)"
        raise UnknownCompartment(f"{what}; the system's dose inputs are: {known}", person=person.id, row=row,
                                 column="CMT" if isinstance(key, int) else str(key), remedy=remedy)


def _regimen(person, name, field, spec, clock, ends, notes) -> Regimen:
    parts = [(key, r) for key, r in person.regimens.items() if _target(key, spec) == name]
    if name in person.series:
        parts.append((name, _as_doses(person, name, person.series[name], notes)))
    doses = []
    for _, regimen in parts:
        _noted(notes, name, regimen.unit, field.unit)
        try:
            doses += regimen.resolve(clock, spec.time, field.unit, of=substance(name)).doses
        except UnitError as error:
            raise UnitError(f"person {person.id!r}, doses of {name!r}: {error}") from error
    for dose in (d for d in doses if d.modelled and d.modelled not in spec.routed.get(name, ())):
        code, part = {"rate": -1, "duration": -2}[dose.modelled], dose.modelled
        raise RecordError(f"RATE {code} leaves the {part} of a dose to the system, but the route {name!r} of {spec.name} "
                          f"declares no {part}", person=person.id, row=dose.row, column=None if dose.row is None else "RATE",
                          remedy=f"Say in the record how fast it is given, or let dosing() of the system return "
                                 f"{{{name!r}: ht.route({part}=...)}}")
    doses = [d for d in doses if not _cancelled(d, parts, ends, spec.time)]
    if late := [d for d in doses if d.time > clock.stop]:
        notes.append(Note("seen", f"{len(late)} doses after the end of the record ({clock.label(clock.stop)}) are not "
                                  "part of it", column=name))
        doses = [d for d in doses if d.time <= clock.stop]
    if early := [d for d in doses if d.time < clock.start and not d.ss]:
        notes.append(Note("seen", f"{len(early)} doses before the record begins ({clock.label(clock.start)}): what they gave "
                                  "before is not part of it", column=name, remedy="Begin the record earlier: start=..."))
    return Regimen(tuple(sorted(doses, key=lambda d: (d.time, d.order))), field.unit, spec.time, clock)


def _steady_starts(person, time):
    """(time, order) of the records with SS = 1, in any compartment: they cancel pending doses as a reset does."""
    for regimen in person.regimens.values():
        scale = units.time_factor(regimen.time or time, time)
        yield from ((d.time * scale, d.order) for d in regimen.doses if d.ss == 1 and d.row is not None)


def _cancelled(dose: Dose, parts, ends, time) -> bool:
    """Whether a repeat (addl) of an earlier record falls behind one of `ends`, which drop all pending doses."""
    if not ends or dose.row is None:
        return False
    for _, regimen in parts:
        for parent in regimen.doses:
            if parent.addl and (parent.row, parent.order) == (dose.row, dose.order):
                given = parent.time * units.time_factor(regimen.time or time, time)
                return any((given, parent.order) < end <= (dose.time, dose.order) for end in ends)
    return False


def _as_doses(person, name, series: Series, notes) -> Regimen:
    """Each row of a series one dose; a recorded 0 is no dose."""
    given = series.take(np.isnan(series.value) | (series.value != 0))
    if len(given) < len(series):
        notes.append(Note("seen", f"{len(series) - len(given)} rows with amount 0 are no doses", column=name))
    if (bad := np.flatnonzero(given.value < 0)).size:
        raise RecordError(f"the amount {given.value[bad[0]]:g} is negative", person=person.id,
                          row=int(given.row[bad[0]]), column=name, remedy="Amounts are 0 or more")
    prior = person.missing.get(name)
    doses = tuple(
        Dose(float(given.time[k]), None if math.isnan(given.value[k]) else float(given.value[k]),
             duration=float(given.duration[k]), order=int(given.order[k]) + 2, row=int(given.row[k]) or None,
             amount_sd=float(given.amount_sd[k]), time_sd=float(given.time_sd[k]),
             prior=prior if math.isnan(given.value[k]) else None) for k in range(len(given)))
    return Regimen(doses, series.unit, person.clock.unit, person.clock)


def _number_latent(person, inputs, fields, notes):
    """Every dose of which something is uncertain gets a place in the list; a missing amount gets its prior's median."""
    latent, out = [], dict(inputs)
    for name in fields:
        doses = []
        known = [d.amount for d in inputs[name].doses if d.amount]
        for index, dose in enumerate(inputs[name].doses):
            lost = dose.amount is None
            if lost:
                median, spread = _prior(person, name, dose, known)
                dose = dataclasses.replace(dose, amount=median, amount_sd=spread, prior=(median, spread))
            if dose.amount_sd > 0 or dose.time_sd > 0:
                dose = dataclasses.replace(dose, latent=len(latent))
                latent.append(Latent(name, index, float(dose.amount), dose.amount_sd, dose.time_sd, lost))
            doses.append(dose)
        out[name] = dataclasses.replace(inputs[name], doses=tuple(doses))
        if any(e.missing and e.input == name for e in latent):
            rows = [e for e in latent if e.missing and e.input == name]
            text = f"{len(rows)} unknown amounts are inferred, around {plain(rows[0].median)} {fields[name].unit} at first"
            notes.append(Note("seen", text, column=name, remedy=f"Say better: missing={{{name!r}: (median, log_sd)}}"))
    return out, latent


def _prior(person, name, dose, known) -> tuple[float, float]:
    if dose.prior is not None:
        return dose.prior
    if known:
        return float(np.median(known)), max(_MISSING_LOG_SD, float(np.std(np.log(known))))
    raise MissingValue("the amount is unknown, and no other dose says what is usual", person=person.id, row=dose.row,
                       column=name, remedy=f"Give a prior: missing={{{name!r}: (median, log_sd)}}")


# -------------------------------------------------------------------------------------------- courses


def _course(person, name, field, clock, notes, kind) -> Signal:
    given = person.signals.get(name) if kind == "signal" else person.covariates.get(name)
    if given is None:  # a course may be filed under either word
        given = person.covariates.get(name) or person.signals.get(name)
    if given is None and name in person.series:
        given = _as_course(person, name, person.course(name), notes, kind)
    if given is None:
        return _default(person, name, field, clock, notes, kind)
    _noted(notes, name, given.unit, field.unit)
    try:
        return given.resolve(clock, clock.unit, field.unit, of=substance(name))
    except UnitError as error:
        raise UnitError(f"person {person.id!r}, column {name!r}: {error}") from error


def _default(person, name, field, clock, notes, kind) -> Signal:
    for column in (n.column for n in person.notes if n.kind == "no unit"):
        if column.lower() == name.lower():
            raise MissingUnit(f"person {person.id!r}, column {column!r}: the system needs this {kind}, in "
                              f"{field.unit or '1'}, but its unit was not given. Add units={{{column!r}: ...}}.")
    if field.default is None:
        raise MissingColumn(f"the system needs the {kind} {name!r} [{field.unit}]", person=person.id, column=name,
                            remedy=f"Add the column (or rename={{...}} one), or give it: person.with_covariates({name}=(..., "
                                   f"{field.unit or '1'!r}))")
    notes.append(Note("seen", f"not in the record, taken as {field.default:g} {field.unit}", column=name))
    return Signal.constant(float(field.default), field.unit).resolve(clock, clock.unit, field.unit)


def _as_course(person, name, series: Series, notes, kind) -> Signal:
    """A series as steps. A covariate that changes needs LOCF or NOCB; a signal holds until its next row."""
    known = series.take(~series.missing)
    for row in series.row[series.missing]:
        notes.append(Note("rejected", "no value", int(row), name, "the value before it holds on"))
    if (bad := np.flatnonzero(known.duration > 0)).size:
        raise RecordError("a rate with a duration", person=person.id, row=int(known.row[bad[0]]), column=name,
                          remedy="Write a row where it begins and one where it ends")
    if not len(known):
        raise MissingValue(f"the {kind} {name!r} has no value at all", person=person.id, column=name,
                           remedy="Give at least one value")
    first = known.value[0]
    if np.all(known.value == first):
        constant = Signal.constant(float(first), series.unit)
        return constant if kind == "covariate" else Signal((float(known.time[0]),), [first], [first], series.unit,
                                                           person.clock.unit, person.clock)
    return steps_of(known.time, known.value, series.unit, person.carry if kind == "covariate" else "LOCF",
                    person.clock, person=person.id, column=name)


def steps_of(time, value, unit: str, carry: str | None, clock: Clock, **place) -> Signal:
    """A course from rows: LOCF holds a value until the next row, NOCB from the row before on.

    Errors: MissingValue where `carry` is neither (a changing covariate has no default meaning).
    """
    if carry not in ("LOCF", "NOCB"):
        raise MissingValue("the covariate changes with time, and nothing says how it holds between rows",
                           remedy='Say covariates="LOCF" (until the next row) or "NOCB" (from the row before on)',
                           **place)
    time = [float(t) for t in time]
    starts = time if carry == "LOCF" else [time[0], *time[:-1]]
    return Signal(tuple(starts), value, value, unit, clock.unit, clock)


# ------------------------------------------------------------------------------------------- readings


def _all_readings(person, sensors, scale, notes) -> dict[str, Readings]:
    found = {name: _readings(person, name, person.series[name], unit, scale, notes)
             for name, unit in sensors.items() if name in person.series}
    if not found and len(sensors) == 1 and "DV" in person.series:
        name, unit = next(iter(sensors.items()))
        notes.append(Note("seen", f"DV is read by the model's only sensor, {name}", column="DV"))
        found = {name: _readings(person, "DV", person.series["DV"], unit, scale, notes)}
    return found


def _readings(person, name, series: Series, unit, scale, notes) -> Readings:
    for row in series.row[series.missing]:
        notes.append(Note("rejected", "an empty reading", int(row), name, "Leave out what was not measured"))
    s = series.take(~series.missing & (series.time >= person.window[0]) & (series.time < person.window[1]))
    unit = unit or series.unit
    _noted(notes, name, series.unit, unit)
    value, limit, other = (convert(a, series.unit, unit, name, person.id) for a in (s.value, s.limit, s.other))
    return Readings(s.time * scale, value, unit, s.censored, limit, s.order + 1, s.row, s.session, other)
