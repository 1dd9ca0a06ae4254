"""Drugs in one, two and three compartments, given into a vein or by mouth.

Every system here is linear in its state, so that it is solved exactly between events. The default priors are those of
one example drug, named in each docstring: for another drug give its own, `OneCompartment(CL=ht.typical(1.2, cv=0.3),
V=...)`, or write a system of your own with covariates (a clearance that grows with body weight, say), as in the README.
Where nobody measured the example drug, the typical day is that of a drug that was (`Protocol.parameters`).
"""

import numpy as np

from hybridtwin.physiology.reference import Protocol, Reference, Since, area, curve, half_life
from hybridtwin.signals import Regimen
from hybridtwin.system import Input, Scalar, State, System, constant, dose, output, parameter, route, state, typical

_ACOP = "Schoemaker, simulated data sets of ACoP 2016 (nlmixr2data), spread widened from 30 %"
_GOTI = "Goti 2018, vancomycin, doi:10.1097/FTD.0000000000000490"
_THEOPH = "theophylline, 12 adults: nlmixr2 SAEM 1.59, 2.75, 31.8 (CV 71, 27, 13 %), widened"
_UPTON = "12 adults of Upton, 320 mg (Boeckmann, Sheiner and Beal 1994; Theoph of R)"
_LABEL = "theophylline, US prescribing information, table of healthy nonsmoking adults (Hendeles)"
_BRUNO = "Bruno 1996, docetaxel, doi:10.1007/BF02353487"
_TAXOTERE = "docetaxel, EU summary of product characteristics, section 5.2: 100 mg/m2 over an hour"
_GRASELA = "Grasela and Donn 1985, phenobarbital, 59 newborns"
_NEWBORNS = _GRASELA + ": mean of readings around then, of the 39 given 18 to 22 mg/kg, then 2.5 mg/kg/12 h (nlmixr2data)"
_JAPAN = "ruxolitinib, healthy Japanese men, Blood 2011;118:5162 (abstract)"
_JAKAFI = "ruxolitinib, US prescribing information"
WARD = "vancomycin, US prescribing information: means of normal kidneys, 1 g over an hour, repeated"
WIDE = "the volumes of Goti's patients make 97 L; the label's people have .3 to .43 L/kg, and a peak while it spreads"
_LAG = "spans no visible lag to half an hour, tablets"


class OneCompartment(System):
    r"""One compartment, given into a vein.

    dA/dt = -(CL/V) A          C = A / V          A `central` [mg], C [mg/L], CL [L/h], V [L], time in h

    Interventions: `iv` (amount, time, interval, how long it runs), `CL` (a failing organ, an interaction).
    Doses: `iv` (bolus or infusion, NONMEM compartment 1). Priors: an example drug with CL 4 L/h, V 70 L (Schoemaker,
    data sets of ACoP 2016); the typical day is phenobarbital's. Source of the model: Gabrielsson and Weiner 2016,
    Pharmacokinetic and Pharmacodynamic Data Analysis, 5th edition, ISBN 978-91-982991-0-6.
    """

    time = "h"
    protocol = Protocol(
        168.0, "phenobarbital in a newborn of 1.52 kg (Grasela and Donn 1985), 20 mg/kg into a vein, then 2.5 mg/kg every 12 h",
        doses={"iv": Regimen.bolus(30.4, "mg", at=0.0) + Regimen.bolus(3.8, "mg", at=12.0).every("12 h", times=13)},
        parameters={"CL": 0.0047 * 1.52, "V": 0.96 * 1.52},
    )  # fmt: skip
    references = (
        Reference("half-life of phenobarbital", "h", 141.0, _GRASELA + ", abstract",
                  lambda lived: half_life(lived.again(doses={"iv": Regimen.bolus(30.4, "mg", at=0.0)}), "C", 24.0, 72.0)),
        *curve("phenobarbital in serum, mean", "mg/L", "C", {2.0: 20.0, 7.4: 18.4, 27.6: 20.1, 52.3: 23.1, 75.2: 28.8,
                                                             123.5: 27.6, 143.9: 32.2}, _NEWBORNS, time="h"),
    )  # fmt: skip

    class State(State):
        central: Scalar = state("mg", "amount in plasma and what mixes with it at once")

    class Input(Input):
        iv: Scalar = dose("mg", "given into a vein", into="central", cmt=1)

    CL: Scalar = parameter(typical(4.0, cv=0.5), "L/h", "clearance", source=_ACOP)
    V: Scalar = parameter(typical(70.0, cv=0.5), "L", "volume of distribution", source=_ACOP)

    def rates(self, t, x, u):
        return self.State(central=-self.CL / self.V * x.central)

    def conserved(self, x, u):
        return {"drug": (x.central, -self.CL / self.V * x.central)}

    def outputs(self, x, u):
        return {"C": output(x.central / self.V, "mg/L", "concentration in plasma")}


class OneCompartmentOral(System):
    r"""One compartment with first-order absorption after a lag.

    dA_d/dt = -ka A_d          dA/dt = ka A_d - (CL/V) A          C = A / V

    A_d `depot` [mg], A `central` [mg], C [mg/L]; ka [1/h], CL [L/h], V [L], time in h. An oral dose of D mg adds F D
    to the depot `tlag` hours after it was swallowed.

    Interventions: `oral` and `iv` (amount, time, interval), `CL` (a failing organ, an interaction), `ka` (a meal).
    Doses: `oral` (compartment 1) and `iv` (compartment 2). F is 1 unless given: by mouth alone only CL/F and V/F can be
    told, so give it a prior only together with intravenous doses. Priors: theophylline in adults (Boeckmann, Sheiner
    and Beal 1994, as fitted by nlmixr2 SAEM), widened. Source of the model: Gabrielsson and Weiner 2016,
    ISBN 978-91-982991-0-6.
    """

    time = "h"
    protocol = Protocol(
        24.0, "320 mg of theophylline by mouth, over the means of the twelve adults of Upton", shows=("C",),
        doses={"oral": Regimen.bolus(320.0, "mg", at=0.0)}
    )
    references = (
        Reference("half-life of theophylline", "h", (6.1, 12.8), _LABEL,
                  lambda lived: half_life(lived, "C", 12.0, 24.0)),
        Reference("time of the peak, rapid release", "h", (1.0, 2.5), _LABEL + "; 1 to 2 h, meals add half an hour",
                  lambda lived: lived.time[np.argmax(lived["C"])], drawn=("C", Since())),
        *curve("theophylline in plasma, mean", "mg/L", "C", {0.25: 2.87, 0.5: 5.46, 1.0: 7.93, 2.0: 7.89, 3.5: 7.49, 5.0: 6.77,
                                                             7.0: 5.70, 9.0: 5.08, 12.0: 3.88, 24.0: 1.40}, _UPTON, time="h",
               why={0.25: "a mean of people who absorb at different rates rises before a typical one does"}),
    )  # fmt: skip

    class State(State):
        depot: Scalar = state("mg", "amount at the site of absorption")
        central: Scalar = state("mg", "amount in plasma and what mixes with it at once")

    class Input(Input):
        oral: Scalar = dose("mg", "swallowed", into="depot", cmt=1)
        iv: Scalar = dose("mg", "given into a vein", into="central", cmt=2)

    ka: Scalar = parameter(typical(1.5, cv=0.7), "1/h", "rate of absorption", source=_THEOPH)
    CL: Scalar = parameter(typical(2.8, cv=0.4), "L/h", "clearance", source=_THEOPH)
    V: Scalar = parameter(typical(32.0, cv=0.3), "L", "volume of distribution", source=_THEOPH)
    tlag: Scalar = parameter(typical(0.1, cv=1.0), "h", "lag before absorption begins", source=_LAG)
    F: Scalar = constant(1.0, "1", "share of an oral dose that reaches the blood")

    def dosing(self, u):
        return {"oral": route(lag=self.tlag, fraction=self.F)}

    def rates(self, t, x, u):
        return self.State(depot=-self.ka * x.depot, central=self.ka * x.depot - self.CL / self.V * x.central)

    def conserved(self, x, u):
        return {"drug": (x.depot + x.central, -self.CL / self.V * x.central)}

    def outputs(self, x, u):
        return {"C": output(x.central / self.V, "mg/L", "concentration in plasma")}


class TwoCompartment(System):
    r"""Two compartments, given into a vein.

    dA/dt = -(CL/Vc) A - Q (A/Vc - P/Vp)          dP/dt = Q (A/Vc - P/Vp)          C = A / Vc

    A `central` [mg], P `peripheral` [mg], C [mg/L]; CL and Q [L/h], Vc and Vp [L], time in h.

    Interventions: `iv` (amount, time, interval, how long it runs), `CL` (a failing organ, an interaction).
    Doses: `iv` (compartment 1). Priors: vancomycin in adults with a creatinine clearance of 120 mL/min and 70 kg (Goti
    2018, doi:10.1097/FTD.0000000000000490); kidney function widens CL. Source of the model: Gabrielsson and Weiner
    2016, ISBN 978-91-982991-0-6.
    """

    time = "h"
    protocol = Protocol(
        72.0, "vancomycin, 1 g over an hour every 12 h", shows=("C",),
        doses={"iv": Regimen.infusion(1000.0, "mg", at=0.0, over=1.0).every("12 h", times=6)},
    )  # fmt: skip
    references = (
        Reference("area under the curve of a day, third day", "mg*h/L", (400.0, 600.0),
                  "Rybak 2020, target, doi:10.1093/ajhp/zxaa036", lambda lived: area(lived, "C", 48.0, 72.0)),
        Reference("half-life, normal kidneys", "h", (4.0, 12.0),
                  "US prescribing information: 4 to 6 h; Rybak 2009, doi:10.2146/ajhp080434: 6 to 12 h",
                  lambda lived: half_life(lived, "C", 66.0, 72.0)),
        *curve("vancomycin in plasma, at the end of the last infusion, 2 h and 11 h later", "mg/L", "C",
               {61.0: 63.0, 63.0: 23.0, 72.0: 8.0}, WARD, time="h", why={61.0: WIDE, 72.0: WIDE}),
    )  # fmt: skip

    class State(State):
        central: Scalar = state("mg", "amount in plasma and what mixes with it at once")
        peripheral: Scalar = state("mg", "amount in tissue that exchanges slowly")

    class Input(Input):
        iv: Scalar = dose("mg", "given into a vein", into="central", cmt=1)

    CL: Scalar = parameter(typical(4.5, cv=0.5), "L/h", "clearance", source=_GOTI + ", widened from CV 40 %")
    Vc: Scalar = parameter(typical(58.4, cv=0.82), "L", "central volume", source=_GOTI)
    Q: Scalar = parameter(typical(6.5, cv=0.4), "L/h", "exchange with the periphery", source=_GOTI + "; spread assumed")
    Vp: Scalar = parameter(typical(38.4, cv=0.57), "L", "peripheral volume", source=_GOTI)

    def rates(self, t, x, u):
        exchange = self.Q * (x.central / self.Vc - x.peripheral / self.Vp)
        return self.State(central=-self.CL / self.Vc * x.central - exchange, peripheral=exchange)

    def conserved(self, x, u):
        return {"drug": (x.central + x.peripheral, -self.CL / self.Vc * x.central)}

    def outputs(self, x, u):
        return {"C": output(x.central / self.Vc, "mg/L", "concentration in plasma")}


class TwoCompartmentOral(System):
    r"""Two compartments with first-order absorption after a lag.

    dA_d/dt = -ka A_d
    dA/dt = ka A_d - (CL/Vc) A - Q (A/Vc - P/Vp)          dP/dt = Q (A/Vc - P/Vp)          C = A / Vc

    A_d `depot`, A `central`, P `peripheral` [mg], C [mg/L]; ka [1/h], CL and Q [L/h], Vc and Vp [L], time in h. An oral
    dose of D mg adds F D to the depot `tlag` hours after it was swallowed.

    Interventions: `oral` and `iv` (amount, time, interval), `CL` (a failing organ, an interaction), `ka` (a meal).
    Doses: `oral` (compartment 1) and `iv` (compartment 2). Priors: an example drug with ka 1, CL 4, V 70, Q 4, V2 50
    (Schoemaker, data sets of ACoP 2016); the typical day is ruxolitinib's. Source of the model: Gabrielsson and Weiner
    2016, ISBN 978-91-982991-0-6.
    """

    time = "h"
    protocol = Protocol(
        12.0, "ruxolitinib, 5 mg by mouth, a man of 73 kg (Chen 2013, J Clin Pharmacol)", shows=("C",),
        doses={"oral": Regimen.bolus(5.0, "mg", at=0.0)},
        parameters={"ka": 4.12, "CL": 22.1, "Vc": 58.6, "Q": 2.53, "Vp": 11.2, "tlag": 0.0545},
    )  # fmt: skip
    references = (
        Reference("peak", "mg/L", 0.0628, _JAKAFI + ": means of 205 to 7100 nmol/L over 5 to 200 mg; 306.4 g/mol",
                  lambda lived: lived["C"].max(), drawn=("C", None)),
        Reference("time of the peak", "h", (0.5, 2.0), f"{_JAKAFI}: 1 to 2 h; {_JAPAN}: .5 h",
                  lambda lived: lived.time[np.argmax(lived["C"])], drawn=("C", Since())),
        Reference("half-life", "h", (2.0, 3.0), _JAPAN, lambda lived: half_life(lived, "C", 2.0, 12.0)),
        Reference("volume at steady state", "L", 72.0, _JAKAFI, lambda lived: lived.body.Vc + lived.body.Vp),
    )  # fmt: skip

    class State(State):
        depot: Scalar = state("mg", "amount at the site of absorption")
        central: Scalar = state("mg", "amount in plasma and what mixes with it at once")
        peripheral: Scalar = state("mg", "amount in tissue that exchanges slowly")

    class Input(Input):
        oral: Scalar = dose("mg", "swallowed", into="depot", cmt=1)
        iv: Scalar = dose("mg", "given into a vein", into="central", cmt=2)

    ka: Scalar = parameter(typical(1.0, cv=0.5), "1/h", "rate of absorption", source=_ACOP)
    CL: Scalar = parameter(typical(4.0, cv=0.5), "L/h", "clearance", source=_ACOP)
    Vc: Scalar = parameter(typical(70.0, cv=0.5), "L", "central volume", source=_ACOP)
    Q: Scalar = parameter(typical(4.0, cv=0.5), "L/h", "exchange with the periphery", source=_ACOP)
    Vp: Scalar = parameter(typical(50.0, cv=0.5), "L", "peripheral volume", source=_ACOP)
    tlag: Scalar = parameter(typical(0.1, cv=1.0), "h", "lag before absorption begins", source=_LAG)
    F: Scalar = constant(1.0, "1", "share of an oral dose that reaches the blood")

    def dosing(self, u):
        return {"oral": route(lag=self.tlag, fraction=self.F)}

    def rates(self, t, x, u):
        exchange = self.Q * (x.central / self.Vc - x.peripheral / self.Vp)
        return self.State(
            depot=-self.ka * x.depot,
            central=self.ka * x.depot - self.CL / self.Vc * x.central - exchange,
            peripheral=exchange,
        )

    def conserved(self, x, u):
        return {"drug": (x.depot + x.central + x.peripheral, -self.CL / self.Vc * x.central)}

    def outputs(self, x, u):
        return {"C": output(x.central / self.Vc, "mg/L", "concentration in plasma")}


class ThreeCompartment(System):
    r"""Three compartments, given into a vein.

    dA/dt = -CL C - Q2 (C - P/V2) - Q3 (C - D/V3)          C = A / V1
    dP/dt = Q2 (C - P/V2)          dD/dt = Q3 (C - D/V3)

    A `central`, P `shallow`, D `deep` [mg], C [mg/L]; CL, Q2 and Q3 [L/h], V1, V2 and V3 [L], time in h.

    Interventions: `iv` (amount, time, interval, how long it runs), `CL` (a failing organ, an interaction).
    Doses: `iv` (compartment 1). Priors: docetaxel in a person of 1.8 m2 (Bruno 1996, whose rate constants are k10 5.2,
    k12 1.06, k21 1.51, k13 1.26, k31 .084 1/h and V1 7.4 L). Source of the model: Gabrielsson and Weiner 2016,
    ISBN 978-91-982991-0-6.
    """

    time = "h"
    protocol = Protocol(
        48.0, "docetaxel, 180 mg (100 mg/m2) over an hour", shows=("C",),
        doses={"iv": Regimen.infusion(180.0, "mg", at=0.0, over=1.0)},
    )  # fmt: skip
    references = (
        Reference("peak, end of the infusion", "mg/L", 3.7, _TAXOTERE,
                  lambda lived: lived.again(stop=2.0)["C"].max(), drawn=("C", 1.0)),
        Reference("area under the curve", "mg*h/L", 4.6, _TAXOTERE, lambda lived: area(lived, "C", slope_from=36.0)),
        Reference("last half-life", "h", 11.1, _TAXOTERE, lambda lived: half_life(lived, "C", 36.0, 48.0)),
        Reference("volume at steady state", "L", 113.0, _TAXOTERE,
                  lambda lived: lived.body.V1 + lived.body.V2 + lived.body.V3),
    )  # fmt: skip

    class State(State):
        central: Scalar = state("mg", "amount in plasma and what mixes with it at once")
        shallow: Scalar = state("mg", "amount in tissue that exchanges within the hour")
        deep: Scalar = state("mg", "amount in tissue that exchanges slowly")

    class Input(Input):
        iv: Scalar = dose("mg", "given into a vein", into="central", cmt=1)

    CL: Scalar = parameter(typical(38.5, cv=0.4), "L/h", "clearance", source=_BRUNO + "; spread about its 45 %")
    V1: Scalar = parameter(typical(7.4, cv=0.4), "L", "central volume", source=_BRUNO + "; spread assumed")
    Q2: Scalar = parameter(
        typical(7.84, cv=0.4), "L/h", "exchange with the shallow compartment", source=_BRUNO + "; spread assumed"
    )
    V2: Scalar = parameter(typical(5.19, cv=0.4), "L", "shallow volume", source=_BRUNO + "; spread assumed")
    Q3: Scalar = parameter(
        typical(9.32, cv=0.4), "L/h", "exchange with the deep compartment", source=_BRUNO + "; spread assumed"
    )
    V3: Scalar = parameter(typical(111.0, cv=0.4), "L", "deep volume", source=_BRUNO + "; spread assumed")

    def rates(self, t, x, u):
        C = x.central / self.V1
        shallow, deep = self.Q2 * (C - x.shallow / self.V2), self.Q3 * (C - x.deep / self.V3)
        return self.State(central=-self.CL * C - shallow - deep, shallow=shallow, deep=deep)

    def conserved(self, x, u):
        return {"drug": (x.central + x.shallow + x.deep, -self.CL / self.V1 * x.central)}

    def outputs(self, x, u):
        return {"C": output(x.central / self.V1, "mg/L", "concentration in plasma")}
