"""Shares of the glycemic ranges as one stacked bar, the way reports of continuous glucose monitoring show them."""

from hybridtwin import plots


@plots.styled
def ranges(found):
    """A bar of percent of readings in the five ranges of the consensus."""
    figure = plots.figure_type()(figsize=(3.6, 4.0), layout="constrained")
    ax = figure.subplots()
    shares = {
        "very low": (found.below_54, "#7A1F1F"),
        "low": (found.below_70 - found.below_54, plots.ORANGE),
        "in range": (found.in_range, plots.GREEN),
        "high": (found.above_180 - found.above_250, plots.SKY),
        "very high": (found.above_250, plots.BLUE),
    }
    bottom = 0.0
    for label, (share, color) in shares.items():
        ax.bar([0], [share], bottom=bottom, color=color, width=0.5, label=f"{label} {share:.1f} %")
        bottom += share
    ax.set_xlim(-0.4, 1.6)
    ax.set_ylim(0, 100)
    ax.set_xticks([])
    ax.set_ylabel("readings (%)")
    ax.set_title(f"{found.person}: {found.name}, {found.days:.3g} days")
    handles, labels = ax.get_legend_handles_labels()
    ax.legend(handles[::-1], labels[::-1], loc="center right")
    return figure
