"""Everybody's own fit from a pooled one.

A person's own model is that of a new person of the inferred population, so its priors are numbers that no other fit has. Programs
of that model would compile again in every fit; so what is asked of the draws here is asked of the pooled model, whose programs
take the population as an argument, and what is left (priors and coordinates) is elementary and computed without compiling.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from hybridtwin.coordinates import to_coordinate, unmixed
from hybridtwin.inference.finish import Readings, judged
from hybridtwin.inference.kept import Sampled
from hybridtwin.inference.pooled import Group, Pool
from hybridtwin.inference.population import Population
from hybridtwin.kernel import Kernel
from hybridtwin.keys import person_key
from hybridtwin.simulate.run import TILE
from hybridtwin.simulate.steppers import Repeated


def own_problems(population: Population):
    """Everybody's record on the model of a person of this population, in the order of the cohort."""
    model, found = population.person(), {}
    for group in population.groups:
        stepper = group.kernel.stepper
        for _ in range(population.substeps.bit_length() - 1):
            stepper = stepper.refined() or stepper
        for place, problem in zip(group.rows, group.problems, strict=True):
            kernel = dataclasses.replace(problem.kernel, model=model, stepper=stepper)
            found[int(place)] = dataclasses.replace(problem, model=model, kernel=kernel)
    return [found[i] for i in range(len(found))]


@functools.lru_cache(maxsize=32)
def _program(pool: Pool, kernel: Kernel):
    """Compiled: (u (TILE, p), b (TILE, P, d), data (P, ...), sub-steps) -> `asked` with leading axes TILE, P."""

    def lane(u, b, data, substeps):
        here = dataclasses.replace(kernel, stepper=Repeated(kernel.stepper, substeps))
        values = pool.constrain(kernel, pool.person(kernel, u, b))
        terms = here.terms(values, data)
        residuals = {
            n: jnp.where(data.seen[n].mask & (data.seen[n].censored == 0), t.residual, jnp.nan) for n, t in terms.items()
        }
        return sum(jnp.sum(t.loglik) for t in terms.values()), residuals, values

    return jax.jit(jax.vmap(jax.vmap(lane, (None, 0, 0, None)), (0, 0, None, None)))


def asked(pool: Pool, group: Group, data, u, b, substeps: int):
    """Of n draws u (n, p), b (n, P, d): log likelihoods (n, P), residuals sensor -> (n, P, N), values site -> (n, P, ...)."""
    program, parts = _program(pool, group.kernel), []
    for i in range(0, len(u), TILE):
        rows = np.minimum(np.arange(i, i + TILE), len(u) - 1)
        parts.append(program(jnp.asarray(u[rows]), jnp.asarray(b[rows]), data, np.int32(substeps)))
    joined = [jax.tree.map(np.asarray, part) for part in parts]
    return jax.tree.map(lambda *a: np.concatenate(a)[: len(u)], *joined)


def coordinates(own: Kernel, values) -> np.ndarray:
    """Values site -> (n, P, ...) as coordinates (n, P, k) of the model of a person of the population."""
    parts = {site.name: to_coordinate(site.prior, jnp.asarray(values[site.name])) for site in own.sites}
    columns = unmixed(own.model.correlated, {name: a.reshape(-1) if a.ndim == 2 else a for name, a in parts.items()})
    lead = next(iter(values.values())).shape[:2]
    return np.concatenate([np.asarray(columns[site.name]).reshape(*lead, site.size) for site in own.sites], axis=-1)


def _values(kernel: Kernel, z):
    """`readings.values_of` without compiling."""
    found = jax.vmap(kernel.constrain)(jnp.asarray(z))
    return {name: np.asarray(v) for name, v in found.items()}


def finished(population: Population, group: Group, drawn: list[Sampled], told, root):
    """Fits of the people of a group, by their place in the cohort; `told`: `asked` under the steps and under half of them."""
    problems, fits = own_problems(population), {}
    (loglik, residuals, _), (fine, *_) = told
    for p, (place, sampled) in enumerate(zip(map(int, group.rows), drawn, strict=True)):
        problem, flat = problems[place], sampled.z.reshape(-1, sampled.z.shape[-1])
        density = np.full(len(flat), np.nan)
        if "log_proposal" in sampled.stats:
            density = np.asarray(jax.vmap(problem.kernel.log_prior)(jnp.asarray(flat))) + fine[:, p]
        at = Readings(loglik[:, p], fine[:, p], density, {n: r[:, p] for n, r in residuals.items()})
        fits[place] = judged(problem, sampled, at, person_key(root, population.ids[place]), population.method, _values)
    return fits
