"""Pictures for people who treat people: records, fits, posteriors, worlds side by side, contrasts.

Every function returns a matplotlib figure of its own (nothing enters pyplot's global list; a notebook shows it,
`savefig` saves it). Every axis has a unit, times are local clock times where the record has them, bands say which share
of what they hold, and colors are told apart by color-blind eyes (Okabe and Ito 2008).
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from hybridtwin import units
from hybridtwin.clock import Clock
from hybridtwin.outcomes import signed, word
from hybridtwin.plots.axes import PALE as PALE
from hybridtwin.plots.axes import clock_axis as clock_axis
from hybridtwin.signals import Regimen, Signal
from hybridtwin.units import plain, time_factor

BLUE, ORANGE, GREEN, PURPLE, SKY = "#0072B2", "#D55E00", "#009E73", "#8C5AA8", "#56B4E9"
INK, GRAY = "#1b1f24", "#6b7280"
_STRUCTURES = (GREEN, PURPLE, "#A6761D", SKY)
_COLORS = (BLUE, ORANGE, GREEN, PURPLE, SKY)
_TARGET = (70.0, 180.0)  # mg/dL, consensus target range of glucose
_STYLE = {"font.size": 9.0, "font.family": "sans-serif", "axes.edgecolor": GRAY, "axes.labelcolor": INK,
          "text.color": INK, "xtick.color": GRAY, "ytick.color": GRAY, "xtick.labelcolor": INK, "ytick.labelcolor": INK,
          "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.7, "axes.titlesize": 9.5,
          "axes.titleweight": "bold", "axes.titlelocation": "left", "legend.frameon": False, "legend.fontsize": 8.0,
          "lines.linewidth": 1.4, "grid.color": "#e8eaed", "grid.linewidth": 0.6, "svg.fonttype": "none",
          "text.parse_math": False,  # an id such as "$1" is no formula
          "xtick.major.width": 0.7, "ytick.major.width": 0.7, "axes.axisbelow": True}


# ------------------------------------------------------------------------------------------------ figures and axes


@functools.cache
def figure_type():
    from matplotlib.figure import Figure

    class Picture(Figure):
        """A figure that a notebook shows by itself, without pyplot."""

        def _repr_png_(self):
            import io

            out = io.BytesIO()
            self.savefig(out, format="png", dpi=110)
            return out.getvalue()

    return Picture


def styled(function):
    """Draw under the house style, and leave the user's own settings as they were."""
    @functools.wraps(function)
    def drawn(*args, **kwargs):
        import matplotlib

        with matplotlib.rc_context(_STYLE):
            return function(*args, **kwargs)

    return drawn


def panels(heights: Sequence[float], width: float = 9.0, inch: float = 0.72):
    """A figure with stacked panels that share the time axis: (figure, [axes])."""
    figure = figure_type()(figsize=(width, inch * sum(heights) + 0.7), layout="constrained")
    axes = figure.subplots(len(heights), 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": heights})[:, 0]
    figure.align_ylabels(axes)
    return figure, list(axes)


def axis_label(name: str, unit: str) -> str:
    text = word(name)
    return f"{text} ({unit})" if len(text) < 14 else f"{text}\n({unit})"


def _target(ax, name: str, unit: str, of_glucose: bool) -> None:
    """The consensus range of glucose, behind everything."""
    if of_glucose:
        low, high = (units.convert(x, "mg/dL", unit, of="glucose") for x in _TARGET)
        ax.axhspan(low, high, color="#f1f6f2", zorder=-2, linewidth=0)
        for x in (low, high):
            ax.axhline(x, color="#b9cfc0", linewidth=0.7, zorder=-1)


def _is_glucose(name: str, unit: str) -> bool:
    if name.lower() not in ("g", "g_isf", "glucose", "cgm", "bg", "smbg", "cbg"):
        return False
    return units.parse(unit).same_dimension(units.parse("mg/dL")) or \
        units.parse(unit).same_dimension(units.parse("mmol/L"))


def _band(ax, time, draws, color, label, *, alpha=0.25, line: str | None = "-", text="90 % of draws"):
    """Median and 90 % band of (draws, N); the line alone where there is one draw."""
    if len(draws) == 1:
        ax.plot(time, draws[0], line or "-", color=color, label=label)
        return
    low, middle, high = np.nanquantile(draws, [0.05, 0.5, 0.95], axis=0)
    ax.fill_between(time, low, high, color=color, alpha=alpha, linewidth=0, label=f"{label}, {text}" if text else None)
    if line is not None:
        ax.plot(time, middle, line, color=color, label=f"{label}, median" if text else label)


def _structure_medians(ax, time, draws, structure, color=None) -> None:
    """The median of each structure as a thin line, where a twin pools several."""
    kinds = list(dict.fromkeys(np.asarray(structure).tolist()))
    for i, kind in enumerate(kinds if len(kinds) > 1 else []):
        ax.plot(time, np.nanmedian(draws[structure == kind], axis=0), (":", "-.", "--")[i % 3], linewidth=0.9,
                color=color or _STRUCTURES[i % len(_STRUCTURES)], label=f"median of {kind} alone" if color is None else None)


def _legend(ax, **where) -> None:
    handles, labels = ax.get_legend_handles_labels()
    kept = dict(zip(labels, handles, strict=True))
    if kept:
        ax.legend(kept.values(), kept.keys(), loc="lower left", bbox_to_anchor=(0.0, 1.0), borderaxespad=0.2,
                  ncols=min(len(kept), where.pop("ncols", 3)), handlelength=1.6, columnspacing=1.4, **where)


# --------------------------------------------------------------------------------------------------------- inputs


def _stems(ax, times, amounts, color, label, *, behind=False) -> None:
    """Doses as stems, wider and hollow where others may stand in front of them; an unknown amount is a question mark."""
    times, amounts = np.asarray(times, float), np.array([np.nan if a is None else a for a in amounts], float)
    known = np.isfinite(amounts)
    wide = {"linewidth": 3.5, "alpha": 0.4} if behind else {"linewidth": 1.3}
    ax.vlines(times[known], 0, amounts[known], color=color, **wide)
    hollow: dict[str, Any] = {"markersize": 7, "markerfacecolor": "white"} if behind else {"markersize": 3.5}
    ax.plot(times[known], amounts[known], "o", color=color, linestyle="none", label=label, **hollow)
    top = np.max(amounts[known]) if known.any() else 1.0
    for t in times[~known]:
        ax.text(t, 0.1 * top, "?", color=color, ha="center", fontsize=9, fontweight="bold")
    ax.set_ylim(0, max(ax.get_ylim()[1], 1.15 * top))


def _steps(ax, signal: Signal, start, stop, color, label, line="-") -> None:
    """A continuous input over the span."""
    knots = np.asarray(signal.knots, float)
    edges = np.concatenate([[start], knots[(knots > start) & (knots < stop)], [stop]])
    inner = np.repeat(edges, 2)[1:-1].reshape(-1, 2)  # both ends of each piece, told just inside it
    shrink = 1e-9 * max(stop - start, 1.0)
    values = np.column_stack([signal(inner[:, 0]), signal(inner[:, 1] - shrink)])
    ax.plot(inner.ravel(), values.ravel(), line, color=color, linewidth=1.2, label=label)
    top, bottom = max(0.0, float(values.max())), min(0.0, float(values.min()))
    ax.set_ylim(1.15 * bottom, max(1.15 * top, ax.get_ylim()[1] if label else 0.0) or 1.0)


def _inputs_of(person) -> dict[str, tuple[str, Any]]:
    """What was given or eaten, as recorded: name -> (unit, Regimen | Signal | Series)."""
    found: dict[str, tuple[str, Any]] = {}
    for name, series in person.series.items():
        if _is_amount(series.unit) or np.any(series.missing) or _is_rate(series.unit):
            found[name] = (series.unit, series)
    for name, regimen in person.regimens.items():
        found["doses" if name == 0 else str(name)] = (regimen.unit, regimen)
    for name, signal in person.signals.items():
        found[name] = (signal.unit, signal)
    return found


def _is_amount(unit: str) -> bool:
    """g, mg, [IU], mmol: something that is eaten or given (kg is a body weight)."""
    parsed = units.parse(unit)
    return unit != "kg" and any(parsed.same_dimension(units.parse(a)) for a in ("g", "mol", "[IU]", "kcal"))


def _is_rate(unit: str) -> bool:
    """[IU]/h or mg/min: something that is infused."""
    parsed = dict(units.parse(unit).dims)
    return parsed.get("time") == -1 and any(parsed.get(d) == 1 for d in ("mass", "amount", "IU"))


def _in_time_of(clock: Clock, given, own: Clock):
    """What a record gives (its clock counts in minutes, say) on the clock of a twin, whose system may count in seconds."""
    if own.unit == clock.unit:
        return given
    if isinstance(given, Signal | Regimen):
        return dataclasses.replace(given, time=given.time or own.unit).resolve(own, clock.unit, given.unit)
    return dataclasses.replace(given, time=np.asarray(given.time, float) * time_factor(own.unit, clock.unit))


def _draw_input(ax, name, unit, given, clock, color, label=None, behind=False, line="-") -> None:
    """One input on its panel; `behind`: will another be drawn in front of it?"""
    start, stop = clock.start, clock.stop
    if isinstance(given, Signal):
        _steps(ax, given, start, stop, color, label, line)
    elif isinstance(given, Regimen):
        _stems(ax, [d.time for d in given], [d.amount for d in given], color, label, behind=behind)
    elif _is_rate(unit):
        _steps(ax, Signal.steps(given.time, given.value, unit), start, stop, color, label, line)
    else:
        _stems(ax, given.time, given.value, color, label, behind=behind)
    ax.set_ylabel(axis_label(name, unit), rotation=0, ha="right", va="center")
    ax.locator_params(axis="y", nbins=3)


# ----------------------------------------------------------------------------------------------- what people call


@styled
def record(person):
    """Readings and events of a record over time, a panel each: dots for readings, stems for doses and meals."""
    inputs = _inputs_of(person)
    readings = {name: s for name, s in person.series.items() if name not in inputs}
    clock = person.clock
    figure, axes = panels([3.0] * len(readings) + [1.0] * len(inputs) or [1.0])
    for ax, (name, series) in zip(axes, readings.items()):
        _target(ax, name, series.unit, _is_glucose(name, series.unit))
        _readings(ax, series.time, series.value, series.censored)
        ax.set_ylabel(axis_label(name, series.unit))
        ax.grid(axis="y")
        if np.any(series.censored != 0):
            _legend(ax)
    for ax, (name, (unit, given)) in zip(axes[len(readings):], inputs.items()):
        _draw_input(ax, name, unit, given, clock, INK)
    clock_axis(axes, clock, clock.start, clock.stop)
    figure.suptitle(f"Record of {person.id}", x=0.01, ha="left", fontweight="bold", fontsize=10)
    return figure


def _readings(ax, time, value, censored, label="readings") -> None:
    """Dots; triangles where only a limit is known."""
    seen, low, high = censored == 0, censored < 0, censored > 0
    size = 2.2 if len(time) > 150 else 4.0
    ax.plot(time[seen], value[seen], "o", color=INK, markersize=size, linestyle="none", markeredgewidth=0, label=label,
            zorder=4)
    for at, marker, text in ((low, "v", "at or below the limit"), (high, "^", "at or above the limit")):
        if at.any():
            ax.plot(time[at], value[at], marker, color=ORANGE, markersize=5, linestyle="none", label=f"reading {text}",
                    zorder=5)


@styled
def trajectory(traj, names: Sequence[str] | None = None, ax=None):
    """Median and 90 % band of outputs over time; outputs that share a unit share a panel. Returns the figure.

    names: outputs to draw (default: the first). ax: axes to draw on, for outputs of one unit.
    """
    names = tuple(names or (next(iter(traj.values)),))
    by_unit: dict[str, list[str]] = {}
    for name in names:
        traj[name]  # an unknown output is told by the trajectory itself
        by_unit.setdefault(traj.units[name], []).append(name)
    if ax is None:
        figure, axes = panels([3.0] * len(by_unit))
    else:
        figure, axes = ax.figure, [ax] * len(by_unit)
    good = ~np.asarray(traj.failed)
    for panel, (unit, group) in zip(axes, by_unit.items()):
        if all(_is_glucose(n, unit) for n in group):
            _target(panel, group[0], unit, True)
        for name, color in zip(group, _COLORS * 9):
            _band(panel, traj.time, traj[name][good], color, f"{word(name)} ({traj.label})")
        if len(group) == 1:
            _structure_medians(panel, traj.time, traj[group[0]][good], np.asarray(traj.structure)[good])
        panel.set_ylabel(axis_label(group[0], unit) if len(group) == 1 else f"({unit})")
        panel.grid(axis="y")
        _legend(panel)
    clock_axis(axes, traj.clock, float(traj.time[0]), float(traj.time[-1]))
    return figure


def _draw_predicted(ax, p) -> None:
    """Predictive band, band of the modelled value, and the readings of one sensor."""
    low, high = np.nanquantile(p.readings, [0.05, 0.95], axis=0)
    ax.fill_between(p.time, low, high, color=SKY, alpha=0.28, linewidth=0, label="new readings, 90 % (predicted)")
    low, middle, high = np.nanquantile(p.expectation, [0.05, 0.5, 0.95], axis=0)
    ax.fill_between(p.time, low, high, color=BLUE, alpha=0.45, linewidth=0, label="modelled value, 90 % (expected)")
    ax.plot(p.time, middle, color=BLUE, linewidth=1.2, label="modelled value, median")
    _readings(ax, np.asarray(p.observed_time, float), np.asarray(p.observed_value, float), np.asarray(p.censored))
    ax.set_ylabel(axis_label(p.sensor, p.unit))
    ax.grid(axis="y")


@styled
def predicted(p):
    """One sensor: readings over what was expected and predicted. Returns the figure."""
    figure, axes = panels([4.0])
    _draw_predicted(axes[0], p)
    _legend(axes[0])
    clock_axis(axes, p.clock, float(p.time[0]), float(p.time[-1]))
    return figure


@styled
def check(found):
    """Readings over what the prior expects of them, sensor by sensor. Returns the figure."""
    figure, axes = panels([3.0] * len(found.modelled))
    for ax, (name, draws) in zip(axes, found.modelled.items()):
        time, order = found.time[name], np.argsort(found.time[name])
        low, middle, high = np.nanquantile(draws[:, order], [0.025, 0.5, 0.975], axis=0)
        ax.fill_between(time[order], low, high, color=GRAY, alpha=0.3, linewidth=0, label="prior, 95 % of modelled values")
        ax.plot(time[order], middle, color=GRAY, linewidth=1.2, label="prior, median")
        _readings(ax, time, found.observed[name], np.zeros(len(time), int))
        ax.set_ylabel(axis_label(name, found.units[name]))
        _legend(ax)
    every = np.concatenate(list(found.time.values()))
    clock_axis(axes, found.clock, float(every.min()), float(every.max()))
    return figure


@styled
def people(twins):
    """Parameters of everybody in the first structure: median and 90 % interval, one panel a parameter. Returns the figure."""
    table = twins.summary()
    table = table[(table["structure"] == table["structure"].iloc[0]) & ~table["parameter"].str.contains("@")]
    names = list(dict.fromkeys(table["parameter"]))
    figure, axes = panels([0.4 + 0.22 * len(twins)] * len(names))
    for ax, name in zip(axes, names):
        rows = table[table["parameter"] == name]
        at = np.arange(len(rows))
        ax.hlines(at, rows["q05"], rows["q95"], color=BLUE, linewidth=2.5, alpha=0.5)
        ax.plot(rows["q50"], at, "o", color=BLUE, markersize=4)
        ax.set_yticks(at, list(rows["person"]))
        ax.set_title(f"{name} ({rows['unit'].iloc[0]})", loc="left", fontsize=9)
        ax.tick_params(labelbottom=True)
    return figure


@styled
def fit(twin, predicted=None):
    """Readings over what the twin expects and what it predicts new readings to be, sensor by sensor.

    The narrow band holds 90 % of the draws of the modelled value; the wide one 90 % of new readings, sensor error
    included. About nine readings in ten should lie inside the wide one. predicted: what `twin.predict()` returned, if
    it is at hand.
    """
    predicted = twin.predict() if predicted is None else predicted
    inputs = _inputs_of(twin.record)
    figure, axes = panels([4.0] * len(predicted) + [0.9] * len(inputs))
    for ax, (name, p) in zip(axes, predicted.items()):
        time = np.asarray(p.time, float)
        model_of = twin.fits[0].model.sensors.get(name) if getattr(twin, "fits", ()) else None
        reads = model_of.of if model_of is not None else name
        _target(ax, name, p.unit, _is_glucose(reads, p.unit) or _is_glucose(name, p.unit))
        _draw_predicted(ax, p)
        _structure_medians(ax, time, p.expectation, _structure_of(twin, len(p.expectation)))
        _legend(ax)
    clock = twin.clock
    for ax, (name, (unit, given)) in zip(axes[len(predicted):], inputs.items()):
        _draw_input(ax, name, unit, _in_time_of(clock, given, twin.record.clock), clock, INK)
    clock_axis(axes, clock, clock.start, clock.stop)
    return figure


def structure_names(twin) -> list[str]:
    """Name of each structure of a twin."""
    return [f.model.name for f in twin.fits]


def _structure_of(twin, count: int) -> np.ndarray:
    """Structure of each of `count` pooled draws: a twin simulates the same number of draws of each, in their order."""
    names = structure_names(twin)
    share = [min(f.count, twin.draws_of(i)) for i, f in enumerate(twin.fits)]
    return np.repeat(names, share) if sum(share) == count else np.full(count, names[0])


_MOST = 30


def _pairs(twin) -> dict[str, list[tuple[str, str, np.ndarray, np.ndarray]]]:
    """Parameter -> [(structure, unit, prior draws, posterior draws)], personal parameters before sensors."""
    from hybridtwin.fit import unit_of

    found: dict[str, list] = {}
    for each in twin.fits:
        for name in (site.name for site in each.kernel.sites):
            prior, post = np.asarray(each.prior_values[name], float), np.asarray(each.values[name], float)
            if prior.ndim == 1 and post.ndim == 1:
                found.setdefault(name, []).append((each.model.name, unit_of(each.model, name), prior, post))
    return dict(list(found.items())[:_MOST])


def _density(draws, positive):
    """Gaussian kernel density of draws, on the log axis where they are positive: (x, density per unit of that axis)."""
    z = np.log(draws) if positive else draws
    low, high = np.quantile(z, [0.25, 0.75])
    spread = min(z.std(), (high - low) / 1.34) or z.std() or 1.0
    width = 0.9 * spread * len(z) ** -0.2
    grid = np.linspace(z.min() - 3 * width, z.max() + 3 * width, 160)
    density = np.exp(-0.5 * ((grid[:, None] - z[None, :]) / width) ** 2).mean(axis=1) / (width * np.sqrt(2 * np.pi))
    return (np.exp(grid) if positive else grid), density


def _log_ticks(low, high) -> list[float]:
    """At most four round numbers on a logarithmic axis."""
    for steps in ((1, 2, 5), (1, 3), (1,)):
        powers = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
        found = [m * 10.0**k for k in powers for m in steps if low <= m * 10.0**k <= high]
        if len(found) <= 4:
            return found
    return found[:: -(-len(found) // 4)]


@styled
def priors_posteriors(twin):
    """What the record has added: each parameter's posterior over its prior, the structures in colors of their own."""
    from matplotlib.ticker import NullFormatter, NullLocator

    pairs = _pairs(twin)
    columns = min(5, max(len(pairs), 1))
    rows = -(-max(len(pairs), 1) // columns)
    figure = figure_type()(figsize=(9.0, 1.35 * rows + 0.5), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    names = structure_names(twin)
    for ax, (name, group) in zip(axes, pairs.items()):
        every = np.concatenate([np.concatenate(pair[2:]) for pair in group])
        positive = bool((every > 0).all()) and np.quantile(every, 0.95) > 4 * np.quantile(every, 0.05)
        for i, (structure, _, prior, post) in enumerate(group):
            color = BLUE if len(names) == 1 else _STRUCTURES[names.index(structure) % len(_STRUCTURES)]
            if i == 0:
                ax.fill_between(*_density(prior, positive), color=PALE, linewidth=0, label="prior")
            label = "posterior" if len(names) == 1 else f"posterior, {structure}"
            ax.plot(*_density(post, positive), color=color, label=label)
        edges = np.quantile(every, [0.003, 0.997])
        if positive:
            ax.set_xscale("log")
            ax.xaxis.set_minor_locator(NullLocator())
            ax.xaxis.set_minor_formatter(NullFormatter())
            ax.set_xticks(ticks := _log_ticks(*edges), [f"{t:g}" for t in ticks])
        else:
            ax.locator_params(axis="x", nbins=4)
        ax.set_xlim(*edges)
        ax.set_ylim(bottom=0)
        ax.set_yticks([])
        ax.spines["left"].set_visible(False)
        ax.set_title(name, fontsize=8)
        ax.set_xlabel(f"({group[0][1]})", fontsize=7, labelpad=1)
        ax.tick_params(labelsize=7, pad=1)
    for ax in axes[len(pairs):]:
        ax.set_axis_off()
    handles = {}
    for ax in axes[:len(pairs)]:
        handles |= dict(zip(*ax.get_legend_handles_labels()[::-1], strict=True))
    figure.legend(handles.values(), handles.keys(), loc="outside upper left", ncols=4, fontsize=8)
    return figure


def refused(contrast) -> bool:
    """Whether a comparison may not be shown: under DO NOT USE no number of it is."""
    return contrast.verdict.headline == "DO NOT USE"


def _refusal(contrast):
    """The picture of a comparison that may not be shown: why."""
    reasons = [f"{name}: {reason}" for name, part in contrast.verdict.parts.items() for reason in part.reasons
               if part.level == "DO NOT USE"]
    text = "DO NOT USE: no comparison is shown\n" + "\n".join(reasons)
    figure = figure_type()(figsize=(9.0, 0.7 + 0.2 * len(reasons)))
    figure.text(0.02, 0.9, text, va="top", wrap=True, fontsize=9)
    return figure


@styled
def worlds(contrast):
    """Two worlds of one body side by side: what is modelled in each, and below it what was done differently.

    The shaded stretch is the window that is asked about. Bands of one color hold 90 % of the draws of that world; draws
    are paired, so the worlds may differ clearly where their bands overlap (see the contrast).
    """
    if refused(contrast):
        return _refusal(contrast)
    first, second = contrast.trajectories
    names = list(dict.fromkeys(row.outcome.name for row in contrast.rows if row.outcome.name))
    names = names or [next(iter(first.values))]
    windows = [row.outcome.window(first) for row in contrast.rows if row.outcome.name]
    start, stop = _stretch(first, windows)
    changed = _changed(contrast)
    done = "" if contrast.twin.rules else "; ".join(do.told(first.clock, windows=False) for do in contrast.twin.dos)
    asked = _short(done or first.label)
    figure, axes = panels([3.6] * len(names[:3]) + [1.0] * len(changed))
    for ax, name in zip(axes, names[:3]):
        unit = first.units[name]
        _target(ax, name, unit, _is_glucose(name, unit))
        for traj, label, color, line in ((second, _short(second.label), BLUE, "--"), (first, asked, ORANGE, "-")):
            good, near = ~np.asarray(traj.failed), (traj.time >= start) & (traj.time <= stop)
            time, draws = np.asarray(traj.time)[near], traj[name][good][:, near]
            _band(ax, time, draws, color, label, line=line)
            _structure_medians(ax, time, draws, np.asarray(traj.structure)[good], color)
        ax.set_ylabel(axis_label(name, unit))
        ax.grid(axis="y")
        _legend(ax, ncols=2)
    for ax, (name, unit, given) in zip(axes[len(names[:3]):], changed):
        clock, both = first.clock.spanning(start, stop), ((given[1], BLUE, "--", True), (given[0], ORANGE, "-", False))
        for thing, color, line, behind in both if _told(given[0]) != _told(given[1]) else ((given[0], INK, "-", False),):
            inside = thing if isinstance(thing, Signal) else thing.only(start, stop)
            _draw_input(ax, name, unit, inside, clock, color, " ", behind, line)
    for ax in axes:
        for low, high in dict.fromkeys(windows):
            if (low, high) != (start, stop):
                high = max(high, low + (stop - start) / 300)  # a moment is asked about, too
                ax.axvspan(low, high, color="#ffedb8", alpha=0.5, zorder=-1.5, linewidth=0)
    clock_axis(axes, first.clock, start, stop)
    return figure


def _short(label: str, most: int = 48) -> str:
    return label if len(label) <= most else label[:most - 3] + "..."


def _stretch(traj, windows) -> tuple[float, float]:
    """The part of the day that is shown: the windows asked about with some hours around them."""
    first, last = float(traj.time[0]), float(traj.time[-1])
    if not windows:
        return first, last
    low, high = min(w[0] for w in windows), max(w[1] for w in windows)
    room = 0.35 * (high - low)
    return max(first, low - room), min(last, high + room)


def _changed(contrast) -> list[tuple[str, str, tuple[Any, Any]]]:
    """The inputs that differ between the worlds, each with its unit: (name, unit, (in the first, in the second))."""
    spec, (first, second) = contrast.twin.fits[0].model.spec, contrast.worlds
    found = []
    for name in (*spec.doses, *spec.signals):
        pair = (first.inputs[name], second.inputs[name])
        if _told(pair[0]) != _told(pair[1]):
            found.append((name, (spec.doses.get(name) or spec.signals[name]).unit, pair))
    meals = [n for n in spec.doses if n not in {f[0] for f in found} and len(second.inputs[n])] if found else []
    return found + [(n, spec.doses[n].unit, (first.inputs[n], second.inputs[n])) for n in meals[:2]]


def _told(given) -> Any:
    """What makes two inputs the same."""
    if isinstance(given, Signal):
        return tuple(array.tobytes() for array in given.pieces())
    return tuple((d.time, d.amount, d.duration, d.rate) for d in given)


@styled
def contrast(effect):
    """Each outcome's difference between the worlds: median and 90 % interval, for her and for a person like her.

    Blue: the twin, which has learned from the record. Gray: the same model before it saw the record. Where the two
    agree, the answer is the model's, not the person's. Green marks the side that is better.
    """
    if refused(effect):
        return _refusal(effect)
    rows = list(effect.rows)
    figure = figure_type()(figsize=(9.0, 1.05 * len(rows) + 0.6), layout="constrained")
    axes = figure.subplots(len(rows), 1, squeeze=False)[:, 0]
    for ax, row in zip(axes, rows):
        spans = []
        for height, draws, color, label in ((1.0, row.effect, BLUE, "personal (learned from the record)"),
                                            (0.0, row.prior_effect, GRAY, "prior only (the model before it saw the record)")):
            if draws is None:
                continue
            low, middle, high = np.nanquantile(draws, [0.05, 0.5, 0.95])
            if row.event:  # a difference of zeros and ones has a mean, which is that of two chances, and no telling quantiles
                low = middle = high = float(np.nanmean(draws))
            ax.plot([low, high], [height, height], color=color, linewidth=5, alpha=0.45, solid_capstyle="butt")
            told = label + ": median and 90 % interval"
            ax.plot(middle, height, "o", color=color, markersize=5, zorder=7, label=told)
            said = signed if row.scale == "difference" else plain
            text = f"{said(middle)} ({said(low)} to {said(high)})" if not row.event else said(middle)
            text = text.replace("-", "−")
            ax.text(1.01, height, text, color=color, va="center", fontsize=7.5, transform=ax.get_yaxis_transform())
            spans += [low, high]
        same = 0.0 if row.scale == "difference" else 1.0  # where the worlds do not differ
        low, high = min([same, *spans]), max([same, *spans])
        room = 0.15 * (high - low) or 1.0
        low, high = low - room, high + room
        ax.set_xlim(low, high)
        ax.axvline(same, color=INK, linewidth=0.8)
        if row.better is not None:
            ax.axvspan(*((low, same) if row.better == "lower" else (same, high)), color="#e3f2ea", zorder=-2, linewidth=0)
            ax.text(low if row.better == "lower" else high, -0.62, "better", color=GREEN, fontsize=7.5,
                    ha="left" if row.better == "lower" else "right", va="bottom")
        ax.set_ylim(-0.75, 1.5)
        ax.set_yticks([])
        ax.spines["left"].set_visible(False)
        ax.set_title(("watched for harm: " if row.harm else "") + row.outcome.label, fontsize=8.5, fontweight="normal")
        step = "percentage points" if row.unit == "%" else row.unit
        told = "difference of the chances" if row.event else f"difference ({step})" if row.scale == "difference" else "ratio"
        ax.set_xlabel(told, fontsize=7.5, labelpad=1)
        ax.tick_params(labelsize=7.5)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper left", ncols=2, fontsize=8)
    return figure
