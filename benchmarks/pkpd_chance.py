"""How many of theophylline's later samples should lie inside the bands, were the model that is learned from the others true?

`pkpd.py` learns population and error from eleven people (`FOCEI`) and predicts the last five samples of the twelfth from the
first six, twelve times. Chance of that *whole* procedure: twelve people are simulated from the model fitted to the real twelve,
on their times and doses, and go through the same twelve rounds. It is done here in NumPy on the closed form, thousands of
people side by side, so it is a second hand for the library's own figures, too. Error models beside the two of `pkpd.py` go
through the same rounds, each with its own chance.

    python benchmarks/pkpd_chance.py [--replicates 200] [--models additive combined ...] [--json out.json]
"""

import argparse
import json
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy.stats

import hybridtwin as ht

LEVELS = (0.5, 0.9, 0.95)
BODY = ("ka", "CL", "V")
START = {"ka": (0.464, 0.6), "CL": (1.01, 0.3), "V": (3.46, 0.2)}  # where searches begin: log mean and spread
LEARNED = 6  # samples of the person who is predicted


class Error(NamedTuple):
    """An error model: standard deviations of its parts, and whether its size differs between people."""

    add: bool = False
    prop: bool = False
    square: bool = False  # variances add (combined2) instead of deviations (combined1)
    varies: bool = False  # log-normal factor between people
    lag: bool = False  # one lag before absorption for all, learned
    early: bool = False  # more by a deviation times the share not yet absorbed: absorption is where the model errs


MODELS = {
    "additive": Error(add=True),
    "combined": Error(add=True, prop=True),
    "combined2": Error(add=True, prop=True, square=True),
    "proportional": Error(prop=True),
    "additive, varies": Error(add=True, varies=True),
    "combined, varies": Error(add=True, prop=True, varies=True),
    "additive, lag": Error(add=True, lag=True),
    "combined, lag": Error(add=True, prop=True, lag=True),
    "absorbing": Error(add=True, early=True),
    "combined, absorbing": Error(add=True, prop=True, early=True),
}


class Data(NamedTuple):
    """People side by side: time and seen (..., N), dose (..., 1), mask (..., N) of samples that are learned from."""

    time: np.ndarray
    seen: np.ndarray
    dose: np.ndarray
    mask: np.ndarray


def names(error: Error):
    """Names of the unknowns of a population, in the order of its coordinates."""
    spread = [f"omega.{n}" for n in BODY] + ["omega.sd"] * error.varies
    return [*BODY, *spread, *["add"] * error.add, *["prop"] * error.prop, *["lag"] * error.lag, *["early"] * error.early]


def begin(error: Error):
    """Coordinates (logarithms) at which every search starts: (p,)."""
    at = {"omega.sd": np.log(0.3), "add": np.log(0.5), "prop": np.log(0.1), "lag": np.log(0.1), "early": np.log(0.5)}
    for name, (mean, spread) in START.items():
        at |= {name: mean, f"omega.{name}": np.log(spread)}
    return np.array([at[n] for n in names(error)])


def concentration(body, time, dose):
    """Concentration (..., N) of bodies (..., 3) = log ka, CL, V, and its slope in them (..., N, 3)."""
    ka, clearance, volume = (np.exp(body[..., i, None]) for i in range(3))
    k = clearance / volume
    apart = np.where(np.abs(ka - k) < 1e-6 * ka, 1e-6 * ka, ka - k)
    fast, slow = np.exp(-ka * time), np.exp(-k * time)
    scale, share = dose / volume, ka / apart
    value = scale * share * (slow - fast)
    bend = ka * k / apart**2
    by_ka = scale * (-bend * (slow - fast) + share * ka * time * fast)
    by_k = scale * (bend * (slow - fast) - share * k * time * slow)
    return value, np.stack([by_ka, by_k, -value - by_k], axis=-1)


def modelled(u, b, data, error: Error):
    """At populations u (..., p) and effects b (..., d): value, log sd (..., N), and their slopes in b (..., N, d)."""
    where = {n: i for i, n in enumerate(names(error))}
    omega = np.exp(u[..., 3 : 3 + b.shape[-1]])
    eta = omega * b
    time = data.time
    if error.lag:
        time = np.maximum(time - np.exp(u[..., where["lag"], None]), 0.0)
    value, slope = concentration(u[..., :3] + eta[..., :3], time, data.dose)
    add = np.exp(u[..., where["add"], None]) if error.add else 0.0
    prop = np.exp(u[..., where["prop"], None]) if error.prop else 0.0
    if error.square:
        sd = np.sqrt(add**2 + (prop * value) ** 2 + 1e-12)
        by_value = prop**2 * value / sd**2
    else:
        sd = add + prop * np.abs(value) + 1e-6  # at the moment of the dose a proportional error would be none
        by_value = prop * np.sign(value) / sd
    value_slope = slope * omega[..., None, :3]
    log_slope = by_value[..., None] * value_slope if error.prop else np.zeros(1)  # none, whatever the shape
    if error.early:
        rate = np.exp(u[..., 0] + eta[..., 0])[..., None] * time
        more = np.exp(u[..., where["early"], None] - rate)
        by_ka = -rate * more * omega[..., None, 0] / (sd + more)
        rest = log_slope * (sd / (sd + more))[..., None]
        log_slope = rest + np.stack([by_ka, 0.0 * by_ka, 0.0 * by_ka], axis=-1)
        sd = sd + more
    log_sd = np.log(sd)
    if error.varies:
        log_sd = log_sd + eta[..., 3, None]
        own = np.broadcast_to(omega[..., None, 3:], (*log_sd.shape, 1))
        value_slope = np.concatenate([value_slope, 0.0 * own], axis=-1)
        log_slope = np.concatenate([np.broadcast_to(log_slope, (*log_sd.shape, 3)), own], axis=-1)
    return value, log_sd, value_slope, log_slope


def around(u, b, data, error: Error):
    """Negative log joint density (...,), its slope (..., d) and expected curvature (..., d, d)."""
    value, log_sd, by, by_log = modelled(u, b, data, error)
    miss = data.mask * (data.seen - value) * np.exp(-log_sd)
    a = (data.mask * np.exp(-log_sd))[..., None] * by
    joint = 0.5 * np.sum(miss**2, -1) + np.sum(data.mask * log_sd, -1) + 0.5 * np.sum(b * b, -1)
    slope = b - np.sum(miss[..., None] * a, -2)
    curvature = np.swapaxes(a, -1, -2) @ a + np.eye(b.shape[-1])
    if error.prop or error.varies or error.early:  # else the error is the same for all effects
        c = data.mask[..., None] * by_log
        slope = slope + np.sum(c * (1.0 - miss[..., None] ** 2), -2)
        curvature = curvature + 2.0 * np.swapaxes(c, -1, -2) @ c
    return joint, slope, curvature


def modes(u, b, data, error: Error, rounds=40, arrived=1e-6):
    """Conditional modes by damped Fisher scoring: b (..., d), joint (...,) and expected curvature (..., d, d) there.

    Whoever has arrived leaves the batch, so that nobody waits for the slowest.
    """
    lead, d = b.shape[:-1], b.shape[-1]
    u, b = np.broadcast_to(u, (*lead, u.shape[-1])).reshape(-1, u.shape[-1]), b.reshape(-1, d).copy()
    data = Data(*(np.broadcast_to(x, (*lead, x.shape[-1])).reshape(-1, x.shape[-1]) for x in data))
    here = [x.copy() for x in around(u, b, data, error)]
    damp, at = np.zeros(len(b)), np.arange(len(b))
    part = u, data
    for _ in range(rounds):
        joint, slope, curvature = (x[at] for x in here)
        diagonal = damp[at, None, None] * curvature * np.eye(d)
        step = -np.linalg.solve(curvature + diagonal, slope[..., None])[..., 0]
        reach = np.abs(step).max(-1)
        trial = b[at] + step * np.minimum(1.0, 1.5 / np.maximum(reach, 1e-30))[:, None]
        there = around(part[0], trial, part[1], error)
        better = there[0] <= joint + 1e-10 * (1.0 + np.abs(joint))
        took = at[better]
        b[took] = trial[better]
        for old, new in zip(here, there, strict=True):
            old[took] = new[better]
        damp[at] = np.where(better, np.where(damp[at] < 1e-3, 0.0, damp[at] * 0.1), np.maximum(damp[at] * 8.0, 1e-2))
        keep = ~((better & (reach < arrived)) | (damp[at] > 1e6))
        if not keep.any():
            break
        if not keep.all():
            at, part = at[keep], (part[0][keep], Data(*(x[keep] for x in part[1])))
    return b.reshape(*lead, d), here[0].reshape(lead), here[2].reshape(*lead, d, d)


def objective(u, b, data, error: Error, arrived=1e-6):
    """FOCEI objective (-2 log marginal likelihood less N log 2 pi) of each person, and the modes."""
    b, joint, curvature = modes(u, b, data, error, arrived=arrived)
    return 2.0 * joint + np.linalg.slogdet(curvature)[1], b


def learn(data, error: Error, start=None, rounds=60):
    """Populations (F, p) that maximize the likelihood of F cohorts side by side; data (F, P, N). BFGS, BHHH at first.

    All cohorts move together; one whose predicted gain is below 1e-4 has arrived and stays.
    """
    count, people = data.seen.shape[:2]
    u = np.tile(begin(error) if start is None else start, (count, 1))
    size, floor = u.shape[1], np.where(np.isin(names(error), BODY), -9.0, -4.6)  # a spread of a hundredth is none
    d = 3 + error.varies
    probe = 1e-2

    def each(at, b, data, arrived=1e-6):
        """at (F, K, p), b (F, P, d) -> objectives (F, K, P), modes (F, K, P, d)."""
        wide = Data(*(x[:, None] for x in data))
        shape = (*at.shape[:2], people)
        return objective(
            np.broadcast_to(at[:, :, None], (*shape, size)), np.broadcast_to(b[:, None], (*shape, d)), wide, error, arrived
        )

    moves = np.concatenate([probe * np.eye(size), -probe * np.eye(size)])

    def slopes(u, b, data):
        found, _ = each(u[:, None] + moves, b, data, 1e-5)
        return (found[:, :size] - found[:, size:]) / (2 * probe)  # (F, p, P)

    found, b = each(u[:, None], np.zeros((count, people, d)), data)
    total, b = found[:, 0].sum(-1), b[:, 0]
    slope = slopes(u, b, data)
    metric = slope @ np.swapaxes(slope, 1, 2) / 2 + 1e-3 * np.eye(size)
    steps = np.array([1.5, 1.0, 0.4, 0.1, 0.02, 0.002])
    open_, left, stuck = np.ones(count, bool), np.full(count, np.inf), np.zeros(count, int)
    for _ in range(rounds):
        now = np.flatnonzero(open_)
        if not len(now):
            break
        part = Data(*(x[now] for x in data))
        gradient = slope[now].sum(-1)
        fixed = (u[now] <= floor + 1e-9) & (gradient > 0)
        gradient = np.where(fixed, 0.0, gradient)
        alone = np.eye(size) * np.diagonal(metric[now], 0, 1, 2)[:, None]
        system = np.where(fixed[:, :, None] | fixed[:, None, :], alone, metric[now])
        step = -np.linalg.solve(system, gradient[..., None])[..., 0]
        left[now] = -0.5 * np.sum(gradient * step, -1)
        step *= np.minimum(1.0, 1.0 / np.maximum(np.abs(step).max(-1, keepdims=True), 1e-30))
        tries = np.maximum(u[now][:, None] + steps[:, None] * step[:, None], floor)
        found, bs = each(tries, b[now], part)
        totals = np.where(np.isfinite(found.sum(-1)), found.sum(-1), np.inf)
        best = totals.argmin(-1)
        row = np.arange(len(now))
        gain = total[now] - totals[row, best]
        better = gain > 0
        moved = np.where(better[:, None], tries[row, best] - u[now], 0.0)
        u[now] += moved
        total[now] = np.where(better, totals[row, best], total[now])
        b[now] = np.where(better[:, None, None], bs[row, best], b[now])
        new = slopes(u[now], b[now], part)
        change = (new - slope[now]).sum(-1)
        curve = np.sum(change * moved, -1)
        old = metric[now]
        pushed = (old @ moved[..., None])[..., 0]
        weight = np.sum(moved * pushed, -1)
        good = better & (curve > 1e-10) & (weight > 0)
        curve, weight = (np.where(good, x, 1.0)[:, None, None] for x in (curve, weight))
        update = old + change[:, :, None] * change[:, None] / curve - pushed[:, :, None] * pushed[:, None] / weight
        fresh = new @ np.swapaxes(new, 1, 2) / 2 + 1e-3 * np.eye(size)
        metric[now] = np.where(good[:, None, None], update, np.where(better[:, None, None], old, fresh))
        slope[now] = new
        stuck[now] = np.where(better, 0, stuck[now] + 1)
        open_[now] = ~((left[now] < 1e-4) | (stuck[now] > 1))
    return u, total, left


def posterior(u, data, error: Error, draws, rng):
    """Draws (..., draws, d) of people's effects given the readings of the mask, and the effective number of the weights.

    Importance draws from a multivariate t (5 degrees) at the mode, a third wider than the curvature says; resampled.
    """
    d = 3 + error.varies
    b, _, curvature = modes(u, np.zeros((*u.shape[:-1], d)), data, error)
    root = 1.3 * np.swapaxes(np.linalg.inv(np.linalg.cholesky(curvature)), -1, -2)
    z = rng.standard_normal((*b.shape[:-1], 4 * draws, d)) * np.sqrt(5.0 / rng.chisquare(5.0, (*b.shape[:-1], 4 * draws, 1)))
    proposed = b[..., None, :] + z @ np.swapaxes(root, -1, -2)
    wide = Data(*(x[..., None, :] for x in data))
    value, log_sd, *_ = modelled(u[..., None, :], proposed, wide, error)
    miss = (wide.seen - value) * np.exp(-log_sd)
    log_joint = -np.sum(wide.mask * (0.5 * miss**2 + log_sd), -1) - 0.5 * np.sum(proposed**2, -1)
    log_weight = log_joint + 0.5 * (5.0 + d) * np.log1p(np.sum(z**2, -1) / 5.0)
    weight = np.exp(log_weight - log_weight.max(-1, keepdims=True))
    weight /= weight.sum(-1, keepdims=True)
    at = (rng.random((*b.shape[:-1], 1)) + np.arange(draws)) / draws
    cumulated = np.cumsum(weight, -1)
    flat = [np.searchsorted(c, a) for c, a in zip(cumulated.reshape(-1, 4 * draws), at.reshape(-1, draws), strict=True)]
    chosen = np.minimum(np.array(flat).reshape(at.shape), 4 * draws - 1)
    return np.take_along_axis(proposed, chosen[..., None], -2), 1.0 / np.sum(weight**2, -1)


def ranks(u, data, error: Error, rng, draws=1000):
    """Where the later samples lie in their predictive distribution: (..., N - LEARNED) in (0, 1), and the smallest ESS."""
    early = data.mask * (np.arange(data.time.shape[-1]) < LEARNED)
    b, effective = posterior(u, data._replace(mask=early), error, draws, rng)
    wide = Data(*(x[..., None, LEARNED:] for x in data._replace(dose=np.broadcast_to(data.dose, data.seen.shape))))
    value, log_sd, *_ = modelled(u[..., None, :], b, wide, error)
    # the mixture's own distribution function: no noise of simulated readings
    return scipy.stats.norm.cdf((wide.seen - value) * np.exp(-log_sd)).mean(-2), effective.min()


def ahead(data, error: Error, rng, start=None):
    """Learn from eleven, predict the twelfth, for R cohorts (R, 12, N): ranks (R, 12, N - LEARNED) and what was learned."""
    count, people = data.seen.shape[:2]
    others = np.array([[j for j in range(people) if j != i] for i in range(people)])
    wide = Data(*(np.broadcast_to(x, (count, *x.shape[-2:]))[:, others].reshape(count * people, people - 1, -1) for x in data))
    u, _, left = learn(wide, error, start)
    u = u.reshape(count, people, -1)
    found, effective = ranks(u, data, error, rng)
    return found, {"u": u, "left": left, "effective": float(effective)}


def theophylline() -> Data:
    """The twelve people, (1, 12, 11)."""
    cohort = ht.datasets.theophylline()
    order = [np.argsort(p.series["C"].time) for p in cohort.values()]
    time, seen = (
        np.array([np.asarray(getattr(p.series["C"], n))[o] for p, o in zip(cohort.values(), order, strict=True)])
        for n in ("time", "value")
    )
    dose = np.array([[next(d for r in p.regimens.values() for d in r.doses).amount] for p in cohort.values()])
    return Data(*(x[None] for x in (time, seen, dose, np.ones_like(seen))))


def simulated(u, real: Data, error: Error, count, rng) -> Data:
    """`count` cohorts on the real times and doses, of the population u (p,)."""
    shape = (count, *real.seen.shape[1:])
    b = rng.standard_normal((*shape[:2], 3 + error.varies))
    time, dose = np.broadcast_to(real.time, shape), np.broadcast_to(real.dose, (*shape[:2], 1))
    at = np.broadcast_to(u, (*shape[:2], len(u)))
    value, log_sd, *_ = modelled(at, b, Data(time, time, dose, time), error)
    return Data(time, value + np.exp(log_sd) * rng.standard_normal(shape), dose, np.ones(shape))


def inside(rank):
    """Samples of each cohort inside the central bands: (R, levels) from ranks (R, 12, 5)."""
    return np.stack([(np.abs(rank - 0.5) <= level / 2).sum((1, 2)) for level in LEVELS], -1)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--replicates", type=int, default=200)
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--json")
    given = parser.parse_args()
    real, result = theophylline(), {}
    for title in given.models:
        began, error, rng = time.time(), MODELS[title], np.random.default_rng(0)
        u, total, _ = learn(real, error)
        found, story = ahead(real, error, rng)
        seen = inside(found)[0]
        copies = simulated(u[0], real, error, given.replicates, rng)
        pairs = [Data(*(x[i : i + 2] for x in copies)) for i in range(0, given.replicates, 2)]  # small enough for a cache
        rounds = [ahead(pair, error, rng, u[0]) for pair in pairs]
        chance = np.concatenate([found for found, _ in rounds])
        copied = {"left": max(s["left"].max() for _, s in rounds), "effective": min(s["effective"] for _, s in rounds)}
        counts = inside(chance)
        low, middle, high = np.quantile(counts, [0.05, 0.5, 0.95], axis=0, method="nearest")
        beyond = [float(np.mean(counts[:, i] >= seen[i])) for i in range(len(LEVELS))]
        told = ", ".join(
            f"{100 * v:g} %: {s} (chance {m:.0f}, {a:.0f} to {b:.0f}; {p:.0%} of replicates as many)"
            for v, s, a, m, b, p in zip(LEVELS, seen, low, middle, high, beyond, strict=True)
        )
        values = ", ".join(f"{n} {np.exp(v):.3g}" for n, v in zip(names(error), u[0], strict=True))
        print(f"{title}: objective {total[0]:.2f}; {told}\n    learned from all: {values}")
        left, effective = max(story["left"].max(), copied["left"]), min(story["effective"], copied["effective"])
        print(f"    {given.replicates} replicates; largest predicted gain left {left:.1e}, smallest effective number "
              f"{effective:.0f}; {time.time() - began:.0f} s", flush=True)  # fmt: skip
        result[title] = {"inside": seen.tolist(), "chance": [low.tolist(), middle.tolist(), high.tolist()], "beyond": beyond,
                         "objective": float(total[0]), "population": dict(zip(names(error), np.exp(u[0]).tolist(), strict=True)),
                         "replicates": given.replicates}  # fmt: skip
    if given.json:
        Path(given.json).write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
