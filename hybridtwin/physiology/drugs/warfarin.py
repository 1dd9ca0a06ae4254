"""Warfarin: how much is in the blood, and what it does to clotting."""

import numpy as np

from hybridtwin.physiology.reference import Protocol, Reference, Since, curve, half_life
from hybridtwin.signals import Regimen
from hybridtwin.system import Input, Scalar, State, System, dose, logitnormal, lognormal, output, parameter, state

_PEOPLE = "the 32 people of O'Reilly 1963 and 1968, 1.5 mg/kg (nlmixr2data); 13 and 11 of them at 3 and 9 h, 13 at 144 h"
_LABEL = "warfarin sodium tablets, US prescribing information 2017, section 12.3"
_MONOLIX = "Monolix 2021R1 on 32 people of O'Reilly 1963 and 1968 (babelmixr2, pk.turnover.emax3)"


class Warfarin(System):
    r"""Warfarin by mouth, and the turnover of the prothrombin complex that it slows.

    dA_d/dt = -ktr A_d          dA_g/dt = ktr A_d - ka A_g          dA/dt = ka A_g - (CL/V) A          Cp = A / V
    dE/dt = kout E0 (1 - emax Cp / (ec50 + Cp)) - kout E          E(0) = E0

    A_d `depot`, A_g `gut`, A `central` [mg], Cp `cp` [mg/L], E `effect` [%] read as `pca`; ktr, ka, kout [1/h], CL
    [L/h], V [L], ec50 [mg/L], E0 [%], emax [1] between 0 and 1 (normal on the logit scale); time in h. At rest without
    the drug E = E0.

    Interventions: `oral` (amount, time, interval, stopped by a rule on `pca`), `CL` (an interaction).
    Doses: `oral` (NONMEM compartment 1). Priors: the population fit of Monolix 2021R1, all random effects diagonal, no
    covariates. Source: O'Reilly 1963, doi:10.1172/JCI104839, and 1968, doi:10.1161/01.CIR.38.1.169; turnover of
    Dayneka 1993, doi:10.1007/BF01061691.
    """

    time = "h"
    protocol = Protocol(
        240.0, "100 mg by mouth (1.5 mg/kg), over the means of the people of O'Reilly 1963 and 1968", shows=("cp", "pca"),
        doses={"oral": Regimen.bolus(100.0, "mg", at=0.0)},
    )  # fmt: skip
    references = (
        Reference("half-life in plasma", "h", (20.0, 60.0), _LABEL,
                  lambda lived: half_life(lived, "cp", 96.0, 144.0)),
        Reference("time of the peak in plasma", "h", (1.0, 9.0), "O'Reilly 1963, doi:10.1172/JCI104839",
                  lambda lived: lived.time[np.argmax(lived["cp"])], drawn=("cp", Since())),
        Reference("time of the largest effect of one dose", "h", (36.0, 72.0), "O'Reilly 1968, doi:10.1161/01.CIR.38.1.169",
                  lambda lived: lived.time[np.argmin(lived["pca"])], drawn=("pca", Since())),
        *curve("warfarin in plasma, mean", "mg/L", "cp", {3.0: 11.18, 9.0: 12.19, 24.0: 8.62, 36.0: 7.46, 48.0: 5.91,
                                                          72.0: 4.14, 96.0: 2.89, 120.0: 2.16}, _PEOPLE, time="h"),
        *curve("prothrombin complex activity, mean", "%", "pca", {24.0: 37.7, 36.0: 24.6, 48.0: 19.2, 72.0: 21.3, 96.0: 27.7,
                                                                  120.0: 35.2, 144.0: 46.2}, _PEOPLE, time="h"),
    )  # fmt: skip

    class State(State):
        depot: Scalar = state("mg", "swallowed and not yet dissolved")
        gut: Scalar = state("mg", "ready to be absorbed")
        central: Scalar = state("mg", "amount in plasma")
        effect: Scalar = state("%", "prothrombin complex activity")

    class Input(Input):
        oral: Scalar = dose("mg", "warfarin swallowed", into="depot", cmt=1)

    ktr: Scalar = parameter(lognormal(1.243646, 0.731006), "1/h", "transit to the gut", source=_MONOLIX)
    ka: Scalar = parameter(lognormal(1.005344, 0.460793), "1/h", "rate of absorption", source=_MONOLIX)
    CL: Scalar = parameter(lognormal(0.1345183, 0.2792895), "L/h", "clearance", source=_MONOLIX)
    V: Scalar = parameter(lognormal(7.725878, 0.2232495), "L", "volume of distribution", source=_MONOLIX)
    emax: Scalar = parameter(logitnormal(0.988607, 0.380353), "1", "largest share of production that is blocked",
                             low=0.0, high=1.0, source=_MONOLIX)  # fmt: skip
    ec50: Scalar = parameter(lognormal(1.081789, 0.4540196), "mg/L", "concentration at half of emax", source=_MONOLIX)
    kout: Scalar = parameter(lognormal(0.05297980, 0.0786167), "1/h", "turnover of the complex", source=_MONOLIX)
    E0: Scalar = parameter(lognormal(96.66687, 0.0507561), "%", "activity without warfarin", source=_MONOLIX)

    def rates(self, t, x, u):
        concentration = x.central / self.V
        blocked = self.emax * concentration / (self.ec50 + concentration)
        return self.State(
            depot=-self.ktr * x.depot,
            gut=self.ktr * x.depot - self.ka * x.gut,
            central=self.ka * x.gut - self.CL / self.V * x.central,
            effect=self.kout * self.E0 * (1.0 - blocked) - self.kout * x.effect,
        )

    def conserved(self, x, u):
        return {"drug": (x.depot + x.gut + x.central, -self.CL / self.V * x.central)}

    def outputs(self, x, u):
        return {
            "cp": output(x.central / self.V, "mg/L", "warfarin in plasma"),
            "pca": output(x.effect, "%", "prothrombin complex activity"),
        }

    def initial(self, u):
        return self.State(depot=0.0, gut=0.0, central=0.0, effect=self.E0)
