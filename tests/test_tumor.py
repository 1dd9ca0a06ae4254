"""Tumors: the law of the causal benchmarks met on its own paths, closed forms, and what treatment does."""

import numpy as np
import pytest

from hybridtwin.errors import DeclarationError
from hybridtwin.interventions import Do
from hybridtwin.physiology import REGISTRY
from hybridtwin.physiology.reference import lived
from hybridtwin.records import Person
from hybridtwin.signals import Regimen
from hybridtwin.simulate.steppers import RK4
from hybridtwin.simulate.verb import simulate


def given(days, amount, unit):
    return Regimen.bolus(amount, unit, at=[float(d) for d in np.flatnonzero(days)])


def test_the_daily_law_meets_the_simulator_that_publishes_its_counterfactuals(shared_data):
    """lung_pkpd is noise free and starts a new path at every patient: volumes and drug to 1e-5 over 59 days."""
    stored = np.load(shared_data("tumour/lung_pkpd/cancer_seed1.npz"))
    states, actions = stored["test_states"][:3], stored["test_actions"][:3]
    law = REGISTRY["Geng2017Daily"](rho=0.01453, alpha=0.0398, beta_c=0.028, V0=1.0, dead_at=1e9)
    for path, done in zip(states, actions, strict=True):
        days = len(path)
        late = np.roll(done[:, 0] > 0, 1)  # there the drug of a day is in the next row; our dose is when it is in the blood
        late[0] = False
        doses = {"chemo": given(late, float(done[:, 0].max()) or 5.0, "mg/m^3"),
                 "radio": given(done[:, 1] > 0, float(done[:, 1].max()) or 2.0, "Gy")}  # fmt: skip
        doses = {name: regimen for name, regimen in doses.items() if len(regimen.doses)}
        day = Person.of("p", start=0.0, stop=float(days), time="d", doses=doses)
        found = simulate(law.with_values({"V0": float(path[0, 0])}), day, at=np.arange(days, dtype=float))
        np.testing.assert_allclose(found["volume"][0], path[:, 0], rtol=1e-5)


def test_death_is_for_good_and_cure_is_a_chance():
    law = REGISTRY["Geng2017Daily"]
    sick = lived(law).again(parameters={"V0": 1100.0, "rho": 0.02}, doses={})
    day = np.argmax(sick["dead"])
    assert 0 < day < 10 and sick["dead"][day:].min() == 1.0
    np.testing.assert_allclose(sick["volume"][day:], 1150.3465, rtol=1e-9)
    assert lived(law)["cured"].max() < 1e-12
    with pytest.raises(DeclarationError, match="difference equation"):
        simulate(law().typical(), law.protocol.person("d"), solver=RK4())


def test_untreated_growth_is_gompertz_and_a_fraction_is_linear_quadratic():
    typical = lived(REGISTRY["Geng2017"])
    body, day = typical.body, typical.protocol
    wild = typical.again(doses={})
    size = np.log(14.1 / body.K)
    np.testing.assert_allclose(np.log(wild["volume"] / body.K), size * np.exp(-body.rho * wild.time), rtol=1e-6)
    halved = simulate(body, day.person("d"), at=typical.time, do=[Do({"radio": lambda r: 0.5 * r})], tol=1e-5)
    assert typical["absorbed"][-1] == pytest.approx(60.0) and halved["absorbed"][0, -1] == pytest.approx(30.0)
    alone = typical.again(doses={"radio": Regimen.bolus(2.0, "Gy", at=1.0)})
    killed = float(body.alpha) * 2.0 * (1.0 + 2.0 / float(body.ratio))
    step = np.log(alone.at("volume", 1.5) / body.K) - np.log(wild.at("volume", 1.5) / body.K)
    np.testing.assert_allclose(step, -killed * np.exp(-body.rho * 0.5), rtol=1e-4)


def test_inhibition_is_its_closed_form():
    found = lived(REGISTRY["Claret2009"])
    b, t = found.body, found.time
    exact = b.y0 * np.exp(b.KL * t - b.KD * 2.3 / b.lam * (1.0 - np.exp(-b.lam * t)))
    np.testing.assert_allclose(found["size"], exact, rtol=1e-5)


def test_resistance_begins_with_the_treatment_and_not_with_the_record():
    """Claret's exp(-lam t) counts from the first exposure, in every world; a pause does not undo it."""
    system = REGISTRY["Claret2009"]
    b, day = system().typical(), system.protocol.person("wk")
    at, late, pause = np.array([0.0, 6.0, 12.0, 20.0, 40.0, 52.0]), 12.0, (20.0, 30.0)
    held = lambda t: b.KD * 2.3 / b.lam * (1.0 - np.exp(-b.lam * np.maximum(t, 0.0)))
    later = simulate(b, day, at=at, do=[Do({"exposure": 0.0}, stop=late)], tol=1e-7)
    np.testing.assert_allclose(later["size"][0], b.y0 * np.exp(b.KL * at - held(at - late)), rtol=1e-6)
    np.testing.assert_allclose(later["response"][0], np.exp(-b.lam * np.maximum(at - late, 0.0)), rtol=1e-6)
    paused = simulate(b, day, at=at, do=[Do({"exposure": 0.0}, *pause)], tol=1e-7)
    missed = held(np.clip(at, *pause)) - held(pause[0])
    np.testing.assert_allclose(paused["size"][0], b.y0 * np.exp(b.KL * at - held(at) + missed), rtol=1e-6)
    naive = Person.of("n", start=0.0, stop=52.0, time="wk")
    begun = simulate(b, naive, at=at, do=[Do({"exposure": 2.3}, start=late)], tol=1e-7)
    np.testing.assert_allclose(begun["size"], later["size"], rtol=1e-6)


def test_cells_hit_by_the_drug_are_not_lost_at_once():
    """Above the threshold concentration nothing grows, and what was hit leaves through three stages."""
    found = lived(REGISTRY["Simeoni2004"])
    late = found.again(doses={"iv": Regimen.infusion(800.0, "mg/kg", at=8.0, over="10 d")})
    inside = (late.time > 9.0) & (late.time < 17.9)
    assert (late["C"][inside] > found.body.l0 / found.body.k2).all()
    assert (np.diff(late["growing"][inside]) < 0.0).all() and late["weight"][-1] < found.again(doses={})["weight"][-1]
