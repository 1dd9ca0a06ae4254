"""What a concentration does: directly with a delay (effect compartment), or by slowing or speeding a turnover."""

import jax.numpy as jnp
import numpy as np

from hybridtwin.errors import DeclarationError
from hybridtwin.physiology.reference import Protocol, Reference, Since, curve
from hybridtwin.signals import Regimen
from hybridtwin.system import (
    Input,
    Scalar,
    State,
    System,
    dose,
    logitnormal,
    lognormal,
    normal,
    output,
    parameter,
    state,
    typical,
)

_SHAFER = "Shafer 1990, fentanyl, doi:10.1097/00000542-199012000-00005; spread assumed"
_STANSKI = "Scott and Stanski 1987, J Pharmacol Exp Ther 240:159, beside other kinetics; spread assumed"
_SCOTT = "Scott, Ponganis and Stanski 1985, fentanyl, doi:10.1097/00000542-198503000-00004; spread assumed"
_MATHER = "Mather and Gourlay 1991, fentanyl, doi:10.1007/978-3-642-76872-9_7"
_VARVEL = "Shafer and Varvel 1991, doi:10.1097/00000542-199101000-00010"
_MONOLIX = "warfarin, Monolix 2021R1 on 32 people of O'Reilly 1963 and 1968 (babelmixr2, pk.turnover.emax3)"
_PEOPLE = "the 32 people of O'Reilly 1963 and 1968, 1.5 mg/kg (nlmixr2data)"
_OREILLY = "O'Reilly 1968, doi:10.1161/01.CIR.38.1.169"


def hill(ratio, gamma):
    """ratio^gamma / (1 + ratio^gamma) of a concentration over that of half effect, with finite derivatives at 0."""
    there = ratio > 0.0
    power = jnp.where(there, jnp.where(there, ratio, 1.0) ** gamma, 0.0)
    return power / (1.0 + power)


class EffectCompartment(System):
    r"""An effect compartment behind three compartments, and a sigmoid effect.

    dA/dt = -CL C - Q2 (C - P/V2) - Q3 (C - D/V3)          C = A / V1
    dP/dt = Q2 (C - P/V2)          dD/dt = Q3 (C - D/V3)          dCe/dt = ke0 (C - Ce)
    E = E0 + Emax Ce^gamma / (EC50^gamma + Ce^gamma)

    A `central`, P `shallow`, D `deep` [ug], C and Ce `effect` [ug/L]; CL, Q2 and Q3 [L/min], V1, V2 and V3 [L], ke0 [1/min],
    EC50 [ug/L], gamma [1], E0 and Emax [Hz]; time in min. At rest without the drug E = E0. gamma = 1 is the ordinary Emax
    model; Emax is negative for a drug that lowers E. Q2 = Q3 = 0 leaves one compartment.

    Interventions: `iv` (bolus, rate of the infusion, its end), by a rule on the effect as well; `ke0` (delay).
    Doses: `iv` (compartment 1). Priors: fentanyl, kinetics of Shafer 1990 (V1 6.09 L; k10 .0827, k12 .471, k13 .225, k21
    .102, k31 .006 1/min), ke0 of Scott and Stanski 1987 (.147 1/min, fitted beside kinetics of their own) and the spectral
    edge of the EEG (Scott 1985). Source: Sheiner 1979, doi:10.1002/cpt1979253358.
    """

    time = "min"
    protocol = Protocol(
        60.0,
        "fentanyl, 350 ug (5 ug/kg) into a vein",
        shows=("C", "Ce", "E"),
        doses={"iv": Regimen.bolus(350.0, "ug", at=0.0)},
    )
    references = (
        Reference("time of the largest effect of a bolus", "min", 3.6, _VARVEL,
                  lambda lived: lived.time[np.argmax(lived["Ce"])], why="ke0 belongs with other kinetics, which lead to 3.7",
                  drawn=("Ce", Since())),
        Reference("volume at steady state", "L", (300.0, 400.0), _MATHER + ", for 70 kg",
                  lambda lived: lived.body.V1 + lived.body.V2 + lived.body.V3),
        Reference("clearance", "L/min", (0.5, 1.2), _MATHER, lambda lived: lived.body.CL),
    )  # fmt: skip

    class State(State):
        central: Scalar = state("ug", "amount in plasma and what mixes with it at once")
        shallow: Scalar = state("ug", "amount in tissue that exchanges within minutes")
        deep: Scalar = state("ug", "amount in tissue that exchanges slowly")
        effect: Scalar = state("ug/L", "concentration at the site of effect")

    class Input(Input):
        iv: Scalar = dose("ug", "given into a vein", into="central", cmt=1)

    CL: Scalar = parameter(typical(0.504, cv=0.4), "L/min", "clearance", source=_SHAFER)
    V1: Scalar = parameter(typical(6.09, cv=0.4), "L", "central volume", source=_SHAFER)
    Q2: Scalar = parameter(typical(2.87, cv=0.4), "L/min", "exchange with the shallow compartment", source=_SHAFER)
    V2: Scalar = parameter(typical(28.1, cv=0.4), "L", "shallow volume", source=_SHAFER)
    Q3: Scalar = parameter(typical(1.37, cv=0.4), "L/min", "exchange with the deep compartment", source=_SHAFER)
    V3: Scalar = parameter(typical(228.0, cv=0.4), "L", "deep volume", source=_SHAFER)
    ke0: Scalar = parameter(typical(0.147, cv=0.4), "1/min", "equilibration of plasma and effect site", source=_STANSKI)
    EC50: Scalar = parameter(typical(6.9, cv=0.3), "ug/L", "concentration at half of the effect", source=_SCOTT)
    gamma: Scalar = parameter(lognormal(4.8, 0.3), "1", "steepness", source=_SCOTT)
    E0: Scalar = parameter(normal(19.0, 2.0), "Hz", "effect without the drug", source=_SCOTT)
    Emax: Scalar = parameter(normal(-14.0, 2.0), "Hz", "largest change", source=_SCOTT)

    def rates(self, t, x, u):
        C = x.central / self.V1
        shallow, deep = self.Q2 * (C - x.shallow / self.V2), self.Q3 * (C - x.deep / self.V3)
        return self.State(
            central=-self.CL * C - shallow - deep, shallow=shallow, deep=deep, effect=self.ke0 * (C - x.effect)
        )

    def conserved(self, x, u):
        return {"drug": (x.central + x.shallow + x.deep, -self.CL / self.V1 * x.central)}

    def outputs(self, x, u):
        return {
            "C": output(x.central / self.V1, "ug/L", "concentration in plasma"),
            "Ce": output(x.effect, "ug/L", "concentration at the site of effect"),
            "E": output(self.E0 + self.Emax * hill(x.effect / self.EC50, self.gamma), "Hz", "effect"),
        }


KINDS = ("I", "II", "III", "IV")


class IndirectResponse(System):
    r"""Indirect response: a drug that slows or speeds the production or the loss of a marker (kinds I to IV).

    dA_d/dt = -ka A_d          dA/dt = ka A_d - (CL/V) A          C = A / V          S = emax C / (ec50 + C)
    kind I    dR/dt = kout R0 (1 - S) - kout R          at rest under a constant C: R = R0 (1 - S)
    kind II   dR/dt = kout R0 - kout (1 - S) R                                      R = R0 / (1 - S)
    kind III  dR/dt = kout R0 (1 + S) - kout R                                      R = R0 (1 + S)
    kind IV   dR/dt = kout R0 - kout (1 + S) R                                      R = R0 / (1 + S)

    A_d `depot`, A `central` [mg], C [mg/L], R `marker` [%]; ka and kout [1/h], CL [L/h], V [L], R0 [%], ec50 [mg/L], emax
    [1], at most 1 where the drug slows (I, II); time in h. At rest without the drug R = R0.
    `kind` is structure: `IndirectResponse(kind="III", emax=ht.typical(2.0, cv=0.3))`. `rest(C)` is the marker at rest.

    Interventions: `oral` and `iv` (amount, time, interval), by a rule where the marker passes a level as well; `kout`.
    Doses: `oral` (compartment 1) and `iv` (compartment 2). Priors: kind I, warfarin and the prothrombin complex, with
    absorption in one step (`Warfarin` has two). Source: Dayneka 1993, doi:10.1007/BF01061691.
    """

    time = "h"
    protocol = Protocol(
        240.0, "warfarin, 100 mg by mouth, over the means of the people of O'Reilly 1963 and 1968", shows=("C", "R"),
        doses={"oral": Regimen.bolus(100.0, "mg", at=0.0)},
    )  # fmt: skip
    references = (
        Reference("time of the largest effect of one dose", "h", (36.0, 72.0), _OREILLY,
                  lambda lived: lived.time[np.argmin(lived["R"])], drawn=("R", Since())),
        Reference("lowest activity after one dose", "%", (9.0, 28.0), "O'Reilly 1963 and 1968, each of 32 people (nlmixr2data)",
                  lambda lived: lived["R"].min(), drawn=("R", None)),
        *curve("prothrombin complex activity, mean", "%", "R", {24.0: 37.7, 36.0: 24.6, 48.0: 19.2, 72.0: 21.3, 96.0: 27.7,
                                                                120.0: 35.2}, _PEOPLE, time="h"),
    )  # fmt: skip

    class State(State):
        depot: Scalar = state("mg", "amount at the site of absorption")
        central: Scalar = state("mg", "amount in plasma and what mixes with it at once")
        marker: Scalar = state("%", "marker")

    class Input(Input):
        oral: Scalar = dose("mg", "swallowed", into="depot", cmt=1)
        iv: Scalar = dose("mg", "given into a vein", into="central", cmt=2)

    kind: str = "I"
    ka: Scalar = parameter(
        typical(0.55, cv=0.5), "1/h", "rate of absorption", source=_MONOLIX + ": 1/ktr + 1/ka = 1.8 h; spread assumed"
    )
    CL: Scalar = parameter(lognormal(0.1345183, 0.2792895), "L/h", "clearance", source=_MONOLIX)
    V: Scalar = parameter(lognormal(7.725878, 0.2232495), "L", "volume of distribution", source=_MONOLIX)
    emax: Scalar = parameter(logitnormal(0.988607, 0.380353), "1", "largest effect", low=0.0, source=_MONOLIX)
    ec50: Scalar = parameter(lognormal(1.081789, 0.4540196), "mg/L", "concentration at half of emax", source=_MONOLIX)
    kout: Scalar = parameter(lognormal(0.0529798, 0.0786167), "1/h", "turnover of the marker", source=_MONOLIX)
    R0: Scalar = parameter(lognormal(96.66687, 0.0507561), "%", "marker without the drug", source=_MONOLIX)

    def __check_init__(self):
        if self.kind not in KINDS:
            raise DeclarationError(f"an indirect response of kind {self.kind!r}. Give kind one of {', '.join(KINDS)}")

    def factors(self, C):
        """What production and loss are multiplied by at a concentration C [mg/L]."""
        effect = self.emax * C / (self.ec50 + C)
        changed = 1.0 - effect if self.kind in ("I", "II") else 1.0 + effect
        return (changed, 1.0) if self.kind in ("I", "III") else (1.0, changed)

    def rest(self, C):
        """The marker at rest [%] under a constant concentration C [mg/L]."""
        made, lost = self.factors(C)
        return self.R0 * made / lost

    def rates(self, t, x, u):
        made, lost = self.factors(x.central / self.V)
        return self.State(
            depot=-self.ka * x.depot,
            central=self.ka * x.depot - self.CL / self.V * x.central,
            marker=self.kout * (self.R0 * made - lost * x.marker),
        )

    def conserved(self, x, u):
        return {"drug": (x.depot + x.central, -self.CL / self.V * x.central)}

    def outputs(self, x, u):
        return {
            "C": output(x.central / self.V, "mg/L", "concentration in plasma"),
            "R": output(x.marker, "%", "marker"),
        }

    def initial(self, u):
        return self.State(depot=0.0, central=0.0, marker=self.R0)

    def steady(self, u):
        return self.initial(u)
