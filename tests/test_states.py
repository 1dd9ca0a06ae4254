"""States that are set once, and states that follow their course in another world: against closed forms on every draw."""

import jax.numpy as jnp
import numpy as np
import pytest
from small import drip_person, drip_twin, mesh_twin, oral_person
from test_twin import PUSH, body, closed_form

import hybridtwin as ht
from hybridtwin.errors import InterventionError, UnrelatedTwins
from hybridtwin.interventions import Do
from hybridtwin.physiology import OneCompartmentOral

AFTER = np.array([10.0, 12.5, 17.0, 23.5])
LATER = {"boluses": [(17.0, 120.0)], "push": PUSH, "at": AFTER, "start": 10.0}


def amount(twin, at):
    return twin.simulate(at=[at])["C"][:, 0] * body(twin)["V"]


SETTINGS = {
    "a number": (lambda t: 200.0, lambda t: 200.0),
    "another unit": (lambda t: (0.2, "g"), lambda t: 200.0),
    "a function": (lambda t: lambda old: jnp.maximum(old - 50.0, 10.0), lambda t: np.maximum(amount(t, 10.0) - 50, 10)[:, None]),
    "one number a draw": (lambda t: np.linspace(50, 300, 100), lambda t: np.linspace(50, 300, 100)[:, None]),
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_state_set_once_goes_on_by_its_own_equation(setting):
    given, then = SETTINGS[setting]
    lived = drip_twin()
    graft = lived.do(amount=ht.once(given(lived)), start="10:00")
    push = [(10.0, 10.0), *PUSH[1:]]
    expected = closed_form(**body(lived), **{**LATER, "push": push}, at_start=then(lived))
    np.testing.assert_allclose(graft.simulate(at=AFTER)["C"], expected, rtol=1e-8)
    np.testing.assert_array_equal(graft.simulate(at=[9.5])["C"], lived.simulate(at=[9.5])["C"])
    assert "set once" in graft.label and graft.world().onset == 10.0


def test_a_state_is_set_before_the_dose_of_the_same_moment():
    lived = drip_twin()
    found = lived.do(amount=ht.once(0.0), start=9.0).simulate(at=[9.0])["C"][:, 0]
    np.testing.assert_allclose(found, 120.0 / body(lived)["V"], rtol=1e-8)


def test_setting_a_state_to_what_it_is_changes_nothing():
    """On the mesh, where a node more moves the solution by no more than its tolerance."""
    lived = mesh_twin()
    same = lived.do(amount=ht.once(lambda old: old), start=3.0)
    effect = ht.contrast(same, lived, ht.outcomes.mean("C"))
    assert np.all(effect[0].difference == 0.0)


def test_a_dose_with_a_lag_arrives_after_the_state_was_set():
    """A moving dose is inserted between nodes; the state is set once and not again there."""
    system = OneCompartmentOral(ka=1.0, CL=3.0, V=30.0, tlag=0.5)
    given = [Do({"central": ht.once(100.0)}, 2.0), Do({"depot": ht.once(0.0)}, 2.0)]
    found = ht.simulate(system, oral_person(), at=[1.9, 2.0, 5.0], do=given)["C"][0]
    np.testing.assert_allclose(found[1:], 100.0 / 30.0 * np.exp(-0.1 * np.array([0.0, 3.0])), rtol=1e-6)
    late = [Do({"central": ht.once(0.0)}, 0.25)]
    np.testing.assert_allclose(ht.simulate(system, oral_person(), at=[5.0], do=late)["C"],
                               ht.simulate(system, oral_person(), at=[5.0])["C"], rtol=1e-6)  # fmt: skip


def test_what_cannot_be_set_is_refused():
    lived = drip_twin()
    for made, told in (
        (lambda: lived.do(amount=ht.once(1.0)), "Say when"),
        (lambda: lived.do(amount=ht.once(1.0), start=3.0, stop=4.0), "leave stop= out"),
        (lambda: lived.do(amount=ht.once("much"), start=3.0), "cannot be set"),
        (lambda: lived.do(amount=ht.once(np.ones((2, 2))), start=3.0), "cannot be set"),
        (lambda: lived.do(amount=ht.once(np.ones(7)), start=3.0).simulate(), "7 numbers, but there are 100"),
    ):
        with pytest.raises(InterventionError, match=told):
            made()
    other = ht.personalize(ht.Model(OneCompartmentOral(tlag=0.1), C=ht.sensors.LogNormal("C", sd=0.15)), oral_person(),
                           ht.Laplace(draws=20, starts=1), key=0, progress=False)  # fmt: skip
    with pytest.raises(UnrelatedTwins, match="same twin"):
        lived.do(amount=ht.as_in(other))


# --------------------------------------------------------------------------------- held to a course in another world


def oral_twin():
    model = ht.Model(OneCompartmentOral(tlag=0.1), C=ht.sensors.LogNormal("C", sd=0.15))
    return ht.personalize(model, oral_person(), ht.Laplace(draws=64, starts=2), key=0, progress=False)


def test_direct_and_indirect_effects_add_up():
    """Clearance acts on the plasma directly; the dose only through the depot: its direct effect is none, draw by draw.

    Doses arrive late, in front of and behind which the course is looked at, so that jumps are where they were.
    """
    lived = oral_twin()
    both = lived.do(oral=lambda d: 2.0 * d, CL=lambda v: 1.5 * v)
    direct = both.do(depot=ht.as_in(lived))
    at = np.array([0.05, 1.0, 4.0, 9.0, 20.0])
    alone = lived.do(CL=lambda v: 1.5 * v).simulate(at=at)["C"]
    np.testing.assert_allclose(direct.simulate(at=at)["C"], alone, rtol=1e-4, atol=1e-5 * alone.max())
    only = lived.do(CL=lambda v: 1.5 * v).do(depot=ht.as_in(both))
    np.testing.assert_allclose(only.simulate(at=at)["C"], both.simulate(at=at)["C"], rtol=1e-4, atol=1e-5 * alone.max())


@pytest.mark.heavy
def test_a_lag_of_every_draws_own():
    """The same where the lag is inferred, so that no two draws have a jump at one time."""
    model = ht.Model(OneCompartmentOral(), C=ht.sensors.LogNormal("C", sd=0.15))
    lived = ht.personalize(model, oral_person(), ht.Laplace(draws=24, starts=2), key=0, progress=False)
    assert len(np.unique(lived.fits[0].values["tlag"])) == 24
    double = lived.do(oral=lambda d: 2.0 * d)
    at = np.array([0.3, 1.0, 4.0, 9.0, 20.0])
    plain = lived.simulate(at=at)["C"]
    np.testing.assert_allclose(double.do(depot=ht.as_in(lived)).simulate(at=at)["C"], plain, rtol=1e-4, atol=1e-5 * plain.max())
    past = ht.path_effect(double, lived, ht.outcomes.auc("C"), through="depot")
    assert np.abs(past.draws["direct"]).max() < 1e-4 * past.draws["total"].max()


def test_a_state_held_to_its_own_course_is_where_it_was():
    """With the jumps of three boluses in it."""
    lived = drip_twin()
    at = np.array([0.5, 1.0, 8.99, 9.0, 12.0, 20.0])
    found = lived.do(amount=ht.as_in(lived)).simulate(at=at)["C"]
    np.testing.assert_allclose(found, lived.simulate(at=at)["C"], rtol=3e-5)
    half = lived.do(amount=ht.as_in(lived.do(iv=lambda b: 0.5 * b)), start=8.0, stop=14.0)
    inside = half.simulate(at=[9.0, 13.9])["C"]
    np.testing.assert_allclose(inside, lived.do(iv=lambda b: 0.5 * b).simulate(at=[9.0, 13.9])["C"], rtol=3e-5)
    np.testing.assert_allclose(half.simulate(at=[7.9])["C"], lived.simulate(at=[7.9])["C"], rtol=3e-5)
    assert "as in: " in half.label and drip_person().id == lived.id
