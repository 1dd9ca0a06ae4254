"""What a target of `do` may become beside numbers, signals, doses and functions of the old: once, as_in, equation.

Each is a value that only says what is meant. `interventions.enact` checks it against a system and a day.
"""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from hybridtwin import dimensions
from hybridtwin.errors import InterventionError
from hybridtwin.signals import Regimen, Signal
from hybridtwin.wholes import with_couplings


@dataclasses.dataclass(frozen=True, eq=False)
class Once:
    """A state that is set at one moment and then goes on by its own equation: a transplant, a refill, a lost liter of blood.

    **Arguments:** `value`: a number in the state's unit, (number, unit), an array of one number a draw, or a function of what
    the state was, written with `jax.numpy` where it is more than arithmetic.

    ```python
    twin.do(volume=ht.once(lambda v: v - 500), start="07:30")
    ```

    It happens at `start`, before whatever else happens at that moment.
    """

    value: Any

    def __str__(self):
        if callable(self.value):
            return "set once by a function of what it was"
        if isinstance(self.value, tuple):
            return f"set once to {self.value[0]:g} {self.value[1]}"
        return f"set once to {self.value:g}" if np.ndim(self.value) == 0 else "set once, draw by draw"


def once(value) -> Once:
    """A state set at one moment; see `Once`."""
    return Once(value)


@dataclasses.dataclass(frozen=True, eq=False)
class AsIn:
    """A state that is held, draw by draw, to its course in another world of the same twin.

    `twin.do(meal=..., insulin=ht.as_in(twin))`: what the meal does when insulin does not answer to it, the effect not through
    insulin. The course is looked at 800 times (2,400 where doses have a lag), whenever something happens in either
    world, and right in front of and behind each draw's own arrivals of doses; in between it is a straight line (about 1e-4).
    """

    twin: Any

    def __str__(self):
        return f"as in: {self.twin.label}"


def as_in(twin) -> AsIn:
    """Hold a state to its course in another world; see `AsIn`."""
    return AsIn(twin)


@dataclasses.dataclass(frozen=True, eq=False)
class Equation:
    """Another equation for a state: a mechanism that works otherwise, as after the edit of a gene or the block of a transporter.

    **Arguments:** `rate(system, t, x, u)`: the new rate of the state, in its unit per time of the system, written as a line of
    `rates` is: `system` has the parameters (draw by draw), `x` the states, `u` signals, covariates and couplings, and what the
    old equation said is `system.rates(t, x, u)`. Numbers with a unit are `ht.const(0.1, "mg/L")`. Units are checked as those
    of `rates`.

    ```python
    def saturable(system, t, x, u):
        old = system.rates(t, x, u).central + system.CL / system.V * x.central
        return old - ht.const(30, "mg/h") * x.central / (ht.const(200, "mg") + x.central)

    twin.do(central=ht.equation(saturable), start="day 2 00:00")
    ```

    Doses enter the state as before. What one state loses another may gain: give both equations in one `do`.
    """

    rate: Callable[[Any, Any, Any, Any], Any]
    _known: dict[Any, frozenset[str]] = dataclasses.field(default_factory=dict, init=False, repr=False)

    def __call__(self, system, t, x, u):
        """The new rate; as a method of `rates` would, it finds the couplings of a whole in `u`."""
        return self.rate(system, t, x, with_couplings(system, x, u))

    def __str__(self):
        name = getattr(self.rate, "__name__", "<lambda>")
        return "another equation" if name == "<lambda>" else f"equation {name}"

    def causes(self, spec, state) -> frozenset[str]:
        """What the new rate of a state depends on: "x.state", "u.input", parameters.

        **Raises:** InterventionError where it is no such function, UnitError where it has another unit, with term and line.
        """
        key = (id(spec), state)  # a spec lives as long as the program
        if key not in self._known:
            try:
                inspect.signature(self.rate).bind(None, None, None, None)
            except (TypeError, ValueError):
                raise InterventionError(
                    f"do: the equation of {state!r} is a function of (system, t, x, u), as `rates` is. Write "
                    f"ht.equation(lambda system, t, x, u: 0.5 * system.rates(t, x, u).{state})."
                ) from None
            self._known[key] = dimensions.checked_equation(spec, state, self)
        return self._known[key]


def equation(rate) -> Equation:
    """Another equation for a state; see `Equation`."""
    return Equation(rate)


@dataclasses.dataclass(frozen=True)
class Then:
    """A function of what an earlier intervention made of a parameter: `change` of `was`, a number or a function of the draws."""

    was: Any
    change: Callable[[Any], Any]

    def __call__(self, old):
        return self.change(self.was(old) if callable(self.was) else np.full(np.shape(old), float(self.was)))


@dataclasses.dataclass(frozen=True)
class Stuck:
    """What a sensor reads that reads one number whatever is the case; equal ones share compiled programs."""

    number: float

    def __call__(self, reading):
        return 0.0 * reading + self.number


def in_words(value, at) -> str:
    """What a target of `do` becomes; `at`: (time, its unit or None) -> a time in words."""
    label = getattr(value, "label", None) or getattr(value, "__name__", None)
    if isinstance(value, Regimen):
        return _doses_in_words(value, at)
    if isinstance(value, Signal):
        return str(value).removeprefix("Signal: ")
    if label is None and isinstance(value, tuple) and len(value) == 2:
        return f"{value[0]}" if value[1] == "1" else f"{value[0]} {value[1]}"
    return _probed(value) if label == "<lambda>" else label or str(value)


def _doses_in_words(regimen, at) -> str:
    """Doses on one line: "160 mg at 0 h, 160 mg at 12 h"."""
    rows, said = regimen.table(), []
    for row in rows[:4]:
        amount = row["amount"] if row["amount"] == "?" else f"{row['amount']:g}"
        again = f", {row['addl'] + 1} times every {row['ii']}" if row.get("addl") else ""
        said.append(f"{amount} {row['unit']} at {at(row['time'], regimen.time)}{again}")
    return ", ".join(said) + (f" and {len(rows) - 4} more" if len(rows) > 4 else "") or "none"


def _probed(change) -> str:
    """What a function without a name does, seen on two probing doses: "20 min earlier", "0.5 times as lived"."""
    try:
        (dose,), (twice,) = (change(Regimen.bolus(amount, "1", at=0.0)).doses for amount in (1.0, 2.0))
    except Exception:  # a function that these probes do not suit is not wrong for that
        return "changed"
    if dose.amount is None or twice.amount != 2.0 * dose.amount:
        return "changed"
    said = []
    if dose.moved:
        said.append(f"{abs(dose.moved) / 60:g} min {'later' if dose.moved > 0 else 'earlier'}")
    if dose.amount != 1.0:
        said.append(f"{dose.amount:g} times as lived")
    plain = dose == dataclasses.replace(Regimen.bolus(1.0, "1", at=0.0).doses[0], amount=dose.amount, moved=dose.moved)
    return " and ".join(said) if said and plain else "changed"
