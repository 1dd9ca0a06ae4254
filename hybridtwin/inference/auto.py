"""The cascade: modes, Laplace, adaptive importance sampling, and, for those whose weights are not to be trusted, chains that jump
by what importance sampling learned and walk where it does not reach; where they do not mix, the No-U-Turn sampler, or, where
there are several modes, tempered populations.

The chains start from what importance sampling learned: at draws of it, in coordinates in which its weighted draws have unit
covariance. So they have no mode to find and no metric to learn, and their warm-up is only for the step size.
"""

import functools

import jax
import numpy as np

from hybridtwin.engine import side_by_side
from hybridtwin.inference import diagnostics, nuts, smc, walk
from hybridtwin.inference.importance import Weighted, weigh
from hybridtwin.inference.methods import NUTS, SMC
from hybridtwin.inference.modes import distance
from hybridtwin.inference.psis import USABLE, resampled
from hybridtwin.inference.readings import generator
from hybridtwin.inference.sampling import Drawn, Setting

ROUNDS, BATCH = 5, 1024
_HOPELESS = 0.15  # share of a batch that counts, under which no last batch is drawn
_SHARES = (0.25, 0.75, 1.0)  # how far the work has come when a stage is over, for the bar


def draw(setting: Setting, method) -> list[Drawn]:
    """Draws of every person wanted, each from the first stage that can be trusted."""
    weighted = weigh(_part(setting, 0), method.draws, ROUNDS, BATCH, quit_below=_HOPELESS)[: setting.wanted]
    needy = [p for p, one in enumerate(weighted) if not one.trusted]
    walked = _walks(_part(setting, 1), method, weighted, needy)
    stuck = [p for p in needy if not _mixed(walked[p]) and not walked[p].stats["interrupted"]]
    last = _part(setting, 2)
    chains = _chains(last, method, weighted, [p for p in stuck if len(setting.modes[p]) == 1])
    found = []
    for p, one in enumerate(weighted):
        told = _reason(one)
        if p not in needy:
            drawn = one.drawn(generator(setting.keys[p], 3), method.draws)
            stats = drawn.stats | {"stage": "importance", "why": told}
        else:
            drawn, stage, why = walked[p], "jumps and walks", "importance sampling was not enough"
            if p in chains and _worst(chains[p]) < _worst(drawn):
                drawn, stage, why = chains[p], "NUTS", "chains of jumps and walks did not mix"
            elif p in stuck and len(setting.modes[p]) > 1:
                drawn, stage, why = smc.draw(_alone(last, p), SMC())[0], "SMC", "chains did not mix between several modes"
            stats = drawn.stats | {"stage": stage, "why": f"{why}: {told}"}
            if stage != "SMC" and one.stats["khat"] < USABLE and "log_evidence" in one.stats:
                stats |= {name: one.stats[name] for name in ("log_evidence", "log_evidence_se")}
        found.append(Drawn(drawn.z, stats | _shares(setting.modes[p], drawn.z)))
    return found


def _part(setting: Setting, stage) -> Setting:
    """The setting of one stage, which tells its progress as a part of the whole."""
    first, last = (0.0, *_SHARES)[stage], _SHARES[stage]

    def report(done, total, diverging):
        setting.report(first + (last - first) * min(done / total, 1.0), 1.0, diverging)

    return setting._replace(report=report)


def _walks(setting: Setting, method, weighted, needy) -> dict[int, Drawn]:
    """Chains that jump and walk of those who need them, on all cores."""
    done = [0.0] * len(needy)

    def of(i):
        p = needy[i]

        def report(some, total, diverging):
            done[i] = some / total
            setting.report(sum(done), len(needy), diverging)

        frame, _ = _frame(weighted[p], setting.modes[p], setting.keys[p], method.chains)
        return walk.draw(_alone(setting, p)._replace(report=report), weighted[p], frame, method.draws, method.most)

    drawn = [of(0)] if needy else []  # alone, so that its programs are compiled once
    drawn += side_by_side([functools.partial(of, i) for i in range(1, len(needy))])
    return dict(zip(needy, drawn, strict=True))


def _worst(drawn: Drawn) -> float:
    """Largest R-hat, infinite where one is no number."""
    return float(np.max(np.where(np.isfinite(drawn.stats["rhat"]), drawn.stats["rhat"], np.inf)))


def _mixed(drawn: Drawn) -> bool:
    return bool(np.all(drawn.stats["rhat"] < diagnostics.RHAT))


def _alone(setting: Setting, p) -> Setting:
    """One person of a tile."""
    one = slice(p, p + 1)
    data, tempers = jax.tree.map(lambda a: a[one], (setting.data, setting.tempers))
    return Setting(setting.kernel, data, setting.keys[one], tempers, setting.modes[one], setting.report)


def _reason(one: Weighted) -> str:
    stats = one.stats
    told = f"k-hat {stats['khat']:.2f}, {100 * stats['share']:.0f} % of {stats['pool']:,} draws count"
    return told + (", adaptations disagree" if 0.1 <= stats["drift"] < np.inf else "")


def _shares(fits, z):
    """Share of the draws nearest to each of several modes."""
    if len(fits) < 2:
        return {}
    flat = z.reshape(-1, z.shape[-1])
    far = np.stack([np.linalg.norm(np.linalg.solve(f.scale, (flat - f.mode).T), axis=0) for f in fits])
    return {"mode_shares": np.bincount(far.argmin(axis=0), minlength=len(fits)) / len(flat)}


def _chains(setting: Setting, method, weighted, needy) -> dict[int, Drawn]:
    """NUTS of those who need it, by what importance sampling learned."""
    if not needy:
        return {}
    kept = max(20, -(-method.draws // method.chains))
    sampler = NUTS(draws=kept, chains=method.chains, warmup=method.warmup, most=method.most, starts=method.starts)
    frames, starts = [], []
    for p, fits in enumerate(setting.modes):
        frame, y = _frame(weighted[p] if p < len(weighted) else weighted[0], fits, setting.keys[p], method.chains)
        frames.append(frame)
        starts.append(y)
    stacked = nuts.Frame(*(jax.device_put(np.stack(part)) for part in zip(*frames, strict=True)))
    return nuts.sample(setting, needy, stacked, jax.device_put(np.stack(starts)), sampler)


def _frame(one: Weighted, fits, key, chains):
    """Coordinates in which the weighted draws have unit covariance, and where the chains start on them (C, d).

    The covariance is drawn towards that of the Laplace approximation, as far as 2 d draws would.
    """
    z, weights, d = one.z, np.exp(one.log_weights), one.z.shape[1]
    near, count = min(fits, key=lambda fit: distance(one.z[np.argmax(weights)], fit)), float(one.stats["ess"])
    mean = (count * (weights @ z) + d * near.mode) / (count + d)
    cov = (z - mean).T @ ((z - mean) * weights[:, None])
    cov = (count * cov + 2 * d * near.scale @ near.scale.T) / (count + 2 * d)
    root = np.linalg.cholesky(cov)
    starts = z[resampled(generator(key, 4), one.log_weights, chains)]
    return (mean, root), np.linalg.solve(root, (starts - mean).T).T
