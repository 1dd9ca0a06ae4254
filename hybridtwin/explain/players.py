"""Who plays: doses and stretches of signals of a day, and the worlds in which some of them are taken away.

A player is a dose, the doses of one input in a window, or one signal in a window. Without a player its doses are not given, and
its signal holds the baseline instead: its mean over the day unless another one is stated. It is taken away by `do`, so what the
body and the rules of care make of that follows.
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hybridtwin.clock import span
from hybridtwin.errors import InterventionError
from hybridtwin.measures import First
from hybridtwin.signals import Signal
from hybridtwin.simulate.trajectory import Trajectory
from hybridtwin.twin import simulate_worlds
from hybridtwin.units import factor, plain

EXACT = 12  # players up to which every coalition is solved
_FEW = 7  # players that nobody asked for: 128 worlds
_DAYS = 7  # before an outcome's window at which inputs are tried to be too old to matter
_NEGLIGIBLE = 5e-3  # of the outcome


@dataclasses.dataclass(frozen=True)
class Player:
    """Something that can be taken away. `parts`: (input, start, stop, is it a dose) in system time, [start, stop)."""

    label: str
    parts: tuple[tuple[str, float, float, bool], ...]
    amount: float = float("nan")
    unit: str = ""

    @property
    def start(self) -> float:
        """Where it begins, in system time."""
        return min(part[1] for part in self.parts)

    @property
    def stop(self) -> float:
        """Where it ends."""
        return max(part[2] for part in self.parts)


def baselines(twin, stated: Mapping[str, Any] | None) -> dict[str, float]:
    """What each signal is where it is taken away, in the system's units. **Raises:** InterventionError for another name."""
    spec, world = twin.fits[0].model.spec, twin.world()
    stated = dict(stated or {})
    wrong = sorted(set(stated) - set(spec.signals))
    if wrong:
        raise InterventionError(
            f"explain: a baseline of {wrong[0]!r}, which is no signal. Signals: {', '.join(spec.signals) or 'none'}; "
            "a dose that is taken away is not given."
        )
    found = {}
    for name, field in spec.signals.items():
        if name in stated:
            value = stated[name]
            found[name] = float(value[0]) * factor(value[1], field.unit) if isinstance(value, tuple) else float(value)
        else:
            found[name] = world.inputs[name].integral(world.start, world.stop) / max(world.stop - world.start, 1e-12)
    return found


def onset(twin, outcome, base) -> tuple[float, float]:
    """From when on inputs have a say in an outcome, and how far all before that moves it (median, in the outcome's unit).

    Whole days are tried backwards from the outcome's window: inputs so old that without all of them the outcome stays within
    half a percent are left alone. The whole record counts where it is short, and where the outcome is one's own.
    """
    world, clock = twin.world(), twin.clock
    day = span("24 h", clock.unit)
    if not outcome.name or world.stop - world.start <= day:
        return world.start, 0.0
    first = outcome.window(bare(twin, outcome))[0]
    times = [t for t in (first - k * day for k in range(1, _DAYS + 1)) if t > world.start]
    worlds = [scaled(twin, [_before(twin, world, t, base)], [0.0], base) for t in times]
    if not times:
        return world.start, 0.0
    course = simulate_worlds([twin, *worlds], names=(outcome.name,))
    lived = outcome.of(course[0])
    size = max(abs(float(np.nanmedian(lived))), 1e-12)
    for t, other in zip(times, course[1:], strict=True):
        moved = np.abs(outcome.of(other) - lived)
        if np.nanquantile(moved, 0.95) < _NEGLIGIBLE * size:
            return t, float(np.nanmedian(moved))
    return world.start, 0.0


def _before(twin, world, t, base) -> Player:
    """Everything before a time as one player."""
    spec = twin.fits[0].model.spec
    parts = [(n, -np.inf, float(t), True) for n in spec.doses]
    return Player("before", (*parts, *((n, world.start, float(t), False) for n in spec.signals)))


def bare(twin, outcome) -> Trajectory:
    """A course without content: the day and the units, which is all that a window asks of it."""
    time, none = np.array([twin.start, twin.stop]), np.zeros(1, bool)
    unit = {outcome.name: twin.fits[0].model.unit_of(outcome.name)}
    return Trajectory(time, {outcome.name: np.zeros((1, 2))}, unit, twin.clock, np.array([""]), none, 0.0)


def settled(twin, outcome):
    """The outcome with its unit and window, without solving anything for one that names its output."""
    return outcome.settled(bare(twin, outcome)) if outcome.name else outcome


def reach(twin, outcome, since=None, base=None) -> tuple[float, float]:
    """The stretch of the day that an explanation looks at: from `since` (found where None) to the end of the outcome's window."""
    world = twin.world()
    stop = outcome.window(bare(twin, outcome))[1] if outcome.name else world.stop
    if isinstance(outcome.measure, First):  # what happens at that very moment counts
        stop = float(np.nextafter(stop, np.inf))
    if since is None:
        return onset(twin, outcome, base if base is not None else baselines(twin, None))[0], stop
    return max(twin.clock.at(since), world.start), stop


_STRETCHES = ("15 min", "30 min", "1 h", "2 h", "3 h", "4 h", "6 h", "12 h", "24 h", "48 h", "7 d", "28 d", "91 d", "365 d")


def stretch_of(twin, most: int = 8) -> str | int:
    """The shortest customary length of which at most `most` make up the day; a number of equal parts where none does."""
    length = twin.stop - twin.start
    fits = (text for text in _STRETCHES if length <= most * span(text, twin.clock.unit) * (1 + 1e-9))
    return next(fits, most)


def windows_of(twin, windows, within=None) -> list[float]:
    """Edges of the stretches of a day (or of `within`): a length such as "4 h" on the clock, times, or a number of equal
    parts.
    """
    world, clock = twin.world(), twin.clock
    start, stop = within or (world.start, world.stop)
    if isinstance(windows, int):
        return [float(t) for t in np.linspace(start, stop, windows + 1)]
    if isinstance(windows, str):
        step = span(windows, clock.unit)
        if not step > 0:
            raise InterventionError(f'explain: windows={windows!r} have no length. Write windows="4 h".')
        first = np.ceil(start / step + 1e-9) * step
        return [start, *(float(t) for t in np.arange(first, stop - 1e-9 * step, step)), stop]
    inner = sorted(clock.asked(t) for t in windows)
    return [start, *(t for t in inner if start < t < stop), stop]


def players_of(twin, *, windows=None, inputs: Sequence[str] | None = None, baseline=None, within=None) -> list[Player]:
    """The players of a day, or of the stretch `within`: each dose alone where these are few, else the latest of them.

    A signal that is its baseline all day is no player, nor is an input that is not among `inputs`.
    """
    spec, world, clock = twin.fits[0].model.spec, twin.world(), twin.clock
    asked = set(inputs) if inputs is not None else {*spec.doses, *spec.signals}
    wrong = sorted(asked - {*spec.doses, *spec.signals})
    if wrong:
        raise InterventionError(
            f"explain: {wrong[0]!r} is no dose or signal. They are: {', '.join((*spec.doses, *spec.signals)) or 'none'}."
        )
    base = baselines(twin, baseline)
    moving = [n for n in spec.signals if n in asked and _differs(world.inputs[n], base[n], world)]
    first, last = within or (world.start, world.stop)
    doses = [(n, d) for n in spec.doses if n in asked for d in world.inputs[n].doses if first <= d.time < last]
    if windows is None:
        alone = _alone(doses, spec, clock)
        parts = max(1, min(4, (_FEW - len(alone)) // max(len(moving), 1)))
        if len(alone) + len(moving) <= _FEW:
            return [*alone, *_stretches(world, clock, spec, moving, windows_of(twin, parts, within), base)]
        recent, older, cut = _recent(alone, doses, _FEW - len(moving), last)
        grouped = _grouped(older, spec, clock, [first, cut])
        return [*recent, *grouped, *_stretches(world, clock, spec, moving, windows_of(twin, 1, within), base)]
    edges = windows_of(twin, windows, within)
    return [*_grouped(doses, spec, clock, edges), *_stretches(world, clock, spec, moving, edges, base)]


def _recent(alone, doses, most, last):
    """The latest doses, each by itself, those before them, and the time that parts them; `most` players in all."""
    alone = sorted(alone, key=lambda p: p.start)
    for k in range(min(len(alone), max(most, 0)), 0, -1):
        cut = alone[-k].start
        older = [(n, d) for n, d in doses if d.time < cut]
        recent = [p for p in alone if p.start >= cut]
        if len(recent) + len({n for n, _ in older}) <= most:
            return recent, older, cut
    return [], doses, last


def _differs(signal, value, world) -> bool:
    edges = [world.start, *(t for t in signal.knots if world.start < t < world.stop), world.stop]
    middles = [(a + b) / 2 for a, b in itertools.pairwise(edges)]
    size = max(abs(value), float(np.max(np.abs(signal.left))), 1e-12)
    return bool(np.any(np.abs(np.asarray(signal(np.array([*edges[:-1], *middles]))) - value) > 1e-9 * size))


def _alone(doses, spec, clock) -> list[Player]:
    """One player for all doses of an input at one time."""
    found = []
    for (name, time), group in itertools.groupby(doses, key=lambda pair: (pair[0], pair[1].time)):
        group = [d for _, d in group]
        found.append(_doses_player(name, group, spec, clock, f"at {clock.label(time)}", (time, np.nextafter(time, np.inf))))
    return found


def _doses_player(name, group, spec, clock, when, window) -> Player:
    unit, known = spec.doses[name].unit, [d.amount for d in group if d.amount is not None]
    amount = float(sum(known)) if len(known) == len(group) else float("nan")
    much = f" {plain(amount)} {unit}" if np.isfinite(amount) else ""
    return Player(f"{name}{much} {when}", ((name, float(window[0]), float(window[1]), True),), amount, unit)


def _window_text(clock, start, stop) -> str:
    first, last = clock.label(start), clock.label(stop)
    if clock.origin is not None and first.rsplit(" ", 1)[0] == last.rsplit(" ", 1)[0]:
        last = last.rsplit(" ", 1)[1]
    return f"{first} to {last}"


def _grouped(doses, spec, clock, edges) -> list[Player]:
    found = []
    for name in dict.fromkeys(n for n, _ in doses):
        for start, stop in itertools.pairwise(edges):
            group = [d for n, d in doses if n == name and start <= d.time < stop]
            if group:
                found.append(_doses_player(name, group, spec, clock, _window_text(clock, start, stop), (start, stop)))
    return found


def _stretches(world, clock, spec, moving, edges, base) -> list[Player]:
    found = []
    for name in moving:
        for start, stop in itertools.pairwise(edges):
            part = dataclasses.replace(world, start=start, stop=stop)
            if _differs(world.inputs[name], base[name], part):
                label = f"{name} {_window_text(clock, start, stop)}"
                mean = world.inputs[name].integral(start, stop) / (stop - start)
                # After the outcome's window nobody looks: a change at its very end would only bend the line read there.
                end = world.stop if stop == edges[-1] else stop
                found.append(Player(label, ((name, float(start), float(end), False),), float(mean), spec.signals[name].unit))
    return found


def by_window(players: Sequence[Player], twin, windows, within) -> list[Player]:
    """All players that begin in one stretch of the day as one player."""
    found, edges = [], windows_of(twin, windows, within)
    for start, stop in itertools.pairwise(edges):
        inside = [p for p in players if start <= p.start < stop]
        if inside:
            parts = tuple(part for p in inside for part in p.parts)
            found.append(Player(f"all inputs {_window_text(twin.clock, start, stop)}", parts))
    return found


def scaled(twin, players: Sequence[Player], share: Sequence[float], base: Mapping[str, float]):
    """The twin with each player present to a share: 1 as it is, 0 taken away, in between on the straight line."""
    targets: dict[str, Any] = {}
    for name in dict.fromkeys(part[0] for p in players for part in p.parts):
        mine = [(a, b, dose, s) for p, s in zip(players, share, strict=True) for n, a, b, dose in p.parts if n == name and s != 1]
        if not mine:
            continue
        if mine[0][2]:
            targets[name] = _thinner(mine)
        else:
            targets[name] = _nearer(mine, base[name], twin.fits[0].model.spec.signals[name].unit)
    return twin.do(**targets) if targets else twin


def scaled_doses(twin, factors: Mapping[str, float], within):
    """The twin with all doses of some inputs in a stretch of the day multiplied by a factor each."""
    first, last = within
    parts = {n: [(first, np.nextafter(last, np.inf), True, float(k))] for n, k in factors.items() if k != 1.0}
    return twin.do(**{n: _thinner(mine) for n, mine in parts.items()}) if parts else twin


def _thinner(parts):
    def fewer(regimen):
        doses = []
        for d in regimen.doses:
            share = next((s for a, b, _, s in parts if a <= d.time < b), 1.0)
            if share == 1.0:
                doses.append(d)
            elif share:
                doses.append(_part(d, share))
        return dataclasses.replace(regimen, doses=tuple(doses))

    fewer.__name__ = "less"
    return fewer


def _part(dose, share):
    amount = None if dose.amount is None else dose.amount * share
    rate = None if dose.rate is None else dose.rate * share
    prior = None if dose.prior is None else (dose.prior[0] * share, dose.prior[1])
    return dataclasses.replace(dose, amount=amount, rate=rate, prior=prior)


def _nearer(parts, value, unit):
    def nearer(signal):
        for start, stop, _, share in parts:
            held = Signal.constant(value * (1.0 - share), unit)
            signal = signal.within(start, stop, signal * share + held if share else Signal.constant(value, unit))
        return signal

    nearer.__name__ = "nearer its baseline"
    return nearer
