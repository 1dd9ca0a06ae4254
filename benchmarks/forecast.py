"""Forecasts on real people with type 1 diabetes, beside persistence and an ARX model that is given the same inputs.

Shanghai (12 recordings) and D1NAMO (4 people): each is personalized on the first days (up to three, or 60 % of a short
recording, ending at 04:00 local time), then the glucose of the following day is forecast from an origin every 30 minutes,
60 and 120 minutes ahead, in two tracks:

known      doses and meals up to the origin only; after it nothing happens, and the pump's rate of the origin goes on
announced  the meals and insulin of the horizon are known too, the carbohydrates of a meal by what was written about it

Carbohydrates are latent: those of the training days have posterior draws, those of the test day draws from their prior.
A forecast is every posterior draw simulated from the end of the training days on, through the inputs of its track, and
corrected by the readings of the test day up to the origin and by nothing else. The correction is Gaussian conditioning on
those readings (`condition`): draws and error are jointly Gaussian to first order, and the covariance of the draws comes
from the draws. So a reading moves the error, which decays, and whatever the draws disagree about: parameters, the state of
that night, how much was in the last meal. The error is taken in two ways:

twin             the sensor's own, an Ornstein-Uhlenbeck process (`CGM.covariance`), as inferred with the parameters
twin + momentum  a process with momentum, fitted to what the twin missed on the training days (`Momentum`)

    python benchmarks/forecast.py [--method laplace|nuts] [--people N] [--temper 3] [--json out.json]
"""

import argparse
import dataclasses
import functools
import itertools
import json
import time
import zlib
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import minimize

import hybridtwin as ht
from hybridtwin.engine import double
from hybridtwin.interventions import World
from hybridtwin.kernel import Data, Kernel
from hybridtwin.physiology import T1DMinimal, T1DTwoPool
from hybridtwin.sensors import Seen
from hybridtwin.signals import Regimen, Signal
from hybridtwin.simulate.layout import bucket, pad
from hybridtwin.simulate.mesh import lay, layout_of
from hybridtwin.simulate.rules import LAST
from hybridtwin.simulate.run import TILE, stack
from hybridtwin.simulate.solve import observer, states
from hybridtwin.simulate.steppers import RK4

HORIZONS = (60.0, 120.0)  # min
EVERY = 30.0  # min between origins
GRID = 15.0  # min: readings closer together are left out, for everybody alike
WARM = 60.0  # min of the test day before the first origin
WINDOW = 6 * 60.0  # min of readings before the origin that correct a forecast
NEAR = 8.0  # min: a reading this near to origin + horizon is the one that is forecast
DRAWS = 256  # of each structure
TRACKS = ("known", "announced")
_WORLDS = 8  # worlds in one compiled call, so that one program serves everybody


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """One person's training days and test day. Times are minutes on the record's clock; N readings of the test day."""

    person: ht.Person
    train: ht.Person
    day: ht.Person
    cut: float
    time: np.ndarray  # (N,)
    value: np.ndarray  # (N,) mg/dL, the limit where censored
    origins: np.ndarray  # (O,) index of the reading at each origin
    targets: np.ndarray  # (O, 2) index of the readings that are forecast


def readings(person):
    """Times and values of the sensor's readings, at least GRID apart."""
    series, kept, last = person.series["cgm"], [], -np.inf
    for k, t in enumerate(series.time):
        if t - last >= GRID - 0.5:
            kept.append(k)
            last = t
    return series.time[kept], series.value[kept]


def split(person, days=3.0) -> Case:
    """Cut a record at the 04:00 nearest to `days`, or to 60 % of a shorter record; the test day is the 24 h after it."""
    clock = person.clock
    nights = np.array([m + 240.0 for m in clock.midnights])
    nights = nights[(nights > clock.start + 1440.0) & (nights < clock.stop - 480.0)]
    aim = clock.start + min(days * 1440.0, 0.6 * (clock.stop - clock.start))
    cut = float(nights[np.argmin(np.abs(nights - aim))])
    stop = min(cut + 1440.0, clock.stop)
    train, day = person.between(stop=cut), person.between(cut, stop)
    t, y = readings(day)
    origins, targets = [], []
    for wanted in np.arange(cut + WARM, stop - HORIZONS[-1] + NEAR, EVERY):
        k = int(np.searchsorted(t, wanted - 1e-6))
        if k >= len(t) or t[k] >= wanted + EVERY or k in origins:
            continue
        ahead = [int(np.argmin(np.abs(t - t[k] - h))) for h in HORIZONS]
        if all(abs(t[a] - t[k] - h) <= NEAR for a, h in zip(ahead, HORIZONS, strict=True)):
            origins.append(k)
            targets.append(ahead)
    return Case(person, train, day, cut, t, y, np.array(origins), np.array(targets))


# ---------------------------------------------------------------------------------------------- the twin's paths


@dataclasses.dataclass(frozen=True, eq=False)
class Job:
    """What is to be simulated for one person: worlds, where they are read, and the draws."""

    worlds: list[World]
    reads: np.ndarray
    latent: tuple
    values: dict[str, np.ndarray]
    factors: np.ndarray  # (DRAWS, len(latent)) standard normals of the latent amounts
    x0: dict[str, np.ndarray] | None = None


def known_at(world: World, origin: float) -> World:
    """The world as it is known at the origin: later doses left out, signals held at their present value."""
    inputs: dict[str, Any] = {}
    for name, course in world.inputs.items():
        if isinstance(course, Regimen):
            inputs[name] = dataclasses.replace(course, doses=tuple(d for d in course.doses if d.time <= origin))
        else:
            t, value, _ = course.pieces()
            keep = max(1, int(np.sum(t <= origin)))
            inputs[name] = Signal.steps(t[:keep], value[:keep], course.unit)
    return dataclasses.replace(world, inputs=inputs)


def worlds_of(lived: World, origins):
    """The lived world, then the distinct worlds known at the origins; and which of them each origin has (O,)."""
    worlds, index, known = [lived], [], {}
    for origin in origins:
        told = tuple(
            sum(d.time <= origin for d in c.doses) if isinstance(c, Regimen) else int(np.sum(c.knots <= origin))
            for c in lived.inputs.values()
        )
        if told not in known:
            known[told] = len(worlds)
            worlds.append(known_at(lived, origin))
        index.append(known[told])
    return worlds, np.array(index)


@dataclasses.dataclass(frozen=True, eq=False)
class Paths:
    """One structure on one case: the modelled test day, and what the model missed on the training days."""

    model: ht.Model
    values: dict[str, np.ndarray]
    glucose: np.ndarray  # (W, DRAWS, N) interstitial glucose; world 0 is the lived one
    known: np.ndarray  # (O,) world known at each origin
    past: np.ndarray  # (T,) times of the training readings
    missed: np.ndarray  # (T,) reading less the mean of the draws
    usual: float  # mean of the training readings: the level at which an error of the sensor's gain is weighed


@functools.lru_cache(maxsize=32)
def _program(kernel: Kernel, names, given_start: bool):
    def lane(draw, overrides, data):
        values = draw["values"]
        system, extras = kernel.system_of(values), kernel.extras(values, data, overrides)
        x0 = kernel.model.spec.state(draw["x0"]) if given_start else kernel.start_state(system, data.mesh, extras)
        path, _ = states(system, kernel.layout, kernel.stepper, data.mesh, x0, extras, observer(names))
        return path[data.mesh.read]

    def every(draws, worlds):
        by_world = jnp.zeros((worlds.amount_sd.shape[0], draws["some"].shape[0], 0))
        return jax.vmap(jax.vmap(lane, (0, 0, None)), (None, 0, 0))(draws, by_world, worlds)

    return jax.jit(every)


def _solved(program, lanes, worlds):
    """Every draw in every world, (W, DRAWS, N, M), with two and four steps a segment; NaN where that moves glucose by 1 %.

    Glucose is the first of the M names.
    """
    parts = []
    for i in range(0, DRAWS, TILE):
        tile = jax.tree.map(lambda a, i=i: jnp.asarray(a[i : i + TILE]), lanes)
        coarse, fine = (np.array(program(RK4(n))(tile, worlds)) for n in (2, 4))
        with np.errstate(invalid="ignore", over="ignore"):
            miss = np.abs(fine - coarse)[..., 0].max(axis=2)
            same = (miss <= 0.01 * np.abs(fine[..., 0]).max(axis=2)).all(axis=0) & np.isfinite(fine).all(axis=(0, 2, 3))
        parts.append(np.where(same[None, :, None, None], fine, np.nan))
    return np.concatenate(parts, axis=1)


def solve_jobs(model, jobs, names):
    """Simulate every job on meshes of one shape: a list of (W, DRAWS, N, len(names)); failed draws are NaN."""
    spec, latents = model.spec, max(len(job.latent) for job in jobs)
    layout = layout_of([w for job in jobs for w in job.worlds], spec, latents=latents)
    kernel = Kernel(model, layout, RK4(2), (), latents, 0)
    laid = [lay(j.worlds, spec, layout, [(float(t), LAST) for t in j.reads], max_step=5.0) for j in jobs]
    width, count = bucket(max(len(m[0].t) for m in laid)), max(len(j.reads) for j in jobs)
    found = []
    for job, meshes in zip(jobs, laid, strict=True):
        sd = np.array([e.amount_sd for e in job.latent] + [0.0] * (latents - len(job.latent)))
        at = np.where(sd > 0, np.arange(latents), -1).astype(np.int32)
        none = np.full(latents, -1, np.int32)
        datas = [Data(pad(m, width, count, 0), {}, {}, sd, at, np.zeros(latents), none) for m in meshes]
        values = {site.name: job.values[site.name] for site in kernel.sites if site.kind != "amount"}
        if latents:
            spare = np.zeros((DRAWS, latents - job.factors.shape[1]))
            values["amounts"] = np.concatenate([job.factors, spare], axis=1)
            values["amounts"] = values["amounts"] if latents > 1 else values["amounts"][:, 0]
        lanes = {"values": values, "some": np.zeros(DRAWS)} | ({"x0": job.x0} if job.x0 is not None else {})

        def program(stepper, given=job.x0 is not None):
            return _program(dataclasses.replace(kernel, stepper=stepper), names, given)

        parts, size = [], 1 if all(len(j.worlds) == 1 for j in jobs) else _WORLDS
        for i in range(0, len(datas), size):
            group = datas[i : i + size]
            full = group + [group[0]] * (size - len(group))
            parts.append(_solved(program, lanes, stack(full))[: len(group)])
        found.append(np.concatenate(parts)[:, :, : len(job.reads)])
    return found


def _of_events(case, latent, bound, key):
    """Standard normals for the amounts of the test day, keyed by the event's own time (DRAWS, E): no event moves another's."""
    who = zlib.crc32(str(case.person.id).encode())
    columns = []
    for event in latent:
        dose = bound.inputs[event.input].doses[event.index]
        seed = [key, who, round(dose.time * 60), zlib.crc32(event.input.encode())]
        columns.append(np.random.default_rng(seed).standard_normal(DRAWS))
    return np.stack(columns, axis=1) if columns else np.zeros((DRAWS, 0))


def paths_of(which, cases, twins, key=0):
    """`Paths` of one structure for every case."""
    model = twins[0].fits[which].model
    nights, days, known, past = [], [], [], []
    for case, twin in zip(cases, twins, strict=True):
        fit = twin.fits[which]
        index = np.linspace(0, fit.count - 1, DRAWS).round().astype(int)
        values = {name: np.asarray(v)[index] for name, v in fit.values.items()}
        bound = twin.days[which].bound
        amounts = values.pop("amounts", np.zeros((DRAWS, 0))).reshape(DRAWS, -1)[:, : len(bound.latent)]
        past.append(readings(case.train))
        nights.append(Job([twin.world(which)], np.append(past[-1][0], case.cut), bound.latent, values, amounts))
        ahead = twin.on(case.day).days[which]
        worlds, index = worlds_of(ahead.world, case.time[case.origins])
        factors = _of_events(case, ahead.bound.latent, ahead.bound, key)
        days.append(Job(worlds, case.time, ahead.bound.latent, values, factors))
        known.append(index)
    with double():
        names = (model.sensors["cgm"].of, *model.spec.states)
        nights = solve_jobs(model, nights, names)
        for i, night in enumerate(nights):
            days[i] = dataclasses.replace(days[i], x0={path: night[0, :, -1, 1 + k] for k, path in enumerate(names[1:])})
        paths = solve_jobs(model, days, names[:1])
    found = []
    for p, index, job, night, (t, y) in zip(paths, known, days, nights, past, strict=True):
        missed = y - np.nanmean(night[0, :, : len(t), 0], axis=0)
        found.append(Paths(model, job.values, p[..., 0], index, t, missed, float(y.mean())))
    return found


# --------------------------------------------------------------------------------------------------- forecasts


def sensor_error(paths, case, mean):
    """Covariance (N, N) of the sensor's error at the readings of the test day, averaged over the draws."""
    sensor, n = paths.model.sensors["cgm"], len(case.time)
    names = list(sensor.priors())
    with double():
        seen = Seen(jnp.zeros(n), jnp.asarray(case.time), jnp.ones(n, bool), jnp.zeros(n, int), jnp.zeros(n, int))

        def one(v):
            return sensor.with_values(v).covariance(jnp.asarray(mean), seen)

        return np.array(jax.jit(jax.vmap(one))({n: jnp.asarray(paths.values[f"cgm.{n}"]) for n in names}).mean(axis=0))


@dataclasses.dataclass(frozen=True)
class Momentum:
    """An error with momentum: a second-order process of times `slow` and `fast` (min), sd (mg/dL), and white noise."""

    sd: float
    slow: float
    fast: float
    white: float

    def covariance(self, time):
        """(N, N) at times (N,); with fast = 0 it is that of an Ornstein-Uhlenbeck process."""
        apart = np.abs(time[:, None] - time[None, :])
        slow, fast = self.slow, min(self.fast, 0.99 * self.slow)
        shared = (slow * np.exp(-apart / slow) - fast * np.exp(-apart / fast)) / (slow - fast)
        return self.sd**2 * shared + self.white**2 * np.eye(len(time))

    @classmethod
    def fitted(cls, time, missed):
        """The most probable one for what was missed (T,), under wide log-normal priors."""
        middle, spread = np.log([20.0, 80.0, 20.0, 2.0]), np.array([1.0, 1.0, 1.0, 0.5])

        def cost(z):
            own = cls(*np.exp(middle + spread * z)).covariance(time)
            factor = np.linalg.cholesky(own + 1e-6 * np.eye(len(time)))
            return 0.5 * np.sum(np.linalg.solve(factor, missed) ** 2) + np.sum(np.log(np.diag(factor))) + 0.5 * z @ z

        found = minimize(cost, np.zeros(4), method="L-BFGS-B", bounds=[(-4.0, 4.0)] * 4)
        return cls(*(float(v) for v in np.exp(middle + spread * found.x)))


def condition(path, error, value, seen, ahead, noise):
    """Draws and mean of the readings `ahead`, given those `seen`.

    path (L, N): modelled values of L draws; error (N, N): covariance of the error; value (N,): readings, of which
    only `seen` are looked at; noise (L, n) standard normals. Matheron's rule: every draw keeps its own path and is moved
    by what it missed.
    """
    both = np.concatenate([seen, ahead])
    part, own = path[:, both], error[np.ix_(both, both)]
    slip = noise[:, : len(both)] @ np.linalg.cholesky(own + 1e-6 * np.eye(len(both))).T
    off = part - part.mean(axis=0)
    covariance = off.T @ off / (len(part) - 1) + own
    s = len(seen)
    gain = np.linalg.solve(covariance[:s, :s], covariance[:s, s:]).T
    draws = part[:, s:] + slip[:, s:] + (value[seen] - part[:, :s] - slip[:, :s]) @ gain.T
    return draws, part[:, s:].mean(axis=0) + gain @ (value[seen] - part[:, :s].mean(axis=0))


def twin_forecasts(case, found, key=0, window=WINDOW):
    """(model, track) -> (mean, low, high), each (O, 2), of the structures pooled with equal weight."""
    noise = np.random.default_rng([key, 1]).standard_normal((DRAWS, 3 + int(window / GRID) + len(HORIZONS)))
    prepared = {"twin": [], "twin + momentum": []}
    for paths in found:
        good = np.isfinite(paths.glucose).all(axis=(0, 2))
        momentum = Momentum.fitted(paths.past, paths.missed)
        errors = sensor_error(paths, case, np.full(len(case.time), paths.usual)), momentum.covariance(case.time)
        for parts, error in zip(prepared.values(), errors, strict=True):
            parts.append((paths, good, error))
    answers = {}
    for name, track in itertools.product(prepared, TRACKS):
        rows = []
        for o, (k, ahead) in enumerate(zip(case.origins, case.targets, strict=True)):
            seen = np.flatnonzero((case.time > case.time[k] - window) & (np.arange(len(case.time)) <= k))
            told = []
            for paths, good, error in prepared[name]:
                own = paths.glucose[0 if track == "announced" else paths.known[o], good]
                told.append(condition(own, error, case.value, seen, ahead, noise[good]))
            low, high = np.quantile(np.concatenate([draws for draws, _ in told]), [0.05, 0.95], axis=0)
            rows.append([np.mean([mean for _, mean in told], axis=0), low, high])
        answers[name, track] = tuple(np.array(rows).transpose(1, 0, 2))
    return answers


# --------------------------------------------------------------------------------------------------- rivals


def features(inputs, t, y, origin, horizon, announced):
    """What ARX is told at an origin: glucose lags, insulin and carbohydrate of half hours, and later ones if announced."""
    past = (t <= origin + 1e-9) & (t >= origin - 120.0)
    lags = np.interp(origin - np.arange(0, 90, GRID), t[past], y[past])
    last = horizon if announced else 0.0
    told = [lags[:1], -np.diff(lags)]
    for name, hours in (("bolus", 5), ("meal", 4)):
        times = np.array([d.time for d in inputs[name].doses])
        amounts = np.array([d.amount for d in inputs[name].doses], float)  # the prior's median where it is latent
        edges = np.arange(-60.0 * hours, last + 1.0, 30.0) + 1e-6  # a dose at the origin is known there
        told.append(np.histogram(times - origin, bins=edges, weights=amounts)[0])
    spans = np.arange(-240.0, last + 1.0, 60.0) + origin
    told.append([inputs["basal"].integral(a, b) / 60.0 for a, b in itertools.pairwise(spans)])
    slow = [d for d in inputs["long_acting"].doses if d.time <= origin]
    told.append([sum(d.amount * np.exp(-0.0009 * (origin - d.time)) for d in slow)])
    return np.concatenate(told)


def ridge(x, y, weight):
    """Coefficients and intercept on standardized columns."""
    middle, scale = x.mean(axis=0), x.std(axis=0)
    scale = np.where(scale > 1e-9, scale, 1.0)
    z = (x - middle) / scale
    slope = np.linalg.solve(z.T @ z + weight * np.eye(z.shape[1]), z.T @ (y - y.mean())) / scale
    return slope, y.mean() - middle @ slope


def arx(case, horizon, announced):
    """Direct ARX forecasts: ridge regression of the change of glucose on `features`, fitted on the training days alone.

    The weight of the ridge is chosen by the error on five left-out blocks of the training days; so is the width of the
    90 % interval. Returns (mean, low, high), each (O,).
    """
    t, y = readings(case.train)
    before, whole = (p.bind(T1DMinimal().spec).inputs for p in (case.train, case.person))
    rows, change = [], []
    for k in range(6, len(t)):
        a = int(np.argmin(np.abs(t - t[k] - horizon)))
        if abs(t[a] - t[k] - horizon) <= NEAR and np.sum((t <= t[k]) & (t >= t[k] - 90.0)) >= 5:
            rows.append(features(before, t, y, t[k], horizon, announced))
            change.append(y[a] - y[k])
    x, d = np.array(rows), np.array(change)
    blocks = np.array_split(np.arange(len(d)), 5)
    best = None
    for weight in (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0):
        misses = np.zeros(len(d))
        for block in blocks:
            rest = np.setdiff1d(np.arange(len(d)), np.arange(block[0] - 8, block[-1] + 9))
            slope, level = ridge(x[rest], d[rest], weight)
            misses[block] = d[block] - x[block] @ slope - level
        if best is None or np.mean(misses**2) < np.mean(best[1] ** 2):
            best = weight, misses
    slope, level = ridge(x, d, best[0])
    around = np.concatenate([t, case.time]), np.concatenate([y, case.value])
    told = np.array([features(whole, *around, case.time[k], horizon, announced) for k in case.origins])
    mean = case.value[case.origins] + told @ slope + level
    low, high = np.quantile(best[1], [0.05, 0.95])
    return mean, mean + low, mean + high


def answers_of(case, found, key=0, window=WINDOW):
    """(model, track) -> (mean, low, high), each (O, 2); persistence has no interval."""
    answers = twin_forecasts(case, found, key, window)
    for track in TRACKS:
        per = [arx(case, h, track == "announced") for h in HORIZONS]
        answers["ARX", track] = tuple(np.stack(part, axis=1) for part in zip(*per, strict=True))
    now = np.repeat(case.value[case.origins][:, None], len(HORIZONS), axis=1)
    answers["persistence", ""] = (now, np.full(now.shape, np.nan), np.full(now.shape, np.nan))
    return answers


def score(case, answers):
    """(model, track) -> rmse (2,), coverage (2,), width (2,) over the origins of one person."""
    truth = case.value[case.targets]
    found = {}
    for name, (mean, low, high) in answers.items():
        inside = np.where(np.isfinite(low), (truth >= low) & (truth <= high), np.nan)
        found[name] = {"rmse": np.sqrt(np.mean((mean - truth) ** 2, axis=0)), "coverage": 100 * inside.mean(axis=0),
                       "width": (high - low).mean(axis=0)}
    return found


def models_of(**options):
    """The two structures of type 1 diabetes, with a free start."""
    sensor = ht.sensors.CGM("G_isf", **options)
    return [ht.Model(system, cgm=sensor) for system in (T1DMinimal(), T1DTwoPool())]


def personalized(cases, models, method, temper, key=0, progress=True):
    """A twin a case. One by one: with meals of their own no two records have one shape, so a cohort shares nothing."""
    return [ht.personalize(models, c.train, method, key=key, temper=temper, progress=progress) for c in cases]


def people():
    """The sixteen recordings; ids of D1NAMO get its name."""
    swiss = [dataclasses.replace(p, id=f"d1namo-{p.id}") for p in ht.datasets.d1namo().values()]
    return [*swiss, *ht.datasets.shanghai_t1d().values()]


def table(cases, scores, verdicts):
    """Lines of the printed table."""
    names = [(m, t) for m in ("twin", "twin + momentum", "ARX") for t in TRACKS] + [("persistence", "")]
    lines = ["RMSE mg/dL at 60 / 120 min; coverage of 90 % intervals in brackets",
             f"{'':<12} {'origins':>7}  " + "  ".join(f"{(m + ' ' + t).strip():<27}" for m, t in names) + "verdict"]
    for case, own in zip(cases, scores, strict=True):
        cells = []
        for name in names:
            (a, b), (ca, cb) = own[name]["rmse"], own[name]["coverage"]
            cells.append(f"{a:5.1f} / {b:5.1f} ({ca:3.0f}, {cb:3.0f})" if np.isfinite(ca) else f"{a:5.1f} / {b:5.1f}")
        lines.append(f"{case.person.id:<12} {len(case.origins):>7}  " + "  ".join(f"{c:<27}" for c in cells)
                     + verdicts[case.person.id])
    return lines


def pooled(cases, scores):
    """(model, track) -> figures over the origins of all people together."""
    weight = np.array([len(c.origins) for c in cases], float)
    weight /= weight.sum()
    found = {}
    for name in scores[0]:
        mse = sum(w * s[name]["rmse"] ** 2 for w, s in zip(weight, scores, strict=True))
        found[name] = {"rmse": np.sqrt(mse)}
        for part in ("coverage", "width"):
            found[name][part] = sum(w * s[name][part] for w, s in zip(weight, scores, strict=True))
    return found


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", default="laplace", choices=["nuts", "laplace"])
    parser.add_argument("--people", type=int, help="only the first N recordings (D1NAMO first)")
    parser.add_argument("--temper", type=float, default=3.0)
    parser.add_argument("--days", type=float, default=3.0, help="training days")
    parser.add_argument("--key", type=int, default=0)
    parser.add_argument("--json")
    given = parser.parse_args()
    method = ht.NUTS(draws=200, warmup=150) if given.method == "nuts" else ht.Laplace(starts=4)
    cases, models = [split(p, given.days) for p in people()[: given.people]], models_of()
    started = time.monotonic()
    twins = personalized(cases, models, method, given.temper, given.key)
    fitted = time.monotonic() - started
    found = [paths_of(i, cases, twins, given.key) for i in range(len(models))]
    each = zip(cases, zip(*found, strict=True), strict=True)
    scores = [score(case, answers_of(case, own, given.key)) for case, own in each]
    seconds = time.monotonic() - started
    verdicts = {c.person.id: t.verdict.headline for c, t in zip(cases, twins, strict=True)}
    print("\n".join(table(cases, scores, verdicts)))
    together = pooled(cases, scores)
    print("\nall origins together        RMSE 60  RMSE 120   cover 60  cover 120   width 60  width 120")
    for (model, track), s in together.items():
        cells = [*s["rmse"], *s["coverage"], *s["width"]]
        print(f"{(model + ' ' + track).strip():<26}" + "".join(f"{c:10.1f}" if np.isfinite(c) else f"{'':>10}" for c in cells))
    origins = sum(len(c.origins) for c in cases)
    print(f"{len(cases)} recordings, {origins} origins, {type(method).__name__}, temper {given.temper:g}; personalized in "
          f"{fitted:.0f} s, all in {seconds:.0f} s")
    if given.json:
        def plain(rows):
            return {f"{m} {t}".strip(): {k: [float(x) for x in v] for k, v in s.items()} for (m, t), s in rows.items()}

        Path(given.json).write_text(json.dumps({"together": plain(together), "people": {c.person.id: plain(s) for c, s in
                                    zip(cases, scores, strict=True)}, "verdicts": verdicts, "seconds": seconds}, indent=1))


if __name__ == "__main__":
    main()
