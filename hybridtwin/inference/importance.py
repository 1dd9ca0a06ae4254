"""Adaptive importance sampling: a mixture of multivariate t at the modes, taught by its own weighted draws.

Every round draws from the mixture, weighs what has been drawn so far against all mixtures it came from (Cornuet, Marin, Mira
and Robert 2012, doi:10.1111/j.1467-9469.2011.00756.x), and moves each component to the weighted moments of its share (Cappe
et al. 2008, doi:10.1007/s11222-008-9059-x). A tenth of every component is drawn half as wide again, where a ridge would hide.
Where too few draws count, a map that bends joins the mixture (`bent.py`).
The answer comes from a last batch, independent of all that taught the mixture; what the two say of the posterior must agree.

Log densities of all people of a tile are one compiled program; the mixtures are small and live on the host.
"""

import dataclasses
import math
from typing import Any

import numpy as np

from hybridtwin.inference import bent
from hybridtwin.inference.modes import LaplaceFit, profiles
from hybridtwin.inference.psis import kish, limit, psis, resampled
from hybridtwin.inference.readings import densities, generator
from hybridtwin.inference.sampling import Drawn, Setting

_NU = 6  # degrees of freedom: tails well above a Gaussian's, variance still finite in every weight that matters
_WIDE, _SPREAD = 0.1, 1.6  # share and width of the wide part of each component
_NONE = 1e-300  # a density so far from all components that only its logarithm must stay a number
_BLOCK = 65_536  # numbers of one array on the host that stay in its second cache
_STRAIGHT, _BENT, _PER = 2, 0.4, 4  # rounds of ellipsoids alone; share from which they do; draws a coordinate for more
_TRUST, _LAST = 0.8, 4  # most of the draws that a bent map may have; proposals that a last batch is drawn from
_EXTRA, _SWEEPS = 3, 3  # components beside those of the modes, and sweeps of expectation and maximization a round
_AGAIN = 1  # times that whoever is near goes on learning before chains are asked
_STILL = 0.1  # adaptations that move no mean or spread by more (sd) agree
SHARE, FEW = 0.3, 150  # of a batch that must count, and effective draws, before it is taken for the posterior


@dataclasses.dataclass(frozen=True)
class Mixture:
    """K components of multivariate t on d coordinates."""

    share: np.ndarray  # (K,)
    mean: np.ndarray  # (K, d)
    root: np.ndarray  # (K, d, d) lower triangular

    def draw(self, rng, count):
        """Draws (count, d)."""
        d = self.mean.shape[1]
        which = np.minimum(np.searchsorted(np.cumsum(self.share), rng.random(count)), len(self.share) - 1)
        width = np.where(rng.random(count) < _WIDE, _SPREAD, 1.0) / np.sqrt(rng.chisquare(_NU, count) / _NU)
        noise = rng.standard_normal((count, d)) * width[:, None]
        out = np.empty((count, d))
        for k in range(len(self.share)):
            mine = which == k
            out[mine] = self.mean[k] + noise[mine] @ self.root[k].T
        return out

    def white(self, z):
        """Draws z (n, d) on the coordinates of every component, y (K, d, n), and their squared lengths (K, n), block by block."""
        (count, d), back = self.mean.shape, np.linalg.inv(self.root)
        size, middle = max(_BLOCK // (count * d), 32), self.mean[0]  # far from 0 in its own widths a posterior would lose digits
        offset = back @ (self.mean - middle)[..., None]
        for at in range(0, len(z), size):
            part = (z[at : at + size] - middle).T
            y = (back.reshape(-1, d) @ part).reshape(count, d, part.shape[1])
            y -= offset
            yield y, np.einsum("kdn,kdn->kn", y, y)

    def parts(self, far):
        """Density of every component, its share counted, at squared distances `far` (K, n), and the log of their unit.

        Not as logs: a power of a whole number is a few products, and a logarithm or exponential twenty of them.
        """
        d = self.mean.shape[1]
        heights = np.log(self.share) - np.log(np.diagonal(self.root, axis1=1, axis2=2)).sum(axis=1)
        constant = math.lgamma((_NU + d) / 2) - math.lgamma(_NU / 2) - 0.5 * d * np.log(_NU * np.pi)
        narrow = (1 - _WIDE) / _power(np.sqrt(1 + far / _NU), _NU + d)
        wide = _WIDE * _SPREAD**-d / _power(np.sqrt(1 + far / (_SPREAD**2 * _NU)), _NU + d)
        return np.exp(heights - heights.max())[:, None] * (narrow + wide), heights.max() + constant

    def log_density(self, z):
        """Log density at z (n, d): (n,)."""
        found = np.zeros(0)
        for _, far in self.white(z):
            parts, unit = self.parts(far)
            found = np.append(found, np.log(np.maximum(parts.sum(axis=0), _NONE)) + unit)
        return found


def _power(x, whole: int):
    """`x` to the power of a positive whole number; infinite where that is beyond all numbers."""
    found = None
    with np.errstate(over="ignore"):
        while whole:
            if whole % 2:
                found = x if found is None else found * x
            whole //= 2
            x = x * x if whole else x
    return found


@dataclasses.dataclass(frozen=True)
class Blend:
    """Several proposals, each with its share of the draws."""

    parts: tuple[Any, ...]
    share: np.ndarray

    def draw(self, rng, count):
        """Draws (count, d)."""
        return np.concatenate([q.draw(rng, n) for q, n in zip(self.parts, rng.multinomial(count, self.share), strict=True)])

    def log_density(self, z):
        """Log density at z (n, d): (n,)."""
        return np.logaddexp.reduce([np.log(s) + q.log_density(z) for q, s in zip(self.parts, self.share, strict=True)], axis=0)


def _blended(mixture: Mixture, rng, z, weights, count) -> Blend:
    """The mixture and a map fitted to the same draws, each with the share that the draws give it."""
    # who weighs little is taken by chance, and then weighs as much as an even draw would
    even = 1 / len(weights)
    kept = rng.random(len(weights)) < weights / even
    z, weights = z[kept], np.maximum(weights[kept], even)
    weights = weights / weights.sum()
    found, share = bent.fit(z, weights, count), 0.5
    ratio = mixture.log_density(z) - found.log_density(z)
    for _ in range(10):
        with np.errstate(over="ignore"):
            share = float(np.clip(weights @ (1 / (1 + (1 - share) / share * np.exp(ratio))), 0.1, _TRUST))
    return Blend((found, mixture), np.array([share, 1 - share]))


def fitted(mixture: Mixture, rng, z, weights, count) -> Blend:
    """A mixture and a map fitted to weighted draws z (n, d), from an older mixture."""
    new = _grown(mixture, z, rng, np.log(np.maximum(weights, 1e-300)))
    for _ in range(2 * _SWEEPS):
        new = _moved(new, z, weights)
    return _blended(new, rng, z, weights, count)


def from_modes(fits: list[LaplaceFit]) -> Mixture:
    """The mixture of the Laplace approximations of one person, each with its evidence as share."""
    shares = np.exp(np.array([f.log_evidence for f in fits]) - max(f.log_evidence for f in fits))
    roots = [np.linalg.cholesky(f.scale @ f.scale.T) for f in fits]
    # a mode of little evidence keeps a foothold: its evidence is only the Laplace approximation's
    shares = np.maximum(shares / shares.sum(), 0.05)
    return Mixture(shares / shares.sum(), np.stack([f.mode for f in fits]), np.stack(roots))


def moments(z, weights):
    """Means and spreads of weighted draws z (n, d)."""
    mean = weights @ z
    return mean, np.sqrt(weights @ np.square(z - mean))


class Learner:
    """The mixture of one person as it learns: `propose` a batch, `learn` from its log densities."""

    def __init__(self, rng, fits):
        self.rng, self.mixture, self.settled, self.round = rng, from_modes(fits), False, 0
        self.proposals: list[Mixture | Blend] = [self.mixture]
        self.z, self.log_density, self.sources = np.zeros((0, len(fits[0].mode))), np.zeros(0), np.zeros(0)
        self.log_weights, self.share, self.moments = np.zeros(0), 0.0, None
        self.sizes: list[int] = []  # draws of each proposal so far

    def propose(self, count):
        """A batch of draws (count, d) of the present proposal; one draw, again and again, once it has settled."""
        if self.settled:
            return np.repeat(self.z[:1], count, axis=0)
        self.batch = self.proposals[-1].draw(self.rng, count)
        return self.batch

    def widen(self, points, roots, heights):
        """Propose next beside the modes: components at points (K, d) of log density `heights` (K,), to be kept."""
        volume = np.log(np.diagonal(roots, axis1=1, axis2=2)).sum(axis=1)
        share = np.exp(0.5 * (heights + volume - (heights + volume).max()))
        more = Mixture(share / share.sum(), points, roots)
        old, self.settled, self.proposals[-1] = self.mixture, False, more
        self.mixture = Mixture(
            *(np.concatenate(pair) for pair in ((0.5 * old.share, 0.5 * more.share), (old.mean, points), (old.root, roots)))
        )

    def learn(self, log_density):
        """Weigh all batches and move the components."""
        if self.settled:
            return
        old, new = self.proposals[-1], len(self.z)
        own = old.log_density(self.batch)
        self.share = float(kish(log_density - own)) / len(own)
        # densities of all draws under all proposals they came from, kept as running sums
        size = np.log(len(own))
        sums = [size + own, *(np.log(n) + q.log_density(self.batch) for q, n in zip(self.proposals, self.sizes, strict=False))]
        grown = np.logaddexp(self.sources, size + old.log_density(self.z)) if new else self.sources
        self.sizes.append(len(own))
        self.sources = np.concatenate([grown, np.logaddexp.reduce(sums, axis=0)])
        self.z = np.concatenate([self.z, self.batch])
        self.log_density = np.concatenate([self.log_density, log_density])
        self.log_weights = psis(self.log_density - self.sources)[0]
        weights = np.exp(self.log_weights)
        found, before = moments(self.z, weights), self.moments
        self.moments, self.round = found, self.round + 1
        mixture = self.mixture if new else _grown(self.mixture, self.z, self.rng, self.log_weights)
        for _ in range(_SWEEPS):
            mixture = _moved(mixture, self.z, weights)
        self.mixture, d = mixture, self.z.shape[1]
        bends = self.round >= _STRAIGHT and self.share < _BENT and self.count > _PER * d and d > 2
        bends = bends or isinstance(old, Blend)
        self.proposals.append(_blended(mixture, self.rng, self.z, weights, self.count) if bends else mixture)
        if before is not None and self.round > 2:
            self.settled = drift(before, found) < _STILL and self.share > SHARE

    def answer(self):
        """The proposal of a last batch: the last few together, of which each makes up for what another misses."""
        few = self.proposals[max(1, len(self.proposals) - _LAST) :]
        return Blend(tuple(few), np.full(len(few), 1 / len(few))) if isinstance(few[-1], Blend) else few[-1]

    @property
    def count(self) -> float:
        """Effective number of the draws it has learned from."""
        return float(kish(self.log_weights))

    @property
    def hope(self) -> float:
        """Share of a batch that may count: of the last, or of all, where one unlucky weight has spoilt the last."""
        return max(self.share, self.count / max(len(self.z), 1))


def _grown(old: Mixture, z, rng, log_weights) -> Mixture:
    """Further components at weighted draws: a bent or skewed posterior is followed by several."""
    at = z[resampled(rng, log_weights, _EXTRA)]
    nearest = np.concatenate([np.argmin(far, axis=0) for _, far in old.white(at)])
    return Mixture(
        np.concatenate([0.5 * old.share, np.full(_EXTRA, 0.5 / _EXTRA)]),
        np.concatenate([old.mean, at]),
        np.concatenate([old.root, 0.8 * old.root[nearest]]),
    )


def _moved(old: Mixture, z, weights) -> Mixture:
    """Every component at the weighted moments of its share, drawn towards what it was as far as 2 d draws would."""
    count, d = old.mean.shape
    total, squares, pulled = np.zeros((3, count, 1))
    first, second, at = np.zeros((count, d, 1)), np.zeros((count, d, d)), 0
    for y, far in old.white(z):  # moments on the coordinates of each component, where they are of order 1
        parts, _ = old.parts(far)
        mine = parts * (weights[at : at + far.shape[1]] / np.maximum(parts.sum(axis=0), _NONE))
        own = mine * ((_NU + d) / (_NU + far))
        total += mine.sum(axis=1, keepdims=True)
        squares += np.square(mine).sum(axis=1, keepdims=True)
        pulled += own.sum(axis=1, keepdims=True)
        first += y @ own[..., None]
        second += (y * own[:, None]) @ np.swapaxes(y, 1, 2)
        at += far.shape[1]
    kept = total[:, 0] >= 1e-4
    if not kept.any():
        return old
    total, squares, pulled, first, second = (a[kept] for a in (total, squares, pulled, first, second))
    root, total, pulled = old.root[kept], total[..., None], pulled[..., None]
    draws, middle = total**2 / squares[..., None], first / pulled
    square = (second - pulled * middle * np.swapaxes(middle, 1, 2)) / total
    square = (draws * square + 2 * d * np.eye(d)) / (draws + 2 * d)
    share, mean = total[:, 0, 0] / total.sum(), old.mean[kept] + (root @ middle)[..., 0]
    return Mixture(share, mean, np.linalg.cholesky(root @ square @ np.swapaxes(root, 1, 2)))


def drift(before, after) -> float:
    """Largest move of a mean or of the log of a spread, in spreads, between two pairs of moments."""
    with np.errstate(divide="ignore", invalid="ignore"):
        moves = np.stack([np.abs(after[0] - before[0]) / after[1], np.abs(np.log(after[1] / before[1]))])
    return float(np.max(np.nan_to_num(moves, nan=np.inf)))


@dataclasses.dataclass
class Weighted:
    """One person's last batch: draws, smoothed log weights, and what judges them."""

    z: np.ndarray  # (n, d)
    log_weights: np.ndarray  # (n,)
    learner: Learner
    stats: dict[str, Any]

    @property
    def trusted(self) -> bool:
        """May these draws be taken for the posterior?"""
        s = self.stats
        return bool(s["khat"] < limit(s["share"]) and s["share"] >= SHARE and s["ess"] >= FEW and s["drift"] < _STILL)

    @property
    def near(self) -> bool:
        """May a few more rounds be enough?"""
        return bool(self.stats["share"] >= 0.7 * SHARE)

    def drawn(self, rng, count) -> Drawn:
        """Draws of equal weight."""
        pick = resampled(rng, self.log_weights, count)
        return Drawn(self.z[pick][None], self.stats | {"distinct": len(np.unique(pick))})


def weigh(setting: Setting, draws: int, rounds: int, batch: int, quit_below: float = 0.0) -> list[Weighted]:
    """The last batches of all people of a tile.

    A batch is as long as it takes for `draws` effective draws, at most eight times as long as that. Where the last round of the
    teaching counted for less than `quit_below` of its draws, the answer is only what was learned.
    """
    learners = [Learner(generator(key, 2), fits) for key, fits in zip(setting.keys, setting.modes, strict=True)]
    _teach(setting, learners, rounds, batch)
    found = _answered(setting, learners, draws, batch, quit_below)
    for _ in range(_AGAIN if quit_below else 0):  # a few more rounds cost less than chains
        again = [one.near and not one.trusted for one in found]
        if not any(again):
            break
        for one, more in zip(learners, again, strict=True):
            one.settled = not more
        _teach(setting, learners, rounds // 2, batch)
        second = _answered(setting, learners, draws, batch, quit_below)
        found = [new if more else old for old, new, more in zip(found, second, again, strict=True)]
    return found


def look_aside(setting: Setting, learner: Learner, batch: int, rounds: int = 2):
    """Let the learner of one person (the only one of `setting`) see what lies beside the modes, and learn on."""
    for fit in setting.modes[0]:
        points, roots, heights = profiles(setting.kernel, fit, setting.data, setting.tempers)
        if len(points):
            learner.widen(points, roots, heights)
            _teach(setting, [learner], 1, batch)
    learner.settled = False
    _teach(setting, [learner], rounds, batch)


def _teach(setting, learners, rounds, batch):
    """Rounds of drawing, weighing and moving; a person who has settled waits for the others."""
    for i in range(rounds):
        proposed = np.stack([one.propose(batch) for one in learners])
        for one, mine in zip(learners, densities(setting.kernel, proposed, setting.data, setting.tempers), strict=True):
            one.learn(mine)
        setting.report(i + 1, rounds + 2, 0)
        if all(one.settled for one in learners):
            break


def _answered(setting, learners, draws, batch, quit_below) -> list["Weighted"]:
    """A last batch of everybody who is not hopeless."""
    wanted = [0 if one.hope < quit_below else _length(one.hope, draws, batch) for one in learners]
    batches = [one.answer().draw(one.rng, n) if n else one.batch[:1] for one, n in zip(learners, wanted, strict=True)]
    if not any(wanted):
        return [_learned(one) for one in learners]
    longest = max(len(z) for z in batches)
    full = np.stack([np.concatenate([z, np.repeat(z[:1], longest - len(z), axis=0)]) for z in batches])
    value = densities(setting.kernel, full, setting.data, setting.tempers)
    return [
        _weighted(one, z, v[: len(z)]) if n else _learned(one)
        for one, z, v, n in zip(learners, batches, value, wanted, strict=True)
    ]


def _length(share, draws, batch):
    wanted = 1.2 * draws / max(share, 1e-3)
    return int(min(-(-wanted // 64) * 64, 8 * max(draws, batch)))


def _weighted(learner, z, log_density) -> Weighted:
    raw = log_density - learner.answer().log_density(z)
    smoothed, khat = psis(raw)
    count = float(kish(smoothed))
    top = raw.max()
    mean = np.exp(raw - top).mean() if np.isfinite(top) else 0.0
    noise = 3 * np.sqrt(1 / max(count, 1.0) + 1 / max(learner.count, 1.0))
    moved = drift(learner.moments, moments(z, np.exp(smoothed)))
    stats = {
        "khat": float(khat),
        "ess": count,
        "share": count / len(z),
        "pool": len(z),
        "drift": max(0.0, moved - noise),
        "rounds": learner.round,
        "log_evidence": float(top + np.log(mean)) if mean > 0 else -np.inf,
        "log_evidence_se": float(np.sqrt(max(len(z) / max(float(kish(raw)), 1e-9) - 1, 0.0) / len(z))),
    }
    return Weighted(z, smoothed, learner, stats)


def _learned(learner) -> Weighted:
    """What a hopeless mixture has learned: a place to start a sampler from."""
    khat = float(psis(learner.log_density - learner.sources)[1])
    count = learner.count
    stats = {"khat": khat, "ess": count, "share": learner.hope, "pool": len(learner.z), "drift": np.inf, "rounds": learner.round}
    return Weighted(learner.z, learner.log_weights, learner, stats)


def draw(setting: Setting, method) -> list[Drawn]:
    """Draws of equal weight of every person of a tile."""
    found = weigh(setting, method.draws, method.rounds, method.batch)
    return [one.drawn(generator(key, 3), method.draws) for one, key in zip(found, setting.keys, strict=True)]
