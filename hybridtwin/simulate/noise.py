"""Process noise: how a sub-step of the drift becomes a sub-step of dx = f dt + g dW (Ito), one Wiener process a state.

The drift is crossed by whatever stepper crosses it without noise; then x_i += g_i dW + g_i g_i' (dW**2 - h) / 2 with g_i' the
derivative with respect to x_i: Milstein's method for diagonal noise with a better drift (Kloeden and Platen 1992, chapter
10.3), of strong order 1 where each g_i depends on no other noisy state, else 1/2. Where g is zero it is the stepper itself.

W is a function of time (`paths.Wiener`), so finer steps, other worlds and other meshes see one path.

*States that are declared positive* are set to zero where noise would take them below it: in the limit of small steps the
boundary reflects. A state that may be negative is declared with `positive=False`.

*An inferred path* is a straight line between its knots: every reading is one, and between two of them there are as many as the
dynamics ask for. Its increments are unknowns of the density, standard normal a priori. Then dx/dt = f + g dW/dt - g g' / 2, an
ordinary equation that any stepper crosses; the last term is Ito's (Wong and Zakai 1965, doi:10.1214/aoms/1177699916), and
a difference equation, which is moved by g dW in each of its steps, is without it.
"""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from hybridtwin.errors import DeclarationError
from hybridtwin.paths import Wiener, path_key
from hybridtwin.simulate.steppers import Repeated

NOISY_STEPS = 200  # least number of first steps in a record, since a drift at rest says nothing about its noise
NOISY = 1e-2  # tolerance where there is process noise: a path is met with order 1, not 4


_FINE = 0.2  # longest stretch of an inferred path, in time constants of the fastest state
_MOST = 400  # unknowns of the inferred paths of one record


def longest(step: float, span: float, layout, spec) -> float:
    """The longest step of a day of length `span`: no fewer than `NOISY_STEPS` under drawn noise, but whole steps of a difference
    equation.
    """
    return min(step, span / NOISY_STEPS if layout.noise and spec.step is None else span + 1.0)


def knots_of(spec, every: float | None, span: tuple[float, float], reads, rate: float) -> tuple[float, ...]:
    """Knots of the inferred paths over the `span` of a record: its ends, every reading, and in between none more than `every`
    apart.

    `every`: in system time; None: a fifth of the shortest time constant, 1 / `rate`; a difference equation has one a step.

    **Raises:** DeclarationError where that makes too many unknowns, and for `every` in a difference equation.
    """
    start, stop = span
    if spec.step is not None:
        if every is not None:
            raise DeclarationError(f"the noise of {spec.name} falls on its steps of {spec.step:g} {spec.time}. Leave noise= out.")
        return tuple(start + spec.step * k for k in range(round((stop - start) / spec.step) + 1))
    longest = _FINE / rate if every is None else every
    ends, found = sorted({start, stop, *(t for t in reads if start < t < stop)}), [start]
    for a, b in itertools.pairwise(ends):
        if b - a > 1e-9 * max(1.0, abs(b)):
            found += np.linspace(a, b, math.ceil((b - a) / longest - 1e-9) + 1)[1:].tolist()
    count = (len(found) - 1) * len(spec.noise)
    if count > _MOST:
        raise DeclarationError(
            f"the path of the noise of {spec.name}, with knots every {longest:.3g} {spec.time} and at each reading, is {count} "
            f"unknowns; up to {_MOST} are carried. Say how far apart its knots may be, as in ht.Model(..., noise="
            f'"{2 * longest * count / _MOST:.2g} {spec.time}"), cut the record, or fit without noise (noise=False).'
        )
    return tuple(found)


def pushes(knots, t, path):
    """Slopes (K, D) of the inferred paths behind nodes at times t (K,); `path` (D, G): increments, in standard deviations."""
    long = jnp.diff(knots)
    at = jnp.searchsorted(knots - 2e-9 * jnp.maximum(1.0, jnp.abs(knots)), t, side="right") - 1  # nodes may differ by rounding
    return (path / jnp.sqrt(long)[None]).T[jnp.clip(at, 0, len(long) - 1)]


def pushed(here, t, x, u, dx, push, get, put):
    """The rates with what the paths add to them, of slopes `push` (D,)."""
    spec, inside = here.spec, floored(here.spec, x, get, put)

    def size(y, path):
        return jnp.asarray(get(here.diffusion(t, y, u), path), float)

    for i, (path, own) in enumerate(spec.noise):
        g, value = size(inside, path), get(inside, path)
        gained = g * push[i]
        if own and spec.step is None:
            slope = jax.jvp(lambda v, p=path: size(put(inside, p, v), p), (value,), (jnp.ones_like(value),))[1]
            gained = gained - jnp.where(g == 0, 0.0, 0.5 * g * jnp.where(g == 0, 0.0, slope))
        dx = put(dx, path, get(dx, path) + gained)
    return dx


def floored(spec, x, get, put):
    """The state with no noisy state below what it may be."""
    for path, _ in spec.noise:
        if (low := spec.states[path].low) is not None:
            x = put(x, path, jnp.maximum(get(x, path), low))
    return x


def keys_of(key, draws):
    """Key data (L, 2) of the noise of each draw (L,), which depends on no other draw."""
    each = jax.vmap(lambda i: path_key(jax.random.fold_in(key, i)))(jnp.asarray(draws, jnp.uint32))
    return np.asarray(jax.random.key_data(each))


def wiener(layout, mesh, key) -> Wiener:
    """The paths of one lane over its mesh. `key` (2,): data of a `path_key`."""
    return Wiener.over(jax.random.wrap_key_data(key, impl="threefry2x32"), mesh.cells, len(layout.noise))


def milstein(here, layout, paths: Wiener, inputs, get, put, held):
    """(state after the drift, state before it, t, h, paths at t, what is left of inputs) -> (state, paths at t + h).

    `inputs(t, left)`; `held` (path -> boolean): is the state clamped here?
    """
    fields = here.spec.states

    def size(x, t, left, path):
        return jnp.asarray(get(here.diffusion(t, x, inputs(t, left)), path), float)

    def add(after, x, t, h, before, left):
        now = jnp.where(h > 0, paths.at(t + h), before)
        for i, (path, own) in enumerate(layout.noise):
            step, value = now[i] - before[i], get(x, path)
            g = size(x, t, left, path)
            gained = g * step
            if own and here.spec.step is None:  # a difference equation is the law itself: what is gained is g times the step
                slope = jax.jvp(lambda v, p=path: size(put(x, p, v), t, left, p), (value,), (jnp.ones_like(value),))[1]
                # Where g is zero its slope may be infinite (a square root), and the noise is absorbed there.
                gained = gained + jnp.where(g == 0, 0.0, 0.5 * g * slope * (step**2 - h))
            moved = get(after, path) + gained
            if fields[path].low is not None:
                moved = jnp.maximum(moved, fields[path].low)
            after = put(after, path, jnp.where(held[path], get(after, path), moved) if path in held else moved)
        return after, now

    return add


def wander(stepper, rates, add, t, h, x, w):
    """State and paths at t + h, in equal sub-steps. `add`: see `milstein`."""
    count, inner = (stepper.times, stepper.inner) if isinstance(stepper, Repeated) else (1, stepper)
    step = h / count

    def one(i, carry):
        x, w = carry
        now = t + i * step
        return add(inner.advance(rates, now, step, x), x, now, step, w)

    return lax.fori_loop(0, count, one, (x, w))
