"""What every method of inference is given, and what it gives back: a new method is one short file with a `draw`.

People are a leading axis: a method draws for a whole tile of them at once, on one kernel, and nobody's draws may depend on
who else is in the tile.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from hybridtwin.inference.modes import LaplaceFit
from hybridtwin.kernel import Kernel, Temper


class Setting(NamedTuple):
    """One tile of P people on one kernel, with their modes found. A method's own chance is folded from `keys` by 2 to 9."""

    kernel: Kernel
    data: Any  # model.Data with leading axis P
    keys: list  # one a person
    tempers: Temper  # leading axis P
    modes: list[list[LaplaceFit]]  # of each person, the one of most evidence first
    report: Callable[[int, int, int], None]  # (done, total, diverging); raises KeyboardInterrupt on Ctrl-C
    count: int | None = None  # how many of the people are wanted; the others are repeats that fill the tile. None: all

    @property
    def wanted(self) -> int:
        """How many people, from the first, need draws."""
        return len(self.keys) if self.count is None else self.count


class Drawn(NamedTuple):
    """Draws of one person: C chains (1 where there are none), N draws, d coordinates, all of equal weight.

    `stats` holds what the verdict judges, where the method has it: `rhat`, `ess_bulk`, `ess_tail` (d,), `divergent`, `bfmi`,
    `khat`; `log_evidence` replaces that of the Laplace approximation; `log_proposal` (C * N,) is the log density of the
    distribution the draws are really from, where that is an approximation.
    """

    z: np.ndarray  # (C, N, d)
    stats: dict[str, Any]


def weights_of(log_weights):
    """Normalized weights; what is not finite weighs nothing, and where nothing is finite all weigh the same."""
    usable = np.isfinite(log_weights)
    if not usable.any():
        return np.full(len(log_weights), 1 / len(log_weights))
    w = np.exp(np.where(usable, log_weights, -np.inf) - log_weights[usable].max())
    return w / w.sum()
