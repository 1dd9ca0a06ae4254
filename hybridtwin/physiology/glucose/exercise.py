"""Muscles at work: what they take from blood and what the liver adds in healthy people, and what work changes in type 1
diabetes, where insulin does not fall.
"""

from hybridtwin.physiology.reference import Protocol, Reference
from hybridtwin.signals import Signal
from hybridtwin.system import Input, Scalar, State, System, const, constant, lognormal, output, parameter, signal, state

_ROY = "Roy and Parker 2007, J Diabetes Sci Technol 1:338"
_BRETON = "Breton 2008, 21 people with type 1 diabetes, as in Deichmann 2021, doi:10.3389/fendo.2021.723812"
_HALVES = "; spread: falls of glucose differ by half, Zaharieva 2019, doi:10.2337/dc18-2204"


class Exercise(System):
    r"""What muscles at work take from blood, and what the liver adds, in healthy people.

    dE/dt = 0.8 (intensity - E)       dP/dt = a1 E - a2 P       dU/dt = a3 E - a4 U       dM/dt = a5 E - a6 M

    E `effort` [%] of maximal oxygen uptake above rest, P `production` and U `uptake` [mg/kg/min] of glucose by exercise, M
    `removal` [m[IU]/L/min] of insulin; intensity [%] a signal; time in min. At rest all are 0; P = a1/a2 E and U = a3/a4 E
    while exercise goes on: uptake wins. Without the late fall by empty glycogen stores (beyond an hour or so of exercise).
    Their insulin falls and the liver keeps up; where insulin is injected glucose falls: `Breton2008`.
    Interventions: `intensity` (less of it, later, or none).
    Source: Roy and Parker 2007, J Diabetes Sci Technol 1:338, PMC2769581.
    """

    time = "min"
    grid = "1 min"
    unconserved = "rates of uptake and production, no amounts"
    protocol = Protocol(
        240.0, "three hours of walking, as in Young 1967: 30 % of maximal oxygen uptake above rest", shows=("uptake", "net"),
        signals={"intensity": Signal.steps([0.0, 180.0], [30.0, 0.0], "%")},
    )  # fmt: skip
    references = (
        Reference("what walking for hours adds to the use of glucose", "mg/kg/min", (206.0 - 140.0) / 60.0,
                  "Young 1967, J Appl Physiol 23:734, turnover of 206 mg/kg/h walking and 140 at rest; taken for 30 %",
                  lambda lived: lived.at("uptake", 179.0), drawn=("uptake", 179.0)),
    )  # fmt: skip

    class State(State):
        effort: Scalar = state("%", "oxygen uptake above rest, of the maximal")
        production: Scalar = state("mg/kg/min", "glucose that the liver adds")
        uptake: Scalar = state("mg/kg/min", "glucose that muscles take")
        removal: Scalar = state("m[IU]/L/min", "insulin that is lost")

    class Input(Input):
        intensity: Scalar = signal("%", "oxygen uptake above rest, of the maximal", default=0.0)

    a1: Scalar = parameter(lognormal(0.00158, 0.3), "mg/kg/min^2/%", "onset of production", source=_ROY + "; spread assumed")
    a3: Scalar = parameter(lognormal(0.00195, 0.3), "mg/kg/min^2/%", "onset of uptake", source=_ROY + "; spread assumed")
    a2: Scalar = constant(0.056, "1/min", "end of production", source=_ROY)
    a4: Scalar = constant(0.0485, "1/min", "end of uptake", source=_ROY)
    a5: Scalar = constant(0.00125, "m[IU]/L/min^2/%", "onset of removal", source=_ROY)
    a6: Scalar = constant(0.075, "1/min", "end of removal", source=_ROY)

    def rates(self, t, x, u):
        return self.State(
            effort=const(0.8, "1/min") * (u.intensity - x.effort),
            production=self.a1 * x.effort - self.a2 * x.production,
            uptake=self.a3 * x.effort - self.a4 * x.uptake,
            removal=self.a5 * x.effort - self.a6 * x.removal,
        )

    def steady(self, u):
        E = u.intensity
        return self.State(effort=E, production=self.a1 / self.a2 * E, uptake=self.a3 / self.a4 * E, removal=self.a5 / self.a6 * E)

    def outputs(self, x, u):
        return {"net": output(x.uptake - x.production, "mg/kg/min", "glucose that exercise takes")}


class Breton2008(System):
    r"""What work changes in type 1 diabetes: glucose leaves blood faster at once, and insulin does more for hours.

    dY/dt = (reserve intensity - Y) / tau_HR          dW/dt = reserve intensity - W / tau
    clearance = beta Y          gain = 1 + alpha W

    Y `pulse` [bpm] heart rate above rest, W `beats` [1] heart beats above rest that are not forgotten; intensity [%] a signal,
    oxygen uptake above rest as a share of the maximal, and with it heart rate as a share of its reserve [bpm]; beta [1/min/bpm],
    alpha [1], tau_HR, tau [min]; time in min. Glucose leaves by `clearance` [1/min] beside what rest does, the liver's part
    taken off, and `gain` [1] multiplies insulin's action, that of basal insulin too: `T1DDay`.
    The papers write W as beats since the session began, times Z that rises to 1 within minutes and fades with tau. That is for
    one session; here what is left of one adds to the next; one of an hour is the same within 7 %, its glucose within 3 %.
    Interventions: `intensity` (less of it, later, or none).
    Source: Breton 2008, doi:10.1177/193229680800200120, and Dalla Man 2009, doi:10.1177/193229680900300107, in the form and with
    the values of Deichmann 2021, doi:10.3389/fendo.2021.723812.
    """

    time = "min"
    grid = "1 min"
    unconserved = "a heart rate and beats, no amounts"
    protocol = Protocol(
        720.0, "an hour at 40 % of maximal oxygen uptake above rest, about half of the maximal",
        shows=("pulse", "clearance", "gain"),
        signals={"intensity": Signal.steps([0.0, 30.0, 90.0], [0.0, 40.0, 0.0], "%")},
    )  # fmt: skip
    references = (
        Reference("heart rate above rest, half of the maximal oxygen uptake", "bpm", (0.64 * 50.0 + 37.0) / 100.0 * 200.0 - 80.0,
                  "Swain 1994, doi:10.1249/00005768-199401000-00018: % of the largest = 37 + .64 times that of oxygen",
                  lambda lived: lived.at("pulse", 89.0), drawn=("pulse", 89.0),
                  why="heart rate as Deichmann 2021 has it: the share of its reserve that oxygen uptake has of the maximal"),
    )  # fmt: skip

    class State(State):
        pulse: Scalar = state("bpm", "heart rate above rest")
        beats: Scalar = state("1", "heart beats above rest that are not forgotten")

    Input = Exercise.Input

    beta: Scalar = parameter(lognormal(3.39e-4, 0.5), "1/min/bpm", "clearance of glucose by heart rate", source=_BRETON + _HALVES)
    alpha: Scalar = parameter(lognormal(2.59e-4, 0.5), "1", "gain of insulin's action by a heart beat", source=_BRETON + _HALVES)
    reserve: Scalar = constant(120.0, "bpm", "heart rate at the most above that at rest", source="200 and 80, Deichmann 2021")
    tau_HR: Scalar = constant(5.0, "min", "how soon heart rate follows", source=_BRETON)
    tau: Scalar = constant(600.0, "min", "how long insulin does more", source=_BRETON)

    def rate(self, u):
        """Heart rate above rest that the work asks for [bpm]."""
        return self.reserve * u.intensity * const(0.01, "1/%")

    def rates(self, t, x, u):
        return self.State(pulse=(self.rate(u) - x.pulse) / self.tau_HR, beats=self.rate(u) - x.beats / self.tau)

    def clearance(self, x):
        """Glucose that work clears, as a share of what is there [1/min]."""
        return self.beta * x.pulse

    def gain(self, x):
        """What insulin's action is multiplied by [1]."""
        return 1.0 + self.alpha * x.beats

    def steady(self, u):
        return self.State(pulse=self.rate(u), beats=self.tau * self.rate(u))

    def outputs(self, x, u):
        return {
            "clearance": output(self.clearance(x), "1/min", "glucose that work clears, as a share of what is there"),
            "gain": output(self.gain(x), "1", "what insulin's action is multiplied by"),
        }
