"""How a failed lane is told: person, draw, time, state, reason and the most unusual parameter.

Inside a compiled program nothing raises: a reason travels as a code, and the host turns it into a row.
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from hybridtwin.priors import score

FINE, NOT_FINITE, OVERFLOW, UNSETTLED, LOOSE, NO_REST = range(6)
REASONS = {
    NOT_FINITE: "left the finite numbers",
    OVERFLOW: "met a rule more often than it may act",
    UNSETTLED: "did not settle when the steps were halved",
    LOOSE: "missed the tolerance",
    NO_REST: "came to no steady state",
}


@dataclasses.dataclass(frozen=True)
class Failure:
    """One lane that failed, or whose numbers are worse than asked.

    `time`: the first time at which `state` was not finite, or (for a lane that did not settle) at which it moved most when
    the steps were halved; in the system's unit, and `when` in the clock's words. `masked`: are its values NaN? `parameter`
    is the one that lies furthest out in its prior, by `sds` standard deviations of the prior.
    """

    person: str
    draw: int
    reason: str
    time: float
    when: str
    state: str
    error: float
    masked: bool
    parameter: str | None = None
    value: float = math.nan
    sds: float = math.nan
    structure: str = ""

    def __str__(self):
        who = f"{self.person}, draw {self.draw}" + (f" of {self.structure}" if self.structure else "")
        far = f" ({self.parameter} = {self.value:.3g}, {self.sds:+.1f} sd of its prior)" if self.parameter else ""
        size = f", by {self.error:.1g}" if self.reason in (REASONS[UNSETTLED], REASONS[LOOSE]) else ""
        return f"{who}: {self.state} {self.reason} at {self.when}{size}{far}"


class Failures(Sequence):
    """Lanes, among `total`, that failed or missed the tolerance, as rows; empty where all is well."""

    def __init__(self, rows: Sequence[Failure] = (), total: int = 0):
        self._rows, self.total = tuple(rows), total

    def __getitem__(self, i):
        return Failures(self._rows[i], self.total) if isinstance(i, slice) else self._rows[i]

    def __len__(self):
        return len(self._rows)

    def __iter__(self) -> Iterator[Failure]:
        return iter(self._rows)

    @property
    def draws(self) -> np.ndarray:
        """Indices of the draws, each once."""
        return np.unique([row.draw for row in self._rows]).astype(int)

    def of(self, structure: str) -> "Failures":
        """The same rows, said to be of one structure."""
        return Failures([dataclasses.replace(row, structure=structure) for row in self._rows], self.total)

    def then(self, other: "Failures") -> "Failures":
        """These rows and those of further draws, which are counted on."""
        moved = [dataclasses.replace(row, draw=row.draw + self.total) for row in other]
        return Failures([*self._rows, *moved], self.total + other.total)

    def to_dataframe(self):
        """One row a lane."""
        import pandas as pd

        return pd.DataFrame(
            [dataclasses.asdict(row) for row in self._rows], columns=[f.name for f in dataclasses.fields(Failure)]
        )

    def told(self, most: int = 3) -> list[str]:
        """A line a reason with its count, the first lane of each as an example; at most `most` lines."""
        reasons: dict[str, list[Failure]] = {}
        for row in self._rows:
            reasons.setdefault(row.reason, []).append(row)
        lines = []
        for reason, rows in reasons.items():
            lost = "NaN" if rows[0].masked else "kept"
            first = min(rows, key=lambda row: row.time)
            lines.append(f"{len(rows)} of {self.total} draws {reason} ({lost}), such as {first}")
        return lines[:most] + ([f"and {len(lines) - most} other reasons"] if len(lines) > most else [])

    def __repr__(self):
        head = f"Failures: {len(self._rows)} of {self.total} draws" if self._rows else "Failures: none"
        return "\n".join([head, *("  " + line for line in self.told())])


def unusual(priors: Mapping[str, Any], values: Mapping[str, np.ndarray], lane: int) -> tuple[str | None, float, float]:
    """The parameter of one lane that lies furthest out in its prior: (path, value, standard deviations)."""
    best: tuple[str | None, float, float] = (None, math.nan, 0.0)
    for path, prior in priors.items():
        if path not in values:
            continue
        for value in np.ravel(np.asarray(values[path])[lane]):
            sds = score(prior, float(value))
            if sds is not None and (best[0] is None or abs(sds) > abs(best[2])):
                best = (path, float(value), sds)
    return best


def _filled(acts, lane: int, rules) -> float | None:
    """When a lane made the last act that one of its rules allows; of several such rules the first."""
    full = []
    for place, rule in enumerate(rules):
        for times in acts.times[:, lane, place, : rule.at_most]:
            if np.isfinite(times).all():
                full.append(float(times.max()))
    return min(full, default=None)


def failures(solved, *, person, times, nodes, names, states, clock, priors, values, resting=(), rules=()) -> Failures:
    """Rows of what failed in a `Solved`.

    **Arguments:** `times` (N,) of the readings; `nodes`: node times of each world; `names`: outputs recorded; `states`: paths;
    `priors`, `values`: path -> prior, path -> (L, ...); `resting`: nodes at which a steady state is declared;
    `rules`: those of the layout that act at a level, of which an overflow tells the moment of the last act allowed.
    """
    rows = []
    for lane in np.flatnonzero(solved.code != FINE):
        code, world, node, place = int(solved.code[lane]), *(int(i) for i in solved.where[lane])
        if code == NOT_FINITE and node in resting:
            code = NO_REST
        if node >= 0 and code in (NOT_FINITE, NO_REST):
            time, state = float(nodes[world][node]), states[place]
        else:
            reading, output = min(solved.worst[lane][0], len(times) - 1), solved.worst[lane][1]  # padding is read last
            time, state = float(times[reading]), names[output]
        if code == OVERFLOW and (full := _filled(solved.acts, lane, rules)) is not None:
            time = full
        parameter, value, sds = unusual(priors, values, lane)
        rows.append(
            Failure(
                person,
                int(lane),
                REASONS[code],
                time,
                clock.label(time),
                state,
                float(solved.error[lane]),
                bool(solved.failed[lane]),
                parameter,
                value,
                sds,
            )
        )
    return Failures(rows, len(solved.code))
