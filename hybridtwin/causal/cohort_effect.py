"""The effect of a treatment in a cohort: everybody's own, their average, and how far people differ in it.

    effects = ht.contrast(twins.do(oral=lambda d: 0.5 * d), twins, ht.outcomes.auc("C", 0, 24))

Draw d of everybody together is one draw of the cohort: its mean over people is a draw of the average effect of these people, its
standard deviation over people a draw of how far their effects lie apart. A pooled fit by `ht.HMC` draws everybody together with
the population; people fitted on their own are independent, and any pairing of their draws is a draw of all. `ht.FOCEI` holds the
population at its estimate: people are then independent given that, and the average has an interval in which the uncertainty of
typical values, which is everybody's at once, is missing. That is a CAUTION: in trials of 40 people it was a
quarter to a half as wide as HMC's.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from hybridtwin.causal import grounds
from hybridtwin.causal.contrast import Contrast, Row, contrast
from hybridtwin.errors import DeclarationError, UnrelatedTwins
from hybridtwin.finding import Finding
from hybridtwin.fit import PARTS, Judgment, Part, Verdict
from hybridtwin.inference.methods import FOCEI
from hybridtwin.outcomes import Outcome, signed
from hybridtwin.twin import Twin
from hybridtwin.units import plain
from hybridtwin.worlds import thinned

_MOSTLY = 0.9  # share of people who must be OK for the cohort to be


@dataclasses.dataclass(frozen=True, eq=False)
class CohortRow:
    """One outcome in a cohort: `effects` (people, draws), `prior_effects` (people, m) and own `rows` of those counted."""

    outcome: Outcome
    people: tuple[str, ...]
    rows: tuple[Row, ...]
    effects: np.ndarray
    prior_effects: np.ndarray
    harm: bool

    @property
    def scale(self) -> str:
        """How effects are told: "difference" or "ratio"."""
        return self.rows[0].scale

    @property
    def unit(self) -> str:
        """Unit of the effects."""
        return "" if self.scale == "ratio" else self.outcome.unit or ""

    @property
    def average(self) -> np.ndarray:
        """(draws,) average effect of these people; of ratios their geometric mean."""
        return self._middle(self.effects)

    @property
    def prior_average(self) -> np.ndarray:
        """(m,) the same of the prior's draws."""
        return self._middle(self.prior_effects)

    def _middle(self, effects):
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.exp(np.nanmean(np.log(effects), axis=0)) if self.scale == "ratio" else np.nanmean(effects, axis=0)

    @property
    def spread(self) -> np.ndarray:
        """(draws,) standard deviation of the individual effects over people; of ratios that of their logarithms."""
        with np.errstate(divide="ignore", invalid="ignore"):
            values = np.log(self.effects) if self.scale == "ratio" else self.effects
        return np.nanstd(values, axis=0, ddof=1) if len(values) > 1 else np.zeros(values.shape[1])

    @property
    def p_better(self) -> float:
        """Probability that the average effect is better in world a (below zero, or one, where neither way is better)."""
        return grounds.better(self.average, self.outcome.better, 0.0 if self.scale == "difference" else 1.0)

    @property
    def draws(self) -> float:
        """How many independent draws stand behind a probability: of the person with the fewest."""
        return min(row.draws for row in self.rows)

    @property
    def share_better(self) -> np.ndarray:
        """(draws,) share of these people whose own effect is better in world a."""
        same = 0.0 if self.scale == "difference" else 1.0
        sign = 1.0 if self.outcome.better == "higher" else -1.0
        return np.nanmean(np.where(np.isnan(self.effects), np.nan, sign * (self.effects - same) > 0), axis=0)

    @property
    def text(self) -> str:
        """One sentence on the average, one on how people differ."""
        same = 0.0 if self.scale == "difference" else 1.0
        if np.all(np.isnan(self.effects) | (self.effects == same)):
            return f"{self.outcome.label}: no difference between the two, in anybody and any draw."
        unit = grounds.step(self.unit)
        said, times = (signed, "") if self.scale == "difference" else (plain, "times ")
        low, middle, high = (said(x) for x in np.nanquantile(self.average, [0.05, 0.5, 0.95]))
        before = [said(x) for x in np.nanquantile(self.prior_average, [0.05, 0.5, 0.95])]
        spread, share = np.nanquantile(self.spread, [0.05, 0.5, 0.95]), np.nanquantile(self.share_better, [0.05, 0.5, 0.95])
        word, chance = self.outcome.better or "lower", grounds.chance(self.p_better, self.draws)
        chance = chance if chance[0] in "<>" else f"= {chance}"
        return (
            f"{self.outcome.label}: on average {times}{middle}{unit} (90 % credible interval {low} to {high}), "
            f"P(average {word}) {chance}. Individual effects differ by a standard deviation of {plain(spread[1])} "
            f"({plain(spread[0])} to {plain(spread[2])}){' of the logarithm' if times else unit}; "
            f"{word} in {100 * share[1]:.0f} % "
            f"({100 * share[0]:.0f} to {100 * share[2]:.0f} %) of people. "
            f"Prior alone: {times}{before[1]} ({before[0]} to {before[2]})."
        )


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class CohortContrast(Finding, Mapping):
    """Effects of a cohort; `effects["anna"]` is her own `Contrast`. Made by `ht.contrast` of two `Twins`.

    `verdicts`: everybody's own; who is under DO NOT USE is in no average (`refused`), and has no numbers in the table.
    """

    a: Mapping[str, Twin]
    b: Mapping[str, Twin]
    asked: tuple[Outcome, ...]
    rows: tuple[CohortRow, ...]
    verdicts: Mapping[str, Verdict]
    refused: tuple[str, ...]
    verdict: Verdict
    facts: tuple[str, ...]
    labels: tuple[str, str]
    scale: str

    def __getitem__(self, person: str) -> Contrast:
        return contrast(self.a[person], self.b[person], *self.asked, scale=self.scale)

    def __iter__(self) -> Iterator[str]:
        return iter(self.verdicts)

    def __len__(self) -> int:
        return len(self.verdicts)

    @property
    def table(self):
        """One row a person and outcome: both worlds, the effect with its interval, probability, the prior's answer, verdict."""
        import pandas as pd

        found = []
        for row in self.rows:
            own = dict(zip(row.people, row.rows, strict=True))
            for person in self:
                words = {"person": person, "outcome": row.outcome.label, "unit": row.unit, "harm": row.harm}
                found.append(words | _numbers(own.get(person)) | {"verdict": self.verdicts[person].headline})
        return pd.DataFrame(found)

    @property
    def averages(self):
        """One row an outcome: average effect, spread of individual effects and share of people better, with 90 % intervals."""
        import pandas as pd

        found = []
        for row in self.rows:
            words = {"outcome": row.outcome.label, "unit": row.unit, "harm": row.harm, "people": len(row.people)}
            numbers: dict[str, Any] = {}
            for name, draws in (("average", row.average), ("spread", row.spread), ("share_better", row.share_better),
                                ("prior_average", row.prior_average)):  # fmt: skip
                low, middle, high = np.nanquantile(draws, [0.05, 0.5, 0.95])
                numbers |= {name: middle, f"{name}_q05": low, f"{name}_q95": high}
            numbers |= {"p_better": grounds.bounded(row.p_better, row.draws), "draws": row.draws}
            found.append(words | numbers | {"verdict": self.verdict.headline})
        frame = pd.DataFrame(found)
        if self.verdict.headline == "DO NOT USE":
            frame[[c for c in frame.columns if frame[c].dtype.kind == "f"]] = np.nan
        return frame

    @property
    def text(self) -> str:
        """The answer in plain language: verdict, averages with harm beside benefit, how people differ, what it rests on."""
        levels = [v.headline for v in self.verdicts.values()]
        told = ", ".join(f"{levels.count(level)} {level}" for level in dict.fromkeys(levels))
        lines = [f"{self.labels[0]} compared with {self.labels[1]}, {len(self)} people ({told})."]
        lines.append(f"Verdict: {self.verdict.headline}.")
        lines += [f"  {name}: {reason}." for name, part in self.verdict.parts.items() for reason in part.reasons]
        if self.refused:
            more = " ..." if len(self.refused) > 8 else ""
            lines.append(f"Not in the averages, under DO NOT USE: {', '.join(self.refused[:8])}{more}.")
        if self.verdict.headline == "DO NOT USE":
            lines.append("No numbers are shown under this verdict.")
        else:
            lines += [("Watched for harm: " if row.harm else "") + row.text for row in self.rows]
        lines.append("Averages are of these people, not of others. Rests on: " + "; ".join(self.facts) + ".")
        return "\n".join([*lines, "Research use; not a medical device."])

    def plot(self):
        """Everybody's effect with its interval, sorted, and the average; a matplotlib figure."""
        from hybridtwin.plots import decisions

        return decisions.cohort(self)

    def number_needed_to_treat(self, which: int = 0, *, randomized: str | None = None, identified: Any = None):
        """How many of these people would be treated in world a's way for one event less; see `Contrast.number_needed_to_treat`.

        **Raises:** NotIdentified, DeclarationError, NotTrustworthy.
        """
        from hybridtwin.causal.needed import needed

        row = self.rows[which]
        one = row.people[0]
        compared = self.a[one], self.a[one].world(), self.b[one].world()
        of = f"these {len(row.people)} people"
        return needed(row.outcome, -row.average, self.verdict, randomized, identified, of, compared)


def _numbers(row: Row | None) -> dict[str, float]:
    """The numbers of one person's row; missing where there is none."""
    names = ("a", "b", "effect", "q05", "q95", "p_better", "draws", "regret_a", "regret_b", "prior_effect", "sd_ratio")
    if row is None:
        return dict.fromkeys(names, np.nan)
    middle = np.nanmean if row.event else np.nanmedian
    told = (middle(row.a), middle(row.b), middle(row.effect), row.low, row.high, grounds.bounded(row.p_better, row.draws),
            row.draws, *row.regret, middle(row.prior_effect), row.sd_ratio)  # fmt: skip
    return dict(zip(names, map(float, told), strict=True))


def cohort_contrast(a: Mapping[str, Twin], b: Mapping[str, Twin], outcomes, scale) -> CohortContrast:
    """See `ht.contrast`. **Raises:** UnrelatedTwins where the cohorts do not hold the same people; its errors for each."""
    if set(a) != set(b) or not len(a):
        odd = sorted(set(a) ^ set(b))
        raise UnrelatedTwins(
            f"the two cohorts do not hold the same people: {', '.join(odd[:6]) or 'nobody'}. Write twins.do(...)."
        )
    kept: dict[str, tuple[Row, ...]] = {}
    verdicts, facts, labels = {}, (), ("", "")
    for person in b:
        own = contrast(a[person], b[person], *outcomes, scale=scale)
        verdicts[person], facts, labels = own.verdict, own.assumptions, (own.a_label, own.b_label)
        if own.verdict.headline != "DO NOT USE":
            kept[person] = own.rows  # not its trajectories: of a thousand people they fill the memory
    refused = tuple(person for person in verdicts if person not in kept)
    rows = []
    for k in range(len(next(iter(kept.values()), ()))):
        each = {person: own[k] for person, own in kept.items()}
        plain = _common([row.outcome.label for row in each.values()])
        first = next(iter(each.values()))
        effects = _same_count([r.effect for r in each.values()])
        before = _same_count([r.prior_effect for r in each.values()])
        outcome = dataclasses.replace(first.outcome, label=plain)
        rows.append(CohortRow(outcome, tuple(each), tuple(each.values()), effects, before, first.harm))
    if not rows:
        raise DeclarationError(
            "everybody of this cohort is under DO NOT USE, so there is no average. Contrast one person to see why."
        )
    facts = tuple("an integration error as told for each person" if "integration error" in fact else fact for fact in facts)
    verdict = _judged(verdicts).join(_of_the_average(a))
    return CohortContrast(dict(a), dict(b), tuple(outcomes), tuple(rows), verdicts, refused, verdict, facts, labels, scale)


def _of_the_average(twins: Mapping[str, Twin]) -> Verdict:
    """What is wrong with an average though nothing may be with the people."""
    judge = Judgment()
    if len(twins) > 1 and any(isinstance(twin.method, FOCEI) for twin in twins.values()):
        told = "FOCEI holds the population at its estimate, so intervals of averages are too narrow; ht.HMC() infers it"
        judge.say("CAUTION", told)
    return Verdict({"computed": judge.part} | {name: Part() for name in PARTS if name != "computed"})


def _common(labels) -> str:
    """What the labels of one outcome have in common: the dates of people differ, what is asked does not."""
    return labels[0] if len(set(labels)) == 1 else labels[0].split(", ")[0]


def _same_count(draws) -> np.ndarray:
    """(people, n): as many draws of everybody as the person with the fewest has, evenly chosen."""
    count = min(len(d) for d in draws)
    return np.stack([d[thinned(len(d), count)] for d in draws])


def _judged(verdicts: Mapping[str, Verdict]) -> Verdict:
    """Of a cohort, part by part: OK where 90 % of the people are, DO NOT USE where most are under it, else CAUTION."""
    parts = {}
    for name in PARTS:
        levels = [v.parts[name].level for v in verdicts.values()]
        fine, red = (np.mean([level == word for level in levels]) for word in ("OK", "DO NOT USE"))
        reasons: dict[str, int] = {}
        for verdict in verdicts.values():
            for reason in verdict.parts[name].reasons:
                reasons[reason] = reasons.get(reason, 0) + 1
        level = "DO NOT USE" if red > 0.5 else "OK" if fine >= _MOSTLY else "CAUTION"
        most = sorted(reasons, key=lambda r: -reasons[r])[:3] if level != "OK" else []
        parts[name] = Part(level, tuple(f"{reasons[r]} of {len(verdicts)} people: {r}" for r in most))
    return Verdict(parts)
