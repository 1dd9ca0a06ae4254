"""The axis of time below the panels of a picture: local clock times, or time that has passed."""

from datetime import timedelta

import numpy as np

from hybridtwin.clock import Clock
from hybridtwin.units import time_factor

PALE = "#d5d9de"


def clock_axis(axes, clock: Clock, start: float, stop: float) -> None:
    """Local clock times below the last panel, the date where a day begins; elapsed time where there are no dates."""
    ax = axes[-1]
    ax.set_xlim(start, stop)
    if clock.origin is None:
        _elapsed(ax, clock.unit, start, stop)
        return
    hour = time_factor("h", clock.unit)
    span = (stop - start) / hour
    step = next((s for s in (1, 2, 3, 6, 12, 24) if span / s <= 13), 24 * int(np.ceil(span / 24 / 13)))
    first = clock.when(start)
    midnight = start - (first - first.replace(hour=0, minute=0, second=0, microsecond=0)) / timedelta(hours=1) * hour
    ticks = [t for t in np.arange(midnight, stop + 1e-9, step * hour) if t >= start - 1e-9]
    if not ticks:
        ticks = [start, stop]
    labels, day = [], None
    for t in ticks:
        local = clock.when(t)
        new = local.date() != day
        date = f"{local:%a} {local.day} {local:%b}" if new else ""
        labels.append(date if step >= 24 else f"{local:%H:%M}" + (f"\n{date}" if date else ""))
        day = local.date()
    ax.set_xticks(ticks, labels)
    zone = f" ({clock.tz})" if clock.tz else ""
    ax.set_xlabel(f"local time{zone}")
    for panel in axes:
        for t in clock.spanning(start, stop).midnights:
            panel.axvline(t, color=PALE, linewidth=0.8, zorder=0)


def _elapsed(ax, unit: str, start: float, stop: float) -> None:
    """Elapsed time; minutes or hours where a system counts many seconds."""
    shown = unit
    if unit == "s" and stop - start >= 600:
        shown = "min" if stop - start < 6 * 3600 else "h"
    from matplotlib.ticker import MaxNLocator

    ax.set_xlabel(f"time ({shown})")
    if shown != unit:
        k = time_factor(shown, unit)
        ticks = MaxNLocator(9).tick_values(start / k, stop / k)
        ticks = [t for t in ticks if start / k - 1e-9 <= t <= stop / k + 1e-9]
        ax.set_xticks([t * k for t in ticks], [f"{t:g}" for t in ticks])
