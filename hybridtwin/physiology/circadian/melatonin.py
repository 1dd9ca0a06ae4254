"""A body clock that makes melatonin and listens to it, from the pineal gland or from a tablet (Breslow)."""

import jax.numpy as jnp
import numpy as np

from hybridtwin.physiology.circadian.common import (
    classical,
    fortnight,
    gain,
    held,
    later,
    light,
    onset,
    period,
    turned,
)
from hybridtwin.physiology.circadian.pacemaker import dimmed, driven
from hybridtwin.system import Input, Scalar, State, System, const, constant, dose, output, state, switch

_BRESLOW = "Breslow 2013, doi:10.1177/0748730412468081, as in the package circadian 1.0.3"


class Breslow13(System):
    r"""The pacemaker with melatonin: what the pineal gland makes at night and what is swallowed push the clock.

    alpha = alpha_0 (light / I0)^p light / (light + I1)          B = G (1 - n) alpha (1 - 0.4 x) (1 - 0.4 xc)
    M = Mmax / (1 + exp((Hsat - plasma) / sigma))
    dx/dt = pi/12 (xc + mu (x/3 + 4/3 x^3 - 256/105 x^7) + B - eta M)
    dxc/dt = pi/12 (q B xc - x ((24 / (0.99729 tauc))^2 + k B) - xi M)
    dn/dt = 60 (alpha (1 - n) - beta n)
    dpineal/dt = a A (1 - m B) - b_pineal pineal
    dplasma/dt = b_pineal pineal - b_plasma plasma + b_gut gut          dgut/dt = -b_gut gut
    A = 1 while phi_off < atan2(x, xc) < phi_on - 1 / delta, else 0; nothing is made while 1 - m B < 0 and pineal < drained

    x, xc [1] the clock and its complement, n [1] the share of used photoreceptors, pineal, plasma [pmol/L] melatonin, gut
    [pmol/L] a tablet, as the concentration that all of it would make; making, dry [1] are 1 while A is, and while
    light has emptied the gland. light [lux] a signal, melatonin [pmol/L] a dose. alpha_0, beta [1/min], G [min], tauc
    [h], b_pineal, b_plasma, b_gut [1/h], a [pmol/L/h], Hsat, sigma, drained [pmol/L], phi_on, phi_off [rad], delta [1/rad],
    others [1]. The paper lets A fade as 1 - exp(-delta (phi_on - theta)), within half a minute, and leaves 2e-12 of it by day: as
    much melatonin as here, where it ends at once.
    The start is that of the package, turned by `late` [h], without melatonin. It never rests.

    `do` acts on `light` and `melatonin` (tablets in the afternoon advance the clock, those of the small hours delay it, by a
    minute or two each). Melatonin of one's own comes to 3 pmol/L here, where nights have some hundreds: with the numbers of
    the package, its time is meant and not its level. The onset of melatonin of `circadian.markers` is, as in the package, a
    fixed time before the minimum of body temperature. Priors: periods of Czeisler 1999; other spreads assumed. Source:
    Breslow 2013, doi:10.1177/0748730412468081.
    """

    time = "h"
    grid = "0.05 h"
    restless = "a rhythm of its own"
    protocol = fortnight(shows=("x", "plasma"))
    references = held({30.0: -0.990, 42.0: 0.919, 102.0: -0.933, 114.0: 0.867, 174.0: -0.914, 186.0: 0.850})

    class State(State):
        x: Scalar = state("1", "clock", positive=False)
        xc: Scalar = state("1", "its complement", positive=False)
        n: Scalar = state("1", "share of used photoreceptors")
        pineal: Scalar = state("pmol/L", "melatonin in the pineal gland", positive=False)
        plasma: Scalar = state("pmol/L", "melatonin in plasma", positive=False)
        gut: Scalar = state("pmol/L", "swallowed melatonin that is still to come")
        making: Scalar = state("1", "1 while the clock lets melatonin be made")
        dry: Scalar = state("1", "1 while light has emptied the gland")

    class Input(Input):
        light: Scalar = light()
        melatonin: Scalar = dose("pmol/L", into="gut")

    tauc: Scalar = period(24.1)
    G: Scalar = gain(37.0)
    late: Scalar = later()
    alpha_0: Scalar = constant(0.1, "1/min", "activation of photoreceptors at I0", _BRESLOW)
    beta: Scalar = constant(0.007, "1/min", "recovery of photoreceptors", _BRESLOW)
    I0: Scalar = constant(9500.0, "lux", "light of full activation", _BRESLOW)
    I1: Scalar = constant(100.0, "lux", "light below which little happens", _BRESLOW)
    p: Scalar = constant(0.5, "1", "exponent of light", _BRESLOW)
    mu: Scalar = constant(0.13, "1", "stiffness of the oscillator", _BRESLOW)
    q: Scalar = constant(1.0 / 3.0, "1", "how light moves the complement", _BRESLOW)
    k: Scalar = constant(0.55, "1", "how light changes the period", _BRESLOW)
    m: Scalar = constant(7.0, "1", "how light stops melatonin", _BRESLOW)
    eta: Scalar = constant(0.04, "1", "push of melatonin on the clock", _BRESLOW)
    xi: Scalar = constant(0.54, "1", "push of melatonin on its complement", _BRESLOW)
    b_pineal: Scalar = constant(0.000783 * 3600.0, "1/h", "release from the pineal gland", _BRESLOW)
    b_plasma: Scalar = constant(0.000335 * 3600.0, "1/h", "elimination from plasma", _BRESLOW)
    b_gut: Scalar = constant(0.000162 * 3600.0, "1/h", "absorption of a tablet", _BRESLOW)
    a: Scalar = constant(0.0010422 * 3600.0, "pmol/L/h", "most that the pineal gland makes", _BRESLOW)
    phi_on: Scalar = constant(6.113 - 2 * np.pi, "rad", "phase at which melatonin ceases to be made", _BRESLOW)
    phi_off: Scalar = constant(4.352 - 2 * np.pi, "rad", "phase from which melatonin is made", _BRESLOW)
    delta: Scalar = constant(600.0, "1/rad", "how suddenly it ceases", _BRESLOW)
    drained: Scalar = constant(0.001, "pmol/L", "pineal melatonin that light leaves", "circadian 1.0.3")
    Mmax: Scalar = constant(0.019513, "1", "largest push", _BRESLOW)
    Hsat: Scalar = constant(861.0, "pmol/L", "plasma melatonin of half the push", _BRESLOW)
    sigma: Scalar = constant(50.0, "pmol/L", "width of its rise", _BRESLOW)
    phi_ref: Scalar = constant(0.97, "h", "from the lowest x to the minimum of body temperature", _BRESLOW)
    cbt_to_dlmo: Scalar = onset()
    x0: Scalar = constant(-0.219, "1", "x at the start", "circadian 1.0.3")
    xc0: Scalar = constant(-1.22, "1", "xc at the start", "circadian 1.0.3")
    n0: Scalar = constant(0.519, "1", "n at the start", "circadian 1.0.3")

    def rates(self, t, x, u):
        alpha, B = dimmed(self, x, u.light)
        M = self.Mmax / (1.0 + jnp.exp((self.Hsat - x.plasma) / self.sigma))
        return self.State(
            **driven(self, x, self.tauc, alpha, B, push=-self.eta * M, pull=self.xi * M),
            pineal=self.a * x.making * (1.0 - self.m * B) * (1.0 - x.dry) - self.b_pineal * x.pineal,
            plasma=self.b_pineal * x.pineal - self.b_plasma * x.plasma + self.b_gut * x.gut,
            gut=-self.b_gut * x.gut,
            making=0.0,
            dry=0.0,
        )

    def between(self, x, first, last):
        """Above 0 while the phase is between two, less than half a turn apart; smooth in between."""

        def past(phase):
            return (x.x * jnp.cos(phase) - x.xc * jnp.sin(phase)) / jnp.sqrt(x.x**2 + x.xc**2)

        return jnp.minimum(past(first), -past(last))

    def switches(self, x, u):
        first, last = self.phi_off, self.phi_on - 1.0 / self.delta
        # each looks away from where the other has just acted
        begins = self.between(x, first, 0.5 * (first + last))
        ends = -self.between(x, first - const(1.0, "rad"), last)
        stops = self.m * dimmed(self, x, u.light)[1] - 1.0  # above 0 light takes away what there is
        takes = (x.making > 0.5) & (x.dry < 0.5) & (stops > 1e-3)
        return {
            "begins": switch(begins, {"making": 1.0}, only=x.making < 0.5),
            "ends": switch(ends, {"making": 0.0}, only=x.making > 0.5),
            "runs dry": switch((self.drained - x.pineal) / self.drained, {"dry": 1.0}, only=takes),
            "fills": switch(-stops, {"dry": 0.0}, only=x.dry > 0.5),
        }

    def conserved(self, x, u):
        kept = 1.0 - self.m * dimmed(self, x, u.light)[1]
        made = self.a * x.making * kept * (1.0 - x.dry)
        return {"melatonin": (x.pineal + x.plasma + x.gut, made - self.b_plasma * x.plasma)}

    def outputs(self, x, u):
        return {
            "x": output(x.x, "1", "clock; lowest before the minimum of body temperature"),
            "amplitude": output(jnp.sqrt(x.x**2 + x.xc**2), "1", "amplitude of the clock"),
            "plasma": output(x.plasma, "pmol/L", "melatonin in plasma"),
        }

    def initial(self, u):
        x, xc = turned(self.x0, self.xc0, self.late)
        return self.State(x=x, xc=xc, n=self.n0, pineal=0.0, plasma=0.0, gut=0.0, making=0.0, dry=0.0)


class Breslow13Stepped(System):
    r"""`Breslow13` as the package circadian 1.0.3 runs it: a difference equation, one step of Runge-Kutta in 0.05 h.

    k1 = r(x)          k2 = r(x + h/2 k1)          k3 = r(x + h/2 k2)          k4 = r(x + h k3)
    x(t + h) = x + h/6 (k1 + 2 k2 + 2 k3 + k4)
    theta = atan2(x, xc)
    A = (1 - exp(-delta (phi_on - theta))) / (1 - exp(-delta (phi_on - phi_off))) while phi_off < theta < phi_on,
        else exp(-r (phi_on - phi_off))
    dpineal/dt = a A (1 - m B) - b_pineal pineal, without the first term while 1 - m B < 0 and pineal < drained

    r(x) are the rates of `Breslow13` with this A; h = 0.05 h, r = 15.36/rad. The steps of the package pass over the moments at
    which melatonin begins to be made, ceases, and is used up by light, so that its melatonin differs from the equations' by what
    is made in a step (up to .19 of 3 pmol/L); `Breslow13` stops at those moments. This is to compare with the package.
    Outputs here jump with parameters, where such a moment falls into another step. Symbols and units as in `Breslow13`. `do` acts
    on `light` and `melatonin`.
    Source: Breslow 2013, doi:10.1177/0748730412468081, in the discrete form of the package circadian 1.0.3.
    """

    time = "h"
    grid = "0.05 h"
    step = "0.05 h"
    restless = "a rhythm of its own"
    unconserved = "a whole step of Runge-Kutta is its rate: what melatonin gains is known inside it alone"
    protocol = fortnight(shows=("x", "plasma"))
    references = held({30.0: -0.990, 42.0: 0.919, 102.0: -0.933, 114.0: 0.867, 174.0: -0.914, 186.0: 0.850})

    class State(State):
        x: Scalar = state("1", "clock", positive=False)
        xc: Scalar = state("1", "its complement", positive=False)
        n: Scalar = state("1", "share of used photoreceptors")
        pineal: Scalar = state("pmol/L", "melatonin in the pineal gland", positive=False)
        plasma: Scalar = state("pmol/L", "melatonin in plasma", positive=False)
        gut: Scalar = state("pmol/L", "swallowed melatonin that is still to come")

    Input = Breslow13.Input

    model: Breslow13 = Breslow13()
    r: Scalar = constant(15.36, "1/rad", "how little is left by day", _BRESLOW)

    def made(self, x, B):
        """What the pineal gland makes [pmol/L/h]."""
        body, theta = self.model, jnp.arctan2(x.x, x.xc) * const(1.0, "rad")
        longest = body.phi_on - body.phi_off
        night = (theta > body.phi_off) & (theta < body.phi_on)
        left = jnp.where(night, body.phi_on - theta, longest)
        A = jnp.where(night, jnp.expm1(-body.delta * left) / jnp.expm1(-body.delta * longest), jnp.exp(-self.r * longest))
        kept = 1.0 - body.m * B
        return jnp.where((kept < 0.0) & (x.pineal < body.drained), 0.0, body.a * A * kept)

    def rates(self, t, x, u):
        def law(y):
            body = self.model
            alpha, B = dimmed(body, y, u.light)
            M = body.Mmax / (1.0 + jnp.exp((body.Hsat - y.plasma) / body.sigma))
            return self.State(
                **driven(body, y, body.tauc, alpha, B, push=-body.eta * M, pull=body.xi * M),
                pineal=self.made(y, B) - body.b_pineal * y.pineal,
                plasma=body.b_pineal * y.pineal - body.b_plasma * y.plasma + body.b_gut * y.gut,
                gut=-body.b_gut * y.gut,
            )

        return classical(law, x, const(0.05, "h"))

    def outputs(self, x, u):
        return self.model.outputs(x, u)

    def initial(self, u):
        first = self.model.initial(u)
        return self.State(x=first.x, xc=first.xc, n=first.n, pineal=0.0, plasma=0.0, gut=0.0)
