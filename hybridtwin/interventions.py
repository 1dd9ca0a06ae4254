"""What `do` means: the lived inputs of a record, changed.

A `Do` is a value: targets and a window. `enact` applies a list of them, in order, to the lived inputs and returns a
`World`: the inputs that result, with every change of a parameter, clamp of a state and rule of care. The simulator sees
only worlds, never descriptions of interventions, so `do` of the lived input *is* the lived world.
"""

import dataclasses
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np

from hybridtwin.changes import Equation, Once, Stuck, Then, in_words
from hybridtwin.clock import Clock, is_real
from hybridtwin.dosing import Correct, Ratio, first_difference, new_regimen
from hybridtwin.errors import DeclarationError, InterventionError, PastHorizon, UnknownTarget
from hybridtwin.fields import check_range
from hybridtwin.levels import check_living, measured
from hybridtwin.signals import Regimen, Signal
from hybridtwin.units import factor, time_factor


@dataclasses.dataclass(frozen=True)
class Do:
    """One intervention: `targets` (name -> what it becomes) inside the window [start, stop) of lived time.

    Without targets it only says when rules of care begin to watch.
    """

    targets: Mapping[str, Any]
    start: Any = None
    stop: Any = None

    def __str__(self):
        return self.told()

    def told(self, clock: Clock | None = None, windows: bool = True) -> str:
        """In words; with a clock, times that are bare numbers have its unit or date; `windows`: when, too?"""

        def at(time, unit=None):
            if clock is None or not is_real(time):
                return str(time)
            return clock.label(clock.asked(time) if unit is None else time * time_factor(unit, clock.unit))

        ends = (("from", self.start), ("until", self.stop)) if windows else ()
        window = "".join(f" {word} {at(time)}" for word, time in ends if time is not None)
        return (", ".join(f"{name} = {in_words(value, at)}" for name, value in self.targets.items()) or "care") + window


@dataclasses.dataclass(frozen=True)
class Rescue:
    """A rescue rule: when an output falls below a threshold, care gives a dose.

    The rule looks every `every`, in front of a dose that is due then, and waits at least `wait` after each rescue. `when` is an
    output, which it then knows exactly, or a sensor of the model, which it reads with its error ("reading of C" where an output
    has the same name); what it sees was measured `delay` ago (at most one `every`). `reads` is filled in by the twin.
    """

    when: str
    below: float
    unit: str
    give: str
    amount: float
    amount_unit: str
    every: str = "5 min"
    wait: str = "15 min"
    delay: str = "0 min"
    reads: str | None = None

    def __post_init__(self):
        _check_looks("Rescue", self.every, self.delay)

    def __str__(self):
        late = "" if self.delay == "0 min" else f", {self.delay} late"
        return (
            f"give {self.amount:g} {self.amount_unit} of {self.give} when {self.reads or self.when} < {self.below:g} {self.unit} "
            f"(looked at every {self.every}{late}, at least {self.wait} apart)"
        )


@dataclasses.dataclass(frozen=True)
class Titrate:
    """A protocol that changes all later doses of an input by what it sees at fixed times.

    **Arguments:**

    - `when`: an output, known exactly, or a sensor, read with its error (see `Rescue`); what is seen was measured `delay` ago.
    - `dose`: the dose or signal whose later amounts are multiplied: what was decided before, and infusions that run, too.
    - `below`, `above`: (number, unit). Below the one amounts are multiplied by `up`, above the other by `down`; one is enough.
    - `every`: how often it looks, for the first time one `every` after it begins to watch.
    - `least`, `most`: bounds of the factor against what was decided before.

    ```python
    ht.Titrate("C", "oral", below=(10, "mg/L"), up=1.25, above=(20, "mg/L"), down=0.75, every="24 h", delay="2 h")
    ```

    **Raises:** DeclarationError.
    """

    when: str
    dose: str
    _: dataclasses.KW_ONLY
    below: tuple[float, str] | None = None
    above: tuple[float, str] | None = None
    up: float = 1.25
    down: float = 0.75
    every: str = "24 h"
    delay: str = "0 min"
    least: float = 0.25
    most: float = 4.0
    reads: str | None = None

    def __post_init__(self):
        _check_looks("Titrate", self.every, self.delay)
        for name in ("below", "above"):
            pair = getattr(self, name)
            if pair is not None and (not isinstance(pair, tuple) or len(pair) != 2 or not isinstance(pair[1], str)):
                raise DeclarationError(f'Titrate: {name} is (number, unit), not {pair!r}. Write {name}=(10, "mg/L").')
        if self.below is None and self.above is None:
            raise DeclarationError('Titrate needs below=, above= or both. Write below=(10, "mg/L").')
        if not (self.up > 0 and self.down > 0 and 0 <= self.least <= 1.0 <= self.most):
            raise DeclarationError("Titrate: up and down are factors above 0, least at most 1, most at least 1.")
        if self.below is not None and self.above is not None:
            if self.below[0] * factor(self.below[1], self.above[1]) > self.above[0]:
                raise DeclarationError(f"Titrate: below={self.below} lies above above={self.above}. Swap them.")

    def __str__(self):
        parts = [f"times {self.up:g} when {self.reads or self.when} < {self.below[0]:g} {self.below[1]}"] if self.below else []
        parts += [f"times {self.down:g} when {self.reads or self.when} > {self.above[0]:g} {self.above[1]}"] if self.above else []
        late = "" if self.delay == "0 min" else f", {self.delay} late"
        return f"later {self.dose} {', '.join(parts)} (looked at every {self.every}{late})"


def _check_looks(kind, every, delay) -> None:
    """**Raises:** DeclarationError where a rule looks at no time, or later than it looks again."""
    if not span_of(every, "s") > 0:
        raise DeclarationError(f'{kind}: every={every!r} is no stretch of time. Write it like "5 min".')
    if not 0 <= span_of(delay, "s") <= span_of(every, "s"):
        raise DeclarationError(f"{kind}: delay={delay!r} is longer than every={every!r}, or negative. Look less often.")


_MOST = 256  # acts of one rule in one simulation that a compiled program can keep


@dataclasses.dataclass(frozen=True)
class When:
    """A rule that acts at the very moment at which an output or state passes a level, draw by draw.

    **Arguments:**

    - `what`: the output or state that is watched; `below` or `above`: (number, unit) of the level.
    - `give`: (dose, amount, unit), given at once when it acts; or `stop`: a dose or signal. A dose that is stopped is not
      given any more and its infusions end, a signal that is stopped is zero.
    - `until`: (number, unit) that must be reached, on the other side of the level, before the rule can act again
      (hysteresis); what was stopped goes on from then. Without it a stop is for good.
    - `wait`: least time between two acts, as in "15 min". A rule with a `wait` acts whenever the value is beyond the level
      and the wait is over; one with neither `wait` nor `until` acts each time the value passes the level.
    - `at_most`: acts in one simulation. A draw that would need more is failed, counted and explained.

    The moment is located on the solution itself (a cubic through the states and rates at both ends of a step, then Newton's
    method on the step), to 1e-6 of a step or better, and carries its derivative. Care that looks only now and then is `Rescue`.

    ```python
    ht.When("G", below=(70, "mg/dL"), give=("meal", 15, "g"), wait="15 min")
    ht.When("G", below=(80, "mg/dL"), stop="basal", until=(100, "mg/dL"))
    ```

    **Raises:** DeclarationError.
    """

    what: str
    _: dataclasses.KW_ONLY
    below: tuple[float, str] | None = None
    above: tuple[float, str] | None = None
    give: tuple[str, float, str] | None = None
    stop: str | None = None
    at_most: int = 8
    wait: str | None = None
    until: tuple[float, str] | None = None

    def __post_init__(self):
        if (self.below is None) == (self.above is None):
            raise DeclarationError('When needs one of below= and above=. Write below=(70, "mg/dL").')
        if (self.give is None) == (self.stop is None):
            raise DeclarationError('When needs one of give= and stop=. Write give=("meal", 15, "g") or stop="basal".')
        for name in ("below", "above", "until"):
            pair = getattr(self, name)
            if pair is not None and (not isinstance(pair, tuple) or len(pair) != 2 or not isinstance(pair[1], str)):
                raise DeclarationError(f'When: {name} is (number, unit), not {pair!r}. Write {name}=(70, "mg/dL").')
        if self.give is not None and (not isinstance(self.give, tuple) or len(self.give) != 3 or not self.give[1] > 0):
            raise DeclarationError(
                f'When: give is (dose, amount, unit) with an amount above 0, not {self.give!r}. Write give=("meal", 15, "g").'
            )
        if not 1 <= self.at_most <= _MOST:
            raise DeclarationError(f"When: at_most is {self.at_most}. Give a whole number from 1 to {_MOST}.")
        level, unit = self.level
        if self.until is not None:
            apart = self.until[0] * factor(self.until[1], unit) - level
            if apart > 0 if self.above is not None else apart < 0:
                raise DeclarationError(
                    f"When: until={self.until} lies beyond the level itself, so the rule could never act again. Give a value "
                    f"{'below' if self.above is not None else 'above'} {level:g} {unit}."
                )
        if self.wait is not None and not span_of(self.wait, "s") > 0:
            raise DeclarationError(f'When: wait={self.wait!r} is no wait. Write it like "15 min", or leave it out.')

    @property
    def level(self) -> tuple[float, str]:
        """The level (number, unit)."""
        found = self.below if self.below is not None else self.above
        assert found is not None
        return found

    def __str__(self):
        does = f"give {self.give[1]:g} {self.give[2]} of {self.give[0]}" if self.give else f"stop {self.stop}"
        side, back = ("<", ">") if self.below is not None else (">", "<")
        more = [f"until {self.what} {back} {self.until[0]:g} {self.until[1]}"] if self.until else []
        more += [f"at least {self.wait} apart"] if self.wait else []
        more += [f"at most {self.at_most} times"] if self.give or self.until else []
        return f"{does} when {self.what} {side} {self.level[0]:g} {self.level[1]}" + (f" ({', '.join(more)})" if more else "")


def span_of(text: str, unit: str) -> float:
    """A stretch of time such as "15 min" in another unit of time. **Raises:** DeclarationError."""
    parts = text.split(None, 1) if isinstance(text, str) else []
    try:
        return float(parts[0]) * time_factor(parts[1], unit)
    except (IndexError, ValueError):
        raise DeclarationError(f'{text!r} is no stretch of time. Write it like "15 min".') from None


@dataclasses.dataclass(frozen=True)
class Override:
    """A parameter that has another value inside a window: a number, or a function of the old value."""

    path: str
    change: float | Callable[[Any], Any]
    start: float
    stop: float
    occasion: int | None = None  # whose value the function is of, where the parameter varies


@dataclasses.dataclass(frozen=True)
class Clamp:
    """A state held to a signal, or to its course in another world, inside a window; its own equation is cut there."""

    state: str
    signal: "Signal | Course"
    start: float
    stop: float


@dataclasses.dataclass(frozen=True, eq=False)
class Course:
    """The course of a state in another world: the world, and the times at which it is looked at."""

    world: "World"
    knots: tuple[float, ...]
    stepwise: ClassVar[bool] = False


@dataclasses.dataclass(frozen=True)
class Setting:
    """A state that is set once, at `time`: to `number` (a float, or an array of one a draw), or by `change`."""

    state: str
    number: Any
    change: Callable[[Any], Any] | None
    time: float


@dataclasses.dataclass(frozen=True)
class Edit:
    """A state that has another equation inside a window."""

    state: str
    rate: Callable[[Any, Any, Any, Any], Any]
    start: float
    stop: float
    causes: frozenset[str] = frozenset()  # what the new rate depends on


@dataclasses.dataclass(frozen=True)
class Misread:
    """A sensor that inside a window reads something else than it would: `change` of what it would read."""

    sensor: str
    change: Callable[[Any], Any]
    start: float
    stop: float


@dataclasses.dataclass(frozen=True)
class World:
    """The inputs of one world in the system's declared units and time, ready to be laid on a mesh.

    `onset` is the first time at which this world can differ from the lived one (None: it does not), `notes` says what
    `enact` did beyond what was asked. `attended`: of a stretch of a day, when each rule looks and when it measures (None: a whole
    day); at the end of a stretch nothing is decided, for the next one begins there. `decided`: (dose, start, stop) of the windows
    whose doses were said anew, and not made of the old ones.
    """

    inputs: Mapping[str, Regimen | Signal]
    start: float
    stop: float
    resets: tuple[tuple[float, int], ...] = ()
    overrides: tuple[Override, ...] = ()
    clamps: tuple[Clamp, ...] = ()
    sets: tuple[Setting, ...] = ()
    edits: tuple[Edit, ...] = ()
    misread: tuple[Misread, ...] = ()
    rules: tuple[Rescue | When | Titrate | Correct, ...] = ()
    onset: float | None = None
    notes: tuple[str, ...] = ()
    attended: tuple[tuple[tuple[tuple[float, int], ...], tuple[float, ...]], ...] | None = None
    decided: tuple[tuple[str, float, float], ...] = ()


def _unknown(name, spec, sensors):
    if name in spec.couplings:
        made = sorted({a.removeprefix("u.").removeprefix("x.") for a, b in spec.drawn if b == f"c.{name}"})
        return UnknownTarget(f"do: {name!r} is a coupling: it follows from {', '.join(made)}. Act on one of those.")
    read = [_reading_of(name, spec) for name in sensors]
    known = [*spec.doses, *spec.signals, *spec.covariates, *spec.parameters, *spec.constants, *spec.states, *read]
    near = get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"Did you mean {' or '.join(near)}?" if near else f"Known targets: {', '.join(known)}."
    said = f"an output, which follows from states; what is read of it is {_reading_of(name, spec)!r}" if name in sensors else None
    return UnknownTarget(f"do: {name!r} is {said or 'no input, parameter or state of this system'}. {hint}")


def _reading_of(sensor, spec) -> str:
    """What a sensor is called where an output or state may have its name."""
    return f"reading of {sensor}" if sensor in spec.outputs or sensor in spec.states else sensor


def _as_number(value, unit, name):
    """A number of `unit` from a number, or from (number, unit)."""
    if isinstance(value, tuple) and len(value) == 2:
        return float(value[0]) * factor(value[1], unit)
    try:
        return float(value)
    except (TypeError, ValueError):
        raise InterventionError(
            f"do: {name!r} cannot become {value!r}. Give a number in {unit}, a pair (number, unit), a function of the old value, "
            "or of an input, a state or a parameter a Signal."
        ) from None


def _window(do, clock, world):
    start, stop = clock.window(do.start, do.stop, world.start, world.stop)
    if start > world.stop or stop < world.start:
        raise PastHorizon(
            f"do: the window {clock.label(start)} to {clock.label(stop)} lies outside the record "
            f"({clock.label(world.start)} to {clock.label(world.stop)}). Choose a time inside it."
        )
    if stop < start:
        raise InterventionError(
            f"do: the window ends ({clock.label(stop)}) before it starts ({clock.label(start)}). "
            "Swap start and stop, or name the day, as in 'day 2 07:00'."
        )
    # A window up to the very end takes in what happens at that instant.
    return start, (stop if do.stop is not None else float("inf"))


def _enact_one(world, do, spec, clock, sensors, edges):
    start, stop = _window(do, clock, world)
    inputs, parts = dict(world.inputs), []
    onsets, notes, decided = [] if do.targets else [start], list(world.notes), list(world.decided)
    for name, value in sorted(do.targets.items(), key=lambda item: isinstance(item[1], Ratio)):  # what it answers is known first
        if name in spec.doses:
            lived = inputs[name]
            decided += [] if callable(value) and not getattr(value, "decides", False) else [(name, start, stop)]
            value = value.of_day(inputs, spec, start, stop, world.start, clock) if isinstance(value, Ratio) else value
            inputs[name], fresh = new_regimen(name, spec, lived, value, (start, stop), (world.start, world.stop), clock)
            change = first_difference(lived, inputs[name])
            check_living(name, [d.amount for d in fresh.doses if d.amount is not None], spec.doses[name].unit)
            if change is not None:
                onsets.append(change)
            moved = min((dose.time for dose in fresh.doses), default=start)
            if change is not None and moved < start:
                notes.append(
                    f"a {name} was moved before {clock.label(start)}: the intervention starts at {clock.label(moved)}"
                )
            continue
        onsets.append(start)
        if name in spec.signals or name in spec.covariates:
            field = spec.signals.get(name) or spec.covariates[name]
            lived = inputs[name]
            fresh = value(lived) if callable(value) and not isinstance(value, Signal) else value
            if isinstance(fresh, Signal):
                fresh = fresh.resolve(clock, clock.unit, field.unit)
            else:
                fresh = Signal.constant(_as_number(fresh, field.unit, name), field.unit)
            check_living(name, np.ravel(fresh.left), field.unit)
            end = world.stop if stop == float("inf") else stop
            inputs[name] = lived.within(start, end, fresh) if do.start is not None or do.stop is not None else fresh
        elif name in spec.parameters or name in spec.constants:
            parts += _of_parameter(name, value, spec, world, start, stop, edges.get(name), clock)
        elif name in spec.states:
            parts.append(_of_state(name, value, spec, do, start, stop, clock))
        elif (sensor := name.removeprefix("reading of ")) in sensors and (sensor != name or name == _reading_of(name, spec)):
            of = sensors[sensor].of
            unit = (spec.outputs.get(of) or spec.states[of]).unit
            changed = callable(value) and not isinstance(value, Signal)  # a Signal can be called, with a time
            parts.append(Misread(sensor, value if changed else Stuck(_as_number(value, unit, name)), start, stop))
        else:
            raise _unknown(name, spec, sensors)
    onset = min([t for t in (*onsets, world.onset) if t is not None], default=None)
    kinds = {"overrides": Override, "clamps": Clamp, "sets": Setting, "edits": Edit, "misread": Misread}
    fresh = {field: (*getattr(world, field), *(p for p in parts if isinstance(p, kind))) for field, kind in kinds.items()}
    return dataclasses.replace(world, inputs=inputs, onset=onset, notes=tuple(notes), decided=tuple(decided), **fresh)


def _of_parameter(name, value, spec, world, start, stop, edges, clock) -> "list[Override]":
    """A number, steps of it, or a function of what it was in this world, on that occasion: what earlier `do` made of it there."""
    field = spec.parameters.get(name) or spec.constants[name]
    if isinstance(value, Signal):  # it can be called, too, but with a time
        steps = value.resolve(clock, clock.unit, field.unit)
        if not steps.stepwise:
            raise InterventionError(
                f"do: the parameter {name!r} cannot follow a line: it holds still between moments. Give a number, "
                "ht.Signal.steps, or several do() with windows."
            )
        check_range(name, field, steps.left)
        begins = [start, *(t for t in steps.pieces()[0] if start < t < min(stop, world.stop))]
        return [Override(name, float(steps(low)), low, high) for low, high in pairwise([*begins, stop])]
    if not callable(value):
        number = _as_number(value, field.unit, name)
        check_range(name, field, number)
        return [Override(name, number, start, stop)]
    earlier = [o for o in world.overrides if o.path == name and o.start < stop and o.stop > start]
    cuts = {start, stop, *(edges or ()), *(t for o in earlier for t in (o.start, o.stop))}
    found = []
    for low, high in pairwise(sorted(t for t in cuts if start <= t <= stop)):
        was = next((o.change for o in reversed(earlier) if o.start <= low and high <= o.stop), None)
        occasion = None if edges is None else sum(t <= low for t in edges)
        found.append(Override(name, value if was is None else Then(was, value), low, high, occasion))
    return found


def _of_state(name, value, spec, do, start, stop, clock) -> "Setting | Clamp | Edit":
    """What becomes of a state: set once, moved by another equation, or held to a course, a signal or a number."""
    unit = spec.states[name].unit
    if isinstance(value, Once):
        found = _setting(name, value.value, unit, do, start, clock)
        _check_state(name, spec, found.number)
        return found
    if isinstance(value, Equation):
        return Edit(name, value, start, stop, value.causes(spec, name))
    if isinstance(value, Course):
        return Clamp(name, value, start, stop)
    signal = value.resolve(clock, clock.unit, unit) if isinstance(value, Signal) else None
    signal = signal or Signal.constant(_as_number(value, unit, name), unit)
    _check_state(name, spec, [*np.ravel(signal.left), *np.ravel(signal.right)])
    return Clamp(name, signal, start, stop)


def _check_state(name, spec, numbers) -> None:
    """**Raises:** InterventionError where a state would be below what it can be."""
    low, least = spec.states[name].low, np.min(numbers)
    if low is not None and least < low:
        raise InterventionError(
            f"do: {name!r} cannot be {least:g} {spec.states[name].unit}: it is declared as {low:g} or more. Give such a number, "
            "or declare the state with positive=False."
        )


def _setting(name, value, unit, do, start, clock) -> Setting:
    """**Raises:** InterventionError where it is not said when, or what is set is no number."""
    if do.start is None or (do.stop is not None and do.stop != do.start):
        raise InterventionError(
            f"do: {name!r} is set once, at one moment. Say when, as in start={clock.label(start)!r}, and leave stop= out."
        )
    if callable(value) and not isinstance(value, Signal):
        return Setting(name, 0.0, value, start)
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[1], str):
        value = np.asarray(value[0], float) * factor(value[1], unit)
    try:
        number = np.asarray(value, float)
    except (TypeError, ValueError):
        number = np.full((1, 1), np.nan)
    if number.ndim > 1 or not np.isfinite(number).all():
        raise InterventionError(
            f"do: {name!r} cannot be set to {value!r}. Give a number in {unit}, (number, unit), an array of one finite number a "
            "draw, or a function of what it was."
        )
    return Setting(name, number, None, start)


def enact(lived, dos, spec, clock, rules=(), sensors=None, edges=None):
    """The world that results when `dos` are done, in order, in the lived world, under rules of care.

    `sensors`: name -> sensor, which rules may read and `do` may change; `edges`: parameter that varies -> times at which another
    of its values begins.

    **Raises:** UnknownTarget, AmbiguousDose, PastHorizon, InterventionError, ParameterError, UnitError; each says what to write.
    """
    world = lived
    for do in dos:
        world = _enact_one(world, do, spec, clock, sensors or {}, edges or {})
    rules = tuple(measured(_reading(rule, spec, sensors or {}), spec) for rule in rules)
    for rule in rules:
        _check_rule(rule, spec, sensors or {})
    if rules:
        world = dataclasses.replace(world, rules=tuple(rules), onset=lived.start if world.onset is None else world.onset)
    return world


def misread(readings, world, sensor, times):
    """Readings (draws, N) of a sensor at `times` (N,), in system time, as they come out in a world that changes them."""
    for part in world.misread:
        if part.sensor == sensor:
            readings = np.where((times >= part.start) & (times < part.stop), np.asarray(part.change(readings)), readings)
    return readings


def _looked(rule):
    """Levels, dose and its unit of a rule that looks and gives."""
    if isinstance(rule, Correct):
        return [rule.above, rule.per], rule.dose, rule.give[1]
    return [(rule.below, rule.unit)], rule.give, rule.amount_unit


def _reading(rule, spec, sensors):
    """The same rule with its sensor's output named, where it reads a sensor ("reading of C" where an output has that name)."""
    if not isinstance(rule, Rescue | Titrate | Correct) or rule.when in spec.outputs or rule.when in spec.states:
        return rule
    name = rule.when.removeprefix("reading of ")
    return dataclasses.replace(rule, when=sensors[name].of, reads=name) if name in sensors else rule


def _check_rule(rule, spec, sensors):
    """**Raises:** UnknownTarget, InterventionError, UnitError where a rule does not suit a system."""
    if not isinstance(rule, Rescue | When | Titrate | Correct):
        raise InterventionError(
            f"respond: {rule!r} is no rule of care. "
            'Write ht.When("G", below=(70, "mg/dL"), give=("meal", 15, "g"), wait="15 min").'
        )
    what = rule.what if isinstance(rule, When) else rule.when
    field = spec.outputs.get(what) or spec.states.get(what)
    if field is None:
        read = f" Sensors: {', '.join(sensors)}." if sensors and not isinstance(rule, When) else ""
        raise UnknownTarget(f"respond: {what!r} is no output of this system. Outputs: {', '.join(spec.outputs)}.{read}")
    if isinstance(rule, Titrate):
        for _, unit in filter(None, (rule.below, rule.above)):
            factor(unit, field.unit)
        if rule.dose not in spec.doses and rule.dose not in spec.signals:
            known = ", ".join((*spec.doses, *spec.signals)) or "none"
            raise UnknownTarget(f"respond: {rule.dose!r} is no dose or signal of this system. They are: {known}.")
        return
    if isinstance(rule, When):
        levels = [rule.level, *([rule.until] if rule.until else [])]
        give, _, amount_unit = rule.give or (None, 0.0, "1")
    else:
        levels, give, amount_unit = _looked(rule)
    for _, unit in levels:
        factor(unit, field.unit)
    if give is not None:
        if give not in spec.doses:
            raise UnknownTarget(f"respond: {give!r} is no dose of this system. Doses: {', '.join(spec.doses)}.")
        factor(amount_unit, spec.doses[give].unit)
        if isinstance(rule, When) and give in spec.moving:
            raise InterventionError(
                f"respond: {give!r} has a lag or a modelled rate or duration, which a dose given by a rule does not have. Give a "
                f"dose that enters at once: {', '.join(n for n in spec.doses if n not in spec.moving) or 'this system has none'}."
            )
    elif isinstance(rule, When) and rule.stop not in spec.doses and rule.stop not in spec.signals:
        raise UnknownTarget(
            f"respond: {rule.stop!r} is no dose or signal of this system. "
            f"They are: {', '.join((*spec.doses, *spec.signals)) or 'none'}."
        )
