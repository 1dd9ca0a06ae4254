"""The path of the process noise of a lived day, inferred: against Gaussian conditioning, and kept by her counterfactuals."""

import dataclasses
import functools

import numpy as np
import pytest
from scipy import stats

import hybridtwin as ht
from hybridtwin.errors import DeclarationError
from hybridtwin.system import Scalar
from hybridtwin.twin import simulate_worlds

K, S, SD = 0.4, 0.9, 0.35


class Wanders(ht.System):
    """Ornstein-Uhlenbeck about a level, with doses: dy = -k (y - m) dt + s dW."""

    time = "h"

    class State(ht.State):
        y: Scalar = ht.state("mg", positive=False)

    class Input(ht.Input):
        iv: Scalar = ht.dose("mg", into="y")

    m: Scalar = ht.parameter(ht.normal(1.5, 0.8), "mg")
    y0: Scalar = ht.parameter(ht.normal(3.0, 1.0), "mg", initial=True)
    k: Scalar = ht.parameter(K, "1/h")
    s: Scalar = ht.constant(S, "mg/h^0.5")

    def rates(self, t, x, u):
        return self.State(y=-self.k * (x.y - self.m))

    def diffusion(self, t, x, u):
        return self.State(y=self.s)

    def initial(self, u):
        return self.State(y=self.y0)


TIMES = np.array([0.5, 1.5, 2.0, 3.5, 5.0, 6.0, 7.5])
READ = np.array([2.4, 1.1, 4.9, 3.6, 1.2, 2.7, 3.4])
DOSES = ((1.7, 3.0),)
LATER = np.array([2.5, 5.0, 7.0, 8.0])


def gaussian(times, doses, k=K):
    """Mean (N,) and covariance (N, N) of y: level, start and noise are all Gaussian."""
    fade = np.exp(-k * times)
    mean = 1.5 * (1 - fade) + 3.0 * fade
    mean = mean + sum(a * np.where(times >= t, np.exp(-k * np.maximum(times - t, 0)), 0.0) for t, a in doses)
    cov = 0.8**2 * np.outer(1 - fade, 1 - fade) + np.outer(fade, fade)
    apart, together = np.abs(times[:, None] - times[None]), times[:, None] + times[None]
    return mean, cov + S**2 / (2 * k) * (np.exp(-k * apart) - np.exp(-k * together))


def conditioned(times, doses=DOSES, k=K):
    """Mean and covariance of y at `times` given the readings (the smoother), and the log marginal likelihood."""
    both = np.concatenate([times, TIMES])
    mean, cov = gaussian(both, doses, k)
    n = len(times)
    seen = cov[n:, n:] + SD**2 * np.eye(len(TIMES))
    gain = cov[:n, n:] @ np.linalg.inv(seen)
    evidence = stats.multivariate_normal(mean[n:], seen).logpdf(READ)
    return mean[:n] + gain @ (READ - mean[n:]), cov[:n, :n] - gain @ cov[n:, :n], evidence


def person():
    return ht.Person.of("nora", time="h", start=0.0, stop=8.0, doses={"iv": ht.Regimen.bolus(3.0, "mg", at=1.7)},
                        readings={"y": (TIMES, READ, "mg")})  # fmt: skip


DRAWS = 600


def model(noise=True, **fixed):
    return ht.Model(Wanders(**fixed), noise=noise, y=ht.sensors.Gaussian("y", sd=SD))


@functools.cache
def nora():
    twin = ht.personalize(model(), person(), ht.Laplace(draws=DRAWS, starts=2), key=0, progress=False)
    return dataclasses.replace(twin, draws=DRAWS)


def test_the_path_is_that_of_the_smoother():
    """State at and between readings: mean and standard deviation of the Kalman smoother; the evidence that of the filter."""
    twin = nora()
    mean, cov, evidence = conditioned(LATER)
    found, sd = twin.simulate(at=LATER)["y"], np.sqrt(np.diag(cov))
    np.testing.assert_allclose(found.mean(axis=0), mean, atol=4.5 * sd.max() / np.sqrt(DRAWS))
    np.testing.assert_allclose(found.std(axis=0), sd, rtol=4.5 / np.sqrt(2 * DRAWS) + 0.02)
    assert twin.fits[0].log_evidence == pytest.approx(evidence, abs=0.01)
    assert twin.verdict.parts["computed"].level == "OK" and "process noise" not in repr(twin.verdict)


@pytest.mark.heavy
def test_finer_knots_come_nearer():
    """The evidence, exactly known, is missed by less and less: a straight line between knots is the only approximation."""
    wanted = conditioned(LATER)[2]
    missed = []
    for every in ("3 h", "1 h", "20 min"):
        twin = ht.personalize(model(every), person(), ht.Laplace(draws=100, starts=1), key=0, progress=False)
        missed.append(abs(twin.fits[0].log_evidence - wanted))
    assert missed[0] > 2 * missed[2] and missed[2] < 2e-3


def test_her_day_otherwise_treated_keeps_her_path():
    """Nothing done gives the record back, bit for bit; a dose moved shifts every draw by what the dose does, no more."""
    twin = nora()
    assert np.array_equal(twin.do().counterfactual()["y"].readings, np.broadcast_to(READ, (DRAWS, len(READ))))
    assert np.array_equal(twin.do().simulate()["y"], twin.simulate()["y"])
    other = twin.do(iv=lambda d: d.shift(1.5, "h"))
    assert "the path that the body's own noise took that day" in ht.contrast(other, twin, ht.outcomes.at("y", 4.0)).assumptions
    moved = gaussian(TIMES, ((3.2, 3.0),))[0] - gaussian(TIMES, DOSES)[0]
    kept = other.counterfactual()["y"].readings
    np.testing.assert_allclose(kept, np.broadcast_to(READ + moved, kept.shape), atol=2e-4)
    lived, late = simulate_worlds([twin, other], at=[1.0, 1.6, 4.0])
    assert np.array_equal(lived["y"][:, :2], late["y"][:, :2]), "before it they agree"
    again = other.simulate(at=LATER)["y"]
    mean, cov, _ = conditioned(LATER)
    moved = gaussian(LATER, ((3.2, 3.0),))[0] - gaussian(LATER, DOSES)[0]
    sd = np.sqrt(np.diag(cov))
    np.testing.assert_allclose(again.mean(axis=0), mean + moved, atol=4.5 * sd.max() / np.sqrt(DRAWS))
    np.testing.assert_allclose(again.std(axis=0), sd, rtol=4.5 / np.sqrt(2 * DRAWS) + 0.02)


def test_a_faster_way_back_acts_on_her_path():
    """A counterfactual that is not a mere shift: other dynamics from 3 h on, under the same noise. By Gaussian conditioning."""
    twin, other = nora(), nora().do(k=1.2, start=3.0)
    fine = np.linspace(0.0, 8.0, 8 * 400 + 1)
    h = fine[1]
    rows = {}
    for name, late in (("lived", K), ("other", 1.2)):  # y as a linear map of (m, y0, increments of W), by exact steps
        at, kept = np.zeros(2 + len(fine) - 1), {}
        at[1], drift = 1.0, 0.0
        for i, t in enumerate(fine):
            if abs(t - 1.7) < 1e-9:
                drift += 3.0
            kept[round(t, 9)] = (at.copy(), drift)
            if i == len(fine) - 1:
                break
            k = late if t >= 3.0 - 1e-9 else K
            at, drift = np.exp(-k * h) * at, np.exp(-k * h) * drift
            at[0] += 1 - np.exp(-k * h)
            at[2 + i] += S * np.sqrt((1 - np.exp(-2 * k * h)) / (2 * k))
        rows[name] = kept
    prior_mean, prior = np.r_[1.5, 3.0, np.zeros(len(fine) - 1)], np.r_[0.64, 1.0, np.ones(len(fine) - 1)]
    seen = np.stack([rows["lived"][round(t, 9)][0] for t in TIMES])
    rest = np.array([rows["lived"][round(t, 9)][1] for t in TIMES])
    asked = np.stack([rows["other"][round(t, 9)][0] for t in LATER])
    away = np.array([rows["other"][round(t, 9)][1] for t in LATER])
    total = (seen * prior) @ seen.T + SD**2 * np.eye(len(TIMES))
    gain = (asked * prior) @ seen.T @ np.linalg.inv(total)
    mean = asked @ prior_mean + away + gain @ (READ - seen @ prior_mean - rest)
    sd = np.sqrt(np.diag((asked * prior) @ asked.T - gain @ (seen * prior) @ asked.T))
    found = other.simulate(at=LATER)["y"]
    np.testing.assert_allclose(found.mean(axis=0), mean, atol=4.5 * sd.max() / np.sqrt(DRAWS))
    np.testing.assert_allclose(found.std(axis=0), sd, rtol=4.5 / np.sqrt(2 * DRAWS) + 0.03)
    assert np.array_equal(twin.simulate(at=[2.9])["y"], simulate_worlds([twin, other], at=[2.9])[1]["y"])


@pytest.mark.heavy
def test_what_comes_after_the_record_is_new_noise():
    """A forecast starts where her path is and spreads as the process does; on another day nothing of her path is left."""
    twin = nora()
    ahead = twin.forecast("6 h").simulate(at=[8.0, 11.0])["y"]
    last = twin.simulate(at=[8.0])["y"][:, 0]
    np.testing.assert_allclose(ahead[:, 0], last, atol=1e-6)
    m = twin.fits[0].values["m"]
    off = ahead[:, 1] - (m + (last - m) * np.exp(-3 * K))
    spread = np.sqrt(S**2 / (2 * K) * (1 - np.exp(-6 * K)))
    assert off.std() == pytest.approx(spread, rel=4.5 / np.sqrt(2 * DRAWS) + 0.03)
    assert abs(np.corrcoef(off, last)[0, 1]) < 4.5 / np.sqrt(DRAWS)
    another = twin.on(ht.Person.of("nora", time="h", start=0.0, stop=8.0), start={"y": 2.0}).simulate(at=[4.0])["y"][:, 0]
    assert another.std() > 0.8 * np.sqrt(S**2 / (2 * K) * (1 - np.exp(-8 * K)))


class Grows(ht.System):
    """Geometric Brownian motion, dx = a x dt + b x dW (Ito): the logarithm is a Wiener process with drift a - b**2 / 2."""

    time = "h"

    class State(ht.State):
        x: Scalar = ht.state("mg")

    a: Scalar = ht.parameter(ht.normal(0.3, 0.2), "1/h")
    b: Scalar = ht.constant(0.5, "1/h^0.5")

    def rates(self, t, x, u):
        return self.State(x=self.a * x.x)

    def diffusion(self, t, x, u):
        return self.State(x=self.b * x.x)

    def initial(self, u):
        return self.State(x=ht.const(2.0, "mg"))


@pytest.mark.heavy
def test_noise_that_grows_with_the_state_is_itos():
    """Evidence and posterior of the growth rate in closed form; without Ito's correction the mean would be off by .125 / h."""
    times, read = np.array([1.0, 2.0, 3.5, 5.0]), np.array([2.1, 4.4, 3.9, 9.0])
    cov = 0.2**2 * np.outer(times, times) + 0.5**2 * np.minimum(times[:, None], times[None]) + 0.1**2 * np.eye(4)
    mean = np.log(2.0) + (0.3 - 0.125) * times
    evidence = stats.multivariate_normal(mean, cov).logpdf(np.log(read)) - np.log(read).sum()
    gain = 0.2**2 * times @ np.linalg.inv(cov)
    who = ht.Person.of("gus", time="h", start=0.0, stop=5.0, readings={"x": (times, read, "mg")})
    twin = ht.personalize(ht.Model(Grows(), x=ht.sensors.LogNormal("x", sd=0.1)), who, ht.Laplace(draws=400, starts=2), key=0,
                          progress=False)  # fmt: skip
    assert twin.fits[0].log_evidence == pytest.approx(evidence, abs=2e-3)
    assert twin.mode()["a"] == pytest.approx(0.3 + gain @ (np.log(read) - mean), abs=1e-3)


class Steps(ht.System):
    """A difference equation: y(t+1) = y(t) - .3 (y(t) - m) + .8 z(t)."""

    time = "d"
    step = "1 d"

    class State(ht.State):
        y: Scalar = ht.state("1", positive=False)

    m: Scalar = ht.parameter(ht.normal(1.0, 1.0), "1")

    def rates(self, t, x, u):
        return self.State(y=-ht.const(0.3, "1/d") * (x.y - self.m))

    def diffusion(self, t, x, u):
        return self.State(y=ht.const(0.8, "1/d^0.5"))


def test_noise_of_a_difference_equation_is_exact():
    """The linear-Gaussian state space model, without approximation: evidence and last state of the Kalman filter."""
    times, read = np.array([1.0, 2.0, 4.0, 5.0, 8.0]), np.array([0.4, 1.9, 2.2, 0.3, 1.7])
    mean, spread = np.array([1.0, 0.0]), np.diag([1.0, 0.0])  # m and y
    move, push, look = np.array([[1.0, 0.0], [0.3, 0.7]]), np.diag([0.0, 0.8**2]), np.array([0.0, 1.0])
    evidence, day = 0.0, 0.0
    for t, r in zip(times, read, strict=True):
        while day < t:
            mean, spread, day = move @ mean, move @ spread @ move.T + push, day + 1
        var = look @ spread @ look + 0.25
        evidence += stats.norm.logpdf(r, mean[1], np.sqrt(var))
        gain = spread @ look / var
        mean, spread = mean + gain * (r - mean[1]), spread - np.outer(gain, look @ spread)
    who = ht.Person.of("ada", time="d", start=0.0, stop=8.0, readings={"y": (times, read, "1")})
    model = ht.Model(Steps(), y=ht.sensors.Gaussian("y", sd=0.5))
    twin = ht.personalize(model, who, ht.Laplace(draws=500, starts=2), key=0, progress=False)
    assert twin.fits[0].kernel.layout.stretches == 8
    assert twin.fits[0].log_evidence == pytest.approx(evidence, abs=1e-6)
    assert twin.mode()["m"] == pytest.approx(mean[0], abs=1e-6)
    last = dataclasses.replace(twin, draws=500).last_state()["y"]
    assert last.mean() == pytest.approx(mean[1], abs=4.5 * np.sqrt(spread[1, 1] / 500))
    assert last.std() == pytest.approx(np.sqrt(spread[1, 1]), rel=4.5 / np.sqrt(1000))
    whole = dataclasses.replace(twin, draws=500)
    ahead = whole.forecast("2 d").simulate(at=[9.0])["y"][:, 0]  # a day whose noise is drawn keeps to whole steps, too
    fresh = (ahead - 0.7 * whole.last_state()["y"] - 0.3 * twin.fits[0].values["m"]) / 0.8
    assert abs(fresh.mean()) < 4.5 / np.sqrt(500) and fresh.std() == pytest.approx(1.0, abs=4.5 / np.sqrt(1000))
    with pytest.raises(DeclarationError, match="falls on its steps"):
        ht.Model(Steps(), noise="1 h", y=ht.sensors.Gaussian("y", sd=0.5)).bind(who)


@pytest.mark.heavy
@pytest.mark.parametrize("method", [ht.Auto(), ht.NUTS(draws=500)], ids=["auto", "nuts"])
def test_a_rate_is_inferred_with_the_path(method):
    """Rate and path together against quadrature of the exact marginal likelihood over the rate."""
    twin = ht.personalize(model(k=ht.lognormal(K, 0.6)), person(), method, key=1, progress=False)
    grid = np.exp(np.linspace(np.log(K) - 3, np.log(K) + 3, 801))
    height = np.array([conditioned(LATER, k=k)[2] for k in grid]) + stats.norm.logpdf(np.log(grid), np.log(K), 0.6)
    weight = np.exp(height - height.max())
    weight /= weight.sum()
    mean = weight @ np.log(grid)
    sd = np.sqrt(weight @ (np.log(grid) - mean) ** 2)
    drawn = np.log(twin.fits[0].values["k"])
    assert drawn.mean() == pytest.approx(mean, abs=0.2 * sd)
    assert drawn.std() == pytest.approx(sd, rel=0.15)
    assert twin.verdict.parts["computed"].level != "DO NOT USE", twin.verdict


@pytest.mark.heavy
def test_simulation_based_calibration_with_the_path():
    """Level, start and every increment of the path, log likelihood and prior: ranks of the truth among the draws are even."""
    found = ht.calibrate(model(), person(), ht.Laplace(draws=200, starts=1), key=0, replicates=100, progress=False)
    assert found.ok, found


def test_too_fine_a_path_is_refused():
    with pytest.raises(DeclarationError, match="unknowns"):
        model("10 s").bind(person())
    with pytest.raises(DeclarationError, match="together with everybody's path"):
        pooled = ht.Model(Wanders(), omega={"m": ht.halfnormal(0.5)}, y=ht.sensors.Gaussian("y", sd=SD))
        ht.personalize(pooled, ht.Cohort([person()]), key=0, progress=False)
    with pytest.raises(DeclarationError, match="stretch of time"):
        model(3.0)
    noiseless = model(False).bind(person())
    assert noiseless.kernel.layout.stretches == 0 and not any(s.kind == "path" for s in noiseless.kernel.sites)
