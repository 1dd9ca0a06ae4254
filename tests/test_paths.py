"""Paths are functions of time: the same wherever asked, with the covariance of the process they stand for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from hybridtwin import sensors
from hybridtwin.paths import Wiener, correlated, path_key
from hybridtwin.sensors import Seen


def rows(minutes, session):
    n = len(minutes)
    return Seen(jnp.zeros(n), jnp.asarray(minutes, float), jnp.ones(n, bool), jnp.zeros(n, jnp.int32),
                jnp.asarray(session, jnp.int32))  # fmt: skip


def test_two_sets_of_reading_times_see_the_same_sensor_error():
    few, many = np.array([-30.0, 0.0, 25.0, 90.0, 1440.0]), np.arange(-60.0, 1500.0, 5.0)
    shared = np.searchsorted(many, few)
    with jax.enable_x64(True):
        for sensor in (sensors.CGM("G", white=2.5, drift=9.0, tau=45.0), sensors.CGM("G", white=1e-9, drift=9.0, tau=4e6)):
            draw = jax.jit(sensor.sample)
            for key in map(jax.random.key, range(3)):
                a = draw(key, jnp.full(len(few), 110.0), rows(few, few > 30))
                b = draw(key, jnp.full(len(many), 110.0), rows(many, many > 30))
                np.testing.assert_allclose(np.asarray(a), np.asarray(b)[shared], rtol=1e-13)
        other = draw(jax.random.key(9), jnp.full(len(few), 110.0), rows(few, few > 30))
    assert np.abs(np.asarray(other) - np.asarray(a)).min() > 1e-3


def test_the_correlated_path_has_the_covariance_of_its_process():
    """Unit variance, exp(-|s - t| / tau) between times before and after zero, and normal."""
    seconds, tau = np.array([-5400, -1, 0, 60, 61, 2700, 30_000]), 2700.0
    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.key(1), 20_000)
        path = jax.jit(jax.vmap(lambda k: jax.vmap(lambda s: correlated(path_key(k), s, tau))(jnp.asarray(seconds))))(keys)
    path = np.asarray(path)
    wanted = np.exp(-np.abs(seconds[:, None] - seconds) / tau)
    np.testing.assert_allclose(np.cov(path.T), wanted, atol=4.5 / np.sqrt(20_000) * 1.42)
    steps = path[:, 1] - path[:, 2]  # a second apart: the increment itself is right, not only the correlation
    assert abs(np.var(steps) / (2 * (1 - np.exp(-1 / tau))) - 1) < 0.05
    assert stats.kstest(path[:, 5], "norm").pvalue > 1e-3


def test_a_wiener_path_has_independent_increments_of_the_right_variance():
    times = np.array([-2.75, -2.0, -1.3, 0.0, 0.1, 0.1 + 2.0**-9, 1.0, 2.00003, 2.9])
    cells = jnp.arange(-3, 3, dtype=jnp.int32)
    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.key(4), 20_000)

        def path(key, times):
            wiener = Wiener.over(path_key(key), cells, 2)
            return jax.vmap(wiener.at)(times)

        found = np.asarray(jax.jit(jax.vmap(path, (0, None)))(keys, jnp.asarray(times)))
        fewer = np.asarray(jax.jit(path)(keys[7], jnp.asarray(times[[2, 6]])))
    steps = np.diff(found, axis=1) / np.sqrt(np.diff(times))[None, :, None]
    flat = steps.reshape(len(steps), -1)
    assert np.abs(np.corrcoef(flat.T) - np.eye(flat.shape[1])).max() < 4.5 / np.sqrt(20_000)
    np.testing.assert_allclose(flat.var(axis=0), 1.0, atol=0.05)
    assert min(stats.kstest(column, "norm").pvalue for column in flat.T) > 1e-4
    np.testing.assert_array_equal(fewer, found[7][[2, 6]])


@pytest.mark.heavy
def test_wiener_paths_on_other_cells_are_the_same_path():
    """A record that starts later sees the same increments."""
    with jax.enable_x64(True):
        early = Wiener.over(path_key(jax.random.key(2)), jnp.arange(-2, 9, dtype=jnp.int32), 1)
        late = Wiener.over(path_key(jax.random.key(2)), jnp.arange(3, 9, dtype=jnp.int32), 1)
        at = jnp.array([3.2, 4.0, 7.77])
        a, b = (np.asarray(jax.vmap(w.at)(at))[:, 0] for w in (early, late))
    np.testing.assert_allclose(np.diff(a), np.diff(b), rtol=1e-12)
