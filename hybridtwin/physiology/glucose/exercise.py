"""Muscles at work: what exercise takes from blood glucose, what the liver adds, and the insulin that is lost."""

from hybridtwin.physiology.reference import Protocol, Reference
from hybridtwin.signals import Signal
from hybridtwin.system import Input, Scalar, State, System, const, constant, lognormal, output, parameter, signal, state

_ROY = "Roy and Parker 2007, J Diabetes Sci Technol 1:338"


class Exercise(System):
    r"""What muscles at work take from blood, and what the liver adds, in type 1 diabetes.

    dE/dt = 0.8 (intensity - E)       dP/dt = a1 E - a2 P       dU/dt = a3 E - a4 U       dM/dt = a5 E - a6 M

    E `effort` [%] of maximal oxygen uptake above rest, P `production` and U `uptake` [mg/kg/min] of glucose by exercise, M
    `removal` [m[IU]/L/min] of insulin; intensity [%] a signal; time in min. At rest all are 0; P = a1/a2 E and U = a3/a4 E
    while exercise goes on: uptake wins. Without the late fall by empty glycogen stores (beyond an hour or so of exercise).
    Interventions: `intensity` (less of it, later, or none).
    Source: Roy and Parker 2007, J Diabetes Sci Technol 1:338, PMC2769581.
    """

    time = "min"
    grid = "1 min"
    unconserved = "rates of uptake and production, no amounts"
    protocol = Protocol(
        180.0, "an hour at 40 % of maximal oxygen uptake above rest, as in Roy and Parker 2007", shows=("net",),
        signals={"intensity": Signal.steps([0.0, 30.0, 90.0], [0.0, 40.0, 0.0], "%")},
    )  # fmt: skip
    references = (
        Reference("what walking for hours adds to the use of glucose", "mg/kg/min", (206.0 - 140.0) / 60.0,
                  "Young 1967, J Appl Physiol 23:734, turnover of 206 mg/kg/h walking and 140 at rest; taken for 30 %",
                  lambda lived: 0.75 * lived.at("uptake", 89.0)),
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
