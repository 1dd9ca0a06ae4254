"""Arteries as a windkessel of two, three and four elements, driven by the flow from the heart."""

import numpy as np

from hybridtwin.physiology.reference import Protocol, Reference
from hybridtwin.signals import Signal
from hybridtwin.system import (
    Input,
    Scalar,
    State,
    System,
    const,
    lognormal,
    output,
    parameter,
    signal,
    state,
)

_WESTERHOF = "Westerhof 2009, The arterial windkessel, doi:10.1007/s11517-008-0359-2"
_STERGIOPULOS = "Stergiopulos 1999, doi:10.1152/ajpheart.1999.276.1.H81"
_BETWEEN = "NHS, ideal blood pressure: between 90/60 and 120/80 mmHg"
_NORMAL = "normal adult pressure; Westerhof 2009"


def ejection(beats: int, *, period: float = 0.8, stroke: float = 70.0, systole: float = 0.3) -> Signal:
    """Flow from the heart [mL/s] over `beats` beats of `period` s: a half sine of `systole` s that carries `stroke` mL."""
    phase = np.linspace(0.0, 1.0, 9)
    flow = 0.5 * np.pi * stroke / systole * np.sin(np.pi * phase)
    flow *= stroke / np.trapezoid(flow, phase * systole)  # straight lines between the points carry the stroke volume
    times = (np.arange(beats)[:, None] * period + phase * systole).ravel()
    return Signal.linear(times, np.tile(flow, beats), "mL/s")


_BEATS = Protocol(12.0, "fifteen beats of 70 mL, 75 a minute", signals={"flow": ejection(15)}, shows=("P",))


def _last_beat(lived, of):
    """A function of pressure over the last beat."""
    inside = lived.time >= lived.time[-1] - 0.8
    return of(lived["P"][inside])


def _table(pulse):
    return (
        Reference("largest pressure", "mmHg", (90.0, 120.0), _BETWEEN, lambda lived: _last_beat(lived, np.max),
                  drawn=("P", None)),
        Reference("smallest pressure", "mmHg", (60.0, 80.0), _BETWEEN, lambda lived: _last_beat(lived, np.min),
                  drawn=("P", None)),
        Reference("mean arterial pressure", "mmHg", (70.0, 105.0), _NORMAL, lambda lived: _last_beat(lived, np.mean)),
        Reference("pulse pressure", "mmHg", pulse, _NORMAL, lambda lived: _last_beat(lived, np.ptp)),
        Reference("time constant of diastole", "s", (1.0, 2.5), _WESTERHOF, lambda lived: lived.body.R * lived.body.C),
    )


class FlowInput(Input):
    """What the arteries of a windkessel see."""

    flow: Scalar = signal("mL/s", "flow from the heart into the aorta", default=0.0)


class Windkessel2(System):
    r"""Arteries as one elastic reservoir that empties through one resistance.

    C dp/dt = flow - p / R          P = p

    p `p` [mmHg], R [mmHg*s/mL] peripheral resistance, C [mL/mmHg] compliance, flow [mL/s] a signal (`ejection` makes beats);
    time in s. At rest p = R flow; without flow pressure falls with the time constant R C.
    Interventions: `flow` (rate and strength of the heart), `R` (vessels that widen or narrow), `C` (stiffer arteries).
    Source: Frank 1899; Westerhof 2009, doi:10.1007/s11517-008-0359-2.
    """

    time = "s"
    grid = "0.02 s"
    protocol = _BEATS
    references = _table((30.0, 60.0))

    class State(State):
        p: Scalar = state("mmHg", "pressure in the reservoir", positive=False)

    Input = FlowInput

    R: Scalar = parameter(lognormal(1.05, 0.25), "mmHg*s/mL", "peripheral resistance", source=_WESTERHOF)
    C: Scalar = parameter(lognormal(1.5, 0.3), "mL/mmHg", "total arterial compliance", source=_WESTERHOF)

    def rates(self, t, x, u):
        return self.State(p=(u.flow - x.p / self.R) / self.C)

    def conserved(self, x, u):
        return {"blood that stretches the arteries": (self.C * x.p, u.flow - x.p / self.R)}

    def outputs(self, x, u):
        return {"P": output(x.p, "mmHg", "aortic pressure")}

    def initial(self, u):
        return self.State(p=0.0 * self.R * u.flow + const(80.0, "mmHg"))

    def steady(self, u):
        return self.State(p=self.R * u.flow)


class Windkessel3(System):
    r"""Arteries as an elastic reservoir behind the impedance of the proximal aorta.

    C dp/dt = flow - p / R          P = p + Zc flow

    p `p` [mmHg] in the reservoir, P [mmHg] in the aorta, R and Zc [mmHg*s/mL], C [mL/mmHg], flow [mL/s]; time in s.
    Interventions: `flow` (rate and strength of the heart), `R` (vessels that widen or narrow), `C` (stiffer arteries).
    Source: Westerhof 1971; Westerhof 2009, doi:10.1007/s11517-008-0359-2.
    """

    time = "s"
    grid = "0.02 s"
    protocol = _BEATS
    references = _table((30.0, 65.0))

    class State(State):
        p: Scalar = state("mmHg", "pressure in the reservoir", positive=False)

    Input = FlowInput

    R: Scalar = parameter(lognormal(1.0, 0.25), "mmHg*s/mL", "peripheral resistance", source=_WESTERHOF)
    C: Scalar = parameter(lognormal(1.5, 0.3), "mL/mmHg", "total arterial compliance", source=_WESTERHOF)
    Zc: Scalar = parameter(lognormal(0.05, 0.3), "mmHg*s/mL", "characteristic impedance of the aorta", source=_WESTERHOF)

    def rates(self, t, x, u):
        return self.State(p=(u.flow - x.p / self.R) / self.C)

    def conserved(self, x, u):
        return {"blood that stretches the arteries": (self.C * x.p, u.flow - x.p / self.R)}

    def outputs(self, x, u):
        return {"P": output(x.p + self.Zc * u.flow, "mmHg", "aortic pressure")}

    def initial(self, u):
        return self.State(p=0.0 * self.R * u.flow + const(80.0, "mmHg"))

    def steady(self, u):
        return self.State(p=self.R * u.flow)


class Windkessel4(System):
    r"""The three-element windkessel with the inertia of the arterial blood beside the impedance.

    C dp/dt = flow - p / R          L di/dt = Zc (flow - i)          P = p + Zc (flow - i)

    p `p` [mmHg] in the reservoir, i `i` [mL/s] through the inertance, P [mmHg] in the aorta; R and Zc [mmHg*s/mL], C [mL/mmHg],
    L [mmHg*s^2/mL], flow [mL/s]; time in s. At rest i = flow, so that mean pressure is R flow alone, which the three-element
    one misses by Zc flow.
    Interventions: `flow` (rate and strength of the heart), `R` (vessels that widen or narrow), `C` (stiffer arteries).
    Source: Stergiopulos 1999, doi:10.1152/ajpheart.1999.276.1.H81.
    """

    time = "s"
    grid = "0.02 s"
    protocol = _BEATS
    references = _table((30.0, 65.0))

    class State(State):
        p: Scalar = state("mmHg", "pressure in the reservoir", positive=False)
        i: Scalar = state("mL/s", "flow through the inertance", positive=False)

    Input = FlowInput

    R: Scalar = parameter(lognormal(1.05, 0.25), "mmHg*s/mL", "peripheral resistance", source=_WESTERHOF)
    C: Scalar = parameter(lognormal(1.5, 0.3), "mL/mmHg", "total arterial compliance", source=_WESTERHOF)
    Zc: Scalar = parameter(lognormal(0.05, 0.3), "mmHg*s/mL", "characteristic impedance of the aorta", source=_WESTERHOF)
    L: Scalar = parameter(lognormal(0.005, 0.4), "mmHg*s^2/mL", "inertance of the arteries",
                          source=_STERGIOPULOS + "; spread assumed")  # fmt: skip

    def rates(self, t, x, u):
        return self.State(p=(u.flow - x.p / self.R) / self.C, i=self.Zc / self.L * (u.flow - x.i))

    def conserved(self, x, u):
        return {"blood that stretches the arteries": (self.C * x.p, u.flow - x.p / self.R)}

    def outputs(self, x, u):
        return {"P": output(x.p + self.Zc * (u.flow - x.i), "mmHg", "aortic pressure")}

    def initial(self, u):
        return self.State(p=0.0 * self.R * u.flow + const(80.0, "mmHg"), i=u.flow)

    def steady(self, u):
        return self.State(p=self.R * u.flow, i=u.flow)
