"""Treatment effects against virtual patients of another simulator (models, score and figures: benchmarks/counterfactuals.py)."""


import numpy as np
import pytest
from conftest import benchmark

import hybridtwin as ht
from hybridtwin.physiology import T1DMinimal, T1DTwoPool


@pytest.fixture(scope="module")
def bench():
    """The functions of benchmarks/counterfactuals.py."""
    return benchmark("counterfactuals")


def test_the_score_is_what_it_says(bench):
    """Five draws of two contrasts of four outcomes: interval, misses and signs by hand."""
    draws = {"a": np.linspace(-1.0, 1.0, 5)[:, None, None] * np.ones((5, 1, 4)) + 10.0}
    truth = {"a": np.array([[10.0, 12.0, -10.0, 10.5]])}
    found = bench.score(draws, truth)
    width = 1.8  # the 5 and 95 % quantiles of five evenly spaced draws, by interpolation
    assert found["signs"] == 75 and found["coverage"] == 50 and found["width"] == pytest.approx(width)
    assert found["mae"] == pytest.approx((0 + 2 + 20 + 0.5) / 4)
    assert found["score"] == pytest.approx(width + 20 * (1.1 + 19.1) / 4)


@pytest.mark.heavy
def test_effects_on_virtual_patients_whose_equations_no_twin_shares(bench, shared_data):
    root = shared_data("glucose/uva_padova/noisy_cgm_inputs.json").parent
    data = bench.load(root)
    truth = {
        name: np.stack([bench.measured(day[arm][:96, 1]) - bench.measured(day[""][:96, 1]) for arm in bench.ARMS])
        for name, (_, _, day) in data.items()
    }
    models = [ht.Model(s, start="steady", cgm=ht.sensors.CGM("G_isf")) for s in (T1DMinimal(), T1DTwoPool())]
    found, prior, *_ = bench.answer(models, data, ht.NUTS(draws=150, warmup=100, most=1), 3.0, 0)
    pooled = bench.score({name: draws for name, (draws, _) in found.items()}, truth)
    assert pooled["contrasts"] == 72 and pooled["signs"] >= 95 and 80 <= pooled["coverage"] <= 97
    assert pooled["mae"] < 7 and pooled["score"] < 40
    alone = bench.score(prior, truth)
    assert pooled["mae"] < 0.8 * alone["mae"] and pooled["score"] < 0.7 * alone["score"], "the readings teach something"
