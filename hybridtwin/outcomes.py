r"""What is asked of a trajectory: one number a draw, with a window, a unit, and which way is better.

    early = twin.do(bolus=lambda b: b.shift(-20, "min"), start="07:00")
    ht.contrast(early, twin, ht.outcomes.peak("G", "07:00", "12:00"), ht.outcomes.time_below("G", 70, "mg/dL"))

Between nodes a trajectory is taken as straight lines, and on those every outcome is exact: times and means are weighted
by time (never by node), thresholds are crossed inside segments. The window is [start, stop): where the curve jumps at
its start the value after the jump counts, at its stop the value before (a dose given then belongs to the next window).
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from hybridtwin.aims import Aim as Aim
from hybridtwin.aims import within as within
from hybridtwin.asked import GLUCOSE as GLUCOSE
from hybridtwin.asked import Outcome as Outcome
from hybridtwin.asked import as_outcome as as_outcome
from hybridtwin.asked import signed as signed
from hybridtwin.asked import word as word
from hybridtwin.clock import Moment, span
from hybridtwin.errors import DeclarationError
from hybridtwin.measures import (
    HYPER,
    HYPO,
    Area,
    Beyond,
    Deviation,
    Episodes,
    Ever,
    First,
    Indicator,
    Last,
    Mean,
    Nadir,
    Peak,
    Risk,
    RiskIndex,
    Share,
    TimeOf,
    Until,
)
from hybridtwin.units import parse

_OF_DAYS = RiskIndex | Indicator | Risk | Episodes  # measures that the consensus wants of two weeks
_WITH_LEVELS = Share | Episodes | Beyond | Until | Ever  # measures whose level has a unit of its own

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


def area_above(
    name: str, threshold: float, unit: str, start: Moment | None = None, stop: Moment | None = None, *,
    better: str | None = "lower", label: str | None = None,
) -> Outcome:  # fmt: skip
    """Area between an output and a threshold where the output is above it, in hours ("mg*h/dL"); what is below counts nothing."""
    label = label or f"area of {word(name)} above {threshold:g} {unit}"
    return _made("", name, Beyond(float(threshold), False, unit), start, stop, None, better, label)


def area_below(
    name: str, threshold: float, unit: str, start: Moment | None = None, stop: Moment | None = None, *,
    better: str | None = "lower", label: str | None = None,
) -> Outcome:  # fmt: skip
    """Area between an output and a threshold where the output is below it; as `area_above` otherwise."""
    label = label or f"area of {word(name)} below {threshold:g} {unit}"
    return _made("", name, Beyond(float(threshold), True, unit), start, stop, None, better, label)


def time_until_above(
    name: str, threshold: float, unit: str, start: Moment | None = None, stop: Moment | None = None, *,
    better: str | None = None, label: str | None = None,
) -> Outcome:  # fmt: skip
    """Hours from the start of the window until an output is first strictly above a threshold; where it never is, the length of
    the window, so that the mean is a restricted mean time to the event.
    """
    label = label or f"time until {word(name)} is above {threshold:g} {unit}"
    return _made("", name, Until(float(threshold), False, unit), start, stop, "h", better, label)


def time_until_below(
    name: str, threshold: float, unit: str, start: Moment | None = None, stop: Moment | None = None, *,
    better: str | None = None, label: str | None = None,
) -> Outcome:  # fmt: skip
    """Hours until an output is first strictly below a threshold; as `time_until_above` otherwise."""
    label = label or f"time until {word(name)} is below {threshold:g} {unit}"
    return _made("", name, Until(float(threshold), True, unit), start, stop, "h", better, label)


def ever_above(
    name: str, threshold: float, unit: str, start: Moment | None = None, stop: Moment | None = None, *,
    better: str | None = "lower", label: str | None = None,
) -> Outcome:  # fmt: skip
    """1 where an output is strictly above a threshold at any time of the window, else 0; its mean is a probability."""
    label = label or f"{word(name)} ever above {threshold:g} {unit}"
    return _made("", name, Ever(float(threshold), False, unit), start, stop, "1", better, label)


def ever_below(
    name: str, threshold: float, unit: str, start: Moment | None = None, stop: Moment | None = None, *,
    better: str | None = "lower", label: str | None = None,
) -> Outcome:  # fmt: skip
    """1 where an output is strictly below a threshold at any time of the window, else 0; as `ever_above` otherwise."""
    label = label or f"{word(name)} ever below {threshold:g} {unit}"
    return _made("", name, Ever(float(threshold), True, unit), start, stop, "1", better, label)


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


# ------------------------------------------------------------------------------------ harm beside the benefit


def _glucose_harms(outcome: Outcome) -> tuple[Outcome, ...]:
    """Low glucose beside any benefit on high glucose; high glucose beside any benefit on low glucose."""
    molar = outcome.unit is not None and outcome.unit != "%" and "amount" in dict(parse(outcome.unit).dims)
    measure = outcome.measure
    if isinstance(measure, _WITH_LEVELS):
        molar = "amount" in dict(parse(measure.unit).dims)
    unit = "mmol/L" if molar else "mg/dL"
    low, high = (3.9, 10.0) if molar else (HYPO, HYPER)
    window = (outcome.name, outcome.start, outcome.stop)
    too_low = (time_below(window[0], low, unit, *window[1:]), nadir(*window, unit=unit))
    too_high = (time_above(window[0], high, unit, *window[1:]),)
    about_low = isinstance(measure, Nadir) or (isinstance(measure, RiskIndex) and measure.low)
    about_low = about_low or (isinstance(measure, Share) and not np.isfinite(measure.low))
    about_low = about_low or (isinstance(measure, Episodes | Beyond | Until | Ever) and measure.below)
    return too_high if about_low else too_low


def _drug_harms(outcome: Outcome) -> tuple[Outcome, ...]:
    """The highest concentration beside what should be high; the trough beside the highest and what should be low."""
    window = (outcome.name, outcome.start, outcome.stop)
    if isinstance(outcome.measure, Peak):
        return (trough(*window),)
    if not isinstance(outcome.measure, Last | Nadir | Area | Mean | _WITH_LEVELS):
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
