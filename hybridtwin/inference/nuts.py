"""The No-U-Turn sampler in coordinates whitened by a Laplace approximation, many lanes at once.

NumPyro's kernel does the sampling. Chains and people are lanes of one compiled program; the data are its arguments, so a new
record of the same shape does not compile again. The loop over draws runs on the host in chunks: that is where progress is
told and where Ctrl-C is heard.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from numpyro.infer.hmc import hmc

from hybridtwin.model import Kernel


class Frame(NamedTuple):
    """Coordinates z = mode + scale @ y in which the posterior is nearly a standard normal."""

    mode: jax.Array  # (d,)
    scale: jax.Array  # (d, d)


class Draws(NamedTuple):
    """Draws of one person: C chains, N draws, d coordinates."""

    z: np.ndarray  # (C, N, d)
    log_density: np.ndarray  # (C, N)
    diverging: np.ndarray  # (C, N)
    leapfrogs: np.ndarray  # (C, N)
    energy: np.ndarray  # (C, N)
    accept: np.ndarray  # (C, N)


WARM_DEPTH = 5  # trees while the step size is still being found: deeper ones only cost
FORWARD = 6  # up to this many unknowns forward mode is the cheaper gradient (benchmarks/README.md)
_FIELDS = ("z", "diverging", "num_steps", "energy", "potential_energy", "accept_prob")


@functools.lru_cache(maxsize=32)
def _programs(kernel: Kernel, warmup: int, target: float, depth: int):
    """(start, advance) for one lane, from NumPyro's NUTS with the data as an argument."""

    def potential(data, frame, temper):
        return lambda y: -kernel.log_density(frame.mode + frame.scale @ y, data, temper)

    init, sample = hmc(potential_fn_gen=potential, algo="NUTS")

    def start(key, y, data, frame, temper):
        return init(
            y,
            warmup,
            step_size=0.5,
            adapt_step_size=True,
            adapt_mass_matrix=True,
            dense_mass=False,
            target_accept_prob=target,
            max_tree_depth=(min(WARM_DEPTH, depth), depth),
            find_heuristic_step_size=False,
            forward_mode_differentiation=kernel.size <= FORWARD,
            model_args=(data, frame, temper),
            rng_key=key,
        )

    def advance(state, data, frame, temper, length):
        def one(state, _):
            state = sample(state, model_args=(data, frame, temper))
            return state, tuple(getattr(state, name) for name in _FIELDS)

        return lax.scan(one, state, None, length=length)

    return start, advance


@functools.lru_cache(maxsize=32)
def _compiled(kernel: Kernel, warmup: int, target: float, depth: int, length: int):
    start, advance = _programs(kernel, warmup, target, depth)
    each, per_person = (0, None, None, None), (0, 0, 0, None)
    begin = jax.jit(jax.vmap(jax.vmap(start, (0, 0, None, None, None)), (0, 0, 0, 0, None)))
    step = functools.partial(advance, length=length)
    go = jax.jit(jax.vmap(jax.vmap(step, each), per_person))
    return begin, go


def run(kernel, keys, y, data, frames, temper, *, draws, warmup, target, depth, chunk, report):
    """Sample P people with C chains each.

    **Arguments:** keys (P,); y (P, C, d) starts on whitened coordinates; data, frames with leading axis P;
    report(done, total, diverging) is called after each chunk and may raise KeyboardInterrupt.

    **Returns:** list of `Draws`, one a person, and whether the run was interrupted.
    """
    begin, go = _compiled(kernel, warmup, target, depth, chunk)
    chains = y.shape[1]
    lane_keys = jax.vmap(lambda k: jax.random.split(k, chains))(keys)
    state = begin(lane_keys, y, data, frames, temper)
    kept, interrupted, total, diverging = [], False, warmup + draws, 0
    done = 0
    try:
        while done < total:
            state, out = go(state, data, frames, temper)
            done += chunk
            out = [np.asarray(a) for a in out]
            if done > warmup:
                skip = max(0, chunk - (done - warmup))
                kept.append([a[:, :, skip:] for a in out])
                diverging += int(kept[-1][1].sum())
            report(min(done, total), total, diverging)
    except KeyboardInterrupt:
        interrupted = True
        if not kept:
            raise
    joined = [np.concatenate(parts, axis=2)[:, :, :draws] for parts in zip(*kept, strict=True)]
    mode, scale = np.asarray(frames.mode), np.asarray(frames.scale)
    found = []
    for p in range(len(mode)):
        y_p, div, steps, energy, potential, accept = (a[p] for a in joined)
        z = mode[p] + np.einsum("cnj,ij->cni", y_p, scale[p])
        found.append(Draws(z, -potential, div, steps, energy, accept))
    return found, interrupted


def overdispersed(keys, size, chains):
    """Starts of the chains on whitened coordinates: (P, C, d), somewhat wider than the approximation."""
    return jax.vmap(lambda k: 1.2 * jax.random.normal(k, (chains, size), jnp.float64))(keys)
