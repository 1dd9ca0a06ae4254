"""What the models of the body clock share: light on the eye, the typical fortnight, and what it is held against."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from hybridtwin.physiology.circadian.markers import lowest, offsets
from hybridtwin.physiology.reference import Protocol, Reference, Since, curve
from hybridtwin.signals import Signal
from hybridtwin.system import Input, Scalar, const, constant, lognormal, normal, parameter, signal

PERIOD = "Czeisler 1999, 24 adults in forced desynchrony, doi:10.1126/science.284.5423.2177"
SENSITIVITY = "spread assumed; sensitivity to light differs more than this, Phillips 2019, doi:10.1073/pnas.1901824116"
DAY_WORKERS = "Huang 2021, 16 day workers, 3 pg/mL, doi:10.1093/sleep/zsab126"
PACKAGE = "the published program: package circadian 1.0.3, days of 150 lux from 6:57 to 22:57"
DAYS, DARK = 8, 6  # of the typical fortnight


def hours_on(value: float, unit: str, rise: float, fall: float, days: int) -> Signal:
    """A value from `rise` to `fall` (hours of the day, 0 <= rise < fall <= 24) on so many days, 0 otherwise."""
    times = [0.0, *(24.0 * day + hour for day in range(days) for hour in (rise, fall))]
    return Signal.steps(times, [0.0, *([value, 0.0] * days)], unit)


def fortnight(shows=("x",), wake: bool = False) -> Protocol:
    """Eight regular days of 150 lux from 07:00 to 23:00, then six of darkness, which show the clock's own period."""
    signals = {"light": hours_on(150.0, "lux", 7.0, 23.0, DAYS)}
    if wake:
        signals["wake"] = hours_on(1.0, "1", 7.0, 23.0, DAYS + DARK)
    doc = f"{DAYS} days of 150 lux from 07:00 to 23:00, then {DARK} days of darkness"
    return Protocol(24.0 * (DAYS + DARK), doc, signals=signals, shows=shows)


def _minima(lived):
    """CBTmin of every day [h]."""
    return lowest(lived.time, lived["x"]) + offsets(lived.body)[0]


def held(published: Mapping[float, float]) -> tuple[Reference, ...]:
    """What every clock is held against, all of it read off the one fortnight. `published`: x of the package [h -> 1]."""

    def entrained(lived, earlier=0.0):
        days = _minima(lived) - earlier
        return float(days[days < 24.0 * DAYS][-1])

    def period(lived):
        days = _minima(lived)
        dark = days[days > 24.0 * (DAYS + 1)]
        return float(np.mean(np.diff(dark)))

    return (
        Reference("period in darkness", "h", 24.18, PERIOD, period),
        Reference("minimum of body temperature on regular days, after midnight", "h", (3.83, 6.02),
                  "Baehr 2000, morning and evening types, doi:10.1046/j.1365-2869.2000.00196.x",
                  lambda lived: entrained(lived) % 24.0, drawn=("x", Since(24.0 * (DAYS - 1)))),
        Reference("melatonin onset on regular days, after noon", "h", (5.3, 11.6), DAY_WORKERS,
                  lambda lived: (entrained(lived, offsets(lived.body)[1]) - 12.0) % 24.0),
        *curve("x of the package on regular days", "1", "x", published, PACKAGE, time="h"),
    )  # fmt: skip


def light():
    """Light at the eye."""
    return signal("lux", "light at the eye")


class LightInput(Input):
    """Input of a clock that only light drives."""

    light: Scalar = light()


def later():
    """How much later than on regular days the clock stands at the start: decides only the first state."""
    return parameter(normal(0.0, 1.5), "h", "how much later than on regular days the clock stands at the start",
                     initial=True, source="spread assumed")  # fmt: skip


def period(hours: float = 24.2, doc: str = "intrinsic period"):
    """The personal period; 0.13 h between people."""
    return parameter(lognormal(hours, 0.0054), "h", doc, low=16.0, high=32.0, source=PERIOD)


def gain(minutes: float):
    """How strongly activated photoreceptors drive the clock."""
    return parameter(lognormal(minutes, 0.3), "min", "drive of the clock by light", source=SENSITIVITY)


def onset():
    """From melatonin onset to the minimum of body temperature."""
    return constant(7.0, "h", "from melatonin onset to the minimum of body temperature", "Forger 1999; Brown 1997")


def power(ratio, exponent):
    """ratio**exponent for ratio >= 0 with a finite derivative at darkness."""
    lit = ratio > 0
    return jnp.where(lit, jnp.where(lit, ratio, 1.0) ** exponent, 0.0)


def turned(x, xc, late):
    """(x, xc) of a clock that stands `late` hours later."""
    angle = const(2 * np.pi / 24, "1/h") * late
    return x * jnp.cos(angle) + xc * jnp.sin(angle), xc * jnp.cos(angle) - x * jnp.sin(angle)


def receptors(alpha, ready, n):
    """dn/dt of the share n of used photoreceptors [1/h]; alpha and the recovery `ready` in 1/min."""
    return const(60.0, "min/h") * (alpha * (1.0 - n) - ready * n)


def classical(rates, x, h):
    """Mean rates over a step h of the classical Runge-Kutta method, with which the package circadian 1.0.3 runs its models."""

    def moved(by, slope):
        return jax.tree.map(lambda leaf, rate: leaf + by * rate, x, slope)

    k1 = rates(x)
    k2 = rates(moved(0.5 * h, k1))
    k3 = rates(moved(0.5 * h, k2))
    k4 = rates(moved(h, k3))
    return jax.tree.map(lambda a, b, c, d: (a + 2.0 * b + 2.0 * c + d) / 6.0, k1, k2, k3, k4)


HOUR = np.pi / 12  # radians of the clock in an hour
