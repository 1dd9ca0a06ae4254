r"""What is asked of a trajectory: one number a draw, with a window, a unit, and which way is better.

    early = twin.do(bolus=lambda b: b.shift(-20, "min"), start="07:00")
    ht.contrast(early, twin, ht.outcomes.peak("G", "07:00", "12:00"), ht.outcomes.time_below("G", 70, "mg/dL"))

Between nodes a trajectory is taken as straight lines, and on those every outcome is exact: times and means are weighted
by time (never by node), thresholds are crossed inside segments. The window is [start, stop): where the curve jumps at
its start the value after the jump counts, at its stop the value before (a dose given then belongs to the next window).
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from hybridtwin.binding import substance
from hybridtwin.clock import Moment, span
from hybridtwin.errors import DeclarationError, InterventionError, PastHorizon
from hybridtwin.measures import (
    HYPER,
    HYPO,
    Area,
    Deviation,
    Episodes,
    First,
    Indicator,
    Last,
    Mean,
    Nadir,
    Peak,
    Piece,
    Risk,
    RiskIndex,
    Share,
    TimeOf,
    inside,
)
from hybridtwin.units import bracketed, convert, factor, parse, time_factor

_WORDS = {"G": "glucose", "G_isf": "interstitial glucose", "insulin": "plasma insulin"}
GLUCOSE = {"G": "mg/dL", "G_isf": "mg/dL", "glucose": "mg/dL"}  # outputs that mean a concentration of glucose
_OF_DAYS = RiskIndex | Indicator | Risk | Episodes  # measures that the consensus wants of two weeks
_OF_GLUCOSE = RiskIndex | Indicator | Risk  # measures that only glucose has


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
        return f"{first} to {last} ({(stop - start) * time_factor(clock.unit, 'h'):.3g} h)"

    def settled(self, trajectory) -> "Outcome":
        """The same outcome with its unit and the text of its window, as they are on this trajectory."""
        if not self.name:
            return self
        unit = self.unit or self._natural(trajectory.units[self._named(trajectory)])
        text = self.window_text(trajectory)
        label = self.label if self.label.endswith(text) else f"{self.label}, {text}"
        return dataclasses.replace(self, unit=unit, label=label)

    def of(self, trajectory) -> np.ndarray:
        """The outcome of every draw, float64 (draws,), in `settled(trajectory).unit`; NaN where a draw failed.

        **Raises:** PastHorizon where the window leaves the trajectory, UnitError, KeyError for an unknown output.
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
            of = "glucose" if isinstance(self.measure, _OF_GLUCOSE) else _of(name)
            value = convert(value, unit, target, of=of)
        found = self.measure(Piece(time, value, time_factor(trajectory.clock.unit, "h")))
        if isinstance(self.measure, Area) and self.unit is not None:
            found = found * factor(self._natural(unit), self.unit, of=_of(name))
        return np.where(np.isfinite(value).all(axis=1), found, np.nan)

    def _named(self, trajectory) -> str:
        trajectory[self.name]  # a KeyError of the trajectory's own names what there is
        return self.name

    def _value_unit(self, own: str) -> str:
        """Unit in which the curve is measured."""
        if isinstance(self.measure, TimeOf) or (isinstance(self.measure, Deviation) and self.measure.relative):
            return own
        if isinstance(self.measure, Share | Episodes | _OF_GLUCOSE):
            return self.measure.unit
        return own if self.unit is None or isinstance(self.measure, Area) else self.unit

    def _natural(self, own: str) -> str:
        if isinstance(self.measure, Share):
            return "%"
        if isinstance(self.measure, Area):
            over = own.split("/", 1)
            return f"{over[0]}*h/{over[1]}" if len(over) == 2 else f"{own}*h"
        return own

    def __str__(self):
        way = f", {self.better} is better" if self.better else ""
        return self.label + (f" {bracketed(self.unit)}" if self.unit else "") + way


def _of(name: str) -> str | None:
    return "glucose" if name in GLUCOSE else substance(name)


def word(name: str) -> str:
    """What an output is called for a reader: "G" is "glucose"."""
    return _WORDS.get(name, name)


def signed(x: float) -> str:
    """A difference to three digits with its sign; none on zero."""
    text = f"{x:+.3g}"
    return "0" if float(text) == 0 else text


_MISSING: Any = object()
_BETTER = {Peak: "lower", Nadir: "higher", Deviation: "lower", RiskIndex: "lower", Risk: "lower"}  # of glucose


def _made(head, name, measure, start, stop, unit, better, label) -> Outcome:
    if better is _MISSING:
        better = _BETTER.get(type(measure)) if name in GLUCOSE else None
    return Outcome(label or f"{head} {word(name)}", unit, better, name, measure, start, stop)


# ----------------------------------------------------------------------------------------- what people write


def peak(
    name: str,
    start: Moment | None = None,
    stop: Moment | None = None,
    *,
    unit: str | None = None,
    better: str | None = _MISSING,
    label: str | None = None,
) -> Outcome:
    """Highest value of an output in a window. Of glucose, lower is better unless told otherwise."""
    return _made("peak", name, Peak(), start, stop, unit, better, label)


def nadir(
    name: str,
    start: Moment | None = None,
    stop: Moment | None = None,
    *,
    unit: str | None = None,
    better: str | None = _MISSING,
    label: str | None = None,
) -> Outcome:
    """Lowest value of an output in a window. Of glucose, higher is better unless told otherwise."""
    return _made("nadir of", name, Nadir(), start, stop, unit, better, label)


def mean(
    name: str,
    start: Moment | None = None,
    stop: Moment | None = None,
    *,
    unit: str | None = None,
    better: str | None = None,
    label: str | None = None,
) -> Outcome:
    """Mean over time of an output in a window."""
    return _made("mean", name, Mean(), start, stop, unit, better, label)


def auc(
    name: str,
    start: Moment | None = None,
    stop: Moment | None = None,
    *,
    unit: str | None = None,
    better: str | None = None,
    label: str | None = None,
) -> Outcome:
    """Area under an output in a window, in hours ("mg*h/L") unless `unit` says otherwise."""
    return _made("AUC of", name, Area(), start, stop, unit, better, label)


def sd(
    name: str, start: Moment | None = None, stop: Moment | None = None, *, unit: str | None = None,
    better: str | None = _MISSING, label: str | None = None,
) -> Outcome:  # fmt: skip
    """Standard deviation over time of an output in a window. Of glucose, lower is better unless told otherwise."""
    return _made("SD of", name, Deviation(), start, stop, unit, better, label)


def cv(
    name: str, start: Moment | None = None, stop: Moment | None = None, *, better: str | None = _MISSING,
    label: str | None = None,
) -> Outcome:  # fmt: skip
    """Standard deviation over time in percent of the mean. Of glucose, lower is better unless told otherwise."""
    return _made("CV of", name, Deviation(relative=True), start, stop, "%", better, label)


def gmi(
    name: str, start: Moment | None = None, stop: Moment | None = None, *, better: str | None = None,
    label: str | None = None,
) -> Outcome:  # fmt: skip
    """Glucose management indicator, %, of a glucose in a window (Bergenstal 2018, doi:10.2337/dc18-1581)."""
    return _made("GMI of", name, Indicator(), start, stop, "%", better, label)


def lbgi(
    name: str, start: Moment | None = None, stop: Moment | None = None, *, better: str | None = "lower",
    label: str | None = None,
) -> Outcome:  # fmt: skip
    """Low blood glucose index of a glucose in a window (Kovatchev 2006, doi:10.2337/dc06-1085)."""
    return _made("LBGI of", name, RiskIndex(low=True), start, stop, "1", better, label)


def hbgi(
    name: str, start: Moment | None = None, stop: Moment | None = None, *, better: str | None = "lower",
    label: str | None = None,
) -> Outcome:  # fmt: skip
    """High blood glucose index of a glucose in a window (Kovatchev 2006, doi:10.2337/dc06-1085)."""
    return _made("HBGI of", name, RiskIndex(low=False), start, stop, "1", better, label)


def gri(
    name: str, start: Moment | None = None, stop: Moment | None = None, *, better: str | None = "lower",
    label: str | None = None,
) -> Outcome:  # fmt: skip
    """Glycemia risk index, 0 to 100, of a glucose in a window (Klonoff 2022, doi:10.1177/19322968221085273)."""
    return _made("GRI of", name, Risk(), start, stop, "1", better, label)


def time_of_peak(
    name: str, start: Moment | None = None, stop: Moment | None = None, *, better: str | None = None,
    later: str = "0 h", label: str | None = None,
) -> Outcome:  # fmt: skip
    """When an output is highest in a window, in hours of the record's clock since its time 0, `later` added. Located on the
    parabola through the three nodes around; NaN where the curve is highest at an end of the window.
    """
    return _made("time of the highest", name, TimeOf(True, span(later, "h")), start, stop, "h", better, label)


def time_of_nadir(
    name: str, start: Moment | None = None, stop: Moment | None = None, *, better: str | None = None,
    later: str = "0 h", label: str | None = None,
) -> Outcome:  # fmt: skip
    """When an output is lowest in a window; as `time_of_peak` otherwise."""
    return _made("time of the lowest", name, TimeOf(False, span(later, "h")), start, stop, "h", better, label)


def cmax(
    name: str,
    start: Moment | None = None,
    stop: Moment | None = None,
    *,
    unit: str | None = None,
    better: str | None = None,
    label: str | None = None,
) -> Outcome:
    """Highest concentration in a window; which way is better depends on the drug and is left open."""
    return _made("highest", name, Peak(), start, stop, unit, better, label)


def trough(
    name: str,
    start: Moment | None = None,
    stop: Moment | None = None,
    *,
    unit: str | None = None,
    better: str | None = None,
    label: str | None = None,
) -> Outcome:
    """Value at the end of a window, just before a dose that is given then."""
    return _made("trough of", name, Last(), start, stop, unit, better, label)


def at(
    name: str, t: Moment, *, unit: str | None = None, better: str | None = None, label: str | None = None
) -> Outcome:
    """Value of an output at a moment; where it jumps then, the value after the jump."""
    return _made("value of", name, First(), t, t, unit, better, label)


def time_above(
    name: str,
    threshold: float,
    unit: str,
    start: Moment | None = None,
    stop: Moment | None = None,
    *,
    better: str | None = "lower",
    label: str | None = None,
) -> Outcome:
    """Percent of the window's time strictly above a threshold (in `unit`, which may differ from the output's)."""
    measure = Share(float(np.nextafter(threshold, np.inf)), np.inf, unit)
    label = label or f"time of {word(name)} above {threshold:g} {unit}"
    return _made("", name, measure, start, stop, "%", better, label)


def time_below(
    name: str,
    threshold: float,
    unit: str,
    start: Moment | None = None,
    stop: Moment | None = None,
    *,
    better: str | None = "lower",
    label: str | None = None,
) -> Outcome:
    """Percent of the window's time strictly below a threshold (in `unit`, which may differ from the output's)."""
    measure = Share(-np.inf, float(np.nextafter(threshold, -np.inf)), unit)
    label = label or f"time of {word(name)} below {threshold:g} {unit}"
    return _made("", name, measure, start, stop, "%", better, label)


def time_in_range(
    name: str,
    low: float,
    high: float,
    unit: str,
    start: Moment | None = None,
    stop: Moment | None = None,
    *,
    better: str | None = "higher",
    label: str | None = None,
) -> Outcome:
    """Percent of the window's time with low <= value <= high (in `unit`, which may differ from the output's)."""
    if not low < high:
        raise DeclarationError(f"time in range {low:g} to {high:g} {unit}: the range is empty. Give low < high.")
    return _made(
        "",
        name,
        Share(float(low), float(high), unit),
        start,
        stop,
        "%",
        better,
        label or f"time of {word(name)} in {low:g} to {high:g} {unit}",
    )


def episodes_below(
    name: str, threshold: float, unit: str, start: Moment | None = None, stop: Moment | None = None, *,
    lasting: str = "15 min", weekly: bool = False, better: str | None = "lower",
) -> Outcome:  # fmt: skip
    """Episodes in which an output is strictly below a threshold (in `unit`) for at least `lasting`, until it is not for 15 min
    or more (Battelino 2023, doi:10.1016/S2213-8587(22)00319-9; "120 min" for extended ones). `weekly`: their number a week.
    """
    return _episodes(name, "below", threshold, unit, (start, stop), (lasting, weekly, better))


def episodes_above(
    name: str, threshold: float, unit: str, start: Moment | None = None, stop: Moment | None = None, *,
    lasting: str = "15 min", weekly: bool = False, better: str | None = "lower",
) -> Outcome:  # fmt: skip
    """Episodes strictly above a threshold; as `episodes_below` otherwise."""
    return _episodes(name, "above", threshold, unit, (start, stop), (lasting, weekly, better))


def _episodes(name, side, threshold, unit, window, how) -> Outcome:
    lasting, weekly, better = how
    hours = span(lasting, "h")
    if hours <= 0:
        raise DeclarationError(f"episodes that last {lasting!r} are none. Write lasting=\"15 min\".")
    long = "" if hours == 0.25 else f" for {lasting}"
    label = f"episodes of {word(name)} {side} {threshold:g} {unit}{long}" + (" a week" if weekly else "")
    measure = Episodes(float(threshold), side == "below", unit, hours, weekly=weekly)
    return _made("", name, measure, window[0], window[1], "1/wk" if weekly else "1", better, label)


def custom(function: Callable[[Any], Any], *, label: str, unit: str, better: str | None) -> Outcome:
    """An outcome of one's own: `function(trajectory)` gives one number a draw, shape (draws,).

    The unit of what it returns and which way is better cannot be read off a function: both must be said ("lower",
    "higher", or None where neither is).
    """
    return Outcome(label, unit, better, "", function)


def given(
    name: str, start: Moment | None = None, stop: Moment | None = None, *, unit: str, better: str | None = None
) -> Outcome:
    """How much of a dose care gives in a window, its rules included: where care reacts, an effect may show here instead.

    unit: the dose's own (of a signal: its unit times the system's unit of time), as it is declared; see `Trajectory.given`.
    """

    def total(trajectory):
        window = trajectory.clock.window(start, stop, float(trajectory.time[0]), float(trajectory.time[-1]))
        return trajectory.given(name, *window)

    span = f", {start} to {stop}" if start is not None or stop is not None else ""
    return custom(total, label=f"{name} given{span}", unit=unit, better=better)


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


# ------------------------------------------------------------------------------------ harm beside the benefit


def _glucose_harms(outcome: Outcome) -> tuple[Outcome, ...]:
    """Low glucose beside any benefit on high glucose; high glucose beside any benefit on low glucose."""
    molar = outcome.unit is not None and outcome.unit != "%" and "amount" in dict(parse(outcome.unit).dims)
    measure = outcome.measure
    if isinstance(measure, Share | Episodes):
        molar = "amount" in dict(parse(measure.unit).dims)
    unit = "mmol/L" if molar else "mg/dL"
    low, high = (3.9, 10.0) if molar else (HYPO, HYPER)
    window = (outcome.name, outcome.start, outcome.stop)
    too_low = (time_below(window[0], low, unit, *window[1:]), nadir(*window, unit=unit))
    too_high = (time_above(window[0], high, unit, *window[1:]),)
    about_low = isinstance(measure, Nadir) or (isinstance(measure, RiskIndex) and measure.low)
    about_low = about_low or (isinstance(measure, Share) and not np.isfinite(measure.low))
    about_low = about_low or (isinstance(measure, Episodes) and measure.below)
    return too_high if about_low else too_low


def _drug_harms(outcome: Outcome) -> tuple[Outcome, ...]:
    """The highest concentration beside what should be high; the trough beside the highest and what should be low."""
    window = (outcome.name, outcome.start, outcome.stop)
    if isinstance(outcome.measure, Peak):
        return (trough(*window),)
    if not isinstance(outcome.measure, Last | Nadir | Area | Mean | Share | Episodes):
        return ()
    return (
        (trough(*window),) if outcome.better == "lower" and not isinstance(outcome.measure, Last) else (cmax(*window),)
    )


def harm_of(outcome: Outcome) -> tuple[Outcome, ...]:
    """The harms that must stand beside a benefit, over the same window; () where none is known.

    Glucose: time below 70 mg/dL and nadir, or time above 180 mg/dL beside an outcome about low glucose. Other
    outputs (drug concentrations): the highest value beside nadir, trough, exposure and mean; the trough beside the highest
    and beside an exposure that is better lower.
    """
    if not outcome.name or isinstance(outcome.measure, First):
        return _glucose_point(outcome)
    return _glucose_harms(outcome) if outcome.name in GLUCOSE else _drug_harms(outcome)


def _glucose_point(outcome: Outcome) -> tuple[Outcome, ...]:
    """A value at one moment says nothing of the time around it: what the whole trajectory can do to harm stands beside it."""
    if not outcome.name:
        return ()
    if outcome.name not in GLUCOSE:
        return (trough(outcome.name) if outcome.better == "lower" else cmax(outcome.name),)
    return (time_below(outcome.name, HYPO, "mg/dL"), nadir(outcome.name))


def of_days(outcome: Outcome) -> bool:
    """Is it an index for which the consensus asks for 14 days with 70 % of the readings (GMI, LBGI, HBGI, GRI, CV, episodes)?"""
    relative = isinstance(outcome.measure, Deviation) and outcome.measure.relative
    return outcome.name in GLUCOSE and (relative or isinstance(outcome.measure, _OF_DAYS))
