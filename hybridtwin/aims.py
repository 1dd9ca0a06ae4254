"""What a decision aims at: ranges, losses, risk measures of a loss, and chances that must stay small. Plain arithmetic on draws.

    expected   E[L]
    CVaR_a     the mean of the worst share a of the losses: min_t  t + E[max(L - t, 0)] / a

Source of the second: Rockafellar and Uryasev 2000, doi:10.21314/JOR.2000.038.
"""

import abc
import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from hybridtwin.asked import Outcome, as_outcome, substance_of
from hybridtwin.errors import DeclarationError
from hybridtwin.levels import check_level
from hybridtwin.measures import First, Last, Mean, Nadir, Peak
from hybridtwin.units import convert

# -------------------------------------------------------------------------------------------------------- losses


@dataclasses.dataclass(frozen=True)
class Miss:
    """Loss `above` where the outcome lies above the range, `below` where it lies below it, else 0.

    With both 1 the expected loss is the probability of missing the range.
    """

    above: float = 1.0
    below: float = 1.0

    def __call__(self, value, low, high):
        return self.above * (value > high) + self.below * (value < low)

    def __str__(self):
        return "1 outside the range" if self.above == self.below == 1 else f"{self.above:g} above, {self.below:g} below the range"


@dataclasses.dataclass(frozen=True)
class Distance:
    """How far outside the range the outcome lies, in widths of the range, to the power `power`; times `above` or `below`."""

    above: float = 1.0
    below: float = 1.0
    power: float = 1.0

    def __call__(self, value, low, high):
        width = high - low
        over, under = np.maximum(value - high, 0.0) / width, np.maximum(low - value, 0.0) / width
        return self.above * over**self.power + self.below * under**self.power

    def __str__(self):
        weights = "" if self.above == self.below == 1 else f" times {self.above:g} above and {self.below:g} below"
        return "distance from the range in its widths" + (f" to the power {self.power:g}" if self.power != 1 else "") + weights


@dataclasses.dataclass(frozen=True)
class Squared:
    """Squared distance from `center`, a number in the unit of the range; in that unit squared."""

    center: float

    def __call__(self, value, low, high):
        return (value - self.center) ** 2

    def __str__(self):
        return f"squared distance from {self.center:g}"


# ---------------------------------------------------------------------------------------------------------- aims


@dataclasses.dataclass(frozen=True)
class Aim:
    """An outcome that should lie in a range, `low` to `high` in `unit`, or (with neither) be low or high.

    `loss`: (values, low, high) -> loss of each draw, all in `unit`: `Miss`, `Distance`, `Squared`, or a function of one's own.
    """

    outcome: Outcome
    low: float = -np.inf
    high: float = np.inf
    unit: str | None = None
    loss: Callable[..., Any] = Miss()

    @property
    def ranged(self) -> bool:
        """Is there a range?"""
        return bool(np.isfinite(self.low) or np.isfinite(self.high))

    def settled(self, trajectory) -> "Aim":
        """The same aim with the outcome's window and, where no unit was said, its unit, as they are on this trajectory."""
        outcome = self.outcome.settled(trajectory)
        unit = self.unit or outcome.unit or "1"
        _check_levels(outcome, [(self.low, unit), (self.high, unit)])
        return dataclasses.replace(self, outcome=outcome, unit=unit)

    def of(self, trajectory) -> np.ndarray:
        """The outcome of every draw, (draws,), in `unit` of a settled aim; NaN where a draw failed."""
        return _in_unit(self.outcome, trajectory, self.unit)

    def losses(self, value) -> np.ndarray:
        """Loss of every draw; NaN where the outcome is. **Raises:** DeclarationError where a loss is no number a draw."""
        if not self.ranged and isinstance(self.loss, Miss):  # nothing to miss: the outcome itself is the loss
            return value if self.outcome.better == "lower" else -value
        found = np.asarray(self.loss(value, self.low, self.high), float)
        if found.shape != value.shape:
            raise DeclarationError(
                f"the loss gave shape {found.shape} for {value.shape[0]} draws. Write it of arrays, as in "
                "lambda value, low, high: (value - 500) ** 2."
            )
        return np.where(np.isfinite(value), found, np.nan)

    def shares(self, value) -> tuple[float, float, float]:
        """Share of the draws below, in and above the range; NaN without one."""
        seen = value[np.isfinite(value)]
        if not self.ranged or not seen.size:
            return np.nan, np.nan, np.nan
        below, above = float(np.mean(seen < self.low)), float(np.mean(seen > self.high))
        return below, float(np.mean((seen >= self.low) & (seen <= self.high))), above

    @property
    def loss_text(self) -> str:
        """What the loss is, in words."""
        if not self.ranged and isinstance(self.loss, Miss):
            return "the outcome itself" if self.outcome.better == "lower" else "minus the outcome, which is better higher"
        name = getattr(self.loss, "__name__", "")
        return str(self.loss) if not name else "a function of its own" if name == "<lambda>" else name

    def __str__(self):
        if not self.ranged:
            return str(self.outcome)
        unit = f" {self.unit}" if self.unit and self.unit != "1" else ""
        if np.isinf(self.low) or np.isinf(self.high):
            bound = f"at most {self.high:g}" if np.isinf(self.low) else f"at least {self.low:g}"
            return f"{self.outcome.label} {bound}{unit}"
        return f"{self.outcome.label} within {self.low:g} to {self.high:g}{unit}"


def within(outcome: Outcome, low: float | None, high: float | None, unit: str | None = None, *, loss=Miss()) -> Aim:
    """An aim: the outcome in `low` to `high` of `unit` (the outcome's own where it is left out); None leaves a side open.

    ```python
    ht.outcomes.within(ht.outcomes.auc("C", "22:00", "22:00"), 400, 600, "mg*h/L")
    ```

    **Raises:** DeclarationError for an empty range, or one without any bound.
    """
    low, high = -np.inf if low is None else float(low), np.inf if high is None else float(high)
    if not low < high or (np.isinf(low) and np.isinf(high)):
        raise DeclarationError(
            f"within {low:g} to {high:g}: the range is empty or has no bound. Give low < high, or None for one side."
        )
    if isinstance(loss, Distance) and (np.isinf(low) or np.isinf(high)):
        raise DeclarationError(
            "a distance counts in widths of the range, and this one is open. Give both bounds, or another loss."
        )
    return Aim(as_outcome(outcome), low, high, unit, loss)


def as_aim(thing) -> Aim:
    """An aim, or an outcome as one. **Raises:** DeclarationError where it says no direction."""
    if isinstance(thing, Aim):
        return thing
    outcome = as_outcome(thing)
    if outcome.better is None:
        raise DeclarationError(
            f"{outcome.label}: which way is better? Say better=\"lower\" or \"higher\", or give a range: "
            "ht.outcomes.within(outcome, 400, 600, \"mg*h/L\")."
        )
    return Aim(outcome, unit=outcome.unit)


def _check_levels(outcome, levels) -> None:
    """**Raises:** DeclarationError where an outcome that is a value of an output is held against what no living body has."""
    if outcome.name and isinstance(outcome.measure, Peak | Nadir | Mean | First | Last):
        for value, unit in levels:
            check_level(outcome.name, value, unit)


def _in_unit(outcome, trajectory, unit) -> np.ndarray:
    """An outcome of every draw in a unit: (draws,)."""
    own = outcome.settled(trajectory).unit or "1"
    return np.asarray(convert(outcome.of(trajectory), own, unit or own, of=substance_of(outcome.name)), float)


# ------------------------------------------------------------------------------------------------- risk measures


class AbstractRisk(abc.ABC):
    """One number of a loss with a distribution."""

    @abc.abstractmethod
    def of(self, loss, weights=None) -> float:
        """Risk of losses (n,), of equal weight or with `weights` (n,) that sum to one."""

    @abc.abstractmethod
    def of_all(self, losses, weights=None) -> np.ndarray:
        """Risks (candidates,) of losses (candidates, n)."""

    @abc.abstractmethod
    def parts(self, loss) -> np.ndarray:
        """(n,) numbers whose mean is the risk and whose spread is that of its Monte Carlo error (influence values)."""


@dataclasses.dataclass(frozen=True)
class Expected(AbstractRisk):
    """The mean loss."""

    def of(self, loss, weights=None):
        return float(np.mean(loss) if weights is None else np.sum(weights * loss))

    def of_all(self, losses, weights=None):
        return np.mean(losses, axis=1) if weights is None else losses @ weights

    def parts(self, loss):
        return np.asarray(loss, float)

    def __str__(self):
        return "expected loss"


@dataclasses.dataclass(frozen=True)
class CVaR(AbstractRisk):
    """The mean of the worst `worst` share of the losses (conditional value at risk)."""

    worst: float = 0.1

    def __post_init__(self):
        if not 0 < self.worst <= 1:
            raise DeclarationError(
                f"CVaR of the worst {self.worst:g}: the share lies above 0 and is at most 1. Write ht.CVaR(0.1)."
            )

    def _level(self, loss, weights):
        """The loss that a share `worst` exceeds at most, and the losses in descending order with their weights."""
        order = np.argsort(-loss, kind="stable")
        share = np.full(len(loss), 1.0 / len(loss)) if weights is None else weights[order]
        at = min(int(np.searchsorted(np.cumsum(share), self.worst * (1 - 1e-12))), len(loss) - 1)
        return loss[order[at]]

    def of(self, loss, weights=None):
        loss = np.asarray(loss, float)
        share = np.full(len(loss), 1.0 / len(loss)) if weights is None else weights
        level = self._level(loss, weights)
        return float(level + np.sum(share * np.maximum(loss - level, 0.0)) / self.worst)

    def of_all(self, losses, weights=None):
        return np.array([self.of(loss, weights) for loss in losses])

    def parts(self, loss):
        loss = np.asarray(loss, float)
        level = self._level(loss, None)
        return level + np.maximum(loss - level, 0.0) / self.worst

    def __str__(self):
        return f"mean of the worst {100 * self.worst:g} % of the losses"


# ---------------------------------------------------------------------------------------------- chance constraints


@dataclasses.dataclass(frozen=True)
class Chance:
    """A chance that must stay small: P(outcome beyond a level) at most `at_most`.

    ```python
    ht.Chance(ht.outcomes.nadir("G", "07:00", "12:00"), below=(54, "mg/dL"), at_most=0.01)
    ```

    **Raises:** DeclarationError.
    """

    outcome: Outcome
    _: dataclasses.KW_ONLY
    below: tuple[float, str] | None = None
    above: tuple[float, str] | None = None
    at_most: float = 0.05

    def __post_init__(self):
        as_outcome(self.outcome)
        if (self.below is None) == (self.above is None):
            raise DeclarationError('Chance needs one of below= and above=. Write below=(54, "mg/dL").')
        pair = self.level
        if not isinstance(pair, tuple) or len(pair) != 2 or not isinstance(pair[1], str):
            raise DeclarationError(f'Chance: the level is (number, unit), not {pair!r}. Write below=(54, "mg/dL").')
        if not 0 < self.at_most < 1:
            raise DeclarationError(f"Chance: at_most={self.at_most:g} is no probability between 0 and 1. Write at_most=0.01.")

    @property
    def level(self) -> tuple[float, str]:
        """The level (number, unit)."""
        return self.below if self.below is not None else self.above  # type: ignore[return-value]

    def settled(self, trajectory) -> "Chance":
        """The same with the outcome's window as it is on this trajectory. **Raises:** DeclarationError (no such level)."""
        _check_levels(self.outcome, [self.level])
        return dataclasses.replace(self, outcome=self.outcome.settled(trajectory))

    def happens(self, trajectory) -> np.ndarray:
        """1 where it happens, else 0, NaN where a draw failed: (draws,)."""
        value = _in_unit(self.outcome, trajectory, self.level[1])
        beyond = value < self.level[0] if self.below else value > self.level[0]
        return np.where(np.isfinite(value), beyond.astype(float), np.nan)

    def __str__(self):
        side = "<" if self.below else ">"
        return f"P({self.outcome.label} {side} {self.level[0]:g} {self.level[1]})"
