"""Rival explanations of one record: by evidence among those that fit, with "none of these" always an answer.

Evidence weighs models against each other and says nothing of whether any is right, so the fit is checked first: a model whose
residuals the verdict forbids is no candidate. Evidence depends on how wide the priors are, which is told. A probability needs
base rates, so there is none without them.
"""

import dataclasses
import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from hybridtwin.coordinates import normal_based
from hybridtwin.engine import double
from hybridtwin.errors import DeclarationError, NotTrustworthy, ParameterError
from hybridtwin.finding import Finding
from hybridtwin.fit import Fit
from hybridtwin.inference.methods import SMC, AbstractMethod
from hybridtwin.inference.personalize import personalize
from hybridtwin.inference.psis import USABLE, psis
from hybridtwin.inference.readings import at_readings
from hybridtwin.kernel import Kernel
from hybridtwin.keys import as_key, folded, person_key
from hybridtwin.records import Person
from hybridtwin.simulate.run import TILE
from hybridtwin.twin import Twin

NONE, UNDECIDED = "none of these", "undecided"
WIDER = 2.0  # times the sd of the priors, to tell how far an evidence rests on them
_PROPOSALS = 2048
_FREEDOM = 5  # degrees of freedom of the t distribution that importance draws come from
_CLEAR = np.log(20.0)  # evidence ratio from which one explanation is named alone


@dataclasses.dataclass(frozen=True, eq=False)
class Rival:
    """One model's case: log evidence with its Monte Carlo error, and what it rests on.

    `wider` is the log evidence when every prior of the body is `WIDER` times as wide on its coordinate (NaN where the draws
    cannot tell); `loo` the expected log density of a reading left out (PSIS), each given those before it where the sensor's
    error is correlated; `stacking` the weight that predicts such readings best. `reason` says why it is no candidate; `computed`
    is False where that is for want of a computation: such a rival is neither supported nor ruled out.
    """

    name: str
    log_evidence: float
    error: float
    wider: float
    loo: float
    stacking: float
    base_rate: float
    probability: float
    interval: tuple[float, float]
    reason: str
    notes: tuple[str, ...]
    computed: bool = True

    @property
    def candidate(self) -> bool:
        """Does it fit, and could its evidence be computed?"""
        return not self.reason


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Comparison(Finding):
    """Rival models on one record; made by `compare`. `twin` holds all of them, in the order of `rivals`."""

    twin: Twin
    rivals: tuple[Rival, ...]
    left: float  # base rate of "none of these"; NaN where no base rates were given

    @property
    def candidates(self) -> tuple[Rival, ...]:
        """Those that fit, best evidence first."""
        return tuple(sorted((r for r in self.rivals if r.candidate), key=lambda r: -r.log_evidence))

    @property
    def answer(self) -> str:
        """The one explanation that stands out, "undecided", or "none of these".

        It stands out by an evidence of 20 to 1 beyond two standard errors, and first under wider priors too. Where the evidence
        of a rival could not be computed nothing stands out, nor is it none of these: that rival has not been ruled out.
        """
        found = self.candidates
        if not all(r.computed for r in self.rivals):
            return UNDECIDED
        if not found:
            return NONE
        if len(found) == 1:
            return found[0].name
        first, second = found[:2]
        lead = first.log_evidence - second.log_evidence - 2 * float(np.hypot(first.error, second.error))
        wide = [r.wider for r in found]
        steady = not np.isfinite(wide).all() or int(np.argmax(wide)) == 0
        return first.name if lead > _CLEAR and steady else UNDECIDED

    @property
    def table(self):
        """One row a model and one for "none of these", as a data frame."""
        import pandas as pd

        best = max((r.log_evidence for r in self.candidates), default=np.nan)
        rows = [
            {
                "model": r.name,
                "candidate": r.candidate,
                "log_evidence": r.log_evidence,
                "error": r.error,
                "difference": r.log_evidence - best,
                "wider_priors": r.wider,
                "loo": r.loo,
                "stacking": r.stacking,
                "base_rate": r.base_rate,
                "probability": r.probability,
                "probability_q05": r.interval[0],
                "probability_q95": r.interval[1],
                "why_not": r.reason,
            }
            for r in self.rivals
        ]
        rows.append({"model": NONE, "candidate": self.answer == NONE, "base_rate": self.left, "why_not": ""})
        return pd.DataFrame(rows)

    @property
    def text(self) -> str:
        """The answer in plain language: which fit, how they compare, what that rests on."""
        lines = [f"Explanations of the record of {self.twin.id}: {self.answer}."]
        best = self.candidates[0] if self.candidates else None
        for r in sorted(self.rivals, key=lambda r: (not r.candidate, -r.log_evidence)):
            if not r.candidate:
                lines.append(f"  {r.name} is no candidate: {r.reason}.")
                continue
            assert best is not None
            told = f"log evidence {r.log_evidence:.2f} (standard error {r.error:.2f})"
            if r is not best:
                told += f", {_ratio(best.log_evidence - r.log_evidence)} less than {best.name}"
            if np.isfinite(r.probability):
                low, high = r.interval
                told += f"; probability {_p(r.probability)} ({_p(low)} to {_p(high)}) if one of the candidates is right"
            wide = f"; with priors twice as wide {r.wider:.2f}" if np.isfinite(r.wider) else ""
            lines.append(f"  {r.name}: {told}{wide}.")
            lines += [f"    {note}." for note in r.notes]
        lost = [r.name for r in self.rivals if not r.computed]
        if lost:
            lines.append(f"  What was not computed is not ruled out: {', '.join(lost)}. Try another method: ht.SMC(), ht.Auto().")
        elif not self.candidates:
            lines.append("  No model that was offered fits these readings: none of these explains them.")
        if np.isfinite(self.left):
            lines.append(f"  None of these stays possible: the base rates leave {self.left:.2g} for what was not offered.")
        elif self.candidates:
            lines.append("  None of these stays possible. No base rates were given, so no probability is told.")
        lines.append("Evidence rests on the priors as much as on the readings. Research use; not a medical device.")
        return "\n".join(lines)

    def plot(self):
        """Log evidence with its error and under wider priors; a matplotlib figure."""
        from hybridtwin.plots import comparison

        return comparison.comparison(self)

    def under(self, base_rates) -> "Comparison":
        """The same evidence under other base rates, name -> how frequent; nothing is fitted again.

        The interval of a probability holds the Monte Carlo error of the evidence, not what is unknown of the base rates.

        **Raises:** ParameterError for impossible base rates.
        """
        rates = _checked(base_rates, [r.name for r in self.rivals])
        rivals = [dataclasses.replace(r, base_rate=rates[r.name]) for r in self.rivals]
        able = [i for i, r in enumerate(rivals) if r.candidate]
        candidates, rng = [rivals[i] for i in able], np.random.default_rng(0)
        if able:
            noise = rng.standard_normal((4000, len(able))) * np.array([r.error for r in candidates])
            chances, many = _posterior(candidates), _posterior(candidates, noise)
            for place, i in enumerate(able):
                low, high = np.quantile(many[:, place], [0.05, 0.95])
                change = {"probability": float(chances[place]), "interval": (float(low), float(high))}
                rivals[i] = dataclasses.replace(rivals[i], **change)
        return Comparison(self.twin, tuple(rivals), 1.0 - sum(rates.values()))

    def average(self) -> Twin:
        """One twin of the candidates, each with a share of the draws by evidence times base rate (equal where none was given).

        Draws stay tagged by structure; contrasts are computed within a draw.

        **Raises:** NotTrustworthy where no model is a candidate.
        """
        chosen = [i for i, r in enumerate(self.rivals) if r.candidate]
        if not chosen:
            raise NotTrustworthy(
                f"none of these models fits the record of {self.twin.id}, so there is nothing to average. Look at the "
                "comparison's text, mend the record or offer another model."
            )
        weights = _posterior([self.rivals[i] for i in chosen])
        kept = [(i, w) for i, w in zip(chosen, weights, strict=True) if w * self.twin.draws * len(chosen) >= 1]
        fits = [self.twin.fits[i] for i, _ in kept]
        shares = np.array([w for _, w in kept])
        twin = Twin.of(self.twin.record, fits, self.twin.key, self.twin.seed)
        shares = tuple(float(s) for s in shares / shares.sum())
        return dataclasses.replace(twin, shares=shares, root=f"{twin.root}|{shares}")


def _p(probability):
    return "> 0.99" if probability > 0.99 else "< 0.01" if probability < 0.01 else f"{probability:.2f}"


def _ratio(difference):
    return f"{np.exp(difference):.3g} times" if difference < 14 else f"a factor of e^{difference:.0f}"


def _posterior(rivals, noise=0.0):
    """Probabilities of rivals by evidence and base rate; all base rates alike where none was given."""
    rates = np.array([r.base_rate for r in rivals])
    rates = np.where(np.isfinite(rates), rates, 1.0)
    level = np.array([r.log_evidence for r in rivals]) + noise
    with np.errstate(divide="ignore"):
        level = level + np.log(rates)
    weight = np.exp(level - level.max(axis=-1, keepdims=True))
    return weight / weight.sum(axis=-1, keepdims=True)


def compare(models, person, method: AbstractMethod | None = None, *, base_rates=None, key, progress=True) -> Comparison:
    """Which of several models explains one record, by evidence among those that fit.

    **Arguments:**

    - `models`: rival `Model`s of one record (name -> model, or a list whose models have different names), which must read the
      same readings in the same units.
    - `method`: `SMC()` (default), whose evidence has an error of its own; after any other method the evidence is an
      importance estimate from its draws.
    - `base_rates`: name -> how frequent each explanation is before these readings, summing to at most 1; what is left is for
      none of these. Without them no probability is told.

    **Raises:** DeclarationError where the models do not read the same readings; ParameterError for impossible base rates;
    errors of `personalize`.
    """
    named = dict(models) if isinstance(models, Mapping) else {m.name: m for m in models}
    if len(named) < 2 or len(named) != len(models):
        raise DeclarationError(
            "compare needs at least two models with different names. Give a mapping: {'one pool': model_a, 'two pools': model_b}."
        )
    if not isinstance(person, Person):
        raise DeclarationError(f"compare needs a Person, not {type(person).__name__}. Compare people one at a time.")
    rates = _checked(base_rates, named) if base_rates is not None else {}
    root = as_key(key)
    twin = personalize(list(named.values()), person, method or SMC(), key=key, progress=progress)
    _same_readings(twin.fits, named)
    with double():
        cases = [
            _case(name, fit, folded(person_key(root, person.id), 100 + i))
            for i, (name, fit) in enumerate(zip(named, twin.fits, strict=True))
        ]
    able = [i for i, (rival, _) in enumerate(cases) if rival.candidate]
    stacked = _stacking(np.array([cases[i][1] for i in able])) if able else np.zeros(0)
    rivals = [rival for rival, _ in cases]
    for place, i in enumerate(able):
        rivals[i] = dataclasses.replace(rivals[i], stacking=float(stacked[place]))
    found = Comparison(twin, tuple(rivals), np.nan)
    return found.under(base_rates) if rates else found


def average(models, person, method: AbstractMethod | None = None, *, base_rates=None, key, progress=True) -> Twin:
    """One twin of rival models, each with draws by its evidence among those that fit; see `compare` and `Comparison.average`.

    `personalize([a, b], person)` pools with equal weights instead: evidence may all but drop a structure that calibration needs.
    """
    return compare(models, person, method, base_rates=base_rates, key=key, progress=progress).average()


def _checked(base_rates, named):
    rates = {name: float(rate) for name, rate in base_rates.items() if name != NONE}
    if set(rates) != set(named) or not (min(rates.values()) > 0 and sum(rates.values()) <= 1 + 1e-9):
        raise ParameterError(
            f"base_rates needs one positive number for each of {', '.join(named)}, together at most 1 (what is left is for "
            f"none of these), not {dict(base_rates)}. Say how frequent each is among people like this one."
        )
    return rates


def _same_readings(fits, named):
    """**Raises:** DeclarationError where the models do not read the same numbers: their evidence would not compare."""
    told = [
        {n: (f.model.unit_of(f.model.sensors[n].of), tuple(f.problem.used[n])) for n in f.problem.used} for f in fits
    ]
    for name, other in zip(named, told, strict=True):
        if other != told[0]:
            raise DeclarationError(
                f"{name!r} does not read the same readings in the same units as {next(iter(named))!r}, so their evidence "
                "cannot be compared. Give both models sensors of the same names and units."
            )


@functools.lru_cache(maxsize=32)
def _pointwise(kernel: Kernel):
    """Compiled: (z (TILE, d), data) -> log likelihood of each reading (TILE, N), and its log prior (TILE,)."""

    def lane(z, data):
        terms = kernel.terms(kernel.constrain(z), data)
        return jnp.concatenate([terms[n].loglik for n in sorted(terms)]), kernel.log_prior(z)

    return jax.jit(jax.vmap(lane, (0, None)))


def pointwise(fit: Fit, z):
    """Log likelihood of each reading (n, N) and log prior (n,) at draws z (n, d) of one fit."""
    data, parts = jax.tree.map(jnp.asarray, fit.problem.data), []
    for i in range(0, len(z), TILE):
        group = z[i : i + TILE]
        full = np.concatenate([group, np.repeat(group[:1], TILE - len(group), axis=0)])
        parts.append([np.array(a)[: len(group)] for a in _pointwise(fit.kernel)(full, data)])
    each, prior = (np.concatenate(p) for p in zip(*parts, strict=True))
    return each[:, np.concatenate([fit.problem.data.seen[n].mask for n in sorted(fit.problem.data.seen)])], prior


def _case(name, fit: Fit, key):
    """A rival, and the log density of each of its readings left out (N,)."""
    z = fit.z.reshape(-1, fit.z.shape[-1])
    each = pointwise(fit, z)[0]
    notes = []
    if "log_evidence_se" in fit.stats:
        error = float(fit.stats["log_evidence_se"])
        evidence = fit.log_evidence + _gain(fit, z, each.sum(axis=1))
    else:
        evidence, error, khat = _importance(fit, z, key)
        if khat > USABLE:
            notes.append(f"the evidence is not to be trusted (k-hat {khat:.2f}); ht.SMC() computes it from the prior on")
    change, khat = _wider(fit, z)
    if khat > USABLE:
        notes.append("what wider priors would do cannot be told from these draws")
        change = np.nan
    smooth, khats = psis(-each.T)
    loo = np.array([_log_mean(row, ll) for row, ll in zip(smooth, each.T, strict=True)])
    if np.mean(khats > USABLE) > 0.1:
        notes.append(f"{int(np.sum(khats > USABLE))} of {len(loo)} readings weigh too much for their leave-one-out density")
    reason, computed = "", True
    for part in ("fits", "computed"):
        if fit.parts[part].level == "DO NOT USE":
            word = "it does not fit" if part == "fits" else "it was not computed"
            computed = part == "fits" or bool(reason)  # what does not fit is out, however well it was computed
            reason = reason or f"{word} ({'; '.join(fit.parts[part].reasons)})"
        elif fit.parts[part].level == "CAUTION":
            notes += fit.parts[part].reasons
    if not np.isfinite(evidence) and not reason:
        reason, computed = "its evidence could not be computed", False
    none = float("nan")
    rival = Rival(
        name, evidence, error, evidence + change, float(loo.sum()), none, none, none, (none, none), reason, tuple(notes),
        computed,
    )
    return rival, loo


def _log_mean(log_weights, values):
    """Log of the weighted mean of exp(values), the weights normalized."""
    joined = log_weights + values
    top = joined.max()
    return float(top + np.log(np.sum(np.exp(joined - top))))


def _gain(fit, z, coarse):
    """What halving the steps adds to an evidence that was computed with whole ones."""
    if fit.kernel.stepper.refined() is None:
        return 0.0
    fine = at_readings(fit.kernel, z, jax.tree.map(jnp.asarray, fit.problem.data), substeps=2)[0]
    move = np.where(np.isfinite(fine) & np.isfinite(coarse), fine - coarse, 0.0)
    sign = 1.0 if fit.stats["mesh_share"] >= 0.999 else -1.0  # below, the draws are those of the finer steps
    return sign * _log_mean(np.full(len(move), -np.log(len(move))), sign * move)


def _importance(fit, z, key):
    """Log evidence, its standard error and k-hat, by draws from a t distribution with the moments of the posterior's."""
    d = z.shape[1]
    center, scale = z.mean(axis=0), np.linalg.cholesky(np.cov(z.T).reshape(d, d) + 1e-10 * np.eye(d))
    rng = np.random.default_rng(np.array(jax.random.key_data(key)))
    heavy = np.sqrt(_FREEDOM / rng.chisquare(_FREEDOM, _PROPOSALS))
    y = rng.standard_normal((_PROPOSALS, d)) * heavy[:, None]
    proposals = center + y @ scale.T
    from scipy.special import gammaln

    density = (
        gammaln((_FREEDOM + d) / 2) - gammaln(_FREEDOM / 2) - 0.5 * d * np.log(_FREEDOM * np.pi)
        - np.sum(np.log(np.diag(scale))) - 0.5 * (_FREEDOM + d) * np.log1p(np.sum(y**2, axis=1) / _FREEDOM)
    )  # fmt: skip
    data = jax.tree.map(jnp.asarray, fit.problem.data)
    steps = 1 if fit.kernel.stepper.refined() is None else 2
    loglik = at_readings(fit.kernel, proposals, data, substeps=steps)[0]
    density = pointwise(fit, proposals)[1] + loglik - density
    density = np.where(np.isfinite(density), density, -np.inf)
    top = density.max()
    if not np.isfinite(top):
        return -np.inf, np.inf, np.inf
    w = np.exp(density - top)
    return float(top + np.log(w.mean())), float(w.std() / w.mean() / np.sqrt(len(w))), float(psis(density)[1])


def _wider(fit, z):
    """Change of the log evidence when the body's priors are `WIDER` times as wide on their coordinates, and its k-hat."""
    at = [
        site.kind == "system" and normal_based(site.prior) is not None for site in fit.kernel.sites for _ in range(site.size)
    ]
    own = z[:, np.array(at, bool)]
    move = np.sum(0.5 * own**2 * (1 - WIDER**-2) - np.log(WIDER), axis=1)
    smooth, khat = psis(move)
    return _log_mean(np.full(len(move), -np.log(len(move))), move), float(khat) if np.isfinite(smooth).all() else np.inf


def _stacking(density, rounds=500):
    """Weights (K,) that maximize the log score of left-out readings under the mixture; density (K, N). Yao et al. 2018."""
    scaled = np.exp(density - density.max(axis=0))
    weights = np.full(len(density), 1 / len(density))
    for _ in range(rounds):  # expectation and maximization: concave, so it ends at the maximum
        share = weights[:, None] * scaled
        weights = (share / share.sum(axis=0)).mean(axis=1)
    return weights
