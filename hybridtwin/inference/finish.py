"""From draws to a fit: correct them from n to 2n sub-steps, draw from the prior beside them, and judge.

Many people a call, on the compiled program of `readings`; what is left to the host is a few sorts and sums a person.
"""

from typing import Any, NamedTuple

import jax
import numpy as np

from hybridtwin.fit import Fit
from hybridtwin.inference import verdict
from hybridtwin.inference.kept import Sampled
from hybridtwin.inference.lost import lost_draws
from hybridtwin.inference.psis import GOOD, kish, psis, resampled
from hybridtwin.inference.readings import generator, prior_draws, read, values_of
from hybridtwin.inference.sampling import weights_of
from hybridtwin.keys import folded
from hybridtwin.simulate.failures import Failures
from hybridtwin.simulate.run import stack

_EVEN = 0.999  # share of draws that count after the correction, above which they are left as they are
_UNEVEN = 0.95  # under this, with a k-hat above 0.5, the steps are halved for good


class Readings(NamedTuple):
    """One person's draws at their readings, under n and 2n sub-steps."""

    loglik: np.ndarray  # (n,)
    fine: np.ndarray  # (n,) log likelihood under 2n sub-steps
    density: np.ndarray  # (n,) log density under them
    residuals: dict[str, np.ndarray]  # sensor -> (n, N)


def finish(problems, sampled: list[Sampled], keys, method, width: int) -> list[Fit]:
    """Fits of people on one kernel, `width` of them in every call (fewer are filled up with repeats)."""
    by_length: dict[int, list[int]] = {}
    for i, one in enumerate(sampled):
        by_length.setdefault(one.z.shape[0] * one.z.shape[1], []).append(i)
    found: dict[int, Readings] = {}
    for rows in by_length.values():
        for first in range(0, len(rows), width):
            group = rows[first : first + width]
            found.update(zip(group, _read([problems[i] for i in group], [sampled[i] for i in group], width), strict=True))
    return [judged(problems[i], one, found[i], keys[i], method) for i, one in enumerate(sampled)]


def _read(problems, sampled, width) -> list[Readings]:
    """Draws at the readings, of people with equally many draws."""
    kernel, fill = problems[0].kernel, width - len(problems)
    full = [*zip(problems, sampled, strict=True), *[(problems[0], sampled[0])] * fill]
    data = jax.device_put(stack([p.data for p, _ in full]))  # `jnp.asarray` would compile a program for every shape
    tempers = stack([s.temper for _, s in full])
    z = np.stack([s.z.reshape(-1, s.z.shape[-1]) for _, s in full])
    coarse = read(kernel, z, data, tempers)
    fine = coarse if kernel.stepper.refined() is None else read(kernel, z, data, tempers, substeps=2)
    return [
        Readings(
            coarse.log_likelihood[p], fine.log_likelihood[p], fine.log_density[p], {n: r[p] for n, r in coarse.residuals.items()}
        )
        for p in range(len(problems))
    ]


def judged(problem, sampled: Sampled, at: Readings, key, method, values=values_of) -> Fit:
    """The fit of one person; `values(kernel, z)` gives the sites at coordinates z (n, d)."""
    kernel, (z, extra, laplaces, temper) = problem.kernel, sampled
    flat = z.reshape(-1, z.shape[-1])
    log_weights, stats = _corrected(at, temper, extra)
    pick = np.arange(len(flat))
    if stats["mesh_share"] < _EVEN:
        pick = resampled(generator(key, 5), log_weights, len(flat))
    chosen = flat[pick].reshape(z.shape)
    prior = prior_draws(kernel, folded(key, 6), max(400, min(len(flat), 1000)))
    prior_sd = prior.std(axis=0)
    roles = [site.kind for site in kernel.sites for _ in range(site.size)]
    stats |= {"names": kernel.names, "prior_sd": prior_sd}
    found = values(kernel, np.concatenate([chosen.reshape(flat.shape), prior]))
    shift = (flat.mean(axis=0) - prior.mean(axis=0)) / prior_sd
    parts = {
        "computed": verdict.computed(stats),
        "fits": verdict.fits(_typical(at.residuals), shift, kernel.names, roles),
        "informed": verdict.informed(flat.std(axis=0) / prior_sd, kernel.names, roles),
        "supported": verdict.supported(problem),
    }
    lost = Failures((), len(flat))
    if stats["failed"]:
        lost = lost_draws(problem, values(kernel, flat), at.loglik, at.fine, at.residuals)
    return Fit(
        problem,
        {name: v[: len(flat)] for name, v in found.items()},
        {name: v[len(flat) :] for name, v in found.items()},
        chosen,
        at.fine[pick] / float(temper.power),
        stats,
        method,
        temper,
        float(extra.get("log_evidence", laplaces[0].log_evidence)),
        parts,
        max(laplaces, key=lambda fit: fit.log_density).mode,
        lost,
    )


def _typical(residuals) -> dict[str, np.ndarray]:
    """Median over draws, so that a few at which the steps explode do not speak for the others; NaN where nothing is seen."""
    found = {}
    for name, r in residuals.items():
        seen = np.isfinite(r).any(axis=0)
        found[name] = np.full(r.shape[1], np.nan)
        found[name][seen] = np.nanmedian(r[:, seen], axis=0)
    return found


def _corrected(at: Readings, temper, extra) -> tuple[np.ndarray, dict[str, Any]]:
    """Smoothed log weights of the draws for the step size, and stats: how well that went, and how an approximation stands in."""
    stats = {k: v for k, v in extra.items() if k != "log_proposal"}
    usable = np.isfinite(at.fine) & np.isfinite(at.loglik)
    stats["failed"] = float(1 - usable.mean())
    move = np.full(len(usable), -np.inf)
    move[usable] = (at.fine[usable] - at.loglik[usable]) / float(temper.power)
    approximate = extra.get("log_proposal")
    if approximate is not None and usable.any():
        # Draws of a Gaussian are not draws of the coarse posterior: one at which the coarse steps explode must not win
        # by the gain of its halved steps.
        move = np.minimum(move, np.median(move[usable]))
    log_weights, khat = psis(move)
    stats["mesh_share"] = float(kish(log_weights)) / len(usable) if usable.any() else 0.0
    stats["mesh_khat"] = float(khat) if stats["mesh_share"] < _EVEN else -np.inf  # of weights that are all but the same: nothing
    if approximate is not None:
        stats["share"] = float(1 / np.sum(weights_of(at.density - approximate) ** 2) / len(usable))
    return log_weights, stats


def needs_finer(fit: Fit) -> bool:
    """Can halving the steps not be made good by weights?"""
    stats = fit.stats
    uneven = stats["mesh_khat"] > GOOD and stats["mesh_share"] < _UNEVEN
    return bool(uneven and stats["failed"] < 0.5 and fit.kernel.stepper.refined() is not None)
