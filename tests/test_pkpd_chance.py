"""The second hand of theophylline (benchmarks/pkpd_chance.py): its slopes, its maximum likelihood, its predictive ranks."""

import numpy as np
import pytest
from conftest import benchmark


@pytest.fixture(scope="module")
def bench():
    """The functions of benchmarks/pkpd_chance.py."""
    return benchmark("pkpd_chance")


@pytest.mark.parametrize("title", ["additive", "combined2", "combined, varies", "combined, lag", "combined, absorbing"])
def test_slope_of_the_joint_density_is_that_of_differences(bench, title):
    error, rng = bench.MODELS[title], np.random.default_rng(0)
    time = np.array([[0.0, 0.3, 1.0, 3.0, 9.0, 24.0]])
    data = bench.Data(time, rng.uniform(1.0, 9.0, time.shape), np.array([[320.0]]), np.ones_like(time))
    u, b = bench.begin(error), 0.3 * rng.standard_normal((1, 3 + error.varies))
    slope = bench.around(u, b, data, error)[1][0]
    moves = 1e-5 * np.eye(b.shape[1])
    up, down = (bench.around(u, b + sign * moves, data, error)[0] for sign in (1.0, -1.0))
    np.testing.assert_allclose(slope, (up - down) / 2e-5, rtol=1e-5, atol=1e-6)


def test_maximum_likelihood_of_the_twelve_is_that_of_nlmixr2(bench, shared_data):
    shared_data("pkpd/theophylline.csv")
    u, _, left = bench.learn(bench.theophylline(), bench.MODELS["additive"])
    found = dict(zip(bench.names(bench.MODELS["additive"]), u[0], strict=True))
    published = {"ka": 0.464, "CL": 1.01, "V": 3.46}  # SAEM, as printed in its README (reference_estimates.json)
    spread = {"omega.ka": 0.711, "omega.CL": 0.274, "omega.V": 0.131, "add": 0.696}
    assert left[0] < 1e-4
    for name, value in published.items():
        assert found[name] == pytest.approx(value, abs=0.01), name
    for name, value in spread.items():
        expected = value if name == "add" else np.sqrt(np.log1p(value**2))
        assert np.exp(found[name]) == pytest.approx(expected, abs=0.01), name


def test_ranks_are_uniform_where_the_population_is_known(bench):
    error, rng = bench.MODELS["combined"], np.random.default_rng(1)
    u = bench.begin(error)
    time = np.broadcast_to([0.0, 0.3, 0.6, 1.1, 2.0, 3.5, 5.0, 7.0, 9.0, 12.0, 24.0], (1, 12, 11))
    real = bench.Data(time, time, np.full((1, 12, 1), 320.0), np.ones(time.shape))
    copies = bench.simulated(u, real, error, 8, rng)
    rank, effective = bench.ranks(np.broadcast_to(u, (8, 12, len(u))), copies, error, rng, draws=250)
    share = bench.inside(rank).mean(0) / 60
    assert effective > 100
    np.testing.assert_allclose(share, bench.LEVELS, atol=0.07)  # 480 samples, those of one person together
