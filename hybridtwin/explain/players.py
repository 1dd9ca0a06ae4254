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
from hybridtwin.signals import Signal
from hybridtwin.units import factor

EXACT = 12  # players up to which every coalition is solved


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
            f"explain: a baseline of {wrong[0]!r}, which is no signal. Signals: {', '.join(spec.signals) or 'none'}; a dose that is "
            "taken away is not given."
        )
    found = {}
    for name, field in spec.signals.items():
        if name in stated:
            value = stated[name]
            found[name] = float(value[0]) * factor(value[1], field.unit) if isinstance(value, tuple) else float(value)
        else:
            found[name] = world.inputs[name].integral(world.start, world.stop) / max(world.stop - world.start, 1e-12)
    return found


def windows_of(twin, windows) -> list[float]:
    """Edges of the stretches of a day: a length such as "4 h" on the clock, times, or a number of equal parts."""
    world, clock = twin.world(), twin.clock
    start, stop = world.start, world.stop
    if isinstance(windows, int):
        return [float(t) for t in np.linspace(start, stop, windows + 1)]
    if isinstance(windows, str):
        step = span(windows, clock.unit)
        if not step > 0:
            raise InterventionError(f'explain: windows={windows!r} have no length. Write windows="4 h".')
        first = np.ceil(start / step + 1e-9) * step
        return [start, *(float(t) for t in np.arange(first, stop - 1e-9 * step, step)), stop]
    inner = sorted(clock.at(t) for t in windows)
    return [start, *(t for t in inner if start < t < stop), stop]


def players_of(twin, *, windows=None, inputs: Sequence[str] | None = None, baseline=None) -> list[Player]:
    """The players of a day: each dose alone where there are at most `EXACT` of them, else one input in one window.

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
    doses = [(n, d) for n in spec.doses if n in asked for d in world.inputs[n].doses if world.start <= d.time < world.stop]
    if windows is None:
        alone = _alone(doses, spec, clock)
        parts = max(1, min(4, (EXACT - len(alone)) // max(len(moving), 1)))
        if len(alone) + len(moving) <= EXACT:
            return [*alone, *_stretches(world, clock, spec, moving, windows_of(twin, parts), base)]
        kinds = len({n for n, _ in doses}) + len(moving)
        windows = max(1, EXACT // max(kinds, 1))
    edges = windows_of(twin, windows)
    return [*_grouped(doses, spec, clock, edges), *_stretches(world, clock, spec, moving, edges, base)]


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
    much = f" {amount:.3g} {unit}" if np.isfinite(amount) else ""
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
                found.append(Player(label, ((name, float(start), float(stop), False),), float(mean), spec.signals[name].unit))
    return found


def by_window(players: Sequence[Player], twin, windows) -> list[Player]:
    """All players that begin in one stretch of the day as one player."""
    found, edges = [], windows_of(twin, windows)
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
