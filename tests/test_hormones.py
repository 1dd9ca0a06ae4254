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
    bound = citrate(t) / 30.0 * Ca / (0.6 + Ca)
    back = 0.001 * (Ca0 * (0.7 + 0.3 * x2 / n2) - Ca)
    return [k - (out + l1) * x1, out * x1 - l2 * x2, calcium(t) / 30.0 - bound + 0.023 * held + back, bound - 0.023 * held]


def test_the_parathyroid_gland_is_that_of_shrestha():
    found = lived(REGISTRY["Shrestha2010"])
    start = [490.78, 6.629, 1.255, 0.0]
    np.testing.assert_allclose([found[n][0] for n in ("gland", "PTH", "Ca", "chelate")], start, rtol=1e-4, atol=1e-12)
    np.testing.assert_allclose(gland(0.0, start, lambda t: 0.0, lambda t: 0.0), 0.0, atol=1e-12)  # at rest
    # and the steady PTH under a calcium that stays is between x2_min and x2_max of the paper
    np.testing.assert_allclose(found.body.levels(), (14.043, 0.6697), rtol=1e-4)
    citrate = lambda t: 1.09 if 30 <= t < 40 else 0.32 if 40 <= t < 150 else 0.0
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


THYROID = ("plasma4", "fast4", "slow4", "plasma3", "fast3", "slow3", "tsh", "brain", "lag", "pill4", "gut4", "pill3", "gut3",
           *(f"way{i}" for i in range(1, 7)))  # fmt: skip


def thyroid(t, q, share):
    """Cruz-Loya 2022 with powers and micromoles as printed; pills and guts in micromoles; 6:00 is the hour 0."""
    T4, T4f, T4s, T3, T3f, T3s, TSH, B, lag, p4, g4, p3, g3, *way = q
    F4 = T4 * np.polyval([-8.83e-6, 0.000128, 0.000214, 0.000289], T4)
    F3 = T3 * np.polyval([-0.000505, 0.00061, 0.00185, 0.00395], T4)
    D1f = 0.012101809339 * T4f / (2.85 + T4f)
    D1s, D2s = 6.63e-4 * T4s / (95.0 + T4s), 0.00074619 * T4s / (0.075 + T4s)
    n, m, ell = 5.674773816316, 6.290803221796, 14.36664496926
    circ = lag**n / (lag**n + 3.001011022378**n)
    night = 219.7085301388 * circ * np.sin(np.pi / 12.0 * (t - 6.0) + 3.71)
    made = (450.0 + night) * 3.094711690204**m / (3.094711690204**m + lag**m)
    f4 = 0.058786935033 * (1.0 + 5.0 * 8.498343729591**ell / (8.498343729591**ell + B**ell))
    return [
        share * 0.0027785399344 * way[5] + 0.868 * T4f + 0.108 * T4s - 2087.0 * F4 + 0.88 * g4,
        1503.0 * F4 - 0.868 * T4f - 0.0189 * T4f - D1f,
        584.0 * F4 - 0.108 * T4s - D1s - D2s,
        share * 3.3572e-4 * way[5] + 5.37 * T3f + 0.0689 * T3s - 2170.0 * F3 + 0.88 * g3,
        2043.0 * F3 + D1f - 5.37 * T3f - 0.184972339613 * T3f,
        127.0 * F3 + D1s + D2s - 0.0689 * T3s,
        made - (0.53 + 0.226 / (23.0 + TSH)) * TSH,
        f4 * T4 / 0.29 + 0.058786935033 * T3 / 0.006 - 0.037 * B,
        (0.0034 + 2.0 * B**11 / (5.0**11 + B**11)) * (B - lag),
        -1.3 * p4,
        1.3 * p4 - (0.12 * 0.88 + 0.88) * g4,
        -1.78 * p3,
        1.78 * p3 - (0.12 * 0.88 + 0.88) * g3,
        *(0.625 * (a - b) for a, b in itertools.pairwise([TSH, *way])),
    ]


def three_days():
    day = lived(REGISTRY["CruzLoya2022"])
    return day.again(stop=72.0, signals={"thyroid": Signal.steps([0.0, 24.0], [1.0, 0.5], "1")},
                     doses={"levothyroxine": Regimen.bolus(300.0, "ug", at=8.0),
                            "liothyronine": Regimen.bolus(20.0, "ug", at=32.0)})  # fmt: skip


@pytest.mark.heavy
def test_the_thyroid_is_that_of_cruz_loya():
    found = three_days()
    start = [found[n][0] for n in THYROID]
    start[9:13] = [0.0] * 4
    breaks = [(8.0, 9, 300.0 / 777.0), (24.0,), (32.0, 11, 20.0 / 651.0)]
    other = apart(lambda t, q: thyroid(t, q, 1.0 if t < 24.0 else 0.5), start, found.time, breaks)
    for name, expected in zip(THYROID, other, strict=True):
        size = {"pill4": 777.0, "gut4": 777.0, "pill3": 651.0, "gut3": 651.0}.get(name, 1.0)
        np.testing.assert_allclose(found[name], size * expected, rtol=1e-4, atol=1e-4 * size * expected.max(), err_msg=name)
    # the start is where a day ends as it began
    plain = found.again(signals={}, doses={}, stop=24.0)
    for name in ("TSH", "T4", "T3"):
        assert plain[name][-1] == pytest.approx(plain[name][0], rel=1e-4)


def test_hormone_is_made_turned_over_and_lost_and_nothing_else():
    """T4 becomes T3 one for one: all pools together change by what is secreted, swallowed, and lost from fast tissue."""
    day = three_days()
    t = np.linspace(40.0, 72.0, 3201)
    found = simulate(day.body, day.protocol.person("h"), at=t)
    x = {n: found[n][0] for n in THYROID}
    total = np.sum([x[n] for n in THYROID[:6]], axis=0)
    into = 0.5 * (0.0027785399344 + 3.3572e-4) * x["way6"] + 0.88 * (x["gut4"] / 777.0 + x["gut3"] / 651.0)
    lost = 0.0189 * x["fast4"] + 0.184972339613 * x["fast3"]
    assert total[-1] - total[0] == pytest.approx(np.trapezoid(into - lost, t), abs=1e-6)


@pytest.mark.heavy
def test_tsh_answers_a_failing_and_a_replaced_thyroid():
    day = lived(REGISTRY["CruzLoya2022"])
    share = [day.again(signals={"thyroid": Signal.constant(s, "1")}, doses={}, stop=1680.0) for s in (1.0, 0.5, 0.25)]
    TSH, T4 = ([found[n][-12:].mean() for found in share] for n in ("TSH", "T4"))
    assert TSH[0] < TSH[1] < TSH[2] and T4[0] > T4[1] > T4[2]
    assert TSH[1] / TSH[0] > 1.1 * T4[0] / T4[1] and TSH[2] / TSH[0] > 1.3 * T4[0] / T4[2]  # steeper than in proportion
    doses = [day.again(signals={"thyroid": Signal.constant(0.0, "1")}, stop=1680.0, doses={
        "levothyroxine": Regimen.bolus(ug, "ug", at=8.0).every("1 d", times=70)}) for ug in (75.0, 112.0, 175.0)]  # fmt: skip
    TSH, T3 = ([found[n][-12:].mean() for found in doses] for n in ("TSH", "T3"))
    assert TSH[0] > TSH[1] > TSH[2] and 0.4 < TSH[1] < 4.0
    assert T3[1] < share[0]["T3"][-12:].mean()  # pills of T4 alone leave T3 low
