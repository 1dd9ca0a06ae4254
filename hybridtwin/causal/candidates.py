"""What may be chosen: treatments that can be delivered, each a world of one twin, and policies of care."""

import dataclasses
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from hybridtwin.clock import Clock, Moment, span
from hybridtwin.dosing import Ratio
from hybridtwin.errors import DeclarationError
from hybridtwin.interventions import Do
from hybridtwin.signals import Regimen
from hybridtwin.twin import Twin
from hybridtwin.units import factor, time_factor

_PUMP = 15.0  # min: how an infusion's length is rounded up where a largest rate decides it
_MOST = 2_000


@dataclasses.dataclass(frozen=True)
class Grid:
    """Deliverable regimens of one dose: every amount, first time and interval; see `Regimen.grid`."""

    doses: tuple[float, ...]
    unit: str
    first: tuple[Moment, ...]
    every: tuple[Any, ...] = (None,)
    over: Any = None
    max_rate: str | None = None
    max_total: str | None = None

    @classmethod
    def of(cls, dose, unit, *, first, every=None, step=None, over=None, max_rate=None, max_total=None) -> "Grid":
        """See `Regimen.grid`."""
        amounts = [float(d) for d in (dose if isinstance(dose, Iterable) else [dose])]
        if step is not None:
            if not step > 0:
                raise DeclarationError(f"grid: a dose step of {step} {unit}. Give the smallest deliverable step, above 0.")
            amounts = [round(d / step) * step for d in amounts]
        amounts = list(dict.fromkeys(float(f"{a:.10g}") for a in amounts))
        if not amounts or not all(math.isfinite(a) and a >= 0 for a in amounts):
            raise DeclarationError(f"grid: the doses {dose!r} are no amounts in {unit}. Write range(500, 2001, 250), or a list.")
        many = isinstance(first, list | tuple | np.ndarray)
        intervals = list(every) if isinstance(every, list | tuple) else [every]
        for text, what in ((max_rate, "max_rate"), (max_total, "max_total")):
            if text is not None:
                _quantity(text, what)
        for interval in intervals:
            if interval is not None and not span(interval, "h") > 0:
                raise DeclarationError(
                    f'grid: every {interval!r} is no interval. Write "12 h", or leave it out for one dose.'
                )
        return cls(tuple(amounts), unit, tuple(first) if many else (first,), tuple(intervals), over, max_rate, max_total)

    def within(self, clock: Clock, start: float, stop: float):
        """The regimens on a day from `start` to `stop` (clock unit): (label, numbers, regimen) of each, and what was left out."""
        found, left = [], []
        for amount, first, every in itertools.product(self.doses, self.first, self.every):
            at = clock.asked(first)
            gap = None if every is None else span(every, clock.unit)
            count = 1 if gap is None else max(1, math.ceil((stop - at) / gap - 1e-9))
            length = self._length(amount)
            if not amount:  # however often: it is one candidate
                if not any(other == "no dose" for other, _, _ in found):
                    numbers = {"dose": 0.0, "unit": self.unit, "first": "", "every": None, "doses": 0}
                    found.append(("no dose", numbers, Regimen.none(self.unit)))
                continue
            label = f"{amount:g} {self.unit}" + (f" every {every}" if every is not None else "")
            label += f" from {clock.label(at)}" if every is not None else f" at {clock.label(at)}"
            label += f", over {_minutes(length)}" if length else ""
            times = [at + k * (gap or 0.0) for k in range(count)]
            why = self._too_much(amount, times, clock.unit)
            why = why or (f"an infusion of {_minutes(length)} does not end before the next dose" if gap is not None and
                          length * time_factor("min", clock.unit) > gap * (1 + 1e-9) else "")  # fmt: skip
            if why:
                left.append(f"{label}: {why}")
                continue
            made = Regimen.bolus(amount, self.unit, at=at)
            made = Regimen.infusion(amount, self.unit, at=at, over=f"{length!r} min") if length else made
            made = made.every(gap, times=count) if gap is not None and count > 1 else made
            made = dataclasses.replace(made, time=clock.unit)
            numbers = {"dose": amount, "unit": self.unit, "first": clock.label(at), "every": every, "doses": count}
            found.append((label, numbers, made))
        return found, left

    def _length(self, amount) -> float:
        """Minutes over which a dose is given; 0 for a bolus."""
        least = 0.0 if self.over is None else span(self.over, "min")
        if self.max_rate is None:
            return least
        number, (unit, time) = _quantity(self.max_rate, "max_rate")
        needed = amount / (number * factor(unit, self.unit)) * time_factor(time, "min")
        return max(least, _PUMP * math.ceil(needed / _PUMP - 1e-9))

    def _too_much(self, amount, times, unit) -> str:
        """Why a regimen gives more than `max_total`, else ""."""
        if self.max_total is None:
            return ""
        number, (of, per) = _quantity(self.max_total, "max_total")
        number *= factor(of, self.unit)
        window = time_factor(per, unit) if per else math.inf
        most = max(sum(amount for t in times if first <= t < first + window - 1e-9) for first in times)
        return f"{most:g} {self.unit} is more than {self.max_total}" if most > number * (1 + 1e-9) else ""

    def __len__(self) -> int:
        return len(self.doses) * len(self.first) * len(self.every)


@dataclasses.dataclass(frozen=True)
class RatioGrid:
    """Ratios of one dose to another, to choose among; see `Ratio.grid`."""

    ratios: tuple[Ratio, ...]

    def within(self, clock: Clock, start: float, stop: float):
        """(label, numbers, value of `do`) of each, and what was left out (nothing); a ratio does not depend on the day."""
        return [(str(ratio), ratio.numbers, ratio) for ratio in self.ratios], []

    def __len__(self) -> int:
        return len(self.ratios)


def _quantity(text, what) -> tuple[float, tuple[str, str]]:
    """"1 g/h" as (1.0, ("g", "h")); without a time "" stands for it."""
    number, _, unit = str(text).strip().partition(" ")
    amount, _, time = unit.partition("/")
    try:
        if what == "max_rate" and not time:
            raise ValueError
        if time:
            time_factor(time.strip(), "min")
        return float(number), (amount.strip(), time.strip())
    except ValueError:
        example = '"1 g/h"' if what == "max_rate" else '"4 g" or "4 g/d"'
        raise DeclarationError(f"grid: cannot read {what}={text!r}. Write {example}.") from None


def _minutes(length: float) -> str:
    return f"{length / 60:g} h" if length >= 60 and (length / 15) % 1 == 0 else f"{length:g} min"


@dataclasses.dataclass(frozen=True, eq=False)
class Candidates(Mapping):
    """Worlds of one twin to choose among: label -> `Twin`.

    `numbers`: label -> dose, unit, first, every, doses where a grid made it. `left_out`: combinations that cannot be delivered,
    with the reason.
    """

    worlds: Mapping[str, Twin]
    numbers: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    left_out: tuple[str, ...] = ()

    def __getitem__(self, label: str) -> Twin:
        return self.worlds[label]

    def __iter__(self) -> Iterator[str]:
        return iter(self.worlds)

    def __len__(self) -> int:
        return len(self.worlds)

    def __repr__(self):
        lines = [f"{len(self)} candidates", *(f"  {label}" for label in list(self)[:12]), *["  ..."] * (len(self) > 12)]
        return "\n".join([*lines, *(f"  left out: {reason}" for reason in self.left_out[:6])])


def candidates(twin: Twin, *, start=None, stop=None, respond=None, **targets) -> Candidates:
    """Worlds of a twin to choose among: every combination of what is offered for each target, under each policy.

    **Arguments:** `targets`: name -> a `Regimen.grid` or `Ratio.grid`, a list of what it may become (as in `Twin.do`), label ->
    that, or one value that all candidates share. `start`, `stop`: window, as in `Twin.do`. `respond`: policies to choose among,
    label -> a rule of care (`When`, `Rescue`, `Correct`), a list of rules that hold together, or None for no rule; or one rule,
    for all candidates.

    **Raises:** DeclarationError where nothing can be delivered, two candidates have one name, or policies have none: a bare list
    of rules is one policy in `Twin.do`, and could be meant as a choice here. The errors of `Twin.do`.
    """
    offered, left = [], []
    for name, given in targets.items():
        options, out = _options(twin, name, given)
        offered.append([(name, *option) for option in options])
        left += [f"{name} {reason}" for reason in out]
    policies = _policies(respond)
    if not offered and len(policies) < 2 and policies[0][1] is None:
        raise DeclarationError(
            "candidates of what? Give a grid of doses, as in iv=ht.Regimen.grid(...), or policies, respond={'name': rule, ...}."
        )
    count = math.prod([len(options) for options in offered]) * len(policies)
    if not count:
        raise DeclarationError("no candidate can be delivered: " + "; ".join(left[:4]) + ". Widen max_rate or max_total.")
    if count > _MOST:
        raise DeclarationError(f"{count} candidates are more than {_MOST}. Widen the steps: fine ones can follow near the best.")
    worlds, numbers = {}, {}
    for *chosen, (policy, rules) in itertools.product(*offered, policies):
        shown = [label if len(offered) == 1 else f"{name} {label}" for name, label, _, _ in chosen if label]
        label = "; ".join([*shown, *([policy] if policy else [])])
        how: dict[str, Any] = {name: value for name, _, _, value in chosen}
        if label in worlds:
            raise DeclarationError(f"two candidates are called {label!r}. Give them names, as in iv={{'low': ..., 'high': ...}}.")
        worlds[label] = twin.do(start=start, stop=stop, respond=rules, **how)
        many = len([1 for *_, found, _ in chosen if found]) > 1
        numbers[label] = {f"{name} {k}" if many else k: v for name, _, found, _ in chosen for k, v in (found or {}).items()}
    return Candidates(worlds, numbers, tuple(left))


def _options(twin, name, given):
    """(label, numbers, value) of each value offered for a target, and what cannot be delivered."""
    if isinstance(given, Grid | RatioGrid):
        return given.within(twin.clock, twin.start, twin.stop)
    if isinstance(given, Mapping):
        return [(str(label), getattr(value, "numbers", None), value) for label, value in given.items()], []
    if isinstance(given, list):
        return [(str(Do({name: value})), None, value) for value in given], []
    return [("", None, given)], []


def _policies(respond) -> list[tuple[str, Any]]:
    if isinstance(respond, Mapping):
        return [(str(label), _rules(policy)) for label, policy in respond.items()]
    if isinstance(respond, Sequence) and not isinstance(respond, str):
        raise _unnamed("respond=[...]", "respond=")
    return [("", _rules(respond))]


def _unnamed(given, where) -> DeclarationError:
    return DeclarationError(
        f"{given} could be several policies to choose among or one policy of several rules. Give names: {where}{{'a': rule_a, "
        f"'b': rule_b}} is a choice between two, {where}{{'both': [rule_a, rule_b]}} is one in which both rules hold."
    )


def _rules(policy):
    """The rules of a policy as `Twin.do` takes them, which checks them. **Raises:** DeclarationError for an empty list."""
    if isinstance(policy, list | tuple) and not policy:
        raise DeclarationError("a candidate is an empty list: neither doses nor rules. Write None for nothing done.")
    return [policy] if policy is not None and not isinstance(policy, list | tuple) else policy


def gathered(twin: Twin, given) -> Candidates:
    """What `optimize` is given, as candidates: target -> grid; label -> world, do-arguments or rules; a list of these.

    **Raises:** DeclarationError.
    """
    if isinstance(given, Candidates):
        return given
    if isinstance(given, Grid | RatioGrid):
        doses = list(twin.fits[0].model.spec.doses)
        if len(doses) != 1:
            raise DeclarationError(f"a grid of which dose? {', '.join(doses)}. Write {{{doses[0]!r}: grid}}.")
        return candidates(twin, **{doses[0]: given})
    if isinstance(given, Mapping) and any(isinstance(value, Grid | RatioGrid) for value in given.values()):
        return candidates(twin, **given)
    named = isinstance(given, Mapping)
    pairs = list(given.items()) if named else [(None, one) for one in given]
    if pairs and not named and not any(isinstance(one, Twin | Mapping) for _, one in pairs):
        raise _unnamed("a list of rules of care", "")
    worlds = {}
    for label, one in pairs:
        world = _world(twin, one)
        name = str(label) if named else world.label
        if name in worlds:
            raise DeclarationError(f"two candidates are called {name!r}. Give names: {{'one': ..., 'other': ...}}.")
        worlds[name] = world
    if not worlds:
        raise DeclarationError("there is no candidate. Write ht.candidates(twin, iv=ht.Regimen.grid(...)).")
    return Candidates(worlds)


def _world(twin, one) -> Twin:
    if isinstance(one, Twin):
        return one
    if isinstance(one, Mapping):
        return twin.do(**one)
    return twin.do(respond=_rules(one))
