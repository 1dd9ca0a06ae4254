"""Chains that jump and walk: the proposal that importance sampling has learned, and Hamiltonian transitions, in turn.

A jump chooses among the present point and several draws of the proposal by their importance weights (iterated sampling-importance
resampling: Andrieu, Lee and Vihola 2018, doi:10.3150/15-BEJ785); a walk is one Hamiltonian transition of all chains in step.
Both leave the posterior as it is, whatever the proposal (together: Samsonov et al. 2022, arXiv:2111.02702). Jumps need no
gradient and forget where a chain was; walks reach what the proposal misses, and then the proposal is fitted again. So a
proposal that may not be trusted by its weights still makes draws nearly independent.

Chains begin at weighted draws, in groups that begin at one point each, and nested R-hat asks whether they have forgotten it.
"""

import dataclasses
import functools
from typing import Any

import jax
import numpy as np

from hybridtwin.engine import side_by_side
from hybridtwin.inference import diagnostics
from hybridtwin.inference.chains import judged
from hybridtwin.inference.importance import Blend, Weighted, drift, fitted, look_aside, moments
from hybridtwin.inference.lanes import Mover, whitened
from hybridtwin.inference.psis import resampled
from hybridtwin.inference.readings import densities, generator
from hybridtwin.inference.sampling import Drawn, Setting
from hybridtwin.keys import folded

CHAINS, GROUPS, TEAMS = 64, 16, 2  # chains, points that they begin at, and calls that share them: one a core
BATCH = 1024  # draws of a round of learning
JUMPS = 8  # draws of the proposal that one jump chooses among
_WARM, _FIRST, _AGAIN = 8, 4, 2  # transitions before any is kept, of which the first only find the step; and before each round
_ACCEPT = 0.88  # acceptance of the walks
_TURN = np.pi / 2  # a quarter of the period of a standard normal: walks go a part of it, for jumps go all the way
_LONGEST = 24  # leapfrogs of one walk
_EVEN = 0.4  # what one draw of a chain teaches, in that of an independent one
_MORE = 1.2  # times the effective draws that pass without a word
_CLOSE = 0.2  # sd by which two rounds may differ
_ROUND = 200  # effective draws of a round whose moments may be compared
_MANY = 4096  # draws that the proposal is fitted to, of all that chains have made


@dataclasses.dataclass
class _Chains:
    """The chains of one person, their proposal and their pace."""

    setting: Setting  # of this person alone
    movers: list[Mover]
    rng: np.random.Generator
    proposal: Any
    frame: tuple[np.ndarray, np.ndarray]
    lanes: Any = None  # lanes.Lanes of all chains
    step: float = 0.4
    moved: float = 0.0  # share of the chains that jumped
    leapfrogs: int = 0
    diverging: int = 0

    def _each(self, call):
        """`call` for every team of chains at once; what it returns, joined."""
        calls = [functools.partial(call, mover, i) for i, mover in enumerate(self.movers)]
        return jax.tree.map(lambda *a: np.concatenate(a), *side_by_side(calls))

    def at(self, z):
        """Put the chains at z (C, d)."""
        size = len(z) // len(self.movers)

        def known(mover, i):
            return jax.tree.map(np.asarray, mover.known(z[i * size : (i + 1) * size]))

        if self.lanes is None:  # one team alone first, so that the program is compiled once
            known(self.movers[0], 0)
        self.lanes = self._each(known)

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
            self.at(taken)

    def walk(self, rate=0.0):
        """One Hamiltonian transition of every chain; the step learns at `rate`."""
        turn = _TURN * self.rng.uniform(0.3, 0.9)
        number = int(np.clip(np.ceil(turn / self.step), 1, _LONGEST))
        size = CHAINS // len(self.movers)

        def go(mover, i):
            team = self.lanes.picked(slice(i * size, (i + 1) * size))
            return jax.tree.map(np.asarray, mover.move(team, *self.frame, self.step, number))

        moved = self._each(go)
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
    movers = [Mover(setting.kernel, data, temper, folded(key, 5, i)) for i in range(TEAMS)]
    rng, learner = generator(key, 8), one.learner
    look_aside(setting._replace(report=lambda *told: None), learner, BATCH)
    # half of the groups begin where weights are flattened: further out, so that what they come to agree about they have found
    rows = [resampled(rng, power * learner.log_weights, GROUPS // 2) for power in (1.0, 0.5)]
    starts = learner.z[np.concatenate(rows)]
    chains = _Chains(setting, movers, rng, learner.answer(), frame)
    chains.at(np.repeat(starts, CHAINS // GROUPS, axis=0))
    length, done = max(10, -(-draws // CHAINS)), [0]

    def tell():
        done[0] += 1
        total = _WARM + _AGAIN * most + length * (2 * most - 1)
        setting.report(done[0], total, chains.diverging)

    z, interrupted = np.zeros((CHAINS, 0, len(starts[0]))), False
    try:
        chains.go(_FIRST, tell, rate=2.0)
        seen = [chains.go(_WARM - _FIRST, tell, rate=0.5)]
        said, count = moments(learner.z, np.exp(learner.log_weights)), learner.count
        for number in range(1, most + 1):
            _learn(chains, one, seen)
            chains.go(_AGAIN, tell, rate=0.5)  # other coordinates, another step
            z = chains.go(length * min(number, 2), tell)
            stats = judged(z, GROUPS)
            before, (said, count) = (said, count), _said(stats, z)
            if number == most or (_enough(stats) and _agree(before, (said, count))):
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


def _enough(stats) -> bool:
    """Have the groups forgotten their starts, and are there draws enough?"""
    low = np.minimum(stats["ess_bulk"], stats["ess_tail"])
    return bool(np.all(stats["rhat"] < diagnostics.RHAT) and np.all(low > _MORE * diagnostics.ESS))


def _said(stats, z):
    """Moments of what was kept, and how many draws stand behind them."""
    flat = z.reshape(-1, z.shape[2])
    return moments(flat, np.full(len(flat), 1 / len(flat))), float(np.min(stats["ess_bulk"]))


def _agree(before, now) -> bool:
    """Do two rounds say the same of every mean and spread? The weighted draws are the round before the first.

    A branch that is still filling up passes R-hat, for all chains fill it at one pace; it moves the moments from round to round.
    """
    (first, few), (second, many) = before, now
    return min(few, many) > _ROUND and drift(first, second) < max(_CLOSE, 3 * np.sqrt(1 / few + 1 / many))


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
