"""Pacemakers in phase and amplitude, derived from many coupled cells (Hannay 2019)."""

import math

import jax.numpy as jnp

from hybridtwin.physiology.circadian.common import (
    LightInput,
    fortnight,
    gain,
    held,
    later,
    onset,
    period,
    power,
    receptors,
)
from hybridtwin.system import Scalar, State, System, const, constant, output, state

_HANNAY = "Hannay 2019, doi:10.1177/0748730419878298"
_START = "entrained to 16 h of light, at midnight; package circadian 1.0.3"
_TURN = 2 * math.pi


def _seen(psi, amplitude):
    return {
        "x": output(jnp.cos(psi), "1", "clock; lowest at the minimum of body temperature"),
        "amplitude": output(amplitude, "1", "coherence of the cells"),
    }


def _alpha(self, lux):
    """Activation of photoreceptors [1/min]."""
    bright = power(lux / const(1.0, "lux"), self.p)
    return self.alpha_0 * bright / (bright + self.I0)


def _lit(R, psi, B, first, second):
    """What light does to amplitude and phase [1/h]; `first`, `second`: strength and phase of the two harmonics."""
    (A1, b1), (A2, b2) = first, second
    amplitude = A1 * 0.5 * B * (1.0 - R**4) * jnp.cos(psi + b1) + A2 * 0.5 * B * R * (1.0 - R**8) * jnp.cos(2.0 * psi + b2)
    phase = A1 * 0.5 * B * (R**3 + 1.0 / R) * jnp.sin(psi + b1) + A2 * 0.5 * B * (1.0 + R**8) * jnp.sin(2.0 * psi + b2)
    return amplitude, -phase


class Hannay19(System):
    r"""One population of coupled clock cells, by the coherence R and the phase psi of its rhythm.

    alpha = alpha_0 L^p / (L^p + I0), L = light in lux          B = G (1 - n) alpha
    dR/dt = -gamma R + K/2 cos(Beta1) R (1 - R^4) + A1/2 B (1 - R^4) cos(psi + BetaL1) + A2/2 B R (1 - R^8) cos(2 psi + BetaL2)
    dpsi/dt = 2 pi / tau + K/2 sin(Beta1) (1 + R^4) + sigma B - A1/2 B (R^3 + 1/R) sin(psi + BetaL1)
              - A2/2 B (1 + R^8) sin(2 psi + BetaL2)
    dn/dt = 60 (alpha (1 - n) - delta n)

    R [1], psi [rad], n [1] the share of used photoreceptors; light [lux] a signal; tau [h], K, gamma, A1, A2, sigma [1/h],
    G [min], alpha_0, delta [1/min], I0, p, Beta1, BetaL1, BetaL2 [1]; time in h from midnight. x = cos(psi) is lowest at
    the minimum of body temperature. The start is the entrained one (R0, psi0, n0), `late` [h] later. It never rests.
    `do` acts on `light`. Priors: spread of periods of Czeisler 1999; other spreads assumed.
    Source: Hannay 2019, doi:10.1177/0748730419878298, parameters of the package circadian 1.0.3.
    """

    time = "h"
    grid = "0.05 h"
    restless = "a rhythm of its own"
    unconserved = "a rhythm and shares, no amounts"
    protocol = fortnight()
    references = held({30.0: -0.976, 42.0: 0.856, 102.0: -0.932, 114.0: 0.785, 174.0: -0.908, 186.0: 0.753})

    class State(State):
        R: Scalar = state("1", "coherence of the cells")
        psi: Scalar = state("rad", "phase of their rhythm", positive=False)
        n: Scalar = state("1", "share of used photoreceptors")

    Input = LightInput

    tau: Scalar = period(23.84, "median period of the uncoupled cells")
    G: Scalar = gain(33.75)
    late: Scalar = later()
    K: Scalar = constant(0.06358, "1/h", "coupling", _HANNAY)
    gamma: Scalar = constant(0.024, "1/h", "spread of the cells' periods", _HANNAY)
    Beta1: Scalar = constant(-0.09318, "1", "phase of the coupling", _HANNAY)
    A1: Scalar = constant(0.3855, "1/h", "first harmonic of light", _HANNAY)
    A2: Scalar = constant(0.1977, "1/h", "second harmonic of light", _HANNAY)
    BetaL1: Scalar = constant(-0.0026, "1", "phase of the first harmonic", _HANNAY)
    BetaL2: Scalar = constant(-0.957756, "1", "phase of the second harmonic", _HANNAY)
    sigma: Scalar = constant(0.0400692, "1/h", "how light quickens the clock", _HANNAY)
    alpha_0: Scalar = constant(0.05, "1/min", "activation of photoreceptors", _HANNAY)
    delta: Scalar = constant(0.0075, "1/min", "recovery of photoreceptors", _HANNAY)
    p: Scalar = constant(1.5, "1", "exponent of light", _HANNAY)
    I0: Scalar = constant(9325.0, "1", "lux to the power p at half activation", _HANNAY)
    cbt_to_dlmo: Scalar = onset()
    R0: Scalar = constant(0.82041911, "1", "R at the start", _START)
    psi0: Scalar = constant(1.71383697, "1", "psi at the start", _START)
    n0: Scalar = constant(0.52318122, "1", "n at the start", _START)

    def rates(self, t, x, u):
        alpha = _alpha(self, u.light)
        B = self.G * (1.0 - x.n) * alpha
        amplitude, phase = _lit(x.R, x.psi, B, (self.A1, self.BetaL1), (self.A2, self.BetaL2))
        return self.State(
            R=-self.gamma * x.R + self.K / 2.0 * jnp.cos(self.Beta1) * x.R * (1.0 - x.R**4) + amplitude,
            psi=_TURN / self.tau + self.K / 2.0 * jnp.sin(self.Beta1) * (1.0 + x.R**4) + self.sigma * B + phase,
            n=receptors(alpha, self.delta, x.n),
        )

    def outputs(self, x, u):
        return _seen(x.psi, x.R)

    def initial(self, u):
        return self.State(R=self.R0, psi=self.psi0 - const(_TURN / 24.0, "1/h") * self.late, n=self.n0)


class Hannay19TP(System):
    r"""Two populations of clock cells: a ventral one (v) that light reaches, and a dorsal one (d) that follows.

    alpha = alpha_0 L^p / (L^p + I0), L = light in lux          B = G (1 - n) alpha          D = psi_d - psi_v
    dRv/dt = -gamma Rv + Kvv/2 Rv (1 - Rv^4) + Kdv/2 Rd (1 - Rv^4) cos D
             + A1/2 B (1 - Rv^4) cos(psi_v + BetaL) + A2/2 B Rv (1 - Rv^8) cos(2 psi_v + BetaL2)
    dRd/dt = -gamma Rd + Kdd/2 Rd (1 - Rd^4) + Kvd/2 Rv (1 - Rd^4) cos D
    dpsi_v/dt = 2 pi / tauV + Kdv/2 Rd (Rv^3 + 1/Rv) sin D + sigma B
                - A1/2 B (Rv^3 + 1/Rv) sin(psi_v + BetaL) - A2/2 B (1 + Rv^8) sin(2 psi_v + BetaL2)
    dpsi_d/dt = 2 pi / tauD - Kvd/2 Rv (Rd^3 + 1/Rd) sin D
    dn/dt = 60 (alpha (1 - n) - delta n)

    Rv, Rd [1], psi_v, psi_d [rad], n [1]; light [lux] a signal; tauV, tauD [h], Kvv, Kdd, Kvd, Kdv, gamma, A1, A2, sigma
    [1/h], G [min], alpha_0, delta [1/min], I0, p, BetaL, BetaL2 [1]; time in h from midnight. x = cos(psi_v) is lowest at
    the minimum of body temperature. The start is the entrained one, `late` [h] later. It never rests.
    `do` acts on `light`. Priors: spread of periods of Czeisler 1999; other spreads assumed.
    Source: Hannay 2019, doi:10.1177/0748730419878298, parameters of the package circadian 1.0.3.
    """

    time = "h"
    grid = "0.05 h"
    restless = "a rhythm of its own"
    unconserved = "a rhythm and shares, no amounts"
    protocol = fortnight()
    references = held({30.0: -0.964, 42.0: 0.821, 102.0: -0.915, 114.0: 0.750, 174.0: -0.891, 186.0: 0.719})

    class State(State):
        Rv: Scalar = state("1", "coherence of the ventral cells")
        Rd: Scalar = state("1", "coherence of the dorsal cells")
        psi_v: Scalar = state("rad", "phase of the ventral cells", positive=False)
        psi_d: Scalar = state("rad", "phase of the dorsal cells", positive=False)
        n: Scalar = state("1", "share of used photoreceptors")

    Input = LightInput

    tauV: Scalar = period(24.25, "median period of the ventral cells")
    tauD: Scalar = period(24.0, "median period of the dorsal cells")
    G: Scalar = gain(33.75)
    late: Scalar = later()
    Kvv: Scalar = constant(0.05, "1/h", "coupling among ventral cells", _HANNAY)
    Kdd: Scalar = constant(0.04, "1/h", "coupling among dorsal cells", _HANNAY)
    Kvd: Scalar = constant(0.05, "1/h", "pull of ventral on dorsal cells", _HANNAY)
    Kdv: Scalar = constant(0.01, "1/h", "pull of dorsal on ventral cells", _HANNAY)
    gamma: Scalar = constant(0.024, "1/h", "spread of the cells' periods", _HANNAY)
    A1: Scalar = constant(0.440068, "1/h", "first harmonic of light", _HANNAY)
    A2: Scalar = constant(0.159136, "1/h", "second harmonic of light", _HANNAY)
    BetaL: Scalar = constant(0.06452, "1", "phase of the first harmonic", _HANNAY)
    BetaL2: Scalar = constant(-1.38935, "1", "phase of the second harmonic", _HANNAY)
    sigma: Scalar = constant(0.0477375, "1/h", "how light quickens the clock", _HANNAY)
    alpha_0: Scalar = constant(0.05, "1/min", "activation of photoreceptors", _HANNAY)
    delta: Scalar = constant(0.0075, "1/min", "recovery of photoreceptors", _HANNAY)
    p: Scalar = constant(1.5, "1", "exponent of light", _HANNAY)
    I0: Scalar = constant(9325.0, "1", "lux to the power p at half activation", _HANNAY)
    cbt_to_dlmo: Scalar = onset()
    Rv0: Scalar = constant(0.82423745, "1", "Rv at the start", _START)
    Rd0: Scalar = constant(0.82304996, "1", "Rd at the start", _START)
    psi_v0: Scalar = constant(1.75233424, "1", "psi_v at the start", _START)
    psi_d0: Scalar = constant(1.863457, "1", "psi_d at the start", _START)
    n0: Scalar = constant(0.52318122, "1", "n at the start", _START)

    def rates(self, t, x, u):
        alpha = _alpha(self, u.light)
        B = self.G * (1.0 - x.n) * alpha
        amplitude, phase = _lit(x.Rv, x.psi_v, B, (self.A1, self.BetaL), (self.A2, self.BetaL2))
        apart = x.psi_d - x.psi_v
        v, d = 1.0 - x.Rv**4, 1.0 - x.Rd**4
        return self.State(
            Rv=-self.gamma * x.Rv + self.Kvv / 2.0 * x.Rv * v + self.Kdv / 2.0 * x.Rd * v * jnp.cos(apart) + amplitude,
            Rd=-self.gamma * x.Rd + self.Kdd / 2.0 * x.Rd * d + self.Kvd / 2.0 * x.Rv * d * jnp.cos(apart),
            psi_v=_TURN / self.tauV
            + self.Kdv / 2.0 * x.Rd * (x.Rv**3 + 1.0 / x.Rv) * jnp.sin(apart)
            + self.sigma * B
            + phase,
            psi_d=_TURN / self.tauD - self.Kvd / 2.0 * x.Rv * (x.Rd**3 + 1.0 / x.Rd) * jnp.sin(apart),
            n=receptors(alpha, self.delta, x.n),
        )

    def outputs(self, x, u):
        return _seen(x.psi_v, x.Rv)

    def initial(self, u):
        later = const(_TURN / 24.0, "1/h") * self.late
        return self.State(Rv=self.Rv0, Rd=self.Rd0, psi_v=self.psi_v0 - later, psi_d=self.psi_d0 - later, n=self.n0)
