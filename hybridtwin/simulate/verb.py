"""Simulate a system on a record: the third of the three verbs, without personalization."""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.flatten_util import ravel_pytree

from hybridtwin.engine import Lanes
from hybridtwin.errors import DeclarationError, InterventionError, ParameterError, PastHorizon
from hybridtwin.interventions import Do, Rescue, When, World, enact
from hybridtwin.simulate.events import OVERFLOW
from hybridtwin.simulate.mesh import LAST, Layout, Mesh, bucket, lay, layout_of, override_columns, pad
from hybridtwin.simulate.noise import NOISY, NOISY_STEPS, keys_of
from hybridtwin.simulate.rules import acts_of, overflowed, told
from hybridtwin.simulate.run import solve_draws
from hybridtwin.simulate.solve import Extras, first, observer, states
from hybridtwin.simulate.steppers import RK4, AbstractStepper, Adaptive, Exact, Repeated
from hybridtwin.simulate.stiff import Rosenbrock
from hybridtwin.simulate.trajectory import Trajectory
from hybridtwin.units import time_factor

_POINTS = 400  # default number of output times
_STEP = 0.25  # first step on the mesh, in units of the fastest time constant: fine enough that few need to be halved
_WATCHED = 1000  # pieces over which rules of care are watched where steps have no length of their own
_AFFORDABLE = 20_000  # mesh segments above which an adaptive stiff solver is the cheaper way


def simulate(
    system, person, *, at=None, start="free", solver=None, tol=None, draws=None, key=None, do=()
) -> Trajectory:
    """What a body would do under the inputs of a record.

    **Arguments:**

    - `system`: a `System`. With a number in every leaf there is one answer; with priors, `draws` bodies are drawn from
      them by `key` (a `jax.random` key or an integer).
    - `person`: the record: its doses, signals and covariates are used, its readings are not.
    - `at`: times of output: numbers in the record's unit of time or clock text; or readings (anything with `.time` and
      `.order`, such as `person.series["C"]`), which keep their place in the record's order. Default: the system's
      `grid`, or 400 points over the record. A time after the record lengthens it.
    - `start`: "free" (the system's `initial`) or "steady" (at rest under the inputs of the first moment).
    - `solver`: a stepper such as `Adaptive(stiff=True)`; by default exact for linear systems under piecewise constant
      signals, else Runge-Kutta on the mesh, whose steps are halved until no output changes by more than `tol` of its
      largest value (1e-4; 1e-2 for a system with process noise, whose paths are the same whatever the steps).
    - `do`: interventions, `Do(...)` values in order; `Rescue` and `When` among them are rules of care.

    **Returns:** a `Trajectory` of all outputs and states, float64; a draw that could not be solved is NaN, counted in
    `failed` and explained in `notes`.

    **Raises:** ParameterError (a prior without `draws`), PastHorizon, and what binding a record or `do` raises.
    """
    spec, priors = system.spec, system.priors()
    _check_request(system, priors, start, draws, key)
    tol = tol or (NOISY if spec.noise else 1e-4)
    with jax.enable_x64(True):
        bound, reads, late = _bind(spec, person, at)
        lived = World(bound.inputs, bound.start, bound.stop, bound.resets)
        rules = [part for part in do if isinstance(part, Rescue | When)]
        world = enact(lived, [part for part in do if isinstance(part, Do)], spec, bound.clock, rules)
        layout = layout_of([world], spec, varying=_varying(spec), latents=len(bound.latent), noise=True)
        lanes = _lanes(system, priors, bound, world, layout, 1 if draws is None else draws, key)
        stepper, step, notes = _stepper(system, world, layout, solver, bound)
        edges = {group: np.asarray(bound.occasion_edges(group), float) for _, group in layout.varying}
        mesh = lay([lived, world] if do else [world], spec, layout, reads, max_step=step, occasions=edges)[-1]
        mesh = pad(mesh, bucket(len(mesh.t)), len(mesh.read), len(mesh.moving.time))
        names = (*spec.outputs, *(path for path in spec.states if path not in spec.outputs))
        leaves, tree = jax.tree.flatten(system.with_values(dict.fromkeys(lanes["values"], 0.0)))

        program = _program(tree, layout, stepper, names, start, tuple(lanes["values"]))
        body = {"mesh": mesh, "leaves": [np.asarray(a) for a in leaves]}
        solved = solve_draws(program, [lanes], [body], refine=stepper.refined() is not None, tol=tol)
    units = {name: (spec.outputs.get(name) or spec.states[name]).unit for name in names}
    time = np.array([t for t, _ in reads], float)
    acts = acts_of(world, layout, jax.tree.map(lambda a: a[0], solved.acts), mesh.t)
    notes = [
        *late,
        *world.notes,
        *notes,
        *overflowed(world, solved.code),
        *_failures(solved, time, bound.clock, tol),
        *(told(act, bound.clock, solved.failed) for act in acts),
    ]
    return Trajectory(
        time,
        {name: solved.values[0, :, :, m] for m, name in enumerate(names)},
        units,
        bound.clock,
        np.zeros(len(solved.failed), int),
        solved.failed,
        _worst(solved),
        "; ".join(map(str, do)) or "as lived",
        tuple(notes),
        acts,
    )


def _check_request(system, priors, start, draws, key):
    if start not in ("free", "steady"):
        raise DeclarationError(
            f'start is "free" or "steady", not {start!r}. "steady" begins at rest under the first inputs.'
        )
    if system.spec.noise and (draws is None or key is None):
        raise ParameterError(
            f"{type(system).__name__} has process noise: which path? Give draws= and key= to draw paths."
        )
    if priors and (draws is None or key is None):
        raise ParameterError(
            f"{type(system).__name__} has priors ({', '.join(list(priors)[:4])}, ...): which body? Give "
            "draws= and key= to draw bodies, or system.typical() for the body of medians."
        )
    for path, field, value in system.fields():
        if value is None:
            raise ParameterError(
                f"{type(system).__name__}.{path} has no value. Give a number in {field.unit} or a prior."
            )


def _bind(spec, person, at):
    """The bound record, spanning all output times, the (time, rank) of the readings wanted, and notes."""
    clock = person.clock
    if at is not None and hasattr(at, "order"):
        times, ranks = np.asarray(at.time, float), [int(order) + 1 for order in at.order]
    elif at is not None:
        times = np.array([clock.at(t) for t in np.atleast_1d(np.asarray(at, object))], float)
        ranks = [LAST] * len(times)
    else:
        scale = time_factor(clock.unit, spec.time)
        wanted = round((clock.stop - clock.start) * scale / spec.grid) if spec.grid else _POINTS - 1
        times, ranks = np.linspace(clock.start, clock.stop, max(wanted, 1) + 1), [LAST] * (max(wanted, 1) + 1)
    if not len(times):
        raise InterventionError("at= names no time. Give at least one, or leave it out for a grid over the record.")
    if np.min(times) < clock.start:
        raise PastHorizon(
            f"at= asks for {clock.label(float(np.min(times)))}, before the record starts at "
            f"{clock.label(clock.start)}. Give the record an earlier start=."
        )
    if np.max(times) > clock.stop:
        person = dataclasses.replace(person, clock=clock.spanning(clock.start, float(np.max(times))))
    bound = person.bind(spec)
    if spec.horizon is not None and bound.stop - bound.start > spec.horizon * (1 + 1e-9):
        raise PastHorizon(
            f"{spec.name} is declared valid for {spec.horizon:g} {spec.time}; this simulation spans "
            f"{bound.stop - bound.start:g}. Cut the record with person.between(...), or ask for earlier times."
        )
    if bound.start == bound.stop:
        raise PastHorizon("the record spans no time. Give it stop=, or output times with at=.")
    early = sum(dose.time < bound.start for name in spec.doses for dose in bound.inputs[name].doses)
    notes = (
        [f"{early} doses before the start of the record are not simulated, except what still runs of them"]
        if early
        else []
    )
    scale = time_factor(clock.unit, spec.time)
    return bound, [(float(t) * scale, rank) for t, rank in zip(times, ranks, strict=True)], notes


def _varying(spec):
    return tuple((path, field.varies) for path, field in spec.parameters.items() if field.varies is not None)


@functools.lru_cache(maxsize=128)
def _jacobian(tree):
    """Compiled: (leaves of a system, inputs by name) -> Jacobian of its rates at its initial state."""

    @jax.jit
    def find(leaves, inputs):
        system = jax.tree.unflatten(tree, leaves)
        u = system.spec.input(inputs)
        flat, unravel = ravel_pytree(jax.tree.map(lambda leaf: jnp.asarray(leaf, float), system.initial(u)))
        return jax.jacfwd(lambda v: ravel_pytree(system.rates(0.0, unravel(v), u))[0])(flat)

    return find


def fastest_rate(system, inputs=()) -> float:
    """Largest rate constant at typical values and at these inputs ((name, value), ...), per system time."""
    leaves, tree = jax.tree.flatten(system.typical())
    with jax.enable_x64(True):
        leaves = [np.asarray(leaf, float) if np.ndim(leaf) == 0 else leaf for leaf in leaves]
        given = {**dict.fromkeys(system.spec.covariates, 1.0), **dict(inputs)}
        jacobian = np.asarray(_jacobian(tree)(leaves, {name: np.float64(value) for name, value in given.items()}))
    return float(np.max(np.abs(np.linalg.eigvals(np.where(np.isfinite(jacobian), jacobian, 0.0))), initial=0.0))


def _stepper(system, world, layout, solver, bound) -> tuple[AbstractStepper, float, list[str]]:
    """The stepper, the longest segment and what to say about the choice."""
    spec, span = system.spec, bound.stop - bound.start
    whole = span + 1.0
    if layout.noise and isinstance(solver, Adaptive | Exact):
        raise DeclarationError(f"{spec.name} has process noise, which is simulated in steps. Leave solver= out, or give RK4().")
    free = span / _WATCHED if layout.triggered else whole
    if isinstance(solver, Adaptive):
        return solver, free, []
    flat = all(world.inputs[name].stepwise for name in spec.signals) and all(c.signal.stepwise for c in world.clamps)
    exact = max(_step_of(system, world, bound), span / _AFFORDABLE) if layout.triggered else whole
    if solver is None and spec.linear and flat and not layout.noise:
        return Exact.of(spec), exact, []
    if isinstance(solver, Exact):
        if not (spec.linear and flat):
            raise DeclarationError(
                f"{spec.name} is not linear with piecewise constant signals, so it has no exact steps. "
                "Leave solver= out."
            )
        return solver, exact, []
    step = _step_of(system, world, bound)
    step = min(2.0 ** math.floor(math.log2(step)), whole)  # few distinct meshes, so that bodies share compiled programs
    if layout.noise:
        stiff = span / step > _AFFORDABLE
        return solver or (Rosenbrock() if stiff else RK4(1)), min(max(step, span / _AFFORDABLE), span / NOISY_STEPS), []
    if solver is None and span / step > _AFFORDABLE:
        return Adaptive(stiff=True), free, ["stiff: solved by an adaptive implicit method (Kvaerno5)"]
    return solver or RK4(1), max(step, span / _AFFORDABLE), []


def _step_of(system, world, bound) -> float:
    """An accurate first step of explicit methods; rules that act at the moment itself are watched over such steps."""
    inputs = {name: float(world.inputs[name](bound.start)) for name in (*system.spec.covariates, *system.spec.signals)}
    return _STEP / max(fastest_rate(system, inputs), 1e-12)


def _lanes(system, priors, bound, world, layout: Layout, count, key) -> dict[str, Any]:
    """Numbers of each lane, L of them: parameters, latent amounts and times, values that `do` sets."""
    key = jax.random.key(key) if isinstance(key, int | np.integer) else key
    folded = (lambda i: jax.random.fold_in(key, i)) if key is not None else None
    spec = system.spec
    values = {}
    for i, (path, _, leaf) in enumerate(system.fields()):
        drawn = isinstance(leaf, dist.Distribution)
        values[path] = np.asarray(leaf.sample(folded(i), (count,)) if drawn else np.broadcast_to(leaf, (count,)), float)
    overrides = np.zeros((count, len(layout.overridden)))
    for o, column in zip(world.overrides, override_columns(world, layout), strict=True):
        overrides[:, column] = np.asarray(o.change(values[o.path]) if callable(o.change) else o.change)

    def deviations(i, size):
        return (
            np.asarray(jax.random.normal(folded(10_000 + i), (count, size), float))
            if priors
            else np.zeros((count, size))
        )

    for i, (path, group) in enumerate(layout.varying):
        spread = spec.parameters[path].spread
        if isinstance(spread, dist.Distribution):
            spread = np.asarray(spread.sample(folded(20_000 + i), (count, 1)), float) if priors else 0.0
        values[path] = values[path][:, None] * np.exp(spread * deviations(i, 1 + len(bound.occasion_edges(group))))
    sds = [np.array([getattr(event, name) for event in bound.latent], float) for name in ("amount_sd", "time_sd")]
    amounts, shifts = (sd * deviations(100 + i, len(bound.latent)) for i, sd in enumerate(sds))
    noise = keys_of(folded(30_000), np.arange(count)) if layout.noise and folded else None
    return {"values": values, "extras": Extras(np.exp(amounts), shifts, overrides, noise)}


@functools.lru_cache(maxsize=128)
def _program(tree, layout: Layout, stepper, names, start, paths):
    """Compiled: (lanes (TILE, ...), world, sub-steps) -> (values (TILE, N, M), `Acts`).

    Static is only what shapes the program; every number, those of fixed parameters too, is an argument.
    """

    def lane(lanes, world, substeps):
        mesh: Mesh = world["mesh"]
        system = jax.tree.unflatten(tree, world["leaves"]).with_values({path: lanes["values"][path] for path in paths})
        extras = lanes["extras"]
        here, u = first(system, layout, mesh, extras)
        x0 = here.steady(u) if start == "steady" else here.initial(u)
        path, acts = states(system, layout, Repeated(stepper, substeps), mesh, x0, extras, observer(names))
        return path[mesh.read], acts

    return Lanes(lane, (0, None, None))


def _worst(solved) -> float:
    fine = solved.error[~solved.failed]
    return float(np.max(fine)) if fine.size else math.inf


def _failures(solved, time, clock, tol) -> list[str]:
    """What to say about draws that failed, and about those that missed the tolerance."""
    notes, failed = [], solved.failed & (solved.code != OVERFLOW)
    if failed.any():
        blown = failed & (solved.reach < len(time))
        if blown.any():
            when = clock.label(float(time[solved.reach[blown].min()]))
            notes.append(
                f"{int(blown.sum())} of {len(failed)} draws left the finite numbers, the first by {when}; they are "
                "NaN. Look at their parameters, or try solver=Adaptive(stiff=True)."
            )
        rest = int((failed & ~blown).sum())
        if rest:
            notes.append(
                f"{rest} of {len(failed)} draws did not settle when the steps were halved five times; they are NaN. "
                "Try solver=Adaptive(stiff=True)."
            )
    loose = int((~solved.failed & (solved.error > tol)).sum())
    if loose:
        notes.append(
            f"{loose} of {len(failed)} draws have an error above tol = {tol:g} (at most {_worst(solved):.1g}). "
            "Try solver=Adaptive()."
        )
    return notes
