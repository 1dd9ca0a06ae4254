"""The minimal model of glucose: after an injection into a vein, and after a drink or a meal."""

import jax.numpy as jnp
import numpy as np

from hybridtwin.physiology.reference import Protocol, Reference, area, curve
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

_MAN = "Dalla Man 2007, mean appearance of a meal in healthy people, doi:10.1109/TBME.2007.893506; spread assumed"
_TEST = "Pacini and Bergman 1986, a test of one person, doi:10.1016/0169-2607(86)90106-9, as in public programs"
_DENTI = "Denti 2010, 204 healthy adults, doi:10.1152/ajpendo.00656.2009"


def fasting_insulin(inputs, start, stop):
    """Plasma insulin at the first row, in m[IU]/L: what it was before the injection."""
    return float(inputs["insulin"](start))


class BergmanMinimal(System):
    r"""The minimal model of an intravenous glucose tolerance test, with measured insulin as an input.

    dQ/dt = -(SG + X) Q + SG Gb VG weight          G = Q / (VG weight)
    dX/dt = -p2 (X - SI (I - Ib))                  Q(0) = Gb VG weight, X(0) = 0

    Q `glucose` [g], X `action` [1/min], G [mg/dL], I `insulin` [m[IU]/L] a signal (give measured insulin as
    `ht.Signal.linear`), Ib insulin at rest, taken from the first row unless the record has it; SG, p2 [1/min],
    SI [L/m[IU]/min], Gb [mg/dL], VG [dL/kg]; time in min. The test gives 0.3 g/kg of glucose into a vein as
    `glucose_iv`. Under a constant insulin the rest is X = SI (I - Ib), G = SG Gb / (SG + X).

    For glucose by mouth see `OralMinimal`. Priors: Denti 2010, with SI 5.83e-5 L/pmol/min at 6 pmol of insulin to a
    m[IU], spread by its covariates.
    Interventions: `glucose_iv` (how much, when), `insulin` (another course than was measured), `SI`.
    Source of the model: Bergman 1979, doi:10.1152/ajpendo.1979.236.6.E667.
    """

    time = "min"
    grid = "1 min"
    horizon = "24 h"
    unconserved = "what the liver makes and what tissue takes are one net rate"
    protocol = Protocol(
        182.0, "0.3 g/kg of glucose into a vein, over the test of Pacini and Bergman 1986 and under its insulin", shows=("G",),
        doses={"glucose_iv": Regimen.bolus(21.0, "g", at=0.0)}, covariates={"weight": (70.0, "kg")},
        signals={"insulin": Signal.linear(
            [0, 2, 4, 6, 8, 10, 12, 14, 16, 19, 22, 27, 32, 42, 52, 62, 72, 82, 92, 102, 122, 142, 162, 182],
            [11, 26, 130, 85, 51, 49, 45, 41, 35, 30, 30, 27, 30, 22, 15, 15, 11, 10, 8, 11, 7, 8, 8, 7], "m[IU]/L")},
    )  # fmt: skip
    references = (
        Reference("glucose at rest", "mg/dL", (70.0, 99.0), "ADA Standards of Care 2024, doi:10.2337/dc24-S002",
                  lambda lived: lived.again(doses={}, signals={})["G"][-1]),
        Reference("insulin sensitivity SI, healthy", "L/m[IU]/min", (2e-4, 9e-4), "Bergman 1985, doi:10.1210/edrv-6-1-45",
                  lambda lived: lived.body.SI),
        Reference("disappearance of glucose KG, 10 to 40 min", "1/min", (0.01, 0.035),
                  "Bergman 1979, doi:10.1152/ajpendo.1979.236.6.E667",
                  lambda lived: np.log(lived.at("G", 10.0) / lived.at("G", 40.0)) / 30.0),
        *curve("glucose of the test", "mg/dL", "G", {4.0: 287.0, 8.0: 240.0, 12.0: 211.0, 19.0: 192.0, 27.0: 163.0, 42.0: 124.0,
                                                     62.0: 92.0, 82.0: 77.0, 102.0: 81.0, 142.0: 82.0, 182.0: 90.0}, _TEST,
               why={82.0: "one person's test over a typical body, whose insulin acts less and later"}),
    )  # fmt: skip

    class State(State):
        glucose: Scalar = state("g", "glucose in its volume of distribution")
        action: Scalar = state("1/min", "remote insulin action", positive=False)

    class Input(Input):
        glucose_iv: Scalar = dose("g", "glucose given into a vein", into="glucose", cmt=1)
        insulin: Scalar = signal("m[IU]/L", "plasma insulin as measured", default=4.5)
        weight: Scalar = covariate("kg", "body weight")
        Ib: Scalar = covariate("m[IU]/L", "plasma insulin at rest", default=fasting_insulin)

    SG: Scalar = parameter(lognormal(0.0192, 0.3), "1/min", "glucose effectiveness", source=_DENTI + ", widened")
    SI: Scalar = parameter(lognormal(3.5e-4, 0.7), "L/m[IU]/min", "insulin sensitivity", source=_DENTI + ", widened")
    p2: Scalar = parameter(lognormal(0.0254, 0.45), "1/min", "rate of insulin action", source=_DENTI + ", widened")
    Gb: Scalar = parameter(lognormal(91.0, 0.1), "mg/dL", "glucose at rest", source=_DENTI)
    VG: Scalar = parameter(lognormal(1.7, 0.15), "dL/kg", "glucose volume", source=_DENTI + ", widened")

    def volume(self, u):
        """Grams of glucose for each mg/dL: [g/(mg/dL)]."""
        return self.VG * u.weight * const(0.001, "g/mg")

    def rates(self, t, x, u):
        return self.State(
            glucose=-(self.SG + x.action) * x.glucose + self.SG * self.Gb * self.volume(u),
            action=-self.p2 * (x.action - self.SI * (u.insulin - u.Ib)),
        )

    def outputs(self, x, u):
        return {"G": output(x.glucose / self.volume(u), "mg/dL", "plasma glucose")}

    def initial(self, u):
        return self.State(glucose=self.Gb * self.volume(u), action=0.0 * self.SG)

    def steady(self, u):
        action = self.SI * (u.insulin - u.Ib)
        return self.State(glucose=self.SG * self.Gb * self.volume(u) / (self.SG + action), action=action)


BREAKS = (0.0, 10.0, 30.0, 60.0, 90.0, 120.0, 180.0, 240.0, 300.0, 360.0)  # min since the glucose was swallowed


class OralMinimal(System):
    r"""The oral minimal model: a glucose tolerance test by mouth or a meal, with measured insulin as an input.

    body: see `BergmanMinimal`; its line of glucose becomes dQ/dt = -(SG + X) Q + SG Gb VG weight + Ra weight
    Ra = F load h(since) / (area weight)          h straight lines through 0, a10, a30, 1, a90, a120, a180, a240, a300, 0
    dload/dt = 0          dsince/dt = 1 until 6 h after the glucose          area = integral of h
    when glucose D is swallowed: load -> D + what was left of load, since -> 0

    h [1] at 0, 10, 30, 60, 90, 120, 180, 240, 300 and 360 min (`BREAKS`), relative to its value at 60 min, so that F load in all
    appears; Ra `appearance` [mg/kg/min], `load` [g], `since` [min], `eaten` [g] all that was swallowed; F, the share that
    reaches the blood, is .9 unless given; time in min. What is left of an earlier meal is taken up with the next one. A meal
    that is eaten slowly is swallowed in portions of a minute; its time must be known. The SI of the papers on it is
    SI VG here [dL/kg/min for each m[IU]/L].

    Doses: `meal` (compartment 2) and `glucose_iv` (compartment 1). Interventions: `meal` (how much, when; its appearance moves
    along), `insulin` (another course than was measured), `body.SI`; insulin does not answer to a changed meal by itself.
    Source: Dalla Man 2002, doi:10.1109/10.995680 (its piecewise-linear appearance, by height instead of by mg/kg/min);
    Cobelli 2014, doi:10.2337/db13-1198.
    """

    time = "min"
    grid = "1 min"
    horizon = "24 h"
    unconserved = "what the liver makes and what tissue takes are one net rate"
    protocol = Protocol(
        360.0, "75 g of glucose by mouth, the insulin of a healthy adult", shows=("G", "appearance"),
        doses={"meal": Regimen.bolus(75.0, "g", at=0.0)}, covariates={"weight": (70.0, "kg")},
        signals={"insulin": Signal.linear([0, 10, 20, 30, 60, 90, 120, 150, 180, 240, 300, 360],
                                          [6, 18, 38, 50, 52, 46, 38, 26, 16, 9, 6.5, 6], "m[IU]/L")},
    )  # fmt: skip
    references = (
        Reference("insulin sensitivity SI VG, from a meal", "dL/kg/min/(m[IU]/L)", 6.81e-4,
                  "Dalla Man 2002, doi:10.1109/10.995680: 6.81e-4 +- .87e-4",
                  lambda lived: lived.body.body.SI * lived.body.body.VG),
        Reference("glucose two hours after 75 g", "mg/dL", (70.0, 140.0), "ADA Standards of Care 2024, doi:10.2337/dc24-S002",
                  lambda lived: lived.at("G", 120.0), drawn=("G", 120.0)),
        Reference("glucose that appeared in 6 h, of 75 g", "g", 67.5, "Dalla Man 2002: the share of .9 that is absorbed",
                  lambda lived: area(lived, "appearance") * 70.0 / 1000.0),
    )  # fmt: skip

    class State(State):
        body: BergmanMinimal.State
        eaten: Scalar = state("g", "glucose swallowed so far")
        load: Scalar = state("g", "glucose that appears along h, counted from when it began")
        since: Scalar = state("min", "time since it was swallowed")

    class Input(Input):
        glucose_iv: Scalar = dose("g", "glucose given into a vein", into="body.glucose", cmt=1)
        meal: Scalar = dose("g", "glucose swallowed", into="eaten", cmt=2, spread="1000 g/min", portion="1 min")
        insulin: Scalar = signal("m[IU]/L", "plasma insulin as measured", default=4.5)
        weight: Scalar = covariate("kg", "body weight")
        Ib: Scalar = covariate("m[IU]/L", "plasma insulin at rest", default=fasting_insulin)

    body: BergmanMinimal = BergmanMinimal()
    a10: Scalar = parameter(lognormal(0.95, 0.5), "1", "appearance at 10 min over that at 60 min", source=_MAN)
    a30: Scalar = parameter(lognormal(1.4, 0.5), "1", "the same at 30 min", source=_MAN)
    a90: Scalar = parameter(lognormal(0.8, 0.5), "1", "the same at 90 min", source=_MAN)
    a120: Scalar = parameter(lognormal(0.65, 0.5), "1", "the same at 120 min", source=_MAN)
    a180: Scalar = parameter(lognormal(0.4, 0.5), "1", "the same at 180 min", source=_MAN)
    a240: Scalar = parameter(lognormal(0.25, 0.5), "1", "the same at 240 min", source=_MAN)
    a300: Scalar = parameter(lognormal(0.16, 0.5), "1", "the same at 300 min", source=_MAN)
    F: Scalar = constant(0.9, "1", "share of what is swallowed that reaches the blood", source="Dalla Man 2002")

    def _pieces(self):
        """(begin, length, h at its begin, h at its end) of each straight line; times in min."""
        heights = (0.0, self.a10, self.a30, 1.0, self.a90, self.a120, self.a180, self.a240, self.a300, 0.0)
        return [(a, b - a, low, high) for a, b, low, high in zip(BREAKS, BREAKS[1:], heights, heights[1:], strict=False)]

    def _area(self):
        return sum(0.5 * length * (low + high) for _, length, low, high in self._pieces())

    def taken(self, since):
        """Share of a load that has appeared so long after it was swallowed."""
        t, found = since / const(1.0, "min"), 0.0
        for begin, length, low, high in self._pieces():
            inside = jnp.clip(t - begin, 0.0, length)
            found = found + inside * (low + 0.5 * (high - low) * inside / length)
        return found / self._area()

    def appearance(self, x):
        """Glucose that appears in blood [g/min]."""
        t, h = x.since / const(1.0, "min"), 0.0
        for begin, length, low, high in self._pieces():
            inside = (t >= begin) & (t < begin + length)
            h = h + jnp.where(inside, low + (high - low) * (t - begin) / length, 0.0)
        return self.F * x.load * h / (self._area() * const(1.0, "min"))

    def rates(self, t, x, u):
        body = self.body.rates(t, x.body, u)
        runs = (x.load > 0.0) & (x.since < const(BREAKS[-1], "min"))
        return self.State(
            body=type(body)(glucose=body.glucose + self.appearance(x), action=body.action),
            eaten=0.0 * self.appearance(x),
            load=0.0 * self.appearance(x),
            since=jnp.where(runs, 1.0, 0.0),
        )

    def portion(self, dose, x, u, amount, first):
        """Nothing that was swallowed is lost: the load is such that what is left of it is what was left, and this portion."""
        if dose != "meal":
            return x
        left = x.load * (1.0 - self.taken(x.since))
        since = jnp.where((first > 0.5) | (self.taken(x.since) > 0.5), 0.0 * x.since, x.since)
        return self.State(body=x.body, eaten=x.eaten, load=(left + amount) / (1.0 - self.taken(since)), since=since)

    def outputs(self, x, u):
        found = self.appearance(x) / u.weight * const(1000.0, "mg/g")
        return {**self.body.outputs(x.body, u), "appearance": output(found, "mg/kg/min", "glucose that appears in blood")}

    def _resting(self, body):
        none = 0.0 * body.glucose
        return self.State(body=body, eaten=none, load=none, since=none * const(1.0, "min/g"))

    def initial(self, u):
        return self._resting(self.body.initial(u))

    def steady(self, u):
        return self._resting(self.body.steady(u))
