"""Dalla Man 2007: the published curve, what a meal, glucose and insulin balance to, and the body with type 2 diabetes."""

import jax
import numpy as np
import pytest

from hybridtwin.physiology import DallaMan2007
from hybridtwin.physiology.reference import Lived, lived
from hybridtwin.signals import Regimen
from hybridtwin.simulate.verb import simulate

CURVE = {30: 141.94, 60: 162.97, 120: 142.60, 180: 104.86, 300: 90.46}  # mg/dL, BioModels BIOMD0000000379
BODIES = {"normal": DallaMan2007, "type 2": DallaMan2007.type2}


def test_the_curve_of_figure_5():
    found = simulate(DallaMan2007().typical(), DallaMan2007.protocol.person("min"), at=[float(t) for t in CURVE], tol=1e-6)
    np.testing.assert_allclose(found["G"][0], list(CURVE.values()), atol=0.05)


@pytest.fixture(scope="module", params=BODIES)
def balance(request):
    """(body, states by name, minutes of Simpson's rule over five hours after the meal of figure 5)."""
    body = BODIES[request.param]().typical()
    at = np.arange(0.0, 300.5, 0.25)
    found = simulate(body, DallaMan2007.protocol.person("min"), at=at, tol=1e-7)
    return body, {name: found[name][0] for name in (*body.spec.states, "Ra", "EGP")}, at


def integral(flow, at):
    """Simpson's rule over pairs of spacings."""
    return float(np.sum(flow[:-2:2] + 4.0 * flow[1:-1:2] + flow[2::2]) * (at[1] - at[0]) / 3.0)


def test_the_meal_arrives_or_is_still_there(balance):
    body, x, at = balance
    left = x["qsto1"] + x["qsto2"] + x["qgut"]
    arrived = integral(x["Ra"][1:] * 78.0 / float(body.f), at[1:])  # from a quarter of a minute on: it is eaten in a second
    assert left[1] - left[-1] == pytest.approx(arrived, rel=1e-5) and left[1] == pytest.approx(78e3, rel=1e-3)


def test_glucose_made_and_eaten_is_used_or_stays(balance):
    """d(Gp + Gt)/dt = EGP + Ra - Uii - E - U, the exchange between the two written nowhere."""
    body, x, at = balance
    used = body.muscle * (body.Vm0 + body.VmX * x["X"]) * x["Gt"] / (body.Km0 + x["Gt"])
    lost = body.ke1 * np.maximum(x["Gp"] - body.ke2, 0.0)
    flow = x["EGP"] + x["Ra"] - body.Uii - lost - used
    gained = x["Gp"][-1] + x["Gt"][-1] - x["Gp"][1] - x["Gt"][1]
    assert gained == pytest.approx(integral(np.asarray(flow)[1:], at[1:]), abs=1e-3 * x["Gp"][0])


def test_insulin_secreted_is_degraded_or_stays(balance):
    """d(Ipo + Il + Ip)/dt = Y + Sb + K max(0, dG/dt) - m3 Il - m4 Ip, the ways between the three written nowhere."""
    body, x, at = balance
    exchange = body.k1 * x["Gp"] - body.k2 * x["Gt"]
    rise = x["EGP"] + x["Ra"] - body.Uii - body.ke1 * np.maximum(x["Gp"] - body.ke2, 0.0) - exchange
    secreted = x["Y"] + body.Sb + body.K * np.maximum(rise / body.VG, 0.0)
    extraction = body.m6 - body.m5 * body.gamma * x["Ipo"]
    degraded = extraction * body.m1 / (1.0 - extraction) * x["Il"] + body.m4 * x["Ip"]
    held = x["Ipo"] + x["Il"] + x["Ip"]
    flow = np.asarray(secreted - degraded)[1:]
    assert held[-1] - held[1] == pytest.approx(integral(flow, at[1:]), abs=2e-3 * integral(np.abs(flow), at[1:]))


def test_what_rests_in_type_2_is_where_it_begins():
    """The rest of the paper's numbers by bisection in `type2` is the one found by going there."""
    body, spec = DallaMan2007.type2().typical(), DallaMan2007.spec
    u = spec.input({"weight": 91.0})
    with jax.enable_x64(True):
        rest, begin = spec.flatten(body.steady(u)), spec.flatten(body.initial(u))
    for name, value in begin.items():
        assert float(rest[name]) == pytest.approx(float(value), rel=1e-6, abs=1e-6), name
    assert 140.0 < float(rest["Gp"]) / float(body.VG) < 190.0


def test_type_2_rises_higher_and_comes_back_later():
    """Figure 7 of the paper against figure 5: glucose is higher throughout, and insulin's peak comes later."""
    normal, sick = lived(DallaMan2007), lived(DallaMan2007.type2())
    assert (sick["G"] > normal["G"] + 30.0).all()
    assert np.argmax(sick["I"]) > np.argmax(normal["I"]) and np.argmax(sick["G"]) > np.argmax(normal["G"])
    assert sick.at("G", 300.0) - sick["G"][0] > normal.at("G", 300.0) - normal["G"][0] + 10.0


def test_a_better_pancreas_and_a_smaller_meal_lower_the_peak():
    found = lived(DallaMan2007)
    half = found.again(doses={"meal": Regimen.bolus(39.0, "g", at=0.0)})
    better = Lived(found.body.with_values({"beta": 2.0 * found.body.beta}), found.protocol)
    assert half["G"].max() < found["G"].max() - 10.0 and better["G"].max() < found["G"].max() - 5.0
