"""Random paths that are functions of time: worlds with other meshes, finer steps and other reading times see the same path.

A path is built downwards from a coarse grid by bridges: the value in the middle of an interval, given both ends, is normal
with known mean and variance, and its standard normal is keyed by the interval itself, an integer. So a path is never stored,
and what it is at a time does not depend on which other times were asked for.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.special import ndtri

_YEARS = 28  # the correlated path spans 2**28 seconds, 8.5 years, around time zero
_LEVELS = 12  # halvings of a cell of the Wiener path


def path_key(key):
    """A key whose children are random bits themselves, from a key of any kind."""
    return jax.random.wrap_key_data(jax.random.bits(key, (2,), jnp.uint32), impl="threefry2x32")


def _normal(key, code):
    """The standard normal of an integer: one hash, of which 52 bits become a number."""
    high, low = jax.random.key_data(jax.random.fold_in(key, code))
    dtype = jnp.result_type(float)
    if dtype == jnp.float32:
        return ndtri(((high >> 9).astype(dtype) + 0.5) * 2.0**-23)
    whole = high.astype(dtype) * 2.0**20 + (low >> 12).astype(dtype)
    return ndtri((whole + 0.5) * 2.0**-52)


def correlated(key, second, tau):
    """A stationary Ornstein-Uhlenbeck path of variance 1 and correlation time `tau` (in seconds) at a whole second.

    cov(e(s), e(t)) = exp(-|s - t| / tau), exactly at all whole seconds within four years of zero. The middle of an interval
    of half length r given its ends a, b is normal with mean (a + b) / (2 cosh(r / tau)) and variance tanh(r / tau).
    """
    place = (jnp.asarray(second, jnp.int32) + 2 ** (_YEARS - 1)).astype(jnp.uint32)
    whole = jnp.exp(-(2.0**_YEARS) / tau)
    first = _normal(key, jnp.uint32(0))
    last = whole * first + jnp.sqrt(1 - whole**2) * _normal(key, jnp.uint32(2**32 - 1))

    def halve(level, ends):
        low, left, right = ends
        level = level.astype(jnp.uint32)
        half = jnp.uint32(1) << (_YEARS - 1 - level)
        r = half.astype(left.dtype) / tau
        own = (jnp.uint32(1) << level) + (low >> (_YEARS - level))
        middle = (left + right) * jnp.exp(-r) / (1 + jnp.exp(-2 * r)) + jnp.sqrt(jnp.tanh(r)) * _normal(key, own)
        after = place >= low + half
        return jnp.where(after, low + half, low), jnp.where(after, middle, left), jnp.where(after, right, middle)

    return lax.fori_loop(0, _YEARS, halve, (jnp.uint32(0), first, last))[1]


class Wiener(NamedTuple):
    """D independent Wiener paths over a stretch of time.

    `cells` (G,) are consecutive integers, the cells [k, k + 1) of one unit of time that the stretch touches; `levels` (G, D) the
    paths at their beginnings, zero at the first. Within a cell a path is exact at 2**12 points; between two of those it is
    one normal about the straight line, with the right variance.
    """

    keys: jax.Array  # (D,)
    cells: jax.Array
    levels: jax.Array

    @classmethod
    def over(cls, key, cells, count):
        """The paths of a key (see `path_key`) over these cells."""
        cells = jnp.asarray(cells)
        keys = jax.vmap(functools.partial(jax.random.fold_in, key))(jnp.arange(count))
        steps = jax.vmap(lambda k: jax.vmap(lambda own: _normal(_cell(own, k), jnp.uint32(0)))(keys))(cells)
        return cls(keys, cells, jnp.cumsum(steps, axis=0) - steps)

    def at(self, t):
        """The paths (D,) at time t, less their value at the beginning of the first cell."""
        place = jnp.clip(jnp.floor(t - self.cells[0]).astype(int), 0, self.cells.shape[0] - 1)
        since = lax.stop_gradient(t - self.cells[place])
        return self.levels[place] + jax.vmap(lambda key: _within(_cell(key, self.cells[place]), since))(self.keys)


def _cell(key, cell):
    return jax.random.fold_in(key, cell.astype(jnp.int32).astype(jnp.uint32))


def _within(key, since):
    """What a path gained since the beginning of a cell of length 1, by halving the cell around the time."""

    def halve(level, carry):
        low, own, left, right = carry
        half = jnp.exp2(-(level + 1.0))
        middle = 0.5 * (left + right) + jnp.sqrt(half / 2) * _normal(key, own)
        after = since >= low + half
        own = 2 * own + after.astype(jnp.uint32)
        return jnp.where(after, low + half, low), own, jnp.where(after, middle, left), jnp.where(after, right, middle)

    zero = jnp.zeros_like(since)
    low, own, left, right = lax.fori_loop(0, _LEVELS, halve, (zero, jnp.uint32(1), zero, _normal(key, jnp.uint32(0))))
    share = jnp.clip((since - low) * 2.0**_LEVELS, 0.0, 1.0)
    spread = jnp.sqrt(share * (1 - share) * 2.0**-_LEVELS)
    return left + share * (right - left) + spread * _normal(key, own)
