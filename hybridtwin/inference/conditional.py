"""Conditional modes of a pooled model: where each person's effects are likeliest, given the population.

Damped Gauss-Newton (Fisher scoring) over all people at once, warm-started, in one compiled loop. At the mode the marginal
likelihood of a person is that of NONMEM's first-order conditional method with interaction: with standardized effects b,

    O_i = sum(r^2 + log R) + b'b + log |I + sum(a a' / R + c c' / 2)|,   a = df/db,  c = dR/db / R,

which is log |Omega| + log |Omega^-1 + ...| + eta' Omega^-1 eta written for b = L^-1 eta. Rows that are not Gaussian (censored,
counts) enter the curvature by their own second derivative, and with `laplace` all rows do (NONMEM's LAPLACIAN). Without
interaction R is that of a person without effects (FOCE); not conditional, f is also a straight line there (FO).
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from hybridtwin.errors import ParameterError
from hybridtwin.inference.pooled import Group, Pool
from hybridtwin.kernel import Kernel
from hybridtwin.simulate.steppers import Repeated

WIDTH = 8  # populations that are evaluated side by side: the differences of a gradient, the steps of a line search
_ROUNDS = 60
_LOCAL = 0.5  # longest step of the standardized effects that tells of the curvature at its end
ARRIVED = 1e-9  # step of the standardized effects at which a mode counts as found


class Modes(NamedTuple):
    """Conditional modes of P people in one population."""

    b: Any  # (P, d) standardized effects
    objective: Any  # (P,) -2 log marginal likelihood without N log(2 pi)
    curvature: Any  # (P, d, d) negative Hessian of the log joint density at the mode, as the method takes it
    joint: Any  # (P,) the part without the determinant
    arrived: Any  # (P,)


class Order(NamedTuple):
    """What is expanded at a person's conditional mode: the readings, and their error too (NONMEM's INTERACTION)?"""

    conditional: bool = True
    interaction: bool = True


CONDITIONAL = Order()


class _Point(NamedTuple):
    joint: jax.Array
    slope: jax.Array
    expected: jax.Array
    good: jax.Array


def _hessian(f):
    """Forward over forward: nothing goes backward through a loop whose number of sub-steps is an argument."""
    return jax.jacfwd(jax.jacfwd(f))


@functools.lru_cache(maxsize=32)
def _functions(pool: Pool, kernel: Kernel, order: "Order"):
    """(point, exact) of one person in one population."""

    def rows(u, b, data, substeps):
        here = dataclasses.replace(kernel, stepper=Repeated(kernel.stepper, substeps))

        def asked(b):
            return pool.rows(here, pool.person(kernel, u, b), data)

        if order.interaction:
            return asked(b)
        if not order.conditional:
            (residual, log_sd, rest), (dr, ds, _) = jax.jvp(asked, (jnp.zeros_like(b),), (b,))
            return residual + dr + residual * ds, log_sd, rest
        (residual, log_sd, rest), fixed = asked(b), asked(jnp.zeros_like(b))[1]
        return residual * jnp.exp(log_sd - fixed), fixed, rest

    def joint(u, b, data, substeps):
        residual, log_sd, rest = rows(u, b, data, substeps)
        return 0.5 * jnp.sum(residual**2) + jnp.sum(log_sd - rest) + 0.5 * b @ b

    def point(u, b, data, substeps):
        def both(b):
            found = rows(u, b, data, substeps)
            return found, found

        (dr, ds, dt), (residual, log_sd, rest) = jax.jacfwd(both, has_aux=True)(b)
        value = 0.5 * jnp.sum(residual**2) + jnp.sum(log_sd - rest) + 0.5 * b @ b
        slope = residual @ dr + jnp.sum(ds - dt, axis=0) + b
        a = dr + residual[:, None] * ds  # minus the slope of the expectation, in standard deviations
        expected = a.T @ a + 2.0 * ds.T @ ds + dt.T @ dt + jnp.eye(b.shape[0])
        good = jnp.isfinite(value) & jnp.all(jnp.isfinite(expected))
        return _Point(value, slope, jnp.where(good, expected, jnp.eye(b.shape[0])), good)

    def measured(u, b, data, substeps, expected, laplace):
        """The curvature whose determinant the objective takes, where it is not the expected one."""
        if laplace:
            return _hessian(lambda b: joint(u, b, data, substeps))(b)

        def rest(b):
            found = rows(u, b, data, substeps)[2]
            return jnp.sum(found), found

        score = jax.jacfwd(lambda b: rest(b)[1])(b)
        return expected - score.T @ score - _hessian(lambda b: rest(b)[0])(b)

    return point, measured


def _learned(missing, expected, moved, turned):
    """What the expected curvature misses (..., d, d), learned from how the slope turned by `turned` over a step `moved`.

    Where absorption and elimination trade places the true curvature is a quarter larger than the expected one and scoring
    swings about the mode for sixty rounds; a symmetric rank-one correction (Dennis, Gay and Welsch 1981,
    doi:10.1145/355958.355965, by SR1) ends that in a few. Long steps tell of another place and teach nothing.
    """
    rest = turned - jnp.einsum("upij,upj->upi", expected + missing, moved)
    along = jnp.einsum("upi,upi->up", rest, moved)
    size = jnp.linalg.norm(rest, axis=-1) * jnp.linalg.norm(moved, axis=-1)
    taken = (jnp.abs(along) > 1e-6 * size) & (size > 1e-18) & (jnp.max(jnp.abs(moved), axis=-1) < _LOCAL)
    update = rest[..., :, None] * rest[..., None, :] / jnp.where(taken, along, 1.0)[..., None, None]
    return missing + jnp.where(taken[..., None, None], update, 0.0)


def _step(expected, missing, slope):
    """Newton's step (..., d), by the expected curvature alone where the corrected one is not positive."""
    root = jnp.linalg.cholesky(expected + missing)
    fine = jnp.all(jnp.isfinite(root), axis=(-2, -1))[..., None, None]
    return -jnp.linalg.solve(expected + jnp.where(fine, missing, 0.0), slope[..., None])[..., 0]


@functools.lru_cache(maxsize=32)
def _program(pool: Pool, kernel: Kernel, laplace: bool, others: bool, order: Order):
    """Compiled: (u (WIDTH, p), b (WIDTH, P, d), data (P, ...), sub-steps) -> `Modes` with leading axis WIDTH."""
    point, measured = _functions(pool, kernel, order)
    people = jax.vmap(point, (None, 0, 0, None))
    lanes = jax.vmap(people, (0, 0, None, None))
    exact = functools.partial(measured, laplace=laplace)
    dets = jax.vmap(jax.vmap(exact, (None, 0, 0, None, 0)), (0, 0, None, None, 0))

    def search(u, b, data, substeps, arrived):
        def round_(state):
            # the one place where the readings are asked: a trial is judged, and the next one laid out from the best so far
            b, here, missing, trial, reach, damp, done, k = state
            there = lanes(u, trial, data, substeps)
            moved, turned = trial - b, there.slope - here.slope
            better = there.good & (there.joint <= here.joint + 1e-11 * (1.0 + jnp.abs(there.joint))) & ~done

            def take(new, old):
                return jnp.where(better.reshape(better.shape + (1,) * (new.ndim - 2)), new, old)

            b, here = take(trial, b), jax.tree.map(take, there, here)
            damp = jnp.where(better, jnp.where(damp < 1e-4, 0.0, damp * 0.1), jnp.maximum(damp * 8.0, 1e-3))
            done = done | (better & (reach < arrived)) | (damp > 1e8) | ~here.good
            missing = _learned(missing, here.expected, moved, jnp.where(there.good[..., None], turned, jnp.nan))
            diagonal = jnp.einsum("upii->upi", here.expected)[..., None] * jnp.eye(b.shape[-1])[None, None]
            step = _step(here.expected + damp[..., None, None] * diagonal, missing, here.slope)
            reach = jnp.max(jnp.abs(step), axis=-1)
            step = step * jnp.minimum(1.0, 2.0 / jnp.maximum(reach, 1e-30))[..., None]
            return b, here, missing, jnp.where(done[..., None], b, b + step), reach, damp, done, k + 1

        def goes_on(state):
            return (state[-1] < _ROUNDS) & ~jnp.all(state[-2])

        lead, d = b.shape[:2], b.shape[-1]
        identity = jnp.broadcast_to(jnp.eye(d), (*lead, d, d))
        nothing = _Point(jnp.full(lead, jnp.inf), jnp.zeros((*lead, d)), identity, jnp.zeros(lead, bool))
        far = jnp.full(lead, jnp.inf)
        start = (b, nothing, jnp.zeros((*lead, d, d)), b, far, jnp.full(lead, 1e-2), jnp.zeros(lead, bool), jnp.zeros((), int))
        b, here, *_, done, _ = lax.while_loop(goes_on, round_, start)
        curvature = dets(u, b, data, substeps, here.expected) if laplace or others else here.expected
        objective = 2.0 * here.joint + jnp.linalg.slogdet(curvature)[1]
        return Modes(b, jnp.where(here.good, objective, jnp.inf), curvature, here.joint, done & here.good)

    return jax.jit(search)


@functools.lru_cache(maxsize=32)
def _prior_program(pool: Pool):
    return jax.jit(jax.vmap(pool.log_prior))


class Marginal:
    """The marginal likelihood of a cohort as a function of the population, with warm starts from call to call.

    `penalized`: times the hyperpriors, which then stand behind the people as one more column. `arrived`: step of the
    standardized effects at which a mode counts as found; derivatives of an optimum to many digits need many.
    """

    def __init__(self, pool, groups: list[Group], laplace: bool = False, penalized: bool = False, arrived: float = ARRIVED,
                 order: Order = CONDITIONAL):  # fmt: skip
        self.pool, self.groups, self.laplace, self.substeps = pool, groups, laplace, np.int32(1)
        self.arrived, self._last = np.float64(arrived), []
        self.count, self.penalized = sum(len(g.rows) for g in groups), penalized
        self.datas = [jax.tree.map(jnp.asarray, g.data) for g in groups]
        self.warm = [np.zeros((len(g.rows), pool.effects(g.kernel))) for g in groups]
        self._others, self.order = [_has_others(g) for g in groups], order
        if any(self._others) and order != CONDITIONAL:
            raise ParameterError("FO and FOCE know no censored or counted readings. Use ht.FOCEI() or ht.HMC().")

    def modes(self, us) -> list[Modes]:
        """`Modes` of each group at up to `WIDTH` populations us (U, p), with leading axis U."""
        us = np.atleast_2d(us)
        full = np.concatenate([us, np.repeat(us[:1], WIDTH - len(us), axis=0)])
        found = []
        for group, data, warm, others in zip(self.groups, self.datas, self.warm, self._others, strict=True):
            program = _program(self.pool, group.kernel, self.laplace, others, self.order)
            start = np.broadcast_to(warm, (WIDTH, *warm.shape))
            modes = program(full, jnp.asarray(start), data, self.substeps, self.arrived)
            found.append(Modes(*(np.array(a)[: len(us)] for a in modes)))
        self._last = found
        return found

    def adopt(self, row: int) -> None:
        """Later searches start from the modes of this row of the last call."""
        self.warm = [np.where(np.isfinite(m.b[row]), m.b[row], 0.0) for m in self._last]

    def each(self, us):
        """Objective of every person (U, P or P + 1) at populations us (U, p), in the order of the cohort."""
        us, parts = np.atleast_2d(us), [np.zeros((0, self.count + self.penalized))]
        for i in range(0, len(us), WIDTH):
            modes = self.modes(us[i : i + WIDTH])
            part = np.zeros((len(us[i : i + WIDTH]), self.count + self.penalized))
            if self.penalized:
                part[:, -1] = self._penalty(us[i : i + WIDTH])
            for group, found in zip(self.groups, modes, strict=True):
                part[:, group.rows] = found.objective
            parts.append(part)
        return np.concatenate(parts)

    def _penalty(self, us):
        full = np.concatenate([us, np.repeat(us[:1], WIDTH - len(us), axis=0)])
        return -2.0 * np.array(_prior_program(self.pool)(full))[: len(us)]

    def settle(self, u) -> list[Modes]:
        """`Modes` of each group at u (p,), from where later searches start."""
        found = [Modes(*(a[0] for a in modes)) for modes in self.modes(u)]
        self.warm = [np.where(np.isfinite(m.b), m.b, 0.0) for m in found]
        return found

    def slopes(self, u, step):
        """Central differences of every person's objective (p, P), with steps (p,)."""
        moves = np.diag(step)
        found = self.each(np.concatenate([u + moves, u - moves]))
        return (found[: len(u)] - found[len(u) :]) / (2 * step[:, None])


def _has_others(group: Group) -> bool:
    """Are there readings of this group that are not Gaussian?"""
    from hybridtwin.sensors import CGM

    sensors = group.kernel.model.sensors
    calibrated = any(isinstance(sensors[name], CGM) for name in group.data.seen)  # its calibration is in no residual
    return calibrated or any(problem.n_gaussian < problem.n_readings for problem in group.problems)
