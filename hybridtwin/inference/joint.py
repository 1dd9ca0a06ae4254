"""Joint posterior of a population and its people, by the No-U-Turn sampler on coordinates that undo the pooling.

Given the population people are independent, and what a person's readings say of her own parameters c = theta + L b is about
Gaussian, of some precision W_i and information h_i = W_i m_i. Then given the population her effects b_i (standard normal a
priori: non-centered) have the conditional precision I + L' W_i L = R R' and the mean R^-T R^-1 L' (h_i - W_i theta), so with

    u = u0 + S y_u,        b_i = R^-T (R^-1 L' (h_i - W_i theta) + y_i)

all coordinates y are nearly independent standard normals, whatever the spread: neither the funnel of the centered form nor the
ridge that informative readings make of the non-centered one remains. u0 and S come from the Laplace-approximated marginal
posterior of the population (`conditional`, with the hyperpriors), W_i and h_i from everybody's conditional mode there. It costs
a small factorization a person, never one of all people together. The sampled density is exact; the map only straightens it.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from numpyro.infer.hmc import hmc
from numpyro.infer.util import ParamInfo

from hybridtwin.fit import Judgment
from hybridtwin.inference import diagnostics, focei, turning
from hybridtwin.inference.conditional import Marginal
from hybridtwin.inference.kept import Sampled
from hybridtwin.inference.methods import HMC
from hybridtwin.inference.modes import laplace
from hybridtwin.inference.nuts import CHUNK, WARM_DEPTH
from hybridtwin.inference.own import asked, coordinates, finished, own_problems
from hybridtwin.inference.pooled import LOG_2PI, Group, Pool
from hybridtwin.inference.population import Population
from hybridtwin.inference.psis import kish, psis, resampled
from hybridtwin.inference.readings import generator
from hybridtwin.kernel import Kernel, finite
from hybridtwin.keys import folded
from hybridtwin.simulate.steppers import Repeated

# On a hundred nearly independent standard normals an acceptance rate of .85 makes trees of 15 leapfrogs and .75 of 7, for as
# many effective draws (measured on the standard normal itself); the bends that ask for more have been straightened.
_EASIER = 0.1
_ROUGH, _CLOSE = 1e-5, 0.02  # the start of a sampler: how well modes are found, and how much of the objective may be left
_EVEN = 0.999  # share of draws that count under half the steps, above which they are left as they are
_UNEVEN = 0.8  # under this everything is drawn again with half the steps
_HALVINGS = 2  # times that this is done
_MIXING = ("rhat", "ess_bulk", "ess_tail")
_FIELDS = ("z", "diverging", "num_steps", "energy", "accept_prob")


class Frame(NamedTuple):
    """Straightened coordinates; see the module. Lists have one entry a group of P people with d effects."""

    u: Any  # (p,) where the readings were laid out
    head: Any  # (p,) center of the population's own coordinates
    scale: Any  # (p, p)
    own: list  # (P, d) c at everybody's conditional mode, from where c is counted
    precision: list  # (P, d, d) W, what readings say of c
    told: list  # (P, d) h, about `own`
    rate: list  # (P, p) how the logarithm of W moves with the shared parameters
    drift: list  # (P, d, p) how h moves with them
    shift: list  # (P, d) center of y_i
    spread: list  # (P, d) scale of y_i


def _likelihood(pool: Pool, kernel: Kernel):
    """(w (P, k), data, sub-steps) -> log likelihoods (P,), with its own derivative rule.

    A person's few numbers are differentiated forward through the integration; what leads to them is cheap and goes backward.
    """
    kinds = [site.kind for site in kernel.sites for _ in range(site.size)]
    body = np.array([i for i, kind in enumerate(kinds) if kind != "sensor"], int)

    def modelled(own, w, data, substeps):
        here = dataclasses.replace(kernel, stepper=Repeated(kernel.stepper, substeps))
        found = here.modelled(pool.constrain(kernel, w.at[body].set(own)), data)
        return found, found

    def read(found, w, data):
        values = pool.constrain(kernel, w)
        return finite(sum(jnp.sum(t.loglik) for t in kernel.terms_at(found, values, data).values()))

    def one(w, data, substeps):
        return read(modelled(w[body], w, data, substeps)[0], w, data)

    def both(w, data, substeps):
        """Value and slope: forward through the integration, for parameters of the body only, then back through the sensors."""
        slopes, found = jax.jacfwd(modelled, has_aux=True)(w[body], w, data, substeps)
        value, (by_found, slope) = jax.value_and_grad(read, (0, 1))(found, w, data)
        return value, slope.at[body].add(sum(by_found[n] @ slopes[n] for n in found))

    @jax.custom_vjp
    def everybody(w, data, substeps):
        return jax.vmap(lambda w, d: one(w, d, substeps))(w, data)

    def ahead(w, data, substeps):
        values, slopes = jax.vmap(lambda w, d: both(w, d, substeps))(w, data)
        return values, jnp.where(jnp.isfinite(slopes), slopes, 0.0)

    def back(slopes, given):
        return given[:, None] * slopes, None, None

    everybody.defvjp(ahead, back)
    return everybody


def _root(a):
    """Lower Cholesky factor of small matrices (P, d, d), by columns: elementwise over people, which XLA fuses."""
    d, rows = a.shape[-1], {}
    for i in range(d):
        for j in range(i + 1):
            rest = a[:, i, j] - sum(rows[i, k] * rows[j, k] for k in range(j))
            rows[i, j] = jnp.sqrt(rest) if i == j else rest / rows[j, j]
    return rows


def _ahead(rows, v):
    """R^-1 v, for v a list of d arrays (P,)."""
    found = []
    for i in range(len(v)):
        found.append((v[i] - sum(rows[i, k] * found[k] for k in range(i))) / rows[i, i])
    return found


def _back(rows, v):
    """R^-T v."""
    found = dict.fromkeys(range(len(v)))
    for i in reversed(range(len(v))):
        found[i] = (v[i] - sum(rows[k, i] * found[k] for k in range(i + 1, len(v)))) / rows[i, i]
    return [found[i] for i in range(len(v))]


def _natural(pool: Pool, u, d):
    """(T (d, d), t (d,)) of c = T b + t: random effects on the eta scale, other effects as they are."""
    m, typical = len(pool.omegas), pool.typical(u)
    t = jnp.concatenate([jnp.stack([typical[p] for p in pool.omegas]) if m else jnp.zeros(0), jnp.zeros(d - m)])
    return jnp.eye(d).at[:m, :m].set(pool.root(u)), t


def _places(pool, frame: Frame, y):
    """(u, [b of each group], log determinant) at straightened coordinates y (D,)."""
    p = pool.size
    u, at, found, volume = frame.head + frame.scale @ y[:p], p, [], jnp.zeros(())
    for around, precision, told, rate, drift, shift, spread in zip(*frame[3:], strict=True):
        people, d = told.shape
        own = shift + spread * y[at : at + people * d].reshape(people, d)
        at += people * d
        if not d:
            found.append(own)
            continue
        t, center = _natural(pool, u, d)
        gain = jnp.exp(rate @ (u - frame.u))[:, None]
        w = gain[..., None] * precision
        right = (gain * (told + drift @ (u - frame.u)) - jnp.einsum("pij,pj->pi", w, center[None] - around)) @ t
        rows = _root(jnp.eye(d)[None] + jnp.einsum("ji,pjk,kl->pil", t, w, t))
        white = _ahead(rows, [right[:, i] for i in range(d)])
        found.append(jnp.stack(_back(rows, [white[i] + own[:, i] for i in range(d)]), axis=1))
        volume -= sum(jnp.sum(jnp.log(rows[i, i])) for i in range(d))
    return u, found, volume


def _density(pool: Pool, kernels):
    """(y (D,), datas, frame, sub-steps) -> log density of the joint posterior, up to the constant Jacobian of the frame."""
    likelihoods = [_likelihood(pool, kernel) for kernel in kernels]

    def density(y, datas, frame, substeps):
        u, effects, volume = _places(pool, frame, y)
        total = pool.log_prior(u) + volume
        for kernel, likelihood, b, data in zip(kernels, likelihoods, effects, datas, strict=True):
            w = jax.vmap(lambda b, kernel=kernel: pool.person(kernel, u, b))(b)
            total += jnp.sum(finite(likelihood(w, data, substeps))) - 0.5 * jnp.sum(b**2)
        return total

    return density


@functools.lru_cache(maxsize=16)
def _programs(pool: Pool, kernels, warmup: int, target: float, depth: int):
    density = _density(pool, kernels)

    def potential(datas, frame, substeps):
        return lambda y: -density(y, datas, frame, substeps)

    init, sample = hmc(potential_fn_gen=potential, algo="NUTS")

    def start(key, y, datas, frame, substeps):
        value, slope = jax.value_and_grad(potential(datas, frame, substeps))(y)
        return init(
            ParamInfo(y, value, slope),
            warmup,
            step_size=0.5,
            adapt_step_size=True,
            adapt_mass_matrix=False,
            dense_mass=False,
            target_accept_prob=target,
            max_tree_depth=(min(WARM_DEPTH, depth), depth),
            find_heuristic_step_size=False,
            model_args=(datas, frame, substeps),
            rng_key=key,
        )

    def advance(state, datas, frame, substeps):
        def one(state, _):
            state = sample(state, model_args=(datas, frame, substeps))
            return state, (*(getattr(state, name) for name in _FIELDS), state.adapt_state.step_size)

        return lax.scan(one, state, None, length=CHUNK)

    each = (0, None, None, None)
    return jax.jit(jax.vmap(start, (0, *each))), jax.jit(jax.vmap(advance, each))


@functools.lru_cache(maxsize=16)
def _turning(pool: Pool, kernels):
    density = _density(pool, kernels)
    return turning.programs(density, CHUNK)


@functools.lru_cache(maxsize=16)
def _unwhitened(pool: Pool):
    """Compiled: (frame, y (n, D)) -> u (n, p), effects b of each group (n, P, d), everybody's own parameters c alike."""

    def one(frame, y):
        u, effects, _ = _places(pool, frame, y)
        maps = [_natural(pool, u, b.shape[1]) for b in effects]
        return u, effects, [b @ t.T + center[None] for b, (t, center) in zip(effects, maps, strict=True)]

    return jax.jit(jax.vmap(one, (None, 0)))


# ---------------------------------------------------------------------------------------------- the frame


def _told(pool: Pool, u, b, curvature, around=None):
    """(W (P, d, d), h (P, d), c (P, d)) of people whose conditional modes in the population u are b, with these curvatures.

    h = W (m - around): counted from where c is, so that a W whose shape moves a little with u does not move the mean by what it
    would times a logarithm of a volume. `around` (P, d): by default c itself.
    """
    t, center = (np.asarray(a) for a in _natural(pool, u, b.shape[-1]))
    inverse = np.linalg.pinv(t)
    values, vectors = np.linalg.eigh(curvature - np.eye(b.shape[-1]))
    inner = np.einsum("pij,pj,pkj->pik", vectors, np.maximum(values, 0.0), vectors)
    w = inverse.T @ inner @ inverse
    c = b @ t.T + center
    return w, np.einsum("pi,pij->pj", c - (c if around is None else around), w) + b @ inverse, c


def _frame(pool: Pool, marginal: Marginal, found: focei.Estimate) -> Frame:
    """Coordinates from the marginal posterior of the population and everybody's conditional modes."""
    covariance = found.covariance()
    sd = np.where(np.isfinite(np.diag(covariance)), np.sqrt(np.maximum(np.diag(covariance), 0.0)), 1.0)
    known = np.isfinite(covariance).all()
    values, vectors = np.linalg.eigh(covariance) if known else (sd**2, np.eye(len(sd)))
    scale = vectors * np.sqrt(np.clip(values, 1e-8, 25.0))
    modes, parts = marginal.settle(found.u), []
    here = [_told(pool, found.u, m.b, m.curvature) for m in modes]
    for (w, h, c), m in zip(here, modes, strict=True):
        people, d = m.b.shape
        empty = (np.zeros((people, pool.size)), np.zeros((people, d, pool.size)))
        parts.append([c, w, h, *empty, np.zeros((people, d)), np.ones((people, d))])
    step = np.clip(0.2 * sd, 1e-4, 0.05)
    for site in pool.sites:
        if site.kind in ("omega", "correlation") or (site.kind == "typical" and site.name in pool.omegas):
            continue  # these are in the map itself
        j = pool.place(site.name)
        move = step[j] * np.eye(pool.size)[j]
        pair = marginal.modes(np.stack([found.u + move, found.u - move]))
        for part, one in zip(parts, pair, strict=True):
            sides = ((found.u + move, one.b[0], one.curvature[0]), (found.u - move, one.b[1], one.curvature[1]))
            (w1, h1, _), (w2, h2, _) = (_told(pool, *side, part[0]) for side in sides)
            sizes = [np.maximum(np.trace(w, axis1=1, axis2=2), 1e-300) for w in (w1, w2)]
            rate = (np.log(sizes[0]) - np.log(sizes[1])) / (2 * step[j])
            grown = np.exp(rate * step[j])[:, None]
            part[3][:, j] = np.nan_to_num(np.clip(rate, -20, 20))
            part[4][:, :, j] = np.nan_to_num((h1 / grown - h2 * grown) / (2 * step[j]))
    columns = [[jnp.asarray(a) for a in column] for column in zip(*parts, strict=True)]
    return Frame(jnp.asarray(found.u), jnp.asarray(found.u), jnp.asarray(scale), *columns)


def _refitted(pool: Pool, frame: Frame, y):
    """Coordinates in which the draws y (C, N, D) of the population have unit covariance and everybody's own unit variances."""
    p, flat = pool.size, y.reshape(-1, y.shape[-1])
    n, last = len(flat), y[:, -1]
    center = flat.mean(axis=0) * n / (n + 20)
    root = np.linalg.cholesky((n * np.cov(flat[:, :p].T).reshape(p, p) + 2 * p * np.eye(p)) / (n + 2 * p))
    spread = np.sqrt((n * flat[:, p:].var(axis=0) + 100) / (n + 100))
    shifts, spreads, at = [], [], p
    for shift, wide in zip(frame.shift, frame.spread, strict=True):
        own = slice(at, at + shift.size)
        shifts.append(shift + wide * center[own].reshape(shift.shape))
        spreads.append(wide * spread[at - p : at - p + shift.size].reshape(shift.shape))
        at += shift.size
    # what readings say stays laid out around the old center of the population
    new = frame._replace(shift=shifts, spread=spreads, head=frame.head + frame.scale @ center[:p], scale=frame.scale @ root)
    head = np.linalg.solve(root, (last[:, :p] - center[:p]).T).T
    return np.concatenate([head, (last[:, p:] - center[p:]) / spread], axis=1), new


# ---------------------------------------------------------------------------------------------- sampling


class _Round(NamedTuple):
    """What a sampler saw in one or more rounds of `CHUNK` transitions of C chains."""

    y: np.ndarray  # (C, n, D)
    diverging: np.ndarray  # (C, n)
    energy: np.ndarray
    accept: np.ndarray
    steps: np.ndarray  # gradients of a transition
    pace: np.ndarray  # what the warm-up adapts: the size of a step, or how many a transition takes


class _At(NamedTuple):
    """Where a run stands after `done` rounds: all that the next one is made from."""

    done: Any
    frame: Frame
    state: Any  # of the sampler
    found: _Round  # of the stage it is in


class _Trees:
    """The No-U-Turn sampler, each chain with a step size of its own until the warm-up ends."""

    def __init__(self, pool, groups, given, method, key, half):
        self._given, self._keys = given, jax.random.split(folded(key, 4), method.chains)
        kernels = tuple(group.kernel for group in groups)
        self._begin, self._go = _programs(pool, kernels, half * CHUNK, method.target - _EASIER, method.depth)

    def begin(self, y, frame, old=None):
        keys = self._keys if old is None else jax.vmap(lambda k: jax.random.fold_in(k, 1))(self._keys)
        datas, substeps = self._given
        return self._begin(keys, jnp.asarray(y), datas, frame, substeps)

    def go(self, state, frame, number):
        datas, substeps = self._given
        state, (z, diverging, steps, energy, accept, pace) = self._go(state, datas, frame, substeps)
        return state, _Round(*map(np.asarray, (z, diverging, energy, accept, steps, pace)))

    def adapted(self, state, found, last):
        """One step size for all chains where the warm-up ends: each has had few transitions to find its own."""
        if not last:
            return state
        paces = found.pace[:, found.pace.shape[1] // (2 * CHUNK) * CHUNK :]
        pace = np.full(len(paces), np.exp(np.mean(np.median(np.log(paces), axis=1))))
        return state._replace(adapt_state=state.adapt_state._replace(step_size=jnp.asarray(pace)))


class _Turns:
    """Quarter turns, of as many steps for all chains as the warm-up found to be enough."""

    def __init__(self, pool, groups, given, method, key, half):
        self._given, self._key, self._target = given, folded(key, 4), method.target
        self._begin, self._go = _turning(pool, tuple(group.kernel for group in groups))

    def begin(self, y, frame, old=None):
        datas, substeps = self._given
        return self._begin(jnp.asarray(y), (datas, frame, substeps)), np.int32(3) if old is None else old[1]

    def go(self, state, frame, number):
        (stand, steps), (datas, substeps) = state, self._given
        stand, out = self._go(stand, folded(self._key, number), np.int32(steps), (datas, frame, substeps))
        y, diverging, energy, accept = (np.moveaxis(np.asarray(a), 0, 1) for a in out)
        many = np.full(accept.shape, float(steps))
        return (stand, np.int32(steps)), _Round(y, diverging, energy, accept, many, many)

    def adapted(self, state, found, last):
        """As many steps as the last round asks for."""
        stand, steps = state
        return stand, np.int32(turning.steps_for(float(found.accept[:, -CHUNK:].mean()), int(steps), self._target))


class _Run(NamedTuple):
    y: np.ndarray  # (C, N, D)
    frame: Frame
    stats: dict[str, Any]


def _sample(pool, groups, datas, frame, substeps, method, key, report, work) -> _Run:
    """Warm up twice (in the frame, then in the refitted one) and draw; chains that have not mixed go on."""
    half = -(-method.warmup // (2 * CHUNK))
    sampler = (_Turns if isinstance(method, HMC) else _Trees)(pool, groups, (datas, substeps), method, key, half)
    total, size = 2 * half + -(-method.draws // CHUNK), pool.size + sum(b.size for b in frame.told)
    y = np.asarray(jax.random.normal(folded(key, 3), (method.chains, size), float))
    empty = _Round(*(np.zeros((method.chains, 0, *more)) for more in ((size,), (), (), (), (), ())))
    at, interrupted = _At(0, frame, sampler.begin(y, frame), empty), False
    at = work.load(at) or at

    def finished(at):
        count = at.found.y.shape[1]
        if at.done <= 2 * half or count < method.draws or count % method.draws >= CHUNK:
            return False
        return count >= method.most * method.draws or _mixed(pool, at.frame, at.found.y)

    try:
        while not finished(at):
            state, out = sampler.go(at.state, at.frame, int(at.done))
            found = _Round(*(np.concatenate(pair, axis=1) for pair in zip(at.found, out, strict=True)))
            done, frame = int(at.done) + 1, at.frame
            if done <= 2 * half:
                state = sampler.adapted(state, found, done == 2 * half)
            if done == half:
                y, frame = _refitted(pool, frame, found.y[:, half // 2 * CHUNK :])
                state = sampler.begin(y, frame, state)
            at = _At(done, frame, state, empty if done in (half, 2 * half) else found)
            work.save(at)
            report(min(done, total - 1), total, int(at.found.diverging.sum()))
    except KeyboardInterrupt:
        if at.done <= 2 * half:
            raise
        interrupted = True
    found = at.found
    stats = {"divergent": float(found.diverging.mean()), "bfmi": diagnostics.bfmi(found.energy), "interrupted": interrupted,
             "leapfrogs": float(found.steps.mean()), "accept": float(found.accept.mean())}  # fmt: skip
    return _Run(found.y, at.frame, stats)


def _mixed(pool, frame, y) -> bool:
    """Have the population and everybody's own parameters mixed, at y (C, N, D)?"""
    u, _, own = _unwhitened(pool)(frame, jnp.asarray(y.reshape(-1, y.shape[-1])))
    flat = np.concatenate([np.asarray(u), *(np.asarray(c).reshape(len(u), -1) for c in own)], axis=1)
    by = flat.T.reshape(flat.shape[1], *y.shape[:2])
    low = np.minimum(diagnostics.ess_bulk(by), diagnostics.ess_tail(by))
    return bool(np.all(diagnostics.rhat(by) < diagnostics.RHAT) and np.all(low > diagnostics.ESS))


def _corrected(told, ids, groups, key):
    """Draws of the joint posterior weighted for their steps cut in half: indices (n,), and what is told of it.

    `told`: of each group, `own.asked` under the steps and under half of them. A weight is that of a whole cohort: it spreads with
    the root of the people, so `mesh_worst` says, too, of whom halving the steps changes the log likelihood most unevenly, and by
    what standard deviation over the draws (`mesh_sd`).
    """
    totals = np.array([sum(np.sum(pair[k][0], axis=1) for pair in told) for k in (0, 1)])
    n, usable = totals.shape[1], np.isfinite(totals).all(axis=0)
    log_weights, khat = psis(np.where(usable, totals[1] - totals[0], -np.inf))
    share = float(kish(log_weights)) / n if usable.any() else 0.0
    each = np.zeros(len(ids))
    for group, (coarse, fine) in zip(groups, told, strict=True):
        if usable.any():
            each[group.rows] = np.std(fine[0][usable] - coarse[0][usable], axis=0)
    worst = int(np.argmax(each))
    stats = {"mesh_share": share, "mesh_khat": float(khat) if share < _EVEN else -np.inf, "mesh_sd": float(each[worst]),
             "mesh_worst": ids[worst], "failed": float(1 - usable.mean())}  # fmt: skip
    if share >= _EVEN or not usable.any():
        return np.arange(n), stats
    return resampled(generator(key, 5), log_weights, n), stats


def sampled(pool: Pool, groups: list[Group], ids, method, key, tell, work):
    """The population and a `Fit` for everybody, by NUTS on the joint posterior."""
    from hybridtwin.inference import hierarchy

    marginal = Marginal(pool, groups, penalized=True, arrived=_ROUGH)
    marginal.substeps = np.int32(hierarchy.substeps_for(marginal, pool.start))

    def search(done, total):
        tell(0.3 * done / total, 1.0, "")

    def report(done, total, diverging):
        tell(0.3 + 0.65 * done / total, 1.0, f"{diverging} diverging")

    found, datas, halvings = focei.maximize(marginal, search, near=_CLOSE, work=work.part("start")), marginal.datas, 0
    while True:
        substeps, frame = marginal.substeps, _frame(pool, marginal, found)
        own = work.part(f"draws.{substeps}")
        run = _sample(pool, groups, datas, frame, substeps, method, key, report, own)
        chains, count = run.y.shape[:2]
        u, effects, _ = _unwhitened(pool)(run.frame, jnp.asarray(run.y.reshape(chains * count, -1)))
        u, effects = np.array(u), [np.array(b) for b in effects]
        told = [_told_of(pool, *one, u, substeps) for one in zip(groups, datas, effects, strict=True)]
        pick, weighed = _corrected(told, ids, groups, key)
        if weighed["mesh_share"] >= _UNEVEN or halvings == _HALVINGS or run.stats["interrupted"]:
            break
        # weights cannot make the steps good: everything again with half of them
        marginal.substeps, halvings = np.int32(2 * int(substeps)), halvings + 1
        marginal.settle(found.u)
    u, told = u[pick], jax.tree.map(lambda a: a[pick], told)
    draws, stats = u.reshape(chains, count, -1), run.stats | weighed | ({"halved": halvings} if halvings else {})
    center = u.mean(axis=0)
    modes = tuple(marginal.settle(center))
    population = Population(pool, tuple(groups), tuple(ids), method, center, np.cov(u.T).reshape(pool.size, pool.size),
                            np.full((pool.size, pool.size), np.nan), draws, modes, stats, _judged(pool, draws, stats),
                            int(substeps))  # fmt: skip
    by = {name: v.reshape(1, chains, count) for name, v in (population.samples or {}).items()}
    mixing = {word: {name: float(getattr(diagnostics, word)(v)[0]) for name, v in by.items()} for word in _MIXING}
    population = dataclasses.replace(population, stats=stats | mixing)
    return population, _people(population, told, (chains, count), key)


def _told_of(pool, group, data, b, u, substeps):
    """`own.asked` of the draws under the steps and under half of them."""
    coarse = asked(pool, group, data, u, b, int(substeps))
    return coarse, coarse if group.kernel.stepper.refined() is None else asked(pool, group, data, u, b, 2 * int(substeps))


def _judged(pool, draws, stats):
    """Has the sampler of the population converged?"""
    by, judge = np.moveaxis(draws, -1, 0), Judgment()
    names = [s.name for s in pool.sites for _ in range(s.size)]
    rhat = diagnostics.rhat(by)
    worst = int(np.argmax(np.where(np.isfinite(rhat), rhat, np.inf)))
    judge.above(rhat[worst], diagnostics.RHAT, 1.10, f"R-hat of {names[worst]} is {rhat[worst]:.3f} (chains have not mixed)")
    low = float(np.min(np.minimum(diagnostics.ess_bulk(by), diagnostics.ess_tail(by))))
    judge.above(-low, -diagnostics.ESS, -60, f"smallest effective sample size of the population is {low:.0f}")
    judge.above(stats["divergent"], 0.01, 0.05, f"{100 * stats['divergent']:.1f} % of the transitions diverged")
    judge.above(-float(np.min(stats["bfmi"])), -0.3, -0.1, f"E-BFMI is {float(np.min(stats['bfmi'])):.2f} (heavy tails)")
    share = 100 * stats["mesh_share"]
    told = f"only {share:.0f} % of the draws count after halving the steps; {stats['mesh_worst']} is changed most"
    judge.above(-share, -80, -30, told)
    judge.above(stats["failed"], 0.01, 0.1, f"{100 * stats['failed']:.1f} % of the draws could not be solved")
    if stats["interrupted"]:
        judge.say("CAUTION", "sampling was interrupted; fewer draws than asked")
    return judge.part


def _people(population: Population, told, shape, key):
    """Fits of everybody from the joint draws."""
    problems, fits = own_problems(population), {}
    shared = {k: v for k, v in population.stats.items() if k in ("divergent", "bfmi", "interrupted", "leapfrogs")}
    for group, pair, modes in zip(population.groups, told, population.modes, strict=True):
        drawn, kernel = [], problems[group.rows[0]].kernel
        z = coordinates(kernel, pair[0][2])
        people, size = z.shape[1:]
        by = np.moveaxis(z, 0, -1).reshape(people * size, *shape)
        mixing = {word: getattr(diagnostics, word)(by).reshape(people, size) for word in _MIXING}
        for p, place in enumerate(group.rows):
            own, problem = z[:, p], problems[place]
            center, spread = own.mean(axis=0), np.cov(own.T).reshape(size, size)
            joint = -modes.joint[p] - 0.5 * (size + problem.n_gaussian) * LOG_2PI
            fit = laplace(center, np.linalg.inv(spread + 1e-10 * np.eye(size)), joint)
            stats = {word: v[p] for word, v in mixing.items()} | shared | {"rivals": 0.0, "gradient": 0.0}
            drawn.append(Sampled(own.reshape(*shape, size), stats, [fit], problem.kernel.untempered()))
        fits |= finished(population, group, drawn, pair, key)
    return fits
