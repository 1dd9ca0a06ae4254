"""Rosenbrock steps on stiff problems, and gradients of every stepper across doses and lags."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
from jax import lax

import hybridtwin.system as ht
from hybridtwin.interventions import World
from hybridtwin.records import Person
from hybridtwin.signals import Dose, Regimen, Signal
from hybridtwin.simulate.mesh import lay, layout_of
from hybridtwin.simulate.rules import LAST
from hybridtwin.simulate.solve import Extras, observer, states
from hybridtwin.simulate.steppers import RK4, Chebyshev, Exact, Repeated, Tsit5
from hybridtwin.simulate.stiff import Controlled, Rosenbrock, rosenbrock_step
from hybridtwin.system import Scalar


@functools.partial(jax.jit, static_argnums=(0, 1))
def march(f, stepper, x, nodes):
    """States at the nodes after the first."""

    def body(x, segment):
        x = stepper.advance(f, *segment, x)
        return x, x

    return lax.scan(body, x, (nodes[:-1], jnp.diff(nodes)))[1]


def prey(t, x):
    return {
        "a": x["a"] * (1 - x["b"]) + 0.3 * jnp.sin(3 * t) * x["a"],
        "b": x["b"] * (x["a"] - 1) + 0.1 * jnp.cos(5 * t),
    }


def test_order_four_on_a_nonlinear_nonautonomous_problem():
    with jax.enable_x64(True):
        start = {"a": jnp.asarray(1.5), "b": jnp.asarray(0.5)}

        def end(stepper, count):
            path = march(prey, stepper, start, jnp.linspace(0.0, 6.0, count + 1))
            return np.array([path["a"][-1], path["b"][-1]])

        truth = end(Tsit5(), 4000)
        errors = np.array([np.max(np.abs(end(Rosenbrock(), n) - truth)) for n in (48, 96, 192)])
        refined = np.max(np.abs(end(Rosenbrock().refined(), 48) - truth))
    observed = np.log2(errors[:-1] / errors[1:])
    assert np.all(np.abs(observed - 4) < 0.4), (errors, observed)
    assert refined == pytest.approx(errors[1], rel=1e-4)


def test_the_embedded_error_is_of_order_three():
    def f(t, x):
        return jnp.stack([x[0] * (1 - x[1]), x[1] * (x[0] - 1) + jnp.cos(5 * t)])

    with jax.enable_x64(True):
        at = jnp.array([1.5, 0.5])
        told = [float(jnp.max(jnp.abs(rosenbrock_step(f, jnp.asarray(0.3), h, at)[1]))) for h in (0.1, 0.05, 0.025)]
    observed = np.log2(np.array(told[:-1]) / told[1:])
    assert np.all(np.abs(observed - 4) < 0.4), (told, observed)  # the local error of order 3


def test_l_stable():
    with jax.enable_x64(True):
        one = jnp.asarray(1.0)
        for z in (-1e3, -1e6, -1e12):
            grown = Rosenbrock().advance(lambda t, x, z=z: z * x, 0.0, one, one)
            assert 0 < float(grown) < 10 / abs(z)

        def turned(w):
            x = Rosenbrock().advance(
                lambda t, x: {"a": -w * x["b"], "b": w * x["a"]}, 0.0, one, {"a": one, "b": 0 * one}
            )
            return jnp.hypot(x["a"], x["b"])

        assert float(jnp.max(jax.vmap(turned)(jnp.linspace(0.0, 50.0, 501)))) <= 1 + 1e-12  # the imaginary axis
        start = {"a": one, "b": one}
        still = Rosenbrock().advance(prey, 0.3, 0.0 * one, start)
        assert all(float(still[k]) == 1.0 for k in start), "a segment without length moves something"


def robertson(t, x):
    fall, back, pair = 0.04 * x["a"], 1e4 * x["b"] * x["c"], 3e7 * x["b"] ** 2
    return {"a": -fall + back, "b": fall - back - pair, "c": pair}


def van_der_pol(t, x):
    return {"p": x["q"], "q": 1000.0 * (1 - x["p"] ** 2) * x["q"] - x["p"]}


def reference(f, start, stop, atol, times=None):
    def flat(t, y):
        return list(f(t, dict(zip(start, y, strict=True))).values())

    return scipy.integrate.solve_ivp(
        flat, (0.0, stop), list(start.values()), method="Radau", rtol=1e-10, atol=atol, t_eval=times
    )


@pytest.mark.parametrize(
    ("f", "start", "stop", "atol"),
    [(robertson, {"a": 1.0, "b": 0.0, "c": 0.0}, 1e5, 1e-16), (van_der_pol, {"p": 2.0, "q": 0.0}, 2000.0, 1e-12)],
    ids=["Robertson", "van der Pol"],
)
def test_stiff_problems_against_scipy(f, start, stop, atol):
    """Six decades of Robertson's reactions; two jumps of the oscillator, on an eighth of scipy's own steps."""
    if f is robertson:
        nodes = np.append(0.0, np.geomspace(1e-6, stop, 100))
        wanted = reference(f, start, stop, atol, nodes).y[:, 1:]
    else:
        found = reference(f, start, stop, atol)
        nodes, wanted = np.append(found.t[:-1:8], stop), found.y[:, -1:]
    errors = []
    with jax.enable_x64(True):
        x = {name: jnp.asarray(value) for name, value in start.items()}
        for n in (1, 2, 4):
            path = np.stack(list(march(f, Rosenbrock(n), x, jnp.asarray(nodes)).values()))[:, -wanted.shape[1] :]
            errors.append(np.max(np.max(np.abs(path - wanted), axis=1) / np.max(np.abs(wanted), axis=1)))
    assert errors[2] < 1e-7 and errors[0] > 9 * errors[1] > 81 * errors[2], errors


@pytest.mark.parametrize(
    ("f", "start", "stop", "atol"),
    [(robertson, {"a": 1.0, "b": 0.0, "c": 0.0}, 1e3, 1e-16), (van_der_pol, {"p": 2.0, "q": 0.0}, 2000.0, 1e-12)],
    ids=["Robertson", "van der Pol"],
)
def test_controlled_steps_cross_one_long_stretch(f, start, stop, atol):
    """No node says where the oscillator jumps; twice the sub-steps means a sixteenth of the tolerance."""
    wanted = reference(f, start, stop, atol).y[:, -1]
    size = {robertson: [1.0, 4e-5, 1.0], van_der_pol: [2.0, 1300.0]}[f]
    with jax.enable_x64(True):
        x = {name: jnp.asarray(value) for name, value in start.items()}
        steps = Controlled(1e-4, jnp.array(size))
        run = jax.jit(lambda n: Repeated(steps, n).advance(f, jnp.asarray(0.0), jnp.asarray(stop), x))
        found = [np.array([float(v) for v in run(n).values()]) for n in (1, 2, 4, 8)]
    errors = [np.max(np.abs(one - wanted) / np.abs(wanted)) for one in found]
    told = [np.max(np.abs(a - b) / np.abs(b)) for a, b in itertools.pairwise(found)]
    assert errors[3] < 1e-6 and errors[3] < 0.01 * errors[0], errors
    assert all(0.5 * t < e < 2.0 * t for t, e in zip(told, errors, strict=False)), (told, errors)


def test_each_lane_finds_its_own_kink():
    """dx/dt = -50 (x - max(c - t, 0)): the moment at which its slope breaks is another in each lane, and has a derivative."""
    k, stop, lane = 50.0, 2.0, Controlled(1e-9, jnp.ones(1))

    def exact(c):
        return (1 / k - (c + 1 / k) * np.exp(-k * c)) * np.exp(-k * (stop - c))  # on the ramp x is c - t + 1/k once at rest

    def end(c):
        return lane.advance(lambda t, x: -k * (x - jnp.maximum(c - t, 0.0)), jnp.asarray(0.0), jnp.asarray(stop), 0.0 * c)

    with jax.enable_x64(True):
        c = jnp.linspace(1.75, 1.95, 7)
        found, slope = jax.jit(jax.vmap(lambda c: jax.jvp(end, (c,), (jnp.ones_like(c),))))(c)
    np.testing.assert_allclose(found, exact(np.asarray(c)), rtol=1e-4)
    np.testing.assert_allclose(slope, k * exact(np.asarray(c)), rtol=1e-2)


def test_controlled_steps_at_a_valve_a_pole_and_no_length():
    """What starts from nothing and what falls shut pass; a pole inside the stretch is no number, in this lane alone."""

    def valve(t, x):  # opens at 1, is pushed shut at 3; what falls below 0 dies out
        push = jnp.where(t < 2.0, t - 1.0, 3.0 - t)
        return jnp.where((x > 0.0) | (push > 0.0), 100.0 * push, -200.0 * jnp.minimum(x, 0.0))

    def go(f, x, h=1.0, **k):
        return Controlled(1e-6, **k).advance(f, jnp.asarray(0.0), jnp.asarray(h), x)

    with jax.enable_x64(True):
        half = go(valve, jnp.asarray(0.0), 3.0, size=jnp.full(1, 100.0))
        shut = go(valve, jnp.asarray(0.0), 6.0, size=jnp.full(1, 100.0))
        pole = jax.vmap(lambda x: go(lambda t, x: x * x, x))(jnp.array([0.5, 2.0, jnp.nan]))
        still = go(prey, {"a": jnp.asarray(1.0), "b": jnp.asarray(2.0)}, 0.0)
    assert float(half) == pytest.approx(100.0, rel=1e-4) and abs(float(shut)) < 1e-3
    assert float(pole[0]) == pytest.approx(1.0, rel=1e-4) and np.isnan(pole[1:]).all()
    assert (float(still["a"]), float(still["b"])) == (1.0, 2.0)


def test_controlled_steps_that_all_go_ahead_come_to_an_end():
    """Ten million turns in one stretch: every step is accepted, and the lane is still given up (it held up its batch)."""
    shaken = functools.partial(Controlled(1e-6, jnp.ones(1)).advance, lambda t, x: 1e7 * jnp.cos(1e7 * t), 0.0)
    with jax.enable_x64(True):
        few, many = (float(jax.jit(shaken)(jnp.asarray(h), jnp.asarray(0.0))) for h in (1e-5, 1.0))
    assert few == pytest.approx(np.sin(100.0), abs=1e-3) and np.isnan(many)


# ------------------------------------------------------------------------------------ gradients across doses


class Saturating(ht.System):
    """By mouth after a lag, elimination that saturates: not linear, with an event whose time is a parameter."""

    time = "h"

    class State(ht.State):
        depot: Scalar = ht.state("mg")
        amount: Scalar = ht.state("mg")

    class Input(ht.Input):
        oral: Scalar = ht.dose("mg", into="depot")
        iv: Scalar = ht.dose("mg", into="amount")
        push: Scalar = ht.signal("mg/h")

    ka: Scalar = ht.parameter(ht.typical(1.2, cv=0.3), "1/h")
    VM: Scalar = ht.parameter(ht.typical(30.0, cv=0.3), "mg/h")
    KM: Scalar = ht.parameter(ht.typical(60.0, cv=0.3), "mg")
    tlag: Scalar = ht.parameter(ht.typical(0.35, cv=0.3), "h")
    width: Scalar = ht.parameter(ht.typical(1.5, cv=0.3), "h")

    def dosing(self, u):
        return {"oral": ht.route(lag=self.tlag, fraction=0.8), "iv": ht.route(duration=self.width)}

    def rates(self, t, x, u):
        lost = self.VM * x.amount / (self.KM + x.amount)
        return self.State(depot=-self.ka * x.depot, amount=self.ka * x.depot + u.push - lost)

    def outputs(self, x, u):
        return {"y": ht.output(x.amount, "mg")}


class Linear(ht.System):
    """The same without saturation, which has exact steps."""

    time = "h"
    State = Saturating.State
    Input = Saturating.Input

    ka: Scalar = ht.parameter(ht.typical(1.2, cv=0.3), "1/h")
    k: Scalar = ht.parameter(ht.typical(0.3, cv=0.3), "1/h")
    tlag: Scalar = ht.parameter(ht.typical(0.35, cv=0.3), "h")
    width: Scalar = ht.parameter(ht.typical(1.5, cv=0.3), "h")

    def dosing(self, u):
        return {"oral": ht.route(lag=self.tlag, fraction=0.8), "iv": ht.route(duration=self.width)}

    def rates(self, t, x, u):
        return self.State(depot=-self.ka * x.depot, amount=self.ka * x.depot + u.push - self.k * x.amount)

    def outputs(self, x, u):
        return {"y": ht.output(x.amount, "mg")}


@pytest.mark.parametrize(
    ("system", "stepper"),
    [(Saturating, RK4(2)), (Saturating, Chebyshev(5)), (Saturating, Rosenbrock(1)), (Linear, Exact()),
     pytest.param(Saturating, Rosenbrock(2), marks=pytest.mark.heavy)],
    ids=lambda v: getattr(v, "__name__", repr(v)),
)  # fmt: skip
def test_gradients_across_doses_and_lags(system, stepper):
    """Forward and reverse against central differences: boluses and infusions whose time and length are parameters."""
    vein = Regimen((Dose(1.0, 50.0, modelled="duration"),), "mg")
    shape = Signal.linear if system is Saturating else Signal.steps
    push = shape([0.0, 3.0, 9.0], [0.0, 5.0, 1.0], "mg/h")
    person = Person.of("p", start=0.0, stop=12.0, signals={"push": push},
                       doses={"oral": Regimen.bolus(80.0, "mg", at=[0.0, 6.0]), "iv": vein})  # fmt: skip
    bound = person.bind(system.spec)
    world = World(bound.inputs, bound.start, bound.stop, bound.resets)
    layout = layout_of([world], system.spec)
    reads = [(t, LAST) for t in (0.2, 0.9, 1.7, 3.0, 5.0, 6.2, 6.9, 11.0)]
    mesh = lay([world], system.spec, layout, reads, max_step=0.5)[0]
    names = tuple(system().priors())
    at = np.array([system().typical().values()[n] for n in names])

    def course(v):
        body = system().with_values(dict(zip(names, v, strict=True)))
        path, _ = states(body, layout, stepper, mesh, system.spec.state({"depot": 0.0, "amount": 0.0}),
                         Extras(jnp.zeros(0), jnp.zeros(0), jnp.zeros(0)), observer(("y",)))  # fmt: skip
        return path[mesh.read, 0]

    with jax.enable_x64(True):
        run = jax.jit(course)
        forward, reverse = jax.jit(jax.jacfwd(course))(at), jax.jit(jax.jacrev(course))(at)
        steps = 1e-5 * at
        central = np.stack(
            [(np.asarray(run(at + e)) - np.asarray(run(at - e))) / (2 * s) for e, s in zip(np.diag(steps), steps, strict=True)],
            axis=1,
        )  # fmt: skip
    np.testing.assert_allclose(forward, central, rtol=2e-6, atol=1e-7)
    np.testing.assert_allclose(reverse, forward, rtol=1e-9, atol=1e-11)
    moved = np.abs(np.asarray(forward)[:, names.index("tlag")])
    assert moved[0] == 0.0 and moved[2:].min() > 1e-3, "the lag moves nothing"
    assert np.abs(np.asarray(forward)[2:, names.index("width")]).min() > 1e-4
