"""The minimal model of glucose after an injection into a vein."""

import numpy as np

from hybridtwin.physiology.reference import Protocol, Reference
from hybridtwin.signals import Regimen, Signal
from hybridtwin.system import (
    Input,
    Scalar,
    State,
    System,
    const,
    covariate,
    dose,
    lognormal,
    output,
    parameter,
    signal,
    state,
)

_DENTI = "Denti 2010, 204 healthy adults, doi:10.1152/ajpendo.00656.2009"


def fasting_insulin(inputs, start, stop):
    """Plasma insulin at the first row, in m[IU]/L: what it was before the injection."""
    return float(inputs["insulin"](start))


class BergmanMinimal(System):
    r"""The minimal model of an intravenous glucose tolerance test, with measured insulin as an input.

    dQ/dt = -(SG + X) Q + SG Gb VG weight          G = Q / (VG weight)
    dX/dt = -p2 (X - SI (I - Ib))                  Q(0) = Gb VG weight, X(0) = 0

    Q `glucose` [g], X `action` [1/min], G [mg/dL], I `insulin` [m[IU]/L] a signal (give measured insulin as
    `ht.Signal.linear`), Ib insulin at rest, taken from the first row unless the record has it; SG, p2 [1/min],
    SI [L/m[IU]/min], Gb [mg/dL], VG [dL/kg]; time in min. The test gives 0.3 g/kg of glucose into a vein as
    `glucose_iv`. Under a constant insulin the rest is X = SI (I - Ib), G = SG Gb / (SG + X).

    Priors: Denti 2010, with SI 5.83e-5 L/pmol/min at 6 pmol of insulin to a m[IU], spread by its covariates.
    Source of the model: Bergman 1979, doi:10.1152/ajpendo.1979.236.6.E667.
    """

    time = "min"
    grid = "1 min"
    horizon = "24 h"
    protocol = Protocol(
        240.0, "0.3 g/kg of glucose into a vein, the insulin of a healthy adult", shows=("G",),
        doses={"glucose_iv": Regimen.bolus(21.0, "g", at=0.0)}, covariates={"weight": (70.0, "kg")},
        signals={"insulin": Signal.linear([0, 3, 5, 10, 20, 30, 60, 90, 120, 180, 240],
                                          [6, 50, 60, 45, 32, 28, 20, 13, 9, 6.5, 6], "m[IU]/L")},
    )  # fmt: skip
    references = (
        Reference("glucose at rest", "mg/dL", (70.0, 99.0), "ADA Standards of Care 2024, doi:10.2337/dc24-S002",
                  lambda lived: lived.again(doses={}, signals={})["G"][-1]),
        Reference("insulin sensitivity SI, healthy", "L/m[IU]/min", (2e-4, 9e-4), "Bergman 1985, doi:10.1210/edrv-6-1-45",
                  lambda lived: lived.body.SI),
        Reference("disappearance of glucose KG, 10 to 40 min", "1/min", (0.01, 0.035),
                  "Bergman 1979, doi:10.1152/ajpendo.1979.236.6.E667",
                  lambda lived: np.log(lived.at("G", 10.0) / lived.at("G", 40.0)) / 30.0),
    )  # fmt: skip

    class State(State):
        glucose: Scalar = state("g", "glucose in its volume of distribution")
        action: Scalar = state("1/min", "remote insulin action", positive=False)

    class Input(Input):
        glucose_iv: Scalar = dose("g", "glucose given into a vein", into="glucose", cmt=1)
        insulin: Scalar = signal("m[IU]/L", "plasma insulin as measured", default=4.5)
        weight: Scalar = covariate("kg", "body weight")
        Ib: Scalar = covariate("m[IU]/L", "plasma insulin at rest", default=fasting_insulin)

    SG: Scalar = parameter(lognormal(0.0192, 0.3), "1/min", "glucose effectiveness", source=_DENTI + ", widened")
    SI: Scalar = parameter(lognormal(3.5e-4, 0.7), "L/m[IU]/min", "insulin sensitivity", source=_DENTI + ", widened")
    p2: Scalar = parameter(lognormal(0.0254, 0.45), "1/min", "rate of insulin action", source=_DENTI + ", widened")
    Gb: Scalar = parameter(lognormal(91.0, 0.1), "mg/dL", "glucose at rest", source=_DENTI)
    VG: Scalar = parameter(lognormal(1.7, 0.15), "dL/kg", "glucose volume", source=_DENTI + ", widened")

    def volume(self, u):
        """Grams of glucose for each mg/dL: [g/(mg/dL)]."""
        return self.VG * u.weight * const(0.001, "g/mg")

    def rates(self, t, x, u):
        return self.State(
            glucose=-(self.SG + x.action) * x.glucose + self.SG * self.Gb * self.volume(u),
            action=-self.p2 * (x.action - self.SI * (u.insulin - u.Ib)),
        )

    def outputs(self, x, u):
        return {"G": output(x.glucose / self.volume(u), "mg/dL", "plasma glucose")}

    def initial(self, u):
        return self.State(glucose=self.Gb * self.volume(u), action=0.0 * self.SG)

    def steady(self, u):
        action = self.SI * (u.insulin - u.Ib)
        return self.State(glucose=self.SG * self.Gb * self.volume(u) / (self.SG + action), action=action)
