"""The unit walk (first trace only)."""

import contextvars
from dataclasses import dataclass, field

import equinox as eqx
import jax
import numpy as np

from hybridtwin.errors import DeclarationError
from hybridtwin.units import parse

_walking = contextvars.ContextVar("hybridtwin_walking", default=False)


def const(value, unit: str):
    parse(unit)
    return float(value) if np.ndim(value) == 0 else np.asarray(value, float)


def empirical(value, unit: str, source: str = ""):
    parse(unit)
    return value


@dataclass(frozen=True)
class Report:
    outputs: dict = field(default_factory=dict)
    routes: dict = field(default_factory=dict)
    edges: tuple = ()
    unchecked: tuple = ()
    linear: bool = False


def check(system, spec=None) -> Report:
    if isinstance(system, type):
        system = system.example()
    spec = system.spec if spec is None else spec
    number = jax.ShapeDtypeStruct((), np.float32)
    base = system.with_values({path: 0.0 for path in (*spec.parameters, *spec.constants)})
    arrays, rest = eqx.partition(base, eqx.is_array)
    values = {path: number for path in (*spec.parameters, *spec.constants)}
    states = {path: number for path in spec.states}
    inputs = {path: number for path in (*spec.covariates, *spec.signals)}
    seen = {}

    def rates(arrays, values, states, inputs, t):
        body = eqx.combine(arrays, rest).with_values(values)
        x, u = spec.state(states), spec.input(inputs)
        change = body.rates(t, x, u)
        if not isinstance(change, spec.state_type):
            raise DeclarationError(f"{type(system).__name__}.rates returns {type(change).__name__}, not State. Return self.State(...)")
        seen["outputs"] = body.outputs(x, u)
        seen["routes"] = body.dosing(u)
        return spec.flatten(change)

    jax.eval_shape(rates, arrays, values, states, inputs, number)
    routes = {n: tuple(k for k in ("lag", "fraction", "rate", "duration") if getattr(r, k) is not None) for n, r in seen["routes"].items()}
    return Report(outputs={n: (o.unit, o.doc) for n, o in seen["outputs"].items()}, routes=routes)
