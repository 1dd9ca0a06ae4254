"""Remifentanil in blood and brain: Minto's model, with age and lean body mass."""

import numpy as np

from hybridtwin.physiology.drugs.responses import EffectCompartment, hill
from hybridtwin.physiology.reference import Protocol, Reference, Since
from hybridtwin.signals import Regimen
from hybridtwin.system import (
    Input,
    Scalar,
    System,
    const,
    covariate,
    dose,
    lognormal,
    normal,
    output,
    parameter,
    typical,
)

_MINTO = "Minto 1997, 65 adults, doi:10.1097/00000542-199701000-00004"
_ASSUMED = _MINTO + "; spread assumed"
_KAPILA = "Kapila 1995, infusion of 3 h, doi:10.1097/00000542-199511000-00009"
_ULTIVA = "remifentanil, US prescribing information, section 12.3"


def lean_body_mass(weight, height, sex):
    """Lean body mass [kg] by James 1976, as Minto used it: `weight` [kg], `height` [cm], `sex` 1 for men, 0 for women."""
    square = (np.asarray(weight) / np.asarray(height)) ** 2
    return np.where(np.asarray(sex) == 1, 1.1 * weight - 128.0 * square, 1.07 * weight - 148.0 * square)


def _half_time(lived):
    """Minutes after the end of the infusion until blood holds half of what it held then."""
    after = lived.time >= 180.0
    return float(np.interp(-0.5 * lived.at("C", 180.0), -lived["C"][after], lived.time[after])) - 180.0


class Remifentanil(System):
    r"""Remifentanil: three compartments, an effect compartment, and the spectral edge of the EEG.

    a = age - 40 a          l = lbm - 55 kg          (what age and lean mass add, as shares of each typical value)
    V1 (1 + (-.0201 a + .072 l) / 5.1)          CL (1 + (-.0162 a + .0191 l) / 2.6)          ke0 (1 - .007 a / .595)
    V2 (1 + (-.0811 a + .108 l) / 9.82)         Q2 (1 - .0301 a / 2.05)                      EC50 (1 - .148 a / 13.1)
    V3                                          Q3 (1 - .00113 a / .076)

    dA/dt = -CL C - Q2 (C - P/V2) - Q3 (C - D/V3)          C = A / V1
    dP/dt = Q2 (C - P/V2)          dD/dt = Q3 (C - D/V3)          dCe/dt = ke0 (C - Ce)
    edge = E0 - (E0 - Emax) Ce^gamma / (EC50^gamma + Ce^gamma)

    A `central`, P `shallow`, D `deep` [ug], C (whole blood) and Ce `effect` [ug/L = ng/mL]; CL, Q2 and Q3 [L/min], V1, V2
    and V3 [L], ke0 [1/min], EC50 [ug/L], gamma [1], E0 and Emax [Hz]; age [a], lbm [kg]; time in min. At rest without the
    drug edge = E0.

    Interventions: `iv` (bolus, rate of the infusion, its end), by a rule on the effect as well.
    Doses: `iv` (compartment 1). `lbm` is the lean body mass of James 1976, in which weight, height and sex are:
    `lean_body_mass(72, 171, 1)`. Source: Minto 1997, Anesthesiology 86:10-23, doi:10.1097/00000542-199701000-00004.
    """

    time = "min"
    protocol = Protocol(
        220.0, "0.25 ug/kg/min into a vein for 3 h, a man of 40 years and 70 kg", shows=("C", "Ce", "edge"),
        doses={"iv": Regimen.infusion(3150.0, "ug", at=0.0, over=180.0)}, covariates={"age": (40.0, "a"), "lbm": (55.0, "kg")},
    )  # fmt: skip
    references = (
        Reference("time to half after 3 h of infusion", "min", (2.3, 4.1), _KAPILA + ": 3.2 +- .9 min", _half_time,
                  drawn=("C", Since(180.0))),
        Reference("clearance", "L/min", 2.8, _ULTIVA + ": 40 mL/min/kg, of 70 kg", lambda lived: lived.body.CL),
        Reference("volume at steady state", "L", 24.5, _ULTIVA + ": 350 mL/kg, of 70 kg",
                  lambda lived: lived.body.V1 + lived.body.V2 + lived.body.V3),
    )  # fmt: skip

    State = EffectCompartment.State

    class Input(Input):
        iv: Scalar = dose("ug", "given into a vein", into="central", cmt=1)
        age: Scalar = covariate("a", "age")
        lbm: Scalar = covariate("kg", "lean body mass (James 1976)")

    CL: Scalar = parameter(typical(2.6, cv=0.14), "L/min", "clearance at 40 years and 55 kg lean", source=_MINTO)
    V1: Scalar = parameter(typical(5.1, cv=0.26), "L", "central volume", source=_MINTO)
    Q2: Scalar = parameter(typical(2.05, cv=0.36), "L/min", "exchange with the shallow compartment", source=_MINTO)
    V2: Scalar = parameter(typical(9.82, cv=0.29), "L", "shallow volume", source=_MINTO)
    Q3: Scalar = parameter(typical(0.076, cv=0.41), "L/min", "exchange with the deep compartment", source=_MINTO)
    V3: Scalar = parameter(typical(5.42, cv=0.66), "L", "deep volume", source=_MINTO)
    ke0: Scalar = parameter(typical(0.595, cv=0.68), "1/min", "equilibration of blood and effect site", source=_MINTO)
    EC50: Scalar = parameter(typical(13.1, cv=0.4), "ug/L", "concentration at half of the effect", source=_ASSUMED)
    gamma: Scalar = parameter(lognormal(2.44, 0.3), "1", "steepness", source=_ASSUMED)
    E0: Scalar = parameter(normal(20.0, 2.0), "Hz", "spectral edge without the drug", source=_ASSUMED)
    Emax: Scalar = parameter(normal(5.5, 1.0), "Hz", "spectral edge at the largest effect", source=_ASSUMED)

    def of_person(self, u):
        """(CL, V1, Q2, V2, Q3, V3, ke0, EC50) at a person's age and lean body mass."""
        a, lean = (u.age - const(40.0, "a")) / const(1.0, "a"), (u.lbm - const(55.0, "kg")) / const(1.0, "kg")
        return (
            self.CL * (1.0 + (-0.0162 * a + 0.0191 * lean) / 2.6),
            self.V1 * (1.0 + (-0.0201 * a + 0.072 * lean) / 5.1),
            self.Q2 * (1.0 - 0.0301 * a / 2.05),
            self.V2 * (1.0 + (-0.0811 * a + 0.108 * lean) / 9.82),
            self.Q3 * (1.0 - 0.00113 * a / 0.076),
            self.V3,
            self.ke0 * (1.0 - 0.007 * a / 0.595),
            self.EC50 * (1.0 - 0.148 * a / 13.1),
        )

    def rates(self, t, x, u):
        CL, V1, Q2, V2, Q3, V3, ke0, _ = self.of_person(u)
        C = x.central / V1
        shallow, deep = Q2 * (C - x.shallow / V2), Q3 * (C - x.deep / V3)
        return self.State(central=-CL * C - shallow - deep, shallow=shallow, deep=deep, effect=ke0 * (C - x.effect))

    def conserved(self, x, u):
        CL, V1, *_ = self.of_person(u)
        return {"drug": (x.central + x.shallow + x.deep, -CL / V1 * x.central)}

    def outputs(self, x, u):
        _, V1, *_, EC50 = self.of_person(u)
        edge = self.E0 - (self.E0 - self.Emax) * hill(x.effect / EC50, self.gamma)
        return {
            "C": output(x.central / V1, "ug/L", "remifentanil in blood"),
            "Ce": output(x.effect, "ug/L", "concentration at the site of effect"),
            "edge": output(edge, "Hz", "spectral edge of the EEG"),
        }
