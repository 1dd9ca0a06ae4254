"""The UVA/Padova type 1 diabetes simulator of 2008: thirteen states between plate, needle and glucose sensor."""

import jax.numpy as jnp

from hybridtwin.physiology.glucose.stomach import above, eaten, emptying
from hybridtwin.physiology.reference import Protocol, Reference, area
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

_ADULTS = "median and spread of the adults published with the simulator (Kovatchev 2009; simglucose 0.2.11)"
_MAN = "Dalla Man 2007, doi:10.1109/TBME.2007.893506"


def _kept(level, change):
    """The change, but none below zero: the simulator's own guard."""
    return jnp.where(level < 0.0, 0.0 * change, change)


class UVAPadova(System):
    r"""The UVA/Padova simulator of type 1 diabetes, version of 2008 (13 states), a virtual patient in equations.

    Stomach and gut [mg]: dqsto1/dt = meal - kmax qsto1      dqsto2/dt = kmax qsto1 - kgut qsto2      q = qsto1 + qsto2
    dqgut/dt = kgut qsto2 - kabs qgut                        Ra = f kabs qgut / weight                [mg/kg/min]
    kgut = kmin + (kmax - kmin)/2 (tanh(aa (q - b Dbar)) - tanh(cc (q - d Dbar)) + 2),
    aa = 5 / (2 Dbar (1 - b)), cc = 5 / (2 Dbar d); kmax as long as Dbar = 0

    Glucose [mg/kg]: EGP = max(0, kp1 - kp2 Gp - kp3 Id)     E = ke1 max(0, Gp - ke2)     U = (Vm0 + Vmx X) Gt / (Km0 + Gt)
    dGp/dt = EGP + Ra - Fsnc - E - k1 Gp + k2 Gt             dGt/dt = -U + k1 Gp - k2 Gt  dGs/dt = -ksc (Gs - Gp)

    Insulin: s = (ka1 depot1 + ka2 depot2) 6000 / weight [pmol/kg/min]                    I = Ip / Vi     [pmol/L]
    dIp/dt = -(m2 + m4) Ip + m1 Il + s                       dIl/dt = -(m1 + m30) Il + m2 Ip              [pmol/kg]
    dX/dt = -p2u (X - (I - Ib))      dI1/dt = -ki (I1 - I)   dId/dt = -ki (Id - I1)                       [pmol/L]
    ddepot1/dt = basal + bolus - (ka1 + kd) depot1           ddepot2/dt = kd depot1 - ka2 depot2          [[IU]]

    G = Gp / Vg (plasma), G_isf = Gs / Vg (under the skin); isc1, isc2 are the depots in pmol/kg, the simulator's unit.

    A meal is eaten at 5 g/min, minute by minute; a bolus runs in within a minute. `Dbar` [mg], which decides how fast the
    stomach empties, is what was in the stomach when the episode of eating began plus what has been eaten since, the
    portion of the present minute counted in full; it keeps its last value until the next episode. It is a state without
    a rate, set where a portion begins (`portion`). Changes of Gp, Gt and Gs are zero below zero, as in the simulator
    (the insulin states cannot get there, so their guards are left out).

    What rests is derived, so that every body drawn from the priors is at rest at Gb under the basal insulin that holds
    Ib: kp1 = EGPb + kp2 Gb Vg + kp3 Ib, Gtb = (k1 Gb Vg - EGPb + Fsnc) / k2, Vm0 = (EGPb - Fsnc) (Km0 + Gtb) / Gtb,
    m4 = 2/5 m2 and m30 = m1 HEb / (1 - HEb). `resting_basal` is that insulin in [IU]/h.

    Interventions: `meal`, `bolus`, `basal` (how much, when, not at all; by a rule where glucose passes a level), `Vmx`, `kp3`
    (sensitivity to insulin).
    Source: Kovatchev 2009, doi:10.1177/193229680900300106; Dalla Man 2007, doi:10.1109/TBME.2007.893506; rules of eating
    and dosing as in simglucose 0.2.11 (MIT), whose trajectories it meets to 1e-3 mg/dL. Priors: the adults published
    with the simulator, each parameter by itself. No exercise, no counterregulation, no day rhythm.
    """

    time = "min"
    grid = "5 min"
    horizon = "30 d"
    protocol = Protocol(
        600.0, "60 g of carbohydrate and 4 U at once", shows=("G", "insulin", "appearance"),
        doses={"meal": Regimen.bolus(60.0, "g", at=60.0), "bolus": Regimen.bolus(4.0, "[IU]", at=60.0)},
        signals={"basal": Signal.constant(1.25, "[IU]/h")}, covariates={"weight": (70.0, "kg")},
    )  # fmt: skip
    references = (
        Reference("plasma glucose at rest, adults", "mg/dL", (120.0, 160.0), _ADULTS, lambda lived: lived["G"][0],
                  drawn=("G", 0.0)),
        Reference("basal insulin that holds it", "[IU]/h", (0.7, 2.0), _ADULTS,
                  lambda lived: lived.body.resting_basal(lived.body.Input(basal=0.0, weight=70.0))),
        Reference("share of carbohydrate that has appeared after 4 h", "1", (0.75, 1.0), _MAN,
                  lambda lived: area(lived, "appearance", 60.0, 300.0) * 70.0 / 60e3 / float(lived.body.f)),
    )  # fmt: skip

    class State(State):
        qsto1: Scalar = state("mg", "solid glucose in the stomach")
        qsto2: Scalar = state("mg", "liquid glucose in the stomach")
        qgut: Scalar = state("mg", "glucose in the gut")
        Gp: Scalar = state("mg/kg", "glucose in plasma and what mixes with it at once")
        Gt: Scalar = state("mg/kg", "glucose in tissue that exchanges slowly")
        Ip: Scalar = state("pmol/kg", "insulin in plasma")
        X: Scalar = state("pmol/L", "insulin action on uptake", positive=False)
        I1: Scalar = state("pmol/L", "first delay of insulin action on production")
        Id: Scalar = state("pmol/L", "insulin action on production")
        Il: Scalar = state("pmol/kg", "insulin in the liver")
        depot1: Scalar = state("[IU]", "insulin under the skin, not monomeric")
        depot2: Scalar = state("[IU]", "insulin under the skin, monomeric")
        Gs: Scalar = state("mg/kg", "glucose under the skin")
        Dbar: Scalar = state("mg", "size of the meal as the stomach sees it")

    class Input(Input):
        meal: Scalar = dose("g", "carbohydrate eaten", into="qsto1", spread="5 g/min", portion="1 min")
        bolus: Scalar = dose("[IU]", "insulin injected", into="depot1", portion="1 min")
        basal: Scalar = signal("[IU]/h", "insulin infused by a pump", default=0.0)
        weight: Scalar = covariate("kg", "body weight")

    kmax: Scalar = parameter(lognormal(0.046, 0.45), "1/min", "fastest emptying of the stomach", source=_ADULTS)
    kmin: Scalar = parameter(lognormal(0.0065, 0.5), "1/min", "slowest emptying of the stomach", source=_ADULTS)
    kabs: Scalar = parameter(lognormal(0.089, 1.2), "1/min", "absorption from the gut", source=_ADULTS)
    b: Scalar = parameter(logitnormal(0.74, 0.7), "1", "share of the meal at which emptying slows", low=0.0, high=1.0,
                          source=_ADULTS)  # fmt: skip
    d: Scalar = parameter(logitnormal(0.18, 0.4), "1", "share of the meal at which emptying recovers", low=0.0, high=1.0,
                          source=_ADULTS)  # fmt: skip
    f: Scalar = constant(0.9, "1", "share of the glucose that reaches the blood", source=_MAN)
    Gb: Scalar = parameter(lognormal(139.0, 0.045), "mg/dL", "plasma glucose at rest", source=_ADULTS)
    Ib: Scalar = parameter(lognormal(107.0, 0.19), "pmol/L", "plasma insulin at rest", source=_ADULTS)
    EGPb: Scalar = parameter(lognormal(2.36, 0.13), "mg/kg/min", "glucose production at rest", source=_ADULTS)
    Vg: Scalar = parameter(lognormal(1.89, 0.06), "dL/kg", "glucose volume", source=_ADULTS)
    k1: Scalar = parameter(lognormal(0.067, 0.23), "1/min", "glucose from plasma to tissue", source=_ADULTS)
    k2: Scalar = parameter(lognormal(0.115, 0.42), "1/min", "glucose from tissue to plasma", source=_ADULTS)
    kp2: Scalar = parameter(lognormal(0.0031, 0.4), "1/min", "effect of glucose on its production", source=_ADULTS)
    kp3: Scalar = parameter(lognormal(0.0071, 0.35), "mg/kg/min/(pmol/L)", "effect of insulin on production",
                            source=_ADULTS)  # fmt: skip
    ki: Scalar = parameter(lognormal(0.0101, 0.6), "1/min", "delay of insulin action on production", source=_ADULTS)
    Vmx: Scalar = parameter(lognormal(0.045, 0.55), "mg/kg/min/(pmol/L)", "effect of insulin on uptake", source=_ADULTS)
    Km0: Scalar = parameter(lognormal(240.0, 0.11), "mg/kg", "glucose at half of the largest uptake", source=_ADULTS)
    p2u: Scalar = parameter(lognormal(0.038, 0.3), "1/min", "delay of insulin action on uptake", source=_ADULTS)
    Fsnc: Scalar = constant(1.0, "mg/kg/min", "uptake that needs no insulin", source=_MAN)
    ke1: Scalar = constant(0.0005, "1/min", "renal loss above the threshold", source=_MAN)
    ke2: Scalar = constant(339.0, "mg/kg", "renal threshold", source=_MAN)
    Vi: Scalar = parameter(lognormal(0.054, 0.27), "L/kg", "insulin volume", source=_ADULTS)
    m1: Scalar = parameter(lognormal(0.185, 0.35), "1/min", "insulin from liver to plasma", source=_ADULTS)
    m2: Scalar = parameter(lognormal(0.291, 0.27), "1/min", "insulin from plasma to liver", source=_ADULTS)
    HEb: Scalar = constant(0.6, "1", "share of insulin that the liver extracts", source=_MAN)
    ka1: Scalar = parameter(lognormal(0.0037, 0.3), "1/min", "absorption of insulin, not monomeric", source=_ADULTS)
    ka2: Scalar = parameter(lognormal(0.014, 0.3), "1/min", "absorption of insulin, monomeric", source=_ADULTS)
    kd: Scalar = parameter(lognormal(0.0152, 0.14), "1/min", "dissociation of insulin", source=_ADULTS)
    ksc: Scalar = parameter(lognormal(0.09, 0.25), "1/min", "exchange of glucose with the skin", source=_ADULTS)

    @property
    def m4(self):
        return self.m2 * 0.4

    @property
    def m30(self):
        return self.m1 * self.HEb / (1.0 - self.HEb)

    @property
    def Gtb(self):
        """Tissue glucose at rest [mg/kg]."""
        return (self.k1 * self.Gb * self.Vg - self.EGPb + self.Fsnc) / self.k2

    @property
    def kp1(self):
        """Glucose production without glucose and insulin [mg/kg/min]."""
        return self.EGPb + self.kp2 * self.Gb * self.Vg + self.kp3 * self.Ib

    @property
    def Vm0(self):
        """Largest uptake at resting insulin [mg/kg/min]."""
        return (self.EGPb - self.Fsnc) * (self.Km0 + self.Gtb) / self.Gtb

    def _cleared(self):
        """Share of the plasma's insulin that leaves the body a minute at rest [1/min]."""
        return self.m2 + self.m4 - self.m1 * self.m2 / (self.m1 + self.m30)

    def resting_basal(self, u):
        """Basal insulin that holds the body at rest at Gb [[IU]/h]."""
        flow = self._cleared() * self.Ib * self.Vi * u.weight * const(1 / 6000, "[IU]/pmol")
        return flow * const(60.0, "min/h")

    def appearance(self, x, u):
        """Glucose appearing in blood, Ra [mg/kg/min]."""
        return self.f * self.kabs * x.qgut / u.weight

    def rates(self, t, x, u):
        emptied, absorbed = emptying(self, x) * x.qsto2, self.kabs * x.qgut
        produced = above(self.kp1 - self.kp2 * x.Gp - self.kp3 * x.Id)
        lost = self.ke1 * above(x.Gp - self.ke2)
        used = (self.Vm0 + self.Vmx * x.X) * x.Gt / (self.Km0 + x.Gt)
        exchange = self.k1 * x.Gp - self.k2 * x.Gt
        insulin = x.Ip / self.Vi
        dissolved = self.ka1 * x.depot1 + self.ka2 * x.depot2
        return self.State(
            qsto1=-self.kmax * x.qsto1,
            qsto2=self.kmax * x.qsto1 - emptied,
            qgut=emptied - absorbed,
            Gp=_kept(x.Gp, produced + self.f * absorbed / u.weight - self.Fsnc - lost - exchange),
            Gt=_kept(x.Gt, exchange - used),
            Ip=-(self.m2 + self.m4) * x.Ip + self.m1 * x.Il + dissolved * const(6000.0, "pmol/[IU]") / u.weight,
            X=-self.p2u * (x.X - (insulin - self.Ib)),
            I1=-self.ki * (x.I1 - insulin),
            Id=-self.ki * (x.Id - x.I1),
            Il=-(self.m1 + self.m30) * x.Il + self.m2 * x.Ip,
            depot1=u.basal * const(1 / 60, "h/min") - (self.ka1 + self.kd) * x.depot1,
            depot2=self.kd * x.depot1 - self.ka2 * x.depot2,
            Gs=_kept(x.Gs, -self.ksc * (x.Gs - x.Gp)),
            Dbar=0.0 * self.kmax * x.Dbar,
        )

    def portion(self, dose, x, u, amount, first):
        return eaten(x, amount, first) if dose == "meal" else x

    def conserved(self, x, u):
        injected = u.basal * const(1 / 60, "h/min")
        return {
            "carbohydrate": (x.qsto1 + x.qsto2 + x.qgut, -self.kabs * x.qgut),
            "insulin under the skin": (x.depot1 + x.depot2, injected - self.ka1 * x.depot1 - self.ka2 * x.depot2),
        }

    def outputs(self, x, u):
        scale = const(6000.0, "pmol/[IU]") / u.weight
        return {
            "G": output(x.Gp / self.Vg, "mg/dL", "plasma glucose"),
            "G_isf": output(x.Gs / self.Vg, "mg/dL", "glucose under the skin"),
            "insulin": output(x.Ip / self.Vi, "pmol/L", "plasma insulin"),
            "appearance": output(self.appearance(x, u), "mg/kg/min", "glucose appearing in blood"),
            "isc1": output(x.depot1 * scale, "pmol/kg", "insulin under the skin, not monomeric"),
            "isc2": output(x.depot2 * scale, "pmol/kg", "insulin under the skin, monomeric"),
        }

    def _insulin_at(self, basal, u):
        """Insulin states at rest under a basal rate [[IU]/h]: plasma [pmol/kg], liver [pmol/kg], depots [[IU]]."""
        flow = basal * const(1 / 60, "h/min")
        plasma = flow * const(6000.0, "pmol/[IU]") / u.weight / self._cleared()
        depot1 = flow / (self.ka1 + self.kd)
        return plasma, plasma * self.m2 / (self.m1 + self.m30), depot1, depot1 * self.kd / self.ka2

    def _rest(self, u, basal, Gp, Gt, X):
        Ip, Il, depot1, depot2 = self._insulin_at(basal, u)
        insulin, none = Ip / self.Vi, 0.0 * Gp * const(1.0, "kg")
        return self.State(
            qsto1=none, qsto2=none, qgut=none, Gp=Gp, Gt=Gt, Ip=Ip, X=X, I1=insulin, Id=insulin, Il=Il, depot1=depot1,
            depot2=depot2, Gs=Gp, Dbar=none,
        )  # fmt: skip

    def initial(self, u):
        """At rest at Gb, under the basal insulin that holds it there: where the simulator starts."""
        return self._rest(u, self.resting_basal(u), self.Gb * self.Vg, self.Gtb, 0.0 * self.Ib)

    def steady(self, u):
        """At rest under the pump's present rate."""
        insulin = self._insulin_at(u.basal, u)[0] / self.Vi
        action = insulin - self.Ib
        uptake = self.Vm0 + self.Vmx * action
        made = above(self.kp1 - self.kp3 * insulin - self.Fsnc)

        def tissue(made, slope):
            """Gt where made - slope Gp = U(Gt) and k1 Gp - k2 Gt = U(Gt): a quadratic."""
            fall, gain = slope * self.k2 / self.k1, uptake * (1.0 + slope / self.k1)
            half = 0.5 * (made - fall * self.Km0 - gain)
            return (half + jnp.sqrt(half * half + fall * made * self.Km0)) / fall

        def plasma(Gt):
            return (self.k2 * Gt + uptake * Gt / (self.Km0 + Gt)) / self.k1

        low, high = tissue(made, self.kp2), tissue(made + self.ke1 * self.ke2, self.kp2 + self.ke1)
        Gt = jnp.where(plasma(low) > self.ke2, high, low)  # above the renal threshold glucose is lost, too
        return self._rest(u, u.basal, plasma(Gt), Gt, action)
