"""Lanes that fail: told by person, draw, time, state, reason and most unusual parameter; and none is wrong in silence."""

import functools

import jax
import numpy as np
import pytest
from conftest import benchmark
from small import Explodes, Saturable

from hybridtwin import sensors
from hybridtwin.inference.methods import Laplace
from hybridtwin.inference.personalize import personalize
from hybridtwin.model import Model
from hybridtwin.physiology import REGISTRY, Warfarin
from hybridtwin.priors import halfnormal, logitnormal, lognormal, normal, score
from hybridtwin.records import Person
from hybridtwin.signals import Dose, Regimen
from hybridtwin.simulate.course import MARKS, Course
from hybridtwin.simulate.events import Acts
from hybridtwin.simulate.failures import NO_REST, NOT_FINITE, REASONS, UNSETTLED
from hybridtwin.simulate.run import _compare
from hybridtwin.simulate.verb import simulate


def test_a_blow_up_is_told_with_its_time_and_its_parameter():
    person = Person.of("zoe", start=0.0, stop=1.0)
    found = simulate(Explodes(), person, at=[0.25, 0.5, 1.0], draws=60, key=0)
    a = found.parameters["a"]
    assert found.failures.total == 60 and np.array_equal(found.failures.draws, np.flatnonzero(found.failed))
    for row in found.failures:
        assert (row.person, row.state, row.parameter, row.masked) == ("zoe", row.state, "a", True)
        assert row.state in ("x", "y") and row.value == a[row.draw]
        assert row.sds == pytest.approx(np.log(a[row.draw] / 0.5) / 0.7)
        if row.reason == REASONS[NOT_FINITE]:
            assert 1 / row.value < row.time + 1e-9, "told before it happened"
    assert {row.reason for row in found.failures} <= {REASONS[NOT_FINITE], REASONS[UNSETTLED]}
    frame = found.failures.to_dataframe()
    assert len(frame) == len(found.failures) > 5 and {"person", "draw", "time", "state", "reason", "parameter"} <= set(frame)
    assert "60 draws left the finite numbers (NaN), such as zoe, draw" in repr(found)


def test_nothing_is_told_where_nothing_failed():
    found = simulate(Saturable(), Person.of("p", start=0.0, stop=6.0), at=[1.0, 5.0], draws=8, key=1)
    assert len(found.failures) == 0 and repr(found.failures) == "Failures: none" and found.failures.to_dataframe().empty


@pytest.mark.parametrize(("amount", "rests"), [(100.0, True), (1000.0, False)])
def test_a_steady_state_that_does_not_exist_is_no_number(amount, rests):
    """30 mg/h can be removed; 1,000 mg every 12 h never come to rest, whatever Newton's method stops at."""
    train = Regimen((Dose(2.0, amount, ii="12 h", ss=1),), "mg")
    found = simulate(Saturable(VM=30.0, V=30.0), Person.of("p", start=0.0, stop=24.0, doses={"iv": train}), at=[1.0, 2.0, 8.0])
    if rests:
        cycle = simulate(
            Saturable(VM=30.0, V=30.0), Person.of("p", start=0.0, stop=400.0,
            doses={"iv": Regimen.bolus(amount, "mg", at=2.0).every("12 h", times=33)}), at=[386.0], tol=1e-7,
        )  # fmt: skip
        assert found["amount"][0, 1] == pytest.approx(cycle["amount"][0, 0], rel=1e-4)
    else:
        row = found.failures[0]
        assert found.failed.all() and (row.reason, row.time, row.state) == (REASONS[NO_REST], 2.0, "amount")


def test_a_late_reading_of_what_has_decayed_loses_no_body():
    """Of a depot that empties in minutes 30 h later nothing is left, however wrong the logarithm of that nothing is."""
    person = Person.of("p", start=0.0, stop=40.0, doses={"oral": Regimen.bolus(100.0, "mg", at=1.0)})
    fast = Warfarin(ktr=lognormal(30.0, 0.3))
    found = simulate(fast, person, at=[38.0], draws=30, key=0)
    assert not found.failed.any() and np.isfinite(found["pca"]).all()


def test_two_wrong_solutions_that_agree_where_they_are_read_are_told_by_their_states():
    def made(states):
        marks = np.broadcast_to(np.asarray(states, float), (MARKS,)).reshape(1, 1, MARKS)
        size = np.array([[1.0, np.abs(marks).max()]])
        return [Course(np.ones((1, 1, 2)), Acts(*[np.zeros(1)] * 4), marks, size, np.zeros((1, 1)), np.full((1, 2), -1))]

    wild = (-1.0) ** np.arange(MARKS)
    assert _compare(made(wild), made(0.5 * wild)).error[0] > 1e-3
    assert _compare(made(wild), made((1 + 1e-6) * wild)).error[0] < 1e-7


@functools.cache
def doomed():
    """A twin of a model that explodes within the day for a part of its posterior."""
    person = Person.of("otto", start=0.0, stop=1.0, readings={"y": ([0.2, 0.4], [1.12, 1.3], "1")})
    model = Model(Explodes(), y=sensors.Gaussian("y", sd=0.3))
    return personalize(model, person, Laplace(draws=200, starts=2), key=0, progress=False)


@functools.cache
def doomed_fit():
    """Two readings that say little: some draws explode before the second."""
    person = Person.of("ida", start=0.0, stop=1.0, readings={"y": ([0.2, 1.0], [1.1, 2.0], "1")})
    model = Model(Explodes(), y=sensors.Gaussian("y", sd=3.0))
    return personalize(model, person, Laplace(draws=200, starts=2), key=0, progress=False).fits[0]


def test_twins_tell_their_failures():
    twin = doomed()
    found = twin.simulate()
    assert found.failed.any() and np.array_equal(found.failures.draws, np.flatnonzero(found.failed))
    row = found.failures[0]
    assert (row.person, row.structure, row.parameter) == ("otto", "Explodes", "a") and row.sds > 0
    assert "could not be solved and are left out" in repr(found) and "otto, draw" in repr(found)


def test_a_fit_tells_its_failures():
    fit = doomed_fit()
    assert fit.stats["failed"] == pytest.approx(len(fit.failures) / fit.count) and fit.failures.total == fit.count
    row = fit.failures[0]
    assert (row.person, row.state, row.parameter, row.structure) == ("ida", "y", "a", "Explodes") and row.sds > 1
    assert row.value * 1.0 > 0.9 and "left the finite numbers" in repr(fit) and "of them failed" in repr(fit)


def test_score_is_the_rank_of_a_value_in_its_prior():
    assert score(lognormal(2.0, 0.5), 2.0 * np.exp(1.0)) == pytest.approx(2.0)
    assert score(normal(1.0, 2.0), -3.0) == pytest.approx(-2.0)
    assert score(logitnormal(0.3, 0.8), 1 / (1 + np.exp(-(np.log(0.3 / 0.7) + 0.8)))) == pytest.approx(1.0, abs=1e-6)
    assert score(halfnormal(2.0), 2.0 * 0.6744897501960817) == pytest.approx(0.0, abs=1e-6)
    assert score(lognormal(2.0, 0.5), 0.0) == -np.inf


# ------------------------------------------------------------------------------------------------- fuzz


_CIRCULATION = pytest.param("Zenker2007", marks=pytest.mark.heavy)


@pytest.mark.parametrize("name", ["BergmanMinimal", "OneCompartmentOral", "Warfarin", _CIRCULATION])
def test_no_silent_wrong_lane(name):
    """The quick version of `python -m benchmarks.fuzz`."""
    row, _ = benchmark("fuzz").fuzz(name, 128, 2.0, 0.02)
    assert row["missed"] == 0 and row["flagged"] <= 0.05 * 128 and row["false_alarms"] <= 0.01 * 128
    assert row["worst_shown"] < 1e-3 and row["reference_off"] < 1e-7


def test_the_fuzz_uses_every_dose_of_every_system():
    fuzz = benchmark("fuzz")
    for system in REGISTRY.values():
        person = fuzz.record(system())
        assert set(person.bind(system.spec).inputs) >= set(system.spec.doses) and set(person.regimens) == set(system.spec.doses)
    prior = fuzz.widened(REGISTRY["Warfarin"]().priors()["emax"], 2.0)
    with jax.enable_x64(True):
        drawn = np.asarray(prior.sample(jax.random.key(0), (4000,)))
    assert np.std(np.log(drawn / (1 - drawn))) == pytest.approx(2 * 0.380353, rel=0.1)
