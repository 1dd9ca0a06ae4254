"""Glucose and insulin: two small structures of type 1 diabetes that share gut, insulin and interstitium.

Minimal models fitted to boluses that match meals see only the difference of two large effects; how large each is comes
from structure and prior. So there are two structures, with priors that span what the literature disagrees on, meant to
be personalized together: `ht.personalize([ht.Model(T1DMinimal(), ...), ht.Model(T1DTwoPool(), ...)], person, temper=3,
key=0)`.
"""

import jax
import jax.numpy as jnp
import numpy as np

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
    lognormal,
    output,
    parameter,
    signal,
    state,
)

_REPLAY = "Cappon 2023, ReplayBG, doi:10.1109/TBME.2023.3286856"
_HOVORKA = "Hovorka 2004, doi:10.1088/0967-3334/25/4/010"
_TRANSIT = "five parts in 199 min through the small intestine: Yu and Amidon 1999, doi:10.1016/S0378-5173(99)00147-7"
_SHAPE = "assumed; a typical meal then appears after 77 min on average (ReplayBG: 98)"
_LUIJF = "Luijf 2010, 10 people, aspart at breakfast, doi:10.2337/dc10-0692"
_BEGINS = "assumed; forgotten within hours"
_WALK = "assumed: no part is like the one before it"
# One pool overestimates SG two- to threefold (Cobelli 1998, 1999), so what a minimal model has (ReplayBG: .022) is the upper end.
_SPAN = "Hovorka 2004 linearized at basal insulin; wide, for one pool overestimates it: doi:10.1152/ajpendo.1999.276.6.E1171"


class Gut(System):
    r"""A stomach of two compartments and an intestine of five parts; amounts of carbohydrate in g.

    dq1/dt = meal - kemp q1              dq2/dt = kemp (q1 - q2)
    dp1/dt = kemp q2 - (kt + a1) p1      dpi/dt = kt (pj - pi) - ai pi, i = 2, 3, 4, j = i - 1      dp5/dt = kt (p4 - p5)
    a1 = ka, a2 = r2 a1, a3 = r3 a2, a4 = r4 a3      appearance = f (a1 p1 + a2 p2 + a3 p3 + a4 p4 + kt p5)

    What one part leaves, the next may absorb, and the last takes up the rest. Absorption changes from part to part by a
    free factor, so how a meal appears is free in shape, within what a walk from part to part allows: one peak, a plateau, two
    peaks. A chain of three compartments is not, and the body then pays for it (docs/design.md).

    Source: stomach as in ReplayBG (Cappon 2023), after Dalla Man 2006; meals are eaten at 5 g/min. Transit through parts of
    equal length that absorb on the way: Yu and Amidon 1999, doi:10.1016/S0378-5173(99)00147-7 (seven parts there).
    """

    time = "min"

    class State(State):
        q1: Scalar = state("g", "solid in the stomach")
        q2: Scalar = state("g", "liquid in the stomach")
        p1: Scalar = state("g", "in the first part of the intestine")
        p2: Scalar = state("g", "in its second part")
        p3: Scalar = state("g", "in its third part")
        p4: Scalar = state("g", "in its fourth part")
        p5: Scalar = state("g", "in its last part")

    class Input(Input):
        meal: Scalar = dose("g", "carbohydrate eaten", into="q1", spread="5 g/min")

    kemp: Scalar = parameter(lognormal(0.14, 0.71), "1/min", "gastric emptying", source=_REPLAY)
    kt: Scalar = parameter(lognormal(0.025, 0.3), "1/min", "transit to the next part", source=_TRANSIT)
    ka: Scalar = parameter(lognormal(0.015, 0.7), "1/min", "absorption from the first part", source=_SHAPE)
    r2: Scalar = parameter(lognormal(1.0, 0.5), "1", "absorption from the second part over the first", source=_WALK)
    r3: Scalar = parameter(lognormal(1.0, 0.5), "1", "absorption from the third part over the second", source=_WALK)
    r4: Scalar = parameter(lognormal(1.0, 0.5), "1", "absorption from the fourth part over the third", source=_WALK)
    f: Scalar = parameter(lognormal(0.9, 0.08), "1", "share of the carbohydrate that reaches the blood", source=_REPLAY)

    def absorbed(self, x):
        """What each part of the intestine absorbs [g/min]."""
        second = self.r2 * self.ka
        third = self.r3 * second
        return self.ka * x.p1, second * x.p2, third * x.p3, self.r4 * third * x.p4, self.kt * x.p5

    def rates(self, t, x, u):
        one, two, three, four, last = self.absorbed(x)
        return self.State(
            q1=-self.kemp * x.q1,
            q2=self.kemp * (x.q1 - x.q2),
            p1=self.kemp * x.q2 - self.kt * x.p1 - one,
            p2=self.kt * (x.p1 - x.p2) - two,
            p3=self.kt * (x.p2 - x.p3) - three,
            p4=self.kt * (x.p3 - x.p4) - four,
            p5=self.kt * x.p4 - last,
        )

    def conserved(self, x, u):
        return {"carbohydrate": (x.q1 + x.q2 + x.p1 + x.p2 + x.p3 + x.p4 + x.p5, -self.appearance(x) / self.f)}

    def outputs(self, x, u):
        return {"appearance": output(self.appearance(x), "g/min", "carbohydrate appearing in blood")}

    def appearance(self, x):
        one, two, three, four, last = self.absorbed(x)
        return self.f * (one + two + three + four + last)

    def holding(self, amount):
        """With `amount` [g], half of it in the stomach and half in the first part of the intestine."""
        none, half = 0.0 * amount, 0.5 * amount
        return self.State(q1=none, q2=half, p1=half, p2=none, p3=none, p4=none, p5=none)


class SubcutaneousInsulin(System):
    r"""Insulin from under the skin to plasma: two compartments for rapid insulin, one for long-acting, then plasma.

    ds1/dt = basal + bolus - kd s1      ds2/dt = kd s1 - ka2 s2      dl/dt = long_acting - kl l
    dI/dt = (ka2 s2 + kl l) / (VI W) - ke I

    kd = ka2 (1 + lead). The flow into plasma is the same when kd and ka2 trade places, so the two orders are one
    explanation seen twice; like ReplayBG the first depot is taken as the faster one.

    Rapid analogs by default. For regular human insulin give `SubcutaneousInsulin(ka2=ht.lognormal(.008, .4))`. `kl` is
    the first-order rate of glargine (half-life 13 h).

    Source: the subcutaneous model of ReplayBG (Cappon 2023); plasma as in Hovorka 2004.
    """

    time = "min"

    class State(State):
        s1: Scalar = state("[IU]", "rapid insulin, first depot")
        s2: Scalar = state("[IU]", "rapid insulin, second depot")
        slow: Scalar = state("[IU]", "long-acting insulin, depot")
        I: Scalar = state("m[IU]/L", "plasma insulin")

    class Input(Input):
        bolus: Scalar = dose("[IU]", "rapid insulin injected", into="s1")
        long_acting: Scalar = dose("[IU]", "long-acting insulin injected", into="slow")
        basal: Scalar = signal("[IU]/h", "rapid insulin infused by a pump", default=0.0)
        weight: Scalar = covariate("kg", "body weight")
        usual_slow: Scalar = covariate("[IU]/h", "long-acting insulin an hour, on average", default=0.0)

    lead: Scalar = parameter(
        lognormal(1.2, 0.8),
        "1",
        "how much faster the first depot empties: kd / ka2 - 1",
        source=_REPLAY + " medians .030, .0137",
    )
    ka2: Scalar = parameter(lognormal(0.0137, 0.43), "1/min", "absorption into plasma", source=_REPLAY)
    ke: Scalar = parameter(lognormal(0.135, 0.25), "1/min", "insulin elimination", source=_HOVORKA)
    kl: Scalar = constant(0.0009, "1/min", "absorption of long-acting insulin", source="half-life 13 h, glargine")
    VI: Scalar = constant(0.12, "L/kg", "insulin volume", source=_HOVORKA)

    @property
    def kd(self):
        return self.ka2 * (1.0 + self.lead)

    def rates(self, t, x, u):
        basal = u.basal * const(1 / 60, "h/min")
        into_plasma = (self.ka2 * x.s2 + self.kl * x.slow) * const(1000.0, "m[IU]/[IU]")
        return self.State(
            s1=basal - self.kd * x.s1,
            s2=self.kd * x.s1 - self.ka2 * x.s2,
            slow=-self.kl * x.slow,
            I=into_plasma / (self.VI * u.weight) - self.ke * x.I,
        )

    def conserved(self, x, u):
        """Insulin under the skin and in plasma."""
        plasma = x.I * self.VI * u.weight * const(0.001, "[IU]/m[IU]")
        return {"insulin": (x.s1 + x.s2 + x.slow + plasma, u.basal * const(1 / 60, "h/min") - self.ke * plasma)}

    def outputs(self, x, u):
        return {"insulin": output(x.I, "m[IU]/L", "plasma insulin")}

    def rest(self, u):
        """Rest under the pump's present rate and the usual long-acting insulin."""
        fast, slow = u.basal * const(1 / 60, "h/min"), u.usual_slow * const(1 / 60, "h/min")
        return self.State(
            s1=fast / self.kd, s2=fast / self.ka2, slow=slow / self.kl, I=self.plasma(u.basal + u.usual_slow, u)
        )

    def plasma(self, rate, u):
        """Plasma insulin [m[IU]/L] at rest under a constant rate [[IU]/h]."""
        return rate * const(1000 / 60, "m[IU]/[IU]*h/min") / (self.VI * u.weight * self.ke)


def usual_slow(inputs, start, stop):
    """Long-acting insulin an hour, on average over the record, in [IU]/h."""
    return sum(d.amount or 0.0 for d in inputs["long_acting"].doses) / max((stop - start) / 60.0, 24.0)


def usual_basal(inputs, start, stop):
    """Insulin an hour that is not given for meals: mean pump basal plus long-acting, in [IU]/h."""
    return inputs["basal"].integral(start, stop) / (stop - start) + usual_slow(inputs, start, stop)


def _quiet(body):
    """Parameters of a day at rest: nothing eaten and no insulin before it."""
    return {"cob": 1e-6, "iob": 1e-6, "G0": float(body.Gb)}


def _rise(lived, before=0.0):
    """Highest rise of glucose [mg/dL] after the typical meal, with the bolus so many minutes before it."""
    day = lived.again(doses={**lived.protocol.doses, "bolus": Regimen.bolus(6.0, "[IU]", at=60.0 - before)})
    return day["G"].max() - day.at("G", 60.0)


def _references(why=""):
    """What both structures are held against; `why` the rises after a meal are far off."""
    return (
        *rules_of_thumb(_quiet),
        Reference("highest rise of glucose, bolus with the meal", "mg/dL", (111.0, 139.0), _LUIJF + ": 6.93 +- .76 mmol/L", _rise,
                  why),
        Reference("what the bolus 15 min earlier takes off that rise", "mg/dL", (22.0, 55.0),
                  _LUIJF + ": 6.93 +- .76 less 4.77 +- .52 mmol/L", lambda lived: _rise(lived) - _rise(lived, 15.0), why),
        Reference("time of the peak of rapid insulin in plasma", "min", (30.0, 90.0),
                  "insulin lispro, US prescribing information, section 12.3",
                  lambda lived: lived.time[np.argmax(lived["insulin"])] - 60.0, drawn=("insulin", Since(60.0))),
    )  # fmt: skip


class T1DInput(Input):
    """Inputs of both type 1 diabetes systems."""

    meal: Scalar = dose("g", "carbohydrate eaten", into="gut.q1", spread="5 g/min")
    bolus: Scalar = dose("[IU]", "rapid insulin injected", into="insulin.s1")
    long_acting: Scalar = dose("[IU]", "long-acting insulin injected", into="insulin.slow")
    basal: Scalar = signal("[IU]/h", "rapid insulin infused by a pump", default=0.0)
    weight: Scalar = covariate("kg", "body weight")
    usual_basal: Scalar = covariate("[IU]/h", "insulin rate at which glucose rests at Gb", default=usual_basal)
    usual_slow: Scalar = covariate("[IU]/h", "long-acting part of usual_basal", default=usual_slow)


def _free_start(gut, insulin, u, cob, iob):
    """Gut and insulin at the first row: rest, plus carbohydrate in the gut and rapid insulin still under the skin."""
    rest = insulin.rest(u)
    half = 0.5 * iob
    plasma = rest.I + insulin.ka2 * half * const(1000.0, "m[IU]/[IU]") / (insulin.VI * u.weight * insulin.ke)
    return (
        gut.holding(cob),
        insulin.State(s1=rest.s1 + half, s2=rest.s2 + half, slow=rest.slow, I=plasma),
    )


class T1DMinimal(System):
    r"""Type 1 diabetes, structure A: one glucose pool, the minimal model with insulin under the skin and a gut.

    gut and insulin: see `Gut` and `SubcutaneousInsulin`. Ib is plasma insulin at rest under the usual basal rate.

    dX/dt = -p2 (X - SI (I - Ib))
    dG/dt = -SG (G - Gb) - X G + Ra          Ra = appearance / (VG weight)
    dC/dt = (G - C) / tis                    C is read by a glucose sensor: `G_isf`

    Interventions: `meal`, `bolus`, `long_acting`, `basal` (how much, when, not at all; by a rule where glucose passes a level),
    `SI` (movement, illness: from a time on).
    Source: Bergman 1979 (doi:10.1152/ajpendo.1979.236.6.E667) in the form of ReplayBG (Cappon 2023). SG has a prior
    that spans two families of models, which is what calibrates treatment effects (docs/design.md). Insulin sensitivity that
    differs from day to day: `ht.Model(T1DMinimal(), varies={"SI": ("day", 0.2)}, ...)`.
    """

    time = "min"
    grid = "5 min"
    horizon = "14 d"
    protocol = Protocol(
        480.0, "60 g of carbohydrate and 6 U at once, usual basal 1 U/h", shows=("G", "insulin"),
        doses={"meal": Regimen.bolus(60.0, "g", at=60.0), "bolus": Regimen.bolus(6.0, "[IU]", at=60.0)},
        signals={"basal": Signal.constant(1.0, "[IU]/h")},
        covariates={"weight": (70.0, "kg"), "usual_basal": (1.0, "[IU]/h")},
    )  # fmt: skip
    references = _references()

    class State(State):
        gut: Gut.State
        insulin: SubcutaneousInsulin.State
        X: Scalar = state("1/min", "remote insulin action", positive=False)
        G: Scalar = state("mg/dL", "plasma glucose")
        C: Scalar = state("mg/dL", "interstitial glucose")

    Input = T1DInput

    gut: Gut = Gut()
    insulin: SubcutaneousInsulin = SubcutaneousInsulin()
    SI: Scalar = parameter(lognormal(9e-4, 0.6), "L/m[IU]/min", "insulin sensitivity", source=_REPLAY)
    p2: Scalar = parameter(lognormal(0.015, 0.4), "1/min", "rate of insulin action", source=_REPLAY + ", widened")
    SG: Scalar = parameter(lognormal(0.0055, 0.7), "1/min", "glucose effectiveness", source=_SPAN)
    Gb: Scalar = parameter(
        lognormal(130.0, 0.2), "mg/dL", "glucose at rest under the usual basal", source=_REPLAY + ", widened"
    )
    tis: Scalar = parameter(
        lognormal(8.0, 0.4), "min", "lag of the interstitium", source=_REPLAY + " 7, Hovorka family 10.7"
    )
    VG: Scalar = constant(1.6, "dL/kg", "glucose volume", source=_HOVORKA)
    G0: Scalar = parameter(lognormal(140.0, 0.4), "mg/dL", "glucose at the first row", initial=True, source=_BEGINS)
    cob: Scalar = parameter(lognormal(4.0, 1.2), "g", "carbohydrate in the gut at the first row", initial=True, source=_BEGINS)
    iob: Scalar = parameter(lognormal(0.4, 1.2), "[IU]", "rapid insulin under the skin at the first row", initial=True,
                            source=_BEGINS)  # fmt: skip

    def appearance(self, x, u):
        return self.gut.appearance(x.gut) * const(1000.0, "mg/g") / (self.VG * u.weight)

    def rates(self, t, x, u):
        resting = self.insulin.plasma(u.usual_basal, u)
        return self.State(
            gut=self.gut.rates(t, x.gut, u),
            insulin=self.insulin.rates(t, x.insulin, u),
            X=-self.p2 * (x.X - self.SI * (x.insulin.I - resting)),
            G=-self.SG * (x.G - self.Gb) - x.X * x.G + self.appearance(x, u),
            C=(x.G - x.C) / self.tis,
        )

    def conserved(self, x, u):
        return {**self.gut.conserved(x.gut, u), **self.insulin.conserved(x.insulin, u)}

    def outputs(self, x, u):
        return {
            "G": output(x.G, "mg/dL", "plasma glucose"),
            "G_isf": output(x.C, "mg/dL", "interstitial glucose"),
            "insulin": output(x.insulin.I, "m[IU]/L", "plasma insulin"),
            "appearance": output(self.appearance(x, u), "mg/dL/min", "glucose appearing from the gut"),
        }

    def initial(self, u):
        gut, insulin = _free_start(self.gut, self.insulin, u, self.cob, self.iob)
        action = self.SI * (insulin.I - self.insulin.plasma(u.usual_basal, u))
        return self.State(gut=gut, insulin=insulin, X=action, G=self.G0, C=self.G0)

    def steady(self, u):
        insulin = self.insulin.rest(u)
        action = self.SI * (insulin.I - self.insulin.plasma(u.usual_basal, u))
        glucose = self.SG * self.Gb / (self.SG + action)
        zero = 0.0 * u.weight * const(1.0, "g/kg")
        return self.State(
            gut=self.gut.holding(zero), insulin=insulin, X=action, G=glucose, C=glucose
        )


def _floor(z):
    """A smooth max(z, 0) of a dimensionless z."""
    return jax.nn.softplus(20.0 * z) / 20.0


class T1DTwoPool(System):
    r"""Type 1 diabetes, structure B: two glucose pools, insulin action split into uptake and production, renal loss.

    gut, insulin and interstitium as in `T1DMinimal`.

    dX/dt  = -p2 (X - SI (I - Ib))           dXe/dt = -ka3 (Xe - SIE I)
    dG/dt  = -SG (G - Gb) + Ra + E0 [s(1 - Xe) - s(1 - SIE Ib)] - k12 (G - G2) - r softplus(G - 180)
    dG2/dt = k12 (G - G2) - X G2             s(z) = softplus(20 z) / 20        G does not fall below 0

    Interventions: `meal`, `bolus`, `long_acting`, `basal` (how much, when, not at all; by a rule where glucose passes a level),
    `SI`.
    Source: Hovorka 2004 (doi:10.1088/0967-3334/25/4/010), reduced around rest; notes on its spreads in
    `docs/design.md`.
    """

    time = "min"
    grid = "5 min"
    horizon = "14 d"
    protocol = Protocol(
        480.0, "60 g of carbohydrate and 6 U at once, usual basal 1 U/h", shows=("G", "insulin"),
        doses={"meal": Regimen.bolus(60.0, "g", at=60.0), "bolus": Regimen.bolus(6.0, "[IU]", at=60.0)},
        signals={"basal": Signal.constant(1.0, "[IU]/h")},
        covariates={"weight": (70.0, "kg"), "usual_basal": (1.0, "[IU]/h")},
    )  # fmt: skip
    references = _references("a meal of 60 g fills the second pool, too; what they ate is not told")

    class State(State):
        gut: Gut.State
        insulin: SubcutaneousInsulin.State
        X: Scalar = state("1/min", "insulin action on uptake", positive=False)
        Xe: Scalar = state("1", "insulin action on production", positive=False)
        G: Scalar = state("mg/dL", "plasma glucose")
        G2: Scalar = state("mg/dL", "glucose of the second pool, as a concentration")
        C: Scalar = state("mg/dL", "interstitial glucose")

    Input = T1DInput

    gut: Gut = Gut()
    insulin: SubcutaneousInsulin = SubcutaneousInsulin()
    SI: Scalar = parameter(lognormal(9e-4, 0.6), "L/m[IU]/min", "insulin sensitivity of uptake", source=_REPLAY)
    p2: Scalar = parameter(
        lognormal(0.015, 0.4), "1/min", "rate of insulin action on uptake", source=_REPLAY + ", widened"
    )
    SIE: Scalar = parameter(lognormal(0.045, 0.55), "L/m[IU]", "insulin sensitivity of production", source=_HOVORKA)
    ka3: Scalar = parameter(lognormal(0.024, 0.65), "1/min", "rate of insulin action on production", source=_HOVORKA)
    E0: Scalar = parameter(lognormal(1.8, 0.24), "mg/dL/min", "glucose production without insulin", source=_HOVORKA)
    k12: Scalar = parameter(lognormal(0.06, 0.45), "1/min", "exchange between the pools", source=_HOVORKA)
    SG: Scalar = parameter(lognormal(0.0055, 0.7), "1/min", "glucose effectiveness", source=_SPAN)
    Gb: Scalar = parameter(
        lognormal(130.0, 0.2), "mg/dL", "glucose at rest under the usual basal", source=_REPLAY + ", widened"
    )
    tis: Scalar = parameter(
        lognormal(8.0, 0.4), "min", "lag of the interstitium", source=_REPLAY + " 7, Hovorka family 10.7"
    )
    VG: Scalar = constant(1.6, "dL/kg", "glucose volume", source=_HOVORKA)
    renal: Scalar = constant(0.003, "1/min", "renal loss above the threshold", source=_HOVORKA)
    G0: Scalar = parameter(lognormal(140.0, 0.4), "mg/dL", "glucose at the first row", initial=True, source=_BEGINS)
    cob: Scalar = parameter(lognormal(4.0, 1.2), "g", "carbohydrate in the gut at the first row", initial=True, source=_BEGINS)
    iob: Scalar = parameter(lognormal(0.4, 1.2), "[IU]", "rapid insulin under the skin at the first row", initial=True,
                            source=_BEGINS)  # fmt: skip

    def appearance(self, x, u):
        return self.gut.appearance(x.gut) * const(1000.0, "mg/g") / (self.VG * u.weight)

    def production(self, action, u):
        """Glucose production above that of rest [mg/dL/min]."""
        return self.E0 * (_floor(1.0 - action) - _floor(1.0 - self.SIE * self.insulin.plasma(u.usual_basal, u)))

    def rates(self, t, x, u):
        resting = self.insulin.plasma(u.usual_basal, u)
        exchange = self.k12 * (x.G - x.G2)
        over = jax.nn.softplus((x.G - const(180.0, "mg/dL")) / const(5.0, "mg/dL")) * const(5.0, "mg/dL")
        change = -self.SG * (x.G - self.Gb) + self.appearance(x, u) + self.production(x.Xe, u) - exchange - self.renal * over
        return self.State(
            gut=self.gut.rates(t, x.gut, u),
            insulin=self.insulin.rates(t, x.insulin, u),
            X=-self.p2 * (x.X - self.SI * (x.insulin.I - resting)),
            Xe=-self.ka3 * (x.Xe - self.SIE * x.insulin.I),
            G=jnp.where((x.G > 0.0) | (change > 0.0), change, 0.0 * change),  # reduced around rest: it would fall below 0
            G2=exchange - x.X * x.G2,
            C=(x.G - x.C) / self.tis,
        )

    def conserved(self, x, u):
        return {**self.gut.conserved(x.gut, u), **self.insulin.conserved(x.insulin, u)}

    def outputs(self, x, u):
        return {
            "G": output(x.G, "mg/dL", "plasma glucose"),
            "G_isf": output(x.C, "mg/dL", "interstitial glucose"),
            "insulin": output(x.insulin.I, "m[IU]/L", "plasma insulin"),
            "appearance": output(self.appearance(x, u), "mg/dL/min", "glucose appearing from the gut"),
        }

    def initial(self, u):
        gut, insulin = _free_start(self.gut, self.insulin, u, self.cob, self.iob)
        action = self.SI * (insulin.I - self.insulin.plasma(u.usual_basal, u))
        return self.State(gut=gut, insulin=insulin, X=action, Xe=self.SIE * insulin.I, G=self.G0, G2=self.G0, C=self.G0)

    def steady(self, u):
        insulin = self.insulin.rest(u)
        action = self.SI * (insulin.I - self.insulin.plasma(u.usual_basal, u))
        produced = self.production(self.SIE * insulin.I, u)
        glucose = (self.SG * self.Gb + produced) / (self.SG + self.k12 * action / (self.k12 + action))
        zero = 0.0 * u.weight * const(1.0, "g/kg")
        return self.State(
            gut=self.gut.holding(zero),
            insulin=insulin,
            X=action,
            Xe=self.SIE * insulin.I,
            G=glucose,
            G2=glucose * self.k12 / (self.k12 + action),
            C=glucose,
        )
