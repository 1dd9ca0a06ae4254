"""Glycemic measures of a recording: time in ranges, variability, risk indices, episodes, as the international consensus has it.

    print(ht.glycemic(anna, "cgm"))

Definitions: Battelino 2019, doi:10.2337/dci19-0028 (ranges, at least 14 days and 70 % of the readings) and Battelino 2023,
doi:10.1016/S2213-8587(22)00319-9 (episodes); the formulas and their sources are in `hybridtwin.measures`. The same measures of a
twin's glucose are outcomes: `ht.outcomes.time_in_range`, `sd`, `cv`, `gmi`, `lbgi`, `hbgi`, `gri`, `episodes_below`.
"""

import dataclasses
import itertools
from typing import NamedTuple

import numpy as np

from hybridtwin import units
from hybridtwin.clock import Moment
from hybridtwin.errors import DeclarationError, MissingColumn, NoReadings, UnitError
from hybridtwin.measures import CENTER, gmi, gri, mage, risk
from hybridtwin.outcomes import of_days
from hybridtwin.records import Person, Series

_LEVELS = {"mg/dL": (54.0, 70.0, 180.0, 250.0), "mmol/L": (3.0, 3.9, 10.0, 13.9)}  # the same four, each as people use them
_DAYS, _COVERAGE = 14.0, 70.0  # below these the consensus asks for caution
_LASTS = 15.0  # min that an episode lasts, and that glucose is back before it ends
_EXTENDED = 120.0  # min: an extended episode lasts longer
KINDS = ("below 70", "extended below 70", "below 54", "above 180", "above 250")
_SLACK = 0.5  # min: clocks of sensors jitter
_GAP = 3.0  # spacings of the sensor without a reading


class Episode(NamedTuple):
    """Glucose beyond a level for at least 15 min (an extended one: for more than 120 min at a stretch). start: text of the
    clock; hours: until glucose was back for 15 min or more.

    ended: False where the recording stops, or has a gap, before glucose was seen back.
    """

    kind: str
    start: str
    hours: float
    ended: bool


@dataclasses.dataclass(frozen=True, eq=False)
class Glycemia:
    """Glycemic measures of one recording. Mean and sd in `unit`; shares of the readings, cv, gmi and coverage in percent.

    below and above count all that is beyond: below_70 holds below_54. mage: mean amplitude of excursions beyond one sd, in `unit`
    (`measures.mage` states how they are found; NaN without any). days: length of what was asked about; coverage: the part
    of it that has readings. low, high: how many readings were censored. warnings: why to be careful; notes: what was done.
    """

    person: str
    name: str
    unit: str
    days: float
    coverage: float
    readings: int
    low: int
    high: int
    mean: float
    sd: float
    below_54: float
    below_70: float
    in_range: float
    above_180: float
    above_250: float
    lbgi: float
    hbgi: float
    gri: float
    mage: float
    episodes: tuple[Episode, ...]
    warnings: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def cv(self) -> float:
        """Standard deviation in percent of the mean."""
        return 100.0 * self.sd / self.mean

    @property
    def gmi(self) -> float:
        """Glucose management indicator, %."""
        return gmi(self.mean * units.factor(self.unit, "mg/dL", of="glucose"))

    def count(self, kind: str) -> int:
        """How many episodes of a kind, one of `glycemia.KINDS`: "below 70", "above 180" (mg/dL, as named in every unit)."""
        if kind not in KINDS:
            raise DeclarationError(f"there are no episodes {kind!r}. Kinds: {', '.join(KINDS)}.")
        return sum(episode.kind == kind for episode in self.episodes)

    def per_week(self, kind: str) -> float:
        """Episodes of a kind a week of readings, the unit of the consensus: gaps, in which none is seen, are no time."""
        return self.count(kind) * 7.0 / (self.days * self.coverage / 100.0)

    def _rows(self):
        form = ".1f" if self.unit == "mmol/L" else "g"
        very_low, low, high, very_high = (f"{level:{form}}" for level in _LEVELS[self.unit])
        yield from (("days", self.days, "d"), ("coverage", self.coverage, "%"), ("mean", self.mean, self.unit))
        yield from (("SD", self.sd, self.unit), ("CV", self.cv, "%"), ("GMI", self.gmi, "%"))
        yield f"time in range {low} to {high} {self.unit}", self.in_range, "%"
        yield f"time below {low} {self.unit}", self.below_70, "%"
        yield f"time below {very_low} {self.unit}", self.below_54, "%"
        yield f"time above {high} {self.unit}", self.above_180, "%"
        yield f"time above {very_high} {self.unit}", self.above_250, "%"
        yield from (("LBGI", self.lbgi, "1"), ("HBGI", self.hbgi, "1"), ("GRI", self.gri, "1"))
        yield "MAGE", self.mage, self.unit
        for kind, level in zip(KINDS, (low, low, very_low, high, very_high), strict=True):
            label = f"episodes {kind.rsplit(' ', 1)[0]} {level} {self.unit}"
            yield label, self.count(kind), "1"
            yield f"{label}, rate", self.per_week(kind), "1/wk"

    def to_dataframe(self):
        """One row a measure: measure, value, unit. `pandas.DataFrame(found.episodes)` has one row an episode."""
        import pandas as pd

        return pd.DataFrame(list(self._rows()), columns=["measure", "value", "unit"])

    def plot(self):
        """Percent of readings in each range; a matplotlib figure."""
        from hybridtwin.plots.glycemia import ranges

        return ranges(self)

    def __repr__(self) -> str:
        lines = [f"Glycemic measures of {self.person}: {self.name}, {self.readings} readings"]
        lines += [f"  CAUTION: {text}" for text in self.warnings]
        for label, value, unit in self._rows():
            digits = 0 if label.startswith("episodes") and unit == "1" else 2 if unit == "1" else 1
            shown = f"{value:.{digits}f}"
            lines.append(f"  {label:<42}{shown:>8}" + (f" {unit}" if unit != "1" else ""))
        return "\n".join(lines + [f"  {text}" for text in self.notes])


def glycemic(
    person: Person,
    name: str = "cgm",
    start: Moment | None = None,
    stop: Moment | None = None,
    *,
    unit: str | None = None,
) -> Glycemia:
    """Glycemic measures of the readings `name` of a person's record, in [start, stop) (the whole record).

    unit: "mg/dL" or "mmol/L", by default whichever the record has. Readings are put into ranges in the record's own: 10.0 mmol/L
    is in range there, although it is 180.2 mg/dL.

    A reading counts for the spacing of its sensor session (within a session shares are shares of readings). A stretch without
    readings counts against `coverage` and in no range. LOW and HIGH count in their range; in mean, SD, CV, GMI, LBGI and HBGI
    they are the limit itself, which `notes` says. SD is that of a sample (n - 1).

    An episode begins with at least 15 min beyond its level (an extended one with more than 120 min) and ends with at least 15 min
    back. It is cut where more than three spacings have no reading. At a spacing of 15 min one reading makes an episode, which
    `notes` says. `per_week` counts them by the time with readings.

    Errors: MissingColumn, NoReadings (fewer than two), UnitError, AmbiguousTime.
    """
    if name not in person.series:
        raise MissingColumn(f"the record has no readings {name!r}", person=person.id, column=name,
                            remedy=f"It has {', '.join(person.series) or 'no series'}")  # fmt: skip
    series, clock = person.series[name], person.clock
    own = "mmol/L" if "amount" in dict(units.parse(series.unit).dims) else "mg/dL"
    to_own = units.factor(series.unit, own, of="glucose")
    unit = own if unit is None else unit
    if unit not in _LEVELS:
        raise UnitError(f"glycemic measures are in mg/dL or mmol/L, not {unit!r}. Choose one of the two.")
    low = max(clock.start if start is None else clock.at(start), person.window[0])
    high = min(np.inf if stop is None else clock.at(stop), person.window[1])
    asked = (series.time >= low) & (series.time < high)
    kept = series.take(asked & ~series.missing)
    if len(np.unique(kept.time)) < 2:
        raise NoReadings(f"{len(kept)} readings in what is asked about", person=person.id, column=name,
                         remedy="Measures need at least two at different times")  # fmt: skip
    minute = units.time_factor(clock.unit, "min")
    time, spacing = kept.time * minute, _spacing(kept) * minute
    end = min(max(clock.stop * minute, time[-1] + spacing[-1]), high * minute)
    days, coverage = (end - low * minute) / 1440.0, 100.0 * _seen(time, spacing, end) / (end - low * minute)
    value = kept.value * to_own
    beyond = _beyond(value, kept.censored, _LEVELS[own])
    episodes = [
        Episode(kind, clock.label(first / minute), (last - first) / 60.0, ended)
        for kind in KINDS
        for first, last, ended in _episodes(
            time, spacing, beyond[kind.removeprefix("extended ")],
            _EXTENDED + _SLACK if kind.startswith("extended") else _LASTS - _SLACK,
        )
    ]
    share = {kind: 100.0 * float(np.sum(spacing[mask]) / np.sum(spacing)) for kind, mask in beyond.items()}
    levels = {f"{side}_{level}": share[f"{side} {level}"] for side, level in (kind.split() for kind in share)}
    mg = value * units.factor(own, "mg/dL", of="glucose")
    mean = np.average(value, weights=spacing)
    variance = np.average((value - mean) ** 2, weights=spacing) * len(value) / (len(value) - 1)
    shown = units.factor(own, unit, of="glucose")
    return Glycemia(
        person=person.id, name=name, unit=unit, days=float(days), coverage=float(coverage), readings=len(kept),
        low=int(np.sum(kept.censored < 0)), high=int(np.sum(kept.censored > 0)), mean=float(mean * shown),
        sd=float(np.sqrt(variance) * shown), **levels, in_range=100.0 - levels["below_70"] - levels["above_180"],
        lbgi=float(np.average(np.where(mg < CENTER, risk(mg), 0.0), weights=spacing)),
        hbgi=float(np.average(np.where(mg > CENTER, risk(mg), 0.0), weights=spacing)),
        gri=float(gri(**levels)), mage=mage(_stretches(time, spacing, value), float(np.sqrt(variance))) * shown,
        episodes=tuple(episodes), warnings=tuple(_warnings(days, coverage)),
        notes=tuple(_notes(kept, value, own, spacing, int(np.sum(asked & series.missing)))),
    )  # fmt: skip


def _spacing(series: Series) -> np.ndarray:
    """Median time between readings of the session that each reading is of: (N,)."""
    def median(time):
        width = np.diff(time)
        return float(np.median(width[width > 0])) if np.any(width > 0) else 0.0

    found, whole = np.zeros(len(series)), median(series.time)
    for session in np.unique(series.session):
        mine = series.session == session
        found[mine] = median(series.time[mine]) or whole
    return found


def _seen(time, spacing, end) -> float:
    """How much of the time has readings: each holds until the next, if that is at most 1.5 spacings later, else for one."""
    at, first = np.unique(time, return_index=True)
    spacing = spacing[first]
    until = np.diff(at, append=at[-1] + spacing[-1])
    held = np.where(until <= 1.5 * spacing, until, spacing)
    return float(np.sum(np.minimum(held, end - at)))


def _beyond(value, censored, levels) -> dict[str, np.ndarray]:
    """Whether each reading is beyond each level. A LOW is below its limit, so also below a level that is the limit itself."""
    low, high = censored < 0, censored > 0
    very_low, below, above, very_high = levels
    return {
        "below 54": np.where(low, value <= very_low, ~high & (value < very_low)),
        "below 70": np.where(low, value <= below, ~high & (value < below)),
        "above 180": np.where(high, value >= above, ~low & (value > above)),
        "above 250": np.where(high, value >= very_high, ~low & (value > very_high)),
    }


def _stretches(time, spacing, value) -> list[np.ndarray]:
    """Readings in time between gaps."""
    return np.split(value, np.flatnonzero(np.diff(time) > _GAP * spacing[:-1]) + 1)


def _episodes(time, spacing, beyond, lasts):
    """(start, stop, ended) of each episode, in minutes. A run lasts from its first reading to one spacing after its last; one of
    at least `lasts` minutes beyond begins an episode.
    """
    cut = np.diff(time) > _GAP * spacing[:-1]
    edges = [0, *(np.flatnonzero(cut | (beyond[1:] != beyond[:-1])) + 1), len(time)]
    began, until = None, 0.0
    for first, after in itertools.pairwise(edges):
        if began is not None and first > 0 and cut[first - 1]:
            yield began, until, False
            began = None
        until = time[after - 1] + spacing[after - 1]
        if until - time[first] < (lasts if beyond[first] and began is None else _LASTS - _SLACK):
            continue
        if beyond[first] and began is None:
            began = time[first]
        elif not beyond[first] and began is not None:
            yield began, time[first], True
            began = None
    if began is not None:
        yield began, until, False


def _warnings(days, coverage):
    if days < _DAYS - 1e-6:
        yield f"{days:.3g} days; the consensus asks for at least {_DAYS:g}"
    if coverage < _COVERAGE:
        yield f"readings cover {coverage:.0f} % of the time; the consensus asks for at least {_COVERAGE:g} %"


def _notes(kept, value, unit, spacing, unknown):
    very_low, *_, very_high = _LEVELS[unit]
    for word, side, sign in (("LOW", "below", -1), ("HIGH", "above", 1)):
        mine = kept.censored == sign
        if np.any(mine):
            limits = " or ".join(f"{x:.4g}" for x in np.unique(value[mine]))
            yield (f"{int(mine.sum())} {word} ({side} {limits} {unit}): in their range; in mean, SD, CV, GMI, LBGI and HBGI "
                   "as the limit itself")  # fmt: skip
    unsure = int(np.sum(((kept.censored < 0) & (value > very_low)) | ((kept.censored > 0) & (value < very_high))))
    if unsure:
        yield f"{unsure} censored readings have a limit that does not tell their range: they count in the nearest it allows"
    if np.any(spacing >= _LASTS - _SLACK):
        yield f"readings come every {spacing.max():.3g} min: one alone makes an episode"
    if unknown:
        yield f"{unknown} rows without a value are left out"


def cautions(asked, trajectory, person: Person, names) -> list[str]:
    """What the consensus asks for and a twin's outcomes lack: 14 days of the curve, readings `names` in 70 % of them."""
    found = []
    for outcome in filter(of_days, asked):
        start, stop = outcome.window(trajectory)
        days = (stop - start) * units.time_factor(trajectory.clock.unit, "d")
        scale = units.time_factor(trajectory.clock.unit, person.clock.unit)
        series = [person.series[name] for name in names if name in person.series]
        inside = [s.take((s.time >= start * scale) & (s.time < stop * scale) & ~s.missing) for s in series]
        seen = [100.0 * _seen(s.time, _spacing(s), stop * scale) / ((stop - start) * scale) for s in inside if len(s) > 1]
        found += [f"{outcome.label}: {text}" for text in _warnings(days, max(seen, default=0.0 if inside else 100.0))]
    return found
