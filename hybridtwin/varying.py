"""How a parameter differs within a person: a value of its own each day or occasion, or a walk from one to the next."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpyro.distributions as dist

from hybridtwin.errors import DeclarationError
from hybridtwin.fields import nearest


class Drift(NamedTuple):
    """A random walk over days or occasions; made by `drift`."""

    group: str
    spread: Any


def drift(group: str, spread: Any) -> Drift:
    """A parameter that drifts: `ht.Model(system, varies={"SI": ht.drift("day", 0.1)})`.

    On the first day (`group` "day") or occasion ("occasion") it is the person's own; from each to the next its logarithm moves by
    a normal step of standard deviation `spread`, a number or a prior. Steps are standard normal unknowns (non-centered). A day to
    come has the last lived day's value plus a new step for each day in between.
    """
    return Drift(group, spread)


def checked(spec, varies):
    """What a model adds to the parameters that vary. **Raises:** DeclarationError."""
    for path, given in varies.items():
        field = spec.parameters.get(path)
        if field is None:
            raise DeclarationError(
                f"varies names {path!r}, which is no parameter of {spec.name}. {nearest(path, list(spec.parameters))}"
            )
        if field.initial or field.shared:
            raise DeclarationError(f"{path!r} cannot vary: it is {'of the first row' if field.initial else 'shared'}.")
        if not isinstance(given, tuple) or len(given) != 2 or given[0] not in ("day", "occasion"):
            raise DeclarationError(
                f'varies[{path!r}] is (group, spread) or ht.drift(group, spread) with group "day" or "occasion", not {given!r}. '
                f'Write varies={{{path!r}: ("day", 0.2)}}.'
            )
        if not (isinstance(given[1], dist.Distribution) or 0 < float(given[1]) < 10):
            raise DeclarationError(
                f"the spread of {path!r} is the sd of log-normal deviations, a positive number or a prior, not {given[1]!r}."
            )
    return dict(varies)


def levels(values, name: str, drifts: bool):
    """Deviations (K,) of K occasions, in spreads, at the values of one draw; a walk goes on from `name.start`, if given."""
    if not drifts:
        return jnp.atleast_1d(values[name])
    steps = jnp.atleast_1d(values[name]) if name in values else jnp.zeros(0)
    return values.get(f"{name}.start", 0.0) + jnp.concatenate([jnp.zeros(1), jnp.cumsum(steps)])
