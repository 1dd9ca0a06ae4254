"""Antibodies that are taken up with the target they bind."""

import jax.numpy as jnp
import numpy as np

from hybridtwin.physiology.reference import Protocol, Reference, Since, area, half_life
from hybridtwin.signals import Regimen
from hybridtwin.system import (
    Input,
    Scalar,
    State,
    System,
    dose,
    logitnormal,
    output,
    parameter,
    route,
    state,
    typical,
)

_DENOSUMAB = "Gibiansky 2012, denosumab, doi:10.2165/11598090-000000000-00000"
_ANTIBODY = "not in that abstract; typical of antibodies, Dirks and Meibohm 2010, doi:10.2165/11535960-000000000-00000"
_PROLIA = "denosumab 60 mg, US prescribing information, section 12.3"


class TargetMediated(System):
    r"""Target-mediated disposition in its quasi-steady-state form: two compartments, under the skin or into a vein.

    Ctot = A / Vc          C = (Ctot - R - KSS + sqrt((Ctot - R - KSS)^2 + 4 KSS Ctot)) / 2          RC = R C / (KSS + C)
    dA_d/dt = -ka A_d
    dA/dt = ka A_d - CL C - Q (C - P/Vp) - kint RC Vc          dP/dt = Q (C - P/Vp)
    dR/dt = kdeg (R0 - R) - (kint - kdeg) RC                   R(0) = R0

    A_d `depot`, A `central` (free and bound), P `peripheral` [mg], R `target` (free and bound, as the mg/L of drug that
    it binds), C free drug and RC bound [mg/L]; ka, kdeg and kint [1/d], CL and Q [L/d], Vc and Vp [L], KSS and R0 [mg/L];
    time in d. Binding is fast beside everything else: KSS = (koff + kint) / kon. At rest without the drug R = R0, made at
    kdeg R0.

    Interventions: `sc` and `iv` (amount, interval), `R0` (more target than usual).
    Doses: `sc` (compartment 1, of which the share F arrives) and `iv` (compartment 2). Priors: denosumab and RANKL in 66 kg
    (Gibiansky 2012). Source: Gibiansky 2008, doi:10.1007/s10928-008-9102-8.
    """

    time = "d"
    protocol = Protocol(
        182.0,
        "denosumab, 60 mg under the skin",
        shows=("C", "occupancy"),
        doses={"sc": Regimen.bolus(60.0, "mg", at=0.0)},
    )
    references = (
        Reference("peak", "mg/L", 6.75, _PROLIA, lambda lived: lived["C"].max(), drawn=("C", None)),
        Reference("time of the peak", "d", (3.0, 21.0), _PROLIA + ", median 10",
                  lambda lived: lived.time[np.argmax(lived["C"])], drawn=("C", Since())),
        Reference("area under the curve of 16 weeks", "mg*d/L", 316.0, _PROLIA, lambda lived: area(lived, "C", 0.0, 112.0)),
        Reference("half-life, weeks 4 to 16", "d", 25.4, _PROLIA, lambda lived: half_life(lived, "C", 28.0, 112.0)),
    )  # fmt: skip

    class State(State):
        depot: Scalar = state("mg", "amount under the skin")
        central: Scalar = state("mg", "amount in plasma, free and bound")
        peripheral: Scalar = state("mg", "amount in tissue")
        target: Scalar = state("mg/L", "target, free and bound, as the drug that it binds")

    class Input(Input):
        sc: Scalar = dose("mg", "injected under the skin", into="depot", cmt=1)
        iv: Scalar = dose("mg", "given into a vein", into="central", cmt=2)

    ka: Scalar = parameter(
        typical(0.257, cv=0.5), "1/d", "absorption", source=_DENOSUMAB + ": half-life 2.7 d; spread assumed"
    )
    CL: Scalar = parameter(
        typical(0.078, cv=0.4), "L/d", "clearance of free drug", source=_DENOSUMAB + "; spread assumed"
    )
    Vc: Scalar = parameter(typical(2.62, cv=0.3), "L", "central volume", source=_DENOSUMAB + "; spread assumed")
    Q: Scalar = parameter(typical(0.79, cv=0.5), "L/d", "exchange with the periphery", source=_ANTIBODY)
    Vp: Scalar = parameter(typical(1.6, cv=0.4), "L", "peripheral volume", source=_ANTIBODY + ", lower end")
    KSS: Scalar = parameter(
        typical(0.208, cv=0.5), "mg/L", "free drug that binds half the target", source=_DENOSUMAB + "; spread assumed"
    )
    R0: Scalar = parameter(typical(0.656, cv=0.5), "mg/L", "target without the drug",
                           source=_DENOSUMAB + ": 4.46 nmol/L of 147 kDa; spread assumed")  # fmt: skip
    kdeg: Scalar = parameter(
        typical(0.0278, cv=0.5), "1/d", "loss of free target", source=_DENOSUMAB + ": .00116 1/h; spread assumed"
    )
    kint: Scalar = parameter(typical(0.0278, cv=0.5), "1/d", "uptake of the complex",
                             source="taken equal to kdeg, so that the target in all stays as it was; spread assumed")  # fmt: skip
    F: Scalar = parameter(logitnormal(0.61, 0.3), "1", "share of an injection that arrives", low=0.0, high=1.0,
                          source=_DENOSUMAB + "; spread assumed")  # fmt: skip

    def dosing(self, u):
        return {"sc": route(fraction=self.F)}

    def free(self, x):
        """Free drug [mg/L]."""
        total = x.central / self.Vc
        over = total - x.target - self.KSS
        size = jnp.abs(over) + jnp.sqrt(over**2 + 4.0 * self.KSS * total)
        return jnp.where(
            over > 0.0, 0.5 * size, 2.0 * self.KSS * total / size
        )  # the difference of two alike loses digits

    def rates(self, t, x, u):
        C = self.free(x)
        bound = x.target * C / (self.KSS + C)
        absorbed, exchange = self.ka * x.depot, self.Q * (C - x.peripheral / self.Vp)
        return self.State(
            depot=-absorbed,
            central=absorbed - self.CL * C - exchange - self.kint * bound * self.Vc,
            peripheral=exchange,
            target=self.kdeg * (self.R0 - x.target) - (self.kint - self.kdeg) * bound,
        )

    def conserved(self, x, u):
        C = self.free(x)
        lost = self.CL * C + self.kint * x.target * C / (self.KSS + C) * self.Vc
        return {"drug": (x.depot + x.central + x.peripheral, -lost)}

    def outputs(self, x, u):
        C = self.free(x)
        return {
            "C": output(C, "mg/L", "free drug in plasma"),
            "total": output(x.central / self.Vc, "mg/L", "free and bound drug in plasma"),
            "occupancy": output(C / (self.KSS + C), "1", "share of the target that is bound"),
            "free_target": output(
                x.target * self.KSS / (self.KSS + C), "mg/L", "free target, as the drug that it binds"
            ),
        }

    def initial(self, u):
        return self.State(depot=0.0, central=0.0, peripheral=0.0, target=self.R0)

    def steady(self, u):
        return self.initial(u)
