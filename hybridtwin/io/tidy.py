"""Tidy tables: wide (a time column and a column a quantity) or long (time, variable, value)."""

from collections.abc import Mapping
from datetime import UTC, datetime, tzinfo

import numpy as np

from hybridtwin.binding import substance
from hybridtwin.clock import Clock, localize, span, zone
from hybridtwin.errors import AmbiguousTime, EmptyRecord, MissingColumn, MissingUnit, MissingValue, TimeOrder, UnitError
from hybridtwin.io.tables import Cells, Table, blank, blocks, is_number, measured, moment, nearest, needed, read
from hybridtwin.records import ORDERS_A_ROW, Note, Person, Series, check_plausible, one_of, parsed
from hybridtwin.units import factor

_IDS = ("id", "subject", "subject_id", "person", "patient", "patient_id")
_TIMES = ("time", "timestamp", "datetime", "date_time", "local_time")
_SESSIONS = ("session", "sensor_session")
_LONG = {"unit", "units", "duration", "amount_sd", "time_sd", "session", "sensor_session"}


def person(table, units, tz, id, time, covariates, cells: Cells) -> Person:
    """One person; see `Person.from_csv`."""
    found = read(table, cells)
    column = found.named(*_IDS)
    if column is None:
        return _person(found, list(range(len(found.rows))), id or "person", (units, tz, time, covariates, cells), None)
    everyone = [_person(found, rows, name, (units, tz, time, covariates, cells), column)
                for name, rows in blocks(found, column) if id is None or name == str(id)]
    if not everyone:
        raise EmptyRecord(f"nobody is called {str(id)!r}", person=str(id), column=column,
                          remedy=f"The table has {', '.join(name for name, _ in blocks(found, column)[:8])}")
    return one_of(everyone, id)


def people(table, units, tz, id, time, covariates, cells: Cells) -> list[Person]:
    """Everybody in the table, told apart by its column `id`; see `Cohort.from_csv`."""
    found = read(table, cells)
    column = found.need(id)
    return [_person(found, rows, name, (units, tz, time, covariates, cells), column)
            for name, rows in blocks(found, column)]


def _person(table: Table, at: list[int], name: str, options, id_column) -> Person:
    units, tz, time, covariates, cells = options
    notes = list(table.notes)
    used, times, clock = _times(table, at, name, tz, time)
    variable, value = table.named("variable"), table.named("value")
    given = {column for column in (id_column, *used) if column}
    if variable and value:
        series = _long(table, at, times, clock, name, units, cells, (variable, value), given, notes)
    else:
        series = _wide(table, at, times, name, units, cells, given, notes)
    series = {column: s for column, s in series.items() if len(s)}
    if not series:
        raise EmptyRecord("no row holds any value", person=name, remedy="Check which columns units={...} names")
    for column, s in series.items():
        check_plausible(column, s, name)
    clock = clock.spanning(times[0], times[-1])
    return Person(name, clock, series, carry=covariates, missing=cells.missing, notes=tuple(notes))


# ---------------------------------------------------------------------------------------------- times


def _times(table: Table, at, person, tz, unit) -> tuple[list[str], list[float], Clock]:
    """(columns used, times, clock). Timestamps count in minutes from the first local midnight."""
    day, column = table.named("date"), table.named(*_TIMES)
    if column is None and day is None:
        raise MissingColumn(f"there is no column of times among {', '.join(table.columns)}", person=person,
                            column="time", remedy='Call it "time", or rename one: rename={"...": "time"}')
    used = [c for c in (day, column) if c]
    cells = table.columns[used[-1]]
    if day and column and not any(is_number(cells[k]) for k in at):
        cells = [f"{d} {t}" if not blank(d) and not blank(t) else None
                 for d, t in zip(table.columns[day], cells, strict=True)]
    for k in at:
        if blank(cells[k]):
            raise MissingValue("a row without a time", person=person, row=table.rows[k], column=used[-1],
                               remedy="Give its time, or delete the row")
    if is_number(cells[at[0]], table.comma):
        if unit is None:
            raise MissingUnit(f"person {person!r}, column {used[-1]!r}: the times are numbers, but of what unit? "
                              'Say time="min" or time="h" (on the command line --time h).')
        clock = Clock(unit=unit)
        times = [needed(cells[k], table.comma, person=person, row=table.rows[k], column=used[-1]) for k in at]
    else:
        clock, times = _stamped([(cells[k], table.rows[k]) for k in at], person, used[-1], tz)
    for k in range(1, len(times)):
        if times[k] < times[k - 1]:
            raise TimeOrder(f"time goes back, from {clock.label(times[k - 1])} to {clock.label(times[k])}",
                            person=person, row=table.rows[at[k]], column=used[-1], remedy="Sort the rows by time")
    return used, times, clock


def _stamped(cells, person, column, tz) -> tuple[Clock, list[float]]:
    where: tzinfo | None = zone(tz) if tz else None
    aware: list[datetime] = []
    for cell, row in cells:
        place = {"person": person, "row": row, "column": column}
        stamp = moment(cell, **place)
        if stamp.tzinfo is None:
            if where is None:
                raise AmbiguousTime(f"{cell} has neither an offset nor a time zone",
                                    remedy='Say tz="Europe/Rome", or write the offset: 2026-03-24T11:30+01:00', **place)
            stamp = localize(stamp, where, **place)
        aware.append(stamp)
    home = where or aware[0].tzinfo or UTC
    first = aware[0].astimezone(home)
    try:
        origin = localize(first.replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None), home)
    except AmbiguousTime:  # the clock is changed at that midnight
        origin = first
    clock = Clock(origin, tz, "min")
    return clock, [clock.at(stamp) for stamp in aware]


# --------------------------------------------------------------------------------------------- values


def _unit_of(name: str, units: Mapping[str, str | None], person) -> str | None:
    if name not in units:
        raise MissingUnit(f"person {person!r}, column {name!r}: a quantity without a unit. Say "
                          f'units={{{name!r}: "..."}}, or units={{{name!r}: None}} to leave the column out.')
    unit = units[name]
    return None if unit is None else parsed(unit, name)


def _wide(table: Table, at, times, person, units, cells, used, notes) -> dict[str, Series]:
    for name in units:
        if name not in table.columns:
            raise MissingColumn(f"units names a column that is not in the table{nearest(name, table.columns)[:-1]}",
                                person=person, column=name, remedy=f"It has {', '.join(table.columns)}")
    session = table.named(*_SESSIONS)
    sessions = _integers(table, at, session, person) if session and session not in units else None
    found = {}
    for name, column in table.columns.items():
        if name in used or (name == session and name not in units):
            continue
        if name in cells.categories and name not in units:
            units = {**units, name: "1"}
        if name not in units and not any(is_number(column[k], table.comma) for k in at):
            if any(not blank(column[k]) for k in at):
                notes.append(Note("left out", "a column of text", column=name, remedy="Use it with categories={...}"))
            continue
        unit = _unit_of(name, units, person)
        if unit is None:
            notes.append(Note("left out", "left out on request", column=name))
            continue
        rows = [(p, measured(column[k], cells, name, table.comma, person=person, row=table.rows[k], column=name))
                for p, k in enumerate(at)]
        rows = [(p, m) for p, m in rows if m is not None]
        found[name] = Series.of(
            [times[p] for p, _ in rows], [m[0] for _, m in rows], unit, censored=[m[1] for _, m in rows],
            limit=[m[2] for _, m in rows], order=[ORDERS_A_ROW * p for p, _ in rows],
            row=[table.rows[at[p]] for p, _ in rows], session=0 if sessions is None else [sessions[p] for p, _ in rows])
        _told(found[name], name, notes)
    return found


def _told(series: Series, name, notes):
    if count := int(np.sum(series.censored != 0)):
        notes.append(Note("seen", f"{count} readings at or past a limit of the device are censored", column=name))
    if count := int(series.missing.sum()):
        notes.append(Note("seen", f"{count} events of unknown amount", column=name))


def _integers(table: Table, at, column, person) -> list[int]:
    """Session labels as numbers in the order in which they first appear; a blank repeats the one before."""
    seen, found, last = {}, [], None
    for k in at:
        cell = table.columns[column][k]
        last = last if blank(cell) else str(cell)
        found.append(seen.setdefault(last, len(seen)))
    return found


def _long(table: Table, at, times, clock, person, units, cells, columns, used, notes) -> dict[str, Series]:
    variable, value = columns
    per_row = table.named("unit", "units")
    extras = {name: table.named(name) for name in ("duration", "time_sd", "amount_sd")}
    for name in table.columns:
        if name not in used and name not in columns and name.lower() not in _LONG:
            notes.append(Note("left out", "not a column of a long table", column=name))
    session = table.named(*_SESSIONS)
    sessions = _integers(table, at, session, person) if session else [0] * len(at)
    rows: dict[str, list] = {}
    own: dict[str, str] = {}
    for p, k in enumerate(at):
        place = {"person": person, "row": table.rows[k], "column": value}
        if blank(table.columns[variable][k]):
            raise MissingValue("a row without a variable", person=person, row=table.rows[k], column=variable,
                               remedy="Say what the value is, or delete the row")
        name = str(table.columns[variable][k]).strip()
        if units.get(name, "") is None:
            if (note := Note("left out", "left out on request", column=name)) not in notes:
                notes.append(note)
            continue
        written = table.columns[per_row][k] if per_row else None
        unit = _unit_of(name, units, person) if blank(written) else parsed(str(written).strip(), name)
        if unit is None:
            continue
        cell = table.columns[value][k]
        found = measured("?" if blank(cell) else cell, cells, name, table.comma, **place)
        if own.setdefault(name, unit) != unit:
            found = _rescaled(found, unit, own[name], name, table.rows[k], notes)
        extra = {key: _extra(table, column, k, key, units, clock, person) for key, column in extras.items() if column}
        rows.setdefault(name, []).append((p, found, extra))
    for name in units:
        if name not in rows and units[name] is not None and name not in extras:
            notes.append(Note("seen", "units names a variable that has no row", column=name))
    return {name: _long_series(found, own[name], times, table, at, sessions, name, notes)
            for name, found in rows.items()}


def _long_series(found, unit, times, table, at, sessions, name, notes) -> Series:
    columns = {key: [extra.get(key, 0.0) for _, _, extra in found] for key in ("duration", "time_sd", "amount_sd")}
    series = Series.of(
        [times[p] for p, _, _ in found], [m[0] for _, m, _ in found], unit, censored=[m[1] for _, m, _ in found],
        limit=[m[2] for _, m, _ in found], order=[ORDERS_A_ROW * p for p, _, _ in found],
        row=[table.rows[at[p]] for p, _, _ in found], session=[sessions[p] for p, _, _ in found], **columns)
    _told(series, name, notes)
    return series


def _rescaled(found, unit, target, name, row, notes):
    try:
        k = factor(unit, target, of=substance(name))
    except UnitError as error:
        raise UnitError(f"row {row}, column {name!r}: {error}") from error
    note = Note("conversion", f"{unit} to {target}, x {k:.6g}", column=name)
    if note not in notes:
        notes.append(note)
    return found[0] * k, found[1], found[2] * k


def _extra(table: Table, column, k, key, units, clock, person) -> float:
    """A duration or time_sd ("30 min", or a number whose unit `units` gives) in the clock's unit, or an amount_sd."""
    cell, place = table.columns[column][k], {"person": person, "row": table.rows[k], "column": column}
    if blank(cell):
        return 0.0
    if key == "amount_sd":
        return needed(cell, table.comma, **place)
    if not is_number(cell, table.comma):
        return span(cell, clock.unit)
    unit = units.get(column)
    if unit is None:
        raise MissingUnit(f'person {person!r}, row {table.rows[k]}, column {column!r}: a time without a unit. '
                          f'Write "30 min" or say units={{{column!r}: "min"}}.')
    return needed(cell, table.comma, **place) * factor(unit, clock.unit)


