"""Care that reads sensors, late and with their error, and care that titrates: by closed forms and the twin's own readings."""

import numpy as np
import pytest
from small import drip_twin, mesh_twin, oral_person
from test_twin import body, closed_form

import hybridtwin as ht
from hybridtwin.engine import double
from hybridtwin.errors import DeclarationError, InterventionError, UnknownTarget, UnrelatedTwins
from hybridtwin.interventions import Rescue, Titrate
from hybridtwin.physiology import OneCompartmentOral
from hybridtwin.twin import _new_readings, simulate_worlds

AT = np.array([5.0, 9.5, 14.0, 17.5, 23.5])


def test_a_protocol_changes_all_later_doses():
    """Twice below 5 mg/L at 8:00, half above 8 at 16:00: at the first look every draw is below, at the second all are above."""
    lived = drip_twin()
    care = Titrate("C", "iv", below=(5.0, "mg/L"), up=2.0, above=(8.0, "mg/L"), down=0.25, every="8 h")
    found = lived.do(respond=care, start=0).simulate(at=AT)
    expected = closed_form(**body(lived), at=AT, boluses=[(1.0, 120.0), (9.0, 240.0), (17.0, 60.0)])
    np.testing.assert_allclose(found["C"], expected, rtol=1e-8)
    act = found.acts[0]
    assert act.does == "titrate" and np.array_equal(act.times, np.tile([8.0, 16.0], (100, 1)))
    np.testing.assert_allclose(act.values, np.tile([2.0, 0.5], (100, 1)))
    np.testing.assert_allclose(act.factor_at(7.9), 1.0)
    np.testing.assert_allclose(act.factor_at(8.0), 2.0)
    assert "titrated in 100 of 100 draws; its factor ends at 0.5" in " ".join(found.notes)


def test_a_factor_stays_inside_its_bounds_and_scales_a_pump():
    lived = drip_twin()
    care = Titrate("C", "push", below=(50.0, "mg/L"), up=2.0, every="6 h", most=3.0)
    found = lived.do(respond=care, start=0).simulate(at=AT)
    push = [(0.0, 10.0), (6.0, 20.0), (12.0, 48.0)]
    np.testing.assert_allclose(found["C"], closed_form(**body(lived), at=AT, push=push), rtol=1e-8)


def test_what_is_seen_late_is_what_was_measured_then():
    """At 9:30 the level is above 5 because of the bolus at 9:00; the level of 8:30, which is what care sees, is below."""
    lived = drip_twin()
    how = {"below": (5.0, "mg/L"), "up": 2.0, "every": "9.5 h"}
    late = lived.do(respond=Titrate("C", "iv", delay="1 h", **how), start=0).simulate(at=AT)
    now = lived.do(respond=Titrate("C", "iv", **how), start=0).simulate(at=AT)
    doubled = closed_form(**body(lived), at=AT, boluses=[(1.0, 120.0), (9.0, 120.0), (17.0, 240.0)])
    np.testing.assert_allclose(late["C"], doubled, rtol=1e-8)
    np.testing.assert_allclose(now["C"], closed_form(**body(lived), at=AT), rtol=1e-8)


@pytest.mark.parametrize("twin", [drip_twin, mesh_twin], ids=["exact", "mesh"])
def test_care_reads_the_sensor_as_the_twin_predicts_it(twin):
    """The reading that care sees at 4:00, measured at 3:00, is the one that `predict` draws for that time."""
    lived = twin()
    fit, day = lived.fits[0], lived.days[0]
    level = float(np.median(lived.simulate(at=[3.0])["C"]))  # half of the readings are below
    care = Titrate("reading of C", "iv", below=(level, "mg/L"), up=3.0, every="4 h", delay="1 h")
    cared, plain = simulate_worlds([lived.do(respond=care, start=0), lived], at=[3.0, 7.0])
    with double():
        readings = _new_readings(fit, "C", plain["C"], np.array([3.0, 7.0]), day.bound, lived.key)[:, 0]
    acted = cared.acts[0].times[:, 0] == 4.0
    np.testing.assert_array_equal(acted, readings < level)
    assert 10 < acted.sum() < 90 and not np.array_equal(acted, plain["C"][:, 0] < level), "with its error"
    again = simulate_worlds([lived.do(respond=care, start=0)], at=[3.0, 7.0])[0]
    np.testing.assert_array_equal(again.acts[0].times, cared.acts[0].times)


def test_a_rescue_may_read_a_sensor_too():
    lived = drip_twin()
    exact = lived.do(respond=Rescue("C", 4.0, "mg/L", "iv", 60.0, "mg", every="1 h", wait="4 h"), start=2).simulate()
    read = lived.do(respond=Rescue("reading of C", 4.0, "mg/L", "iv", 60.0, "mg", every="1 h", wait="4 h"), start=2).simulate()
    assert not np.array_equal(exact.acts[0].count, read.acts[0].count)
    assert "reading of C" in ht.graph(lived.do(respond=Rescue("reading of C", 4.0, "mg/L", "iv", 60.0, "mg"))).parents("rule 1")


# ------------------------------------------------------------------------------------------------ side by side


def test_how_much_was_given_counts_what_care_did():
    """In closed form: three boluses of 120 mg, of which a protocol doubles two; a rescue adds its own; a stop takes the rest."""
    lived = drip_twin()
    plain = lived.simulate()
    np.testing.assert_allclose(plain.given("iv"), 360.0)
    np.testing.assert_allclose(plain.given("iv", 2.0, 10.0), 120.0)
    np.testing.assert_allclose(plain.given("push"), 12 * 10.0 + 12 * 16.0)
    doubled = lived.do(respond=Titrate("C", "iv", below=(5.0, "mg/L"), up=2.0, every="8 h", most=2.0), start=0).simulate()
    np.testing.assert_allclose(doubled.given("iv"), 120.0 + 240.0 + 240.0)
    slow = lived.do(respond=Titrate("C", "push", below=(50.0, "mg/L"), up=2.0, every="6 h", most=2.0), start=0).simulate()
    np.testing.assert_allclose(slow.given("push"), 6 * 10.0 + 6 * 20.0 + 12 * 32.0)
    rescued = lived.do(respond=Rescue("C", 3.0, "mg/L", "iv", 60.0, "mg", every="1 h", wait="4 h"), start=0).simulate()
    np.testing.assert_allclose(rescued.given("iv"), 360.0 + 60.0 * rescued.acts[0].count)
    held = lived.do(respond=ht.When("C", above=(6.0, "mg/L"), stop="iv"), start=0).simulate()
    first = held.acts[0].times[:, 0]
    np.testing.assert_allclose(held.given("iv"), 120.0 * sum((t < first) | np.isnan(first) for t in (1.0, 9.0, 17.0)))
    with pytest.raises(KeyError, match="no dose or signal"):
        plain.given("oral")


def test_what_a_stop_left_off_is_known_when_it_goes_on():
    """A pump suspended above a level until another: what it gave closes the balance of the drug, draw by draw."""
    lived = drip_twin()
    rule = ht.When("C", above=(5.0, "mg/L"), stop="push", until=(4.6, "mg/L"), at_most=16)
    found = lived.do(respond=rule, start=0).simulate(at=np.linspace(0.0, 24.0, 9601))
    body, index = lived.fits[0].values, np.linspace(0, lived.fits[0].count - 1, len(found.failed)).round().astype(int)
    CL, V = body["CL"][index], body["V"][index]
    left = (found["C"][:, -1] - found["C"][:, 0]) * V
    gone = CL * np.trapezoid(found["C"], found.time, axis=1)
    act = found.acts[0]
    assert act.count.max() > 1 and np.isfinite(act.ends).any()
    assert np.all(np.isnan(act.ends) | (act.ends > act.times))
    np.testing.assert_allclose(found.given("push"), left + gone - 360.0, rtol=5e-3)
    assert np.all(found.given("push") < lived.simulate().given("push"))
    doses = lived.do(respond=ht.When("C", above=(5.0, "mg/L"), stop="iv", until=(4.6, "mg/L"), at_most=16), start=0).simulate()
    begin, end = doses.acts[0].off()
    on = sum(1 - ((begin <= t) & (t < end)).any(axis=1) for t in (1.0, 9.0, 17.0))
    np.testing.assert_allclose(doses.given("iv"), 120.0 * on)


def test_lived_frozen_and_reactive_care_side_by_side():
    """Half the boluses: with frozen care the level falls, with a protocol the dose comes back instead."""
    lived = drip_twin()
    protocol = Titrate("C", "iv", below=(7.0, "mg/L"), up=2.0, every="8 h", most=2.0)
    found = ht.care(lived, protocol, iv=lambda b: 0.5 * b)
    assert list(found) == ["lived", "frozen", "reactive"] and "frozen" in repr(found)
    table = found.table(ht.outcomes.mean("C", 17.5, 24), ht.outcomes.given("iv", unit="mg")).set_index(["outcome", "scenario"])
    given = table.loc["iv given", "q50"]
    assert dict(given) == {"lived": 360.0, "frozen": 180.0, "reactive": 300.0}
    level = table.xs("mean C, Tue 24 Mar 17:30 to Wed 25 Mar 00:00 (6.5 h)")["difference_q50"]
    assert level["frozen"] < level["reactive"] < 0.0 and np.isnan(level["lived"])
    courses = found.simulate(at=AT)
    assert courses.sizes == {"scenario": 3, "draw": 100, "time": 5} and courses["C"].attrs["units"] == "mg/L"
    np.testing.assert_array_equal(courses["C"].sel(scenario="lived"), lived.simulate(at=AT)["C"])
    np.testing.assert_allclose(courses["C"].sel(scenario="frozen"), found["frozen"].simulate(at=AT)["C"], rtol=1e-9)
    assert found.plot().axes
    with pytest.raises(UnrelatedTwins, match="no world of the same twin"):
        ht.scenarios(lived=lived, other=mesh_twin())
    with pytest.raises(DeclarationError, match="twins by name"):
        ht.scenarios()


def cared(rule):
    return drip_twin().do(respond=rule)


MISTAKES = {
    "no level": (DeclarationError, "below=, above= or both", lambda: Titrate("C", "iv")),
    "levels crossed": (DeclarationError, "Swap", lambda: Titrate("C", "iv", below=(9, "mg/L"), above=(3, "mg/L"))),
    "a bare level": (DeclarationError, "is \\(number, unit\\)", lambda: Titrate("C", "iv", below=9.0)),
    "factors": (DeclarationError, "factors above 0", lambda: Titrate("C", "iv", below=(9, "mg/L"), up=-1.0)),
    "too late": (DeclarationError, "Look less often", lambda: Titrate("C", "iv", below=(9, "mg/L"), every="1 h", delay="2 h")),
    "an unknown dose": (UnknownTarget, "no dose or signal", lambda: cared(Titrate("C", "oral", below=(9, "mg/L")))),
    "an unknown output": (UnknownTarget, "Sensors: C", lambda: cared(Titrate("Q", "iv", below=(9, "mg/L")))),
    "no sensor to read": (UnknownTarget, "no output", lambda: ht.simulate(
        OneCompartmentOral(ka=1.0, CL=3.0, V=30.0, tlag=0.0), oral_person(),
        do=[Rescue("reading of C", 3.0, "mg/L", "iv", 5.0, "mg")])),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_care_refuses(mistake):
    error, told, attempt = MISTAKES[mistake]
    with pytest.raises(error, match=told):
        attempt()


# ------------------------------------------------------------------------------------------------ her own day


def test_her_own_day_keeps_the_errors_of_its_readings():
    """In the lived world it is the record, in every draw; in another it moved by what the model says; `predict` differs."""
    lived = drip_twin()
    seen = lived.days[0].bound.readings["C"]
    same = lived.counterfactual()["C"]
    np.testing.assert_allclose(same.readings, np.tile(seen.value, (100, 1)), rtol=1e-12)
    half = lived.do(iv=lambda b: 0.5 * b)
    found = half.counterfactual()["C"]
    moved = half.simulate(at=seen.time)["C"] - lived.simulate(at=seen.time)["C"]
    np.testing.assert_allclose(found.readings, seen.value + moved, rtol=1e-9)
    new = half.predict()["C"]
    at = np.searchsorted(new.time, seen.time)
    assert np.all(np.std(found.readings, axis=0) < np.std(new.readings[:, at], axis=0)), "surer than of somebody like her"
    ahead = lived.forecast("6 h")
    with pytest.raises(InterventionError, match="nobody has lived"):
        ahead.counterfactual()


def test_errors_are_kept_as_the_sensor_makes_them():
    value, mean, other = np.array([2.0, 9.0]), np.array([1.0, 10.0]), np.array([2.0, 5.0])
    np.testing.assert_allclose(ht.sensors.LogNormal("C", sd=0.1).moved(value, mean, other), [4.0, 4.5], rtol=1e-6)
    found = ht.sensors.Combined1("C", add=1.0, prop=0.5).moved(value, mean, other)
    np.testing.assert_allclose(found, [2.0 + 1.0 * 2.0 / 1.5, 5.0 - 1.0 * 3.5 / 6.0], rtol=1e-6)
    found = ht.sensors.Combined2("C", add=3.0, prop=0.4).moved(value, mean, other)
    np.testing.assert_allclose(found[1], 5.0 - np.sqrt(13.0) / 5.0, rtol=1e-6)
    with pytest.raises(InterventionError, match="a count has no error"):
        ht.sensors.Poisson("C").moved(value, mean, other)
