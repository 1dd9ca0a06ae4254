"""Convergence diagnostics against ArviZ, on draws of every kind, in NumPy and inside `jit`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hybridtwin.engine import double
from hybridtwin.inference import diagnostics


def made(kind, seed, shape):
    """Chains of one kind."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape)
    push = {"correlated": 0.9, "antithetic": -0.8}.get(kind, 0.0)
    for i in range(1, shape[1]):
        x[:, i] += push * x[:, i - 1]
    if kind == "tied":
        x = np.round(2 * x) / 2 + 0.1
    if kind == "binary":
        x = (x > 1.0).astype(float)
    if kind == "heavy":
        x = np.tan(1.5 * np.tanh(x))
    if kind == "apart":
        x = x + np.arange(shape[0])[:, None]
    if kind == "stuck":
        x[0] = 1.0
    if kind == "late":
        x[:, -1] += 50.0
    return x


KINDS = ("random", "correlated", "antithetic", "tied", "binary", "heavy", "apart", "stuck", "late")


@pytest.mark.parametrize("kind", KINDS)
def test_they_are_those_of_arviz(kind):
    import arviz as az

    for seed, shape in enumerate([(4, 250), (2, 101), (3, 37), (4, 8), (4, 9), (7, 4), (4, 21)]):
        x = made(kind, seed, shape)
        if x.max() == x.min():
            continue
        found = diagnostics.convergence(x)
        theirs = (float(az.rhat(x)), float(az.ess(x, method="bulk")), float(az.ess(x, method="tail")))
        np.testing.assert_allclose(list(found.values()), theirs, rtol=1e-9, err_msg=f"{kind} {shape}")


def test_one_chain_has_a_sample_size():
    import arviz as az

    x = made("correlated", 3, (1, 60))
    assert diagnostics.ess_bulk(x) == pytest.approx(float(az.ess(x, method="bulk")), rel=1e-9)
    assert diagnostics.ess_tail(x) == pytest.approx(float(az.ess(x, method="tail")), rel=1e-9)


def test_fractions_of_missing_information_are_those_of_arviz():
    import arviz as az

    energy = made("correlated", 1, (4, 90))
    np.testing.assert_allclose(diagnostics.bfmi(energy), np.atleast_1d(az.bfmi(energy)), rtol=1e-12)
    energy[2] = 1.0
    assert np.isnan(diagnostics.bfmi(energy)[2]) and np.isfinite(diagnostics.bfmi(energy)[:2]).all()


def test_a_lane_is_judged_alike_alone_in_company_and_inside_jit():
    lanes = np.stack([made(kind, i, (4, 60)) for i, kind in enumerate(KINDS)] * 40)
    lanes[5, 1, 7], lanes[6] = np.nan, 2.5
    together = diagnostics.convergence(lanes.reshape(4, 90, 4, 60))
    with double():
        compiled = jax.jit(diagnostics.convergence)(jnp.asarray(lanes[:9]))
    for name, values in together.items():
        values = values.ravel()
        alone = [diagnostics.convergence(lane)[name] for lane in lanes[:12]]
        np.testing.assert_allclose(values[:12], alone, rtol=1e-12)
        smooth = [0, 1, 2, 5, 6, 7, 8]  # where values are tied, the last bit of a quantile decides what lies below it
        np.testing.assert_allclose(np.asarray(compiled[name])[smooth], values[:9][smooth], rtol=1e-9)
        assert np.isnan(values[[5, 6]]).all()


def test_nested_rhat_is_the_formula_on_normal_scores():
    from scipy import stats

    x = np.random.default_rng(5).standard_normal((24, 3)) + np.repeat([0.0, 0.3, 0.0, -0.2], 6)[:, None]

    def plain(y):
        groups = y.reshape(4, 6, 3)
        between = np.var([g.mean() for g in groups], ddof=1)
        within = np.mean([np.var([c.mean() for c in g], ddof=1) + np.mean([np.var(c, ddof=1) for c in g]) for g in groups])
        return np.sqrt(1 + between / within)

    def score(y):
        return stats.norm.ppf((stats.rankdata(y) - 0.375) / (y.size + 0.25)).reshape(y.shape)

    expected = max(plain(score(x)), plain(score(np.abs(x - np.median(x)))))
    assert diagnostics.nested_rhat(x, 4) == pytest.approx(expected, rel=1e-12)
    ends = x[:, :1]  # one draw a chain is enough
    assert 1.0 < diagnostics.nested_rhat(ends, 4) < 1.6
    still = np.ones((24, 1))
    assert np.isnan(diagnostics.nested_rhat(still, 4))
    frozen = np.repeat([0.0, 1.0, 2.0, 3.0], 6)[:, None] + 1e-9 * x[:, :1]  # each group stands where it started
    assert diagnostics.nested_rhat(frozen, 4) > 2
    both = diagnostics.nested_rhat(np.stack([x, x[::-1]]), 4)
    assert both.shape == (2,) and both[0] == pytest.approx(expected, rel=1e-12)


def test_what_does_not_move_or_is_not_finite_never_passes():
    lost, wide = made("random", 0, (4, 50)), made("random", 0, (4, 50))
    lost[2, 7], wide[1, 3] = np.nan, np.inf
    for x in (np.ones((4, 50)), lost, wide, made("random", 0, (4, 3))):
        assert all(np.isnan(v) for v in diagnostics.convergence(x).values())


def test_a_person_costs_milliseconds_and_a_cohort_seconds():
    import time

    x = np.random.default_rng(0).standard_normal((600, 4, 250))
    diagnostics.convergence(x[:6])
    start = time.perf_counter()
    diagnostics.convergence(x)
    assert time.perf_counter() - start < 5.0  # 0.2 s on a quiet core; a loop over quantities took 1.4
