"""Contrast two worlds of one twin: paired draws, paired inputs, one number a draw for every outcome.

Two `Twins` are contrasted person by person (`cohort_effect`).
"""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from hybridtwin.causal import grounds
from hybridtwin.errors import DeclarationError, UnrelatedTwins
from hybridtwin.finding import Finding
from hybridtwin.fit import Judgment, Part, Verdict
from hybridtwin.measures import Ever
from hybridtwin.outcomes import Outcome, as_outcome, harm_of, signed
from hybridtwin.simulate.trajectory import Trajectory
from hybridtwin.twin import Twin, simulate_worlds
from hybridtwin.units import plain

if TYPE_CHECKING:
    from hybridtwin.causal.cohort_effect import CohortContrast


@dataclasses.dataclass(frozen=True, eq=False)
class Row:
    """One outcome in two worlds, a and b: paired draws (n,), their difference a - b, and the answer of the prior alone."""

    outcome: Outcome
    a: np.ndarray
    b: np.ndarray
    prior_difference: np.ndarray
    structure: np.ndarray
    harm: bool = False
    prior_ratio: np.ndarray | None = None  # where the effect is told as a ratio a / b
    support: float = float("inf")  # how many independent draws these are worth, if fewer than there are

    @property
    def scale(self) -> str:
        """How the effect is told: "difference" or "ratio"."""
        return "difference" if self.prior_ratio is None else "ratio"

    @property
    def effect(self) -> np.ndarray:
        """A - b, or a / b, draw by draw."""
        return self.difference if self.prior_ratio is None else np.where(self.difference == 0, 1.0, self.a / self.b)

    @property
    def prior_effect(self) -> np.ndarray:
        """The same of the prior's draws."""
        return self.prior_difference if self.prior_ratio is None else self.prior_ratio

    @property
    def event(self) -> bool:
        """Is it something that happens or does not (`ever_below`, `ever_above`), 1 or 0 in each draw?"""
        return isinstance(self.outcome.measure, Ever)

    @property
    def difference(self) -> np.ndarray:
        """A - b, draw by draw; zero where only rounding lies between."""
        return grounds.apart(self.a, self.b, 1.0 if self.outcome.unit == "%" else 0.0)

    @property
    def draws(self) -> float:
        """How many independent draws stand behind a probability."""
        return max(min(float(np.isfinite(self.difference).sum()), self.support), 1.0)

    @property
    def unit(self) -> str:
        """Unit of the outcome."""
        return self.outcome.unit or ""

    @property
    def better(self) -> str | None:
        """Which way is better for the person: "lower", "higher" or None."""
        return self.outcome.better

    def quantile(self, q) -> float:
        """Quantile of the effect."""
        return float(np.nanquantile(self.effect, q))

    @property
    def low(self) -> float:
        """5 % quantile of the effect."""
        return self.quantile(0.05)

    @property
    def median(self) -> float:
        """Median of the effect."""
        return self.quantile(0.5)

    @property
    def high(self) -> float:
        """95 % quantile of the effect."""
        return self.quantile(0.95)

    @property
    def p_better(self) -> float:
        """Probability that world a is better (of a difference below zero where neither way is); ties count half."""
        return grounds.better(self.difference, self.better)

    def p_benefit(self, at_least: float = 0.0) -> float:
        """Probability that world a is better by more than `at_least` (unit of the outcome; ties count half where it is 0).

        **Raises:** DeclarationError where neither way is better.
        """
        if self.better is None:
            raise DeclarationError(f"{self.outcome.label}: which way is better? Ask it with better=\"lower\" or \"higher\".")
        if at_least == 0:
            return self.p_better
        d = self.difference[np.isfinite(self.difference)]
        return float(np.mean((d if self.better == "higher" else -d) > at_least)) if d.size else float("nan")

    @property
    def regret(self) -> tuple[float, float]:
        """Expected loss of choosing a, and of choosing b, against knowing which is better; NaN where neither way is."""
        d = self.difference[np.isfinite(self.difference)]
        if self.better is None or not d.size:
            return float("nan"), float("nan")
        gain = d if self.better == "higher" else -d  # of a over b
        return float(np.mean(np.maximum(-gain, 0.0))), float(np.mean(np.maximum(gain, 0.0)))

    @property
    def p_same(self) -> float:
        """Share of the draws in which both worlds are alike, as where an outcome counts, or is zero in most draws."""
        d = self.difference[np.isfinite(self.difference)]
        return float(np.mean(d == 0)) if d.size else float("nan")

    @property
    def p_text(self) -> str:
        """The probability for a reader, bounded by what the draws can support."""
        return grounds.either_way(self.difference, self.draws)

    @property
    def brief(self) -> str:
        """The effect in a few words, without its window: "peak glucose: -10.9 mg/dL (-15.8 to -6.45), P(lower) > 0.99"."""
        name = self.outcome.label.rpartition(", ")[0] or self.outcome.label
        if self.event:
            a, b = (grounds.chance(float(np.nanmean(x)), self.draws) for x in (self.a, self.b))
            return f"{name}: P {a} against {b}"
        said, times = (signed, "") if self.scale == "difference" else (plain, "times ")
        return f"{name}: {times}{said(self.median)}{self._step} ({said(self.low)} to {said(self.high)}), {self.p_text}"

    @property
    def _step(self) -> str:
        return grounds.step(self.unit) if self.scale == "difference" else ""

    @property
    def sd_ratio(self) -> float:
        """Spread of the answer over the spread of the prior's answer."""
        prior = _spread(self.prior_effect)
        return _spread(self.effect) / prior if prior > 0 else 1.0

    @property
    def same_as_prior(self) -> bool:
        """Is the personal answer the prior's answer, for practical purposes?"""
        shift = abs(np.nanmedian(self.effect) - np.nanmedian(self.prior_effect))
        near = shift < 0.25 * max(float(np.nanstd(self.prior_effect)), 1e-12)
        return bool(self.sd_ratio > grounds.RESTS_ON_PRIOR and near and grounds.alike(self.effect, self.prior_effect))

    @property
    def text(self) -> str:
        """One sentence with unit, interval and probability."""
        kind = "modelled glucose" if "glucose" in self.outcome.label else f"modelled {self.outcome.name or 'outcome'}"
        said = signed if self.scale == "difference" else plain
        times = "" if self.scale == "difference" else "times "
        if self.event:
            return self._event_text(kind)
        head = (
            f"{self.outcome.label}: {times}{said(self.median)}{self._step} (90 % credible interval {said(self.low)} to "
            f"{said(self.high)} of the {kind}), {self.p_text}."
        )
        if not np.any(np.nan_to_num(self.difference)) and not np.any(np.nan_to_num(self.prior_difference)):
            return f"{self.outcome.label}: no difference between the two, in any draw, before the record was seen neither."
        low, middle, high = np.nanquantile(self.prior_effect, [0.05, 0.5, 0.95])
        prior = f"{times}{said(middle)} ({said(low)} to {said(high)})"
        if self.same_as_prior:
            return f"{head} The prior alone says about the same, no less surely, {prior}: this answer is not this person's data."
        return f"{head} Prior alone: {prior}."

    def _event_text(self, kind) -> str:
        """Chances of an event in both worlds: a difference of zeros and ones has no telling median."""
        told = [grounds.chance(float(np.nanmean(x)), self.draws) for x in (self.a, self.b)]
        a, b = (p if p[0] in "<>" else f"= {p}" for p in told)
        prior = signed(float(np.nanmean(self.prior_difference)))
        change = signed(float(np.nanmean(self.difference)))
        return f"{self.outcome.label}: P {a} against P {b} (difference {change}, of the {kind}). Prior alone: {prior}."


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Contrast(Finding):
    """The difference between two worlds of one twin (a minus b), outcome by outcome; harm stands beside benefit."""

    twin: Twin
    a_label: str
    b_label: str
    rows: tuple[Row, ...]
    assumptions: tuple[str, ...]
    kept: tuple[str, ...]
    notes: tuple[str, ...]
    verdict: Verdict
    trajectories: tuple[Trajectory, Trajectory]
    worlds: tuple[Any, Any]

    def __getitem__(self, which) -> Row:
        return self.rows[which]

    @property
    def table(self):
        """One row an outcome, as a data frame: both worlds, difference with interval, probability, the prior's answer.

        `p_better` is no nearer to 0 or 1 than `draws`, the independent draws behind it, can support; half of the draws in which
        both worlds are alike (a share of `p_same`) count in it.
        Under DO NOT USE the numbers are missing, as in every output; the draws stay in `rows` for whoever mends the model.
        """
        import pandas as pd

        refused = self.verdict.headline == "DO NOT USE"

        def row(r):
            prior, middle = np.nanquantile(r.prior_effect, [0.05, 0.5, 0.95]), np.nanmean if r.event else np.nanmedian
            numbers = {
                "a": middle(r.a),
                "b": middle(r.b),
                "difference": float(np.nanmean(r.difference)) if r.event else r.median,
                "q05": r.low,
                "q95": r.high,
                "p_better": grounds.bounded(r.p_better, r.draws),
                "p_same": r.p_same,
                "draws": r.draws,
                "regret_a": r.regret[0],
                "regret_b": r.regret[1],
                "prior_difference": prior[1],
                "prior_q05": prior[0],
                "prior_q95": prior[2],
                "sd_ratio": r.sd_ratio,
            }
            words = {"outcome": r.outcome.label, "unit": r.unit, "scale": r.scale, "better": r.better, "harm": r.harm}
            return words | {"verdict": self.verdict.headline} | (dict.fromkeys(numbers, np.nan) if refused else numbers)

        return pd.DataFrame([row(r) for r in self.rows])

    @property
    def text(self) -> str:
        """The answer in plain language: verdict first, then outcomes, then what it rests on."""
        lines = [f"{self.a_label} compared with {self.b_label}.", f"Verdict: {self.verdict.headline}."]
        lines += [f"  {name}: {reason}." for name, part in self.verdict.parts.items() for reason in part.reasons]
        if self.verdict.headline == "DO NOT USE":
            lines.append("No numbers are shown under this verdict.")
        else:
            lines += [("Watched for harm: " if r.harm else "") + r.text for r in self.rows]
        if self.kept:
            lines.append(f"Kept {grounds.as_it_was(self.twin)}: " + "; ".join(self.kept) + ".")
        if self.verdict.headline != "DO NOT USE":
            lines += [f"Note: {note}." for note in self.notes]
        lines.append("Rests on: " + "; ".join(self.assumptions) + ".")
        lines.append("Research use; not a medical device.")
        return "\n".join(lines)

    def number_needed_to_treat(self, which: int = 0, *, randomized: str | None = None, identified: Any = None):
        """How many people would be treated in world a's way instead of b's for one event less (or one more), see `needed`.

        Only for an event (`ht.outcomes.ever_below`), and only where the treatment was randomized (`randomized`: how, in words) or
        the effect is identified (`identified`: what says so). For one person it speaks of people exactly like this one.

        **Raises:** NotIdentified, DeclarationError, NotTrustworthy.
        """
        from hybridtwin.causal.needed import needed

        row = self.rows[which]
        fewer = float(np.nanmean(row.b) - np.nanmean(row.a)) if row.event else 0.0
        error = float(np.nanstd(row.difference) / np.sqrt(max(grounds.effective(self.twin), 1.0)))
        spread = np.array([fewer - 1.645 * error, fewer, fewer + 1.645 * error])
        of = "people exactly like this one; Monte Carlo interval"
        return needed(row.outcome, spread, self.verdict, randomized, identified, of, (self.twin, *self.worlds))

    def plot(self):
        """Differences with intervals, personal beside prior-only; a matplotlib figure."""
        from hybridtwin import plots

        return plots.contrast(self)


@overload
def contrast(a: Twin, b: Twin, *outcomes: Outcome, scale: str = ...) -> Contrast: ...
@overload
def contrast(a: Mapping[str, Twin], b: Mapping[str, Twin], *outcomes: Outcome, scale: str = ...) -> "CohortContrast": ...
def contrast(a, b, *outcomes, scale="difference"):
    """What world `a` changes against world `b`, for the same body on the same day, or for everybody of a cohort (two `Twins`).

    Both worlds are solved on the union of their nodes with the same draws of the same parameters and latent events; each
    outcome is computed draw by draw and within one structure. Beside every benefit stands its harm (`outcomes.harm_of`),
    beside every personal answer the prior's. `scale="ratio"` tells the effect as a / b, for outcomes that are above zero; harms
    that can be zero are told as differences all the same.

    **Raises:** UnrelatedTwins when the two do not come from one twin on one day; DeclarationError for an outcome without
    unit or direction; PastHorizon for a window outside the day; SolveError when nothing could be solved.
    """
    if scale not in ("difference", "ratio"):
        raise DeclarationError(f'contrast: scale is "difference" or "ratio", not {scale!r}.')
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        from hybridtwin.causal.cohort_effect import cohort_contrast

        return cohort_contrast(a, b, outcomes, scale)
    if not isinstance(a, Twin) or not isinstance(b, Twin):
        raise DeclarationError(
            "contrast compares two twins. Write ht.contrast(twin.do(...), twin, ht.outcomes.peak('G'))."
        )
    if a.root != b.root:
        raise UnrelatedTwins(
            f"the twins of {a.id} and {b.id} do not come from one twin on one day, so their draws cannot be paired. "
            "Make both from the same twin with .do(...), after the same .on(...)."
        )
    if not outcomes:
        raise DeclarationError(
            "contrast of what? Give at least one outcome, such as ht.outcomes.peak('G', '07:00', '12:00')."
        )
    wanted = [as_outcome(o) for o in outcomes]
    worlds = simulate_worlds([a, b])
    before = simulate_worlds([a, b], prior=True)
    asked, seen = [], set()
    for outcome, harm in [(o, False) for o in wanted] + [(h, True) for o in wanted for h in harm_of(o)]:
        settled = outcome.settled(worlds[0])
        if settled.label not in seen:
            seen.add(settled.label)
            asked.append((settled, harm))
    support = grounds.effective(a)
    rows = tuple(dataclasses.replace(_row(o, harm, worlds, before, scale), support=support) for o, harm in asked)
    pair = (a.world(), b.world())
    kept = grounds.kept(a, pair, [row.outcome for row in rows], worlds[0])
    verdict = a.verdict.join(_judge(a, b, rows, kept, worlds))
    lacking = grounds.lacking(a, [row.outcome for row in rows if not row.harm], worlds[0])
    lacking += grounds.never([row.outcome for row in rows], worlds)
    lacking += grounds.at_the_end([row.outcome for row in rows], worlds)
    notes = tuple(dict.fromkeys((*worlds[0].notes, *worlds[1].notes, *lacking)))
    return Contrast(
        a,
        worlds[0].label,
        worlds[1].label,
        rows,
        grounds.assumptions(a, max(t.error for t in worlds)),
        kept,
        notes,
        verdict,
        (worlds[0], worlds[1]),
        pair,
    )


def _spread(values) -> float:
    """Standard deviation of the answers there are, NaN where there is none, zero where they differ by no more than rounding."""
    there = values[np.isfinite(values)]
    if not there.size:
        return float("nan")
    spread = float(np.std(there))
    return spread if spread > 1e-11 * float(np.max(np.abs(there))) else 0.0


def _row(outcome, harm, worlds, before, scale) -> Row:
    """**Raises:** DeclarationError for a ratio of what is not above zero."""
    (a, b), (c, d) = ([outcome.of(world) for world in pair] for pair in (worlds, before))
    row = Row(outcome, a, b, grounds.apart(c, d, 1.0 if outcome.unit == "%" else 0.0), worlds[0].structure, harm)
    if row.event and scale == "ratio" and not harm:
        raise DeclarationError(f"{outcome.label} is an event: it is told as its chance in both worlds. Leave scale= out.")
    if scale == "difference" or row.event:
        return row
    with np.errstate(invalid="ignore"):
        bad = int(np.sum(np.isfinite(b) & ~(b > 0)) + np.sum(a < 0))
    if bad and harm:
        return row
    if bad:
        raise DeclarationError(
            f"{outcome.label}: a ratio needs numbers above zero, and {bad} of the draws are not. Leave scale= out."
        )
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(row.prior_difference == 0, 1.0, c / d)
        return dataclasses.replace(row, prior_ratio=np.where(d > 0, ratio, np.nan))


def _judge(a, b, rows, kept, worlds) -> Verdict:
    """What this question adds to the verdict of the twin."""
    informed, supported, computed = Judgment(), Judgment(), Judgment()
    for row in rows:
        if not row.harm and row.sd_ratio > grounds.RESTS_ON_PRIOR and _spread(row.prior_effect) > 0:
            informed.say(
                "CAUTION",
                f"{row.outcome.label}: the readings narrow this answer by less than a tenth; it rests on the prior",
            )
    lost = worlds[0].failed | worlds[1].failed
    grounds.answered(computed, lost, {row.outcome.label: row.difference for row in rows})
    if kept and not a.rules and not b.rules:
        supported.say("CAUTION", grounds.kept_reason(len(kept), grounds.as_it_was(a)))
    for reason in grounds.unseen(a, [a.world(), b.world()]):
        supported.say("CAUTION", reason)
    return Verdict({"computed": computed.part, "fits": Part(), "informed": informed.part, "supported": supported.part})
