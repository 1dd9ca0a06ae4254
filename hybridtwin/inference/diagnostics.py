"""Convergence diagnostics, batched: every function takes (..., chains, draws) and returns (...).

Rank-normalized split R-hat and effective sample sizes of bulk and tail follow Vehtari et al. 2021
(doi:10.1214/20-BA1221) and agree with ArviZ to 1e-6 (tests). A lane without variance, or with a value that is not finite,
gives NaN: it never passes.
"""

import numpy as np
from scipy.special import ndtri

# What passes without a word. Four chains that mix perfectly exceed R-hat 1.02 in two cases of five at 180 effective draws, and
# 1.05 in three of a hundred, for each parameter: a lower bound would only ask for more draws in other words.
RHAT, ESS = 1.05, 150


def _split(x):
    half = x.shape[-1] // 2
    return np.concatenate([x[..., :half], x[..., -half:]], axis=-2)


def _z(x):
    from scipy.stats import rankdata  # costs as much to load as all of this file's other imports

    flat = x.reshape(*x.shape[:-2], -1)
    rank = rankdata(flat, axis=-1)
    return ndtri((rank - 0.375) / (flat.shape[-1] + 0.25)).reshape(x.shape)


def _plain_rhat(x):
    n = x.shape[-1]
    within = x.var(-1, ddof=1).mean(-1)
    between = n * x.mean(-1).var(-1, ddof=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.sqrt((between / within + n - 1) / n)


def _spoiled(x):
    flat = x.reshape(*x.shape[:-2], -1)
    return ~np.isfinite(flat).all(-1) | (np.ptp(np.where(np.isfinite(flat), flat, 0.0), axis=-1) == 0)


def rhat(x):
    """Rank-normalized split R-hat: the larger of that of the values and of their distance from the median."""
    x = np.asarray(x, float)
    bad = _spoiled(x)
    x = np.where(bad[..., None, None], np.random.default_rng(0).standard_normal(x.shape[-2:]), x)
    s = _split(x)
    folded = np.abs(s - np.median(s, axis=(-1, -2), keepdims=True))
    return np.where(bad, np.nan, np.maximum(_plain_rhat(_z(s)), _plain_rhat(_z(folded))))


def _autocovariance(x):
    n = x.shape[-1]
    size = 2 ** int(np.ceil(np.log2(2 * n)))
    f = np.fft.rfft(x - x.mean(-1, keepdims=True), size)
    return np.fft.irfft(f * np.conj(f), size)[..., :n] / n


def _ess(x):
    """ESS of one quantity (chains, draws) by Geyer's initial monotone sequence."""
    chains, n = x.shape
    cov = _autocovariance(x)
    means = x.mean(-1)
    within = (cov[:, 0] * n / (n - 1)).mean()
    total = within * (n - 1) / n + (means.var(ddof=1) if chains > 1 else 0.0)
    rho = 1 - (within - cov.mean(0)) / total
    rho[0] = 1.0
    t, even, odd = 1, 1.0, rho[1]
    kept = np.zeros(n)
    kept[0], kept[1] = even, odd
    while t < n - 3 and even + odd > 0:
        even, odd = rho[t + 1], rho[t + 2]
        if even + odd >= 0:
            kept[t + 1], kept[t + 2] = even, odd
        t += 2
    longest = t - 2
    if even > 0:
        kept[longest + 1] = even
    t = 1
    while t <= longest - 2:
        if kept[t + 1] + kept[t + 2] > kept[t - 1] + kept[t]:
            kept[t + 1] = kept[t + 2] = (kept[t - 1] + kept[t]) / 2
        t += 2
    time = -1 + 2 * kept[: longest + 1].sum() + kept[longest + 1]
    return chains * n / max(time, 1 / np.log10(chains * n))


def _each(x, f):
    x = np.asarray(x, float)
    bad = _spoiled(x)
    flat, lost = x.reshape(-1, *x.shape[-2:]), bad.reshape(-1)
    return np.array([np.nan if skip else f(one) for one, skip in zip(flat, lost, strict=True)]).reshape(x.shape[:-2])


def ess_bulk(x):
    """Effective sample size of the bulk: of the rank-normalized split chains."""
    return _each(x, lambda one: _ess(_z(_split(one))))


def ess_tail(x):
    """Effective sample size of the tails: the smaller of those of the 5 % and 95 % quantiles."""

    def tail(one):
        return min(_ess(_split((one <= np.quantile(one, q)).astype(float))) for q in (0.05, 0.95))

    return _each(x, tail)


def bfmi(energy):
    """Estimated Bayesian fraction of missing information, a chain each: (..., chains, draws) -> (..., chains)."""
    energy = np.asarray(energy, float)
    return np.square(np.diff(energy, axis=-1)).mean(-1) / energy.var(-1, ddof=1)


def autocorrelation(x, lag=1):
    """Autocorrelation at `lag` along the last axis, NaN rows left out: (..., N) -> (...)."""
    x = np.asarray(x, float)
    x = x - np.nanmean(x, axis=-1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.nanmean(x[..., lag:] * x[..., :-lag], axis=-1) / np.nanmean(x**2, axis=-1)
