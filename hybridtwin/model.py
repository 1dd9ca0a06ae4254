"""A model: a system, the sensors that read it, and their joint density with one person's unknowns.

The unknowns of a person are *sites*: parameters of the system and sensors, deviations by occasion, uncertain amounts and
times of events. Each site lives on unconstrained coordinates in which a normal-based prior is a standard normal (so the mode
found there is the mode on the eta scale, as in pharmacometrics); any other prior has median 0 and about unit spread there. A
`Kernel` is everything static about one model on one shape of record, with the functions that are compiled; numbers of people
and records enter it only as arguments.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from hybridtwin import varying
from hybridtwin.binding import Bound
from hybridtwin.coordinates import conditional, from_coordinate, log_prior, mixed, normal_based
from hybridtwin.coordinates import to_coordinate as to_coordinate
from hybridtwin.errors import DeclarationError, NoReadings
from hybridtwin.interventions import World, span_of
from hybridtwin.policies import decided
from hybridtwin.pooling import Pooling, check, correlated, fingerprint, personal, pooling_of
from hybridtwin.program import Program, backward
from hybridtwin.rest import checked_start
from hybridtwin.sensors import AbstractSensor, Seen
from hybridtwin.simulate.layout import Layout, Mesh, bucket, pad
from hybridtwin.simulate.mesh import lay, layout_of
from hybridtwin.simulate.noise import knots_of
from hybridtwin.simulate.pilot import Choice, Pilot, choose, graded
from hybridtwin.simulate.solve import Extras, first, observer, states
from hybridtwin.simulate.steppers import AbstractStepper, Adaptive
from hybridtwin.simulate.stiff import Rosenbrock
from hybridtwin.system import System, nearest
from hybridtwin.units import time_factor


@dataclasses.dataclass(frozen=True)
class Site:
    """One block of unknowns: `size` numbers with the same prior. `kind`: system, sensor, deviation, spread, amount,
    time or path.
    """

    name: str
    prior: Any
    size: int = 1
    kind: str = "system"
    shared: bool = False


class Data(NamedTuple):
    """What a kernel is told about one person: arrays only."""

    mesh: Mesh
    seen: dict[str, Seen]
    read: dict[str, np.ndarray]  # sensor -> (N,) node of each reading
    amount_sd: np.ndarray  # (E,) log-sd of each event's amount, 0 where the amount is certain
    amount_at: np.ndarray  # (E,) place among the site "amounts", or -1
    time_sd: np.ndarray  # (E,) sd of each event's time in system time
    time_at: np.ndarray  # (E,)


class Temper(NamedTuple):
    """How much the readings count, as arrays that a compiled program is given.

    The likelihood counts to the power 1 / `power`: above 1 the mechanism is known to be wrong. How large the *sensor's* error
    is stays as well known as before: a body that is left freer leaves larger residuals behind, which a tempered likelihood would
    take for a worse sensor, and so count for less still. `center` and `root` hold, as a Gaussian on the coordinates of the k
    parameters of sensors, the part of the untempered likelihood that the power takes away.
    """

    power: jax.Array  # ()
    center: jax.Array  # (k,)
    root: jax.Array  # (k, k)

    def misses(self, scales):
        """Standardized distance (k,) of sensor coordinates (k,) from what the untempered readings say of them."""
        return self.root @ (scales - self.center)


class Model:
    """A system read by sensors.

    **Arguments:** `system`: a `System` whose leaves are priors or numbers; `sensors`: name -> sensor, where the name is
    that of the readings in a record (`cgm=ht.sensors.CGM("G_isf")`); `start`: how the first row begins: "free" (the
    system's `initial`, with its own parameters for what is on board) or "steady" (at rest under the inputs of that moment);
    `varies`: parameter -> (group, spread) for parameters that take one value each "day" or "occasion" here though the system
    does not say so, as in `varies={"SI": ("day", 0.2)}`; the spread is the sd of log-normal deviations, a number or a prior;
    `varies={"SI": ht.drift("day", 0.2)}` for one that walks from day to day instead;
    `noise`: of a system with process noise (`diffusion`) the path that it took on the lived day is inferred with the parameters:
    a straight line between knots at every reading and, in between, none further apart than a fifth of the fastest time constant,
    or than said here ("15 min"). False: fitted without noise, which then enters only what is simulated; the verdict says so.
    `pooling`: what a cohort has in common (`Pooling`): typical values and between-person spread are then inferred by
    `personalize`; `omega=...` is short for `pooling=ht.Pooling(omega=...)`.
    `solver`: a stepper such as `ht.Rosenbrock()`, by default what a pilot solve of each person's day finds (`Problem.choice`).

    A model is a NumPyro program: `numpyro.infer.NUTS(model)` run on a bound record (`model.bind(person)`) samples the same
    posterior as `personalize`.
    """

    def __init__(
        self,
        system: System,
        *,
        start: str = "free",
        name: str | None = None,
        varies: Mapping[str, tuple[str, Any]] | None = None,
        noise: str | bool = True,
        pooling: Pooling | None = None,
        omega: Any = None,
        solver: AbstractStepper | None = None,
        **sensors: AbstractSensor,
    ):
        if not isinstance(system, System):
            raise DeclarationError(
                f"a model is made of a System, not {type(system).__name__}. Write ht.Model(MySystem(), ...)."
            )
        spec = system.spec
        checked_start(start, spec)
        self.varies, self.pooling = varying.checked(spec, varies or {}), pooling_of(pooling, omega)
        if self.pooling is not None:
            check(system, self.pooling)
        system, self.correlated = correlated(system, self.pooling)
        for key, sensor in sensors.items():
            if not isinstance(sensor, AbstractSensor):
                raise DeclarationError(
                    f"sensor {key!r} is {type(sensor).__name__}. Give a sensor, such as ht.sensors.Gaussian('C', sd=...)."
                )
            if sensor.of not in spec.outputs and sensor.of not in spec.states:
                raise DeclarationError(
                    f"sensor {key!r} reads {sensor.of!r}, which is no output of {spec.name}. "
                    f"{nearest(sensor.of, [*spec.outputs, *spec.states])}"
                )
            sensor.suits(spec, key)
            rate = sensor.follows
            if rate and (rate not in {**spec.parameters, **spec.constants} or rate in self.varies):
                raise DeclarationError(
                    f"sensor {key!r} follows {rate!r}, which is no parameter of {spec.name} with one value a person. "
                    f"{nearest(rate, spec.parameters)}"
                )
            missing = [path for path, field, leaf in sensor.fields() if leaf is None]
            if missing:
                raise DeclarationError(
                    f"sensor {key!r} needs a prior or a number for {missing[0]!r}, such as "
                    f"{missing[0]}=ht.halfnormal(...)."
                )
        if solver is not None and not isinstance(solver, AbstractStepper):
            raise DeclarationError(f"solver={solver!r} is no stepper. Write ht.Rosenbrock(), ht.RK4(2), or leave it out.")
        self.system, self.sensors, self.start, self.solver = system, dict(sensors), start, solver
        self.name, self.noise, self.every = name or spec.name, noise, _every(noise, spec)
        self.known_sites: dict[Any, tuple[Site, ...]] = {}  # what `sites` answered

    @functools.cached_property
    def spec(self):
        """What the system declares."""
        return self.system.spec

    @functools.cached_property
    def key(self) -> str:
        """A fingerprint of everything static: two models with the same key share compiled programs."""
        leaves, tree = jax.tree.flatten((self.system, self.sensors, self.varies))
        numbers = [repr(leaf) if np.ndim(leaf) == 0 else (leaf.shape, np.asarray(leaf).tobytes()) for leaf in leaves]
        made = (self.spec.name, id(type(self.system)), str(tree), numbers, self.start, fingerprint(self.pooling), self.solver)
        text = repr((*made, self.noise))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def driven(self) -> bool:
        """Is the path of the system's process noise among the unknowns of a record?"""
        return bool(self.spec.noise) and self.noise is not False

    @property
    def pools(self) -> bool:
        """Is anything of the population of a cohort to be inferred? Where all of it is known, people are on their own."""
        if self.pooling is None:
            return False
        known = dict.fromkeys(n for b in self.pooling.blocks if b.covariance is not None for n in b.parameters)
        known, typical = self.pooling.spreads | known, self.pooling.typical
        own = personal(self.system).items()
        return any(isinstance(part.get(path, prior), dist.Distribution) for path, prior in own for part in (known, typical))

    def starting(self, start: str) -> "Model":
        """The same model with another way to begin."""
        if start == self.start:
            return self
        same: dict[str, Any] = {"name": self.name, "varies": self.varies, "noise": self.noise}
        return Model(self.system, start=start, pooling=self.pooling, solver=self.solver, **same, **self.sensors)

    @functools.cached_property
    def medians(self) -> dict[str, float]:
        """Median of every prior of the system."""
        typical = self.system.typical().values()
        return {path: typical[path] for path in self.priors}

    @functools.cached_property
    def priors(self) -> dict[str, Any]:
        """Every prior of the system."""
        return self.system.priors()

    def unit_of(self, name: str) -> str:
        """Unit of an output or state."""
        spec = self.spec
        return (spec.outputs.get(name) or spec.states[name]).unit

    def sites(self, occasions: Mapping[str, int], amounts: int, times: int, stretches: int) -> tuple[Site, ...]:
        """One person's unknowns. `occasions`: group -> number; `amounts`, `times`: uncertain events; `stretches` of noise."""
        found = []
        for path, prior in self.priors.items():
            field = self.spec.parameters.get(path)
            if self.start == "steady" and path in self.spec.forgotten:
                continue
            found.append(Site(path, prior, shared=bool(field and field.shared)))
        for path, group in self.varying:
            spread = self.spread(path)
            if isinstance(spread, dist.Distribution):
                found.append(Site(f"{path}@{group}.spread", spread, kind="spread", shared=True))
            count = occasions[group] - self.drifts(path)  # a walk begins at the person's own value
            found += [Site(f"{path}@{group}", dist.Normal(0.0, 1.0), count, kind="deviation")] if count else []
        for name, sensor in self.sensors.items():
            for path, prior in sensor.priors().items():
                found.append(Site(f"{name}.{path}", prior, kind="sensor", shared=True))
        found += [Site("amounts", dist.Normal(0.0, 1.0), amounts, kind="amount")] if amounts else []
        found += [Site("times", dist.Normal(0.0, 1.0), times, kind="time")] if times else []
        for path, _ in self.spec.noise if stretches else ():
            found.append(Site(f"noise of {path}", dist.Normal(0.0, 1.0), stretches, kind="path"))
        return tuple(found)

    @functools.cached_property
    def varying(self) -> tuple[tuple[str, str], ...]:
        """(parameter, group) of the parameters that take one value an occasion."""
        declared = ((path, self.varies[path][0] if path in self.varies else f.varies) for path, f in self.spec.parameters.items())
        return tuple((path, group) for path, group in declared if group is not None)

    def drifts(self, path: str) -> bool:
        """Does a parameter walk from occasion to occasion?"""
        return isinstance(self.varies.get(path), varying.Drift)

    def spread(self, path: str):
        """Spread of a parameter that takes one value an occasion: a number or a prior."""
        return self.varies[path][1] if path in self.varies else self.spec.parameters[path].spread

    def bind(self, person, *, max_step: float | None = None) -> "Problem":
        """The record in this model's words, with its mesh; see `Problem`."""
        return bind(self, person, max_step=max_step)

    def __call__(self, problem: "Problem"):
        """The NumPyro program: sample sites by name, the readings as a factor."""
        kernel, data = problem.kernel, problem.data
        values, given = {}, {}
        for site in kernel.sites:
            prior = site.prior if site.size == 1 else site.prior.expand([site.size]).to_event(1)
            prior, learn = conditional(self.correlated, site.name, prior, given)
            values[site.name] = numpyro.sample(site.name, prior)
            learn(values[site.name])
        numpyro.factor("readings", kernel.log_likelihood_of(values, data))

    def __repr__(self):
        lines = [f"Model {self.name}, starts {self.start}"]
        for name, sensor in self.sensors.items():
            told = ", ".join(f"{p} ~ {_say(v)}" for p, v in sensor.priors().items())
            lines.append(
                f"  {name}: {type(sensor).__name__} of {sensor.of} [{self.unit_of(sensor.of)}]"
                + (f", {told}" if told else "")
            )
        return "\n".join([*lines, *("  " + line for line in repr(self.system).splitlines())])


def _every(noise, spec) -> float | None:
    """How far apart knots of an inferred path may be, in system time. **Raises:** DeclarationError."""
    if not isinstance(noise, str | bool) or (isinstance(noise, str) and not span_of(noise, "s") > 0):
        raise DeclarationError(f'noise={noise!r}: give a stretch of time like "15 min", True or False.')
    return span_of(noise, spec.time) if isinstance(noise, str) else None


def _say(prior):
    base = normal_based(prior)
    if base is not None:
        return f"{type(prior).__name__}({float(base[0]):.3g}, {float(base[1]):.3g})"
    return type(prior).__name__


@dataclasses.dataclass(frozen=True)
class Problem:
    """One person's record on one model: the lived world on its mesh, and what the sensors saw."""

    model: Model
    person: Any
    bound: Bound
    lived: World
    kernel: "Kernel"
    data: Data
    used: Mapping[str, np.ndarray]  # sensor -> indices of the readings in the likelihood
    occasions: Mapping[str, np.ndarray]  # group -> edges between occasions
    choice: Choice  # how to integrate, and why so

    @property
    def n_readings(self) -> int:
        return int(sum(len(i) for i in self.used.values()))

    @functools.cached_property
    def density(self) -> Program:
        """Log density of the posterior at coordinates z (d,) or (n, d), compiled; `problem.density.gradient(z)` beside it."""
        numbers = (self.data, self.kernel.untempered())
        return Program(self.kernel, numbers, reverse=False if self.kernel.forward_only else None)

    def with_stepper(self, stepper) -> "Problem":
        """The same problem under another stepper."""
        return dataclasses.replace(self, kernel=dataclasses.replace(self.kernel, stepper=stepper))


def lived_world(bound: Bound) -> World:
    """The world as it was lived."""
    return World(bound.inputs, bound.start, bound.stop, bound.resets)


def _thinned(times, every):
    """Indices of readings at least `every` apart, the first always kept."""
    if not every:
        return np.arange(len(times))
    kept, last = [], -np.inf
    for i, t in enumerate(times):
        if t - last >= every * (1 - 1e-9):
            kept.append(i)
            last = t
    return np.array(kept, int)


def _read_by(model, bound):
    """Readings of one person that enter the likelihood: sensor -> indices."""
    if not sum(len(r) for r in bound.readings.values()):
        wanted = (
            ", ".join(f"{n!r} [{model.unit_of(s.of)}]" for n, s in model.sensors.items())
            or "none: the model has no sensor"
        )
        raise NoReadings(
            f"no readings for any sensor of the model ({wanted})",
            person=bound.person,
            remedy="Name the sensor in ht.Model(...) as the column of readings is named",
        )
    minutes = time_factor(model.spec.time, "min")
    return {
        name: _thinned(bound.readings[name].time * minutes, sensor.thin())
        for name, sensor in model.sensors.items()
        if len(bound.readings.get(name, ()))
    }


def bind(model, person, *, max_step=None, padded=False, pooled=False) -> Problem:
    """See `Model.bind`. **Raises:** NoReadings, DeclarationError (`knots_of`), and whatever binding a record raises.

    `padded`: lengths are rounded up to few distinct shapes, so that people of a cohort share compiled programs. Nothing
    here looks at anybody else: a person's bits must not depend on who else is in the cohort. `pooled`: shorter steps after doses
    (`graded`), for what is not corrected draw by draw.
    """
    spec = model.spec
    if pooled and model.driven:  # a person's effects are straightened together, in a program that grows as their square
        raise DeclarationError(
            f"{model.name} has process noise, and a population is not inferred together with everybody's path. Say ht.Model(..., "
            "noise=False), or give the population as priors and personalize everybody alone."
        )
    minutes = time_factor(spec.time, "min")
    bound = decided(person.bind(spec, {name: model.unit_of(s.of) for name, s in model.sensors.items()}), model)
    used, world = _read_by(model, bound), lived_world(bound)
    edges = {g: np.asarray(bound.occasion_edges(g), float) for _, g in model.varying}
    span = bound.stop - bound.start
    choice = graded(choose(model, world), world, spec) if pooled else choose(model, world)
    reads = [
        (float(bound.readings[n].time[i]), int(bound.readings[n].order[i])) for n, rows in used.items() for i in rows
    ]
    if model.driven:
        rate = choice.rate or Pilot(model.system, world, model.start).rate
        knots = knots_of(spec, model.every, (world.start, world.stop), [t for t, _ in reads], rate)
        choice = dataclasses.replace(choice, drive=knots)
    layout = layout_of([world], spec, varying=model.varying, latents=len(bound.latent), drive=choice.drive)
    longest = min(max_step or choice.step, span + 1.0)
    how = {"max_step": longest, "occasions": edges, "knots": choice.knots, "drive": choice.drive}
    mesh = lay([world], spec, layout, reads, **how)[0]
    data = _data(mesh, bound, used, minutes)
    data = _padded(data) if padded else data
    groups = {g: 1 + len(edges[g]) for _, g in model.varying}
    kernel = Kernel(
        model,
        layout,
        choice.stepper,
        tuple(sorted(groups.items())),
        int(np.sum(data.amount_sd > 0)),
        int(np.sum(data.time_sd > 0)),
        tuple(name for name, seen in data.seen.items() if np.any(seen.censored)),
    )
    return Problem(model, person, bound, world, kernel=kernel, data=data, used=used, occasions=edges, choice=choice)


def _data(mesh, bound, index, minutes) -> Data:
    at, read = 0, {}
    for name, rows in index.items():
        read[name] = mesh.read[at : at + len(rows)]
        at += len(rows)
    seen = {name: _seen(bound, bound.readings[name], rows, minutes) for name, rows in index.items()}
    amount_sd, time_sd = (np.array([getattr(e, name) for e in bound.latent], float) for name in ("amount_sd", "time_sd"))
    places = [np.where(sd > 0, np.cumsum(sd > 0) - 1, -1).astype(np.int32) for sd in (amount_sd, time_sd)]
    return Data(mesh, seen, read, amount_sd, places[0], time_sd, places[1])


def _seen(bound, readings, index, minutes):
    session = np.unique(readings.session[index], return_inverse=True)[1] if len(index) else np.zeros(0, int)
    return Seen(
        readings.value[index].astype(float),
        readings.time[index] * minutes,
        np.ones(len(index), bool),
        readings.censored[index].astype(np.int32),
        session.astype(np.int32),
        bound.since(readings.time[index]) * minutes,
    )


@dataclasses.dataclass(frozen=True)
class Kernel:
    """Static structure of a model on one shape of record, and its lane functions (one person, one draw).

    Value-equal: two kernels of equal parts are the same key of a compiled program.
    """

    model: Model = dataclasses.field(compare=False)
    layout: Layout
    stepper: AbstractStepper
    occasions: tuple[tuple[str, int], ...]
    amounts: int
    times: int
    tails: tuple[str, ...] = ()  # sensors with censored readings
    key: str = ""

    def __post_init__(self):
        object.__setattr__(self, "key", self.model.key)

    @functools.cached_property
    def sites(self) -> tuple[Site, ...]:
        asked = (self.occasions, self.amounts, self.times, self.layout.stretches)
        if asked not in self.model.known_sites:  # every simulation makes a kernel
            self.model.known_sites[asked] = self.model.sites(dict(self.occasions), *asked[1:])
        return self.model.known_sites[asked]

    @property
    def size(self) -> int:
        """Number of unknowns."""
        return sum(site.size for site in self.sites)

    @property
    def forward_only(self) -> bool:
        """Does reverse mode not go through the integration: a loop of unknown length (a switch, adaptive steps)?"""
        return isinstance(self.stepper, Adaptive) or bool(self.layout.triggered)

    def backward(self, lanes: int) -> bool:
        """Is reverse mode possible, and the cheaper gradient of the log density of so many lanes?"""
        return not self.forward_only and backward(self.size, lanes, isinstance(self.stepper, Rosenbrock))

    @functools.cached_property
    def names(self) -> tuple[str, ...]:
        """One name for each coordinate."""
        return tuple(s.name if s.size == 1 else f"{s.name}[{i}]" for s in self.sites for i in range(s.size))

    @functools.cached_property
    def scales(self) -> np.ndarray:
        """Places of the sensors' parameters among the coordinates."""
        kinds = [site.kind for site in self.sites for _ in range(site.size)]
        return np.array([i for i, kind in enumerate(kinds) if kind == "sensor"], int)

    def untempered(self) -> Temper:
        """The likelihood as it is."""
        k = len(self.scales)
        return Temper(np.float64(1.0), np.zeros(k), np.zeros((k, k)))

    def split(self, z) -> dict[str, Any]:
        """Coordinates by site; scalars where the size is 1."""
        found, at = {}, 0
        for site in self.sites:
            found[site.name] = z[at] if site.size == 1 else z[at : at + site.size]
            at += site.size
        return found

    def constrain(self, z) -> dict[str, Any]:
        """Values of the sites at coordinates z (d,)."""
        parts = mixed(self.model.correlated, self.split(z))
        return {site.name: from_coordinate(site.prior, parts[site.name]) for site in self.sites}

    def log_prior(self, z):
        """Log density of the priors at coordinates z (d,)."""
        parts = self.split(z)
        return sum(jnp.sum(log_prior(site.prior, parts[site.name])) for site in self.sites)

    def system_of(self, values):
        """The system with the values of one draw; parameters that vary have one value an occasion."""
        own = {s.name: values[s.name] for s in self.sites if s.kind == "system"}
        typical = {p: v for p, v in self.model.medians.items() if p not in own}
        for path, group in self.model.varying:
            spread = values.get(f"{path}@{group}.spread", self.model.spread(path))
            deviation = varying.levels(values, f"{path}@{group}", self.model.drifts(path))
            base = own[path] if path in own else self.model.system.values()[path]
            own[path] = base * jnp.exp(spread * deviation)
        return self.model.system.with_values({**typical, **own})

    def sites_of(self, name) -> tuple[str, ...]:
        """Names of the sites that decide a sensor: its own, and the parameter that it follows."""
        follows = self.model.sensors[name].follows
        return tuple(s.name for s in self.sites if s.name.startswith(f"{name}.") or s.name == follows)

    def sensor_of(self, name, values):
        """A sensor with the values of one draw."""
        sensor, system = self.model.sensors[name], self.model.system
        moved = {path: values[f"{name}.{path}"] for path in sensor.priors()}
        if rate := sensor.follows:  # a time constant that is this person's own
            moved["fades"] = time_factor(system.spec.time, "min") / (values[rate] if rate in values else system.values()[rate])
        return sensor.with_values(moved)

    def extras(self, values, data: Data, overrides=None):
        """Latent numbers of one draw."""

        def placed(site, sd, at):
            return sd * jnp.where(at >= 0, jnp.atleast_1d(values[site])[at], 0.0)

        amounts = (
            jnp.exp(placed("amounts", data.amount_sd, data.amount_at))
            if self.amounts
            else jnp.ones(self.layout.latents)
        )
        shifts = placed("times", data.time_sd, data.time_at) if self.times else jnp.zeros(self.layout.latents)
        found = Extras(amounts, shifts, jnp.zeros(0) if overrides is None else overrides)
        if not self.layout.stretches:
            return found
        return found._replace(path=jnp.stack([jnp.atleast_1d(values[f"noise of {p}"]) for p, _ in self.model.spec.noise]))

    def start_state(self, system, mesh, extras):
        """The state in front of the first node."""
        here, u = first(system, self.layout, mesh, extras)
        return here.steady(u) if self.model.start == "steady" else here.initial(u)

    def modelled(self, values, data: Data):
        """Modelled values at the readings: sensor -> (N,)."""
        system, extras = self.system_of(values), self.extras(values, data)
        wanted = tuple(dict.fromkeys(self.model.sensors[name].of for name in data.read))
        x0 = self.start_state(system, data.mesh, extras)
        path, _ = states(system, self.layout, self.stepper, data.mesh, x0, extras, observer(wanted))
        return {name: path[node, wanted.index(self.model.sensors[name].of)] for name, node in data.read.items()}

    def terms(self, values, data: Data):
        """What the readings say: sensor -> Terms."""
        modelled = self.modelled(values, data)
        return {name: self.sensor_of(name, values).terms(modelled[name], self._seen(name, data)) for name in data.read}

    def _seen(self, name, data: Data) -> Seen:
        """The readings of a sensor; where none is censored that is a constant of the program, which then needs no tails."""
        seen = data.seen[name]
        return seen if name in self.tails else seen._replace(censored=np.zeros(len(seen.value), np.int32))

    def log_likelihood_of(self, values, data: Data):
        """Log likelihood at the values of the sites; -inf where the solve failed."""
        return finite(sum(jnp.sum(t.loglik) for t in self.terms(values, data).values()))

    def tempered(self, z, log_likelihood, temper: Temper):
        """Log prior + log likelihood / power, with the sensors' parameters anchored, at coordinates z (d,)."""
        anchor = -0.5 * jnp.sum(temper.misses(z[self.scales]) ** 2)
        return self.log_prior(z) + log_likelihood / temper.power + anchor

    def log_density(self, z, data: Data, temper: Temper):
        """Log density of the tempered posterior at coordinates z (d,)."""
        return self.tempered(z, self.log_likelihood_of(self.constrain(z), data), temper)

    def __call__(self, z, numbers):
        return self.log_density(z, *numbers)


def finite(log_likelihood):
    """-inf for a failed solve (with a gradient of zero, so that a sampler only rejects)."""
    good = jnp.isfinite(log_likelihood)
    return jnp.where(good, jnp.where(good, log_likelihood, 0.0), -jnp.inf)


def _padded(data: Data) -> Data:
    """The same data in one of few shapes: nodes of zero length, readings and moving doses that count for nothing."""
    few = functools.partial(bucket, octave=2)  # compiling inference costs more than the padding
    moving = len(data.mesh.moving.time)
    moving = 2 ** (moving - 1).bit_length() if moving else 0
    readings = {n: few(len(s.value)) for n, s in data.seen.items()}
    return padded_to(data, few(len(data.mesh.t)), few(len(data.mesh.read)), moving, readings)


def padded_to(data: Data, nodes: int, reads: int, moving: int, readings: Mapping[str, int]) -> Data:
    """The same data with this many nodes, read nodes, moving doses and readings of each sensor; a sensor may be silent."""

    def grow(seen, n):
        last = (seen.time[-1], seen.session[-1]) if len(seen.time) else (0.0, 0)
        fills = (1.0, last[0], False, 0, last[1], 0.0)
        return Seen(
            *(np.concatenate([a, np.full(n - len(a), fill, a.dtype)]) for a, fill in zip(seen, fills, strict=True))
        )

    none, whole = np.zeros(0), np.zeros(0, np.int32)
    silent = Seen(none, none, np.zeros(0, bool), whole, whole, none)
    read = {name: data.read.get(name, np.zeros(0, np.int32)) for name in readings}
    return data._replace(
        mesh=pad(data.mesh, nodes, reads, moving),
        seen={name: grow(data.seen.get(name, silent), n) for name, n in readings.items()},
        read={name: np.concatenate([read[name], np.zeros(n - len(read[name]), np.int32)]) for name, n in readings.items()},
    )
