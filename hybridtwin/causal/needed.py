"""Number needed to treat: only where the treatment was randomized or the effect is identified, else refused.

1 / (risk without - risk with). Where the interval of the difference holds zero, that of its reciprocal goes through infinity:
told as "NNTB 12 (NNTB 5 to infinity to NNTH 30)", after Altman 1998, doi:10.1136/bmj.317.7168.1309.
"""

import dataclasses

import numpy as np

from hybridtwin.causal import grounds
from hybridtwin.causal.graph import acts_on
from hybridtwin.errors import DeclarationError, NotIdentified, NotTrustworthy
from hybridtwin.measures import Ever


@dataclasses.dataclass(frozen=True)
class Needed:
    """Number needed to treat for one event less (benefit, above zero) or one more (harm, below zero).

    `fewer`: how much less likely the event is, (5 %, median, 95 %); `ground`: why the number may be told; `of`: of whom.
    """

    label: str
    fewer: tuple[float, float, float]
    ground: str
    of: str
    verdict: str

    @property
    def value(self) -> float:
        """1 / the middle of the difference; infinite at zero, negative for harm."""
        return float("inf") if self.fewer[1] == 0 else 1.0 / self.fewer[1]

    @property
    def text(self) -> str:
        """In words, with its interval."""
        low, middle, high = self.fewer
        if low < 0 < high:
            span = f"{_told(high)} to infinity to {_told(low)}"
        else:
            span = " to ".join(_told(x) for x in sorted((low, high), key=lambda x: -abs(x)))
        head = f"{self.label}: {_told(middle)} (90 % {span}), of {self.of}"
        return f"{head}. Verdict: {self.verdict}. Ground: {self.ground}. Research use; not a medical device."

    def __repr__(self):
        return self.text


def _of_another(identified, outcome, twin, one, other) -> str:
    """In what the effect that was identified is not the one that is asked for; "" where it is, or does not say which it is."""
    treatment, seen = (getattr(identified, name, None) for name in ("treatment", "outcome"))
    if treatment is None or seen is None:
        return ""
    model = twin.fits[0].model
    ruled = [acts_on(rule) for rule in (*one.rules, *other.rules) if (rule in one.rules) != (rule in other.rules)]
    changed = [n.removeprefix("u.").removeprefix("x.") for n in grounds.different(one, other, model.spec)]
    changed = dict.fromkeys([*changed, *ruled])
    if set(changed) != {treatment}:
        return f"the effect of {treatment} was identified, and these worlds differ in {', '.join(changed) or 'nothing'}"
    sensor = model.sensors.get(seen.removeprefix("reading of "))
    if outcome.name not in (seen, None if sensor is None else sensor.of):
        return f"the effect on {seen} was identified, and asked is that on {outcome.name or outcome.label}"
    return ""


def _told(fewer: float) -> str:
    if fewer == 0:
        return "infinity"
    return f"NNT{'B' if fewer > 0 else 'H'} {max(np.ceil(1.0 / abs(fewer)), 1.0):.0f}"


def needed(outcome, fewer, verdict, randomized, identified, of, compared) -> Needed:
    """`fewer`: draws (n,) of how much less likely the event is in the first world.

    `randomized`: how the treatment was randomized, in words; `identified`: an object whose `identified` is True; `compared`: a
    twin and its two worlds. **Raises:** NotIdentified, DeclarationError (no event), NotTrustworthy.
    """
    ground, lacks = "", "nobody said that the treatment was randomized, and no identification of the effect was given"
    if isinstance(randomized, str) and len(randomized.strip()) >= 8:
        ground = f"randomized: {randomized.strip()}"
    elif getattr(identified, "identified", None) is True:
        lacks = _of_another(identified, outcome, *compared)
        ground = "" if lacks else "identified: " + " ".join(str(identified).split())[:200].removesuffix(".")
    elif identified is not None:
        lacks = f"what was given identifies nothing ({' '.join(str(identified).split())[:200].removesuffix('.')})"
    elif randomized is not None:
        lacks = f"randomized={randomized!r} does not say how"
    if not ground:
        raise NotIdentified(
            f'number needed to treat for {outcome.label}: {lacks}. Say how it was randomized, randomized="1:1 by ...", or '
            "pass what identified this effect, identified=."
        )
    if not isinstance(outcome.measure, Ever):
        raise DeclarationError(
            f"{outcome.label} is no event, so nothing can be counted. Contrast ht.outcomes.ever_below('G', 70, 'mg/dL', ...)."
        )
    if verdict.headline == "DO NOT USE":
        reasons = "; ".join(reason for part in verdict.parts.values() for reason in part.reasons)
        raise NotTrustworthy(f"no number is shown under DO NOT USE: {reasons}. Mend the model first.")
    low, middle, high = np.quantile(fewer, [0.0, 0.5, 1.0] if len(fewer) == 3 else [0.05, 0.5, 0.95])
    return Needed(outcome.label, (float(low), float(middle), float(high)), ground, of, verdict.headline)
