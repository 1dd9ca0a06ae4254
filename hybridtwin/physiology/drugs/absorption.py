"""Absorption other than by one exponential: through a chain of transit compartments (a delayed, rounded rise instead of a lag
with an edge), at a constant rate, and into bodies of more compartments.

What is behind the gut is a system of its own (`body`), so that nothing is written twice.
"""

import itertools

import numpy as np

from hybridtwin.errors import DeclarationError
from hybridtwin.physiology.drugs.pharmacokinetics import OneCompartment, TwoCompartmentOral
from hybridtwin.physiology.reference import Protocol, Reference, Since, area, half_life
from hybridtwin.signals import Regimen
from hybridtwin.system import Input, Scalar, State, System, constant, dose, output, parameter, route, state, typical

_WILKINS = "Wilkins 2008, rifampicin, 263 people, doi:10.1128/AAC.00461-07 (DDMODEL00000280)"
_PELOQUIN = "Alsultan and Peloquin 2014, doi:10.1007/s40265-014-0222-8: 600 mg by mouth"
_ACOP = "Schoemaker, simulated data sets of ACoP 2016 (nlmixr2data)"
_ASSUMED = "assumed, wide"
_ZITHROMAX = "azithromycin, US prescribing information: means of 12 people, capsules"
_EARLY = "Zhao fitted no lag, to single doses of other tablets"
_LABEL = "rifampicin capsules, US prescribing information, section 12.3: 600 mg by mouth"

_LONGEST = 7  # transit compartments that a chain may have


class OneCompartmentTransit(System):
    r"""One compartment with first-order absorption after a chain of transit compartments.

    dT_0/dt = -ktr T_0          dT_i/dt = ktr (T_{i-1} - T_i), i = 1 .. n          ktr = (n + 1) / MTT
    dA_a/dt = ktr T_n - ka A_a          dA/dt = ka A_a - (CL/V) A          C = A / V

    T_0 `swallowed`, T_i `transit1` .. `transit7`, A_a `depot`, A `central` [mg], C [mg/L]; MTT [h] from the mouth to the
    depot, ka [1/h], CL [L/h], V [L], time in h. `n`, from 0 to 7, is structure: `OneCompartmentTransit(n=3)`; what is behind
    T_n in the list stays empty. What enters the depot after a dose D is gamma distributed in time, F D ktr (ktr t)^n
    exp(-ktr t) / n!, as in Savic 2007; unlike its closed form the chain takes any train of doses.

    Interventions: `oral` and `iv` (amount, time, interval), `MTT` (a meal), `CL` (a failing organ, an inducer).
    Doses: `oral` (compartment 1) and `iv` (compartment 2). F is 1 unless given. Priors: rifampicin in tuberculosis, fixed
    combination tablets (Wilkins 2008: n 7.13, here 7). Source: Savic 2007, doi:10.1007/s10928-007-9066-0.
    """

    time = "h"
    protocol = Protocol(
        24.0, "rifampicin, 600 mg by mouth", shows=("C",), doses={"oral": Regimen.bolus(600.0, "mg", at=0.0)}
    )
    references = (
        Reference("peak", "mg/L", (8.0, 24.0), _PELOQUIN + "; half of all patients stay below", lambda lived: lived["C"].max(),
                  drawn=("C", None)),
        Reference("time of the peak", "h", (1.5, 4.0), _LABEL, lambda lived: lived.time[np.argmax(lived["C"])],
                  drawn=("C", Since())),
        Reference("half-life", "h", (2.0, 3.4), _LABEL + ": 3.35 +- .66 h, 2 to 3 h with repeated doses",
                  lambda lived: half_life(lived, "C", 12.0, 24.0)),
        Reference("area under the curve of a day", "mg*h/L", 41.5,
                  "Sturkenboom 2015, 55 patients, geometric mean of repeated doses, doi:10.1128/AAC.00756-15",
                  lambda lived: area(lived, "C")),
    )  # fmt: skip

    class State(State):
        swallowed: Scalar = state("mg", "swallowed, before the chain")
        transit1: Scalar = state("mg", "in transit")
        transit2: Scalar = state("mg", "in transit")
        transit3: Scalar = state("mg", "in transit")
        transit4: Scalar = state("mg", "in transit")
        transit5: Scalar = state("mg", "in transit")
        transit6: Scalar = state("mg", "in transit")
        transit7: Scalar = state("mg", "in transit, last before the site of absorption where n is 7")
        depot: Scalar = state("mg", "amount at the site of absorption")
        central: Scalar = state("mg", "amount in plasma and what mixes with it at once")

    class Input(Input):
        oral: Scalar = dose("mg", "swallowed", into="swallowed", cmt=1)
        iv: Scalar = dose("mg", "given into a vein", into="central", cmt=2)

    n: int = 7
    MTT: Scalar = parameter(
        typical(0.424, cv=0.66), "h", "mean transit time to the site of absorption", source=_WILKINS
    )
    ka: Scalar = parameter(typical(1.15, cv=0.74), "1/h", "rate of absorption", source=_WILKINS)
    CL: Scalar = parameter(typical(19.2, cv=0.57), "L/h", "clearance", source=_WILKINS)
    V: Scalar = parameter(typical(53.2, cv=0.45), "L", "volume of distribution", source=_WILKINS)
    F: Scalar = constant(1.0, "1", "share of an oral dose that reaches the blood")

    def __check_init__(self):
        if self.n not in range(_LONGEST + 1):
            raise DeclarationError(f"a chain of n = {self.n!r} transit compartments. Give n a whole number from 0 to {_LONGEST}")

    def dosing(self, u):
        return {"oral": route(fraction=self.F)}

    def rates(self, t, x, u):
        ktr = (self.n + 1.0) / self.MTT
        chain = [x.swallowed, *(getattr(x, f"transit{i}") for i in range(1, _LONGEST + 1))]
        on = [ktr * (a - b) if i < self.n else 0.0 * ktr * b for i, (a, b) in enumerate(itertools.pairwise(chain))]
        return self.State(
            swallowed=-ktr * x.swallowed,
            **{f"transit{i + 1}": change for i, change in enumerate(on)},
            depot=ktr * chain[self.n] - self.ka * x.depot,
            central=self.ka * x.depot - self.CL / self.V * x.central,
        )

    def conserved(self, x, u):
        chain = x.swallowed + sum(getattr(x, f"transit{i}") for i in range(1, _LONGEST + 1))
        return {"drug": (chain + x.depot + x.central, -self.CL / self.V * x.central)}

    def outputs(self, x, u):
        return {"C": output(x.central / self.V, "mg/L", "concentration in plasma")}


def _exchanging(system, t, x, u, name, Q, V, volume) -> dict:
    """Rates of a `body` whose central compartment (volume V) exchanges at Q with one more state of this name and volume."""
    body = system.body.rates(t, x.body, u)
    exchange = Q * (x.body.central / V - getattr(x, name) / volume)
    return {"body": type(body)(**{**vars(body), "central": body.central - exchange}), name: exchange}


class TwoCompartmentTransit(System):
    r"""Two compartments with first-order absorption after a chain of transit compartments.

    body: see `OneCompartmentTransit`, whose line of A becomes dA/dt = ka A_a - (CL/V) A - Q (A/V - P/Vp)
    dP/dt = Q (A/V - P/Vp)          C = A / V

    A `body.central`, P `peripheral` [mg], C [mg/L]; Q [L/h], Vp [L], time in h. The number of transit compartments is that of
    the body: `TwoCompartmentTransit(body=OneCompartmentTransit(n=3))`.

    Interventions: `oral` and `iv` (amount, time, interval), `body.MTT` (a meal), `body.CL` (a failing organ, an inducer).
    Doses: `oral` (compartment 1) and `iv` (compartment 2). F is 1 unless given. Priors: rifampicin, as there; its exchange with
    tissue is assumed. Source: Savic 2007, doi:10.1007/s10928-007-9066-0; Gabrielsson and Weiner 2016, ISBN 978-91-982991-0-6.
    """

    time = "h"
    protocol = Protocol(
        48.0, "rifampicin, 600 mg by mouth", shows=("C",), doses={"oral": Regimen.bolus(600.0, "mg", at=0.0)}
    )
    references = (
        Reference("peak", "mg/L", (8.0, 24.0), _PELOQUIN + "; half of all patients stay below", lambda lived: lived["C"].max(),
                  drawn=("C", None)),
        Reference("time of the peak", "h", (1.5, 4.0), _LABEL, lambda lived: lived.time[np.argmax(lived["C"])],
                  drawn=("C", Since())),
        Reference("area under the curve", "mg*h/L", 600.0 / 19.2, _WILKINS + ": 600 mg / 19.2 L/h",
                  lambda lived: area(lived, "C", slope_from=36.0)),
    )  # fmt: skip

    class State(State):
        body: OneCompartmentTransit.State
        peripheral: Scalar = state("mg", "amount in tissue that exchanges slowly")

    class Input(Input):
        oral: Scalar = dose("mg", "swallowed", into="body.swallowed", cmt=1)
        iv: Scalar = dose("mg", "given into a vein", into="body.central", cmt=2)

    body: OneCompartmentTransit = OneCompartmentTransit()
    Q: Scalar = parameter(typical(3.0, cv=0.8), "L/h", "exchange with the periphery", source=_ASSUMED)
    Vp: Scalar = parameter(typical(20.0, cv=0.8), "L", "peripheral volume", source=_ASSUMED)

    def dosing(self, u):
        return self.body.dosing(u)

    def rates(self, t, x, u):
        return self.State(**_exchanging(self, t, x, u, "peripheral", self.Q, self.body.V, self.Vp))

    def conserved(self, x, u):
        amount, lost = self.body.conserved(x.body, u)["drug"]
        return {"drug": (amount + x.peripheral, lost)}

    def outputs(self, x, u):
        return self.body.outputs(x.body, u)


class ThreeCompartmentOral(System):
    r"""Three compartments with first-order absorption after a lag.

    body: see `TwoCompartmentOral`, whose line of A becomes dA/dt = ka A_d - (CL/Vc) A - Q (A/Vc - P/Vp) - Q3 (A/Vc - D/V3)
    dD/dt = Q3 (A/Vc - D/V3)          C = A / Vc

    A `body.central`, P `body.peripheral`, D `deep` [mg], C [mg/L]; Q3 [L/h], V3 [L], time in h.

    Interventions: `oral` and `iv` (amount, time, interval), `body.CL` (a failing organ, an interaction), `body.ka` (a meal).
    Doses: `oral` (compartment 1) and `iv` (compartment 2). F is 1 unless given. Priors: the example drug of
    `TwoCompartmentOral`; its deep compartment is assumed. The typical day is azithromycin's. Source: Gabrielsson and Weiner
    2016, ISBN 978-91-982991-0-6.
    """

    time = "h"
    protocol = Protocol(
        168.0, "azithromycin (Zhao 2014, doi:10.1186/1475-2875-13-36), 500 mg by mouth, then 250 mg a day for four days",
        shows=("C",),
        doses={"oral": Regimen.bolus(500.0, "mg", at=0.0) + Regimen.bolus(250.0, "mg", at=24.0).every("24 h", times=4)},
        parameters={"body.ka": 0.259, "body.CL": 100.0, "body.Vc": 186.0, "body.Q": 180.0, "body.Vp": 2890.0, "body.tlag": 0.0,
                    "Q3": 10.6, "V3": 2610.0},
    )  # fmt: skip
    references = (
        Reference("peak of the first day, at 2.5 h", "mg/L", 0.41, _ZITHROMAX,
                  lambda lived: lived["C"][lived.time < 24.0].max(), drawn=("C", 2.5)),
        Reference("time of the first peak", "h", 2.5, _ZITHROMAX,
                  lambda lived: lived.time[np.argmax(np.where(lived.time < 24.0, lived["C"], 0.0))], why=_EARLY),
        Reference("a day after the first dose", "mg/L", 0.05, _ZITHROMAX, lambda lived: lived.at("C", 23.99), drawn=("C", 24.0)),
        Reference("peak of the fifth day, at 3.2 h", "mg/L", 0.24, _ZITHROMAX,
                  lambda lived: lived["C"][lived.time > 96.0].max(), drawn=("C", 99.2)),
        Reference("a day after the fifth dose", "mg/L", 0.05, _ZITHROMAX, lambda lived: lived.at("C", 120.0), drawn=("C", 120.0)),
        Reference("area under the curve, first day", "mg*h/L", 2.6, _ZITHROMAX, lambda lived: area(lived, "C", 0.0, 24.0)),
        Reference("area under the curve, fifth day", "mg*h/L", 2.1, _ZITHROMAX, lambda lived: area(lived, "C", 96.0, 120.0)),
    )  # fmt: skip

    class State(State):
        body: TwoCompartmentOral.State
        deep: Scalar = state("mg", "amount in tissue that exchanges over days")

    class Input(Input):
        oral: Scalar = dose("mg", "swallowed", into="body.depot", cmt=1)
        iv: Scalar = dose("mg", "given into a vein", into="body.central", cmt=2)

    body: TwoCompartmentOral = TwoCompartmentOral()
    Q3: Scalar = parameter(typical(1.0, cv=0.8), "L/h", "exchange with the deep compartment", source=_ASSUMED)
    V3: Scalar = parameter(typical(60.0, cv=0.8), "L", "deep volume", source=_ASSUMED)

    def dosing(self, u):
        return self.body.dosing(u)

    def rates(self, t, x, u):
        return self.State(**_exchanging(self, t, x, u, "deep", self.Q3, self.body.Vc, self.V3))

    def conserved(self, x, u):
        amount, lost = self.body.conserved(x.body, u)["drug"]
        return {"drug": (amount + x.deep, lost)}

    def outputs(self, x, u):
        return self.body.outputs(x.body, u)


class OneCompartmentZeroOrder(System):
    r"""One compartment that absorbs at a constant rate (zero order) after a lag.

    dA/dt = F D / D1 - (CL/V) A from tlag to tlag + D1 after a dose of D          C = A / V, of `body`, see `OneCompartment`

    A `body.central` [mg], C [mg/L]; D1 [h] how long absorption takes, tlag [h], CL [L/h], V [L], time in h. The highest
    concentration is that of the end, F D / (CL D1) (1 - exp(-CL D1 / V)), at tlag + D1.

    Interventions: `oral` and `iv` (amount, time, interval), `D1` (another formulation), `body.CL` (a failing organ).
    Doses: `oral` (compartment 1), whose duration the system says: RATE -2 in NONMEM's table, or
    `ht.Regimen.bolus(500, "mg", at=0).modelled("duration")`; any other dose is absorbed as it says itself, at once if it says
    nothing. `iv` (compartment 2). F is 1 unless given. Priors: the example drug of `OneCompartment`; D1 is assumed.
    Source: Gabrielsson and Weiner 2016, ISBN 978-91-982991-0-6.
    """

    time = "h"
    protocol = Protocol(
        96.0, "500 mg by mouth", shows=("C",), doses={"oral": Regimen.bolus(500.0, "mg", at=0.0).modelled("duration")}
    )
    references = (
        Reference("area under the curve of 500 mg", "mg*h/L", 125.0, _ACOP + ": 500 mg / 4 L/h",
                  lambda lived: area(lived, "C", slope_from=48.0)),
        Reference("highest concentration of 500 mg in 3 h", "mg/L", 500.0 / 12.0 * (1.0 - np.exp(-12.0 / 70.0)),
                  _ACOP + "; F D / (CL D1) (1 - exp(-CL D1 / V)), Gibaldi and Perrier 1982, ISBN 978-0-8247-1042-2",
                  lambda lived: lived["C"].max(), drawn=("C", None)),
    )  # fmt: skip

    class State(State):
        body: OneCompartment.State

    class Input(Input):
        oral: Scalar = dose("mg", "swallowed", into="body.central", cmt=1)
        iv: Scalar = dose("mg", "given into a vein", into="body.central", cmt=2)

    body: OneCompartment = OneCompartment()
    D1: Scalar = parameter(typical(3.0, cv=0.6), "h", "how long absorption takes", source=_ASSUMED)
    tlag: Scalar = parameter(typical(0.1, cv=1.0), "h", "lag before absorption begins",
                             source="spans no visible lag to half an hour, tablets")  # fmt: skip
    F: Scalar = constant(1.0, "1", "share of an oral dose that reaches the blood")

    def dosing(self, u):
        return {"oral": route(lag=self.tlag, fraction=self.F, duration=self.D1)}

    def rates(self, t, x, u):
        return self.State(body=self.body.rates(t, x.body, u))

    def conserved(self, x, u):
        return self.body.conserved(x.body, u)

    def outputs(self, x, u):
        return self.body.outputs(x.body, u)
