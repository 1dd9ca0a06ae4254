"""Hamiltonian transitions of many lanes in step: every lane takes the same number of leapfrogs, so none waits for another.

One compiled program serves tempered populations and many short chains: the data, the coordinates, the step, the number of
leapfrogs and how much the readings count are its arguments.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from hybridtwin.engine import batched, double, side_by_side
from hybridtwin.kernel import Kernel, finite
from hybridtwin.keys import folded

_MANY = 64  # lanes of a call on a CPU: what more of them keep for the way back leaves the cache, and other cores are idle
_KEYS = "threefry2x32"
_LOST = 1000.0  # an energy error beyond which a transition is told as diverging


class Lanes(NamedTuple):
    """Where L lanes stand on the coordinates, with both parts of the log density and their gradients."""

    z: jax.Array  # (L, d)
    prior: jax.Array  # (L,)
    like: jax.Array  # (L,) what the readings add: the tempered log likelihood, and the anchor of `Temper`
    prior_slope: jax.Array  # (L, d)
    like_slope: jax.Array  # (L, d)

    def picked(self, rows) -> "Lanes":
        """The lanes of these rows."""
        return Lanes(*(np.asarray(a)[rows] for a in self))


class Moved(NamedTuple):
    """One transition: where the lanes stand, and what was proposed, for adaptation."""

    lanes: Lanes
    accept: jax.Array  # (L,) probability
    diverging: jax.Array  # (L,)
    before: jax.Array  # (L, d) on whitened coordinates
    after: jax.Array  # (L, d) proposed
    momentum: jax.Array  # (L, d) at the proposal


def _parts(kernel: Kernel, z, data, temper):
    """(log prior, what the readings add) at z (d,), and their gradients (2, d); what is not finite has a slope of 0."""

    def reads(z):
        like = finite(kernel.log_likelihood_of(kernel.constrain(z), data)) / temper.power
        return like - 0.5 * jnp.sum(temper.misses(z[kernel.scales]) ** 2)

    if not kernel.backward(_MANY):

        def both(z):
            out = jnp.stack([kernel.log_prior(z), reads(z)])
            return out, out

        slopes, values = jax.jacfwd(both, has_aux=True)(z)
    else:  # each by itself: the Jacobian of both would go backwards through the integration twice
        parts = [jax.value_and_grad(f)(z) for f in (kernel.log_prior, reads)]
        values, slopes = (jnp.stack(part) for part in zip(*parts, strict=True))
    return values, jnp.where(jnp.isfinite(slopes), slopes, 0.0)


@functools.lru_cache(maxsize=32)
def _program(kernel: Kernel):
    """(lanes, data of keys (L, 2), center (d,), scale (d, d), step, leapfrogs, beta, data, temper, known) -> Moved.

    Where `known` is false the lanes' densities are not: one leapfrog of size 0 finds them, so that no other program is needed.
    """

    def lane(at: Lanes, key, center, scale, step, leapfrogs, beta, data, temper, known):
        y = jnp.linalg.solve(scale, at.z - center)
        kick_key, coin_key = jax.random.split(jax.random.wrap_key_data(key, impl=_KEYS))
        p = jnp.where(known, jax.random.normal(kick_key, y.shape, y.dtype), 0.0)

        def force(prior_slope, like_slope):
            return scale.T @ (prior_slope + beta * like_slope)

        def level(prior, like):  # 0 * -inf is no number, and beta may be 0
            return jnp.where(jnp.isfinite(like), prior + beta * jnp.where(jnp.isfinite(like), like, 0.0), -jnp.inf)

        def leap(_, carry):
            y, p, _, slopes = carry
            p = p + 0.5 * step * force(*slopes)
            y = y + step * p
            values, slopes = _parts(kernel, center + scale @ y, data, temper)
            return y, p + 0.5 * step * force(*slopes), values, slopes

        start = (y, p, jnp.stack([at.prior, at.like]), jnp.stack([at.prior_slope, at.like_slope]))
        end, momentum, values, slopes = lax.fori_loop(0, leapfrogs, leap, start)
        gain = level(*values) - 0.5 * momentum @ momentum - level(at.prior, at.like) + 0.5 * p @ p
        gain = jnp.where(jnp.isfinite(values[0]) & ~jnp.isnan(gain), gain, -jnp.inf)
        accept = jnp.minimum(1.0, jnp.exp(gain))
        taken = ~known | (jax.random.uniform(coin_key, dtype=y.dtype) < accept)
        found = Lanes(jnp.where(known, center + scale @ end, at.z), *values, *slopes)
        new = jax.tree.map(lambda a, b: jnp.where(taken, a, b), found, at)
        return Moved(new, accept, ~(gain > -_LOST), y, end, momentum)

    return jax.jit(jax.vmap(lane, (0, 0, *(None,) * 8)), compiler_options=batched())


class Mover:
    """Transitions of the lanes of one person: `kernel`, `data` and `temper` of this person, `key` for its chance."""

    def __init__(self, kernel, data, temper, key):
        self.kernel, self._data, self._temper, self._key, self._count = kernel, data, temper, key, 0

    def keys(self, count):
        """Fresh keys."""
        self._count += 1
        return jax.random.split(folded(self._key, self._count), count)

    def known(self, z) -> Lanes:
        """Lanes at z (L, d)."""
        blank = Lanes(z, np.zeros(len(z)), np.zeros(len(z)), np.zeros(z.shape), np.zeros(z.shape))
        return self._call(blank, np.zeros(z.shape[1]), np.eye(z.shape[1]), 0.0, 1, 1.0, False).lanes

    def move(self, lanes: Lanes, center, scale, step, leapfrogs, beta=1.0) -> Moved:
        """One transition of every lane on coordinates z = center + scale y, the readings counting to the power `beta`."""
        return self._call(lanes, center, scale, step, leapfrogs, beta, True)

    def _call(self, lanes, center, scale, step, leapfrogs, beta, known):
        count = len(lanes.prior)
        keys, program = np.asarray(jax.random.key_data(self.keys(count))), _program(self.kernel)
        numbers = (np.asarray(center), np.asarray(scale), np.float64(step), np.int32(leapfrogs), np.float64(beta))

        def part(at):
            return program(jax.tree.map(lambda a: a[at], lanes), keys[at], *numbers, self._data, self._temper, np.bool_(known))

        if jax.default_backend() != "cpu" or count <= _MANY:
            return part(slice(None))

        def tile(at):
            with double():
                return jax.tree.map(np.asarray, part(at))

        lanes = jax.tree.map(np.asarray, lanes)
        tiles = [np.resize(np.arange(i, min(i + _MANY, count)), _MANY) for i in range(0, count, _MANY)]
        found = side_by_side([functools.partial(tile, at) for at in tiles])
        return jax.tree.map(lambda *a: np.concatenate(a)[:count], *found)


def whitened(z, floor=None):
    """Center (d,) and scale (d, d) in which draws z (n, d) have unit covariance, drawn towards their own diagonal.

    `floor` (d,): smallest standard deviation that a direction is given, where draws may have collapsed.
    """
    n, d = z.shape
    covariance = np.cov(z.T).reshape(d, d)
    spread = np.maximum(np.diag(covariance), 1e-12 if floor is None else np.square(floor))
    mixed = (n * covariance + 2 * d * np.diag(spread)) / (n + 2 * d)
    return z.mean(axis=0), np.linalg.cholesky(mixed)
