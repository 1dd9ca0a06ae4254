"""Hormones: right-hand sides written apart and integrated by scipy, balances, rest, and what interventions do."""

import itertools

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from hybridtwin.interventions import Do
from hybridtwin.physiology import REGISTRY
from hybridtwin.physiology.reference import lived
from hybridtwin.signals import Regimen, Signal
from hybridtwin.simulate.verb import simulate


def apart(rates, start, times, breaks=()):
    """The solution at `times` by DOP853 at 1e-10, begun anew at each break, where (time, index, amount) may be added."""
    breaks = sorted(breaks)
    edges = [times[0], *(b[0] for b in breaks), times[-1] + 1e-9]
    y, rows = np.array(start, float), []
    for i, (a, b) in enumerate(itertools.pairwise(edges)):
        if i and len(breaks[i - 1]) == 3:
            y[breaks[i - 1][1]] += breaks[i - 1][2]
        inside = times[(times >= a) & (times < b)]
        found = solve_ivp(rates, (a, b), y, method="DOP853", rtol=1e-10, atol=1e-12, t_eval=[*inside, b], max_step=5.0)
        rows.append(found.y[:, :-1])
        y = found.y[:, -1]
    return np.concatenate(rows, axis=1)


def gland(t, y, citrate, calcium):
    """Shrestha 2010 as printed (A, B, S and k from x1_n, x2_n, x2_min and x2_max), with calcium of `Shrestha2010`."""
    x1, x2, Ca, held = y
    l1, l2, n1, n2, least, most, Ca0 = 0.0125, 0.5595, 490.78, 6.629, 0.6697, 14.043, 1.255
    k = l2 * n2 + l1 * n1
    A, B = l1 * l2 * most / (k - l2 * most), l1 * l2 * least / (k - l2 * least)
    m = 112.52 / (1.0 + np.exp(-300.0 * (1.2162 - Ca))) + 15.0
    S = Ca0 * (-(n1 * B - l2 * n2) / (n1 * A - l2 * n2)) ** (1.0 / m)
    out = (A - B) / (1.0 + (Ca / S) ** m) + B
    bound = citrate(t) / 30.0 * Ca / (0.35 + Ca)
    back = 0.001 * (Ca0 * (0.7 + 0.3 * x2 / n2) - Ca)
    return [k - (out + l1) * x1, out * x1 - l2 * x2, calcium(t) / 30.0 - bound + 0.023 * held + back, bound - 0.023 * held]


def test_the_parathyroid_gland_is_that_of_shrestha():
    found = lived(REGISTRY["Shrestha2010"])
    start = [490.78, 6.629, 1.255, 0.0]
    np.testing.assert_allclose([found[n][0] for n in ("gland", "PTH", "Ca", "chelate")], start, rtol=1e-4, atol=1e-12)
    np.testing.assert_allclose(gland(0.0, start, lambda t: 0.0, lambda t: 0.0), 0.0, atol=1e-12)  # at rest
    # and the steady PTH under a calcium that stays is between x2_min and x2_max of the paper
    np.testing.assert_allclose(found.body.levels(), (14.043, 0.6697), rtol=1e-4)
    citrate = lambda t: 0.8 if 30 <= t < 40 else 0.175 if 40 <= t < 150 else 0.0
    calcium = lambda t: 0.6 if 360 <= t < 370 else 0.01 if t >= 370 else 0.0
    breaks = [(t,) for t in (30.0, 40.0, 150.0, 360.0, 370.0)]
    other = apart(lambda t, y: gland(t, y, citrate, calcium), start, found.time, breaks)
    for name, expected in zip(("gland", "PTH", "Ca", "chelate"), other, strict=True):
        np.testing.assert_allclose(found[name], expected, rtol=2e-3, atol=1e-3 * expected.max(), err_msg=name)


def test_calcium_that_bone_does_not_touch_is_conserved():
    """kb = 0: ionized and held calcium change by what is infused, whatever citrate does."""
    day = lived(REGISTRY["Shrestha2010"]).again(parameters={"kb": 0.0})
    total = day["Ca"] + day["chelate"]
    given = 0.6 * np.clip(day.time - 360.0, 0.0, 10.0) + 0.01 * np.clip(day.time - 370.0, 0.0, None)
    np.testing.assert_allclose(total, 1.255 + given / 30.0, rtol=1e-7)
    assert day["Ca"][40] < 1.1 and day["Ca"][350] > 1.2  # citrate burns, and gives calcium back
    edta = day.again(parameters={"kc": 0.0})
    assert edta["Ca"][350] < 1.0


def cortisol(t, y, stress):
    CRH, ACTH, F, depot = y
    s = (t - 83.8) % 1440.0
    C = 0.5217 * (s**5 / (s**5 + 300.0**5) * (1440.0 - s) ** 6 / ((1440.0 - s) ** 6 + 950.0**6) + 0.01)
    return [
        3.9031e-4 + C * 6.839e12 / (1.0 + 1.7809e9 * F**2) * CRH / (583.0 + CRH) + stress(t) - 0.0337 * CRH,
        2.2803e4 * CRH / (1.0 + 1.7745e5 * F) - 0.0205 * ACTH,
        4.617e-4 * ACTH**2 - 0.0238 * F + 0.0071 * depot / 13.1 * 100.0,
        -0.0071 * depot,
    ]


def test_cortisol_is_that_of_bangsgaard_and_ottesen():
    found = lived(REGISTRY["Bangsgaard2017"])
    stress = lambda t: 1.0 if 960.0 <= t < 980.0 else 0.0
    breaks = [(960.0,), (980.0,), (1920.0, 3, 0.96 * 20.0)]
    other = apart(lambda t, y: cortisol(t, y, stress), [1.40, 7.60, 0.95, 0.0], found.time, breaks)
    for name, expected in zip(("CRH", "ACTH", "cortisol", "depot"), other, strict=True):
        np.testing.assert_allclose(found[name], expected, rtol=1e-3, atol=1e-4 * expected.max(), err_msg=name)


def test_stress_raises_cortisol_and_hydrocortisone_holds_acth_down():
    day = lived(REGISTRY["Bangsgaard2017"])
    plain = day.again(doses={}, signals={})
    t = day.time
    stressed = (t > 980.0) & (t < 1080.0)
    assert day["cortisol"][stressed].max() > 1.5 * plain["cortisol"][stressed].max()
    treated = (t > 1980.0) & (t < 2200.0)
    assert day["ACTH"][treated].mean() < 0.8 * plain["ACTH"][treated].mean()
    # Without the clock the morning does not come; a clock six hours later brings it at another time.
    person = plain.protocol.person("min")
    still = simulate(plain.body, person, at=t, do=[Do({"clock": 0.0})])
    assert still["cortisol"][0][t > 600.0].max() < 0.5 * plain["cortisol"].max()
    late = plain.again(parameters={"delta": 83.8 + 360.0})
    highest = t[np.argmax(np.where(t < 1440.0, late["cortisol"], 0.0))]
    assert highest > t[np.argmax(np.where(t < 1440.0, plain["cortisol"], 0.0))] + 200.0


@pytest.mark.parametrize("name", ["Bangsgaard2017", "Shrestha2010"])
def test_inputs_of_zero_change_nothing(name):
    day = lived(REGISTRY[name])
    plain = day.again(doses={}, signals={})
    zero = day.again(
        doses={n: Regimen.none(f.unit) for n, f in day.body.spec.doses.items()},
        signals={n: Signal.constant(f.default, f.unit) for n, f in day.body.spec.signals.items()},
    )
    for output in day.body.spec.outputs:
        np.testing.assert_allclose(zero[output], plain[output], rtol=1e-9)
