"""Exact steps in closed form, against fifty digits of mpmath."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from small import Drip

import hybridtwin.system as ht
from hybridtwin.physiology import OneCompartment, OneCompartmentOral, TwoCompartment
from hybridtwin.simulate import linear
from hybridtwin.simulate.steppers import Exact
from hybridtwin.system import Scalar

RNG = np.random.default_rng(0)


def chain(ka, k):
    """By mouth into one compartment."""
    return np.array([[-ka, 0.0], [ka, -k]])


def exchange(k10, k12, k21, ka=None):
    """Two compartments, by mouth where `ka` is given."""
    two = np.array([[-k10 - k12, k21], [k12, -k21]])
    return two if ka is None else np.block([[np.array([[-ka]]), np.zeros((1, 2))], [np.array([[ka], [0.0]]), two]])


FAST = 0.5 * (0.9 + np.sqrt(0.9**2 - 4 * 0.3 * 0.2))  # an eigenvalue of exchange(.3, .4, .2): met by ka below
CASES = {
    "by mouth": (chain(1.5, 0.1), ((0,), (1,))),
    "flip-flop, equal rates": (chain(0.3, 0.3), ((0,), (1,))),
    "flip-flop, nearly equal": (chain(0.3, 0.3 * (1 + 1e-9)), ((0,), (1,))),
    "nothing leaves": (chain(0.7, 0.0), ((0,), (1,))),
    "two compartments": (exchange(0.3, 0.4, 0.2), ((0, 1),)),
    "two compartments, nothing leaves": (exchange(0.0, 0.4, 0.2), ((0, 1),)),
    "two by mouth": (exchange(0.3, 0.4, 0.2, 1.7), ((0,), (1, 2))),
    "two by mouth, absorption as fast as distribution": (exchange(0.3, 0.4, 0.2, FAST), ((0,), (1, 2))),
    "transit": (np.array([[-2.0, 0, 0], [2.0, -2.0, 0], [0, 2.0, -2.0]]), ((0,), (1,), (2,))),
}


def exactly(a, b, h, x, way=None):
    """x(h) to fifty digits; with `way`, its derivative along that change of `a`, by differences in sixty."""
    n = len(a)

    def at(shift):
        m = mpmath.zeros(n + 1)
        for i in range(n):
            for j in range(n):
                m[i, j] = (mpmath.mpf(float(a[i, j])) + (shift * mpmath.mpf(float(way[i, j])) if shift else 0)) * mpmath.mpf(h)
            m[i, n] = mpmath.mpf(float(b[i])) * mpmath.mpf(h)
        return mpmath.expm(m) * mpmath.matrix([*map(float, x), 1.0])

    with mpmath.workdps(60):
        if way is None:
            return np.array([float(v) for v in at(0)])[:n]
        step = mpmath.mpf(10) ** -20
        return np.array([float(v / (2 * step)) for v in at(step) - at(-step)])[:n]


@pytest.mark.parametrize("name", CASES)
def test_closed_forms_and_their_gradients_against_fifty_digits(name):
    a, blocks = CASES[name]
    n = len(a)
    x, b, way = RNG.uniform(10, 90, n), RNG.uniform(0, 5, n), np.abs(a) * RNG.uniform(0.5, 1, (n, n))

    def step(given, h):
        return jax.jvp(lambda a: linear.closed_form(a, given, h, jnp.asarray(x), blocks), (jnp.asarray(a),), (jnp.asarray(way),))

    cases = [(g, h) for g in (b, 0 * b) for h in (1e-6, 0.02, 1.0, 30.0, 400.0)]
    with jax.enable_x64(True):
        values, slopes = jax.jit(jax.vmap(step))(jnp.array([g for g, _ in cases]), jnp.array([h for _, h in cases]))
    for (given, h), value, slope in zip(cases, values, slopes, strict=True):
        size = np.abs(x).max() + np.abs(given).max() * h
        np.testing.assert_allclose(value, exactly(a, given, h, x), rtol=1e-11, atol=1e-13 * size)
        np.testing.assert_allclose(slope, exactly(a, given, h, x, way), rtol=1e-10, atol=1e-12 * size)


@pytest.mark.parametrize("flow", [None, 10.0])
def test_rates_that_are_far_apart_keep_their_digits(flow):
    """A millionth of a second beside a year: with the slowest eigenvalue first nothing was left of the answer."""
    a, b, x = np.diag([-1e9, -1.0, -1e-4]) + np.diag([1e9, 1.0], -1), np.array([flow or 0.0, 0, 0]), np.array([100.0, 0, 0])
    with jax.enable_x64(True):
        for h in (0.01, 2.0, 24.0):
            found = linear.closed_form(jnp.array(a), None if flow is None else jnp.array(b), h, jnp.array(x), ((0,), (1,), (2,)))
            wanted = exactly(a, b, h, x)
            np.testing.assert_allclose(found[1:], wanted[1:], rtol=1e-6)
            assert abs(found[0] - wanted[0]) < 1e-4


def test_groups_are_read_off_the_graph():
    assert linear.blocks_of(OneCompartment().spec) == ((0,),)
    assert linear.blocks_of(OneCompartmentOral().spec) == ((0,), (1,))
    assert linear.blocks_of(TwoCompartment().spec) == ((0, 1),)


class Swing(ht.System):
    """An oscillator: dx/dt = w y, dy/dt = -w x."""

    time = "h"

    class State(ht.State):
        x: Scalar = ht.state("1", positive=False)
        y: Scalar = ht.state("1", positive=False)

    w: Scalar = ht.parameter(ht.lognormal(2.0, 0.1), "1/h", "frequency")

    def rates(self, t, x, u):
        return self.State(x=self.w * x.y, y=-self.w * x.x)

    def initial(self, u):
        return self.State(x=1.0, y=0.0)


def test_what_may_oscillate_takes_the_matrix_exponential():
    import hybridtwin as public

    assert linear.blocks_of(Swing().spec) is None and Exact.of(Swing().spec).blocks is None
    person = public.Person.of("p", start=0.0, stop=3.0, time="h")
    found = public.simulate(Swing(w=2.0), person, at=[1.0, 3.0])
    np.testing.assert_allclose(found["x"][0], np.cos([2.0, 6.0]), atol=1e-12)


class Feeds(ht.System):
    """Two states that are declared positive, as states are, but feed back on each other."""

    time = "h"

    class State(ht.State):
        x: Scalar = ht.state("1")
        y: Scalar = ht.state("1")

    gain: Scalar = ht.parameter(ht.lognormal(2.0, 0.1), "1/h")
    back: Scalar = ht.parameter(ht.lognormal(2.0, 0.1), "1/h")

    def rates(self, t, x, u):
        return self.State(x=-self.back * x.y, y=self.gain * x.x)

    def initial(self, u):
        return self.State(x=1.0, y=0.0)


def test_positive_states_that_oscillate_are_seen_in_a_few_bodies():
    import hybridtwin as public

    assert Exact.of(Feeds().spec).blocks is None
    person = public.Person.of("p", start=0.0, stop=3.0, time="h")
    found = public.simulate(Feeds(gain=2.0, back=2.0), person, at=[1.0, 3.0])
    np.testing.assert_allclose(found["x"][0], np.cos([2.0, 6.0]), atol=1e-12)


def test_what_exact_steps_cannot_cross_is_crossed_by_others():
    """Rates of 1e7 an hour in four states: a matrix exponential of that norm has no digits, and says so."""
    import hybridtwin as public

    person = public.Person.of("p", start=0.0, stop=24.0, time="h", doses={"iv": public.Regimen.bolus(100.0, "mg", at=0.0)})
    found = public.simulate(Steep(), person, at=[1.0, 24.0])
    assert not found.failed.any() and found.error <= 1e-4 and found.solver.startswith("Exact()")
    np.testing.assert_allclose(found["d"][0], 100 * (1 - np.exp(-0.1 * np.array([1.0, 24.0]))), rtol=1e-4)


class Steep(ht.System):
    """A chain of four, whose first steps are fast."""

    time = "h"

    class State(ht.State):
        a: Scalar = ht.state("mg")
        b: Scalar = ht.state("mg")
        c: Scalar = ht.state("mg")
        d: Scalar = ht.state("mg")

    class Input(ht.Input):
        iv: Scalar = ht.dose("mg", into="a")

    fast: Scalar = ht.constant(1e7, "1/h")
    slow: Scalar = ht.constant(0.1, "1/h")

    def rates(self, t, x, u):
        one, two, three = self.fast * x.a, self.fast * x.b, self.slow * x.c
        return self.State(a=-one, b=one - two, c=two - three, d=three)


def test_a_group_of_two_that_oscillates_after_all_is_not_answered():
    with jax.enable_x64(True):
        a = jnp.array([[0.0, 1.0], [-1.0, 0.0]])
        assert np.isnan(linear.closed_form(a, jnp.zeros(2), jnp.asarray(1.0), jnp.ones(2), ((0, 1),))).any()


@pytest.mark.parametrize("name", CASES)
def test_where_nothing_flows_in_one_eigenvalue_less_gives_the_same(name):
    """Values and gradients with and without the eigenvalue 0 of a constant input that is 0."""
    a, blocks = CASES[name]
    x = np.array([3.0, 1.0, 2.0])[: len(a)]

    def taken(b):
        def value(a, h, x):
            return linear.closed_form(a, b, h, x, blocks)

        return jax.jit(lambda *numbers: (value(*numbers), *jax.jacfwd(value, (1, 2))(*numbers)))

    with jax.enable_x64(True):
        shorter, longer = taken(None), taken(np.zeros(len(a)))
        for h in (1e-6, 0.3, 4.0, 40.0):
            (value, *slopes), (other, *others) = shorter(a, h, x), longer(a, h, x)
            np.testing.assert_allclose(value, other, rtol=1e-10, atol=1e-13)
            for one, two in zip(slopes, others, strict=True):
                np.testing.assert_allclose(one, two, rtol=1e-9, atol=1e-12)


def test_what_flows_in_is_read_off_the_rates():
    class Made(ht.System):
        """Production and elimination."""

        time = "h"

        class State(ht.State):
            x: Scalar = ht.state("mg")

        k: Scalar = ht.parameter(ht.typical(0.3, cv=0.3), "1/h", "elimination")
        made: Scalar = ht.parameter(ht.typical(2.0, cv=0.3), "mg/h", "production")

        def rates(self, t, x, u):
            return self.State(x=self.made - self.k * x.x)

        def outputs(self, x, u):
            return {"x": ht.output(x.x, "mg")}

    for made in (OneCompartment, OneCompartmentOral, TwoCompartment):
        assert made().spec.unforced
    assert Made().spec.linear
    assert not Made().spec.unforced
    assert not Drip().spec.unforced  # a pump
