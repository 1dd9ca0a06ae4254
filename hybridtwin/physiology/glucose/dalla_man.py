"""A meal in a person who makes insulin: the glucose-insulin system of Dalla Man, normal and type 2 diabetes."""

import jax.numpy as jnp
import numpy as np

from hybridtwin.physiology.glucose.stomach import above, eaten, emptying
from hybridtwin.physiology.reference import Protocol, Reference, curve
from hybridtwin.signals import Regimen
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
    state,
)

_MAN = "Dalla Man 2007, normal subjects, doi:10.1109/TBME.2007.893506"
_SPREAD = _MAN + "; spread assumed"
_EXPORT = "BioModels BIOMD0000000379 (CC0), the curated form of Dalla Man 2007, figure 5"
_BIOMD = _EXPORT + ": start"


class DallaMan2007(System):
    r"""Glucose and insulin after a meal, in a person whose pancreas answers; normal, or type 2 diabetes by `type2()`.

    Stomach and gut [mg]: dqsto1/dt = meal - kgri qsto1      dqsto2/dt = kgri qsto1 - kempt qsto2      q = qsto1 + qsto2
    dqgut/dt = kempt qsto2 - kabs qgut                       Ra = f kabs qgut / weight                 [mg/kg/min]
    kempt = kmin + (kmax - kmin)/2 (tanh(aa (q - b Dbar)) - tanh(cc (q - d Dbar)) + 2), aa = 5/(2 Dbar (1 - b)), cc = 5/(2 Dbar d)

    Glucose [mg/kg]: EGP = max(0, kp1 - kp2 Gp - kp3 Id - kp4 Ipo)      E = ke1 max(0, Gp - ke2)
    U = muscle (Vm0 + VmX X) Gt / (Km0 + Gt)                            G = Gp / VG
    dGp/dt = EGP + Ra - Uii - E - k1 Gp + k2 Gt                         dGt/dt = -U + k1 Gp - k2 Gt

    Insulin [pmol/kg]: s = gamma Ipo, HE = m6 - m5 s, m3 = HE m1 / (1 - HE)                 I = Ip / VI  [pmol/L]
    dIl/dt = -(m1 + m3) Il + m2 Ip + s                                  dIp/dt = -(m2 + m4) Ip + m1 Il
    dX/dt = -p2U (X - (I - Ib))      dI1/dt = -ki (I1 - I)              dId/dt = -ki (Id - I1)         [pmol/L]
    Secretion [pmol/kg/min]: dIpo/dt = -gamma Ipo + Y + Sb + K max(0, dG/dt)
    dY/dt = -alpha (Y - max(-Sb, beta (G - Gb)))

    `Dbar` [mg] is what was in the stomach when the meal began plus the meal. dG/dt counts only while glucose rises.
    Interventions: `meal`, parameters (VmX insulin sensitivity of muscle, kp3 of the liver, beta the pancreas).
    Source: Dalla Man 2007, doi:10.1109/TBME.2007.893506, in the curated form of BioModels 379.
    """

    time = "min"
    grid = "1 min"
    horizon = "24 h"
    protocol = Protocol(
        300.0, "a mixed meal of 78 g, 78 kg, as in figure 5 of Dalla Man 2007", shows=("G", "I", "Ra", "EGP"),
        doses={"meal": Regimen.bolus(78.0, "g", at=0.0)}, covariates={"weight": (78.0, "kg")},
    )  # fmt: skip
    references = (
        *curve("plasma glucose", "mg/dL", "G", {30.0: 141.94, 60.0: 162.97, 120.0: 142.60, 180.0: 104.86, 300.0: 90.46}, _EXPORT),
        Reference("peak of plasma insulin", "pmol/L", (250.0, 450.0), "Dalla Man 2007, figure 1: mean of 204 normal subjects",
                  lambda lived: np.max(lived["I"]), drawn=("I", None)),
        Reference("fasting glucose, type 2", "mg/dL", (140.0, 190.0), "Dalla Man 2007, 14 subjects with type 2 diabetes",
                  lambda lived: DallaMan2007.type2().typical().Gb),
    )  # fmt: skip

    class State(State):
        qsto1: Scalar = state("mg", "solid glucose in the stomach")
        qsto2: Scalar = state("mg", "liquid glucose in the stomach")
        qgut: Scalar = state("mg", "glucose in the gut")
        Gp: Scalar = state("mg/kg", "glucose in plasma and what mixes with it at once")
        Gt: Scalar = state("mg/kg", "glucose in tissue that exchanges slowly")
        Il: Scalar = state("pmol/kg", "insulin in the liver")
        Ip: Scalar = state("pmol/kg", "insulin in plasma")
        X: Scalar = state("pmol/L", "insulin action on uptake", positive=False)
        I1: Scalar = state("pmol/L", "first delay of insulin action on production")
        Id: Scalar = state("pmol/L", "insulin action on production")
        Ipo: Scalar = state("pmol/kg", "insulin in the portal vein")
        Y: Scalar = state("pmol/kg/min", "slow part of secretion", positive=False)
        Dbar: Scalar = state("mg", "size of the meal as the stomach sees it")

    class Input(Input):
        meal: Scalar = dose("g", "carbohydrate eaten", into="qsto1", portion="1 s")
        weight: Scalar = covariate("kg", "body weight")

    VG: Scalar = parameter(lognormal(1.88, 0.1), "dL/kg", "glucose volume", source=_SPREAD)
    k1: Scalar = parameter(lognormal(0.065, 0.2), "1/min", "glucose from plasma to tissue", source=_SPREAD)
    k2: Scalar = parameter(lognormal(0.079, 0.2), "1/min", "glucose from tissue to plasma", source=_SPREAD)
    kmax: Scalar = parameter(lognormal(0.0558, 0.3), "1/min", "fastest emptying of the stomach", source=_SPREAD)
    kmin: Scalar = parameter(lognormal(0.008, 0.3), "1/min", "slowest emptying of the stomach", source=_SPREAD)
    kabs: Scalar = parameter(lognormal(0.057, 0.3), "1/min", "absorption from the gut", source=_SPREAD)
    kp2: Scalar = parameter(lognormal(0.0021, 0.3), "1/min", "effect of glucose on its production", source=_SPREAD)
    kp3: Scalar = parameter(lognormal(0.009, 0.3), "mg/kg/min/(pmol/L)", "effect of insulin on production", source=_SPREAD)
    VmX: Scalar = parameter(lognormal(0.047, 0.4), "mg/kg/min/(pmol/L)", "effect of insulin on uptake", source=_SPREAD)
    p2U: Scalar = parameter(lognormal(0.0331, 0.3), "1/min", "delay of insulin action on uptake", source=_SPREAD)
    K: Scalar = parameter(lognormal(2.3, 0.4), "pmol/kg/(mg/dL)", "answer of the pancreas to a rise", source=_SPREAD)
    alpha: Scalar = parameter(lognormal(0.05, 0.3), "1/min", "delay of the pancreas", source=_SPREAD)
    beta: Scalar = parameter(lognormal(0.11, 0.4), "pmol/kg/min/(mg/dL)", "answer of the pancreas to glucose", source=_SPREAD)
    kgri: Scalar = constant(0.0558, "1/min", "grinding", source=_MAN)
    f: Scalar = constant(0.9, "1", "share of the glucose that reaches the blood", source=_MAN)
    b: Scalar = constant(0.82, "1", "share of the meal at which emptying slows", source=_MAN)
    d: Scalar = constant(0.01, "1", "share of the meal at which emptying recovers", source=_MAN)
    kp1: Scalar = constant(2.7, "mg/kg/min", "production without glucose and insulin", source=_MAN)
    kp4: Scalar = constant(0.0618, "1/min*mg/pmol", "effect of portal insulin on production", source=_MAN)
    ki: Scalar = constant(0.0079, "1/min", "delay of insulin action on production", source=_MAN)
    Uii: Scalar = constant(1.0, "mg/kg/min", "uptake that needs no insulin", source=_MAN)
    Vm0: Scalar = constant(2.5, "mg/kg/min", "largest uptake at resting insulin", source=_MAN)
    Km0: Scalar = constant(225.59, "mg/kg", "glucose at half of the largest uptake", source=_MAN)
    muscle: Scalar = constant(0.8, "1", "share of uptake that is muscle's", source=_EXPORT)
    ke1: Scalar = constant(0.0005, "1/min", "renal loss above the threshold", source=_MAN)
    ke2: Scalar = constant(339.0, "mg/kg", "renal threshold", source=_MAN)
    VI: Scalar = constant(0.05, "L/kg", "insulin volume", source=_MAN)
    m1: Scalar = constant(0.19, "1/min", "insulin from liver to plasma", source=_MAN)
    m2: Scalar = constant(0.484, "1/min", "insulin from plasma to liver", source=_MAN)
    m4: Scalar = constant(0.194, "1/min", "clearance of insulin from plasma", source=_MAN)
    m5: Scalar = constant(0.0304, "min*kg/pmol", "how secretion lowers extraction", source=_MAN)
    m6: Scalar = constant(0.6471, "1", "extraction without secretion", source=_MAN)
    gamma: Scalar = constant(0.5, "1/min", "from portal vein to liver", source=_MAN)
    Sb: Scalar = constant(1.8, "pmol/kg/min", "secretion at rest", source=_EXPORT)
    Gb: Scalar = constant(95.0, "mg/dL", "glucose above which the pancreas answers", source=_EXPORT)
    Ib: Scalar = constant(25.0, "pmol/L", "insulin at rest", source=_EXPORT)
    Gp0: Scalar = constant(178.0, "mg/kg", "plasma glucose at the first row", source=_BIOMD)
    Gt0: Scalar = constant(135.0, "mg/kg", "tissue glucose at the first row", source=_BIOMD)
    Il0: Scalar = constant(4.5, "pmol/kg", "liver insulin at the first row", source=_BIOMD)
    Ip0: Scalar = constant(1.25, "pmol/kg", "plasma insulin at the first row", source=_BIOMD)

    @staticmethod
    def type2() -> "DallaMan2007":
        """The subjects with type 2 diabetes of the paper's table I; what rests is solved from their numbers."""
        moved = {"VG": 1.49, "k1": 0.042, "k2": 0.071, "kmax": 0.0465, "kmin": 0.0076, "kabs": 0.023, "kp2": 0.0007, "kp3": 0.005,
                 "VmX": 0.034, "p2U": 0.084, "K": 0.99, "alpha": 0.013, "beta": 0.05}  # fmt: skip
        priors = {name: lognormal(value, 0.35) for name, value in moved.items()}
        fixed = {"kgri": 0.0465, "b": 0.68, "d": 0.09, "kp1": 3.09, "kp4": 0.0786, "ki": 0.0066, "Vm0": 4.65, "Km0": 466.21,
                 "muscle": 1.0, "ke1": 0.0007, "ke2": 269.0, "VI": 0.04, "m1": 0.379, "m2": 0.673, "m4": 0.269, "m5": 0.0526,
                 "m6": 0.8118}  # fmt: skip
        return DallaMan2007(**priors, **fixed, **_resting(moved | fixed))

    def rates(self, t, x, u):
        emptied = emptying(self, x) * x.qsto2
        glucose, insulin = x.Gp / self.VG, x.Ip / self.VI
        exchange = self.k1 * x.Gp - self.k2 * x.Gt
        used = self.muscle * (self.Vm0 + self.VmX * x.X) * x.Gt / (self.Km0 + x.Gt)
        rise = self.production(x) + self.appearance(x, u) - self.Uii - self.ke1 * above(x.Gp - self.ke2) - exchange
        secreted = self.gamma * x.Ipo
        extraction = self.m6 - self.m5 * secreted
        m3 = extraction * self.m1 / (1.0 - extraction)
        return self.State(
            qsto1=-self.kgri * x.qsto1,
            qsto2=self.kgri * x.qsto1 - emptied,
            qgut=emptied - self.kabs * x.qgut,
            Gp=rise,
            Gt=exchange - used,
            Il=-(self.m1 + m3) * x.Il + self.m2 * x.Ip + secreted,
            Ip=-(self.m2 + self.m4) * x.Ip + self.m1 * x.Il,
            X=-self.p2U * (x.X - (insulin - self.Ib)),
            I1=-self.ki * (x.I1 - insulin),
            Id=-self.ki * (x.Id - x.I1),
            Ipo=-secreted + x.Y + self.Sb + self.K * above(rise / self.VG),
            Y=-self.alpha * (x.Y - jnp.maximum(-self.Sb, self.beta * (glucose - self.Gb))),
            Dbar=0.0 * self.kmax * x.Dbar,
        )

    def appearance(self, x, u):
        """Glucose appearing in blood [mg/kg/min]."""
        return self.f * self.kabs * x.qgut / u.weight

    def production(self, x):
        """Glucose made by the liver [mg/kg/min]."""
        return above(self.kp1 - self.kp2 * x.Gp - self.kp3 * x.Id - self.kp4 * x.Ipo)

    def portion(self, dose, x, u, amount, first):
        return eaten(x, amount, first)

    def conserved(self, x, u):
        """Exchanges between stomach and gut, plasma and tissue, portal vein, liver and plasma appear in no sum."""
        used = self.muscle * (self.Vm0 + self.VmX * x.X) * x.Gt / (self.Km0 + x.Gt)
        lost = self.Uii + self.ke1 * above(x.Gp - self.ke2) + used
        exchange = self.k1 * x.Gp - self.k2 * x.Gt
        made = self.production(x) + self.appearance(x, u)
        rise = made - self.Uii - self.ke1 * above(x.Gp - self.ke2) - exchange
        extraction = self.m6 - self.m5 * self.gamma * x.Ipo
        degraded = extraction * self.m1 / (1.0 - extraction) * x.Il + self.m4 * x.Ip
        return {
            "carbohydrate": (x.qsto1 + x.qsto2 + x.qgut, -self.kabs * x.qgut),
            "glucose": (x.Gp + x.Gt, made - lost),
            "insulin": (x.Ipo + x.Il + x.Ip, x.Y + self.Sb + self.K * above(rise / self.VG) - degraded),
        }

    def outputs(self, x, u):
        return {
            "G": output(x.Gp / self.VG, "mg/dL", "plasma glucose"),
            "I": output(x.Ip / self.VI, "pmol/L", "plasma insulin"),
            "Ra": output(self.appearance(x, u), "mg/kg/min", "glucose appearing in blood"),
            "EGP": output(self.production(x), "mg/kg/min", "glucose made by the liver"),
        }

    def initial(self, u):
        none = 0.0 * self.Gp0 * const(1.0, "kg")
        return self.State(qsto1=none, qsto2=none, qgut=none, Gp=self.Gp0, Gt=self.Gt0, Il=self.Il0,
                          Ip=self.Ip0, X=0.0 * self.Ib, I1=self.Ib, Id=self.Ib, Ipo=self.Sb / self.gamma,
                          Y=0.0 * self.Sb, Dbar=none)  # fmt: skip


def _resting(p):
    """What rests, from the numbers of a table: secretion by resting extraction of .6, insulin, then glucose by bisection."""
    extraction = 0.6
    Sb = (p["m6"] - extraction) / p["m5"]
    m3 = extraction * p["m1"] / (1.0 - extraction)
    Il = Sb / (p["m1"] + m3 - p["m2"] * p["m1"] / (p["m2"] + p["m4"]))
    Ip = p["m1"] * Il / (p["m2"] + p["m4"])
    Ib = Ip / p["VI"]

    def surplus(Gp):
        made = max(0.0, p["kp1"] - p["kp2"] * Gp - p["kp3"] * Ib - p["kp4"] * Sb / 0.5)
        used = made - 1.0 - p["ke1"] * max(0.0, Gp - p["ke2"])
        Gt = (p["k1"] * Gp - used) / p["k2"]
        return used - p["muscle"] * p["Vm0"] * Gt / (p["Km0"] + Gt), Gt

    low, high = 50.0, 800.0
    for _ in range(80):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if surplus(middle)[0] > 0.0 else (low, middle)
    return {"Sb": Sb, "Ib": Ib, "Il0": Il, "Ip0": Ip, "Gp0": low, "Gt0": surplus(low)[1], "Gb": low / p["VG"]}
