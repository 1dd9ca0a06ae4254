"""Hovorka 2004: rates written apart and integrated by scipy, carbohydrate, rest in closed form, and interventions."""

import itertools

import jax
import numpy as np
import pytest
from scipy.integrate import quad, solve_ivp

from hybridtwin.interventions import Do
from hybridtwin.physiology import Hovorka2004
from hybridtwin.physiology.reference import lived
from hybridtwin.records import Person
from hybridtwin.signals import Regimen, Signal
from hybridtwin.simulate.verb import simulate

ORDER = ("D1", "D2", "S1", "S2", "I", "x1", "x2", "x3", "Q1", "Q2", "C")


def written_apart(y, basal):
    """The paper's equations in its own units: mmol and mU of the whole body of 70 kg, basal in mU/min."""
    D1, D2, S1, S2, I, x1, x2, x3, Q1, Q2, C = y
    W, ka, S = 70.0, (0.006, 0.06, 0.03), (51.2e-4, 8.2e-4, 520e-4)
    VG = 0.16 * W
    G = Q1 / VG
    F01 = 0.0097 * W * (1.0 if G >= 4.5 else G / 4.5)
    FR = 0.003 * (G - 9.0) * VG if G >= 9.0 else 0.0
    made = 0.0161 * W * (1.0 - x3) if x3 < 1.0 else 0.0
    return [
        -D1 / 40.0,
        (D1 - D2) / 40.0,
        basal - S1 / 55.0,
        (S1 - S2) / 55.0,
        S2 / (55.0 * 0.12 * W) - 0.138 * I,
        *(-k * x + k * s * I for k, s, x in zip(ka, S, (x1, x2, x3), strict=True)),
        -(F01 / (VG * G) + x1) * Q1 + k12 * Q2 - FR + D2 / 40.0 + made,
        x1 * Q1 - (k12 + x2) * Q2,
        (G - C) / 10.7,
    ]


k12 = 0.066


def day(basal=0.384, stop=600.0, **doses):
    return Person.of("anna", start=0.0, stop=stop, time="min", doses=doses, covariates={"weight": (70.0, "kg")},
                     signals={"basal": Signal.constant(basal, "[IU]/h")})  # fmt: skip


def test_the_paper_written_apart():
    """A day through all pieces: a large meal (renal loss), then too much insulin (low glucose, production at 0)."""
    person = day(meal=Regimen.bolus([60.0, 20.0], "g", at=[60.0, 420.0]), bolus=Regimen.bolus(12.0, "[IU]", at=180.0))
    at = np.arange(0.0, 601.0, 10.0)
    found = simulate(Hovorka2004().typical(), person, at=at, tol=1e-7)
    whole = np.array([0.8 * 1000.0 / 180.16] * 2 + [1000.0] * 2 + [1.0] * 4 + [70.0] * 2 + [1.0])
    y = np.array([found[n][0, 0] for n in ORDER]) * whole
    G, guarded = [], []
    for a, b in itertools.pairwise((0.0, 60.0, 180.0, 420.0, 600.0)):
        y = y + np.eye(11)[0] * {60.0: 60.0, 420.0: 20.0}.get(a, 0.0) * whole[0] + np.eye(11)[2] * 12000.0 * (a == 180.0)
        inside = at[(at > a) & (at < b)]
        other = solve_ivp(lambda t, y: written_apart(y, 6.4), (a, b), y, method="LSODA", rtol=1e-10, atol=1e-12,
                          t_eval=[*inside, b], max_step=1.0)  # fmt: skip
        for n, name in enumerate(ORDER):
            ours = np.array([found[name][0, np.flatnonzero(at == t)[0]] for t in inside]) * whole[n]
            np.testing.assert_allclose(ours, other.y[n, :-1], rtol=2e-5, atol=1e-5 * np.abs(found[name]).max() * whole[n],
                                       err_msg=name)  # fmt: skip
        y = other.y[:, -1]
        G += list(other.y[8] / 11.2)
        guarded += list(other.y[7] > 1.0)
    assert max(G) > 9.0 and min(G) < 4.5 and any(guarded)  # all pieces were lived through


def test_what_is_eaten_is_absorbed_or_left():
    body = Hovorka2004().typical()
    at = np.arange(0.0, 361.0, 1.0)
    found = simulate(body, day(stop=360.0, meal=Regimen.bolus(60.0, "g", at=0.0)), at=at, tol=1e-8)
    flow = found["appearance"][0] * 70.0 * 180.16e-6  # g/min
    absorbed = np.sum((flow[:-2:2] + 4 * flow[1:-1:2] + flow[2::2]) / 3)
    left = found["D1"][0, -1] + found["D2"][0, -1]
    assert left > 0.01 and absorbed / 0.8 + left == pytest.approx(60.0, rel=1e-6)
    closed = quad(lambda t: 60.0 * 0.8 * t * np.exp(-t / 40.0) / 40.0**2, 0.0, 360.0)[0]  # the paper's closed form
    assert absorbed == pytest.approx(closed, rel=1e-6)


@pytest.mark.parametrize("basal", [0.0, 0.2, 0.35, 0.5, 1.0, 2.0])
def test_rest_by_pieces_does_not_move(basal):
    """Above the renal threshold, between, below 4.5 mmol/L, and where production has ended."""
    body, u = Hovorka2004().typical(), Hovorka2004.spec.input({"basal": basal, "weight": 70.0})
    with jax.enable_x64(True):
        rest = body.steady(u)
        change = Hovorka2004.spec.flatten(body.rates(0.0, rest, u))
    size = Hovorka2004.spec.flatten(rest)
    for name, value in change.items():
        assert abs(float(value)) <= 1e-12 * max(1.0, abs(float(size[name]))), name


def test_rests_lie_on_all_pieces():
    body = Hovorka2004().typical()
    G = [float(body.steady(Hovorka2004.spec.input({"basal": b, "weight": 70.0})).C) for b in (0.0, 0.384, 0.6, 3.0)]
    assert G[0] > 9.0 > G[1] > 4.5 > G[2] > G[3] == 0.0


@pytest.mark.parametrize("glucose", [60.0, 110.0, 200.0])
def test_the_basal_rate_that_holds_a_glucose(glucose):
    body = Hovorka2004().typical()
    with jax.enable_x64(True):
        rate = body.basal_for(glucose, Hovorka2004.spec.input({"basal": 0.0, "weight": 70.0}))
        rest = body.steady(Hovorka2004.spec.input({"basal": rate, "weight": 70.0}))
    assert float(rest.C) * 18.016 == pytest.approx(glucose, rel=1e-10)
    assert float(body.basal_for(500.0, Hovorka2004.spec.input({"basal": 0.0, "weight": 70.0}))) == 0.0


def test_insulin_lowers_and_a_meal_raises():
    found = lived(Hovorka2004)
    at = np.arange(61.0, 481.0, 10.0)
    person = found.protocol.person("min")
    as_lived, more, no_meal = (
        simulate(found.body, person, at=at, do=do)["G"][0]
        for do in ([], [Do({"bolus": lambda b: 1.5 * b})], [Do({"meal": lambda m: 0.0 * m})])
    )
    assert (more < as_lived).all() and (no_meal < as_lived).all()
    assert as_lived[-1] - more[-1] > 10.0
