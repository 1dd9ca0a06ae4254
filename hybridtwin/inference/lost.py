"""Draws of a fit that could not be solved, as rows: at which reading first, and which of their parameters is unusual; and
records that no body can have given.
"""

import math

import jax.numpy as jnp
import numpy as np

from hybridtwin.engine import double
from hybridtwin.errors import HybridTwinError, ImplausibleValue, SolveError
from hybridtwin.simulate.failures import NOT_FINITE, REASONS, UNSETTLED, Failure, Failures, unusual


def lost_draws(problem, values, coarse, fine, residuals) -> Failures:
    """What is told of the draws whose log likelihood is not finite with the steps of the fit, or with half of them.

    **Arguments:** `values`: site -> (n,) or (n, size); `coarse`, `fine`: log likelihoods (n,); `residuals`: sensor -> (n, N)
    with the steps of the fit, NaN where a reading is censored. A draw's number counts through all chains, before any correction.
    """
    bound, rows = problem.bound, []
    priors = {site.name: site.prior for site in problem.kernel.sites}
    for lane in np.flatnonzero(~(np.isfinite(coarse) & np.isfinite(fine))):
        time, sensor = bound.stop, next(iter(residuals))
        for name, path in residuals.items():
            if name not in problem.used:
                continue
            at = bound.readings[name].time[problem.used[name]]
            seen = np.isfinite(path[:, : len(at)])
            gone = np.flatnonzero(seen.any(axis=0) & ~seen[lane])
            if gone.size and at[gone[0]] <= time:
                time, sensor = float(at[gone[0]]), name
        reason = REASONS[UNSETTLED if np.isfinite(coarse[lane]) else NOT_FINITE]
        row = Failure(
            str(problem.person.id), int(lane), reason, time, bound.clock.label(time), problem.model.sensors[sensor].of,
            math.inf, True, *unusual(priors, values, lane), problem.model.name,
        )  # fmt: skip
        rows.append(row)
    return Failures(rows, len(coarse))


def impossible(problem) -> HybridTwinError:
    """The error to raise where no body that was tried gives a record a finite density: a reading that has none in the typical
    body (0 before a dose, under an error in proportion to what is modelled), or that nothing could be solved.
    """
    kernel, data, bound = problem.kernel, problem.data, problem.bound
    with double():
        values = kernel.constrain(jnp.zeros(kernel.size))
        modelled = kernel.modelled(values, data)
        terms = kernel.terms_at(modelled, values, data)
    for name, rows in problem.used.items():
        mean, loglik = (np.asarray(a)[: len(rows)] for a in (modelled[name], terms[name].loglik))
        for at in np.flatnonzero(np.isfinite(mean) & ~np.isfinite(loglik))[:1]:
            seen, i = bound.readings[name], rows[at]
            return ImplausibleValue(
                f"{seen.value[i]:g} {seen.unit} at {seen.time[i]:g} {problem.model.spec.time} has no density where {mean[at]:g} "
                f"is modelled under a {type(problem.model.sensors[name]).__name__} error",
                person=bound.person, row=int(seen.row[i]) or None, column=name,
                remedy="Give the error an additive part, mark the reading as below its limit, or leave it out",
            )  # fmt: skip
    return SolveError(
        f"person {bound.person!r}: no body that was tried has a finite likelihood. Check units and initial estimates with "
        "ht.check."
    )
