"""Methods beside NUTS and Laplace against closed forms, quadrature and NUTS; modes by their weights; what turns a verdict red."""

import functools

import numpy as np
import pytest
from scipy import stats
from small import DRIP, MESH, drip_person, mesh_person

import hybridtwin.system as ht
from hybridtwin import sensors
from hybridtwin.errors import ParameterError
from hybridtwin.inference import verdict
from hybridtwin.inference.methods import NUTS, SMC, ShortChains, Variational
from hybridtwin.inference.modes import LaplaceFit, missed
from hybridtwin.inference.personalize import personalize
from hybridtwin.model import Model
from hybridtwin.records import Person
from hybridtwin.system import Scalar

METHODS = {"SMC": SMC(particles=512, islands=8), "ShortChains": ShortChains(chains=64, warmup=60)}


class Shape(ht.System):
    """A line and, read apart, the square of a number whose sign no reading tells."""

    time = "h"

    class State(ht.State):
        y: Scalar = ht.state("mg/L", positive=False)

    level: Scalar = ht.parameter(ht.normal(1.0, 2.0), "mg/L")
    slope: Scalar = ht.parameter(ht.normal(-0.5, 0.7), "mg/L/h")
    b: Scalar = ht.parameter(ht.normal(0.3, 1.0), "1")

    def rates(self, t, x, u):
        return self.State(y=self.slope)

    def initial(self, u):
        return self.State(y=self.level)

    def outputs(self, x, u):
        return {"y": ht.output(x.y, "mg/L"), "square": ht.output(self.b**2, "1")}


TIMES = np.array([0.3, 1.0, 2.2, 3.1, 4.7, 6.0])
VALUES = np.array([2.1, 1.2, 2.4, 3.9, 3.0, 5.6])
LINE = Model(Shape(b=0.0), y=sensors.Gaussian("y", sd=0.8))
TWO = Model(Shape(level=0.0, slope=0.0), square=sensors.Gaussian("square", sd=0.3))


def line_person():
    return Person.of("line", start=0.0, stop=6.0, readings={"y": (TIMES, VALUES, "mg/L")})


def two_person(value=1.0):
    return Person.of("two", start=0.0, stop=1.0, readings={"square": (np.array([0.5]), np.array([value]), "1")})


def closed_form():
    """Mean and covariance of (level, slope), and the log evidence."""
    design, mean, prior = np.stack([np.ones(6), TIMES], axis=1), np.array([1.0, -0.5]), np.diag([4.0, 0.49])
    covariance = np.linalg.inv(np.linalg.inv(prior) + design.T @ design / 0.64)
    middle = covariance @ (np.linalg.solve(prior, mean) + design.T @ VALUES / 0.64)
    evidence = stats.multivariate_normal(design @ mean, design @ prior @ design.T + 0.64 * np.eye(6)).logpdf(VALUES)
    return middle, covariance, evidence


def two_by_quadrature(value=1.0, sd=0.3):
    """P(b > 0) and the log evidence of one reading of b squared."""
    b = np.linspace(-6, 6, 200001)
    weight = stats.norm.pdf(b, 0.3, 1.0) * stats.norm.pdf(value, b**2, sd)
    return weight[b > 0].sum() / weight.sum(), np.log(weight.sum() * (b[1] - b[0]))


@functools.cache
def fitted(which, name):
    model, person = {"line": (LINE, line_person()), "two": (TWO, two_person())}[which]
    return personalize(model, person, METHODS[name], key=3, progress=False)


@pytest.mark.parametrize("name", list(METHODS))
def test_draws_are_those_of_the_closed_form(name):
    middle, covariance, _ = closed_form()
    twin = fitted("line", name)
    fit = twin.fits[0]
    draws, sd = np.stack([fit.values["level"], fit.values["slope"]]), np.sqrt(np.diag(covariance))
    ess = np.minimum(fit.stats["ess_bulk"], draws.shape[1])
    assert np.all(np.abs(draws.mean(axis=1) - middle) < 4 * sd / np.sqrt(ess)), (draws.mean(axis=1), middle, ess)
    np.testing.assert_allclose(draws.std(axis=1), sd, rtol=0.12)
    assert np.corrcoef(draws)[0, 1] == pytest.approx(covariance[0, 1] / sd.prod(), abs=0.08)
    assert twin.verdict.parts["computed"].level == "OK", twin.verdict
    again = personalize(LINE, line_person(), METHODS[name], key=3, progress=False).fits[0]
    assert np.array_equal(again.z, fit.z)  # same key, same bits


def test_the_evidence_of_populations_is_the_closed_form_within_its_error():
    evidence, error = fitted("line", "SMC").fits[0].log_evidence, fitted("line", "SMC").fits[0].stats["log_evidence_se"]
    assert abs(evidence - closed_form()[2]) < 4 * error + 0.02 and 0.005 < error < 0.2
    share, evidence = two_by_quadrature()
    fit = fitted("two", "SMC").fits[0]
    assert abs(fit.log_evidence - evidence) < 4 * fit.stats["log_evidence_se"] + 0.02
    assert np.mean(fit.values["b"] > 0) == pytest.approx(share, abs=0.08)
    assert fitted("two", "SMC").verdict.parts["computed"].level == "OK", fitted("two", "SMC").verdict
    assert fit.stats["temperatures"] >= 2 and fit.stats["ancestors"] >= 5 and fit.stats["reached"] == 1.0


def test_chains_that_stay_in_their_modes_are_told():
    """Readings so sharp that no chain crosses: superchains disagree, and the verdict is red."""
    model = Model(Shape(level=0.0, slope=0.0), square=sensors.Gaussian("square", sd=0.02))
    twin = personalize(model, two_person(), ShortChains(chains=64, warmup=40, most=1), key=3, progress=False)
    assert twin.verdict.parts["computed"].level == "DO NOT USE"
    assert twin.fits[0].stats["rhat"][0] > 1.1


@pytest.mark.parametrize(("top", "share"), [(-3.0, 0.0), (-10.0, 0.5), (-20.0, 1.0)])
def test_a_missed_mode_is_weighed_against_what_the_draws_found_by_themselves(top, share):
    """Draws may have left a plateau on which every ascent came to rest: that is no mode they miss."""
    plateau = LaplaceFit(np.zeros(2), np.eye(2), -10.0, -10.0 + np.log(2 * np.pi), 0)
    draws = 9.0 + np.random.default_rng(1).standard_normal((4000, 2))
    assert missed([plateau], draws, lambda z: np.full(len(z), top - 1.0)) == pytest.approx(share, abs=0.02)
    near = LaplaceFit(np.full(2, 9.0), np.eye(2), top, top + np.log(2 * np.pi), 0)
    assert missed([plateau, near], draws, None) == pytest.approx(share, abs=0.02)


PROBLEMS = {"linear": lambda: (DRIP, drip_person()), "mesh": lambda: (MESH, mesh_person())}


@functools.cache
def by_nuts(which):
    return personalize(*PROBLEMS[which](), NUTS(draws=300, warmup=100, starts=2), key=1, progress=False).fits[0]


@pytest.mark.parametrize("name", list(METHODS))
@pytest.mark.parametrize("which", ["linear", pytest.param("mesh", marks=pytest.mark.heavy)])  # twelve seconds of compiling
def test_draws_are_those_of_nuts(which, name):
    theirs = by_nuts(which)
    ours = personalize(*PROBLEMS[which](), METHODS[name], key=2, progress=False)
    assert ours.verdict.parts["computed"].level == "OK", ours.verdict
    a, b = (f.z.reshape(-1, f.z.shape[-1]) for f in (ours.fits[0], theirs))
    low = np.minimum(ours.fits[0].stats["ess_bulk"], theirs.stats["ess_bulk"])
    assert np.all(np.abs(a.mean(axis=0) - b.mean(axis=0)) / b.std(axis=0) < 4 * np.sqrt(2 / low))
    np.testing.assert_allclose(a.std(axis=0), b.std(axis=0), rtol=0.15)


def test_a_guide_is_the_posterior_where_that_is_gaussian_and_is_red_where_it_is_not():
    middle, covariance, evidence = closed_form()
    twin = personalize(LINE, line_person(), Variational(draws=2000, starts=2), key=3, progress=False)
    fit, sd = twin.fits[0], np.sqrt(np.diag(covariance))
    draws = np.stack([fit.values["level"], fit.values["slope"]])
    np.testing.assert_allclose(draws.mean(axis=1), middle, atol=0.12 * sd.min())
    np.testing.assert_allclose(draws.std(axis=1), sd, rtol=0.1)
    assert np.corrcoef(draws)[0, 1] == pytest.approx(covariance[0, 1] / sd.prod(), abs=0.05)
    bound = fit.stats["evidence_bound"]
    assert bound < evidence + 4 * fit.stats["evidence_bound_se"] and bound == pytest.approx(evidence, abs=0.05)
    assert twin.verdict.parts["computed"].level == "OK", twin.verdict
    two = personalize(TWO, two_person(), Variational(starts=4), key=3, progress=False)
    assert two.verdict.parts["computed"].level == "DO NOT USE", two.verdict
    assert two.fits[0].stats["evidence_bound"] < two_by_quadrature()[1] - 0.2  # half of the posterior is missing


@pytest.mark.heavy  # two programs are compiled
def test_a_guide_is_fitted_to_a_record_of_another_shape_too():
    """A model's second record has fewer readings: the guide that the first one set up knows nothing of it."""
    quick = Variational(draws=2000, steps=400, starts=2)
    personalize(LINE, line_person(), quick, key=3, progress=False)
    few = Person.of("few", start=0.0, stop=6.0, readings={"y": (TIMES[:3], VALUES[:3], "mg/L")})
    fit = personalize(LINE, few, quick, key=3, progress=False).fits[0]
    design = np.stack([np.ones(3), TIMES[:3]], axis=1)
    covariance = np.linalg.inv(np.diag([1 / 4.0, 1 / 0.49]) + design.T @ design / 0.64)
    middle = covariance @ (np.array([1 / 4.0, -0.5 / 0.49]) + design.T @ VALUES[:3] / 0.64)
    sd = np.sqrt(np.diag(covariance))
    draws = np.stack([fit.values["level"], fit.values["slope"]])
    np.testing.assert_allclose((draws.mean(axis=1) - middle) / sd, 0.0, atol=0.12)
    np.testing.assert_allclose(draws.std(axis=1), sd, rtol=0.1)


@pytest.mark.heavy  # four programs are compiled
def test_rival_models_have_guides_side_by_side():
    """NumPyro's handlers are one stack for all threads."""
    rivals = [LINE, *(Model(Shape(b=0.0, **fixed), y=LINE.sensors["y"]) for fixed in ({"slope": 0.0}, {"level": 1.0}))]
    twin = personalize(rivals, line_person(), Variational(steps=60, starts=2), key=3, progress=False)
    assert [fit.stats["climbed"] for fit in twin.fits] == [1.0] * 3
    again = personalize(rivals, line_person(), Variational(steps=60, starts=2), key=3, progress=False)
    assert all(np.array_equal(a.z, b.z) for a, b in zip(twin.fits, again.fits, strict=True))


@pytest.mark.parametrize(
    ("share", "khat", "level"), [(0.96, 1.07, "OK"), (0.6, 1.07, "DO NOT USE"), (0.96, np.inf, "DO NOT USE")]
)
@pytest.mark.parametrize("kind", ["khat", "guide_khat"])
def test_the_tail_of_weights_that_are_all_but_the_same_is_not_asked(kind, share, khat, level):
    """An oral drug, 8 readings of known error: 96 % of the guide's draws count, moments within .06 sd of NUTS, k-hat 1.07."""
    stats = {"climbed": 1.0, "ess": 1000.0, "drift": 0.0, "gradient": 0.0, "mesh_share": 1.0, "failed": 0.0, "rivals": 0.0}
    assert verdict.computed(stats | {kind: khat, "share": share}).level == level


def test_a_method_is_an_instance():
    for wrong in ("NUTS", NUTS):
        with pytest.raises(ParameterError, match="Give an instance"):
            personalize(LINE, line_person(), wrong, key=0)
    for temper in (0.5, np.nan, np.inf):
        with pytest.raises(ParameterError, match="temper"):
            personalize(LINE, line_person(), key=0, temper=temper)


def test_what_cannot_be_checked_is_refused():
    for wrong in (
        lambda: SMC(islands=1),
        lambda: SMC(particles=100, islands=8),
        lambda: SMC(keep=1.5),
        lambda: ShortChains(chains=100),
        lambda: ShortChains(draws=2),
    ):
        with pytest.raises(ParameterError, match=r"Use|defaults"):
            wrong()


def test_a_trajectory_that_flew_off_does_not_teach_its_length():
    from hybridtwin.inference.chains import _Pace
    from hybridtwin.inference.lanes import Moved

    rng, pace = np.random.default_rng(0), _Pace(np.random.default_rng(1))
    before, after, momentum = rng.normal(size=(3, 16, 2))
    after[0], after[1], momentum[2] = 1e200, np.nan, -np.inf
    accept = np.where(np.arange(16) < 3, 0.0, 0.8)
    for _ in range(5):
        pace.leapfrogs()
        pace.learn(Moved(None, accept, accept == 0.0, before, after, momentum), 1.5, 0.5)
    assert np.isfinite(pace.length + pace.step) and pace.leapfrogs()[0] >= 1
