"""Contrast two worlds of one twin: paired draws, paired inputs, one number a draw for every outcome."""

import dataclasses
from typing import Any

import numpy as np

from hybridtwin.causal import grounds
from hybridtwin.errors import DeclarationError, UnrelatedTwins
from hybridtwin.fit import Judgment, Part, Verdict
from hybridtwin.outcomes import Outcome, as_outcome, harm_of, signed
from hybridtwin.simulate.trajectory import Trajectory
from hybridtwin.twin import Twin, simulate_worlds


@dataclasses.dataclass(frozen=True, eq=False)
class Row:
    """One outcome in two worlds, a and b: paired draws (n,), their difference a - b, and the answer of the prior alone."""

    outcome: Outcome
    a: np.ndarray
    b: np.ndarray
    prior_difference: np.ndarray
    structure: np.ndarray
    harm: bool = False

    @property
    def difference(self) -> np.ndarray:
        """A - b, draw by draw."""
        return self.a - self.b

    @property
    def unit(self) -> str:
        """Unit of the outcome."""
        return self.outcome.unit or ""

    @property
    def better(self) -> str | None:
        """Which way is better for the person: "lower", "higher" or None."""
        return self.outcome.better

    def quantile(self, q) -> float:
        """Quantile of the difference."""
        return float(np.nanquantile(self.difference, q))

    @property
    def low(self) -> float:
        """5 % quantile of the difference."""
        return self.quantile(0.05)

    @property
    def median(self) -> float:
        """Median of the difference."""
        return self.quantile(0.5)

    @property
    def high(self) -> float:
        """95 % quantile of the difference."""
        return self.quantile(0.95)

    @property
    def p_better(self) -> float:
        """Probability that world a is better (of a difference below zero where neither way is); ties count half."""
        d = self.difference[np.isfinite(self.difference)]
        sign = 1.0 if self.better == "higher" else -1.0
        return float(np.mean(sign * d > 0) + 0.5 * np.mean(d == 0)) if d.size else float("nan")

    @property
    def p_text(self) -> str:
        """The probability for a reader, bounded by what the draws can support."""
        word = self.better or "lower"
        if np.allclose(self.difference[np.isfinite(self.difference)], 0.0):
            return f"P({word}): no difference"
        n = max(int(np.isfinite(self.difference).sum()), 1)
        edge = max(0.01, 3.0 / n)
        p = self.p_better
        if p > 1 - edge:
            return f"P({word}) > {1 - edge:.2f}"
        if p < edge:
            return f"P({word}) < {edge:.2f}"
        return f"P({word}) = {p:.2f}"

    @property
    def sd_ratio(self) -> float:
        """Spread of the answer over the spread of the prior's answer."""
        prior = np.nanstd(self.prior_difference)
        return float(np.nanstd(self.difference) / prior) if prior > 0 else 1.0

    @property
    def same_as_prior(self) -> bool:
        """Is the personal answer the prior's answer, for practical purposes?"""
        shift = abs(np.nanmedian(self.difference) - np.nanmedian(self.prior_difference))
        return bool(
            self.sd_ratio > grounds.RESTS_ON_PRIOR and shift < 0.25 * max(float(np.nanstd(self.prior_difference)), 1e-12)
        )

    @property
    def text(self) -> str:
        """One sentence with unit, interval and probability."""
        kind = "modelled glucose" if "glucose" in self.outcome.label else f"modelled {self.outcome.name or 'outcome'}"
        unit = "" if self.unit in ("", "1") else f" {self.unit}"
        head = (
            f"{self.outcome.label}: {signed(self.median)}{unit} (90 % credible interval {signed(self.low)} to "
            f"{signed(self.high)} of the {kind}), {self.p_text}."
        )
        if self.same_as_prior:
            return f"{head} The prior alone says the same: this answer is not this person's data."
        low, middle, high = np.nanquantile(self.prior_difference, [0.05, 0.5, 0.95])
        return f"{head} Prior alone: {signed(middle)} ({signed(low)} to {signed(high)})."


@dataclasses.dataclass(frozen=True, eq=False)
class Contrast:
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

        Under DO NOT USE the numbers are missing, as in every output; the draws stay in `rows` for whoever mends the model.
        """
        import pandas as pd

        refused = self.verdict.headline == "DO NOT USE"

        def row(r):
            prior = np.nanquantile(r.prior_difference, [0.05, 0.5, 0.95])
            numbers = {
                "a": np.nanmedian(r.a),
                "b": np.nanmedian(r.b),
                "difference": r.median,
                "q05": r.low,
                "q95": r.high,
                "p_better": r.p_better,
                "prior_difference": prior[1],
                "prior_q05": prior[0],
                "prior_q95": prior[2],
                "sd_ratio": r.sd_ratio,
            }
            words = {"outcome": r.outcome.label, "unit": r.unit, "better": r.better, "harm": r.harm}
            return words | {"verdict": self.verdict.headline} | (dict.fromkeys(numbers, np.nan) if refused else numbers)

        return pd.DataFrame([row(r) for r in self.rows])

    def to_dataframe(self):
        """The same as `table`."""
        return self.table

    @property
    def text(self) -> str:
        """The answer in plain language: verdict first, then outcomes, then what it rests on."""
        lines = [f"{self.a_label} compared with {self.b_label}.", f"Verdict: {self.verdict.headline}."]
        lines += [f"  {name}: {reason}." for name, part in self.verdict.parts.items() for reason in part.reasons]
        if self.verdict.headline == "DO NOT USE":
            lines.append("No numbers are shown under this verdict.")
        else:
            lines += [("Harm beside it: " if r.harm else "") + r.text for r in self.rows]
        if self.kept:
            lines.append("Kept as lived: " + "; ".join(self.kept) + ".")
        if self.verdict.headline != "DO NOT USE":
            lines += [f"Note: {note}." for note in self.notes]
        lines.append("Rests on: " + "; ".join(self.assumptions) + ".")
        lines.append("Research use; not a medical device.")
        return "\n".join(lines)

    def plot(self):
        """Differences with intervals, personal beside prior-only; a matplotlib figure."""
        from hybridtwin import plots

        return plots.contrast(self)

    def __repr__(self):
        return self.text


def contrast(a: Twin, b: Twin, *outcomes: Outcome) -> Contrast:
    """What world `a` changes against world `b`, for the same body on the same day.

    Both worlds are solved on the union of their nodes with the same draws of the same parameters and latent events; each
    outcome is computed draw by draw and within one structure. Beside every benefit stands its harm (`outcomes.harm_of`),
    beside every personal answer the prior's.

    **Raises:** UnrelatedTwins when the two do not come from one twin on one day; DeclarationError for an outcome without
    unit or direction; PastHorizon for a window outside the day; SolveError when nothing could be solved.
    """
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
    rows = tuple(
        Row(o, o.of(worlds[0]), o.of(worlds[1]), o.of(before[0]) - o.of(before[1]), worlds[0].structure, harm)
        for o, harm in asked
    )
    pair = (a.world(), b.world())
    kept = grounds.kept(a, pair, [row.outcome for row in rows], worlds[0])
    verdict = a.verdict.join(_judge(a, b, rows, kept))
    lacking = grounds.lacking(a, [row.outcome for row in rows if not row.harm], worlds[0])
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


def _judge(a, b, rows, kept) -> Verdict:
    """What this question adds to the verdict of the twin."""
    informed, supported, computed = Judgment(), Judgment(), Judgment()
    for row in rows:
        if not row.harm and row.sd_ratio > grounds.RESTS_ON_PRIOR and np.nanstd(row.prior_difference) > 0:
            informed.say(
                "CAUTION",
                f"{row.outcome.label}: the readings narrow this answer by less than a tenth; it rests on the prior",
            )
    failed = np.mean([np.mean(~np.isfinite(row.difference)) for row in rows])
    computed.above(failed, 0.01, 0.2, f"{100 * failed:.0f} % of the draws could not be solved")
    if kept and not a.rules and not b.rules:
        supported.say("CAUTION", grounds.kept_reason(len(kept)))
    for reason in grounds.unseen(a, [a.world(), b.world()]):
        supported.say("CAUTION", reason)
    return Verdict({"computed": computed.part, "fits": Part(), "informed": informed.part, "supported": supported.part})
