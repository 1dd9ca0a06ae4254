"""Drugs whose elimination saturates (Michaelis and Menten): twice the dose is more than twice the exposure."""

import numpy as np

from hybridtwin.physiology.drugs.pharmacokinetics import OneCompartmentOral, TwoCompartmentOral
from hybridtwin.physiology.reference import Protocol, Reference, Since, area
from hybridtwin.signals import Regimen
from hybridtwin.system import Scalar, System, constant, output, parameter, route, typical

_GRASELA = "Grasela 1983, phenytoin in steady state, doi:10.2165/00003088-198308040-00006"
_DILANTIN = "extended phenytoin sodium capsules, US prescribing information, section 12.3"
_ACOP = (
    "Schoemaker, simulated data sets of ACoP 2016 (nlmixr2data): VM 1000 ug/h, KM 250 ug/L, spread widened from 30 %"
)
_JONES = "Jones, Norberg and Hahn 1997, venous blood of 13 men, .4 g/kg over half an hour (PubMed 9397551)"
_WEIGHTS = "what Norberg's people weighed was not found; the 28 g of 70 kg would make 1056"


class OneCompartmentMM(System):
    r"""One compartment with saturable elimination and first-order absorption.

    dA_d/dt = -ka A_d          dA/dt = ka A_d - VM C / (KM + C)          C = A / V

    A_d `depot`, A `central` [mg], C [mg/L]; ka [1/h], VM [mg/h], KM [mg/L], V [L], time in h. Far below KM the clearance
    is VM/KM; under a rate of R < VM into the blood C rests at KM R / (VM - R). An oral dose of D mg adds F D to the depot `tlag`
    hours after it was swallowed; without a lag unless one, or its prior, is given.

    Interventions: `oral` and `iv` (amount, time, interval), `VM` (an inducer, an inhibitor); a little more may be much more.
    Doses: `oral` (compartment 1) and `iv` (compartment 2). F is the share of an oral dose that reaches the blood: for
    capsules of phenytoin sodium the .92 that is phenytoin. Priors: phenytoin in adults of 70 kg (Grasela 1983: VM 415
    mg/d, KM 5.7 mg/L). Source of the model: Gabrielsson and Weiner 2016, ISBN 978-91-982991-0-6.
    """

    time = "h"
    protocol = Protocol(
        480.0, "phenytoin sodium, 300 mg by mouth every day for 20 days", shows=("C",),
        doses={"oral": Regimen.bolus(300.0, "mg", at=0.0).every("24 h", times=20)},
    )  # fmt: skip
    references = (
        Reference("concentration after 20 days", "mg/L", (10.0, 20.0), _DILANTIN + ": control at 10 to 20 mg/L, 300 mg a day",
                  lambda lived: lived["C"][lived.time >= 456.0].mean(), drawn=("C", 468.0)),
        Reference("time of the peak of a first dose", "h", (4.0, 12.0), _DILANTIN,
                  lambda lived: lived.time[np.argmax(np.where(lived.time < 24.0, lived["C"], 0.0))], drawn=("C", Since())),
        Reference("half-life at 10 mg/L", "h", (7.0, 42.0), _DILANTIN + ": 22 h on average",
                  lambda lived: np.log(2.0) * lived.body.V * (lived.body.KM + 10.0) / lived.body.VM),
    )  # fmt: skip

    State = OneCompartmentOral.State
    Input = OneCompartmentOral.Input

    ka: Scalar = parameter(
        typical(0.3, cv=0.5), "1/h", "rate of absorption", source="extended capsules; assumed, peak in 4 to 12 h"
    )
    VM: Scalar = parameter(
        typical(17.3, cv=0.25), "mg/h", "largest rate of elimination", source=_GRASELA + ", widened from 10 to 20 %"
    )
    KM: Scalar = parameter(
        typical(5.7, cv=0.5), "mg/L", "concentration at half of the largest rate", source=_GRASELA + ", its spread"
    )
    V: Scalar = parameter(
        typical(45.0, cv=0.25), "L", "volume of distribution", source="Winter 2009, .65 L/kg; spread assumed"
    )
    F: Scalar = constant(
        0.92, "1", "share of an oral dose that reaches the blood", source="phenytoin in phenytoin sodium"
    )

    tlag: Scalar = constant(0.0, "h", "lag before absorption begins")

    def dosing(self, u):
        return {"oral": route(lag=self.tlag, fraction=self.F)}

    def rates(self, t, x, u):
        C = x.central / self.V
        absorbed = self.ka * x.depot
        return self.State(depot=-absorbed, central=absorbed - self.VM * C / (self.KM + C))

    def conserved(self, x, u):
        C = x.central / self.V
        return {"drug": (x.depot + x.central, -self.VM * C / (self.KM + C))}

    def outputs(self, x, u):
        return {"C": output(x.central / self.V, "mg/L", "concentration in plasma")}


class TwoCompartmentMM(System):
    r"""Two compartments with saturable elimination and first-order absorption after a lag.

    dA_d/dt = -ka A_d
    dA/dt = ka A_d - VM C / (KM + C) - Q (C - P/Vp)          dP/dt = Q (C - P/Vp)          C = A / Vc

    A_d `depot`, A `central`, P `peripheral` [mg], C [mg/L]; ka [1/h], VM [mg/h], KM [mg/L], Q [L/h], Vc and Vp [L], time
    in h. An oral dose of D mg adds F D to the depot `tlag` hours after it was swallowed.

    Interventions: `oral` and `iv` (amount, time, interval), `VM` (an inducer, an inhibitor); a little more may be much more.
    Doses: `oral` (compartment 1) and `iv` (compartment 2). F is 1 unless given. Priors: an example drug with VM 1 mg/h,
    KM .25 mg/L, ka 1, V 70, Q 4, V2 50 (Schoemaker, data sets of ACoP 2016); the typical day is ethanol's. Source of
    the model: Gabrielsson and Weiner 2016, ISBN 978-91-982991-0-6.
    """

    time = "h"
    protocol = Protocol(
        5.0, "ethanol (Norberg 2000, doi:10.1046/j.1365-2125.2000.00194.x, without the 1.5 % that kidneys excrete), 21 g into a "
        "vein over half an hour: .4 g/kg where 35.7 L are the .68 L/kg of men (Clin Sci 1984;67:397)", shows=("C",),
        doses={"iv": Regimen.infusion(21000.0, "mg", at=0.0, over=0.5)},
        parameters={"VM": 5700.0, "KM": 27.0, "Q": 48.54, "Vc": 14.5, "Vp": 21.2},
    )  # fmt: skip
    references = (
        Reference("ethanol in blood at the end of the infusion", "mg/L", 847.0, _JONES, lambda lived: lived.at("C", 0.5),
                  why=_WEIGHTS, drawn=("C", 0.5)),
        Reference("how fast ethanol disappears, ours from 1 to 2 h", "mg/L/h", 152.0, _JONES,
                  lambda lived: lived.at("C", 1.0) - lived.at("C", 2.0)),
        Reference("half-life of the spreading after the infusion", "min", (7.0, 8.0), _JONES,
                  lambda lived: 60.0 * np.log(2.0) / (lived.body.Q * (1.0 / lived.body.Vc + 1.0 / lived.body.Vp))),
        Reference("clearance of 1 mg", "L/h", 5700.0 / 27.0, "Norberg 2000: VM/KM, far below KM",
                  lambda lived: 1.0 / area(lived.again(doses={"iv": Regimen.bolus(1.0, "mg", at=0.0)}), "C", slope_from=4.0)),
        Reference("area under the curve of 21 g at once without exchange", "mg*h/L", 21000.0 * (27.0 + 21000.0 / 29.0) / 5700.0,
                  "Norberg 2000; D (KM + D / 2 V) / VM, Gibaldi and Perrier 1982",
                  lambda lived: area(lived.again(parameters={"Q": 1e-9}, doses={"iv": Regimen.bolus(21000.0, "mg", at=0.0)}), "C",
                                     slope_from=4.8)),
    )  # fmt: skip

    State = TwoCompartmentOral.State
    Input = TwoCompartmentOral.Input

    ka: Scalar = parameter(typical(1.0, cv=0.5), "1/h", "rate of absorption", source=_ACOP)
    VM: Scalar = parameter(typical(1.0, cv=0.5), "mg/h", "largest rate of elimination", source=_ACOP)
    KM: Scalar = parameter(typical(0.25, cv=0.5), "mg/L", "concentration at half of the largest rate", source=_ACOP)
    Vc: Scalar = parameter(typical(70.0, cv=0.5), "L", "central volume", source=_ACOP)
    Q: Scalar = parameter(typical(4.0, cv=0.5), "L/h", "exchange with the periphery", source=_ACOP)
    Vp: Scalar = parameter(typical(50.0, cv=0.5), "L", "peripheral volume", source=_ACOP)
    tlag: Scalar = parameter(typical(0.1, cv=1.0), "h", "lag before absorption begins",
                             source="spans no visible lag to half an hour, tablets")  # fmt: skip
    F: Scalar = constant(1.0, "1", "share of an oral dose that reaches the blood")

    def dosing(self, u):
        return {"oral": route(lag=self.tlag, fraction=self.F)}

    def rates(self, t, x, u):
        C = x.central / self.Vc
        absorbed, exchange = self.ka * x.depot, self.Q * (C - x.peripheral / self.Vp)
        return self.State(
            depot=-absorbed, central=absorbed - self.VM * C / (self.KM + C) - exchange, peripheral=exchange
        )

    def conserved(self, x, u):
        C = x.central / self.Vc
        return {"drug": (x.depot + x.central + x.peripheral, -self.VM * C / (self.KM + C))}

    def outputs(self, x, u):
        return {"C": output(x.central / self.Vc, "mg/L", "concentration in plasma")}
