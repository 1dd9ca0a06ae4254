"""Observation models: from a modelled output to the distribution of readings.

A sensor is a module whose fields are priors, as in a `System`. It is asked for the log density of one person's readings given
the modelled values at their times, for standardized residuals, and for new readings. Censored readings (below quantification,
LOW/HIGH) enter by the probability of what was seen (method M3), in every sensor.
"""

import abc
import math
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.special import gammaln, log_ndtr

from hybridtwin.system import Parametric, Scalar, lognormal, parameter

_LOG_2PI = math.log(2 * math.pi)


class Seen(NamedTuple):
    """Readings of one sensor of one person, N of them in time order, padded by rows with `mask` False."""

    value: jax.Array  # (N,) in the sensor's unit; the limit where censored
    time: jax.Array  # (N,) in minutes since the person's first row
    mask: jax.Array  # (N,) is this row real?
    censored: jax.Array  # (N,) -1 below the limit, 0 seen, +1 above it
    session: jax.Array  # (N,) index of the sensor session


class Terms(NamedTuple):
    """What readings say at one set of parameters. Rows that are padding hold zeros.

    `loglik` = -residual**2 / 2 - log_sd - log(2 pi) / 2 where the row is Gaussian given the rows before it; elsewhere
    residual and log_sd are zero. The split is what Gauss-Newton needs.
    """

    loglik: jax.Array  # (N,)
    residual: jax.Array  # (N,) standardized
    log_sd: jax.Array  # (N,)


def _gaussian_terms(mean, sd, seen):
    """Independent Gaussian rows; censored ones by the tail probability."""
    z = (seen.value - mean) / sd
    plain = (seen.censored == 0) & seen.mask
    tail = log_ndtr(-jnp.sign(seen.censored) * z)
    residual = jnp.where(plain, z, 0.0)
    log_sd = jnp.where(plain, jnp.log(sd), 0.0)
    gaussian = -0.5 * residual**2 - log_sd - 0.5 * _LOG_2PI
    return Terms(jnp.where(plain, gaussian, jnp.where(seen.mask, tail, 0.0)), residual, log_sd)


def _noise(key, time, count=1):
    """Standard normals keyed by clock time (to the second), so that worlds with other reading times share them: (N, count)."""
    def at(t):
        return jax.random.normal(jax.random.fold_in(key, jnp.round(t * 60.0).astype(jnp.uint32)), (count,), jnp.result_type(float))

    return jax.vmap(at)(time)


class AbstractSensor(Parametric):
    """Readings of one output. `of` names the output (or state) that is read, in its declared unit."""

    of: eqx.AbstractVar[str]

    @abc.abstractmethod
    def terms(self, mean, seen: Seen) -> Terms:
        """Log density of the readings given the modelled values `mean` (N,) at their times."""

    @abc.abstractmethod
    def sample(self, key, mean, seen: Seen):
        """New readings (N,) at `seen.time`; noise is keyed by time, so the same key gives every world the same noise."""

    def thin(self) -> float:
        """Smallest time in minutes between readings that are used; 0 uses all."""
        return 0.0


class Gaussian(AbstractSensor):
    """Reading = output + N(0, sd)."""

    of: str
    sd: Scalar = parameter(None, "1", "standard deviation, in the output's unit", shared=True)

    def terms(self, mean, seen):
        return _gaussian_terms(mean, jnp.broadcast_to(self.sd, mean.shape), seen)

    def sample(self, key, mean, seen):
        return mean + self.sd * _noise(key, seen.time)[:, 0]


class LogNormal(AbstractSensor):
    """log reading = log output + N(0, sd)."""

    of: str
    sd: Scalar = parameter(None, "1", "standard deviation of the logarithm", shared=True)

    def terms(self, mean, seen):
        positive = jnp.where(seen.mask, seen.value, 1.0)
        found = _gaussian_terms(_safe_log(mean), jnp.broadcast_to(self.sd, mean.shape), seen._replace(value=jnp.log(positive)))
        jacobian = jnp.where((seen.censored == 0) & seen.mask, jnp.log(positive), 0.0)
        return found._replace(loglik=found.loglik - jacobian)

    def sample(self, key, mean, seen):
        return mean * jnp.exp(self.sd * _noise(key, seen.time)[:, 0])


def _safe_log(x):
    """log of a prediction that may be zero (before the first dose): a floor of 1e-10 of nothing, flat below it."""
    return jnp.log(jnp.maximum(x, 1e-10))


class Combined1(AbstractSensor):
    """Standard deviation = add + prop |output| (combined error 1)."""

    of: str
    add: Scalar = parameter(None, "1", "additive part, in the output's unit", shared=True)
    prop: Scalar = parameter(lognormal(0.15, 0.5), "1", "proportional part", shared=True)

    def terms(self, mean, seen):
        return _gaussian_terms(mean, self.add + self.prop * jnp.abs(mean), seen)

    def sample(self, key, mean, seen):
        return mean + (self.add + self.prop * jnp.abs(mean)) * _noise(key, seen.time)[:, 0]


class Combined2(AbstractSensor):
    """Variance = add**2 + (prop output)**2 (combined error 2)."""

    of: str
    add: Scalar = parameter(None, "1", "additive part, in the output's unit", shared=True)
    prop: Scalar = parameter(lognormal(0.15, 0.5), "1", "proportional part", shared=True)

    def terms(self, mean, seen):
        return _gaussian_terms(mean, jnp.sqrt(self.add**2 + (self.prop * mean) ** 2), seen)

    def sample(self, key, mean, seen):
        return mean + jnp.sqrt(self.add**2 + (self.prop * mean) ** 2) * _noise(key, seen.time)[:, 0]


class Poisson(AbstractSensor):
    """A count whose mean is the output."""

    of: str

    def terms(self, mean, seen):
        rate = jnp.maximum(mean, 1e-10)
        loglik = seen.value * jnp.log(rate) - rate - gammaln(seen.value + 1.0)
        zero = jnp.zeros_like(mean)
        return Terms(jnp.where(seen.mask, loglik, 0.0), zero, zero)

    def sample(self, key, mean, seen):
        def at(t, rate):
            return jax.random.poisson(jax.random.fold_in(key, jnp.round(t * 60.0).astype(jnp.uint32)), rate)

        return jax.vmap(at)(seen.time, jnp.maximum(mean, 1e-10)).astype(mean.dtype)


class _Belief(NamedTuple):
    """Kalman filter's belief about (correlated error, offset, gain - 1)."""

    mean: jax.Array  # (3,)
    cov: jax.Array  # (3, 3)


class CGM(AbstractSensor):
    r"""Continuous glucose sensor: correlated error, and a gain and an offset for each sensor session.

    reading = output (1 + g_session) + o_session + e(t) + white,   e an Ornstein-Uhlenbeck process of standard deviation
    `drift` and correlation time `tau`.

    Errors 6 minutes apart correlate by about .93 in recordings, so taking them as independent makes bands three to four
    times too narrow. The three slow errors are Gaussian given the output and are integrated out exactly by a Kalman filter.
    A LOW or HIGH reading counts by its tail probability and leaves the filter's belief as it is.

    `every`: readings closer together than this (minutes) are left out of the likelihood: differences finer than the
    mechanism resolves are not to be trusted (docs/design.md). `independent=True` drops the correlated part.
    """

    of: str
    white: Scalar = parameter(lognormal(3.0, 0.6), "mg/dL", "independent error", shared=True)
    drift: Scalar = parameter(lognormal(10.0, 0.6), "mg/dL", "standard deviation of the correlated error", shared=True)
    tau: Scalar = parameter(lognormal(40.0, 0.6), "min", "correlation time", shared=True)
    gain_sd: float = 0.03
    offset_sd: float = 3.0
    every: float = 15.0
    independent: bool = False

    def thin(self):
        return self.every

    def _start(self, dtype):
        variance = jnp.stack([jnp.asarray(0.0 if self.independent else self.drift**2, dtype),
                              jnp.asarray(self.offset_sd**2, dtype), jnp.asarray(self.gain_sd**2, dtype)])
        return _Belief(jnp.zeros(3, dtype), jnp.diag(variance))

    def _filter(self, mean, seen):
        """Mean and standard deviation of each reading given the readings before it, less the modelled value."""
        start = self._start(mean.dtype)
        calibrated = self.gain_sd > 0 or self.offset_sd > 0

        def visit(carry, row):
            belief, time, session = carry
            output, value, t, mask, censored, this = row
            decay = jnp.exp(-(t - time) / self.tau)
            shrink = jnp.stack([decay, jnp.ones_like(decay), jnp.ones_like(decay)])
            cov = belief.cov * shrink[:, None] * shrink[None, :]
            cov = cov.at[0, 0].add(start.cov[0, 0] * (1 - decay**2))
            new = this != session
            m = jnp.where(new, start.mean, belief.mean * shrink)
            cov = jnp.where(new, start.cov, cov)
            h = jnp.stack([jnp.ones_like(output), jnp.ones_like(output), output]) if calibrated \
                else jnp.stack([jnp.ones_like(output), jnp.zeros_like(output), jnp.zeros_like(output)])
            ph = cov @ h
            variance = h @ ph + self.white**2
            guess = h @ m
            used = mask & (censored == 0)
            weight = jnp.where(used, 1.0 / variance, 0.0)
            after = _Belief(m + ph * weight * (value - output - guess), cov - weight * ph[:, None] * ph[None, :])
            return (after, t, this), (guess, jnp.sqrt(variance))

        first = (start, seen.time[0], seen.session[0])
        rows = (mean, seen.value, seen.time, seen.mask, seen.censored, seen.session)
        return lax.scan(visit, first, rows)[1]

    def terms(self, mean, seen):
        guess, sd = self._filter(mean, seen)
        return _gaussian_terms(mean + guess, sd, seen)

    def sample(self, key, mean, seen):
        noise = _noise(key, seen.time, 2)
        calibration = jax.vmap(lambda s: jax.random.normal(jax.random.fold_in(key, s.astype(jnp.uint32)), (2,), mean.dtype))(
            seen.session.astype(jnp.uint32))

        def visit(carry, row):
            error, time = carry
            t, e = row
            decay = jnp.exp(-(t - time) / self.tau)
            error = decay * error + self.drift * jnp.sqrt(1 - decay**2) * e
            return (error, t), error

        # The first row comes after an infinite wait: its error is a draw from the stationary law.
        _, slow = lax.scan(visit, (jnp.zeros((), mean.dtype), jnp.asarray(-jnp.inf, mean.dtype)), (seen.time, noise[:, 0]))
        slow = jnp.zeros_like(slow) if self.independent else slow
        return (mean * (1 + self.gain_sd * calibration[:, 1]) + self.offset_sd * calibration[:, 0] + slow
                + self.white * noise[:, 1])
