"""NONMEM event tables: ID TIME [DATE] DV AMT EVID MDV CMT RATE II SS ADDL DUR DVID CENS LIMIT OCC, and covariates.

| column | meaning here |
|---|---|
| EVID | 0 reading, 1 dose, 2 other, 3 reset, 4 reset and dose; without it AMT > 0 is a dose |
| RATE | 0 bolus, > 0 rate of an infusion, -1 modelled rate, -2 modelled duration (of the system's `dosing`) |
| DUR | > 0: duration of an infusion (Torsten, nlmixr2) |
| SS | 1 replaces the state by the steady state of doses every II, 2 adds it; AMT = 0, RATE > 0: infusion ending here |
| ADDL, II | further doses and their interval; a reset and a later dose with SS = 1 drop those still pending |
| MDV | 1: the row's DV is no reading |
| CENS, LIMIT | 1: below DV, -1: above DV (Monolix); LIMIT is the other end |
| OCC | number of the occasion |

Rows keep their order at equal times. TIME may be negative and may go back at a reset: what follows is then laid after
what came before, by an offset that a note tells (a reset forgets the past, so only differences of time matter).
Sources: NONMEM 7 user's guides VI and VIII; Monolix data format for CENS and LIMIT.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from hybridtwin.binding import steps_of
from hybridtwin.clock import Clock, localize, zone
from hybridtwin.errors import (
    AmbiguousTime,
    ImplausibleValue,
    MissingColumn,
    MissingUnit,
    MissingValue,
    RecordError,
    TimeOrder,
)
from hybridtwin.io.tables import (
    Cells,
    Table,
    blank,
    blocks,
    identity,
    is_number,
    measured,
    nearest,
    needed,
    number,
    read,
)
from hybridtwin.records import ORDERS_A_ROW, Note, Person, Series, check_plausible, parsed
from hybridtwin.signals import Dose, Regimen, Signal
from hybridtwin.units import factor

_NAMES = ("ID", "TIME", "DATE", "DV", "AMT", "EVID", "MDV", "CMT", "RATE", "II", "SS", "ADDL", "DUR", "DVID", "CENS",
          "LIMIT", "OCC")
_HOUR = re.compile(r"^(\d{1,2}):(\d{2})(?::(\d{2}))?$")


@dataclass(frozen=True)
class _Reader:
    """One table and what was said about it; `names` maps the standard names to the table's columns."""

    table: Table
    names: Mapping[str, str]
    units: Mapping[str, str]
    tz: str | None
    carry: str | None
    dvid: Mapping[str, str] | None
    readings: str
    cells: Cells
    covariates: Mapping[str, str]  # column -> unit
    ignored: tuple[str, ...]

    def cell(self, name: str, k: int):
        return self.table.columns[self.names[name]][k] if name in self.names else None

    def place(self, name: str, k: int, person: str) -> dict:
        return {"person": person, "row": self.table.rows[k], "column": self.names.get(name, name)}

    def number(self, name: str, k: int, person: str, default: float = 0.0) -> float:
        found = number(self.cell(name, k), self.table.comma, **self.place(name, k, person))
        return default if found is None else found

    def whole(self, name: str, k: int, person: str, default: int = 0) -> int:
        found = self.number(name, k, person, default)
        if found != int(found):
            raise RecordError(f"{found:g} is no whole number", remedy=f"{name} counts or names things",
                              **self.place(name, k, person))
        return int(found)

    def length(self, name: str, k: int, person: str) -> float:
        """A length of time in the unit of TIME; it may have a unit of its own in `units`."""
        found = self.number(name, k, person)
        return found * factor(self.unit(name), self.units.get("TIME", "h")) if name in self.units else found

    def unit(self, name: str) -> str:
        if name not in self.units:
            raise MissingUnit(f"column {self.names.get(name, name)!r}: NONMEM tables carry no units. "
                              f'Say units={{"{name}": "..."}}.')
        return parsed(self.units[name], name)


def people(table, units, tz, covariates, dvid, readings, cells: Cells) -> list[Person]:
    """Everybody in the table; see `Person.from_nonmem`."""
    found = read(table, cells)
    names = {name: column for name in _NAMES if (column := found.named(name))}
    if "TIME" not in names:
        raise MissingColumn(f"there is no column 'TIME' among {', '.join(found.columns)}", column="TIME",
                            remedy='Add it, or rename one: rename={"time_h": "TIME"}')
    if not {"DV", "AMT"} & set(names):
        raise MissingColumn(f"there is neither 'DV' nor 'AMT' among {', '.join(found.columns)}", column="DV",
                            remedy='Add it, or rename one: rename={"conc": "DV"}')
    meant = _meant(found, names, units, dvid, cells)
    standard = set(names.values())
    extra = {column: meant[column] for column in found.columns if column not in standard and column in meant}
    ignored = tuple(c for c in found.columns if c not in standard and c not in extra)
    keys = None if dvid is None else {identity(key): name for key, name in dvid.items()}
    reader = _Reader(found, names, meant, tz, covariates, keys, readings or "DV", cells, extra, ignored)
    if "ID" not in names:
        return [_person(reader, "person", list(range(len(found.rows))))]
    return [_person(reader, name, rows) for name, rows in blocks(found, names["ID"])]


def _meant(table, names, units, dvid, cells) -> dict[str, str]:
    """Units with standard names in capitals and covariates as the table spells them."""
    meant = {c: "1" for c in cells.categories if table.named(c) and c not in names.values()}
    for key, unit in units.items():
        if key.upper() in _NAMES:
            meant[key.upper()] = unit
        elif dvid and key in dvid.values():
            meant[key] = unit
        elif column := table.named(key):
            meant[column] = unit
        else:
            raise MissingColumn(f"units names a column that is not in the table{nearest(key, table.columns)[:-1]}",
                                column=key, remedy=f"It has {', '.join(table.columns)}")
    return meant


def _person(reader: _Reader, name: str, at: list[int]) -> Person:
    notes = list(reader.table.notes)
    clock, times = _times(reader, name, at)
    kinds = [_kind(reader, name, k) for k in at]
    times = _unrolled(reader, name, at, times, kinds, clock, notes)
    regimens = _doses(reader, name, at, times, kinds, clock, notes)
    series = _readings(reader, name, at, times, kinds, notes)
    for column, s in series.items():
        check_plausible(column, s, name)
    courses = {column: course for column, unit in reader.covariates.items()
               if (course := _covariate(reader, name, at, times, column, unit, clock, notes)) is not None}
    notes += [Note("no unit", "left out: units={...} does not name it", column=c) for c in reader.ignored]
    resets = tuple((times[p], ORDERS_A_ROW * p) for p, kind in enumerate(kinds) if kind in (3, 4))
    clock = clock.spanning(min(times), max(times))
    return Person(name, clock, series, regimens, covariates=courses, resets=resets,
                  occasions=_occasions(reader, name, at, times), carry=reader.carry, missing=reader.cells.missing,
                  notes=tuple(notes))


# ---------------------------------------------------------------------------------------------- times


def _times(reader: _Reader, person, at) -> tuple[Clock, list[float]]:
    """Times as the table has them, in the unit of TIME; clock times count from the first midnight."""
    cells = [reader.cell("TIME", k) for k in at]
    for k, cell in zip(at, cells, strict=True):
        if blank(cell):
            raise MissingValue("a row without a time", remedy="Give its time, or delete the row",
                               **reader.place("TIME", k, person))
    if "DATE" not in reader.names and is_number(cells[0], reader.table.comma):
        clock = Clock(unit=reader.unit("TIME"))
        return clock, [reader.number("TIME", k, person) for k in at]
    unit = reader.units.get("TIME", "h")
    stamps = [_stamp(reader, person, k) for k in at]
    if reader.tz is None and stamps[0].tzinfo is None:  # elapsed clock time, of a place unknown
        first = stamps[0].replace(hour=0, minute=0, second=0)
        return Clock(unit=unit), [(s - first).total_seconds() * factor("s", unit) for s in stamps]
    where = zone(reader.tz) if reader.tz else stamps[0].tzinfo or UTC
    aware = [s if s.tzinfo else localize(s, where, **reader.place("TIME", k, person))
             for s, k in zip(stamps, at, strict=True)]
    clock = Clock(aware[0].astimezone(where).replace(hour=0, minute=0, second=0, microsecond=0), reader.tz, unit)
    return clock, [clock.at(s) for s in aware]


def _stamp(reader: _Reader, person, k) -> datetime:
    cell, day = reader.cell("TIME", k), reader.cell("DATE", k)
    place = reader.place("DATE" if "DATE" in reader.names else "TIME", k, person)
    if isinstance(cell, datetime):
        return cell
    found = _HOUR.match(str(cell).strip())
    if day is None and not found:
        try:
            return datetime.fromisoformat(str(cell).strip())
        except ValueError:
            raise AmbiguousTime(f"cannot read the time {cell!r}",
                                remedy='Write hours as a number, "14:30" or a timestamp', **place) from None
    hours = timedelta(hours=int(found[1]), minutes=int(found[2]), seconds=int(found[3] or 0)) if found else \
        timedelta(hours=reader.number("TIME", k, person))
    if day is None:
        return datetime(2000, 1, 1) + hours
    if is_number(day):
        return datetime(2000, 1, 1) + timedelta(days=needed(day, **place)) + hours
    try:
        return datetime.fromisoformat(str(day).strip()) + hours
    except ValueError:
        raise AmbiguousTime(f"cannot read the date {day!r}: day and month could be swapped",
                            remedy="Write 2026-03-24, or the number of the day", **place) from None


def _unrolled(reader, person, at, times, kinds, clock, notes) -> list[float]:
    """Times that never go back: after a reset with an earlier time, the rest is laid behind what came before."""
    out, offset = [], 0.0
    for p, (k, t) in enumerate(zip(at, times, strict=True)):
        if p and t + offset < out[-1]:
            if kinds[p] not in (3, 4):
                back = f"from {clock.label(times[p - 1])} to {clock.label(t)}"
                raise TimeOrder(f"time goes back, {back}, without a reset",
                                remedy="Sort the rows, or mark a new start with EVID 3 or 4",
                                **reader.place("TIME", k, person))
            offset = out[-1] - t
            notes.append(Note("seen", f"time goes back at this reset; from here on {offset:g} {clock.unit} are added",
                              reader.table.rows[k], reader.names["TIME"]))
        out.append(t + offset)
    return out


# --------------------------------------------------------------------------------------------- events


def _kind(reader: _Reader, person, k) -> int:
    if "EVID" not in reader.names or blank(reader.cell("EVID", k)):
        return 1 if reader.number("AMT", k, person) > 0 else 0
    kind = reader.whole("EVID", k, person)
    if kind not in (0, 1, 2, 3, 4):
        raise RecordError(f"EVID {kind} is unknown", remedy="Use 0 reading, 1 dose, 2 other, 3 reset, 4 reset and dose",
                          **reader.place("EVID", k, person))
    return kind


def _doses(reader, person, at, times, kinds, clock, notes) -> dict[str | int, Regimen]:
    found: dict[str | int, list[Dose]] = {}
    for p, k in enumerate(at):
        if kinds[p] not in (1, 4):
            continue
        place = reader.place("AMT", k, person)
        cell = reader.cell("AMT", k)
        if blank(cell):
            raise MissingValue("a dose without an amount", remedy='Give it, or write "?" if it is not known', **place)
        lost = isinstance(cell, str) and cell.strip() == "?"
        amount = None if lost else reader.number("AMT", k, person)
        rate = reader.number("RATE", k, person)
        if amount == 0 and not (rate > 0 and reader.whole("SS", k, person)):
            notes.append(Note("rejected", "a dose of amount 0", reader.table.rows[k], place["column"],
                              "Delete the row, or use EVID 2"))
            continue
        if rate < 0 and rate not in (-1, -2):
            raise ImplausibleValue(f"RATE {rate:g} means nothing", remedy="Use 0, a rate, -1 (modelled rate) or -2 "
                                   "(modelled duration)", **reader.place("RATE", k, person))
        try:
            said = _dose(reader, person, k, times[p], amount, rate, clock)
            dose = Dose(**said, order=ORDERS_A_ROW * p + 2, row=reader.table.rows[k])
        except RecordError as error:
            where = place if error.column is None else place | {"column": error.column}
            raise type(error)(error.reason, remedy=error.remedy, **where) from error
        found.setdefault(_compartment(reader, person, k), []).append(dose)
    if not found:
        return {}
    unit = reader.unit("AMT")
    return {key: Regimen(tuple(doses), unit, clock.unit, clock) for key, doses in found.items()}


def _dose(reader, person, k, time, amount, rate, clock) -> dict:
    scale = 1.0 if "RATE" not in reader.units else factor(reader.unit("RATE"), f"{reader.unit('AMT')}/{clock.unit}")
    return {"time": time, "amount": amount, "rate": rate * scale if rate > 0 else None,
            "duration": reader.length("DUR", k, person) if rate == 0 else 0.0,
            "modelled": {-1.0: "rate", -2.0: "duration"}.get(rate), "ii": reader.length("II", k, person),
            "addl": reader.whole("ADDL", k, person), "ss": reader.whole("SS", k, person),
            "prior": reader.cells.missing.get("AMT") if amount is None else None}


def _compartment(reader: _Reader, person, k) -> str | int:
    """CMT as a number (0: the default dose compartment) or as a name."""
    cell = reader.cell("CMT", k)
    if blank(cell):
        return 0
    return reader.whole("CMT", k, person) if is_number(cell) else str(cell).strip()


def _readings(reader, person, at, times, kinds, notes) -> dict[str, Series]:
    found: dict[str, list] = {}
    for p, k in enumerate(at):
        if kinds[p] != 0 or "DV" not in reader.names:
            continue
        if reader.whole("MDV", k, person):
            if not blank(reader.cell("DV", k)):
                notes.append(Note("rejected", "no reading: MDV is 1", reader.table.rows[k], reader.names["DV"],
                                  "Set MDV to 0 to use it"))
            continue
        name = _quantity(reader, person, k)
        place = reader.place("DV", k, person)
        value = measured(reader.cell("DV", k), reader.cells, name, reader.table.comma, **place)
        if value is None or value[0] != value[0]:
            raise MissingValue("a reading without a value", remedy="Give it, or set MDV to 1", **place)
        other = float("nan")
        if mark := reader.whole("CENS", k, person):
            value = (value[0], -1 if mark > 0 else 1, value[0])
            other = reader.number("LIMIT", k, person, float("nan"))
        found.setdefault(name, []).append((p, value, other))
    series = {}
    for name, rows in found.items():
        unit = parsed(reader.units[name], name) if name in reader.units else reader.unit("DV")
        series[name] = Series.of(
            [times[p] for p, _, _ in rows], [v[0] for _, v, _ in rows], unit, censored=[v[1] for _, v, _ in rows],
            limit=[v[2] for _, v, _ in rows], other=[o for _, _, o in rows],
            order=[ORDERS_A_ROW * p for p, _, _ in rows], row=[reader.table.rows[at[p]] for p, _, _ in rows])
    return series


def _quantity(reader: _Reader, person, k) -> str:
    """Which quantity DV is: by DVID (or CMT where there is no DVID), else the only one."""
    column = "DVID" if "DVID" in reader.names else "CMT" if reader.dvid is not None else None
    if column is None or blank(reader.cell(column, k)):
        return reader.readings
    key = identity(reader.cell(column, k))
    if reader.dvid is None:
        return key if not is_number(key) else reader.readings if key == "1" else f"DV{key}"
    if key not in reader.dvid:
        raise RecordError(f"{column} {key!r} is not among those of dvid=: {', '.join(reader.dvid)}",
                          remedy="Add it to dvid={...}", **reader.place(column, k, person))
    return reader.dvid[key]


def _covariate(reader, person, at, times, column, unit, clock, notes) -> Signal | None:
    rows = []
    for p, k in enumerate(at):
        place = {"person": person, "row": reader.table.rows[k], "column": column}
        value = measured(reader.table.columns[column][k], reader.cells, column, reader.table.comma, **place)
        if value is not None and value[0] == value[0]:
            rows.append((times[p], value[0], reader.table.rows[k]))
    if not rows:
        notes.append(Note("seen", "a covariate without any value", column=column))
        return None
    time, value, row = zip(*rows, strict=True)
    check_plausible(column, Series.of(time, value, parsed(unit, column), row=row), person)
    if len(set(value)) == 1:
        return Signal.constant(value[0], unit)
    return steps_of(time, value, unit, reader.carry, clock, person=person, column=column)


def _occasions(reader: _Reader, person, at, times) -> tuple[tuple[float, int], ...]:
    found, last = [], None
    for p, k in enumerate(at):
        if "OCC" in reader.names and not blank(reader.cell("OCC", k)):
            number_ = reader.whole("OCC", k, person)
            if number_ != last:
                found.append((times[p], number_))
            last = number_
    return tuple(found)
