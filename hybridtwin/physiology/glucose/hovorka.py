"""The model of Hovorka 2004: type 1 diabetes with three actions of insulin, on transport, disposal and production."""

import jax.numpy as jnp
import numpy as np

from hybridtwin.physiology.glucose.stomach import above
from hybridtwin.physiology.glucose.thumb import rules_of_thumb
from hybridtwin.physiology.reference import Protocol, Reference, Since
from hybridtwin.signals import Regimen, Signal
from hybridtwin.system import (
    Input,
    Scalar,
    State,
    System,
    const,
    constant,
    covariate,
    dose,
    logitnormal,
    lognormal,
    output,
    parameter,
    signal,
    state,
)

_PAPER = "Hovorka 2004, doi:10.1088/0967-3334/25/4/010"
_ASSUMED = _PAPER + "; spread assumed"
_LEAN = "the sensitivities are those of six lean healthy men (Hovorka 2002, doi:10.1152/ajpendo.00304.2001)"


class Hovorka2004(System):
    r"""Type 1 diabetes by Hovorka 2004: two glucose pools, three actions of insulin, insulin and meals by two compartments.

    Gut [g]: dD1/dt = meal - D1 / tmaxG     dD2/dt = (D1 - D2) / tmaxG     UG = AG D2 / (tmaxG MwG weight)    [mmol/kg/min]

    Under the skin [[IU]]: dS1/dt = basal + bolus - S1 / tmaxI             dS2/dt = (S1 - S2) / tmaxI
    Plasma [m[IU]/L]: dI/dt = S2 / (tmaxI VI weight) - ke I
    Actions: dx1/dt = ka1 (SIT I - x1)      dx2/dt = ka2 (SID I - x2)      dx3/dt = ka3 (SIE I - x3)

    Glucose [mmol/kg]: dQ1/dt = UG + EGP - F01c - FR - x1 Q1 + k12 Q2      dQ2/dt = x1 Q1 - (k12 + x2) Q2
    G = Q1 / VG [mmol/L]      EGP = EGP0 max(0, 1 - x3)      F01c = F01 min(1, G / 4.5)      FR = RCl VG max(0, G - 9)
    dC/dt = (G - C) / tis     C is read by a glucose sensor: `G_isf`

    The paper writes kb = SI ka, and EGP without the guard: production cannot be negative, so it ends where x3 passes 1. The
    interstitium is not in the paper. Outputs are in mg/dL, as sensors read. At the first row glucose is G0, and all else
    rests with it under the present rate of the pump (`basal_for` says which rate holds it).

    Interventions: `meal`, `bolus`, `basal` (how much, when, not at all; by a rule where glucose passes a level), `SIT`, `SID`,
    `SIE`.
    Source: Hovorka 2004, doi:10.1088/0967-3334/25/4/010. Typical values are the paper's; spreads are assumed, wide where
    people differ much. Its sensitivities are those of six lean healthy men (Hovorka 2002,
    doi:10.1152/ajpendo.00304.2001), so the typical body needs less insulin than most people with type 1 diabetes.
    """

    time = "min"
    grid = "5 min"
    horizon = "14 d"
    protocol = Protocol(
        480.0, "60 g of carbohydrate and 3 U at once, at rest under 0.384 U/h before", shows=("G", "insulin", "EGP"),
        doses={"meal": Regimen.bolus(60.0, "g", at=60.0), "bolus": Regimen.bolus(3.0, "[IU]", at=60.0)},
        signals={"basal": Signal.constant(0.384, "[IU]/h")}, covariates={"weight": (70.0, "kg")},
    )  # fmt: skip
    references = (
        Reference("production of glucose at rest at 110 mg/dL", "umol/kg/min", (10.6, 16.2),
                  "EGPb of the adults of the UVA/Padova simulator, 90 %: Kovatchev 2009, doi:10.1177/193229680900300106",
                  lambda lived: lived["EGP"][0], drawn=("EGP", 0.0)),
        Reference("basal insulin that holds 110 mg/dL, 70 kg", "[IU]/h", (0.7, 2.0),
                  "adults of the UVA/Padova simulator: Kovatchev 2009, doi:10.1177/193229680900300106",
                  lambda lived: lived.body.basal_for(110.0, lived.body.Input(basal=0.0, weight=70.0)), why=_LEAN),
        *rules_of_thumb(),
        Reference("time of the peak of rapid insulin in plasma", "min", (30.0, 90.0),
                  "insulin lispro, US prescribing information, section 12.3",
                  lambda lived: lived.time[np.argmax(lived["insulin"])] - 60.0, drawn=("insulin", Since(60.0))),
    )  # fmt: skip

    class State(State):
        D1: Scalar = state("g", "carbohydrate in the gut, first compartment")
        D2: Scalar = state("g", "carbohydrate in the gut, second compartment")
        S1: Scalar = state("[IU]", "insulin under the skin, first compartment")
        S2: Scalar = state("[IU]", "insulin under the skin, second compartment")
        I: Scalar = state("m[IU]/L", "plasma insulin")
        x1: Scalar = state("1/min", "insulin action on transport")
        x2: Scalar = state("1/min", "insulin action on disposal")
        x3: Scalar = state("1", "insulin action on production")
        Q1: Scalar = state("mmol/kg", "glucose in plasma and what mixes with it at once")
        Q2: Scalar = state("mmol/kg", "glucose in tissue")
        C: Scalar = state("mmol/L", "interstitial glucose")

    class Input(Input):
        meal: Scalar = dose("g", "carbohydrate eaten", into="D1")
        bolus: Scalar = dose("[IU]", "rapid insulin injected", into="S1")
        basal: Scalar = signal("[IU]/h", "rapid insulin infused by a pump", default=0.0)
        weight: Scalar = covariate("kg", "body weight")

    tmaxG: Scalar = parameter(lognormal(40.0, 0.25), "min", "time of the peak of absorption of a meal", source=_ASSUMED)
    AG: Scalar = parameter(logitnormal(0.8, 0.5), "1", "share of the carbohydrate that reaches the blood", low=0.0, high=1.0,
                           source=_ASSUMED)  # fmt: skip
    tmaxI: Scalar = parameter(lognormal(55.0, 0.25), "min", "time of the peak of absorption of insulin", source=_ASSUMED)
    VI: Scalar = constant(0.12, "L/kg", "insulin volume", source=_PAPER)
    ke: Scalar = parameter(lognormal(0.138, 0.25), "1/min", "insulin elimination", source=_ASSUMED)
    ka1: Scalar = parameter(lognormal(0.006, 0.4), "1/min", "rate of the action on transport", source=_ASSUMED)
    ka2: Scalar = parameter(lognormal(0.06, 0.4), "1/min", "rate of the action on disposal", source=_ASSUMED)
    ka3: Scalar = parameter(lognormal(0.03, 0.4), "1/min", "rate of the action on production", source=_ASSUMED)
    SIT: Scalar = parameter(lognormal(51.2e-4, 0.5), "L/m[IU]/min", "insulin sensitivity of transport", source=_ASSUMED)
    SID: Scalar = parameter(lognormal(8.2e-4, 0.5), "L/m[IU]/min", "insulin sensitivity of disposal", source=_ASSUMED)
    SIE: Scalar = parameter(lognormal(520e-4, 0.5), "L/m[IU]", "insulin sensitivity of production", source=_ASSUMED)
    k12: Scalar = parameter(lognormal(0.066, 0.3), "1/min", "glucose from tissue to plasma", source=_ASSUMED)
    VG: Scalar = parameter(lognormal(0.16, 0.15), "L/kg", "glucose volume", source=_ASSUMED)
    EGP0: Scalar = parameter(lognormal(0.0161, 0.15), "mmol/kg/min", "production without insulin", source=_ASSUMED)
    F01: Scalar = parameter(lognormal(0.0097, 0.15), "mmol/kg/min", "uptake that needs no insulin", source=_ASSUMED)
    RCl: Scalar = constant(0.003, "1/min", "renal clearance above its threshold", source=_PAPER)
    GF: Scalar = constant(4.5, "mmol/L", "glucose below which that uptake falls", source=_PAPER)
    GR: Scalar = constant(9.0, "mmol/L", "renal threshold", source=_PAPER)
    tis: Scalar = parameter(lognormal(10.7, 0.4), "min", "lag of the interstitium",
                            source="exp(2.372) min in simulators of the Hovorka family; spread assumed")  # fmt: skip
    G0: Scalar = parameter(lognormal(110.0, 0.4), "mg/dL", "glucose at the first row", initial=True, source="assumed")

    def production(self, x):
        """Endogenous production of glucose, EGP [mmol/kg/min]: never below 0."""
        return self.EGP0 * above(1.0 - x.x3)

    def appearance(self, x, u):
        """Glucose appearing from the gut, UG [mmol/kg/min]."""
        return self.AG * x.D2 / self.tmaxG * const(1000 / 180.16, "mmol/g") / u.weight

    def rates(self, t, x, u):
        G = x.Q1 / self.VG
        used = self.F01 * jnp.minimum(1.0, G / self.GF) + self.RCl * self.VG * above(G - self.GR)
        into_plasma = x.S2 / self.tmaxI * const(1000.0, "m[IU]/[IU]")
        return self.State(
            D1=-x.D1 / self.tmaxG,
            D2=(x.D1 - x.D2) / self.tmaxG,
            S1=u.basal * const(1 / 60, "h/min") - x.S1 / self.tmaxI,
            S2=(x.S1 - x.S2) / self.tmaxI,
            I=into_plasma / (self.VI * u.weight) - self.ke * x.I,
            x1=self.ka1 * (self.SIT * x.I - x.x1),
            x2=self.ka2 * (self.SID * x.I - x.x2),
            x3=self.ka3 * (self.SIE * x.I - x.x3),
            Q1=self.appearance(x, u) + self.production(x) - used - x.x1 * x.Q1 + self.k12 * x.Q2,
            Q2=x.x1 * x.Q1 - (self.k12 + x.x2) * x.Q2,
            C=(G - x.C) / self.tis,
        )

    def conserved(self, x, u):
        G = x.Q1 / self.VG
        used = self.F01 * jnp.minimum(1.0, G / self.GF) + self.RCl * self.VG * above(G - self.GR) + x.x2 * x.Q2
        return {
            "carbohydrate": (x.D1 + x.D2, -x.D2 / self.tmaxG),
            "insulin under the skin": (x.S1 + x.S2, u.basal * const(1 / 60, "h/min") - x.S2 / self.tmaxI),
            "glucose": (x.Q1 + x.Q2, self.appearance(x, u) + self.production(x) - used),
        }

    def outputs(self, x, u):
        scale = const(18.016, "mg/dL/(mmol/L)")
        return {
            "G": output(x.Q1 / self.VG * scale, "mg/dL", "plasma glucose"),
            "G_isf": output(x.C * scale, "mg/dL", "interstitial glucose"),
            "insulin": output(x.I, "m[IU]/L", "plasma insulin"),
            "EGP": output(self.production(x) * const(1000.0, "umol/mmol"), "umol/kg/min", "endogenous production"),
            "appearance": output(self.appearance(x, u) * const(1000.0, "umol/mmol"), "umol/kg/min",
                                 "glucose appearing from the gut"),
        }  # fmt: skip

    def _insulin(self, u):
        """Plasma insulin at rest under the pump's present rate [m[IU]/L]."""
        return u.basal * const(1000 / 60, "m[IU]/[IU]*h/min") / (self.VI * u.weight * self.ke)

    def _at(self, G, u):
        """All at rest with plasma glucose G [mmol/L] and the pump's present rate, but for the balance of Q1."""
        I, depot = self._insulin(u), u.basal * const(1 / 60, "h/min") * self.tmaxI
        transport, disposal, none = self.SIT * I, self.SID * I, 0.0 * u.weight * const(1.0, "g/kg")
        return self.State(
            D1=none, D2=none, S1=depot, S2=depot, I=I, x1=transport, x2=disposal, x3=self.SIE * I, Q1=G * self.VG,
            Q2=G * self.VG * transport / (self.k12 + disposal), C=G,
        )  # fmt: skip

    def initial(self, u):
        """Glucose G0, the gut empty, all else at rest with it under the pump's present rate."""
        return self._at(self.G0 * const(1 / 18.016, "mmol/L/(mg/dL)"), u)

    def steady(self, u):
        """At rest under the pump's present rate.

        Production equals what is used: EGP = a + (s + b) G with s = VG x1 x2 / (k12 + x2), where a and b differ below
        GF, up to GR and above. Use grows with G, so production says on which of the three pieces the body rests.
        """
        I = self._insulin(u)
        made = self.EGP0 * above(1.0 - self.SIE * I)
        slope = self.VG * self.SIT * I * self.SID * I / (self.k12 + self.SID * I)
        low, high = made <= self.F01 + slope * self.GF, made > self.F01 + slope * self.GR
        lost = self.RCl * self.VG
        fixed = jnp.where(low, 0.0 * self.F01, jnp.where(high, self.F01 - lost * self.GR, self.F01))
        steeper = jnp.where(low, self.F01 / self.GF, jnp.where(high, lost, 0.0 * lost))
        return self._at((made - fixed) / (slope + steeper), u)

    def basal_for(self, glucose, u):
        """The rate of the pump [[IU]/h] under which the body rests at `glucose` [mg/dL], for the weight in `u`.

        0 where glucose is lower even without insulin. The root of a quadratic in plasma insulin,
        EGP0 (1 - SIE I) (k12 + SID I) = used (k12 + SID I) + SIT SID VG G I^2.
        """
        G = glucose / 18.016
        used = self.F01 * jnp.minimum(1.0, G / self.GF) + self.RCl * self.VG * jnp.maximum(0.0, G - self.GR)
        left = jnp.maximum(0.0, self.EGP0 - used)
        square = self.SID * (self.EGP0 * self.SIE + self.SIT * self.VG * G)
        linear = self.EGP0 * self.SIE * self.k12 - (self.EGP0 - used) * self.SID
        root = 2.0 * left * self.k12 / (linear + jnp.sqrt(linear**2 + 4.0 * square * left * self.k12))
        return root * self.VI * u.weight * self.ke * 60.0 / 1000.0
