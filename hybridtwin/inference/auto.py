"""The cascade: modes, Laplace, adaptive importance sampling, and, for those whose weights are not to be trusted, chains; and
where there are several modes between which the chains do not mix, tempered populations.

The chains start from what importance sampling learned: at draws of it, in coordinates in which its weighted draws have unit
covariance. So they have no mode to find and no metric to learn, and their warm-up is only for the step size.
"""

import jax
import jax.numpy as jnp
import numpy as np

from hybridtwin.inference import diagnostics, nuts, smc
from hybridtwin.inference.importance import Weighted, weigh
from hybridtwin.inference.methods import NUTS, SMC
from hybridtwin.inference.modes import distance
from hybridtwin.inference.psis import USABLE, resampled
from hybridtwin.inference.readings import generator
from hybridtwin.inference.sampling import Drawn, Setting

ROUNDS, BATCH = 6, 1024
_HOPELESS = 0.15  # share of a batch that counts, under which no last batch is drawn


def draw(setting: Setting, method) -> list[Drawn]:
    """Draws of every person wanted, each from the first stage that can be trusted."""
    weighted = weigh(setting, method.draws, ROUNDS, BATCH, quit_below=_HOPELESS)[: setting.wanted]
    needy = [p for p, one in enumerate(weighted) if not one.trusted]
    chains = _chains(setting, method, weighted, needy) if needy else {}
    found = []
    for p, one in enumerate(weighted):
        told = _reason(one)
        if p in chains and len(setting.modes[p]) > 1 and not _mixed(chains[p]):
            drawn = smc.draw(_alone(setting, p), SMC())[0]
            stats = drawn.stats | {"stage": "SMC", "why": f"chains did not mix between several modes; {told}"}
        elif p in chains:
            drawn = chains[p]
            stats = drawn.stats | {"stage": "NUTS", "why": f"importance sampling was not enough: {told}"}
            if one.stats["khat"] < USABLE and "log_evidence" in one.stats:
                stats |= {name: one.stats[name] for name in ("log_evidence", "log_evidence_se")}
        else:
            drawn = one.drawn(generator(setting.keys[p], 3), method.draws)
            stats = drawn.stats | {"stage": "importance", "why": told}
        found.append(Drawn(drawn.z, stats | _shares(setting.modes[p], drawn.z)))
    return found


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
    """Chains of those who need them, by what importance sampling learned."""
    kept = max(20, -(-method.draws // method.chains))
    sampler = NUTS(draws=kept, chains=method.chains, warmup=method.warmup, most=method.most, starts=method.starts)
    frames, starts = [], []
    for p, fits in enumerate(setting.modes):
        frame, y = _frame(weighted[p] if p < len(weighted) else weighted[0], fits, setting.keys[p], method.chains)
        frames.append(frame)
        starts.append(y)
    stacked = nuts.Frame(*(jnp.asarray(np.stack(part)) for part in zip(*frames, strict=True)))
    return nuts.sample(setting, needy, stacked, jnp.asarray(np.stack(starts)), sampler)


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
