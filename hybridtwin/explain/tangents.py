"""Derivatives of a simulated day, draw by draw: forward mode through the mesh, along directions of parameters and inputs.

The lane of a world (`worlds`) is a function of the draw and of the arrays of its mesh. A parameter is a direction of the draw. An
amount, a time of a dose or a level of a signal is a direction of the mesh: its arrays, node times among them, are linear in each
of these as long as no two events change places, so the host lays the mesh at one and at two small steps and takes their
difference, which is the derivative but for rounding. What is differentiated is the world just after the step, in which an event
that falls together with others stands behind them: the derivative of a time is that of moving it later.

**A jump that is each draw's own.** A bolus with a lag (or an uncertain time) jumps between two times at which the curve is read.
Where the outcome reads the state that jumps, what moving it does to areas, peaks and times stands in no derivative of the curve
at these times: such a derivative is not told (`Tangent.torn`).
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from hybridtwin import worlds as house
from hybridtwin.engine import Lanes, double
from hybridtwin.errors import InterventionError
from hybridtwin.fit import Fit
from hybridtwin.interventions import Course, Override, World
from hybridtwin.kernel import Data
from hybridtwin.measures import First, Last
from hybridtwin.outcomes import Outcome
from hybridtwin.simulate.run import solve_draws, tile
from hybridtwin.simulate.solve import arrivals
from hybridtwin.simulate.stiff import Rosenbrock
from hybridtwin.simulate.trajectory import Trajectory

_STEP = 1e-4  # of an amount or level, relative; meshes are linear in it, so its size matters only for rounding
_LATER = 1e-5  # of the day, by which a dose is moved to find the direction of its time
_RETRIES = 4  # smaller steps tried where two events change places
_TOLERANCE = 2e-3  # of curves and slopes when the steps are halved; where rates have a kink slopes settle slowly
_ALONG = 1e-6  # how far an outcome is moved along a derivative, relative to the largest value of its output


@dataclasses.dataclass(frozen=True, eq=False)
class Direction:
    """One thing that can be a little more: a parameter (by path), or an input by `change(world, step)`.

    `kind`: parameter, amount, time, level or scale; `scale`: the size of a step where `change` is not relative.
    """

    kind: str
    name: str
    label: str
    unit: str
    value: float = float("nan")
    start: float | None = None
    change: Callable[[World, float], World] | None = None
    step: float = _STEP


@dataclasses.dataclass(frozen=True, eq=False)
class Tangent:
    """The outcome (draws,) and its derivative (draws,) along one direction, in the outcome's unit per the direction's.

    `torn`: it moves a jump of the curve that lies at another time in each draw, and is not known (NaN).
    """

    direction: Direction
    outcome: np.ndarray
    slope: np.ndarray
    torn: bool = False


def _same(value):
    return value


@functools.lru_cache(maxsize=32)
def _program(kernel, names: tuple[str, ...], given_start: bool):
    """Compiled: (draws and their directions, mesh and its direction, sub-steps) -> `Course` whose outputs are followed by their
    derivatives, so that these are checked by halving the steps, too.
    """
    lane = house._program(kernel, names, given_start)._f

    def both(draw, data, substeps):
        real, rest = eqx.partition((draw["at"], data["at"]), eqx.is_inexact_array)
        along = jax.tree.map(
            lambda r, a: None if r is None else a, real, (draw["along"], data["along"]), is_leaf=lambda leaf: leaf is None
        )

        def course(real):
            at, mesh = eqx.combine(real, rest)
            found = lane(at, mesh, substeps)
            return found.values, found

        values, slopes, found = jax.jvp(course, (real,), (along,), has_aux=True)
        count = len(values)
        most = jnp.max(jnp.where(jnp.isfinite(slopes), jnp.abs(slopes), 0.0), axis=1)
        size = jnp.concatenate([found.size[:count], most, found.size[count:]])
        return found._replace(values=jnp.concatenate([values, slopes]), size=size)

    return Lanes(both, (0, None, None))


class _Day:
    """The world of one structure, ready to be differentiated."""

    def __init__(self, twin, which: int, names: tuple[str, ...], draws: int):
        self.fit: Fit = twin.fits[which]
        self.day, self.names, self.twin = twin.days[which], names, twin
        world, spec = twin.world(which), self.fit.model.spec
        sites = {s.name for s in self.fit.kernel.sites}
        taken = {o.path for o in world.overrides}
        self.fixed = tuple(p for p in spec.parameters if p not in sites and p not in taken and p not in self._varying())
        extra = tuple(Override(p, _same, -np.inf, np.inf) for p in self.fixed)
        self.world = dataclasses.replace(world, overrides=(*world.overrides, *extra))
        self.draws = draws
        if any(isinstance(clamp.signal, Course) for clamp in world.clamps):
            raise InterventionError(
                "explain: a state follows its course in another world here, and derivatives do not follow it there. "
                "Explain a world in which it is free, or held to a signal."
            )

    def _varying(self):
        return {path for path, _ in self.fit.model.varying}

    def lanes(self, kernel):
        """The draws as `worlds.solve` has them, without those parts that depend on the world."""
        fit, day = self.fit, self.day
        total = fit.count
        given = not isinstance(day.start, str)
        index, x0 = house._paired(day.start, total, self.draws) if given else (house.thinned(total, self.draws), {})
        values = {n: np.asarray(v, float) for n, v in house.values_of(fit, day, kernel, index, False, self.twin.key).items()}
        found: dict[str, Any] = {"values": values, "x0": x0}
        if kernel.layout.noise:
            found["noise"] = house._noise_keys(fit, index, False, self.twin.key)
        return found, len(index), given

    def overridden(self, kernel, values, world):
        """(L, P) values of overridden parameters."""
        return house.overridden([world], kernel, values)[:, 0]


def _laid(day: _Day, world, kernel, choice, longest):
    """The mesh of a world, and the times at which it is read."""
    bound, spec = day.day.bound, day.fit.model.spec
    reads = house.reading_times([world], spec, (bound.start, bound.stop))
    edges = {g: np.asarray(bound.occasion_edges(g), float) for _, g in kernel.model.varying}
    how = {"max_step": longest, "occasions": edges, "knots": choice.knots, "drive": choice.drive}
    mesh = house.lay([world], spec, kernel.layout, reads, **how)[0]
    return mesh, np.array([t for t, _ in reads])


def _alike(one, two) -> bool:
    """Have two meshes the same events in the same order?"""
    first, second = jax.tree.leaves(one), jax.tree.leaves(two)
    return all(
        a.shape == b.shape and (a.dtype.kind == "f" or np.array_equal(a, b)) for a, b in zip(first, second, strict=True)
    )


def _extrapolated(one, two, step):
    """(base, direction) of arrays that are linear in a step, from those at one and at two steps."""

    def base(a, b):
        return np.where(np.isfinite(a), 2.0 * a - np.where(np.isfinite(a), b, 0.0), a) if a.dtype.kind == "f" else a

    def along(a, b):
        if a.dtype.kind != "f":
            return np.zeros(a.shape)
        return np.where(np.isfinite(a), (np.where(np.isfinite(a), b - np.where(np.isfinite(a), a, 0.0), 0.0)) / step, 0.0)

    with np.errstate(invalid="ignore"):
        return jax.tree.map(base, one, two), jax.tree.map(along, one, two)


def _moved(day, direction, kernel, choice, longest):
    """Mesh, its direction, times and their direction, of one direction of the inputs. None where events change places."""
    step = direction.step
    for _ in range(_RETRIES):
        (one, t1), (two, t2) = (
            _laid(day, direction.change(day.world, k * step), kernel, choice, longest) for k in (1.0, 2.0)
        )
        if len(t1) == len(t2) and _alike(one, two):
            mesh, along = _extrapolated(one, two, step)
            time, late = _extrapolated(t1, t2, step)
            return mesh, along, time, late
        step /= 7.0
    return None


def derivatives(
    twin, which: int, outcomes: Sequence[Outcome], directions: Sequence[Direction], draws: int
) -> list[list[Tangent]]:
    """Outcomes of one structure and their derivatives along each direction, for `draws` draws, from one solution.

    **Returns:** for each outcome a `Tangent` for each direction, in their order; NaN for draws that could not be solved.
    **Raises:** InterventionError where an input cannot be moved at all because other events stand too close.
    """
    fit = twin.fits[which]
    own = all(outcome.name for outcome in outcomes)
    names = tuple(dict.fromkeys(o.name for o in outcomes)) if own else tuple(fit.model.spec.outputs)
    day = _Day(twin, which, names, draws)
    stepped = [d.change(day.world, d.step) for d in directions if d.change is not None]
    with double():
        kernel, choice = house.kernel_of(fit, day.day, [day.world, *stepped])
        lanes, _, given = day.lanes(kernel)
        span = day.day.bound.stop - day.day.bound.start
        longest = house.longest(choice.step, span, kernel.layout, fit.model.spec)
        tol = max(_TOLERANCE, house.NOISY if kernel.layout.noise else 0.0)
        plain, times = _laid(day, day.world, kernel, choice, longest)
        still = jax.tree.map(lambda a: np.zeros(a.shape), plain)
        parts = []
        for d in directions:
            found = (plain, still, times, np.zeros(len(times))) if d.change is None else _moved(day, d, kernel, choice, longest)
            if found is None:
                raise InterventionError(
                    f"explain: {d.label} cannot be moved: other events stand too close to it. Give these at one time, or leave "
                    "this input out with inputs=(...)."
                )
            parts.append(found)
        each, datas = _joined(day, kernel, lanes, directions, parts)
        jumps = [_jumps(kernel, one, data) for one, data in zip(each, datas, strict=True)]
        program = _program(kernel, names, given)

        def stable():
            return _program(dataclasses.replace(kernel, stepper=Rosenbrock()), names, given), datas

        width = tile(len(fit.model.spec.states))
        refine = kernel.stepper.refines
        other = stable if kernel.stepper.replaceable else None
        solved = solve_draws(program, each, datas, refine=refine, tol=tol, instead=other, width=width)
    found: list[list[Tangent]] = [[] for _ in outcomes]
    for w, (d, (_, _, time, late)) in enumerate(zip(directions, parts, strict=True)):
        values = solved.values[w][:, : len(time)]
        curves = values[..., : len(names)], values[..., len(names) :]
        for outcome, row in zip(outcomes, found, strict=True):
            row.append(_outcome(twin, fit, outcome, d, names, (time, late), curves, jumps[w]))
    return found


def _jumps(kernel, lanes, data) -> list[tuple[str, np.ndarray]]:
    """(dose, times of arrival (draws,)) of the boluses that arrive at a time of each draw's own, and arrive later along a
    direction.
    """
    mesh = data["at"].mesh.moving
    if not kernel.layout.moving or not len(mesh.time):
        return []
    parts = [({n: lane[n] for n in ("values", "overrides")}, data[way]) for way, lane in lanes.items()]
    parts = jax.tree.map(jnp.asarray, parts)
    real, rest = eqx.partition(parts[0], eqx.is_inexact_array)
    along = jax.tree.map(lambda r, a: None if r is None else a, real, parts[1], is_leaf=lambda leaf: leaf is None)

    def when(draw):
        draw, own = eqx.combine(draw, rest)
        extras = kernel.extras(draw["values"], own, draw["overrides"])
        return arrivals(kernel.system_of(draw["values"]), kernel.layout, own.mesh, extras)[0]

    def each(draw, by):
        return jax.jvp(when, ((draw, real[1]),), ((by, along[1]),))

    times, late = (np.asarray(x) for x in jax.vmap(each)(real[0], along[0]))
    at_once = (mesh.duration == 0) & (mesh.rate == 0) & (mesh.modelled == 0) & (mesh.amount != 0)
    routes = list(kernel.model.spec.routes)
    return [(routes[mesh.route[m]], times[:, m]) for m in np.flatnonzero(at_once & np.any(late != 0, axis=0))]


def _torn(spec, outcome, trajectory, jumps) -> bool:
    """Does the curve that an outcome reads over its window jump there, in some draw, at one of these arrivals?"""
    if isinstance(outcome.measure, First | Last):
        return False  # a value at a time that stays
    start, stop = outcome.window(trajectory) if outcome.name else (trajectory.time[0], trajectory.time[-1])
    seen = [outcome.name] if outcome.name else list(spec.outputs)
    for dose, times in jumps:
        into = f"x.{spec.doses[dose].into}"
        reads = any(f"x.{n}" == into or (into, f"y.{n}") in spec.edges for n in seen)
        if reads and np.any((times >= start) & (times <= stop)):
            return True
    return False


def _joined(day, kernel, lanes, directions, parts):
    """What the program is given for each direction: draws with their directions, meshes of one shape with theirs."""
    latent = day.day.bound.latent
    sds = [np.array([getattr(e, name) for e in latent], float) for name in ("amount_sd", "time_sd")]
    places = [np.where(sd > 0, np.cumsum(sd > 0) - 1, -1).astype(np.int32) for sd in sds]
    width = max(house.bucket(len(mesh.t)) for mesh, *_ in parts)
    reads = max(house.bucket(len(time)) for _, _, time, _ in parts)
    moving = max(len(mesh.moving.time) for mesh, *_ in parts)
    count = len(next(iter(lanes["values"].values()), np.zeros(day.draws)))
    extra = {"sets": house.settings([day.world], kernel.layout, count)[0]}
    each, datas = [], []
    for d, (mesh, along, _, _) in zip(directions, parts, strict=True):
        values = lanes["values"]
        slopes = {n: np.zeros_like(v) for n, v in values.items()}
        at = day.overridden(kernel, values, day.world)
        over = np.zeros_like(at)
        if d.kind == "parameter":
            if d.name in slopes:
                slopes[d.name][:] = 1.0
                size = _STEP * (np.abs(values[d.name]) + 1e-12)
                up, down = (
                    day.overridden(kernel, values | {d.name: values[d.name] + sign * size}, day.world) for sign in (1.0, -1.0)
                )
                over = (up - down) / (2.0 * size[:, None])
            else:
                over[:, kernel.layout.overridden.index(d.name)] = 1.0
        draw = lanes | extra | {"overrides": at}
        zero = {k: jax.tree.map(lambda a: np.zeros(np.shape(a)), v) for k, v in draw.items()}
        each.append({"at": draw, "along": zero | {"values": slopes, "overrides": over}})
        padded = [house.pad(m, width, reads, moving) for m in (mesh, along)]
        padded[1] = jax.tree.map(lambda a: np.where(np.isfinite(a), a, 0.0), padded[1])  # no cut: infinity stays where it is
        datas.append({"at": Data(padded[0], {}, {}, sds[0], places[0], sds[1], places[1]),
                      "along": Data(padded[1], {}, {}, np.zeros_like(sds[0]), np.zeros(len(latent)), np.zeros_like(sds[1]),
                                    np.zeros(len(latent)))})  # fmt: skip
    return each, datas


def _outcome(twin, fit, outcome, direction, names, clock, curves, jumps) -> Tangent:
    """The outcome's own derivative along that of the curves: a difference of the outcome alone, nothing is solved again."""
    (time, late), (values, slopes) = clock, curves
    units = {n: fit.model.unit_of(n) for n in names}
    failed = ~np.isfinite(values).all(axis=(1, 2))

    def moved(step):
        course = {n: (values + step * slopes)[:, :, i] for i, n in enumerate(names)}
        structure = np.full(len(values), fit.model.name)
        return Trajectory(time + step * late, course, units, twin.clock, structure, failed, 0.0)

    def at(step):
        return outcome.of(moved(step))

    with np.errstate(invalid="ignore"):
        most = np.nanmax(np.abs(slopes), initial=0.0)
        size = np.nanmax(np.abs(values), initial=0.0)
    limits = [_ALONG * size / most] if most > 0 else []
    limits += [_ALONG * (time[-1] - time[0]) / np.max(np.abs(late))] if np.any(late) else []
    here = at(0.0)
    if jumps and _torn(fit.model.spec, outcome, moved(0.0), jumps):
        return Tangent(direction, here, np.full(len(values), np.nan), torn=True)
    if not limits:
        return Tangent(direction, here, np.where(failed, np.nan, 0.0))
    step = min(limits)
    if np.any(late):  # times may only move the way that the direction moves them
        slope = (4.0 * at(step) - at(2.0 * step) - 3.0 * here) / (2.0 * step)
    else:
        slope = (at(step) - at(-step)) / (2.0 * step)
    return Tangent(direction, here, np.where(failed, np.nan, slope))
