"""Simulators and exact answers of benchmarks/statin.py and tumor.py, against stored sets, SciPy and brute force."""

import dataclasses

import numpy as np
import pytest
import scipy.integrate
from conftest import benchmark


@pytest.fixture(scope="module")
def law():
    return benchmark("tumor_law")


@pytest.fixture(scope="module")
def statin():
    return benchmark("statin")


@pytest.fixture
def rng():
    return np.random.default_rng(0)


# ------------------------------------------------------------------------------------------------------------- tumors


@pytest.mark.parametrize("gamma", [0, 4])
def test_plans_are_those_of_the_published_simulator(law, shared_data, gamma):
    """Stored noise and parameters of the reference's own test set give its factual paths and its counterfactuals."""
    file = np.load(shared_data(f"tumour/cancer_sim/gamma{gamma}_test.npz"))
    chemo, radio = (np.unpackbits(file[name], axis=1)[:, : law.DAYS].astype(float) for name in ("chemo", "radio"))
    names = ("alpha", "rho", "beta_c", "initial_volumes", "patient_type")
    patients = law.Patients(*(file[name].astype(float) for name in names))
    noise = np.zeros((len(chemo), law.DAYS + law.AHEAD + 1))
    noise[:, : file["noise"].shape[1]] = file["noise"]
    drug = np.zeros_like(chemo)
    for t in range(law.DAYS):
        drug[:, t] = (drug[:, t - 1] / 2 if t else 0.0) + 5 * chemo[:, t]
    length = np.minimum(file["length"].astype(int), law.DAYS - 1)  # the stored lives are a day longer
    lives = law.Lives(file["volume"][:, : law.DAYS].astype(float), chemo, radio, drug, length)
    chance = law.Chance(noise, *np.zeros((3, *chemo.shape)))
    rows = file["cf_patient"]
    found = law.sliding(lives, patients, chance)
    at = {(who, day): k for k, (who, day) in enumerate(zip(found.who, found.day, strict=True))}
    for i, t, wanted, c, r in zip(rows, file["cf_t"], file["cf_volume"], file["cf_chemo"], file["cf_radio"], strict=True):
        if (int(i), int(t)) not in at:
            assert t >= law.DAYS - 1
            continue
        plan = np.flatnonzero(np.all(np.stack([c, r], axis=-1) - law.PLANS == 0, axis=(1, 2)))[0]
        np.testing.assert_allclose(found.truth[at[int(i), int(t)], plan], wanted, rtol=2e-5, atol=1e-6)


def test_the_exact_posterior_of_a_tumor_is_that_of_brute_force(law, rng):
    patients, chance = law.Patients.drawn(rng, 60), law.Chance.drawn(rng, 60)
    lives = law.lived(patients, chance, 2.0)
    asked = law.sliding(lives, patients, chance)
    asked = asked.of(np.flatnonzero((asked.day == 4) & (lives.length[asked.who] > 5))[:6])
    found = law.exact(lives, patients, asked, rng, 2000)
    growth, features = law.features(lives)
    prior = law.Patients.drawn(rng, 300_000)
    for k, (i, t) in enumerate(zip(asked.who, asked.day, strict=True)):
        more, own = (np.array(law.KINDS[int(kind)]) for kind in (patients.kind[i], 2))
        theirs = np.array([law.KINDS[kind] for kind in (1, 2, 3)])[prior.kind - 1]
        alpha, beta_c = prior.alpha - theirs[:, 0] + more[0] + own[0], prior.beta_c - theirs[:, 1] + more[1] + own[1]
        miss = growth[i, :t, None] - features[i, :t] @ np.stack([prior.rho, beta_c, alpha])
        weight = np.exp(-0.5 * (miss**2).sum(axis=0) / law.NOISE**2)
        weight /= weight.sum()
        for name, values in (("alpha", alpha), ("rho", prior.rho), ("beta_c", beta_c)):
            mean = weight @ values
            sd, error = np.sqrt(weight @ (values - mean) ** 2), np.sqrt(np.sum((weight * (values - mean)) ** 2))
            ours = getattr(found, name)[k]
            assert abs(ours.mean() - mean) < 5 * error + 0.1 * sd, (name, k)
            assert ours.std() == pytest.approx(sd, rel=0.15 + 5 * error / sd), (name, k)


def test_policies_differ_where_care_looks_at_the_tumor(law, rng):
    patients, chance = law.Patients.drawn(rng, 200), law.Chance.drawn(rng, 200)
    rows = law.rows_of(law.sliding)
    assert np.array_equal(law.lived(patients, chance, 0.0).radio, law.coded(patients, chance, 0.0, rows).radio)
    fixed, coded = law.lived(patients, chance, 4.0), law.coded(patients, chance, 4.0, rows)
    assert len(coded.length) == 200 and not np.array_equal(fixed.radio, coded.radio)
    big = patients.volume > 500
    shares = [life.radio[:, 0].astype(bool) for life in (fixed, coded)]
    assert shares[0][big].mean() > 0.5 and shares[1][big].mean() < 0.5  # another patient's rows, padded with zeros, look small


def test_drawn_pairs_are_weighted_to_be_unbiased(law, rng):
    tumor = benchmark("tumor")
    patients, chance = law.Patients.drawn(rng, 50), law.Chance.drawn(rng, 50)
    lives = law.lived(patients, chance, 1.0)
    everything = law.sliding(lives, patients, chance)
    value = lives.volume[everything.who, everything.day] ** 2
    found = []
    for _ in range(400):
        picked, weight, even = tumor.drawn(rng, lives, patients, everything, 40)
        assert even.sum() <= 20 < len(picked) <= 40
        found.append(weight @ value[picked])
    assert np.mean(found) == pytest.approx(value.mean(), abs=4 * np.std(found) / np.sqrt(len(found)))


@pytest.mark.heavy
def test_twins_of_tumors_know_what_the_exact_posterior_knows(law):
    """Draws of the twins, rank by rank turned into bodies, and their answers, beside the exact ones."""
    import hybridtwin as ht

    tumor = benchmark("tumor")
    one = tumor.Set.made("sliding6", 2, "fixed", 0, 120, count=100)
    few = (one.questions.day > 11) & (one.questions.day < 17)  # of few shapes, so that little is compiled
    one = dataclasses.replace(one, questions=one.questions.of(few), weight=one.weight[few])
    cohort = ht.Cohort(one.records("x"))
    twins = ht.personalize(tumor.model(), cohort, ht.Importance(draws=400, batch=512), key=0, progress=False)
    ours = tumor.answers(list(twins.values()), one.questions)
    rng, n = np.random.default_rng(1), len(one.weight)
    noise = law.NOISE * rng.standard_normal((n, law.AHEAD + 1, 4000))
    exact = law.forecast(one.lives, one.questions, law.exact(one.lives, one.patients, one.questions, rng, 4000), noise)
    assert n > 5 and np.isfinite(ours).mean() > 0.97 and np.isfinite(exact).mean() > 0.97  # a tumor below nothing has no law
    sd = np.nanstd(exact, axis=-1)
    z = (np.nanmean(ours, axis=-1) - np.nanmean(exact, axis=-1)) / sd
    assert np.sqrt(np.nanmean(z**2)) < 0.15 and np.nanmedian(np.nanstd(ours, axis=-1) / sd) == pytest.approx(1.0, abs=0.08)


# ------------------------------------------------------------------------------------------------------------- statins


def test_the_lipids_are_solved_as_scipy_solves_them(statin, rng):
    kin = rng.standard_normal((1, statin.TERMS)) @ statin.basis()
    ours = statin.solved(kin, np.array([True]))[:, :, 0]

    def rates(t, x, made, given):
        p, r, d = x
        return [made - statin.K * p, statin.K * p - d / (d + statin.D50) * statin.K * r, given - statin.H * d]

    state = [statin.START, statin.START, 0.0]
    for day in range(statin.DAYS):
        now = (kin[0, day], float(day >= statin.BEFORE))
        state = scipy.integrate.solve_ivp(rates, (0, 1), state, args=now, rtol=1e-10, atol=1e-10).y[:, -1]
        np.testing.assert_allclose(ours[1:, day], state[:2], rtol=1e-6, atol=1e-7)


def test_the_exact_effect_meets_the_notes_and_its_own_interval(statin, rng):
    """The notes measured .0127 for a ridge on Kin alone; P and R halve it. Everything is linear in the coefficients."""
    trial = statin.Trial.drawn(rng, 200, 0.5)
    assert 0.5 < np.abs(trial.effect).mean() < 0.7
    found = {}
    for what in ("all", "hidden", "kin"):
        mean, sd = statin.exact(trial, what)
        found[what] = statin.scored(trial.effect, mean, mean - 1.6449 * sd, mean + 1.6449 * sd)
    assert found["kin"]["mae"] == pytest.approx(0.0127, rel=0.25)
    assert found["all"]["mae"] < found["hidden"]["mae"] < found["kin"]["mae"]
    assert all(0.8 < row["coverage"] < 0.97 for row in found.values())
    # without noise the coefficients are found, and the effect with them
    x = statin.solved(trial.coefficients @ statin.basis(), np.arange(400) >= 200) - trial.mean[:, None, None]
    certain = dataclasses.replace(trial, z=x / trial.sd[:, None, None])
    assert np.abs(statin.exact(certain, "all")[0] - trial.effect).mean() < 1e-3


def test_a_true_body_has_the_true_effect(statin, rng):
    """The oracle: what is left is our integration. The class needs arguments, which `ht.simulate` must not ask for again."""
    assert statin.solver_error(statin.Trial.drawn(rng, 20, 0.5), count=2) < 1e-4


def test_a_record_of_a_treated_person_holds_what_rivals_see(statin, rng):
    trial = statin.Trial.drawn(rng, 20, 0.1)
    control, treated, hidden = (statin.record(trial, i, h) for i, h in ((0, False), (20, False), (20, True)))
    assert [len(p.series["R"]) for p in (control, treated)] == [25, 30] and len(treated.series["Kin"]) == 25
    assert "Kin" not in hidden.series and control.signals["statin"](29.0) == 0.0 and treated.signals["statin"](26.0) == 1.0
    assert np.flatnonzero(trial.coefficients[20]).tolist() == [0, 4] and np.flatnonzero(trial.coefficients[5]).tolist() == [1]
