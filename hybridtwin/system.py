"""Declare a physiology: named states, inputs and parameters with units and priors, and the rates of change.

A `System` is a final `equinox.Module`. *The prior is the leaf*: `OralOneCompartment()` is a tree of distributions,
`OralOneCompartment(V=32.0)` fixes one, `OralOneCompartment(V=dist.LogNormal(3.4, 0.2))` replaces one, and a draw is the
same tree of numbers (`with_values`). Units are checked when the class is declared (dimensions.py).
"""

import dataclasses
import sys
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import equinox as eqx
import numpyro.distributions as dist
from jaxtyping import Array, Float

from hybridtwin import dimensions, drawing
from hybridtwin.dimensions import const, empirical
from hybridtwin.errors import DeclarationError, ParameterError, UnitError
from hybridtwin.fields import (
    ConstantField,
    CouplingField,
    CovariateField,
    DoseField,
    Output,
    OutputField,
    ParameterField,
    Route,
    SignalField,
    StateField,
    Switch,
    SwitchField,
    checked_leaf,
    constant,
    coupled,
    covariate,
    dose,
    learned,
    nearest,
    output,
    parameter,
    route,
    signal,
    state,
    switch,
)
from hybridtwin.priors import halfnormal, logitnormal, lognormal, median, normal, typical
from hybridtwin.rest import rest_of
from hybridtwin.units import factor, parse
from hybridtwin.wholes import READS, couplings_of, given

__all__ = [
    "Input", "Output", "Parametric", "Route", "Scalar", "Spec", "State", "Switch", "System", "const", "constant",
    "coupled", "covariate", "dose", "empirical", "halfnormal", "logitnormal", "lognormal", "median", "normal",
    "output", "parameter", "route", "signal", "state", "switch", "typical",
]  # fmt: skip

Scalar: TypeAlias = Float[Array, ""]


def _named(cls) -> str:
    return cls.__qualname__.rpartition("<locals>.")[2]


def _missing(cls, name: str) -> AttributeError:
    return AttributeError(f"{_named(cls)} has no {name!r}. {nearest(name, cls._declared)}")


# ---------------------------------------------------------------------------------------------- State and Input


class _StructMeta(type(eqx.Module)):
    """Turns declared fields into required scalar fields; doses are declared but are no values of `u`."""

    def __new__(mcs, name, bases, namespace, **kwargs):
        annotations = namespace.setdefault("__annotations__", {})
        allowed = next((getattr(b, "_kinds", ()) for b in bases if isinstance(b, _StructMeta)), ())
        declared = {}
        for key, value in namespace.items():
            if isinstance(value, (StateField, DoseField, CovariateField, SignalField, CouplingField)):
                annotations.setdefault(key, Scalar)
        for key, annotation in list(annotations.items()):
            value = namespace.get(key)
            if isinstance(annotation, str):
                annotation = _resolve(annotation, namespace["__module__"])
            if isinstance(value, allowed):
                declared[key] = dataclasses.replace(value, path=key)
                del namespace[key]
            elif value is None and isinstance(annotation, _StructMeta):
                declared[key] = annotation
            elif allowed:
                raise DeclarationError(
                    f"{namespace.get('__qualname__', name)}.{key} does not belong here. Declare it with "
                    + ("ht.state(...)" if StateField in allowed else "ht.dose, ht.covariate, ht.signal or ht.coupled")
                )
            if isinstance(value, DoseField):
                del annotations[key]
        cls = super().__new__(mcs, name, bases, namespace, **kwargs)
        cls._declared = declared
        return cls

    def __call__(cls, *args, **kwargs):
        names = [f.name for f in dataclasses.fields(cls)]
        wrong = [key for key in kwargs if key not in names]
        lacking = [key for key in names[len(args) :] if key not in kwargs]
        if wrong:
            raise DeclarationError(f"{_named(cls)} has no field {wrong[0]!r}. {nearest(wrong[0], names)}")
        if lacking:
            raise DeclarationError(
                f"{_named(cls)} lacks {', '.join(map(repr, lacking))}. Give a value for each; 0.0 for none"
            )
        return super().__call__(*args, **kwargs)


def _resolve(annotation: str, module: str):
    try:
        return eval(annotation, dict(vars(sys.modules[module])))  # noqa: S307 as typing.get_type_hints does
    except Exception:  # an annotation that cannot be read is no nested State
        return None


class State(eqx.Module, metaclass=_StructMeta):
    """Base of `class State` inside a System: one scalar leaf per `ht.state`, or a nested State of a subsystem."""

    _kinds: ClassVar = (StateField,)

    def __getattr__(self, name):
        raise _missing(type(self), name)


class Input(eqx.Module, metaclass=_StructMeta):
    """Base of `class Input` inside a System: covariates, signals and couplings are read as `u.name`; doses are not visible."""

    _kinds: ClassVar = (DoseField, CovariateField, SignalField, CouplingField)
    _declared: ClassVar[dict[str, Any]]

    def __getattr__(self, name):
        if isinstance(type(self)._declared.get(name), DoseField):
            raise AttributeError(
                f"{name!r} is a dose: it enters its state by itself. Declare ht.signal to read an input in rates"
            )
        raise _missing(type(self), name)


def _leaves_of(struct_type, kind, prefix="") -> Iterator[tuple[str, Any]]:
    for name, declared in struct_type._declared.items():
        if isinstance(declared, _StructMeta):
            yield from _leaves_of(declared, kind, f"{prefix}{name}.")
        elif isinstance(declared, kind):
            path = f"{prefix}{name}"
            moved = {"into": prefix + declared.into} if isinstance(declared, DoseField) else {}
            yield path, dataclasses.replace(declared, path=path, **moved)


def _pack(struct_type, values: Mapping[str, Any], prefix=""):
    return struct_type(
        **{
            name: _pack(declared, values, f"{prefix}{name}.")
            if isinstance(declared, _StructMeta)
            else values[prefix + name]
            for name, declared in struct_type._declared.items()
            if not isinstance(declared, DoseField)
        }
    )


# ---------------------------------------------------------------------------------------------- modules with parameters


def _with_default(value) -> Any:
    return eqx.field(kw_only=True) if value is None else eqx.field(kw_only=True, default_factory=lambda: value)


class _ParametricMeta(type(eqx.Module)):
    """Collects parameters and constants before Equinox makes the dataclass; each prior becomes a default leaf."""

    _own_init: bool
    _declared: dict[str, Any]

    def __new__(mcs, name, bases, namespace, **kwargs):
        annotations = namespace.setdefault("__annotations__", {})
        declared = {}
        for base in bases:
            declared |= getattr(base, "_declared", {})
        for key, value in list(namespace.items()):
            if isinstance(value, (ParameterField, ConstantField)):
                annotations.setdefault(key, Scalar)
                declared[key] = dataclasses.replace(value, path=key)
                default = value.prior if isinstance(value, ParameterField) else value.value
                namespace[key] = _with_default(default)
            elif isinstance(type(value), _ParametricMeta):
                annotations.setdefault(key, type(value))
                namespace[key] = _with_default(value)
        own = [c for base in bases for c in base.__mro__ if c.__module__ == __name__]
        reserved = {key for c in own for key in (*vars(c), *c.__annotations__)}
        for key in sorted(reserved & annotations.keys()):
            if key in declared:
                raise DeclarationError(f"{name}.{key}: {key!r} is a word of the library. Rename the field")
            del annotations[key]  # `time: str = "h"` is still no field
        for key, annotation in annotations.items():  # what is neither prior nor array is structure
            value = namespace.get(key)
            plain = annotation in (int, float, str, bool, "int", "float", "str", "bool") or isinstance(value, int | float | str)
            if plain and key not in declared and not isinstance(value, dataclasses.Field):
                namespace[key] = eqx.field(static=True, default=namespace.get(key, dataclasses.MISSING))
        own_init = "__init__" in namespace or any(getattr(base, "_own_init", False) for base in bases)
        cls = super().__new__(mcs, name, bases, namespace, **kwargs)
        cls._declared, cls._own_init = declared, own_init
        return cls

    def __call__(cls, *args, **kwargs):
        names = [f.name for f in dataclasses.fields(cls) if f.init]
        if not cls._own_init:
            for key in kwargs:
                if key not in names:
                    raise ParameterError(f"{cls.__name__} has no parameter {key!r}. {nearest(key, names)}")
            required = [f.name for f in dataclasses.fields(cls) if f.init and not _has_default(f)]
            positional = [f.name for f in dataclasses.fields(cls) if f.init and not f.kw_only][: len(args)]
            if lacking := [name for name in required if name not in kwargs and name not in positional]:
                raise ParameterError(f"{cls.__name__} needs {', '.join(lacking)}. Give it in the constructor")
        return super().__call__(*args, **kwargs)


def _has_default(f: dataclasses.Field) -> bool:
    return f.default is not dataclasses.MISSING or f.default_factory is not dataclasses.MISSING


class Parametric(eqx.Module, metaclass=_ParametricMeta):
    """A module whose fields may be priors: systems and sensors. Its parameters have paths ("ka", "gut.ka")."""

    _declared: ClassVar[dict[str, Any]]

    def __getattr__(self, name):
        raise _missing(type(self), name)

    def __check_init__(self):
        for f in dataclasses.fields(self):
            own, value = type(self)._declared.get(f.name), getattr(self, f.name)
            object.__setattr__(self, f.name, learned(value) if own is None else checked_leaf(type(self).__name__, own, value))

    def fields(self, prefix: str = "") -> Iterator[tuple[str, ParameterField | ConstantField, Any]]:
        """(path, declaration, leaf) of every parameter and constant, those of parts namespaced."""
        for f in dataclasses.fields(self):
            value, declared = getattr(self, f.name), type(self)._declared.get(f.name)
            if declared is not None:
                path = prefix + f.name
                yield path, dataclasses.replace(declared, path=path), value
            elif isinstance(value, Parametric):
                yield from value.fields(f"{prefix}{f.name}.")

    def priors(self) -> dict[str, dist.Distribution]:
        """Path to prior, of the leaves that are priors."""
        return {path: value for path, _, value in self.fields() if isinstance(value, dist.Distribution)}

    def values(self) -> dict[str, Any]:
        """Path to number, of the leaves that are fixed (constants among them)."""
        return {path: value for path, _, value in self.fields() if not isinstance(value, dist.Distribution)}

    def with_values(self, values: Mapping[str, Any]):
        """The same module with the leaves at these paths replaced; for jit, vmap and grad, so unchecked."""
        own, parts = {}, {}
        for path, value in values.items():
            head, _, tail = path.partition(".")
            if tail and isinstance(getattr(self, head, None), Parametric):
                parts.setdefault(head, {})[tail] = value
            elif head in type(self)._declared and not tail:
                own[head] = value
            else:
                raise ParameterError(
                    f"{type(self).__name__} has no parameter {path!r}. "
                    f"{nearest(path, [p for p, _, _ in self.fields()])}"
                )
        own |= {head: getattr(self, head).with_values(tail) for head, tail in parts.items()}
        copy = object.__new__(type(self))  # not the constructor: it checks ranges, which tracers do not have
        for f in dataclasses.fields(self):
            object.__setattr__(copy, f.name, own.get(f.name, getattr(self, f.name)))
        return copy

    def typical(self):
        """The same module with every prior replaced by its median."""
        return self.with_values({path: median(prior) for path, prior in self.priors().items()})


# ---------------------------------------------------------------------------------------------- System


@dataclass(frozen=True)
class Spec:
    """What a system declares, by path. Units are text; `time` is the unit of time of its rates.

    `parameters[path].prior` is the class's default (it may be a lambda); an instance's own are
    `System.priors()`.
    """

    name: str
    time: str
    state_type: type
    input_type: type
    states: dict[str, StateField]
    doses: dict[str, DoseField]
    covariates: dict[str, CovariateField]
    signals: dict[str, SignalField]
    parameters: dict[str, ParameterField]
    constants: dict[str, ConstantField]
    outputs: dict[str, OutputField] = dataclasses.field(default_factory=dict)
    couplings: dict[str, CouplingField] = dataclasses.field(default_factory=dict)
    edges: tuple[tuple[str, str], ...] = ()  # what depends on what; through a coupling as if it were written out
    drawn: tuple[tuple[str, str], ...] = ()  # the same with couplings ("c.name") between
    starts: frozenset[tuple[str, str]] = frozenset()  # edges by which states begin
    flows: frozenset[tuple[str, str]] = frozenset()  # all others
    unchecked: tuple[str, ...] = ()
    linear: bool = False  # rates affine in the states, and the same at all times
    unforced: bool = False  # and known to be 0 where all states are
    timed: bool = False  # rates that depend on the time itself
    routes: tuple[str, ...] = ()  # doses in declared order
    routed: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)  # dose -> what its route declares
    switches: tuple[SwitchField, ...] = ()  # in declared order
    noise: tuple[tuple[str, bool], ...] = ()  # states with process noise: (path, does its size depend on the state itself?)
    defines: frozenset[str] = frozenset()  # which optional methods the author wrote
    horizon: float | None = None  # declared validity, in `time`
    grid: float | None = None  # default spacing of outputs, in `time`
    step: float | None = None  # of a difference equation, in `time`
    restless: str | None = None  # why there is no rest
    conserved: dict[str, str] = dataclasses.field(default_factory=dict)  # what only comes and goes: name -> unit
    forgotten: frozenset[str] = frozenset()  # parameters of the first row on which the rest does not depend
    example: Any = dataclasses.field(default=None, repr=False, compare=False)  # a system of this kind, to try equations on

    @property
    def moving(self) -> tuple[str, ...]:
        """Doses whose time or rate depends on a parameter (lag, rate, duration)."""
        return tuple(n for n in self.doses if set(self.routed.get(n, ())) - {"fraction"})

    def state(self, values: Mapping[str, Any]):
        """The State with these values by path."""
        return _pack(self.state_type, values)

    def input(self, values: Mapping[str, Any]):
        """The Input with these values by path; declared defaults where absent."""
        defaults = {p: f.default for p, f in {**self.covariates, **self.signals}.items() if f.default is not None}
        return _pack(self.input_type, {**dict.fromkeys(self.couplings), **defaults, **values})

    def flatten(self, x) -> dict[str, Any]:
        """The values of a State (or Input) by path, in the order of declaration."""
        kind = (StateField,) if isinstance(x, self.state_type) else (CovariateField, SignalField)
        found = {}
        for path, _ in _leaves_of(type(x), kind):
            value = x
            for part in path.split("."):
                value = getattr(value, part)
            found[path] = value
        return found

    def spread(self, name: str) -> float | None:
        """The rate of a bolus record of this dose, in its unit per `time`; None when it enters at once."""
        text = self.doses[name].spread
        return None if text is None else factor(text, parse(self.doses[name].unit) / parse(self.time))

    def portion(self, name: str) -> float | None:
        """How long a portion of this dose takes, in `time`; None when it is not given in portions."""
        text = self.doses[name].portion
        return None if text is None else factor(text, self.time)


class _SystemMeta(_ParametricMeta):
    def __new__(mcs, name, bases, namespace, **kwargs):
        concrete = [b.__name__ for b in bases if isinstance(b, _SystemMeta) and b.__name__ != "System"]
        if concrete:
            raise DeclarationError(
                f"{name} extends {concrete[0]}, which is final. Hold it as a field (a subsystem) instead"
            )
        if couplings_of(namespace.get("Input")):
            namespace |= {key: given(namespace[key], at) for key, at in READS.items() if key in namespace}
        cls = super().__new__(mcs, name, bases, namespace, **kwargs)
        if any(isinstance(b, _SystemMeta) for b in bases):
            _check_declared(cls, namespace)
            if all(map(_has_default, dataclasses.fields(cls))):
                _ = cls().spec
        return cls

    @property
    def spec(cls) -> Spec:
        """What the class declares; needs a default for every field (else ask an instance)."""
        return cls().spec

    def example(cls):
        return cls()


def _check_declared(cls, namespace):
    name = cls.__name__
    if not isinstance(namespace.get("time"), str) or parse(cls.time).dims != parse("s").dims:
        raise DeclarationError(f'{name} does not say its unit of time. Write time = "h" (or "min", "d") in the class')
    if not (isinstance(namespace.get("State"), type) and issubclass(cls.State, State)):
        raise DeclarationError(f"{name} has no states. Write a class State(ht.State) inside it")
    if not issubclass(cls.Input, Input):
        raise DeclarationError(f"{name}.Input is no input. Write class Input(ht.Input) inside it")
    if "rates" not in namespace:
        raise DeclarationError(f"{name} has no rates. Write def rates(self, t, x, u) returning self.State(...)")
    states = dict(_leaves_of(cls.State, StateField))
    compartments = {}
    for path, declared in _leaves_of(cls.Input, DoseField):
        if declared.into not in states:
            raise DeclarationError(
                f"{name}: the dose {path!r} goes into {declared.into!r}, which is no state. "
                f"{nearest(declared.into, states)}"
            )
        if declared.cmt is not None and compartments.setdefault(declared.cmt, path) != path:
            raise DeclarationError(
                f"{name}: doses {compartments[declared.cmt]!r} and {path!r} both have cmt={declared.cmt}. "
                "Give each its own"
            )
        unit, into = parse(declared.unit), parse(states[declared.into].unit)
        if not unit.same_dimension(into):
            raise UnitError(
                f"{name}: the dose {path!r} [{unit.text}] cannot enter {declared.into!r} [{into.text}]. "
                f"Declare both in one dimension"
            )
        if declared.spread is not None and not parse(declared.spread).same_dimension(unit / parse(cls.time)):
            raise UnitError(
                f'{name}: spread="{declared.spread}" of {path!r} is no rate of it. Write it like "5 {unit.text}/min"'
            )
        if declared.portion is not None and not parse(declared.portion).same_dimension(parse(cls.time)):
            raise UnitError(f'{name}: portion="{declared.portion}" of {path!r} is no time. Write it like "1 min"')


_SPECS: dict[Any, Spec] = {}


def _structure(module) -> tuple:
    """What a spec depends on: the classes of a system and its parts, and its static fields; never its leaves."""
    parts = []
    for f in dataclasses.fields(module):
        value = getattr(module, f.name)
        if isinstance(value, Parametric):
            parts.append(_structure(value))
        elif f.metadata.get("static", False):
            parts.append(value if isinstance(value, Hashable) else repr(value))
    return type(module), tuple(parts)


class System(Parametric, metaclass=_SystemMeta):
    """Base of every physiology: see the module's docstring and DESIGN section 1.

    The author writes `time`, `class State(ht.State)`, optionally `class Input(ht.Input)`, parameters, `rates` and
    `outputs`; optionally `initial`, `steady`, `couplings`, `conserved`, `dosing`, `portion`, `switches` and `diffusion`.
    """

    time: ClassVar[str]
    linear: ClassVar[bool | None] = None
    horizon: ClassVar[str | None] = None
    grid: ClassVar[str | None] = None
    step: ClassVar[str | None] = None  # a difference equation: what `rates` says holds for a whole step of this length
    restless: ClassVar[str | None] = None  # why it has no rest, such as "a rhythm of its own"; then `start="steady"` is refused
    unconserved: ClassVar[str | None] = None  # why it declares no law of conservation, such as "effects, not amounts"
    protocol: ClassVar[Any] = None  # a typical day, and what was published: see physiology/reference.py
    references: ClassVar[tuple] = ()
    State: ClassVar[Any] = State  # the author's own subclasses
    Input: ClassVar[Any] = Input

    def rates(self, t, x, u):
        """dx/dt as a State, in state unit per `time`."""
        raise NotImplementedError

    def diffusion(self, t, x, u):
        """Size of the process noise of each state as a State, in state unit per square root of `time`; 0.0 for none.

        dx = rates dt + diffusion dW in the sense of Ito, with one independent Wiener process for each state.
        """
        return self.spec.state(dict.fromkeys(self.spec.states, 0.0))

    def outputs(self, x, u) -> dict[str, Output]:
        """Derived outputs by name."""
        return {}

    def initial(self, u):
        """The state before the first row; zero unless the author says otherwise."""
        return self.spec.state(dict.fromkeys(self.spec.states, 0.0))

    def steady(self, u):
        """The state at rest under the inputs `u`: found by going there from `initial` unless the author writes it down."""
        spec = self.spec
        return self.initial(u) if spec.unforced and "initial" not in spec.defines else rest_of(self, u)

    def couplings(self, x, u) -> dict[str, Any]:
        """What one part of a whole gives to another: the value of every `coupled` of `Input`, by name."""
        return {}

    def conserved(self, x, u) -> dict[str, tuple[Any, Any]]:
        """What comes and goes but is never made: name -> (amount in the states, what it gains from outside per `time`)."""
        return {}

    def dosing(self, u) -> dict[str, Route]:
        """Routes of the doses that have a lag, a fraction, a modelled rate or duration."""
        return {}

    def portion(self, dose, x, u, amount, first):
        """The state when a portion of `dose` (declared with `portion=`) begins; the state `x` unless the author says otherwise.

        `amount`: of the portion, in the dose's unit; `first`: 1 where no portion of this dose ran right before, else 0.
        What flows in is not here: it enters its state by itself while the portion lasts.
        """
        return x

    def switches(self, x, u) -> dict[str, Switch]:
        """Changes of state that the body makes by itself when something passes a level, by name: see `ht.switch`."""
        return {}

    @property
    def spec(self) -> Spec:
        """What this system declares; computed (and units checked) once per class and structure."""
        key = _structure(self)
        if key not in _SPECS:
            _SPECS[key] = _spec(self)
        return _SPECS[key]

    def mermaid(self, parameters: bool = False) -> str:
        """The graph of inputs, states and outputs as Mermaid text."""
        return drawing.mermaid(self.spec, parameters)

    def __repr__(self):
        return drawing.text(self)

    def _repr_html_(self):
        return drawing.html(self)


_OPTIONAL = ("initial", "steady", "couplings", "conserved", "dosing", "portion", "switches", "diffusion")


def _spec(system: System) -> Spec:
    cls = type(system)
    declared = {path: f for path, f, _ in system.fields()}
    span: Callable = lambda text: None if text is None else factor(text, cls.time)
    spec = Spec(
        name=cls.__name__,
        time=cls.time,
        state_type=cls.State,
        input_type=cls.Input,
        states=dict(_leaves_of(cls.State, StateField)),
        doses=dict(_leaves_of(cls.Input, DoseField)),
        covariates=dict(_leaves_of(cls.Input, CovariateField)),
        signals=dict(_leaves_of(cls.Input, SignalField)),
        couplings={name: f for name, f in _leaves_of(cls.Input, CouplingField) if "." not in name},
        parameters={p: f for p, f in declared.items() if isinstance(f, ParameterField)},
        constants={p: f for p, f in declared.items() if isinstance(f, ConstantField)},
        defines=frozenset(n for n in _OPTIONAL if n in vars(cls)),
        horizon=span(cls.horizon),
        grid=span(cls.grid),
        step=span(cls.step),
    )
    seen: dict[str, str] = {}
    for kind in ("states", "doses", "covariates", "signals", "couplings", "parameters", "constants"):
        for path in getattr(spec, kind):
            if seen.setdefault(path, kind) != kind:  # `do` could not tell which is meant
                raise DeclarationError(f"{cls.__name__}: {path!r} is among the {seen[path]} and the {kind}. Rename one")
    report = dimensions.check(system, spec)
    if cls.linear and not report.linear and not report.unchecked:
        raise DeclarationError(
            f"{cls.__name__} says linear = True, but its rates are not affine in its states at all times. Leave it out"
        )
    initial = frozenset(p for p, f in spec.parameters.items() if f.initial)
    return dataclasses.replace(
        spec,
        restless=_restless(system, spec, report.timed),
        forgotten=initial - report.resting if "steady" in spec.defines else frozenset(),
        outputs={n: OutputField(unit, doc, n) for n, (unit, doc) in report.outputs.items()},
        edges=report.graph,
        drawn=report.drawn,
        starts=report.starts,
        flows=report.flows,
        conserved=report.conserved,
        unchecked=report.unchecked,
        linear=cls.step is None and (report.linear if cls.linear is None else cls.linear),
        unforced=report.unforced,
        timed=report.timed,
        routes=tuple(spec.doses),
        switches=report.switches,
        noise=report.noise,
        routed=dict(report.routes),
        example=system,
    )


def _restless(system, spec, timed: bool) -> str | None:
    """Why a system has no rest: it says so, a part of it says so, or its rates change with the time."""
    cls = type(system)
    if cls.restless is not None or "steady" in spec.defines:
        return cls.restless
    parts = {f.name: getattr(system, f.name) for f in dataclasses.fields(system)}
    reasons = {name: value.spec.restless for name, value in parts.items() if isinstance(value, System)}
    told = [f"{why} ({name})" for name, why in reasons.items() if why]
    return told[0] if told else "its rates change with the time" if timed else None
