"""Tempered sequential Monte Carlo: populations walk from the prior to the posterior, so several modes get their weights.

Del Moral, Doucet & Jasra 2006 (doi:10.1111/j.1467-9868.2006.00553.x). Each temperature is chosen so that a given share of the
particles counts after reweighting; islands of particles never exchange anything, so that what they disagree about is the
Monte Carlo error of the evidence and of the draws (they share only the temperatures and the coordinates they move in).
"""

from typing import NamedTuple

import jax
import numpy as np

from hybridtwin.inference import diagnostics
from hybridtwin.inference.lanes import Lanes, Mover, whitened
from hybridtwin.inference.psis import resampled
from hybridtwin.inference.readings import prior_draws
from hybridtwin.inference.sampling import Drawn, Setting
from hybridtwin.keys import folded

_MOST = 120  # temperatures; who has not arrived by then is told
_ACCEPT = 0.8  # acceptance that the step is adapted to
_TURN = np.pi / 2  # a quarter of the period of a standard normal: where a trajectory has forgotten its start


class Population(NamedTuple):
    """Particles of one person at one temperature, islands side by side, and what led there."""

    lanes: Lanes  # (I * N, ...)
    ancestors: np.ndarray  # (I * N,)
    log_evidence: np.ndarray  # (I,)
    temperatures: int
    accept: float
    step: float
    beta: float


def draw(setting: Setting, method) -> list[Drawn]:
    """Populations of every person of a tile, one after the other."""
    found = []
    for p, key in enumerate(setting.keys[: setting.wanted]):
        data, temper = (jax.tree.map(lambda a, p=p: a[p], part) for part in (setting.data, setting.tempers))
        z = prior_draws(setting.kernel, folded(key, 7), method.particles)
        mover = Mover(setting.kernel, data, temper, folded(key, 2))
        rng = np.random.default_rng(np.array(jax.random.key_data(folded(key, 8))))
        found.append(_person(mover, z, rng, method, setting.report))
    return found


def _person(mover, z, rng, method, report) -> Drawn:
    islands, count = method.islands, method.particles // method.islands
    last = _climb(mover, z, rng, method, report)
    per_island = np.asarray(last.lanes.z).reshape(islands, count, -1)
    stats = diagnostics.convergence(np.moveaxis(per_island, -1, 0))
    total, error = _pooled(last.log_evidence)
    families = [len(np.unique(row)) for row in last.ancestors.reshape(islands, count)]
    # draws of all islands together, each island by its evidence, and moved once more so that copies part
    rows = _rows(np.repeat(last.log_evidence, count), method.particles, rng)
    lanes, center, scale = last.lanes.picked(rows), *whitened(np.asarray(last.lanes.z))
    for _ in range(method.moves):
        lanes = mover.move(lanes, center, scale, last.step, _leapfrogs(last.step, rng), last.beta).lanes
    z = np.asarray(lanes.z).reshape(islands, count, -1)
    return Drawn(
        z,
        stats
        | {
            "log_evidence": total,
            "log_evidence_se": error,
            "temperatures": float(last.temperatures),
            "acceptance": last.accept,
            "ancestors": float(min(families)),
            "reached": last.beta,
        },
    )


def _climb(mover, z, rng, method, report) -> Population:
    """From the prior's draws to the posterior, temperature by temperature."""
    islands, count = method.islands, method.particles // method.islands
    lanes = mover.known(z)
    ancestors = np.tile(np.arange(count), islands)
    log_evidence, beta, step, number, accept = np.zeros(islands), 0.0, 0.6, 0, np.ones(1)
    while beta < 1.0 and number < _MOST:
        like = np.asarray(lanes.like)
        if not np.isfinite(like).any():
            break
        new = _next(like, beta, method.keep)
        log_weights = np.where(np.isfinite(like), (new - beta) * like, -np.inf).reshape(islands, count)
        top = np.max(log_weights, axis=1, keepdims=True)
        top = np.where(np.isfinite(top), top, 0.0)
        weights = np.exp(log_weights - top)
        with np.errstate(divide="ignore"):
            log_evidence = log_evidence + np.log(weights.mean(axis=1)) + top[:, 0]
        center, scale = _frame(np.asarray(lanes.z), weights.ravel() * np.repeat(np.exp(top[:, 0] - top.max()), count))
        rows = np.concatenate([i * count + _rows(w, count, rng) for i, w in enumerate(log_weights)])
        lanes, ancestors, beta, number = lanes.picked(rows), ancestors[rows], new, number + 1
        for _ in range(method.moves * (2 if beta >= 1.0 else 1)):
            moved = mover.move(lanes, center, scale, step, _leapfrogs(step, rng), beta)
            lanes, accept = moved.lanes, np.asarray(moved.accept)
            step = float(np.clip(step * np.exp(1.5 * (accept.mean() - _ACCEPT)), 0.02, 1.5))
        report(min(number, 19), 20, int(np.sum(np.asarray(moved.diverging))))
    return Population(lanes, ancestors, log_evidence, number, float(accept.mean()), step, beta)


def _frame(z, weights):
    """Coordinates of the weighted particles, resampled so that one rule makes every frame."""
    share = weights / weights.sum()
    center = share @ z
    covariance = (share[:, None] * (z - center)).T @ (z - center)
    n, d = 1.0 / np.sum(share**2), len(center)
    mixed = (n * covariance + 2 * d * np.diag(np.maximum(np.diag(covariance), 1e-10))) / (n + 2 * d)
    return center, np.linalg.cholesky(mixed)


def _leapfrogs(step, rng):
    """How many leapfrogs a trajectory has: a quarter of a period, jittered, so that no lane is trapped in a resonance."""
    return int(np.clip(np.ceil(_TURN * rng.uniform(0.5, 1.2) / step), 1, 32))


def _next(like, beta, keep):
    """The next temperature: the largest at which `keep` of the particles count after reweighting."""

    def share(new):
        move = np.where(np.isfinite(like), (new - beta) * like, -np.inf)
        w = np.exp(move - move.max())
        return w.sum() ** 2 / np.sum(w**2) / len(w)

    alive = min(1.0, np.isfinite(like).mean())
    if share(1.0) >= keep * alive:
        return 1.0
    low, high = 0.0, 1.0 - beta  # as steps beyond beta, on a log scale: the first may be tiny
    low = high * 1e-14
    for _ in range(60):
        middle = np.sqrt(low * high)
        low, high = (middle, high) if share(beta + middle) >= keep * alive else (low, middle)
    return beta + low


def _rows(log_weights, count, rng):
    """Rows drawn by their weights, in order, so that families stay together; all alike where none weighs anything."""
    return resampled(rng, log_weights if np.isfinite(log_weights).any() else np.zeros(len(log_weights)), count)


def _pooled(log_evidence):
    """Log of the mean evidence of the islands, and the standard error of that log (infinite where one has none)."""
    top = log_evidence.max()
    if not np.isfinite(top):
        return -np.inf, np.inf
    ratio = np.exp(log_evidence - top)
    return float(top + np.log(ratio.mean())), float(ratio.std(ddof=1) / np.sqrt(len(ratio)) / ratio.mean())
