"""What is measured of a curve on a window: one number a draw, exact on the straight lines between its nodes.

Glycemic measures are those of the international consensus on continuous glucose monitoring (Battelino 2019,
doi:10.2337/dci19-0028, and 2023, doi:10.1016/S2213-8587(22)00319-9) and the indices it recommends:

    risk(g) = 10 (1.509 (ln(g)^1.084 - 5.381))^2, g in mg/dL; LBGI its mean where g < 112.5, HBGI where g is above
    GMI = 3.31 + 0.02392 mean, mean in mg/dL
    GRI = 3.0 VLow + 2.4 Low + 1.6 VHigh + 0.8 High, at most 100; percents of time below 54, 54 to 70, above 250, 180 to 250 mg/dL

Source: Kovatchev 1997, doi:10.2337/diacare.20.11.1655, and 2006, doi:10.2337/dc06-1085; Bergenstal 2018,
doi:10.2337/dc18-1581; Klonoff 2022, doi:10.1177/19322968221085273; Service 1970, doi:10.2337/diab.19.9.644.
"""

import dataclasses
import itertools

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
class Beyond:
    """Area between the curve and a level (in `unit`) where the curve is beyond it, in hours."""

    level: float
    below: bool
    unit: str

    def __call__(self, piece: Piece) -> np.ndarray:
        past = _past(piece, self.level, self.below)
        first, last = past[:, :-1], past[:, 1:]
        high, low = np.maximum(first, last), np.minimum(first, last)
        with np.errstate(divide="ignore", invalid="ignore"):
            corner = np.where(high > 0, high**2 / (2.0 * np.where(high > low, high - low, 1.0)), 0.0)
        height = np.where(low >= 0, (first + last) / 2.0, corner)
        return np.sum(np.diff(piece.time) * height, axis=1) * piece.hour


@dataclasses.dataclass(frozen=True)
class Until:
    """Hours from the start of the window until the curve is first strictly beyond a level (in `unit`); the window's length where
    it never is.
    """

    level: float
    below: bool
    unit: str

    def __call__(self, piece: Piece) -> np.ndarray:
        past = _past(piece, self.level, self.below)
        beyond, row = past > 0, np.arange(len(past))
        at = np.argmax(beyond, axis=1)  # the first node beyond
        before = np.maximum(at - 1, 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            share = -past[row, before] / (past[row, at] - past[row, before])
        crossed = piece.time[before] + np.where(at > 0, share, 0.0) * (piece.time[at] - piece.time[before])
        return (np.where(beyond.any(axis=1), crossed, piece.time[-1]) - piece.time[0]) * piece.hour


@dataclasses.dataclass(frozen=True)
class Ever:
    """1 where the curve is strictly beyond a level (in `unit`) anywhere in the window, else 0."""

    level: float
    below: bool
    unit: str

    def __call__(self, piece: Piece) -> np.ndarray:
        return (_past(piece, self.level, self.below) > 0).any(axis=1).astype(float)


def _past(piece, level, below) -> np.ndarray:
    """How far the curve is past a level, (draws, N), positive beyond it."""
    return level - piece.value if below else piece.value - level


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


@dataclasses.dataclass(frozen=True)
class Episodes:
    """Episodes strictly beyond a level (in `unit`) in a window, or their number a week. One begins with `lasting` hours beyond
    and ends with `back` hours not beyond; what is shorter neither begins nor ends one. Crossings are those of straight lines.
    """

    level: float
    below: bool
    unit: str
    lasting: float = 0.25
    back: float = 0.25
    weekly: bool = False

    def __call__(self, piece: Piece) -> np.ndarray:
        hours, side = piece.time * piece.hour, -1.0 if self.below else 1.0
        count = np.array([self._count(hours, side * (row - self.level)) for row in piece.value], float)
        return count * (168.0 / (hours[-1] - hours[0])) if self.weekly else count

    def _count(self, time, past) -> float:
        """Episodes of one curve (N,) of how far it is past the level; NaN where it is not known."""
        if not np.isfinite(past).all():
            return np.nan
        crossing = np.flatnonzero(past[:-1] * past[1:] < 0)
        share = past[crossing] / (past[crossing] - past[crossing + 1])
        at = np.insert(time, crossing + 1, time[crossing] + share * np.diff(time)[crossing])
        value = np.insert(past, crossing + 1, 0.0)
        beyond = value[:-1] + value[1:] > 0
        edges = [0, *(np.flatnonzero(beyond[1:] != beyond[:-1]) + 1), len(beyond)]
        found, open_ = 0, False
        for first, after in itertools.pairwise(edges):
            long = at[after] - at[first] >= (self.lasting if beyond[first] else self.back) - 1e-9
            found += bool(long and beyond[first] and not open_)
            open_ = bool(beyond[first]) if long else open_
        return float(found)


def excursions(value, least: float) -> list[float]:
    """Turning points of a curve (N,) between which it moves by more than `least`, its ends among them; [] where it never does.

    A turning point is the highest (lowest) value before the curve has fallen (risen) from it by more than `least`.
    """
    low = high = top = value[0]
    turns: list[float] = []
    rising = True
    for v in value:
        if not turns:
            low, high = min(low, v), max(high, v)
            if v - low > least or high - v > least:
                rising = v - low > least
                turns, top = [low if rising else high], v
        elif (v > top) == rising and v != top:
            top = v
        elif abs(v - top) > least:
            turns.append(top)
            rising, top = not rising, v
    return [*turns, top] if turns else []


def mage(pieces, sd: float) -> float:
    """Mean amplitude of glycemic excursions of stretches of readings (N,): NaN where no excursion is larger than their `sd`.

    Service 1970, doi:10.2337/diab.19.9.644: the mean of the moves between successive peaks and nadirs that exceed one standard
    deviation, in the direction of the first such move alone. Here peaks and nadirs are the `excursions` beyond `sd` of each
    stretch without a gap, the standard deviation is that of all readings, and a move under way at an end counts as far as seen.
    """
    moves = [np.diff(turns) for turns in (excursions(piece, sd) for piece in pieces) if turns]
    if not moves:
        return float("nan")
    moves = np.concatenate(moves)
    return float(np.mean(np.abs(moves[np.sign(moves) == np.sign(moves[0])])))
