"""Personalize: from a record and a model to posterior draws of this body's parameters."""

import dataclasses
import functools
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, overload

import jax
import numpy as np

from hybridtwin import progress as bars
from hybridtwin.engine import cores, devices, double, prepare, side_by_side
from hybridtwin.errors import DeclarationError, ParameterError
from hybridtwin.fit import Fit
from hybridtwin.inference import kept, modes
from hybridtwin.inference.finish import finish, needs_finer
from hybridtwin.inference.kept import Sampled
from hybridtwin.inference.lost import impossible
from hybridtwin.inference.methods import FOCEI, HMC, AbstractMethod, Auto
from hybridtwin.inference.modes import REACHED, missed, search
from hybridtwin.inference.readings import ahead
from hybridtwin.inference.sampling import Setting
from hybridtwin.kernel import padded_to
from hybridtwin.keys import as_key, folded, person_key
from hybridtwin.model import Model, bind
from hybridtwin.records import Cohort, Person
from hybridtwin.simulate.run import stack
from hybridtwin.twin import Twin, Twins


class _Tally:
    """One progress line for several models that run side by side: people, chains, diverging, failed, and how far."""

    def __init__(self, tell, models, people, chains):
        self._tell, self._people, self._lock, self.stop = tell, people, threading.Lock(), False
        self._state = [(0.0, 0, 0, 0)] * models
        self._chains = f"{chains} chains" if chains else ""

    def report(self, which, share, people, diverging, failed):
        """Called after each chunk of work: share done, people finished, transitions that diverged, draws not solved."""
        if self.stop:
            raise KeyboardInterrupt
        with self._lock:
            self._state[which] = (share, people, diverging, failed)
            shares, finished, diverged, lost = zip(*self._state, strict=True)
            several = f"{min(finished)} of {self._people} people" if self._people > 1 else ""
            parts = (several, self._chains, f"{sum(diverged)} diverging", f"{sum(lost)} failed")
            self._tell(sum(shares) / len(shares), 1.0, " · ".join(filter(None, parts)))


def _tile(problems, keys, method, temper, report, count) -> list[Sampled]:
    """Search modes and sample for one tile of people on one kernel, of whom the first `count` are wanted."""
    kernel = problems[0].kernel
    data = jax.device_put(stack([p.data for p in problems]))
    plain = stack([kernel.untempered()] * len(keys))
    modes.trace(kernel, data, plain)
    ready = ahead(kernel, data, plain)
    try:
        tempers = _tempers(kernel, data, keys, method.starts, temper)
        found, left = search(kernel, data, keys, method.starts, tempers)
    except modes.Nowhere as nowhere:
        raise impossible(problems[nowhere.args[0]]) from None
    ready()
    report(1, 20, 0)
    drawn = method.draw(Setting(kernel, data, keys, tempers, found, report, count))[:count]
    return [
        Sampled(
            one.z,
            one.stats | {"rivals": _rivals(kernel, data, tempers, p, found[p], one.z, left[p]), "gradient": left[p]},
            found[p],
            jax.tree.map(lambda a, p=p: np.asarray(a[p]), tempers),
        )
        for p, one in enumerate(drawn)
    ]


def _rivals(kernel, data, tempers, p, fits, z, left) -> float:
    """Share of modes that the draws of person p miss; 0 where the ascent came to rest nowhere: there is no mode to miss."""
    if not left < REACHED:
        return 0.0

    def heights(points):  # at the width of the tile, for which the program is compiled
        return modes.evaluate(kernel, np.repeat(points[None], len(data.mesh.t), axis=0), data, tempers)[0][p]

    return missed(fits, z.reshape(-1, z.shape[-1]), heights)


def _tempers(kernel, data, keys, starts, power):
    """How much the readings count, person by person; see `Temper`."""
    plain = stack([kernel.untempered()] * len(keys))
    if power == 1 or not len(kernel.scales):
        return plain._replace(power=np.full(len(keys), float(power)))
    fits, _ = search(kernel, data, keys, starts, plain, most=1)
    return stack([modes.anchored(kernel, f[0], power) for f in fits])


def _finish(problem, sampled: Sampled, key, method) -> Fit:
    """One person's fit; see `finish.finish`."""
    return finish([problem], [sampled], [key], method, 1)[0]


_HALVINGS = 2  # times that the steps of one fit are halved for good


@dataclasses.dataclass(frozen=True)
class Job:
    """One model, fitted with one method: what all its tiles share."""

    method: Any
    temper: float
    folder: Path | None
    width: int  # people of every call

    def fit(self, problems, keys, report) -> list[Fit]:
        """Fits of one tile of people on one kernel, the tile filled up with repeats of its first."""
        count, fill = len(problems), self.width - len(problems)
        pairs = zip(problems, keys, strict=True)
        names = [kept.fingerprint(p, k, self.method, self.temper) if self.folder else "" for p, k in pairs]
        done = [kept.load(self.folder, name) if self.folder else None for name in names]
        if not all(done):
            done = _tile(problems + problems[:1] * fill, keys + keys[:1] * fill, self.method, self.temper, report, count)
            for name, sampled in zip(names, done, strict=True):
                if self.folder and not sampled.stats.get("interrupted"):
                    kept.save(self.folder, name, sampled)
        return finish(problems, done, keys, self.method, self.width)

    def tiles(self, problems, rows) -> list[list[int]]:
        """These rows in tiles: of each the kernel and all shapes are the same."""
        alike: dict = {}
        for i in rows:
            leaves = jax.tree_util.tree_leaves_with_path(problems[i].data)
            shapes = tuple((jax.tree_util.keystr(at), np.shape(a)) for at, a in leaves)
            alike.setdefault((problems[i].kernel, shapes), []).append(i)
        return [some[i : i + self.width] for some in alike.values() for i in range(0, len(some), self.width)]


def one_shape(problems):
    """The same problems, those of one kernel in one shape: the largest that any of them needs."""
    found, alike = list(problems), {}
    for i, problem in enumerate(problems):
        alike.setdefault(problem.kernel, []).append(i)
    for rows in alike.values():
        datas = [problems[i].data for i in rows]
        sizes = [max(len(part(d.mesh)) for d in datas) for part in (lambda m: m.t, lambda m: m.read, lambda m: m.moving.time)]
        names = dict.fromkeys(name for d in datas for name in d.seen)
        readings = {n: max(len(d.seen[n].value) if n in d.seen else 0 for d in datas) for n in names}
        for i, data in zip(rows, datas, strict=True):
            found[i] = dataclasses.replace(problems[i], data=padded_to(data, sizes[0], sizes[1], sizes[2], readings))
    return found


def _fit_all(model, people, alone, key, method, temper, folder, workers, report) -> list[Fit]:
    """Fit one model to every person: tiles of people whose records have one shape, always of the same width."""
    with double():
        problems = [bind(model, person, padded=not alone) for person in people]
        keys = [person_key(key, person.id) for person in people]
    if not problems[0].kernel.size:
        raise DeclarationError(
            f"{model.name} has nothing to infer: every parameter of its body and sensors is a number. Give one a prior, or use "
            "ht.simulate."
        )
    width = 1 if alone else method.people_per_call() * devices()
    job = Job(method, temper, folder, width)

    def fit(problems, rows, others):
        return _fit_tiles(job, problems, keys, rows, others, workers, report)

    return until_fine(problems, fit)


def until_fine(problems, fit) -> list[Fit]:
    """Fits of these problems by `fit` (problems, rows, fits of the others that are done) -> {row: fit}, some by shorter steps.

    Those who need them go on together: a tile costs the same however many of it are wanted.
    """
    problems, found, rows, halved = list(problems), {}, list(range(len(problems))), 0
    while rows:
        for i, one in fit(problems, rows, [found[i] for i in set(found) - set(rows)]).items():
            found[i] = dataclasses.replace(one, stats={"halved": halved, **one.stats}) if halved else one
        rows = [i for i in rows if halved < _HALVINGS and needs_finer(found[i])]
        for i in rows:
            problems[i] = problems[i].with_stepper(problems[i].kernel.stepper.refined())
        halved += 1
    return [found[i] for i in range(len(problems))]


def _fit_tiles(job, problems, keys, rows, others, workers, report) -> dict[int, Fit]:
    """Fits of these rows, tile by tile; `others` are fits that are done, for the line of progress."""
    tiles, found = job.tiles(problems, rows), {}
    progress = np.zeros((len(tiles), 2))  # share done and diverging, of each tile
    weights, stop = np.array([len(some) for some in tiles]), threading.Event()

    def told():
        failed = sum(round(fit.stats["failed"] * fit.count) for fit in [*others, *list(found.values())])
        share = (len(others) + float(progress[:, 0] @ weights)) / len(problems)
        report(share, len(others) + len(found), int(progress[:, 1].sum()), failed)

    def fit(number):
        some = tiles[number]

        def tell(done, total, diverging):
            if stop.is_set():  # Ctrl-C, or an error elsewhere: nobody waits for this tile
                raise KeyboardInterrupt
            progress[number] = done / total, max(diverging, progress[number, 1])
            told()

        with double():
            found.update(zip(some, job.fit([problems[i] for i in some], [keys[i] for i in some], tell), strict=True))
        progress[number, 0] = 1.0
        if len(found) < len(rows):  # all is done otherwise, and Ctrl-C comes too late to stop anything
            told()

    fit(0)  # alone, so that its programs are compiled once
    side_by_side([functools.partial(fit, number) for number in range(1, len(tiles))], most=workers, stop=stop)
    return found


@overload
def personalize(model, data: Person, method=None, *, key, temper: float = ..., keep=..., progress: bool = ...) -> Twin: ...
@overload
def personalize(model, data: Cohort, method=None, *, key, temper: float = ..., keep=..., progress: bool = ...) -> Twins: ...
def personalize(model, data, method=None, *, key, temper=1.0, keep=None, progress=True):
    """What a record says about a body: posterior draws of the model's unknowns.

    **Arguments:**

    - `model`: a `Model`, or several: rival structures of one body, pooled with equal weight in one twin.
    - `data`: a `Person` (gives a `Twin`) or a `Cohort` (gives `Twins`, one a person, `twins["anna"]`).
    - `method`: `Auto()` (default), or one stage of its cascade alone: `Laplace()`, `Importance()`, `NUTS()`.
    - `key`: an int or a JAX key; each person's own key is folded from it and a hash of the id.
    - `temper`: the likelihood counts to the power 1/temper; above 1 it says that the model is known to be wrong. Shown in
      every result.

    - `keep`: a folder for long work: each person's finished draws (of a pooled model each round of the search and of the
      sampler) are kept there, and a run that was interrupted and is started again with the same arguments goes on behind
      them, to the same bits.

    **Raises:** NoReadings and whatever binding the record raises; ParameterError for a bad method, key or temper;
    ImplausibleValue, SolveError for a record that no body can have given. A failed solve is never an exception here: it is
    counted in the verdict.
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
    if not isinstance(method, AbstractMethod | None):
        raise ParameterError(f"method={method!r} is no method. Give an instance such as ht.NUTS(), or none for the default.")
    if not 1 <= temper < float("inf"):
        raise ParameterError(
            f"temper={temper} is not between 1 and infinity: a likelihood cannot count for more than it says, and must count for "
            "something. Use temper=1 or more."
        )
    if isinstance(method, FOCEI | HMC) or (isinstance(data, Cohort) and any(m.pools for m in models)):
        from hybridtwin.inference import hierarchy

        return hierarchy.personalize(models, data, method or HMC(), key=key, temper=temper, keep=keep, progress=progress)
    method = method or Auto()
    people = [data] if isinstance(data, Person) else list(data.values())
    prepare()  # before the key starts a backend
    root = as_key(key)
    title = f"personalizing {people[0].id}" if len(people) == 1 else f"personalizing {len(people)} people"
    with bars.bar(title, enabled=progress) as tell:
        tally = _Tally(tell, len(models), len(people), getattr(method, "chains", 0))
        jobs = [
            functools.partial(
                _fit_all,
                m,
                people,
                isinstance(data, Person),
                folded(root, i),
                method,
                float(temper),
                None if keep is None else Path(keep),
                max(1, cores() // len(models)),
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
