"""Pooling: a population and its people, against NONMEM's and others' numbers and an objective of our own in NumPy."""

import csv
import dataclasses
import json
import math
import types

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.stats

import hybridtwin as ht
from hybridtwin.engine import double
from hybridtwin.inference import focei
from hybridtwin.inference.conditional import Marginal, Order
from hybridtwin.inference.pooled import gather
from hybridtwin.physiology import OneCompartment, OneCompartmentOral
from hybridtwin.records import Series
from hybridtwin.system import Input, Scalar, State, System

EVALUATE = ht.FOCEI(rounds=0, draws=20)  # the objective at the medians of the priors


def objective(people):
    """NONMEM's FOCEI objective, an implementation of its own.

    people: (y (N,), mean(b) (N,), sd(mean) (N,), below (N,) bool) each, b standard normal of size d (last entry of the tuple).
    """
    total = 0.0
    for y, mean, sd, below, d in people:

        def parts(b, y=y, mean=mean, sd=sd, below=below):
            f = mean(b)
            s = sd(f)
            plain = np.sum((((y - f) / s) ** 2 + 2 * np.log(s))[~below])
            tail = -2 * np.sum(scipy.stats.norm.logcdf(((y - f) / s)[below])) if below.any() else 0.0
            return plain + tail + b @ b

        mode, exact = np.zeros(d), {"xatol": 1e-10, "fatol": 1e-13, "maxiter": 4000, "maxfev": 4000}
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            for _ in range(2):
                mode = scipy.optimize.minimize(parts, mode, method="Nelder-Mead", options=exact).x
        h = 1e-4
        steps = np.eye(d) * h
        a = np.stack([(mean(mode + e) - mean(mode - e)) / (2 * h) for e in steps], axis=1)
        c = np.stack([(sd(mean(mode + e)) ** 2 - sd(mean(mode - e)) ** 2) / (2 * h) for e in steps], axis=1)
        r = sd(mean(mode)) ** 2
        curve = np.eye(d) + (a[~below].T / r[~below]) @ a[~below] + 0.5 * (c[~below].T / r[~below] ** 2) @ c[~below]
        if below.any():

            def tail(b, y=y, mean=mean, sd=sd, below=below):
                f = mean(b)
                return -np.sum(scipy.stats.norm.logcdf(((y - f) / sd(f))[below]))

            h = 1e-3
            for i in range(d):
                for j in range(d):
                    e, g = np.eye(d)[i] * h, np.eye(d)[j] * h
                    bend = tail(mode + e + g) - tail(mode + e - g) - tail(mode - e + g) + tail(mode - e - g)
                    curve[i, j] += bend / (4 * h * h)
        total += parts(mode) + np.linalg.slogdet(curve)[1]
    return total


# ------------------------------------------------------------------------------------------- phenobarbital, NONMEM


class Phenobarbital(System):
    """CL = th1 weight, V = th2 weight (1 + th3 [Apgar < 5]); NONMEM's example."""

    time = "h"

    class State(State):
        central: Scalar = ht.state("mg", "amount in plasma")

    class Input(Input):
        iv: Scalar = ht.dose("mg", "given into a vein", into="central", cmt=1)
        weight: Scalar = ht.covariate("kg", "birth weight")
        apgar: Scalar = ht.covariate("1", "Apgar score at five minutes")

    CL: Scalar = ht.parameter(ht.lognormal(0.006, 0.4), "L/h", "clearance at 1 kg")
    V: Scalar = ht.parameter(ht.lognormal(1.3, 0.4), "L", "volume at 1 kg")
    low: Scalar = ht.parameter(ht.normal(0.0, 0.3), "1", "volume gained at a low Apgar score", shared=True)

    def volume(self, u):
        return self.V * (u.weight / ht.const(1.0, "kg")) * (1.0 + self.low * jnp.where(u.apgar < 5.0, 1.0, 0.0))

    def rates(self, t, x, u):
        return self.State(central=-self.CL * (u.weight / ht.const(1.0, "kg")) / self.volume(u) * x.central)

    def outputs(self, x, u):
        return {"C": ht.output(x.central / self.volume(u), "mg/L", "concentration")}


@pytest.fixture(scope="module")
def neonates(shared_data):
    with open(shared_data("pkpd/phenobarbital_neonates.csv"), newline="") as file:
        rows = list(csv.DictReader(file))
    names = {"id": "id", "time": "time_h", "amt": "amt_mg", "dv": "dv_ug_per_mL", "mdv": "mdv", "evid": "evid",
             "weight": "wt_kg", "apgar": "apgar"}  # fmt: skip
    table = {ours: [row[theirs] for row in rows] for ours, theirs in names.items()}
    units = {"TIME": "h", "AMT": "mg", "DV": "ug/mL", "weight": "kg", "apgar": "1"}
    return ht.Cohort.from_nonmem(table, units=units, readings="C")


def prop(median, sd=0.5):
    """A proportional error."""
    return ht.sensors.Combined1("C", add=0.0, prop=ht.lognormal(median, sd))


@pytest.fixture(scope="module")
def neonatal(neonates):
    """Fitted from starts that are 30 % off and more."""
    model = ht.Model(Phenobarbital(), C=prop(0.25), pooling=ht.Pooling())
    return ht.personalize(model, neonates, ht.FOCEI(draws=100), key=0, progress=False)


def test_the_objective_of_phenobarbital_at_nonmems_start(neonates):
    body = Phenobarbital(CL=ht.lognormal(0.00469307, 0.4), V=ht.lognormal(1.00916, 0.4), low=ht.normal(0.1, 0.3))
    omega = {"CL": math.sqrt(0.0309626), "V": math.sqrt(0.031128)}
    model = ht.Model(body, C=prop(math.sqrt(0.0130865)), omega=omega)
    found = ht.personalize(model, neonates, EVALUATE, key=0, progress=False).population
    assert found.objective == pytest.approx(587.3664413466, abs=1e-5)


def test_the_optimum_of_phenobarbital_is_nonmems(neonatal, shared_data):
    found = neonatal.population
    assert found.computed.level == "OK"
    assert found.objective == pytest.approx(586.27605628, abs=1e-4)
    assert found.fit_measures["minus2LL"] == pytest.approx(871.147001, abs=1e-4)
    reference = json.loads(shared_data("pkpd/reference_estimates.json").read_text())["phenobarbital"][0]
    fixed, se, spread, spread_se = (reference[n] for n in ("fixed", "se", "variance", "se_variance"))
    ours, robust = found.estimates, found.errors(robust=True)
    for name, theirs, error in (
        ("CL", "th1_L_per_h_per_kg", "th1"),
        ("V", "th2_L_per_kg", "th2"),
        ("low", "th3", "th3"),
    ):
        assert ours[name] == pytest.approx(fixed[theirs], abs=0.01 * se[error]), name
        assert robust[name] == pytest.approx(se[error], rel=0.01), name  # NONMEM prints the sandwich
    for name, theirs in (("omega.CL", "omega_cl"), ("omega.V", "omega_v"), ("C.prop", "sigma_prop")):
        assert ours[name] ** 2 == pytest.approx(spread[theirs], abs=0.01 * spread_se[theirs]), name
        assert 2 * ours[name] * robust[name] == pytest.approx(spread_se[theirs], rel=0.01), name


def test_empirical_bayes_estimates_of_phenobarbital_are_nonmems(neonatal, shared_data):
    with open(shared_data("pkpd/phenobarbital_nonmem_focei_etas.csv"), newline="") as file:
        rows = list(csv.DictReader(file))
    theirs = np.array([[float(r["eta_cl"]), float(r["eta_v"])] for r in rows])
    found = neonatal.population
    np.testing.assert_allclose(found.etas.loc[[r["id"] for r in rows]].to_numpy(), theirs, atol=1e-4)
    spread = np.array([[float(r[n]) for n in ("var_eta_cl", "cov_eta", "var_eta_v")] for r in rows])
    ours = found.eta_covariances
    np.testing.assert_allclose(np.stack([ours[:, 0, 0], ours[:, 0, 1], ours[:, 1, 1]], axis=1), spread, atol=1e-5)
    each = np.concatenate([m.objective for m in found.modes])[
        np.argsort(np.concatenate([g.rows for g in found.groups]))
    ]
    np.testing.assert_allclose(each, [float(r["obj_i"]) for r in rows], atol=2e-3)
    one = neonatal["1"].mode()  # the twin's own mode is the empirical Bayes estimate
    assert one["CL"] == pytest.approx(found.estimates["CL"] * math.exp(theirs[0, 0]), rel=1e-4)
    assert found.shrinkage["CL"] == pytest.approx(100 * (1 - theirs[:, 0].std(ddof=1) / math.sqrt(0.0293508)), abs=0.1)


def test_what_a_pharmacometrician_looks_at(neonatal):
    found = neonatal.population
    fit = found.gof()
    table = fit.table
    assert len(table) == 155
    np.testing.assert_allclose(
        table["iwres"], (table["dv"] - table["ipred"]) / (found.estimates["C.prop"] * table["ipred"]), rtol=1e-6
    )
    assert abs(table["cwres"].mean()) < 0.2
    assert table["cwres"].std() == pytest.approx(1.0, abs=0.1)
    check = found.vpc(key=1, corrected=True, replicates=100)
    assert check.inside() > 0.7
    errors = found.npde(key=1, replicates=300)
    assert abs(errors.table["npde"].mean()) < 0.25
    assert errors.table["npde"].std() == pytest.approx(1.0, abs=0.15)
    assert "shrinkage" in repr(found)
    assert set(found.table["parameter"]) == {"CL", "V", "omega.CL", "omega.V", "low", "C.prop"}
    for picture in (fit.plot(), fit.individuals(), check.plot(), errors.plot(), found.plot()):
        assert picture.axes
    assert found.vpc(key=1, replicates=40).table.equals(found.vpc(key=1, replicates=40).table)


@pytest.mark.heavy
def test_correlated_effects_meet_an_objective_of_our_own(neonates):
    """A block is fitted; at its estimate the objective is that of NumPy by superposed doses."""
    model = ht.Model(Phenobarbital(), C=prop(0.25), omega=ht.block(["CL", "V"]))
    found = ht.personalize(model, neonates, ht.FOCEI(draws=20), key=0, progress=False).population
    at = found.estimates
    assert found.objective < 586.276
    assert -1 < at["corr.CL.V"] < 1
    root = np.linalg.cholesky(np.array([[1, at["corr.CL.V"]], [at["corr.CL.V"], 1]])) * np.array(
        [[at["omega.CL"]], [at["omega.V"]]]
    )
    assert found.objective == pytest.approx(objective([_neonate(p, at, root) for p in neonates.values()]), abs=1e-3)
    own = found.person()
    np.testing.assert_allclose(
        np.array(own.correlated[0][1]) @ np.array(own.correlated[0][1]).T,
        [[1, at["corr.CL.V"]], [at["corr.CL.V"], 1]],
        atol=1e-9,
    )


def _neonate(person, at, root):
    weight, apgar = (
        float(person.series[n].value[0]) if n in person.series else float(person.covariates[n](0.0))
        for n in ("weight", "apgar")
    )
    seen, doses = person.series["C"], next(iter(person.regimens.values())).doses

    def mean(b):
        eta = root @ b
        cl, v = (
            at["CL"] * weight * math.exp(eta[0]),
            at["V"] * weight * (1 + at["low"] * (apgar < 5)) * math.exp(eta[1]),
        )
        gone = seen.time[:, None] - np.array([d.time for d in doses])[None, :]
        return np.sum(
            np.where(gone >= 0, np.array([d.amount for d in doses]) / v * np.exp(-cl / v * np.maximum(gone, 0)), 0.0),
            axis=1,
        )

    return seen.value, mean, lambda f: at["C.prop"] * f, np.zeros(len(seen.value), bool), 2


# --------------------------------------------------------------------------------------------------- Wang, theophylline


@pytest.mark.heavy
def test_the_objective_of_wang_2007(shared_data):
    """y = 10 exp(-ke t) (1 + eps), ke = 0.5 exp(eta), var eta .04, var eps .1; published 39.458."""
    with open(shared_data("pkpd/wang2007.csv"), newline="") as file:
        rows = list(csv.DictReader(file))
    people = []
    for name in dict.fromkeys(r["id"] for r in rows):
        times, values = zip(*((float(r["time"]), float(r["y"])) for r in rows if r["id"] == name), strict=True)
        dose = ht.Regimen.bolus(10, "mg", at=0.0)
        times = [max(t, 1e-6) for t in times]  # after the dose, which at an equal time comes second here
        people.append(
            ht.Person.of(
                name, start=0.0, stop=1.0, time="h", doses={"iv": dose}, readings={"C": (times, values, "mg/L")}
            )
        )
    model = ht.Model(OneCompartment(CL=ht.lognormal(0.5, 0.2), V=1.0), C=prop(math.sqrt(0.1)), omega={"CL": 0.2})
    cohort = ht.Cohort(people)
    found = ht.personalize(model, cohort, EVALUATE, key=0, progress=False).population
    assert found.objective == pytest.approx(39.4575501, abs=1e-4)
    with double():
        pool, groups = gather(model, people)
        for order, published in ((Order(interaction=False), 39.2067162), (Order(False, False), 39.2132222)):
            objective = Marginal(pool, groups, order=order).each(pool.start).sum()  # FOCE, FO
            assert objective == pytest.approx(published, abs=1e-4)
    exact = ht.personalize(model, cohort, ht.FOCEI(laplace=True, rounds=0, draws=20), key=0, progress=False).population
    assert exact.objective == pytest.approx(39.3548035, abs=0.2)  # 80-point quadrature


def oral(**given):
    return ht.Model(
        OneCompartmentOral(tlag=0.0), C=ht.sensors.Gaussian("C", sd=ht.lognormal(1.0, 1.0)), pooling=ht.Pooling(**given)
    )


SAEM = {"ka": (0.464, 0.195), "CL": (1.01, 0.085), "V": (3.46, 0.0447)}  # nlmixr2, log scale, with standard errors


@pytest.mark.heavy
@pytest.mark.parametrize("conditional", [True, False], ids=["FOCE", "FO"])
def test_theophylline_without_interaction(shared_data, conditional):
    """With an additive error FOCE is FOCEI; FO is off where effects are large (ka)."""
    shared_data("pkpd/theophylline.csv")
    method = ht.FOCEI(draws=20, interaction=False, conditional=conditional)
    found = ht.personalize(oral(), ht.datasets.theophylline(), method, key=0, progress=False).population
    apart = {name: abs(math.log(found.estimates[name]) - mean) for name, (mean, _) in SAEM.items()}
    assert apart["CL"] < 0.05 and apart["V"] < 0.06
    assert apart["ka"] < 0.05 if conditional else 0.3 < apart["ka"] < 0.9


@pytest.mark.heavy
def test_theophylline_is_where_other_programs_find_it(shared_data):
    shared_data("pkpd/theophylline.csv")
    found = ht.personalize(oral(), ht.datasets.theophylline(), ht.FOCEI(draws=20), key=0, progress=False).population
    for name, (mean, se) in SAEM.items():
        assert math.log(found.estimates[name]) == pytest.approx(mean, abs=0.5 * se), name
    assert found.estimates["C.sd"] == pytest.approx(0.696, abs=0.01)
    for name, cv in {"ka": 71.1, "CL": 27.4, "V": 13.1}.items():
        assert found.table.set_index("parameter")["cv_percent"][f"omega.{name}"] == pytest.approx(cv, rel=0.08)
    for name, (_, se) in SAEM.items():
        assert found.errors()[name] / found.estimates[name] == pytest.approx(se, rel=0.25), name


@pytest.mark.heavy
def test_pooled_nuts_of_theophylline(shared_data):
    shared_data("pkpd/theophylline.csv")
    twins = ht.personalize(oral(), ht.datasets.theophylline(), ht.NUTS(draws=150), key=0, progress=False)
    found = twins.population
    assert found.computed.level == "OK", found.computed
    for name, (mean, se) in SAEM.items():
        assert math.log(found.estimates[name]) == pytest.approx(mean, abs=2 * se), name
    table = found.table.set_index("parameter")
    assert (table["ess_bulk"] > 150).all()
    assert 0.42 < found.estimates["omega.ka"] < 1.06  # nlme's profile interval
    assert {t.verdict.parts["computed"].level for t in twins.values()} == {"OK"}
    again = ht.personalize(oral(), ht.datasets.theophylline(), ht.NUTS(draws=150), key=0, progress=False)
    np.testing.assert_array_equal(again.population.draws, found.draws)
    own = found.person()
    prior = own.system.priors()["ka"]  # a new person: spread, and what is not known of the typical value
    assert float(prior.scale) > found.estimates["omega.ka"]
    assert float(prior.loc) == pytest.approx(math.log(found.estimates["ka"]), abs=0.1)


# ------------------------------------------------------------------------------------ censoring, occasions, one person


def limited(count=24, limit=1.5, seed=3):
    """People whose last readings lie below the limit of quantification."""
    rng, people = np.random.default_rng(seed), []
    times = np.array([1.0, 3.0, 6.0, 10.0, 16.0])
    for i in range(count):
        cl = 4.0 * math.exp(0.3 * rng.normal())
        c = 100.0 / 20.0 * np.exp(-cl / 20.0 * times) * (1 + 0.1 * rng.normal(size=len(times)))
        censored = np.where(c < limit, -1, 0)
        c = np.where(censored < 0, limit, c)
        series = Series.of(
            times, c, "mg/L", censored=censored, limit=np.where(censored < 0, limit, np.nan), order=np.arange(5)
        )
        people.append(
            ht.Person.of(
                str(i),
                start=0.0,
                stop=20.0,
                time="h",
                doses={"iv": ht.Regimen.bolus(100, "mg", at=0.0)},
                readings={"C": series},
            )
        )
    return ht.Cohort(people)


def test_censored_readings_count_by_their_tail_probability():
    cohort = limited()
    model = ht.Model(OneCompartment(CL=ht.lognormal(4.0, 0.3), V=20.0), C=prop(0.1), omega={"CL": 0.3})
    with double():
        found = float(Marginal(*gather(model, cohort.values())).each(np.zeros(2)).sum())

    def person(p):
        seen = p.series["C"]
        return (
            seen.value,
            lambda b: 5.0 * np.exp(-4.0 * math.exp(0.3 * b[0]) / 20 * seen.time),
            lambda f: 0.1 * f,
            seen.censored < 0,
            1,
        )

    people = [person(p) for p in cohort.values()]
    assert sum(below.sum() for *_, below, _ in people) > 20
    assert found == pytest.approx(objective(people), abs=2e-4)
    fitted = ht.personalize(model, cohort, ht.FOCEI(draws=20), key=0, progress=False).population
    assert fitted.estimates["CL"] == pytest.approx(4.0, rel=0.2)  # dropped, they would pull clearance down
    plain = sum(int((p.series["C"].censored == 0).sum()) for p in cohort.values())
    whole = fitted.objective + plain * math.log(2 * math.pi)  # a probability has no such constant
    assert fitted.fit_measures["minus2LL"] == pytest.approx(whole, abs=1e-9)
    check = fitted.vpc(key=0, replicates=60)
    share = check.table[check.table["percentile"].isna()]
    assert ((share["observed"] >= share["q05"] - 10) & (share["observed"] <= share["q95"] + 10)).all()
    assert check.plot().axes
    assert np.isfinite(fitted.npde(key=0, replicates=200).table["npde"]).all()


def bolus(name, y, times=(-1.0, 1.0, 4.0, 8.0), dose=200.0):
    """Somebody with a dose (mg) at 0 and these readings of C."""
    doses = {"iv": ht.Regimen.bolus(dose, "mg", at=0.0)}
    seen = (np.array(times), np.array(y), "mg/L")
    return ht.Person.of(name, start=-2.0, stop=20.0, time="h", doses=doses, readings={"C": seen})


@pytest.mark.heavy
@pytest.mark.parametrize("kind", [ht.sensors.Combined1, ht.sensors.Combined2])
def test_nothing_before_a_dose_under_an_error_in_proportion(kind):
    """0 has no density where 0 is modelled with an error of 0, which is told; below a limit it lies for sure and says nothing."""
    sensor = kind("C", add=0.0, prop=ht.lognormal(0.15, 0.5))
    body = OneCompartment(CL=ht.lognormal(4.0, 0.3), V=ht.lognormal(10.0, 0.3))
    alone, pooled = ht.Model(body, C=sensor), ht.Model(body, C=sensor, pooling=ht.Pooling())
    people = [bolus(str(i), [0.0, 13.0 + i, 3.0, 1.0 - 0.2 * i]) for i in range(3)]
    with pytest.raises(ht.errors.ImplausibleValue, match="'0', row 1, column 'C': 0 mg/L at -1 h has no density"):
        ht.personalize(alone, people[0], ht.Laplace(), key=0, progress=False)
    with pytest.raises(ht.errors.ImplausibleValue, match="has no density where 0 is modelled"):
        ht.personalize(pooled, ht.Cohort(people), EVALUATE, key=0, progress=False)
    below, limit = np.array([-1, 0, 0, 0]), np.array([0.1, np.nan, np.nan, np.nan])
    objectives = []
    for start in (0, 1):
        cohort = []
        for p in people:
            s = p.series["C"]
            value = np.where(below < 0, 0.1, s.value)[start:]
            marks = {"censored": below[start:], "limit": limit[start:], "order": np.arange(4 - start)}
            series = Series.of(s.time[start:], value, "mg/L", **marks)
            cohort.append(dataclasses.replace(p, series={**p.series, "C": series}))
        twins = ht.personalize(pooled, ht.Cohort(cohort), EVALUATE, key=0, progress=False)
        objectives.append(twins.population.objective)
    assert objectives[0] == pytest.approx(objectives[1], abs=1e-8)


@pytest.mark.heavy
def test_a_reading_that_is_exactly_what_is_modelled_is_one_under_an_error_of_one():
    """Nothing before the dose, read as 0 with an error of 1: residual and log sd are 0, and the reading is Gaussian yet."""
    body = OneCompartment(CL=ht.lognormal(4.0, 0.3), V=ht.lognormal(10.0, 0.3))
    model = ht.Model(body, C=ht.sensors.Gaussian("C", sd=1.0), pooling=ht.Pooling())
    found = []
    for before in (0.0, 1e-7):
        cohort = ht.Cohort(bolus(str(i), [before, 13.0 + i, 3.0, 1.0 - 0.2 * i]) for i in range(3))
        twins = ht.personalize(model, cohort, EVALUATE, key=0, progress=False)
        population = twins.population
        alone = sum(twin.fits[0].log_evidence for twin in twins.values())
        assert alone == pytest.approx(-0.5 * population.fit_measures["minus2LL"], abs=1e-9)
        found.append(population)
    assert found[0].objective == pytest.approx(found[1].objective, abs=1e-9)
    np.testing.assert_allclose(found[0].gof().table["cwres"], found[1].gof().table["cwres"], atol=1e-6)


@pytest.mark.heavy
def test_ranks_of_readings_of_one_time_and_of_counts_are_those_of_a_normal():
    """Replicates of an assay err each by itself; among many zeros a rank has a chance of its own."""
    rng, times = np.random.default_rng(3), np.array([1.0, 4.0, 8.0])
    clearance = 4.0 * np.exp(0.3 * rng.normal(size=(40, 1)))
    curves = 20.0 * np.exp(-clearance / 10.0 * times)
    body, twice = OneCompartment(CL=ht.lognormal(4.0, 0.3), V=10.0), np.repeat(times, 2)
    assay = np.repeat(curves, 2, axis=1) * (1 + 0.1 * rng.normal(size=(40, 6)))
    counts = rng.poisson(0.1 * curves).astype(float)
    cases = {"assay": (assay, twice, 200.0, prop(0.1)), "counts": (counts, times, 20.0, ht.sensors.Poisson("C"))}
    for name, (readings, when, dose, sensor) in cases.items():
        cohort = ht.Cohort(bolus(str(i), y, when, dose) for i, y in enumerate(readings))
        twins = ht.personalize(ht.Model(body, C=sensor, pooling=ht.Pooling()), cohort, ht.FOCEI(draws=20), key=0, progress=False)
        fit = twins.population.gof()
        assert fit.plot().axes and str(fit)
        errors = twins.population.npde(key=1)
        assert errors.tests()["global"] > 0.01, (name, errors)
        assert errors.table["npde"].abs().max() < 3.5


def test_percentiles_are_compared_beyond_the_strictest_of_several_limits():
    """Half of the people have a limit of 1, half of .5: what lies between them counts as below in readings and simulations."""
    import pandas as pd

    from hybridtwin.inference.goodness import _vpc_of

    rng, n = np.random.default_rng(0), 4000
    limit = np.where(np.arange(n) % 2, 1.0, 0.5)

    def drawn(*shape):
        return np.exp(0.3 + 0.6 * rng.standard_normal(shape))

    y = drawn(n)
    seen = {"dv": np.maximum(y, limit), "pred": 1.0, "censored": -(y < limit).astype(int)}
    rows, _ = _vpc_of("C", pd.DataFrame({"person": "a", "sensor": "C", "time": 1.0} | seen), drawn(200, n), False, 1)
    assert len(rows) == 4 and np.isnan(rows[0]["observed"])  # the 5 % percentile lies below the limit
    for row in rows[1:]:
        slack = 2 * (row["q95"] - row["q05"])
        assert row["observed"] == pytest.approx(row["q50"], abs=slack), row
    assert rows[-1]["observed"] == pytest.approx(100 * scipy.stats.norm.cdf(-0.3 / 0.6), abs=3)


@pytest.mark.heavy
def test_steps_that_are_too_long_are_told_and_halved(monkeypatch):
    """Against the same cohort with exact steps. Without a finer step the verdict says by how much."""
    from hybridtwin.inference import hierarchy
    from hybridtwin.simulate.steppers import Chebyshev

    cohort, body = limited(), OneCompartment(CL=ht.lognormal(4.0, 0.3), V=20.0)
    exact = ht.Model(body, C=prop(0.1), omega={"CL": 0.3})
    coarse = ht.Model(body, C=prop(0.1), omega={"CL": 0.3}, solver=Chebyshev(2))
    wanted = ht.personalize(exact, cohort, ht.FOCEI(draws=20), key=0, progress=False).population
    assert wanted.stats["mesh_change"] == wanted.stats["mesh_move"] == 0.0
    found = ht.personalize(coarse, cohort, ht.FOCEI(draws=20), key=0, progress=False).population
    assert found.substeps > 1 and found.computed.level == "OK"
    assert found.objective == pytest.approx(wanted.objective, abs=0.1)
    assert found.estimates["CL"] == pytest.approx(wanted.estimates["CL"], abs=0.1 * wanted.errors()["CL"])
    assert 0 < abs(found.stats["mesh_change"]) < 0.1 and "half the steps" in repr(found)
    monkeypatch.setattr(hierarchy, "_FINEST", 1)
    told = ht.personalize(coarse, cohort, ht.FOCEI(draws=20), key=0, progress=False).population
    assert told.substeps == 1 and told.computed.level == "CAUTION"
    assert any("steps are too long" in reason for reason in told.computed.reasons)
    assert 0.1 < abs(told.objective - wanted.objective) < 2 * abs(told.stats["mesh_change"])


def test_a_search_does_not_follow_rounding():
    """A coordinate of which no reading speaks rests where it is; before, a search walked down rounding for a hundred rounds."""

    class Flat:
        pool, count, warm, substeps = types.SimpleNamespace(start=np.array([0.0, 0.0]), sites=(), values=lambda u: {}), 3, [], 1

        def each(self, us):
            u, v = np.atleast_2d(us).T
            noise = 1e-9 * np.sin(1e7 * v) - 1e-7 * v
            return np.stack([50.0 * (u - c) ** 2 + noise for c in (0.5, 1.0, 1.8)], axis=1)

        def slopes(self, u, step):
            moves = np.diag(step)
            return ((self.each(u + moves) - self.each(u - moves)) / (2 * step[:, None])).reshape(2, -1)

        def settle(self, u):
            return []

        def adopt(self, row):
            pass

    found = focei.maximize(Flat(), lambda done, total: None)
    assert found.u[0] == pytest.approx(1.1, abs=1e-5) and abs(found.u[1]) < 1e-6
    assert found.rounds < 15 and not found.free[1] and found.free[0]


def test_occasions_have_a_variance_of_their_own():
    """Clearance differs between people (.3) and between two occasions of one person (.2)."""
    rng, people, truth = np.random.default_rng(5), [], []
    times = np.array([1.0, 5.0, 12.0, 25.0, 29.0, 36.0])
    for i in range(40):
        eta, kappa = 0.3 * rng.normal(), 0.2 * rng.normal(size=2)
        rate = 4.0 / 20.0 * np.exp(eta + kappa)
        end = 5.0 * math.exp(-24 * rate[0])
        c = np.where(times < 24, 5.0 * np.exp(-rate[0] * times), (end + 5.0) * np.exp(-rate[1] * (times - 24)))
        truth.append(kappa)
        dose = ht.Regimen.bolus(100, "mg", at=[0.0, 24.0])
        series = Series.of(times, c * (1 + 0.08 * rng.normal(size=6)), "mg/L")
        person = ht.Person.of(str(i), start=0.0, stop=40.0, time="h", doses={"iv": dose}, readings={"C": series})
        people.append(dataclasses.replace(person, occasions=((24.0, 1),)))
    body = OneCompartment(CL=ht.lognormal(4.0, 0.3), V=20.0)
    model = ht.Model(
        body, C=prop(0.08), varies={"CL": ("occasion", ht.lognormal(0.2, 0.7))}, omega={"CL": ht.lognormal(0.3, 0.7)}
    )
    cohort = ht.Cohort(people)
    with double():
        marginal = Marginal(*gather(model, cohort.values()))
        here = {"omega": 0.3, "kappa": 0.2}
        found = float(marginal.each(marginal.pool.start).sum())

    def person(p):
        seen = p.series["C"]

        def mean(b):
            rate = 0.2 * np.exp(here["omega"] * b[0] + here["kappa"] * b[1:])
            end = 5.0 * math.exp(-24 * rate[0])
            return np.where(
                seen.time < 24, 5.0 * np.exp(-rate[0] * seen.time), (end + 5.0) * np.exp(-rate[1] * (seen.time - 24))
            )

        return seen.value, mean, lambda f: 0.08 * f, np.zeros(6, bool), 3

    assert found == pytest.approx(objective([person(p) for p in cohort.values()]), abs=1e-3)
    fitted = ht.personalize(model, cohort, ht.FOCEI(draws=20), key=0, progress=False).population
    assert fitted.estimates["CL@occasion.spread"] == pytest.approx(0.2, rel=0.3)
    assert fitted.estimates["omega.CL"] == pytest.approx(0.3, rel=0.35)


def test_what_is_known_of_a_population_is_the_prior_of_one_person():
    """A published population, given as numbers: it was left aside wherever people are on their own."""
    body = OneCompartmentOral(
        ka=ht.normal(1.0, 0.2), CL=ht.lognormal(4.0, 0.3), V=ht.lognormal(20.0, 0.2), tlag=ht.logitnormal(0.2, 0.5)
    )
    typical = {"ka": 1.5, "CL": 8.0, "V": 30.0, "tlag": 0.4}
    model = ht.Model(body, C=prop(0.1), pooling=ht.Pooling({"ka": 0.3, "CL": 0.1, "V": 0, "tlag": 0.7}, typical))
    assert not model.pools and model.system.V == 30.0
    found = model.system.priors()
    assert isinstance(found["CL"], type(ht.lognormal(1.0, 1.0))) and isinstance(found["ka"], type(ht.normal(1.0, 1.0)))
    assert [found["ka"].loc, found["ka"].scale] == [1.5, 0.3]
    assert [found["CL"].loc, found["CL"].scale] == pytest.approx([math.log(8.0), 0.1], rel=1e-15)
    base = found["tlag"].base_dist
    assert [base.loc, base.scale] == pytest.approx([math.log(0.4 / 0.6), 0.7], rel=1e-15)
    assert model.starting("steady").system.V == 30.0
    part = ht.Model(body, C=prop(0.1), pooling=ht.Pooling(typical={"CL": 8.0})).system.priors()["CL"]
    assert [part.loc, part.scale] == pytest.approx([math.log(8.0), 0.3])
    block = ht.Model(body, C=prop(0.1), pooling=ht.Pooling(ht.block(["CL", "V"], [[0.04, 0.0], [0.0, 0.01]]), {"CL": 8.0}))
    assert block.system.priors()["CL"].loc == pytest.approx(math.log(8.0)) and block.system.priors()["CL"].scale == 0.2
    with pytest.raises(ht.errors.DeclarationError, match="no typical value of 'CL'"):
        ht.Model(body, pooling=ht.Pooling(typical={"CL": -8.0}))


@pytest.mark.heavy
def test_a_population_that_is_known_can_be_looked_at():
    """Nothing to search for: the objective of our own, effects and checks; nothing to sample either, which is told."""
    body, error = OneCompartment(CL=ht.lognormal(4.0, 0.3), V=20.0), ht.sensors.Combined1("C", add=0.0, prop=0.1)
    model = ht.Model(body, C=error, pooling=ht.Pooling({"CL": 0.3}, {"CL": 5.0}))
    times = np.array([1.0, 4.0, 8.0])
    cohort = ht.Cohort(bolus(str(i), np.array([8.5, 4.0, 1.5]) + 0.3 * i, times) for i in range(3))
    population = ht.personalize(model, cohort, ht.FOCEI(draws=20), key=0, progress=False).population

    def curve(b):
        return 10.0 * np.exp(-5.0 * math.exp(0.3 * b[0]) / 20 * times)

    people = [(p.series["C"].value, curve, lambda f: 0.1 * f, np.zeros(3, bool), 1) for p in cohort.values()]
    assert population.objective == pytest.approx(objective(people), abs=1e-5)
    assert len(population.table) == 0 and str(population) and np.isfinite(population.shrinkage["CL"])
    assert np.isfinite(population.npde(key=0, replicates=100).table["npde"]).all()
    with pytest.raises(ht.errors.ParameterError, match="nothing is left to infer"):
        ht.personalize(model, cohort, ht.HMC(), key=0, progress=False)


def test_a_known_covariance_correlates_the_prior_of_one_person():
    covariance = [[0.09, 0.05], [0.05, 0.04]]
    model = ht.Model(
        OneCompartment(CL=ht.lognormal(4.0, 0.1), V=ht.lognormal(20.0, 0.1)),
        C=prop(0.1, 0.3),
        omega=ht.block(["CL", "V"], covariance),
    )
    assert not model.pools or model.pooling.typical == {}
    times, values = np.array([1.0, 8.0]), np.array([4.0, 1.2])
    person = ht.Person.of(
        "p",
        start=0.0,
        stop=12.0,
        time="h",
        doses={"iv": ht.Regimen.bolus(100, "mg", at=0.0)},
        readings={"C": (times, values, "mg/L")},
    )
    mode = ht.personalize(model, person, ht.Laplace(draws=50), key=0, progress=False).mode()
    inverse = np.linalg.inv(covariance)

    def cost(z):
        eta, scale = z[:2], 0.1 * math.exp(0.3 * z[2])
        f = 100.0 / (20 * math.exp(eta[1])) * np.exp(-4 * math.exp(eta[0]) / (20 * math.exp(eta[1])) * times)
        return (
            np.sum(0.5 * ((values - f) / (scale * f)) ** 2 + np.log(scale * f))
            + 0.5 * eta @ inverse @ eta
            + 0.5 * z[2] ** 2
        )

    best = scipy.optimize.minimize(cost, np.zeros(3), method="BFGS", options={"gtol": 1e-10}).x
    assert mode["CL"] == pytest.approx(4 * math.exp(best[0]), rel=1e-4)
    assert mode["V"] == pytest.approx(20 * math.exp(best[1]), rel=1e-4)
    import numpyro

    with double():
        problem = model.bind(person)
        density, _ = numpyro.infer.util.log_density(model, (problem,), {}, {"CL": 3.1, "V": 22.0, "C.prop": 0.12})
        eta = np.log([3.1 / 4, 22 / 20])
        gaussian = (
            -0.5 * eta @ inverse @ eta
            - 0.5 * math.log((2 * math.pi) ** 2 * np.linalg.det(covariance))
            - math.log(3.1 * 22)
        )
        f = 100 / 22 * np.exp(-3.1 / 22 * times)
        seen = np.sum(-0.5 * ((values - f) / (0.12 * f)) ** 2 - np.log(0.12 * f) - 0.5 * math.log(2 * math.pi))
        error = -0.5 * (math.log(1.2) / 0.3) ** 2 - math.log(0.3 * math.sqrt(2 * math.pi) * 0.12)
        assert float(density) == pytest.approx(gaussian + seen + error, rel=1e-9)


# ------------------------------------------------------------------------------------------------------------ slips


@pytest.mark.parametrize(
    ("omega", "said"),
    [
        ({"Cl": 0.3}, "Did you mean 'CL'"),
        ({"CL": -1.0}, "standard deviation"),
        ([ht.block(["CL", "V"]), ht.block(["V", "ka"])], "two blocks"),
        ([ht.block(["CL", "V"]), {"V": 0}], "in a block"),
    ],
)
def test_slips_in_a_declaration_are_told(omega, said):
    with pytest.raises(ht.errors.DeclarationError, match=said):
        ht.Model(OneCompartmentOral(tlag=0.0), C=ht.sensors.Gaussian("C", sd=1.0), omega=omega)


def test_a_block_is_checked():
    with pytest.raises(ht.errors.DeclarationError, match="positive definite"):
        ht.block(["CL", "V"], [[1.0, 2.0], [2.0, 1.0]])
    with pytest.raises(ht.errors.DeclarationError, match="two or more"):
        ht.block(["CL"])


@pytest.mark.heavy
def test_fewer_people_than_spreads_are_told():
    """A cohort of one has no spread: the estimate came with an OK, an RSE of 1000 % and a warning of NumPy."""
    lone = ht.Cohort([next(iter(limited(1).values()))])
    model = ht.Model(OneCompartment(CL=ht.lognormal(4.0, 0.3), V=ht.lognormal(20.0, 0.2)), C=prop(0.1), pooling=ht.Pooling())
    found = ht.personalize(model, lone, ht.FOCEI(draws=20), key=0, progress=False).population
    assert found.computed.level == "CAUTION" and any("1 people cannot tell 2" in reason for reason in found.computed.reasons)
    assert np.isnan(found.shrinkage["CL"])


def test_one_person_is_not_pooled():
    model = ht.Model(OneCompartment(), C=prop(0.1), omega={"CL": 0.3})
    person = next(iter(limited(1).values()))
    with pytest.raises(ht.errors.ParameterError, match="cohort"):
        ht.personalize(model, person, ht.FOCEI(), key=0, progress=False)
    with pytest.raises(ht.errors.ParameterError, match="pooled"):
        ht.personalize(model, limited(2), ht.Laplace(), key=0, progress=False)
