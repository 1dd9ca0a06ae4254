"""Cortisol over the day: hypothalamus, pituitary and adrenal gland under the clock, stress and hydrocortisone."""

import jax.numpy as jnp
import numpy as np

from hybridtwin.physiology.reference import Protocol, Reference, Since, area
from hybridtwin.signals import Regimen, Signal
from hybridtwin.system import (
    Input,
    Scalar,
    State,
    System,
    const,
    constant,
    dose,
    lognormal,
    normal,
    output,
    parameter,
    route,
    signal,
    state,
)

_PAPER = "Bangsgaard and Ottesen 2017, doi:10.1016/j.mbs.2016.10.007, control F, as printed in the repository VeVaPy"
_SPREAD = _PAPER + "; spread assumed"
_LAB = "laboratory of the Central Maine Medical Center"
_START = "midnight of the sixth day under the clock"
_NMOL = 27.59  # nmol/L in one ug/dL of cortisol


class Bangsgaard2017(System):
    r"""CRH, ACTH and cortisol with the rhythm of the day and the shorter one that the feedback makes by itself.

    s = (t - delta) mod 1440 min
    C = N (s^5 / (s^5 + alpha^5) (1440 - s)^6 / ((1440 - s)^6 + beta^6) + eps)
    dCRH/dt = a0 + clock C a1 / (1 + a2 F^2) CRH / (mu + CRH) + stress - w1 CRH
    dACTH/dt = a3 CRH / (1 + a4 F) - w2 ACTH
    dF/dt = a5 ACTH^2 - w3 F + bio ka depot / V          ddepot/dt = -ka depot

    CRH, ACTH [pg/mL], F `cortisol` [ug/dL] total in plasma, depot [mg] swallowed hydrocortisone; C [1] the clock's share,
    w1, w2, w3 loss [1/min], delta [min] when the biological day begins; time in min from midnight. It never rests: beside
    the day there are waves of two to three hours, as in recordings every ten minutes.

    Doses: `oral` (compartment 1). Interventions: `stress` [pg/mL/min] CRH that a stressor releases, `clock` what multiplies the
    drive of the clock (0: none), delta (shift work). Hydrocortisone is ours: V gives w3 the clearance that was measured,
    ka the time of the peak; it is absorbed more slowly than it is lost. Source: Bangsgaard and Ottesen 2017,
    doi:10.1016/j.mbs.2016.10.007.
    """

    time = "min"
    grid = "10 min"
    horizon = "30 d"
    restless = "a rhythm of the day"
    protocol = Protocol(
        2880.0, "two days; 20 min of stress at 16:00, and 20 mg of hydrocortisone at 8:00 of the second day",
        shows=("ACTH_level", "cortisol_level"), tol=1e-4,
        doses={"oral": Regimen.bolus(20.0, "mg", at=1920.0)},
        signals={"stress": Signal.steps([0.0, 960.0, 980.0], [0.0, 1.0, 0.0], "pg/mL/min")},
    )  # fmt: skip
    references = (
        Reference("cortisol in the morning (7:00 to 9:00)", "ug/dL", (6.0, 23.0), _LAB,
                  lambda lived: mean(lived, "cortisol", 420.0, 540.0)),
        Reference("cortisol in the evening (19:30 to 20:30)", "ug/dL", (0.0, 9.0), _LAB,
                  lambda lived: mean(lived, "cortisol", 1170.0, 1230.0), drawn=("cortisol_level", 1200.0)),
        Reference("ACTH in the morning (7:00 to 9:00)", "pg/mL", (6.0, 50.0), "Apex Nursing, adrenal function tests: 8:00",
                  lambda lived: mean(lived, "ACTH", 420.0, 540.0), drawn=("ACTH_level", 480.0)),
        Reference("time of the highest cortisol", "h", (6.0, 9.0), "33 healthy people, PMC2684472, figure 1: 8:32",
                  lambda lived: lived.time[np.argmax(lived["cortisol"][lived.time < 900.0])] / 60.0,
                  drawn=("cortisol_level", Since())),
        Reference("highest cortisol of a day", "ug/dL", (11.7, 20.6), "33 healthy people, PMC2684472, figure 1: 15.5 on average",
                  lambda lived: lived["cortisol"][lived.time < 900.0].max(), drawn=("cortisol_level", 512.0),
                  why="control F, whose numbers these are, is low"),
        Reference("half-life of cortisol", "min", (72.0, 120.0), "labels of hydrocortisone: 1.2 to 2.0 h",
                  lambda lived: np.log(2.0) / float(lived.body.w3),
                  why="w3 as the paper fits it, one loss for what is fast (binding, spread) and slow (clearance)"),
        Reference("time from 20 mg of hydrocortisone to its peak", "h", (0.3, 3.3),
                  "Charmandari 2001, 16 young patients, doi:10.1677/joe.0.1690065",
                  lambda lived: (lived.time[1920 // 10 + np.argmax(lived["cortisol"][1920 // 10:])] - 1920.0) / 60.0),
        Reference("area that 20 mg of hydrocortisone adds", "nmol*h/L", (1081.0, 5471.0),
                  "Thomson 2007, adrenal insufficiency, Clin Endocrinol 66:789", lambda lived: added(lived)),
    )  # fmt: skip

    class State(State):
        CRH: Scalar = state("pg/mL", "corticotropin-releasing hormone")
        ACTH: Scalar = state("pg/mL", "corticotropin")
        cortisol: Scalar = state("ug/dL", "total cortisol in plasma")
        depot: Scalar = state("mg", "hydrocortisone in the gut")

    class Input(Input):
        oral: Scalar = dose("mg", "hydrocortisone swallowed", into="depot", cmt=1)
        stress: Scalar = signal("pg/mL/min", "CRH that a stressor releases", default=0.0)
        clock: Scalar = signal("1", "what multiplies the drive of the clock", default=1.0)

    a1: Scalar = parameter(lognormal(6.839e12, 0.15), "pg/mL/min", "drive of CRH by itself", source=_SPREAD)
    a5: Scalar = parameter(lognormal(4.617e-4, 0.15), "ug*mL^2/pg^2/dL/min", "cortisol made under ACTH", source=_SPREAD)
    w1: Scalar = parameter(lognormal(0.0337, 0.1), "1/min", "loss of CRH", source=_SPREAD)
    w2: Scalar = parameter(lognormal(0.0205, 0.1), "1/min", "loss of ACTH", source=_SPREAD)
    w3: Scalar = parameter(lognormal(0.0238, 0.1), "1/min", "loss of cortisol", source=_SPREAD)
    delta: Scalar = parameter(normal(83.8, 30.0), "min", "when the biological day begins", source=_SPREAD)
    ka: Scalar = parameter(lognormal(0.0071, 0.3), "1/min", "absorption of hydrocortisone",
                           source="peak at 1.2 h: Charmandari 2001, doi:10.1677/joe.0.1690065; spread assumed")  # fmt: skip
    V: Scalar = parameter(lognormal(13.1, 0.3), "L", "volume of hydrocortisone",
                          source="clearance of .267 L/h/kg: Thomson 2007, Clin Endocrinol 66:789; spread assumed")  # fmt: skip
    bio: Scalar = constant(0.96, "1", "share of a dose that reaches blood", "labels of hydrocortisone: 96 %")
    a0: Scalar = constant(3.9031e-4, "pg/mL/min", "CRH made without any drive", _PAPER)
    a2: Scalar = constant(1.7809e9, "dL^2/ug^2", "feedback on the hypothalamus", _PAPER)
    a3: Scalar = constant(2.2803e4, "1/min", "ACTH made under CRH", _PAPER)
    a4: Scalar = constant(1.7745e5, "dL/ug", "feedback on the pituitary", _PAPER)
    mu: Scalar = constant(583.0, "pg/mL", "CRH of half of its own drive", _PAPER)
    alpha: Scalar = constant(300.0, "min", "rise of the clock", _PAPER)
    beta: Scalar = constant(950.0, "min", "fall of the clock", _PAPER)
    eps: Scalar = constant(0.01, "1", "what is left at night", _PAPER)
    N: Scalar = constant(0.5217, "1", "scale of the clock", _PAPER)
    CRH0: Scalar = constant(1.40, "pg/mL", "CRH at the start", _START)
    ACTH0: Scalar = constant(7.60, "pg/mL", "ACTH at the start", _START)
    F0: Scalar = constant(0.95, "ug/dL", "cortisol at the start", _START)

    def drive(self, t):
        """C: the clock's share [1] at a time of the day [min]."""
        day = const(1440.0, "min")
        since = jnp.mod(t - self.delta, day)
        rise, fall = (since / self.alpha) ** 5, ((day - since) / self.beta) ** 6
        return self.N * (rise / (1.0 + rise) * fall / (1.0 + fall) + self.eps)

    def rates(self, t, x, u):
        F, swallowed = x.cortisol, self.ka * x.depot
        own = u.clock * self.drive(t) * self.a1 / (1.0 + self.a2 * F**2) * x.CRH / (self.mu + x.CRH)
        return self.State(
            CRH=self.a0 + own + u.stress - self.w1 * x.CRH,
            ACTH=self.a3 * x.CRH / (1.0 + self.a4 * F) - self.w2 * x.ACTH,
            cortisol=self.a5 * x.ACTH**2 - self.w3 * F + swallowed / self.V * const(100.0, "ug*L/mg/dL"),
            depot=-swallowed,
        )

    def conserved(self, x, u):
        """Cortisol in the gut and in its volume: hydrocortisone is cortisol."""
        plasma = x.cortisol * self.V * const(0.01, "mg*dL/ug/L")
        made = self.a5 * x.ACTH**2 * self.V * const(0.01, "mg*dL/ug/L")
        return {"cortisol": (x.depot + plasma, made - self.w3 * plasma)}

    def dosing(self, u):
        return {"oral": route(fraction=self.bio)}

    def outputs(self, x, u):
        return {
            "cortisol_level": output(x.cortisol, "ug/dL", "total cortisol in plasma"),
            "ACTH_level": output(x.ACTH, "pg/mL", "corticotropin in plasma"),
        }

    def initial(self, u):
        none = 0.0 * self.F0 * self.V * const(0.01, "mg*dL/ug/L")
        return self.State(CRH=self.CRH0, ACTH=self.ACTH0, cortisol=self.F0, depot=none)


def mean(lived, name, start, stop):
    """Mean of a state or output between two times."""
    return area(lived, name, start, stop) / (stop - start)


def added(lived):
    """Area [nmol h/L] under cortisol that the dose adds within 8 hours."""
    plain = lived.again(doses={})
    return (area(lived, "cortisol", 1920.0, 2400.0) - area(plain, "cortisol", 1920.0, 2400.0)) * _NMOL / 60.0
