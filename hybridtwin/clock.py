"""When: the clock of a record, and lengths of time.

The numbers of a record count in `Clock.unit` from `Clock.origin`; clock text ("11:30", "day 2 07:00") becomes such
a number only here. Time zones come from `zoneinfo`; a local time that occurs twice or never is an error, never a guess.
"""

import dataclasses
import math
import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from datetime import time as clock_time
from numbers import Real
from typing import TypeGuard
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from hybridtwin import units
from hybridtwin.errors import AmbiguousTime, MissingValue, UnitError

Moment = float | str | datetime
Span = float | str

_SPAN = re.compile(r"^\s*([+-]?\d+\.?\d*(?:[eE][+-]?\d+)?)\s*([A-Za-zµ]+)\s*$")
_HOUR = re.compile(r"^\s*(\d{1,2}):(\d{2})(?::(\d{2}))?\s*$")
_DAY = re.compile(r"^\s*day\s+(\d+)(?:\s+(\d{1,2}:\d{2}(?::\d{2})?))?\s*$", re.IGNORECASE)
_FORMS = 'Write a number, "90 min", "11:30", "day 2 07:00", "2026-03-24 11:30" or "now"'


def is_real(value: object) -> TypeGuard[float]:
    """Whether `value` is a number (of Python or NumPy), and no truth value."""
    return type(value) is float or (isinstance(value, Real) and not isinstance(value, bool))  # the first is fast


def zone(name: str) -> tzinfo:
    """The time zone called `name` (IANA, such as "Europe/Rome"); AmbiguousTime if there is none."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise AmbiguousTime(f"no time zone is called {name!r}", remedy='Write an IANA name such as "Europe/Rome"'
                            ) from error


def localize(naive: datetime, where: tzinfo, **place) -> datetime:
    """A wall-clock time made aware; AmbiguousTime if it occurs twice or never there.

    `place` (person, row, column) goes into the error.
    """
    early, late = naive.replace(tzinfo=where, fold=0), naive.replace(tzinfo=where, fold=1)
    if early.utcoffset() == late.utcoffset():
        return early
    back = early.astimezone(UTC).astimezone(where).replace(tzinfo=None)
    often = "twice" if back == naive else "never"
    first, second = early.isoformat(sep=" "), late.isoformat(sep=" ")
    raise AmbiguousTime(f"the local time {naive.isoformat(sep=' ')} occurs {often} in {where} (the clock is changed)",
                        remedy=f"Write the offset from UTC: {first} or {second}", **place)


def span(value: Span, unit: str | None) -> float:
    """A length of time as a number in `unit`; a bare number is already in it.

    Errors: UnitError for text without a unit of time, MissingValue for NaN.
    """
    if is_real(value):
        if math.isnan(value):
            raise MissingValue("a length of time is NaN", remedy='Give a number or text such as "12 h"')
        return float(value)
    found = _SPAN.match(str(value))
    if not found:
        raise UnitError(f'{value!r} is not a length of time. Write a number with a unit, such as "12 h" or "20 min".')
    if unit is None:
        raise UnitError(f"{value!r} needs a time unit to be turned into. Resolve it against a record first.")
    return float(found[1]) * units.time_factor(found[2], unit)


@dataclass(frozen=True)
class Clock:
    """Dates the numbers of a record: `origin` is time 0, `unit` the unit of the numbers.

    origin: aware datetime (text is parsed; a naive one needs `tz`), or None when only elapsed time is known.
    tz: IANA name in which clock text such as "11:30" is read; by default the offset of the origin.
    start, stop: the span of the record, in `unit`.
    bare: unit of the bare numbers of a question where that is not `unit`: the record's own, of a clock that counts as its system
    does.
    """

    origin: datetime | None = None
    tz: str | None = None
    unit: str = "min"
    start: float = 0.0
    stop: float = 0.0
    bare: str | None = None

    def __post_init__(self):
        units.time_factor(self.unit, "s")
        origin = self.origin
        if isinstance(origin, str):
            origin = _iso(origin)
        if origin is not None and origin.tzinfo is None:
            if self.tz is None:
                raise AmbiguousTime(f"the origin {origin} has no time zone",
                                    remedy='Add the offset from UTC, or say tz="Europe/Rome"')
            origin = localize(origin, zone(self.tz))
        object.__setattr__(self, "origin", origin)

    @property
    def zone(self) -> tzinfo | None:
        if self.tz is not None:
            return zone(self.tz)
        return None if self.origin is None else self.origin.tzinfo

    def at(self, moment: Moment, **place) -> float:
        """`moment` as a number in the clock's unit since its origin.

        Accepts a number (already that), "90 min" (since the origin), "now" (= stop), "start", a datetime,
        "2026-03-24 11:30", "day 2 07:00" (day 1 is the first calendar day of the record), and "11:30": the
        last day of the record on which that time occurs.
        Errors: AmbiguousTime for a local time that occurs twice, never, or on no day of the record.
        """
        if isinstance(moment, datetime):
            return self._since(moment, place)
        if not isinstance(moment, str):
            return span(moment, self.unit)
        text = moment.strip()
        if text.lower() in ("now", "stop", "end"):
            return self.stop
        if text.lower() == "start":
            return self.start
        if _SPAN.match(text):
            return span(text, self.unit)
        if _HOUR.match(text):
            return self._last(_hour(text), place)
        if found := _DAY.match(text):
            self._placed(moment, place)
            on = self.when(self.start).date() + timedelta(days=int(found[1]) - 1)
            return self._since(datetime.combine(on, _hour(found[2] or "00:00")), place)
        return self._since(_iso(text, place), place)

    def asked(self, moment: Moment) -> float:
        """What `at` says of a moment in a question: its bare numbers count as the record does (`bare`)."""
        if self.bare is None or not is_real(moment):
            return self.at(moment)
        return span(moment, self.bare) * units.time_factor(self.bare, self.unit)

    def window(self, start: Moment | None, stop: Moment | None, first: float, last: float) -> tuple[float, float]:
        """(start, stop) as numbers, `first` and `last` where one is None. What `asked` says of each, but two bare times
        ("06:00" and "12:00", "22:00" and "06:00") are of one day or night: the last whose window lies in the record whole.

        Errors: AmbiguousTime, also where no day holds such a window.
        """
        if isinstance(start, str) and isinstance(stop, str) and _HOUR.match(start) and _HOUR.match(stop):
            return self._last_window(start.strip(), stop.strip())
        return first if start is None else self.asked(start), last if stop is None else self.asked(stop)

    def _last_window(self, start: str, stop: str) -> tuple[float, float]:
        self.at(start), self.at(stop)  # each must occur
        opens, closes = _hour(start), _hour(stop)
        for on in reversed(self.dates):
            until = on if closes >= opens else on + timedelta(days=1)
            try:
                low, high = (self._since(datetime.combine(d, h), {}) for d, h in ((on, opens), (until, closes)))
            except AmbiguousTime as error:
                if "never" in error.reason:
                    continue
                raise
            if self.start <= low and high <= self.stop:
                return low, high
        raise AmbiguousTime(f"{start} to {stop} lies on no day of the record whole "
                            f"({self.label(self.start)} to {self.label(self.stop)})",
                            remedy="Give the dates too, or times inside the record")

    def _placed(self, moment, place) -> tuple[datetime, tzinfo]:
        """(origin, zone); AmbiguousTime where there is none."""
        if self.origin is None or self.zone is None:
            raise AmbiguousTime(f"{moment!s} is a clock time, but this record only counts {self.unit} since its start",
                                remedy=f'Give elapsed time such as "7.5 {self.unit}", or a record with timestamps',
                                **place)
        return self.origin, self.zone

    def _since(self, moment: datetime, place) -> float:
        origin, where = self._placed(moment, place)
        if moment.tzinfo is None:
            moment = localize(moment, where, **place)
        # datetimes that share a tzinfo subtract as wall clocks, which is wrong across a change of the clock
        seconds = (moment.astimezone(UTC) - origin.astimezone(UTC)).total_seconds()
        return seconds * units.time_factor("s", self.unit)

    def _last(self, hour: clock_time, place) -> float:
        self._placed(hour.strftime("%H:%M"), place)
        for on in reversed(self.dates):
            try:
                at = self._since(datetime.combine(on, hour), place)
            except AmbiguousTime as error:
                if "never" in error.reason:
                    continue
                raise
            if self.start <= at <= self.stop:
                return at
        raise AmbiguousTime(f"{hour.strftime('%H:%M')} occurs on no day of the record "
                            f"({self.label(self.start)} to {self.label(self.stop)})",
                            remedy="Give the date too, or a time inside the record", **place)

    def when(self, t: float) -> datetime:
        """The local datetime of time `t` (clock unit). Needs an origin."""
        origin, where = self._placed(f"time {t:g}", {})
        seconds = t * units.time_factor(self.unit, "s")
        return (origin.astimezone(UTC) + timedelta(seconds=seconds)).astimezone(where)

    @property
    def dates(self) -> list[date]:
        """The calendar days that [start, stop] touches. Needs an origin."""
        first, last = self.when(self.start).date(), self.when(self.stop).date()
        return [first + timedelta(days=k) for k in range((last - first).days + 1)]

    @property
    def midnights(self) -> list[float]:
        """Local midnights strictly inside (start, stop); without an origin, the multiples of 24 h since time 0."""
        if self.origin is None:
            day = units.time_factor("h", self.unit) * 24.0
            found = [k * day for k in range(math.floor(self.start / day), math.ceil(self.stop / day) + 1)]
        else:
            found = [self._midnight(on) for on in self.dates]
        return [t for t in found if self.start < t < self.stop]

    def _midnight(self, on: date) -> float:
        for minutes in (0, 60, 120):  # some zones change their clock at midnight: the day then begins later
            try:
                return self._since(datetime.combine(on, clock_time()) + timedelta(minutes=minutes), {})
            except AmbiguousTime:
                continue
        raise AmbiguousTime(f"{on} has no midnight in {self.tz}", remedy="Use timestamps with an offset")

    def label(self, t: float) -> str:
        """Time `t` for a reader: "Tue 24 Mar 07:00", or "7.5 h" without an origin; many seconds are minutes."""
        if self.origin is not None and math.isfinite(t):
            return self.when(t).strftime("%a %d %b %H:%M")
        return f"{t / 60.0:.6g} min" if self.unit == "s" and abs(t) >= 120.0 else f"{t:.6g} {self.unit}"

    def to(self, unit: str) -> "Clock":
        """The same clock counting in another unit; bare numbers of a question still count in the first."""
        k, bare = units.time_factor(self.unit, unit), self.bare or self.unit
        return dataclasses.replace(self, unit=unit, start=self.start * k, stop=self.stop * k, bare=None if bare == unit else bare)

    def spanning(self, start: float, stop: float) -> "Clock":
        """The same clock for another span (clock unit)."""
        return dataclasses.replace(self, start=float(start), stop=float(stop))


def _hour(text: str) -> clock_time:
    try:
        hours, minutes, seconds = (int(part) for part in f"{text}:00".split(":")[:3])
        return clock_time(hours, minutes, seconds)
    except ValueError as error:
        raise AmbiguousTime(f"{text!r} is no time of a day", remedy='Write "00:00" to "23:59"') from error


def _iso(text: str, place=None) -> datetime:
    try:
        return datetime.fromisoformat(text.strip())
    except ValueError as error:
        raise AmbiguousTime(f"cannot read {text!r} as a time", remedy=_FORMS, **(place or {})) from error
