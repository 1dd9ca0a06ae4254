"""Hamiltonian transitions on coordinates that are nearly standard normal: the normal part of the motion is exact.

Under log density -y'y/2 + r(y) the normal part turns (y, p) in phase space by an angle, at no error and no cost; only what is
left, r, pushes (Strang's splitting; split Hamiltonian Monte Carlo, Shahbaba et al. 2014, doi:10.1007/s11222-012-9373-1; the same
in infinite dimensions, Beskos et al. 2011, doi:10.1016/j.spa.2011.06.003). A quarter turn forgets where it began, so a transition
is one and a fifth of it on average, jittered, in as few steps as are accepted. The error of a step is that of r alone: where the
coordinates are good two or three gradients make a draw that is all but independent, whatever the number of coordinates, where
leapfrogs of a No-U-Turn sampler must resolve the turning itself and take fifteen. Steps and angle are arguments of the program
and shared by all chains, so no chain waits for another.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from scipy.special import ndtri

_LOST = 1000.0  # an energy error beyond which a transition is told as diverging
_NARROW, _WIDE = 0.6, 1.8  # quarter turns of one transition: a tail wider than the coordinates takes longer to cross
MOST = 32  # steps of one transition


class Stand(NamedTuple):
    """Where C chains stand."""

    y: jax.Array  # (C, D)
    value: jax.Array  # (C,) log density
    slope: jax.Array  # (C, D)


class Passed(NamedTuple):
    """What was seen in n transitions, leading axes (n, C)."""

    y: jax.Array  # (n, C, D)
    diverging: jax.Array
    energy: jax.Array
    accept: jax.Array


def programs(density, chunk: int):
    """Compiled (begin, go) for density(y (D,), *given): begin(y (C, D), given) and go(stand, key, steps, given), `chunk` long."""

    def looked(y, given):
        value, slope = jax.value_and_grad(density)(y, *given)
        return value, jnp.where(jnp.isfinite(slope), slope, -y)

    everybody = jax.vmap(looked, (0, None))

    def begin(y, given):
        return Stand(y, *everybody(y, given))

    def transition(stand, key, steps, given):
        kick, turn, coin = jax.random.split(key, 3)
        p = jax.random.normal(kick, stand.y.shape, stand.y.dtype)
        total = 0.5 * jnp.pi * jax.random.uniform(turn, dtype=p.dtype, minval=_NARROW, maxval=_WIDE)
        angle = total / steps
        c, s = jnp.cos(angle), jnp.sin(angle)

        def step(_, at):
            (y, _, slope), p = at
            p = p + 0.5 * angle * (slope + y)
            y, p = c * y + s * p, c * p - s * y
            there = Stand(y, *everybody(y, given))
            return there, p + 0.5 * angle * (there.slope + y)

        there, q = lax.fori_loop(0, steps, step, (stand, p))
        energy = 0.5 * jnp.sum(p**2, axis=1) - stand.value
        error = 0.5 * jnp.sum(q**2, axis=1) - there.value - energy
        error = jnp.where(jnp.isnan(error), jnp.inf, error)
        accept = jnp.exp(jnp.minimum(-error, 0.0))
        taken = jax.random.uniform(coin, accept.shape, accept.dtype) < accept
        new = jax.tree.map(lambda a, b: jnp.where(taken.reshape(-1, *([1] * (a.ndim - 1))), a, b), there, stand)
        return new, Passed(new.y, ~(error < _LOST), energy, accept)

    def go(stand, key, steps, given):
        return lax.scan(lambda at, k: transition(at, k, steps, given), stand, jax.random.split(key, chunk))

    return jax.jit(begin), jax.jit(go)


def steps_for(accept: float, steps: int, target: float) -> int:
    """Fewest steps of a transition at which `target` of the proposals should be taken, when `accept` were at `steps`.

    The energy error of a turn is about normal, of standard deviation s, and 2 Phi(-s / 2) of the proposals are taken; s falls as
    the square of the steps.
    """
    now, wanted = (-2 * ndtri(0.5 * min(max(a, 1e-3), 0.999)) for a in (accept, target))
    return int(np.clip(np.ceil(steps * np.sqrt(now / wanted) - 0.05), max(1, steps // 2), min(2 * steps, MOST)))
