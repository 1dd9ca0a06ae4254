"""Draws of a fit that could not be solved, as rows: at which reading first, and which of their parameters is unusual."""

import math

import numpy as np

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
