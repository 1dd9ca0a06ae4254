"""Pacemakers of the van der Pol kind, driven by light (Kronauer, Forger, Jewett, St. Hilaire)."""

import jax.numpy as jnp

from hybridtwin.physiology.circadian.common import (
    HOUR,
    LightInput,
    fortnight,
    gain,
    held,
    later,
    light,
    onset,
    period,
    power,
    receptors,
    turned,
)
from hybridtwin.system import Input, Scalar, State, System, const, constant, output, signal, state

_FORGER = "Forger 1999, doi:10.1177/074873099129000867"
_JEWETT = "Jewett 1999, doi:10.1177/074873049901400608"
_HILAIRE = "St. Hilaire 2007, doi:10.1016/j.jtbi.2007.04.001"
_START = "entrained to 16 h of light, at midnight; package circadian 1.0.3"


def _seen(x):
    """Outputs of a clock of the van der Pol kind."""
    return {
        "x": output(x.x, "1", "clock; lowest before the minimum of body temperature"),
        "amplitude": output(jnp.sqrt(x.x**2 + x.xc**2), "1", "amplitude of the clock"),
    }


class PacemakerState(State):
    """State of a pacemaker of the van der Pol kind, driven by light."""

    x: Scalar = state("1", "clock", positive=False)
    xc: Scalar = state("1", "its complement", positive=False)
    n: Scalar = state("1", "share of used photoreceptors")


class Forger99(System):
    r"""The simpler human circadian pacemaker: a cubic van der Pol oscillator that light reaches by photoreceptors.

    alpha = alpha_0 (light / I0)^p          B = G (1 - n) alpha (1 - 0.4 x) (1 - 0.4 xc)
    dx/dt = pi/12 (xc + B)
    dxc/dt = pi/12 (mu (xc - 4/3 xc^3) - x ((24 / (0.99669 taux))^2 + k B))
    dn/dt = 60 (alpha (1 - n) - beta n)

    x, xc [1] the clock and its complement, n [1] the share of used photoreceptors; light [lux] a signal; alpha_0, beta
    [1/min], G [min], taux [h], I0 [lux], mu, k, p [1]; time in h from midnight. The start is the entrained one (x0, xc0,
    n0), turned by `late` [h]. It never rests.

    `do` acts on `light` (morning light, darkness, a shifted schedule). The minimum of body temperature is where x is
    lowest, melatonin rises `cbt_to_dlmo` [h] before (`circadian.markers`). Priors: periods of Czeisler 1999; other spreads
    assumed. Source: Forger 1999, doi:10.1177/074873099129000867, as in the package circadian 1.0.3.
    """

    time = "h"
    grid = "0.05 h"
    restless = "a rhythm of its own"
    unconserved = "a rhythm and shares, no amounts"
    protocol = fortnight()
    references = held({30.0: -1.077, 42.0: 1.036, 102.0: -1.046, 114.0: 0.999, 174.0: -1.025, 186.0: 0.977})

    State = PacemakerState
    Input = LightInput

    taux: Scalar = period()
    G: Scalar = gain(33.75)
    late: Scalar = later()
    alpha_0: Scalar = constant(0.05, "1/min", "activation of photoreceptors at I0", _FORGER)
    beta: Scalar = constant(0.0075, "1/min", "recovery of photoreceptors", _FORGER)
    I0: Scalar = constant(9500.0, "lux", "light of full activation", _FORGER)
    p: Scalar = constant(0.5, "1", "exponent of light", _FORGER)
    mu: Scalar = constant(0.23, "1", "stiffness of the oscillator", _FORGER)
    k: Scalar = constant(0.55, "1", "how light changes the period", _FORGER)
    cbt_to_dlmo: Scalar = onset()
    x0: Scalar = constant(-0.0843259, "1", "x at the start", _START)
    xc0: Scalar = constant(-1.09607546, "1", "xc at the start", _START)
    n0: Scalar = constant(0.45584306, "1", "n at the start", _START)

    def rates(self, t, x, u):
        alpha = self.alpha_0 * power(u.light / self.I0, self.p)
        B = self.G * (1.0 - x.n) * alpha * (1.0 - 0.4 * x.x) * (1.0 - 0.4 * x.xc)
        hour = const(HOUR, "1/h")
        own = (const(24.0, "h") / (0.99669 * self.taux)) ** 2
        return self.State(
            x=hour * (x.xc + B),
            xc=hour * (self.mu * (x.xc - 4.0 / 3.0 * x.xc**3) - x.x * (own + self.k * B)),
            n=receptors(alpha, self.beta, x.n),
        )

    def outputs(self, x, u):
        return _seen(x)

    def initial(self, u):
        x, xc = turned(self.x0, self.xc0, self.late)
        return self.State(x=x, xc=xc, n=self.n0)


def driven(body, x, tau, alpha, B, push=0.0, pull=0.0):
    """Rates of x, xc and n of the oscillator of the seventh order: driven by light B, pushed in x and pulled in xc besides."""
    hour, bent = const(HOUR, "1/h"), x.x / 3.0 + 4.0 / 3.0 * x.x**3 - 256.0 / 105.0 * x.x**7
    own = (const(24.0, "h") / (0.99729 * tau)) ** 2
    return {
        "x": hour * (x.xc + body.mu * bent + B + push),
        "xc": hour * (body.q * B * x.xc - x.x * (own + body.k * B) - pull),
        "n": receptors(alpha, body.beta, x.n),
    }


def dimmed(body, x, light):
    """(alpha, B) where dim light does little: activation of photoreceptors and what they drive."""
    alpha = body.alpha_0 * power(light / body.I0, body.p) * light / (light + body.I1)
    return alpha, body.G * (1.0 - x.n) * alpha * (1.0 - 0.4 * x.x) * (1.0 - 0.4 * x.xc)


class Jewett99(System):
    r"""The pacemaker with a nonlinearity of the seventh order, which keeps its amplitude through dim days.

    alpha = alpha_0 (light / I0)^p          B = G (1 - n) alpha (1 - 0.4 x) (1 - 0.4 xc)
    dx/dt = pi/12 (xc + mu (x/3 + 4/3 x^3 - 256/105 x^7) + B)
    dxc/dt = pi/12 (q B xc - x ((24 / (0.99729 taux))^2 + k B))
    dn/dt = 60 (alpha (1 - n) - beta n)

    Symbols and units as in `Forger99`; q [1]; the minimum of body temperature is `phi_ref` [h] after the lowest x. The start is
    the entrained one (x0, xc0, n0), turned by `late` [h]. It never rests. `do` acts on `light`. Priors: periods of
    Czeisler 1999; other spreads assumed. Source: Jewett 1999, doi:10.1177/074873049901400608.
    """

    time = "h"
    grid = "0.05 h"
    restless = "a rhythm of its own"
    unconserved = "a rhythm and shares, no amounts"
    protocol = fortnight()
    references = held({30.0: -1.021, 42.0: 0.959, 102.0: -0.973, 114.0: 0.916, 174.0: -0.956, 186.0: 0.901})

    State = PacemakerState
    Input = LightInput

    taux: Scalar = period()
    G: Scalar = gain(19.875)
    late: Scalar = later()
    alpha_0: Scalar = constant(0.16, "1/min", "activation of photoreceptors at I0", _JEWETT)
    beta: Scalar = constant(0.013, "1/min", "recovery of photoreceptors", _JEWETT)
    I0: Scalar = constant(9500.0, "lux", "light of full activation", _JEWETT)
    p: Scalar = constant(0.6, "1", "exponent of light", _JEWETT)
    mu: Scalar = constant(0.13, "1", "stiffness of the oscillator", _JEWETT)
    q: Scalar = constant(1.0 / 3.0, "1", "how light moves the complement", _JEWETT)
    k: Scalar = constant(0.55, "1", "how light changes the period", _JEWETT)
    phi_ref: Scalar = constant(0.8, "h", "from the lowest x to the minimum of body temperature", _JEWETT)
    cbt_to_dlmo: Scalar = onset()
    x0: Scalar = constant(-0.10097101, "1", "x at the start", _START)
    xc0: Scalar = constant(-1.21985662, "1", "xc at the start", _START)
    n0: Scalar = constant(0.50529415, "1", "n at the start", _START)

    def rates(self, t, x, u):
        alpha = self.alpha_0 * power(u.light / self.I0, self.p)
        B = self.G * (1.0 - x.n) * alpha * (1.0 - 0.4 * x.x) * (1.0 - 0.4 * x.xc)
        return self.State(**driven(self, x, self.taux, alpha, B))

    def outputs(self, x, u):
        return _seen(x)

    def initial(self, u):
        x, xc = turned(self.x0, self.xc0, self.late)
        return self.State(x=x, xc=xc, n=self.n0)


def _past(since):
    """0 before a moment, 1 after it, 1/2 at it: the steps that end and begin there then err by opposite amounts."""
    moment = const(1e-6, "h")
    return jnp.where(since > moment, 1.0, jnp.where(since < -moment, 0.0, 0.5))


class Hilaire07(System):
    r"""The pacemaker that waking and sleeping move too, beside light.

    alpha = alpha_0 (light / I0)^p light / (light + I1)          B = G (1 - n) alpha (1 - 0.4 x) (1 - 0.4 xc)
    N = rho (1/3 - asleep) (1 - tanh(10 x)), asleep = 1 where wake < 1/2; 0 between `zone_start` and `zone_stop` of the day
    dx/dt = pi/12 (xc + mu (x/3 + 4/3 x^3 - 256/105 x^7) + B + N)
    dxc/dt = pi/12 (q B xc - x ((24 / (0.99729 taux))^2 + k B))
    dn/dt = 60 (alpha (1 - n) - beta n)

    Symbols and units as in `Jewett99`; wake [1] a signal, 1 while awake; rho [1], I1 [lux]; zone_start, zone_stop [h] of the
    clock, with time 0 at midnight (the zone in which sleep does not push: a phase of 16.5 to 21 h after the minimum of
    temperature in the paper, the same hours of every day in the package circadian, which is followed here: from 8.82 to 13.32 h,
    which its steps of 0.05 h, whose clock is read at their end, make 8.80 to 13.30 h).
    The start is the entrained one (x0, xc0, n0), turned by `late` [h]. It never rests. `do` acts on `light` and `wake`.
    Priors: periods of Czeisler 1999; other spreads assumed. Source: St. Hilaire 2007, doi:10.1016/j.jtbi.2007.04.001.
    """

    time = "h"
    grid = "0.05 h"
    restless = "a rhythm of its own"
    unconserved = "a rhythm and shares, no amounts"
    protocol = fortnight(wake=True)
    references = held({30.0: -1.025, 42.0: 0.938, 102.0: -0.956, 114.0: 0.878, 174.0: -0.940, 186.0: 0.864})

    State = PacemakerState

    class Input(Input):
        light: Scalar = light()
        wake: Scalar = signal("1", "1 while awake, 0 while asleep", default=1.0)

    taux: Scalar = period()
    G: Scalar = gain(37.0)
    late: Scalar = later()
    alpha_0: Scalar = constant(0.1, "1/min", "activation of photoreceptors at I0", _HILAIRE)
    beta: Scalar = constant(0.007, "1/min", "recovery of photoreceptors", _HILAIRE)
    I0: Scalar = constant(9500.0, "lux", "light of full activation", _HILAIRE)
    I1: Scalar = constant(100.0, "lux", "light below which little happens", _HILAIRE)
    p: Scalar = constant(0.5, "1", "exponent of light", _HILAIRE)
    mu: Scalar = constant(0.13, "1", "stiffness of the oscillator", _HILAIRE)
    q: Scalar = constant(1.0 / 3.0, "1", "how light moves the complement", _HILAIRE)
    k: Scalar = constant(0.55, "1", "how light changes the period", _HILAIRE)
    rho: Scalar = constant(0.032, "1", "push of waking and sleeping", _HILAIRE)
    zone_start: Scalar = constant(8.8, "h", "from here sleep does not push (clock)", "circadian 1.0.3, on its steps")
    zone_stop: Scalar = constant(13.3, "h", "until here (clock)", "circadian 1.0.3, on its steps")
    phi_ref: Scalar = constant(0.97, "h", "from the lowest x to the minimum of body temperature", _HILAIRE)
    cbt_to_dlmo: Scalar = onset()
    x0: Scalar = constant(-0.0480751, "1", "x at the start", _START)
    xc0: Scalar = constant(-1.22504441, "1", "xc at the start", _START)
    n0: Scalar = constant(0.51854818, "1", "n at the start", _START)

    def rates(self, t, x, u):
        alpha, B = dimmed(self, x, u.light)
        of_day = jnp.mod(t, const(24.0, "h"))
        zone = _past(of_day - self.zone_start) - _past(of_day - self.zone_stop)
        N = self.rho * (1.0 / 3.0 - jnp.where(u.wake < 0.5, 1.0 - zone, 0.0)) * (1.0 - jnp.tanh(10.0 * x.x))
        return self.State(**driven(self, x, self.taux, alpha, B, push=N))

    def outputs(self, x, u):
        return _seen(x)

    def initial(self, u):
        x, xc = turned(self.x0, self.xc0, self.late)
        return self.State(x=x, xc=xc, n=self.n0)
