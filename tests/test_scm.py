"""The graph read off the equations, and a twin's day as a structural causal model for DoWhy: its counterfactuals are ours."""

import numpy as np
import pytest
from small import ORAL, drip_twin, mesh_twin, oral_person

import hybridtwin as ht
from hybridtwin.causal.graph import graph
from hybridtwin.causal.scm import scm
from hybridtwin.errors import DeclarationError, InterventionError, UnknownTarget
from hybridtwin.inference.methods import Laplace
from hybridtwin.inference.personalize import personalize
from hybridtwin.interventions import Rescue
from hybridtwin.physiology import T1DMinimal
from hybridtwin.signals import Regimen
from hybridtwin.twin import simulate_worlds

# ------------------------------------------------------------------------------------------------ the graph


def test_the_graph_is_read_off_the_equations():
    found = graph(ORAL)
    assert set(found.parents("central")) == {"CL", "V", "ka", "depot", "iv"}
    assert set(found.parents("depot")) == {"ka", "F", "tlag", "oral"}
    assert found.parents("reading of C") == ("C", "error of C", "C.sd")
    assert found.ancestors("C") == {"CL", "V", "ka", "F", "tlag", "oral", "iv", "depot", "central"}
    assert "depot" not in found.descendants("iv") and "reading of C" in found.descendants("oral")
    assert "error of C" in found.exogenous and found.acyclic
    assert found.nodes["CL"].unit == "L/h" and found.nodes["CL"].kind == "parameter"
    assert found.to_networkx().number_of_edges() == len(found.edges)
    with pytest.raises(UnknownTarget, match="no node"):
        found.parents("centrall")
    with pytest.raises(DeclarationError, match="graph of what"):
        graph(3)


def test_states_that_answer_to_each_other_make_a_cycle_and_time_undoes_it():
    found = graph(ht.physiology.Windkessel4())
    whole = graph(ht.physiology.Zenker2007())
    assert not whole.acyclic and "with cycles" in repr(whole)
    for g in (found, whole):
        over = g.unrolled(3)
        assert over.acyclic and len(over.times) == 3
        assert not any(over.nodes[a].step is not None and over.nodes[b].step < over.nodes[a].step for a, b in over.edges)


def test_between_moments_a_state_answers_to_all_that_reaches_it():
    over = graph(ORAL).unrolled(["08:00", "09:00", "10:00"], given={"oral": [0], "iv": []})
    assert set(over.parents("central[1]")) == {"central[0]", "depot[0]", "CL", "V", "ka", "F", "tlag", "oral[0]"}
    assert set(over.parents("depot[1]")) == {"depot[0]", "ka", "F", "tlag", "oral[0]"}
    assert over.parents("depot[0]") == () and set(over.parents("C[2]")) == {"central[2]", "V"}
    rest = graph(ht.Model(T1DMinimal(), start="steady", cgm=ht.sensors.CGM("G_isf"))).unrolled(2)
    assert {"SI", "SG", "VG", "basal[0]"} <= set(rest.parents("G[0]")), "at rest a state answers to all that moves it"
    with pytest.raises(DeclarationError, match="two moments"):
        graph(ORAL).unrolled(1)


def test_the_graph_of_a_twin_shows_what_was_done():
    lived = drip_twin()
    held = graph(lived.do(amount=100.0, respond=Rescue("C", 3.0, "mg/L", "iv", 60.0, "mg")))
    assert held.nodes["amount"].done and held.parents("rule 1") == ("C",) and "rule 1" in held.parents("amount")
    assert "CL" not in held.parents("amount") and "CL" in graph(lived).parents("amount")
    part = graph(lived.do(amount=100.0, start=8.0, stop=9.0))
    assert "CL" in part.parents("amount"), "held for a while only"
    for text in (held.mermaid(), held.svg(), held._repr_html_()):
        assert "rule 1" in text and "amount" in text
    assert graph(ORAL).unrolled(3).svg().count("<rect") == len(graph(ORAL).unrolled(3).nodes)


# ------------------------------------------------------------------------------------------------ DoWhy


def late_twin():
    """A dose by mouth just before a moment, whose lag passes it."""
    found = personalize(ORAL, oral_person(), Laplace(draws=40, starts=2), key=0, progress=False)
    return found.do(oral=lambda lived: Regimen.bolus(320.0, "mg", at=2.95) + lived)


WORLDS = {
    "a pump": (drip_twin, [6.0, 12.0, 24.0],
               {"iv #2": 60.0, "amount[2]": lambda a: a + 50, "push[0]": 4.0, "CL": lambda v: 1.2 * v},
               lambda t: (t.do(iv=lambda b: 0.5 * b, start=8, stop=10).do(amount=ht.once(lambda a: a + 50), start=12)
                          .do(push=4.0, stop=6.0).do(CL=lambda v: 1.2 * v))),
    "saturable": (mesh_twin, [3.0, 6.0, 12.0], {"iv #2": 100.0, "amount[1]": lambda a: 0.5 * a},
                  lambda t: t.do(iv=lambda b: 0.5 * b, start=5).do(amount=ht.once(lambda a: 0.5 * a), start=3)),
    "a lag over a moment": (late_twin, [3.0, 6.0, 24.0], {"oral #2": 640.0, "central[2]": 1.0},
                            lambda t: t.do(oral=lambda b: 2.0 * b, start=2).do(central=ht.once(1.0), start=6)),
}  # fmt: skip


@pytest.mark.parametrize("world", WORLDS)
def test_counterfactuals_of_dowhy_are_ours(world):
    """`dowhy.gcm.counterfactual_samples` on our noise: the lived day and another one, states and outcomes, draw by draw."""
    made, moments, acts, done = WORLDS[world]
    twin = made()
    asked = ht.outcomes.peak("C", moments[0], moments[-1]), ht.outcomes.auc("C")
    found = scm(twin, moments, *asked, tol=1e-8)
    reads = found.flow.reads()
    for table, ours in ((found.data, twin), (found.counterfactual(acts), done(twin))):
        course = simulate_worlds([ours], at=reads, tol=1e-8)[0]
        for outcome in found.outcomes:
            np.testing.assert_allclose(table[outcome.label], outcome.of(course), rtol=1e-6)
        last = simulate_worlds([ours], at=[moments[-1]], tol=1e-8)[0]["C"][:, 0]
        np.testing.assert_allclose(table[f"C[{len(moments)}]"], last, rtol=1e-6)
    assert found.graph.acyclic and found.left_out == ()


def test_what_the_scm_says_of_itself():
    found = scm(drip_twin(), [6.0, 9.0], ht.outcomes.mean("C", 6, 9))
    assert found.left_out == () and "100 draws of the posterior" in repr(found)
    parents = set(found.graph.parents("mean C"))
    assert parents == {"CL", "V", "amount[1]", "push", "weight"}, "the dose at 1:00 acts through the state, that of 9:00 not yet"
    assert found.graph.parents("CL") == ("body",) and scm(drip_twin(), [6.0], prior=True).graph.parents("CL") == ()
    changing = drip_twin().do(push=lambda s: 2.0 * s, start=7.0)
    assert scm(changing, [6.0, 9.0]).left_out == ("push",)


def test_a_day_that_goes_on_from_another_begins_with_its_draws():
    lived = drip_twin()
    after = lived.forecast("6 h", iv=Regimen.bolus(90.0, "mg", at=26.0))
    found = scm(after, [27.0, 30.0])
    np.testing.assert_allclose(found.data["amount[0]"], lived.last_state()["amount"], rtol=1e-12)
    np.testing.assert_allclose(found.data["C[1]"], after.simulate(at=[27.0])["C"][:, 0], rtol=1e-6)


def test_worlds_that_remember_more_than_their_states_are_refused():
    lived = drip_twin()
    with pytest.raises(InterventionError, match="another world"):
        scm(lived.do(amount=ht.as_in(lived)), [6.0])
    with pytest.raises(InterventionError, match="inside the day"):
        scm(lived, [30.0])
    with pytest.raises(InterventionError, match="after the last moment"):
        scm(lived, [6.0], ht.outcomes.mean("C"))
    found = scm(lived, [6.0])
    with pytest.raises(UnknownTarget, match="no node"):
        found.counterfactual({"amount": 3.0})
    with pytest.raises(InterventionError, match="no cause"):
        found.mechanism("iv #1")


def test_dowhy_attributes_an_anomaly_to_what_was_changed():
    """A sick afternoon (100 mg more in the body at 6:00 than its causes say) is told from all other causes."""
    from dowhy import gcm

    found = scm(drip_twin(), [6.0, 9.0], ht.outcomes.mean("C", 6, 9))
    odd = found.counterfactual({"amount[1]": lambda a: a + 100.0}).iloc[[0]]
    one = gcm.shapley.ShapleyConfig(n_jobs=1)
    gcm.config.disable_progress_bars()
    blame = gcm.attribute_anomalies(found.model, "mean C", odd, num_distribution_samples=100, shapley_config=one)
    blame = {name: float(np.ravel(v)[0]) for name, v in blame.items()}
    assert max(blame, key=blame.__getitem__) == "amount[1]" and blame["amount[1]"] > 10 * abs(blame["CL"] + 1e-9)


@pytest.mark.heavy
def test_dowhy_finds_what_changed_in_a_population_and_what_its_spread_rests_on():
    """Clearance half as high again in everybody: `distribution_change` gives it nearly all of the fall.

    `intrinsic_causal_influence` gives parts of the spread to parameters alone, and `falsify_graph` does not reject the graph.
    """
    from dowhy import gcm
    from dowhy.gcm.falsify import falsify_graph

    found = scm(drip_twin(), [6.0, 9.0], ht.outcomes.mean("C", 6, 9), prior=True)
    gcm.config.disable_progress_bars()
    gcm.util.general.set_random_seed(0)
    one = gcm.shapley.ShapleyConfig(n_jobs=1)

    def fall(old, new):
        return float(np.mean(new) - np.mean(old))

    fast = found.counterfactual({"CL": lambda v: 1.5 * v})
    change = gcm.distribution_change(found.model, found.data, fast, "mean C", difference_estimation_func=fall, shapley_config=one,
                                     num_samples=400)  # fmt: skip
    change = {name: float(np.ravel(v)[0]) for name, v in change.items()}
    whole = fall(found.data["mean C"], fast["mean C"])
    assert change["CL"] == pytest.approx(whole, rel=0.2)
    assert all(abs(v) < 0.1 * abs(whole) for name, v in change.items() if name != "CL")

    parts = gcm.intrinsic_causal_influence(found.model, "mean C", num_samples_randomization=150, num_samples_baseline=150,
                                           shapley_config=one, prediction_model=gcm.ml.create_linear_regressor())  # fmt: skip
    parts = {name: float(np.ravel(v)[0]) for name, v in parts.items()}
    assert min(parts["CL"], parts["V"]) > 0.1 * found.data["mean C"].var()
    assert all(abs(v) < 1e-9 for name, v in parts.items() if name not in ("CL", "V"))

    shown = ["CL", "V", "amount[1]", "amount[2]", "mean C"]  # what does not vary tells nothing
    judged = falsify_graph(found.graph.to_networkx().subgraph(shown), found.data[shown], n_permutations=20, n_jobs=1)
    assert not judged.falsified
