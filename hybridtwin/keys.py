"""Keys of chance on the host: where they come from and how they branch, the bits that JAX would give.

`jax.random.key` and `jax.random.fold_in` outside a program compile one of their own for every precision, and one more for
every number of keys: half a second of the first call of a process, for a few hundred bits. JAX's default generator is a hash of
twenty rounds (Salmon et al. 2011, doi:10.1145/2063384.2063405), so NumPy computes the same bits in microseconds.
"""

import zlib

import jax
import jax.numpy as jnp
import numpy as np

from hybridtwin.errors import ParameterError

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_DEFAULT, _SETTING = "threefry2x32", "jax_default_prng_impl"


def as_key(key):
    """A JAX key from an int or a key. **Raises:** ParameterError for anything else: chance needs a key, never a default."""
    if isinstance(key, int | np.integer) and not isinstance(key, bool) and -(2**63) <= key < 2**63:
        plain = 0 <= key < 2**31 and str(getattr(jax.config, _SETTING)) == _DEFAULT
        return _wrapped([0, int(key)]) if plain else jax.random.key(int(key))
    if isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        return key
    raise ParameterError(f"key={key!r} is no key. Give an int below 2**63 such as key=0, or jax.random.key(0).")


def person_key(key, person_id):
    """The key of one person: folded from a stable hash of the id, whoever else is in the cohort."""
    return folded(key, zlib.crc32(str(person_id).encode()))


def folded(key, *numbers: int):
    """`jax.random.fold_in` by each of some numbers in turn, each from 0 to 2**32 - 1."""
    if str(jax.random.key_impl(key)) != _DEFAULT:
        for number in numbers:
            key = jax.random.fold_in(key, np.uint32(number))
        return key
    words = np.asarray(jax.random.key_data(key))
    for number in numbers:
        words = _hash(words, np.array([0, number], np.uint32))
    return _wrapped(words)


def stacked(keys):
    """Keys (n,) of several keys of one kind."""
    data = np.stack([np.asarray(jax.random.key_data(key)) for key in keys])
    return jax.random.wrap_key_data(data, impl=jax.random.key_impl(keys[0]))


def _wrapped(words):
    return jax.random.wrap_key_data(np.asarray(words, np.uint32), impl=_DEFAULT)


def _hash(key, block):
    """Threefry-2x32 with 20 rounds: key (2,) and block (2,) of 32-bit words -> (2,) words."""
    first, second = (int(word) for word in key)
    words = (first, second, first ^ second ^ 0x1BD11BDA)
    mask = 0xFFFFFFFF
    x, y = ((int(b) + k) & mask for b, k in zip(block, words, strict=False))
    for turn in range(5):
        for by in _ROTATIONS[turn % 2]:
            x = (x + y) & mask
            y = (((y << by) | (y >> (32 - by))) & mask) ^ x
        x = (x + words[(turn + 1) % 3]) & mask
        y = (y + words[(turn + 2) % 3] + turn + 1) & mask
    return np.array([x, y], np.uint32)
