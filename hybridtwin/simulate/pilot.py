"""A pilot: a quick, rough solve on the host that decides how to integrate and how long the steps may be.

One compiled function, the rates of a few bodies with their Jacobian, is called from Python along the day as it was lived:
doses, infusions, signals and covariates as they come (doses with a lag at their recorded time). First a hundred long,
linearly implicit Euler steps, which no stiffness can upset, find the fastest rate of each body at any time of the day.
Only where that asks for a thousand steps and more an adaptive Rosenbrock solve follows; the times it stops at become nodes of the
mesh, so that steps are short where something happens and long where nothing does.
"""

import dataclasses
import functools
import itertools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from hybridtwin.errors import DeclarationError
from hybridtwin.priors import bodies_of
from hybridtwin.simulate.layout import Layout
from hybridtwin.simulate.mesh import lay, layout_of
from hybridtwin.simulate.solve import _SEEN, Extras, _here, _inputs, _inputs_at, _scales
from hybridtwin.simulate.steppers import RK4, AbstractStepper, Adaptive, Chebyshev, Difference, Exact
from hybridtwin.simulate.stiff import GAMMA, NODES, PARTS, SLOPES, STATES, Rosenbrock

_FOLLOWED = 4  # bodies that the second look follows
_FAR = 4.0  # standard deviations above the typical rate: how fast a body may be that the steps must still carry
_FARTHEST = 6.0  # logarithm of how much faster at most
_STOPS = 24  # stretches of the day that the first look visits
_STEPS = 2000  # steps after which the second look gives up, if it has not done so as soon as it could not pay
_TOLERANCE = 1e-4  # of the second look
_KINK = 0.01  # fastest time constants: a step refused though it is shorter meets rates that are not smooth
_CLOSER = 12  # halvings after which what is smooth has changed by little
_KINKS = 0.1  # share of such steps from which on nodes of a mesh, which are the same for all bodies, are of no use
WATCHED = 1000  # pieces of a day that are looked at for rules of care, and for rates that depend on the time, whatever the steps
_RUNAWAY = 1e4  # how much a state may grow in one rough step
_QUICK = {"xla_backend_optimization_level": 0}  # called a hundred times: compiling it is what costs


def looked(spec, span: float) -> float:
    """The longest step of rates that depend on the time itself, which no pilot sees: what happens between two steps, such as a
    meal written as a bump of the time, is missed by n and by 2n of them alike. Else infinite.
    """
    return span / WATCHED if spec.timed else math.inf


@dataclasses.dataclass(frozen=True)
class Choice:
    """How to integrate: the stepper, the longest segment (system time), why, further nodes; fastest rate of the typical body,
    and of bodies far from it (0: unknown); how large each state gets, where the stepper asks for it; knots of the inferred paths
    of the process noise.
    """

    stepper: AbstractStepper
    step: float
    why: str
    knots: tuple[float, ...] = ()
    rate: float = 0.0
    far: float = 0.0
    size: tuple[float, ...] = ()
    drive: tuple[float, ...] = ()

    def told(self, unit: str) -> str:
        """In words."""
        long = f", segments of at most {self.step:.3g} {unit}" if math.isfinite(self.step) else ""
        return f"{_named(self.stepper)}{long} ({self.why})"


_named = functools.lru_cache(maxsize=64)(repr)  # which takes a pretty printer longer than laying a mesh


def settled(spec, solver, stepwise: bool) -> Choice | None:
    """What no pilot needs to tell: steps that are part of the law (`step = "1 d"`), those asked for that have no length of their
    own, and the exact ones of a linear system. None: it is to be found out.

    **Arguments:** `stepwise`: does every input hold still in between, and nothing else move or scatter the states?

    **Raises:** DeclarationError where a solver is asked for that the system cannot have.
    """
    if spec.step is not None:
        if solver is not None:
            raise DeclarationError(
                f"{spec.name} is a difference equation of {spec.step:g} {spec.time}; no solver goes with it. Leave solver= out."
            )
        return Choice(Difference(), spec.step, f"a difference equation of {spec.step:g} {spec.time}")
    if isinstance(solver, Exact) and not (spec.linear and stepwise):
        raise DeclarationError(
            f"{spec.name} is not linear with piecewise constant signals, so it has no exact steps. Leave solver= out."
        )
    if isinstance(solver, Adaptive | Exact):
        return Choice(solver, math.inf, "as asked")
    if spec.linear and stepwise and solver is None:
        return Choice(Exact.of(spec), math.inf, "linear, under inputs that hold still in between")
    return None


@functools.lru_cache(maxsize=64)
def _probe(tree, layout: Layout, start: str, paths: tuple[str, ...]):
    """Compiled: (leaves, values (B,), overrides (B, P), node, t, x (B, n), is it the first node?) -> (x, dx/dt, Jacobian)."""

    @functools.partial(jax.jit, compiler_options=_QUICK)
    @functools.partial(jax.vmap, in_axes=(None, 0, 0, None, None, 0, None))
    def probe(leaves, values, overrides, node, t, x, fresh):
        system = jax.tree.unflatten(tree, leaves).with_values({p: values[i] for i, p in enumerate(paths)})
        here = _here(system, layout, node, Extras(jnp.zeros(0), jnp.zeros(0), overrides))
        u = _inputs(here, node)
        begin = here.steady(u) if start == "steady" else here.initial(u)
        begin, unravel = ravel_pytree(jax.tree.map(lambda leaf: jnp.asarray(leaf, float), begin))
        x = jnp.where(fresh, begin, x)

        def f(v):
            return ravel_pytree(here.rates(t, unravel(v), _inputs_at(here, node, t)))[0]

        slope, linear = jax.linearize(f, x)
        return x, slope, jax.vmap(linear, out_axes=1)(jnp.eye(x.shape[0]))

    return probe


class _Same:
    """A system as a key: this very object, for to compare all its priors would cost what is to be saved."""

    def __init__(self, system):
        self.system = system

    def __hash__(self):
        return id(self.system)

    def __eq__(self, other):
        return isinstance(other, _Same) and other.system is self.system


@functools.lru_cache(maxsize=16)
def _bodies(same: _Same):
    """The typical body as a tree and its leaves, and what differs in the drawn ones: paths (P,), values (B, P)."""
    typical = same.system.typical()
    bodies = bodies_of(same.system.priors(), typical.values())
    leaves, tree = jax.tree.flatten(typical)
    paths = tuple(bodies[0])
    values = np.array([[float(body[p]) for p in paths] for body in bodies]).reshape(len(bodies), len(paths))
    return tree, [np.asarray(leaf, float) if np.ndim(leaf) == 0 else leaf for leaf in leaves], paths, values


class _Day:
    """A lived world as the pilot sees it: stretches between events, what enters at each, and the compiled rates."""

    def __init__(self, system, world, start):
        spec = system.spec
        uncertain = [dose.latent for name in spec.doses for dose in world.inputs[name].doses if dose.latent is not None]
        layout = layout_of([world], spec, latents=1 + max(uncertain, default=-1))
        span = world.stop - world.start
        mesh = lay([world], spec, layout, [], max_step=2 * span)[0]
        tree, self.leaves, paths, self.values = _bodies(_Same(system))
        self.overrides = np.zeros((len(self.values), len(layout.overridden)))
        self._probe = _probe(tree, Layout(overridden=layout.overridden, edits=layout.edits), start, paths)
        self._mesh, self.t, self._precision = mesh, mesh.t, jnp.result_type(float)  # a record may be bound outside any verb
        places = {path: i for i, path in enumerate(spec.states)}
        scales, count = _scales(spec), len(spec.states)
        self.jump, self.flow = np.zeros((len(mesh.t), count)), np.zeros((len(mesh.t), count))
        for i, name in enumerate(layout.jumps):
            self.jump[:, places[spec.doses[name].into]] += scales[name] * (mesh.jump + mesh.latent_jump.sum(axis=1))[:, i]
        for i, name in enumerate(layout.rates):
            self.flow[:, places[spec.doses[name].into]] += scales[name] * (mesh.rate + mesh.latent_rate.sum(axis=1))[:, i]
        late = [(mesh.moving.node, mesh.moving, mesh.moving.back == 0), (mesh.steady.node, mesh.steady, mesh.steady.node >= 0)]
        for node, doses, counted in late:  # at once, at the recorded time: how much there is matters here, not when
            for k, route, amount, real in zip(node, doses.route, doses.amount, counted, strict=True):
                name = spec.routes[route] if spec.routes else ""
                self.jump[k, places[spec.doses[name].into]] += scales[name] * amount if real else 0.0

    @functools.cached_property
    def key(self):
        """All that a rough solve depends on: in a cohort many live the same day, and one solve tells for all of them."""
        arrays = [*self.leaves, self.values, self.overrides, self.jump, self.flow]
        arrays = [np.asarray(a) for a in (*arrays, *(getattr(self._mesh, name) for name in _SEEN))]
        plain = all(a.dtype != object for a in arrays)
        return self._probe, self._precision, tuple((a.shape, a.dtype.str, a.tobytes()) for a in arrays) if plain else id(self)

    def __hash__(self):
        return hash(self.key)

    def __eq__(self, other):
        return isinstance(other, _Day) and self.key == other.key

    def rates(self, k, t, x):
        """(x, dx/dt, Jacobian) of every body in the stretch that begins at node k; `x` None: as the day begins."""
        mesh = self._mesh
        node = {name: getattr(mesh, name)[k] for name in _SEEN}
        fresh = x is None
        x = np.zeros((len(self.values), self.jump.shape[1])) if x is None else x
        found = self._probe(self.leaves, self.values, self.overrides, node, np.float64(t), x, fresh)
        x, dx, jacobian = (np.asarray(a) for a in found)
        return x, dx + self.flow[k], jacobian


def _fastest(jacobians):
    """Largest eigenvalue of each of many Jacobians (..., n, n), by size; 0 where one is not finite."""
    fine = np.isfinite(jacobians).all(axis=(-1, -2))
    return np.where(fine, np.max(np.abs(np.linalg.eigvals(np.where(fine[..., None, None], jacobians, 0.0))), axis=-1), 0.0)


class _Rough(NamedTuple):
    """What long implicit steps through a day show of a few bodies."""

    rates: np.ndarray  # (B,) fastest rate of each at any stop
    alike: np.ndarray  # (B,) the same in the states of the typical body
    size: np.ndarray  # (S,) how large states get, as in most bodies, for one may run away
    times: np.ndarray  # (W,) of the steps
    states: np.ndarray  # (W, B, S)


@functools.lru_cache(maxsize=256)
def _coarse(day: _Day) -> _Rough:
    stops = np.unique(np.linspace(0, len(day.t) - 1, min(len(day.t), _STOPS + 1)).round().astype(int))
    x, seen, alike, eye, longest = None, [], [], np.eye(day.jump.shape[1]), (day.t[-1] - day.t[0]) / (3 * _STOPS)
    peak, way = np.zeros((len(day.values), day.jump.shape[1])), []
    with np.errstate(all="ignore"):
        for a, b in itertools.pairwise(stops):
            x = day.rates(a, day.t[a], x)[0] + day.jump[a:b].sum(axis=0)
            way.append((float(day.t[a]), x))
            left, at, step = day.t[b] - day.t[a], day.t[a], 0.0
            while left > 0:
                x, dx, jacobian = day.rates(a, at, x)
                rate = float(np.max(np.abs(jacobian[np.isfinite(jacobian)]), initial=0.0))
                step = 8.0 * step or (0.7 / rate if rate > 0 else left)
                step = min(step, longest)
                step = step if step < 0.6 * left else left
                if at == day.t[a] or step >= longest or step == left:
                    seen.append(jacobian)
                    alike.append(day.rates(a, at, np.broadcast_to(x[:1], x.shape))[2])
                move = _solved(eye - step * np.where(np.isfinite(jacobian), jacobian, 0.0), step * dx)
                far = np.max(np.abs(x + move), axis=1, keepdims=True)
                most = _RUNAWAY * np.maximum(np.max(np.abs(x), axis=1, keepdims=True), np.abs(day.jump).max() + 1.0)
                x = np.where(far < most, x + move, x)  # a body that runs away stands still: it has no steps to be found
                peak = np.fmax(peak, np.abs(x))
                left, at = left - step, at + step
                way.append((float(at), x))
        seen.append(day.rates(stops[-1], day.t[-1], x)[2])
    rates, others = (np.max(_fastest(np.array(found)), axis=0) for found in (seen, alike))
    return _Rough(rates, others, np.median(peak, axis=0), *(np.array(part) for part in zip(*way, strict=True)))


@functools.lru_cache(maxsize=256)
def _jumps(day: _Day) -> tuple[bool, np.ndarray]:
    """Do the rates of a few bodies jump in time, by themselves? And how far states move in all (S,), as in most bodies.

    Sought where they change most between two looks, in states that are held there: what is smooth changes the less the
    closer one looks.
    """
    times, rough = np.linspace(day.t[0], day.t[-1], WATCHED + 1), _coarse(day)
    nodes = np.searchsorted(day.t, times, side="right") - 1
    states = rough.states[np.searchsorted(rough.times, times, side="right") - 1]

    def change(i, begin, end):
        return np.abs(day.rates(nodes[i], end, states[i])[1] - day.rates(nodes[i], begin, states[i])[1])

    with np.errstate(all="ignore"):
        rates = np.abs([day.rates(nodes[i], times[i], states[i])[1] for i in range(WATCHED)])  # (W, B, S)
        size, gone = np.max(rates, axis=0), np.median(np.nansum(rates, axis=0), axis=0) * (times[1] - times[0])
        moved = np.array([change(i, times[i], times[i + 1]) for i in range(WATCHED)])  # (W, B, S)
        for body, state in itertools.product(range(min(_FOLLOWED, moved.shape[1])), range(moved.shape[2])):
            i = int(np.nanargmax(np.where(np.isfinite(moved[:, body, state]), moved[:, body, state], 0.0)))
            (begin, end), whole = times[i : i + 2], moved[i, body, state]
            if not whole > 1e-6 * size[body, state]:
                continue
            for _ in range(_CLOSER):
                middle = 0.5 * (begin + end)
                first, second = (change(i, *pair)[body, state] for pair in ((begin, middle), (middle, end)))
                (begin, end), left = ((begin, middle), first) if first >= second else ((middle, end), second)
            if left > 0.5 * whole:
                return True, gone
    return False, gone


def _solved(matrices, right):
    """Solutions of small linear systems (B, n); NaN where one of them has none."""
    try:
        return np.linalg.solve(matrices, right[..., None])[..., 0]
    except np.linalg.LinAlgError:
        return np.full_like(right, np.nan)


@dataclasses.dataclass(frozen=True)
class _Walk:
    """How an adaptive solve went: where it stopped, whether it came to the end, and whether something held it up."""

    stops: tuple[float, ...]
    through: bool
    kinked: bool


@functools.lru_cache(maxsize=64)
def _adaptive(day: _Day, most: int) -> _Walk:
    """An adaptive Rosenbrock solve of a few bodies together, of `most` steps at most.

    A step that is far shorter than the fastest time constant is refused only where rates jump or bend (a valve that shuts); one
    after another is, where that happens at another moment in each body.
    """
    x, stops, eye, rough = None, [], np.eye(day.jump.shape[1]), _coarse(day)
    size, step, refused = rough.size, 1e-6 * (day.t[-1] - day.t[0]), 0
    short = _KINK / max(float(rough.rates[0]), 1e-300)

    def walked(through=False):
        return _Walk(tuple(stops), through, refused > _KINKS * (len(stops) + refused))

    with np.errstate(all="ignore"):
        for k, (begin, end) in enumerate(itertools.pairwise(day.t)):
            x, _, jacobian = day.rates(k, begin, x)
            x, at = x + day.jump[k], float(begin)
            step = min(step, 1.0 / max(float(np.nanmax(_fastest(jacobian))), 1e-300)) if day.jump[k].any() else step
            while at < end:
                left = end - at
                h = left if step > 0.9 * left else min(step, 0.5 * left)
                new, error = _step(day, k, at, h, x, eye)
                here = np.maximum(np.abs(x), np.abs(new))[:_FOLLOWED]
                grown = np.max(np.abs(error[:_FOLLOWED]) / (_TOLERANCE * np.maximum(here, 1e-3 * size) + 1e-300))
                if not np.isfinite(grown) or len(stops) >= most or h < 1e-13 * max(abs(at), end - begin):
                    if not np.isfinite(grown) and h > 1e-13 * max(abs(at), end - begin):
                        step = 0.1 * h
                        continue
                    return walked()
                if grown <= 1.0:
                    x, at, size = new, at + h if h < left else end, np.maximum(size, np.max(here, axis=0))
                    stops.append(at)
                else:
                    refused += h < short
                step = h * float(np.clip(0.9 * max(grown, 1e-8) ** -0.25, 0.2, 5.0))
    return walked(through=True)


def _step(day, k, t, h, x, eye):
    """One Rosenbrock step of every body: (new state, error), (B, n) each."""
    _, slope, jacobian = day.rates(k, t, x)
    small = 1e-6 * h
    in_time = (day.rates(k, t + small, x)[1] - slope) / small
    matrices = eye - GAMMA * h * jacobian
    parts: list[np.ndarray] = []
    at = x
    for node, lean, row, mix in zip(NODES, SLOPES, STATES, PARTS, strict=True):
        at = x + sum(a * p for a, p in zip(row, parts, strict=True))
        right = h * (day.rates(k, t + node * h, at)[1] if parts else slope) + lean * h * h * in_time
        right = right + sum(c * p for c, p in zip(mix, parts, strict=True))
        parts.append(_solved(matrices, GAMMA * right))
    return at + parts[-1], parts[-1]


class Pilot:
    """What a rough solve of a few bodies, the typical one and some drawn from the priors, through one day found.

    `world` is the day as it was lived, whatever is done in the worlds that are solved: these must agree before it is done.
    """

    def __init__(self, system, world, start="free"):
        self._day, self._timed = _Day(system, world, start), system.spec.timed and system.spec.step is None
        self.span = float(world.stop - world.start)
        rough = _coarse(self._day)
        self.rates, self._alike, self.size = rough.rates, rough.alike, rough.size
        self.states = self._day.jump.shape[1]

    @property
    def rate(self) -> float:
        """Fastest rate of the typical body at any time of the day, per system time."""
        return max(float(self.rates[0]), 1e-12)

    @functools.cached_property
    def far(self) -> float:
        """Fastest rate of a body four standard deviations from the typical one, as those drawn above it spread.

        Spread is that of parameters: rates are taken in the states of the typical body, for one that runs away has any rate.
        Where steps are too long for a body its readings explode and its density vanishes: a sampler then meets a wall
        that the posterior does not have. So steps must be stable well beyond what readings are likely to say.
        """
        faster = self._alike[1:][self._alike[1:] > self._alike[0]] / max(float(self._alike[0]), 1e-12)
        spread = math.sqrt(float(np.mean(np.log(faster) ** 2))) if len(faster) else 0.0
        return max(self.rate * math.exp(min(_FAR * spread, _FARTHEST)), float(np.quantile(self.rates, 0.84)))

    def stable(self, step: float, most: float) -> float:
        """A step, shortened where it would be longer than `most` time constants of a body far from the typical one."""
        return min(step, most / self.far)

    def stops(self, worth: float = math.inf) -> tuple[float, ...] | None:
        """Where an adaptive stiff solve stops; None where it fails, or would cost more than `worth` evaluations of the rates."""
        walk = self._walk(worth)
        return walk.stops if walk.through else None

    def kinked(self, worth: float = math.inf) -> bool:
        """Is that solve held up by rates that jump or bend, at moments that are not the same for all bodies?"""
        return self._walk(worth).kinked

    @property
    def jumps(self) -> bool:
        """Do rates jump in time, by themselves? Then n and 2n steps may agree by chance though both are wrong."""
        return self._timed and _jumps(self._day)[0]

    @property
    def moved(self) -> tuple[float, ...]:
        """How large each state gets (S,), where it is the time that moves it, for which rough steps are too long."""
        return tuple(np.maximum(self.size, _jumps(self._day)[1] if self._timed else 0.0).tolist())

    def _walk(self, worth) -> _Walk:
        return _adaptive(self._day, int(min(worth / self.cost, _STEPS)))

    @property
    def cost(self) -> float:
        """What a Rosenbrock step costs, in evaluations of the rates."""
        return Rosenbrock().cost(self.states)


_ACCURATE = 500  # segments of accurate steps a record may need before a stabilized method takes longer ones
_TIMED = 250  # segments of a record at least where rates depend on the time itself
_STABLE = 1_000  # segments of those before it is worth a look whether a stiff method needs fewer
_LONG = 3_000  # segments of those from which any gain is worth the program of a stiff method, which takes longer to compile
GAIN = 3.0  # how many times cheaper it must be under that
_FIRST, _GROWTH = 1 / 16, 1.25  # first step after a dose, in longest steps, and how it grows


def choose(model, world) -> Choice:
    """How to integrate one day in inference: exact, accurate, stable for long records, or stiff; see `Pilot`.

    Whatever is chosen here, `personalize` computes the log density of the kept draws again with twice the steps.
    """
    spec, span, solver = model.spec, world.stop - world.start, model.solver
    stepwise = all(world.inputs[name].stepwise for name in spec.signals)
    if known := settled(spec, solver, stepwise and not model.driven):
        return known
    pilot, most = Pilot(model.system, world, model.start), span / _TIMED if spec.timed else math.inf
    rate, said = pilot.rate, f"fastest rate {pilot.rate:.3g}/{spec.time}"
    if solver is not None and not isinstance(solver, Rosenbrock):
        step = min((1.2 if isinstance(solver, Chebyshev) else 0.7) / rate, most)
        return Choice(solver, step, f"as asked; {said}", rate=rate)
    accurate = min(pilot.stable(0.7 / rate, 2.5), most)  # Runge-Kutta's steps are stable to 2.8 time constants
    if solver is None and accurate * _ACCURATE >= span:
        return Choice(RK4(1), accurate, said, rate=rate, far=pilot.far)
    # Stable while a draw's fastest rate is under thirteen times the typical one. Under eight (four stages) trajectories of the
    # sampler ran into bodies whose stomach empties too fast for the steps: 1.5 % of them diverged, and none with five.
    why = f"{said} under {span:.3g} {spec.time}: stable steps"
    stepper = Chebyshev(5)
    stable = Choice(stepper, min(pilot.stable(1.2 / rate, 15.0), most), why, rate=rate, far=pilot.far)
    many = span / stable.step
    if solver is None and many <= _STABLE:
        return stable
    gain = GAIN if many <= _LONG else 1.0
    stops = pilot.stops(stepper.stages * many / gain if solver is None else math.inf)
    if stops is not None:
        why = f"{said}: stiff; steps where the pilot's were, {len(stops)}"
        return Choice(solver or Rosenbrock(), most, why, stops, rate)
    return stable if solver is None else Choice(solver, min(1.2 / rate, most), f"as asked; {said}", rate=rate)


def graded(choice: Choice, world, spec) -> Choice:
    """The same with steps that begin short after each dose and grow, where they are long and of low order.

    Stabilized steps are as long as the slowest course allows; their error sits in the minutes after a dose. A dozen nodes a
    dose there take it down as far as sixteen times as many steps everywhere would (warfarin: an objective of 32 people is off by
    .6 instead of 10). Left alone where doses are so many that it would more than double the nodes.
    """
    if not isinstance(choice.stepper, Chebyshev):
        return choice
    times = {d.time for name in spec.doses for d in world.inputs[name].doses if world.start <= d.time < world.stop}
    count = int(math.log(1 / _FIRST) / math.log(_GROWTH)) + 1
    if count * len(times) > (world.stop - world.start) / choice.step:
        return choice
    after = choice.step * _FIRST * np.cumsum(_GROWTH ** np.arange(count))
    knots = sorted(float(t + a) for t in times for a in after if t + a < world.stop)
    return dataclasses.replace(choice, knots=(*choice.knots, *knots), why=f"{choice.why}, short after doses")
