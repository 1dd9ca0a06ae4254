"""Process noise: how a sub-step of the drift becomes a sub-step of dx = f dt + g dW (Ito), one Wiener process a state.

The drift is crossed by whatever stepper crosses it without noise; then x_i += g_i dW + g_i g_i' (dW**2 - h) / 2 with g_i' the
derivative with respect to x_i: Milstein's method for diagonal noise with a better drift (Kloeden and Platen 1992, chapter
10.3), of strong order 1 where each g_i depends on no other noisy state, else 1/2. Where g is zero it is the stepper itself.

W is a function of time (`paths.Wiener`), so finer steps, other worlds and other meshes see one path.

*States that are declared positive* are set to zero where noise would take them below it: in the limit of small steps the
boundary reflects. A state that may be negative is declared with `positive=False`.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from hybridtwin.paths import Wiener, path_key
from hybridtwin.simulate.steppers import Repeated

NOISY_STEPS = 200  # least number of first steps in a record, since a drift at rest says nothing about its noise
NOISY = 1e-2  # tolerance where there is process noise: a path is met with order 1, not 4


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
            if own:
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
    count, inner = (stepper.count, stepper.inner) if isinstance(stepper, Repeated) else (1, stepper)
    step = h / count

    def one(i, carry):
        x, w = carry
        now = t + i * step
        return add(inner.advance(rates, now, step, x), x, now, step, w)

    return lax.fori_loop(0, count, one, (x, w))
