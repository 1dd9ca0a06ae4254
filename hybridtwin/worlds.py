"""Solve the worlds of one fit: the same draws of the same body, on one day, under several sets of inputs."""

import dataclasses
import functools
import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hybridtwin.binding import Bound, substance
from hybridtwin.changes import AsIn, Once
from hybridtwin.engine import Lanes, double
from hybridtwin.errors import InterventionError, PastHorizon, UnrelatedTwins
from hybridtwin.fields import check_range
from hybridtwin.fit import Fit
from hybridtwin.interventions import Course, Do, World
from hybridtwin.kernel import Data, Kernel
from hybridtwin.keys import folded
from hybridtwin.model import Model, lived_world
from hybridtwin.rest import REMEDY
from hybridtwin.sensors import Seen
from hybridtwin.signals import Signal
from hybridtwin.simulate.course import course
from hybridtwin.simulate.failures import Failures, failures
from hybridtwin.simulate.layout import bucket, pad, striding
from hybridtwin.simulate.mesh import lay, layout_of, moments, override_columns, set_columns
from hybridtwin.simulate.noise import NOISY, keys_of, longest
from hybridtwin.simulate.pilot import Choice, Pilot, choose, looked
from hybridtwin.simulate.rules import FIRST, LAST, acts_of
from hybridtwin.simulate.run import Solved, solve_draws, tile
from hybridtwin.simulate.solve import arrivals, get
from hybridtwin.simulate.steppers import RK4, Difference, Exact, Repeated
from hybridtwin.simulate.stiff import Controlled, Rosenbrock, sized
from hybridtwin.simulate.trajectory import Act
from hybridtwin.units import factor, time_factor


@dataclasses.dataclass(frozen=True, eq=False)
class Day:
    """A record bound to one fit's model, and how its first row begins.

    `start`: "model" (as the model says), "steady", "free", or states by path, (n,) each or one number for every draw. `lived`: is
    it the record that the fit was made on (then latent events and occasions have posterior draws)? `prior_start`: states
    for the draws of the prior, where those of `start` belong to draws of the posterior. `told`: what nobody asked for, in words.
    """

    bound: Bound
    world: World
    start: str | Mapping[str, Any] = "model"
    lived: bool = True
    prior_start: Mapping[str, Any] | None = None
    told: tuple[str, ...] = ()

    @classmethod
    def of(cls, model: Model, person, start="model", lived=True) -> "Day":
        """Bind a record to a model."""
        sensors = {name: model.unit_of(s.of) for name, s in model.sensors.items()}
        bound = person.bind(model.spec, sensors)
        return cls(bound, lived_world(bound), start, lived)

    @classmethod
    def another(cls, model: Model, person, start: str | None) -> "Day":
        """Another day of the same body: at rest, or as its `initial` says ("free", and by None where it has no rest).

        **Raises:** InterventionError for another word, for "steady" without a rest, and for "free" where the fit knows of none.
        """
        if start not in (None, "steady", "lived", "free"):
            raise InterventionError(f'on: start is "steady", "free", "lived" or a state, not {start!r}. "steady" begins at rest.')
        why, name = model.spec.restless, model.spec.name
        if start == "steady" and why is not None:
            raise InterventionError(f"on: {name} has no rest: {why}. {REMEDY}.")
        if start == "free" and model.start == "steady" and model.spec.forgotten:
            raise InterventionError(
                f"on: this twin's model begins at rest, so nothing is known of {', '.join(sorted(model.spec.forgotten))}. "
                'Give every state as start={...}, or personalize with Model(..., start="free").'
            )
        begins = "free" if start == "free" else "steady" if why is None else "model"
        day = cls.of(model, person, start=begins, lived=False)
        said = f"{name} has no rest ({why}): the day begins as its `initial` says"
        return dataclasses.replace(day, told=(said,)) if start is None and why is not None else day


@functools.lru_cache(maxsize=64)
def thinned(count: int, wanted: int) -> np.ndarray:
    """Evenly spaced indices of `wanted` draws among `count`, to be read only."""
    found = np.unique(np.linspace(0, count - 1, min(wanted, count)).round().astype(int))
    found.flags.writeable = False
    return found


def reading_times(worlds, spec, span, at=None) -> list[tuple[float, int]]:
    """Times and ranks at which worlds are read: `at` (times, or pairs already), or a grid with both sides of every dose."""
    if at is not None:
        return [t if isinstance(t, tuple) else (float(t), LAST) for t in at]
    start, stop = span
    step = spec.grid or spec.step or (stop - start) / 400
    reads = {(float(t), LAST) for t in np.arange(start, stop, step)} | {(float(stop), LAST)}
    for world in worlds:
        for name in spec.doses:
            for dose in world.inputs[name].doses:
                if start <= dose.time <= stop:
                    reads |= {(float(dose.time), FIRST), (float(dose.time), LAST)}
                end = dose.time + (dose.duration or 0.0)
                reads |= {(float(end), LAST)} if dose.duration and start <= end <= stop else set()
    return sorted(reads)


@functools.lru_cache(maxsize=64)
def _program(kernel: Kernel, names: tuple[str, ...], given_start: bool):
    """Compiled: (draws (n, ...), world, sub-steps) -> `Course` with leading axis n."""

    def lane(draw, data, substeps):
        values = draw["values"]
        system, extras = kernel.system_of(values), kernel.extras(values, data, draw["overrides"])
        extras = extras._replace(noise=draw.get("noise"), sets=draw["sets"], held=draw.get("held"))
        x0 = kernel.model.spec.state(draw["x0"]) if given_start else kernel.start_state(system, data.mesh, extras)
        stepper = Repeated(sized(kernel.stepper, draw), substeps)
        reads = readers(kernel, values, draw["reading"]) if "reading" in draw else None
        return course(system, kernel.layout, stepper, data.mesh, x0, extras, names, reads)

    return Lanes(lane, (0, None, None))


def readers(kernel: Kernel, values, key):
    """Sensor -> (value, t) -> what it reads: the readings of `Twin.predict`, at the times at which care looks.

    A sensor whose error depends on the time since a dose reads as long after one; gain and offset are those of its first session.
    """
    minutes = time_factor(kernel.model.spec.time, "min")

    def reader(name: str):
        sensor = kernel.sensor_of(name, values)

        def read(value, t):
            one = jnp.zeros(1)
            rows = Seen(one, jnp.reshape(t * minutes, 1), one == 0, one.astype(jnp.int32), one.astype(jnp.int32), one + 1e6)
            drawn: Any = sensor.sample(jax.random.wrap_key_data(key), jnp.reshape(value, 1), rows)
            return drawn[0]

        return read

    return {name: reader(name) for name in {rule.reads: None for rule in kernel.layout.rules if rule.reads}}


_PLAIN = RK4(1)


def _choice(fit: Fit, day: Day, exact: bool, watched: bool) -> Choice:
    """How to solve the worlds of a day: always as the day itself would be, so that they agree until they differ."""
    model, asked = fit.model, fit.model.solver
    if exact and asked is None and not watched:
        return Choice(Exact.of(model.spec), np.inf, "linear, under inputs that hold still in between")
    found = fit.problem.choice if day.lived else choose(model, day.world)
    if isinstance(found.stepper, Rosenbrock | Difference) or (asked is not None and (exact or not isinstance(asked, Exact))):
        return found
    rate, far = found.rate, found.far
    if not (rate and far):
        pilot = Pilot(model.system, day.world, model.start)
        rate, far = pilot.rate, pilot.far
    seen = looked(model.spec, day.world.stop - day.world.start)
    step, said = min(0.35 / rate, 2.5 / far, model.spec.grid or np.inf, seen), f"fastest rate {rate:.3g}/{model.spec.time}"
    return Choice(Exact.of(model.spec) if exact else _PLAIN, step, said, rate=rate)


def kernel_of(fit: Fit, day: Day, worlds) -> tuple[Kernel, Choice]:
    model = fit.model
    if isinstance(day.start, str) and day.start != "model":
        model = model.starting(day.start)
    drive = fit.problem.choice.drive if day.lived else ()  # the path of the noise of a lived day is an unknown of the fit
    layout = layout_of(worlds, model.spec, varying=model.varying, latents=len(day.bound.latent), noise=True, drive=drive)
    groups = {g: 1 + len(day.bound.occasion_edges(g)) for _, g in model.varying}
    if day.lived:
        groups = dict(fit.kernel.occasions)
    exact = model.spec.linear and all(world.inputs[n].stepwise for world in worlds for n in model.spec.signals)
    exact = exact and not (layout.clamped or layout.noise or layout.stretches or layout.edits)
    amounts, times = (sum(getattr(e, name) > 0 for e in day.bound.latent) for name in ("amount_sd", "time_sd"))
    choice = dataclasses.replace(_choice(fit, day, exact, bool(layout.triggered)), drive=drive)
    return Kernel(model, striding(layout, choice.stepper), choice.stepper, tuple(sorted(groups.items())), amounts, times), choice


def values_of(fit, day, kernel, index, prior, key):
    """Values of every site of the day's kernel for the chosen draws."""
    source = fit.prior_values if prior else fit.values
    found = {}
    for i, site in enumerate(kernel.sites):
        of_day = site.kind in ("deviation", "amount", "time", "path")
        if site.name in source and (day.lived or not of_day):
            found[site.name] = np.asarray(source[site.name])[index]
        else:  # another day: its occasions and uncertain events are new, the same in all of its worlds
            shape = (len(index),) if site.size == 1 else (len(index), site.size)
            found[site.name] = np.array(jax.random.normal(folded(key, i), shape, float))
    for j, (path, group) in enumerate(kernel.model.varying):
        if kernel.model.drifts(path) and not day.lived:  # the walk goes on from where the lived one ended
            name, count = f"{path}@{group}", len(index)
            lived = np.asarray(source[name])[index].reshape(count, -1).sum(axis=1) if name in source else np.zeros(count)
            step = np.array(jax.random.normal(folded(key, 40_000 + j), (count,), float))
            found[f"{name}.start"] = lived + np.sqrt(_steps(fit, day, group)) * step
    return found


def _steps(fit, day, group) -> int:
    """Steps of a walk from the end of the lived record to the beginning of another day's.

    Where the clocks tell the dates, one a midnight in between; a record that goes on from the lived state begins in the occasion
    that the other ended in. What cannot be told, or lies before, is as the next.
    """
    goes_on = not isinstance(day.start, str)
    old, new = fit.problem.bound.clock, day.bound.clock
    if group == "day" and (goes_on or None not in (old.origin, new.origin)) and (old.origin is None) == (new.origin is None):
        last, first = fit.problem.bound.stop - 1e-6, day.bound.start  # a record that ends at midnight ends in the day before
        if old.origin is None:
            hours = time_factor("h", old.unit) * 24.0
            passed = int(first // hours - last // hours)
        else:
            passed = (new.when(first).date() - old.when(last).date()).days
        return passed if passed >= 0 else 1
    return 0 if goes_on else 1


def overridden(worlds, kernel, values):
    """(L, W, P) values of overridden parameters; a function sees the draws of the parameter it changes.

    **Raises:** InterventionError where it returns something else than numbers, ParameterError where one is out of range.
    """
    count = len(next(iter(values.values()))) if values else 1
    model, layout = kernel.model, kernel.layout
    found = np.zeros((count, len(worlds), len(layout.overridden)))
    if not layout.overridden:
        return found
    fixed, fields = model.system.values() | model.medians, {**model.spec.parameters, **model.spec.constants}
    varied = _varied(kernel, values) if any(o.occasion is not None for world in worlds for o in world.overrides) else {}
    for w, world in enumerate(worlds):
        for o, column in zip(world.overrides, override_columns(world, layout), strict=True):
            old = varied[o.path][:, o.occasion] if o.occasion is not None else None
            old = values.get(o.path, np.full(count, float(fixed.get(o.path, np.nan)))) if old is None else old
            new = o.change(old) if callable(o.change) else o.change
            try:
                found[:, w, column] = np.broadcast_to(np.asarray(new, float), (count,))
            except (TypeError, ValueError):
                raise InterventionError(
                    f"do: the function for {o.path!r} must return numbers, one a draw. "
                    "Write something like lambda v: 1.2 * v."
                ) from None
            if callable(o.change):  # a number was looked at when it was given
                check_range(o.path, fields[o.path], found[:, w, column])
    return found


def _varied(kernel, values) -> dict[str, np.ndarray]:
    """Values (L, K) of the parameters that vary, on each of K occasions."""
    paths = [path for path, _ in kernel.model.varying]
    with double():
        each = jax.vmap(lambda v: [jnp.atleast_1d(get(kernel.system_of(v), path)) for path in paths])(values)
    return dict(zip(paths, map(np.asarray, each), strict=True))


def settings(worlds, layout, count) -> np.ndarray:
    """(W, L, S) numbers that states are set to once. **Raises:** InterventionError where an array has no number a draw."""
    found = np.zeros((len(worlds), count, len(layout.sets)))
    for w, world in enumerate(worlds):
        for part, column in zip(world.sets, set_columns(world, layout), strict=True):
            if np.ndim(part.number) and len(part.number) < count:
                raise InterventionError(
                    f"do: {part.state!r} is set to {len(part.number)} numbers, but there are {count} draws. Give one a draw "
                    "(of each structure, or of all of them in a row), or one number."
                )
            chosen = thinned(len(part.number), count) if np.ndim(part.number) else ()
            found[w, :, column] = np.asarray(part.number)[chosen]
    return found


def _held(fit, day, world, mesh, layout, count, how) -> np.ndarray:
    """(L, 2, K, Q) values and slopes of the clamps of a world whose states follow their course in another.

    At a node counts what the course is after it, and up to the next node the straight line to what it is in front of that.
    """
    held = np.zeros((count, 2, len(mesh.t), len(layout.clamped)))
    held[:, 0], held[:, 1] = mesh.clamp_value, mesh.clamp_slope
    for clamp in world.clamps:
        if not isinstance(clamp.signal, Course):
            continue
        knots = np.array(clamp.signal.knots)
        reads = [(float(t), rank) for t in knots for rank in (FIRST, LAST)]
        answer = solve(fit, day, [clamp.signal.world], at=reads, names=(clamp.state,), **how)
        early, late = (answer.solved.values[0, :, side::2, 0] for side in (0, 1))  # (L, G) in front of each knot and after it
        k = np.clip(np.searchsorted(knots, mesh.t, side="right") - 1, 0, len(knots) - 2)
        slope = (early[:, 1:] - late[:, :-1])[:, k] / np.diff(knots)[k]
        column = layout.clamped.index(clamp.state)
        held[:, 0, :, column] = late[:, k] + slope * (mesh.t - knots[k])
        held[:, 1, :, column] = np.where(np.append(np.diff(mesh.t), 0.0) > 0, slope, 0.0)
    return held


def _looking(fit, day, kernel, world, values):
    """A world whose courses in other worlds are looked at right in front of and behind doses that arrive at a draw's own time."""
    if not any(isinstance(clamp.signal, Course) for clamp in world.clamps):
        return world
    (start, stop), clamps = (day.bound.start, day.bound.stop), []
    for clamp in world.clamps:
        if isinstance(clamp.signal, Course):
            late = _arriving(fit, day, kernel, clamp.signal.world, values)
            apart = max(1e-7 * (stop - start), 1e-8 * max(abs(start), abs(stop), 1.0))
            more = np.concatenate([late - apart, late + apart]) if 2 * late.size < _MOST else np.linspace(start, stop, _MOST)
            inside = (more > start + 2 * apart) & (more < stop - 2 * apart) & (late.size > 0)
            knots = np.unique(np.concatenate([clamp.signal.knots, more[inside]]))
            knots = knots[np.append(True, np.diff(knots) > 0.1 * apart)]  # nodes that are nearly one would be made one
            clamp = dataclasses.replace(clamp, signal=Course(clamp.signal.world, tuple(map(float, knots))))
        clamps.append(clamp)
    return dataclasses.replace(world, clamps=tuple(clamps))


def _arriving(fit, day, kernel, world, values) -> np.ndarray:
    """All times at which doses of a world arrive in some draw, of those whose time is the draw's own."""
    spec, bound = fit.model.spec, day.bound
    layout = layout_of([world], spec, varying=kernel.model.varying, latents=len(bound.latent))
    if not layout.moving:
        return np.zeros(0)
    edges = {g: np.asarray(bound.occasion_edges(g), float) for _, g in kernel.model.varying}
    mesh = lay([world], spec, layout, [], max_step=np.inf, occasions=edges)[0]
    own, data = dataclasses.replace(kernel, layout=layout), jax.tree.map(jnp.asarray, _data(mesh, bound))
    over = overridden([world], own, values)[:, 0]
    times = jax.vmap(lambda v, o: arrivals(own.system_of(v), layout, data.mesh, own.extras(v, data, o))[0])(values, over)
    return np.unique(np.asarray(times))


_LOOKS = 800  # times at which the course of a state in another world is looked at; three times as many where doses have a lag
_MOST = 4000  # at most, where doses arrive in each draw at a time of its own; if these are more, they lie between looks


def dos_of(twin, which: int) -> tuple[Do, ...]:
    """What was done to a twin, as one of its structures needs it: courses in other worlds, and its own draws.

    **Raises:** UnrelatedTwins where a state follows a twin that is not of the same day and body.
    """
    counts = [twin.draws_of(i) for i in range(len(twin.fits))]

    def own(value):
        if isinstance(value, AsIn):
            if value.twin.root != twin.root:
                raise UnrelatedTwins("as_in: the other world is not of the same twin on the same day. Make it by twin.do(...).")
            other, day = value.twin.world(which), twin.days[which]
            spec = twin.fits[which].model.spec
            start, stop = day.bound.start, day.bound.stop
            regular = np.linspace(start, stop, _LOOKS * (3 if spec.moving else 1))
            if spec.step is not None:  # a difference equation is nowhere else
                regular = start + spec.step * np.arange(round((stop - start) / spec.step) + 1)
            return Course(other, tuple(sorted({*map(float, regular), *moments(other, spec), *moments(day.world, spec)})))
        if isinstance(value, Once) and np.ndim(value.value) == 1 and len(twin.fits) > 1 and len(value.value) == sum(counts):
            at = sum(counts[:which])
            return Once(np.asarray(value.value)[at : at + counts[which]])
        return value

    return tuple(Do({n: own(v) for n, v in do.targets.items()}, do.start, do.stop) for do in twin.dos)


def solve(fit: Fit, day: Day, worlds, *, draws: int, key, at=None, prior=False, names=None, tol=1e-4):
    """Solve worlds of one fit on the union of their nodes.

    **Returns:** `Answer`. A failure in one world of a draw is told for all of them: compared worlds keep the same draws.
    """
    spec = fit.model.spec
    with double():
        kernel, choice = kernel_of(fit, day, worlds)
        total = len(next(iter((fit.prior_values if prior else fit.values).values()), np.zeros(1)))
        given_start = not isinstance(day.start, str)
        x0 = day.prior_start if prior and day.prior_start is not None else day.start
        index, x0 = _paired(x0, total, draws) if given_start else (thinned(total, draws), {})
        values = values_of(fit, day, kernel, index, prior, key)
        worlds = [_looking(fit, day, kernel, world, values) for world in worlds]
        reads = reading_times(worlds, spec, (day.bound.start, day.bound.stop), at)
        edges = {g: np.asarray(day.bound.occasion_edges(g), float) for _, g in kernel.model.varying}
        span, drive = day.bound.stop - day.bound.start, choice.drive
        step = longest(choice.step, span, kernel.layout, spec)

        def laid(step, knots):
            meshes = lay(worlds, spec, kernel.layout, reads, max_step=step, occasions=edges, knots=knots, drive=drive)
            # Other interventions on this day have a few more or fewer nodes: one padded shape, one compiled program.
            return meshes[0].t, [pad(m, bucket(len(m.t)), bucket(len(reads)), len(m.moving.time)) for m in meshes]

        nodes, meshes = laid(step, choice.knots)  # nodes are the same in every world

        def data(meshes):
            return [_data(mesh, day.bound) for mesh in meshes]

        names = tuple(names or spec.outputs or spec.states)
        lanes: dict[str, Any] = {"values": values, "x0": x0}
        if kernel.layout.noise:
            lanes["noise"], tol = _noise_keys(fit, index, prior, key), max(tol, NOISY)
        if any(rule.reads for rule in kernel.layout.rules):
            lanes["reading"] = reading_keys(key, len(index))
        overrides, sets = overridden(worlds, kernel, values), settings(worlds, kernel.layout, len(index))
        each = [lanes | {"overrides": overrides[:, w], "sets": sets[w]} for w in range(len(worlds))]
        if any(isinstance(clamp.signal, Course) for world in worlds for clamp in world.clamps):
            how = {"draws": draws, "key": key, "prior": prior}
            for own, world, mesh in zip(each, worlds, meshes, strict=True):
                own["held"] = _held(fit, day, world, mesh, kernel.layout, len(index), how)
        program, refine = _program(kernel, names, given_start), kernel.stepper.refines
        size = len(spec.states), kernel.stepper.cost(len(spec.states))

        def instead():  # steps find their own length, but what is watched or random is looked at as often
            held = kernel.layout.rules or kernel.layout.noise or spec.timed or any("held" in own for own in each)
            stable = _program(dataclasses.replace(kernel, stepper=Controlled()), names, given_start)
            return stable, data(meshes if held else laid(2.0 * span, ())[1])

        how: dict[str, Any] = {"refine": refine, "tol": tol, "width": tile(*size), "cost": int(np.sum(meshes[0].steps)) * size[1]}
        other = instead if kernel.stepper.replaceable else None
        solved: Solved = solve_draws(program, each, data(meshes), instead=other, **how)
    rows = failures(
        solved,
        person=day.bound.person,
        times=[t for t, _ in reads],
        nodes=[mesh.t for mesh in meshes],
        names=names,
        states=tuple(spec.states),
        clock=day.bound.clock,
        priors=fit.model.priors,
        values=values,
        resting=[*meshes[0].steady.node, *([0] if kernel.model.start == "steady" and not given_start else [])],
        rules=kernel.layout.rules,
    )
    given = {name: field.unit for name, field in fit.model.spec.doses.items()}
    acts = [
        acts_of(world, kernel.layout, jax.tree.map(lambda a, w=w: a[w], solved.acts), nodes, given)
        for w, world in enumerate(worlds)
    ]
    solved = solved._replace(values=solved.values[:, :, : len(reads)])
    return Answer(reads, names, solved, acts, rows.of(fit.model.name), choice)


def _data(mesh, bound) -> Data:
    """What a world's mesh and the uncertain events of its day tell a kernel."""
    sds = [np.array([getattr(e, name) for e in bound.latent], float) for name in ("amount_sd", "time_sd")]
    places = [np.where(sd > 0, np.cumsum(sd > 0) - 1, -1).astype(np.int32) for sd in sds]
    return Data(mesh, {}, {}, sds[0], places[0], sds[1], places[1])


def reading_keys(key, count):
    """Keys (L, 2) of the errors of the readings that rules of care see, a draw each."""
    return np.asarray(jax.random.key_data(jax.random.split(folded(key, 11), count)))


def _noise_keys(fit, index, prior, key):
    """Keys (L, 2) of the process noise of the chosen draws: of the twin, the structure and the draw, never of the world."""
    own = zlib.crc32(fit.model.name.encode())
    return keys_of(folded(key, own, int(prior)), index)


class Answer(NamedTuple):
    """Worlds of one fit, solved."""

    reads: list[tuple[float, int]]  # (time, rank)
    names: tuple[str, ...]  # outputs
    solved: Solved
    acts: list[tuple[Act, ...]]  # what the rules of care did, world by world
    failures: Failures
    choice: Choice  # how


def _paired(x0, total, draws):
    """Indices of the chosen draws, and the start of each: states that belong to draws stay with their draws."""
    x0 = {path: np.atleast_1d(np.asarray(value, float)) for path, value in x0.items()}
    known = max(len(value) for value in x0.values())
    keep = thinned(known, draws) if known > 1 else np.arange(min(draws, total))
    index = thinned(total, known)[keep] if 1 < known <= total else thinned(total, len(keep))
    return index, {path: v[keep] if len(v) > 1 else np.full(len(keep), v[0]) for path, v in x0.items()}


def used(fit: Fit, day: Day, draws: int) -> np.ndarray:
    """Which posterior draws of a fit a simulation of this day uses, in their order; a start of so many states allows no more."""
    total = len(next(iter(fit.values.values()), np.zeros(1)))
    return thinned(total, draws) if isinstance(day.start, str) else _paired(day.start, total, draws)[0]


def moments_of(at, bound) -> np.ndarray:
    """Times of output of a day, in system time: numbers of it, or clock text.

    **Raises:** InterventionError where there is none, MissingValue, AmbiguousTime, PastHorizon outside the day.
    """
    clock = bound.clock
    times = np.array([clock.at(t) for t in np.atleast_1d(np.asarray(at, object))], float)
    if not len(times):
        raise InterventionError("at= names no time. Give at least one, or leave it out for a grid over the day.")
    slack = 1e-9 * max(abs(bound.start), abs(bound.stop), 1.0)
    for t in (times.min(), times.max()):
        if not bound.start - slack <= t <= bound.stop + slack:
            raise PastHorizon(
                f"at= asks for {clock.label(t)}, outside the day ({clock.label(bound.start)} to {clock.label(bound.stop)}). "
                "Choose a time inside it, or go on from its end with twin.forecast(...)."
            )
    return times


def throughout(name, given, unit: str) -> Signal:
    """What a forecast is given for a signal, a number or (number, unit), for ever. **Raises:** InterventionError."""
    number, own = given if isinstance(given, tuple) and len(given) == 2 else (given, unit)
    if isinstance(number, bool) or not isinstance(number, int | float | np.number):
        raise InterventionError(
            f"forecast: {name!r} is a signal in {unit}, not {type(given).__name__}. Give a number, (number, unit), or a Signal "
            f"over time such as ht.Signal.steps([0, 1], [2.0, 0.0], {unit!r})."
        )
    return Signal.constant(float(number) * factor(own, unit), unit)


def still_to_come(name, signal, bound) -> None:
    """**Raises:** InterventionError where all steps of a signal in bare numbers are over before the forecast begins.

    Bare numbers count from the origin of the record, in its unit of time.
    """
    clock = bound.clock
    unit = clock.bare or clock.unit
    bare = signal.time is None and signal.numeric and len(signal.starts) > 1
    if bare and clock.asked(max(signal.starts)) < bound.stop:
        raise InterventionError(
            f"forecast: the last step of {name!r} is at {max(signal.starts):g} {unit}, before the forecast begins at "
            f"{bound.stop / clock.asked(1.0):g} {unit}. Bare times count in {unit} here; a signal of a record carries its own "
            f"unit (person.signals[{name!r}]), and a number alone holds throughout."
        )


def none_outside(bound, given) -> None:
    """**Raises:** InterventionError where one of the doses given for a forecast (name -> regimen) comes before it begins,
    PastHorizon where it comes after it ends: neither would be in any world.
    """
    for name, regimen in given.items():
        own = bound.inputs[name]
        asked = regimen.resolve(bound.clock, own.time, own.unit, of=substance(name)).doses
        if late := [dose.time for dose in asked if dose.time > bound.stop]:
            raise PastHorizon(
                f"forecast: {name!r} has a dose at {bound.clock.label(late[0])}, after the forecast ends at "
                f"{bound.clock.label(bound.stop)}. Ask for a longer one, or move the dose."
            )
        if early := [dose.time for dose in bound.inputs[name].doses if dose.time < bound.start]:
            raise InterventionError(
                f"forecast: {name!r} has a dose at {bound.clock.label(early[0])}, before the forecast begins at "
                f"{bound.clock.label(bound.start)}. Times count on the clock of the record: the forecast goes on from its end."
            )
