"""Rest: the state in which nothing moves, found from where a body begins, and who has none.

A system that writes `steady` says itself where it rests. One that does not is settled: linearly implicit Euler steps whose
length grows until nothing moves. They follow the body from its `initial` state, so that of several rests the one it would
come to is found, and what is conserved (blood, a total amount) stays what `initial` says. Long steps are Newton's.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jax.flatten_util import ravel_pytree

from hybridtwin.errors import DeclarationError

REMEDY = 'Leave start= out, or say "free": it then begins as its `initial` says'

_STEPS, _GROWTH = 120, 1.6  # from a tenth of the fastest time constant to 1e23 of them
_STILL = 1e-11  # rates over the sum of what they are made of, at which a state is said to rest
_GONE = 1e-13  # share of its largest value at which a state that dies out is 0
_LONG = 1e10  # step, in fastest time constants, that carries the derivative: off by the slowest rate over the fastest / _LONG


def _matrix(rates, h, x):
    slope = jax.jacfwd(rates)(x)
    return slope, jnp.eye(x.shape[0], dtype=x.dtype) - h * slope


def _fastest(slope):
    return jnp.maximum(jnp.max(jnp.sum(jnp.abs(slope), axis=1)), 1e-30)


def settled(rates, initial, parameters, lows):
    """The rest that a body comes to from its initial state; NaN where it comes to none.

    **Arguments:** `rates(parameters, x)` -> (n,), the same at all times; `initial(parameters)` -> (n,); `parameters`: any
    tree of arrays; `lows` (n,): physical lower bounds, -inf for none.

    Derivatives are those of the implicit function, in forward and reverse mode, and cost one linear solve: with
    dx = (I - h J)^-1 (dx_initial + h f_parameters) and h long, -J^-1 f_parameters where J can be inverted, and along
    what is conserved the change of the initial state.
    """
    fixed = jax.tree.map(lax.stop_gradient, parameters)

    def f(x):
        return rates(fixed, x)

    begin = lax.stop_gradient(initial(fixed))
    pace = 0.1 / _fastest(jax.jacfwd(f)(begin))

    def going(carry):
        _, _, still, count = carry
        return ~still & (count < _STEPS)

    def step(carry):
        x, peak, _, count = carry
        h = pace * _GROWTH ** count.astype(x.dtype)
        _, matrix = _matrix(f, h, x)
        x = x + jnp.linalg.solve(matrix, h * f(x))
        peak = jnp.maximum(peak, jnp.abs(x))
        x = jnp.where(jnp.abs(x) <= _GONE * peak, 0.0, x)
        parts = jnp.abs(jax.jacfwd(f)(x)) @ jnp.abs(x)
        return x, peak, jnp.all(jnp.abs(f(x)) <= _STILL * parts), count + 1

    x, peak, still, _ = lax.while_loop(going, step, (begin, jnp.abs(begin), jnp.asarray(False), jnp.asarray(0)))
    slope = jax.jacfwd(f)(x)
    polished = x + jnp.linalg.solve(jnp.eye(x.shape[0]) - 1e6 / _fastest(slope) * slope, 1e6 / _fastest(slope) * f(x))
    possible = jnp.all(polished >= lows - 1e-9 * peak)
    found = lax.stop_gradient(jnp.where(still & possible, polished, jnp.nan))
    h = _LONG / _fastest(slope)
    moved = initial(parameters) - begin + h * rates(parameters, found)
    change = jnp.linalg.solve(lax.stop_gradient(jnp.eye(x.shape[0]) - h * slope), moved)
    return found + (change - lax.stop_gradient(change))


def rest_of(system, u):
    """The rest of a system from its `initial` state under the inputs `u`, as a State; see `settled`."""
    spec = system.spec
    arrays = jax.tree.map(lambda leaf: jnp.asarray(leaf, float), (system, u))
    begin, unravel = ravel_pytree(jax.tree.map(lambda leaf: jnp.asarray(leaf, float), system.initial(u)))
    lows = [-jnp.inf if field.low is None else field.low for field in spec.states.values()]

    def rates(both, x):
        body, here = both
        return ravel_pytree(body.rates(jnp.zeros((), x.dtype), unravel(x), here))[0]

    def initial(both):
        body, here = both
        return ravel_pytree(jax.tree.map(lambda leaf: jnp.asarray(leaf, float), body.initial(here)))[0]

    return unravel(settled(rates, initial, arrays, jnp.array(lows, begin.dtype)))


def checked_start(start: str, spec) -> str:
    """`start`, "free" or "steady", where the system can begin so.

    **Raises:** DeclarationError for another word, and for "steady" where the system has no rest.
    """
    if start not in ("free", "steady"):
        raise DeclarationError(
            f'start is "free" or "steady", not {start!r}. "steady" begins at rest under the first inputs.'
        )
    if start == "steady" and spec.restless is not None:
        raise DeclarationError(f"{spec.name} has no rest: {spec.restless}. {REMEDY}")
    return start
