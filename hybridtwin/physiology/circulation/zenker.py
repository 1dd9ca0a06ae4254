"""The circulation without beats: a heart, arteries and veins under the baroreflex."""

import jax
import jax.numpy as jnp

from hybridtwin.physiology.reference import Protocol, Reference
from hybridtwin.signals import Signal
from hybridtwin.system import (
    Input,
    Scalar,
    State,
    System,
    const,
    constant,
    lognormal,
    normal,
    output,
    parameter,
    signal,
    state,
)

_NORMAL = "normal adult pressure; Westerhof 2009"
_ZENKER = "Zenker 2007, doi:10.1371/journal.pcbi.0030204"


class Zenker2007(System):
    r"""A heart, arteries and veins under the baroreflex, averaged over beats: bleeding, fluid, and the diagnoses between them.

    f = fmin + (fmax - fmin) S      R = Rmin + (Rmax - Rmin) S      W = Wmin + (Wmax - Wmin) S
    Vu = Vumin + (Vumax - Vumin) (1 - S)
    Pa = (Va - Va0) / Ca            Pv = (Vv - Vu) / Cv             Pd(V) = P0 (exp(kE (V - Ved0)) - 1)
    ES = Ved - W (Ved - Ved0) / (Pa - Pd(Ved)), not below Ved0      ED = filling of ES at Pv over 1/f - Tsys, through Rvalve
    dVes/dt = f (ES - Ves)          dVed/dt = f (ED - Ved)          ICO = f (Ved - Ves)          IC = (Pa - Pv) / R
    dVa/dt = ICO - IC               dVv/dt = IC - ICO + infusion - bleeding
    dS/dt = (1 - 1 / (1 + exp(-kw (Pa - Pset))) - S) / tau

    Volumes Ves `Ves`, Ved `Ved`, Va `Va`, Vv `Vv` [mL], S `S` sympathetic drive between 0 and 1; pressures [mmHg], f [1/s],
    resistances [mmHg*s/mL], Ca, Cv [mL/mmHg], W [mmHg] contractility (preload recruitable stroke work); time in s. Filling
    through the open valve has a closed form, see `filling`.
    Interventions: `bleeding`, `infusion` [mL/s]; `Wmax` falls in heart failure, `blood` in hemorrhage, `Rmax` in sepsis.
    No fluid leaves the vessels into tissue, so the horizon is an hour. Source: Zenker 2007,
    doi:10.1371/journal.pcbi.0030204, equations 5 to 21.
    """

    time = "s"
    grid = "5 s"
    horizon = "1 h"
    protocol = Protocol(
        2400.0, "a liter lost in ten minutes from minute 10, half of it infused from minute 30",
        shows=("Pa", "CVP", "HR", "CO"),
        signals={"bleeding": Signal.steps([0.0, 600.0, 1200.0], [0.0, 1000.0 / 600.0, 0.0], "mL/s"),
                 "infusion": Signal.steps([0.0, 1800.0, 2100.0], [0.0, 500.0 / 300.0, 0.0], "mL/s")},
    )  # fmt: skip
    references = (
        Reference("mean arterial pressure at rest", "mmHg", (70.0, 105.0), _NORMAL, lambda lived: lived.at("Pa", 590.0),
                  drawn=("Pa", 590.0)),
        Reference("heart rate at rest", "bpm", (60.0, 100.0), "AHA, resting heart rate of adults",
                  lambda lived: lived.at("HR", 590.0), drawn=("HR", 590.0)),
        Reference("cardiac output at rest", "L/min", (4.0, 8.0), "Hall, Guyton's Textbook of Medical Physiology, 14th edition",
                  lambda lived: lived.at("CO", 590.0), drawn=("CO", 590.0), why="the paper's ventricle, 30 mL, is that of a dog"),
        Reference("central venous pressure at rest", "mmHg", (0.0, 8.0), "Hall, Guyton's Textbook, 14th edition",
                  lambda lived: lived.at("CVP", 590.0), drawn=("CVP", 590.0)),
        Reference("heart rate after a loss of 20 %, class II", "bpm", (100.0, 120.0),
                  "ATLS, 9th edition, as reprinted in doi:10.1186/s13054-016-1265-x, table 2",
                  lambda lived: lived.at("HR", 1250.0), drawn=("HR", 1250.0),
                  why="the drive is near its largest, and the rate with it (180)"),
    )  # fmt: skip

    class State(State):
        Ves: Scalar = state("mL", "left ventricle at the end of systole")
        Ved: Scalar = state("mL", "left ventricle at the end of diastole")
        Va: Scalar = state("mL", "blood in arteries")
        Vv: Scalar = state("mL", "blood in veins")
        S: Scalar = state("1", "sympathetic drive")

    class Input(Input):
        bleeding: Scalar = signal("mL/s", "blood lost", default=0.0)
        infusion: Scalar = signal("mL/s", "fluid or blood given", default=0.0)

    blood: Scalar = parameter(lognormal(4825.0, 0.1), "mL", "blood at the first row", initial=True, source=_ZENKER)
    Wmax: Scalar = parameter(lognormal(103.8, 0.35), "mmHg", "contractility under full drive",
                             source=_ZENKER + "; spread assumed")  # fmt: skip
    Rmax: Scalar = parameter(lognormal(2.134, 0.3), "mmHg*s/mL", "resistance under full drive",
                             source=_ZENKER + "; spread assumed")  # fmt: skip
    Pset: Scalar = parameter(normal(70.0, 5.0), "mmHg", "set point of the baroreflex", source=_ZENKER + "; spread assumed")
    tau: Scalar = parameter(lognormal(20.0, 0.3), "s", "delay of the baroreflex", source=_ZENKER + "; spread assumed")
    kE: Scalar = constant(0.066, "1/mL", "stiffness of the ventricle in diastole", source=_ZENKER)
    Ved0: Scalar = constant(7.14, "mL", "ventricle without pressure", source=_ZENKER)
    P0: Scalar = constant(2.03, "mmHg", "scale of its pressure in diastole", source=_ZENKER)
    kw: Scalar = constant(0.1838, "1/mmHg", "steepness of the baroreflex", source=_ZENKER)
    Ca: Scalar = constant(4.0, "mL/mmHg", "compliance of arteries", source=_ZENKER)
    Cv: Scalar = constant(111.11, "mL/mmHg", "compliance of veins", source=_ZENKER)
    Va0: Scalar = constant(700.0, "mL", "arteries without pressure", source=_ZENKER)
    Vumin: Scalar = constant(2700.0, "mL", "veins without pressure under full drive", source=_ZENKER)
    Vumax: Scalar = constant(3100.0, "mL", "veins without pressure without drive", source=_ZENKER)
    Rmin: Scalar = constant(0.5335, "mmHg*s/mL", "resistance without drive", source=_ZENKER)
    Wmin: Scalar = constant(25.9, "mmHg", "contractility without drive", source=_ZENKER)
    fmin: Scalar = constant(2 / 3, "1/s", "heart rate without drive", source=_ZENKER)
    fmax: Scalar = constant(3.0, "1/s", "heart rate under full drive", source=_ZENKER)
    Tsys: Scalar = constant(4 / 15, "s", "length of systole", source=_ZENKER)
    Rvalve: Scalar = constant(0.0025, "mmHg*s/mL", "resistance of the mitral valve", source=_ZENKER)

    def rate(self, x):
        """Heart rate [1/s]."""
        return self.fmin + (self.fmax - self.fmin) * x.S

    def pressures(self, x):
        """Arterial and central venous pressure [mmHg]."""
        unstressed = self.Vumin + (self.Vumax - self.Vumin) * (1.0 - x.S)
        return (x.Va - self.Va0) / self.Ca, (x.Vv - unstressed) / self.Cv

    def passive(self, V):
        """Pressure of the relaxed ventricle [mmHg]."""
        return self.P0 * (jnp.exp(self.kE * (V - self.Ved0)) - 1.0)

    def filling(self, x, Pv):
        """End-diastolic volume [mL] after filling from Ves through the valve: Rvalve dV/dt = Pv - Pd(V), solved exactly.

        With y = exp(-kE V): dy/dt = kE (P0 exp(-kE Ved0) - (Pv + P0) y) / Rvalve, which is linear.
        """
        push = jnp.maximum((Pv + self.P0) / self.P0, 1e-3)  # kept positive where the valve is shut anyway
        time = 1.0 / self.rate(x) - self.Tsys
        decay = jnp.exp(-self.kE * self.P0 * push * time / self.Rvalve)
        full = jnp.exp(-self.kE * self.Ved0) / push
        y = full + (jnp.exp(-self.kE * x.Ves) - full) * decay
        return jnp.where(Pv > self.passive(x.Ves), -jnp.log(y) / self.kE, x.Ves)

    def rates(self, t, x, u):
        f, (Pa, Pv) = self.rate(x), self.pressures(x)
        R, W = self.Rmin + (self.Rmax - self.Rmin) * x.S, self.Wmin + (self.Wmax - self.Wmin) * x.S
        load = Pa - self.passive(x.Ved)
        ejected = W * (x.Ved - self.Ved0) / jnp.where(load > 0.0, load, const(1.0, "mmHg"))
        empty = jnp.where(load > 0.0, jnp.maximum(x.Ved - ejected, self.Ved0), self.Ved0)
        out, around = f * (x.Ved - x.Ves), (Pa - Pv) / R
        return self.State(
            Ves=f * (empty - x.Ves),
            Ved=f * (self.filling(x, Pv) - x.Ved),
            Va=out - around,
            Vv=around - out + u.infusion - u.bleeding,
            S=(1.0 - jax.nn.sigmoid(self.kw * (Pa - self.Pset)) - x.S) / self.tau,
        )

    def conserved(self, x, u):
        return {"blood": (x.Va + x.Vv, u.infusion - u.bleeding)}

    def outputs(self, x, u):
        Pa, Pv = self.pressures(x)
        return {
            "Pa": output(Pa, "mmHg", "mean arterial pressure"),
            "CVP": output(Pv, "mmHg", "central venous pressure"),
            "HR": output(self.rate(x) * const(60.0, "bpm*s"), "bpm", "heart rate"),
            "CO": output(self.rate(x) * (x.Ved - x.Ves) * const(0.06, "L*s/mL/min"), "L/min", "cardiac output"),
        }

    def initial(self, u):
        """Blood spread as vessels without pressure would hold it, the heart as in the paper: at rest after some minutes."""
        unstressed = self.Va0 + 0.5 * (self.Vumin + self.Vumax)
        share = self.Va0 / unstressed
        half = 0.0 * self.blood / const(1.0, "mL") + 0.5
        return self.State(Ves=2.0 * self.Ved0, Ved=3.0 * self.Ved0, Va=self.blood * share, Vv=self.blood * (1.0 - share), S=half)
