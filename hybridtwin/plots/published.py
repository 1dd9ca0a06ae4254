"""What was published of a typical day, drawn over ours."""

import numpy as np

from hybridtwin.plots import INK, _legend, styled


@styled
def over(figure, traj, names, marks):
    """Diamonds (ranges as bars) of published values over the outputs of `plots.trajectory`. Returns the figure.

    `marks`: (output, time, value or (low, high)), in the units of `traj`; without a time a level; without a value the time, or
    (first, last), is what was published, and lies on our curve. An output that is not drawn is left out.
    """
    panels = list(dict.fromkeys(traj.units[name] for name in names))
    told = set()
    for output, time, value in marks:
        if output not in names:
            continue
        place = panels.index(traj.units[output])
        ax = figure.axes[place]
        label = None if place in told else "published"
        told.add(place)
        if value is None:
            first, last = np.broadcast_to(time, (2,))
            middle = 0.5 * (first + last)
            height = np.interp(middle, traj.time, traj[output][0])
            ax.errorbar([middle], [height], xerr=[[middle - first], [last - middle]], fmt="D", color=INK, markersize=4.5,
                        capsize=4, linewidth=1.2, markerfacecolor="white", linestyle="none", zorder=6, label=label)  # fmt: skip
            continue
        low, high = np.broadcast_to(value, (2,))
        if time is None:
            ax.axhspan(low, high, color=INK, alpha=0.08, linewidth=0)
            for edge in (low, high):
                ax.axhline(edge, color=INK, linewidth=0.8, linestyle=(0, (4, 3)), label=label)
        elif low == high:
            ax.plot([time], [low], "D", color=INK, markersize=4.5, markerfacecolor="white", linestyle="none", zorder=6,
                    label=label)  # fmt: skip
        else:
            middle = 0.5 * (low + high)
            ax.errorbar([time], [middle], [[middle - low], [high - middle]], color=INK, capsize=3, linewidth=1.2, zorder=6,
                        linestyle="none", label=label)  # fmt: skip
    for place in told:
        _legend(figure.axes[place])
    return figure
