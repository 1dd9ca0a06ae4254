"""The track record of a twin: every past meal or dose of this person predicted from what was read before it, and what then came.

The record is cut before each event (readings from then on are left out; doses and signals, which are decisions and no readings,
stay), the same models are personalized to each cut by one compiled program, or updated from an earlier cut where its draws reach,
and the readings after the event, until the next one, are held against the band of new readings. What is known of the record's
future in such a forecast is what was given, as in `person.between(..., readings_only=True)`; nothing that was measured.

**How it enters the verdict** (`track.twin`): *fits* is CAUTION where the 90 % bands held fewer than 80 % of the readings by
more than two standard errors (between events, which are the units: readings after one meal share its errors), and DO NOT USE
where they held fewer than 60 % so. *supported* is CAUTION where fewer than three events could be predicted.
"""

import dataclasses
import functools

import numpy as np

from hybridtwin.clock import Clock, span
from hybridtwin.errors import DeclarationError, NoReadings
from hybridtwin.finding import Finding
from hybridtwin.fit import Judgment, Part, Verdict
from hybridtwin.inference.cuts import refits
from hybridtwin.inference.methods import FOCEI, HMC, Auto
from hybridtwin.keys import folded
from hybridtwin.outcomes import signed
from hybridtwin.twin import Twin, simulate_worlds
from hybridtwin.units import plain, time_factor

LEVEL, LOW, RED, FEW = 0.9, 0.8, 0.6, 3


@dataclasses.dataclass(frozen=True, eq=False)
class Event:
    """One past event: what was given, and the readings after it beside their prediction (times in system time).

    `rank`: share of predicted readings below each reading, (N,); `low`, `middle`, `high`: 5, 50 and 95 % of new readings;
    `expected`: median of the modelled value, `prior`: the same of the prior's draws (a person like this one); `computed`: did
    the refit converge?
    """

    label: str
    start: float
    stop: float
    sensor: str
    unit: str
    before: int  # readings that the refit had
    time: np.ndarray
    observed: np.ndarray
    rank: np.ndarray
    low: np.ndarray
    middle: np.ndarray
    high: np.ndarray
    expected: np.ndarray
    prior: np.ndarray
    computed: str

    def coverage(self, level: float = LEVEL) -> float:
        """Share of the readings inside their central band."""
        return float(np.mean(np.abs(self.rank - 0.5) <= level / 2 + 1e-12))

    @property
    def error(self) -> float:
        """Root mean square of reading less expected value."""
        return float(np.sqrt(np.mean((self.observed - self.expected) ** 2)))

    @property
    def bias(self) -> float:
        """Mean of reading less expected value."""
        return float(np.mean(self.observed - self.expected))

    @property
    def prior_error(self) -> float:
        """Root mean square of reading less the prior's median."""
        return float(np.sqrt(np.mean((self.observed - self.prior) ** 2)))


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class TrackRecord(Finding):
    """How past events of one person were predicted before they were seen. Made by `ht.track_record`.

    `events`: one for each event and sensor with readings after it; `skipped`: those that could not be judged, and why.
    """

    events: tuple[Event, ...]
    skipped: tuple[str, ...]
    notes: tuple[str, ...]
    clock: Clock
    source: Twin

    def __len__(self) -> int:
        return len(self.events)

    @property
    def judged(self) -> tuple[Event, ...]:
        """The events whose refit converged."""
        return tuple(event for event in self.events if event.computed != "DO NOT USE")

    def coverage(self, level: float = LEVEL) -> float:
        """Share of all readings inside their central band; NaN where there are none."""
        ranks = np.concatenate([event.rank for event in self.judged]) if self.judged else np.zeros(0)
        return float(np.mean(np.abs(ranks - 0.5) <= level / 2 + 1e-12)) if ranks.size else float("nan")

    @property
    def coverage_error(self) -> float:
        """Standard error of the coverage at 90 %: the spread between events, and not less than that of independent readings."""
        least = float(np.sqrt(LEVEL * (1 - LEVEL) / max(sum(len(event.rank) for event in self.judged), 1)))
        if len(self.judged) < 2:
            return 2 * least  # readings of one event share its errors
        share = np.array([event.coverage() for event in self.judged])
        weight = np.array([len(event.rank) for event in self.judged], float)
        middle = np.sum(weight * share) / weight.sum()
        count = len(share)
        between = float(np.sqrt(count / (count - 1) * np.sum((weight * (share - middle)) ** 2)) / weight.sum())
        return max(between, least)

    @functools.cached_property
    def verdict(self) -> Verdict:
        """What the track record adds to a verdict; see the module for the rule."""
        fits, supported = Judgment(), Judgment()
        count = len({event.start for event in self.judged})
        if count < FEW:
            supported.say("CAUTION", f"only {count} past event{'s' * (count != 1)} could be predicted before being seen")
        if self.judged:
            told = (
                f"the 90 % bands of {count} past events, predicted before they were seen, held {100 * self.coverage():.0f} % of "
                "the readings"
            )
            fits.above(-(self.coverage() + 2 * self.coverage_error), -LOW, -RED, told)
        return Verdict({"computed": Part(), "fits": fits.part, "informed": Part(), "supported": supported.part})

    @property
    def twin(self) -> Twin:
        """The twin with this track record in its verdict: same draws, same noise."""
        extra = self.verdict.parts
        fits = tuple(
            dataclasses.replace(fit, parts={name: part.join(extra[name]) for name, part in fit.parts.items()})
            for fit in self.source.fits
        )
        return dataclasses.replace(self.source, fits=fits)

    @functools.cached_property
    def table(self):
        """One row an event and sensor: readings, coverage of the 50 and 90 % bands, error and bias, the prior's error."""
        import pandas as pd

        rows = [
            {"event": e.label, "at": self.clock.label(e.start), "until": self.clock.label(e.stop), "sensor": e.sensor,
             "unit": e.unit, "readings_before": e.before, "readings": len(e.time),
             "coverage_50": e.coverage(0.5), "coverage_90": e.coverage(), "error": e.error, "bias": e.bias,
             "prior_error": e.prior_error, "width_90": float(np.mean(e.high - e.low)), "computed": e.computed}
            for e in self.events
        ]  # fmt: skip
        return pd.DataFrame(rows)

    @property
    def text(self) -> str:
        """In plain language."""
        lines = [f"Track record of {self.source.id}: {len(self.judged)} past events predicted before they were seen."]
        for sensor in dict.fromkeys(event.sensor for event in self.judged):
            own = [event for event in self.judged if event.sensor == sensor]
            count = [len(event.time) for event in own]
            error = float(np.sqrt(np.average([event.error**2 for event in own], weights=count)))
            prior = float(np.sqrt(np.average([event.prior_error**2 for event in own], weights=count)))
            bias = float(np.average([event.bias for event in own], weights=count))
            lines.append(
                f"  {sensor}: error {plain(error)} {own[0].unit} (root mean square; {plain(prior)} of the prior alone), "
                f"bias {signed(bias)} {own[0].unit}."
            )
        if self.judged:
            error = f" (standard error {100 * self.coverage_error:.0f} %)" if len(self.judged) > 1 else ""
            lines.append(
                f"  The 90 % bands held {100 * self.coverage():.0f} % of the readings{error}, the 50 % bands "
                f"{100 * self.coverage(0.5):.0f} %."
            )
        lines += [f"  {name} {part.level}: {reason}." for name, part in self.verdict.parts.items() for reason in part.reasons]
        lines += [f"Note: {note}." for note in self.notes]
        if self.skipped:
            lines.append(f"Not judged: {'; '.join(self.skipped[:4])}{' ...' if len(self.skipped) > 4 else ''}.")
        lines.append("Doses and meals after an event are taken as they were given; nothing that was measured after it is used.")
        return "\n".join([*lines, "Research use; not a medical device."])

    def plot(self):
        """Predicted bands and readings after each event, on one time axis; a matplotlib figure."""
        from hybridtwin.plots import decisions

        return decisions.track(self)


def track_record(twin: Twin, of=None, *, ahead=None, apart="1 h", least: int = 2, most: int = 24, method=None) -> TrackRecord:
    """Each past meal or dose of this person predicted from what was read before it only, and how that went.

    **Arguments:** `of`: name of a dose or several; default all of the system. `apart`: doses closer together than this are one
    event. `ahead`: how far an event is followed, "4 h"; default (and at most) until the next one. `least`: readings that must
    lie before an event. `most`: that many events at most, evenly chosen. `method`: default as the twin was personalized (`Auto`
    where it was pooled).

    **Raises:** DeclarationError for a name that is no dose; NoReadings where no event has readings before and after it.
    """
    spec, bound = twin.fits[0].model.spec, twin.fits[0].problem.bound
    names = tuple(spec.doses) if of is None else (of,) if isinstance(of, str) else tuple(of)
    if unknown := [name for name in names if name not in spec.doses]:
        raise DeclarationError(f"track_record: {unknown[0]!r} is no dose. Doses: {', '.join(spec.doses)}.")
    unit = twin.days[0].bound.clock.unit
    found = _events(bound, spec, names, span(apart, unit), None if ahead is None else span(ahead, unit))
    chosen, skipped = [], []
    for label, start, stop in found:
        before = sum(int(np.sum(r.time < start)) for r in bound.readings.values())
        after = sum(int(np.sum((r.time >= start) & (r.time < stop) & (r.censored == 0))) for r in bound.readings.values())
        if before < least or not after:
            why = f"{before} readings before it" if before < least else "no readings after it"
            skipped.append(f"{label} at {bound.clock.label(start)} ({why})")
        else:
            chosen.append((label, start, stop, before))
    if not chosen:
        raise NoReadings(
            f"no event with at least {least} readings before it and one after it: {'; '.join(skipped[:3]) or 'no dose at all'}",
            person=twin.id, remedy="Name other doses with of=, or ask for fewer readings with least=",
        )  # fmt: skip
    if len(chosen) > most:
        keep = np.unique(np.linspace(0, len(chosen) - 1, most).round().astype(int))
        skipped.append(f"{len(chosen) - len(keep)} events beyond the {most} that most= allows")
        chosen = [chosen[i] for i in keep]
    return _followed(twin, chosen, skipped, method)


def _events(bound, spec, names, apart, ahead) -> list[tuple[str, float, float]]:
    """(label, start, stop) of each event: doses of these names, those close together as one."""
    doses = sorted((d.time, name, d) for name in names for d in bound.inputs[name].doses if bound.start <= d.time < bound.stop)
    groups: list[list] = []
    for time, name, dose in doses:
        if groups and time - groups[-1][0][0] < apart:
            groups[-1].append((time, name, dose))
        else:
            groups.append([(time, name, dose)])
    found = []
    for group, after in zip(groups, [*groups[1:], None], strict=True):
        start, stop = group[0][0], after[0][0] if after else bound.stop + 1e-9
        stop = stop if ahead is None else min(stop, start + ahead)
        told = [f"{name} {'?' if d.latent is not None and d.amount is None else f'{d.amount:g} {spec.doses[name].unit}'}"
                for _, name, d in group]  # fmt: skip
        found.append((", ".join(told[:3]) + (" ..." if len(told) > 3 else ""), start, stop))
    return found


def _followed(twin, chosen, skipped, method) -> TrackRecord:
    """Refit the record cut before each event, and hold what came against what was predicted."""
    bound, record = twin.fits[0].problem.bound, twin.record
    scale = time_factor(bound.clock.unit, record.clock.unit)
    cuts = [record.between(None, start * scale, readings_only=True) for _, start, _, _ in chosen]
    models, notes = [fit.model for fit in twin.fits], []
    method = method or twin.method
    if isinstance(method, FOCEI | HMC):
        method = Auto()
        notes.append("the population was learned from everybody's whole records, this person's later readings among them")
    past = refits(models, cuts, method, key=folded(twin.key, 61), temper=twin.temper)
    past = [dataclasses.replace(then, draws=twin.draws) for then in past]
    if updated := sum(all(fit.stage == "update" for fit in then.fits) for then in past):
        notes.append(f"of {len(past)} cuts {updated} were updated by weights from earlier ones, the others personalized")
    events = []
    for name, sensor in models[0].sensors.items():
        seen = bound.readings.get(name)
        if seen is None or not len(seen):
            continue
        inside = [(seen.time >= start) & (seen.time < stop) & (seen.censored == 0) for _, start, stop, _ in chosen]
        times = np.unique(seen.time[np.any(inside, axis=0)])
        if not len(times):
            continue
        prior = simulate_worlds([past[0]], at=times, prior=True, names=(sensor.of,))[0][sensor.of]  # the same for every cut
        for (label, start, stop, before), rows, then in zip(chosen, inside, past, strict=True):
            if rows.any():
                events.append(_event((label, start, stop, before), name, seen, rows, times, then, prior))
    events.sort(key=lambda event: (event.start, event.sensor))
    return TrackRecord(tuple(events), tuple(skipped), tuple(notes), bound.clock, twin)


def _event(what, name, seen, rows, times, then: Twin, prior) -> Event:
    """What a refit said of the readings after its event; it is asked for all events' times, so that one program serves all."""
    predicted = then.predicted(name, times)
    at = np.searchsorted(times, seen.time[rows])
    new, value = predicted.readings[:, at], seen.value[rows]
    good = np.isfinite(new).all(axis=1)
    low, middle, high = np.quantile(new[good], [0.05, 0.5, 0.95], axis=0)
    rank = np.mean(new[good] < value, axis=0) + 0.5 * np.mean(new[good] == value, axis=0)
    expected = np.nanmedian(predicted.expectation[:, at], axis=0)
    before = np.nanmedian(prior[:, at], axis=0)
    label, start, stop, count = what
    level = then.verdict.parts["computed"].level
    unit = predicted.unit
    return Event(label, start, stop, name, unit, count, seen.time[rows], value, rank, low, middle, high, expected, before, level)
