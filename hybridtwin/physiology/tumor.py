"""Tumors and what is done about them: chemotherapy and radiotherapy, day by day and in continuous time, growth under a
drug in people, and in mice.
"""

import jax.numpy as jnp
import numpy as np

from hybridtwin.physiology.reference import Protocol, Reference, Since, curve
from hybridtwin.signals import Regimen, Signal
from hybridtwin.system import (
    Input,
    Scalar,
    State,
    System,
    const,
    constant,
    dose,
    lognormal,
    output,
    parameter,
    signal,
    state,
)

_GENG = "Geng 2017, doi:10.1038/s41598-017-13646-z"
_BICA = "Geng 2017 as simulated by Bica 2020 and Melnychuk 2022 (Causal Transformer)"
_BEGINS = "assumed: a sphere of 3 cm"
_CLARET = "Claret 2009, capecitabine in colorectal cancer, doi:10.1200/JCO.2008.21.0807"
_SIMEONI = "Simeoni 2004, paclitaxel in A2780 xenografts, doi:10.1158/0008-5472.CAN-03-2524"
_FOX = "Fox 2009, CT of 22 lung tumors (15 with chemotherapy, no different): median 24.7 % smaller at 30, 44.3 % at 50 Gy"
_SLOW = "the law takes killed cells away at once, a patient takes days to weeks"
_A2780 = "In vivo model development of cisplatin-resistant and -sensitive A2780, 1990: 2.3 +- .5 d between .25 and 1 g"
_FRACTIONS = Regimen.bolus(2.0, "Gy", at=[7.0 * w + d for w in range(1, 7) for d in range(5)])


def _irradiated(begin):
    """What Fox saw, on the weekends after 30 and 50 Gy of `_FRACTIONS`: so much less than our volume [cm^3] before the first."""
    seen = {26.5: round(begin * (1.0 - 0.247), 2), 40.5: round(begin * (1.0 - 0.443), 2)}
    return curve("volume, of that before radiotherapy", "cm^3", "volume", seen, _FOX, time="d", why={26.5: _SLOW})


def _doubling(lived):
    """Time [d] in which a tumor of .25 g doubles, untreated."""
    wild = lived.again(doses={})
    return np.diff(np.interp([0.25, 0.5], wild["weight"], wild.time))[0]


def _sphere(diameter):
    """Volume of a sphere [cm^3] of this diameter [cm]."""
    return np.pi / 6.0 * diameter**3


def _cured(volume):
    """Chance that of a tumor of this volume [cm^3] no cell is left."""
    return jnp.exp(-const(5.8e8, "1/cm^3") * volume)


def _seen(volume):
    """What is seen of a tumor of this volume [cm^3]."""
    size = jnp.maximum(volume / const(1.0, "cm^3"), 1e-30)  # no slope at nothing: the cube root's is infinite there
    return {
        "diameter": output(const(1.0, "cm") * (size * (6.0 / np.pi)) ** (1.0 / 3.0), "cm", "of a sphere of this volume"),
        "cured": output(_cured(volume), "1", "chance that no cell is left"),
    }


class Geng2017Daily(System):
    r"""A lung tumor under chemotherapy and radiotherapy, day by day: the law of the causal benchmarks.

    W = V(t) (1 + rho log(K / (V + inside)) - beta_c C(t) - (alpha d(t) + beta d(t)^2) + noise(t)), no less than 0
    V(t+1) = dead_at and dead = 1 where W >= dead_at         V(t+1) = 0 and recovered = 1 where draw(t) <= exp(-5.8e8 W)
    V(t+1) = W else, and V(t+1) = V(t) once dead or recovered
    C(t+1) = (1 - elimination) C(t) + chemo(t+1)         d(t) = radio(t), for one day     beta = alpha / ratio

    V `volume` [cm^3], C `drug` [mg/m^3], d `field` [Gy]; rho, elimination, noise [1/d], K, dead_at, inside [cm^3], beta_c
    [m^3/mg/d], alpha [1/Gy/d], ratio [Gy]; a difference equation of one day. `diameter` [cm] is that of a sphere; `cured` is
    the chance that no cell is left. What chance does is an input, for the day that begins at t: `noise`, what the tumor grows
    beside the law (0 unless given), and `draw`, uniform between 0 and 1, of the chance to recover (1 unless given: only where
    nothing is left). The benchmarks let both fall on the day they end: their noise of day t + 1 is the signal's of day t. Their
    counterfactuals, unlike their factual paths, have 1e-7 cm^3 more inside the logarithm: `inside`, 0 unless given.
    Interventions: `chemo`, `radio`, both given at the beginning of a day; `noise` and `draw` are kept, or there is no pairing.

    Source: Geng 2017, doi:10.1038/s41598-017-13646-z, in the discrete form of Lim 2018 and Bica 2020.
    """

    time = "d"
    grid = "1 d"
    step = "1 d"
    restless = "a tumor that grows or shrinks"
    protocol = Protocol(
        90.0, "30 fractions of 2 Gy on working days, then five weekly cycles of chemotherapy", shows=("volume", "drug"),
        doses={"radio": _FRACTIONS, "chemo": Regimen.bolus(5.0, "mg/m^3", at=56.0).every("7 d", times=5)},
    )  # fmt: skip
    references = (
        *_irradiated(19.758),
        Reference("surviving share after 2 Gy", "1", 0.904, _GENG + ": alpha .0398/Gy, alpha/beta 10 Gy",
                  lambda lived: 1.0 - float(lived.body.alpha) * 2.0 * (1.0 + 2.0 / float(lived.body.ratio))),
        Reference("volume at death", "cm^3", 1150.3, _BICA + ": a sphere of 13 cm", lambda lived: lived.body.dead_at),
    )  # fmt: skip

    class State(State):
        volume: Scalar = state("cm^3", "tumor")
        drug: Scalar = state("mg/m^3", "concentration of the chemotherapy")
        field: Scalar = state("Gy", "radiation of the day")
        dead: Scalar = state("1", "1 from the day on which the tumor has become too large")
        recovered: Scalar = state("1", "1 from the day on which no cell is left")

    class Input(Input):
        chemo: Scalar = dose("mg/m^3", "chemotherapy", into="drug", cmt=2)
        radio: Scalar = dose("Gy", "radiotherapy", into="field", cmt=3)
        noise: Scalar = signal("1/d", "growth of the day that begins, beside the law", default=0.0)
        draw: Scalar = signal("1", "uniform draw of the day that begins, of the chance to recover", default=1.0)

    rho: Scalar = parameter(lognormal(0.0073, 0.9), "1/d", "growth", source=_BICA + "; spread assumed")
    alpha: Scalar = parameter(lognormal(0.0398, 0.8), "1/Gy/d", "radiosensitivity", source=_BICA + "; spread assumed")
    beta_c: Scalar = parameter(lognormal(0.028, 0.025), "m^3/mg/d", "effect of chemotherapy", source=_BICA)
    V0: Scalar = parameter(lognormal(14.1, 1.5), "cm^3", "tumor at the first row", initial=True, source=_BEGINS)
    ratio: Scalar = constant(10.0, "Gy", "alpha over beta", source=_GENG)
    K: Scalar = constant(_sphere(30.0), "cm^3", "largest tumor: a sphere of 30 cm", source=_BICA)
    dead_at: Scalar = constant(_sphere(13.0), "cm^3", "tumor that is not survived: a sphere of 13 cm", source=_BICA)
    inside: Scalar = constant(0.0, "cm^3", "added to the volume in the logarithm", source=_BICA + ": 1e-7 in counterfactuals")
    elimination: Scalar = constant(0.5, "1/d", "share of the drug that leaves in a day", source=_BICA)

    def rates(self, t, x, u):
        day = const(1.0, "d")
        here = (x.dead < 0.5) & (x.recovered < 0.5)
        growth = self.rho * jnp.log(self.K / (jnp.where(x.volume > 0.0, x.volume, self.K) + self.inside)) + u.noise
        grown = x.volume * (growth - self.beta_c * x.drug - self.alpha * x.field * (1.0 + x.field / self.ratio))
        left = jnp.maximum(x.volume + grown * day, 0.0 * x.volume)  # no more is killed than there is
        dies = here & (left >= self.dead_at)
        recovers = here & ~dies & (u.draw <= _cured(left))
        becomes = jnp.where(dies, self.dead_at, jnp.where(recovers, 0.0 * left, left))
        return self.State(
            volume=jnp.where(here, becomes - x.volume, 0.0 * left) / day,
            drug=-self.elimination * x.drug,
            field=-x.field / day,
            dead=jnp.where(dies, 1.0, 0.0) / day,
            recovered=jnp.where(recovers, 1.0, 0.0) / day,
        )

    def conserved(self, x, u):
        return {"drug": (x.drug, -self.elimination * x.drug), "radiation of the day": (x.field, -x.field / const(1.0, "d"))}

    def outputs(self, x, u):
        return _seen(x.volume)

    def initial(self, u):
        none = 0.0 * self.V0
        return self.State(volume=self.V0, drug=none * const(1.0, "mg/m^3/cm^3"), field=none * const(1.0, "Gy/cm^3"),
                          dead=none * const(1.0, "1/cm^3"), recovered=none * const(1.0, "1/cm^3"))  # fmt: skip


class Geng2017(System):
    r"""A lung tumor under chemotherapy and radiotherapy in continuous time.

    dV/dt = V (rho log(K / V) - beta_c C)          dC/dt = -ln 2 / half_life C
    at a fraction of D Gy: V -> V exp(-(alpha D + beta D^2)), beta = alpha / ratio

    V `volume` [cm^3], C `drug` [mg/m^3], `absorbed` [Gy] the radiation so far; rho [1/d], K [cm^3], beta_c [m^3/mg/d], alpha
    [1/Gy], ratio [Gy], half_life [d]; time in d. `diameter` [cm] is that of a sphere, `cured` the chance that no cell is
    left, exp(-5.8e8 V). Without treatment log V goes to log K at the rate rho: log(V/K) = log(V0/K) exp(-rho t).
    Interventions: `chemo`, `radio` (a fraction acts when it begins, as linear-quadratic survival).

    Source: Geng 2017, doi:10.1038/s41598-017-13646-z.
    """

    time = "d"
    grid = "0.5 d"
    restless = "a tumor that grows or shrinks"
    protocol = Protocol(
        90.0, "30 fractions of 2 Gy on working days", shows=("volume",),
        doses={"radio": _FRACTIONS},
    )  # fmt: skip
    references = (
        *_irradiated(19.894),
        Reference("surviving share after 2 Gy", "1", (0.85, 0.92), _GENG + ": alpha .0398/Gy, alpha/beta 10 Gy",
                  lambda lived: lived.again(doses={"radio": Regimen.bolus(2.0, "Gy", at=0.0)}).at("volume", 0.5)
                  / lived.again(doses={}).at("volume", 0.5)),
    )  # fmt: skip

    class State(State):
        volume: Scalar = state("cm^3", "tumor")
        drug: Scalar = state("mg/m^3", "concentration of the chemotherapy")
        absorbed: Scalar = state("Gy", "radiation so far")

    class Input(Input):
        chemo: Scalar = dose("mg/m^3", "chemotherapy", into="drug", cmt=2)
        radio: Scalar = dose("Gy", "radiotherapy, a fraction", into="absorbed", cmt=3, portion="2 min")

    rho: Scalar = parameter(lognormal(0.0073, 0.9), "1/d", "growth", source=_BICA + "; spread assumed")
    alpha: Scalar = parameter(lognormal(0.0398, 0.8), "1/Gy", "radiosensitivity", source=_GENG + "; spread assumed")
    beta_c: Scalar = parameter(lognormal(0.028, 0.025), "m^3/mg/d", "effect of chemotherapy", source=_GENG)
    half_life: Scalar = parameter(lognormal(1.0, 0.1), "d", "of the drug", source=_GENG + "; spread assumed")
    V0: Scalar = parameter(lognormal(14.1, 1.5), "cm^3", "tumor at the first row", initial=True, source=_BEGINS)
    ratio: Scalar = constant(10.0, "Gy", "alpha over beta", source=_GENG)
    K: Scalar = constant(_sphere(30.0), "cm^3", "largest tumor: a sphere of 30 cm", source=_BICA)

    def rates(self, t, x, u):
        growth = self.rho * jnp.log(self.K / jnp.where(x.volume > 0.0, x.volume, self.K))
        return self.State(
            volume=x.volume * (growth - self.beta_c * x.drug),
            drug=-np.log(2.0) / self.half_life * x.drug,
            absorbed=0.0 * self.rho * x.absorbed,
        )

    def portion(self, dose, x, u, amount, first):
        if dose != "radio":
            return x
        left = jnp.exp(-self.alpha * amount * (1.0 + amount / self.ratio))
        return self.State(volume=x.volume * left, drug=x.drug, absorbed=x.absorbed)

    def conserved(self, x, u):
        return {"drug": (x.drug, -np.log(2.0) / self.half_life * x.drug), "radiation": (x.absorbed, 0.0 * self.rho * x.absorbed)}

    def outputs(self, x, u):
        return _seen(x.volume)

    def initial(self, u):
        none = 0.0 * self.V0
        return self.State(
            volume=self.V0, drug=none * const(1.0, "mg/m^3/cm^3"), absorbed=none * const(1.0, "Gy/cm^3")
        )


class Claret2009(System):
    r"""Size of a tumor in people under a drug to which it becomes resistant.

    dy/dt = (KL - KD R exposure) y
    dR/dt = -lam R from the first exposure on, 0 before it          R(0) = 1

    y `size` [mm], the sum of longest diameters, R `response` [1] what is left of its sensitivity to the drug; KL growth, lam
    loss of effect [1/wk], KD effect [d/g/wk], exposure [g/d]; time in wk. R is the exp(-lam t) of the paper, t since treatment
    began: a treatment that begins later in the record finds a tumor that is not resistant yet, and a pause does not make it
    sensitive again. Under a constant exposure E from time 0: y = y0 exp(KL t - KD E / lam (1 - exp(-lam t))). The smallest size
    is reached at t = ln(KD E / KL) / lam. Interventions: `exposure` (daily dose of capecitabine [g/d]: more, less, later),
    `response` (held at 1: no resistance).

    Source: Claret 2009, doi:10.1200/JCO.2008.21.0807.
    """

    time = "wk"
    grid = "0.5 wk"
    restless = "a tumor that grows or shrinks"
    unconserved = "the size of a tumor and what is left of its response, no amounts"
    protocol = Protocol(
        52.0, "a year of capecitabine, 2.3 g a day on average over cycles", signals={"exposure": Signal.constant(2.3, "g/d")},
        undrawn="no measured course of a typical person was found",
    )  # fmt: skip
    references = (
        Reference("time to the smallest size, 2.3 g a day", "wk", 19.0, "closed form of Claret 2009 at its typical values",
                  lambda lived: lived.time[np.argmin(lived["size"])]),
        Reference("size at a year over the first", "1", 1.079, "closed form of Claret 2009 at its typical values",
                  lambda lived: lived.at("size", 52.0) / lived.at("size", 0.0)),
    )  # fmt: skip

    class State(State):
        size: Scalar = state("mm", "sum of longest diameters")
        response: Scalar = state("1", "what is left of the sensitivity to the drug")

    class Input(Input):
        exposure: Scalar = signal("g/d", "capecitabine a day", default=0.0)

    KL: Scalar = parameter(lognormal(0.021, 0.9), "1/wk", "growth", source=_CLARET + "; spread assumed")
    KD: Scalar = parameter(lognormal(0.025, 0.6), "d/g/wk", "effect of the drug", source=_CLARET + "; spread assumed")
    lam: Scalar = parameter(lognormal(0.053, 0.8), "1/wk", "loss of effect", source=_CLARET + "; spread assumed")
    y0: Scalar = parameter(lognormal(90.0, 0.5), "mm", "size at the first row", initial=True, source="assumed")

    def rates(self, t, x, u):
        begun = (u.exposure > 0.0) | (x.response < 1.0)  # less than all is left only where it was exposed before
        lost = self.lam * x.response
        return self.State(
            size=(self.KL - self.KD * x.response * u.exposure) * x.size, response=jnp.where(begun, -lost, 0.0 * lost)
        )

    def outputs(self, x, u):
        return {"volume_ratio": output((x.size / self.y0) ** 3, "1", "volume over that at the first row")}

    def initial(self, u):
        return self.State(size=self.y0, response=1.0)


class Simeoni2004(System):
    r"""A tumor in a mouse under paclitaxel: growth first exponential, then linear; damaged cells die on the way.

    dx1/dt = l0 x1 / (1 + (l0 w / l1)^20)^(1/20) - k2 c x1          dx2/dt = k2 c x1 - k1 x2
    dx3/dt = k1 (x2 - x3)      dx4/dt = k1 (x3 - x4)                w = x1 + x2 + x3 + x4
    dA/dt = -(k10 + k12) A + k21 P      dP/dt = k12 A - k21 P       c = A / V1

    x1 `growing`, x2 to x4 `damaged` [g], w `weight`; A `central`, P `peripheral` [mg/kg], c [ug/mL]; l0, k1 [1/d], l1 [g/d],
    k2 [mL/ug/d], k10, k12, k21 [1/d], V1 [L/kg]. A steady concentration above l0 / k2 makes the tumor vanish.
    Interventions: `iv` (amount, interval, first day), `k2` (a more potent drug).
    Doses: `iv` (compartment 1). Source: Simeoni 2004, doi:10.1158/0008-5472.CAN-03-2524.
    """

    time = "d"
    grid = "0.1 d"
    restless = "a tumor that grows or shrinks"
    protocol = Protocol(
        30.0, "30 mg/kg of paclitaxel every four days from day 8, as in figure 3 of Simeoni 2004", shows=("weight",),
        doses={"iv": Regimen.bolus(30.0, "mg/kg", at=8.0).every("4 d", times=3)},
    )  # fmt: skip
    references = (
        Reference("concentration that makes the tumor vanish", "ng/mL", 434.0, _SIMEONI,
                  lambda lived: 1000.0 * lived.body.l0 / lived.body.k2),
        Reference("weight on day 5 over that at inoculation", "1", 3.92, "Simeoni 2004: exp(l0 t) while growth is exponential",
                  lambda lived: lived.at("weight", 5.0) / lived.at("weight", 0.0)),
        Reference("time in which .25 g become .5 g", "d", (1.8, 2.8), _A2780, _doubling,
                  drawn=("weight", Since(np.log(0.25 / 0.055) / 0.273))),
    )  # fmt: skip

    class State(State):
        growing: Scalar = state("g", "cells that divide")
        damaged1: Scalar = state("g", "cells hit by the drug")
        damaged2: Scalar = state("g", "the same, later")
        damaged3: Scalar = state("g", "the same, before they are gone")
        central: Scalar = state("mg/kg", "paclitaxel in plasma and what mixes with it at once")
        peripheral: Scalar = state("mg/kg", "paclitaxel in tissue")

    class Input(Input):
        iv: Scalar = dose("mg/kg", "paclitaxel into a vein", into="central", cmt=1)

    l0: Scalar = parameter(lognormal(0.273, 0.2), "1/d", "exponential growth", source=_SIMEONI + "; spread assumed")
    l1: Scalar = parameter(lognormal(0.814, 0.3), "g/d", "linear growth", source=_SIMEONI + "; spread assumed")
    k1: Scalar = parameter(lognormal(0.968, 0.3), "1/d", "death of damaged cells", source=_SIMEONI + "; spread assumed")
    k2: Scalar = parameter(lognormal(0.629, 0.3), "mL/ug/d", "potency", source=_SIMEONI + "; spread assumed")
    w0: Scalar = parameter(lognormal(0.055, 0.3), "g", "tumor at inoculation", initial=True, source=_SIMEONI)
    k10: Scalar = constant(20.832, "1/d", "elimination", source=_SIMEONI)
    k12: Scalar = constant(0.144, "1/d", "to tissue", source=_SIMEONI)
    k21: Scalar = constant(2.011, "1/d", "from tissue", source=_SIMEONI)
    V1: Scalar = constant(0.81, "L/kg", "central volume", source=_SIMEONI)

    def growth(self, x):
        """What dividing cells add [g/d]."""
        weight = x.growing + x.damaged1 + x.damaged2 + x.damaged3
        return self.l0 * x.growing / (1.0 + (self.l0 * weight / self.l1) ** 20) ** (1 / 20)

    def rates(self, t, x, u):
        killed = self.k2 * const(1.0, "ug*L/mL/mg") * (x.central / self.V1) * x.growing
        growth = self.growth(x)
        exchange = self.k12 * x.central - self.k21 * x.peripheral
        return self.State(
            growing=growth - killed,
            damaged1=killed - self.k1 * x.damaged1,
            damaged2=self.k1 * (x.damaged1 - x.damaged2),
            damaged3=self.k1 * (x.damaged2 - x.damaged3),
            central=-self.k10 * x.central - exchange,
            peripheral=exchange,
        )

    def conserved(self, x, u):
        """Cells, which the drug only damages until they die; and the drug."""
        cells = x.growing + x.damaged1 + x.damaged2 + x.damaged3
        return {
            "cells": (cells, self.growth(x) - self.k1 * x.damaged3),
            "drug": (x.central + x.peripheral, -self.k10 * x.central),
        }

    def outputs(self, x, u):
        return {
            "weight": output(x.growing + x.damaged1 + x.damaged2 + x.damaged3, "g", "tumor"),
            "C": output(x.central / self.V1, "mg/L", "paclitaxel in plasma"),
        }

    def initial(self, u):
        none = 0.0 * self.w0
        drug = none * const(1.0, "mg/kg/g")
        return self.State(
            growing=self.w0, damaged1=none, damaged2=none, damaged3=none, central=drug, peripheral=drug
        )
