"""Breathing: gas exchange in the lung, stores of oxygen and carbon dioxide, and the reflexes that set ventilation."""

import jax
import jax.numpy as jnp
import numpy as np

from hybridtwin.physiology.reference import Protocol, Reference
from hybridtwin.signals import Signal
from hybridtwin.system import (
    Input,
    Scalar,
    State,
    System,
    const,
    constant,
    logitnormal,
    lognormal,
    normal,
    output,
    parameter,
    signal,
    state,
)

_SPENCER = "Spencer 1979, doi:10.1007/BF02364439"
_KHOO = "Khoo 1991 and Batzel and Tran 2000, values from memory"
_FRAYN = "Frayn 1983, doi:10.1152/jappl.1983.55.2.628"
_ZURLO = "Zurlo 1990, doi:10.1152/ajpendo.1990.259.5.E650: 152 people over 24 h"
_QUOTIENT = "made .235 L/min of carbon dioxide, " + _KHOO + "; spread assumed"
_STORES = "Timischl 1998 after Khoo, as in public programs of it"
_OPIOID = _SPENCER + ", as in the FDA's model of opioids"
_BATZEL = "Batzel and Tran 2000, as in a library of Modelica"
_GAINS = _BATZEL + "; spread assumed"
_GASES = "Laposata, Laboratory Medicine, its table as in ehrapy"
_NEWTON = 10  # steps to the ventilation at rest; 7 reach the last digit


class Respiration(System):
    r"""Oxygen and carbon dioxide in lung and body under the central and peripheral reflexes of breathing.

    F1 = P (1 + b1 p) / (K1 (1 + c1 p))          O2(P, p) = O2max F1^(1/a1) / (1 + F1^(1/a1))
    F2 = p (1 + b2 P) / (K2 (1 + c2 P))          CO2(P, p) = CO2max F2^(1/a2) / (1 + F2^(1/a2))
    blood that left the lung: c = O2, CO2 at (PAO2, PACO2); arterial: a = (1 - shunt) c + shunt v, pressures Pa by inversion
    VE = max(0, Gp exp(-.05 lagO2) (lagCO2 - I)) + max(0, Gc (brain - gap - I))          VA = max(0, VE - VD)
    VLO2 dPAO2/dt = VA (inspired O2 - PAO2) + 863 flow (1 - shunt) (vO2 - cO2)
    VLCO2 dPACO2/dt = VA (inspired CO2 - PACO2) + 863 flow (1 - shunt) (vCO2 - cCO2)
    VTO2 dvO2/dt = flow (aO2 - vO2) - work MRO2          VTCO2 dvCO2/dt = flow (aCO2 - vCO2) + work RQ MRO2
    RQ = RQfat fat + RQcarb (1 - fat)
    dbrain/dt = (gap - (brain - lagCO2)) / tauB           dlag/dt = (Pa - lag) / tau

    PAO2, PACO2 [mmHg] alveolar, vO2, vCO2 [L/L] venous and in tissue, brain [mmHg] CO2 at the central receptors, `gap` above
    arterial, lagO2, lagCO2 [mmHg] what arterial blood brings to the receptors (a first-order lag for the delay of the paper);
    P, p [mmHg] of O2 and CO2; flow [L/min] cardiac output, VE, VA, VD [L/min] minute, alveolar and dead space ventilation,
    MRO2 [L/min] at rest, `fat` the share of it that burns fat, so that the carbon dioxide made lies between .7 of it and all of
    it: two rates apart would draw bodies who make less than any food does, and so breathe too little for the oxygen they use.
    863 mmHg L/L from standard to body conditions. At rest the alveolar gas equation holds exactly:
    PACO2 = inspired + 863 RQ MRO2 / VA. Brain is a sensor, no store.

    Interventions: `inspired_O2` and `inspired_CO2` [mmHg, in moist air: (barometer - 47) times the fraction] for altitude,
    oxygen and rebreathing, `work` what multiplies metabolism, `flow`. Minutes, not days: no acclimatization, no pH of its own.
    Source: Khoo 1991, J Appl Physiol 70:2014, and Batzel and Tran 2000, J Math Biol 41:45, without the delays; dissociation:
    Spencer 1979, doi:10.1007/BF02364439, which can be inverted.
    """

    time = "min"
    grid = "0.1 min"
    horizon = "12 h"
    protocol = Protocol(
        60.0, "ten minutes at 4300 m, then ten of 5 % carbon dioxide", shows=("PaO2", "PaCO2", "VE"), tol=1e-4,
        signals={"inspired_O2": Signal.steps([0.0, 10.0, 20.0], [149.2, 86.0, 149.2], "mmHg"),
                 "inspired_CO2": Signal.steps([0.0, 40.0, 50.0], [0.0, 35.7, 0.0], "mmHg")},
    )  # fmt: skip
    references = (
        Reference("arterial oxygen", "mmHg", (80.0, 100.0), _GASES, lambda lived: lived["PaO2"][0], drawn=("PaO2", 0.0)),
        Reference("arterial carbon dioxide", "mmHg", (35.0, 45.0), _GASES, lambda lived: lived["PaCO2"][0], drawn=("PaCO2", 0.0)),
        Reference("arterial saturation", "%", (95.0, 99.0), "textbooks", lambda lived: lived["SaO2"][0]),
        Reference("ventilation at rest", "L/min", (5.0, 8.0), "textbooks", lambda lived: lived["VE"][0], drawn=("VE", 0.0)),
        Reference("venous saturation", "%", (65.0, 75.0), "textbooks", lambda lived: _venous(lived)),
        Reference("respiratory quotient", "1", (0.799, 0.903), _ZURLO, lambda lived: float(lived.body.quotient())),
        Reference("oxygen of half saturation, 40 mmHg of carbon dioxide", "mmHg", 26.86,
                  "Severinghaus 1979, equation 1, doi:10.1152/jappl.1979.46.3.599", lambda lived: _half(lived.body)),
        Reference("slope of the answer to carbon dioxide", "L/min/mmHg", (1.0, 3.0), "textbooks", lambda lived: _slope(lived)),
        Reference("answer to hypoxia at constant carbon dioxide", "L/min/%", (0.2, 2.0),
                  "textbooks: wide among the healthy, near 1", lambda lived: _hypoxic(lived.body)),
        Reference("arterial carbon dioxide after 10 min at 4300 m", "mmHg", (30.0, 40.0), "textbooks: little is done at first",
                  lambda lived: lived.at("PaCO2", 19.9), drawn=("PaCO2", 19.9)),
    )  # fmt: skip

    class State(State):
        PAO2: Scalar = state("mmHg", "oxygen in the alveoli")
        PACO2: Scalar = state("mmHg", "carbon dioxide in the alveoli")
        vO2: Scalar = state("L/L", "oxygen in tissue and the blood that leaves it")
        vCO2: Scalar = state("L/L", "carbon dioxide in tissue and the blood that leaves it")
        brain: Scalar = state("mmHg", "carbon dioxide at the central receptors")
        lagO2: Scalar = state("mmHg", "oxygen in the blood at the receptors")
        lagCO2: Scalar = state("mmHg", "carbon dioxide in the blood at the receptors")

    class Input(Input):
        inspired_O2: Scalar = signal("mmHg", "oxygen in moist inspired air", default=149.2)
        inspired_CO2: Scalar = signal("mmHg", "carbon dioxide in moist inspired air", default=0.0)
        work: Scalar = signal("1", "what multiplies the metabolism of rest", default=1.0)
        flow: Scalar = signal("L/min", "cardiac output", default=5.0)

    Gc: Scalar = parameter(lognormal(1.44, 0.25), "L/min/mmHg", "gain of the central reflex", source=_GAINS)
    Gp: Scalar = parameter(lognormal(30.24, 0.25), "L/min/mmHg", "gain of the peripheral reflex without oxygen", source=_GAINS)
    I: Scalar = parameter(normal(35.5, 1.0), "mmHg", "carbon dioxide of apnea", source=_GAINS)
    MRO2: Scalar = parameter(lognormal(0.29, 0.1), "L/min", "oxygen used at rest", source=_KHOO + "; spread assumed")
    fat: Scalar = parameter(logitnormal(0.632, 0.5), "1", "share of that oxygen that burns fat, the rest carbohydrate",
                            low=0.0, high=1.0, source=_QUOTIENT)  # fmt: skip
    VD: Scalar = parameter(lognormal(2.4, 0.15), "L/min", "ventilation of dead space", source=_KHOO + "; spread assumed")
    shunt: Scalar = parameter(logitnormal(0.02, 0.3), "1", "share of flow past the lung", source="assumed")
    RQfat: Scalar = constant(0.7, "1", "carbon dioxide of fat over its oxygen", _FRAYN)
    RQcarb: Scalar = constant(1.0, "1", "carbon dioxide of carbohydrate over its oxygen", _FRAYN)
    VLO2: Scalar = constant(2.5, "L", "lung, for oxygen", _STORES)
    VLCO2: Scalar = constant(3.2, "L", "lung, for carbon dioxide", _STORES + "; PNEUMA has 3")
    VTO2: Scalar = constant(6.0, "L", "tissue, for oxygen", _STORES)
    VTCO2: Scalar = constant(15.0, "L", "tissue, for carbon dioxide", _STORES)
    gap: Scalar = constant(9.2, "mmHg", "brain above arterial: .042 L/min / (.0065 L/L/mmHg .7 L/min)", _KHOO)
    tauB: Scalar = constant(1.29, "min", "exchange of the brain: .9 L / .7 L/min", _KHOO + "; .9 L as in a public program")
    tau: Scalar = constant(0.15, "min", "way from lung to receptors", _KHOO)
    hypoxia: Scalar = constant(0.05, "1/mmHg", "how oxygen quenches the peripheral reflex", _BATZEL)
    K1: Scalar = constant(14.99, "mmHg", "oxygen: half", _OPIOID)
    b1: Scalar = constant(0.008275, "1/mmHg", "oxygen: Bohr effect", _OPIOID)
    c1: Scalar = constant(0.03198, "1/mmHg", "oxygen: Bohr effect", _OPIOID)
    a1: Scalar = constant(0.3836, "1", "oxygen: steepness", _SPENCER + ", as in PNEUMA")
    O2max: Scalar = constant(0.2043, "L/L", "oxygen at full saturation: 9 mmol/L, .0227 L/mmol", _SPENCER + ", as in PNEUMA")
    K2: Scalar = constant(194.4, "mmHg", "carbon dioxide: half", _SPENCER + ", as in PNEUMA")
    b2: Scalar = constant(0.03255, "1/mmHg", "carbon dioxide: Haldane effect", _SPENCER + ", as in PNEUMA")
    c2: Scalar = constant(0.05591, "1/mmHg", "carbon dioxide: Haldane effect", _SPENCER + ", as in PNEUMA")
    a2: Scalar = constant(1.819, "1", "carbon dioxide: steepness", _SPENCER + ", as in PNEUMA")
    CO2max: Scalar = constant(1.9749, "L/L", "carbon dioxide: 87 mmol/L, .0227 L/mmol", _SPENCER + ", as in PNEUMA")

    def quotient(self):
        """Carbon dioxide made over oxygen used."""
        return self.RQfat * self.fat + self.RQcarb * (1.0 - self.fat)

    def contents(self, P, p):
        """(oxygen, carbon dioxide) [L/L] of blood at pressures P and p [mmHg]."""
        F1 = (P * (1.0 + self.b1 * p) / (self.K1 * (1.0 + self.c1 * p))) ** (1.0 / self.a1)
        F2 = (p * (1.0 + self.b2 * P) / (self.K2 * (1.0 + self.c2 * P))) ** (1.0 / self.a2)
        return self.O2max * F1 / (1.0 + F1), self.CO2max * F2 / (1.0 + F2)

    def pressures(self, O2, CO2):
        """(P, p) [mmHg] of blood with these contents [L/L]: the positive root of a quadratic."""
        D1 = self.K1 * (O2 / (self.O2max - O2)) ** self.a1
        D2 = self.K2 * (CO2 / (self.CO2max - CO2)) ** self.a2
        a = self.b2 + self.b1 * self.c2 * D2
        b = 1.0 + self.b1 * D2 - D1 * (self.b2 + self.c1 * self.c2 * D2)
        P = (jnp.sqrt(b**2 + 4.0 * a * D1 * (1.0 + self.c1 * D2)) - b) / (2.0 * a)
        return P, D2 * (1.0 + self.c2 * P) / (1.0 + self.b2 * P)

    def ventilation(self, O2, CO2, central):
        """VE [L/min] at pressures [mmHg] of arterial blood, and of the brain less its gap."""
        peripheral = self.Gp * jnp.exp(-self.hypoxia * O2) * (CO2 - self.I)
        slow = self.Gc * (central - self.I)
        return jnp.maximum(peripheral, 0.0 * peripheral) + jnp.maximum(slow, 0.0 * slow)

    def alveolar(self, x):
        """VA [L/min]: what of the ventilation reaches the lung's gas."""
        VA = self.ventilation(x.lagO2, x.lagCO2, x.brain - self.gap) - self.VD
        return jnp.maximum(VA, 0.0 * VA)

    def arterial(self, x):
        """Contents [L/L] of blood after the lung, and arterial."""
        O2, CO2 = self.contents(x.PAO2, x.PACO2)
        mixed = ((1.0 - self.shunt) * O2 + self.shunt * x.vO2, (1.0 - self.shunt) * CO2 + self.shunt * x.vCO2)
        return (O2, CO2), mixed

    def rates(self, t, x, u):
        (cO2, cCO2), (aO2, aCO2) = self.arterial(x)
        PO2, PCO2 = self.pressures(aO2, aCO2)
        VA = self.alveolar(x)
        through = const(863.0, "mmHg") * u.flow * (1.0 - self.shunt)
        return self.State(
            PAO2=(VA * (u.inspired_O2 - x.PAO2) + through * (x.vO2 - cO2)) / self.VLO2,
            PACO2=(VA * (u.inspired_CO2 - x.PACO2) + through * (x.vCO2 - cCO2)) / self.VLCO2,
            vO2=(u.flow * (aO2 - x.vO2) - u.work * self.MRO2) / self.VTO2,
            vCO2=(u.flow * (aCO2 - x.vCO2) + u.work * self.quotient() * self.MRO2) / self.VTCO2,
            brain=(self.gap - (x.brain - x.lagCO2)) / self.tauB,
            lagO2=(PO2 - x.lagO2) / self.tau,
            lagCO2=(PCO2 - x.lagCO2) / self.tau,
        )

    def conserved(self, x, u):
        """Both gases in lung and tissue: blood only carries them."""
        VA, atm = self.alveolar(x), const(863.0, "mmHg")
        return {
            "oxygen": (self.VLO2 / atm * x.PAO2 + self.VTO2 * x.vO2,
                       VA * (u.inspired_O2 - x.PAO2) / atm - u.work * self.MRO2),
            "carbon dioxide": (self.VLCO2 / atm * x.PACO2 + self.VTCO2 * x.vCO2,
                               VA * (u.inspired_CO2 - x.PACO2) / atm + u.work * self.quotient() * self.MRO2),
        }  # fmt: skip

    def outputs(self, x, u):
        _, arterial = self.arterial(x)
        PO2, PCO2 = self.pressures(*arterial)
        return {
            "PaO2": output(PO2, "mmHg", "arterial oxygen"),
            "PaCO2": output(PCO2, "mmHg", "arterial carbon dioxide"),
            "SaO2": output(arterial[0] / self.O2max * const(100.0, "%"), "%", "arterial saturation"),
            "VE": output(self.ventilation(x.lagO2, x.lagCO2, x.brain - self.gap), "L/min", "minute ventilation"),
        }

    def _at(self, VA, u):
        """State under an alveolar ventilation [L/min] that stays, and the ventilation [L/min] it would call for."""
        used, made = u.work * self.MRO2, u.work * self.quotient() * self.MRO2
        PAO2 = u.inspired_O2 - const(863.0, "mmHg") * used / VA
        PACO2 = u.inspired_CO2 + const(863.0, "mmHg") * made / VA
        O2, CO2 = self.contents(PAO2, PACO2)
        past = self.shunt / (1.0 - self.shunt) / u.flow
        aO2, aCO2 = O2 - past * used, CO2 + past * made
        P, p = self.pressures(aO2, aCO2)
        x = self.State(PAO2=PAO2, PACO2=PACO2, vO2=aO2 - used / u.flow, vCO2=aCO2 + made / u.flow,
                       brain=p + self.gap, lagO2=P, lagCO2=p)  # fmt: skip
        return x, self.ventilation(P, p, p) - self.VD

    def steady(self, u):
        """Rest under these inputs: the alveolar ventilation that calls for itself, by Newton's method on one number.

        What is called for falls with VA and is convex, so the steps climb from below without passing the root.
        """
        VA = const(863.0 * 1.4, "mmHg") * u.work * self.MRO2 / u.inspired_O2 + 0.0 * self.VD
        h = const(1e-3, "L/min")
        for _ in range(_NEWTON):
            VA = jax.lax.stop_gradient(VA)  # the last step alone carries the derivative: that of the implicit function
            slope = (self._at(VA + h, u)[1] - self._at(VA - h, u)[1]) / (2.0 * h) - 1.0
            VA = VA - (self._at(VA, u)[1] - VA) / jax.lax.stop_gradient(slope)
        return self._at(VA, u)[0]

    def initial(self, u):
        return self.steady(u)


def _half(body):
    """Oxygen [mmHg] at which blood is half saturated."""
    P = np.linspace(20.0, 35.0, 15001)
    return float(np.interp(0.5, np.asarray(body.contents(P, 40.0)[0]) / float(body.O2max), P))


def _venous(lived):
    """Saturation [%] of venous blood."""
    return 100.0 * float(lived["vO2"][0]) / float(lived.body.O2max)


def _slope(lived):
    """Ventilation over arterial carbon dioxide [L/min/mmHg] at rest under two inspired pressures."""
    rest = [lived.again(signals={"inspired_CO2": Signal.constant(c, "mmHg")}) for c in (35.0, 42.0)]
    return (rest[1]["VE"][0] - rest[0]["VE"][0]) / (rest[1]["PaCO2"][0] - rest[0]["PaCO2"][0])


def _hypoxic(body):
    """Ventilation over saturation lost [L/min/%] from 95 to 45 mmHg of oxygen, carbon dioxide at 40 mmHg."""
    well, ill = (float(body.ventilation(P, 40.0, 40.0)) for P in (95.0, 45.0))
    lost = 100.0 * float(body.contents(95.0, 40.0)[0] - body.contents(45.0, 40.0)[0]) / float(body.O2max)
    return (ill - well) / lost
