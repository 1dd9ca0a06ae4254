"""Maximum of a marginal likelihood over the population: quasi-Newton with all steps of a line search tried side by side.

Gradients are central differences of every person's objective, each with its conditional mode found anew to 1e-9, so they are
the total derivatives (the modes' own movement included) to about seven digits. The outer product of people's gradients is the
first metric (Berndt, Hall, Hall and Hausman 1974) and the middle of the sandwich estimate of the covariance.
"""

from typing import NamedTuple

import numpy as np

from hybridtwin.coordinates import to_coordinate
from hybridtwin.inference.conditional import WIDTH, Marginal
from hybridtwin.inference.kept import Work
from hybridtwin.inference.lost import impossible

_STEPS = np.array([2.0, 1.0, 0.5, 0.25, 0.1, 0.03, 0.008, 0.001])  # WIDTH of them
_FAR = 1.5  # longest step of any coordinate in one round
_NEAR = 1e-7  # predicted gain of the objective at which it has arrived
_PROBE = 1e-2  # of a standard error: step of the differences of a gradient
_BEND = 0.1  # of a standard error: step of the second differences
_FLAT = 1e-3  # curvature of a coordinate below which it is told as not determined
_STILL = 1e-2  # gradient of a coordinate of no curvature below which the search lets it rest: it would follow rounding for ever
_ZERO = 1e-3  # an sd this much of its start is told as zero
_NOWHERE = Work(None)


class Estimate(NamedTuple):
    """Where the search ended: p coordinates, P people."""

    u: np.ndarray  # (p,)
    objective: float  # -2 log marginal likelihood without N log(2 pi)
    each: np.ndarray  # (P,)
    slopes: np.ndarray  # (p, P)
    hessian: np.ndarray  # (p, p) of the objective
    free: np.ndarray  # (p,) False where a coordinate rests on an edge (a spread of zero) or nothing depends on it
    low: np.ndarray  # (p,) the edges
    rounds: int
    left: float  # predicted gain of one more step
    start: float  # objective at the start

    def covariance(self):
        """Covariance (p, p) of the estimates from the curvature alone, NaN where nothing is known."""
        return self._spread(np.eye(len(self.u)), plain=True)

    def sandwich(self):
        """Robust covariance (p, p): curvature inverse, outer product of people's gradients, curvature inverse."""
        return self._spread(self.slopes @ self.slopes.T / 4, plain=False)

    def _spread(self, middle, plain):
        found = np.full((len(self.u), len(self.u)), np.nan)
        at = np.flatnonzero(self.free)
        half = self.hessian[np.ix_(at, at)] / 2
        if not len(at) or not np.isfinite(half).all() or np.linalg.eigvalsh(half).min() <= 0:
            return found
        inverse = np.linalg.inv(half)
        found[np.ix_(at, at)] = inverse if plain else inverse @ middle[np.ix_(at, at)] @ inverse
        return found


class _At(NamedTuple):
    """Where a search stands."""

    u: np.ndarray
    each: np.ndarray
    slopes: np.ndarray
    metric: np.ndarray
    numbers: np.ndarray  # rounds taken, objective at the start
    warm: list  # from where everybody's mode is searched


def maximize(marginal: Marginal, report, rounds: int = 100, start=None, near: float = _NEAR, work=_NOWHERE) -> Estimate:
    """Search from `start` (p,), by default the pool's. report(done, total) is called each round, may raise KeyboardInterrupt.

    `near`: predicted gain of the objective at which it has arrived. `work`: where each round is kept.
    """
    u, left = np.array(marginal.pool.start if start is None else start), np.nan
    rounds = rounds if len(u) else 0  # of a population that is known there is nothing to search for
    low, nothing = _edges(marginal.pool, marginal.pool.start), np.zeros(0)
    kept = work.load(_At(u, nothing, nothing, nothing, nothing, marginal.warm))
    if kept is None:
        marginal.settle(u)
        each = marginal.each(u)[0]
        _check_possible(marginal, each)
        slopes = marginal.slopes(u, np.full(len(u), 1e-3))
        kept = _At(u, each, slopes, _outer(slopes), np.array([0.0, each.sum()]), marginal.warm)
    u, each, slopes, metric, (done, began), marginal.warm = kept
    taken = int(done)
    while taken < rounds:
        work.save(_At(u, each, slopes, metric, np.array([taken, began]), marginal.warm))
        gradient = slopes.sum(axis=1)
        free = ~((u <= low + 1e-9) & (gradient > 0)) & ~_resting(slopes)
        step = _newton(metric, gradient, free)
        left = float(-gradient @ step) / 2
        if left < near and taken:
            break
        report(min(taken, 40), 60)
        taken += 1
        tries = np.maximum(u + _STEPS[:, None] * step * min(1.0, _FAR / max(np.abs(step).max(), 1e-30)), low)
        found = marginal.each(tries[:WIDTH])
        totals = np.where(np.isfinite(found).all(axis=1), found.sum(axis=1), np.inf)
        best = int(np.argmin(totals))
        if not totals[best] < each.sum():
            if left < 1e-5 or metric is slopes:
                break
            fresh = _outer(slopes)
            if np.allclose(fresh, metric):
                break
            metric = fresh
            continue
        moved = tries[best] - u
        u, each = tries[best], found[best]
        marginal.adopt(best)
        scale = np.clip(_PROBE / np.sqrt(np.maximum(np.diag(metric) / 2, 1e-12)), 1e-5, 1e-2)
        new = marginal.slopes(u, scale)
        metric = _updated(metric, moved, (new - slopes).sum(axis=1))
        slopes = new
    return _finished(marginal, u, low, slopes, (taken, rounds, float(began), near), report)


def _check_possible(marginal, each):
    """**Raises:** ImplausibleValue, SolveError for a person whose objective (P,) is no number where the search begins."""
    if np.isfinite(each).all():
        return
    for group in marginal.groups:
        for problem, place in zip(group.problems, group.rows, strict=True):
            if not np.isfinite(each[place]):
                raise impossible(problem)


def _finished(marginal, u, low, slopes, story, report) -> Estimate:
    """Exact curvature, and the Newton steps that it allows."""
    taken, rounds, began, near = story
    scale = _errors(_outer(slopes))
    hessian = _curvature(marginal, u, scale, report)
    for _ in range(4 if rounds else 0):
        free = ~((u <= low + 1e-9) & (slopes.sum(axis=1) > 0)) & ~_resting(slopes)
        step = _newton(hessian, slopes.sum(axis=1), free)
        wild, small = not np.isfinite(step).all() or np.abs(step).max() > 0.5, np.abs(step / scale).max() < 1e-5
        if wild or small or (near > _NEAR and -slopes.sum(axis=1) @ step / 2 < near):
            break
        before, after = marginal.each(np.stack([u, np.maximum(u + step, low)])).sum(axis=1)
        if not after <= before + 1e-9 * abs(before):
            break
        u = np.maximum(u + step, low)
        marginal.settle(u)
        slopes = marginal.slopes(u, np.clip(_PROBE * scale, 1e-5, 1e-2))
    free = (u > low + 1e-9) & (np.diag(hessian) > _FLAT)
    step = _newton(hessian, slopes.sum(axis=1), free)
    marginal.settle(u)
    each = marginal.each(u)[0]
    left = float(max(-slopes.sum(axis=1) @ step / 2, 0.0))
    return Estimate(u, float(each.sum()), each, slopes, hessian, free, low, taken, left, began)


def _edges(pool, u):
    """Lowest coordinates (p,): a between-person or within-person sd does not fall below a thousandth of its start."""
    low, values = np.full(len(u), -np.inf), pool.values(u)
    for site in pool.sites:
        if site.kind in ("omega", "spread"):
            low[pool.place(site.name)] = float(to_coordinate(site.prior, _ZERO * values[site.name]))
    return low


def _resting(slopes):
    """Coordinates (p,) of which nobody's readings say anything where the search stands."""
    return (np.sum(slopes**2, axis=1) / 2 < _FLAT) & (np.abs(slopes.sum(axis=1)) < _STILL)


def _outer(slopes):
    """Curvature of the objective expected from people's gradients (p, P), with a little of the identity."""
    return slopes @ slopes.T / 2 + 1e-4 * np.eye(len(slopes))


def _errors(curvature):
    """Rough standard errors (p,) of coordinates one by one."""
    return np.clip(1 / np.sqrt(np.maximum(np.diag(curvature) / 2, 1e-12)), 1e-4, 1.0)


def _newton(metric, gradient, free):
    """Step (p,) down the objective; directions that bend the wrong way are turned, flat ones shortened."""
    step = np.zeros(len(gradient))
    at = np.flatnonzero(free)
    if len(at):
        values, vectors = np.linalg.eigh(metric[np.ix_(at, at)])
        values = np.maximum(np.abs(values), 1e-6 * np.abs(values).max() + 1e-12)
        step[at] = -vectors @ ((vectors.T @ gradient[at]) / values)
    return step


def _updated(metric, moved, turned):
    """BFGS, damped (Powell) so that the metric stays positive."""
    pushed = metric @ moved
    along, bend = moved @ turned, moved @ pushed
    if bend <= 0:
        return metric
    share = 1.0 if along >= 0.2 * bend else 0.8 * bend / (bend - along)
    turned = share * turned + (1 - share) * pushed
    return metric - np.outer(pushed, pushed) / bend + np.outer(turned, turned) / (moved @ turned)


def _curvature(marginal, u, scale, report):
    """Second differences (p, p) of the objective, with steps of a tenth of a standard error."""
    p, h = len(u), _BEND * scale
    pairs = [(i, j) for i in range(p) for j in range(i)]
    moves = np.diag(h)
    points = [np.zeros((1, p)), moves, -moves]
    points += [np.stack([moves[i] + moves[j], -moves[i] - moves[j]]) for i, j in pairs]
    points, totals = np.concatenate(points), []
    for i in range(0, len(points), WIDTH):
        totals.append(marginal.each(u + points[i : i + WIDTH]).sum(axis=1))
        report(40 + int(20 * i / len(points)), 60)
    f = np.concatenate(totals)
    middle, up, down = f[0], f[1 : 1 + p], f[1 + p : 1 + 2 * p]
    hessian = np.diag((up - 2 * middle + down) / h**2)
    for k, (i, j) in enumerate(pairs):
        both = f[1 + 2 * p + 2 * k] + f[2 + 2 * p + 2 * k]
        mixed = (both - up[i] - up[j] - down[i] - down[j] + 2 * middle) / (2 * h[i] * h[j])
        hessian[i, j] = hessian[j, i] = mixed
    return hessian
