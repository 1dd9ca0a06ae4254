"""Posterior modes by damped Gauss-Newton from several starts, and the Laplace approximation at the best of them."""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hybridtwin.engine import Lanes, double
from hybridtwin.inference.readings import generator
from hybridtwin.kernel import Kernel, Temper, finite

_ROUNDS = 60
LANES = 8  # width of every call of the compiled ascent
_SMALL = 1e-3  # log units: a step that gains less ends an ascent
_STEPS = 6  # of Newton's on one curvature
_FLOOR = 1e-3  # smallest curvature kept: a direction flatter than this counts as one of sd 32 in prior units


class Modes(NamedTuple):
    """Where the starts of one person ended: S starts, d coordinates."""

    z: np.ndarray  # (S, d)
    log_density: np.ndarray  # (S,) -inf: on the way of a better one
    curve: np.ndarray  # (S, d, d) of Gauss-Newton there


class Nowhere(Exception):
    """No start of the person of this place in the tile has a finite density; never seen by a user (`lost.impossible`)."""


class LaplaceFit(NamedTuple):
    """Gaussian at a mode on the coordinates."""

    mode: np.ndarray  # (d,)
    scale: np.ndarray  # (d, d) with scale @ scale.T the covariance
    log_density: float
    log_evidence: float
    floored: int  # directions whose curvature was not positive


def _parts(kernel: Kernel, z, data, temper):
    """Log density, and the vector whose Jacobian gives the Gauss-Newton curvature."""
    terms = kernel.terms(kernel.constrain(z), data)
    loglik = finite(sum(jnp.sum(t.loglik) for t in terms.values()))
    rows = []
    for name, t in terms.items():
        other = ~kernel.gaussian(name, data)  # censored and counted rows: outer product of their scores
        rows += [t.residual, jnp.sqrt(2.0) * t.log_sd, jnp.where(other, t.loglik, 0.0)]
    vector = jnp.concatenate(rows)
    vector = jnp.where(jnp.isfinite(vector), vector, 0.0) / jnp.sqrt(temper.power)
    vector = jnp.concatenate([vector, temper.misses(z[kernel.scales])])
    return kernel.tempered(z, loglik, temper), vector


@functools.lru_cache(maxsize=64)
def slopes(kernel: Kernel):
    """Compiled value, gradient and Gauss-Newton curvature of the log density, by forward mode.

    (z (P, S, d), data (P, ...), temper (P, ...)) -> ((P, S), (P, S, d), (P, S, d, d)).
    """

    def lane(z, data, temper):
        def evaluate(z):
            out = _parts(kernel, z, data, temper)
            return out, out[0]

        (grad, jac), value = jax.jacfwd(evaluate, has_aux=True)(z)
        jac = jnp.where(jnp.isfinite(jac), jac, 0.0)
        return value, jnp.where(jnp.isfinite(grad), grad, 0.0), jac.T @ jac + jnp.eye(z.shape[0])

    return Lanes(jax.vmap(lane, (0, None, None)), (0, 0, 0))


def trace(kernel, data, temper) -> None:
    """Trace the ascent's program for its first call, so that only its compilation is left."""
    if not slopes(kernel).called:
        slopes(kernel).trace(np.zeros((len(temper.power), LANES, kernel.size)), data, temper)


def evaluate(kernel, z, data, temper):
    """`slopes` at any number of lanes z (P, S, d), in groups of one width so that one program serves every call; NumPy out."""
    parts = []
    for i in range(0, z.shape[1], LANES):
        group = z[:, i : i + LANES]
        short = LANES - group.shape[1]
        full = np.concatenate([group, np.repeat(group[:, -1:], short, axis=1)], axis=1) if short else group
        parts.append([np.array(a)[:, : group.shape[1]] for a in slopes(kernel)(full, data, temper)])
    return [np.concatenate(p, axis=1) for p in zip(*parts, strict=True)]


def _solve(matrices, vectors):
    return np.linalg.solve(matrices, vectors[..., None])[..., 0]


def ascend(kernel: Kernel, z, data, temper, rounds=_ROUNDS) -> list[Modes]:
    """Levenberg-Marquardt ascent of every start of every person, in step; the loop runs on the host.

    Where noise has a memory and readings are many, Gauss-Newton alone creeps: what its curvature leaves out is learned from the
    gradients on the way, and of the two models of the density each start uses the one that told its last step better (Dennis,
    Gay and Welsch 1981, NL2SOL). A start that comes next to a better one of its person ends there: they share the rest.

    **Arguments:** z (P, S, d) starts; data with a leading axis P. **Returns:** `Modes` a person.
    """
    z = np.array(z)
    value, grad, curve = evaluate(kernel, z, data, temper)
    damp, done = np.full(value.shape, 1e-2), ~np.isfinite(value)
    missing, mended = np.zeros_like(curve), np.zeros(value.shape, bool)  # what curves leave out; is it used?
    for _ in range(rounds):
        model = np.where(mended[..., None, None], _positive(curve + missing), curve)
        diagonal = np.einsum("psii->psi", model)[..., None] * np.eye(z.shape[-1])
        step = _solve(model + damp[..., None, None] * diagonal, grad)
        step *= np.minimum(1.0, 3.0 / np.maximum(np.abs(step).max(-1, keepdims=True), 1e-30))
        step[done] = 0.0
        new_value, new_grad, new_curve = evaluate(kernel, z + step, data, temper)
        gain = np.where(done | ~np.isfinite(new_value), -np.inf, new_value - np.where(done, 0.0, value))
        told, plain, whole = (_told(grad, m, step) for m in (model, curve, curve + missing))
        better, seen = gain > 0, np.isfinite(gain)
        off, whole_off = np.abs(plain - gain), np.abs(whole - gain)
        mended = np.where(seen, np.where(mended, whole_off <= 1.5 * off, 1.5 * whole_off < off), mended)
        missing = np.where(better[..., None, None], _secant(missing, new_curve, step, grad - new_grad), missing)
        z[better] += step[better]
        value[better], grad[better], curve[better] = new_value[better], new_grad[better], new_curve[better]
        kept = np.where(gain > 0.75 * told, 0.2, np.where(gain < 0.25 * told, 3.0, 1.0))
        damp = np.where(better, np.maximum(damp * kept, 1e-8), damp * 6.0)
        beside = _beside(z, value, curve)
        value[beside] = -np.inf
        done |= (better & (gain < _SMALL)) | (damp > 1e6) | beside
        if done.all():
            break
    return [Modes(*parts) for parts in zip(z, value, curve, strict=True)]


def _told(grad, model, step):
    """What a quadratic model says a step gains."""
    return np.einsum("psi,psi->ps", grad, step) - 0.5 * np.einsum("psi,psij,psj->ps", step, model, step)


def _positive(matrices):
    """The same axes with curvatures that are positive and not tiny."""
    values, vectors = np.linalg.eigh(matrices)
    return (vectors * np.maximum(np.abs(values), 0.05)[..., None, :]) @ np.swapaxes(vectors, -1, -2)


def _secant(missing, curve, step, change):
    """`missing`, sized down where it says too much, then made to say with the new curve how the gradient changed along the step.

    The least change in the metric of the whole curvature (Dennis, Gay and Welsch 1981, section 3).
    """
    along = np.einsum("psi,psi->ps", change, step)
    rest = change - np.einsum("psij,psj->psi", curve, step)
    says = np.einsum("psi,psij,psj->ps", step, missing, step)
    size = np.minimum(1.0, np.abs(np.einsum("psi,psi->ps", step, rest)) / np.maximum(np.abs(says), 1e-30))
    missing = missing * size[..., None, None]
    off = rest - np.einsum("psij,psj->psi", missing, step)
    usable = along > 1e-12  # else the density curves the other way along the step
    along = np.where(usable, along, 1.0)[..., None, None]
    with np.errstate(over="ignore", invalid="ignore"):  # far out a slope may be of any size
        cross = off[..., :, None] * change[..., None, :]
        twice = np.einsum("psi,psi->ps", off, step)[..., None, None] * change[..., :, None] * change[..., None, :]
        found = missing + np.where(usable[..., None, None], (cross + np.swapaxes(cross, -1, -2)) / along - twice / along**2, 0.0)
    return np.where(np.isfinite(found).all(axis=(-1, -2), keepdims=True), found, 0.0)


def _beside(z, value, curve, within=0.3):
    """Which starts (P, S) stand within so many standard deviations, by the curve there, of the best of their person."""
    top = np.argmax(np.where(np.isfinite(value), value, -np.inf), axis=1)[:, None]
    away = z - np.take_along_axis(z, top[..., None], axis=1)
    metric = np.take_along_axis(curve, top[..., None, None], axis=1)[:, 0]
    near = np.einsum("psi,pij,psj->ps", away, metric, away) < within**2
    return near & (np.arange(z.shape[1]) != top)


def polish(kernel, z, data, temper, rounds=4):
    """Newton steps with the exact curvature from z (P, d): (z, log density, negative Hessian).

    A curvature costs as much as several gradients, so each serves a few steps. Of a small step the gradient is the judge: the
    density rounds before it.
    """
    hessian, grad, value = curvature(kernel, z, data, temper, central=False)
    moving = np.ones(len(z), bool)  # a person who has arrived stays, however far the others have to go
    for _ in range(rounds):
        inverse, going = np.linalg.inv(_positive(hessian)), moving
        for turn in range(_STEPS):
            step = np.einsum("pij,pj->pi", inverse, grad)
            size = np.abs(step).max(axis=1)
            step *= np.minimum(1.0, 1.0 / np.maximum(size, 1e-30))[:, None]
            new_value, new_grad, _ = (a[:, 0] for a in evaluate(kernel, (z + step)[:, None], data, temper))
            flatter = np.einsum("pi,pij,pj->p", new_grad, inverse, new_grad) < np.einsum("pi,pi->p", step, grad)
            going = going & np.where(size < 1e-3, flatter, new_value > value)
            if turn == 0:  # who cannot go on a curvature taken where she stands has arrived, too
                moving = going
            z, grad = (np.where(going[:, None], new, old) for new, old in ((z + step, z), (new_grad, grad)))
            value, going, moving = np.where(going, new_value, value), going & (size >= 1e-6), moving & (size >= 1e-6)
            if not going.any():
                break
        hessian, grad, value = curvature(kernel, z, data, temper)
        if not moving.any():
            break
    return z, value, hessian


_STILL = 1e-4  # a mode that moves by less (prior sd) when the steps are halved is told as it is
_HALVINGS = 5


def exact(kernel: Kernel, z, data, temper):
    """The mode next to z (d,) under ever finer steps: (z (d,), how far the last halving of the steps moved it).

    Sampling corrects its draws from n to 2n sub-steps; a mode is one point, so it is found again until it stays.
    """
    with double():
        data, temper = jax.tree.map(lambda a: np.asarray(a)[None], (data, temper))
        z, moved, halvings = np.asarray(z)[None], 0.0, 0
        while (finer := kernel.stepper.refined()) is not None and halvings < _HALVINGS:
            kernel = dataclasses.replace(kernel, stepper=finer)
            new = polish(kernel, z, data, temper)[0]
            z, moved, halvings = new, float(np.abs(new - z).max(initial=0.0)), halvings + 1
            if moved < _STILL:
                break
        return z[0], moved


def starts_of(keys, size, count):
    """Starts for the ascent (P, S, d): the prior's median, then draws from the prior, narrowed; nothing to compile."""
    draws = np.stack([0.7 * generator(key, 1).standard_normal((count, size)) for key in keys])
    draws[:, 0] = 0.0
    return draws


def curvature(kernel, z, data, temper, central=True, step=1e-4):
    """Negative Hessian, gradient and log density at z (P, d), the first by differences of the exact gradient, of second order
    where `central`, else of first.

    Differences of a forward-mode gradient reuse the program of the ascent; second-order forward mode would compile another,
    three times as large, for the same digits.
    """
    d = z.shape[-1]
    moves = step * np.concatenate([np.zeros((1, d)), np.eye(d), *([-np.eye(d)] if central else [])])
    values, grads, _ = evaluate(kernel, z[:, None, :] + moves, data, temper)
    below = grads[:, d + 1 :] if central else grads[:, :1]
    hessian = (grads[:, 1 : d + 1] - below) / ((2 if central else 1) * step)
    return -0.5 * (hessian + np.swapaxes(hessian, 1, 2)), grads[:, 0], values[:, 0]


def laplace(mode, negative_hessian, log_density) -> LaplaceFit:
    """Laplace approximation of one person from its mode and curvature."""
    values, vectors = np.linalg.eigh(np.where(np.isfinite(negative_hessian), negative_hessian, 0.0))
    floored = int(np.sum(values < _FLOOR))
    values = np.maximum(values, _FLOOR)
    scale = vectors / np.sqrt(values)
    evidence = log_density + 0.5 * len(mode) * np.log(2 * np.pi) - 0.5 * np.sum(np.log(values))
    return LaplaceFit(mode, scale, float(log_density), float(evidence), floored)


def anchored(kernel, fit: LaplaceFit, power: float) -> Temper:
    """The temper of one person whose untempered posterior is `fit`: what a power takes from the sensors' parameters is kept."""
    at, k = kernel.scales, len(kernel.scales)
    precision = np.linalg.inv((fit.scale @ fit.scale.T)[np.ix_(at, at)]) if k else np.zeros((0, 0))
    values, vectors = np.linalg.eigh(precision - np.eye(k))  # of the readings alone: the prior is counted elsewhere
    told = values > 0.05  # where the readings say next to nothing there is nothing to keep
    pulled = vectors.T @ precision @ fit.mode[at]
    center = vectors @ np.where(told, pulled / np.where(told, values, 1.0), 0.0)
    root = np.sqrt((1 - 1 / power) * np.where(told, values, 0.0))[:, None] * vectors.T
    return Temper(np.float64(power), center, root)


def distinct(modes: Modes, within: float = 10.0) -> list[int]:
    """Indices of modes that lie apart and within `within` log units of the best, best first."""
    order = [int(i) for i in np.argsort(-modes.log_density) if np.isfinite(modes.log_density[i])]
    found: list[int] = []
    for i in order:
        if modes.log_density[i] < modes.log_density[order[0]] - within:
            break
        away = [(modes.z[i] - modes.z[j], modes.curve[j]) for j in found]
        if all(gap @ curve @ gap > _APART**2 for gap, curve in away):
            found.append(i)
    return found


_APART = 1.0  # sd by the curve of Gauss-Newton: ascents that end nearer to each other are on their way to one mode
_MODES = 3  # modes of one person that are polished and weighed
REACHED = 2.0  # a step (in sd) that remains, above which a point is no mode


def search(kernel, data, keys, starts, temper, most=_MODES):
    """For every person of a tile: Laplace approximations of up to `most` modes, the one of most evidence first.

    `starts`: how many there are of each ascent, or where they are (P, S, d). **Raises:** Nowhere for a person none of whose
    starts has a finite density.
    """
    begin = starts_of(keys, kernel.size, starts) if np.ndim(starts) == 0 else starts
    found = ascend(kernel, begin, data, temper)
    ranked = [distinct(m)[:most] for m in found]
    if [] in ranked:
        raise Nowhere(ranked.index([]))
    fits: list[list] = [[] for _ in found]
    for rank in range(max(len(r) for r in ranked)):
        z = np.stack([m.z[r[min(rank, len(r) - 1)]] for m, r in zip(found, ranked, strict=True)])
        z, value, hessian = polish(kernel, z, data, temper)
        for p, r in enumerate(ranked):
            fit = laplace(z[p], hessian[p], value[p])
            if rank < len(r) and all(distance(fit.mode, other) > 1.0 for other in fits[p]):
                fits[p].append(fit)
    widest = max(len(f) for f in fits)
    z = np.stack([np.stack([f[min(i, len(f) - 1)].mode for i in range(widest)]) for f in fits])
    grad = evaluate(kernel, z, data, temper)[1]
    kept, left = [], []
    for p, f in enumerate(fits):
        steps = [float(np.linalg.norm(fit.scale.T @ g)) for fit, g in zip(f, grad[p], strict=False)]
        # a point that the ascent did not bring to rest is no mode, and its evidence no evidence: it comes last
        best = sorted(range(len(f)), key=lambda i: (not steps[i] < REACHED, -f[i].log_evidence))
        best = [i for i in best if steps[i] < REACHED] or best[:1]
        kept.append([f[i] for i in best])
        left.append(steps[best[0]])
    return kept, left


_ASIDE, _LOW, _TURNS = (1.5, 3.0), 12.0, 8  # prior sd from the mode; log units under it that still matter; steps


def profiles(kernel, fit: LaplaceFit, data, temper):
    """What lies beside a mode of one person, where its curvature does not see: (points (K, d), roots (K, d, d), log densities).

    Each coordinate in turn is held aside of the mode, on both sides, and the others climb (Gauss-Newton). Where the density is
    then not far under the mode's, a plateau or a branch may begin; its width is that of the Gauss-Newton curvature there.
    `data` and `temper` have a leading axis of 1.
    """
    d = len(fit.mode)
    held = np.tile(np.arange(d), 2 * len(_ASIDE))
    z = np.tile(fit.mode, (len(held), 1))
    lanes = np.arange(len(held))
    z[lanes, held] += np.concatenate([np.full(d, sign * far) for far in _ASIDE for sign in (1, -1)])
    spread = np.sqrt(np.sum(fit.scale**2, axis=1))
    told = np.abs(z[lanes, held] - fit.mode[held]) > 2.0 * spread[held]  # nearer, the approximation knows already
    z, held = z[told], held[told]
    if not len(z):
        return z, np.zeros((0, d, d)), np.zeros(0)
    lanes, damp = np.arange(len(z)), np.full(len(z), 1e-2)

    def at(z):
        value, grad, curve = (a[0] for a in evaluate(kernel, z[None], data, temper))
        return np.where(np.isfinite(value), value, -np.inf), grad, curve

    value, grad, curve = at(z)
    for _ in range(_TURNS):
        slope, bend = grad.copy(), curve.copy()
        slope[lanes, held], bend[lanes, held], bend[lanes, :, held] = 0.0, 0.0, 0.0
        diagonal = np.einsum("sii->si", curve)
        bend[lanes, held, held] = 1.0
        step = _solve(bend + (damp[:, None] * diagonal)[..., None] * np.eye(d), slope)
        step *= np.minimum(1.0, 2.0 / np.maximum(np.abs(step).max(-1, keepdims=True), 1e-30))
        new = at(z + step)
        better = new[0] > value
        z = np.where(better[:, None], z + step, z)
        old = (value, grad, curve)
        value, grad, curve = (
            np.where(better.reshape(-1, *[1] * (a.ndim - 1)), a, b) for a, b in zip(new, old, strict=True)
        )
        damp = np.where(better, np.maximum(damp * 0.2, 1e-8), damp * 6.0)
    kept = value > fit.log_density - _LOW
    return z[kept], np.linalg.cholesky(np.linalg.inv(curve[kept])), value[kept]


def distance(z, fit):
    """Distance of a point from a mode in standard deviations of its Laplace approximation."""
    return float(np.linalg.norm(np.linalg.solve(fit.scale, z - fit.mode)))


def missed(fits, draws, heights) -> float:
    """Share of the posterior, by Laplace evidence, of modes that lie outside the cloud of the draws (n, d).

    Where none lies inside, the draws have found a mode of their own, and its evidence counts too: `heights` gives log densities
    at points (m, d), of which a Gaussian's mean is d/2 under its top.
    """
    center, cloud, d = draws.mean(axis=0), np.cov(draws.T) + 1e-9 * np.eye(draws.shape[1]), draws.shape[1]
    reach = np.sqrt(d) + 3.0
    outside = np.array([np.sqrt((f.mode - center) @ np.linalg.solve(cloud, f.mode - center)) > reach for f in fits])
    evidence = np.array([f.log_evidence for f in fits])
    if outside.all():
        some = draws[np.linspace(0, len(draws) - 1, LANES).astype(int)]
        own = np.mean(heights(some)) + 0.5 * d * (1 + np.log(2 * np.pi)) + 0.5 * np.linalg.slogdet(cloud)[1]
        evidence, outside = np.append(evidence, own), np.append(outside, False)
    weights = np.exp(evidence - evidence.max())
    share = float(weights[outside].sum() / weights.sum())
    return share if share > 0.05 else 0.0
