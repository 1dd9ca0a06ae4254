"""Systems composed of systems: a day with type 1 diabetes that moves and sleeps, and a cure that is paid for in blood.

The fields of each are systems; what one gives to another is a coupling with a name and a unit (`ht.coupled`). A third is
`Vancomycin` on `Kidney` (kidney.py).
"""

import jax.numpy as jnp
import numpy as np

from hybridtwin.physiology.circadian.pacemaker import Forger99, PacemakerState
from hybridtwin.physiology.drugs.myelosuppression import Myelosuppression
from hybridtwin.physiology.glucose.exercise import Exercise
from hybridtwin.physiology.glucose.t1d import T1DMinimal, usual_basal, usual_slow
from hybridtwin.physiology.reference import Protocol, Reference
from hybridtwin.signals import Regimen, Signal
from hybridtwin.system import (
    Input,
    Scalar,
    State,
    System,
    const,
    coupled,
    covariate,
    dose,
    lognormal,
    normal,
    output,
    parameter,
    signal,
    state,
)

_ASSUMED = "assumed, wide: spans no visible effect to a half"


class T1DDay(System):
    r"""A day with type 1 diabetes: meals and insulin, exercise, and a sensitivity to insulin that follows the body clock.

    body: see `T1DMinimal`; exercise: see `Exercise`; clock: see `Forger99`; what they give to the body are three couplings,
    sensitivity = SI exp(swing clock.x)          worked = (uptake - production) / VG          removed = removal
    and the body's lines that change are
    dX/dt = -p2 (X - sensitivity (I - Ib))          dG/dt = ... - worked          dI/dt = ... - removed

    swing [1]: the clock's x is lowest near the end of the night, so that a positive swing means little sensitivity at dawn.
    Time in min; the first row is a midnight of the clock, turned by `clock.late`.
    Interventions: `meal`, `bolus`, `basal`, `intensity`, `light` (a night shift moves the sensitivity with the clock).
    Source: `T1DMinimal` (Bergman 1979, Cappon 2023) with Roy and Parker 2007, J Diabetes Sci Technol 1:338, and Forger 1999,
    doi:10.1177/074873099129000867; day rhythm of insulin action as in Hinshaw 2013, doi:10.2337/db12-1759.
    """

    time = "min"
    grid = "5 min"
    horizon = "14 d"
    protocol = Protocol(
        960.0, "two meals, and a moderate run of 45 min at 15:00, on a basal of 1 U/h",
        shows=("G", "insulin", "sensitivity"),
        doses={"meal": Regimen.bolus(50.0, "g", at=[450.0, 750.0]), "bolus": Regimen.bolus(6.0, "[IU]", at=[435.0, 735.0])},
        signals={"basal": Signal.constant(1.0, "[IU]/h"), "intensity": Signal.steps([0.0, 900.0, 945.0], [0.0, 40.0, 0.0], "%"),
                 "light": Signal.steps([0.0, 420.0, 1380.0], [0.0, 500.0, 0.0], "lux")},
        covariates={"weight": (70.0, "kg"), "usual_basal": (1.0, "[IU]/h")},
    )  # fmt: skip
    references = (
        Reference("fall of glucose by moderate exercise, beside the same hours at rest", "mg/dL/h", (50.0, 110.0),
                  "Garcia-Garcia 2015, meta-analysis, 4.43 mmol/L an hour (2.79 to 6.06) of exercise versus rest, "
                  "doi:10.1007/s40279-015-0302-2", lambda lived: _fall(lived) - _fall(lived.again(signals=_at_rest(lived))),
                  why="Roy and Parker fitted healthy people, whose insulin falls: in 45 min muscles take 9 mg/dL/h more than "
                      "the liver adds, and the insulin that is lost gives half of it back. That work raises what glucose and "
                      "insulin do in type 1 diabetes (Breton 2008; Alkhateeb 2021, doi:10.1371/journal.pone.0248280) is "
                      "not in it"),
        Reference("insulin action at dawn over that of the afternoon", "1", (0.5, 1.1),
                  "Hinshaw 2013, doi:10.2337/db12-1759: differs between people", lambda lived: _dawn(lived)),
    )  # fmt: skip

    class State(State):
        body: T1DMinimal.State
        exercise: Exercise.State
        clock: PacemakerState

    class Input(Input):
        meal: Scalar = dose("g", "carbohydrate eaten", into="body.gut.q1", spread="5 g/min")
        bolus: Scalar = dose("[IU]", "rapid insulin injected", into="body.insulin.s1")
        long_acting: Scalar = dose("[IU]", "long-acting insulin injected", into="body.insulin.slow")
        basal: Scalar = signal("[IU]/h", "rapid insulin infused by a pump", default=0.0)
        intensity: Scalar = signal("%", "oxygen uptake above rest, of the maximal", default=0.0)
        light: Scalar = signal("lux", "light at the eye", default=0.0)
        weight: Scalar = covariate("kg", "body weight")
        usual_basal: Scalar = covariate("[IU]/h", "insulin rate at which glucose rests at Gb", default=usual_basal)
        usual_slow: Scalar = covariate("[IU]/h", "long-acting part of usual_basal", default=usual_slow)
        sensitivity: Scalar = coupled("L/m[IU]/min", "insulin sensitivity at this time: of the clock, to the body")
        worked: Scalar = coupled("mg/dL/min", "glucose that work takes: of the exercise, to the body")
        removed: Scalar = coupled("m[IU]/L/min", "insulin that work removes: of the exercise, to the body")

    body: T1DMinimal = T1DMinimal()
    exercise: Exercise = Exercise()
    clock: Forger99 = Forger99()
    swing: Scalar = parameter(normal(0.15, 0.15), "1", "how far the clock moves SI, as a logarithm", source=_ASSUMED)

    def sensitivity(self, clock):
        """Insulin sensitivity at this time of the body's day [L/m[IU]/min]."""
        return self.body.SI * jnp.exp(self.swing * clock.x)

    def couplings(self, x, u):
        worked = (x.exercise.uptake - x.exercise.production) / self.body.VG
        return {
            "sensitivity": self.sensitivity(x.clock),
            "worked": jnp.where(x.body.G > 0.0, worked, 0.0 * worked),  # as with insulin: muscles take what there is
            "removed": jnp.where(x.body.insulin.I > 0.0, x.exercise.removal, 0.0 * x.exercise.removal),
        }

    def body_at(self, sensitivity):
        """The body as it answers to insulin under this sensitivity."""
        return self.body.with_values({"SI": sensitivity})

    def rates(self, t, x, u):
        body, clock = self.body_at(u.sensitivity).rates(t, x.body, u), self.clock.rates(t, x.clock, u)
        minutes = const(1 / 60, "h/min")
        insulin = type(body.insulin)(**{**vars(body.insulin), "I": body.insulin.I - u.removed})
        return self.State(
            body=type(body)(**{**vars(body), "insulin": insulin, "G": body.G - u.worked}),
            exercise=self.exercise.rates(t, x.exercise, u),
            clock=type(clock)(x=clock.x * minutes, xc=clock.xc * minutes, n=clock.n * minutes),
        )

    def conserved(self, x, u):
        """What the body holds; work removes insulin from plasma."""
        held = self.body.conserved(x.body, u)
        amount, gained = held["insulin"]
        removed = u.removed * self.body.insulin.VI * u.weight * const(0.001, "[IU]/m[IU]")
        return {**held, "insulin": (amount, gained - removed)}

    def outputs(self, x, u):
        seen = self.body.outputs(x.body, u)
        seen["sensitivity"] = output(u.sensitivity, "L/m[IU]/min", "insulin sensitivity at this time")
        return seen

    def initial(self, u):
        """At a midnight of the clock, the body as `T1DMinimal` begins."""
        clock = self.clock.initial(u)
        return self.State(body=self.body_at(self.sensitivity(clock)).initial(u), exercise=self.exercise.initial(u), clock=clock)

    def steady(self, u):
        """The body at rest with the sensitivity of that time of its day, exercise as it goes on; the clock never rests."""
        clock, exercise = self.clock.initial(u), self.exercise.steady(u)
        body = self.body_at(self.sensitivity(clock))
        rest = body.steady(u)
        plasma = rest.insulin.I - exercise.removal / body.insulin.ke
        action = body.SI * (plasma - body.insulin.plasma(u.usual_basal, u))
        G = (body.SG * body.Gb - (exercise.uptake - exercise.production) / body.VG) / (body.SG + action)
        insulin = type(rest.insulin)(**{**vars(rest.insulin), "I": plasma})
        moved = {"insulin": insulin, "X": action, "G": G, "C": G}
        return self.State(body=type(rest)(**{**vars(rest), **moved}), exercise=exercise, clock=clock)


class Chemotherapy(System):
    r"""Docetaxel against a tumor, paid for in neutrophils: the dose that shrinks the one is limited by the other.

    blood: see `Myelosuppression` (which holds the kinetics of the drug)          C = blood.pk.central / V1, a coupling
    dy/dt = (KL - KD R C) y          dR/dt = -lam (C / C1) R

    y `size` [mm], the sum of longest diameters, R `response` [1] what is left of its sensitivity to the drug; C [mg/L] of the
    drug, C1 = 1 mg/L; KL, KD [L/mg/h], lam [1/h]; time in h. Under no drug y = y0 exp(KL t).
    Doses: `iv` (compartment 1). Interventions: `iv` (dose, interval, delay of a cycle while neutrophils are low), as a rule:
    `ht.When("neutrophils", below=(0.5, "1e9/L"), stop="iv", until=(1.5, "1e9/L"))`.
    Source: Friberg 2002, doi:10.1200/JCO.2002.02.140, and growth and resistance as in Claret 2009,
    doi:10.1200/JCO.2008.21.0807, the effect given to a concentration.
    """

    time = "h"
    restless = "a tumor that grows or shrinks"
    protocol = Protocol(
        1512.0, "docetaxel, 180 mg (100 mg/m2) every three weeks, three cycles", shows=("size", "neutrophils"),
        doses={"iv": Regimen.infusion(180.0, "mg", at=0.0, over=1.0).every("21 d", times=3)},
    )  # fmt: skip
    references = (
        Reference("time of the nadir", "d", 8.0, "docetaxel, US prescribing information, section 5.3: median 8 d",
                  lambda lived: lived.time[np.argmin(lived["neutrophils"][lived.time < 504.0])] / 24.0),
        Reference("nadir", "1e9/L", (0.0, 1.0), "docetaxel, US prescribing information, section 6.1: grade 3 or 4 in most",
                  lambda lived: lived["neutrophils"].min(), drawn=("neutrophils", None)),
        Reference("doubling time of volume without the drug", "d", 191.0,
                  "Mackintosh 2014, median of 46 cancers of the lung, doi:10.1111/resp.12311",
                  lambda lived: np.log(2.0) / (3.0 * float(lived.body.KL)) / 24.0),
    )  # fmt: skip

    class State(State):
        blood: Myelosuppression.State
        size: Scalar = state("mm", "sum of longest diameters")
        response: Scalar = state("1", "what is left of the sensitivity to the drug")

    class Input(Input):
        iv: Scalar = dose("mg", "docetaxel into a vein", into="blood.pk.central", cmt=1)
        C: Scalar = coupled("mg/L", "docetaxel in plasma: of the blood, to the tumor")

    blood: Myelosuppression = Myelosuppression()
    KL: Scalar = parameter(lognormal(6e-5, 0.8), "1/h", "growth", source="doubling of volume in 160 d; spread assumed")
    KD: Scalar = parameter(lognormal(0.05, 0.8), "L/mg/h", "effect of the drug",
                           source="assumed: a typical tumor shrinks by a quarter in two cycles; wide")  # fmt: skip
    lam: Scalar = parameter(lognormal(0.02, 0.8), "1/h", "loss of effect at 1 mg/L", source="assumed, wide")
    y0: Scalar = parameter(lognormal(80.0, 0.5), "mm", "size at the first row", initial=True)

    def couplings(self, x, u):
        return {"C": x.blood.pk.central / self.blood.pk.V1}

    def rates(self, t, x, u):
        return self.State(
            blood=self.blood.rates(t, x.blood, u),
            size=(self.KL - self.KD * x.response * u.C) * x.size,
            response=-self.lam * (u.C / const(1.0, "mg/L")) * x.response,
        )

    def conserved(self, x, u):
        return self.blood.conserved(x.blood, u)

    def outputs(self, x, u):
        return {
            "neutrophils": output(x.blood.neutrophils, "1e9/L", "neutrophils in blood"),
            "C": output(u.C, "mg/L", "docetaxel in plasma"),
        }

    def initial(self, u):
        return self.State(blood=self.blood.initial(u), size=self.y0, response=0.0 * self.y0 * const(1.0, "1/mm") + 1.0)


def _fall(lived):
    """Fall of glucose from 15:00 to 15:45 [mg/dL/h]."""
    return (lived.at("G", 900.0) - lived.at("G", 945.0)) / 0.75


def _at_rest(lived):
    """The signals of the day without exercise."""
    return {**lived.protocol.signals, "intensity": Signal.constant(0.0, "%")}


def _dawn(lived):
    """Sensitivity at 06:00 over that at 15:00."""
    return lived.at("sensitivity", 360.0) / lived.at("sensitivity", 900.0)
