"""What a record shows of itself: span, coverage by day, gaps, events, and everything that was done to the table."""

import html as _html
from collections.abc import Iterable

import numpy as np

from hybridtwin import units
from hybridtwin.clock import Clock
from hybridtwin.records import NOTE_KINDS, Cohort, Person, Series
from hybridtwin.signals import Regimen
from hybridtwin.units import plain

_SHADES = " ▁▂▃▄▅▆▇█"
_GAP = 3.0  # a gap is longer than this many median spacings
_LINES = 25
_DAYS = 14


def _plural(n: int, word: str) -> str:
    return f"{n} {word}" if n == 1 else f"{n} {word}s"


def gaps(series: Series) -> list[tuple[float, float]]:
    """(from, to) of the stretches without a row that are longer than three median spacings."""
    if len(series) < 4:
        return []
    width = np.diff(series.time)
    typical = np.median(width[width > 0]) if np.any(width > 0) else np.inf
    return [(float(series.time[k]), float(series.time[k + 1])) for k in np.flatnonzero(width > _GAP * typical)]


def coverage(person: Person, series: Series) -> str:
    """One character a day: how many of the rows that the day could hold (at the median spacing) are there."""
    width = np.diff(series.time)
    typical = np.median(width[width > 0]) if np.any(width > 0) else np.inf
    marks = []
    for start, stop in person.days[:_DAYS]:
        n = np.sum((series.time >= start) & (series.time < stop))
        share = min(1.0, n * typical / (stop - start)) if stop > start and n else 0.0
        marks.append(_SHADES[int(np.ceil(share * (len(_SHADES) - 1)))])
    return "".join(marks) + ("..." if len(person.days) > _DAYS else "")


def _span(clock: Clock) -> str:
    hours = clock.to("h")
    long = f"{plain((hours.stop - hours.start) / 24)} days" if hours.stop - hours.start > 48 \
        else f"{plain(hours.stop - hours.start)} h"
    where = f", {clock.tz}" if clock.tz else ""
    return f"{clock.label(clock.start)} to {clock.label(clock.stop)} ({long}{where})"


def _dense(series: Series) -> bool:
    return len(series) >= 24 and not np.any(series.missing)


def _given(series: Series) -> bool:
    """Whether the unit is that of something given or eaten, so that a total means something (kg is a body weight)."""
    unit = units.parse(series.unit)
    amounts = [units.parse(x) for x in ("g", "mol", "[IU]", "kcal")]
    return series.unit != "kg" and any(unit.same_dimension(a) for a in amounts)


def _series_line(person: Person, name: str, series: Series) -> str:
    known = series.value[~series.missing]
    low, high = (known.min(), known.max()) if known.size else (np.nan, np.nan)
    parts = [f"{len(series)} rows", f"{plain(low, 4)} to {plain(high, 4)} {series.unit}" if known.size else series.unit]
    if known.size and _given(series):
        parts.append(f"total {plain(known.sum(), 4)}")
    below, above = int(np.sum(series.censored < 0)), int(np.sum(series.censored > 0))
    if below or above:
        parts.append(f"censored {below} low, {above} high")
    if np.any(series.missing):
        parts.append(f"{int(series.missing.sum())} of unknown amount")
    if _dense(series):
        found = gaps(series)
        if found:
            longest = max(found, key=lambda g: g[1] - g[0])
            k = person.clock.to("h").stop / person.clock.stop if person.clock.stop else 1.0
            parts.append(f"{_plural(len(found), 'gap')}, longest {plain((longest[1] - longest[0]) * k)} h "
                         f"from {person.clock.label(longest[0])}")
        parts.append(f"by day |{coverage(person, series)}|")
    return f"{name}: " + ", ".join(parts)


def _regimen_line(key, regimen: Regimen) -> str:
    name = key if isinstance(key, str) else "doses" if key == 0 else f"doses into compartment {key}"
    lost = sum(d.amount is None for d in regimen)
    n = sum(1 + d.addl for d in regimen)
    return f"{name}: {_plural(n, 'dose')}, total {plain(regimen.total, 4)} {regimen.unit}" + (
        f", {lost} of unknown amount" if lost else "")


def _note_lines(person: Person, room: int) -> list[str]:
    """Notes by kind; where there is no room for all, the number of those that are not shown (all are in `.notes`)."""
    lines = []
    for kind in NOTE_KINDS:
        notes = [n for n in person.notes if n.kind == kind]
        if not notes:
            continue
        if kind in ("no unit", "left out"):
            plain = [n.column for n in notes if n.column]
            lines.append(f"{kind}: {', '.join(plain)}" if plain else f"{kind}: {len(notes)}")
        else:
            lines.append(f"{kind} ({len(notes)}):")
            shown = 4 if len(notes) > 5 else len(notes)
            lines += [f"  {n}" for n in notes[:shown]]
            if len(notes) > shown:
                lines.append(f"  and {len(notes) - shown} more in .notes")
    return lines if len(lines) <= room else [*lines[:room - 1], "... all of it in .notes"]


def _lines(person: Person) -> Iterable[str]:
    yield f"Person {person.id}: {_span(person.clock)}"
    for name, series in person.series.items():
        yield "  " + _series_line(person, name, series)
    for key, regimen in person.regimens.items():
        yield "  " + _regimen_line(key, regimen)
    for word, group in (("signal", person.signals), ("covariate", person.covariates)):
        for name, course in group.items():
            yield f"  {word} {name}: {str(course).removeprefix('Signal: ')}"
    if person.resets:
        first = ", ".join(person.clock.label(t) for t, _ in person.resets[:5])
        yield f"  {_plural(len(person.resets), 'reset')} at {first}"
    if person.occasions:
        yield f"  {_plural(len(person.occasions), 'occasion')}"
    if np.any(np.isfinite(person.window)):
        low, high = person.window
        yield ("  readings used: " + (f"from {person.clock.label(low)} " if np.isfinite(low) else "")
               + (f"before {person.clock.label(high)}" if np.isfinite(high) else "")).rstrip()


def text(person: Person) -> str:
    """At most about 25 lines of plain text."""
    lines = list(_lines(person))
    if len(lines) > 15:
        lines = [*lines[:14], f"  and {len(lines) - 14} more"]
    return "\n".join(lines + ["  " + line for line in _note_lines(person, _LINES - len(lines))])


def _bar(person: Person, series: Series) -> str:
    """Inline SVG of when a series has rows: a tick a row over the span of the record."""
    clock = person.clock
    width = max(clock.stop - clock.start, 1e-12)
    at = np.unique(np.round((series.time - clock.start) / width * 400).astype(int))
    ticks = "".join(f"M{x} 0v12" for x in at)
    days = "".join(f"M{(t - clock.start) / width * 400:.1f} 0v12" for t in clock.midnights)
    return (f'<svg width="400" height="12" role="img" aria-label="when there are rows">'
            f'<path d="{ticks}" stroke="#2a78b5"/>'
            f'<path d="{days}" stroke="#999" stroke-dasharray="2"/></svg>')


def html(person: Person) -> str:
    """The record as HTML for a notebook."""
    say = _html.escape
    rows = "".join(f"<tr><td>{say(name)}</td><td>{say(_series_line(person, name, s).split(': ', 1)[1])}</td>"
                   f"<td>{_bar(person, s)}</td></tr>" for name, s in person.series.items())
    rows += "".join(f"<tr><td colspan=3>{say(_regimen_line(key, r))}</td></tr>" for key, r in person.regimens.items())
    rows += "".join(f"<tr><td>{say(name)}</td><td colspan=2>{say(str(c))}</td></tr>"
                    for group in (person.signals, person.covariates) for name, c in group.items())
    notes = "".join(f"<li>{say(n.kind)}: {say(str(n))}</li>" for n in person.notes[:200])
    more = f"<p>and {len(person.notes) - 200} more in .notes</p>" if len(person.notes) > 200 else ""
    told = f"<details><summary>{_plural(len(person.notes), 'note')}: conversions, rejected rows, what was seen" \
           f"</summary><ul>{notes}</ul>{more}</details>" if notes else ""
    return f"<div><b>Person {say(person.id)}</b>: {say(_span(person.clock))}<table>{rows}</table>{told}</div>"


def cohort(people: Cohort) -> str:
    """A few lines about several people."""
    names = list(people)
    readings: dict[str, int] = {}
    for person in people.values():
        for name, series in person.series.items():
            readings[name] = readings.get(name, 0) + len(series)
    doses = sum(len(r) for p in people.values() for r in p.regimens.values())
    noted = sum(len(p.notes) for p in people.values())
    lines = [f"Cohort of {_plural(len(names), 'person').replace('persons', 'people')}: {', '.join(names[:8])}"
             + (", ..." if len(names) > 8 else "")]
    lines += [f"  {name}: {n} rows" for name, n in readings.items()]
    lines += [f"  {_plural(doses, 'dose')}"] * bool(doses)
    lines += [f"  {_plural(noted, 'note')} in .notes of each"] * bool(noted)
    return "\n".join(lines)
