"""What is asked: `Outcome`, one number a draw of a trajectory. `outcomes` is what people write."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from hybridtwin.clock import Moment
from hybridtwin.errors import DeclarationError, InterventionError, PastHorizon, UnknownTarget
from hybridtwin.levels import GLUCOSE as GLUCOSE
from hybridtwin.levels import check_level
from hybridtwin.levels import substance_of as substance_of
from hybridtwin.measures import (
    Area,
    Beyond,
    Deviation,
    Episodes,
    Ever,
    First,
    Indicator,
    Last,
    Piece,
    Risk,
    RiskIndex,
    Share,
    TimeOf,
    Until,
    inside,
)
from hybridtwin.units import bracketed, convert, factor, parse, plain, time_factor

_WORDS = {"G": "glucose", "G_isf": "interstitial glucose", "insulin": "plasma insulin"}
_OF_GLUCOSE = RiskIndex | Indicator | Risk  # measures that only glucose has
_WITH_LEVELS = Share | Episodes | Beyond | Until | Ever  # measures whose level has a unit of its own


@dataclasses.dataclass(frozen=True)
class Outcome:
    """One number a draw, asked of a trajectory.

    label: what it is, for people. unit: of the answer (None until `settled`: then the trajectory's own).
    better: "lower", "higher" or None. name: the output it reads ("" for a custom one). start, stop: the window
    (None: the trajectory's own ends); measure: what is computed on it.

    `settled(trajectory)` fills in unit and the window's text; `of(trajectory)` gives the numbers, (draws,), NaN for
    draws that failed.
    """

    label: str
    unit: str | None
    better: str | None
    name: str
    measure: Callable[[Any], Any]
    start: Moment | None = None
    stop: Moment | None = None

    def __post_init__(self):
        if self.better not in ("lower", "higher", None):
            raise DeclarationError(
                f'better is "lower", "higher" or None, not {self.better!r}. Say which way is better for the person.'
            )
        if self.unit is not None:
            parse(self.unit)

    def window(self, trajectory) -> tuple[float, float]:
        """The window as numbers of its clock. **Raises:** PastHorizon, InterventionError, AmbiguousTime."""
        clock, first, last = trajectory.clock, float(trajectory.time[0]), float(trajectory.time[-1])
        start, stop = clock.window(self.start, self.stop, first, last)
        slack = 1e-9 * max(1.0, abs(first), abs(last))
        if start < first - slack or stop > last + slack:
            raise PastHorizon(
                f"{self.label}: the window {clock.label(start)} to {clock.label(stop)} reaches outside "
                f"the trajectory, {clock.label(first)} to {clock.label(last)}. Choose a window inside "
                "it, or simulate a longer record."
            )
        point = isinstance(self.measure, First | Last)
        if stop < start or (stop == start and not point):
            raise InterventionError(
                f"{self.label}: the window ends ({clock.label(stop)}) before it starts "
                f"({clock.label(start)}). Swap start and stop, or name the day: 'day 2 07:00'."
            )
        return max(start, first), min(stop, last)

    def window_text(self, trajectory) -> str:
        """The window for a reader: "Wed 11 Mar 07:00 to 12:00 (5 h)"."""
        start, stop = self.window(trajectory)
        clock = trajectory.clock
        if start == stop:
            return f"at {clock.label(start)}"
        first, last = clock.label(start), clock.label(stop)
        if clock.origin is not None and first.rsplit(" ", 1)[0] == last.rsplit(" ", 1)[0]:
            last = last.rsplit(" ", 1)[1]
        hours = (stop - start) * time_factor(clock.unit, "h")
        return f"{first} to {last} ({f'{hours:.3g} h' if hours >= 1 else f'{60 * hours:.3g} min'})"

    def settled(self, trajectory) -> "Outcome":
        """The same outcome with its unit and the text of its window, as they are on this trajectory.

        **Raises:** DeclarationError for a level that no living body has, and what `window` and `of` raise.
        """
        if not self.name:
            return self
        unit = self.unit or self._natural(trajectory.units[self._named(trajectory)])
        for level in (getattr(self.measure, name, None) for name in ("low", "high", "level")):
            if isinstance(level, int | float) and not isinstance(level, bool):
                check_level(self.name, level, getattr(self.measure, "unit", unit))
        text = self.window_text(trajectory)
        label = self.label if self.label.endswith(text) else f"{self.label}, {text}"
        return dataclasses.replace(self, unit=unit, label=label)

    def of(self, trajectory) -> np.ndarray:
        """The outcome of every draw, float64 (draws,), in `settled(trajectory).unit`; NaN where a draw failed.

        **Raises:** PastHorizon where the window leaves the trajectory, UnitError, UnknownTarget for an unknown output.
        """
        if not self.name:
            found = np.asarray(self.measure(trajectory), dtype=np.float64)
            if found.shape != (len(trajectory.failed),):
                raise DeclarationError(
                    f"{self.label}: the function returned shape {found.shape}. Return one number a "
                    f"draw, shape ({len(trajectory.failed)},), such as x['C'].max(axis=1)."
                )
            return found
        unit, name = trajectory.units[self._named(trajectory)], self.name
        start, stop = self.window(trajectory)
        time, value = inside(np.asarray(trajectory.time, float), np.asarray(trajectory[name], float), start, stop)
        target = self._value_unit(unit)
        if target != unit:
            of = "glucose" if isinstance(self.measure, _OF_GLUCOSE) else substance_of(name)
            value = convert(value, unit, target, of=of)
        found = self.measure(Piece(time, value, time_factor(trajectory.clock.unit, "h")))
        if isinstance(self.measure, Area | Beyond) and self.unit is not None:
            found = found * factor(self._natural(unit), self.unit, of=substance_of(name))
        return np.where(np.isfinite(value).all(axis=1), found, np.nan)

    def _named(self, trajectory) -> str:
        try:
            trajectory[self.name]
        except KeyError as error:  # the trajectory's own names what there is
            raise UnknownTarget(f"{self.label}: {error.args[0]}") from None
        return self.name

    def _value_unit(self, own: str) -> str:
        """Unit in which the curve is measured."""
        if isinstance(self.measure, TimeOf) or (isinstance(self.measure, Deviation) and self.measure.relative):
            return own
        if isinstance(self.measure, _WITH_LEVELS | _OF_GLUCOSE):
            return self.measure.unit
        return own if self.unit is None or isinstance(self.measure, Area) else self.unit

    def _natural(self, own: str) -> str:
        if isinstance(self.measure, Share):
            return "%"
        if isinstance(self.measure, Beyond):
            own = self.measure.unit
        if isinstance(self.measure, Area | Beyond):
            over = own.split("/", 1)
            return f"{over[0]}*h/{over[1]}" if len(over) == 2 else f"{own}*h"
        return own

    def __str__(self):
        way = f", {self.better} is better" if self.better else ""
        return self.label + (f" {bracketed(self.unit)}" if self.unit else "") + way


def word(name: str) -> str:
    """What an output is called for a reader: "G" is "glucose"."""
    return _WORDS.get(name, name)


def signed(x: float) -> str:
    """A difference to three digits with its sign; none on zero."""
    text = plain(x)
    return "0" if float(text) == 0 else text if x < 0 else f"+{text}"


def as_outcome(thing) -> Outcome:
    """`thing` itself if it is an outcome. **Raises:** DeclarationError for a bare function: no unit, no direction."""
    if isinstance(thing, Outcome):
        return thing
    what = (
        "a bare function says neither its unit nor which way is better"
        if callable(thing)
        else f"{thing!r} is no outcome"
    )
    raise DeclarationError(
        f"{what}. Write ht.outcomes.peak('G', '07:00', '12:00'), or ht.outcomes.custom(function, "
        'label="...", unit="mg/dL", better="lower").'
    )
