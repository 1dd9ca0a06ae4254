"""Small constructors of priors, made of plain Python floats, and what a prior says in words.

jnp here would start a JAX backend whenever a module that declares a physiology is imported; priors that need it (Beta,
multivariate normal) are given as a `lambda`.
"""

import math
from statistics import NormalDist
from typing import Any

import jax
import numpy as np
import numpyro.distributions as dist
from jax.core import Tracer

from hybridtwin.errors import ParameterError

_STANDARD = NormalDist()
_BODIES = 12  # drawn bodies beside the typical one


def _within(what: str, value: Any, low: float, high: float, remedy: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not low < number < high:
        raise ParameterError(f"a prior with the {what} {value!r}. {remedy}")
    return number


def _spread(what: str, sd: Any) -> float:
    return _within(what, sd, 0.0, math.inf, "Give a number above 0, or the value alone where it is known")


_ABOVE = "A log-normal quantity is positive: give a number above 0, or ht.normal for one that may be negative"


def typical(value: float, cv: float = 0.3) -> dist.Distribution:
    """Log-normal around a typical value (its median) with coefficient of variation `cv`. Errors: ParameterError."""
    sd = math.sqrt(math.log1p(_spread("coefficient of variation", cv) ** 2))
    return lognormal(_within("typical value", value, 0.0, math.inf, _ABOVE), sd)


def lognormal(median: float, sd: float) -> dist.Distribution:
    """Log-normal by its median and the standard deviation of its logarithm. Errors: ParameterError."""
    return dist.LogNormal(math.log(_within("median", median, 0.0, math.inf, _ABOVE)), _spread("standard deviation", sd))


def normal(mean: float, sd: float) -> dist.Distribution:
    """Normal by mean and standard deviation. Errors: ParameterError."""
    middle = _within("mean", mean, -math.inf, math.inf, "Give a number")
    return dist.Normal(middle, _spread("standard deviation", sd))


def halfnormal(sd: float) -> dist.Distribution:
    """Half-normal of scale `sd`: for standard deviations, likeliest at zero. Errors: ParameterError."""
    return dist.HalfNormal(_spread("scale", sd))


def logitnormal(median: float, sd: float) -> dist.Distribution:
    """On (0, 1): normal on the logit scale, of standard deviation `sd`, around `median`. Errors: ParameterError."""
    middle = _within("median", median, 0.0, 1.0, "A share lies between 0 and 1: give its median as one, .61 for 61 %")
    base = dist.Normal(math.log(middle / (1 - middle)), _spread("standard deviation", sd))
    return dist.TransformedDistribution(base, dist.transforms.SigmoidTransform())


_MONOTONE = {
    dist.transforms.SigmoidTransform: lambda t, x: 1 / (1 + math.exp(-x)),
    dist.transforms.ExpTransform: lambda t, x: math.exp(x),
    dist.transforms.AffineTransform: lambda t, x: float(t.loc) + float(t.scale) * x,
}


_BACK = {
    dist.transforms.SigmoidTransform: lambda t, y: math.log(y / (1 - y)),
    dist.transforms.ExpTransform: lambda t, y: math.log(y),
    dist.transforms.AffineTransform: lambda t, y: (y - float(t.loc)) / float(t.scale),
}


def before(transforms, value: float) -> float:
    """What transforms made `value` of, in plain Python where they are known. Errors: ValueError for what they cannot make."""
    for transform in reversed(transforms):
        if type(transform) in _BACK:
            value = _BACK[type(transform)](transform, value)
        else:
            with jax.ensure_compile_time_eval(), jax.enable_x64(True):
                value = float(transform.inv(value))
    return value


def _number(value: Any) -> float:
    return float(value)


def quantile(prior: Any, q: float) -> float | None:
    """The quantile of a scalar prior in plain Python (no backend); None where there is no closed form here."""
    if isinstance(prior, dist.LogNormal):
        return math.exp(_number(prior.loc)) * math.exp(_number(prior.scale) * _STANDARD.inv_cdf(q))
    if isinstance(prior, dist.Normal):
        return _number(prior.loc) + _number(prior.scale) * _STANDARD.inv_cdf(q)
    if isinstance(prior, dist.HalfNormal):
        return _number(prior.scale) * _STANDARD.inv_cdf((1 + q) / 2)
    if isinstance(prior, dist.Uniform):
        return _number(prior.low) + q * (_number(prior.high) - _number(prior.low))
    if isinstance(prior, dist.TransformedDistribution) and all(type(t) in _MONOTONE for t in prior.transforms):
        down = (
            sum(isinstance(t, dist.transforms.AffineTransform) and _number(t.scale) < 0 for t in prior.transforms) % 2
        )
        value = quantile(prior.base_dist, 1 - q if down else q)
        for transform in prior.transforms:
            value = None if value is None else _MONOTONE[type(transform)](transform, value)
        return value
    return None


def score(prior: Any, value: float) -> float | None:
    """How far out a value lies in a scalar prior, as the standard normal deviate of its rank; None where nothing is known."""
    if isinstance(prior, dist.LogNormal):
        return (math.log(value) - _number(prior.loc)) / _number(prior.scale) if value > 0 else -math.inf
    if isinstance(prior, dist.Normal):
        return (value - _number(prior.loc)) / _number(prior.scale)
    if quantile(prior, 0.5) is None:
        return None
    low, high = -12.0, 12.0
    for _ in range(50):
        middle = 0.5 * (low + high)
        found = quantile(prior, _STANDARD.cdf(middle)) if abs(middle) < 8 else None
        below = middle < 0 if found is None else found < value
        low, high = (middle, high) if below else (low, middle)
    return 0.5 * (low + high)


def median(prior: dist.Distribution) -> float:
    """The median of a scalar prior, in double precision; of 20,001 draws where nothing closer is known."""
    value = quantile(prior, 0.5)
    if value is not None:
        return value
    with jax.ensure_compile_time_eval(), jax.enable_x64(True):  # a model may be asked first while it is traced
        try:
            return float(prior.icdf(0.5))
        except (NotImplementedError, ImportError):
            return float(np.median(np.asarray(prior.sample(jax.random.key(0), (20001,)))))


def unconstrained(prior, ranks) -> list[float] | None:
    """Quantiles on the unconstrained coordinate in plain Python (JAX would compile thirty operations); None where unknown."""
    if isinstance(prior, dist.HalfNormal):
        return [math.log(_number(prior.scale) * _STANDARD.inv_cdf((1 + q) / 2)) for q in ranks]
    return [math.log(q / (1 - q)) for q in ranks] if isinstance(prior, dist.Uniform) else None


_STANDARDS: dict[Any, tuple[float, float]] = {}  # by value of the prior: a program is traced many times


def standard(prior: dist.Distribution) -> tuple[float, float]:
    """Median and spread (half of the central 68 %) of a scalar prior on its unconstrained coordinate, as plain numbers.

    What a coordinate is divided by, so that a start, a step and a curvature mean the same for a prior on 1e-2 and one on 1e4.
    (0, 1) where the prior's own numbers are unknowns.
    """
    from numpyro.distributions import biject_to

    leaves, tree = jax.tree.flatten(prior)
    if any(isinstance(leaf, Tracer) for leaf in leaves):
        return 0.0, 1.0
    key = (str(tree), tuple(np.asarray(leaf).tobytes() for leaf in leaves))
    if key not in _STANDARDS:
        at = [_STANDARD.cdf(x) for x in (-1.0, 0.0, 1.0)]
        free = unconstrained(prior, at)
        if free is None:
            with jax.ensure_compile_time_eval(), jax.enable_x64(True):
                try:
                    values = np.asarray(prior.icdf(np.array(at)))
                except (NotImplementedError, ImportError):
                    values = np.quantile(np.asarray(prior.sample(jax.random.key(0), (20001,))), at)
                # compiled: under `vmap` a rule of differentiation (that of `logit`) would trace it in spite of the context
                free = [float(x) for x in np.asarray(jax.jit(lambda v: biject_to(prior.support).inv(v))(values))]
        low, middle, high = free
        usable = math.isfinite(low + middle + high) and high > low
        _STANDARDS[key] = (middle, (high - low) / 2) if usable else (0.0, 1.0)
    return _STANDARDS[key]


_WORDS = {"LogNormal": "log-normal", "Normal": "normal", "HalfNormal": "half-normal", "Uniform": "uniform"}


def describe(prior) -> str:
    """A prior in words, median and 90 % interval: "log-normal 1.5 (0.67 to 3.4)"; a number as itself."""
    if not isinstance(prior, dist.Distribution):
        return (
            f"= {prior:.6g}"
            if isinstance(prior, (int, float))
            else "= an array"
            if hasattr(prior, "dtype")
            else "given at construction"
        )
    word = _WORDS.get(type(prior).__name__, type(prior).__name__)
    if isinstance(prior, dist.TransformedDistribution) and any(
        isinstance(t, dist.transforms.SigmoidTransform) for t in prior.transforms
    ):
        word = "logit-normal"
    values = [quantile(prior, q) for q in (0.5, 0.05, 0.95)]
    if any(v is None for v in values):
        given = ", ".join(f"{k}={getattr(prior, k)}" for k in prior.arg_constraints if hasattr(prior, k))
        return f"{word}({given})"
    middle, low, high = (f"{v:.3g}" for v in values)
    return f"{word} {middle} ({low} to {high})"


def bodies_of(priors, typical) -> list[dict[str, float]]:
    """The body of medians and a few drawn from the priors, always the same ones (without priors copies: one program).

    Ranks are stratified, each parameter's by itself: a dozen bodies then show how far the priors reach.
    """
    rng, bodies = np.random.default_rng(20), [{path: float(value) for path, value in typical.items() if np.ndim(value) == 0}]
    strata = np.array([rng.permutation(_BODIES) for _ in priors]).reshape(len(priors), _BODIES)
    for ranks in ((strata + 0.5) / _BODIES).T:
        drawn = {path: quantile(prior, float(q)) for (path, prior), q in zip(priors.items(), ranks, strict=True)}
        bodies.append(bodies[0] | {path: value for path, value in drawn.items() if value is not None})
    return bodies
