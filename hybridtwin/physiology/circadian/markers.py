"""Markers of the clock's phase: the minimum of body temperature (CBTmin) and the onset of melatonin (DLMO).

    from hybridtwin.physiology.circadian.markers import dlmo
    ht.contrast(morning_light, lived, dlmo(Jewett99, "day 6 00:00", "day 7 12:00"))     # hours earlier or later

CBTmin is where the model's `x` is lowest, plus `phi_ref` where the model has one; DLMO is `cbt_to_dlmo` before it.
"""

import dataclasses

import numpy as np

from hybridtwin.clock import Moment
from hybridtwin.errors import DeclarationError, InterventionError
from hybridtwin.measures import vertex
from hybridtwin.outcomes import Outcome, time_of_nadir
from hybridtwin.units import factor, time_factor

_APART = 13.0  # hours that two minima of a clock are apart at least, as in the package `circadian`


def lowest(time, value, apart: float = _APART, located: bool = True) -> np.ndarray:
    """Times of the local minima of one curve (N,), each located on the parabola through its three nodes (else its lowest node);
    of minima less than `apart` hours from a lower one only that is kept. `time` in hours.
    """
    time, value = np.asarray(time, float), np.asarray(value, float)
    inner = np.flatnonzero((value[1:-1] < value[:-2]) & (value[1:-1] <= value[2:])) + 1
    kept: list[int] = []
    for k in inner[np.argsort(value[inner], kind="stable")]:
        if all(abs(time[k] - time[other]) >= apart for other in kept):
            kept.append(int(k))
    if not located:
        return time[sorted(kept)]
    return np.array([vertex(time, value[None], np.array([k]))[0] for k in sorted(kept)])


def offsets(system) -> tuple[float, float]:
    """`phi_ref` (0 without one) and `cbt_to_dlmo` of a clock, or of the one clock that a whole holds, in hours."""
    body = system() if isinstance(system, type) else system
    values = body.typical().values()
    clocks = [path.removesuffix("cbt_to_dlmo") for path in values if path.rpartition(".")[2] == "cbt_to_dlmo"]
    if not clocks:
        raise DeclarationError(
            f"{type(body).__name__} is no model of the body clock: it has no cbt_to_dlmo. Use Forger99 or its kin."
        )
    if len(clocks) > 1:
        raise DeclarationError(
            f"{type(body).__name__} holds {len(clocks)} clocks ({', '.join(c.rstrip('.') for c in clocks)}). "
            "Pass the class of the one that is meant."
        )
    return float(values.get(f"{clocks[0]}phi_ref", 0.0)), float(values[f"{clocks[0]}cbt_to_dlmo"])


def cbtmin(system, start: Moment | None = None, stop: Moment | None = None, *, better: str | None = None) -> Outcome:
    """When body temperature is lowest in a window, in hours of the record's clock since its time 0.

    `system`: the clock's class or instance, or a whole that holds one and has its `x` among its outputs. A window shorter than a
    day holds one minimum; the minimum of `x` must lie inside the window, else the answer is NaN. **Raises:** DeclarationError
    for a system that is no clock.
    """
    after, _ = offsets(system)
    found = time_of_nadir("x", start, stop, better=better, later=f"{after} h")
    return dataclasses.replace(found, label="minimum of body temperature")


def dlmo(system, start: Moment | None = None, stop: Moment | None = None, *, better: str | None = None) -> Outcome:
    """When melatonin rises (dim light melatonin onset), in hours of the record's clock since its time 0: `cbt_to_dlmo` before
    the minimum of body temperature, which must lie in the window. As `cbtmin` otherwise.
    """
    after, before = offsets(system)
    found = time_of_nadir("x", start, stop, better=better, later=f"{after - before} h")
    return dataclasses.replace(found, label="melatonin onset")


def daily(trajectory, system, *, grid: str | None = None) -> np.ndarray:
    """DLMO of every day of a trajectory (draws, days) in hours of its clock; NaN behind a draw's last one.

    `grid`: "0.05 h" reads the curve at the multiples of that alone and takes the lowest of them for the minimum, as the package
    circadian does with its steps; by default the minimum is located between the times of the trajectory. **Raises:**
    InterventionError where the trajectory lacks one of these multiples.
    """
    after, before = offsets(system)
    hours = np.asarray(trajectory.time, float) * time_factor(trajectory.clock.unit, "h")
    keep = slice(None) if grid is None else _on(hours, factor(grid, "h"), grid)
    rows = [lowest(hours[keep], row[keep], located=grid is None) + after - before for row in trajectory["x"]]
    width = max(map(len, rows), default=0)
    return np.array([np.pad(row, (0, width - len(row)), constant_values=np.nan) for row in rows]).reshape(len(rows), width)


def _on(hours, step: float, said: str):
    """Indices of the times that are multiples of `step`, each once and none missing."""
    wanted = np.arange(np.ceil(hours[0] / step - 1e-6), np.floor(hours[-1] / step + 1e-6) + 1) * step
    at = np.searchsorted(hours, wanted - 1e-6)
    if len(wanted) < 3 or (at >= len(hours)).any() or np.abs(hours[np.minimum(at, len(hours) - 1)] - wanted).max() > 1e-6:
        raise InterventionError(
            f"daily: the trajectory is not known at every multiple of {said}. Simulate with at=np.arange(start, stop, {step:g})."
        )
    return at
