"""What may be declared in a system or sensor: each field with its unit, and the checks of a leaf given by the user."""

import difflib
import math
import numbers
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import numpy as np
import numpyro.distributions as dist

from hybridtwin.errors import DeclarationError, ParameterError
from hybridtwin.priors import quantile
from hybridtwin.units import factor, parse


@dataclass(frozen=True)
class StateField:
    """A state as declared. `low` is its physical lower bound (0, or None)."""

    unit: str
    doc: str = ""
    low: float | None = None
    path: str = ""


@dataclass(frozen=True)
class DoseField:
    """A dose input: amounts in `unit` enter the state `into`.

    `spread` ("5 g/min") makes a bolus record an infusion; with `portion` ("1 min") it is given in portions, see `dose`.
    """

    unit: str
    doc: str = ""
    into: str = ""
    cmt: int | None = None
    spread: str | None = None
    path: str = ""
    portion: str | None = None


@dataclass(frozen=True)
class CovariateField:
    """A covariate, piecewise constant in time; required in the record unless it has a default."""

    unit: str
    doc: str = ""
    default: float | None = None
    path: str = ""


@dataclass(frozen=True)
class SignalField:
    """An input that is a Signal over time."""

    unit: str
    doc: str = ""
    default: float = 0.0
    path: str = ""


@dataclass(frozen=True)
class CouplingField:
    """What one part of a whole gives to another, as declared by `coupled`."""

    unit: str
    doc: str = ""
    path: str = ""


@dataclass(frozen=True)
class ParameterField:
    """A parameter as declared: its default prior (None: must be given), unit, range, and how it varies."""

    prior: Any
    unit: str
    doc: str = ""
    shared: bool = False
    varies: str | None = None
    spread: Any = None
    low: float | None = None
    high: float | None = None
    source: str = ""
    initial: bool = False
    path: str = ""


@dataclass(frozen=True)
class ConstantField:
    """A number with a unit, never inferred."""

    value: float
    unit: str
    doc: str = ""
    source: str = ""
    low: float | None = None
    high: float | None = None
    path: str = ""


@dataclass(frozen=True)
class OutputField:
    """A derived output as declared by `output`."""

    unit: str
    doc: str = ""
    path: str = ""


def state(unit: str, doc: str = "", *, positive: bool = True) -> Any:
    """Declare a state in `class State`; a positive one has the physical lower bound 0."""
    parse(unit)
    return StateField(unit, doc, 0.0 if positive else None)


def dose(
    unit: str, doc: str = "", *, into: str, cmt: int | None = None, spread: str | None = None, portion: str | None = None
) -> Any:
    """Declare a dose in `class Input`: into which state, NONMEM's CMT, and how fast a bolus record really enters.

    `portion` ("1 min"): doses are given in portions of this length, each evenly and each no more than `spread` allows
    (without `spread` all in one); what comes while another dose is being given waits for its turn. A system with such
    doses may say in `portion(self, dose, x, u, amount, first)` what else the beginning of a portion changes.
    """
    parse(unit)
    return DoseField(unit, doc, into, cmt, spread, portion=portion)


def covariate(unit: str, doc: str = "", *, default: float | None = None) -> Any:
    """Declare a covariate in `class Input` (`u.weight`), piecewise constant in time."""
    parse(unit)
    return CovariateField(unit, doc, default)


def signal(unit: str, doc: str = "", *, default: float = 0.0) -> Any:
    """Declare an input over time in `class Input` (`u.basal`)."""
    parse(unit)
    return SignalField(unit, doc, default)


def coupled(unit: str, doc: str = "") -> Any:
    """Declare in `class Input` what one part of a whole gives to another; `couplings(x, u)` says how it is made.

    `rates`, `outputs` and the parts read it as `u.name`, like any input: a part with a signal of that name is driven by it.
    """
    parse(unit)
    return CouplingField(unit, doc)


def parameter(prior: Any, unit: str, doc: str = "", **declared: Any) -> Any:
    """Declare a parameter by its prior.

    `prior`: a scalar numpyro distribution, or a `lambda` returning one (called when an instance is built: for those
    whose construction starts a JAX backend). Keywords: `shared` (once for a cohort), `varies` ("day", "occasion", ...)
    with `spread` (the log-normal deviations' sd: a number or a prior), `low`, `high`, `source`, `initial` (describes
    only the state at the first row).
    """
    parse(unit)
    if declared.get("varies") is not None and declared.get("spread") is None:
        raise DeclarationError(
            f"a parameter that varies by {declared['varies']} needs spread=, the sd of its log-normal deviations"
        )
    return ParameterField(prior, unit, doc, **declared)


def constant(value: float, unit: str, doc: str = "", source: str = "") -> Any:
    """Declare a number with a unit that is never inferred; a keyword of the constructor overrides it."""
    parse(unit)
    return ConstantField(float(value), unit, doc, source)


class Output(eqx.Module):
    """What `outputs` returns under each name: a value (any shape under vmap) in `unit`."""

    value: Any
    unit: str = eqx.field(static=True)
    doc: str = eqx.field(static=True, default="")


def output(value: Any, unit: str, doc: str = "") -> Output:
    """A derived output with its unit."""
    parse(unit)
    return Output(value, unit, doc)


class Route(eqx.Module):
    """How doses of one input enter: lag [time], fraction [1], modelled rate [dose unit/time] or duration [time]."""

    lag: Any = None
    fraction: Any = None
    rate: Any = None
    duration: Any = None


def route(*, lag: Any = None, fraction: Any = None, rate: Any = None, duration: Any = None) -> Route:
    """How doses of one input enter the body; values may be personal. Not both `rate` and `duration`."""
    if rate is not None and duration is not None:
        raise DeclarationError("a route has both a rate and a duration. Give one: the other follows from the amount")
    return Route(lag, fraction, rate, duration)


@dataclass(frozen=True)
class SwitchField:
    """A switch as declared: the states it sets, and how often it may act, per `time` of its system."""

    name: str
    sets: tuple[str, ...]
    at_most: float


class Switch(eqx.Module):
    """What `switches` returns under each name, see `switch`."""

    passes: Any
    sets: dict[str, Any]
    only: Any
    at_most: str = eqx.field(static=True)


def switch(passes: Any, sets: dict[str, Any], *, only: Any = True, at_most: str = "8/d") -> Switch:
    """A change of state that the body makes by itself, at the moment at which `passes` rises to 0.

    **Arguments:** `passes`: what is watched, less its level (any unit); `sets`: state -> its value from then on (others stay);
    `only`: the condition under which it acts, which what it sets must end, else it acts again at once; `at_most`: how
    often it may act, on average over a simulation ("8/d"). A draw that would need more is failed, counted and explained.
    """
    return Switch(passes, dict(sets), only, at_most)


def nearest(name: str, known, label: str = "Known") -> str:
    """The end of an error message: the nearest of the known names, or all of them."""
    known = {k.lower(): k for k in known}
    close = difflib.get_close_matches(name.lower(), known, 1, 0.5)
    return f"Did you mean {known[close[0]]!r}?" if close else f"{label}: {', '.join(known.values()) or 'none'}"


def checked_leaf(owner: str, declared, value):
    """A leaf as given by the user, checked: a prior, or a number inside the declared range and in the declared unit."""
    where = f"{owner}.{declared.path}"
    if callable(value) and not isinstance(value, dist.Distribution):
        value = value()
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[1], str):
        value = value[0] * factor(value[1], declared.unit)
    if isinstance(value, dist.Distribution):
        if value.batch_shape or value.event_shape:
            raise ParameterError(
                f"the prior of {where} has shape {value.batch_shape + value.event_shape}. Give a scalar distribution"
            )
        _check_median(where, declared, value)
        return value
    if isinstance(value, (np.ndarray, np.generic)) and np.ndim(value) == 0:
        value = value.item()
    if isinstance(value, jax.Array) or (not isinstance(value, numbers.Real) and hasattr(value, "dtype")):
        return value
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise ParameterError(f"{where} is {value!r}. Give a number in {declared.unit} or a numpyro distribution")
    value = float(value)
    low, high = range_of(declared)
    if not low <= value <= high or math.isinf(value):
        said = f"{where} = {value:g} {declared.unit} lies outside its range {low} to {high}"
        raise ParameterError(f"{said}. Give a value inside it")
    return value


def _check_median(where: str, declared, prior) -> None:
    """A prior whose median its declared range excludes is a slip of one of the two."""
    if declared.low is None and declared.high is None:
        return
    try:
        (low, high), middle = range_of(declared), quantile(prior, 0.5)
    except TypeError:  # a prior whose own numbers are traced
        return
    if middle is not None and not low <= middle <= high:
        raise ParameterError(
            f"the prior of {where} has its median {middle:g} {declared.unit} outside the declared range {low:g} to {high:g}. "
            "Give a prior inside it, or declare another low= or high="
        )


def range_of(declared) -> tuple[float, float]:
    """The values that a declared parameter or constant may have, (low, high), both included."""
    low, high = declared.low, declared.high
    if low is None and isinstance(
        getattr(declared, "prior", None), (dist.LogNormal, dist.HalfNormal, dist.Gamma, dist.Exponential)
    ):
        low = 0.0  # a positive prior says that a negative number is a slip
    return -math.inf if low is None else low, math.inf if high is None else high


def check_range(name: str, declared, value) -> None:
    """**Raises:** ParameterError where `do` gives a parameter a number, or one draw of it (n,), that it cannot have."""
    low, high = range_of(declared)
    value = np.asarray(value, float)
    slack = [1e-3 * abs(edge) if math.isfinite(edge) else 0.0 for edge in (low, high)]  # derivatives look a little beyond
    bad = ~((value >= low - slack[0]) & (value <= high + slack[1]) & np.isfinite(value))
    if bad.any():
        first = value[bad].ravel()[0] if value.ndim else value
        many = f" in {bad.sum()} of {value.size} draws" if value.size > 1 else ""
        raise ParameterError(
            f"do: {name} = {first:g} {declared.unit}{many} lies outside its range {low:g} to {high:g}. Give a value inside it, "
            f"or keep a function of the old there, as in lambda old: np.clip(1.2 * old, {low:g}, {high:g})."
        )


class Fixed(eqx.Module):
    """A function inside a learned part, such as the activation of a network, as structure: no leaf that a program is given."""

    function: Callable = eqx.field(static=True)

    def __call__(self, *args, **kwargs):
        return self.function(*args, **kwargs)


def learned(part):
    """A part without declared fields (an `eqx.nn.MLP`) with its functions as structure, so that arrays are all of its leaves."""
    if not isinstance(part, eqx.Module) or hasattr(type(part), "_declared"):
        return part
    return jax.tree.map(lambda leaf: Fixed(leaf) if callable(leaf) and not eqx.is_array(leaf) else leaf, part)
