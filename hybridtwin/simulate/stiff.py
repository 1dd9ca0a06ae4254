"""Rosenbrock steps: across a stiff segment without iterations, and with an error estimate for nothing.

An implicit method solves a nonlinear system at every step, for a number of rounds that each lane decides; a Rosenbrock
method solves six linear ones with one matrix. So every lane does the same work, which is what a batch wants, and the
step is a differentiable formula in both modes.
"""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jax.flatten_util import ravel_pytree

from hybridtwin.simulate.steppers import LOOPS, AbstractStepper

# RODAS, order 4(3), stiffly accurate and L-stable, in the form that multiplies the Jacobian with nothing: Hairer and
# Wanner, Solving ordinary differential equations II, 2nd edition 1996, section VI.4 (doi:10.1007/978-3-642-05221-7).
GAMMA = 0.25
NODES = (0.0, 0.386, 0.21, 0.63, 1.0, 1.0)
SLOPES = (0.25, -0.1043, 0.1035, -0.0362, 0.0, 0.0)
_LAST = (1.221224509226641, 6.019134481288629, 12.53708332932087, -0.687886036105895)
STATES = (
    (),
    (1.544,),
    (0.9466785280815826, 0.2557011698983284),
    (3.314825187068521, 2.896124015972201, 0.9986419139977817),
    _LAST,
    (*_LAST, 1.0),
)
PARTS = (
    (),
    (-5.6688,),
    (-2.430093356833875, -0.2063599157091915),
    (-0.1073529058151375, -9.594562251023355, -20.47028614809616),
    (7.496443313967647, -10.24680431464352, -33.99990352819905, 11.7089089320616),
    (8.083246795921522, -7.981132988064893, -31.52159432874371, 16.31930543123136, -6.058818238834054),
)
_SCALARS = 5  # states up to which the elimination is written out: twice as fast in a batch, but it compiles as n^3


def _apply(matrix, vector):
    return jnp.sum(matrix * vector[None, :], axis=1)


def _inverse(w):
    """Inverse of one small matrix by Gauss-Jordan steps; batched LAPACK takes three to thirty times as long on a CPU.

    Without exchange of rows: `w` is I - gamma h J, which tends to I as steps are halved, so that a small pivot shows
    as a change between n and 2n sub-steps and a pivot of 0 as a state that is not finite.
    """
    n = w.shape[0]
    if n <= _SCALARS:
        m = [[w[i, j] for j in range(n)] for i in range(n)]
        for k in range(n):
            pivot = 1.0 / m[k][k]
            row = [pivot if j == k else m[k][j] * pivot for j in range(n)]
            m = [
                row if i == k else [(0.0 if j == k else m[i][j]) - m[i][k] * row[j] for j in range(n)] for i in range(n)
            ]
        return jnp.stack([jnp.stack(r) for r in m])
    m = jnp.concatenate([w, jnp.eye(n, dtype=w.dtype)], axis=1)
    for k in range(n):
        row = m[k] / m[k, k]
        m = (m - m[:, k].at[k].set(0.0)[:, None] * row[None, :]).at[k].set(row)
    return m[:, n:]


def _solver(w):
    """Solve with `w` again and again; derivatives solve with the same inverse instead of going through it."""
    inverse = lax.stop_gradient(_inverse(lax.stop_gradient(w)))
    return lambda b: lax.custom_linear_solve(
        lambda v: _apply(w, v), b, lambda _, r: _apply(inverse, r), lambda _, r: _apply(inverse.T, r)
    )


def rosenbrock_step(f, t, h, x):
    """One step: state at t + h, and the difference from the embedded solution of order 3. `x` (n,), f(t, x) (n,)."""
    slope, in_time = jax.jvp(lambda s: f(s, x), (t,), (jnp.ones_like(t),))
    solve = _solver(jnp.eye(x.shape[0], dtype=x.dtype) - GAMMA * h * jax.jacfwd(lambda v: f(t, v))(x))
    parts: list = []
    at = x
    for node, lean, row, mix in zip(NODES, SLOPES, STATES, PARTS, strict=True):
        at = x + sum(a * p for a, p in zip(row, parts, strict=True))
        right = h * (f(t + node * h, at) if parts else slope) + sum(c * p for c, p in zip(mix, parts, strict=True))
        right = right + lean * h * h * in_time if lean else right
        parts.append(solve(GAMMA * right))
    return at + parts[-1], parts[-1]


class Rosenbrock(AbstractStepper):
    """RODAS of Hairer and Wanner, order 4, L-stable: for systems whose fastest rate is far from what one looks at.

    Six linear solves with one Jacobian (by `jacfwd`, with the derivative in time) each of `substeps` equal steps a
    segment. A step costs ten to a hundred of `RK4`'s, and is worth it where stability, not accuracy, would set the
    length of those. Source: Solving ordinary differential equations II, doi:10.1007/978-3-642-05221-7.
    """

    substeps: int = eqx.field(static=True, default=1)
    order: ClassVar[int | None] = 4

    def advance(self, f, t, h, x):
        flat, unravel = ravel_pytree(x)
        t, step = jnp.asarray(t, flat.dtype), h / self.substeps

        def g(s, v):
            return ravel_pytree(f(s, unravel(v)))[0]

        if self.substeps == 1:
            return unravel(rosenbrock_step(g, t, step, flat)[0])

        def body(v, i):
            return rosenbrock_step(g, t + i * step, step, v)[0], None

        return unravel(lax.scan(body, flat, jnp.arange(self.substeps, dtype=flat.dtype))[0])

    def cost(self, states):
        return (7.0 + states + 0.06 * states**3) * self.substeps  # measured; docs/design.md

    def refined(self):
        return Rosenbrock(2 * self.substeps)


_TRIES = 10_000  # steps of one stretch, rejected ones too, after which a lane is given up
_SHARE = 1e-3  # share of a state's size below which its digits count less
_SHORT = 1e-10  # share of the stretch below which a step goes ahead whatever its error: rates jump there
_WILD = 1e3  # unless the state is this many times its size, which is a pole
_FINEST = 1e-12  # tolerance beyond which rounding alone would decide


class Controlled(AbstractStepper):
    """The same steps, each as long as its embedded error allows in this lane: the last resort of a lane.

    Nodes are laid where a few bodies of a pilot need them, or as close as their fastest rate asks for at any time. A body whose
    own moment comes elsewhere (a heart that runs empty, so that a valve stays shut and rates have a kink) must find it by
    itself, while the other lanes of a batch wait.
    `tolerance` is relative to each state, but not below a thousandth of `size` (S,), its largest value on such a day: what
    starts from nothing or passes 0 has no size of its own, and a jump of the rates there (a valve that falls shut) must not
    stop the lane. Without it the largest value at the beginning counts, or the change that the rates there promise. Each of n
    sub-steps has the tolerance divided by n**4, so that the comparison of n and 2n tells the error here, too. A step that
    leaves the finite numbers is tried shorter; a lane that gets nowhere is NaN.
    """

    tolerance: float | jax.Array = 1e-5
    size: jax.Array | None = None
    order: ClassVar[int | None] = 4
    replaceable: ClassVar[bool] = False  # it is the last

    def advance(self, f, t, h, x):
        flat, unravel = ravel_pytree(x)
        t, h = jnp.asarray(t, flat.dtype), jnp.asarray(h, flat.dtype)
        least = jnp.maximum(1e-3 * _SHORT * h, 1e-15 * jnp.abs(t))

        def g(s, v):
            return ravel_pytree(f(s, unravel(v)))[0]

        size = jnp.maximum(jnp.abs(flat), jnp.abs(h * g(t, flat))) if self.size is None else self.size

        def one(carry):
            at, step, v, tries = carry
            left = h - at
            go = jnp.where(step > 0.9 * left, left, jnp.minimum(step, 0.5 * left))
            new, error = rosenbrock_step(g, t + at, go, v)
            here = jnp.maximum(jnp.abs(v), jnp.abs(new))
            ratio = jnp.max(jnp.abs(error) / (self.tolerance * jnp.maximum(here, _SHARE * size) + 1e-300))
            short = (go < _SHORT * h) & jnp.all(jnp.isfinite(error) & (here <= _WILD * size))
            fine = (ratio <= 1.0) | short  # not for NaN
            factor = jnp.where(jnp.isfinite(ratio), jnp.clip(0.9 * jnp.maximum(ratio, 1e-8) ** -0.25, 0.1, 5.0), 0.1)
            v = jnp.where(fine, new, v)
            lost = (~fine & (factor * go < least)) | ((tries >= _TRIES) & (go < left))  # steps that all go ahead may not end, too
            at = jnp.where(lost, h, jnp.where(fine, jnp.where(go < left, at + go, h), at))
            v = jnp.where(lost, jnp.nan, v)
            return at, lax.stop_gradient(factor * go), v, tries + 1

        start = jnp.where(jnp.isfinite(flat).all(), 0.0, h), h, flat, 0
        return unravel(lax.while_loop(lambda carry: carry[0] < h, one, start)[2])

    def cost(self, states):
        return LOOPS

    def within(self, count) -> "Controlled":
        return Controlled(jnp.maximum(self.tolerance / jnp.asarray(count, float) ** 4, _FINEST), self.size)

    def refined(self):
        return Controlled(self.tolerance / 16.0, self.size)


def sized(stepper: AbstractStepper, lane) -> AbstractStepper:
    """The same stepper, told how large states get where a lane knows it (`run.solve_draws`)."""
    return Controlled(stepper.tolerance, lane["size"]) if isinstance(stepper, Controlled) and "size" in lane else stepper
