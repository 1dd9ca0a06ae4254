"""Is an effect identified, and does an answer survive attempts to refute it?"""

import numpy as np
import pytest
from small import CLOCK, DRIP, drip_person, drip_twin

import hybridtwin as ht
from hybridtwin.causal.identify import identify
from hybridtwin.causal.refute import Hidden, refute
from hybridtwin.errors import DeclarationError, InterventionError, UnknownTarget
from hybridtwin.inference.methods import Laplace
from hybridtwin.inference.personalize import personalize
from hybridtwin.records import Person
from hybridtwin.signals import Regimen


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
    assert [c.name for c in found.checks] == ["negative control", "placebo treatment", "random common cause", "subset"]
    assert found.part.level == "OK" and len(found.table) == 4, found.text
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
    placebo = found.checks[1]
    assert placebo.level == "CAUTION" and "random times as well" in placebo.reason
    assert np.isfinite(found.median) and found.part.level != "OK"


def test_what_cannot_be_refuted_is_said():
    lived = drip_twin()
    with pytest.raises(DeclarationError, match="no dose differs"):
        refute(lived.do(CL=lambda v: 2.0 * v), lived, ht.outcomes.mean("C"), key=1)
    ahead = lived.forecast("6 h")
    with pytest.raises(InterventionError, match="lived day"):
        refute(ahead.do(iv=Regimen.bolus(1.0, "mg", at=25.0)), ahead, ht.outcomes.mean("C"), key=1)
    with pytest.raises(DeclarationError, match="no dose of Drip"):
        refute(half(lived), lived, ht.outcomes.mean("C"), key=1, repeats=1, hidden=Hidden("push", (1.0,), "mg"))
