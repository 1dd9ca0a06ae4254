"""Pictures of what an outcome rests on: shares of inputs, parameters of the body, readings over the day."""

import numpy as np

from hybridtwin.errors import NotTrustworthy
from hybridtwin.outcomes import signed
from hybridtwin.plots import BLUE, GRAY, INK, ORANGE, figure_type, styled

_MOST = 10  # bars of one panel


@styled
def explanation(found):
    """Shares of inputs, what a tenth more of each parameter goes with, and what readings do by being there, all in one unit.

    **Raises:** NotTrustworthy under DO NOT USE.
    """
    if found.refused:
        raise NotTrustworthy("the verdict is DO NOT USE, so no number of this explanation is drawn. Its .text gives the reasons.")
    unit = f" ({found.outcome.unit})" if found.outcome.unit not in (None, "", "1") else ""
    panels = [part for part in (_shares(found), _parameters(found), _readings(found)) if part[1]]
    heights = [max(len(rows), 2) for _, rows in panels]
    figure = figure_type()(figsize=(8.5, 1.1 * len(panels) + 0.27 * sum(heights) + 0.5), layout="constrained")
    axes = figure.subplots(len(panels), 1, squeeze=False, gridspec_kw={"height_ratios": heights})[:, 0]
    for ax, (title, rows) in zip(axes, panels, strict=True):
        _bars(ax, rows)
        ax.set_title(title)
        ax.set_xlabel(f"{_short(found.outcome.label)}{unit}")
    figure.suptitle(found.outcome.label, fontsize=10)
    return figure


def _short(label: str) -> str:
    return "change of " + label.split(",")[0]


def _bars(ax, rows):
    """Points with intervals from zero; hollow where a number is not to be trusted, and none where it is not known."""
    for at, (_, low, middle, high, sure) in enumerate(reversed(rows)):
        color, told = ORANGE if middle > 0 else BLUE, signed(middle) if np.isfinite(middle) else "unknown"
        ax.barh(at, middle, height=0.62, color=color if sure else "none", edgecolor=color, alpha=0.75 if sure else 1.0)
        if np.isfinite(low):
            ax.plot([low, high], [at, at], color=INK, lw=1.1)
        ax.text(1.005, at, told, transform=ax.get_yaxis_transform(), va="center", fontsize=7.5, color=GRAY)
    ax.axvline(0.0, color=GRAY, lw=0.7)
    ax.set_yticks(range(len(rows)), [row[0] for row in reversed(rows)])
    ax.tick_params(axis="y", labelsize=7.5)
    ax.set_ylim(-0.6, len(rows) - 0.4)


def _shares(found):
    s = found.shares
    if s is None:
        return "", []
    solved = np.isfinite(s.total)
    rows = [(s.players[i].label, *np.quantile(s.draws[i, solved], [0.05, 0.5, 0.95]), True) for i in s.order[:_MOST]]
    return "What the inputs of the day did (shares add up to the whole; line: 90 %)", rows


def _parameters(found):
    rows = []
    for s in found.sensitivity.slopes:
        if s.kind == "parameter" and np.isfinite(s.draws).any() and s.quantile(0.5):
            low, middle, high = sorted(s.quantile(q) * 0.1 * abs(s.value) for q in (0.05, 0.5, 0.95))
            rows.append((f"{s.label} ({s.structure})" if s.structure else s.label, low, middle, high, True))
    rows.sort(key=lambda row: -abs(row[2]))
    return "What a tenth more of a parameter goes with (line: 90 %)", rows[:_MOST]


def _readings(found):
    rows = []
    for i in found.stretches.order[:_MOST]:
        r = found.stretches.readings[i]  # unknown where these rule alone, which is no bar of zero
        shift = r.shift if r.trusted else float(r.gaussian)
        rows.append((f"{r.label} ({r.count})", np.nan, shift, np.nan, r.trusted))
    return "What readings do to the mean by being there (hollow: a guess)", rows
