"""Treatment effects against virtual patients of another simulator (models, score and figures: benchmarks/counterfactuals.py)."""

import csv
from pathlib import Path

import numpy as np
import pytest
from conftest import benchmark

import hybridtwin as ht


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


def test_the_truth_of_the_embedded_person_is_the_simulators(bench):
    """By hand from the table: rows of 06:00 to 16:00, a world less the day as lived."""
    path = Path(ht.datasets.__file__).parent / "virtual_adult_truth.csv"
    with path.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if "06:00" <= row["time"][-5:] <= "16:00"]
    case = bench.embedded()
    assert len(case.times) == len(rows) == 121 and case.truth.shape == (3, 4)
    for arm, found in zip(bench.ARMS, case.truth, strict=True):
        told = []
        for world in (arm, "lived"):
            glucose = [float(row[world]) for row in rows]
            inside = 100 * sum(70 <= g <= 180 for g in glucose) / len(glucose)
            told.append([sum(glucose) / len(glucose), max(glucose), min(glucose), inside])
        np.testing.assert_allclose(found, np.subtract(*told), rtol=1e-9, atol=1e-9)


@pytest.mark.heavy
def test_effects_on_virtual_patients_whose_equations_no_twin_shares(bench, shared_data):
    """The six stored patients and the embedded person: 84 contrasts."""
    root = shared_data("glucose/uva_padova/noisy_cgm_inputs.json").parent
    found, prior, truth = {}, {}, {}
    for cases, start in ((bench.load(root), "steady"), ({"embedded": bench.embedded()}, "free")):
        method = ht.NUTS(draws=150, warmup=100, most=1)
        some, before, *_ = bench.answer(bench.structures(start=start), cases, method, 3.0, 0)
        found |= {name: draws for name, (draws, _) in some.items()}
        prior |= before
        truth |= {name: case.truth for name, case in cases.items()}
    pooled = bench.score(found, truth)
    assert pooled["contrasts"] == 84 and pooled["signs"] >= 95 and 80 <= pooled["coverage"] <= 97
    assert pooled["mae"] < 7 and pooled["score"] < 40
    alone = bench.score(prior, truth)
    assert pooled["mae"] < 0.8 * alone["mae"] and pooled["score"] < 0.7 * alone["score"], "the readings teach something"
