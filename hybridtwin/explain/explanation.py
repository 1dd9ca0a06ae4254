"""The verb `explain`: what an outcome of a twin rests on, in numbers and in words for people who treat people."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from hybridtwin.causal import grounds
from hybridtwin.errors import DeclarationError
from hybridtwin.explain import support, wording
from hybridtwin.explain.influence import Influence, influence, on_lived_day
from hybridtwin.explain.players import baselines, onset, players_of, reach, stretch_of
from hybridtwin.explain.sensitivity import Sensitivity, sensitivities
from hybridtwin.explain.shapley import Shares, shares
from hybridtwin.finding import Finding
from hybridtwin.fit import Judgment, Part, Verdict
from hybridtwin.outcomes import Outcome, as_outcome, harm_of
from hybridtwin.twin import Twin, simulate_worlds
from hybridtwin.units import plain

_SHARED = 100  # draws of each structure behind the shares, which need many worlds, where nobody says how many


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Explanation(Finding):
    """What an outcome rests on, in one world of one twin. Made by `explain`.

    `value`, `prior_value` (draws,): the outcome; `sensitivity`: derivatives by parameters and inputs; `harms`: the same of
    what must stand beside it; `shares`: of doses and stretches of signals (None where the day has none); `readings` and
    `stretches`: what the record's readings have to do with it; `similar`: days like this one; `unseen`: ways in which the
    question leaves the record.
    """

    twin: Twin
    outcome: Outcome
    value: np.ndarray
    prior_value: np.ndarray
    sensitivity: Sensitivity
    harms: tuple[Sensitivity, ...]
    shares: Shares | None
    readings: Influence
    stretches: Influence
    similar: tuple[support.Alike, ...]
    unseen: tuple[str, ...]
    verdict: Verdict
    notes: tuple[str, ...]

    @property
    def refused(self) -> bool:
        """Does the verdict forbid numbers?"""
        return self.verdict.headline == "DO NOT USE"

    @functools.cached_property
    def table(self):
        """Everything found in one data frame: kind, what, effect with 5 % and 95 % quantiles, unit, start and stop of its time.

        Kinds: "input" (its share), "amount", "time", "level" and "parameter" (derivatives), "reading" and "stretch" (how far
        the mean is moved by their being there; no interval, but k-hat). Under DO NOT USE the numbers are missing.
        """
        import pandas as pd

        rows = list(wording.rows(self))
        if self.refused:
            rows = [row | dict.fromkeys(("effect", "q05", "q95", "khat"), np.nan) for row in rows]
        return pd.DataFrame(rows, columns=["kind", "what", "effect", "q05", "q95", "unit", "start", "stop", "khat"])

    @property
    def text(self) -> str:
        """For a reader: verdict first, then the outcome, what drives it, what would change it, and what it rests on."""
        return "\n".join(wording.lines(self))

    def plot(self):
        """Shares, parameters and readings side by side; a matplotlib figure."""
        from hybridtwin.plots import explanation

        return explanation.explanation(self)

    def by_time(self, windows, *, key=None) -> Shares:
        """Which stretch of time it rests on: the shares of all inputs of each window together ("4 h", edges, or how many)."""
        return shares(self.twin, self.outcome, windows=windows, together=True, key=key)

    def variance(self, *, prior: bool = False, **options):
        """Which parameters the uncertainty comes from: `variance.variance` of this twin and outcome."""
        from hybridtwin.explain.variance import variance

        return variance(self.twin, self.outcome, prior=prior, **options)

    def distill(self, *, into=None, key, **options):
        """The answer as a short formula or a shallow tree: `distill.distill` of this twin and outcome."""
        from hybridtwin.explain.distill import distill

        return distill(self.twin, self.outcome, into=into, key=key, **options)

    def maps(self, *, key, **options):
        """Gradients, integrated gradients and local surrogates with their sanity scores: `maps.maps` of this twin and outcome."""
        from hybridtwin.explain.maps import maps

        return maps(self.twin, self.outcome, key=key, **options)

    def path(self, other: Twin, through: str | Sequence[str]):
        """What this world changes against another through a state, and past it: `paths.path_effect`."""
        from hybridtwin.explain.paths import path_effect

        return path_effect(self.twin, other, self.outcome, through)


def explain(
    twin: Twin,
    outcome: Outcome,
    *,
    windows=None,
    inputs: Sequence[str] | None = None,
    baseline=None,
    since=None,
    draws: int | None = None,
    key=None,
) -> Explanation:
    """What an outcome of a twin rests on: inputs of the day, parameters of the body, readings of the record.

    ```python
    why = ht.explain(twin, ht.outcomes.peak("G", "12:00", "17:00"))
    print(why.text); why.plot(); why.variance(); why.distill(key=0)
    ```

    **Arguments:** `outcome`: in this world of the twin, whatever was done; `windows`: stretches of the day ("4 h", edges, or
    how many) for inputs and readings; left out, there are up to 7 players: the latest doses each alone, the older ones of an
    input together, each signal; and readings are told by at most eight stretches of a customary length. `inputs`: doses and
    signals that are looked at (default all). `baseline`: what a signal is where it is taken away, name -> number or (number,
    unit); its mean over the day otherwise. `since`: inputs before that are kept as they are; left out, those are kept that
    are so old that all of them together move the outcome by less than half a percent. `draws`: of each structure (default
    those of the twin, for shares at most 100); `key`: needed where shares must be sampled.

    **Raises:** DeclarationError for a bare function, InterventionError, PastHorizon, SolveError.
    """
    if not isinstance(twin, Twin):
        raise DeclarationError("explain asks of a twin. Write ht.explain(twin, ht.outcomes.peak('G')).")
    outcome = as_outcome(outcome)
    world = dataclasses.replace(twin, draws=min(draws, twin.draws)) if draws else twin
    names = (outcome.name,) if outcome.name else None
    course = simulate_worlds([world], names=names)[0]
    before = simulate_worlds([world], prior=True, names=names)[0]
    settled = outcome.settled(course)
    first, old = (world.clock.asked(since), 0.0) if since is not None else onset(world, outcome, baselines(world, baseline))
    slopes, *harms = sensitivities(world, [outcome, *harm_of(settled)[:1]], inputs=inputs, since=first)
    split, chosen = None, {"windows": windows, "inputs": inputs, "baseline": baseline}
    if players_of(world, **chosen, within=reach(world, outcome, first)):
        few = world if draws else dataclasses.replace(world, draws=min(world.draws, _SHARED))
        split = shares(few, outcome, **chosen, since=first, key=key)
    readings = influence(world, outcome)
    stretches = influence(world, outcome, windows=windows or stretch_of(on_lived_day(world)), anew=2)
    value, prior = outcome.of(course), outcome.of(before)
    beyond = support.unseen(world)
    moved = [s.draws for s in slopes.slopes] + ([] if split is None else [split.draws])
    still = not any(np.any(np.nan_to_num(draws)) for draws in moved)
    verdict = twin.verdict.join(_judge(settled, course.failed, (value, prior), beyond, still))
    alike = support.similar(world, settled, course)
    kept = [_kept(world, first, old, settled)] if first > world.start + 1e-9 else []
    notes = tuple(dict.fromkeys((*course.notes, *kept, *([slopes.torn] if slopes.left_out else []), *_doubts(readings))))
    return Explanation(
        twin, settled, value, prior, slopes, tuple(harms), split, readings, stretches, alike, beyond, verdict, notes
    )  # fmt: skip


def _judge(outcome, failed, values, beyond, still) -> Verdict:
    """What this question adds to the verdict of the twin.

    `values`: of the person and of the prior; `still`: does nothing that was looked at move the outcome?
    """
    value, prior = values
    informed, supported, computed = Judgment(), Judgment(), Judgment()
    if still:
        informed.say("CAUTION", f"{outcome.label}: nothing that was looked at moves it, so there is nothing to explain")
    spread = float(np.nanstd(prior))
    if spread > 0 and np.nanstd(value) > grounds.RESTS_ON_PRIOR * spread:
        informed.say("CAUTION", f"{outcome.label}: the readings narrow this by less than a tenth; it rests on the prior")
    grounds.answered(computed, failed, {outcome.label: value})
    for reason in beyond:
        supported.say("CAUTION", reason)
    return Verdict({"computed": computed.part, "fits": Part(), "informed": informed.part, "supported": supported.part})


def _kept(twin, first, old, outcome) -> str:
    moved = f": without all of them it moves by {plain(old, 2)} {outcome.unit or ''}".rstrip() if old else ""
    return f"doses and signals before {twin.clock.label(first)} are kept as they were{moved}"


def _doubts(readings: Influence) -> list[Any]:
    few = [r.label for r in readings.readings if not r.trusted]
    if not few:
        return []
    shown = ", ".join(few[:3]) + (f" and {len(few) - 3} more" if len(few) > 3 else "")
    return [f"what the posterior would be without {shown} lies beyond these draws"]
