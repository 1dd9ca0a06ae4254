"""Systems composed of systems: a day with type 1 diabetes that moves and sleeps, and a cure that is paid for in blood.

The fields of each are systems; what one gives to another is a coupling with a name and a unit (`ht.coupled`). A third is
`Vancomycin` on `Kidney` (kidney.py).
"""

import jax.numpy as jnp
import numpy as np

from hybridtwin.physiology.circadian.pacemaker import Forger99, PacemakerState
from hybridtwin.physiology.drugs.myelosuppression import Myelosuppression
from hybridtwin.physiology.glucose.exercise import Breton2008
from hybridtwin.physiology.glucose.t1d import T1DMinimal, usual_basal, usual_slow
from hybridtwin.physiology.reference import Protocol, Reference, Since
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
    logitnormal,
    lognormal,
    normal,
    output,
    parameter,
    signal,
    state,
)

_ASSUMED = "assumed, wide: spans no visible effect to a half"
_MUSCLE = "insulin's action at rest is .0074/min in Deichmann 2021, SI Ib .0132 here, the liver's in it; spread assumed"
_STUDY = "Zaharieva 2019, 17 adults at half of their maximal oxygen uptake, pump stopped, doi:10.2337/dc18-2204"


class T1DDay(System):
    r"""A day with type 1 diabetes: meals and insulin, exercise, and a sensitivity to insulin that follows the body clock.

    body: see `T1DMinimal`; exercise: see `Breton2008`; clock: see `Forger99`; what they give to the body are two couplings,
    sensitivity = SI exp(swing clock.x)          worked = (beta Y + alpha W muscle (X + sensitivity Ib)) G
    and the body's lines that change are
    dX/dt = -p2 (X - sensitivity (I - Ib))          dG/dt = ... - worked

    swing [1]: the clock's x is lowest near the end of the night, so that a positive swing means little sensitivity at dawn.
    worked [mg/dL/min]: what work clears by itself, and what it lets insulin do more in muscle, where a share `muscle` [1] of its
    action is; X is that action beyond the usual basal's, sensitivity Ib. Time in min; the first row is a midnight of the clock,
    turned by `clock.late`.
    Interventions: `meal`, `bolus`, `basal`, `intensity`, `light` (a night shift moves the sensitivity with the clock).
    Source: `T1DMinimal` (Bergman 1979, Cappon 2023) with Breton 2008 as in Deichmann 2021, doi:10.3389/fendo.2021.723812, and
    Forger 1999, doi:10.1177/074873099129000867; day rhythm of insulin action as in Hinshaw 2013, doi:10.2337/db12-1759.
    """

    time = "min"
    grid = "5 min"
    horizon = "14 d"
    protocol = Protocol(
        1260.0, "two meals, and at 15:00 an hour at half of the maximal oxygen uptake, the pump stopped, as in Zaharieva 2019",
        shows=("G", "insulin", "sensitivity"),
        doses={"meal": Regimen.bolus(40.0, "g", at=420.0) + Regimen.bolus(50.0, "g", at=720.0),
               "bolus": Regimen.bolus(3.5, "[IU]", at=405.0) + Regimen.bolus(2.0, "[IU]", at=705.0)},
        signals={"basal": Signal.steps([0.0, 900.0, 960.0], [1.0, 0.0, 1.0], "[IU]/h"),
                 "intensity": Signal.steps([0.0, 900.0, 960.0], [0.0, 40.0, 0.0], "%"),
                 "light": Signal.steps([0.0, 420.0, 1380.0], [0.0, 500.0, 0.0], "lux")},
        covariates={"weight": (70.0, "kg"), "usual_basal": (1.0, "[IU]/h")},
    )  # fmt: skip
    references = (
        Reference("glucose at 15:00, before the run", "mg/dL", (119.0, 209.0), _STUDY + ": 164 +- 45",
                  lambda lived: lived.at("G", 900.0), drawn=("G", 900.0)),
        Reference("glucose at 16:00, after the run", "mg/dL", (56.0, 138.0), _STUDY + ": 67 +- 41 less",
                  lambda lived: lived.at("G", 960.0), drawn=("G", 960.0)),
        Reference("fall of glucose by moderate exercise, beside the same hours at rest", "mg/dL/h", (50.0, 110.0),
                  "Garcia-Garcia 2015, meta-analysis, 4.43 mmol/L an hour (2.79 to 6.06) of exercise versus rest, "
                  "doi:10.1007/s40279-015-0302-2", lambda lived: _fall(lived) - _fall(lived.again(signals=_at_rest(lived)))),
        Reference("fall of glucose in children, four quarters of an hour of running, pump on", "mg/dL", (30.0, 96.0),
                  "Tsalikian 2006, doi:10.2337/dc06-0495: 63 +- 33 from some 155, 140 heart beats a minute",
                  lambda lived: _in_quarters(lived),
                  why="three hours after lunch some 30 are lost at rest, too; they began four hours after"),
        Reference("fall of glucose in half an hour of exercise at home, less than 1 U on board", "mg/dL", (-23.0, 35.0),
                  "Riddell 2023, 318 adults, 631 sessions, doi:10.2337/dc22-1721: 6 +- 29 from 138",
                  lambda lived: lived.at("G", 900.0) - lived.at("G", 930.0),
                  why="at home people eat and lower insulin beforehand; ours falls as in laboratories"),
        Reference("insulin action at dawn over that of the afternoon", "1", (0.5, 1.1),
                  "Hinshaw 2013, doi:10.2337/db12-1759: differs between people", lambda lived: _dawn(lived)),
    )  # fmt: skip

    class State(State):
        body: T1DMinimal.State
        exercise: Breton2008.State
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

    body: T1DMinimal = T1DMinimal()
    exercise: Breton2008 = Breton2008()
    clock: Forger99 = Forger99()
    swing: Scalar = parameter(normal(0.15, 0.15), "1", "how far the clock moves SI, as a logarithm", source=_ASSUMED)
    muscle: Scalar = parameter(logitnormal(0.5, 0.8), "1", "share of insulin's action that work strengthens", source=_MUSCLE)

    def sensitivity(self, clock):
        """Insulin sensitivity at this time of the body's day [L/m[IU]/min]."""
        return self.body.SI * jnp.exp(self.swing * clock.x)

    def cleared(self, work, X, sensitivity, u):
        """Glucose that leaves by work, as a share of what is there [1/min]: by itself, and by what insulin does more."""
        action = self.muscle * (X + sensitivity * self.body.insulin.plasma(u.usual_basal, u))
        return self.exercise.clearance(work) + (self.exercise.gain(work) - 1.0) * action

    def couplings(self, x, u):
        sensitivity = self.sensitivity(x.clock)
        return {"sensitivity": sensitivity, "worked": self.cleared(x.exercise, x.body.X, sensitivity, u) * x.body.G}

    def body_at(self, sensitivity):
        """The body as it answers to insulin under this sensitivity."""
        return self.body.with_values({"SI": sensitivity})

    def rates(self, t, x, u):
        body, clock = self.body_at(u.sensitivity).rates(t, x.body, u), self.clock.rates(t, x.clock, u)
        minutes = const(1 / 60, "h/min")
        return self.State(
            body=type(body)(**{**vars(body), "G": body.G - u.worked}),
            exercise=self.exercise.rates(t, x.exercise, u),
            clock=type(clock)(x=clock.x * minutes, xc=clock.xc * minutes, n=clock.n * minutes),
        )

    def conserved(self, x, u):
        return self.body.conserved(x.body, u)

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
        sensitivity = self.sensitivity(clock)
        rest = self.body_at(sensitivity).steady(u)
        G = self.body.SG * self.body.Gb / (self.body.SG + rest.X + self.cleared(exercise, rest.X, sensitivity, u))
        return self.State(body=type(rest)(**{**vars(rest), "G": G, "C": G}), exercise=exercise, clock=clock)


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
                  lambda lived: lived.time[np.argmin(lived["neutrophils"][lived.time < 504.0])] / 24.0,
                  drawn=("neutrophils", Since())),
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
    y0: Scalar = parameter(lognormal(80.0, 0.5), "mm", "size at the first row", initial=True, source="assumed")

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
    """Fall of glucose from 15:00 to 16:00 [mg/dL/h]."""
    return lived.at("G", 900.0) - lived.at("G", 960.0)


def _in_quarters(lived):
    """Fall of glucose over 75 min of running at 15:00, five minutes of rest after each quarter of an hour, on the usual basal."""
    times = [0.0, *(900.0 + 20.0 * k + rest for k in range(4) for rest in (0.0, 15.0))]
    run = Signal.steps(times, [0.0, *([50.0, 0.0] * 4)], "%")
    day = lived.again(signals={**lived.protocol.signals, "intensity": run, "basal": Signal.constant(1.0, "[IU]/h")})
    return day.at("G", 900.0) - day.at("G", 975.0)


def _at_rest(lived):
    """The signals of the day without exercise."""
    return {**lived.protocol.signals, "intensity": Signal.constant(0.0, "%")}


def _dawn(lived):
    """Sensitivity at 06:00 over that at 15:00."""
    return lived.at("sensitivity", 360.0) / lived.at("sensitivity", 900.0)
