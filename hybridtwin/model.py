"""A model: a system, the sensors that read it, and their joint density with one person's unknowns.

The unknowns of a person are *sites*: parameters of the system and sensors, deviations by occasion, uncertain amounts and
times of events. Each site lives on unconstrained coordinates in which a normal-based prior is a standard normal (so the mode
found there is the mode on the eta scale, as in pharmacometrics); any other prior has median 0 and about unit spread there.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist

from hybridtwin import varying
from hybridtwin.binding import Bound
from hybridtwin.coordinates import conditional
from hybridtwin.errors import DeclarationError, ImplausibleValue, NoReadings
from hybridtwin.interventions import World, span_of
from hybridtwin.kernel import Data, Kernel, Site, in_few_shapes
from hybridtwin.policies import decided
from hybridtwin.pooling import Pooling, check, fingerprint, known, personal, pooling_of
from hybridtwin.program import Program
from hybridtwin.rest import checked_start
from hybridtwin.sensors import AbstractSensor, Seen
from hybridtwin.simulate.mesh import lay, layout_of
from hybridtwin.simulate.noise import knots_of
from hybridtwin.simulate.pilot import Choice, Pilot, choose, graded
from hybridtwin.simulate.steppers import AbstractStepper
from hybridtwin.system import System, nearest
from hybridtwin.units import time_factor


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
        system, self.pooling, self.correlated = known(system, self.pooling)
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
        given = dict.fromkeys(n for b in self.pooling.blocks if b.covariance is not None for n in b.parameters)
        spreads, typical = self.pooling.spreads | given, self.pooling.typical
        own = personal(self.system).items()
        return any(isinstance(part.get(path, prior), dist.Distribution) for path, prior in own for part in (spreads, typical))

    def starting(self, start: str) -> "Model":
        """The same model with another way to begin."""
        return self if start == self.start else self._like(start, self.sensors)

    def without(self, sensors: Iterable[str]) -> "Model":
        """The same model without some of its sensors."""
        left = {name: sensor for name, sensor in self.sensors.items() if name not in sensors}
        return self if len(left) == len(self.sensors) else self._like(self.start, left)

    def _like(self, start, sensors) -> "Model":
        same: dict[str, Any] = {"name": self.name, "varies": self.varies, "noise": self.noise}
        return Model(self.system, start=start, pooling=self.pooling, solver=self.solver, **same, **sensors)

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

    def sites(self, occasions: Mapping[str, int], amounts: int, times: int, stretches: int = 0) -> tuple[Site, ...]:
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
        lines += [f"  {name}: {sensor.told(self.unit_of(sensor.of))}" for name, sensor in self.sensors.items()]
        return "\n".join([*lines, *("  " + line for line in repr(self.system).splitlines())])


def _every(noise, spec) -> float | None:
    """How far apart knots of an inferred path may be, in system time. **Raises:** DeclarationError."""
    if not isinstance(noise, str | bool) or (isinstance(noise, str) and not span_of(noise, "s") > 0):
        raise DeclarationError(f'noise={noise!r}: give a stretch of time like "15 min", True or False.')
    return span_of(noise, spec.time) if isinstance(noise, str) else None


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
    def n_gaussian(self) -> int:
        """How many readings have a Gaussian density: the N of NONMEM's constant N log(2 pi)."""
        return sum(int(np.sum(self.kernel.gaussian(name, self.data))) for name in self.data.read)

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
    """Readings of one person that enter the likelihood: sensor -> indices. **Raises:** NoReadings, ImplausibleValue."""
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
    used = {
        name: _thinned(bound.readings[name].time * minutes, sensor.thin())
        for name, sensor in model.sensors.items()
        if len(bound.readings.get(name, ()))
    }
    for name, rows in used.items():
        seen, sensor = bound.readings[name], model.sensors[name]
        for i in rows[~sensor.possible(seen.value[rows])][:1]:
            told = f"{seen.value[i]:g} {seen.unit} at {seen.time[i]:g} {model.spec.time}"
            raise ImplausibleValue(
                f"{told} cannot be read under a {type(sensor).__name__} error",
                person=bound.person,
                row=int(seen.row[i]) or None,
                column=name,
                remedy="Mark what lies below a limit as censored at that limit, mend the value, or give the sensor another error",
            )
    return used


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
    layout = layout_of([world], spec, varying=model.varying, latents=len(bound.latent), drive=choice.drive, roomy=padded)
    longest = min(max_step or choice.step, span + 1.0)
    how = {"max_step": longest, "occasions": edges, "knots": choice.knots, "drive": choice.drive}
    mesh = lay([world], spec, layout, reads, **how)[0]
    data = _data(mesh, bound, used, minutes)
    data = in_few_shapes(data) if padded else data
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


