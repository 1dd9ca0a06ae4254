"""Drugs of the library against closed forms, against equations written apart, and against people who were given them."""

import csv
import gzip
import itertools

import jax
import numpy as np
import pytest
import scipy.integrate
import scipy.linalg
import scipy.special
import scipy.stats

import hybridtwin as ht
from hybridtwin.errors import DeclarationError, InterventionError
from hybridtwin.interventions import Do, World, enact
from hybridtwin.physiology import (
    REGISTRY,
    IndirectResponse,
    InsulinProducts,
    Myelosuppression,
    OneCompartment,
    OneCompartmentMM,
    OneCompartmentTransit,
    OneCompartmentZeroOrder,
    Remifentanil,
    TargetMediated,
    ThreeCompartmentOral,
    TwoCompartmentTransit,
)
from hybridtwin.physiology.drugs.remifentanil import lean_body_mass
from hybridtwin.physiology.drugs.responses import KINDS, hill
from hybridtwin.physiology.glucose.insulin import by_product
from hybridtwin.physiology.glucose.t1d import SubcutaneousInsulin
from hybridtwin.physiology.reference import lived


def typical_day(name):
    """(body, course) of a system's typical day, as its page and its evidence have it."""
    found = lived(REGISTRY[name])
    return found.body, found.course


def apart(rates, start, times, **options):
    """States (times, n) by LSODA of equations written in the test."""
    options = {"method": "LSODA", "rtol": 1e-10, "atol": 1e-12, "t_eval": times} | options
    return scipy.integrate.solve_ivp(rates, (0.0, times[-1]), start, **options).y.T


# ------------------------------------------------------------------------------------------ linear kinetics


def infused(matrix, rate, until, times):
    """States (times, n) from 0 under dx/dt = M x + (rate, 0, ...) until a time and dx/dt = M x after it."""
    n = len(matrix)
    forced = np.zeros((n + 1, n + 1))
    forced[:n, :n], forced[0, n] = matrix, rate
    at = lambda t: scipy.linalg.expm(forced * t)[:n, n]
    return np.array([at(t) if t <= until else scipy.linalg.expm(matrix * (t - until)) @ at(until) for t in times])


def three_compartments(b):
    """Rates of change of (central, shallow, deep) of Minto, Shafer and Bruno."""
    return np.array([
        [-(b.CL + b.Q2 + b.Q3) / b.V1, b.Q2 / b.V2, b.Q3 / b.V3],
        [b.Q2 / b.V1, -b.Q2 / b.V2, 0.0],
        [b.Q3 / b.V1, 0.0, -b.Q3 / b.V3],
    ])  # fmt: skip


def test_three_compartments_are_their_matrix_exponential():
    body, course = typical_day("ThreeCompartment")
    wanted = infused(three_compartments(body), 180.0, 1.0, course.time[::8])
    np.testing.assert_allclose(course["C"][0, ::8], wanted[:, 0] / body.V1, rtol=1e-8, atol=1e-12)


def test_an_effect_compartment_follows_and_its_effect_is_sigmoid():
    body, course = typical_day("EffectCompartment")
    matrix = np.zeros((4, 4))
    matrix[:3, :3], matrix[3, 0], matrix[3, 3] = three_compartments(body), body.ke0 / body.V1, -body.ke0
    wanted = np.array([scipy.linalg.expm(matrix * t)[:, 0] * 350.0 for t in course.time[::8]])
    np.testing.assert_allclose(course["Ce"][0, ::8], wanted[:, 3], rtol=1e-8, atol=1e-12)
    raised = wanted[:, 3] ** body.gamma
    effect = body.E0 + body.Emax * raised / (body.EC50**body.gamma + raised)
    np.testing.assert_allclose(course["E"][0, ::8], effect, rtol=1e-8)


def test_the_sigmoid_has_derivatives_where_there_is_no_drug():
    with jax.enable_x64(True):
        slopes = jax.grad(hill, (0, 1))(0.0, 2.4)
        assert [float(s) for s in slopes] == [0.0, 0.0] and float(hill(1.0, 3.0)) == 0.5


@pytest.mark.parametrize("n", [7, 3, 0])
def test_transit_is_a_gamma_distribution_of_arrival(n):
    """Savic 2007: absorption from a depot into which the dose arrives gamma distributed, by quadrature."""
    body = OneCompartmentTransit(n=n).typical()
    course = ht.simulate(body, OneCompartmentTransit.protocol.person("h"))
    arrival, k = scipy.stats.gamma(n + 1, scale=body.MTT / (n + 1.0)), body.CL / body.V
    bateman = lambda t: 600.0 * body.ka / (body.V * (body.ka - k)) * (np.exp(-k * t) - np.exp(-body.ka * t))
    for i in (3, 8, 20, 40, 150, 399):
        t = course.time[i]
        inside = lambda since, t=t: arrival.pdf(since) * bateman(t - since)
        edges = [0.0, *(e for e in (0.1, 0.3, 0.6, 1.2, 2.5) if e < t), t]
        wanted = sum(scipy.integrate.quad(inside, *pair, epsabs=1e-13)[0] for pair in itertools.pairwise(edges))
        assert course["C"][0, i] == pytest.approx(wanted, rel=1e-8)


def test_a_chain_has_a_length():
    with pytest.raises(DeclarationError, match="from 0 to 7"):
        OneCompartmentTransit(n=8)


def test_bodies_behind_another_gut_are_their_matrix_exponential():
    """Two compartments behind a chain of two, and three behind a lag: matrices written apart, a dose by mouth and one by vein."""
    chain = TwoCompartmentTransit(body=OneCompartmentTransit(n=2)).typical()
    b, ktr = chain.body, 3.0 / chain.body.MTT
    M = np.diag([-ktr, -ktr, -ktr, -b.ka, -(b.CL + chain.Q) / b.V, -chain.Q / chain.Vp])
    M[1, 0] = M[2, 1] = M[3, 2] = ktr
    M[4, 3], M[4, 5], M[5, 4] = b.ka, chain.Q / chain.Vp, chain.Q / b.V
    deep = ThreeCompartmentOral().typical()
    c = deep.body
    N = np.diag([-c.ka, -(c.CL + c.Q + deep.Q3) / c.Vc, -c.Q / c.Vp, -deep.Q3 / deep.V3])
    N[1, 0], N[1, 2], N[1, 3] = c.ka, c.Q / c.Vp, deep.Q3 / deep.V3
    N[2, 1], N[3, 1] = c.Q / c.Vc, deep.Q3 / c.Vc
    doses = {"oral": ht.Regimen.bolus(300.0, "mg", at=0.0), "iv": ht.Regimen.bolus(50.0, "mg", at=5.0)}
    day, times = ht.Person.of("p", start=0.0, stop=60.0, time="h", doses=doses), np.array([0.5, 2.0, 5.5, 9.0, 24.0, 60.0])
    for body, matrix, central, volume, lag in ((chain, M, 4, b.V, 0.0), (deep, N, 1, c.Vc, c.tlag)):
        answer = lambda t, into, m=matrix, at=central: scipy.linalg.expm(m * t)[at, into] if t >= 0.0 else 0.0
        wanted = [(300.0 * answer(t - lag, 0) + 50.0 * answer(t - 5.0, central)) / volume for t in times]
        np.testing.assert_allclose(ht.simulate(body, day, at=times)["C"][0], wanted, rtol=1e-8)


def test_absorption_at_a_constant_rate_is_asked_for_by_the_record():
    """RATE -2 leaves the duration to the system (D1), F and the lag act too; a dose without it comes at once."""
    body = OneCompartmentZeroOrder(body=OneCompartment(CL=3.1, V=28.0), D1=2.5, tlag=0.4, F=0.8)
    rows = {"ID": [1] * 3, "TIME": [0, 30, 60], "EVID": [1, 1, 0], "AMT": [100, 50, 0], "RATE": [-2, 0, 0], "CMT": 3 * [1],
            "DV": 3 * [0]}  # fmt: skip
    person = ht.Person.from_nonmem(rows, units={"TIME": "h", "AMT": "mg", "DV": "mg/L"}, readings="C")
    times = np.array([0.3, 0.5, 1.7, 2.9, 3.5, 12.0, 30.3, 30.5, 48.0])
    k = 3.1 / 28.0
    flown, over = np.clip(times - 0.4, 0.0, 2.5), np.maximum(times - 2.9, 0.0)
    first = 0.8 * 100.0 / 2.5 / 3.1 * (1.0 - np.exp(-k * flown)) * np.exp(-k * over)
    second = np.where(times >= 30.4, 0.8 * 50.0 / 28.0 * np.exp(-k * np.maximum(times - 30.4, 0.0)), 0.0)
    np.testing.assert_allclose(ht.simulate(body, person, at=times)["C"][0], first + second, rtol=1e-9)
    said = ht.Regimen.bolus(100.0, "mg", at=0.0).modelled("duration") + ht.Regimen.bolus(50.0, "mg", at=30.0)
    same = ht.Person.of("p", start=0.0, stop=60.0, time="h", doses={"oral": said})
    np.testing.assert_allclose(ht.simulate(body, same, at=times)["C"][0], first + second, rtol=1e-9)
    with pytest.raises(InterventionError, match='"duration" or the "rate"'):
        said.modelled("speed")


def test_the_same_amount_at_once_is_another_world():
    """do that only changes how a dose enters has an onset."""
    dose = ht.Regimen.bolus(100.0, "mg", at=3.0)
    spec = OneCompartmentZeroOrder.spec
    bound = ht.Person.of("p", start=0.0, stop=9.0, time="h", doses={"oral": dose.modelled()}).bind(spec)
    lived = World(bound.inputs, bound.start, bound.stop, bound.resets)
    onset = lambda given: enact(lived, [Do({"oral": given})], spec, bound.clock).onset
    assert onset(dose) == 3.0 and onset(dose.modelled()) is None


# --------------------------------------------------------------------------------------- saturable elimination


def test_a_lag_before_saturable_elimination():
    """The same course, later; without a lag unless one is given."""
    doses = {"oral": ht.Regimen.bolus(300.0, "mg", at=0.0).every("24 h", times=3)}
    day, times = ht.Person.of("p", start=0.0, stop=72.0, time="h", doses=doses), np.arange(2.0, 70.0, 4.0)
    body = OneCompartmentMM().typical()
    at_once = ht.simulate(body, day, at=times, tol=1e-7)["C"]
    late = ht.simulate(body.with_values({"tlag": 1.3}), day, at=times + 1.3, tol=1e-7)["C"]
    np.testing.assert_allclose(late, at_once, rtol=1e-6)
    assert "tlag" not in OneCompartmentMM().priors()


def test_saturable_elimination_is_lamberts_w():
    """C / KM + ln(C / KM) falls as a straight line: Beal 1983, and Goudar 1999."""
    body = OneCompartmentMM().typical()
    day = ht.Person.of("p", start=0.0, stop=96.0, time="h", doses={"iv": ht.Regimen.bolus(900.0, "mg", at=0.0)})
    found = ht.simulate(body, day, tol=1e-8)
    start = 900.0 / body.V / body.KM
    wanted = body.KM * scipy.special.lambertw(start * np.exp(start - body.VM * found.time / (body.KM * body.V))).real
    np.testing.assert_allclose(found["C"][0], wanted, rtol=1e-7)


@pytest.mark.heavy
def test_two_compartments_with_saturable_elimination_lose_no_drug():
    body, course = typical_day("TwoCompartmentMM")  # 21 g over half an hour

    def rates(t, x):
        C = x[0] / body.Vc
        exchange = body.Q * (C - x[1] / body.Vp)
        gone = body.VM * C / (body.KM + C)
        return [-gone - exchange + 42000.0 * (t < 0.5), exchange, gone]

    runs = course.time < 0.5
    begun = apart(rates, [0.0, 0.0, 0.0], np.append(course.time[runs], 0.5), max_step=0.01)
    ended = apart(lambda t, x: rates(t + 0.5, x), begun[-1], np.append(0.0, course.time[~runs] - 0.5))
    wanted = np.concatenate([begun[:-1], ended[1:]])
    np.testing.assert_allclose(ended.sum(axis=1), 21000.0, rtol=1e-7)
    np.testing.assert_allclose(course["central"][0], wanted[:, 0], rtol=2e-5, atol=1e-2)
    np.testing.assert_allclose(course["peripheral"][0], wanted[:, 1], rtol=2e-5, atol=1e-2)


# ------------------------------------------------------------------------------------------------ remifentanil


def volunteers(path):
    """(id, covariates, regimen, times, concentrations) of each: a rate holds from its row on."""
    with gzip.open(path, "rt") as file:
        table = list(csv.DictReader(file))
    for name in dict.fromkeys(row["id"] for row in table):
        rows = [row for row in table if row["id"] == name]
        time, rate = (np.array([float(row[c]) for row in rows]) for c in ("time_min", "rate_ug_per_min"))
        change = np.flatnonzero(np.diff(rate, prepend=0.0))
        ends = np.append(time[change[1:]], time[-1])
        doses = [ht.Regimen.infusion(rate[i] * (end - time[i]), "ug", at=time[i], over=end - time[i])
                 for i, end in zip(change, ends, strict=True) if rate[i] > 0.0]  # fmt: skip
        seen = np.array([bool(row["conc_ng_per_mL"]) for row in rows])
        values = np.array([float(row["conc_ng_per_mL"] or 0.0) for row in rows])
        yield name, rows[0], sum(doses[1:], doses[0]), time[seen], values[seen]


def percent_errors(path):
    """Percentage errors of every sample of each volunteer under Minto's model, by id."""
    found = {}
    for name, row, regimen, time, seen in volunteers(path):
        lean = float(lean_body_mass(float(row["wt_kg"]), float(row["ht_cm"]), row["sex"] == "Male"))
        assert lean == pytest.approx(float(row["lbm_kg"]), abs=0.01)
        covariates = {"age": (float(row["age_y"]), "a"), "lbm": (float(row["lbm_kg"]), "kg")}
        person = ht.Person.of(
            name, start=0.0, stop=float(time[-1]), time="min", doses={"iv": regimen}, covariates=covariates
        )
        modelled = ht.simulate(Remifentanil().typical(), person, at=time)["C"][0]
        wanted = by_exponentials(row, regimen, time)
        np.testing.assert_allclose(modelled, wanted, rtol=1e-7, atol=1e-9)
        found[name] = 100.0 * (seen - modelled) / modelled
    return found


def by_exponentials(row, regimen, times):
    """Concentration by superposed infusions in Minto's three compartments, equations of reference_estimates.json."""
    a, lean = float(row["age_y"]) - 40.0, float(row["lbm_kg"]) - 55.0
    V1, V2, V3 = 5.1 - 0.0201 * a + 0.072 * lean, 9.82 - 0.0811 * a + 0.108 * lean, 5.42
    CL, Q2, Q3 = 2.6 - 0.0162 * a + 0.0191 * lean, 2.05 - 0.0301 * a, 0.076 - 0.00113 * a
    matrix = np.array([[-(CL + Q2 + Q3) / V1, Q2 / V2, Q3 / V3], [Q2 / V1, -Q2 / V2, 0], [Q3 / V1, 0, -Q3 / V3]])
    total = np.zeros(len(times))
    for given in regimen:
        since = np.maximum(times - given.time, 0.0)
        total += infused(matrix, given.amount / given.duration, given.duration, since)[:, 0] / V1
    return total


def test_minto_is_its_exponentials():
    body, course = typical_day("Remifentanil")
    regimen = lived(Remifentanil).protocol.doses["iv"]
    wanted = by_exponentials({"age_y": 40.0, "lbm_kg": 55.0}, list(regimen), course.time[::8])
    np.testing.assert_allclose(course["C"][0, ::8], wanted, rtol=1e-8, atol=1e-12)
    edge = body.E0 - (body.E0 - body.Emax) / (1.0 + (body.EC50 / course["Ce"][0, 1:]) ** body.gamma)
    np.testing.assert_allclose(course["edge"][0, 1:], edge, rtol=1e-10)
    assert lean_body_mass(72.0, 171.0, 1) == pytest.approx(56.5075, abs=1e-4)


@pytest.mark.heavy
def test_minto_has_its_recorded_error_on_44_volunteers(shared_data):
    """reference_estimates.json: median over subjects of the median percentage error -2.79, of its size 16.22."""
    errors = percent_errors(shared_data("pkpd/remifentanil_train.csv.gz"))
    assert len(errors) == 44 and sum(map(len, errors.values())) == 1343
    assert np.median([np.median(e) for e in errors.values()]) == pytest.approx(-2.79, abs=0.005)
    assert np.median([np.median(np.abs(e)) for e in errors.values()]) == pytest.approx(16.22, abs=0.005)


# ------------------------------------------------------------------------------------------ indirect responses


@pytest.mark.parametrize("kind", KINDS)
def test_an_indirect_response_rests_where_it_says(kind):
    """Dayneka 1993: R0 (1 - S), R0 / (1 - S), R0 (1 + S), R0 / (1 + S), and nothing moves there."""
    body = IndirectResponse(kind=kind, emax=0.8).typical()
    S = 0.8 * 3.0 / (body.ec50 + 3.0)
    wanted = {"I": 1 - S, "II": 1 / (1 - S), "III": 1 + S, "IV": 1 / (1 + S)}[kind] * body.R0
    assert body.rest(3.0) == pytest.approx(wanted, rel=1e-12) and body.rest(0.0) == body.R0
    here = body.State(depot=0.0, central=3.0 * body.V, marker=wanted)
    assert body.rates(0.0, here, None).marker == pytest.approx(0.0, abs=1e-12)


def test_the_first_kind_is_daynekas():
    body, course = typical_day("IndirectResponse")

    def rates(t, x):
        C = x[1] / body.V
        made = 1.0 - body.emax * C / (body.ec50 + C)
        absorbed = body.ka * x[0]
        return [-absorbed, absorbed - body.CL / body.V * x[1], body.kout * (body.R0 * made - x[2])]

    wanted = apart(rates, [100.0, 0.0, body.R0], course.time)
    np.testing.assert_allclose(course["R"][0], wanted[:, 2], rtol=1e-5)


@pytest.mark.heavy
@pytest.mark.parametrize("kind", KINDS)
def test_the_area_of_an_effect_is_that_of_the_closed_form(kind):
    """Production: R0 emax V / CL ln(1 + D / (V ec50)), Krzyzanski and Jusko 1998. Loss: against LSODA."""
    body = IndirectResponse(kind=kind, emax=0.8).typical()
    day = ht.Person.of("p", start=0.0, stop=900.0, time="h", doses={"iv": ht.Regimen.bolus(100.0, "mg", at=0.0)})
    found = ht.simulate(body, day, at=np.linspace(0.0, 900.0, 3601), tol=1e-7)
    if kind in ("I", "III"):
        closed = body.R0 * body.emax * body.V / body.CL * np.log1p(100.0 / (body.V * body.ec50))
        area = scipy.integrate.simpson(np.abs(found["R"][0] - body.R0), x=found.time)
        left = (found["C"][0, -1] + abs(found["R"][0, -1] / body.R0 - 1)) / closed
        assert area == pytest.approx(closed, rel=1e-4 + 100 * left)

    def rates(t, x):
        made, lost = body.factors(x[0] / body.V)
        return [-body.CL / body.V * x[0], body.kout * (body.R0 * made - lost * x[1])]

    np.testing.assert_allclose(found["R"][0], apart(rates, [100.0, body.R0], found.time)[:, 1], rtol=1e-6)


def test_a_kind_that_is_none_is_refused():
    with pytest.raises(ht.errors.DeclarationError, match="kind 'V'"):
        IndirectResponse(kind="V")


# ----------------------------------------------------------------------------------- marrow, antibodies, insulin


def test_neutrophils_are_fribergs():
    body, course = typical_day("Myelosuppression")
    pk, ktr = three_compartments(body.pk), 4.0 / body.MTT

    def rates(t, x):
        flow = pk @ x[:3] + [180.0 * (t < 1.0), 0.0, 0.0]
        E = body.slope * x[0] / (body.pk.V1 * body.molar)
        grown = x[3] * ((1.0 - E) * (body.Circ0 / x[7]) ** body.gamma - 1.0)
        return [*flow, ktr * grown, *(ktr * (x[3:7] - x[4:8]))]

    during = apart(rates, [0.0] * 3 + [body.Circ0] * 5, np.array([0.0, 1.0]), max_step=0.01)[-1]
    after = course.time[course.time >= 1.0]
    wanted = apart(lambda t, x: rates(t + 1.0, x), during, np.append(0.0, after - 1.0))[1:, 7]
    np.testing.assert_allclose(course["neutrophils"][0, course.time >= 1.0], wanted, rtol=1e-4)
    rest = Myelosuppression().typical().initial(None)
    assert all(float(v) == 0.0 for v in jax.tree.leaves(body.rates(0.0, rest, None)))


@pytest.mark.heavy
def test_quasi_steady_state_is_the_limit_of_fast_binding():
    """Beside the whole model (Mager and Jusko 2001: free drug, target and complex) with kon 500 times as fast as all else."""
    body, course = typical_day("TargetMediated")
    kon = 5000.0
    koff = kon * body.KSS - body.kint

    def rates(t, x):
        depot, free, tissue, target, bound = x  # mg, mg/L, mg, mg/L, mg/L
        met = kon * free * target - koff * bound
        exchange = body.Q * (free - tissue / body.Vp)
        return [-body.ka * depot, (body.ka * depot - body.CL * free - exchange) / body.Vc - met, exchange,
                body.kdeg * (body.R0 - target) - met, met - body.kint * bound]  # fmt: skip

    start = [body.F * 60.0, 0.0, 0.0, body.R0, 0.0]
    wanted = apart(rates, start, course.time, rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(course["C"][0], wanted[:, 1], rtol=1e-3, atol=2e-3)
    np.testing.assert_allclose(course["free_target"][0], wanted[:, 3], rtol=2e-3, atol=1e-3)
    np.testing.assert_allclose(course["total"][0], wanted[:, 1] + wanted[:, 4], rtol=1e-3, atol=2e-3)
    assert course["target"][0] == pytest.approx(body.R0, rel=1e-6)  # kint = kdeg


def test_free_and_bound_drug_are_all_of_it():
    body = TargetMediated().typical()
    with jax.enable_x64(True):
        for amount in (0.0, 1e-6, 0.5, 3.0, 1e4):
            x = body.State(depot=0.0, central=amount, peripheral=0.0, target=2.0)
            C = float(body.free(x))
            total = C + 2.0 * C / (body.KSS + C)
            assert C >= 0.0 and total == pytest.approx(amount / body.Vc, rel=1e-12)


@pytest.mark.heavy
def test_all_insulin_arrives():
    body, course = typical_day("InsulinProducts")
    for name in ("bolus", "regular", "nph", "glargine", "degludec"):
        arrived = np.trapezoid(course[f"from_{name}"][0], course.time / 60.0)
        left = (
            course["insulin.s1"] + course["insulin.s2"]
            if name == "bolus"
            else course[f"{name}.form"] + course[f"{name}.dissolved"]
        )
        assert arrived + left[0, -1] == pytest.approx(10.0, rel=2e-3), name
    with jax.enable_x64(True):  # rapid insulin alone is that of the glucose systems
        u = InsulinProducts.spec.input({"basal": 0.7, "weight": 80.0})
        rapid = SubcutaneousInsulin.State(s1=1.0, s2=2.0, slow=3.0, I=4.0)
        none = body.steady(u)
        whole = body.rates(0.0, body.State(rapid, none.regular, none.nph, none.glargine, none.degludec), u)
        alone = body.insulin.rates(0.0, rapid, u)
        np.testing.assert_allclose(jax.tree.leaves(whole.insulin), jax.tree.leaves(alone), rtol=1e-14)


def test_insulin_doses_find_the_depot_of_their_product():
    regimen = (
        ht.Regimen.bolus(4.0, "[IU]", at=0.0, product="Humalog")
        + ht.Regimen.bolus(20.0, "[IU]", at=0.0, product="insulin glargine")
        + ht.Regimen.bolus(10.0, "[IU]", at=30.0, product="Tresiba")
        + ht.Regimen.bolus(1.0, "[IU]", at=60.0)
    )
    found = by_product(regimen)
    assert {name: r.total for name, r in found.items()} == {"bolus": 5.0, "glargine": 20.0, "degludec": 10.0}
    assert set(found) <= set(InsulinProducts.spec.doses)
    with pytest.raises(ht.errors.RecordError, match=r"'Levemir' is not known.*nearest"):
        by_product(ht.Regimen.bolus(4.0, "[IU]", at=0.0, product="Levemir"))
