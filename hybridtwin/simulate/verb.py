"""Simulate a system on a record: the third of the three verbs, without personalization."""

import dataclasses
import functools
import math
from typing import Any

import jax
import numpy as np
import numpyro.distributions as dist

from hybridtwin.clock import is_real
from hybridtwin.dosing import Correct
from hybridtwin.engine import Lanes
from hybridtwin.errors import DeclarationError, InterventionError, ParameterError, PastHorizon
from hybridtwin.fields import check_range
from hybridtwin.interventions import Do, Rescue, Titrate, When, World, enact
from hybridtwin.keys import as_key, folded
from hybridtwin.rest import checked_start
from hybridtwin.simulate.course import course
from hybridtwin.simulate.failures import failures
from hybridtwin.simulate.layout import Layout, Mesh, bucket, pad, striding
from hybridtwin.simulate.mesh import lay, layout_of, override_columns, set_columns
from hybridtwin.simulate.noise import NOISY, NOISY_STEPS, keys_of
from hybridtwin.simulate.pilot import GAIN, WATCHED, Choice, Pilot, looked, settled
from hybridtwin.simulate.rules import LAST, acts_of, overflowed, told
from hybridtwin.simulate.run import solve_draws, tile
from hybridtwin.simulate.solve import Extras, first
from hybridtwin.simulate.steppers import RK4, AbstractStepper, Adaptive, Exact, Repeated
from hybridtwin.simulate.stiff import Controlled, Rosenbrock, sized
from hybridtwin.simulate.trajectory import Trajectory
from hybridtwin.units import time_factor

_RULES = Rescue | Titrate | When | Correct
_POINTS = 400  # default number of output times
_LOOKS = 200  # stretches between looks where output times are given
_STEP = 0.25  # first step on the mesh, in units of the fastest time constant: fine enough that few need to be halved
_MANY = 2_000  # mesh segments above which it is worth a look whether a stiff method needs fewer
_AFFORDABLE = 20_000  # mesh segments that an explicit method may take


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
    - `start`: "free" (the system's `initial`) or "steady" (at rest under the first inputs; refused where there is no rest).
    - `solver`: a stepper such as `Adaptive(stiff=True)`; by default exact for linear systems under piecewise constant
      signals, else Runge-Kutta on the mesh, whose steps are halved until no output changes by more than `tol` of its
      largest value (1e-4; 1e-2 for a system with process noise, whose paths are the same whatever the steps).
    - `do`: interventions, one or several `Do(...)` in order; `Rescue`, `When`, `Titrate`, `Correct` among them are rules of care.

    **Returns:** a `Trajectory` of all outputs and states, float64; a draw that could not be solved is NaN, marked in
    `failed` and explained in `failures` (time, state, reason, most unusual parameter).

    **Raises:** ParameterError (a prior without `draws`), DeclarationError (what is asked wrongly), PastHorizon, and what
    binding a record or `do` raises.
    """
    if isinstance(system, type):
        raise DeclarationError(f"simulate takes a body, not its class. Write {system.__name__}()")
    spec, priors = system.spec, system.priors()
    do = (do,) if isinstance(do, Do | _RULES) else tuple(do)
    _check_request(system, priors, start, draws, key)
    _check_how(solver, tol, do)
    tol = (NOISY if spec.noise else 1e-4) if tol is None else float(tol)
    with jax.enable_x64(True):
        bound, reads, late = _bind(spec, person, at)
        lived = World(bound.inputs, bound.start, bound.stop, bound.resets)
        rules = [part for part in do if isinstance(part, _RULES)]
        edges = {path: tuple(map(float, bound.occasion_edges(group))) for path, group in _varying(spec)}
        world = enact(lived, [part for part in do if isinstance(part, Do)], spec, bound.clock, rules, edges=edges)
        worlds = [lived, world] if do else [world]
        layout = layout_of(worlds, spec, varying=_varying(spec), latents=len(bound.latent), noise=True)
        lanes = _lanes(system, priors, bound, world, layout, 1 if draws is None else draws, key)
        choice = _choice(system, lived, world, solver, start, layout)
        layout = striding(layout, choice.stepper)
        names = (*spec.outputs, *(path for path in spec.states if path not in spec.outputs))
        looks = [] if at is None else _looks(choice, lived.start, max(t for t, _ in reads), spec)
        mesh, solved = _solved(system, bound, (worlds, layout, reads, looks), choice, lanes, names, start, tol)
    units = {name: (spec.outputs.get(name) or spec.states[name]).unit for name in names}
    time = np.array([t for t, _ in reads], float)
    acts = acts_of(world, layout, jax.tree.map(lambda a: a[0], solved.acts), mesh.t, {n: f.unit for n, f in spec.doses.items()})
    rows = failures(
        solved,
        person=person.id,
        times=time,
        nodes=[mesh.t],
        names=names,
        states=tuple(spec.states),
        clock=bound.clock,
        priors=priors or _declared(system),
        values=lanes["values"],
        resting=[*mesh.steady.node, *([0] if start == "steady" else [])],
        rules=layout.rules,
    )
    acted = [told(act, bound.clock, solved.failed) for act in acts]
    values = {name: solved.values[0, :, :, m] for m, name in enumerate(names)}
    return Trajectory(
        time,
        values,
        units,
        bound.clock,
        np.zeros(len(solved.failed), int),
        solved.failed,
        _worst(solved),
        "; ".join(map(str, do)) or "as lived",
        (*late, *world.notes, *overflowed(world, solved.code, spec), *rows.told(), *_below(spec, values), *acted),
        acts,
        rows,
        lanes["values"],
        choice.told(spec.time),
    )


def _below(spec, values) -> list[str]:
    """A note on each state that goes below its declared bound: lanes are then solved by the last resort, which is slow."""
    seen, notes = {name: np.nan_to_num(v) for name, v in values.items()}, []
    largest = np.max([np.max(np.abs(v), axis=1) for v in seen.values()], axis=0)
    for path, state in spec.states.items():
        if state.low is None or path in spec.outputs:
            continue
        depth, size = state.low - np.min(seen[path], axis=1), np.max(np.abs(seen[path]), axis=1)
        fell = int(np.sum((depth > 1e-3 * size) & (depth > 1e-12 * largest)))
        if fell:
            told = f"{path} goes below {state.low:g} in {fell} of {len(depth)} draws"
            notes.append(f"{told}. Declare it positive=False, or mend the rates")
    return notes


def _solved(system, bound, laid, choice, lanes, names, start, tol):
    """The mesh of the last of `laid`'s worlds (worlds, layout, readings, looks), and every lane solved on it."""
    spec, (worlds, layout, reads, looks) = system.spec, laid
    edges = {group: np.asarray(bound.occasion_edges(group), float) for _, group in layout.varying}

    def mesh_of(step, knots):
        mesh = lay(worlds, spec, layout, [*reads, *looks], max_step=step, occasions=edges, knots=knots)[-1]
        return pad(mesh, bucket(len(mesh.t)), len(mesh.read), len(mesh.moving.time))

    mesh = mesh_of(choice.step, choice.knots)
    leaves, tree = jax.tree.flatten(system.with_values(dict.fromkeys(lanes["values"], 0.0)))

    def program(stepper):
        return _program(tree, layout, stepper, names, start, tuple(lanes["values"]))

    body = {"mesh": mesh, "leaves": [np.asarray(a) for a in leaves]}

    def other():  # steps find their own length, but what is watched or random is looked at as often
        held = layout.rules or layout.noise or spec.timed
        return program(Controlled()), [body if held else body | {"mesh": mesh_of(2.0 * (bound.stop - bound.start), ())}]

    if choice.size:
        lanes = lanes | {"size": np.broadcast_to(choice.size, (len(lanes["extras"].sets), len(choice.size)))}
    instead = other if choice.stepper.replaceable else None
    refine, cost = choice.stepper.refines, choice.stepper.cost(len(spec.states))
    how: dict[str, Any] = {"width": tile(len(spec.states), cost), "cost": int(np.sum(mesh.steps)) * cost}
    how |= {"shown": len(reads)} if looks else {}
    solved = solve_draws(program(choice.stepper), [lanes], [body], refine=refine, tol=tol, instead=instead, **how)
    return mesh, solved


def _looks(choice, start, stop, spec) -> list[tuple[float, int]]:
    """(time, rank) of looks at a body between the few readings that are asked for, by which two solutions are compared, too.

    Rates that jump (a window of the state that is passed) err by a few sizes at either end, which often cancel behind it; two
    solutions agree there by chance, but not in between. Not for steps that find their own length or are not refined.
    """
    if not choice.stepper.refines or spec.noise or isinstance(choice.stepper, Rosenbrock | Controlled) or not stop > start:
        return []
    return [(float(t), LAST) for t in np.linspace(start, stop, _LOOKS + 1)[1:-1]]


def _declared(system):
    """Priors of the class, to say which parameter of a body is unusual; none where it cannot be made without arguments."""
    try:
        return type(system)().priors()
    except ParameterError:
        return {}


def _check_how(solver, tol, do):
    """**Raises:** DeclarationError for what is no stepper, tolerance or intervention."""
    if solver is not None and not isinstance(solver, AbstractStepper):
        raise DeclarationError(f"solver={solver!r} is no stepper. Write one such as ht.RK4() or ht.Adaptive(stiff=True), or none")
    if tol is not None and not (is_real(tol) and 0.0 < tol < math.inf):
        raise DeclarationError(f"tol={tol!r} is no tolerance. Give a number above 0, such as 1e-6, or leave it out")
    for part in do:
        if not isinstance(part, Do | _RULES):
            raise DeclarationError(
                f"do={part!r} is no intervention. Write Do({{name: what it becomes}}, start, stop), or a rule as ht.When(...)"
            )


def _check_request(system, priors, start, draws, key):
    checked_start(start, system.spec)
    if draws is not None and (not isinstance(draws, int | np.integer) or isinstance(draws, bool) or draws < 1):
        raise ParameterError(f"draws={draws!r} is no number of bodies. Give a whole number of 1 or more.")
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
    if not np.all(np.isfinite(times)):
        raise InterventionError("at= names a time that is not finite. Give times within a span that can be simulated.")
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
    told = [note for note in bound.notes if note not in person.notes and note.kind == "seen" and note.column in spec.doses]
    notes = [f"{note.column}: {note.text}" for note in told]  # of doses outside the record, and of those without an amount
    scale = time_factor(clock.unit, spec.time)
    return bound, [(float(t) * scale, rank) for t, rank in zip(times, ranks, strict=True)], notes


def _varying(spec):
    return tuple((path, field.varies) for path, field in spec.parameters.items() if field.varies is not None)


def _choice(system, lived, world, solver, start, layout) -> Choice:
    """How to solve a world: `solver` where one is given, else what a pilot finds on the day as it was lived.

    Rules that act at the moment itself are watched over steps of an accurate length.
    """
    spec, span, watched = system.spec, lived.stop - lived.start, bool(layout.triggered)
    most = span / WATCHED if watched or spec.timed else span + 1.0
    if layout.noise and isinstance(solver, Adaptive | Exact):
        raise DeclarationError(f"{spec.name} has process noise, which is simulated in steps. Leave solver= out, or give RK4().")
    flat = all(world.inputs[name].stepwise for name in spec.signals) and all(c.signal.stepwise for c in world.clamps)
    if known := settled(spec, solver, flat and not layout.noise and not layout.edits):
        if isinstance(known.stepper, Exact) and watched:
            return dataclasses.replace(known, step=max(_STEP / Pilot(system, lived, start).rate, span / _AFFORDABLE))
        return known if math.isfinite(known.step) else dataclasses.replace(known, step=most)
    pilot = Pilot(system, lived, start)
    step = min(_STEP / pilot.rate, looked(spec, span))
    step = min(2.0 ** math.floor(math.log2(step)), span + 1.0)  # few distinct meshes, which share programs
    said, many = f"fastest rate {pilot.rate:.3g}/{spec.time}", span / step
    if layout.noise:
        stiff = many > _AFFORDABLE
        step = min(max(step, span / _AFFORDABLE), span / NOISY_STEPS)
        return Choice(solver or (Rosenbrock() if stiff else RK4(1)), step, f"process noise; {said}")
    if solver is not None and not isinstance(solver, Rosenbrock):
        return Choice(solver, max(step, span / _AFFORDABLE), f"as asked; {said}")
    kinked = solver is None and pilot.jumps
    if solver is None and many <= _MANY and not kinked:
        return Choice(RK4(1), step, said)
    worth = 4 * many / GAIN if solver is None else math.inf
    if kinked or (solver is None and pilot.kinked(worth)):
        why = f"{said}: rates that jump, in each body at its own moments; steps as long as each allows"
        return Choice(Controlled(), most, why, size=pilot.moved)
    stops = pilot.stops(worth)
    if stops is not None:
        why = f"{said}: stiff; steps where the pilot's were, {len(stops)}"
        return Choice(solver or Rosenbrock(), most, why, stops)
    unstable = span / _AFFORDABLE * pilot.rate > 2.5  # Runge-Kutta's steps are stable to 2.8 time constants
    if solver is None and many > _AFFORDABLE and unstable:
        why = f"{said}: stiff, and the pilot did not get through"
        return Choice(Adaptive(stiff=True), most, why)
    return Choice(solver or RK4(1), max(step, span / _AFFORDABLE), said)


def _lanes(system, priors, bound, world, layout: Layout, count, key) -> dict[str, Any]:
    """Numbers of each lane, L of them: parameters, latent amounts and times, values that `do` sets."""
    key = None if key is None else as_key(key)
    spec = system.spec
    values = {}
    for i, (path, _, leaf) in enumerate(system.fields()):
        drawn = isinstance(leaf, dist.Distribution)
        values[path] = np.asarray(leaf.sample(folded(key, i), (count,)) if drawn else np.broadcast_to(leaf, (count,)), float)
    def deviations(i, size):
        return (
            np.asarray(jax.random.normal(folded(key, 10_000 + i), (count, size), float))
            if priors
            else np.zeros((count, size))
        )

    for i, (path, group) in enumerate(layout.varying):
        spread = spec.parameters[path].spread
        if isinstance(spread, dist.Distribution):
            spread = np.asarray(spread.sample(folded(key, 20_000 + i), (count, 1)), float) if priors else 0.0
        values[path] = values[path][:, None] * np.exp(spread * deviations(i, 1 + len(bound.occasion_edges(group))))
    overrides = np.zeros((count, len(layout.overridden)))
    for o, column in zip(world.overrides, override_columns(world, layout), strict=True):
        old = values[o.path] if o.occasion is None else values[o.path][:, o.occasion]
        overrides[:, column] = np.asarray(o.change(old) if callable(o.change) else o.change)
        check_range(o.path, {**spec.parameters, **spec.constants}[o.path], overrides[:, column])
    sds = [np.array([getattr(event, name) for event in bound.latent], float) for name in ("amount_sd", "time_sd")]
    amounts, shifts = (sd * deviations(100 + i, len(bound.latent)) for i, sd in enumerate(sds))
    noise = keys_of(folded(key, 30_000), np.arange(count)) if layout.noise and key is not None else None
    sets = np.zeros((count, len(layout.sets)))
    for part, column in zip(world.sets, set_columns(world, layout), strict=True):
        sets[:, column] = part.number
    return {"values": values, "extras": Extras(np.exp(amounts), shifts, overrides, noise, sets)}


@functools.lru_cache(maxsize=128)
def _program(tree, layout: Layout, stepper, names, start, paths):
    """Compiled: (lanes (n, ...), world, sub-steps) -> `Course` with leading axis n.

    Static is only what shapes the program; every number, those of fixed parameters too, is an argument.
    """

    def lane(lanes, world, substeps):
        mesh: Mesh = world["mesh"]
        system = jax.tree.unflatten(tree, world["leaves"]).with_values({path: lanes["values"][path] for path in paths})
        extras = lanes["extras"]
        here, u = first(system, layout, mesh, extras)
        x0 = here.steady(u) if start == "steady" else here.initial(u)
        return course(system, layout, Repeated(sized(stepper, lanes), substeps), mesh, x0, extras, names)

    return Lanes(lane, (0, None, None))


def _worst(solved) -> float:
    fine = solved.error[~solved.failed]
    return float(np.max(fine)) if fine.size else math.inf
