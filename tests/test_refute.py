"""Is an effect identified, and does an answer survive attempts to refute it?"""

import dataclasses
import itertools

import networkx as nx
import numpy as np
import pytest
from small import CLOCK, DRIP, ORAL, drip_person, drip_twin, oral_person
from test_policies import DOSE, Flare, activity

import hybridtwin as ht
from hybridtwin.causal.identify import identify
from hybridtwin.causal.refute import Hidden, _placebo, refute
from hybridtwin.errors import DeclarationError, InterventionError, UnknownTarget
from hybridtwin.inference.methods import Laplace
from hybridtwin.inference.personalize import personalize
from hybridtwin.records import Person
from hybridtwin.signals import Dose, Regimen


@pytest.mark.parametrize(("how", "adjust"), [
    ({}, ()),
    ({"decided_by": ["reading of C"]}, ("reading of C[0]", "reading of C[1]")),
    ({"decided_by": ["weight"]}, ("weight[0]", "weight[1]")),
    ({"decided_by": ["C"]}, None),
    ({"decided_by": ["reading of C"], "hidden": {"illness": ["iv", "amount"]}}, None),
    ({"hidden": {"habit": ["iv"]}}, ()),
], ids=["randomized", "by readings", "by weight", "by the state itself", "hidden reason", "harmless reason"])  # fmt: skip
def test_an_effect_is_identified_where_its_reasons_are_recorded(how, adjust):
    found = identify(DRIP, "iv", "C", **how)
    assert found.identified == (adjust is not None)
    assert found.adjust_for == (adjust or ())
    assert ("NOT identified" in found.text) == (adjust is None)
    if adjust is None:
        assert found.open_paths[0][0] == "iv[1]" and found.open_paths[0][-1] == "C[2]"
        assert ("illness" in found.text) == ("hidden" in how)
    assert found.estimand.estimands.get("backdoor") is not None or adjust is None, "DoWhy's own answer"


def test_identification_agrees_with_every_subset_of_what_is_recorded():
    """Random hidden reasons: identified if and only if some subset of the recorded nodes separates (M-bias among them)."""
    rng = np.random.default_rng(0)
    answers = []
    for trial in range(8):
        acts = {f"U{i}": [*rng.choice(["weight", "amount", "CL", "push"], 2, replace=False), *["iv"][: rng.integers(2)]]
                for i in range(rng.integers(1, 4))}  # fmt: skip
        if trial == 0:
            acts = {"U0": ["iv", "weight"], "U1": ["weight", "amount"]}
        found = identify(DRIP, "iv", "C", hidden=acts, decided_by=list(rng.choice(["push", "reading of C"], 1)))
        over = found.graph.to_networkx()
        behind = over.copy()
        behind.remove_edges_from(list(over.out_edges("iv[1]")))
        after = found.graph.descendants("iv[1]") | {"iv[1]"}
        seen = [n for n, node in found.graph.nodes.items() if node.kind in ("input", "reading") and n not in after]
        sets = (set(s) for k in range(len(seen) + 1) for s in itertools.combinations(seen, k))
        assert found.identified == any(nx.is_d_separator(behind, {"iv[1]"}, {"C[2]"}, s) for s in sets), acts
        answers.append(found.identified)
    assert {True, False} == set(answers)


def test_an_instrument_is_named_and_is_no_identification():
    found = identify(Rota(), "iv", "C", hidden={"illness": ["iv", "A"]}, decided_by=["z"])
    assert not found.identified and found.instruments == ("z[1]",) and "an instrument, which would" in found.text
    found = identify(DRIP, "iv", "C", hidden={"illness": ["iv", "amount"], "rota": ["iv"]})
    assert not found.identified and found.instruments == (), "a reason that nobody recorded is no instrument"


def test_identification_refuses_what_is_no_question():
    with pytest.raises(UnknownTarget, match="no node"):
        identify(DRIP, "ivv", "C")
    with pytest.raises(DeclarationError, match="A treatment is an input"):
        identify(DRIP, "CL", "C")


def half(twin):
    return twin.do(iv=lambda b: 0.5 * b, start=8)


def test_an_answer_that_rests_on_readings_survives():
    lived = drip_twin()
    found = refute(half(lived), lived, ht.outcomes.mean("C", 12, 20), key=1, repeats=2, progress=False)
    names = ["negative control", "doses foretold", "placebo treatment", "random common cause", "subset"]
    assert [c.name for c in found.checks] == names
    assert found.part.level == "OK" and len(found.table) == 5, found.text
    again = refute(half(lived), lived, ht.outcomes.mean("C", 12, 20), key=1, repeats=2, progress=False)
    assert again.text == found.text, "same key, same trials"


def test_an_unrecorded_cause_is_told_by_the_amount_that_matters():
    """Each bolus came with a second one that nobody wrote down: the body is then larger, and the effect of a half smaller."""
    lived = drip_twin()
    hidden = Hidden("iv", (0.1, 60.0, 120.0), "mg")
    found = refute(half(lived), lived, ht.outcomes.mean("C", 12, 20), key=1, repeats=1, progress=False, hidden=hidden)
    check = found.checks[-1]
    assert check.name == "hidden cause" and check.tipping == 60.0 and check.level == "CAUTION" == found.part.level
    assert found.median < check.median < 0.0 and "60 mg would move the answer" in check.reason


def test_readings_that_do_not_see_the_treatment_do_not_speak_for_it():
    """All readings are before the only bolus: at a random time it suits them about as well."""
    source = drip_person()
    early = Person.of("early", start=0.0, stop=24.0, time=CLOCK, doses={"iv": Regimen.bolus(120.0, "mg", at=16.0)},
                      signals=dict(source.signals), readings={"C": ([0.5, 1.5], [0.15, 0.45], "mg/L")})  # fmt: skip
    twin = personalize(DRIP, early, Laplace(draws=60, starts=2), key=0, progress=False)
    found = refute(twin.do(iv=lambda b: 0.5 * b), twin, ht.outcomes.mean("C", 17, 22), key=1, repeats=3, progress=False)
    placebo = found.checks[2]
    assert placebo.level == "CAUTION" and "random times as well" in placebo.reason
    assert np.isfinite(found.median) and found.part.level != "OK"


def test_where_care_reacts_its_doses_are_the_treatment():
    """A rescue in one world only: what it gives is in question, though no recorded dose differs between the worlds."""
    lived = drip_twin()
    rescue = ht.Rescue("C", 3.0, "mg/L", "iv", 60.0, "mg", every="1 h", wait="4 h")
    found = refute(lived.do(respond=rescue), lived, ht.outcomes.mean("C", 12, 20), key=1, repeats=1, progress=False)
    assert found.checks[2].level == "OK" and "prefer iv as recorded" in found.checks[2].reason
    both = lived.do(respond=rescue)
    with pytest.raises(DeclarationError, match="no rule of care gives"):
        refute(both.do(CL=lambda v: 2.0 * v), both, ht.outcomes.mean("C"), key=1)


def test_what_was_never_given_has_no_placebo():
    lived = personalize(ORAL, oral_person(), Laplace(draws=60, starts=2), key=0, progress=False)
    late = lived.do(respond=ht.When("C", below=(4.0, "mg/L"), give=("iv", 60.0, "mg"), at_most=16, wait="4 h"))
    found = refute(late, lived, ht.outcomes.mean("C", 12, 20), key=1, repeats=1, progress=False)
    assert found.checks[2].level == "CAUTION" and "no iv was recorded" in found.checks[2].reason
    with pytest.raises(DeclarationError, match="no dose of iv was recorded"):
        refute(late, lived, ht.outcomes.mean("C", 12, 20), key=1, repeats=1, hidden=Hidden("iv", (10.0,), "mg"))


@pytest.mark.parametrize(("read", "level"), [((0.3, 0.8), "CAUTION"), ((0.5, 2, 3, 4, 5, 6, 7, 8), "OK")], ids=["early", "late"])
def test_a_placebo_is_not_held_against_what_care_decided(read, level):
    """The flare is bad and treated at the first look. Doses at other times do not suit the policy, whatever a dose does.

    Left in, the policy would refute every placebo: by more than ten units even where all readings are before the dose.
    """
    policy = ht.Decisions("B", dose="drug", every="2 h", first="1 h", above=True, level=6.0, error=0.4)
    told = ht.Model(Flare(), activity=ht.sensors.Gaussian("B", sd=0.3), treated=policy)
    times = np.array(read)
    person = Person.of("pia", time="h", start=0.0, stop=10.0, doses={"drug": Regimen.bolus(DOSE, "mg", at=1.0)},
                       readings={"activity": (times, activity(4.0, 0.5, 1.0, times), "mg")})  # fmt: skip
    twin = personalize(told, person, Laplace(draws=60, starts=2), key=0, progress=False)
    found = refute(twin.do(drug=lambda d: 0.5 * d), twin, ht.outcomes.mean("B", 5, 10), key=1, repeats=1, progress=False)
    placebo = found.checks[2]
    assert placebo.what == "doses at random times, treated left out" and placebo.level == level, placebo.reason
    moved = dataclasses.replace(_placebo(twin, ("drug",), np.random.default_rng(1)), id="moved")
    other = personalize(told, moved, Laplace(draws=60, starts=2), key=0, progress=False)
    assert twin.fits[0].log_evidence - other.fits[0].log_evidence > 10.0


def test_decisions_are_not_read_off_unrecorded_doses():
    given = [Dose(1.0, 4.0), Dose(1.0, 2.0, order=1, product="unrecorded"), Dose(5.0, 1.0, order=2, product="unrecorded")]
    bound = drug_of(given)
    assert ht.Amounts("B", dose="drug", base=0.0, gain=1.0, spread=1.0).decisions(bound, "h").value.tolist() == [4.0]
    looked = ht.Decisions("B", dose="drug", every="4 h", first="1 h", level=6.0, error=0.4).decisions(bound, "h")
    assert looked.value.tolist() == [1.0, 0.0, 0.0]


def drug_of(doses):
    """A bound record of ten hours with these doses of a drug."""
    regimen = Regimen(tuple(doses), "mg", "h")
    return Person.of("pia", time="h", start=0.0, stop=10.0, doses={"drug": regimen}).bind(Flare.spec)


def test_what_cannot_be_refuted_is_said():
    lived = drip_twin()
    with pytest.raises(DeclarationError, match="no dose differs"):
        refute(lived.do(CL=lambda v: 2.0 * v), lived, ht.outcomes.mean("C"), key=1)
    ahead = lived.forecast("6 h")
    with pytest.raises(InterventionError, match="lived day"):
        refute(ahead.do(iv=Regimen.bolus(1.0, "mg", at=25.0)), ahead, ht.outcomes.mean("C"), key=1)
    with pytest.raises(DeclarationError, match="no dose of Drip"):
        refute(half(lived), lived, ht.outcomes.mean("C"), key=1, repeats=1, hidden=Hidden("push", (1.0,), "mg"))


class Rota(ht.System):
    """dA/dt = -k A: who is on duty (z) acts on nothing, but may decide what is given."""

    time = "h"

    class State(ht.State):
        A: ht.Scalar = ht.state("mg")

    class Input(ht.Input):
        iv: ht.Scalar = ht.dose("mg", into="A")
        z: ht.Scalar = ht.signal("1", "who is on duty", default=0.0)

    k: ht.Scalar = ht.parameter(ht.typical(0.3, cv=0.2), "1/h")

    def rates(self, t, x, u):
        return self.State(A=-self.k * x.A)

    def outputs(self, x, u):
        return {"C": ht.output(x.A, "mg")}


class Gain(ht.System):
    """dZ/dt = -2 Z, dX/dt = 2 g Z - .7 X, seen: base + X. The gain g of a dose may be nothing."""

    time = "h"

    class State(ht.State):
        X: ht.Scalar = ht.state("mg", positive=False)
        Z: ht.Scalar = ht.state("mg")

    class Input(ht.Input):
        iv: ht.Scalar = ht.dose("mg", into="Z")

    g: ht.Scalar = ht.parameter(ht.normal(0.0, 1.0), "1")
    base: ht.Scalar = ht.parameter(ht.normal(5.0, 2.0), "mg")
    fast: ht.Scalar = ht.constant(2.0, "1/h")
    slow: ht.Scalar = ht.constant(0.7, "1/h")

    def rates(self, t, x, u):
        return self.State(Z=-self.fast * x.Z, X=self.g * self.fast * x.Z - self.slow * x.X)

    def outputs(self, x, u):
        return {"y": ht.output(x.X + self.base, "mg")}


LOOKED = np.arange(0.5, 24.0, 1.0)
GIVEN = ((3.0, 6.0), (9.0, 4.0), (15.0, 6.0), (20.0, 5.0))


def rise(gain):
    """What the doses add to each reading."""
    late = [np.maximum(LOOKED - t, 0.0) for t, _ in GIVEN]
    return gain * sum(a * 2.0 / 1.3 * (np.exp(-0.7 * d) - np.exp(-2.0 * d)) for d, (_, a) in zip(late, GIVEN, strict=True))


def asked_of(extra, gain=1.0, sd=1.0, repeats=3):
    noise = np.random.default_rng(0).standard_normal(len(LOOKED)) * sd
    times, amounts = zip(*GIVEN, strict=True)
    person = Person.of("ria", time="h", start=0.0, stop=24.0, doses={"iv": Regimen.bolus(list(amounts), "mg", at=list(times))},
                       readings={"y": (LOOKED, 5.0 + rise(gain) + noise + extra, "mg")})  # fmt: skip
    model = ht.Model(Gain(), y=ht.sensors.Gaussian("y", sd=sd))
    twin = personalize(model, person, Laplace(draws=100, starts=1), key=0, progress=False)
    found = refute(twin.do(iv=lambda d: 2.0 * d), twin, ht.outcomes.auc("y"), key=0, repeats=repeats, progress=False)
    return {check.name: check for check in found.checks}


@pytest.mark.heavy
def test_each_check_passes_where_it_should_and_fails_where_it_should():
    fine = asked_of(0.0)
    assert {c.level for c in fine.values()} == {"OK"}
    useless = asked_of(0.0, gain=0.0)["placebo treatment"]
    assert useless.level == "CAUTION" and "as where it does next to nothing" in useless.reason, "readings did narrow it"
    assert "the prior's" not in useless.reason
    block = asked_of(9.0 * ((LOOKED > 15.0) & (LOOKED < 18.0)), gain=0.0, repeats=6)["subset"]
    assert block.level == "DO NOT USE"
    swing = asked_of(8.0 * np.sin(2.0 * np.pi * LOOKED / 18.0), sd=0.3, repeats=6)["random common cause"]
    assert swing.level != "OK", swing.reason


@pytest.mark.parametrize("outcome", [ht.outcomes.at("C", 24.0), ht.outcomes.cmax("C"), ht.outcomes.at("C", 20.0)],
                         ids=["the last instant", "to the end", "before the end"])  # fmt: skip
def test_what_is_given_at_the_last_instant_is_not_the_past(outcome):
    """A value at the end of the day is read just after what is given there: that is no fault of the body."""
    lived = drip_twin()
    control = refute(half(lived), lived, outcome, key=1, repeats=1, progress=False).checks[0]
    assert control.level == "OK" and ("not asked" in control.reason) == (control.trials == 0)
    assert control.trials == (outcome.start == 20.0)
