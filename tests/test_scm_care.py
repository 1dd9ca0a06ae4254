"""A day with process noise, rules of care or switches as a structural causal model for DoWhy: its counterfactuals are ours."""

import functools

import numpy as np
import pytest
from small import drip_twin, mesh_twin
from test_lived_noise import K, S, model, person
from test_switches import Heated

import hybridtwin as ht
from hybridtwin.causal.scm import scm
from hybridtwin.dosing import Correct
from hybridtwin.errors import InterventionError
from hybridtwin.interventions import Rescue, Titrate, When
from hybridtwin.twin import simulate_worlds


def agree(twin, moments, acts, done, *outcomes, tol=1e-8):
    """`dowhy.gcm.counterfactual_samples` on our noise against `twin.do`, draw by draw: the lived day and another one."""
    found = scm(twin, moments, *outcomes, tol=tol)
    for table, ours in ((found.data, twin), (found.counterfactual(acts), done(twin))):
        course = simulate_worlds([ours], at=found.flow.reads(), tol=tol)[0]
        for outcome in found.outcomes:
            np.testing.assert_allclose(table[outcome.label], outcome.of(course), rtol=1e-6, atol=1e-9)
    assert found.graph.acyclic
    return found


# ------------------------------------------------------------------------------------------------ process noise


@functools.cache
def nora():
    return ht.personalize(model(), person(), ht.Laplace(draws=60, starts=2), key=0, progress=False)


def test_the_path_of_a_lived_day_belongs_to_the_draw():
    """Other doses and a state set by hand on each draw's own path; then one more standard deviation of noise in a stretch.

    dy = -k (y - m) dt + s dW: a path that goes one standard deviation farther over 3 h, evenly, adds s / sqrt(3 h) to the rate.
    """
    found = agree(nora(), [1.0, 4.0, 8.0], {"iv #1": 6.0, "y[2]": lambda y: y + 1.0},
                  lambda t: t.do(iv=lambda d: 2.0 * d).do(y=ht.once(lambda y: y + 1.0), start=4.0),
                  ht.outcomes.auc("y"), ht.outcomes.nadir("y", 4, 8))  # fmt: skip
    assert set(found.graph.parents("y[2]")) == {"y[1]", "m", "iv #1", "noise of y[1]", "body"}
    assert found.graph.nodes["noise of y[1]"].kind == "noise" and found.graph.parents("noise of y[1]") == ("body",)
    pushed = found.counterfactual({"noise of y[1]": lambda w: w + 1.0}) - found.data
    np.testing.assert_allclose(pushed["y[2]"], S / np.sqrt(3.0) * (1 - np.exp(-3.0 * K)) / K, rtol=1e-7)
    np.testing.assert_allclose(pushed["y[3]"], pushed["y[2]"] * np.exp(-4.0 * K), rtol=1e-6)
    assert (pushed["y[1]"] == 0).all()


@pytest.mark.heavy
def test_noise_of_the_prior_is_drawn_apart_from_parameters():
    """Pushes of stretches are independent standard normals, and what they leave of the path is one root beside parameters."""
    found = scm(nora(), [1.0, 4.0, 8.0], ht.outcomes.auc("y"), prior=True)
    assert {"noise", "noise of y[0]", "noise of y[1]", "noise of y[2]", "m", "y0"} <= set(found.graph.exogenous)
    assert set(found.graph.parents("y[2]")) == {"y[1]", "m", "iv #1", "noise of y[1]", "noise"}
    course = simulate_worlds([nora()], at=found.flow.reads(), prior=True, tol=1e-7)[0]
    np.testing.assert_allclose(found.data["AUC of y"], found.outcomes[0].of(course), rtol=1e-6)


def test_a_rough_path_of_another_day_is_refused():
    with pytest.raises(InterventionError, match="not lived"):
        scm(nora().forecast("4 h"), [10.0])


@pytest.mark.heavy
def test_dowhy_blames_the_noise_of_the_stretch():
    """An afternoon on which the noise went four standard deviations farther is told from every other cause."""
    from dowhy import gcm

    found = scm(nora(), [4.0, 8.0], ht.outcomes.at("y", 8.0), prior=True)
    odd = found.counterfactual({"noise of y[1]": 5.0}).iloc[[0]]
    gcm.config.disable_progress_bars()
    one = gcm.shapley.ShapleyConfig(n_jobs=1)
    blame = gcm.attribute_anomalies(found.model, found.outcomes[0].label, odd, num_distribution_samples=100, shapley_config=one)
    blame = {name: float(np.ravel(v)[0]) for name, v in blame.items()}
    assert max(blame, key=blame.__getitem__) == "noise of y[1]"


# ------------------------------------------------------------------------------------------------ rules of care

MG = ("iv", 40.0, "mg")
RULES = {
    "a wait that passes a moment": (When("C", below=(4, "mg/L"), give=MG, wait="90 min", at_most=16), {"wait", "acts"}),
    "each time it passes": (When("C", below=(4, "mg/L"), give=MG, at_most=16), {"armed", "acts"}),
    "a stop for good": (When("C", above=(9, "mg/L"), stop="iv"), {"armed"}),
    "a stop that ends": (When("C", above=(9, "mg/L"), stop="iv", until=(5, "mg/L")), {"armed", "acts"}),
    "a rescue": (Rescue("C", 4, "mg/L", "iv", 40, "mg", every="30 min", wait="2 h"), {"wait"}),
    "late and by a sensor": (Rescue("reading of C", 4, "mg/L", "iv", 40, "mg", every="50 min", wait="2 h", delay="40 min"),
                             {"wait", "seen"}),
    "titrated": (Titrate("reading of C", "iv", below=(5, "mg/L"), up=1.5, above=(9, "mg/L"), down=0.5, every="2 h", delay="1 h"),
                 {"factor", "seen"}),
    "corrected": (Correct("reading of C", "iv", above=(3, "mg/L"), to=2, per=(1, "mg/L"), give=(10, "mg"), wait="1 h"), {"wait"}),
}  # fmt: skip


@pytest.mark.heavy
@pytest.mark.parametrize("rule", RULES)
def test_care_between_moments_is_part_of_the_flow(rule):
    """Course and doses given, with another dose and half the amount at 3:00, rules reacting."""
    made, parts = RULES[rule]
    cared = mesh_twin().do(respond=made, start=0.0)
    found = agree(cared, [3.0, 6.0, 9.3, 12.0], {"iv #2": 100.0, "amount[1]": lambda a: 0.5 * a},
                  lambda t: t.do(iv=lambda d: 0.5 * d, start=5).do(amount=ht.once(lambda a: 0.5 * a), start=3),
                  ht.outcomes.auc("C"), ht.outcomes.nadir("C", 3, 12), ht.outcomes.given("iv", unit="mg"))  # fmt: skip
    assert {node.of.removeprefix("rule 1 ") for node in found.graph.nodes.values() if node.of.startswith("rule 1")} <= parts
    assert all(f"rule 1 {part}[1]" in found.graph.nodes for part in parts - {"seen"})


@pytest.mark.heavy
def test_two_rules_on_one_day_and_one_of_them_told_otherwise():
    """A rescue and a protocol for the pump; setting what the protocol remembers sets what the pump gives from then on."""
    rules = [When("C", below=(4, "mg/L"), give=MG, wait="5 h", at_most=16),
             Titrate("C", "push", below=(5, "mg/L"), up=1.5, above=(9, "mg/L"), down=0.5, every="24 h")]  # fmt: skip
    cared = drip_twin().do(respond=rules, start=0.0)
    found = agree(cared, [6.0, 12.0, 24.0], {"iv #2": 60.0}, lambda t: t.do(iv=lambda d: 0.5 * d, start=8, stop=10),
                  ht.outcomes.auc("C"), ht.outcomes.given("iv", unit="mg"))  # fmt: skip
    half = found.counterfactual({"rule 2 factor[2]": 0.5})
    known = drip_twin().do(push=lambda s: 0.5 * s, start=12.0).do(respond=rules[:1], start=0.0)
    course = simulate_worlds([known], at=found.flow.reads(), tol=1e-8)[0]
    np.testing.assert_allclose(half["AUC of C"], found.outcomes[0].of(course), rtol=1e-6)


def test_what_rules_remember_is_named_and_has_causes():
    cared = drip_twin().do(respond=Rescue("reading of C", 3.0, "mg/L", "iv", 60.0, "mg", every="2 h", delay="1 h"), start=0.0)
    found = scm(cared, [3.0, 6.0, 9.5])
    assert found.graph.nodes["rule 1 wait[1]"].kind == "policy" and found.graph.nodes["rule 1 wait[1]"].unit == "h"
    assert {"rule 1 wait[2]", "rule 1 seen[2]", "body"} <= set(found.graph.parents("amount[3]"))
    assert "rule 1 seen[1]" not in found.graph.nodes, "what is measured at 3:00 belongs to the stretch behind it"
    assert "rule 1 seen[2]" in found.graph.nodes, "measured at 5:00, looked at at 6:00"
    assert set(found.graph.parents("rule 1 wait[2]")) >= {"rule 1 wait[1]", "amount[1]", "CL", "V"}


# ------------------------------------------------------------------------------------------------ switches


@pytest.mark.heavy
def test_switches_act_inside_the_flow():
    """A room heated between two temperatures; the heating is switched off by hand at 5:00, and a window opened at 9:18."""
    day = ht.Person.of("room", start=0.0, stop=24.0, time="h", signals={"off": ht.Signal.constant(0.0, "1")},
                       readings={"T": ([1.0, 3.0, 6.0, 9.0], [18.6, 19.0, 18.5, 19.2], "1")})  # fmt: skip
    twin = ht.personalize(ht.Model(Heated(), T=ht.sensors.Gaussian("T", sd=0.3)), day, ht.Laplace(draws=40, starts=2), key=0,
                          progress=False)  # fmt: skip
    found = agree(twin, [5.0, 9.3, 24.0], {"on[1]": 0.0, "T[2]": lambda v: v - 1.0},
                  lambda t: t.do(on=ht.once(0.0), start=5.0).do(T=ht.once(lambda v: v - 1.0), start=9.3),
                  ht.outcomes.auc("T"), ht.outcomes.nadir("T", 5, 24))  # fmt: skip
    assert {"T[1]", "on[1]", "goes on acts[1]", "up", "down", "off"} <= set(found.graph.parents("T[2]"))
    assert (found.data["goes off acts[3]"] >= found.data["goes off acts[1]"]).all()
