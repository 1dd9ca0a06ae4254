"""Worlds of one twin in one picture."""

from hybridtwin.plots import _COLORS, GRAY, _band, _legend, _refusal, axis_label, clock_axis, panels, styled
from hybridtwin.twin import simulate_worlds


@styled
def scenarios(found, output=None):
    """One output in every world: median and 90 % band; the first world's in gray is what the others are compared with."""
    if found.verdict.headline == "DO NOT USE":
        return _refusal(found)
    courses = simulate_worlds(list(found.values()))
    name = output or next(iter(courses[0].values))
    figure, (ax,) = panels([5.0])
    for i, (label, course) in enumerate(zip(found, courses, strict=True)):
        color = GRAY if i == 0 else _COLORS[(i - 1) % len(_COLORS)]
        _band(ax, course.time, course[name][~course.failed], color, label, alpha=0.18)
    ax.set_ylabel(axis_label(name, courses[0].units[name]))
    ax.grid(axis="y")
    clock_axis([ax], courses[0].clock, float(courses[0].time[0]), float(courses[0].time[-1]))
    _legend(ax)
    return figure
