"""Pictures for people who look at cohorts: goodness of fit, individual curves, predictive checks, NPDE, random effects.

Trends are running medians over points of equal count, so that they
promise no more than the points do.
"""

import numpy as np

from hybridtwin.plots import BLUE, GRAY, INK, ORANGE, PALE, SKY, axis_label, figure_type, styled

_MOST = 16  # people on one page of individual curves


def _trend(ax, x, y) -> None:
    """Running median of y along x."""
    keep = np.isfinite(x) & np.isfinite(y)
    x, y = np.asarray(x)[keep], np.asarray(y)[keep]
    if len(x) < 12:
        return
    order = np.argsort(x, kind="stable")
    parts = [part for part in np.array_split(order, min(9, len(x) // 6)) if len(part)]
    ax.plot(
        [np.median(x[p]) for p in parts], [np.median(y[p]) for p in parts], color=ORANGE, linewidth=1.6, label="trend"
    )


def _grid(rows: int, columns: int, width: float, height: float):
    figure = figure_type()(figsize=(width * columns, height * rows + 0.3), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def _time(frame) -> str:
    return f"time ({frame.attrs.get('time', 'system time')})"


@styled
def goodness(found):
    """DV against PRED and IPRED on the identity line, CWRES against PRED and time; a row a sensor. Errors as in plots.py."""
    names = list(dict.fromkeys(found.table["sensor"]))
    figure, axes = _grid(len(names), 4, 3.0, 2.9)
    for row, name in zip(axes, names, strict=True):
        part = found.table[found.table["sensor"] == name]
        plain, unit = part[part["censored"] == 0], part["unit"].iloc[0]
        for ax, column, word in ((row[0], "pred", "typical prediction"), (row[1], "ipred", "individual prediction")):
            ax.scatter(plain[column], plain["dv"], s=13, color=BLUE, alpha=0.65, linewidth=0)
            top = float(np.max(part[[column, "dv"]].to_numpy())) * 1.05
            low = min(0.0, float(np.min(part[[column, "dv"]].to_numpy())))
            ax.plot([low, top], [low, top], color=GRAY, linewidth=0.9, label="identity")
            _trend(ax, plain[column], plain["dv"])
            ax.set(xlabel=axis_label(word, unit), ylabel=axis_label(name, unit), xlim=(low, top), ylim=(low, top))
        for ax, column, word in (
            (row[2], "pred", axis_label("typical prediction", unit)),
            (row[3], "time", _time(found.table)),
        ):
            ax.axhspan(-1.96, 1.96, color=SKY, alpha=0.16, linewidth=0)
            ax.axhline(0.0, color=GRAY, linewidth=0.9)
            ax.scatter(plain[column], plain["cwres"], s=13, color=BLUE, alpha=0.65, linewidth=0)
            _trend(ax, plain[column], plain["cwres"])
            reach = max(3.2, 1.08 * float(np.max(np.abs(plain["cwres"].dropna().to_numpy()), initial=0.0)))
            ax.set(xlabel=word, ylabel="conditional weighted residual", ylim=(-reach, reach))
        row[0].legend(loc="upper left")
        row[0].set_title(f"{name}: typical")
        row[1].set_title("individual")
        row[2].set_title("residuals, 95 % band")
    return figure


@styled
def individuals(found, people=None):
    """Readings over everybody's own curve and the typical one; of one sensor a page, all sensors stacked a person."""
    everybody = list(dict.fromkeys(found.table["person"]))
    people = [str(p) for p in people] if people is not None else everybody[:_MOST]
    names = list(dict.fromkeys(found.table["sensor"]))
    pairs = [(p, n) for p in people for n in names]
    columns = min(4, max(1, len(pairs)))
    figure, axes = _grid(-(-len(pairs) // columns), columns, 2.6, 1.9)
    for ax in axes.ravel()[len(pairs) :]:
        ax.set_axis_off()
    for i, (ax, (person, name)) in enumerate(zip(axes.ravel(), pairs, strict=False)):
        seen, curve = (t[(t["person"] == person) & (t["sensor"] == name)] for t in (found.table, found.curves))
        if not len(seen):
            ax.set_axis_off()
            continue
        ax.plot(curve["time"], curve["pred"], color=GRAY, linewidth=1.0, linestyle="--", label="typical")
        ax.plot(curve["time"], curve["ipred"], color=BLUE, label="own")
        plain, censored = seen[seen["censored"] == 0], seen[seen["censored"] != 0]
        ax.scatter(plain["time"], plain["dv"], s=14, color=INK, zorder=3, label="read")
        if len(censored):
            ax.scatter(
                censored["time"],
                censored["dv"],
                s=20,
                marker="v",
                facecolor="none",
                edgecolor=ORANGE,
                zorder=3,
                label="censored",
            )
        ax.set_title(person if len(names) == 1 else f"{person}, {name}")
        ax.set_ylim(bottom=min(0.0, float(seen["dv"].min())))
        if i % columns == 0:
            ax.set_ylabel(axis_label(name, seen["unit"].iloc[0]))
        if i >= len(pairs) - columns:
            ax.set_xlabel(_time(found.table))
    axes[0, 0].legend()
    return figure


@styled
def vpc(found):
    """Readings, their percentiles, and the 90 % intervals of simulated percentiles; below, the share that is censored."""
    names = list(dict.fromkeys(found.table["sensor"]))
    censored = {n: bool(found.table[(found.table["sensor"] == n)]["percentile"].isna().any()) for n in names}
    rows = 2 if any(censored.values()) else 1
    figure = figure_type()(figsize=(5.2 * len(names), 3.7 + 1.5 * (rows - 1)), layout="constrained")
    axes = figure.subplots(rows, len(names), squeeze=False, gridspec_kw={"height_ratios": [3, 1][:rows]}, sharex="col")
    for column, name in zip(axes.T, names, strict=True):
        ax, part = column[0], found.table[found.table["sensor"] == name]
        seen = found.readings[(found.readings["sensor"] == name) & (found.readings["censored"] == 0)]
        ax.scatter(seen["time"], seen["value"], s=9, color=GRAY, alpha=0.55, linewidth=0, label="read")
        for q, color in ((5.0, SKY), (50.0, ORANGE), (95.0, SKY)):
            line = part[part["percentile"] == q].sort_values("time")
            told = {5.0: "simulated 5 and 95 %", 50.0: "simulated median"}.get(q)
            ax.fill_between(line["time"], line["q05"], line["q95"], color=color, alpha=0.3, linewidth=0, label=told)
            ax.plot(line["time"], line["observed"], color=BLUE if q != 50 else INK, linestyle="-" if q == 50 else "--",
                    label={5.0: "observed 5 and 95 %", 50.0: "observed median"}.get(q))  # fmt: skip
        edges = part[part["percentile"] == 50.0]["time"]
        ax.plot(
            edges,
            np.zeros(len(edges)),
            "|",
            color=GRAY,
            transform=ax.get_xaxis_transform(),
            markersize=7,
            clip_on=False,
        )
        unit = found.units[name]
        ax.set_ylabel(axis_label(name + (", prediction-corrected" if found.corrected else ""), unit))
        ax.set_title(f"{name}, {found.replicates} simulated cohorts")
        ax.legend()
        if rows == 2:
            below, line = column[1], part[part["percentile"].isna()].sort_values("time")
            if censored[name]:
                below.fill_between(line["time"], line["q05"], line["q95"], color=ORANGE, alpha=0.3, linewidth=0)
                below.plot(line["time"], line["observed"], color=INK)
                below.set_ylabel("censored (%)")
                below.set_ylim(0, None)
            else:
                below.set_axis_off()
        column[-1].set_xlabel(_time(found.readings))
    return figure


@styled
def npde(found):
    """Quantiles and histogram against the standard normal, NPDE against time and prediction."""
    from scipy.special import ndtri
    from scipy.stats import norm

    x = found.table["npde"].dropna().to_numpy()
    figure, axes = _grid(2, 2, 3.9, 2.8)
    ranks = (np.arange(1, len(x) + 1) - 0.5) / len(x)
    quantiles, line = ndtri(ranks), np.array([-3.2, 3.2])
    spread = 1.96 * np.sqrt(ranks * (1 - ranks) / len(x)) / norm.pdf(quantiles)
    axes[0, 0].fill_between(
        quantiles, quantiles - spread, quantiles + spread, color=SKY, alpha=0.25, linewidth=0, label="95 % if right"
    )
    axes[0, 0].plot(line, line, color=GRAY, linewidth=0.9)
    axes[0, 0].scatter(quantiles, np.sort(x), s=11, color=BLUE, linewidth=0)
    axes[0, 0].set(xlabel="standard normal", ylabel="NPDE", title=f"global P {found.tests()['global']:.2g}", xlim=line)
    axes[0, 0].legend(loc="upper left")
    axes[0, 1].hist(x, bins=min(24, max(8, len(x) // 10)), density=True, color=PALE, edgecolor="white")
    grid = np.linspace(-3.5, 3.5, 140)
    axes[0, 1].plot(grid, norm.pdf(grid), color=BLUE, label="standard normal")
    axes[0, 1].set(xlabel="NPDE", ylabel="density")
    axes[0, 1].legend(loc="upper left")
    for ax, column, word in ((axes[1, 0], "time", _time(found.table)), (axes[1, 1], "pred", "typical prediction")):
        ax.axhspan(-1.96, 1.96, color=SKY, alpha=0.16, linewidth=0)
        ax.axhline(0.0, color=GRAY, linewidth=0.9)
        ax.scatter(found.table[column], found.table["npde"], s=12, color=BLUE, alpha=0.65, linewidth=0)
        _trend(ax, found.table[column], found.table["npde"])
        ax.set(xlabel=word, ylabel="NPDE")
    return figure


@styled
def population(found):
    """Everybody's random effects beside the spread of the population, with shrinkage."""
    from scipy.stats import norm

    names = list(found.etas.columns)
    if not names:
        figure, axes = _grid(1, 1, 4.0, 2.0)
        axes[0, 0].text(0.5, 0.5, "no random effects", ha="center", transform=axes[0, 0].transAxes)
        axes[0, 0].set_axis_off()
        return figure
    columns = min(4, len(names))
    figure, axes = _grid(-(-len(names) // columns), columns, 2.9, 2.5)
    for ax in axes.ravel()[len(names) :]:
        ax.set_axis_off()
    for ax, name in zip(axes.ravel(), names, strict=False):
        eta = found.etas[name].to_numpy()
        spread = found.estimates.get(f"omega.{name}", float("nan"))
        if not np.isfinite(spread):
            spread = float(np.std(eta, ddof=1)) or 1.0
        reach = max(3.2 * spread, 1.1 * float(np.abs(eta).max()))
        ax.hist(eta, bins=np.linspace(-reach, reach, 21), density=True, color=PALE, edgecolor="white", label="people")
        ax.plot(eta, np.zeros(len(eta)), "|", color=BLUE, markersize=9, alpha=0.7)
        grid = np.linspace(-reach, reach, 160)
        ax.plot(grid, norm.pdf(grid, 0, spread), color=ORANGE, label="population")
        ax.set_title(f"{name}: shrinkage {found.shrinkage[name]:.0f} %")
        ax.set_xlabel("eta")
        ax.set_yticks([])
    axes[0, 0].legend(loc="upper left")
    return figure
