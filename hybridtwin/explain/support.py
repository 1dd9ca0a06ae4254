"""Where a question stands beside the record: what of it was never seen, and which days were most like it."""

import dataclasses

import numpy as np

from hybridtwin.causal import grounds
from hybridtwin.clock import span
from hybridtwin.outcomes import Outcome
from hybridtwin.units import plain


@dataclasses.dataclass(frozen=True)
class Alike:
    """A stretch of the record at the same time of another day: how far its inputs are from those asked about (0: the same; in
    standard deviations between days), what they were, and the mean of its readings.
    """

    label: str
    distance: float
    inputs: dict[str, tuple[float, float]]  # name -> (then, asked about)
    units: dict[str, str]
    readings: dict[str, float]

    @property
    def text(self) -> str:
        """One line."""
        told = [f"{n} {plain(a)} against {plain(b)} {self.units[n]}".rstrip() for n, (a, b) in self.inputs.items()]
        read = [f"{n} {plain(v)} {self.units[n]} on average" for n, v in self.readings.items()]
        return f"{self.label}: {', '.join(told) or 'no input'}" + (f"; read: {', '.join(read)}" if read else "")


def unseen(twin) -> tuple[str, ...]:
    """Ways in which this world leaves what the record has seen, in words; () where it does not."""
    each = [grounds.unseen(twin, [twin.world(which)], which) for which in range(len(twin.fits))]
    return tuple(dict.fromkeys(reason for found in each for reason in found))


def similar(twin, outcome: Outcome, course, most: int = 3) -> tuple[Alike, ...]:
    """Stretches at the same time of other days of the record, the most alike in doses and signals first.

    Days are compared by the total of each dose and the mean of each signal in the outcome's window and the four hours before it.
    () for a custom outcome, a window longer than a day, and a record without another such day.
    """
    if not outcome.name:
        return ()
    fit, world = twin.fits[0], twin.world()
    spec, lived, bound = fit.model.spec, fit.problem.lived, fit.problem.bound
    start, stop = outcome.window(course)
    day, lead = span("24 h", bound.clock.unit), span("4 h", bound.clock.unit)
    own, shift = twin.days[0].bound.clock, 0.0
    if None not in (own.origin, bound.clock.origin) and own.origin != bound.clock.origin:
        shift = span(f"{(own.origin - bound.clock.origin).total_seconds()} s", bound.clock.unit)
    if stop - start > day:
        return ()
    asked = _features(world, spec, max(start - lead, world.start), stop)
    found = []
    first = int(np.ceil((lived.start - start - shift) / day - 1e-9))
    last = int(np.floor((lived.stop - stop - shift) / day + 1e-9))
    for k in range(first, last + 1):
        low, high = start + shift + k * day, stop + shift + k * day
        if twin.days[0].lived and k == 0:
            continue
        found.append((low, high, _features(lived, spec, max(low - lead, lived.start), high)))
    if not found:
        return ()
    table = np.array([[f[n] for n in asked] for _, _, f in found])
    spread = table.std(axis=0)
    own_row = np.array(list(asked.values()))
    scale = np.where(spread > 0, spread, np.maximum(np.abs(own_row), 1e-12))
    distance = np.sqrt(np.mean(((table - own_row) / scale) ** 2, axis=1)) if asked else np.zeros(len(found))
    units = {**{n: f.unit for n, f in {**spec.doses, **spec.signals}.items()},
             **{n: fit.model.unit_of(s.of) for n, s in fit.model.sensors.items()}}  # fmt: skip
    rows = []
    for i in np.argsort(distance, kind="stable")[:most]:
        low, high, features = found[i]
        label = f"{bound.clock.label(low)} to {bound.clock.label(high)}"
        pairs = {n: (features[n], asked[n]) for n in asked if features[n] or asked[n]}
        rows.append(Alike(label, float(distance[i]), pairs, units, _read(bound, low, high)))
    return tuple(rows)


def _features(world, spec, start, stop) -> dict[str, float]:
    found = {n: float(sum(d.amount or 0.0 for d in world.inputs[n].doses if start <= d.time < stop)) for n in spec.doses}
    width = max(stop - start, 1e-12)
    return found | {n: world.inputs[n].integral(start, stop) / width for n in spec.signals}


def _read(bound, start, stop) -> dict[str, float]:
    found = {}
    for name, rows in bound.readings.items():
        inside = (rows.time >= start) & (rows.time < stop) & (rows.censored == 0)
        if np.any(inside):
            found[name] = float(np.mean(rows.value[inside]))
    return found
