"""Importance sampling: smoothed weights are ArviZ's, and the sampler meets closed forms or says that it cannot."""

import dataclasses

import numpy as np
import pytest
from small import MESH, mesh_person
from test_inference import LINE, Banana, closed_form, line_person

import hybridtwin as ht
from hybridtwin.inference import auto, bent, diagnostics, importance, walk
from hybridtwin.inference import finish as finishing
from hybridtwin.inference import personalize as personalizing
from hybridtwin.inference.methods import Auto, Importance
from hybridtwin.inference.personalize import personalize
from hybridtwin.inference.psis import kish, psis, resampled
from hybridtwin.model import Model
from hybridtwin.records import Person
from hybridtwin.simulate.steppers import Heun


@pytest.mark.parametrize("tail", [30.0, 3.0, 1.5, 0.9])
def test_smoothed_weights_and_khat_are_those_of_arviz(tail):
    import arviz as az

    rng = np.random.default_rng(int(10 * tail))
    logs = np.log(rng.pareto(tail, (3, 700)) + 1e-3) + 5.0
    smoothed, khat = psis(logs)
    for row, mine, k in zip(logs, smoothed, khat, strict=True):
        theirs, their_k = az.psislw(row)
        assert k == pytest.approx(float(their_k), abs=1e-6)
        np.testing.assert_allclose(mine, np.asarray(theirs), atol=1e-6)
        assert np.exp(mine).sum() == pytest.approx(1.0)


def test_weights_without_a_tail_and_weights_that_are_lost():
    even, k = psis(np.full(50, -3.0))
    assert k == -np.inf and np.allclose(np.exp(even), 0.02) and kish(even) == pytest.approx(50)
    logs = np.concatenate([np.random.default_rng(0).standard_normal(400), [np.nan, np.inf, -np.inf]])
    smoothed, k = psis(logs)
    assert np.all(np.exp(smoothed[400:]) == 0) and np.isfinite(k)
    lost, k = psis(np.full(30, -np.inf))
    assert k == np.inf and np.isfinite(lost).all()


def test_resampled_draws_have_the_weights_as_shares():
    rng = np.random.default_rng(3)
    weights = rng.dirichlet(np.ones(40))
    pick = resampled(rng, np.log(weights), 4000)
    counts = np.bincount(pick, minlength=40)
    assert np.all(np.diff(pick) >= 0) and np.all(np.abs(counts - 4000 * weights) <= 2)


def of(fit):
    return np.stack(list(fit.values.values()))


@pytest.fixture(scope="module")
def weighted():
    return personalize(LINE, line_person(), Importance(draws=2000, starts=2), key=1, progress=False)


def test_importance_sampling_meets_the_closed_form(weighted):
    middle, covariance, evidence = closed_form()
    fit = weighted.fits[0]
    stats = fit.stats
    draws, error = of(fit), np.sqrt(np.diag(covariance) / stats["distinct"])
    assert np.all(np.abs(draws.mean(axis=1) - middle) < 4 * error)
    np.testing.assert_allclose(np.cov(draws), covariance, rtol=0.15, atol=0.01)
    assert stats["khat"] < 0.5 and stats["ess"] > 1500 and 1000 < stats["distinct"] <= 2000
    assert 0 < stats["log_evidence_se"] < 0.03
    assert fit.log_evidence == pytest.approx(evidence, abs=4 * stats["log_evidence_se"])
    assert weighted.verdict.parts["computed"].level == "OK"


def ridge(sd):
    person = Person.of("ridge", start=0.0, stop=1.0, readings={"y": (np.array([0.5]), np.array([1.0]), "1")})
    return Model(Banana(), y=ht.sensors.Gaussian("y", sd=sd)), person


def quadrature(sd):
    """Mean of b**2 and log evidence, with a integrated out by hand."""
    grid = np.linspace(-5, 5, 8001)
    log = -0.5 * grid**2 - 0.5 * (1 - grid**2) ** 2 / (1 + sd**2)
    weight = np.exp(log)
    evidence = np.log(weight.sum() * (grid[1] - grid[0]) / (2 * np.pi * np.sqrt(1 + sd**2)))
    return np.sum(weight * grid**2) / weight.sum(), evidence


def test_a_ridge_with_two_modes_is_met_and_its_modes_are_weighed():
    model, person = ridge(0.4)
    twin = personalize(model, person, Auto(draws=2000, starts=4), key=1, progress=False)
    fit, (square, evidence) = twin.fits[0], quadrature(0.4)
    assert np.mean(fit.values["b"] ** 2) == pytest.approx(square, abs=0.1)
    assert np.mean(fit.values["b"] > 0) == pytest.approx(0.5, abs=0.06)
    assert fit.log_evidence == pytest.approx(evidence, abs=4 * fit.stats["log_evidence_se"] + 0.01)
    assert fit.stage == "importance" and fit.stats["why"] in repr(twin)
    assert {row["stage"] for row in fit.table()} == {"importance"}


def test_what_weights_cannot_reach_is_sampled_by_chains(monkeypatch):
    """Where importance sampling is not to be trusted, chains answer, and the fit says so."""
    monkeypatch.setattr(importance, "SHARE", 1.1)
    twin = personalize(LINE, line_person(), Auto(draws=400, warmup=50, starts=2), key=1, progress=False)
    fit, (middle, covariance, _) = twin.fits[0], closed_form()
    assert fit.stage == "jumps and walks" and fit.z.shape[0] == 64 and "importance sampling was not enough" in repr(twin)
    assert np.all(np.abs(of(fit).mean(axis=1) - middle) < 4 * np.sqrt(np.diag(covariance) / fit.stats["ess_bulk"]))
    assert twin.verdict.parts["computed"].level == "OK"


def test_chains_that_do_not_mix_are_left_for_nuts(monkeypatch):
    monkeypatch.setattr(importance, "SHARE", 1.1)
    monkeypatch.setattr(auto, "_mixed", lambda drawn: False)
    monkeypatch.setattr(auto, "_worst", lambda drawn: len(drawn.z))  # so that the four chains are the better ones
    fit = personalize(LINE, line_person(), Auto(draws=400, warmup=50, starts=2, most=1), key=1, progress=False).fits[0]
    assert fit.stage == "NUTS" and fit.z.shape[0] == 4 and "did not mix" in fit.told()


def banana(rng, count):
    """Draws of a ridge that bends, beside a skewed coordinate of another width."""
    a, b, c = rng.standard_normal((3, count))
    return np.stack([2 * a, 0.6 * (a**2 - 1) + 0.2 * b, 0.3 * np.exp(0.5 * c)], axis=1)


def banana_density(z):
    a, size = z[:, 0] / 2, np.maximum(z[:, 2], 1e-300)
    e, c = (z[:, 1] - 0.6 * (a**2 - 1)) / 0.2, np.log(size / 0.3) / 0.5
    logs = -0.5 * (a**2 + e**2 + c**2) - 1.5 * np.log(2 * np.pi) - np.log(2 * 0.2 * 0.5 * size)
    return np.where(z[:, 2] > 0, logs, -np.inf)


def test_a_bent_proposal_knows_its_density_and_follows_a_bend():
    rng = np.random.default_rng(2)
    z = banana(rng, 1500)
    even = np.full(len(z), 1 / len(z))
    found = bent.fit(z, even, len(z))
    drawn = found.draw(rng, 20000)
    ratio = banana_density(drawn) - found.log_density(drawn)
    assert np.exp(ratio).mean() == pytest.approx(1.0, abs=0.02)  # both integrate to one
    assert kish(ratio) / len(ratio) > 0.6
    root = np.linalg.cholesky(np.cov(z.T))
    ellipsoid = importance.Mixture(np.ones(1), z.mean(axis=0)[None], root[None])
    drawn = ellipsoid.draw(rng, 20000)
    assert kish(banana_density(drawn) - ellipsoid.log_density(drawn)) / len(drawn) < 0.3  # of which one is not enough


@pytest.mark.parametrize("d", [1, 4, 9])
def test_the_density_of_a_mixture_is_that_of_scipy_block_by_block_and_never_no_number(monkeypatch, d):
    from scipy.stats import multivariate_t

    monkeypatch.setattr(importance, "_BLOCK", 64 * 3 * d)
    rng = np.random.default_rng(d)
    share, mean = rng.dirichlet(np.ones(3)), 30 + rng.standard_normal((3, d))
    root = np.tril(0.3 * rng.standard_normal((3, d, d))) + np.eye(d)
    mixture = importance.Mixture(share, mean, root)
    z = mixture.draw(rng, 200)
    wide = [(0.9, 1.0), (0.1, 1.6**2)]
    truth = sum(s * part * multivariate_t.pdf(z, m, scale * r @ r.T, df=6)
                for s, m, r in zip(share, mean, root, strict=True) for part, scale in wide)  # fmt: skip
    np.testing.assert_allclose(mixture.log_density(z), np.log(truth), rtol=0, atol=1e-11)
    lost = mixture.log_density(np.full((2, d), 1e200))
    assert np.all(np.isfinite(lost)) and np.all(lost < -500)


@pytest.mark.parametrize("reach", [1.0, 0.4])
def test_jumps_and_walks_keep_the_posterior_whatever_the_proposal(monkeypatch, reach):
    """Also by a proposal that covers less than half of every direction: then it is the walks that reach the rest."""
    monkeypatch.setattr(importance, "SHARE", 1.1)
    if reach < 1:
        narrow = importance.Mixture(np.ones(1), np.zeros((1, 2)), reach * np.eye(2)[None])
        monkeypatch.setattr(importance.Learner, "answer", lambda self: narrow)
        monkeypatch.setattr(walk, "_learn", lambda *given: None)
    model, person = ridge(1.0)
    fit = personalize(model, person, Auto(draws=2000, starts=2), key=3, progress=False).fits[0]
    assert fit.stage == "jumps and walks"
    ess = fit.stats["ess_bulk"].min()
    assert np.mean(fit.values["b"] ** 2) == pytest.approx(quadrature(1.0)[0], abs=5 / np.sqrt(ess))
    assert abs(fit.values["b"].mean()) < 5 / np.sqrt(ess)


def test_a_narrow_funnel_of_weights_is_a_caution():
    """A ridge so thin that the mixture does not cover it in one round is told, not passed."""
    model, person = ridge(0.004)
    fit = personalize(model, person, Importance(draws=400, rounds=1, starts=2), key=4, progress=False).fits[0]
    assert fit.parts["computed"].level != "OK" and "weight" in " ".join(fit.parts["computed"].reasons)


def test_steps_that_weights_cannot_correct_are_halved(monkeypatch):
    """With steps cut so long that the density changes, the fit is made again with half of them and says so."""
    problem = MESH.bind(mesh_person())
    long = dataclasses.replace(problem, kernel=dataclasses.replace(problem.kernel, stepper=Heun(1)))
    monkeypatch.setattr(personalizing, "bind", lambda *args, **more: long)
    monkeypatch.setattr(finishing, "GOOD", -np.inf)
    monkeypatch.setattr(finishing, "_UNEVEN", 1.1)
    monkeypatch.setattr(finishing, "_EVEN", 1.1)
    fit = personalize(MESH, mesh_person(), Importance(draws=200, starts=2), key=0, progress=False).fits[0]
    assert fit.stats["halved"] == 2 and fit.kernel.stepper == Heun(4) and "steps halved 2 times" in fit.told()


def test_modes_between_which_chains_do_not_mix_go_to_populations(monkeypatch):
    monkeypatch.setattr(importance, "SHARE", 1.1)
    monkeypatch.setattr(diagnostics, "RHAT", 0.5)
    model, person = ridge(0.4)
    fit = personalize(model, person, Auto(draws=400, warmup=50, most=1, starts=4), key=1, progress=False).fits[0]
    assert fit.stage == "SMC" and fit.stats["mode_shares"].sum() == pytest.approx(1.0)
    assert np.mean(fit.values["b"] > 0) == pytest.approx(0.5, abs=0.1)
    assert np.mean(fit.values["b"] ** 2) == pytest.approx(quadrature(0.4)[0], abs=0.15)
