"""What a model is on one shape of record: its unknowns (`Site`), what it is told (`Data`, `Temper`), the functions of a lane.

A `Kernel` is everything static about one model on one shape of record, with the functions that are compiled; numbers of people
and records enter it only as arguments.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hybridtwin import varying
from hybridtwin.coordinates import from_coordinate, log_prior, mixed
from hybridtwin.program import backward
from hybridtwin.sensors import Seen
from hybridtwin.simulate.layout import Layout, Mesh, bucket, pad
from hybridtwin.simulate.solve import Extras, first, observer, states
from hybridtwin.simulate.steppers import AbstractStepper, Adaptive
from hybridtwin.simulate.stiff import Rosenbrock
from hybridtwin.units import time_factor

if TYPE_CHECKING:
    from hybridtwin.model import Model


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


@dataclasses.dataclass(frozen=True)
class Kernel:
    """Static structure of a model on one shape of record, and its lane functions (one person, one draw).

    Value-equal: two kernels of equal parts are the same key of a compiled program.
    """

    model: "Model" = dataclasses.field(compare=False)
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
        return self.terms_at(self.modelled(values, data), values, data)

    def terms_at(self, modelled, values, data: Data):
        """What the readings say of `modelled` values (sensor -> (N,)): sensor -> Terms."""
        return {name: self.sensor_of(name, values).terms(modelled[name], self._seen(name, data)) for name in data.read}

    def _seen(self, name, data: Data) -> Seen:
        """The readings of a sensor; where none is censored that is a constant of the program, which then needs no tails."""
        seen = data.seen[name]
        return seen if name in self.tails else seen._replace(censored=np.zeros(len(seen.value), np.int32))

    def gaussian(self, name, data: Data):
        """Rows (N,) of a sensor with a Gaussian density: real, not censored, of a sensor that gives one.

        The numbers do not tell: a reading that is exactly what is modelled, under an error of 1, has residual and log sd 0.
        """
        seen = self._seen(name, data)
        return seen.mask & (seen.censored == 0) & self.model.sensors[name].gaussian

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


def in_few_shapes(data: Data) -> Data:
    """The same data in one of few shapes: nodes of zero length, readings and moving doses that count for nothing.

    Compiling inference costs more than the padding, and a reading costs less than a node.
    """
    nodes, few = functools.partial(bucket, octave=2), functools.partial(bucket, octave=1)
    moving = len(data.mesh.moving.time)
    moving = 2 ** (moving - 1).bit_length() if moving else 0
    readings = {n: few(len(s.value)) for n, s in data.seen.items()}
    return padded_to(data, nodes(len(data.mesh.t)), few(len(data.mesh.read)), moving, readings)


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
