"""Number needed to treat: only where the treatment was randomized or the effect is identified, else refused.

1 / (risk without - risk with). Where the interval of the difference holds zero, that of its reciprocal goes through infinity:
told as "NNTB 12 (NNTB 5 to infinity to NNTH 30)", after Altman 1998, doi:10.1136/bmj.317.7168.1309.
"""

import dataclasses

import numpy as np

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


def _told(fewer: float) -> str:
    if fewer == 0:
        return "infinity"
    return f"NNT{'B' if fewer > 0 else 'H'} {max(np.ceil(1.0 / abs(fewer)), 1.0):.0f}"


def needed(outcome, fewer, verdict, randomized, identified, of) -> Needed:
    """`fewer`: draws (n,) of how much less likely the event is in the first world.

    `randomized`: how the treatment was randomized, in words; `identified`: an object whose `identified` is True.
    **Raises:** NotIdentified, DeclarationError (no event), NotTrustworthy.
    """
    ground = f"randomized: {randomized.strip()}" if isinstance(randomized, str) and len(randomized.strip()) >= 8 else ""
    if not ground and identified is not None and getattr(identified, "identified", None) is True:
        ground = "identified: " + " ".join(str(identified).split())[:200]
    if not ground:
        raise NotIdentified(
            f"number needed to treat for {outcome.label}: nobody said that the treatment was randomized, and no identification "
            'of the effect was given. Say how, randomized="1:1 by ...", or pass what identified the effect, identified=.'
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
