"""When sleep comes: pressure that builds up awake, thresholds that the clock moves, and the switch between the two."""

import math

import jax.numpy as jnp
import numpy as np

from hybridtwin.physiology.circadian.common import (
    DAY_WORKERS,
    HOUR,
    PACKAGE,
    classical,
    hours_on,
    later,
    light,
    onset,
    period,
    power,
    receptors,
    turned,
)
from hybridtwin.physiology.circadian.markers import lowest
from hybridtwin.physiology.reference import Protocol, Reference, Since, curve
from hybridtwin.signals import Signal
from hybridtwin.system import (
    Input,
    Scalar,
    State,
    System,
    const,
    constant,
    lognormal,
    normal,
    output,
    parameter,
    signal,
    state,
    switch,
)

_SKELDON = "Skeldon 2023, doi:10.1371/journal.pcbi.1011743"
_DAAN = "Daan 1984, doi:10.1152/ajpregu.1984.246.2.R161; values of the package circadian 1.0.3"
_ADVISED = "Hirshkowitz 2015, adults, doi:10.1016/j.sleh.2014.12.010"
_AKERSTEDT = "Akerstedt and Gillberg 1981, 6 men, doi:10.1093/sleep/4.2.159"
_START = "entrained to 16 h of light, at midnight; package circadian 1.0.3"
_TURN = 2 * math.pi
_PRESSURES = {51.0: 13.218, 59.0: 11.292, 123.0: 13.135, 130.5: 11.276, 267.0: 13.010, 274.0: 11.254, 314.0: 13.222,
              322.0: 11.273}  # fmt: skip


def spells(lived) -> np.ndarray:
    """(onset, end) of every sleep of a typical course that is seen whole, in hours: (spells, 2)."""
    begins, ends = (act.times[0][np.isfinite(act.times[0])] for act in lived.course.acts[:2])
    pairs = [(b, ends[ends > b][0]) for b in begins if (ends > b).any()]
    return np.array(pairs).reshape(-1, 2)


def _duration(lived) -> float:
    found = spells(lived)[2:]
    return float(np.mean(found[:, 1] - found[:, 0]))


def _begins(lived) -> float:
    """Mean time of sleep onset, in hours after noon: a share of a clock time would say nothing."""
    return float(np.mean((spells(lived)[2:, 0] - 12.0) % 24.0))


def _displaced(lived, bed: float) -> float:
    """How long somebody sleeps [h] who got up at 7:00 of the third day and is kept awake until `bed` o'clock, from 23:00 on."""
    bed += 48.0 + (24.0 if bed < 23.0 else 0.0)
    found = spells(lived.again(signals={"awake": Signal.steps([0.0, 55.0, bed], [0.0, 1.0, 0.0], "1")}))
    begins, ends = found[found[:, 0] > bed - 0.01][0]
    return float(ends - begins)


def sleeps(output: str, day: int, why: str = "") -> tuple[Reference, ...]:
    """How long people sleep and when they go to bed; the latter drawn on `output`, on the evening of this day (from 0)."""
    return (
        Reference("sleep a day", "h", (7.0, 9.0), _ADVISED, _duration),
        Reference("onset of sleep, after noon", "h", (10.0, 12.5), "Huang 2021, bedtimes, doi:10.1093/sleep/zsab126", _begins,
                  why, drawn=(output, Since(24.0 * day + 12.0))),
    )  # fmt: skip


class Skeldon23(System):
    r"""Sleep, light and the clock: the eyes close in sleep, sleep pressure is compared with what the clock allows.

    L = light (1 - asleep)          alpha = alpha_0 (L / I0)^p          B = G (1 - n) alpha (1 - 0.4 x) (1 - 0.4 xc)
    dx/dt = pi/12 (xc + B)
    dxc/dt = pi/12 (gamma (xc - 4/3 xc^3) - x ((24 / (f tauc))^2 + k B))
    dn/dt = 60 (alpha (1 - n) - beta n)
    dH/dt = (mu (1 - asleep) - H) / chi          d asleep/dt = 0
    C = c20 + alpha21 xc + alpha22 x + beta21 xc^2 + beta22 xc x + beta23 x^2
    falls asleep when H >= H0 + Delta/2 + ca C; wakes when H <= H0 - Delta/2 + ca C, each `latency` before the switch

    x, xc, n, light and units as in `Forger99`; H [1] sleep pressure, asleep [1] 1 in sleep; mu, H0, Delta, ca [1], chi,
    tauc, latency [h]. `awake` [1] is a signal: while it is 1 sleep is kept off (an alarm clock, a night shift).
    `latency`: the package circadian 1.0.3, whose times are a reference here, acts one to two of its steps of 0.05 h
    after the threshold (`Skeldon23Stepped` does the same); its mean is the default, `latency=0` is the model as printed.
    What was `latency` ago is taken from the rates.
    The start is the entrained one, turned by `late` [h]. It never rests. `do` acts on `light` and `awake`.
    Priors: periods of Czeisler 1999; other spreads assumed. Source: Skeldon 2023, doi:10.1371/journal.pcbi.1011743.
    """

    time = "h"
    grid = "0.1 h"
    restless = "a rhythm of its own"
    unconserved = "a rhythm and a pressure to sleep, no amounts"
    protocol = Protocol(
        24.0 * 14, "14 days of 150 lux from 07:00 to 23:00", shows=("pressure",),
        signals={"light": hours_on(150.0, "lux", 7.0, 23.0, 14)},
    )  # fmt: skip
    references = (
        *sleeps("pressure", 12, "under 150 lux alone; the published program falls asleep as late"),
        *curve("sleep pressure of the package", "1", "pressure", _PRESSURES, PACKAGE, time="h"),
        Reference("melatonin onset on regular days, after noon", "h", (5.3, 11.6), DAY_WORKERS,
                  lambda lived: (lowest(lived.time, lived["x"])[-1] - float(lived.body.cbt_to_dlmo) - 12.0) % 24.0),
    )  # fmt: skip

    class State(State):
        x: Scalar = state("1", "clock", positive=False)
        xc: Scalar = state("1", "its complement", positive=False)
        n: Scalar = state("1", "share of used photoreceptors")
        H: Scalar = state("1", "sleep pressure")
        asleep: Scalar = state("1", "1 in sleep, 0 awake")

    class Input(Input):
        light: Scalar = light()
        awake: Scalar = signal("1", "1 while sleep is kept off")

    tauc: Scalar = period()
    mu: Scalar = parameter(lognormal(17.78, 0.01), "1", "where pressure goes in waking", source=_SKELDON + ", spread assumed")
    late: Scalar = later()
    chi: Scalar = constant(45.0, "h", "time constant of pressure", _SKELDON)
    H0: Scalar = constant(13.0, "1", "mean of the thresholds", _SKELDON)
    Delta: Scalar = constant(1.0, "1", "distance of the thresholds", _SKELDON)
    ca: Scalar = constant(1.72, "1", "how far the clock moves the thresholds", _SKELDON)
    latency: Scalar = constant(0.075, "h", "from threshold to switch", "circadian 1.0.3: one to two steps of 0.05 h")
    G: Scalar = constant(19.9, "min", "drive of the clock by light", _SKELDON)
    alpha_0: Scalar = constant(0.16, "1/min", "activation of photoreceptors at I0", _SKELDON)
    beta: Scalar = constant(0.013, "1/min", "recovery of photoreceptors", _SKELDON)
    I0: Scalar = constant(9500.0, "lux", "light of full activation", _SKELDON)
    p: Scalar = constant(0.6, "1", "exponent of light", _SKELDON)
    gamma: Scalar = constant(0.23, "1", "stiffness of the oscillator", _SKELDON)
    f: Scalar = constant(0.99669, "1", "correction of the period", _SKELDON)
    k: Scalar = constant(0.55, "1", "how light changes the period", _SKELDON)
    c20: Scalar = constant(0.7896, "1", "drive to wake: mean", _SKELDON)
    alpha21: Scalar = constant(-0.3912, "1", "drive to wake: xc", _SKELDON)
    alpha22: Scalar = constant(0.7583, "1", "drive to wake: x", _SKELDON)
    beta21: Scalar = constant(-0.4442, "1", "drive to wake: xc squared", _SKELDON)
    beta22: Scalar = constant(0.0250, "1", "drive to wake: xc x", _SKELDON)
    beta23: Scalar = constant(-0.9647, "1", "drive to wake: x squared", _SKELDON)
    cbt_to_dlmo: Scalar = onset()
    x0: Scalar = constant(0.23995682, "1", "x at the start", _START)
    xc0: Scalar = constant(-1.1547196, "1", "xc at the start", _START)
    n0: Scalar = constant(0.50529415, "1", "n at the start", _START)
    H00: Scalar = constant(12.83846474, "1", "H at the start", _START)

    def rates(self, t, x, u):
        alpha = self.alpha_0 * power(u.light * (1.0 - x.asleep) / self.I0, self.p)
        B = self.G * (1.0 - x.n) * alpha * (1.0 - 0.4 * x.x) * (1.0 - 0.4 * x.xc)
        hour = const(HOUR, "1/h")
        own = (const(24.0, "h") / (self.f * self.tauc)) ** 2
        return self.State(
            x=hour * (x.xc + B),
            xc=hour * (self.gamma * (x.xc - 4.0 / 3.0 * x.xc**3) - x.x * (own + self.k * B)),
            n=receptors(alpha, self.beta, x.n),
            H=(self.mu * (1.0 - x.asleep) - x.H) / self.chi,
            asleep=0.0,
        )

    def drive(self, x, xc):
        """C, by which the clock holds the thresholds up."""
        return (
            self.c20 + self.alpha21 * xc + self.alpha22 * x + self.beta21 * xc**2 + self.beta22 * xc * x + self.beta23 * x**2
        )

    def switches(self, x, u):
        speed = self.rates(const(0.0, "h"), x, u)
        was = [value - self.latency * slope for value, slope in ((x.x, speed.x), (x.xc, speed.xc), (x.H, speed.H))]
        over = was[2] - self.H0 - self.ca * self.drive(was[0], was[1])
        kept, sleeps = u.awake > 0.5, x.asleep > 0.5
        return {
            "falls asleep": switch(over - self.Delta / 2.0, {"asleep": 1.0}, only=~sleeps & ~kept),
            "wakes": switch(jnp.where(kept, 1.0, -self.Delta / 2.0 - over), {"asleep": 0.0}, only=sleeps),
        }

    def outputs(self, x, u):
        return {
            "x": output(x.x, "1", "clock; lowest at the minimum of body temperature"),
            "amplitude": output(jnp.sqrt(x.x**2 + x.xc**2), "1", "amplitude of the clock"),
            "pressure": output(x.H, "1", "sleep pressure"),
            "sleep": output(x.asleep, "1", "1 in sleep, 0 awake"),
        }

    def initial(self, u):
        x, xc = turned(self.x0, self.xc0, self.late)
        return self.State(x=x, xc=xc, n=self.n0, H=self.H00, asleep=0.0)


class Skeldon23Stepped(System):
    r"""`Skeldon23` as the package circadian 1.0.3 runs it: a difference equation of 0.05 h that decides on sleep once a step.

    k1 = r(x)          k2 = r(x + h/2 k1)          k3 = r(x + h/2 k2)          k4 = r(x + h k3)
    x(t + h) = x + h/6 (k1 + 2 k2 + 2 k3 + k4)
    asleep(t + h) = 1 where H >= H0 + Delta/2 + ca C awake, 0 where H <= H0 - Delta/2 + ca C asleep or kept awake, else asleep(t)

    r the rates of `model` under the light of the step and asleep(t); H, C at t, so that a decision holds from one step after its
    moment; h = 0.05 h. Symbols, states and inputs are those of `Skeldon23`, whose `latency` does not enter. For comparison with
    that package, whose sleep begins up to two steps after the threshold; `Skeldon23` locates the moment and has derivatives.
    Outputs here jump with parameters, where a decision falls into another step. `do` acts on `light` and `awake`.
    Source: Skeldon 2023, doi:10.1371/journal.pcbi.1011743, in the discrete form of the package circadian 1.0.3.
    """

    time = "h"
    grid = "0.05 h"
    step = "0.05 h"
    restless = "a rhythm of its own"
    unconserved = "a rhythm and a pressure to sleep, no amounts"
    protocol = Skeldon23.protocol
    references = (
        Reference("sleep a day", "h", (7.0, 9.0), _ADVISED,
                  lambda lived: 24.0 * float(np.mean(lived["sleep"][lived.time > 48.0]))),
        Reference("melatonin onset on regular days, after noon", "h", (5.3, 11.6), DAY_WORKERS,
                  lambda lived: (lowest(lived.time, lived["x"])[-1] - float(lived.body.model.cbt_to_dlmo) - 12.0) % 24.0),
        *curve("sleep pressure of the package", "1", "pressure", _PRESSURES, PACKAGE, time="h"),
    )  # fmt: skip

    State = Skeldon23.State
    Input = Skeldon23.Input

    model: Skeldon23 = Skeldon23()

    def rates(self, t, x, u):
        h = const(0.05, "h")
        mean = classical(lambda y: self.model.rates(t, y, u), x, h)
        over = x.H - self.model.H0 - self.model.ca * self.model.drive(x.x, x.xc)
        kept, sleeps = u.awake > 0.5, x.asleep > 0.5
        stays = jnp.where((over <= -self.model.Delta / 2.0) | kept, 0.0, 1.0)
        falls = jnp.where((over >= self.model.Delta / 2.0) & ~kept, 1.0, 0.0)
        decided = jnp.where(sleeps, stays, falls)
        return self.State(x=mean.x, xc=mean.xc, n=mean.n, H=mean.H, asleep=(decided - x.asleep) / h)

    def outputs(self, x, u):
        return self.model.outputs(x, u)

    def initial(self, u):
        return self.model.initial(u)


class TwoProcess(System):
    r"""Two processes of sleep: S builds up awake and goes down asleep, between two thresholds that a clock C moves.

    dS/dt = (1 - S) / tau_w awake, -S / tau_s asleep          dpsi/dt = 2 pi / tau          d asleep/dt = 0
    falls asleep when S >= high + a cos(psi); wakes when S <= low + a cos(psi)

    S [1] process S, psi [rad] the clock's phase, pi at the minimum of body temperature, asleep [1] 1 in sleep; tau_w,
    tau_s, tau [h], high, low, a [1]; time in h from midnight. `awake` [1] is a signal: while it is 1 sleep is kept off (a
    night without sleep). It never rests. `do` acts on `awake`. Priors: spreads assumed.
    Source: Daan 1984, doi:10.1152/ajpregu.1984.246.2.R161; Borbely 1982.
    """

    time = "h"
    grid = "0.5 h"
    restless = "a rhythm of its own"
    unconserved = "a rhythm and a pressure to sleep, no amounts"
    protocol = Protocol(24.0 * 6, "six days without constraint", shows=("S",))
    references = (
        *sleeps("S", 4),
        Reference("sleep from 7:00 and 11:00 on over that from 19:00 and 23:00, people kept awake until then", "1", 0.5,
                  _AKERSTEDT + ": about a half",
                  lambda lived: sum(_displaced(lived, t) for t in (7.0, 11.0)) / sum(_displaced(lived, t) for t in (19.0, 23.0))),
        Reference("bedtime of the shortest sleep, of every fourth hour", "h", (7.0, 11.0), _AKERSTEDT,
                  lambda lived: min((23.0, 3.0, 7.0, 11.0, 15.0, 19.0), key=lambda bed: _displaced(lived, bed))),
    )  # fmt: skip

    class State(State):
        S: Scalar = state("1", "process S, sleep pressure")
        psi: Scalar = state("rad", "phase of the clock", positive=False)
        asleep: Scalar = state("1", "1 in sleep, 0 awake")

    class Input(Input):
        awake: Scalar = signal("1", "1 while sleep is kept off")

    tau_w: Scalar = parameter(lognormal(18.2, 0.1), "h", "time constant of waking", source=_DAAN + ", spread assumed")
    tau_s: Scalar = parameter(lognormal(4.2, 0.1), "h", "time constant of sleep", source=_DAAN + ", spread assumed")
    cbtmin: Scalar = parameter(normal(4.9, 1.0), "h", "clock time of the minimum of body temperature on the first day",
                               initial=True, source="Baehr 2000, doi:10.1046/j.1365-2869.2000.00196.x")  # fmt: skip
    tau: Scalar = constant(24.0, "h", "period of the entrained clock", _DAAN)
    high: Scalar = constant(0.6, "1", "mean of the upper threshold", _DAAN)
    low: Scalar = constant(0.17, "1", "mean of the lower threshold", _DAAN)
    a: Scalar = constant(0.10, "1", "how far the clock moves the thresholds", _DAAN)
    S0: Scalar = constant(0.5, "1", "S at the start", "circadian 1.0.3")

    def rates(self, t, x, u):
        awake = 1.0 - x.asleep
        return self.State(
            S=awake * (1.0 - x.S) / self.tau_w - x.asleep * x.S / self.tau_s, psi=_TURN / self.tau, asleep=0.0
        )

    def switches(self, x, u):
        moved = self.a * jnp.cos(x.psi)
        kept, sleeps = u.awake > 0.5, x.asleep > 0.5
        return {
            "falls asleep": switch(x.S - self.high - moved, {"asleep": 1.0}, only=~sleeps & ~kept),
            "wakes": switch(jnp.where(kept, 1.0, self.low + moved - x.S), {"asleep": 0.0}, only=sleeps),
        }

    def outputs(self, x, u):
        moved = self.a * jnp.cos(x.psi)
        return {
            "S": output(x.S, "1", "sleep pressure"),
            "upper": output(self.high + moved, "1", "threshold of sleep"),
            "lower": output(self.low + moved, "1", "threshold of waking"),
            "sleep": output(x.asleep, "1", "1 in sleep, 0 awake"),
        }

    def initial(self, u):
        return self.State(S=self.S0, psi=math.pi - const(_TURN / 24.0, "1/h") * self.cbtmin, asleep=0.0)
