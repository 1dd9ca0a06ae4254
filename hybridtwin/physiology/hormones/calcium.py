"""Calcium and parathyroid hormone over hours: what a gland gives when calcium is lowered by citrate or raised by infusion."""

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
    lognormal,
    normal,
    output,
    parameter,
    signal,
    state,
)

_SHRESTHA = "Shrestha 2010, Math Biosci 226:46, subject 1, as in BioModels BIOMD0000000276 (CC0)"
_SPREAD = _SHRESTHA + "; spread assumed"
_CLAMP = "Schwarz 1993, clamps of 22 healthy people, doi:10.1111/j.1365-2362.1993.tb00964.x"
_CITRATE = "Zheng 2013, clearance of .69 L/min in 12 healthy people, doi:10.1371/journal.pone.0065992, over 30 L; spread assumed"
_PG = 9.425  # pg/mL in one pmol/L of PTH (9425 g/mol)


class Shrestha2010(System):
    r"""Parathyroid hormone as ionized calcium falls or rises: a store in the gland, plasma, and calcium under infusions.

    m = m1 / (1 + exp(-beta (R - Ca))) + m2
    S = Ca0 ((rest - B) / (A - rest))^(1/m)          lambda = (A - B) / (1 + (Ca/S)^m) + B
    store = lambda2 PTH0 / rest                      k = (rest + lambda1) store
    dgland/dt = k - (lambda + lambda1) gland         dPTH/dt = lambda gland - lambda2 PTH
    bound = citrate / V Ca / (Kd + Ca)
    dCa/dt = calcium / V - bound + kc chelate + kb (Ca0 (1 - w + w PTH / PTH0) - Ca)
    dchelate/dt = bound - kc chelate

    gland [pmol/L of plasma], PTH [pmol/L], Ca, chelate [mmol/L]; lambda share of the store released [1/min] between B and A,
    `rest` at Ca0; lambda1 loss in the gland, lambda2 from plasma, kc metabolism of citrate, kb return of calcium to bone and
    kidney [1/min], of which PTH drives a share w; R [mmol/L] the calcium below which the answer is steep. At Ca0 all rests.
    The gland is Shrestha's, written with A, B and rest in place of the largest, least and normal PTH they follow from
    (`most` and `least` of `levels`). There beta is 1e6, a jump; 300 L/mmol rounds it within some umol/L. Shrestha gives
    calcium as measured; the two equations of calcium are ours, rough, and good for hours only.

    Interventions: `calcium` and `citrate` [mmol/min] into a vein; kc = 0 is EDTA, which is not metabolized.
    Source: Shrestha 2010, Math Biosci 226:46 (PubMed 20406649).
    """

    time = "min"
    grid = "1 min"
    horizon = "12 h"
    protocol = Protocol(
        480.0, "citrate lowers calcium by .2 mmol/L for two hours, as in Schwarz 1993; later calcium raises it",
        shows=("Ca_ionized", "PTH_pg"), tol=1e-4,
        signals={"citrate": Signal.steps([0.0, 30.0, 40.0, 150.0], [0.0, 1.09, 0.32, 0.0], "mmol/min"),
                 "calcium": Signal.steps([0.0, 360.0, 370.0], [0.0, 0.6, 0.01], "mmol/min")},
    )  # fmt: skip
    references = (
        Reference("ionized calcium at rest", "mmol/L", (1.175, 1.375),
                  "Ladenson and Bowers 1973, 86 healthy adults, doi:10.1093/clinchem/19.6.565", lambda lived: lived["Ca"][0],
                  drawn=("Ca_ionized", 0.0)),
        Reference("parathyroid hormone at rest", "pg/mL", (10.0, 50.0), "Laposata, Laboratory Medicine, its table as in ehrapy",
                  lambda lived: lived["PTH_pg"][0], drawn=("PTH_pg", 0.0)),
        Reference("highest PTH over rest, calcium lowered by .2 mmol/L", "1", (4.0, 7.0), _CLAMP,
                  lambda lived: np.max(lived["PTH"][:100]) / lived["PTH"][0]),
        Reference("PTH over rest after two hours at low calcium", "1", (2.0, 3.0), _CLAMP,
                  lambda lived: lived.at("PTH", 149.0) / lived["PTH"][0]),
        Reference("PTH over rest, calcium raised by .2 mmol/L", "1", 0.25, _CLAMP,
                  lambda lived: lived.at("PTH", 450.0) / lived["PTH"][0],
                  why="what Shrestha's curve gives for subject 1, whose least PTH is a tenth of that at rest"),
        Reference("largest PTH by infusion of EDTA over that by calcium", "1", 95.0 / 6.4,
                  "Brent 1988, 8 men, doi:10.1210/jcem-67-5-944", lambda lived: lived.body.levels()[0] / lived.body.levels()[1],
                  why="one subject's levels at rest under each calcium, against means of eight during infusions"),
        Reference("calcium of half the largest PTH", "mmol/L", (1.09, 1.17),
                  "Schwarz 1994, Eur J Clin Invest 24:553, set point of Brown in 22 controls", lambda lived: lived.body.half()),
        Reference("half-life of PTH in plasma", "min", (1.7, 3.4),
                  "after removal of adenomas: Libutti 1999, Surgery 126:1145, 1.7 +- .9; Maier 1998, JCEM 83:3852, 3.4",
                  lambda lived: np.log(2.0) / float(lived.body.lambda2),
                  why="lambda2 as Shrestha fits it to subject 1"),
    )  # fmt: skip

    class State(State):
        gland: Scalar = state("pmol/L", "hormone stored in the glands, over the volume of plasma")
        PTH: Scalar = state("pmol/L", "parathyroid hormone in plasma")
        Ca: Scalar = state("mmol/L", "ionized calcium")
        chelate: Scalar = state("mmol/L", "calcium held by citrate")

    class Input(Input):
        calcium: Scalar = signal("mmol/min", "calcium into a vein", default=0.0)
        citrate: Scalar = signal("mmol/min", "citrate (or EDTA) into a vein", default=0.0)

    PTH0: Scalar = parameter(lognormal(6.629, 0.3), "pmol/L", "parathyroid hormone at rest", source=_SPREAD)
    Ca0: Scalar = parameter(normal(1.255, 0.03), "mmol/L", "ionized calcium at rest", source=_SPREAD)
    rest: Scalar = parameter(lognormal(0.0075572, 0.2), "1/min", "share of the store released at rest", source=_SPREAD)
    A: Scalar = parameter(lognormal(0.049437, 0.2), "1/min", "largest share released", source=_SPREAD)
    B: Scalar = parameter(lognormal(0.00049464, 0.3), "1/min", "least share released", source=_SPREAD)
    lambda1: Scalar = parameter(lognormal(0.0125, 0.2), "1/min", "loss of hormone inside the gland", source=_SPREAD)
    lambda2: Scalar = parameter(lognormal(0.5595, 0.15), "1/min", "loss of hormone from plasma", source=_SPREAD)
    kc: Scalar = parameter(lognormal(0.023, 0.3), "1/min", "metabolism of citrate", source=_CITRATE)
    V: Scalar = parameter(lognormal(30.0, 0.2), "L", "what ionized calcium spreads in", source="assumed; see the docstring")
    kb: Scalar = constant(0.001, "1/min", "return of calcium to its level", "assumed: half a day")
    w: Scalar = constant(0.3, "1", "share of that level which PTH upholds", "assumed")
    Kd: Scalar = constant(0.6, "mmol/L", "calcium at which half of citrate holds one",
                          "Hastings 1934 at the ionic strength of blood, as in Muus and Lebel 1936")  # fmt: skip
    below: Scalar = constant(0.0388, "mmol/L", "how far below Ca0 the answer becomes steep: R = Ca0 - below", _SHRESTHA)
    beta: Scalar = constant(300.0, "L/mmol", "how sharp that is; 1e6 in the paper", "rounded here")
    m1: Scalar = constant(112.52, "1", "steepness below R, less m2", _SHRESTHA)
    m2: Scalar = constant(15.0, "1", "steepness above R", _SHRESTHA)

    def release(self, Ca):
        """Share of the store released [1/min] at a calcium [mmol/L]."""
        m = self.m1 * jax.nn.sigmoid(self.beta * (self.Ca0 - self.below - Ca)) + self.m2
        # (Ca/S)^m with S written out; by logarithms, since m is large
        odds = jnp.exp(m * jnp.log(Ca / self.Ca0)) * (self.A - self.rest) / (self.rest - self.B)
        return (self.A - self.B) / (1.0 + odds) + self.B

    def store(self):
        """Hormone in the gland at rest [pmol/L]."""
        return self.lambda2 * self.PTH0 / self.rest

    def levels(self):
        """(most, least) PTH [pmol/L] under a calcium that stays low, or high."""
        k = (self.rest + self.lambda1) * self.store()
        return tuple(float(k * at / (self.lambda2 * (at + self.lambda1))) for at in (self.A, self.B))

    def half(self):
        """Ionized calcium [mmol/L] of PTH half way between most and least."""
        Ca = np.linspace(0.9, 1.5, 6001)
        at = np.asarray(self.release(Ca))
        PTH = at / (at + float(self.lambda1))
        ends = [float(x) / (float(x) + float(self.lambda1)) for x in (self.A, self.B)]
        return float(np.interp(-0.5 * sum(ends), -PTH, Ca))

    def rates(self, t, x, u):
        released = self.release(x.Ca) * x.gland
        made = (self.rest + self.lambda1) * self.store()
        bound = u.citrate / self.V * x.Ca / (self.Kd + x.Ca)
        freed = self.kc * x.chelate
        level = self.Ca0 * (1.0 - self.w + self.w * x.PTH / self.PTH0)
        return self.State(
            gland=made - released - self.lambda1 * x.gland,
            PTH=released - self.lambda2 * x.PTH,
            Ca=u.calcium / self.V - bound + freed + self.kb * (level - x.Ca),
            chelate=bound - freed,
        )

    def conserved(self, x, u):
        level = self.Ca0 * (1.0 - self.w + self.w * x.PTH / self.PTH0)
        made = (self.rest + self.lambda1) * self.store()
        return {
            "calcium": (x.Ca + x.chelate, u.calcium / self.V + self.kb * (level - x.Ca)),
            "hormone": (x.gland + x.PTH, made - self.lambda1 * x.gland - self.lambda2 * x.PTH),
        }

    def outputs(self, x, u):
        return {
            "PTH_pg": output(x.PTH * const(_PG, "pg*L/mL/pmol"), "pg/mL", "parathyroid hormone in plasma"),
            "Ca_ionized": output(x.Ca, "mmol/L", "ionized calcium"),
        }

    def initial(self, u):
        return self.State(gland=self.store(), PTH=self.PTH0, Ca=self.Ca0, chelate=0.0 * self.Ca0)
