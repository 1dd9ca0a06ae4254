"""Many short Hamiltonian chains in step: the length of trajectories is shared and learned, so no lane waits for another's tree.

Hoffman, Radul & Sountsov 2021 (ChEES-HMC, proceedings.mlr.press/v130/hoffman21a): all chains take trajectories of one jittered
length, which climbs the criterion of how far squared distances from the center travel. Groups of chains (superchains) start
at one point each, from the modes by their evidence; nested R-hat (Margossian et al. 2024, doi:10.1214/24-BA1453) asks whether
the groups have forgotten where they started.
"""

import dataclasses

import jax
import numpy as np

from hybridtwin.inference import diagnostics
from hybridtwin.inference.lanes import Mover, whitened
from hybridtwin.inference.sampling import Drawn, Setting, weights_of
from hybridtwin.keys import folded

_TARGET = 0.7  # harmonic mean of the acceptance; 0.651 is best for many independent normals
_LONGEST = 64  # leapfrogs of one trajectory
_RATE = 0.05  # of the climb of the trajectory's logarithm
_FLOWN = 1e6  # on whitened coordinates
_FLOOR = 0.02  # smallest spread of a direction, in that of the starts: chains that have not moved yet must not freeze the frame


def draw(setting: Setting, method) -> list[Drawn]:
    """Chains of every person of a tile, one after the other."""
    found = []
    for p, key in enumerate(setting.keys[: setting.wanted]):
        data, temper = (jax.tree.map(lambda a, p=p: a[p], part) for part in (setting.data, setting.tempers))
        mover = Mover(setting.kernel, data, temper, folded(key, 2))
        rng = np.random.default_rng(np.array(jax.random.key_data(folded(key, 8))))
        found.append(_person(mover, setting.modes[p], rng, method, setting.report))
    return found


@dataclasses.dataclass
class _Pace:
    """Step and length of the trajectories, adapted transition by transition."""

    rng: np.random.Generator
    step: float = 0.6
    length: float = np.pi / 2
    square: float = 0.0  # of the climb's gradient, remembered
    count: int = 0

    def leapfrogs(self):
        """Jittered number of leapfrogs, at least 1, and the time it takes."""
        self.count += 1
        halton, base, i = 0.0, 0.5, self.count
        while i:
            halton, base, i = halton + base * (i % 2), base / 2, i // 2
        number = int(np.clip(np.ceil(2 * halton * self.length / self.step), 1, _LONGEST))
        return number, number * self.step

    def learn(self, moved, time, rate):
        """One step of the step size towards its acceptance, and of the length up the ChEES criterion."""
        accept = np.asarray(moved.accept)
        harmonic = 1 / np.mean(1 / np.maximum(accept, 1e-3))
        self.step = float(np.clip(self.step * np.exp(rate * (harmonic - _TARGET)), 1e-3, 2.0))
        before, after, momentum = (np.asarray(a) for a in (moved.before, moved.after, moved.momentum))
        with np.errstate(invalid="ignore"):  # where a trajectory flew off, its length says nothing
            good = (np.abs(after).max(axis=1) < _FLOWN) & (np.abs(momentum).max(axis=1) < _FLOWN)
        weight = np.where(good, accept, 0.0)
        if weight.sum() < 1e-6:
            return
        after, momentum = np.where(good[:, None], after, 0.0), np.where(good[:, None], momentum, 0.0)
        a = before - before.mean(axis=0)
        b = after - weight @ after / weight.sum()
        gain = (np.sum(b**2, axis=1) - np.sum(a**2, axis=1)) * np.sum(b * momentum, axis=1)
        slope = time * float(weight @ gain / weight.sum())
        self.square = 0.95 * self.square + 0.05 * slope**2 if self.count > 1 else slope**2
        self.length *= np.exp(np.clip(_RATE * slope / np.sqrt(self.square + 1e-30), -0.2, 0.2))
        self.length = float(np.clip(self.length, self.step, _LONGEST * self.step))


def _person(mover, fits, rng, method, report) -> Drawn:
    """Warm up in two halves, draw, and go on where the superchains have not forgotten their starts."""
    z = np.repeat(_starts(mover, fits, rng, method.superchains), method.chains // method.superchains, axis=0)
    center, scale = _frame(fits)
    floor = _FLOOR * np.sqrt(np.sum(scale**2, axis=1))
    lanes, pace = mover.known(z), _Pace(rng)
    half, total = method.warmup // 2, method.warmup + method.draws
    for part in range(2):
        steps, lengths, seen = [], [], []
        for i in range(half):
            number, time = pace.leapfrogs()
            moved = mover.move(lanes, center, scale, pace.step, number)
            pace.learn(moved, time, 2.0 / (1 + i) ** 0.5)
            lanes = moved.lanes
            if i >= half // 2:
                steps.append(np.log(pace.step)), lengths.append(np.log(pace.length)), seen.append(np.asarray(lanes.z))
            report(part * half + i + 1, total, 0)
        pace.step, pace.length = float(np.exp(np.mean(steps))), float(np.exp(np.mean(lengths)))
        if part == 0:
            center, scale = whitened(np.concatenate(seen), floor)
    diverging, leapfrogs, rounds = 0, 0, 0
    while True:
        rounds, kept = rounds + 1, []
        length = method.draws * rounds
        for _ in range(length):
            number, _time = pace.leapfrogs()
            moved = mover.move(lanes, center, scale, pace.step, number)
            lanes = moved.lanes
            kept.append(np.asarray(lanes.z))
            diverging, leapfrogs = diverging + int(np.sum(np.asarray(moved.diverging))), leapfrogs + number
            report(total - 1, total, diverging)
        z = np.stack(kept, axis=1)
        stats = judged(z, method.superchains)
        low = np.minimum(stats["ess_bulk"], stats["ess_tail"])
        if rounds >= method.most or (np.all(stats["rhat"] < diagnostics.RHAT) and np.all(low > diagnostics.ESS)):
            break
        center, scale = whitened(z.reshape(-1, z.shape[-1]), floor)  # what was drawn becomes warm-up
        diverging = leapfrogs = 0
    many = length * method.chains
    return Drawn(
        z,
        stats
        | {
            "divergent": diverging / many,
            "leapfrogs": leapfrogs / length,
            "acceptance": float(np.mean(np.asarray(moved.accept))),
            "rounds": float(rounds),
        },
    )


def judged(z, superchains):
    """`rhat` (nested), `ess_bulk` and `ess_tail` (d,) of draws z (C, N, d), the chains of a superchain side by side."""
    by = np.moveaxis(z, -1, 0)
    return diagnostics.convergence(by) | {"rhat": diagnostics.nested_rhat(by, superchains)}


def _frame(fits):
    """Coordinates of the modes together, weighed by their evidence."""
    share = weights_of(np.array([f.log_evidence for f in fits]))
    center = sum(s * f.mode for s, f in zip(share, fits, strict=True))
    covariance = sum(
        s * (f.scale @ f.scale.T + np.outer(f.mode - center, f.mode - center)) for s, f in zip(share, fits, strict=True)
    )
    return center, np.linalg.cholesky(covariance + 1e-12 * np.eye(len(center)))


def _starts(mover, fits, rng, count):
    """One start a superchain (count, d): modes in turn by their evidence, somewhat wider than their approximation.

    Every mode has a superchain, however little it weighs: only chains that start there can tell that it does not mix.
    """
    share = weights_of(np.array([f.log_evidence for f in fits]))
    which = np.searchsorted(np.cumsum(share), (np.arange(count) + 0.5) / count).clip(max=len(fits) - 1)
    which[: min(len(fits), count)] = np.arange(min(len(fits), count))
    noise = 1.2 * rng.standard_normal((count, len(fits[0].mode)))
    modes, scales = np.stack([f.mode for f in fits])[which], np.stack([f.scale for f in fits])[which]
    level = np.array([f.log_density for f in fits])[which]
    for _ in range(8):
        z = modes + np.einsum("kij,kj->ki", scales, noise)
        at = mover.known(z)
        hopeless = ~(np.asarray(at.prior) + np.asarray(at.like) > level - 10.0 - 2.0 * z.shape[1])
        if not hopeless.any():
            break
        noise[hopeless] *= 0.5
    return z
