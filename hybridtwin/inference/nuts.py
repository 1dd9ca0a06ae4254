"""The No-U-Turn sampler in coordinates whitened by a Laplace approximation, many lanes at once.

NumPyro's kernel does the sampling. Chains and people are lanes of one compiled program; the data are its arguments, so a new
record of the same shape does not compile again. The loop over draws runs on the host in chunks: that is where progress is
told and where Ctrl-C is heard.
"""

import functools
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from numpyro.infer.hmc import hmc
from numpyro.infer.util import ParamInfo

from hybridtwin.engine import Lanes, double
from hybridtwin.inference import diagnostics, modes
from hybridtwin.inference.sampling import Drawn, Setting
from hybridtwin.kernel import Kernel
from hybridtwin.keys import folded, stacked


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


CHUNK = 25  # draws of one call of the compiled program
WARM_DEPTH = 5  # trees while the step size is still being found: deeper ones only cost
_CHAINS = 4  # lanes of one person
_FIELDS = ("z", "diverging", "num_steps", "energy", "potential_energy", "accept_prob")


@functools.lru_cache(maxsize=32)
def _programs(kernel: Kernel, warmup: int, target: float, depth: int):
    """(start, advance) for one lane, from NumPyro's NUTS with the data as an argument."""

    def potential(data, frame, temper):
        return lambda y: -kernel.log_density(frame.mode + frame.scale @ y, data, temper)

    init, sample = hmc(potential_fn_gen=potential, algo="NUTS")

    def start(key, known, data, frame, temper):
        return init(
            ParamInfo(*known),  # value and gradient too: to compile them here would cost as much as the sampler
            warmup,
            step_size=0.5,
            adapt_step_size=True,
            adapt_mass_matrix=False,  # `_refitted` does that, for all chains together
            dense_mass=False,
            target_accept_prob=target,
            max_tree_depth=(min(WARM_DEPTH, depth), depth),
            find_heuristic_step_size=False,
            forward_mode_differentiation=not kernel.backward(_CHAINS),
            model_args=(data, frame, temper),
            rng_key=key,
        )

    def advance(state, data, frame, temper, length):
        def one(state, _):
            state = sample(state, model_args=(data, frame, temper))
            return state, (*(getattr(state, name) for name in _FIELDS), state.adapt_state.step_size)

        return lax.scan(one, state, None, length=length)

    return start, advance


@functools.lru_cache(maxsize=32)
def _compiled(kernel: Kernel, warmup: int, target: float, depth: int, length: int):
    start, advance = _programs(kernel, warmup, target, depth)
    each, per_person = (0, None, None, None), (0, 0, 0, 0)
    begin = Lanes(jax.vmap(start, (0, 0, None, None, None)), (0, 0, 0, 0, 0))
    step = functools.partial(advance, length=length)
    go = Lanes(jax.vmap(step, each), per_person)
    return begin, go


def draw(setting: Setting, method) -> list[Drawn]:
    """Sample every person of a tile from starts around the best mode."""
    best = [fits[0] for fits in setting.modes]
    frames = Frame(jax.device_put(np.stack([f.mode for f in best])), jax.device_put(np.stack([f.scale for f in best])))
    start_keys = stacked([folded(key, 3) for key in setting.keys])
    y = _starts(setting.kernel, frames, start_keys, method.chains, setting.data, setting.tempers)
    found = sample(setting, list(range(setting.wanted)), frames, y, method)
    return [found[p] for p in range(setting.wanted)]


def sample(setting: Setting, rows, frames, y, method) -> dict[int, Drawn]:
    """Chains of some people of a tile, from starts y (P, C, d) on the whitened coordinates of `frames` (P, ...).

    Trees of all lanes grow in step, so on a CPU people would wait for the deepest tree of the others and gain nothing: one at a
    time, in as many threads as there are cores. An accelerator wants them side by side.
    """
    keys = stacked([folded(key, 4) for key in setting.keys])
    width = 1 if jax.default_backend() == "cpu" else len(setting.keys)
    groups = [rows[i : i + width] for i in range(0, len(rows), width)]
    shares = [0.0] * len(groups)

    def of(number):
        group = groups[number]
        at = np.array(group + group[:1] * (width - len(group)))

        def report(done, total, diverging):
            shares[number] = done / total
            setting.report(sum(shares), len(groups), diverging)

        with double():
            k, at_y, data, frame, temper = jax.tree.map(lambda a: a[at], (keys, y, setting.data, frames, setting.tempers))
            found, interrupted = run(setting.kernel, k, at_y, data, frame, temper, method, report)
        return [Drawn(one.z, _stats(one, interrupted)) for one in found[: len(group)]]

    drawn = [of(0)] if groups else []  # alone, so that its programs are compiled once
    if len(groups) > 1:
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            drawn += list(pool.map(of, range(1, len(groups))))
    return {p: one for group, ones in zip(groups, drawn, strict=True) for p, one in zip(group, ones, strict=True)}


def _stats(draws: Draws, interrupted) -> dict[str, Any]:
    return diagnostics.convergence(np.moveaxis(draws.z, -1, 0)) | {
        "divergent": float(draws.diverging.mean()),
        "bfmi": diagnostics.bfmi(draws.energy),
        "interrupted": interrupted,
        "leapfrogs": float(draws.leapfrogs.mean()),
    }


def _starts(kernel, frames, keys, chains, data, temper):
    """Starts of the chains on whitened coordinates; one whose density is hopeless is drawn in towards the mode."""
    y = np.array(overdispersed(keys, kernel.size, chains))
    mode, scale = np.array(frames.mode), np.array(frames.scale)
    for _ in range(6):
        z = mode[:, None] + np.einsum("pcj,pij->pci", y, scale)
        value = modes.evaluate(kernel, z, data, temper)[0]
        best = modes.evaluate(kernel, mode[:, None], data, temper)[0]
        hopeless = ~(value > best - 10.0 - 2.0 * kernel.size)
        if not hopeless.any():
            break
        y[hopeless] *= 0.5
    return jnp.asarray(y)


def run(kernel, keys, y, data, frames, temper, method, report, chunk=CHUNK):
    """Sample P people with C chains each.

    The first half of the warm-up is spent in the coordinates of the Laplace approximation, the second in those of the draws
    that the first half made, of all chains together: a ridge or a second mode is not seen by a curvature. After
    `method.draws` a person whose chains have not mixed goes on, up to `method.most` times as long; each is cut where it was
    found good, so that nobody's draws depend on who else is there.

    **Arguments:** keys (P,); y (P, C, d) starts on whitened coordinates; data, frames, temper with leading axis P;
    `method`: a `NUTS`; report(done, total, diverging) is called after each chunk and may raise KeyboardInterrupt.

    **Returns:** list of `Draws`, one a person, and whether the run was interrupted.
    """
    half = -(-method.warmup // (2 * chunk))  # chunks
    begin, go = _compiled(kernel, half * chunk, method.target, method.depth, chunk)
    people, chains = y.shape[:2]
    lane_keys = jax.vmap(lambda k: jax.random.split(k, chains))(keys)
    told, kept, interrupted = _Told(report, 2 * half * chunk + method.draws, chunk), [], False
    try:
        state = begin(lane_keys, _known(kernel, y, data, frames, temper), data, frames, temper)
        warm = []
        for _ in range(half):
            state, out = go(state, data, frames, temper)
            warm.append(np.asarray(out[0]))
            told.more()
        y, frames = _refitted(frames, np.concatenate(warm[len(warm) // 2 :], axis=2))
        lane_keys = jax.vmap(jax.vmap(lambda k: jax.random.fold_in(k, 1)))(lane_keys)
        state = begin(lane_keys, _known(kernel, y, data, frames, temper), data, frames, temper)
        steps = []
        for _ in range(half):
            state, out = go(state, data, frames, temper)
            steps.append(np.asarray(out[-1]))
            told.more()
        state = _paced(state, np.concatenate(steps[len(steps) // 2 :], axis=2))
        ends = np.zeros(people, int)  # draws after which each person was found good
        while not ends.all():
            state, out = go(state, data, frames, temper)
            kept.append([np.asarray(a) for a in out[:-1]])
            told.more(diverging=int(kept[-1][1].sum()))
            done = chunk * len(kept)
            if done % method.draws < chunk and done >= method.draws:
                z = np.concatenate([k[0] for k in kept], axis=2)
                last = done >= method.most * method.draws
                good = np.array([last or _mixed(z[p]) for p in range(people)])
                ends = np.where((ends == 0) & good, done - done % method.draws, ends)
                told.total += 0 if ends.all() else method.draws
    except KeyboardInterrupt:
        interrupted = True
        if not kept:
            raise
        ends = np.full(people, chunk * len(kept))
    joined = [np.concatenate(parts, axis=2) for parts in zip(*kept, strict=True)]
    mode, scale = np.asarray(frames.mode), np.asarray(frames.scale)
    found = []
    for p in range(people):
        y_p, div, steps, energy, potential, accept = (a[p][:, : ends[p]] for a in joined)
        z = mode[p] + np.einsum("cnj,ij->cni", y_p, scale[p])
        found.append(Draws(z, -potential, div, steps, energy, accept))
    return found, interrupted


def _known(kernel, y, data, frames, temper):
    """Positions y (P, C, d), potential energies (P, C) and their gradients (P, C, d), by the program of the ascent."""
    mode, scale, y = np.asarray(frames.mode), np.asarray(frames.scale), np.asarray(y)
    value, grad, _ = modes.evaluate(kernel, mode[:, None] + np.einsum("pcj,pij->pci", y, scale), data, temper)
    return tuple(jax.device_put(a) for a in (y, -value, -np.einsum("pci,pij->pcj", grad, scale)))


class _Told:
    """Progress of one run, whose length may grow."""

    def __init__(self, report, total, chunk):
        self.report, self.total, self.chunk, self.done, self.diverging = report, total, chunk, 0, 0

    def more(self, diverging=0):
        self.done, self.diverging = self.done + self.chunk, self.diverging + diverging
        self.report(min(self.done, self.total), self.total, self.diverging)


def _paced(state, steps):
    """All chains of a person at one step size: the smallest that a chain settled on, of what they tried (P, C, N).

    Alone, a chain has some fifty transitions to find its step, and one that takes too large a step stands still ever after; and
    what the stiffest region needs, every chain needs to get there.
    """
    pace = np.exp(np.median(np.log(steps), axis=2).min(axis=1))
    adapted = state.adapt_state._replace(step_size=jax.device_put(np.broadcast_to(pace[:, None], steps.shape[:2])))
    return state._replace(adapt_state=adapted)


def _mixed(y) -> bool:
    """Have the chains of one person mixed, (C, N, d)?"""
    rhat, bulk, tail = diagnostics.convergence(np.moveaxis(y, -1, 0)).values()
    return bool(np.all(rhat < diagnostics.RHAT) and np.all(np.minimum(bulk, tail) > diagnostics.ESS))


def _refitted(frames, y):
    """Coordinates in which the draws y (P, C, N, d) have unit covariance, and where the chains stand there (P, C, d).

    The covariance is drawn towards that of the Laplace approximation, as far as d draws would.
    """
    at, means, scales = [], [], []
    for p in range(len(y)):
        flat = y[p].reshape(-1, y.shape[-1])
        n, d = flat.shape
        center = flat.mean(axis=0)
        root = np.linalg.cholesky((n * np.cov(flat.T).reshape(d, d) + 2 * d * np.eye(d)) / (n + 2 * d))
        at.append(np.linalg.solve(root, (y[p][:, -1] - center).T).T)
        scale = np.asarray(frames.scale[p])
        means.append(np.asarray(frames.mode[p]) + scale @ center)
        scales.append(scale @ root)
    return np.stack(at), Frame(jax.device_put(np.stack(means)), jax.device_put(np.stack(scales)))


def overdispersed(keys, size, chains):
    """Starts of the chains on whitened coordinates: (P, C, d), somewhat wider than the approximation."""
    return jax.vmap(lambda k: 1.2 * jax.random.normal(k, (chains, size), jnp.float64))(keys)
