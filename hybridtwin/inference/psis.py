"""Pareto smoothed importance sampling, and draws of equal weight from weighted ones.

The largest weights are replaced by quantiles of a generalized Pareto distribution fitted to them, whose shape k-hat says
whether they can be trusted: under 0.5 the variance of an estimate is finite, above 0.7 no affordable number of draws helps.
Vehtari, Simpson, Gelman, Yao and Gabry 2024, J. Mach. Learn. Res. 25:72 (arXiv:1507.02646); the fit is that of Zhang and
Stephens 2009 (doi:10.1198/tech.2009.08017). Equal to ArviZ's to rounding (tests).
"""

import numpy as np

GOOD = 0.5  # k-hat below this: the variance is finite, and few draws suffice
USABLE = 0.7
_FIRM, _MOST = 0.65, 0.5  # k-hat that passes where so many draws count: of a few thousand weights it is known to 0.15
# Share of draws that count from which k-hat is not asked, as long as it is a number: it tells the shape of the tail and nothing
# of its size, so that of weights of which none matters it may be anything (a Gaussian body, 99 % of the draws count: 2.6).
_ALIKE = 0.9
_TAIL = 4  # a tail needs more points than these


def psis(log_weights):
    """Smoothed log weights, normalized to sum to one, and k-hat: (..., S) -> (..., S), (...).

    What is not finite weighs nothing. Weights that are all the same, and of which fewer than five stand out, have no tail: k-hat
    is then -inf where they are all the same and inf otherwise.
    """
    logs = np.asarray(log_weights, float)
    flat = np.where(np.isfinite(logs), logs, -np.inf).reshape(-1, logs.shape[-1])
    smoothed, khat = zip(*(_one(row) for row in flat), strict=True)
    return np.stack(smoothed).reshape(logs.shape), np.array(khat).reshape(logs.shape[:-1])


def _one(x):
    top = x.max()
    if not np.isfinite(top):
        return np.full(len(x), -np.log(len(x))), np.inf
    x = x - top
    if not np.any(x < -1e-12):
        return np.full(len(x), -np.log(len(x))), -np.inf
    many = int(np.ceil(min(len(x) / 5, 3 * np.sqrt(len(x)))))
    cut = max(np.partition(x, -many - 1)[-many - 1], np.log(np.finfo(float).tiny)) if many < len(x) else -np.inf
    tail = np.flatnonzero(x > cut)
    tail = tail[np.argsort(x[tail], kind="stable")]
    k = np.inf
    if len(tail) > _TAIL:
        base = np.exp(cut)
        k, sigma = _pareto(np.exp(x[tail]) - base)
        if np.isfinite(k):
            p = (np.arange(len(tail)) + 0.5) / len(tail)
            with np.errstate(over="ignore"):  # a tail beyond all numbers is cut below
                excess = -np.log1p(-p) * sigma if abs(k) < 1e-12 else np.expm1(-k * np.log1p(-p)) * sigma / k
            x = x.copy()
            x[tail] = np.minimum(np.log(excess + base), 0.0)
    return x - _log_sum(x), float(k)


def _log_sum(x):
    top = x.max()
    return top + np.log(np.sum(np.exp(x - top)))


def _pareto(y):
    """Shape and scale of a generalized Pareto distribution for sorted exceedances y, the shape drawn a little towards 0.5."""
    n = len(y)
    grid = 30 + int(np.sqrt(n))
    b = 1 - np.sqrt(grid / (np.arange(1, grid + 1) - 0.5))
    b = b / (3 * y[int(n / 4 + 0.5) - 1]) + 1 / y[-1]
    shapes = np.log1p(-b[:, None] * y).mean(axis=1)
    profile = n * (np.log(-b / shapes) - shapes - 1)
    with np.errstate(over="ignore"):  # a grid point of no weight at all
        weights = 1 / np.exp(profile - profile[:, None]).sum(axis=1)
    keep = weights >= 10 * np.finfo(float).eps
    weights, b = weights[keep] / weights[keep].sum(), b[keep]
    middle = np.sum(b * weights)
    shape = np.log1p(-middle * y).mean()
    return (n * shape + 10 * 0.5) / (n + 10), -shape / middle


def limit(share: float) -> float:
    """K-hat under which weighted draws are taken for the posterior, where this share of them counts; inf: any number will do."""
    return np.inf if share >= _ALIKE else _FIRM if share >= _MOST else GOOD


def kish(log_weights):
    """Effective number of weighted draws, 1 / sum of the squared normalized weights: (..., S) -> (...)."""
    x = np.asarray(log_weights, float)
    top = np.max(x, axis=-1, keepdims=True)
    w = np.exp(x - np.where(np.isfinite(top), top, 0.0))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.nan_to_num(w.sum(axis=-1) ** 2 / np.square(w).sum(axis=-1))


def resampled(rng, log_weights, count):
    """Indices (count,) of draws of equal weight, in their order, by stratified resampling (one uniform a stratum)."""
    w = np.exp(log_weights - np.max(log_weights))
    edges = np.cumsum(w) / w.sum()
    at = (np.arange(count) + rng.random(count)) / count
    return np.minimum(np.searchsorted(edges, at, side="right"), len(w) - 1)
