"""The three-state glucose problem of the benchmarks, as this library and as plain diffrax solve it.

A minimal model with a gut: 5 unknown parameters, 37 readings in 6 hours, two meals, insulin in steps, and one `do`: insulin
sensitivity is 1.4 times as high from 120 to 240 minutes.

    dq/dt = -ka q       dX/dt = -p2 (X - SI (I - Ib))       dG/dt = -SG (G - Gb) - X G + f ka q / (VG weight)

Both sides answer at coordinates z (5,), on which the prior is a standard normal: the 37 modelled values, and the log density.
"""

import dataclasses

import diffrax
import jax.numpy as jnp
import numpy as np

import hybridtwin as ht
from hybridtwin.interventions import Do, enact
from hybridtwin.kernel import Data, Kernel
from hybridtwin.model import lived_world
from hybridtwin.simulate.mesh import lay, layout_of
from hybridtwin.simulate.rules import LAST
from hybridtwin.simulate.solve import observer, states
from hybridtwin.system import Scalar

SPAN, SPACING, WEIGHT, SD = 360.0, 10.0, 70.0, 5.0
MEALS = ((15.0, 45.0), (195.0, 30.0))
INSULIN = ((0.0, 10.0), (20.0, 45.0), (70.0, 25.0), (140.0, 10.0), (200.0, 35.0), (260.0, 15.0))  # m[IU]/L from this minute
WINDOW, RAISED = (120.0, 240.0), 1.4
PRIORS = {"ka": (0.035, 0.3), "SI": (5e-4, 0.4), "p2": (0.025, 0.3), "SG": (0.015, 0.3), "Gb": (110.0, 0.1)}
VG, F, PACE = 1.7, 0.9, 5.0  # dL/kg, 1, g/min


class GutMinimal(ht.System):
    """The minimal model with one compartment of gut. Source: Bergman 1979, doi:10.1152/ajpendo.1979.236.6.E667."""

    time = "min"

    class State(ht.State):
        q: Scalar = ht.state("g", "in the gut")
        X: Scalar = ht.state("1/min", "insulin action", positive=False)
        G: Scalar = ht.state("mg/dL", "glucose")

    class Input(ht.Input):
        meal: Scalar = ht.dose("g", "eaten", into="q", spread="5 g/min")
        insulin: Scalar = ht.signal("m[IU]/L", "plasma insulin", default=10.0)
        weight: Scalar = ht.covariate("kg", "body weight")

    ka: Scalar = ht.parameter(ht.lognormal(*PRIORS["ka"]), "1/min", "absorption")
    SI: Scalar = ht.parameter(ht.lognormal(*PRIORS["SI"]), "L/m[IU]/min", "insulin sensitivity")
    p2: Scalar = ht.parameter(ht.lognormal(*PRIORS["p2"]), "1/min", "rate of insulin action")
    SG: Scalar = ht.parameter(ht.lognormal(*PRIORS["SG"]), "1/min", "glucose effectiveness")
    Gb: Scalar = ht.parameter(ht.lognormal(*PRIORS["Gb"]), "mg/dL", "glucose at rest")

    def rates(self, t, x, u):
        appearing = F * self.ka * x.q * ht.const(1000.0, "mg/g") / (ht.const(VG, "dL/kg") * u.weight)
        return self.State(
            q=-self.ka * x.q,
            X=-self.p2 * (x.X - self.SI * (u.insulin - ht.const(INSULIN[0][1], "m[IU]/L"))),
            G=-self.SG * (x.G - self.Gb) - x.X * x.G + appearing,
        )

    def outputs(self, x, u):
        return {"glucose": ht.output(x.G, "mg/dL", "glucose")}

    def initial(self, u):
        return self.State(q=0.0 * u.weight * ht.const(1.0, "g/kg"), X=0.0 * self.SG, G=self.Gb)


def times(count: int = 37) -> np.ndarray:
    """Minutes of the readings."""
    return np.linspace(0.0, SPAN, count)


def readings(count: int = 37) -> np.ndarray:
    """What the sensor said: a smooth curve with noise; no more than numbers to compute a density of."""
    t = times(count)
    smooth = 110 + 70 * np.exp(-(((t - 65) / 40) ** 2)) + 40 * np.exp(-(((t - 245) / 40) ** 2))
    return smooth + SD * np.random.default_rng(1).normal(size=count)


def draws(lanes: int) -> np.ndarray:
    """Coordinates (lanes, 5) of bodies from the prior; the first n are the same for any number of lanes."""
    return np.random.default_rng(0).normal(size=(lanes, len(PRIORS)))


@dataclasses.dataclass(frozen=True)
class Side:
    """One way to solve the problem. Lane functions of z (5,) and numbers that enter as arguments."""

    outputs: object  # (z, data) -> (readings,)
    log_density: object  # (z, data) -> ()
    data: object


def ours(stepper, longest: float, count: int = 37) -> Side:
    """hybridtwin: the lived day under `do`, on the library's mesh, kernel and sensor."""
    t, seen = times(count), readings(count)
    person = ht.Person.of(
        "anna", start=0.0, stop=SPAN, time="min", covariates={"weight": (WEIGHT, "kg")},
        doses={"meal": ht.Regimen.bolus([g for _, g in MEALS], "g", at=[at for at, _ in MEALS])},
        signals={"insulin": ht.Signal.steps([at for at, _ in INSULIN], [v for _, v in INSULIN], "m[IU]/L")},
        readings={"sensor": (t, seen, "mg/dL")},
    )  # fmt: skip
    model = ht.Model(GutMinimal(), sensor=ht.sensors.Gaussian("glucose", sd=SD))
    problem = model.bind(person)
    change = Do({"SI": lambda v: RAISED * v}, *WINDOW)
    world = enact(lived_world(problem.bound), [change], model.spec, problem.bound.clock)
    layout = layout_of([world], model.spec)
    mesh = lay([world], model.spec, layout, [(float(at), LAST) for at in t], max_step=longest)[0]
    kernel = Kernel(model, layout, stepper, (), 0, 0)
    data = problem.data._replace(mesh=mesh, read={"sensor": mesh.read})

    def outputs(z, data: Data):
        values = kernel.constrain(z)
        system, extras = kernel.system_of(values), kernel.extras(values, data, jnp.stack([RAISED * values["SI"]]))
        x0 = kernel.start_state(system, data.mesh, extras)
        path, _ = states(system, layout, kernel.stepper, data.mesh, x0, extras, observer(("glucose",)))
        return path[data.read["sensor"], 0]

    def log_density(z, data: Data):
        terms = kernel.sensor_of("sensor", {}).terms(outputs(z, data), data.seen["sensor"])
        return kernel.log_prior(z) + jnp.sum(terms.loglik)

    return Side(outputs, log_density, data)


def plain(rtol: float, atol: float, *, reverse: bool = False, count: int = 37, solver=None) -> Side:
    """Plain diffrax, as a competent user writes it: Tsit5, PID controller, steps clipped at every jump of the inputs.

    Tolerances are arguments of the compiled program, so that they can be tuned without compiling again.
    """
    medians, sds = (np.array([p[i] for p in PRIORS.values()]) for i in (0, 1))
    knots = sorted({0.0, *WINDOW, *(at for at, _ in (*MEALS, *INSULIN)), *(at + g / PACE for at, g in MEALS)})
    table = [
        [PACE * sum(at <= k < at + g / PACE for at, g in MEALS), [v for at, v in INSULIN if at <= k][-1],
         RAISED if WINDOW[0] <= k < WINDOW[1] else 1.0] for k in knots
    ]  # fmt: skip
    data = {
        "t": times(count), "y": readings(count), "knots": np.array(knots), "inputs": np.array(table),
        "rtol": np.float64(rtol), "atol": np.float64(atol),
    }  # fmt: skip
    adjoint = diffrax.RecursiveCheckpointAdjoint() if reverse else diffrax.ForwardMode()

    def rates(t, x, args):
        (ka, SI, p2, SG, Gb), data = args
        q, X, G = x
        eaten, insulin, raised = data["inputs"][jnp.searchsorted(data["knots"], t, side="right", method="compare_all") - 1]
        action = raised * SI * (insulin - INSULIN[0][1])
        return eaten - ka * q, -p2 * (X - action), -SG * (G - Gb) - X * G + F * ka * q * 1000.0 / (VG * WEIGHT)

    def outputs(z, data):
        p = medians * jnp.exp(sds * z)
        controller = diffrax.ClipStepSizeController(
            diffrax.PIDController(rtol=data["rtol"], atol=data["atol"]), jump_ts=data["knots"][1:], store_rejected_steps=None
        )
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(rates), solver or diffrax.Tsit5(), 0.0, SPAN, 1.0, (jnp.zeros(()), jnp.zeros(()), p[4]),
            args=(tuple(p), data), adjoint=adjoint, saveat=diffrax.SaveAt(ts=data["t"], fn=lambda t, x, _: x[2]),
            stepsize_controller=controller, max_steps=4096, throw=False,
        )  # fmt: skip
        return solution.ys

    def log_density(z, data):
        residual = (data["y"] - outputs(z, data)) / SD
        return -0.5 * jnp.sum(z**2) - 0.5 * jnp.sum(residual**2)

    return Side(outputs, log_density, data)
