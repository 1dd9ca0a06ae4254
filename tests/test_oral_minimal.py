"""The oral minimal model against equations written apart, and that nothing which is swallowed is lost."""

import numpy as np
import pytest
from scipy.integrate import solve_ivp

import hybridtwin as ht
from hybridtwin.interventions import Do
from hybridtwin.physiology import BergmanMinimal, OralMinimal

SG, SI, P2, GB, VG, WEIGHT, F = 0.022, 4.2e-4, 0.019, 88.0, 1.6, 82.0, 0.86
HEIGHTS = {"a10": 1.3, "a30": 1.7, "a90": 0.7, "a120": 0.6, "a180": 0.3, "a240": 0.2, "a300": 0.1}
BODY = OralMinimal(body=BergmanMinimal(SG=SG, SI=SI, p2=P2, Gb=GB, VG=VG), F=F, **HEIGHTS)
INSULIN = ([0.0, 20.0, 45.0, 90.0, 150.0, 260.0, 480.0], [7.0, 40.0, 66.0, 50.0, 22.0, 8.0, 7.0])
T = np.array([0.0, 10.0, 30.0, 60.0, 90.0, 120.0, 180.0, 240.0, 300.0, 360.0])
H = np.array([0.0, 1.3, 1.7, 1.0, 0.7, 0.6, 0.3, 0.2, 0.1, 0.0])


def person(doses, stop=480.0):
    return ht.Person.of(
        "p", start=0.0, stop=stop, time="min", doses=doses, covariates={"weight": (WEIGHT, "kg")},
        signals={"insulin": ht.Signal.linear(*INSULIN, "m[IU]/L")},
    )  # fmt: skip


def drink(*at, amount=75.0):
    return {"meal": ht.Regimen.bolus(amount, "g", at=list(at))}


def apart(times, drunk_at):
    """(G [mg/dL], Ra [mg/kg/min]) of the published equations in amounts for each kg; Ra between break points by np.interp."""
    shape = H / np.trapezoid(H, T)
    appears = lambda t: F * 75000.0 / WEIGHT * np.interp(t - drunk_at, T, shape, left=0.0, right=0.0)

    def rates(t, y):
        Q, X = y
        return [-(SG + X) * Q + SG * GB * VG + appears(t), -P2 * X + P2 * SI * (np.interp(t, *INSULIN) - 7.0)]

    options = {"method": "LSODA", "rtol": 1e-10, "atol": 1e-12, "max_step": 1.0}
    found = solve_ivp(rates, (0.0, times[-1]), [GB * VG, 0.0], t_eval=times, **options)
    return found.y[0] / VG, appears(times)


@pytest.mark.parametrize("at", [0.0, 35.0])
def test_the_oral_minimal_model_is_its_equations(at):
    times = np.arange(0.0, 481.0, 8.0)
    G, Ra = apart(times, at)
    found = ht.simulate(BODY, person(drink(at)), at=times, tol=1e-7)
    np.testing.assert_allclose(found["G"][0], G, rtol=2e-6)
    np.testing.assert_allclose(found["appearance"][0], Ra, atol=1e-9)


def test_a_drink_that_do_moves_takes_its_appearance_along():
    times = np.arange(0.0, 481.0, 8.0)
    later = ht.simulate(BODY, person(drink(0.0)), at=times, tol=1e-7, do=[Do({"meal": lambda m: m.shift(35.0, "min")})])
    np.testing.assert_allclose(later["G"][0], apart(times, 35.0)[0], rtol=2e-6)
    double = ht.simulate(BODY, person(drink(0.0)), at=times, tol=1e-7, do=[Do({"meal": lambda m: 2.0 * m})])
    np.testing.assert_allclose(double["appearance"][0], 2.0 * apart(times, 0.0)[1], atol=1e-9)


def test_nothing_that_is_swallowed_is_lost():
    """Two drinks, one eaten over 20 minutes, one while most of the last is still to come."""
    slow = ht.Regimen.infusion(30.0, "g", at=5.0, over="20 min")
    doses = {"meal": drink(0.0)["meal"] + slow + drink(100.0)["meal"] + drink(130.0, amount=20.0)["meal"]}
    times = np.arange(0.0, 601.0)
    found = ht.simulate(BODY, person(doses, stop=600.0), at=times)
    assert found["eaten"][0, -1] == pytest.approx(200.0)
    total = np.trapezoid(found["appearance"][0], times) * WEIGHT / 1000.0
    assert total == pytest.approx(F * 200.0, rel=5e-3)  # trapezoids across the jumps at each drink
    assert found["appearance"][0, -1] == 0.0


def test_without_a_meal_it_is_the_intravenous_model():
    doses, times = {"glucose_iv": ht.Regimen.bolus(24.0, "g", at=0.0)}, np.arange(0.0, 241.0, 10.0)
    found = ht.simulate(BODY, person(doses), at=times)
    np.testing.assert_allclose(found["G"], ht.simulate(BODY.body, person(doses), at=times)["G"], rtol=1e-9)
