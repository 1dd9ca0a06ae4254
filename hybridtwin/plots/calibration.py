"""Pictures of calibration: how ranks stray from uniform."""

import numpy as np

from hybridtwin.plots import BLUE, GRAY, ORANGE, PALE, figure_type, styled


@styled
def calibration(found):
    """ECDF differences of every quantity over the simultaneous envelope of uniform ranks; those outside are named."""
    from hybridtwin.inference.calibrate import deviations, envelope

    figure = figure_type()(figsize=(7.5, 3.6), layout="constrained")
    ax = figure.subplots()
    at = np.arange(1, found.draws + 2) / (found.draws + 1)
    low, high = envelope(found.replicates, found.draws, found.level)
    ax.fill_between(at, low, high, color=PALE, label=f"{100 * found.level:g} % of uniform ranks stay inside")
    p = found.p_values()
    for name, ranks in found.ranks.items():
        strays = p[name] * len(p) <= 1 - found.level
        ax.plot(at, deviations(ranks, found.draws), color=ORANGE if strays else BLUE, lw=1.6 if strays else 0.9,
                alpha=1.0 if strays else 0.6, label=f"{name}, p = {p[name]:.3g}" if strays else None)  # fmt: skip
    ax.axhline(0, color=GRAY, lw=0.7)
    ax.set_xlim(0, 1)
    ax.set_xlabel("rank of the truth among the posterior draws, as a share")
    ax.set_ylabel("ECDF less uniform")
    ax.set_title(f"{found.method} on {found.model}: {found.replicates} replicates, {len(p)} quantities")
    ax.legend(loc="lower left")
    return figure
