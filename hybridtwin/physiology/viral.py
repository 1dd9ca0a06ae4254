"""Infection within a host: HIV, its target cells, and drugs that block it."""

import jax.numpy as jnp
import numpy as np

from hybridtwin.physiology.reference import Protocol, Reference, curve
from hybridtwin.signals import Signal
from hybridtwin.system import (
    Input,
    Scalar,
    State,
    System,
    constant,
    logitnormal,
    lognormal,
    output,
    parameter,
    signal,
    state,
)

_USHR = "31 of 46 adults of ACTG 315 starting therapy (R package ushr); spread of its people"
_ACTG = "ACTG 315, 25 to 32 readings of 31 adults (R package ushr); below 100 a mL is read as 100"
_MOHRI = "Mohri 1998, macaques, doi:10.1126/science.279.5354.1223"
_RAMRATNAM = "Ramratnam 1999, doi:10.1016/S0140-6736(99)02035-8: 9 to 36 a day"


class HIV(System):
    r"""HIV in blood under drugs that block reverse transcriptase and protease, with short- and long-lived producers.

    n = (1 - rt) T V / (T0 V0), new infections over those at the set point
    dT/dt = d (Th - T) - d (Th - T0) n
    dP/dt = delta ((1 - share) c V0 n - P)      dL/dt = mu (share c V0 n - L)
    dV/dt = (1 - pi) (P + L) - c V              dW/dt = pi (P + L) - c W

    T `T` target cells [1/uL]; P `P`, L `L` [1/mL/d] virus made a day by productively and by long-lived infected cells, so that
    burst sizes, which readings cannot tell, do not enter; V `V`, W `W` [1/mL] infectious and not infectious virus (made
    under a protease inhibitor); Th healthy count, T0 and V0 the set point at which an untreated person rests; d, delta,
    mu, c [1/d], share [1]. Time in d. `rna` = V + W is what a laboratory counts. Interventions: `rt`, `pi`, each an efficacy
    between 0 and 1; parameters (a transfusion of cells: state T).

    Source: Perelson 1996, doi:10.1126/science.271.5255.1582, and Perelson 1997, doi:10.1038/387188a0 (two phases).
    """

    time = "d"
    grid = "0.5 d"
    protocol = Protocol(
        112.0, "potent therapy from day 0, over the medians of ACTG 315", shows=("log_rna", "T"),
        signals={"pi": Signal.constant(0.99, "1"), "rt": Signal.constant(0.99, "1")},
    )  # fmt: skip
    references = (
        Reference("first phase of decay, days 2 to 6", "1/d", 0.482, "ushr, median of ACTG 315: delta",
                  lambda lived: _slope(lived, 2.0, 6.0)),
        Reference("second phase of decay, weeks 8 to 16", "1/d", 0.0391, "ushr, median of ACTG 315: gamma",
                  lambda lived: _slope(lived, 56.0, 112.0)),
        Reference("half-life of productively infected cells", "d", 1.6, "Perelson 1996, doi:10.1126/science.271.5255.1582",
                  lambda lived: np.log(2.0) / lived.body.delta),
        Reference("target cells at the set point", "1/uL", (200.0, 500.0), "Perelson 1996, five untreated adults",
                  lambda lived: lived["T"][0], drawn=("T", 0.0)),
        *curve("logarithm of RNA, median", "1", "log_rna", {0.0: 4.94, 2.0: 5.00, 7.0: 3.99, 10.0: 3.73, 14.0: 3.27, 28.0: 2.86,
                                                            56.0: 2.48, 84.0: 2.20}, _ACTG, time="d"),
    )  # fmt: skip

    class State(State):
        T: Scalar = state("1/uL", "target cells (CD4)")
        P: Scalar = state("1/mL/d", "virus made a day by productively infected cells")
        L: Scalar = state("1/mL/d", "virus made a day by long-lived infected cells")
        V: Scalar = state("1/mL", "infectious virus, as copies of RNA")
        W: Scalar = state("1/mL", "virus that is not infectious, as copies of RNA")

    class Input(Input):
        rt: Scalar = signal("1", "efficacy of reverse transcriptase inhibitors", default=0.0)
        pi: Scalar = signal("1", "efficacy of protease inhibitors", default=0.0)

    V0: Scalar = parameter(lognormal(1e5, 1.3), "1/mL", "set point of the virus, untreated", source=_USHR)
    T0: Scalar = parameter(lognormal(250.0, 0.5), "1/uL", "target cells at the set point", source=_USHR)
    Th: Scalar = parameter(lognormal(1000.0, 0.2), "1/uL", "target cells in health", source=_MOHRI + "; spread assumed")
    d: Scalar = parameter(lognormal(0.01, 0.5), "1/d", "turnover of target cells", source=_MOHRI + "; spread assumed")
    delta: Scalar = parameter(lognormal(0.48, 0.38), "1/d", "loss of productively infected cells", source=_USHR)
    mu: Scalar = parameter(lognormal(0.039, 0.55), "1/d", "loss of long-lived infected cells", source=_USHR)
    c: Scalar = parameter(lognormal(23.0, 0.5), "1/d", "clearance of virus", source=_RAMRATNAM)
    share: Scalar = parameter(logitnormal(0.014, 1.2), "1", "of the virus that long-lived cells make", low=0.0, high=1.0,
                              source=_USHR + ": B over A + B")  # fmt: skip
    copies: Scalar = constant(1.0, "1/mL", "unit of the logarithm")

    def rates(self, t, x, u):
        new = (1.0 - u.rt) * x.T * x.V / (self.T0 * self.V0)
        made, full = x.P + x.L, self.c * self.V0 * new
        return self.State(
            T=self.d * (self.Th - x.T) - self.d * (self.Th - self.T0) * new,
            P=self.delta * ((1.0 - self.share) * full - x.P),
            L=self.mu * (self.share * full - x.L),
            V=(1.0 - u.pi) * made - self.c * x.V,
            W=u.pi * made - self.c * x.W,
        )

    def conserved(self, x, u):
        """Virus: an inhibitor of protease makes it harmless, it does not make less of it."""
        return {"virus": (x.V + x.W, x.P + x.L - self.c * (x.V + x.W))}

    def outputs(self, x, u):
        rna = x.V + x.W
        return {
            "rna": output(rna, "1/mL", "copies of RNA"),
            "log_rna": output(jnp.log10(jnp.maximum(rna / self.copies, 1e-3)), "1", "logarithm of copies a mL, base 10"),
        }

    def initial(self, u):
        """The set point of an untreated person."""
        made = self.c * self.V0
        return self.State(T=self.T0, P=(1.0 - self.share) * made, L=self.share * made, V=self.V0, W=0.0 * self.V0)


def _slope(lived, start, stop):
    """Rate of decay of RNA between two times [1/d]."""
    return np.log(lived.at("rna", start) / lived.at("rna", stop)) / (stop - start)
