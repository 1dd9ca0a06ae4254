"""Steppers: how a state crosses one segment of the mesh.

A segment is a stretch of time in which nothing jumps. Every stepper answers the same question, `advance(f, t, h, x)`:
the state at `t + h` when dx/dt = f(t, x). States are pytrees of scalars, not slices of one vector: under `vmap` each
scalar becomes one contiguous array over people, which is what a CPU and a GPU want.
"""

import abc
import functools
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.flatten_util import ravel_pytree
from numpy.polynomial import chebyshev

from hybridtwin.simulate import linear

LOOPS = 1000.0  # evaluations that a segment is taken to cost where each lane finds its own steps, and none is known


class AbstractStepper(eqx.Module):
    """One way to cross a segment. `order` is the order of convergence, or None where there is no step to refine; `replaceable`:
    may another method go on in a lane that does not settle?
    """

    order: eqx.AbstractClassVar[int | None]
    replaceable: ClassVar[bool] = True

    @abc.abstractmethod
    def advance(self, f, t, h, x):
        """State at t + h. A failure shows as a non-finite state, never as an exception (this runs inside jit)."""

    def cost(self, states: int) -> float:
        """What one segment costs, in evaluations of the rates."""
        return 1.0

    @property
    def refines(self) -> bool:
        """Do its steps have a length that can be halved? Told without making the finer one, for every simulation asks."""
        return self.order is not None

    @abc.abstractmethod
    def refined(self):
        """The same stepper with twice the sub-steps, or None where that has no meaning."""

    def within(self, count) -> "AbstractStepper":
        """What crosses each of `count` equal parts of a segment: the same, unless it has a tolerance of its own to tighten."""
        return self


def _combine(x, h, weights, slopes):
    """X + h * sum(w_i * k_i), skipping the zero weights so that they cost nothing."""
    used = [(float(w), k) for w, k in zip(weights, slopes, strict=True) if w != 0.0]
    return jax.tree.map(
        lambda leaf, *ks: leaf + h * sum(w * k for (w, _), k in zip(used, ks, strict=True)), x, *[k for _, k in used]
    )


def _explicit_step(a, b, c, f, t, h, x):
    slopes = []
    for row, node in zip(a, c, strict=True):
        stage = _combine(x, h, row, slopes) if any(w != 0.0 for w in row) else x
        slopes.append(f(t + node * h, stage))
    return _combine(x, h, b, slopes)


def _in_steps(one, substeps, f, t, h, x):
    """`one(f, t, h, x)` in equal sub-steps."""
    step = h / substeps
    if substeps <= 2:  # a loop inside the scan costs more than it saves
        for i in range(substeps):
            x = one(f, t + i * step, step, x)
        return x

    def body(carry, i):
        return one(f, t + i * step, step, carry), None

    return lax.scan(body, x, jnp.arange(substeps, dtype=step.dtype))[0]


def _explicit_advance(tableau, substeps, f, t, h, x):
    return _in_steps(functools.partial(_explicit_step, *tableau), substeps, f, t, h, x)


_RK4 = (((), (0.5,), (0.0, 0.5), (0.0, 0.0, 1.0)), (1 / 6, 1 / 3, 1 / 3, 1 / 6), (0.0, 0.5, 0.5, 1.0))
_HEUN = (((), (1.0,)), (0.5, 0.5), (0.0, 1.0))


@functools.lru_cache(maxsize=1)
def _tsit5_tableau():
    # Coefficients from diffrax, so that they are typed in once in this world (Tsitouras 2011,
    # doi 10.1016/j.camwa.2011.06.002). Loaded when first used: it is a fifth of what an import of ours would cost.
    import diffrax

    table = diffrax.Tsit5.tableau
    a = ((), *(tuple(float(v) for v in row) for row in table.a_lower))[:6]
    b = tuple(float(v) for v in table.b_sol)[:6]
    c = (0.0, *(float(v) for v in table.c))[:6]
    return a, b, c


class RK4(AbstractStepper):
    """Classical Runge-Kutta, order 4, `substeps` equal steps a segment."""

    substeps: int = eqx.field(static=True, default=1)
    order: ClassVar[int | None] = 4

    def advance(self, f, t, h, x):
        return _explicit_advance(_RK4, self.substeps, f, t, h, x)

    def cost(self, states):
        return 4.0 * self.substeps

    def refined(self):
        return RK4(2 * self.substeps)


class Tsit5(AbstractStepper):
    """Tsitouras' 5(4) pair without its error estimate (the mesh compares n with 2n instead), order 5."""

    substeps: int = eqx.field(static=True, default=1)
    order: ClassVar[int | None] = 5

    def advance(self, f, t, h, x):
        return _explicit_advance(_tsit5_tableau(), self.substeps, f, t, h, x)

    def cost(self, states):
        return 6.0 * self.substeps

    def refined(self):
        return Tsit5(2 * self.substeps)


class Heun(AbstractStepper):
    """Heun's method, order 2: the cheap one, for rough looks and for checking orders."""

    substeps: int = eqx.field(static=True, default=1)
    order: ClassVar[int | None] = 2

    def advance(self, f, t, h, x):
        return _explicit_advance(_HEUN, self.substeps, f, t, h, x)

    def cost(self, states):
        return 2.0 * self.substeps

    def refined(self):
        return Heun(2 * self.substeps)


class Difference(AbstractStepper):
    """One step of a difference equation, x + h f(t, x): the law itself, so that nothing is to be refined."""

    order: ClassVar[int | None] = None
    replaceable: ClassVar[bool] = False

    def advance(self, f, t, h, x):
        return jax.tree.map(lambda leaf, rate: leaf + h * rate, x, f(t, x))

    def refined(self):
        return None


@functools.lru_cache(maxsize=16)
def _chebyshev_stages(stages):
    """Coefficients of the Runge-Kutta-Chebyshev method of order 2 (Sommeijer, Shampine and Verwer 1998).

    **Returns:** the weight of the first slope in the first stage, and a row for each later stage j: the weights of x, of the
    stages j - 1 and j - 2, of the slopes at stage j - 1 and at x, and where in the step stage j - 1 is.
    """

    def t(j, derivative=0):
        series = [0.0] * j + [1.0]
        return chebyshev.chebval(w0, chebyshev.chebder(series, derivative) if derivative else series)

    w0 = 1 + 2 / 13 / stages**2
    w1 = t(stages, 1) / t(stages, 2)
    b = [0.0, 0.0] + [t(j, 2) / t(j, 1) ** 2 for j in range(2, stages + 1)]
    b[0] = b[1] = b[2]
    rows, places = [], [0.0, b[1] * w1]
    for j in range(2, stages + 1):
        near, far, push = 2 * b[j] * w0 / b[j - 1], -b[j] / b[j - 2], 2 * b[j] * w1 / b[j - 1]
        pull = -(1 - b[j - 1] * t(j - 1)) * push
        rows.append([1 - near - far, near, far, push, pull, places[j - 1]])
        places.append(near * places[j - 1] + far * places[j - 2] + push + pull)
    return b[1] * w1, np.array(rows)


def _chebyshev_step(stages, f, t, h, x):
    """One step, its stages in a loop: a program a third smaller to compile than with stages written out, and faster."""
    begin, rows = _chebyshev_stages(stages)
    slope = f(t, x)
    first = jax.tree.map(lambda leaf, k: leaf + begin * h * k, x, slope)

    def stage(carry, row):
        before, now = carry
        one, near, far, push, pull, place = row

        def combined(x, now, before, k, slope):
            return one * x + near * now + far * before + h * (push * k + pull * slope)

        return (now, jax.tree.map(combined, x, now, before, f(t + place * h, now), slope)), None

    return lax.scan(stage, (x, first), jnp.asarray(rows, h.dtype))[0][1]


class Chebyshev(AbstractStepper):
    """Runge-Kutta-Chebyshev, order 2: explicit, with a real stability interval that grows as the square of `stages`.

    For long records of systems with one fast compartment (a stomach that empties in minutes under three days of
    glucose): four stages are stable to 9.8 on the negative axis, where RK4's four reach 2.8. Doi
    10.1016/S0377-0427(97)00219-7.
    """

    stages: int = eqx.field(static=True, default=4)
    substeps: int = eqx.field(static=True, default=1)
    order: ClassVar[int | None] = 2

    def advance(self, f, t, h, x):
        return _in_steps(functools.partial(_chebyshev_step, self.stages), self.substeps, f, t, h, x)

    def cost(self, states):
        return float(self.stages * self.substeps)

    def refined(self):
        return Chebyshev(self.stages, 2 * self.substeps)


class Repeated(AbstractStepper):
    """Another stepper, `count` times a step, where the count is a number that a compiled program is given.

    One program then serves n, 2n, 4n, ... sub-steps. `parts`: steps of the segment at hand. No reverse mode goes through it.
    """

    stepper: AbstractStepper
    count: jax.Array
    parts: int | jax.Array = 1

    order: ClassVar[int | None] = None  # that of `stepper`

    def advance(self, f, t, h, x):
        if not self.stepper.refines:
            return self.stepper.advance(f, t, h, x)
        count, inner = self.times, self.inner
        step = h / count
        return lax.fori_loop(0, count, lambda i, x: inner.advance(f, t + i * step, step, x), x)

    @property
    def times(self):
        """How often a segment."""
        return self.count * self.parts

    @property
    def inner(self) -> AbstractStepper:
        """The stepper of one sub-step."""
        return self.stepper.within(self.count)

    def refined(self):
        return None if not self.stepper.refines else Repeated(self.stepper, 2 * self.count, self.parts)


class Exact(AbstractStepper):
    """Exact steps of linear systems, by closed form where there is one (`linear.blocks_of`), else by a matrix exponential.

    Right for systems whose rates are affine in the state while inputs are constant over the segment; `simulate` picks
    it only where the walk over `rates` has shown that. There is no solver error: rounding alone remains.
    """

    blocks: tuple[tuple[int, ...], ...] | None = eqx.field(static=True, default=None)
    forced: bool = eqx.field(static=True, default=True)  # False: nothing flows in from outside, see `unforced`
    order: ClassVar[int | None] = None

    @classmethod
    def of(cls, spec) -> "Exact":
        """The exact steps of a declared system."""
        return cls(linear.blocks_of(spec))

    def advance(self, f, t, h, x):
        flat, unravel = ravel_pytree(x)

        def g(v):
            return ravel_pytree(f(t, unravel(v)))[0]

        origin = jnp.zeros_like(flat)
        a, b = jax.jacfwd(g)(origin), g(origin) if self.forced else None
        if self.blocks is None:
            return unravel(linear.by_matrix_exponential(a, b, h, flat))
        return unravel(linear.closed_form(a, b, h, flat, self.blocks))

    def refined(self):
        return None


def in_parts(stepper: AbstractStepper, parts) -> AbstractStepper:
    """The same steps across a segment of several of them; `parts`: how many, None where each segment is one."""
    return stepper if parts is None or not isinstance(stepper, Repeated) else Repeated(stepper.stepper, stepper.count, parts)


def unforced(stepper: AbstractStepper) -> AbstractStepper:
    """The same steps where rates are 0 at the origin: the closed form has one eigenvalue less, and these are what it costs."""
    if isinstance(stepper, Exact) and stepper.blocks is not None:
        return Exact(stepper.blocks, False)
    return Repeated(unforced(stepper.stepper), stepper.count, stepper.parts) if isinstance(stepper, Repeated) else stepper


class Adaptive(AbstractStepper):
    """diffrax's adaptive solvers: the reference, and the way through stiff systems (`stiff=True`: Kvaerno5)."""

    rtol: float = eqx.field(static=True, default=1e-8)
    atol: float = eqx.field(static=True, default=1e-8)
    stiff: bool = eqx.field(static=True, default=False)
    max_steps: int = eqx.field(static=True, default=4096)
    order: ClassVar[int | None] = None

    def cost(self, states):
        return LOOPS

    def advance(self, f, t, h, x):
        import diffrax

        solver = diffrax.Kvaerno5() if self.stiff else diffrax.Tsit5()
        # Nothing is to be solved between nodes at one time, nor in a lane that is lost, which would try until `max_steps`.
        go = (h > 0) & jnp.all(jnp.array([jnp.isfinite(leaf) for leaf in jax.tree.leaves(x)]))
        span = jnp.where(go, h, 1.0)
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(lambda s, y, args: jax.tree.map(lambda d: jnp.where(go, d * span, 0.0), f(t + s * span, y))),
            solver,
            0.0,
            1.0,
            None,
            jax.tree.map(lambda leaf: jnp.where(go, leaf, 0.0), x),
            stepsize_controller=diffrax.PIDController(rtol=self.rtol, atol=self.atol),
            max_steps=self.max_steps,
            adjoint=diffrax.ForwardMode(),
            throw=False,
        )
        fine = diffrax.is_successful(solution.result)
        return jax.tree.map(lambda old, new: jnp.where(go, jnp.where(fine, new[-1], jnp.nan), old), x, solution.ys)

    def refined(self):
        return None
