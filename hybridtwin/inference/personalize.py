"""Personalize: from a record and a model to posterior draws of this body's parameters."""

import dataclasses
import functools
import os
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import overload

import jax
import jax.numpy as jnp
import numpy as np

from hybridtwin import progress as bars
from hybridtwin.engine import double, prepare
from hybridtwin.errors import DeclarationError, ParameterError
from hybridtwin.fit import Fit
from hybridtwin.inference import kept, modes, verdict
from hybridtwin.inference.kept import Sampled
from hybridtwin.inference.methods import NUTS
from hybridtwin.inference.modes import missed, search
from hybridtwin.inference.sampling import Setting, weights_of
from hybridtwin.model import Kernel, Model, bind, normal_based, to_coordinate
from hybridtwin.records import Cohort, Person
from hybridtwin.simulate.run import TILE, stack
from hybridtwin.simulate.steppers import Repeated
from hybridtwin.twin import Twin, Twins


def as_key(key):
    """A JAX key from an int or a key. **Raises:** ParameterError for anything else: chance needs a key, never a default."""
    if isinstance(key, int | np.integer) and not isinstance(key, bool):
        return jax.random.key(int(key))
    if isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        return key
    raise ParameterError(f"key={key!r} is no key. Give an int such as key=0, or jax.random.key(0).")


def person_key(key, person_id):
    """The key of one person: folded from a stable hash of the id, whoever else is in the cohort."""
    return jax.random.fold_in(key, zlib.crc32(str(person_id).encode()))


@functools.lru_cache(maxsize=64)
def _readings_program(kernel: Kernel):
    """Compiled: (z (TILE, d), data, sub-steps) -> (log likelihood (TILE,), residuals: sensor -> (TILE, N), modelled alike)."""

    def lane(z, data, substeps):
        here = dataclasses.replace(kernel, stepper=Repeated(kernel.stepper, substeps))
        values = kernel.constrain(z)
        modelled = here.modelled(values, data)
        terms = {n: kernel.sensor_of(n, values).terms(modelled[n], data.seen[n]) for n in data.read}
        residuals = {
            n: jnp.where(data.seen[n].mask & (data.seen[n].censored == 0), t.residual, jnp.nan)
            for n, t in terms.items()
        }
        return sum(jnp.sum(t.loglik) for t in terms.values()), residuals, modelled

    return jax.jit(jax.vmap(lane, (0, None, None)))


def _head(n, a):
    return np.array(a)[:n]


def at_readings(kernel, z, data, substeps=1):
    """Log likelihood, residuals and modelled values at many draws z (n, d) of one person, the kernel's steps cut; NumPy."""
    program, parts = _readings_program(kernel), []
    for i in range(0, len(z), TILE):
        group = z[i : i + TILE]
        full = np.concatenate([group, np.repeat(group[:1], TILE - len(group), axis=0)])
        parts.append(jax.tree.map(functools.partial(_head, len(group)), program(jnp.asarray(full), data, np.int32(substeps))))
    return jax.tree.map(lambda *a: np.concatenate(a), *parts)


@functools.lru_cache(maxsize=64)
def _constrain_program(kernel: Kernel):
    return jax.jit(jax.vmap(kernel.constrain))


def values_of(kernel, z):
    """Values of the sites at draws z (n, d)."""
    return {name: np.array(v) for name, v in _constrain_program(kernel)(jnp.asarray(z)).items()}


def prior_draws(kernel, key, count):
    """Draws from the prior as coordinates (count, d)."""
    columns = []
    for i, site in enumerate(kernel.sites):
        k = jax.random.fold_in(key, i)
        if normal_based(site.prior) is not None:
            columns.append(jax.random.normal(k, (count, site.size), float))
        else:
            columns.append(to_coordinate(site.prior, site.prior.sample(k, (count, site.size))))
    return np.array(jnp.concatenate(columns, axis=1)) if columns else np.zeros((count, 0))


class _Tally:
    """One progress line for several models that run side by side."""

    def __init__(self, tell, count):
        self._tell, self._state, self._lock, self.stop = tell, [(0, 1, 0)] * count, threading.Lock(), False

    def report(self, which, done, total, diverging):
        """Called by a sampler after each chunk."""
        if self.stop:
            raise KeyboardInterrupt
        with self._lock:
            self._state[which] = (done, total, diverging)
            parts = self._state
            share = sum(d / t for d, t, _ in parts) / len(parts)
            self._tell(share, 1.0, f"{sum(v for *_, v in parts)} diverging")


def _tile(problems, keys, method, temper, report) -> list[Sampled]:
    """Search modes and sample for one tile of people on one kernel."""
    kernel = problems[0].kernel
    data = jax.tree.map(jnp.asarray, stack([p.data for p in problems]))
    keys = jnp.stack(keys)
    tempers = _tempers(kernel, data, keys, method.starts, temper)
    found, left = search(kernel, data, keys, method.starts, tempers)
    report(1, 20, 0)
    drawn = method.draw(Setting(kernel, data, keys, tempers, found, report))
    return [
        Sampled(
            one.z,
            one.stats | {"rivals": missed(found[p], one.z.reshape(-1, one.z.shape[-1])), "gradient": left[p]},
            found[p],
            jax.tree.map(lambda a, p=p: np.asarray(a[p]), tempers),
        )
        for p, one in enumerate(drawn)
    ]


def _tempers(kernel, data, keys, starts, power):
    """How much the readings count, person by person; see `Temper`."""
    plain = stack([kernel.untempered()] * len(keys))
    if power == 1 or not len(kernel.scales):
        return plain._replace(power=np.full(len(keys), float(power)))
    fits, _ = search(kernel, data, keys, starts, plain, most=1)
    return stack([modes.anchored(kernel, f[0], power) for f in fits])


def _finish(problem, sampled: Sampled, key, method) -> Fit:
    """Correct from n to 2n sub-steps, draw from the prior, and judge."""
    kernel, (z, extra, laplaces, temper) = problem.kernel, sampled
    one = jax.tree.map(jnp.asarray, problem.data)
    flat = z.reshape(-1, z.shape[-1])
    loglik, residuals, _ = at_readings(kernel, flat, one)
    fine, stats = _corrected(kernel, flat, loglik, one, temper, extra)
    if stats["mesh_share"] < 0.999:
        rng = np.random.default_rng(np.array(jax.random.key_data(jax.random.fold_in(key, 5))))
        pick = np.sort(rng.choice(len(flat), len(flat), p=stats.pop("weights")))
        chosen = flat[pick].reshape(z.shape)
    else:
        stats.pop("weights")
        chosen = z
    prior = prior_draws(kernel, jax.random.fold_in(key, 6), max(400, min(len(flat), 1000)))
    prior_sd = prior.std(axis=0)
    roles = [site.kind for site in kernel.sites for _ in range(site.size)]
    stats |= {"names": kernel.names, "prior_sd": prior_sd}
    seen = {n: np.isfinite(r).sum(axis=0) for n, r in residuals.items()}  # 0 where a reading is censored
    # the median over draws, so that a few at which the steps explode do not speak for the others
    mean_residuals = {
        n: np.where(seen[n] > 0, np.nanmedian(np.where(seen[n] > 0, r, 0.0), axis=0), np.nan)
        for n, r in residuals.items()
    }
    spread = flat.std(axis=0) / prior_sd
    parts = {
        "computed": verdict.computed(stats),
        "fits": verdict.fits(mean_residuals, (flat.mean(axis=0) - prior.mean(axis=0)) / prior_sd, kernel.names, roles),
        "informed": verdict.informed(spread, kernel.names, roles),
        "supported": verdict.supported(problem),
    }
    log_density = fine / float(temper.power)
    return Fit(
        problem,
        values_of(kernel, chosen.reshape(flat.shape)),
        values_of(kernel, prior),
        chosen,
        log_density,
        stats,
        method,
        temper,
        stats.pop("log_evidence", laplaces[0].log_evidence),
        parts,
        max(laplaces, key=lambda fit: fit.log_density).mode,
    )


def _corrected(kernel, z, loglik, data, temper, extra):
    """Importance weights of the draws: for the step size, and for how well an approximation stands in."""
    stats = {k: v for k, v in extra.items() if k != "log_proposal"}
    fine = loglik
    if kernel.stepper.refined() is not None:
        fine = at_readings(kernel, z, data, substeps=2)[0]
    usable = np.isfinite(fine) & np.isfinite(loglik)
    stats["failed"] = float(1 - usable.mean())
    move = np.where(usable, (fine - loglik) / float(temper.power), -np.inf)
    approximate = extra.get("log_proposal")
    if approximate is not None and usable.any():
        # Draws of a Gaussian are not draws of the coarse posterior: one at which the coarse steps explode must not win
        # by the gain of its halved steps.
        move = np.minimum(move, np.median(move[usable]))
    weights = weights_of(move)
    stats["mesh_share"] = float(1 / np.sum(weights**2) / len(weights)) if usable.any() else 0.0
    stats["weights"] = weights
    if approximate is not None:
        density = np.array(jax.vmap(kernel.tempered, (0, 0, None))(jnp.asarray(z), jnp.asarray(fine), temper))
        stats["share"] = float(1 / np.sum(weights_of(density - approximate) ** 2) / len(z))
    return fine, stats


def _fit_all(model, people, alone, key, method, temper, folder, workers, report) -> list[Fit]:
    """Fit one model to every person: tiles of people whose records have one shape, always of the same width."""
    with double():
        problems = [bind(model, person, padded=not alone) for person in people]
        keys = [person_key(key, person.id) for person in people]
    width = 1 if alone else method.people_per_call()
    alike: dict = {}
    for i, problem in enumerate(problems):
        shapes = tuple(
            (jax.tree_util.keystr(at), np.shape(a)) for at, a in jax.tree_util.tree_leaves_with_path(problem.data)
        )
        alike.setdefault((problem.kernel, shapes), []).append(i)
    tiles = [rows[i : i + width] for rows in alike.values() for i in range(0, len(rows), width)]
    found: dict[int, Fit] = {}
    shares = [0.0] * len(tiles)

    def fit(number):
        rows = tiles[number]
        full = rows + rows[:1] * (width - len(rows))

        def tell(done, total, diverging):
            shares[number] = done / total
            report(sum(shares), len(tiles), diverging)

        with double():
            names = [kept.fingerprint(problems[i], keys[i], method, temper) if folder else "" for i in rows]
            done = [kept.load(folder, name) if folder else None for name in names]
            if all(done):
                tell(1, 1, 0)
            else:
                done = _tile([problems[i] for i in full], [keys[i] for i in full], method, temper, tell)[: len(rows)]
                for name, sampled in zip(names, done, strict=True):
                    if folder and not sampled.stats.get("interrupted"):
                        kept.save(folder, name, sampled)
            found.update({i: _finish(problems[i], one, keys[i], method) for i, one in zip(rows, done, strict=True)})

    fit(0)  # alone, so that its programs are compiled once
    with ThreadPoolExecutor(workers) as pool:
        for future in [pool.submit(fit, number) for number in range(1, len(tiles))]:
            future.result()
    return [found[i] for i in range(len(people))]


@overload
def personalize(model, data: Person, method=None, *, key, temper: float = ..., keep=..., progress: bool = ...) -> Twin: ...
@overload
def personalize(model, data: Cohort, method=None, *, key, temper: float = ..., keep=..., progress: bool = ...) -> Twins: ...
def personalize(model, data, method=None, *, key, temper=1.0, keep=None, progress=True):
    """What a record says about a body: posterior draws of the model's unknowns.

    **Arguments:**

    - `model`: a `Model`, or several: rival structures of one body, pooled with equal weight in one twin.
    - `data`: a `Person` (gives a `Twin`) or a `Cohort` (gives `Twins`, one a person, `twins["anna"]`).
    - `method`: `NUTS()` (default) or `Laplace()`.
    - `key`: an int or a JAX key; each person's own key is folded from it and a hash of the id.
    - `temper`: the likelihood counts to the power 1/temper; above 1 it says that the model is known to be wrong. Shown in
      every result.

    - `keep`: a folder for long work: each person's finished draws are kept there, and a run that was interrupted and is
      started again with the same arguments goes on behind them, to the same bits.

    **Raises:** NoReadings and whatever binding the record raises; ParameterError for a bad key or temper. A failed solve
    is never an exception here: it is counted in the verdict.
    """
    models = list(model) if isinstance(model, list | tuple) else [model]
    if not models or not all(isinstance(m, Model) for m in models):
        raise DeclarationError(
            "personalize needs a Model or a list of them. Write ht.Model(T1DMinimal(), cgm=ht.sensors.CGM('G_isf'))."
        )
    if not isinstance(data, Person | Cohort):
        raise DeclarationError(
            f"personalize needs a Person or a Cohort, not {type(data).__name__}. Read one with ht.Person.from_csv(...)."
        )
    if not temper >= 1:
        raise ParameterError(
            f"temper={temper} is below 1: a likelihood cannot count for more than it says. Use temper=1 or more."
        )
    method = method or NUTS()
    people = [data] if isinstance(data, Person) else list(data.values())
    prepare()  # before the key starts a backend
    root = as_key(key)
    title = f"personalizing {people[0].id}" if len(people) == 1 else f"personalizing {len(people)} people"
    with bars.bar(title, enabled=progress) as tell:
        tally = _Tally(tell, len(models))
        jobs = [
            functools.partial(
                _fit_all,
                m,
                people,
                isinstance(data, Person),
                jax.random.fold_in(root, i),
                method,
                float(temper),
                None if keep is None else Path(keep),
                max(1, (os.cpu_count() or 1) // len(models)),
                functools.partial(tally.report, i),
            )
            for i, m in enumerate(models)
        ]
        columns = _side_by_side(jobs, tally)
    seed = key if isinstance(key, int | np.integer) else "key"
    twins = [
        Twin.of(person, [column[i] for column in columns], person_key(root, person.id), str(seed))
        for i, person in enumerate(people)
    ]
    return twins[0] if isinstance(data, Person) else Twins({t.id: t for t in twins})


def _side_by_side(jobs, tally):
    """Run the models in threads: JAX lets go of Python's lock while it computes. Ctrl-C stops each after its chunk."""
    if len(jobs) == 1:
        return [jobs[0]()]
    with ThreadPoolExecutor(len(jobs)) as pool:
        futures = [pool.submit(job) for job in jobs]
        try:
            return [f.result() for f in futures]
        except KeyboardInterrupt:
            tally.stop = True
            return [f.result() for f in futures]


def update(twin: Twin, record: Person, *, key, progress: bool = True) -> Twin:
    """The twin after more was seen: `record` is the person's longer record, old rows included.

    Yesterday's posterior times the likelihood of the new readings is the posterior of both together, so the models are
    personalized to the longer record with the same method and temper. Nothing after the record's last row is used.

    **Raises:** ParameterError when the record is another person's or ends before the twin's; errors of `personalize`.
    """
    if record.id != twin.id:
        raise ParameterError(
            f"update: the record is of {record.id!r}, the twin of {twin.id!r}. Personalize a twin of {record.id!r} instead."
        )
    if record.clock.stop * 1.0 < twin.record.clock.stop and record.clock.unit == twin.record.clock.unit:
        raise ParameterError(
            "update: the record ends before the twin's own. Give the longer record, old rows included."
        )
    return personalize(
        [f.model for f in twin.fits], record, twin.method, key=key, temper=twin.temper, progress=progress
    )
