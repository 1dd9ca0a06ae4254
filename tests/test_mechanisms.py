"""Mechanisms and sensors that are others for a while: against independent integrators and the twin's own readings."""

import dataclasses
import itertools

import numpy as np
import pytest
from scipy.integrate import solve_ivp
from small import Drip, drip_person, drip_twin, mesh_twin
from test_twin import PUSH, body, closed_form

import hybridtwin as ht
from hybridtwin.changes import Stuck
from hybridtwin.errors import InterventionError, UnitError, UnknownTarget
from hybridtwin.interventions import Do
from hybridtwin.model import Model

AFTER = np.array([10.0, 12.5, 16.9, 23.5])


def saturable(system, t, x, u):
    """What saturates instead of the linear elimination."""
    return u.push - ht.const(40.0, "mg/h") * x.amount / (ht.const(100.0, "mg") + x.amount)


def alone(CL, V, start, stop):
    """Concentrations at `AFTER` by SciPy, with the saturable elimination in [start, stop)."""
    marks = sorted({0.0, 1.0, 9.0, 12.0, 17.0, start, min(stop, 24.0), 24.0})
    amount, found = 0.0, {}
    for left, right in itertools.pairwise(marks):
        amount += 120.0 * (left in (1.0, 9.0, 17.0))
        push, edited = (10.0 if left < 12 else 16.0), start <= left < stop

        def rate(t, a, push=push, edited=edited):
            return push - (40.0 * a / (100.0 + a) if edited else CL / V * a)

        at = [t for t in AFTER if left <= t < right]
        solved = solve_ivp(rate, (left, right), [amount], t_eval=[*at, right], rtol=1e-11, atol=1e-11, method="DOP853")
        found |= dict(zip(at, solved.y[0], strict=False))
        amount = solved.y[0, -1]
    return [found[t] / V for t in AFTER]


@pytest.mark.parametrize("window", [(9.5, 20.0), (0.0, np.inf)])
def test_another_equation_inside_a_window_by_an_independent_integrator(window):
    lived = drip_twin()
    start, stop = window
    edited = lived.do(amount=ht.equation(saturable), start=start or None, stop=None if stop == np.inf else stop)
    found, own = edited.simulate(at=AFTER)["C"], body(lived)
    for draw in (0, 40, 99):
        expected = alone(own["CL"][draw], own["V"][draw], start, stop)
        np.testing.assert_allclose(found[draw], expected, rtol=1e-4)
    assert "equation saturable" in edited.label
    assert start == 0.0 or np.all(ht.contrast(edited, lived, ht.outcomes.peak("C", 2, 9))[0].difference == 0.0)


def test_half_of_the_old_equation_is_the_body_with_halved_rates():
    """By a closed form: half of push - CL/V A is a pump at half its rate in a body with half the clearance."""
    lived = drip_twin()
    slow = lived.do(amount=ht.equation(lambda system, t, x, u: 0.5 * system.rates(t, x, u).amount))
    own = body(lived)
    expected = closed_form(own["CL"] / 2, own["V"], at=AFTER, push=[(t, r / 2) for t, r in PUSH])
    np.testing.assert_allclose(slow.simulate(at=AFTER)["C"], expected, rtol=1e-4)


@pytest.mark.heavy
def test_the_old_equation_written_again_changes_nothing_and_a_body_at_rest_rests_by_the_new_one():
    lived = mesh_twin()
    same = lived.do(amount=ht.equation(lambda system, t, x, u: system.rates(t, x, u).amount), start=2.0)
    assert np.all(ht.contrast(same, lived, ht.outcomes.mean("C"))[0].difference == 0.0)
    person = ht.Person.of("d", start=0, stop=8, time="h", signals={"push": ht.Signal.constant(10.0, "mg/h")})
    given = ht.equation(saturable)
    found = ht.simulate(Drip(CL=3.0, V=30.0), person, start="steady", at=[0.0, 8.0], do=[Do({"amount": given})])["amount"]
    np.testing.assert_allclose(found[0], 100.0 * 10.0 / 30.0, rtol=1e-6)  # 10 = 40 A / (100 + A)
    late = ht.simulate(Drip(CL=3.0, V=30.0), person, start="steady", at=[0.0], do=[Do({"amount": given}, 4.0)])["amount"]
    np.testing.assert_allclose(late[0, 0], 10.0 * 30.0 / 3.0, rtol=1e-12)


def test_the_graph_of_a_mechanism_that_is_another_one():
    lived = drip_twin()
    assert {"CL", "V", "push", "iv"} <= set(ht.graph(lived).parents("amount"))
    for_good = ht.graph(lived.do(amount=ht.equation(saturable)))
    assert set(for_good.parents("amount")) == {"push", "iv"} and for_good.nodes["amount"].done
    assert "CL" in ht.graph(lived.do(amount=ht.equation(saturable), start=5.0)).parents("amount")


def test_an_equation_of_a_whole_finds_its_couplings():
    """A drug that leaves by what the kidney filters: the new equation reads that coupling, and says what the old one said."""
    person = ht.Person.of("v", time="h", start=0, stop=24, doses={"central": ht.Regimen.bolus(1000.0, "mg", at=0.0)},
                          covariates={"weight": (70.0, "kg"), "age": (60.0, "a"), "height": (170.0, "cm"), "female": (0.0, "1")})
    system = ht.physiology.Vancomycin().typical()
    seen = []

    def faster(system, t, x, u):
        seen.append(u.filtration)
        return system.rates(t, x, u).central

    given = {name: person.covariates[name] for name in system.spec.covariates if name in person.covariates}
    doses = {next(iter(system.spec.doses)): person.regimens["central"]}
    person = dataclasses.replace(person, covariates=given, regimens=doses)
    lived = ht.simulate(system, person, at=[6.0, 24.0])
    same = ht.simulate(system, person, at=[6.0, 24.0], do=[Do({"central": ht.equation(faster)})])
    assert seen and all(value is not None for value in seen)
    np.testing.assert_allclose(same["central"], lived["central"], rtol=1e-4)


MISTAKES = {
    "a rate in other units": (UnitError, r"d amount/dt", {"amount": ht.equation(lambda s, t, x, u: x.amount)}),
    "a function of fewer things": (InterventionError, r"\(system, t, x, u\)", {"amount": ht.equation(lambda x: x)}),
    "an output": (UnknownTarget, "what is read of it is 'reading of C'", {"C": (3.0, "mg/L")}),
    "a reading in other units": (UnitError, "mmHg", {"reading of C": (3.0, "mmHg")}),
    "no sensor": (UnknownTarget, "reading of C", {"reading of D": 3.0}),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_is_refused(mistake):
    error, told, targets = MISTAKES[mistake]
    with pytest.raises(error, match=told):
        drip_twin().do(**targets)


# ------------------------------------------------------------------------------------------------ sensors


def test_a_sensor_that_reads_otherwise_changes_readings_and_not_the_body():
    lived = drip_twin()
    high = lived.do(**{"reading of C": lambda r: r + 2.0}, start="08:00", stop="16:00")
    a, b = lived.predict()["C"], high.predict()["C"]
    inside = (a.time >= 8.0) & (a.time < 16.0)
    np.testing.assert_array_equal(b.expectation, a.expectation)
    np.testing.assert_array_equal(b.readings, a.readings + np.where(inside, 2.0, 0.0))
    kept, moved = lived.counterfactual()["C"], high.counterfactual()["C"]
    within = (kept.time >= 8.0) & (kept.time < 16.0)
    np.testing.assert_allclose(moved.readings, kept.readings + np.where(within, 2.0, 0.0), rtol=1e-12)
    assert ht.graph(high).nodes["reading of C"].done


def test_care_that_reads_a_stuck_sensor_is_deceived():
    """A meter that shows 99 mg/L from 12:00 on: the rescues that would have come do not."""
    lived = drip_twin()
    rule = ht.Rescue("reading of C", 50.0, "mg/L", "iv", 10.0, "mg", every="2 h", wait="2 h")  # always below: acts at each look
    cared = lived.do(respond=rule, start=0.0)
    stuck = cared.do(**{"reading of C": (99.0, "mg/L")}, start=12.0)
    times = cared.simulate().acted()["time"].unique()
    fooled = stuck.simulate().acted()["time"].unique()
    np.testing.assert_array_equal(times, np.arange(0.0, 24.0, 2.0))
    np.testing.assert_array_equal(fooled, np.arange(0.0, 12.0, 2.0))
    whole = ht.graph(lived.do(**{"reading of C": 9.0}))
    assert whole.parents("reading of C") == ()


def test_numbers_of_a_stuck_sensor_share_programs():
    assert Stuck(3.0) == Stuck(3.0) and hash(Stuck(3.0)) == hash(Stuck(3.0)) and Stuck(3.0) != Stuck(4.0)


def test_names_of_sensors_that_nothing_else_has_need_no_prefix():
    model = Model(Drip(), meter=ht.sensors.Gaussian("C", sd=0.3))
    record = drip_person()
    person = dataclasses.replace(record, series={"meter": record.series["C"]})
    twin = ht.personalize(model, person, ht.Laplace(), key=0)
    for name in ("meter", "reading of meter"):
        assert np.all(twin.do(**{name: (5.0, "mg/L")}).predict()["meter"].readings == 5.0)
