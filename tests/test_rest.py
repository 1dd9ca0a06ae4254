"""Where a body rests: found where no formula says it, differentiable, refused where there is none."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from small import ORAL, Drip, oral_person

import hybridtwin.system as ht
from hybridtwin.errors import DeclarationError, InterventionError
from hybridtwin.inference.methods import Laplace
from hybridtwin.inference.personalize import personalize
from hybridtwin.model import Model
from hybridtwin.physiology import REGISTRY, Forger99, Hall2011, T1DDay, T1DMinimal, Zenker2007
from hybridtwin.records import Person
from hybridtwin.sensors import Gaussian
from hybridtwin.signals import Signal
from hybridtwin.simulate.verb import simulate
from hybridtwin.system import Scalar
from hybridtwin.worlds import Day

RESTLESS = {
    "a rhythm of its own": {"Forger99", "Jewett99", "Hilaire07", "Breslow13", "Breslow13Stepped", "Hannay19", "Hannay19TP",
                            "Skeldon23", "Skeldon23Stepped", "TwoProcess"},
    "a rhythm of the day": {"Bangsgaard2017", "CruzLoya2022"},
    "a heart that beats": {"Smith2004"},
    "a tumor that grows or shrinks": {"Chemotherapy", "Geng2017", "Geng2017Daily", "Claret2009", "Simeoni2004"},
}  # fmt: skip


class Accrues(ht.System):
    """dA/dt = k: what goes in stays, and nothing rests."""

    time = "h"

    class State(ht.State):
        A: Scalar = ht.state("mg", "amount")

    k: Scalar = ht.parameter(ht.lognormal(1.0, 0.1), "mg/h", "what goes in")
    A0: Scalar = ht.parameter(ht.lognormal(2.0, 0.1), "mg", "amount at the first row", initial=True)

    def rates(self, t, x, u):
        return self.State(A=self.k)

    def initial(self, u):
        return self.State(A=self.A0)

    def outputs(self, x, u):
        return {"y": ht.output(x.A, "mg")}


def quiet(name, **signals):
    """Nothing happens: the system's covariates, and these signals."""
    protocol = REGISTRY[name].protocol
    return Person.of("p", start=0.0, stop=60.0, time=REGISTRY[name].spec.time, covariates=protocol.covariates, signals=signals)


def test_only_what_says_so_has_no_rest():
    found = {}
    for name in REGISTRY:
        if (why := REGISTRY[name].spec.restless) is not None:
            found.setdefault(why, set()).add(name)
    assert found == RESTLESS


@pytest.mark.heavy
def test_a_circulation_at_rest_stays_there_with_all_its_blood():
    found = simulate(Zenker2007().typical(), quiet("Zenker2007"), at=[0.0, 10.0, 60.0], start="steady")
    np.testing.assert_allclose(found["Pa"][0], found["Pa"][0, 0], rtol=1e-9)
    np.testing.assert_allclose(found["Va"] + found["Vv"], 4825.0, rtol=1e-9)
    later = simulate(Zenker2007().typical(), quiet("Zenker2007"), at=[3600.0])  # where it comes to by itself
    assert found["Pa"][0, 0] == pytest.approx(later["Pa"][0, 0], rel=1e-4)


@pytest.mark.heavy
def test_bodies_that_come_to_no_rest_are_named():
    bleeds = quiet("Zenker2007", bleeding=Signal.constant(1.0, "mL/s"))
    found = simulate(Zenker2007(), bleeds, at=[0.0, 10.0], start="steady", draws=3, key=0)
    assert found.failed.all() and np.isnan(found["Pa"]).all()
    assert all(row.reason == "came to no steady state" and row.time == 0.0 for row in found.failures)
    free = simulate(Accrues(), Person.of("p", start=0.0, stop=1.0), at=[0.0], start="steady", draws=3, key=0)
    assert free.failed.all()


@pytest.mark.parametrize("path", ["Pset", "blood", "Wmax"])
def test_the_derivative_of_a_rest_is_that_of_the_implicit_function(path):
    """Forward and backward against differences; `blood` is of the first row and is conserved, so the rest depends on it."""
    body, spec = Zenker2007().typical(), Zenker2007.spec
    with jax.enable_x64(True):
        u = spec.input({})

        def rest(value):
            return ravel_pytree(body.with_values({path: value}).steady(u))[0]

        rest = jax.jit(rest)
        at = jnp.asarray(body.values()[path], float)
        difference = (np.asarray(rest(at * (1 + 1e-5))) - np.asarray(rest(at * (1 - 1e-5)))) / (2e-5 * float(at))
        forward, backward = jax.jacfwd(rest)(at), jax.jacrev(rest)(at)
    np.testing.assert_allclose(forward, difference, rtol=1e-5, atol=1e-7 * np.abs(difference).max())
    np.testing.assert_allclose(forward, backward, rtol=1e-9, atol=1e-12)


@pytest.mark.heavy
def test_weight_rests_where_a_diet_leads():
    """The rest is where the published equations come to after a century."""
    diet = quiet("Hall2011", energy=Signal.constant(-239.0, "kcal/d"))
    found = simulate(Hall2011().typical(), diet, at=[0.0], start="steady")["weight"][0, 0]
    assert found == pytest.approx(simulate(Hall2011().typical(), diet, at=[36500.0])["weight"][0, 0], abs=1e-3)
    assert 75.0 < found < 85.0


def test_a_day_with_diabetes_rests_at_the_sensitivity_of_its_hour():
    body = T1DDay(swing=0.0).typical()
    signals = {"basal": Signal.constant(1.2, "[IU]/h"), "intensity": Signal.constant(20.0, "%")}
    found = simulate(body, quiet("T1DDay", **signals), at=[0.0, 30.0, 60.0], start="steady")
    np.testing.assert_allclose(found["G"], found["G"][0, 0], rtol=1e-7)
    np.testing.assert_allclose(found["body.insulin.I"], found["body.insulin.I"][0, 0], rtol=1e-7)
    assert found["clock.x"][0, 2] != found["clock.x"][0, 0]


def test_the_rest_keeps_the_parameters_it_depends_on():
    """`blood` decides the rest of a circulation; glucose of the first row does not decide that of a body with diabetes."""
    assert Zenker2007.spec.forgotten == frozenset() and "blood" in {
        site.name for site in Model(Zenker2007(), start="steady", Pa=Gaussian("Pa", sd=3.0)).sites({}, 0, 0)
    }
    sites = {site.name for site in Model(T1DMinimal(), start="steady", cgm=Gaussian("G", sd=8.0)).sites({}, 0, 0)}
    assert not sites & {"G0", "cob", "iob"} and T1DMinimal.spec.forgotten == {"G0", "cob", "iob"}


def test_steady_is_refused_where_nothing_rests():
    with pytest.raises(DeclarationError, match=r"Forger99 has no rest: a rhythm of its own\. Leave start= out"):
        simulate(Forger99().typical(), quiet("Forger99"), start="steady")
    with pytest.raises(DeclarationError, match="has no rest"):
        Model(Forger99(), start="steady", x=Gaussian("x", sd=0.1))

    class Timed(ht.System):
        """dx/dt = t: the same at no two times."""

        time = "h"

        class State(ht.State):
            x: Scalar = ht.state("h^2", "square of the time")

        k: Scalar = ht.parameter(ht.lognormal(1.0, 0.1), "1", "slope")

        def rates(self, t, x, u):
            return self.State(x=self.k * t)

        def outputs(self, x, u):
            return {"y": ht.output(x.x, "h^2")}

    assert Timed.spec.restless == "its rates change with the time"
    assert Drip.spec.restless is None


def test_another_day_begins_at_rest_or_says_that_there_is_none():
    clock = Model(Forger99(), x=Gaussian("x", sd=0.1))
    day = Person.of("p", start=0.0, stop=24.0)
    left = Day.another(clock, day, None)
    assert left.start == "model" and "Forger99 has no rest (a rhythm of its own)" in left.told[0]
    assert Day.another(clock, day, "free").told == ()
    with pytest.raises(InterventionError, match=r"has no rest: a rhythm.*free"):
        Day.another(clock, day, "steady")
    assert Day.another(ORAL, oral_person(), None).start == "steady"
    resting = Model(T1DMinimal(), start="steady", cgm=Gaussian("G", sd=8.0))
    with pytest.raises(InterventionError, match="nothing is known of G0"):
        Day.another(resting, quiet("T1DMinimal"), "free")


def test_a_twin_of_a_clock_goes_on_another_day():
    times = np.arange(1.0, 47.0, 3.0)
    clock = Forger99().typical()
    lit = {"light": Signal.steps([0.0, 7.0, 23.0], [0.0, 150.0, 0.0], "lux")}
    record = Person.of("p", start=0.0, stop=48.0, signals=lit)
    seen = simulate(clock, record, at=times)["x"][0]
    twin = personalize(Model(Forger99(), x=Gaussian("x", sd=0.05)), Person.of("p", start=0.0, stop=48.0, signals=lit, readings={
        "x": (times, seen, "1")}), Laplace(draws=40, starts=2), key=0, progress=False)  # fmt: skip
    other = twin.on(Person.of("p", start=0.0, stop=24.0, signals=lit))
    found = other.simulate(at=[0.0, 12.0])
    assert np.isfinite(found["x"]).all() and any("has no rest" in note for note in (*found.notes, *other.notes))
    free = twin.on(Person.of("p", start=0.0, stop=24.0, signals=lit), start="free").simulate(at=[0.0, 12.0])
    np.testing.assert_array_equal(found["x"], free["x"])
