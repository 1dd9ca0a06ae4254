"""The posterior without some readings, drawn anew where the draws at hand do not reach it.

A Student distribution with the weighted mean and spread of the draws is the proposal of an importance sampler of the density
without the readings; what it finds moves it, a few times. Its weights are smoothed and judged by k-hat as everywhere.

Source: Cappé 2004, doi:10.1198/106186004X12803 (population Monte Carlo); Paananen 2021, doi:10.1007/s11222-020-09982-2, who move
the draws themselves for the same purpose.
"""

import math
from collections.abc import Callable

import numpy as np

from hybridtwin.inference.psis import GOOD, kish, psis

_ROUNDS = 5
_FREEDOM = 6.0  # of the Student distribution
_WIDER = 1.15  # than what was found, at each turn


def without(density: Callable[[np.ndarray], np.ndarray], z, log_weights, rng, count: int):
    """Draws of another density near the one at hand.

    **Arguments:** `density`: (n, d) -> (n,) log density, unnormalized; `z` (n, d) draws at hand, `log_weights` (n,) towards it;
    `count`: draws a round.

    **Returns:** draws (count, d), their smoothed log weights (count,), k-hat and the effective number of draws.
    """
    base, whole = np.cov(z, rowvar=False).reshape(z.shape[1], z.shape[1]), z
    best = None
    for _ in range(_ROUNDS):
        weights = np.exp(log_weights - np.max(log_weights))
        weights /= weights.sum()
        # Few draws count at first: what they cannot tell of the spread is that of all.
        trust = min(1.0, kish(np.log(np.maximum(weights, 1e-300))) / (10.0 * z.shape[1]))
        mean = weights @ z
        own = (z - mean).T @ ((z - mean) * weights[:, None])
        spread = _WIDER**2 * (trust * own + (1.0 - trust) * base * 1.5) + 1e-10 * np.diag(np.diag(base))
        z, log_q = _student(mean, spread, rng, count)
        logs = density(z) - log_q
        logs = np.where(np.isfinite(logs), logs, -np.inf)
        if not np.isfinite(logs).any():
            z, log_weights = whole, np.zeros(len(whole))
            continue
        log_weights, khat = psis(logs)
        effective = float(kish(log_weights))
        if best is None or (float(khat), -effective) < (best[2], -best[3]):
            best = (z, log_weights, float(khat), effective)
        if khat < GOOD and effective > 0.2 * count:
            break
    return best if best is not None else (z, np.full(len(z), -math.log(len(z))), math.inf, 0.0)


def _student(mean, spread, rng, count):
    """Draws (count, d) of a multivariate Student distribution and their log density (count,)."""
    d, nu = len(mean), _FREEDOM
    values, vectors = np.linalg.eigh(spread)
    root = vectors * np.sqrt(np.maximum(values, 1e-14 * values.max()))
    normal = rng.standard_normal((count, d))
    scale = np.sqrt(nu / rng.chisquare(nu, count))
    z = mean + (normal * scale[:, None]) @ root.T
    size = np.sum((normal * scale[:, None]) ** 2, axis=1)
    constant = math.lgamma((nu + d) / 2) - math.lgamma(nu / 2) - d / 2 * math.log(nu * math.pi)
    log_det = np.sum(np.log(np.maximum(values, 1e-14 * values.max()))) / 2
    return z, constant - log_det - (nu + d) / 2 * np.log1p(size / nu)
