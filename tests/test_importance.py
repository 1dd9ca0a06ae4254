"""Importance sampling: smoothed weights are ArviZ's, and the sampler meets closed forms or says that it cannot."""

import numpy as np
import pytest

from hybridtwin.inference.psis import kish, psis, resampled


@pytest.mark.parametrize("tail", [30.0, 3.0, 1.5, 0.9])
def test_smoothed_weights_and_khat_are_those_of_arviz(tail):
    import arviz as az

    rng = np.random.default_rng(int(10 * tail))
    logs = np.log(rng.pareto(tail, (3, 700)) + 1e-3) + 5.0
    smoothed, khat = psis(logs)
    for row, mine, k in zip(logs, smoothed, khat, strict=True):
        theirs, their_k = az.psislw(row)
        assert k == pytest.approx(float(their_k), abs=1e-6)
        np.testing.assert_allclose(mine, np.asarray(theirs), atol=1e-6)
        assert np.exp(mine).sum() == pytest.approx(1.0)


def test_weights_without_a_tail_and_weights_that_are_lost():
    even, k = psis(np.full(50, -3.0))
    assert k == -np.inf and np.allclose(np.exp(even), 0.02) and kish(even) == pytest.approx(50)
    logs = np.concatenate([np.random.default_rng(0).standard_normal(400), [np.nan, np.inf, -np.inf]])
    smoothed, k = psis(logs)
    assert np.all(np.exp(smoothed[400:]) == 0) and np.isfinite(k)
    lost, k = psis(np.full(30, -np.inf))
    assert k == np.inf and np.isfinite(lost).all()


def test_resampled_draws_have_the_weights_as_shares():
    rng = np.random.default_rng(3)
    weights = rng.dirichlet(np.ones(40))
    pick = resampled(rng, np.log(weights), 4000)
    counts = np.bincount(pick, minlength=40)
    assert np.all(np.diff(pick) >= 0) and np.all(np.abs(counts - 4000 * weights) <= 2)
