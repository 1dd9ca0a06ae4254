"""Small systems, people and twins that personalize in seconds, shared by the tests of promises, inference, twins and worlds."""

import functools

import numpy as np

import hybridtwin.system as ht
from hybridtwin import sensors
from hybridtwin.clock import Clock
from hybridtwin.inference.methods import Laplace
from hybridtwin.inference.personalize import personalize
from hybridtwin.model import Model
from hybridtwin.physiology import OneCompartmentOral
from hybridtwin.records import Person
from hybridtwin.signals import Regimen, Signal
from hybridtwin.system import Scalar


class Drip(ht.System):
    """One compartment with boluses and a pump: dA/dt = push - CL (weight/70) / V A, C = A / V. Linear in A."""

    time = "h"

    class State(ht.State):
        amount: Scalar = ht.state("mg", "amount in plasma")

    class Input(ht.Input):
        iv: Scalar = ht.dose("mg", "given into a vein", into="amount", cmt=1)
        push: Scalar = ht.signal("mg/h", "pump")
        weight: Scalar = ht.covariate("kg", "body weight", default=70.0)

    CL: Scalar = ht.parameter(ht.typical(3.0, cv=0.5), "L/h", "clearance")
    V: Scalar = ht.parameter(ht.typical(30.0, cv=0.4), "L", "volume")

    def rates(self, t, x, u):
        return self.State(amount=u.push - self.CL * (u.weight / ht.const(70.0, "kg")) / self.V * x.amount)

    def steady(self, u):
        return self.State(amount=u.push * self.V / (self.CL * (u.weight / ht.const(70.0, "kg"))))

    def outputs(self, x, u):
        return {"C": ht.output(x.amount / self.V, "mg/L", "concentration")}


class Saturable(ht.System):
    """Elimination that saturates: dA/dt = -VM C / (KM + C), C = A / V. Not linear: solved on the mesh."""

    time = "h"

    class State(ht.State):
        amount: Scalar = ht.state("mg", "amount in plasma")

    class Input(ht.Input):
        iv: Scalar = ht.dose("mg", "given into a vein", into="amount", cmt=1)
        weight: Scalar = ht.covariate("kg", "body weight", default=70.0)

    VM: Scalar = ht.parameter(ht.typical(30.0, cv=0.3), "mg/h", "largest rate of elimination")
    KM: Scalar = ht.constant(4.0, "mg/L", "concentration at half that rate")
    V: Scalar = ht.parameter(ht.typical(30.0, cv=0.3), "L", "volume")

    def rates(self, t, x, u):
        c = x.amount / self.V
        return self.State(amount=-self.VM * (u.weight / ht.const(70.0, "kg")) * c / (self.KM + c))

    def outputs(self, x, u):
        return {"C": ht.output(x.amount / self.V, "mg/L", "concentration")}


class Explodes(ht.System):
    """dx/dt = a x**2 from 1: leaves the finite numbers at t = 1/a, so draws with a > 1/t cannot be solved."""

    time = "h"

    class State(ht.State):
        x: Scalar = ht.state("1")

    a: Scalar = ht.parameter(ht.lognormal(0.5, 0.7), "1/h", "growth")

    def rates(self, t, x, u):
        return self.State(x=self.a * x.x**2)

    def initial(self, u):
        return self.State(x=1.0)

    def outputs(self, x, u):
        return {"y": ht.output(x.x, "1")}


CLOCK = Clock("2026-03-24T00:00+01:00", "Europe/Rome", "h")
ORAL = Model(OneCompartmentOral(tlag=0.1), C=sensors.LogNormal("C", sd=0.15))
DRIP = Model(Drip(), C=sensors.Gaussian("C", sd=0.3))
MESH = Model(Saturable(), C=sensors.Gaussian("C", sd=0.3))


def oral(ka, CL, V, t):
    """Concentration after 320 mg by mouth at 0, lag 0.1 h."""
    t = np.maximum(np.asarray(t, float) - 0.1, 0.0)
    k = CL / V
    return 320.0 / V * ka / (ka - k) * (np.exp(-k * t) - np.exp(-ka * t))


@functools.cache
def oral_person(name="anna", seed=0, n=8):
    """Somebody near the prior, `n` readings with an error of 15 %."""
    rng = np.random.default_rng(seed)
    ka, CL, V = np.exp(rng.normal(np.log([1.4, 2.7, 31.0]), [0.3, 0.25, 0.15]))
    times = np.array([0.5, 1, 1.5, 2, 3, 4, 6, 8, 10, 12, 14, 16, 18, 20, 21, 22, 22.5, 23, 23.5])[:n]
    values = oral(ka, CL, V, times) * np.exp(0.15 * rng.normal(size=n))
    return Person.of(
        name,
        start=0.0,
        stop=24.0,
        doses={"oral": Regimen.bolus(320.0, "mg", at=0.0)},
        readings={"C": (times, values, "mg/L")},
    )


@functools.cache
def drip_person(name="bruno", clock=CLOCK, stop=24.0):
    """A pump and three boluses over a day, fourteen readings of a body with CL 2.5 and V 28."""
    push = Signal.steps([0.0, 12.0], [10.0, 16.0], "mg/h")
    boluses = Regimen.bolus(120.0, "mg", at=[1.0, 9.0, 17.0])
    times = np.array([0.5, 1.5, 3, 5, 7, 8.5, 9.5, 11, 13, 15, 16.5, 17.5, 20, 23.5])
    rng = np.random.default_rng(3)
    k, V, fine = 2.5 / 28.0, 28.0, np.linspace(0, 24, 24001)
    amount = np.zeros_like(fine)
    for i, dt in enumerate(np.diff(fine)):
        mid = fine[i] + dt / 2
        given = 120.0 * any(fine[i] < b <= fine[i] + dt + 1e-12 for b in (1.0, 9.0, 17.0))
        amount[i + 1] = amount[i] * np.exp(-k * dt) + (10.0 if mid < 12 else 16.0) * dt + given
    values = np.interp(times, fine, amount) / V + 0.3 * rng.normal(size=len(times))
    return Person.of(
        name,
        start=0.0,
        stop=stop,
        time=clock,
        doses={"iv": boluses},
        signals={"push": push},
        covariates={"weight": (70.0, "kg")},
        readings={"C": (times, np.maximum(values, 0.05), "mg/L")},
    )


@functools.cache
def mesh_person(name="carla", stop=12.0, weight=70.0):
    """Two boluses into a body that saturates."""
    times = np.array([0.5, 1.0, 2.0, 3.0, 4.5, 6.5, 7.0, 8.0, 10.0])
    rng = np.random.default_rng(len(name))
    fine, amount, found = np.linspace(0.0, 12.0, 12001), 0.0, []
    for t in fine:
        amount += 300.0 * (abs(t - 0.2) < 1e-9) + 200.0 * (abs(t - 6.0) < 1e-9)
        found.append(amount / 28.0)
        amount -= 0.001 * 33.0 * (weight / 70.0) * (amount / 28.0) / (4.0 + amount / 28.0)
    values = np.interp(times, fine, found) + 0.3 * rng.normal(size=len(times))
    return Person.of(
        name,
        start=0.0,
        stop=stop,
        doses={"iv": Regimen.bolus(300.0, "mg", at=0.2) + Regimen.bolus(200.0, "mg", at=6.0)},
        covariates={"weight": (weight, "kg")},
        readings={"C": (times, np.maximum(values, 0.05), "mg/L")},
    )


@functools.cache
def drip_twin():
    """Laplace on the linear system with a pump."""
    return personalize(DRIP, drip_person(), Laplace(draws=100, starts=2), key=0, progress=False)


@functools.cache
def mesh_twin():
    """Laplace on the system that is solved on a mesh."""
    return personalize(MESH, mesh_person(), Laplace(draws=100, starts=2), key=0, progress=False)
