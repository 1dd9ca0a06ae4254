"""Chains that jump and walk: the proposal that importance sampling has learned, and Hamiltonian transitions, in turn.

A jump chooses among the present point and several draws of the proposal by their importance weights (iterated sampling-importance
resampling: Andrieu, Lee and Vihola 2018, doi:10.3150/15-BEJ812); a walk is one Hamiltonian transition of all chains in step.
Both leave the posterior as it is, whatever the proposal (together: Samsonov et al. 2022, arXiv:2111.02702). Jumps need no
gradient and forget where a chain was; walks reach what the proposal misses, and then the proposal is fitted again. So a
proposal that may not be trusted by its weights still makes draws nearly independent.

Chains begin at weighted draws, in groups that begin at one point each, and nested R-hat asks whether they have forgotten it.
"""

import dataclasses
from typing import Any

import jax
import numpy as np

from hybridtwin.inference import diagnostics
from hybridtwin.inference.chains import judged
from hybridtwin.inference.importance import Blend, Weighted, drift, fitted, moments
from hybridtwin.inference.lanes import Lanes, Mover, whitened
from hybridtwin.inference.psis import resampled
from hybridtwin.inference.readings import densities, generator
from hybridtwin.inference.sampling import Drawn, Setting

CHAINS, GROUPS = 64, 16  # chains, and points that they begin at
JUMPS = 8  # draws of the proposal that one jump chooses among
_WARM, _FIRST = 8, 4  # transitions before any is kept, of which the first only find the step
_ACCEPT = 0.8  # acceptance of the walks
_TURN = np.pi / 2  # a quarter of the period of a standard normal
_LONGEST = 24  # leapfrogs of one walk
_EVEN = 0.4  # what one draw of a chain teaches, in that of an independent one
_MORE = 1.2  # times the effective draws that pass without a word
_STILL = 0.15  # sd by which the halves of what is kept may differ beyond noise
_MANY = 4096  # draws that the proposal is fitted to, of all that chains have made


@dataclasses.dataclass
class _Chains:
    """The chains of one person, their proposal and their pace."""

    setting: Setting  # of this person alone
    mover: Mover
    rng: np.random.Generator
    lanes: Lanes
    proposal: Any
    frame: tuple[np.ndarray, np.ndarray]
    step: float = 0.4
    moved: float = 0.0  # share of the chains that jumped
    leapfrogs: int = 0
    diverging: int = 0

    def jump(self):
        """Every chain chooses among where it is and `JUMPS` draws of the proposal."""
        z = np.asarray(self.lanes.z)
        count, d = z.shape
        new = self.proposal.draw(self.rng, count * JUMPS)[self.rng.permutation(count * JUMPS)]
        value = densities(self.setting.kernel, new[None], self.setting.data, self.setting.tempers)[0]
        here = np.asarray(self.lanes.prior) + np.asarray(self.lanes.like) - self.proposal.log_density(z)
        there = (value - self.proposal.log_density(new)).reshape(count, JUMPS)
        logs = np.concatenate([here[:, None], np.where(np.isfinite(there), there, -np.inf)], axis=1)
        which = np.argmax(logs + self.rng.gumbel(size=logs.shape), axis=1)
        self.moved = float(np.mean(which > 0))
        taken = np.where((which > 0)[:, None], new.reshape(count, JUMPS, d)[np.arange(count), which - 1], z)
        if which.any():
            self.lanes = self.mover.known(taken)

    def walk(self, rate=0.0):
        """One Hamiltonian transition of every chain; the step learns at `rate`."""
        turn = _TURN * self.rng.uniform(0.5, 1.2)
        number = int(np.clip(np.ceil(turn / self.step), 1, _LONGEST))
        moved = self.mover.move(self.lanes, *self.frame, self.step, number)
        self.lanes, self.leapfrogs = moved.lanes, self.leapfrogs + number
        self.diverging += int(np.sum(np.asarray(moved.diverging)))
        if rate:
            accept = float(np.mean(np.asarray(moved.accept)))
            self.step = float(np.clip(self.step * np.exp(rate * (accept - _ACCEPT)), 0.02, 1.0))

    def go(self, length, tell, rate=0.0) -> np.ndarray:
        """`length` jumps and walks of every chain: where they were after each, (C, length, d)."""
        kept, jumped, self.leapfrogs, self.diverging = [], [], 0, 0
        for i in range(length):
            self.jump()
            self.walk(rate / np.sqrt(1 + i))
            jumped.append(self.moved)
            kept.append(np.asarray(self.lanes.z))
            tell()
        self.moved = float(np.mean(jumped))
        return np.stack(kept, axis=1)


def draw(setting: Setting, one: Weighted, frame, draws: int, most: int) -> Drawn:
    """About `draws` draws of one person (the only one of `setting`) from what importance sampling learned.

    `frame`: (center, root) of the coordinates of the walks. What is drawn before the chains have mixed becomes warm-up and
    teaches the proposal, for up to `most` rounds.
    """
    key = setting.keys[0]
    data, temper = (jax.tree.map(lambda a: a[0], part) for part in (setting.data, setting.tempers))
    mover, rng = Mover(setting.kernel, data, temper, jax.random.fold_in(key, 5)), generator(key, 8)
    starts = one.learner.z[resampled(rng, one.learner.log_weights, GROUPS)]
    chains = _Chains(setting, mover, rng, mover.known(np.repeat(starts, CHAINS // GROUPS, axis=0)), one.learner.answer(), frame)
    length, done = max(10, -(-draws // CHAINS)), [0]

    def tell():
        done[0] += 1
        total = _WARM + length * (2 * most - 1)
        setting.report(done[0], total, chains.diverging)

    z, interrupted = np.zeros((CHAINS, 0, len(starts[0]))), False
    try:
        chains.go(_FIRST, tell, rate=2.0)
        seen = [chains.go(_WARM - _FIRST, tell, rate=0.5)]
        for number in range(1, most + 1):
            _learn(chains, one, seen)
            z = chains.go(length * min(number, 2), tell)
            stats = judged(z, GROUPS)
            if number == most or _settled(stats, z):
                break
            seen.append(z)
    except KeyboardInterrupt:
        interrupted = True
        if not z.size:
            raise
    many = z.shape[0] * z.shape[1]
    return Drawn(
        z,
        stats
        | {
            "divergent": chains.diverging / many,
            "leapfrogs": chains.leapfrogs / z.shape[1],
            "jumps": chains.moved,
            "rounds": float(number),
            "interrupted": interrupted,
        },
    )


def _settled(stats, z) -> bool:
    """Have the groups forgotten their starts, are there draws enough, and do both halves of them say the same?"""
    low = np.minimum(stats["ess_bulk"], stats["ess_tail"])
    if not (np.all(stats["rhat"] < diagnostics.RHAT) and np.all(low > _MORE * diagnostics.ESS)):
        return False
    half = z.shape[1] // 2
    parts = [part.reshape(-1, z.shape[2]) for part in (z[:, :half], z[:, half:])]
    first, second = (moments(part, np.full(len(part), 1 / len(part))) for part in parts)
    return drift(first, second) < _STILL + 3 * np.sqrt(4 / low.min())


def _learn(chains: _Chains, one: Weighted, seen):
    """Fit the proposal again, to the weighted draws and to what the chains have seen; the walks' coordinates too."""
    drawn = np.concatenate([part.reshape(-1, part.shape[-1]) for part in seen])[-_MANY:]
    z = np.concatenate([one.learner.z, drawn])
    walked = _EVEN * len(drawn)
    log_weights = np.concatenate(
        [one.learner.log_weights + np.log(one.learner.count), np.full(len(drawn), np.log(_EVEN))]
    )
    weights = np.exp(log_weights - np.logaddexp.reduce(log_weights))
    new = fitted(one.learner.mixture, chains.rng, z, weights, one.learner.count + walked)
    # the old one stays in part: what it reaches must not be lost by a fit to few
    chains.proposal = Blend((new, one.learner.answer()), np.array([0.75, 0.25]))
    chains.frame = whitened(drawn if len(drawn) > 10 * z.shape[1] else z[resampled(chains.rng, log_weights, 1024)])
