"""Decisions against closed forms: one unknown clearance, log-normal by construction, so that the best dose is a formula."""

import dataclasses

import jax
import numpy as np
import pytest
from scipy.special import ndtr, ndtri
from scipy.stats import norm
from small import drip_twin, mesh_twin

import hybridtwin as ht
from hybridtwin import aims, outcomes, worlds
from hybridtwin.causal import grounds
from hybridtwin.causal.candidates import Grid
from hybridtwin.clock import Clock
from hybridtwin.errors import DeclarationError, InterventionError, NotIdentified, NotTrustworthy, UnrelatedTwins
from hybridtwin.fit import Part
from hybridtwin.inference.cuts import refits
from hybridtwin.inference.methods import Laplace
from hybridtwin.inference.personalize import personalize
from hybridtwin.interventions import When
from hybridtwin.model import Model
from hybridtwin.outcomes import within
from hybridtwin.physiology import OneCompartment
from hybridtwin.records import Person
from hybridtwin.sensors import Gaussian, LogNormal
from hybridtwin.signals import Regimen

MEAN, SD = np.log(4.0), 0.3  # of the logarithm of the clearance, L/h
AUC = outcomes.auc("C", 0.0, 300.0)  # all that there is, dose / CL
NEAR = {"rtol": 5e-3}  # straight lines between the 400 nodes of a day


def with_draws(twin, values, **prior):
    """The same twin with other draws: exact quantiles of a known posterior."""
    fit, n = twin.fits[0], len(next(iter(values.values())))
    fit = dataclasses.replace(fit, values=values, z=np.zeros((1, n, fit.z.shape[2])), stats={"why": "by construction"})
    fit = dataclasses.replace(fit, prior_values=prior or fit.prior_values, parts={name: Part() for name in fit.parts})
    return dataclasses.replace(twin, fits=(fit,), draws=n)


@pytest.fixture(scope="module")
def lognormal():
    """Clearance log-normal, volume 40 L known; 1000 mg given once."""
    person = Person.of(
        "dora", start=0.0, stop=300.0, doses={"iv": Regimen.bolus(1000.0, "mg", at=0.0)},
        readings={"C": ([2.0, 8.0], [20.0, 11.0], "mg/L")},
    )  # fmt: skip
    model = Model(OneCompartment(CL=ht.lognormal(4.0, 0.6), V=40.0), C=Gaussian("C", sd=2.0))
    twin = personalize(model, person, Laplace(draws=100, starts=1), key=0, progress=False)
    z = ndtri((np.arange(500) + 0.5) / 500)
    return with_draws(twin, {"CL": np.exp(MEAN + SD * z)}, CL=np.exp(MEAN + 0.6 * z))


GRID = Regimen.grid(np.arange(1000, 2501, 50), "mg", first=0.0)


def test_the_best_dose_of_a_quadratic_loss(lognormal):
    """E[(D k - c)^2] with k = 1/CL is least at c E[k]/E[k^2] = c exp(m - 1.5 s^2)."""
    aim = within(AUC, 400, 600, "mg*h/L", loss=ht.Squared(500.0))
    found = ht.optimize(lognormal, {"iv": GRID}, target=aim, accept="closed form")
    wanted = 500.0 * np.exp(MEAN - 1.5 * SD**2)
    assert abs(found.lowest.numbers["dose"] - wanted) <= 26.0 and abs(wanted - 1747.4) < 1
    k = np.exp(-MEAN + SD**2 / 2)
    second = np.exp(-2 * MEAN + 2 * SD**2)
    dose = found.table["dose"].to_numpy()
    np.testing.assert_allclose(found.risks, dose**2 * second - 1000 * dose * k + 500.0**2, rtol=0.03)


def test_the_best_dose_of_target_attainment(lognormal):
    """P(400 <= D/CL <= 600) is largest at the median clearance times the geometric mean of the bounds."""
    found = ht.optimize(lognormal, {"iv": GRID}, target=within(AUC, 400, 600, "mg*h/L"), accept="closed form")
    dose = found.table["dose"].to_numpy()
    low, high = ((np.log(dose / b) - MEAN) / SD for b in (600.0, 400.0))
    np.testing.assert_allclose(found.table["p_in"], ndtr(high) - ndtr(low), atol=6e-3)
    np.testing.assert_allclose(found.table["p_above"], ndtr(low), atol=6e-3)
    np.testing.assert_allclose(found.table[["p_below", "p_in", "p_above"]].sum(axis=1), 1.0)
    np.testing.assert_allclose(found.risks, 1 - found.table["p_in"])
    best = 4.0 * np.sqrt(400 * 600)
    assert found["1950 mg at 0 h"].label in {found.options[i].label for i in np.flatnonzero(found.tied)}
    assert abs(found.lowest.numbers["dose"] - best) <= 55 and found.tied.sum() > 1, "neighbors are told as ties"
    assert "is not told from" in found.text and len(found.table) == len(GRID)


def test_cvar_and_chance(lognormal):
    """CVaR of a log-normal exposure in closed form; a chance constraint bounds the dose at a quantile of the clearance."""
    limit = ht.Chance(AUC, above=(600.0, "mg*h/L"), at_most=0.1)
    aim = within(AUC, 400, None, "mg*h/L", loss=lambda value, low, high: -value)
    found = ht.optimize(lognormal, {"iv": GRID}, target=aim, risk=ht.CVaR(0.2), limits=limit, accept="closed form")
    most = 600.0 * np.exp(MEAN + SD * ndtri(0.1))
    assert found.table.loc[found.feasible, "dose"].max() == 50 * (most // 50)
    worst = -np.exp(-MEAN + SD**2 / 2) * ndtr(ndtri(0.2) - SD) / 0.2  # the lowest fifth of D/CL, negative
    np.testing.assert_allclose(found.risks, worst * found.table["dose"], rtol=0.01)
    assert found.lowest.numbers["dose"] == 50 * (most // 50), "the least exposure at risk is that of the largest dose allowed"
    meets = dict(zip(found.table["dose"], found.table["meets"], strict=True))
    assert meets[1000.0] == "yes" and meets[2500.0] == "no" and meets[50 * (most // 50)] == "by the estimate"


def test_none_feasible_is_said(lognormal):
    limit = ht.Chance(AUC, above=(100.0, "mg*h/L"), at_most=0.05)
    found = ht.optimize(lognormal, {"iv": GRID}, target=within(AUC, 400, 600), limits=limit, accept="nothing is feasible")
    assert found.lowest is None and not found.feasible.any() and not found.tied.any()
    assert "None of the 31 candidates meets every limit. Nearest to them:\n  1000 mg" in found.text
    assert "\nAs lived: " in found.text, "what is without any of them stands beside it"
    assert found.plot() is not None and len(found.table) == 31


@pytest.fixture
def traced():
    """Names of the functions that were traced, as they are."""
    names = []

    def seen(event, _, **of):
        if event.endswith("jaxpr_trace_duration"):
            names.append(of["fun_name"])

    jax.monitoring.register_event_duration_secs_listener(seen)
    yield names
    jax.monitoring.unregister_event_duration_listener(seen)


def test_one_program_serves_all_candidates(lognormal, traced):
    before = worlds._program.cache_info().misses
    grid = Regimen.grid(range(600, 1501, 100), "mg", first=[0.0, 24.0], every=["24 h", "48 h"], over="1 h")
    found = ht.optimize(lognormal, {"iv": grid}, target=within(AUC, 400, 600), accept="counting programs")
    assert len(found) == 40 and worlds._program.cache_info().misses - before == 1
    assert traced.count("opened") == 1, "one shape, one trace of a program of lanes, for candidates, reference and prior"


def test_a_verdict_that_is_not_ok_shows_no_treatment(lognormal):
    small = Regimen.grid([200.0, 1000.0], "mg", first=0.0)
    with pytest.raises(NotTrustworthy, match="the record holds 1000 to 1000"):
        ht.optimize(lognormal, {"iv": small}, target=within(AUC, 400, 600))
    for reason in ("", "yes", True):
        with pytest.raises(DeclarationError, match="no reason"):
            ht.optimize(lognormal, {"iv": small}, target=within(AUC, 400, 600), accept=reason)
    fine = ht.optimize(lognormal, {"iv": Regimen.grid([800.0, 1000.0], "mg", first=0.0)}, target=within(AUC, 200, 300))
    assert fine.verdict.headline == "OK" and fine.accepted is None and "Verdict: OK." in fine.text
    taken = ht.optimize(lognormal, {"iv": small}, target=within(AUC, 400, 600), accept="a phantom, nobody is treated")
    assert "Verdict: CAUTION, taken on record: a phantom, nobody is treated." in taken.text
    assert set(taken.table["accepted"]) == {"a phantom, nobody is treated"} and taken.table.attrs["accepted"]
    assert any("taken on record: a phantom" in t.get_text() for t in taken.plot().texts)
    fit = lognormal.fits[0]
    red = dataclasses.replace(fit, parts={**fit.parts, "computed": Part("DO NOT USE", ("chains have not mixed",))})
    with pytest.raises(NotTrustworthy, match="chains have not mixed"):
        ht.optimize(dataclasses.replace(lognormal, fits=(red,)), {"iv": GRID}, target=within(AUC, 400, 600))


def test_no_imperative_and_harm_in_every_line(lognormal):
    found = ht.optimize(lognormal, {"iv": GRID}, target=within(AUC, 400, 600), accept="closed form")
    text = found.text.lower()
    assert not any(word in text for word in ("give ", "should", "recommend", "optimal", "administer", "start with"))
    lines = [line for line in found.text.splitlines() if line.startswith("  ") and "mg at 0 h: " in line]
    assert len(lines) == 5 and all("watched for harm: highest C" in line and "P(above)" in line for line in lines)
    assert "Research use; not a medical device." in found.text and "Prior alone" in found.text
    with pytest.raises(DeclarationError, match="no harm is known"):
        own = outcomes.custom(lambda x: x["C"].max(axis=1), label="top", unit="mg/L", better="lower")
        ht.optimize(lognormal, {"iv": GRID}, target=own, accept="no harm is named")


def test_regret_is_what_full_knowledge_saves(lognormal):
    found = ht.optimize(lognormal, {"iv": GRID}, target=within(AUC, 400, 600, loss=ht.Squared(500.0)), accept="closed form")
    lowest = int(found.order[0])
    assert found.regret[lowest] == pytest.approx(found.regret.min()) and (found.regret >= 0).all()
    assert found.regret[lowest] == pytest.approx(found.risks[lowest] - np.mean(found.losses.min(axis=0)))


# ----------------------------------------------------------------------------------------------- deliverable


def test_a_grid_is_deliverable():
    clock = Clock("2026-03-24T20:00+01:00", None, "h", 0.0, 24.0)
    how = {"first": "22:00", "every": ["8 h", "12 h"], "step": 250, "max_rate": "1 g/h", "max_total": "3 g/d"}
    grid = Regimen.grid([760, 1130, 1240], "mg", **how)
    made, left = grid.within(clock, 0.0, 24.0)
    assert grid.doses == (750.0, 1250.0), "rounded to the step, each once"
    labels = [label for label, _, _ in made]
    assert labels[0] == "750 mg every 8 h from Tue 24 Mar 22:00, over 45 min" and len(made) == 3
    assert left == ["1250 mg every 8 h from Tue 24 Mar 22:00, over 1.25 h: 3750 mg is more than 3 g/d"]
    regimen = made[2][2].resolve(clock, "h", "mg")
    assert [(d.time, d.amount, d.duration) for d in regimen] == [(2.0, 1250.0, 1.25), (14.0, 1250.0, 1.25)]
    none, _ = Regimen.grid([0, 500], "mg", first=[1.0, 2.0], every="8 h").within(clock, 0.0, 24.0)
    assert none[0][0] == "no dose" and len(none) == 3 and len(none[0][2]) == 0
    slow, left = Regimen.grid(900, "mg", first=0, every="1 h", max_rate="300 mg/h").within(clock, 0.0, 24.0)
    assert not slow and "does not end before the next dose" in left[0]
    for wrong in ({"max_rate": "1 g"}, {"every": "0 h"}, {"step": 0}, {"max_total": "much"}):
        with pytest.raises(DeclarationError):
            Regimen.grid([500], "mg", first=0, **wrong)


def test_policies_are_candidates():
    twin = mesh_twin()
    low = When("C", below=(5.0, "mg/L"), give=("iv", 60.0, "mg"), wait="1 h", at_most=20)
    amounts = {"as lived": lambda d: d, "three quarters": lambda d: 0.75 * d}
    found = ht.candidates(twin, iv=amounts, respond={"none": None, "top up": low})
    assert list(found) == ["as lived; none", "as lived; top up", "three quarters; none", "three quarters; top up"]
    aim = within(outcomes.nadir("C", 1.0, 11.0, better="higher"), 4.9, None, "mg/L")
    choice = ht.optimize(twin, found, target=aim, accept="a test of policies")
    rows = choice.table.set_index("candidate")
    acts, p = rows["acts"], rows["p_in"]
    assert acts["as lived; none"] == acts["three quarters; none"] == 0 < acts["three quarters; top up"]
    assert p["three quarters; top up"] >= p["three quarters; none"] and "rules act" in choice.text
    listed = ht.optimize(twin, [low, {"iv": lambda d: 0.75 * d}, twin.do()], target=aim, accept="a test of lists")
    assert len(listed) == 3
    with pytest.raises(UnrelatedTwins):
        ht.optimize(twin, [drip_twin()], target=aim, accept="a test of strangers")
    with pytest.raises(InterventionError, match="no rule of care"):
        ht.candidates(twin, respond={"snack": "juice"})
    bare_lists = lambda: ht.candidates(twin, iv=amounts, respond=[low, None]), lambda: ht.optimize(twin, [low, [low]], target=aim)
    for bare in bare_lists:
        with pytest.raises(DeclarationError, match=r"choose among or one policy of several rules.*'both': \[rule_a, rule_b\]"):
            bare()


# ------------------------------------------------------------------------------------------- worth of a reading


class Store(ht.System):
    """Nothing leaves: what is there is what was there and what was added."""

    time = "h"

    class State(ht.State):
        amount: ht.Scalar = ht.state("mg")

    class Input(ht.Input):
        iv: ht.Scalar = ht.dose("mg", into="amount")

    first: ht.Scalar = ht.parameter(ht.normal(10.0, 2.0), "mg", "amount at the start")
    leak: ht.Scalar = ht.constant(0.0, "1/h")

    def initial(self, u):
        return self.State(amount=self.first)

    def rates(self, t, x, u):
        return self.State(amount=-self.leak * x.amount)

    def outputs(self, x, u):
        return {"A": ht.output(x.amount, "mg")}


@pytest.fixture(scope="module")
def store():
    """Posterior N(10, 2) of the amount; doses up to 20 mg to bring it to 20."""
    person = Person.of(
        "eva", start=0.0, stop=10.0, doses={"iv": Regimen.bolus(10.0, "mg", at=5.0)}, readings={"A": ([1.0], [10.0], "mg")}
    )
    twin = personalize(Model(Store(), A=Gaussian("A", sd=1.0)), person, Laplace(draws=100, starts=1), key=0, progress=False)
    z = ndtri((np.arange(800) + 0.5) / 800)
    twin = with_draws(twin, {"first": 10.0 + 2.0 * z}, first=10.0 + 4.0 * z)
    aim = within(outcomes.at("A", 9.0, better=None), 19.0, 21.0, "mg", loss=ht.Squared(20.0))
    doses = Regimen.grid(np.arange(4.0, 16.1, 0.25), "mg", first=5.0)
    return ht.optimize(twin, {"iv": doses}, target=aim, accept="closed form")


def test_worth_of_a_reading_is_the_variance_it_removes(store):
    """Squared loss, Gaussian body, Gaussian sensor: EVSI = s^4 / (s^2 + sd^2), perfect knowledge s^2."""
    readings = {f"sd {sd:g}": (Gaussian("A", sd=sd), 2.0) for sd in (1.0, 2.0, 8.0)}
    readings["two"] = (Gaussian("A", sd=2.0), [2.0, 3.0])
    found = ht.next_reading(store, readings, draws=800)
    rows = {row.label: row for row in found.rows}
    assert found.present == "10 mg at 5 h" and found.perfect == pytest.approx(4.0, rel=0.01)
    for label, variance in (("sd 1", 1.0), ("sd 2", 4.0), ("sd 8", 64.0), ("two", 2.0)):
        wanted = 16.0 / (4.0 + variance)
        assert rows[label].worth == pytest.approx(wanted, rel=0.05, abs=3 * rows[label].error), label
    assert [row.label for row in found.rows] == ["sd 1", "two", "sd 2", "sd 8"]
    assert "Without one the lowest is 10 mg at 5 h" in found.text and found.table["reading"][0] == "sd 1"
    assert found.plot() is not None
    own = store.next_reading([("A", 2.0)], draws=800)
    assert own.rows[0].worth == pytest.approx(16.0 / 5.0, rel=0.05)


def test_worth_between_two_actions(store):
    """Two doses, losses that differ by a line in the unknown: unit normal loss integral (Raiffa and Schlaifer 1961)."""
    two = ht.optimize(store.twin, {"iv": Regimen.grid([9.0, 12.0], "mg", first=5.0)}, target=store.aim, accept="closed form")
    found = ht.next_reading(two, {"reading": (Gaussian("A", sd=1.5), 2.0)}, draws=800)
    # (x + 12 - 20)^2 - (x + 9 - 20)^2 = 6 x - 57: mean 3, and the mean after the reading has sd 6 s rho
    spread = 6 * 2.0 * np.sqrt(4.0 / (4.0 + 1.5**2))
    u = 3.0 / spread
    wanted = spread * (norm.pdf(u) - u * norm.cdf(-u))
    assert found.rows[0].worth == pytest.approx(wanted, rel=0.06)
    assert found.rows[0].changes == pytest.approx(norm.cdf(-u), abs=0.03)


def test_readings_that_cannot_inform_are_refused(store):
    with pytest.raises(InterventionError, match="cannot inform the choice"):
        store.next_reading([("A", 7.0)])
    with pytest.raises(DeclarationError, match="no sensor"):
        store.next_reading([("cgm", 2.0)])
    with pytest.raises(DeclarationError, match="has priors"):
        store.next_reading([(Gaussian("A", sd=ht.halfnormal(1.0)), 2.0)])


def test_what_is_chosen_is_not_worse_than_what_was_planned():
    """Eight bodies from the prior, three levels each, then a day's exposure in the *true* body: chosen against 1000 mg once."""
    rng = np.random.default_rng(11)
    truth = np.exp(rng.normal(np.log([4.0, 40.0]), [0.45, 0.25], size=(8, 2)))
    times = np.array([1.0, 6.0, 11.0])

    def level(CL, V, t, doses):
        return sum(np.where(t >= at, dose / V * np.exp(-CL / V * np.maximum(t - at, 0.0)), 0.0) for at, dose in doses)

    given = [(0.0, 1000.0)]
    people = [
        Person.of(f"b{i}", start=0.0, stop=12.0, doses={"iv": Regimen.bolus(1000.0, "mg", at=0.0)},
                  readings={"C": (times, level(*body, times, given) * np.exp(0.1 * rng.normal(size=3)), "mg/L")})
        for i, body in enumerate(truth)
    ]  # fmt: skip
    model = Model(OneCompartment(CL=ht.lognormal(4.0, 0.45), V=ht.lognormal(40.0, 0.25)), C=LogNormal("C", sd=0.1))
    twins = personalize(model, ht.Cohort(people), Laplace(draws=250, starts=1), key=0, progress=False)
    aim = within(outcomes.auc("C", 12.0, 36.0), 200, 300, "mg*h/L", loss=ht.Distance())
    grid, better, worse = Regimen.grid(range(250, 2501, 250), "mg", first=12.0), [], 0
    fine = np.linspace(12.0, 36.0, 4001)
    for (CL, V), twin in zip(truth, twins.values(), strict=True):
        plan = twin.forecast("24 h", iv=Regimen.bolus(1000.0, "mg", at=12.0))
        found = ht.optimize(plan, {"iv": grid}, target=aim, accept="bodies of a simulator")
        doses = (1000.0, found.lowest.numbers["dose"])
        true = [np.trapezoid(level(CL, V, fine, [*given, (12.0, dose)]), fine) for dose in doses]
        lived, chosen = ht.Distance()(np.array(true), 200, 300)
        better.append(lived - chosen)
        worse += chosen > lived + 1e-9
    assert np.mean(better) > 0.1 and worse <= 1, better


# ------------------------------------------------------------------------------------ risk measures and aims alone


def test_cvar_of_known_distributions():
    n = 200_000
    x = ndtri((np.arange(n) + 0.5) / n)
    assert ht.CVaR(0.1).of(x) == pytest.approx(norm.pdf(ndtri(0.9)) / 0.1, rel=1e-3)
    assert ht.CVaR(1.0).of(x) == pytest.approx(x.mean(), abs=1e-9)
    assert np.mean(ht.CVaR(0.1).parts(x)) == pytest.approx(ht.CVaR(0.1).of(x))
    assert ht.CVaR(0.5).of(np.array([1.0, 2.0, 9.0]), np.array([0.5, 0.25, 0.25])) == pytest.approx(5.5)
    rng = np.random.default_rng(0)
    found = [ht.CVaR(0.2).of(rng.normal(size=1000)) for _ in range(400)]
    told = np.std(ht.CVaR(0.2).parts(rng.normal(size=1000))) / np.sqrt(1000)
    assert told == pytest.approx(np.std(found), rel=0.15), "the Monte Carlo error that is told is the one there is"


def test_losses():
    value = np.array([300.0, 500.0, 700.0])
    assert list(ht.Miss(above=2.0)(value, 400, 600)) == [1, 0, 2]
    assert list(ht.Distance(power=2)(value, 400, 600)) == [0.25, 0, 0.25]
    for low, high, loss in ((600, 400, ht.Miss()), (None, None, ht.Miss()), (400, None, ht.Distance())):
        with pytest.raises(DeclarationError):
            within(AUC, low, high, loss=loss)
    with pytest.raises(DeclarationError, match="which way is better"):
        aims.as_aim(AUC)
    assert grounds.upper(0, 300) == pytest.approx(1 - 0.05 ** (1 / 300)) and isinstance(Regimen.grid([1], "mg", first=0), Grid)


# --------------------------------------------------------------------------------------- contrasts and cohorts


def test_ratio_regret_and_benefit(lognormal):
    half = lognormal.do(iv=lambda d: 0.5 * d)
    found = ht.contrast(half, lognormal, outcomes.auc("C", 0.0, 300.0, better="lower"), scale="ratio")
    row = found[0]
    np.testing.assert_allclose(row.effect, 0.5, rtol=1e-9)
    assert "times 0.5 (90 %" in found.text and found.table["scale"][0] == "ratio" and row.regret[0] == 0
    assert row.regret[1] == pytest.approx(np.mean(row.b) / 2)
    plain = ht.contrast(half, lognormal, outcomes.auc("C", 0.0, 300.0, better="lower"))[0]
    share = np.mean(500.0 / lognormal.fits[0].values["CL"] > 150.0)
    assert plain.p_benefit(150.0) == pytest.approx(share, abs=5e-3) and plain.p_benefit() == 1.0
    with pytest.raises(DeclarationError, match="above zero"):
        ht.contrast(half, lognormal, outcomes.time_below("C", 0.0, "mg/L"), scale="ratio")


def test_time_to_an_event_and_areas(lognormal):
    """C = 25 exp(-k t): below 5 at ln(5)/k; the area above 5 up to there is (20 - 5 ln 5)/k."""
    k = lognormal.fits[0].values["CL"] / 40.0
    lived = lognormal.simulate(at=np.linspace(0.0, 60.0, 3001))
    until = outcomes.time_until_below("C", 5.0, "mg/L", 0.0, 12.0).of(lived)
    np.testing.assert_allclose(until, np.minimum(np.log(5.0) / k, 12.0), rtol=1e-4)
    area = outcomes.area_above("C", 5.0, "mg/L", 0.0, 60.0).of(lived)
    np.testing.assert_allclose(area, (20 - 5 * np.log(5)) / k, rtol=1e-3)
    ever = outcomes.ever_below("C", 5.0, "mg/L", 0.0, 15.0).of(lived)
    np.testing.assert_array_equal(ever, (np.log(5.0) / k < 15.0).astype(float))
    below = outcomes.area_below("C", 5.0, "mg/L", 0.0, 60.0)
    assert below.settled(lived).unit == "mg*h/L"
    tail = 5 * (60.0 - np.log(5.0) / k) - (5.0 - 25.0 * np.exp(-60.0 * k)) / k
    np.testing.assert_allclose(below.of(lived), tail, rtol=1e-3)
    with_late = outcomes.time_until_above("C", 1e4, "mg/L", 0.0, 12.0).of(lived)
    np.testing.assert_allclose(with_late, 12.0)


def test_number_needed_to_treat_needs_a_ground(lognormal):
    event = outcomes.ever_below("C", 15.0, "mg/L", 0.0, 6.0)
    effect = ht.contrast(lognormal.do(iv=lambda d: 1.5 * d), lognormal, event)
    with pytest.raises(NotIdentified, match="randomized"):
        effect.number_needed_to_treat()
    k = lognormal.fits[0].values["CL"] / 40.0
    fewer = np.mean(25 * np.exp(-6 * k) < 15) - np.mean(37.5 * np.exp(-6 * k) < 15)
    found = effect.number_needed_to_treat(randomized="1:1 by a sealed list")
    assert found.value == pytest.approx(1 / fewer, rel=0.02) and "NNTB" in found.text and "sealed list" in found.text

    class Found:
        identified = True

        def __str__(self):
            return "back-door: weight"

    assert "back-door: weight" in effect.number_needed_to_treat(identified=Found()).text
    with pytest.raises(DeclarationError, match="no event"):
        other = ht.contrast(lognormal.do(iv=lambda d: 1.5 * d), lognormal, outcomes.cmax("C"))
        other.number_needed_to_treat(randomized="by a coin toss")
    assert " against P " in effect.text


@pytest.fixture(scope="module")
def cohort():
    """Four people whose clearances have known posteriors."""
    rng = np.random.default_rng(1)
    people = [
        Person.of(f"p{i}", start=0.0, stop=300.0, doses={"iv": Regimen.bolus(1000.0, "mg", at=0.0)},
                  readings={"C": ([2.0, 8.0], [20.0, 11.0], "mg/L")})
        for i in range(4)
    ]  # fmt: skip
    model = Model(OneCompartment(CL=ht.lognormal(4.0, 0.6), V=40.0), C=Gaussian("C", sd=2.0))
    twins = personalize(model, ht.Cohort(people), Laplace(draws=100, starts=1), key=0, progress=False)
    middle = [3.0, 4.0, 5.0, 6.0]
    own = [m * np.exp(0.1 * rng.normal(size=800)) for m in middle]
    return ht.Twins({t.id: with_draws(t, {"CL": values}) for t, values in zip(twins.values(), own, strict=True)})


def test_effects_of_a_cohort(cohort):
    """Half the dose: the effect of each on the AUC is -500/CL; average and spread draw by draw."""
    found = ht.contrast(cohort.do(iv=lambda d: 0.5 * d), cohort, outcomes.auc("C", 0.0, 300.0, better="lower"))
    own = np.stack([-500.0 / t.fits[0].values["CL"] for t in cohort.values()])
    row = found.rows[0]
    np.testing.assert_allclose(row.effects, own, **NEAR)
    np.testing.assert_allclose(row.average, own.mean(axis=0), **NEAR)
    np.testing.assert_allclose(row.spread, own.std(axis=0, ddof=1), rtol=0.02)
    table = found.table[~found.table["harm"]]
    assert list(table["person"]) == ["p0", "p1", "p2", "p3"]
    np.testing.assert_allclose(table["q05"], np.quantile(own, 0.05, axis=1), **NEAR)
    assert row.p_better == 1.0 and len(found) == 4 and found["p1"][0].median == pytest.approx(np.median(own[1]), rel=5e-3)
    assert "Individual effects differ by a standard deviation of" in found.text and found.averages["people"][0] == 4
    assert found.plot() is not None and "Watched for harm" in found.text
    with pytest.raises(NotIdentified):
        found.number_needed_to_treat()
    n = min(r.draws for r in row.rows)
    assert found.averages["p_better"][0] == 1.0 - max(0.01, 3.0 / n) and set(found.averages["draws"]) == {n}
    alike = ht.contrast(cohort.do(iv=lambda d: (0.1 + 0.2) / 0.3 * d), cohort, outcomes.auc("C", 0.0, 300.0, better="lower"))
    assert "no difference between the two, in anybody and any draw" in alike.text and alike.rows[0].p_better == 0.5
    with pytest.raises(UnrelatedTwins, match="same people"):
        ht.contrast({"p0": cohort["p0"]}, cohort, outcomes.cmax("C"))


def test_an_average_that_holds_the_population_at_its_estimate_says_so(cohort):
    """People given the estimate of FOCEI are independent: what is not known of the population is everybody's, and missing."""
    focei = {n: dataclasses.replace(t, fits=(dataclasses.replace(t.fits[0], method=ht.FOCEI()),)) for n, t in cohort.items()}
    asked = outcomes.auc("C", 0.0, 300.0, better="lower")
    held, free = (ht.contrast(t.do(iv=lambda d: 0.8 * d), t, asked) for t in (ht.Twins(focei), cohort))
    assert held.verdict.parts["computed"].level == "CAUTION" and "intervals of averages are too narrow" in held.text
    assert "the population held at its estimate" in held.text and "the population held" not in free.text
    assert free.verdict.parts["computed"].level == "OK"


def test_an_empty_list_is_no_candidate(lognormal):
    """It was taken as a policy of no rules, that is nothing done, and stood in the table under the name of the dose."""
    with pytest.raises(DeclarationError, match="empty list"):
        ht.optimize(lognormal, {"iv": []}, target=within(AUC, 400, 600, "mg*h/L"), accept="closed form")


def test_who_may_not_be_shown_is_in_no_average(cohort):
    fit = cohort["p2"].fits[0]
    red = dataclasses.replace(fit, parts={**fit.parts, "computed": Part("DO NOT USE", ("chains have not mixed",))})
    twins = ht.Twins({**cohort, "p2": dataclasses.replace(cohort["p2"], fits=(red,))})
    found = ht.contrast(twins.do(iv=lambda d: 0.8 * d), twins, outcomes.auc("C", 0.0, 300.0, better="lower"))
    assert found.refused == ("p2",) and found.rows[0].people == ("p0", "p1", "p3") and "under DO NOT USE: p2" in found.text
    assert found.table.set_index("person").loc["p2", "effect"].isna().all() and found.verdict.headline == "CAUTION"


# -------------------------------------------------------------------------------------------------- track record


def test_a_track_record_uses_nothing_from_the_future():
    """Readings after an event may be anything: what was predicted for it before them does not move."""
    twin = drip_twin()
    found = twin.track_record()
    assert [e.label for e in found.events] == ["iv 120 mg"] * 2 and [e.before for e in found.events] == [6, 11]
    series = twin.record.series["C"]
    late = dataclasses.replace(series, value=np.where(series.time >= 9.0, series.value + 7.0, series.value))
    record = dataclasses.replace(twin.record, series={"C": late})
    moved = personalize(twin.fits[0].model, record, Laplace(draws=100, starts=2), key=0, progress=False).track_record()
    np.testing.assert_allclose(moved.events[0].expected, found.events[0].expected, rtol=1e-9)
    assert moved.events[0].coverage() == 0 and moved.events[0].bias > 6
    assert not np.allclose(moved.events[1].expected, found.events[1].expected), "by then they have been read"
    assert moved.verdict.parts["fits"].level == "DO NOT USE" and moved.twin.verdict.headline == "DO NOT USE"
    assert found.twin.root == twin.root and found.verdict.parts["supported"].level == "CAUTION"
    assert list(found.table["readings"]) == [5, 3] and found.plot() is not None and "Research use" in found.text


def test_a_track_record_compiles_once_for_all_its_cuts():
    """Cuts with 1, 6 and 11 readings have one shape: the log density is compiled for it once."""
    twin = drip_twin()
    cuts = [twin.record.between(None, t, readings_only=True) for t in (2.0, 9.0, 17.0)]
    past = [one.fits[0] for one in refits([twin.fits[0].model], cuts, twin.method, key=0, temper=1.0)]
    assert [fit.problem.n_readings for fit in past] == [2, 6, 11]
    assert len({(fit.kernel, str(jax.tree.map(np.shape, fit.problem.data))) for fit in past}) == 1


def test_a_calibrated_track_record_is_ok():
    """Forty events of bodies from the prior, predicted: the 90 % bands hold nine in ten."""
    from hybridtwin.causal.track import Event, TrackRecord

    rng = np.random.default_rng(5)
    none = np.zeros(8)

    def made(rank):
        return Event("dose", 0.0, 1.0, "C", "mg/L", 5, none, none, rank, none, none, none, none, none, "OK")

    fine = [dataclasses.replace(made(rng.random(8)), start=float(i)) for i in range(40)]
    good = TrackRecord(tuple(fine), (), (), Clock(unit="h"), drip_twin())
    assert good.coverage() == pytest.approx(0.9, abs=3 * good.coverage_error) and good.verdict.headline == "OK"
    ranks = [0.5 + 0.5 * np.sign(rng.normal()) * rng.random(8) ** 0.05 for _ in range(40)]
    bad = [dataclasses.replace(made(rank), start=float(i)) for i, rank in enumerate(ranks)]
    assert TrackRecord(tuple(bad), (), (), Clock(unit="h"), drip_twin()).verdict.parts["fits"].level == "DO NOT USE"


def test_a_further_reading_of_a_calibrated_sensor_is_taken_given_the_readings_so_far():
    """p(new | so far, draw) = p(so far, new | draw) / p(so far | draw), by the sensor's own likelihood."""
    import jax.numpy as jnp

    from hybridtwin.causal import information
    from hybridtwin.sensors import CGM, Seen

    sensor = CGM("C", white=1.0, drift=4.0, tau=40.0, offset_sd=20.0, gain_sd=0.1, every=0.0)
    rng, minutes, new = np.random.default_rng(0), np.arange(0.0, 300.0, 30.0), np.array([310.0, 325.0])
    before, mean = 120 + 10 * rng.normal(size=(3, 10)), 130 + 10 * rng.normal(size=(3, 2))
    value = 140 + 5 * rng.normal(size=10)
    past = information._Past(minutes, value, np.full(10, 5), before)
    part = information._Part(mean, {}, lambda v: sensor)
    with jax.enable_x64(True):
        middle, factor = information._given_the_past(part, past, new)
        y = np.array([150.0, 143.0])
        ours = [float(information._normal(jnp.asarray(y), middle[d], factor[d])) for d in range(3)]

        def loglik(time, values, m):
            n = len(time)
            seen = Seen(jnp.asarray(values), time, np.ones(n, bool), np.zeros(n, np.int32), np.zeros(n, np.int32))
            return float(sensor.terms(jnp.asarray(m), seen).loglik.sum())

        whole = [loglik(np.append(minutes, new), np.append(value, y), np.append(before[d], mean[d])) for d in range(3)]
        known = [loglik(minutes, value, before[d]) for d in range(3)]
    np.testing.assert_allclose(ours, np.subtract(whole, known), rtol=1e-9)
    assert np.all(np.asarray(factor)[:, 0, 0] < 6.0), "an offset of 20 mg/dL is known from ten readings"
