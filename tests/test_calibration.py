"""Simulation-based calibration: envelopes that are right, a method that passes, and wrong ones that do not."""

import dataclasses

import numpy as np
import pytest
from small import DRIP, MESH, ORAL, drip_person, mesh_person, oral_person

import hybridtwin as ht
from hybridtwin.errors import ParameterError
from hybridtwin.inference import laplace, methods
from hybridtwin.inference.calibrate import Calibration, deviations, envelope

QUICK = ht.NUTS(draws=50, warmup=50, most=1, starts=2)


def of(ranks, draws=100):
    return Calibration("made", "made", {"a": np.asarray(ranks)}, draws, 0, 0)


def test_the_envelope_holds_uniform_ranks_as_often_as_it_says():
    rng = np.random.default_rng(5)
    low, high = envelope(128, 100, 0.9)
    curves = np.array([deviations(rng.integers(0, 101, 128), 100) for _ in range(2000)])
    inside = np.mean(np.all((curves >= low) & (curves <= high), axis=1))
    assert inside == pytest.approx(0.9, abs=0.03)


def test_p_values_of_uniform_ranks_are_uniform_and_of_others_small():
    rng = np.random.default_rng(2)
    p = np.array([next(iter(of(rng.integers(0, 101, 128)).p_values().values())) for _ in range(40)])
    assert 0.3 < p.mean() < 0.7 and p.min() > 0.001
    narrow = np.clip(rng.normal(50, 15, 256).round(), 0, 100).astype(int)  # posteriors that are too wide
    shifted = (100 * rng.beta(1.5, 1.0, 256)).astype(int)
    for ranks in (narrow, shifted):
        assert not of(ranks).ok
    assert "too wide" in repr(of(narrow))


def test_a_sampler_is_calibrated():
    found = ht.calibrate(ORAL, oral_person(), ht.Importance(draws=100, starts=2), key=0, replicates=32, draws=50, progress=False)
    assert found.ok, found
    assert set(found.ranks) == {"ka", "CL", "V", "log likelihood", "log prior"}
    assert found.replicates + found.failed == 32


def test_the_same_key_gives_the_same_ranks():
    one, two = (ht.calibrate(DRIP, drip_person(), ht.Laplace(draws=100, starts=2), key=3, replicates=20, draws=50, progress=False)
                for _ in range(2))  # fmt: skip
    assert all(np.array_equal(one.ranks[k], two.ranks[k]) for k in one.ranks)


class TooNarrow(ht.Laplace):
    """A Gaussian of half its width."""

    def draw(self, setting):
        narrow = [[f[0]._replace(scale=0.5 * f[0].scale), *f[1:]] for f in setting.modes]
        return laplace.draw(setting._replace(modes=narrow), self)


def test_draws_that_are_too_narrow_are_found():
    found = ht.calibrate(DRIP, drip_person(), TooNarrow(draws=100, starts=2), key=0, replicates=64, draws=50, progress=False)
    assert not found.ok
    assert "too narrow" in repr(found)


class Prior(methods.AbstractMethod):
    """The prior as if it were the posterior: every single parameter is calibrated, the likelihood is not."""

    starts = 1

    def draw(self, setting):
        rng = np.random.default_rng(0)
        from hybridtwin.inference.sampling import Drawn

        return [Drawn(rng.standard_normal((1, 100, setting.kernel.size)), {}) for _ in setting.keys]


def test_a_posterior_that_is_the_prior_is_found_by_the_likelihood():
    found = ht.calibrate(MESH, mesh_person(), Prior(), key=0, replicates=48, draws=50, progress=False)
    p = found.p_values()
    assert min(p["VM"], p["V"]) > 0.01 and p["log likelihood"] < 1e-3
    assert not found.ok


def test_it_has_a_picture_and_a_table():
    rng = np.random.default_rng(0)
    found = dataclasses.replace(of(rng.integers(0, 101, 64)), model="OneCompartment")
    assert found.plot().axes[0].get_ylabel() == "ECDF less uniform"
    assert list(found.to_dataframe().columns) == ["p", "deviation", "mean", "spread"]


def test_too_few_replicates_are_refused():
    with pytest.raises(ParameterError, match="at least 20"):
        ht.calibrate(ORAL, oral_person(), QUICK, key=0, replicates=5)
