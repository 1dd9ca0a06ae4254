"""Drug studies against what other programs and an independent optimizer find (models and figures: benchmarks/pkpd.py)."""

import json
import math

import numpy as np
import pytest
import scipy.integrate
import scipy.optimize
from conftest import benchmark

import hybridtwin as ht
from hybridtwin.physiology import OneCompartmentOral

QUICK = ht.Laplace(draws=200, starts=4)


@pytest.fixture(scope="module")
def bench():
    """The functions of benchmarks/pkpd.py."""
    return benchmark("pkpd")


@pytest.fixture
def theophylline(shared_data):
    shared_data("pkpd/theophylline.csv")
    return ht.datasets.theophylline()


@pytest.fixture
def warfarin(shared_data):
    shared_data("pkpd/warfarin_pkpd.csv")
    shared_data("pkpd/warfarin_monolix_ebe_mode.csv")
    return ht.datasets.warfarin()


# ------------------------------------------------------------------------------------------------ theophylline


def bateman(ka, cl, v, dose, t):
    """Concentration after one oral dose in one compartment."""
    k = cl / v
    return dose * ka / (v * (ka - k)) * (np.exp(-k * t) - np.exp(-ka * t))


def theophylline_mode(person, log_sd):
    """The mode on the eta scale by BFGS on a closed form; the standard deviation of the error is unknown too."""
    seen = person.series["C"]
    dose = person.regimens["oral"].doses[0].amount
    center = np.array([0.464, 1.01, 3.46, math.log(0.696)])
    spread = np.array([*(math.sqrt(math.log(1 + cv**2)) for cv in (0.711, 0.274, 0.131)), log_sd])

    def cost(z):
        ka, cl, v, sd = np.exp(center + spread * z)
        miss = (seen.value - bateman(ka, cl, v, dose, seen.time)) / sd
        return 0.5 * z @ z + 0.5 * miss @ miss + len(miss) * math.log(sd)

    starts = [np.zeros(4), np.array([0.7, 0, 0, 0]), np.array([-1.5, 0, 0, 0]), np.array([2.0, 0, 0, 0])]
    found = [scipy.optimize.minimize(cost, z, method="BFGS", options={"gtol": 1e-9}) for z in starts]
    return np.exp(center + spread * min(found, key=lambda f: f.fun).x)


@pytest.mark.heavy
def test_modes_of_theophylline_are_those_of_an_independent_optimizer(bench, theophylline):
    twins = ht.personalize(bench.theophylline_model(), theophylline, QUICK, key=0, progress=False)
    log_sd = math.log(0.780 / 0.596) / 3.92
    for name, mode in twins.modes().iterrows():
        expected = theophylline_mode(theophylline[name], log_sd)
        np.testing.assert_allclose(mode[["ka", "CL", "V", "C.sd"]].to_numpy(float), expected, rtol=1e-4, err_msg=name)
    counts = [bench.inside(twin, theophylline[name]) for name, twin in twins.items()]
    assert sum(n for _, n in counts) == 132
    assert sum(c[0.95] for c, _ in counts) >= 123


@pytest.mark.heavy
@pytest.mark.parametrize("error", ["additive", "combined"])
def test_all_twelve_of_theophylline_are_ok_and_inside_their_bands(bench, theophylline, error):
    found = bench.theophylline(ht.NUTS(), error)
    assert set(found["all"]["verdicts"].values()) == {"OK"}, found["all"]["reasons"]
    assert found["all"]["samples"] == 132
    assert found["all"]["inside"][0.95] >= 123
    # Of the sixty samples to come 54 and 57 are expected inside; those of one person err together. The bands turn out
    # wide rather than narrow: the published error (.7 mg/L) also stands for what the model misses while the drug is
    # absorbed, and is larger than the scatter of the samples after that.
    assert found["ahead"]["samples"] == 60
    assert found["ahead"]["inside"][0.9] >= 50
    assert found["ahead"]["inside"][0.95] >= 54


@pytest.mark.heavy
def test_later_samples_of_theophylline_from_six_of_hers_and_eleven_other_people(bench, theophylline):
    found = bench.from_the_others(ht.Auto())
    assert len(found["verdicts"]) == 12 and found["samples"] == 60
    assert 50 <= found["inside"][0.9] <= 58  # by chance (`chance()`), nine studies in ten
    assert 53 <= found["inside"][0.95] <= 60


# ---------------------------------------------------------------------------------------------------- warfarin


def turnover(values, people, id):
    """(cp, pca) modelled at one person's readings by LSODA, and what was read: an implementation of its own."""
    ktr, ka, cl, v, emax, ec50, kout, e0 = (values[n] for n in ("ktr", "ka", "CL", "V", "emax", "ec50", "kout", "E0"))
    cp, pca = (people[id].series[name] for name in ("cp", "pca"))
    times = np.unique(np.concatenate([cp.time, pca.time]))
    dose = people[id].regimens["oral"].doses[0].amount

    def rates(t, x):
        c = x[2] / v
        effect = kout * e0 * (1 - emax * c / (ec50 + c)) - kout * x[3]
        return [-ktr * x[0], ktr * x[0] - ka * x[1], ka * x[1] - cl / v * x[2], effect]

    options = {"method": "LSODA", "t_eval": times, "rtol": 1e-9, "atol": 1e-9}
    x = scipy.integrate.solve_ivp(rates, (0.0, times[-1]), [dose, 0.0, 0.0, e0], **options).y
    at = np.searchsorted(times, cp.time), np.searchsorted(times, pca.time)
    return (x[2][at[0]] / v, cp.value), (x[3][at[1]], pca.value)


def log_posterior(values, reference, people, id):
    """Log posterior on the eta scale under the recorded model of Monolix, up to a constant."""
    fixed, omega, error = reference["fixed"], reference["omega"], reference["residual"]
    total = 0.0
    for ours, theirs in zip(
        ("ktr", "ka", "CL", "V", "ec50", "kout", "E0"), ("ktr", "ka", "cl", "v", "ec50", "kout", "e0"), strict=True
    ):
        total -= 0.5 * (math.log(values[ours] / fixed[theirs]) / omega[theirs]) ** 2
    logit = [math.log(p / (1 - p)) for p in (values["emax"], fixed["emax"])]
    total -= 0.5 * ((logit[0] - logit[1]) / omega["emax_logit"]) ** 2
    (cp, cp_seen), (pca, pca_seen) = turnover(values, people, id)
    sd = np.sqrt(error["pk_add"] ** 2 + (error["pk_prop"] * cp) ** 2)
    total -= float(np.sum(0.5 * ((cp_seen - cp) / sd) ** 2 + np.log(sd)))
    return total - float(np.sum(0.5 * ((pca_seen - pca) / error["pd_add"]) ** 2))


def test_the_mode_of_subject_1_is_the_published_one(bench, warfarin, shared_data):
    reference = json.loads(shared_data("pkpd/reference_estimates.json").read_text())["warfarin"][2]["map"]
    mode = bench.modes(bench.published_warfarin(), [warfarin["1"]]).loc["1"]
    for name, rounded in {"ktr": 0.639, "ka": 0.5297, "CL": 0.28527, "emax": 0.9304, "ec50": 0.7909}.items():
        assert mode[name] == pytest.approx(rounded, rel=1e-3), name
        assert mode[name] == pytest.approx(reference[bench.MONOLIX[name]], rel=1e-3), name


def modes_beside_monolix(bench, warfarin, shared_data, ids):
    """Our modes and Monolix's, and how much higher ours are: everybody's must be a maximum, and near Monolix's."""
    reference = json.loads(shared_data("pkpd/reference_estimates.json").read_text())["warfarin"][0]
    theirs = bench.monolix_modes()
    ours = bench.modes(bench.warfarin_model(), [warfarin[i] for i in ids])
    gains, apart = {}, {}
    for i in ids:
        own = log_posterior(ours.loc[i], reference, warfarin, i)
        gains[i] = own - log_posterior(theirs[i], reference, warfarin, i)
        for name in ours.columns:  # a maximum: a step along any coordinate leads down
            for factor in (0.997, 1.003):
                p = ours.loc[i, name]
                moved = 1 / (1 + (1 - p) / p / factor) if name == "emax" else p * factor
                assert log_posterior({**ours.loc[i], name: moved}, reference, warfarin, i) < own + 1e-7, (i, name)
        apart[i] = {name: abs(ours.loc[i, name] / theirs[i][name] - 1) for name in ours.columns}
    return gains, apart


@pytest.mark.heavy
def test_modes_of_all_32_of_warfarin_are_maxima_beside_monolix(bench, warfarin, shared_data):
    """Monolix stops short of the maximum on the ridge of ktr and ka, which change places, and its concentrations at its
    own modes are up to 1.6 % off the exact ones (its table of predictions for person 13); no mode of its is higher."""
    gains, apart = modes_beside_monolix(bench, warfarin, shared_data, list(warfarin))
    assert all(0 < gain < 0.5 for gain in gains.values()), gains
    most = {"ktr": 0.25, "ka": 0.25, "CL": 0.02, "V": 0.04, "emax": 0.002, "ec50": 0.08, "kout": 0.02, "E0": 0.004}
    middle = {"CL": 2e-3, "V": 2e-3, "emax": 1e-4, "ec50": 3e-3, "kout": 1e-3, "E0": 5e-4}
    for name, bound in most.items():
        values = [row[name] for row in apart.values()]
        assert max(values) < bound, name
        assert name not in middle or np.median(values) < middle[name], name


@pytest.mark.heavy
def test_the_population_of_warfarin_is_where_other_programs_find_it(bench, warfarin):
    """Fixed effects within two standard errors of Monolix, the objective and the spreads beside NONMEM's."""
    found = bench.warfarin_population()
    fixed, objective = bench.beside_published(found)
    assert {name: apart for name, (_, _, apart) in fixed.items() if abs(apart) > 2} == {}
    assert abs(objective) < 1.0 and objective < 0.0  # NONMEM's search ended before its optimum
    nonmem = {"ktr": 0.55813, "ka": 0.558402, "CL": 0.0785849, "V": 0.0508227, "ec50": 0.184268, "kout": 0.00836315}
    for name, variance in nonmem.items():
        assert found.estimates[f"omega.{name}"] == pytest.approx(math.sqrt(variance), rel=0.03), name
    for name, value in {"cp.prop": 0.0985805, "cp.add": 0.511625, "pca.sd": 3.71714}.items():
        assert found.estimates[name] == pytest.approx(value, rel=0.01), name
    assert abs(found.stats["mesh_change"]) < 0.1 and found.stats["mesh_move"] < 0.1
    assert all(np.concatenate([m.arrived for m in found.modes]))


# ------------------------------------------------------------------------------------- patients, simulated people


# Digits as far as they were published: those of tobramycin to vancomycin recomputed (shared notes, physiology 3.4), of run 302
# NONMEM's own, of piperacillin Monolix's four.
DIGITS = {"tobramycin": 2e-4, "vancomycin": 2e-4, "amikacin": 2e-4, "run302": 2e-6, "piperacillin": 1e-3}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.heavy] * (n == "piperacillin")) for n in DIGITS]
)
def test_modes_of_single_patients_are_those_of_other_programs(name):
    found, reference = benchmark("patients").CASES[name]()
    for parameter, value in reference.items():
        assert found[parameter] == pytest.approx(value, rel=DIGITS[name]), parameter


STUDIES = {  # parameter -> most median error: what is seen through 20 % of error in 40 samples
    "oral": {"ka": 0.12, "CL": 0.05, "V": 0.05},
    "infusion": {"CL": 0.05, "Vc": 0.10, "Q": 0.2, "Vp": 0.2},
}


@pytest.mark.heavy
@pytest.mark.parametrize("study", STUDIES)
def test_simulated_people_are_recovered_and_intervals_hold_the_truth(bench, shared_data, study):
    shared_data(f"pkpd/{bench.STUDIES[study][0]}.csv.gz")
    found = bench.simulated(ht.Laplace(draws=400, starts=4), study)
    levels = list(found["verdicts"])  # a Gaussian of which less than half of the draws count says so: one of 40, and four
    assert "DO NOT USE" not in levels and levels.count("OK") >= 36
    for name, bound in STUDIES[study].items():
        assert found[name]["people"] == 40
        assert found[name]["median error"] < bound, name
    held = sum(found[n]["inside"] for n in STUDIES[study]) / sum(found[n]["people"] for n in STUDIES[study])
    assert 0.80 <= held <= 0.97


# ---------------------------------------------------------------------------------------------------- the mode


def record():
    times = np.array([0.5, 1.0, 2.0, 4.0, 8.0, 12.0])
    return ht.Person.of(
        "p", start=0.0, stop=24.0, time="h", doses={"oral": ht.Regimen.bolus(300, "mg", at=0.0)},
        readings={"C": (times, bateman(1.2, 3.0, 30.0, 300.0, times), "mg/L")},
    )  # fmt: skip


def test_proportional_error_alone_has_a_mode_in_a_cohort():
    """Rows of padding read a concentration of 0, where a proportional error has no density."""
    body = OneCompartmentOral(tlag=0.0)
    for sensor in (ht.sensors.Combined1, ht.sensors.Combined2):
        model = ht.Model(body, C=sensor("C", add=0.0, prop=0.1))
        mode = ht.personalize(model, ht.Cohort([record()]), QUICK, key=0, progress=False)["p"].mode()
        assert mode["CL"] == pytest.approx(3.0, rel=0.05)
        assert mode["ka"] == pytest.approx(1.2, rel=0.05)
