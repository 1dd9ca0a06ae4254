"""Body weight against the package `bw`, and a cyclist's performance against the package `dorem`."""

import csv
import json

import numpy as np
import pytest

from hybridtwin.physiology import Banister, Hall2011
from hybridtwin.records import Person
from hybridtwin.signals import Regimen, Signal
from hybridtwin.simulate.verb import simulate

# the cohort of bw's README: weight, height, age, female, change of intake; its weights after 365 days at rtol 1e-10
COHORT = [(45, 1.30, 45, 0, -100), (67, 1.73, 23, 1, -200), (58, 1.77, 66, 1, -200), (92, 1.92, 44, 0, -123),
          (81, 1.73, 23, 0, -50)]  # fmt: skip
AFTER_A_YEAR = (42.2105, 61.5131, 52.3447, 88.6615, 79.6498)


def diet(weight, height, age, female, energy):
    return Person.of("diet", start=0.0, stop=365.0, time="d", signals={"energy": Signal.constant(energy, "kcal/d")},
                     covariates={"baseline": (weight, "kg"), "height": (height, "m"), "age": (age, "yr"),
                                 "female": (female, "1")})  # fmt: skip


@pytest.mark.heavy
def test_weights_of_the_cohort_after_a_year():
    body = Hall2011(PAL=1.5, rmr=1.0, betaAT=0.14, heat=1.0)  # as bw has it
    found = [simulate(body, diet(*who), tol=1e-8) for who in COHORT]
    np.testing.assert_allclose([f["weight"][0, -1] for f in found], AFTER_A_YEAR, atol=6e-5)
    first = {name: np.mean([f[name][0, 0] for f in found]) for name in ("ECF", "fat", "L", "G")}
    np.testing.assert_allclose([first["ECF"], first["fat"], first["L"]], [17.68290, 16.11919, 32.94791], atol=5e-6)
    for f, who in zip(found, COHORT, strict=True):
        assert f["weight"][0, 0] == pytest.approx(who[0], abs=1e-12)
        np.testing.assert_allclose(f["fat"] + f["L"] + f["ECF"] + 3.7 * f["G"], f["weight"], rtol=1e-12)
    balanced = simulate(body, diet(80, 1.8, 40, 0, 0.0), tol=1e-8)["weight"]
    np.testing.assert_allclose(balanced, 80.0, atol=1e-9)
    counted = simulate(Hall2011(PAL=1.5, rmr=1.0, betaAT=0.14), diet(*COHORT[2]), tol=1e-8)  # the heat of glycogen as it is
    assert 0.001 < counted["weight"][0, -1] - AFTER_A_YEAR[2] < 0.007


def test_the_cyclists_tests(shared_data):
    told = json.loads(shared_data("exposure/banister_reference.json").read_text())
    with shared_data("exposure/bike_score_training.csv").open() as file:
        rows = list(csv.DictReader(file))
    load = np.array([float(row["bikescore"]) for row in rows])
    tests = [i for i, row in enumerate(rows) if row["power_5min_W"]]
    power = np.array([float(rows[i]["power_5min_W"]) for i in tests])
    trained = Person.of("cyclist", start=0.0, stop=float(len(load)), time="d",
                        doses={"load": Regimen.bolus(load.tolist(), "1", at=list(map(float, range(len(load)))))})  # fmt: skip

    def errors(p0, k1, tau1, k2, tau2):
        body = Banister(p0=p0, k1=k1, tau1=tau1, k2=k2, tau2=tau2)
        return simulate(body, trained, at=list(map(float, tests)))["performance"][0] - power

    published = errors(262.0, 0.18, 36.0, 0.23, 21.0)
    assert np.sum(published**2) == pytest.approx(told["recomputed"]["SSE_at_published_rounded_parameters"], rel=1e-8)
    best = errors(266.0205, 0.30207, 33.643, 0.35148, 24.606)  # dorem's optimum
    assert np.sqrt(np.mean(best**2)) == pytest.approx(1.4812, abs=1e-4)
    assert 1.0 - np.sum(best**2) / np.sum((power - power.mean()) ** 2) == pytest.approx(0.9798, abs=1e-4)
    o = told["recomputed"]["least_squares_optimum"]
    found = errors(o["p0_W"], o["k1"], o["tau1_days"], o["k2"], o["tau2_days"])
    assert np.sum(found**2) == pytest.approx(o["SSE_W2"], rel=1e-4)


def test_fitness_and_fatigue_in_closed_form():
    one = Person.of("one", start=0.0, stop=60.0, time="d", doses={"load": Regimen.bolus(100.0, "1", at=10.0)})
    found = simulate(Banister(p0=250.0, k1=0.2, tau1=40.0, k2=0.3, tau2=10.0), one)
    t = found.time - 10.0
    f, g = (np.where(t >= 0, 100.0 * np.exp(-t / tau), 0.0) for tau in (40.0, 10.0))
    np.testing.assert_allclose(found["performance"][0], 250.0 + 0.2 * f - 0.3 * g, rtol=1e-12)
    np.testing.assert_allclose(found["fatigue"][0], g, atol=1e-11)
