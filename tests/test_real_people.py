"""Forecasts: the benchmark on people with type 1 diabetes, tried on the embedded adult and on one short recording each."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import benchmark

import hybridtwin as ht
from hybridtwin.datasets import files
from hybridtwin.physiology import T1DMinimal, T1DTwoPool
from hybridtwin.sensors import CGM, Seen


@pytest.fixture(scope="module")
def forecast():
    """The benchmark as a module, with few draws."""
    module = benchmark("forecast")
    module.DRAWS = 64
    return module


@pytest.fixture(scope="module")
def adult(forecast):
    """The embedded adult, personalized on two days with the small structure: (case, model, twin)."""
    case, model = forecast.split(ht.datasets.virtual_adult()), forecast.models_of()[0]
    twin = ht.personalize(model, case.train, ht.Laplace(draws=100, starts=1), key=0, temper=3, progress=False)
    return case, model, twin


def answers(forecast, case, twin):
    return forecast.answers_of(case, forecast.paths_of(0, [case], [twin]))


@pytest.fixture(scope="module")
def told(forecast, adult):
    return answers(forecast, adult[0], adult[2])


def test_error_covariance_is_that_of_the_filter():
    """The filter's log density and the dense Gaussian are the same thing told twice."""
    rng = np.random.default_rng(0)
    n = 12
    time, session = np.cumsum(rng.uniform(5, 30, n)), np.repeat([0, 1], [7, 5])
    mean, value = rng.uniform(80, 200, n), rng.uniform(80, 200, n)
    with jax.enable_x64(True):
        sensor = CGM("C", white=3.0, drift=11.0, tau=50.0)
        seen = Seen(jnp.asarray(value), jnp.asarray(time), jnp.ones(n, bool), jnp.zeros(n, int), jnp.asarray(session))
        found = float(jnp.sum(sensor.terms(jnp.asarray(mean), seen).loglik))
        dense = np.array(sensor.covariance(jnp.asarray(mean), seen))
    miss = value - mean
    expected = -0.5 * (miss @ np.linalg.solve(dense, miss) + np.linalg.slogdet(2 * np.pi * dense)[1])
    assert found == pytest.approx(expected, abs=1e-8)


@pytest.mark.heavy
def test_twin_beats_persistence_when_inputs_are_announced(forecast, adult, told):
    found = forecast.score(adult[0], told)
    hour, two = found["twin", "announced"]["rmse"]
    still = found["persistence", ""]["rmse"]
    assert hour < 0.75 * still[0] and two < 0.75 * still[1]
    assert np.all(found["twin", "announced"]["coverage"] > 65)


@pytest.mark.heavy
def test_nothing_after_the_origin_is_looked_at(forecast, adult, told):
    case, _, twin = adult
    o = len(case.origins) // 2
    at = case.time[case.origins[o]]
    person = case.person.with_readings({"meal": ([at + 4.0], [40.0], "g"), "bolus": ([at + 4.0], [6.0], "[IU]")})
    series = dict(person.series)
    for name, change in {"cgm": lambda v: v + 60.0, "meal": lambda v: 2 * v, "bolus": lambda v: 2 * v}.items():
        old = series[name]
        series[name] = dataclasses.replace(old, value=np.where(old.time > at, change(old.value), old.value))
    other = dataclasses.replace(person, series=series)
    changed = forecast.split(other)
    assert changed.cut == case.cut and changed.train.hash() == case.train.hash()
    again = answers(forecast, changed, twin)
    for who in ("twin", "twin + momentum", "ARX"):
        for before, after in zip(told[who, "known"], again[who, "known"], strict=True):
            np.testing.assert_allclose(after[: o + 1], before[: o + 1], atol=0.05)
        assert np.max(np.abs(again[who, "announced"][0][o] - told[who, "announced"][0][o])) > 0.5
        assert np.max(np.abs(again[who, "known"][0][o + 1 :] - told[who, "known"][0][o + 1 :])) > 5


@pytest.mark.parametrize(("cohort", "name", "local"), [("shanghai_t1d", "1002-2", "shanghai_t1dm.csv.gz"),
                                                       ("d1namo", "004", "d1namo_glucose.csv.gz")])  # fmt: skip
def test_real_records_bind_to_both_structures(forecast, cohort, name, local):
    if files.local(f"glucose/{local}") is None:
        pytest.skip(f"{local} is not here; set HYBRIDTWIN_DATA")
    person = getattr(ht.datasets, cohort)()[name]
    case = forecast.split(person)
    assert len(case.origins) > 20 and case.train.clock.stop == case.cut == case.day.clock.start
    for system in (T1DMinimal(), T1DTwoPool()):
        model = ht.Model(system, cgm=CGM("G_isf"))
        problem = model.bind(case.train)
        meals = [d for d in person.regimens["meal"].doses if d.time < case.cut]
        bound = problem.bound
        assert [e.input for e in bound.latent] == ["meal"] * len(meals) and all(e.missing for e in bound.latent)
        assert problem.kernel.amounts == len(meals) and np.all(problem.data.amount_sd[: len(meals)] > 0)
        assert bound.inputs["meal"].unit == "g" and bound.inputs["bolus"].unit == "[IU]"
        assert bound.inputs["bolus"].total == pytest.approx(
            sum(d.amount for d in person.regimens["bolus"].doses if d.time < case.cut))
        assert 0.1 < float(bound.inputs["usual_basal"](bound.start)) < 3  # [IU]/h
        seen = bound.readings["cgm"]
        assert seen.unit == "mg/dL" and seen.value.min() >= 40 and seen.value.max() <= 500
        assert np.all(np.diff(seen.time) > 4) and bound.start == 0 and bound.stop == case.cut


@pytest.mark.heavy
def test_a_day_of_a_real_recording_gives_a_verdict(forecast):
    if files.local("glucose/shanghai_t1dm.csv.gz") is None:
        pytest.skip("shanghai_t1dm.csv.gz is not here; set HYBRIDTWIN_DATA")
    day = ht.datasets.shanghai_t1d()["1002-2"].between(stop=1000.0)
    twin = ht.personalize(forecast.models_of()[0], day, ht.Laplace(draws=60, starts=1), key=0, temper=3, progress=False)
    assert twin.verdict.headline in ("OK", "CAUTION", "DO NOT USE")
    assert twin.fits[0].values["amounts"].shape == (60, len(day.regimens["meal"].doses))
    assert np.all(np.isfinite(twin.simulate(at=[999.0])["G"]))
