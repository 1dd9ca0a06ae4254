"""Observation models: from a modelled output to the distribution of readings.

A sensor is a module whose fields are priors, as in a `System`. It is asked for the log density of one person's readings given
the modelled values at their times, for standardized residuals, and for new readings. Censored readings (below quantification,
LOW/HIGH) enter by the probability of what was seen (method M3), in every sensor.
"""

import abc
import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.scipy.special import gammainc, gammaincc, gammaln, log_ndtr

from hybridtwin.errors import InterventionError
from hybridtwin.paths import correlated, path_key
from hybridtwin.priors import describe
from hybridtwin.system import Parametric, Scalar, lognormal, parameter

_LOG_2PI = math.log(2 * math.pi)


class Seen(NamedTuple):
    """Readings of one sensor of one person, N of them in time order, padded by rows with `mask` False."""

    value: jax.Array  # (N,) in the sensor's unit; the limit where censored
    time: jax.Array  # (N,) in minutes since the person's first row
    mask: jax.Array  # (N,) is this row real?
    censored: jax.Array  # (N,) -1 below the limit, 0 seen, +1 above it
    session: jax.Array  # (N,) index of the sensor session
    since: Any = None  # (N,) minutes since the latest dose of the record began; very many before any


class Terms(NamedTuple):
    """What readings say at one set of parameters. Rows that are padding hold zeros.

    `loglik` = -residual**2 / 2 - log_sd - log(2 pi) / 2 where the row is Gaussian given the rows before it (`Kernel.gaussian`);
    elsewhere residual and log_sd are zero. The split is what Gauss-Newton needs.
    """

    loglik: jax.Array  # (N,)
    residual: jax.Array  # (N,) standardized
    log_sd: jax.Array  # (N,)


def _gaussian_terms(mean, sd, seen):
    """Independent Gaussian rows; censored ones by the tail probability."""
    plain = (seen.censored == 0) & seen.mask
    sd = jnp.where(plain | (sd > 0), sd, 1e-10)  # nothing is modelled, under a proportional error: it lies below any limit
    z = (seen.value - mean) / sd
    tail = _tail(lambda v: log_ndtr(-jnp.sign(seen.censored) * v), z, seen)
    residual = jnp.where(plain, z, 0.0)
    log_sd = jnp.where(plain, jnp.log(sd), 0.0)
    gaussian = -0.5 * residual**2 - log_sd - 0.5 * _LOG_2PI
    return Terms(jnp.where(plain, gaussian, jnp.where(seen.mask, tail, 0.0)), residual, log_sd)


def _tail(log_probability, x, seen):
    """Log probability (N,) of what lies beyond the limits of censored rows, a function of `x` (N,).

    It costs more than the solve and few records have a censored row: left out where none is known to (a constant; see
    `Kernel.terms`), and a branch elsewhere, of which a batch takes both sides.
    """
    if isinstance(seen.censored, np.ndarray) and not seen.censored.any():
        return jnp.zeros_like(x)
    return lax.cond(jnp.any(seen.censored != 0), log_probability, jnp.zeros_like, x)


def keyed(key, time):
    """Standard normals (N,) keyed by clock time, the same in every world."""
    return _noise(key, time)[:, 0]


def _noise(key, time, count=1):
    """Standard normals keyed by clock time, so that worlds with other reading times share them: (N, count)."""
    return jax.vmap(lambda own: jax.random.normal(own, (count,), jnp.result_type(float)))(_keys(key, time))


def _keys(key, time):
    """A key for each reading (N,) by its time in minutes, to the microsecond: a pressure is read every few milliseconds.

    Readings of one time have keys of their own, in their order: replicates of an assay err each by itself.
    """
    second = jnp.floor(time * 60.0 + 5e-7)
    micro = jnp.round((time * 60.0 - second) * 1e6).astype(jnp.int32)
    again = 0
    if len(time) > 1:
        order = jnp.lexsort((micro, second))
        new = jnp.concatenate([jnp.ones(1, bool), (jnp.diff(second[order]) != 0) | (jnp.diff(micro[order]) != 0)])
        place = jnp.arange(len(time))
        again = (place - lax.cummax(jnp.where(new, place, 0))).astype(jnp.int32)[jnp.argsort(order)]
    own = jax.vmap(jax.random.fold_in, (None, 0))(key, second.astype(jnp.int32).astype(jnp.uint32))
    further = (micro + 1_000_000 * again).astype(jnp.uint32)

    def folded(own, further):
        return jnp.where(further == 0, own, jax.random.fold_in(own, further))

    return jax.vmap(folded)(own, further)


class AbstractSensor(Parametric):
    """Readings of one output. `of` names the output (or state) that is read, in its declared unit."""

    of: eqx.AbstractVar[str]
    follows = ""  # a rate of the system whose own time this sensor keeps
    decides = ""  # an input: the readings are decisions on it, see `policies`
    scaled = ()  # parameters that are in the output's unit
    gaussian = True  # has every reading that is not censored a Gaussian density, on some scale, given those before it?

    @abc.abstractmethod
    def terms(self, mean, seen: Seen) -> Terms:
        """Log density of the readings given the modelled values `mean` (N,) at their times."""

    @abc.abstractmethod
    def sample(self, key, mean, seen: Seen):
        """New readings (N,) at `seen.time`; noise is keyed by time, so the same key gives every world the same noise."""

    def moved(self, value, mean, other):
        """What a reading (N,) of modelled values `mean` (N,) would have been at `other` (N,), with the error that it had."""
        return value + (other - mean)

    def thin(self) -> float:
        """Smallest time in minutes between readings that are used; 0 uses all."""
        return 0.0

    def possible(self, value):
        """Which readings (or limits of readings) `value` (N,) have a density at all under this error, on the host."""
        return value == value

    def suits(self, spec, name: str) -> None:
        """**Raises:** DeclarationError where this sensor, called `name`, cannot be one of a system."""

    def told(self, unit: str = "") -> str:
        """Name, output and every parameter in words; `unit`: of the output."""
        parts = [f"{type(self).__name__} of {self.of}" + (f" [{unit}]" if unit else "")]
        for path, field, leaf in self.fields():
            own = unit if path in self.scaled else "" if field.unit == "1" else field.unit
            parts.append(f"{path} {describe(leaf)} {own}".rstrip())
        return ", ".join(parts)

    def __repr__(self):
        return self.told()


class Gaussian(AbstractSensor):
    """Reading = output + N(0, sd)."""

    scaled = ("sd",)
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

    def possible(self, value):
        return value > 0

    def terms(self, mean, seen):
        positive = jnp.where(seen.mask, seen.value, 1.0)
        found = _gaussian_terms(
            _safe_log(mean), jnp.broadcast_to(self.sd, mean.shape), seen._replace(value=jnp.log(positive))
        )
        jacobian = jnp.where((seen.censored == 0) & seen.mask, jnp.log(positive), 0.0)
        return found._replace(loglik=found.loglik - jacobian)

    def sample(self, key, mean, seen):
        return mean * jnp.exp(self.sd * _noise(key, seen.time)[:, 0])

    def moved(self, value, mean, other):
        return value * jnp.exp(_safe_log(other) - _safe_log(mean))


def _safe_log(x):
    """Log of a prediction that may be zero (before the first dose): a floor of 1e-10 of nothing, flat below it."""
    return jnp.log(jnp.maximum(x, 1e-10))


class Absorbing(AbstractSensor):
    """Standard deviation = add + early exp(-since / fades), `since` the latest dose began: larger while a dose is absorbed.

    How a meal or a tablet is absorbed is where small models err most, so one error for all times is too small early and
    too large late. It fades in `fades` minutes (an hour; or a prior), or, with `follows="ka"`, as this person absorbs: in the
    reciprocal of that parameter of the system, a rate constant. Source: Karlsson 1995, time-dependent residual error,
    doi:10.1007/BF02353466.
    """

    scaled = ("add", "early")
    of: str
    add: Scalar = parameter(None, "1", "what remains late, in the output's unit", shared=True)
    early: Scalar = parameter(None, "1", "what is added right after a dose, in the output's unit", shared=True)
    fades: Scalar = parameter(60.0, "min", "time in which it fades", shared=True)
    follows: str = ""

    def sd(self, seen):
        """Standard deviation (N,) of readings."""
        return self.add + self.early * jnp.exp(-seen.since / self.fades)

    def terms(self, mean, seen):
        return _gaussian_terms(mean, self.sd(seen), seen)

    def sample(self, key, mean, seen):
        return mean + self.sd(seen) * _noise(key, seen.time)[:, 0]


class Combined1(AbstractSensor):
    """Standard deviation = add + prop |output| (combined error 1)."""

    scaled = ("add",)
    of: str
    add: Scalar = parameter(None, "1", "additive part, in the output's unit", shared=True)
    prop: Scalar = parameter(lognormal(0.15, 0.5), "1", "proportional part", shared=True)

    def _sd(self, mean):
        return self.add + self.prop * jnp.abs(mean)

    def terms(self, mean, seen):
        mean = jnp.where(seen.mask, mean, 1.0)  # a row of padding may read 0, where a proportional error has no density
        return _gaussian_terms(mean, self._sd(mean), seen)

    def sample(self, key, mean, seen):
        return mean + self._sd(mean) * _noise(key, seen.time)[:, 0]

    def moved(self, value, mean, other):
        return other + (value - mean) * self._sd(other) / self._sd(mean)


class Combined2(AbstractSensor):
    """Variance = add**2 + (prop output)**2 (combined error 2)."""

    scaled = ("add",)
    of: str
    add: Scalar = parameter(None, "1", "additive part, in the output's unit", shared=True)
    prop: Scalar = parameter(lognormal(0.15, 0.5), "1", "proportional part", shared=True)

    def _sd(self, mean):
        variance = self.add**2 + (self.prop * mean) ** 2
        return jnp.where(variance > 0, jnp.sqrt(jnp.where(variance > 0, variance, 1.0)), 0.0)  # a root has no slope at 0

    def terms(self, mean, seen):
        mean = jnp.where(seen.mask, mean, 1.0)
        return _gaussian_terms(mean, self._sd(mean), seen)

    def sample(self, key, mean, seen):
        return mean + self._sd(mean) * _noise(key, seen.time)[:, 0]

    def moved(self, value, mean, other):
        return other + (value - mean) * self._sd(other) / self._sd(mean)


class Poisson(AbstractSensor):
    """A count whose mean is the output."""

    gaussian = False
    of: str

    def possible(self, value):
        return (value >= 0) & (value == value.round())

    def terms(self, mean, seen):
        rate = jnp.maximum(mean, 1e-10)
        loglik = seen.value * jnp.log(rate) - rate - gammaln(seen.value + 1.0)

        def beyond(rate):  # P(count < limit) or P(count > limit)
            limit = jnp.maximum(seen.value, 1.0)
            below, above = gammaincc(limit, rate), gammainc(seen.value + 1.0, rate)
            return jnp.log(jnp.maximum(jnp.where(seen.censored < 0, below, above), 1e-300))

        loglik = jnp.where(seen.censored == 0, loglik, _tail(beyond, rate, seen))
        zero = jnp.zeros_like(mean)
        return Terms(jnp.where(seen.mask, loglik, 0.0), zero, zero)

    def sample(self, key, mean, seen):
        return jax.vmap(jax.random.poisson)(_keys(key, seen.time), jnp.maximum(mean, 1e-10)).astype(mean.dtype)

    def moved(self, value, mean, other):
        raise InterventionError("a count has no error of its own that could be kept in another world. Use predict().")


class CGM(AbstractSensor):
    r"""Continuous glucose sensor: correlated error, and a gain and an offset for each sensor session.

    reading = output (1 + g_session) + o_session + e(t) + white,   e an Ornstein-Uhlenbeck process of standard deviation
    `drift` and correlation time `tau`.

    Errors 6 minutes apart correlate by about .93 in recordings, so taking them as independent makes bands three to four
    times too narrow. The three slow errors are Gaussian given the output and are integrated out exactly: the correlated one by a
    Kalman filter, gain and offset by the regression that remains. A LOW or HIGH reading counts by its tail probability and
    leaves those estimates as they are.

    `every`: readings closer together than this (minutes) are left out of the likelihood: differences finer than the
    mechanism resolves are not to be trusted (docs/design.md). `independent=True` drops the correlated part. `sessions` is the
    largest number of sensor sessions in one record.
    """

    of: str
    white: Scalar = parameter(lognormal(3.0, 0.6), "mg/dL", "independent error", shared=True)
    drift: Scalar = parameter(lognormal(10.0, 0.6), "mg/dL", "standard deviation of the correlated error", shared=True)
    tau: Scalar = parameter(lognormal(40.0, 0.6), "min", "correlation time", shared=True)
    gain_sd: float = 0.03
    offset_sd: float = 3.0
    every: float = 15.0
    independent: bool = False
    sessions: int = 4

    def thin(self):
        return self.every

    def _decay(self, seen):
        """What is left of the correlated error from row to row (N,); nothing at a new sensor, which starts afresh."""
        new = jnp.concatenate([jnp.ones(1, bool), seen.session[1:] != seen.session[:-1]])
        gap = jnp.concatenate([jnp.zeros(1, seen.time.dtype), jnp.diff(seen.time)])
        return jnp.where(new, 0.0, jnp.exp(-gap / self.tau))

    def _whiten(self, columns, seen):
        """Each column (N,) less its prediction from the rows before it, over the rows' predictive sd; and that sd (N,).

        Kalman filter of the correlated error alone; its gains do not depend on what it filters, so the readings and the
        two directions of calibration pass through it side by side.
        """
        dtype = columns[0].dtype
        stationary = jnp.asarray(0.0 if self.independent else 1.0, dtype) * self.drift**2
        used = (seen.mask & (seen.censored == 0)).astype(dtype)
        rows = jnp.stack([self._decay(seen), used, *columns], axis=-1)

        def visit(carry, row):
            spread, *errors = carry
            decay, used, *values = tuple(row)
            spread = decay**2 * spread + stationary * (1 - decay**2)
            errors = [decay * e for e in errors]
            variance = spread + self.white**2
            gain = used * spread / variance
            misses = [v - e for v, e in zip(values, errors, strict=True)]
            after = (spread * (1 - gain), *(e + gain * m for e, m in zip(errors, misses, strict=True)))
            return after, jnp.stack([variance, *misses])

        start = (stationary, *(jnp.zeros((), dtype) for _ in columns))
        found = lax.scan(visit, start, rows)[1]
        sd = jnp.sqrt(found[:, 0])
        return [found[:, i + 1] / sd for i in range(len(columns))], sd

    def terms(self, mean, seen):
        if not (self.gain_sd or self.offset_sd):
            (miss,), sd = self._whiten([seen.value - mean], seen)
            return _gaussian_terms(seen.value - sd * miss, sd, seen)
        (miss, ones, slope), sd = self._whiten([seen.value - mean, jnp.ones_like(mean), mean], seen)
        plain = (seen.mask & (seen.censored == 0)).astype(mean.dtype)
        # Offset o and gain error g of each session: a regression of the whitened readings, with prior N(0, sd**2).
        by = jax.nn.one_hot(seen.session, self.sessions, dtype=mean.dtype).T * plain[None]
        a, b = self.offset_sd, self.gain_sd
        oo, og, gg = 1 + a * a * (by @ ones**2), a * b * (by @ (ones * slope)), 1 + b * b * (by @ slope**2)
        vo, vg = a * (by @ (ones * miss)), b * (by @ (slope * miss))
        det = oo * gg - og**2
        o, g = (gg * vo - og * vg) / det, (oo * vg - og * vo) / det  # in units of their prior sd
        own = seen.session
        centered = miss - ones * a * o[own] - slope * b * g[own]
        found = _gaussian_terms(seen.value - sd * centered, sd, seen)
        lump = -0.5 * jnp.sum(o**2 + g**2 + jnp.log(det))
        return found._replace(loglik=found.loglik.at[0].add(lump))

    def covariance(self, mean, seen):
        """Covariance (N, N) of the readings at `seen.time` about the modelled values `mean` (N,).

        It says what later readings share with earlier ones, for forecasts. Of `seen` only time and session are used.
        """
        same = seen.session[:, None] == seen.session[None, :]
        apart = jnp.abs(seen.time[:, None] - seen.time[None, :])
        slow = 0.0 if self.independent else self.drift**2 * jnp.exp(-apart / self.tau)
        calibration = self.offset_sd**2 + self.gain_sd**2 * mean[:, None] * mean[None, :]
        return jnp.where(same, slow + calibration, 0.0) + self.white**2 * jnp.eye(mean.shape[0], dtype=mean.dtype)

    def sample(self, key, mean, seen):
        """New readings (N,). The correlated error is a path over clock time, one for each session, so that two sets of
        reading times see the same error where they meet.
        """
        # Sessions are counted from 0 as seconds are: their keys must not meet.
        sessions, paths, key = jax.random.split(key, 3)
        own = seen.session.astype(jnp.uint32)
        calibration = jax.vmap(lambda s: jax.random.normal(jax.random.fold_in(sessions, s), (2,), mean.dtype))(own)
        found = (
            mean * (1 + self.gain_sd * calibration[:, 1])
            + self.offset_sd * calibration[:, 0]
            + self.white * _noise(key, seen.time)[:, 0]
        )
        if self.independent:
            return found

        def slow(session, time):
            return correlated(path_key(jax.random.fold_in(paths, session)), jnp.round(time * 60.0), self.tau * 60.0)

        return found + self.drift * jax.vmap(slow)(own, seen.time)
