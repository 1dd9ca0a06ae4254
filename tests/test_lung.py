"""Breathing: rates written apart and integrated by scipy, gases conserved, the alveolar gas equation, interventions."""

import itertools

import jax
import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.optimize import brentq

from hybridtwin.interventions import Do
from hybridtwin.physiology import REGISTRY
from hybridtwin.physiology.reference import lived
from hybridtwin.priors import logitnormal, lognormal, normal
from hybridtwin.records import Person
from hybridtwin.signals import Signal
from hybridtwin.simulate.verb import simulate

MADE = 0.29 * (0.7 * 0.632 + 1.0 - 0.632)  # carbon dioxide [L/min] of the oxygen used: .632 of it burns fat
STATES = ("PAO2", "PACO2", "vO2", "vCO2", "brain", "lagO2", "lagCO2")


def oxygen(P, p):
    F = P * (1.0 + 0.008275 * p) / (14.99 * (1.0 + 0.03198 * p))
    return 9.0 * 0.0227 / (1.0 + F ** (-1.0 / 0.3836))


def dioxide(P, p):
    F = p * (1.0 + 0.03255 * P) / (194.4 * (1.0 + 0.05591 * P))
    return 87.0 * 0.0227 / (1.0 + F ** (-1.0 / 1.819))


def pressures(O2, CO2):
    """By roots, one inside the other, where the system has a formula."""

    def inner(P):
        return brentq(lambda p: dioxide(P, p) - CO2, 1.0, 200.0, xtol=1e-12)

    P = brentq(lambda P: oxygen(P, inner(P)) - O2, 1.0, 400.0, xtol=1e-11)
    return P, inner(P)


def breathing(y, PIO2, PICO2, work=1.0, flow=5.0):
    A, C, vO2, vCO2, brain, lagO, lagC = y
    VE = max(0.0, 30.24 * np.exp(-0.05 * lagO) * (lagC - 35.5)) + max(0.0, 1.44 * (brain - 9.2 - 35.5))
    VA = max(0.0, VE - 2.4)
    cO, cC = oxygen(A, C), dioxide(A, C)
    aO, aC = 0.98 * cO + 0.02 * vO2, 0.98 * cC + 0.02 * vCO2
    P, p = pressures(aO, aC)
    return [
        (VA * (PIO2 - A) - 863.0 * flow * 0.98 * (cO - vO2)) / 2.5,
        (VA * (PICO2 - C) + 863.0 * flow * 0.98 * (vCO2 - cC)) / 3.2,
        (flow * (aO - vO2) - 0.29 * work) / 6.0,
        (MADE * work - flow * (vCO2 - aC)) / 15.0,
        (9.2 - brain + lagC) / 1.29,
        (P - lagO) / 0.15,
        (p - lagC) / 0.15,
    ]


def test_the_pressures_of_blood_are_found_again():
    body = lived(REGISTRY["Respiration"]).body
    P, p = np.meshgrid(np.linspace(15.0, 120.0, 12), np.linspace(15.0, 80.0, 8))
    with jax.enable_x64(True):
        contents = body.contents(P, p)
        found = body.pressures(*contents)
    np.testing.assert_allclose(contents[0], oxygen(P, p), rtol=1e-10)
    np.testing.assert_allclose(contents[1], dioxide(P, p), rtol=1e-10)
    np.testing.assert_allclose(found[0], P, rtol=1e-9)
    np.testing.assert_allclose(found[1], p, rtol=1e-9)
    np.testing.assert_allclose(pressures(0.19, 0.48), body.pressures(0.19, 0.48), rtol=1e-5)


@pytest.mark.heavy
def test_breathing_is_that_written_apart():
    found = lived(REGISTRY["Respiration"])
    y = np.array([found[n][0] for n in STATES])
    np.testing.assert_allclose(breathing(y, 149.2, 0.0), 0.0, atol=1e-7)  # begins at rest
    edges = [
        (0.0, 149.2, 0.0),
        (10.0, 86.0, 0.0),
        (20.0, 149.2, 0.0),
        (40.0, 149.2, 35.7),
        (50.0, 149.2, 0.0),
        (60.0, 0, 0),
    ]
    for (a, O2, CO2), (b, _, _) in itertools.pairwise(edges):
        inside = found.time[(found.time > a) & (found.time < b)][::8]
        other = solve_ivp(lambda t, y, O2=O2, CO2=CO2: breathing(y, O2, CO2), (a, b), y, method="LSODA", rtol=1e-10, atol=1e-12,
                          t_eval=[*inside, b])  # fmt: skip
        for name, expected in zip(STATES, other.y, strict=True):
            np.testing.assert_allclose(
                np.interp(inside, found.time, found[name]), expected[:-1], rtol=1e-4, err_msg=name
            )
        y = other.y[:, -1]


@pytest.mark.heavy
def test_the_alveolar_gas_equation_at_rest():
    """PACO2 = inspired + 863 RQ MRO2 / VA and its kin for oxygen, at sea level, at altitude, at work."""
    day = lived(REGISTRY["Respiration"])
    for O2, work, flow in ((149.2, 1.0, 5.0), (86.0, 1.0, 5.0), (149.2, 3.0, 10.0)):
        rest = day.again(stop=1.0, signals={"inspired_O2": Signal.constant(O2, "mmHg"), "work": Signal.constant(work, "1"),
                                            "flow": Signal.constant(flow, "L/min")})  # fmt: skip
        VA = rest["VE"][-1] - 2.4
        assert rest["PACO2"][-1] == pytest.approx(863.0 * MADE * work / VA, rel=1e-7)
        assert rest["PAO2"][-1] == pytest.approx(O2 - 863.0 * 0.29 * work / VA, rel=1e-7)
        np.testing.assert_allclose(rest["VE"], rest["VE"][0], rtol=1e-7)
        # in the usual form: inspired less carbon dioxide over the respiratory quotient
        assert rest["PAO2"][-1] == pytest.approx(O2 - rest["PACO2"][-1] * 0.29 / MADE, rel=1e-7)


@pytest.mark.heavy
def test_both_gases_are_conserved():
    """Stores in lung and tissue change by what is breathed and what is used or made, through the whole day."""
    day = lived(REGISTRY["Respiration"])
    t = np.linspace(0.0, 60.0, 6001)
    found = simulate(day.body, day.protocol.person("min"), at=t)
    VA = np.maximum(found["VE"][0] - 2.4, 0.0)
    O2, CO2 = np.where((t >= 10.0) & (t < 20.0), 86.0, 149.2), np.where((t >= 40.0) & (t < 50.0), 35.7, 0.0)
    for gas, (lung, tissue), inspired, made in (("O2", (2.5, 6.0), O2, -0.29), ("CO2", (3.2, 15.0), CO2, MADE)):
        stored = lung / 863.0 * found[f"PA{gas}"][0] + tissue * found[f"v{gas}"][0]
        flow = VA * (inspired - found[f"PA{gas}"][0]) / 863.0 + made
        # within pieces: the inspired gas jumps between them
        for a, b in ((0, 1000), (1000, 2000), (2000, 4000), (4000, 5000), (5000, 6001)):
            change = np.trapezoid(flow[a:b], t[a:b])
            assert stored[b - 1] - stored[a] == pytest.approx(
                change, abs=2e-4 * np.abs(flow).max() + 1e-3 * abs(change)
            ), gas


@pytest.mark.heavy
def test_what_breathing_answers():
    day = lived(REGISTRY["Respiration"])
    person = day.again(signals={}).protocol.person("min")

    def after(**changed):
        found = simulate(day.body, person, at=[0.0, 30.0], do=[Do(changed, start=5.0)])
        return {n: found[n][0, 1] - found[n][0, 0] for n in ("PaO2", "PaCO2", "SaO2", "VE")}

    high, gas, work, slow = after(inspired_O2=86.0), after(inspired_CO2=35.7), after(work=2.0), after(flow=3.5)
    assert high["VE"] > 0.3 and high["PaO2"] < -40.0 and high["PaCO2"] < -0.5 and high["SaO2"] < -8.0
    assert gas["VE"] > 5.0 and 1.0 < gas["PaCO2"] < 12.0
    assert work["VE"] > 4.0 and 0.0 < work["PaCO2"] < 8.0
    assert slow["PaO2"] < 0.0 and abs(slow["PaCO2"]) < 1.0
    assert after(inspired_O2=300.0)["VE"] < 0.0


@pytest.mark.heavy
def test_everybody_drawn_can_breathe_at_altitude():
    """Bodies from priors twice as wide: none makes so little carbon dioxide that it breathes too little for its oxygen."""
    wide = {"Gc": lognormal(1.44, 0.5), "Gp": lognormal(30.24, 0.5), "I": normal(35.5, 2.0), "MRO2": lognormal(0.29, 0.2),
            "fat": logitnormal(0.632, 1.0), "VD": lognormal(2.4, 0.3), "shunt": logitnormal(0.02, 0.6)}  # fmt: skip
    system = REGISTRY["Respiration"](**wide)
    assert set(wide) == set(REGISTRY["Respiration"]().priors())
    altitude = Signal.steps([0.0, 10.0], [149.2, 86.0], "mmHg")
    person = Person.of("high", start=0.0, stop=25.0, time="min", signals={"inspired_O2": altitude})
    found = simulate(system, person, at=[0.0, 25.0], draws=256, key=0)
    assert not found.failed.any(), found.failures
    assert found["SaO2"][:, -1].min() > 20.0 and 70.0 < np.median(found["SaO2"][:, -1]) < 95.0
