"""Absorption through a chain of transit compartments: a delayed, rounded rise instead of a lag with an edge."""

import numpy as np

from hybridtwin.physiology.reference import Protocol, Reference, area, half_life
from hybridtwin.signals import Regimen
from hybridtwin.system import Input, Scalar, State, System, constant, dose, output, parameter, route, state, typical

_WILKINS = "Wilkins 2008, rifampicin, 263 people, doi:10.1128/AAC.00461-07 (DDMODEL00000280)"
_PELOQUIN = "Alsultan and Peloquin 2014, doi:10.1007/s40265-014-0222-8: 600 mg by mouth"
_LABEL = "rifampicin capsules, US prescribing information, section 12.3: 600 mg by mouth"


class OneCompartmentTransit(System):
    r"""One compartment with first-order absorption after a chain of seven transit compartments.

    dT_0/dt = -ktr T_0          dT_i/dt = ktr (T_{i-1} - T_i), i = 1 .. 7          ktr = 8 / MTT
    dA_a/dt = ktr T_7 - ka A_a          dA/dt = ka A_a - (CL/V) A          C = A / V

    T_0 `swallowed`, T_i `transit1` .. `transit7`, A_a `depot`, A `central` [mg], C [mg/L]; MTT [h] from the mouth to the
    depot, ka [1/h], CL [L/h], V [L], time in h. What enters the depot after a dose D is gamma distributed in time, F D
    ktr (ktr t)^7 exp(-ktr t) / 7!, as in Savic 2007 with n = 7; unlike its closed form the chain takes any train of doses.

    Doses: `oral` (compartment 1) and `iv` (compartment 2). F is 1 unless given. Priors: rifampicin in tuberculosis, fixed
    combination tablets (Wilkins 2008: n 7.13, here 7). Source: Savic 2007, doi:10.1007/s10928-007-9066-0.
    """

    time = "h"
    protocol = Protocol(
        24.0, "rifampicin, 600 mg by mouth", shows=("C",), doses={"oral": Regimen.bolus(600.0, "mg", at=0.0)}
    )
    references = (
        Reference("peak", "mg/L", (8.0, 24.0), _PELOQUIN + "; half of all patients stay below", lambda lived: lived["C"].max()),
        Reference("time of the peak", "h", (1.5, 4.0), _LABEL, lambda lived: lived.time[np.argmax(lived["C"])]),
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
        transit7: Scalar = state("mg", "in transit, last before the site of absorption")
        depot: Scalar = state("mg", "amount at the site of absorption")
        central: Scalar = state("mg", "amount in plasma and what mixes with it at once")

    class Input(Input):
        oral: Scalar = dose("mg", "swallowed", into="swallowed", cmt=1)
        iv: Scalar = dose("mg", "given into a vein", into="central", cmt=2)

    MTT: Scalar = parameter(
        typical(0.424, cv=0.66), "h", "mean transit time to the site of absorption", source=_WILKINS
    )
    ka: Scalar = parameter(typical(1.15, cv=0.74), "1/h", "rate of absorption", source=_WILKINS)
    CL: Scalar = parameter(typical(19.2, cv=0.57), "L/h", "clearance", source=_WILKINS)
    V: Scalar = parameter(typical(53.2, cv=0.45), "L", "volume of distribution", source=_WILKINS)
    F: Scalar = constant(1.0, "1", "share of an oral dose that reaches the blood")

    def dosing(self, u):
        return {"oral": route(fraction=self.F)}

    def rates(self, t, x, u):
        ktr = 8.0 / self.MTT
        return self.State(
            swallowed=-ktr * x.swallowed,
            transit1=ktr * (x.swallowed - x.transit1),
            transit2=ktr * (x.transit1 - x.transit2),
            transit3=ktr * (x.transit2 - x.transit3),
            transit4=ktr * (x.transit3 - x.transit4),
            transit5=ktr * (x.transit4 - x.transit5),
            transit6=ktr * (x.transit5 - x.transit6),
            transit7=ktr * (x.transit6 - x.transit7),
            depot=ktr * x.transit7 - self.ka * x.depot,
            central=self.ka * x.depot - self.CL / self.V * x.central,
        )

    def outputs(self, x, u):
        return {"C": output(x.central / self.V, "mg/L", "concentration in plasma")}
