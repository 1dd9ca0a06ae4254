"""Neutrophils under chemotherapy: the bone marrow as a chain with feedback."""

import numpy as np

from hybridtwin.physiology.drugs.pharmacokinetics import ThreeCompartment
from hybridtwin.physiology.reference import Protocol, Reference, Since
from hybridtwin.signals import Regimen
from hybridtwin.system import (
    Input,
    Scalar,
    State,
    System,
    constant,
    dose,
    output,
    parameter,
    state,
    typical,
)

_FRIBERG = "Friberg 2002, docetaxel, doi:10.1200/JCO.2002.02.140"
_TAXOTERE = "docetaxel, US prescribing information"


class Myelosuppression(System):
    r"""Myelosuppression: neutrophils that come through a chain of three compartments, with feedback (Friberg).

    pk: see `ThreeCompartment`          E = slope C / M          ktr = 4 / MTT
    dPr/dt = ktr Pr ((1 - E) (Circ0 / N)^gamma - 1)
    dT1/dt = ktr (Pr - T1)          dT2/dt = ktr (T1 - T2)          dT3/dt = ktr (T2 - T3)          dN/dt = ktr (T3 - N)

    Pr `proliferating`, T1 `transit1`, T2 `transit2`, T3 `transit3`, N `neutrophils` [1e9/L]; C of `pk` [mg/L], M `molar`
    [mg/umol], slope [L/umol], MTT [h], gamma [1], Circ0 [1e9/L]; time in h. At rest without the drug all five pools
    hold Circ0. A dose that makes E > 1 kills dividing cells as well as stopping them.

    Interventions: `iv` (amount, interval, a cycle put off while neutrophils are low, by a rule), `pk.CL`.
    Doses: `iv` (compartment 1). Priors: docetaxel (kinetics of Bruno 1996). A typical body reaches .9e9/L after 100 mg/m2,
    where the label sees 86 % of patients below .5: the published values are milder than the label. Other drugs: paclitaxel
    has MTT 127 h, gamma .23 and Circ0 5.2 in the same paper; give `pk`, `molar` and `slope` of the drug. Source: Friberg
    2002, doi:10.1200/JCO.2002.02.140.
    """

    time = "h"
    protocol = Protocol(
        672.0, "docetaxel, 180 mg (100 mg/m2) over an hour, four weeks", shows=("neutrophils",),
        doses={"iv": Regimen.infusion(180.0, "mg", at=0.0, over=1.0)},
    )  # fmt: skip
    references = (
        Reference("time of the nadir", "d", 8.0, _TAXOTERE + ", section 5.3: median 8 d",
                  lambda lived: lived.time[np.argmin(lived["neutrophils"])] / 24.0, drawn=("neutrophils", Since())),
        Reference("nadir", "1e9/L", (0.0, 1.0), _TAXOTERE + ", section 6.1: grade 3 or 4 in more than nine of ten",
                  lambda lived: lived["neutrophils"].min(), drawn=("neutrophils", None)),
        Reference("neutrophils after three weeks", "1e9/L", (1.5, 8.0), _TAXOTERE + ": next dose from 1.5e9/L on; normal below 8",
                  lambda lived: lived.at("neutrophils", 504.0), drawn=("neutrophils", 504.0)),
    )  # fmt: skip

    class State(State):
        pk: ThreeCompartment.State
        proliferating: Scalar = state("1e9/L", "cells that divide, as what they become in blood")
        transit1: Scalar = state("1e9/L", "cells that mature")
        transit2: Scalar = state("1e9/L", "cells that mature")
        transit3: Scalar = state("1e9/L", "cells that mature")
        neutrophils: Scalar = state("1e9/L", "neutrophils in blood")

    class Input(Input):
        iv: Scalar = dose("mg", "given into a vein", into="pk.central", cmt=1)

    pk: ThreeCompartment = ThreeCompartment()
    MTT: Scalar = parameter(typical(88.7, cv=0.16), "h", "mean transit time from marrow to blood", source=_FRIBERG)
    gamma: Scalar = parameter(
        typical(0.161, cv=0.1), "1", "strength of the feedback", source=_FRIBERG + "; spread assumed"
    )
    Circ0: Scalar = parameter(typical(5.05, cv=0.42), "1e9/L", "neutrophils without the drug", source=_FRIBERG)
    slope: Scalar = parameter(typical(8.58, cv=0.37), "L/umol", "effect on dividing cells", source=_FRIBERG)
    molar: Scalar = constant(0.8079, "mg/umol", "molar mass of the drug", source="docetaxel, 807.9 g/mol")

    def effect(self, x):
        """Share by which division is slowed; more than 1 kills."""
        return self.slope * x.pk.central / (self.pk.V1 * self.molar)

    def rates(self, t, x, u):
        ktr = 4.0 / self.MTT
        feedback = (self.Circ0 / x.neutrophils) ** self.gamma
        return self.State(
            pk=self.pk.rates(t, x.pk, u),
            proliferating=ktr * x.proliferating * ((1.0 - self.effect(x)) * feedback - 1.0),
            transit1=ktr * (x.proliferating - x.transit1),
            transit2=ktr * (x.transit1 - x.transit2),
            transit3=ktr * (x.transit2 - x.transit3),
            neutrophils=ktr * (x.transit3 - x.neutrophils),
        )

    def conserved(self, x, u):
        """The drug, and cells on their way: what divides adds to them, what leaves blood is lost."""
        ktr = 4.0 / self.MTT
        made = ktr * x.proliferating * (1.0 - self.effect(x)) * (self.Circ0 / x.neutrophils) ** self.gamma
        cells = x.proliferating + x.transit1 + x.transit2 + x.transit3 + x.neutrophils
        return {**self.pk.conserved(x.pk, u), "cells": (cells, made - ktr * x.neutrophils)}

    def outputs(self, x, u):
        return {
            "C": output(x.pk.central / self.pk.V1, "mg/L", "concentration in plasma"),
            "neutrophils": output(x.neutrophils, "1e9/L", "neutrophils in blood"),
        }

    def initial(self, u):
        n = self.Circ0
        return self.State(pk=self.pk.initial(u), proliferating=n, transit1=n, transit2=n, transit3=n, neutrophils=n)

    def steady(self, u):
        return self.initial(u)
