"""Draws against the readings, in one compiled program a kernel: densities, residuals and modelled values of many draws.

Every stage that needs no gradient (importance sampling, the correction from n to 2n sub-steps, the check of a fit) calls this
one program, whose lanes are people times `TILE` draws, whatever the number of draws.
"""

import dataclasses
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hybridtwin.coordinates import at_ranks, normal_based, to_coordinate
from hybridtwin.engine import Lanes, cores, double
from hybridtwin.kernel import Kernel
from hybridtwin.keys import as_key
from hybridtwin.simulate.run import TILE
from hybridtwin.simulate.steppers import Repeated


class Read(NamedTuple):
    """Of P people, n draws each."""

    log_density: np.ndarray  # (P, n) of the tempered posterior; -inf where the solve failed
    log_likelihood: np.ndarray  # (P, n); not finite where the solve failed
    residuals: dict[str, np.ndarray]  # sensor -> (P, n, N), NaN where a reading is censored or no reading
    modelled: dict[str, np.ndarray]  # sensor -> (P, n, N)


@functools.lru_cache(maxsize=64)
def _program(kernel: Kernel):
    """Compiled: (z (P, TILE, d), data (P, ...), temper (P, ...), sub-steps) -> `Read` of P people, TILE draws each."""

    def lane(z, data, temper, substeps):
        here = dataclasses.replace(kernel, stepper=Repeated(kernel.stepper, substeps))
        values = kernel.constrain(z)
        modelled = here.modelled(values, data)
        terms = kernel.terms_at(modelled, values, data)
        residuals = {
            n: jnp.where(data.seen[n].mask & (data.seen[n].censored == 0), t.residual, jnp.nan) for n, t in terms.items()
        }
        loglik = sum(jnp.sum(t.loglik) for t in terms.values())
        good = jnp.isfinite(loglik)
        density = jnp.where(good, kernel.tempered(z, jnp.where(good, loglik, 0.0), temper), -jnp.inf)
        return Read(density, loglik, residuals, modelled)

    return Lanes(jax.vmap(lane, (0, None, None, None)), (0, 0, 0, None))


def read(kernel: Kernel, z, data, temper, substeps: int = 1) -> Read:
    """What draws z (P, n, d) of P people say at their readings; data and temper with a leading axis P. NumPy out.

    `substeps`: into how many the kernel's own steps are cut, a number of the program, not a program of its own.
    """
    program, parts = _program(kernel), []
    count = z.shape[1]
    for i in range(0, count, TILE):
        group = z[:, i : i + TILE]
        full = np.concatenate([group, np.repeat(group[:, :1], TILE - group.shape[1], axis=1)], axis=1)
        # all are under way before one is waited for
        parts.append(program(full, data, temper, np.int32(substeps)))
    joined = [jax.tree.map(np.asarray, part) for part in parts]
    return jax.tree.map(lambda *a: np.concatenate(a, axis=1)[:, :count], *joined)


def densities(kernel: Kernel, z, data, temper, substeps: int = 1) -> np.ndarray:
    """Log density of the tempered posterior at z (P, n, d): (P, n), -inf where a solve failed."""
    program, parts = _program(kernel), []
    for i in range(0, z.shape[1], TILE):
        group = z[:, i : i + TILE]
        full = np.concatenate([group, np.repeat(group[:, :1], TILE - group.shape[1], axis=1)], axis=1)
        parts.append(program(full, data, temper, np.int32(substeps)).log_density)
    return np.concatenate([np.asarray(part) for part in parts], axis=1)[:, : z.shape[1]]


def at_readings(kernel: Kernel, z, data, substeps: int = 1):
    """Log likelihood, residuals and modelled values at draws z (n, d) of one person, the kernel's steps cut; NumPy."""
    one = jax.tree.map(lambda a: np.asarray(a)[None], (data, kernel.untempered()))
    found = read(kernel, np.asarray(z)[None], *one, substeps=substeps)
    return tuple(jax.tree.map(lambda a: a[0], part) for part in found[1:])


@functools.lru_cache(maxsize=64)
def _constrain_program(kernel: Kernel):
    return jax.jit(jax.vmap(kernel.constrain))


_ROWS = 2048  # draws of one call that gives values


def values_of(kernel: Kernel, z) -> dict[str, Any]:
    """Values of the sites at draws z (n, d)."""
    z, parts = np.asarray(z), []
    for i in range(0, max(len(z), 1), _ROWS):
        group = z[i : i + _ROWS]
        full = np.concatenate([group, np.zeros((_ROWS - len(group), kernel.size))])
        found = _constrain_program(kernel)(full)
        parts.append({name: np.asarray(v)[: len(group)] for name, v in found.items()})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def ahead(kernel: Kernel, data, temper) -> Callable[[], None]:
    """Begin to compile what the end of every fit needs, on another core, while its modes are searched for.

    The call returned does the rest and waits. A kernel whose programs were compiled once is not looked at again, and one core has
    no other.
    """
    if _program(kernel).called or cores() < 2:
        return lambda: None
    z = np.zeros((len(temper.power), 1, kernel.size))

    def begin():
        with double():
            densities(kernel, z, data, temper)

    def end():
        values_of(kernel, z[0])  # two small programs, by a thread that would only wait
        prior_draws(kernel, as_key(0), 1)
        work.result()

    with_it = ThreadPoolExecutor(1, "hybridtwin-ahead")
    work = with_it.submit(begin)
    with_it.shutdown(wait=False)
    return end


def generator(key, fold: int) -> np.random.Generator:
    """NumPy's generator from a JAX key: chance on the host without a program to compile."""
    return np.random.default_rng(np.append(np.array(jax.random.key_data(key)), fold))


def _by_host(site, rng, count) -> Any:
    """Coordinates (count, size) drawn from a site's prior by NumPy, without a program to compile; None where that cannot be."""
    if normal_based(site.prior) is not None:
        return rng.standard_normal((count, site.size))
    found = at_ranks(site.prior, rng.uniform(1e-16, 1 - 1e-16, count * site.size))
    return None if found is None else found.reshape(count, site.size)


_PRIOR_ROWS = 1000  # draws from the prior come in multiples of these, so that one program serves every number


@functools.lru_cache(maxsize=64)
def _prior_program(kernel: Kernel, rows: int):
    """Compiled: key -> coordinates (rows, size) of every site whose prior only JAX can draw from, by place."""
    places = [i for i, site in enumerate(kernel.sites) if _by_host(site, np.random.default_rng(0), 1) is None]

    def draw(key):
        drawn = {i: kernel.sites[i].prior.sample(jax.random.fold_in(key, i), (rows, kernel.sites[i].size)) for i in places}
        return {i: to_coordinate(kernel.sites[i].prior, values) for i, values in drawn.items()}

    return jax.jit(draw) if places else lambda key: {}


def prior_draws(kernel: Kernel, key, count: int) -> np.ndarray:
    """Draws from the prior as coordinates (count, d)."""
    rng, others = generator(key, 0), _prior_program(kernel, -(-count // _PRIOR_ROWS) * _PRIOR_ROWS)(key)
    columns = [np.asarray(others[i])[:count] if i in others else _by_host(s, rng, count) for i, s in enumerate(kernel.sites)]
    return np.concatenate(columns, axis=1) if columns else np.zeros((count, 0))
