"""Training: what load does to performance, by fitness that lasts and fatigue that fades."""

import numpy as np

from hybridtwin.physiology.reference import Protocol, Reference
from hybridtwin.signals import Regimen
from hybridtwin.system import Input, Scalar, State, System, dose, lognormal, output, parameter, state

_CLARKE = "Clarke and Skiba 2013, doi:10.1152/advan.00078.2011, a cyclist's 5 min power"


def _best(lived) -> float:
    """Days from the last training to the best performance."""
    last = float(lived.protocol.doses["load"].doses[-1].time)
    after = lived.time >= last
    return float(lived.time[after][np.argmax(lived["performance"][after])] - last)


class Banister(System):
    r"""Fitness and fatigue: every training adds as much to both, and fatigue fades sooner.

    df/dt = -f / tau1          dy/dt = -f / tau1 + (f - y) / tau2, y = f - g
    performance = p0 + k1 f - k2 g

    f `fitness` [1] and g = fitness - `lead` [1] in points of load, as in the impulse response model: a training adds its load
    to f, and y `lead` stays what it is, so g grows as much. tau1, tau2 [d], p0, k1, k2 [W]; time in d.

    Interventions: `load` (how much, when; a taper before a race).
    Doses: `load` [1], points of a training session (TRIMP, BikeScore). A day's test comes after the day's load, as in the
    package dorem. Priors: medians of Clarke and Skiba 2013, spreads assumed (nine tests leave a long ridge). At rest without
    training performance is p0. Source: Banister 1975; Calvert 1976, doi:10.1109/TSMC.1976.5409179.
    """

    time = "d"
    grid = "0.5 d"
    unconserved = "effects of training, no amounts"
    protocol = Protocol(
        165.0, "132 days of 33 points a day (the mean of Clarke and Skiba's cyclist), then rest", shows=("performance",),
        doses={"load": Regimen.bolus([33.0] * 132, "1", at=list(map(float, range(132))))},
    )  # fmt: skip
    references = (
        Reference("5 min power after 132 days", "W", 302.0, _CLARKE, lambda lived: lived.at("performance", 131.0),
                  drawn=("performance", 131.0)),
        Reference("rest after which performance is best", "d", (8.0, 14.0), "Bosquet 2007, doi:10.1249/mss.0b013e31806010e0",
                  _best),
    )  # fmt: skip

    class State(State):
        fitness: Scalar = state("1", "fitness, in points of load")
        lead: Scalar = state("1", "how far fitness is ahead of fatigue", positive=False)

    class Input(Input):
        load: Scalar = dose("1", "load of a training", into="fitness", cmt=1)

    p0: Scalar = parameter(lognormal(262.0, 0.15), "W", "performance without training", source=_CLARKE + ", spread assumed")
    k1: Scalar = parameter(lognormal(0.18, 0.5), "W", "what a point of fitness gives", source=_CLARKE + ", spread assumed")
    k2: Scalar = parameter(lognormal(0.23, 0.5), "W", "what a point of fatigue takes", source=_CLARKE + ", spread assumed")
    tau1: Scalar = parameter(lognormal(36.0, 0.25), "d", "how long fitness lasts", source=_CLARKE + ", spread assumed")
    tau2: Scalar = parameter(lognormal(21.0, 0.35), "d", "how long fatigue lasts", source=_CLARKE + ", spread assumed")

    def rates(self, t, x, u):
        fades = x.fitness / self.tau1
        return self.State(fitness=-fades, lead=-fades + (x.fitness - x.lead) / self.tau2)

    def outputs(self, x, u):
        fatigue = x.fitness - x.lead
        return {
            "performance": output(self.p0 + self.k1 * x.fitness - self.k2 * fatigue, "W", "performance"),
            "fatigue": output(fatigue, "1", "fatigue, in points of load"),
        }
