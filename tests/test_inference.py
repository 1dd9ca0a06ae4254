"""Inference against what is known otherwise: closed forms, SciPy, ArviZ, NumPyro, finite differences, calibration."""

import contextlib
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.optimize
from scipy import stats
from small import DRIP, ORAL, drip_person, drip_twin, oral, oral_person

import hybridtwin.system as ht
from hybridtwin import sensors
from hybridtwin.clock import Clock
from hybridtwin.coordinates import from_coordinate, log_prior, to_coordinate
from hybridtwin.engine import double
from hybridtwin.errors import DeclarationError
from hybridtwin.inference import diagnostics, kept, modes
from hybridtwin.inference import personalize as personalizing
from hybridtwin.inference import readings as programs
from hybridtwin.inference.methods import NUTS, Laplace
from hybridtwin.inference.personalize import personalize
from hybridtwin.model import Model
from hybridtwin.physiology import OneCompartment, OneCompartmentOral, T1DMinimal
from hybridtwin.records import Cohort, Person
from hybridtwin.sensors import Seen
from hybridtwin.signals import Dose, Regimen, Signal
from hybridtwin.system import Scalar

SHORT = NUTS(draws=50, warmup=50, most=1, starts=2, depth=6)
QUICK = Laplace(draws=200, starts=2)


# ------------------------------------------------------------------------------------------------ linear and Gaussian


class Line(ht.System):
    """y = level + slope t: linear in two normal unknowns."""

    time = "h"

    class State(ht.State):
        y: Scalar = ht.state("mg/L", positive=False)

    level: Scalar = ht.parameter(ht.normal(1.0, 2.0), "mg/L")
    slope: Scalar = ht.parameter(ht.normal(-0.5, 0.7), "mg/L/h")

    def rates(self, t, x, u):
        return self.State(y=self.slope)

    def initial(self, u):
        return self.State(y=self.level)

    def outputs(self, x, u):
        return {"y": ht.output(x.y, "mg/L")}


LINE = Model(Line(), y=sensors.Gaussian("y", sd=0.8))
TIMES = np.array([0.3, 1.0, 2.2, 3.1, 4.7, 6.0])
VALUES = np.array([2.1, 1.2, 2.4, 3.9, 3.0, 5.6])


def line_person():
    return Person.of("line", start=0.0, stop=6.0, readings={"y": (TIMES, VALUES, "mg/L")})


def closed_form(temper=1.0):
    """Mean and covariance of (level, slope), and the log evidence of the readings."""
    design, mean, prior = np.stack([np.ones(6), TIMES], axis=1), np.array([1.0, -0.5]), np.diag([4.0, 0.49])
    noise = 0.64 * temper
    covariance = np.linalg.inv(np.linalg.inv(prior) + design.T @ design / noise)
    middle = covariance @ (np.linalg.solve(prior, mean) + design.T @ VALUES / noise)
    evidence = stats.multivariate_normal(design @ mean, design @ prior @ design.T + 0.64 * np.eye(6)).logpdf(VALUES)
    return middle, covariance, evidence


@pytest.fixture(scope="module")
def line():
    return personalize(LINE, line_person(), Laplace(draws=4000, starts=2), key=1, progress=False)


def of_line(twin):
    return np.stack([twin.fits[0].values["level"], twin.fits[0].values["slope"]])


def test_laplace_is_exact_where_the_posterior_is_gaussian(line):
    middle, covariance, evidence = closed_form()
    draws, fit = of_line(line), line.fits[0]
    error = np.sqrt(np.diag(covariance) / 4000)
    assert np.all(np.abs(draws.mean(axis=1) - middle) < 4 * error)
    np.testing.assert_allclose(np.cov(draws), covariance, rtol=0.12, atol=0.005)
    assert fit.log_evidence == pytest.approx(evidence, abs=1e-5)
    assert fit.stats["share"] == pytest.approx(1.0, abs=1e-6), (
        "each draw counts alike where the Gaussian is the posterior"
    )
    with double():
        problem = LINE.bind(line_person())
        data = jax.tree.map(lambda a: jnp.asarray(a)[None], problem.data)
        mode, _, curve = modes.polish(problem.kernel, np.zeros((1, 2)), data, plain(problem))
    scale = np.array([2.0, 0.7])
    np.testing.assert_allclose(np.array([1.0, -0.5]) + scale * mode[0], middle, atol=1e-7)
    np.testing.assert_allclose(scale[:, None] * np.linalg.inv(curve[0]) * scale, covariance, rtol=1e-5)


def test_a_tempered_likelihood_is_a_wider_error(line):
    middle, covariance, _ = closed_form(temper=3.0)
    tempered = personalize(LINE, line_person(), Laplace(draws=4000, starts=2), key=1, temper=3.0, progress=False)
    draws = of_line(tempered)
    assert np.all(np.abs(draws.mean(axis=1) - middle) < 4 * np.sqrt(np.diag(covariance) / 4000))
    np.testing.assert_allclose(np.cov(draws), covariance, rtol=0.12, atol=0.01)
    assert "temper 3" in repr(tempered) and np.all(draws.std(axis=1) > of_line(line).std(axis=1))


def test_tempering_frees_the_body_and_not_the_sensor():
    rng = np.random.default_rng(3)
    times = np.linspace(0.0, 12.0, 40)
    readings = 1.5 + 0.4 * times + 0.8 * rng.standard_normal(40)
    person = Person.of("many", start=0.0, stop=12.0, readings={"y": (times, readings, "mg/L")})
    model = Model(Line(), y=sensors.Gaussian("y", sd=ht.lognormal(1.0, 0.6)))
    spread = {}
    for temper in (1.0, 8.0):
        values = personalize(model, person, Laplace(draws=4000, starts=2), key=1, temper=temper, progress=False).fits[0].values
        spread[temper] = {name: (np.median(v), np.std(np.log(v) if name == "y.sd" else v)) for name, v in values.items()}
    assert spread[8.0]["slope"][1] > 2.3 * spread[1.0]["slope"][1]  # the square root of 8, less what the prior says
    # 40 readings give the log of a standard deviation to 1 / sqrt(80)
    assert spread[1.0]["y.sd"][1] == pytest.approx(80**-0.5, rel=0.1)
    assert spread[8.0]["y.sd"] == pytest.approx(spread[1.0]["y.sd"], rel=0.1)


@pytest.fixture(scope="module")
def sampled():
    return personalize(LINE, line_person(), NUTS(draws=250, warmup=100, starts=2), key=2, progress=False)


def test_nuts_draws_from_the_closed_form(sampled):
    middle, covariance, _ = closed_form()
    draws, ess = of_line(sampled), sampled.fits[0].stats["ess_bulk"]
    sd = np.sqrt(np.diag(covariance))
    assert np.all(np.abs(draws.mean(axis=1) - middle) < 4 * sd / np.sqrt(ess))
    np.testing.assert_allclose(draws.std(axis=1), sd, rtol=0.12)
    assert np.corrcoef(draws)[0, 1] == pytest.approx(covariance[0, 1] / sd.prod(), abs=0.1)
    assert sampled.verdict.parts["computed"].level == "OK" and sampled.fits[0].stats["divergent"] == 0


class Banana(ht.System):
    """Only a + b**2 is read: a ridge that no curvature describes."""

    time = "h"

    class State(ht.State):
        y: Scalar = ht.state("1", positive=False)

    a: Scalar = ht.parameter(ht.normal(0.0, 1.0), "1")
    b: Scalar = ht.parameter(ht.normal(0.0, 1.0), "1")

    def rates(self, t, x, u):
        return self.State(y=0.0 * x.y / ht.const(1.0, "h"))

    def initial(self, u):
        return self.State(y=self.a + self.b**2)

    def outputs(self, x, u):
        return {"y": ht.output(x.y, "1")}


def test_chains_that_have_not_mixed_go_on():
    person = Person.of("ridge", start=0.0, stop=1.0, readings={"y": (np.array([0.5]), np.array([1.0]), "1")})
    model = Model(Banana(), y=sensors.Gaussian("y", sd=0.4))
    method = NUTS(draws=50, warmup=50, most=20, starts=2)
    fit = personalize(model, person, method, key=4, progress=False).fits[0]
    short = personalize(model, person, dataclasses.replace(method, most=1), key=4, progress=False).fits[0]
    kept = fit.z.shape[1]
    assert short.z.shape[1] == 50 < kept <= 1000 and kept % 50 == 0
    assert np.array_equal(fit.z[:, :50], short.z)
    assert min(fit.stats["ess_bulk"].min(), fit.stats["ess_tail"].min()) > diagnostics.ESS > short.stats["ess_tail"].min()
    assert fit.stats["rhat"].max() < diagnostics.RHAT
    # by quadrature: the mean of b**2 under exp(-a**2/2 - b**2/2) with a = 1 - b**2 + noise
    grid = np.linspace(-4, 4, 4001)
    weight = np.exp(-0.5 * grid**2 - 0.5 * (1 - grid**2) ** 2 / 1.16)
    assert np.mean(fit.values["b"] ** 2) == pytest.approx(np.sum(weight * grid**2) / weight.sum(), abs=0.15)


def test_a_twin_leaves_for_arviz(sampled):
    import arviz as az

    found = sampled.to_arviz()
    group = found.posterior if hasattr(az, "InferenceData") else found["posterior"].to_dataset()
    assert dict(group.sizes) == {"chain": 4, "draw": 250} and set(group.data_vars) == {"level", "slope"}
    fit = sampled.fits[0]
    for i, name in enumerate(("level", "slope")):
        assert float(az.ess(group[name].values)) == pytest.approx(fit.stats["ess_bulk"][i], rel=1e-5)
        assert float(az.rhat(group[name].values)) == pytest.approx(fit.stats["rhat"][i], abs=1e-3)
    assert np.array_equal(group["slope"].values.ravel(), fit.values["slope"])
    tree = sampled.to_datatree()
    assert set(tree.children) >= {"posterior", "prior", "sample_stats"}


# ------------------------------------------------------------------------------------------------ modes and gradients


def density(problem):
    """(negative log density, its reverse-mode gradient) of z, for SciPy."""
    data = jax.tree.map(jnp.asarray, problem.data)
    both = jax.jit(jax.value_and_grad(lambda z: -problem.kernel.log_density(z, data, problem.kernel.untempered())))
    return lambda z: tuple(np.array(a) for a in both(jnp.asarray(z, jnp.float64)))


def one(problem):
    return jax.tree.map(lambda a: jnp.asarray(a)[None], problem.data)


def plain(problem):
    return jax.tree.map(lambda a: jnp.asarray(a)[None], problem.kernel.untempered())


def test_modes_are_those_of_scipy():
    with double():
        problem = ORAL.bind(oral_person())
        found = modes.ascend(
            problem.kernel, modes.starts_of(jax.random.split(jax.random.key(0), 1), 3, 4), one(problem), plain(problem)
        )[0]
        best = found.z[modes.distinct(found)[0]]
        z, value, _ = modes.polish(problem.kernel, best[None], one(problem), plain(problem))
        other = scipy.optimize.minimize(
            density(problem), np.full(3, 0.4), jac=True, method="BFGS", options={"gtol": 1e-8}
        )
    np.testing.assert_allclose(z[0], other.x, atol=1e-5)
    assert value[0] == pytest.approx(-other.fun, abs=1e-9)


def test_an_ascent_does_not_creep_where_residuals_stay_large(monkeypatch):
    """Brown and Dennis (problem 16 of More, Garbow and Hillstrom 1981; least sum of squares 85822.2): Gauss-Newton creeps."""
    t, weight, calls = np.arange(1, 21) / 5, 1e-3, []

    def evaluate(kernel, z, data, temper):
        calls.append(z)
        a = z[..., :1] + t * z[..., 1:2] - np.exp(t)
        b = z[..., 2:3] + np.sin(t) * z[..., 3:] - np.cos(t)
        miss, jac = a**2 + b**2, np.stack([2 * a, 2 * a * t, 2 * b, 2 * b * np.sin(t)], axis=-1)
        grad, curve = np.einsum("psni,psn->psi", jac, miss), np.swapaxes(jac, -1, -2) @ jac
        return -0.5 * weight * np.sum(miss**2, axis=-1), -weight * grad, weight * curve

    monkeypatch.setattr(modes, "evaluate", evaluate)
    starts = np.array([[[25.0, 5, -5, -1], [0, 0, 0, 0], [-20, 10, 0, 1], [-10, 13, -1, 0.5]]])
    found = modes.ascend(None, starts, None, None)[0]
    best = found.z[modes.distinct(found)]
    np.testing.assert_allclose(best, [[-11.594, 13.204, -0.403, 0.237]], atol=0.01)
    assert -2 * found.log_density.max() / weight == pytest.approx(85822.2016, abs=0.1) and len(calls) < 30
    assert np.sum(np.isfinite(found.log_density)) < 4, "starts on one way are one"


def agree(problem, z, rtol):
    """Forward-mode and reverse-mode gradients beside central differences of the value; the largest slope."""
    with double():
        f = density(problem)
        value, backward = f(z)
        forward_value, forward, _ = modes.evaluate(problem.kernel, np.asarray(z)[None, None], one(problem), plain(problem))
        steps = 1e-5 * np.eye(len(z))
        central = np.array([(f(z + s)[0] - f(z - s)[0]) / 2e-5 for s in steps])
    assert forward_value[0, 0] == pytest.approx(-value, rel=1e-12)
    np.testing.assert_allclose(-forward[0, 0], backward, rtol=1e-7, atol=1e-8)
    np.testing.assert_allclose(backward, central, rtol=rtol, atol=rtol * np.abs(central).max())
    return float(np.abs(central).max())


def test_the_gradient_agrees_with_differences_where_a_lag_moves_doses():
    model = Model(OneCompartmentOral(), C=sensors.Combined2("C", add=ht.lognormal(0.3, 0.7)))
    assert agree(model.bind(oral_person()), np.array([0.3, -0.2, 0.1, 0.4, -0.3, 0.2]), 1e-6) > 0


def test_the_gradient_of_the_glucose_model_agrees_with_differences():
    clock = Clock("2026-03-24T00:00+01:00", "Europe/Rome", "min")
    person = Person.of(
        "anna",
        start=0.0,
        stop=240.0,
        time=clock,
        doses={"meal": Regimen.bolus(50.0, "g", at=30.0), "bolus": Regimen.bolus(5.0, "[IU]", at=20.0)},
        signals={"basal": Signal.constant(0.8, "[IU]/h")},
        covariates={"weight": (70.0, "kg")},
        readings={"cgm": (np.arange(0.0, 241.0, 20.0), 120 + 40 * np.sin(np.arange(13) / 3.0), "mg/dL")},
    )
    problem = Model(T1DMinimal(), cgm=sensors.CGM("G_isf")).bind(person)
    rng = np.random.default_rng(0)
    assert agree(problem, 0.3 * rng.standard_normal(problem.kernel.size), 1e-5) > 0


def test_a_model_is_a_numpyro_program():
    """NumPyro's joint density of the program at the values, times the Jacobian, is the kernel's on its coordinates."""
    from numpyro.infer.util import log_density

    model = Model(OneCompartmentOral(ka=dist.Gamma(3.0, 2.0)), C=sensors.Combined2("C", add=ht.lognormal(0.3, 0.7)))
    problem = model.bind(oral_person())
    kernel = problem.kernel
    with double():
        data = jax.tree.map(jnp.asarray, problem.data)
        z = jnp.asarray(np.random.default_rng(1).standard_normal(kernel.size) * 0.4)
        values = kernel.constrain(z)
        joint = float(
            jax.jit(lambda d, v: log_density(model, (dataclasses.replace(problem, data=d),), {}, v)[0])(data, values)
        )
        jacobian = 0.0
        for site in kernel.sites:
            slope = jax.grad(lambda x, p=site.prior: from_coordinate(p, x))(kernel.split(z)[site.name])
            jacobian += float(jnp.log(jnp.abs(slope)))
        own = float(jax.jit(kernel.log_density)(z, data, kernel.untempered()))
    assert joint + jacobian == pytest.approx(own, rel=1e-10)


@pytest.mark.heavy
def test_numpyro_samples_a_model():
    """`numpyro.infer.NUTS(model)` on a bound record runs and finds the posterior of `personalize`."""
    from numpyro.infer import MCMC
    from numpyro.infer import NUTS as Theirs

    middle, covariance, _ = closed_form()
    with double():
        problem = LINE.bind(line_person())
        sampler = MCMC(Theirs(LINE), num_warmup=150, num_samples=300, progress_bar=False)
        sampler.run(jax.random.key(0), problem)
        slope = np.asarray(sampler.get_samples()["slope"])
    assert slope.mean() == pytest.approx(middle[1], abs=6 * np.sqrt(covariance[1, 1] / 150))


def test_priors_keep_their_density_on_coordinates():
    with double():
        for prior in (
            ht.lognormal(2.0, 0.4),
            ht.normal(-1.0, 3.0),
            ht.halfnormal(2.0),
            dist.Gamma(2.0, 3.0),
            dist.Uniform(1.0, 4.0),
            dist.HalfCauchy(25.0),
            dist.TruncatedNormal(0.05, 0.05, low=0.0),
            dist.Beta(2.0, 5.0),
            dist.StudentT(3.0, 10.0, 4.0),
        ):
            both = jax.jit(lambda z, p=prior: (log_prior(p, z), *jax.value_and_grad(lambda x: from_coordinate(p, x))(z)))
            ours, value, slope = map(float, both(0.37))
            assert ours == pytest.approx(float(prior.log_prob(value)) + np.log(abs(slope)), rel=1e-9), prior
            draw = jax.jit(lambda key, p=prior: to_coordinate(p, p.sample(key, (4000,)).astype(float)))
            at = np.quantile(np.asarray(draw(jax.random.key(1))), [0.1587, 0.5, 0.8413])
            if not isinstance(prior, dist.HalfNormal | dist.Uniform):  # of those the middle alone is where it should be
                np.testing.assert_allclose([(at[2] - at[0]) / 2, at[1]], [1.0, 0.0], atol=0.08)
            assert abs(at[1]) < 0.08


@pytest.mark.parametrize(
    ("make", "law"),
    [
        (lambda: dist.LogUniform(1.5, 9.0), stats.loguniform(1.5, 9.0)),
        pytest.param(lambda: dist.Beta(1.3, 0.8), stats.beta(1.3, 0.8), marks=pytest.mark.heavy),  # JAX compiles their draws
        pytest.param(
            lambda: dist.TruncatedNormal(0.2, 1.0, low=-1.0, high=2.0), stats.truncnorm(-1.2, 1.8, 0.2), marks=pytest.mark.heavy
        ),
    ],
)
def test_a_prior_between_two_bounds_may_be_asked_first_while_a_program_is_traced(make, law):
    """As `personalize` does: its first question is asked under `vmap` and `jacfwd`."""
    with double():
        prior = make()
        lanes = jax.jit(jax.vmap(jax.jacfwd(lambda z: from_coordinate(prior, z[0]))))
        assert np.isfinite(lanes(jnp.zeros((3, 1)))).all()
        low, middle, high = (float(from_coordinate(prior, z)) for z in (-1.0, 0.0, 1.0))
    assert law.cdf(middle) == pytest.approx(0.5, abs=0.02)
    assert law.cdf(high) - law.cdf(low) == pytest.approx(0.68, abs=0.12)


# ------------------------------------------------------------------------------------------------ sensors


def seen(value, *, time=None, censored=None, session=None, mask=None):
    n = len(value)
    return Seen(
        jnp.asarray(value, float),
        jnp.arange(n) * 5.0 if time is None else jnp.asarray(time, float),
        jnp.ones(n, bool) if mask is None else jnp.asarray(mask),
        jnp.asarray(np.zeros(n) if censored is None else censored, jnp.int32),
        jnp.asarray(np.zeros(n) if session is None else session, jnp.int32),
        jnp.asarray(SINCE[:n]),
    )


SINCE = np.array([5.0, 60.0, 300.0, 1e6] * 8)
MEAN, READ = np.array([1.2, 4.0, 9.5, 0.6]), np.array([1.0, 4.6, 8.1, 0.9])
KINDS = {
    "Gaussian": (sensors.Gaussian("C", sd=0.7), stats.norm(MEAN, 0.7), 0.7),
    "LogNormal": (sensors.LogNormal("C", sd=0.3), stats.lognorm(0.3, scale=MEAN), None),
    "Absorbing": (
        sensors.Absorbing("C", add=0.3, early=0.9, fades=45.0), stats.norm(MEAN, 0.3 + 0.9 * np.exp(-SINCE[:4] / 45.0)), None
    ),
    "Combined1": (sensors.Combined1("C", add=0.2, prop=0.1), stats.norm(MEAN, 0.2 + 0.1 * MEAN), None),
    "Combined2": (sensors.Combined2("C", add=0.2, prop=0.1), stats.norm(MEAN, np.hypot(0.2, 0.1 * MEAN)), None),
}


@pytest.mark.parametrize("kind", KINDS)
def test_readings_have_the_density_of_scipy_and_censored_ones_the_tail(kind):
    sensor, law, _ = KINDS[kind]
    with double():
        plain = np.asarray(sensor.terms(jnp.asarray(MEAN), seen(READ)).loglik)
        tails = np.asarray(sensor.terms(jnp.asarray(MEAN), seen(READ, censored=[-1, 1, 0, -1])).loglik)
        padded = np.asarray(sensor.terms(jnp.asarray(MEAN), seen(READ, mask=[True, True, False, True])).loglik)
    np.testing.assert_allclose(plain, law.logpdf(READ), rtol=1e-10)
    below, above = law.logcdf(READ), law.logsf(READ)
    np.testing.assert_allclose(tails, [below[0], above[1], law.logpdf(READ)[2], below[3]], rtol=1e-8)
    np.testing.assert_allclose(padded, np.where([1, 1, 0, 1], law.logpdf(READ), 0.0), rtol=1e-10)


def test_an_error_may_fade_as_the_person_absorbs():
    """`follows="ka"`: the time constant is the reciprocal of this person's own rate; doses that repeat count, too."""
    sensor = sensors.Absorbing("C", add=0.3, early=0.9, follows="ka")
    model = Model(OneCompartmentOral(tlag=0.0), C=sensor)
    someone = Person.of("p", start=0.0, stop=30.0, doses={"oral": Regimen.bolus(100.0, "mg", at=1.0).every("12 h", times=2)},
                        readings={"C": ([0.5, 2.0, 13.5, 25.0], [0.0, 3.0, 3.0, 3.0], "mg/L")})  # fmt: skip
    problem = model.bind(someone)
    np.testing.assert_allclose(problem.data.seen["C"].since[:4], [60e6, 60.0, 30.0, 720.0])
    own = problem.kernel.sensor_of("C", {"ka": 1.5, "CL": 3.0, "V": 30.0})
    assert own.fades == pytest.approx(40.0) and "C.fades" not in {site.name for site in problem.kernel.sites}
    np.testing.assert_allclose(own.sd(problem.data.seen["C"])[:3], 0.3 + 0.9 * np.exp([-np.inf, -1.5, -0.75]), rtol=1e-6)
    with pytest.raises(DeclarationError, match="ka"):
        Model(OneCompartmentOral(), C=sensors.Absorbing("C", add=0.3, early=0.9, follows="kb"))


def test_counts_are_poisson():
    counts = np.array([0.0, 3.0, 11.0, 2.0])
    with double():
        found = np.asarray(sensors.Poisson("C").terms(jnp.asarray(MEAN), seen(counts)).loglik)
        tails = np.asarray(sensors.Poisson("C").terms(jnp.asarray(MEAN), seen(counts, censored=[1, -1, 1, 0])).loglik)
    law = stats.poisson(MEAN)
    np.testing.assert_allclose(found, law.logpmf(counts), rtol=1e-10)
    beyond = [law.logsf(0)[0], law.logcdf(2)[1], law.logsf(11)[2], law.logpmf(2)[3]]  # "<3" is at most 2, ">11" at least 12
    np.testing.assert_allclose(tails, beyond, rtol=1e-8)


@pytest.mark.parametrize("sensor", [sensors.Gaussian("C", sd=1.0), sensors.Poisson("C")], ids=lambda s: type(s).__name__)
def test_new_readings_err_each_by_itself_and_alike_where_their_times_meet(sensor):
    """A pressure every 10 ms, and three replicates at one time; a reading alone has the error that it has among others."""
    close, again = 7.0 + np.arange(60) * 0.01 / 60, [30.0, 90.0, 90.0, 90.0]
    with double():
        key = jax.random.key(3)

        def drawn(times):
            n = len(times)
            rows = seen(np.zeros(n), time=times)._replace(since=jnp.zeros(n))
            return np.asarray(jax.jit(lambda rows: sensor.sample(key, jnp.full(n, 400.0), rows))(rows))

        many, replicates = drawn(close), drawn(again)
        assert len(np.unique(many)) > 30 and np.std(np.diff(many)) > 0.5
        assert len(set(replicates[1:])) == 3
        assert drawn([7.0 + 0.1 / 60])[0] == many[10] and drawn([90.0])[0] == replicates[1]


CGM_AT = np.array([0.0, 15, 30, 50, 65, 80, 200, 215, 230.0])
CGM_SESSION = np.array([0, 0, 0, 0, 0, 1, 1, 1, 1])
CGM_MEAN = np.array([110.0, 130, 160, 180, 170, 150, 120, 95, 80])


def cgm_covariance(s):
    gap, same = np.abs(CGM_AT[:, None] - CGM_AT), CGM_SESSION[:, None] == CGM_SESSION
    slow = float(s.drift) ** 2 * np.exp(-gap / float(s.tau)) * (not s.independent)
    shared = slow + s.offset_sd**2 + s.gain_sd**2 * np.outer(CGM_MEAN, CGM_MEAN)
    return same * shared + float(s.white) ** 2 * np.eye(len(CGM_AT))


@pytest.mark.parametrize("change", [{}, {"gain_sd": 0.0, "offset_sd": 0.0}, {"independent": True}], ids=str)
def test_cgm_readings_are_a_dense_normal(change):
    """C = same_session (drift² exp(-|dt|/tau) + offset² + gain² m m') + white² I, to rounding."""
    sensor = sensors.CGM("G", white=2.5, drift=9.0, tau=45.0, **change)
    value = CGM_MEAN + np.array([5.0, 7, -3, 2, 9, -14, -4, 0, 6])
    with double():
        found = float(sensor.terms(jnp.asarray(CGM_MEAN), seen(value, time=CGM_AT, session=CGM_SESSION)).loglik.sum())
    assert found == pytest.approx(stats.multivariate_normal(CGM_MEAN, cgm_covariance(sensor)).logpdf(value), abs=1e-9)


def test_new_cgm_readings_have_that_covariance():
    sensor = sensors.CGM("G", white=2.5, drift=9.0, tau=45.0)
    with double():
        rows = seen(CGM_MEAN, time=CGM_AT, session=CGM_SESSION)
        draw = jax.jit(jax.vmap(lambda k: sensor.sample(k, jnp.asarray(CGM_MEAN), rows)))
        drawn = np.asarray(draw(jax.random.split(jax.random.key(0), 6000)))
    np.testing.assert_allclose(np.cov(drawn.T), cgm_covariance(sensor), atol=6.5)
    np.testing.assert_allclose(drawn.mean(axis=0), CGM_MEAN, atol=0.6)


def test_a_reading_below_its_limit_informs_and_is_not_taken_for_a_value():
    """A long record of zeros below the limit must give the clearance of "at most", not of "equal to"."""
    times = np.array([1.0, 4.0, 8.0, 20.0, 24.0])
    values = 100.0 / 30.0 * np.exp(-0.25 * times)
    model = Model(OneCompartment(V=30.0), C=sensors.Gaussian("C", sd=0.05))
    doses = {"iv": Regimen.bolus(100.0, "mg", at=0.0)}
    whole = Person.of("p", doses=doses, readings={"C": (times, values, "mg/L")})
    series = dataclasses.replace(
        whole.series["C"],
        value=np.where(times > 10, 0.5, values),
        censored=np.where(times > 10, -1, 0),
        limit=np.where(times > 10, 0.5, np.nan),
    )
    blind = Person.of("p", doses=doses, readings={"C": series})
    wrong = Person.of("p", doses=doses, readings={"C": (times, np.where(times > 10, 0.5, values), "mg/L")})
    cl = [
        np.median(personalize(model, p, QUICK, key=0, progress=False).fits[0].values["CL"])
        for p in (whole, blind, wrong)
    ]
    assert cl[0] == pytest.approx(7.5, rel=0.02) and cl[1] == pytest.approx(cl[0], rel=0.02) and cl[2] < 0.98 * cl[0]


def test_tails_are_left_out_of_the_program_where_no_reading_is_censored():
    """A batch takes both sides of a branch, so records that need no tail's probability must have a program without."""
    model = Model(OneCompartment(V=30.0), C=sensors.Gaussian("C", sd=0.05))
    times, doses = np.array([1.0, 4.0, 8.0]), {"iv": Regimen.bolus(100.0, "mg", at=0.0)}
    whole = Person.of("p", doses=doses, readings={"C": (times, [3.0, 1.5, 0.5], "mg/L")})
    one = dataclasses.replace(whole.series["C"], censored=np.array([0, 0, -1]), limit=np.array([np.nan, np.nan, 0.5]))
    with double():
        plain, some = (model.bind(p) for p in (whole, Person.of("p", doses=doses, readings={"C": one})))
        z, data, temper = np.array([0.3]), plain.data, plain.kernel.untempered()
        texts = [str(jax.make_jaxpr(p.kernel.log_density)(z, p.data, temper)) for p in (plain, some)]
        batch = jax.tree.map(lambda a: np.asarray(a)[None], (z[None], plain.data, temper))
        texts.append(str(programs._program(plain.kernel)._one.trace(*batch, np.int32(1)).jaxpr))
        values = [float(p.kernel.log_density(z, data, temper)) for p in (plain, some)]
        seen = float(some.kernel.log_density(z, some.data, temper))
    assert (plain.kernel.tails, some.kernel.tails) == ((), ("C",)) and plain.kernel != some.kernel
    assert ["erfc" in text for text in texts] == [False, True, False]
    assert values[0] == pytest.approx(values[1], rel=1e-14) and seen != pytest.approx(values[0], rel=1e-3)


# ------------------------------------------------------------------------------------------------ occasions and events


class Daily(ht.System):
    """A clearance that differs by day and a volume that differs by occasion."""

    time = "h"

    class State(ht.State):
        amount: Scalar = ht.state("mg")

    class Input(ht.Input):
        iv: Scalar = ht.dose("mg", into="amount", cmt=1)

    CL: Scalar = ht.parameter(ht.typical(3.0, cv=0.4), "L/h", varies="day", spread=0.5)
    V: Scalar = ht.parameter(ht.typical(30.0, cv=0.1), "L", varies="occasion", spread=ht.halfnormal(0.5))

    def rates(self, t, x, u):
        return self.State(amount=-self.CL / self.V * x.amount)

    def outputs(self, x, u):
        return {"C": ht.output(x.amount / self.V, "mg/L")}


def test_days_and_occasions_have_values_of_their_own():
    """Day 1: CL 2 and V 30; day 2 (a new occasion): CL 5 and V 45."""
    hours = np.array([1.0, 3, 6, 10, 20])
    amount = 100 * np.exp(-2 / 30 * hours)
    left = 100 * np.exp(-2 / 30 * 24)
    second = (left + 100) * np.exp(-5 / 45 * hours)
    person = Person.of(
        "p",
        start=0.0,
        stop=48.0,
        time=Clock("2026-03-24T00:00+01:00", "Europe/Rome", "h"),
        doses={"iv": Regimen.bolus(100.0, "mg", at=[0.0, 24.0])},
        readings={"C": (np.r_[hours, 24 + hours], np.r_[amount / 30, second / 45], "mg/L")},
    )
    person = dataclasses.replace(person, occasions=((24.0, 0),))
    twin = personalize(Model(Daily(), C=sensors.LogNormal("C", sd=0.03)), person, QUICK, key=0, progress=False)
    fit = twin.fits[0]
    assert {s.name: (s.size, s.kind) for s in fit.kernel.sites} == {
        "CL": (1, "system"),
        "V": (1, "system"),
        "CL@day": (2, "deviation"),
        "V@occasion.spread": (1, "spread"),
        "V@occasion": (2, "deviation"),
    }
    cl = fit.values["CL"][:, None] * np.exp(0.5 * fit.values["CL@day"])
    v = fit.values["V"][:, None] * np.exp(fit.values["V@occasion.spread"][:, None] * fit.values["V@occasion"])
    np.testing.assert_allclose(np.median(cl, axis=0), [2.0, 5.0], rtol=0.06)
    np.testing.assert_allclose(np.median(v, axis=0), [30.0, 45.0], rtol=0.06)
    assert {"CL@day[0]", "CL@day[1]"} <= set(twin.summary()["parameter"])


def test_a_model_may_let_a_parameter_vary():
    """Declared at the model or in the system: the same joint density."""
    spread = ht.halfnormal(0.5)
    person = Person.of("p", start=0.0, stop=48.0, time=Clock("2026-03-24T00:00+01:00", "Europe/Rome", "h"),
                       doses={"iv": Regimen.bolus(100.0, "mg", at=[0.0, 24.0])},
                       readings={"C": (np.array([1.0, 9.0, 26.0, 40.0]), np.array([3.1, 2.0, 3.9, 1.2]), "mg/L")})  # fmt: skip
    sensor = sensors.LogNormal("C", sd=0.1)
    twice = Model(Daily(), varies={"CL": ("occasion", 0.3), "V": ("day", spread)}, C=sensor)
    assert dict(twice.varying) == {"CL": "occasion", "V": "day"} and twice.key != Model(Daily(), C=sensor).key
    assert twice.starting("steady").varying == twice.varying
    by_model = Model(OneCompartment(), varies={"CL": ("day", 0.5)}, C=sensor)
    with double():
        problem = by_model.bind(person)
        sizes = {s.name: s.size for s in problem.kernel.sites}
        assert sizes == {"CL": 1, "V": 1, "CL@day": 2}
        values = {"CL": 3.0, "V": 30.0, "CL@day": np.array([0.4, -0.8])}
        found = problem.kernel.modelled(values, jax.tree.map(jnp.asarray, problem.data))["C"]
    first, second = 3.0 * np.exp(0.2) / 30, 3.0 * np.exp(-0.4) / 30
    left = np.exp(-first * 24)
    share = [np.exp(-first), np.exp(-first * 9), (left + 1) * np.exp(-second * 2), (left + 1) * np.exp(-second * 16)]
    np.testing.assert_allclose(found, 100 / 30 * np.array(share), rtol=1e-6)
    for wrong, said in (({"Cl": ("day", 0.2)}, "no parameter"), ({"CL": "day"}, "group"), ({"CL": ("week", 0.2)}, "group"),
                        ({"CL": ("day", -1.0)}, "positive")):  # fmt: skip
        with pytest.raises(DeclarationError, match=said):
            Model(OneCompartment(), varies=wrong, C=sensor)


def body(*doses, at=(0.5, 1.0, 2.5, 3.0, 5.0, 8.0), given=((0.0, 100.0), (2.0, 160.0))):
    """A known body (CL 3, V 30) that got `given`; its record says `doses`."""
    at = np.asarray(at)
    amount = sum(a * np.exp(-0.1 * (at - t)) * (at >= t) for t, a in given)
    return Person.of(
        "p", start=-1.0, stop=10.0, doses={"iv": Regimen(tuple(doses), "mg")}, readings={"C": (at, amount / 30, "mg/L")}
    )


KNOWN = Model(OneCompartment(CL=ht.typical(3.0, cv=0.02), V=30.0), C=sensors.LogNormal("C", sd=0.02))


@pytest.mark.parametrize(
    "second", [Dose(2.0, 100.0, amount_sd=0.5), Dose(2.0, None, prior=(80.0, 0.6))], ids=["doubtful", "missing"]
)
def test_an_uncertain_amount_is_inferred_and_a_sure_one_is_left(second):
    twin = personalize(KNOWN, body(Dose(0.0, 100.0), second), QUICK, key=0, progress=False)
    (latent,) = twin.fits[0].problem.bound.latent
    amounts = latent.median * np.exp(latent.amount_sd * twin.fits[0].values["amounts"])
    assert amounts.shape == (200,) and np.median(amounts) == pytest.approx(160.0, rel=0.03)
    assert twin.fits[0].problem.bound.inputs["iv"].doses[0].latent is None


def test_an_uncertain_time_is_inferred():
    person = body(
        Dose(0.0, 100.0),
        Dose(2.0, 160.0, time_sd=0.4),
        given=((0.0, 100.0), (2.6, 160.0)),
        at=(0.5, 1.5, 3.2, 4.0, 6.0),
    )
    model = Model(OneCompartment(CL=12.0, V=30.0), C=sensors.LogNormal("C", sd=0.02))
    at, given = np.array([0.5, 1.5, 3.2, 4.0, 6.0]), ((0.0, 100.0), (2.6, 160.0))
    amount = sum(a * np.exp(-0.4 * (at - t)) * (at >= t) for t, a in given)
    person = Person.of(
        "p",
        start=-1.0,
        stop=10.0,
        doses={"iv": Regimen((Dose(0.0, 100.0), Dose(2.0, 160.0, time_sd=0.4)), "mg")},
        readings={"C": (at, amount / 30, "mg/L")},
    )
    twin = personalize(model, person, QUICK, key=0, progress=False)
    moved = 2.0 + 0.4 * twin.fits[0].values["times"]
    assert np.median(moved) == pytest.approx(2.6, abs=0.1) and moved.std() < 0.2


# ------------------------------------------------------------------------------------------------ interruption, calibration


def interrupting(at):
    @contextlib.contextmanager
    def bar(title, enabled=True):
        def tell(done, total, note=""):
            if done >= at * total:
                raise KeyboardInterrupt

        yield tell

    return bar


def test_ctrl_c_leaves_the_draws_that_were_drawn(monkeypatch):
    monkeypatch.setattr(personalizing.bars, "bar", interrupting(0.7))
    twin = personalize(LINE, line_person(), NUTS(draws=250, warmup=100, starts=2), key=2)
    assert 25 <= twin.fits[0].z.shape[1] < 250
    assert "interrupted" in repr(twin.verdict) and twin.verdict.headline != "OK"
    assert np.isfinite(twin.simulate(at=[1.0, 5.0])["y"]).all()


def test_ctrl_c_before_the_first_draw_is_heard(monkeypatch):
    monkeypatch.setattr(personalizing.bars, "bar", interrupting(0.1))
    with pytest.raises(KeyboardInterrupt):
        personalize(LINE, line_person(), NUTS(draws=250, warmup=100, starts=2), key=2)


def test_interrupted_work_goes_on_to_the_same_bits(monkeypatch, tmp_path):
    people = Cohort([dataclasses.replace(line_person(), id=name) for name in ("line", "other", "third")])
    method, tile, begun = NUTS(draws=50, warmup=50, most=1, starts=2), personalizing._tile, []

    def fit(**more):
        return personalize(LINE, people, method, key=2, temper=2.0, progress=False, **more)

    def dies(problems, *rest):
        begun.append(problems[0].person.id)
        if begun == ["line", "other"]:
            raise KeyboardInterrupt
        return tile(problems, *rest)

    monkeypatch.setattr(NUTS, "people_per_call", lambda self: 1)  # what is kept is kept by the call
    whole = fit()
    monkeypatch.setattr(personalizing, "_tile", dies)
    monkeypatch.setenv("HYBRIDTWIN_THREADS", "1")
    with pytest.raises(KeyboardInterrupt):
        fit(keep=tmp_path)
    assert len(list(tmp_path.glob("*.npz"))) >= 1
    resumed = fit(keep=tmp_path)
    assert begun.count("line") == 1, "what was finished is not computed again"
    for i in people:
        a, b = whole[i].fits[0], resumed[i].fits[0]
        assert np.array_equal(a.z, b.z) and np.array_equal(a.log_density, b.log_density) and a.log_evidence == b.log_evidence
        assert a.parts == b.parts and repr(whole[i].verdict) == repr(resumed[i].verdict)
    begun[:] = ["from here on"]
    assert np.array_equal(fit(keep=tmp_path)["third"].fits[0].z, whole["third"].fits[0].z) and len(begun) == 1
    other = personalize(LINE, people, method, key=3, temper=2.0, progress=False, keep=tmp_path)
    assert len(begun) == 4 and not np.array_equal(other["third"].fits[0].z, whole["third"].fits[0].z), "another key is other work"


def test_kept_work_is_named_by_all_that_decides_it(monkeypatch):
    def name(key=0, method=QUICK, temper=1.0, sd=0.1, varies=None, person=None, **fixed):
        model = Model(OneCompartmentOral(**fixed), varies=varies, C=sensors.LogNormal("C", sd=sd))
        with double():
            return kept.fingerprint(model.bind(person or oral_person()), jax.random.key(key), method, temper)

    slow, slower = ({"CL": ("day", ht.halfnormal(sd))} for sd in (0.2, 0.3))
    later = dataclasses.replace(oral_person(), id="the id enters by the key")
    assert name() == name() == name(person=later) and name(varies=slow) == name(varies=dict(slow))
    others = [name(), name(key=1), name(method=SHORT), name(temper=2.0), name(sd=0.1000001), name(V=30.0), name(varies=slow),
              name(varies=slower), name(ka=ht.lognormal(1.3, 0.5)), name(ka=ht.lognormal(1.3000001, 0.5))]  # fmt: skip
    assert len(set(others)) == len(others)
    assert Model(OneCompartment(), varies=slow).key == Model(OneCompartment(), varies={"CL": ("day", ht.halfnormal(0.2))}).key
    before, rates = name(), OneCompartmentOral.rates

    def faster(self, t, x, u):
        dx = rates(self, t, x, u)
        return self.State(depot=2.0 * dx.depot, central=dx.central)

    monkeypatch.setattr(OneCompartmentOral, "rates", faster)
    assert name() != before, "another equation under the same name"


def test_the_same_key_gives_the_same_bits_and_another_key_others(sampled):
    again, other = (
        personalize(LINE, line_person(), NUTS(draws=250, warmup=100, starts=2), key=k, progress=False) for k in (2, 3)
    )
    assert np.array_equal(again.fits[0].z, sampled.fits[0].z)
    assert not np.array_equal(other.fits[0].z, sampled.fits[0].z)
    a, b = (t.predict()["y"].readings for t in (sampled, again))
    assert np.array_equal(a, b)


def replicates(count, seed):
    """People drawn from the prior of the oral model, with their true values."""
    rng = np.random.default_rng(seed)
    truth, people = [], []
    times = np.array([0.5, 1, 2, 3, 5, 8, 12, 18.0])
    for i in range(count):
        eta = rng.standard_normal(3)
        priors = ORAL.system.priors()
        ka, CL, V = (
            float(np.asarray(from_coordinate(priors[n], z))) for n, z in zip(("ka", "CL", "V"), eta, strict=True)
        )
        values = oral(ka, CL, V, times) * np.exp(0.15 * rng.standard_normal(8))
        people.append(
            Person.of(
                f"r{i}",
                start=0.0,
                stop=24.0,
                doses={"oral": Regimen.bolus(320.0, "mg", at=0.0)},
                readings={"C": (times, values, "mg/L")},
            )
        )
        truth.append(eta)
    return Cohort(people), np.array(truth)


def ranks(method, count, seed):
    """Rank of the truth among 19 draws of each person, evenly thinned: (count, 3) of 0..19."""
    cohort, truth = replicates(count, seed)
    twins = personalize(ORAL, cohort, method, key=seed, progress=False)
    found = []
    for twin, eta in zip(twins.values(), truth, strict=True):
        z = twin.fits[0].z.reshape(-1, 3)
        found.append((z[np.linspace(0, len(z) - 1, 19).round().astype(int)] < eta).sum(axis=0))
    return np.array(found)


def assert_uniform(found, bins):
    for column in found.T:
        counts = np.bincount(column * bins // 20, minlength=bins)
        assert stats.chisquare(counts).pvalue > 1e-3, counts


def test_draws_are_calibrated_under_the_model():
    """Simulation-based calibration, small: ranks of the truth among the draws are uniform."""
    assert_uniform(ranks(QUICK, 64, seed=5), 5)


@pytest.mark.heavy
@pytest.mark.parametrize("method", [NUTS(draws=100, warmup=100), Laplace(draws=400)], ids=["NUTS", "Laplace"])
def test_calibration_with_more_replicates(method):
    assert_uniform(ranks(method, 160, seed=11), 10)


def test_a_posterior_does_not_move_when_readings_beyond_the_thinning_are_dropped():
    """What `update` relies on: the same readings give the same draws, whatever else the record carries."""
    person = drip_person()
    extra = dataclasses.replace(person, notes=())
    again = personalize(DRIP, extra, Laplace(draws=100, starts=2), key=0, progress=False)
    assert np.array_equal(again.fits[0].z, drip_twin().fits[0].z)


def test_a_learned_network_is_part_of_a_personalized_body():
    """An `eqx.nn.MLP`, activation and all, corrects the clearance; with its weights at zero it is the plain body."""
    import equinox as eqx

    class Corrected(ht.System):
        """dA/dt = -(CL / V) (1 + net(A / V)) A."""

        time = "h"

        class State(ht.State):
            amount: Scalar = ht.state("mg")

        class Input(ht.Input):
            iv: Scalar = ht.dose("mg", into="amount")

        CL: Scalar = ht.parameter(ht.typical(3.0, cv=0.3), "L/h", "clearance")
        V: Scalar = ht.parameter(ht.typical(30.0, cv=0.2), "L", "volume")
        net: eqx.nn.MLP

        def rates(self, t, x, u):
            seen = x.amount / self.V / ht.const(10.0, "mg/L")
            return self.State(amount=-self.CL / self.V * (1 + self.net(jnp.stack([seen]))[0]) * x.amount)

        def outputs(self, x, u):
            return {"C": ht.output(x.amount / self.V, "mg/L")}

    def twin(net):
        readings = {"C": ([1.0, 4.0, 8.0, 20.0], [9.0, 7.0, 5.0, 1.5], "mg/L")}
        anna = Person.of("anna", start=0.0, stop=24.0, doses={"iv": Regimen.bolus(300.0, "mg", at=0.0)}, readings=readings)
        model = Model(Corrected(net=net), C=sensors.LogNormal("C", sd=0.1))
        return personalize(model, anna, Laplace(draws=40, starts=2), key=0, progress=False)

    net = eqx.nn.MLP(1, 1, 4, 1, key=jax.random.key(0))
    flat = jax.tree.map(lambda leaf: 0.0 * leaf if eqx.is_array(leaf) else leaf, net)
    plain, bent = twin(flat), twin(net)
    closed = plain.fits[0].values["CL"] / plain.fits[0].values["V"]
    at = plain.simulate(at=[2.0, 10.0])["C"]
    np.testing.assert_allclose(at[:, 1] / at[:, 0], np.exp(-8.0 * closed), rtol=1e-4)
    assert not np.allclose(bent.simulate(at=[10.0])["C"], plain.simulate(at=[10.0])["C"], rtol=1e-3)


def test_models_with_other_weights_share_no_programs():
    """However large the network: NumPy prints only the edges of what has more than a thousand numbers."""
    import equinox as eqx

    class Wide(ht.System):
        """dA/dt = -k net(A) A."""

        time = "h"

        class State(ht.State):
            A: Scalar = ht.state("1")

        k: Scalar = ht.parameter(ht.lognormal(1.0, 0.1), "1/h")
        net: eqx.nn.Linear

        def rates(self, t, x, u):
            return self.State(A=-self.k * self.net(jnp.full(40, x.A))[0] * x.A)

        def outputs(self, x, u):
            return {"y": ht.output(x.A, "1")}

    net = eqx.nn.Linear(40, 40, key=jax.random.key(0))
    other = eqx.tree_at(lambda n: n.weight, net, net.weight.at[20, 20].add(1.0))
    keys = {Model(Wide(net=n), y=sensors.Gaussian("y", sd=0.1)).key for n in (net, other, net)}
    assert len(keys) == 2
