"""What is measured of a curve on a window: one number a draw, exact on the straight lines between its nodes.

Glycemic measures are those of the international consensus on continuous glucose monitoring (Battelino 2019,
doi:10.2337/dci19-0028, and 2023, doi:10.1016/S2213-8587(22)00319-9) and the indices it recommends:

    risk(g) = 10 (1.509 (ln(g)^1.084 - 5.381))^2, g in mg/dL; LBGI its mean where g < 112.5, HBGI where g is above
    GMI = 3.31 + 0.02392 mean, mean in mg/dL
    GRI = 3.0 VLow + 2.4 Low + 1.6 VHigh + 0.8 High, at most 100; percents of time below 54, 54 to 70, above 250, 180 to 250 mg/dL

Source: Kovatchev 1997, doi:10.2337/diacare.20.11.1655, and 2006, doi:10.2337/dc06-1085; Bergenstal 2018,
doi:10.2337/dc18-1581; Klonoff 2022, doi:10.1177/19322968221085273.
"""

import dataclasses

import numpy as np

HYPO, HYPER = 70.0, 180.0  # mg/dL, the ends of the range of the consensus
VERY_LOW, VERY_HIGH = 54.0, 250.0  # mg/dL, its second levels
CENTER = float(np.exp(5.381 ** (1 / 1.084)))  # mg/dL without risk, 112.5: where the scale of Kovatchev is zero

# A straight line passes all values between its ends at one speed: four Gauss points give the mean of the smooth risk on it.
_POINTS, _WEIGHTS = np.polynomial.legendre.leggauss(4)


# ------------------------------------------------------------------------------- curves on their window


@dataclasses.dataclass(frozen=True, eq=False)
class Piece:
    """A trajectory's curve on a window: nodes `time` (N,) in the clock's unit, `value` (draws, N) in the outcome's.

    `hour` is how many hours one unit of `time` is. Times may repeat where the curve jumps.
    """

    time: np.ndarray
    value: np.ndarray
    hour: float

    def integral(self) -> np.ndarray:
        """Area under straight lines, in value times unit of time: (draws,)."""
        return np.sum(np.diff(self.time) * (self.value[:, 1:] + self.value[:, :-1]), axis=1) / 2

    def share_below(self, threshold: float) -> np.ndarray:
        """Share of the window's time strictly below a threshold: (draws,)."""
        first, last = self.value[:, :-1] - threshold, self.value[:, 1:] - threshold
        low, high = np.minimum(first, last), np.maximum(first, last)
        flat = high == low
        with np.errstate(divide="ignore", invalid="ignore"):
            share = np.where(flat, low < 0, np.clip(-low / np.where(flat, 1.0, high - low), 0.0, 1.0))
        share = np.where(np.isnan(low), np.nan, share)
        return np.sum(np.diff(self.time) * share, axis=1) / (self.time[-1] - self.time[0])


def inside(time, value, start, stop) -> tuple[np.ndarray, np.ndarray]:
    """The nodes of a curve on [start, stop), both ends interpolated: right limit at start, left limit at stop."""
    i, j = np.searchsorted(time, start, side="right") - 1, np.searchsorted(time, stop, side="left")
    keep = slice(i + 1, j)
    first, last = _between(time, value, i, start), _between(time, value, j - 1, stop)
    return (
        np.concatenate([[start], time[keep], [stop]]),
        np.concatenate([first[:, None], value[:, keep], last[:, None]], axis=1),
    )


def _between(time, value, i, at) -> np.ndarray:
    """Value at `at` on the line from node i to node i + 1: (draws,)."""
    i = min(max(int(i), 0), len(time) - 1)
    k = min(i + 1, len(time) - 1)
    width = time[k] - time[i]
    share = (at - time[i]) / width if width > 0 else 0.0
    if share == 0.0 or share == 1.0:
        return value[:, i if share == 0.0 else k]
    return value[:, i] * (1 - share) + value[:, k] * share


# ---------------------------------------------------------------------------------------- what is measured


@dataclasses.dataclass(frozen=True)
class Peak:
    """Highest value."""

    def __call__(self, piece: Piece) -> np.ndarray:
        return piece.value.max(axis=1)


@dataclasses.dataclass(frozen=True)
class Nadir:
    """Lowest value."""

    def __call__(self, piece: Piece) -> np.ndarray:
        return piece.value.min(axis=1)


@dataclasses.dataclass(frozen=True)
class Mean:
    """Mean over time."""

    def __call__(self, piece: Piece) -> np.ndarray:
        return piece.integral() / (piece.time[-1] - piece.time[0])


@dataclasses.dataclass(frozen=True)
class Area:
    """Area under the curve, in hours."""

    def __call__(self, piece: Piece) -> np.ndarray:
        return piece.integral() * piece.hour


@dataclasses.dataclass(frozen=True)
class Last:
    """Value at the end of the window, just before whatever happens there."""

    def __call__(self, piece: Piece) -> np.ndarray:
        return piece.value[:, -1]


@dataclasses.dataclass(frozen=True)
class First:
    """Value at the start of the window, just after whatever happens there."""

    def __call__(self, piece: Piece) -> np.ndarray:
        return piece.value[:, 0]


@dataclasses.dataclass(frozen=True)
class Share:
    """Percent of the window's time with low <= value <= high (thresholds in `unit`)."""

    low: float
    high: float
    unit: str

    def __call__(self, piece: Piece) -> np.ndarray:
        none = np.zeros(len(piece.value))
        below = piece.share_below(self.low) if np.isfinite(self.low) else none
        not_above = piece.share_below(np.nextafter(self.high, np.inf)) if np.isfinite(self.high) else none + 1.0
        return 100.0 * (not_above - below)


@dataclasses.dataclass(frozen=True)
class Deviation:
    """Standard deviation over time; with `relative`, in percent of the mean (CV)."""

    relative: bool = False

    def __call__(self, piece: Piece) -> np.ndarray:
        mean = Mean()(piece)
        off = piece.value - mean[:, None]
        square = off[:, 1:] ** 2 + off[:, 1:] * off[:, :-1] + off[:, :-1] ** 2  # three times its mean on a line
        found = np.sqrt(np.sum(np.diff(piece.time) * square, axis=1) / 3 / (piece.time[-1] - piece.time[0]))
        return 100.0 * found / mean if self.relative else found


def risk(glucose: np.ndarray) -> np.ndarray:
    """Risk of a glucose in mg/dL on the scale of Kovatchev: 0 at 112.5, 100 at 20 and at 600. Below 1 mg/dL as at 1."""
    return 10.0 * (1.509 * (np.log(np.maximum(glucose, 1.0)) ** 1.084 - 5.381)) ** 2


def gmi(mean):
    """Glucose management indicator, %, of a mean glucose in mg/dL."""
    return 3.31 + 0.02392 * mean


def gri(below_54, below_70, above_180, above_250):
    """Glycemia risk index of percents of time; the inner levels count what the outer ones leave."""
    low, high = below_70 - below_54, above_180 - above_250
    return np.minimum(3.0 * below_54 + 2.4 * low + 1.6 * above_250 + 0.8 * high, 100.0)


@dataclasses.dataclass(frozen=True)
class RiskIndex:
    """Mean over time of the risk of low glucose (LBGI) or of high (HBGI)."""

    low: bool
    unit: str = "mg/dL"

    def __call__(self, piece: Piece) -> np.ndarray:
        one, other = piece.value[:, :-1], piece.value[:, 1:]
        bottom, top = np.minimum(one, other), np.maximum(one, other)
        start, stop = (bottom, np.minimum(top, CENTER)) if self.low else (np.maximum(bottom, CENTER), top)
        width = top - bottom
        with np.errstate(divide="ignore", invalid="ignore"):
            share = np.where(width > 0, np.clip((stop - start) / width, 0.0, 1.0), stop >= start)
        middle, half = (start + stop) / 2, (stop - start) / 2
        mean = sum(w * risk(middle + half * x) for x, w in zip(_POINTS, _WEIGHTS, strict=True)) / 2
        return np.sum(np.diff(piece.time) * share * mean, axis=1) / (piece.time[-1] - piece.time[0])


@dataclasses.dataclass(frozen=True)
class Indicator:
    """Glucose management indicator, %."""

    unit: str = "mg/dL"

    def __call__(self, piece: Piece) -> np.ndarray:
        return gmi(Mean()(piece))


@dataclasses.dataclass(frozen=True)
class Risk:
    """Glycemia risk index, 0 to 100."""

    unit: str = "mg/dL"

    def __call__(self, piece: Piece) -> np.ndarray:
        below = [100.0 * piece.share_below(level) for level in (VERY_LOW, HYPO)]
        above = [100.0 - 100.0 * piece.share_below(np.nextafter(level, np.inf)) for level in (HYPER, VERY_HIGH)]
        return gri(*below, *above)


def vertex(time, value, at) -> np.ndarray:
    """Where the parabola through node `at` (draws,) and its neighbours turns: (draws,), between these neighbours; the node itself
    at an end of the curve and where it jumps or is flat.
    """
    before, after = np.maximum(at - 1, 0), np.minimum(at + 1, len(time) - 1)
    row = np.arange(len(value))
    left, right = time[at] - time[before], time[after] - time[at]
    with np.errstate(divide="ignore", invalid="ignore"):
        falls = (value[row, at] - value[row, before]) / left
        rises = (value[row, after] - value[row, at]) / right
        shift = -(falls * right + rises * left) / (2.0 * (rises - falls))
    return time[at] + np.where(np.isfinite(shift), np.clip(shift, -left, right), 0.0)


@dataclasses.dataclass(frozen=True)
class TimeOf:
    """When the curve is highest or lowest, in hours of its clock, `later` hours added; NaN where that is at an end of the
    window: there it says nothing of a turning point.
    """

    highest: bool
    later: float = 0.0

    def __call__(self, piece: Piece) -> np.ndarray:
        found = np.argmax(piece.value, axis=1) if self.highest else np.argmin(piece.value, axis=1)
        inside = (found > 0) & (found < len(piece.time) - 1)
        when = vertex(piece.time, piece.value, found) * piece.hour + self.later
        return np.where(inside, when, np.nan)
