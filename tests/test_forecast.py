"""Forecasts go on from the lived state, draw by draw; uncertain events are shown in their own units."""

import numpy as np
import pytest

import hybridtwin as ht
from hybridtwin.physiology import BergmanMinimal, OneCompartmentOral
from hybridtwin.twin import _within_horizon
from hybridtwin.worlds import _paired, thinned


@pytest.fixture(scope="module")
def twin():
    model = ht.Model(OneCompartmentOral(tlag=0.1), C=ht.sensors.Combined2("C", add=0.1, prop=0.1))
    doses = {"oral": ht.Regimen.bolus(320, "mg", at=[0, 12])}
    readings = {"C": ([1, 4, 9, 15, 23], [6.9, 8.2, 5.8, 10.9, 7.1], "mg/L")}
    bea = ht.Person.of("bea", time="h", start=0, stop=24, doses=doses, readings=readings)
    return ht.personalize(model, bea.uncertain("oral", 0.2, "15 min"), ht.Laplace(draws=400), key=0, progress=False)


def test_a_forecast_begins_where_the_day_ended(twin):
    plan = twin.forecast("24 h")
    ahead, lived = plan.simulate(at=[24.0]), twin.simulate(at=[24.0])
    np.testing.assert_allclose(ahead["C"], lived["C"], rtol=1e-9)
    assert ahead.label == "as planned" and lived.label == "as lived"
    before = plan.simulate(at=[24.0], prior=True)["C"][:, 0]
    assert np.std(before) > 1.5 * np.std(lived["C"]), "the prior's worlds begin at the prior's states"


def test_a_contrast_of_forecasts_has_the_prior_answer_beside_it(twin):
    plan = twin.forecast("24 h", oral=ht.Regimen.bolus(320, "mg", at=24))
    effect = ht.contrast(plan.do(oral=lambda d: 0.5 * d), plan, ht.outcomes.cmax("C"))
    assert effect[0].high < 0 and np.isfinite(effect[0].prior_difference).all()


def test_states_stay_with_their_draws():
    start = {"a": np.arange(250.0), "b": np.array(3.0)}
    for draws in (250, 125, 40):
        index, x0 = _paired(start, 1000, draws)
        np.testing.assert_array_equal(thinned(1000, 250)[x0["a"].astype(int)], index)
        assert len(index) == draws == len(x0["b"])
    index, x0 = _paired({"a": 1.0}, 100, 250)
    assert len(index) == len(x0["a"]) == 100


def test_uncertain_events_in_their_own_units(twin):
    events = twin.events()
    assert list(events["time"]) == ["0 h", "12 h"] and set(events["unit"]) == {"mg"}
    assert (events["amount_q05"] < 320).all() and (events["amount_q95"] > 320).all()
    assert (events["shift_q95"] < 1.0).all() and (events["shift_q95"] > 0.0).all()


def test_a_day_past_the_horizon_is_refused():
    person = ht.Person.of("c", time="h", start=0, stop=30, covariates={"weight": (70, "kg")})
    with pytest.raises(ht.errors.PastHorizon, match="BergmanMinimal"):
        _within_horizon(person.bind(BergmanMinimal.spec), BergmanMinimal.spec)
