"""Keys of chance computed on the host are those of JAX."""

import jax
import numpy as np
import pytest

from hybridtwin.errors import ParameterError
from hybridtwin.keys import as_key, folded, person_key, stacked


def bits(key):
    return np.asarray(jax.random.key_data(key))


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("seed", [0, 1, 42, 2**31 - 1, -3])
def test_the_same_bits_as_jax(seed, double):
    with jax.enable_x64(double):
        theirs, ours = jax.random.key(seed), as_key(seed)
        assert np.array_equal(bits(ours), bits(theirs))
        for number in (0, 1, 7, 2**31, 2**32 - 1):
            found = folded(ours, number)
            assert np.array_equal(bits(found), bits(jax.random.fold_in(theirs, np.uint32(number))))
            assert found.dtype == theirs.dtype
        twice = jax.random.fold_in(jax.random.fold_in(theirs, 5), 2)
        assert np.array_equal(bits(folded(ours, 5, 2)), bits(twice))


def test_a_key_of_another_generator_is_folded_by_jax():
    key = jax.random.key(3, impl="rbg")
    assert np.array_equal(bits(folded(key, 9)), bits(jax.random.fold_in(key, 9)))
    assert stacked([key, key]).dtype == key.dtype


def test_keys_are_stacked():
    keys = [as_key(i) for i in range(3)]
    together = stacked(keys)
    assert together.shape == (3,)
    assert np.array_equal(bits(together), np.stack([bits(key) for key in keys]))


def test_people_have_keys_of_their_own():
    key = as_key(0)
    assert not np.array_equal(bits(person_key(key, "anna")), bits(person_key(key, "berta")))


@pytest.mark.parametrize("bad", [True, 1.5, "0", None, np.zeros(2), 2**70])
def test_what_is_no_key_is_refused(bad):
    with pytest.raises(ParameterError, match="is no key"):
        as_key(bad)
