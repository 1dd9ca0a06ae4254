"""Pictures of decisions: all candidates side by side, track records, cohorts of effects, the worth of readings.

None of them marks one candidate as the answer: the lowest risk and what the draws do not tell from it look alike.
"""

import textwrap

import numpy as np

from hybridtwin.plots import (
    BLUE,
    GRAY,
    GREEN,
    INK,
    ORANGE,
    PALE,
    SKY,
    axis_label,
    clock_axis,
    figure_type,
    panels,
    styled,
)

_WIDE = 105  # characters of a line over a picture
_MOST = 40  # candidates on one picture: those of the lowest risk


def _rows(count, inch=0.26, least=1.6):
    return max(least, inch * count + 1.3)


def _names(ax, labels):
    ax.set_yticks(range(len(labels)), [label if len(label) < 60 else label[:57] + "..." for label in labels], fontsize=7.5)
    ax.set_ylim(len(labels) - 0.4, -0.6)


@styled
def decision(found):
    """Chances of the range, risk with its Monte Carlo error, and harm; what misses a limit is gray. Returns the figure."""
    order = np.argsort(np.where(found.feasible, found.risks, np.inf), kind="stable")[:_MOST]
    options = [found.options[i] for i in order]
    at, labels = np.arange(len(order)), [o.label for o in options]
    harms = found.harms[:2]
    figure = figure_type()(figsize=(10.5, _rows(len(order))), layout="constrained")
    axes = figure.subplots(1, 2 + len(harms), sharey=True, squeeze=False)[0]
    colors = [BLUE if found.feasible[i] else GRAY for i in order]
    if found.aim.ranged:
        left = np.zeros(len(order))
        shares = np.array([found.aim.shares(o.value) for o in options])
        for k, (word, color) in enumerate((("below", SKY), ("in range", GREEN), ("above", ORANGE))):
            axes[0].barh(at, shares[:, k], left=left, color=color, height=0.72, alpha=0.85, label=word)
            left += shares[:, k]
        axes[0].set(xlim=(0, 1), xlabel="probability")
        axes[0].legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
    else:
        _spans(axes[0], [o.value for o in options], colors)
        axes[0].set_xlabel(axis_label(found.short(found.aim.outcome), found.aim.unit or "1"))
    _names(axes[0], labels)
    axes[1].errorbar(found.risks[order], at, xerr=2 * found.errors[order], fmt="none", ecolor=PALE, elinewidth=4)
    for i, y in zip(order, at, strict=True):
        filled = found.tied[i]
        axes[1].plot(found.risks[i], y, "o", color=colors[y], markersize=5, markerfacecolor=colors[y] if filled else "white")
    axes[1].axvline(found.risk.of(found.reference.loss), color=INK, linewidth=0.8, linestyle=":")
    told = "filled: not told from the lowest; gray: misses a limit"
    axes[1].set_xlabel(f"{found.risk}\n{told}\ndotted: {found.reference.label[:40]}")
    for ax, harm, k in zip(axes[2:], harms, range(len(harms)), strict=True):
        _spans(ax, [o.harms[k] for o in options], [ORANGE] * len(order))
        ax.set_xlabel(textwrap.fill(f"harm: {found.short(harm)} ({harm.unit})", 26))
    figure.suptitle(_headline(found), fontsize=9.5, fontweight="bold", x=0.01, ha="left")
    return figure


def _headline(found) -> str:
    taken = f", taken on record: {found.accepted}" if found.accepted else ""
    none = "" if found.order.size else "; no candidate meets every limit"
    told = f"verdict {found.verdict.headline}{taken}{none}. Research use; not a medical device."
    return "\n".join([f"{found.twin.id}: {found.aim}", *textwrap.wrap(told, _WIDE)])


def _spans(ax, draws, colors):
    """Median and 90 % interval of each of some arrays of draws, one under the other."""
    for y, (values, color) in enumerate(zip(draws, colors, strict=True)):
        low, middle, high = np.nanquantile(values, [0.05, 0.5, 0.95])
        ax.plot([low, high], [y, y], color=color, linewidth=4, alpha=0.4, solid_capstyle="butt")
        ax.plot(middle, y, "o", color=color, markersize=4)


@styled
def cohort(found):
    """Everybody's own effect, sorted, and the average of all with its interval, a panel an outcome. Returns the figure."""
    rows = found.rows[:4]
    count = max(len(row.people) for row in rows)
    figure = figure_type()(figsize=(4.2 * len(rows), min(_rows(count, 0.16), 9.0)), layout="constrained")
    axes = figure.subplots(1, len(rows), squeeze=False)[0]
    if found.verdict.headline == "DO NOT USE":
        figure.suptitle("DO NOT USE: no effects are shown", fontsize=9.5)
        rows = ()
    for ax, row in zip(axes, rows, strict=False):
        order = np.argsort(np.nanmedian(row.effects, axis=1), kind="stable")
        low, middle, high = np.nanquantile(row.average, [0.05, 0.5, 0.95])
        ax.axvspan(low, high, color=ORANGE, alpha=0.25, linewidth=0, label="average, 90 %")
        ax.axvline(middle, color=ORANGE)
        _spans(ax, row.effects[order], [BLUE] * len(order))
        ax.axvline(0.0 if row.scale == "difference" else 1.0, color=INK, linewidth=0.8)
        _names(ax, [row.people[i] for i in order] if len(order) <= _MOST else [])
        ax.set_title(("watched for harm: " if row.harm else "") + row.outcome.label, fontsize=8)
        ax.set_xlabel("ratio" if row.scale == "ratio" else f"difference ({row.unit})")
        ax.legend(loc="upper right")
    return figure


@styled
def track(found):
    """Readings after each past event over the band that was predicted before it; orange outside it. Returns the figure."""
    sensors = list(dict.fromkeys(event.sensor for event in found.events))
    figure, axes = panels([3.6] * len(sensors))
    for ax, sensor in zip(axes, sensors, strict=True):
        own = [event for event in found.events if event.sensor == sensor]
        for k, e in enumerate(own):
            band = "90 % of new readings" if not k else None
            ax.fill_between(e.time, e.low, e.high, color=BLUE, alpha=0.22, linewidth=0, label=band)
            ax.plot(e.time, e.middle, color=BLUE, label="median, predicted before" if not k else None)
            ax.plot(e.time, e.prior, color=GRAY, linewidth=0.9, linestyle="--", label="prior alone" if not k else None)
            ax.axvline(e.start, color=PALE, linewidth=0.9, zorder=0)
            out = np.abs(e.rank - 0.5) > 0.45
            ax.plot(e.time[~out], e.observed[~out], ".", color=INK, markersize=3.5, label="read, inside" if not k else None)
            ax.plot(e.time[out], e.observed[out], ".", color=ORANGE, markersize=4.5, label="read, outside" if not k else None)
        ax.set_ylabel(axis_label(sensor, own[0].unit))
        ax.grid(axis="y")
        ax.legend(ncols=5, loc="lower left", bbox_to_anchor=(0.0, 1.0))
    first, last = min(e.start for e in found.events), max(float(e.time.max()) for e in found.events)
    clock_axis(axes, found.clock, first, last + 1e-3 * (last - first) + 1e-9)
    return figure


@styled
def readings(found):
    """Worth of each further reading with its Monte Carlo error, and of full knowledge (dotted). Returns the figure."""
    figure = figure_type()(figsize=(7.5, _rows(len(found.rows))), layout="constrained")
    ax = figure.subplots()
    at = np.arange(len(found.rows))
    worth, error = ([getattr(row, name) for row in found.rows] for name in ("worth", "error"))
    ax.barh(at, worth, xerr=2 * np.array(error), color=BLUE, height=0.6, ecolor=GRAY)
    for y, row in zip(at, found.rows, strict=True):
        told = f"changes the choice: {row.changes_text}"
        ax.text(0.99, y, told, transform=ax.get_yaxis_transform(), ha="right", va="center", fontsize=7)
    ax.axvline(found.perfect, color=INK, linewidth=0.9, linestyle=":")
    _names(ax, [row.label for row in found.rows])
    ax.set_xlim(0, 1.35 * found.perfect if found.perfect > 1e-9 else 1.0)
    ax.set_xlabel("loss saved on average; dotted: full knowledge of the body")
    figure.suptitle(_headline(found.decision), fontsize=8, x=0.01, ha="left")
    return figure
