"""Contrasts: paired draws, harm beside benefit, the prior beside the person, what was kept, and what is refused."""

import dataclasses

import numpy as np
import pytest
from small import CLOCK, DRIP, Drip, drip_person, drip_twin, mesh_twin

from hybridtwin import outcomes, sensors
from hybridtwin.causal import grounds
from hybridtwin.causal.contrast import contrast
from hybridtwin.errors import DeclarationError, PastHorizon, UnrelatedTwins
from hybridtwin.inference.methods import Laplace
from hybridtwin.inference.personalize import personalize
from hybridtwin.interventions import Do, Rescue
from hybridtwin.model import Model
from hybridtwin.records import Person
from hybridtwin.signals import Regimen, Signal


def half(twin):
    return twin.do(iv=lambda b: 0.5 * b, start="08:00")


def test_a_function_without_a_name_is_told_by_what_it_does():
    assert str(Do({"iv": lambda b: 0.5 * b})) == "iv = 0.5 times as lived"
    assert str(Do({"iv": lambda b: b.shift(-20, "min")})) == "iv = 20 min earlier"
    assert str(Do({"iv": lambda b: Regimen.bolus(500, "mg", at=0.0)})) == "iv = changed", "what was lived plays no part in it"


@pytest.fixture(scope="module")
def effect():
    return contrast(
        half(drip_twin()), drip_twin(), outcomes.auc("C", better="lower"), outcomes.at("C", "20:00", better="lower")
    )


def test_the_difference_is_that_of_each_draw_in_closed_form(effect):
    """Half of two boluses less: -60/V exp(-k (20 - t)) for each of them, draw by draw."""
    CL, V = (drip_twin().fits[0].values[n] for n in ("CL", "V"))
    wanted = -60.0 / V * (np.exp(-CL / V * 11.0) + np.exp(-CL / V * 3.0))
    np.testing.assert_allclose(effect[1].difference, wanted, rtol=1e-5)  # read between nodes of a grid
    assert effect[1].low == pytest.approx(np.quantile(wanted, 0.05), rel=1e-5)
    assert effect[1].high == pytest.approx(np.quantile(wanted, 0.95), rel=1e-5)
    assert effect[1].p_better == 1.0 and effect[1].unit == "mg/L"
    unpaired = np.std(effect[0].a - np.roll(effect[0].b, 1))
    assert np.std(effect[0].difference) < 0.7 * unpaired, "draws are not paired"


def test_the_other_way_round_is_the_negative(effect):
    back = contrast(drip_twin(), half(drip_twin()), outcomes.auc("C", better="lower"))
    np.testing.assert_allclose(back[0].difference, -effect[0].difference, rtol=1e-9)
    assert back[0].p_better == 0.0 and back.a_label == "as lived"


def test_the_priors_answer_stands_beside(effect):
    row = effect[1]
    assert np.std(row.prior_difference) > 3 * np.std(row.difference) and not row.same_as_prior
    assert "Prior alone: " in row.text and {"prior_difference", "prior_q05", "prior_q95"} <= set(effect.table.columns)
    CL, V = (drip_twin().fits[0].prior_values[n] for n in ("CL", "V"))
    wanted = -60.0 / V * (np.exp(-CL / V * 11.0) + np.exp(-CL / V * 3.0))
    assert np.median(row.prior_difference) == pytest.approx(np.median(wanted), rel=0.25)


def test_an_answer_that_is_the_priors_says_so():
    """Readings with an error of 1000 mg/L say nothing: the same as prior, told, and a caution."""
    blind = personalize(
        Model(Drip(), C=sensors.Gaussian("C", sd=1e3)),
        drip_person(),
        Laplace(draws=2000, starts=1),
        key=0,
        progress=False,
    )
    blind = dataclasses.replace(blind, draws=2000)  # 250 draws tell a ratio of two spreads to a tenth only
    c = contrast(half(blind), blind, outcomes.at("C", 20.0, better="lower"))
    assert c[0].same_as_prior and "The prior alone says about the same, no less surely" in c.text
    assert c.verdict.parts["informed"].level == "CAUTION" and "rests on the prior" in c.text


def test_harm_stands_beside_benefit(effect):
    assert [r.harm for r in effect.rows] == sorted(r.harm for r in effect.rows)
    harm = [r for r in effect.rows if r.harm]
    assert harm and "trough of C" in harm[0].outcome.label and "Watched for harm: " + harm[0].outcome.label in effect.text
    assert list(effect.table["harm"]) == [r.harm for r in effect.rows]


def test_decisions_that_were_kept_are_named(effect):
    """The 09:00 dose changes first; the one at 17:00 is changed too, so nothing is kept. Changing one keeps the other."""
    assert effect.kept == ()
    first = contrast(
        drip_twin().do(iv=lambda b: 0.5 * b, start=8.0, stop=12.0), drip_twin(), outcomes.auc("C", better="lower")
    )
    assert first.kept == ("iv 120 mg at Tue 24 Mar 17:00",)
    assert (
        first.verdict.parts["supported"].level == "CAUTION"
        and "Kept as lived: iv 120 mg at Tue 24 Mar 17:00." in first.text
    )
    early = contrast(
        drip_twin().do(iv=lambda b: 0.5 * b, start=8.0, stop=12.0), drip_twin(), outcomes.cmax("C", 8.0, 12.0)
    )
    assert early.kept == (), "a decision after the question was asked is no matter"


def test_a_rule_of_care_takes_the_place_of_keeping():
    lived = mesh_twin()
    rule = Rescue("C", 5.0, "mg/L", "iv", 60.0, "mg", every="30 min", wait="1 h")
    less = lived.do(iv=lambda b: 0.8 * b, start=0.0, stop=1.0)
    kept = contrast(less, lived, outcomes.nadir("C", 1.0, 11.0, better="higher"))
    cared = contrast(less.do(respond=rule), lived.do(respond=rule), outcomes.nadir("C", 1.0, 11.0, better="higher"))
    assert "respond=ht.Rescue" in kept.text and "respond=ht.Rescue" not in cared.text
    assert any("rescue rule" in n for n in cared.notes)
    assert np.median(cared[0].a) > np.median(kept[0].a)


def test_assumptions_and_labels(effect):
    assert "the same body parameters and the same uncertain events in both worlds" in effect.assumptions
    assert effect.b_label == "as lived" and effect.text.endswith("Research use; not a medical device.")
    assert "iv" in effect.a_label and "08:00" in effect.a_label and "lambda" not in effect.a_label
    tempered = personalize(DRIP, drip_person(), Laplace(draws=50, starts=1), key=0, temper=3, progress=False)
    c = contrast(half(tempered), tempered, outcomes.cmax("C"))
    assert any("tempered by 3" in a for a in c.assumptions)


def test_structures_are_pooled_within_a_draw():
    """Two structures in one twin: draws are tagged, paired inside their structure, and weigh the same."""
    other = Model(Drip(V=28.0), name="Known volume", C=sensors.Gaussian("C", sd=0.3))
    twin = personalize([DRIP, other], drip_person(), Laplace(draws=100, starts=1), key=0, progress=False)
    c = contrast(half(twin), twin, outcomes.at("C", 20.0, better="lower"))
    row = c[0]
    assert sorted(set(row.structure)) == ["Drip", "Known volume"] and [
        np.sum(row.structure == s) for s in ("Drip", "Known volume")
    ] == [100, 100]
    CL = twin.fits[1].values["CL"]
    wanted = -60.0 / 28.0 * (np.exp(-CL / 28.0 * 11.0) + np.exp(-CL / 28.0 * 3.0))
    np.testing.assert_allclose(row.difference[100:], wanted, rtol=1e-5)
    assert "pooled with equal weight" in c.text and "Drip + Known volume" in repr(twin)
    assert set(twin.summary()["structure"]) == {"Drip", "Known volume"}


def test_a_draw_without_an_answer_is_not_one_that_could_not_be_solved():
    """After the last bolus C only falls, so that it is lowest at the end of the window: no draw has a turning point."""
    none = outcomes.time_of_nadir("C", "18:00", "23:00", better="lower", label="turning point")
    told = str(contrast(half(drip_twin()), drip_twin(), outcomes.at("C", "20:00", better="lower"), none))
    assert "100 % of the draws were solved and have no answer" in told and "computed: turning point" in told
    assert "could not be solved" not in told


def test_what_a_contrast_refuses():
    lived = drip_twin()
    day = Person.of(
        "bruno",
        start=24.0,
        stop=48.0,
        time=CLOCK.spanning(24.0, 48.0),
        signals={"push": Signal.constant(12.0, "mg/h")},
        doses={"iv": Regimen.bolus(90.0, "mg", at=30.0)},
    )
    other_key = personalize(DRIP, drip_person(), Laplace(draws=100, starts=2), key=1, progress=False)
    for stranger in (mesh_twin(), lived.on(day), other_key):
        with pytest.raises(UnrelatedTwins, match="paired"):
            contrast(half(lived), stranger, outcomes.cmax("C"))
    a, b = lived.on(day), lived.on(day)
    assert np.all(contrast(a.do(iv=lambda r: 0.5 * r), b, outcomes.cmax("C"))[0].difference <= 0), (
        "the same day twice is one day"
    )
    with pytest.raises(DeclarationError, match="at least one outcome"):
        contrast(lived, lived)
    with pytest.raises(DeclarationError, match="two twins"):
        contrast(lived, "as lived", outcomes.cmax("C"))
    with pytest.raises(PastHorizon):
        contrast(half(lived), lived, outcomes.cmax("C", 20.0, 30.0))
    with pytest.raises(DeclarationError):
        contrast(half(lived), lived, lambda t: t["C"].max(axis=1))


def test_worlds_that_differ_by_rounding_are_equal_and_neither_is_better():
    """(.1 + .2) / .3 is one and a bit: the doses are other numbers, and everything after them is that much off."""
    lived = drip_twin()
    asked = outcomes.auc("C", better="lower"), outcomes.time_above("C", 3.0, "mg/L"), outcomes.at("C", "20:00", better="lower")
    c = contrast(lived.do(iv=lambda b: (0.1 + 0.2) / 0.3 * b), lived, *asked)
    assert any(np.any(row.a != row.b) for row in c.rows), "the bits are other ones"
    assert all(np.all(row.difference == 0) and row.p_better == 0.5 for row in c.rows)
    assert "e-1" not in "".join(row.text for row in c.rows) and "no difference between the two" in c.text
    assert list(c.table["p_better"]) == [0.5] * len(c.rows) and c.verdict.parts["informed"].level == "OK", c.text
    ratio = contrast(lived.do(iv=lambda b: (0.1 + 0.2) / 0.3 * b), lived, asked[0], scale="ratio")[0]
    assert np.all(ratio.effect == 1.0)


def test_small_numbers_are_no_rounding():
    """Of an outcome whose values are 1e-12 in its unit, half is half."""
    own = outcomes.custom(lambda x: 1e-12 * x["C"][:, -1], label="in kt/L", unit="kt/L", better="lower")
    row = contrast(half(drip_twin()), drip_twin(), own)[0]
    assert np.all(row.difference < 0) and row.p_text == "P(lower) > 0.97"


def test_a_table_tells_chances_no_finer_than_its_draws_can(effect):
    n = len(effect[1].difference)
    told = effect.table.loc[1]
    assert effect[1].p_better == 1.0 and told["p_better"] == 1.0 - max(0.01, 3.0 / n) and told["draws"] == n
    few = dataclasses.replace(effect[1], support=20.0)
    assert few.draws == 20 and few.p_text == "P(lower) > 0.85", "draws that hang together are worth fewer"


def test_draws_that_differ_in_nothing_are_told_apart_from_either_way():
    """A harm in an eighth of the draws is a chance of an eighth, and not one of better than a half that there is less of it."""
    effect = np.concatenate([np.zeros(875), np.linspace(1, 9, 120), [-1.0] * 5, [np.nan]])
    assert grounds.either_way(effect, 1000.0) == "P(higher) = 0.12, P(lower) < 0.01, else the same"
    assert grounds.either_way(effect[:995], 1000.0) == "P(higher) = 0.12, else the same"
    assert grounds.either_way(-np.arange(1.0, 200.0), 199.0) == "P(lower) > 0.98"
    assert grounds.either_way(np.zeros(9), 9.0) == "no difference" and grounds.either_way(np.array([np.nan]), 1.0) == "unknown"


def test_a_lowest_value_at_the_end_of_its_window_is_told(effect):
    """Between two doses a concentration falls: the lowest of a window that ends in between is not the lowest of all."""
    lived = drip_twin()
    falling = contrast(half(lived), lived, outcomes.nadir("C", "18:30", "20:00"), outcomes.cmax("C", "18:30", "20:00"))
    said = [note for note in falling.notes if "at the end of the window" in note]
    assert len(said) == 2 and all("100 % of the draws" in note and "the lowest value" in note for note in said), falling.notes
    assert not [note for note in effect.notes if "the highest value stands at the end" in note]


def test_differences_of_percents_are_points_and_the_brief_answer_has_no_window():
    lived = drip_twin()
    row = contrast(half(lived), lived, outcomes.time_above("C", 7.0, "mg/L", "08:00", "20:00"))[0]
    assert row.median < -1 and f"{row.median:+.3g} points (90 %" in row.text
    assert row.brief.startswith("time of C above 7 mg/L: ") and "20:00" not in row.brief and row.brief.endswith(row.p_text)


def test_a_time_until_what_never_happens_says_so():
    """Three times the last dose passes a level that the lived day never reaches: no 24 hours earlier, but in one world only."""
    lived, high = drip_twin(), 14.0
    assert np.all(outcomes.cmax("C").of(lived.simulate()) < high)
    more = lived.do(iv=lambda b: 6.0 * b, start="17:00")
    c = contrast(more, lived, outcomes.time_until_above("C", high, "mg/L"))
    assert "never happens in this window in 0 % of the draws of" in c.text and "100 % of the draws of 'as lived'" in c.text
    assert contrast(more, lived, outcomes.time_until_above("C", 0.01, "mg/L", 12.0, 20.0)).notes == ()


def test_a_world_is_named_with_the_units_of_its_times():
    """Bare numbers of a clock are told as its reader would: a date where it has one, else a unit."""
    dated, plain = drip_twin().do(iv=lambda b: 0.5 * b, start=8.0, stop=12.0), mesh_twin()
    assert dated.label == "iv = 0.5 times as lived from Tue 24 Mar 08:00 until Tue 24 Mar 12:00"
    assert plain.do(iv=lambda b: 0.5 * b, start=3.0).label == "iv = 0.5 times as lived from 3 h"
    assert plain.do(iv=Regimen.bolus(60.0, "mg", at=[2, 4.5])).label == "iv = 60 mg at 2 h, 60 mg at 4.5 h"


def counted(effect, a, b, before):
    """A row of what is told of draws (n,) in both worlds, and of differences of the prior."""
    return dataclasses.replace(effect[1], a=np.array(a, float), b=np.array(b, float), prior_difference=np.array(before, float))


def test_an_effect_that_most_draws_do_not_have_is_not_told_as_even_odds(effect):
    """Never higher, lower in one draw of five, the same in the others: by halves of ties it was P(higher) = 0.40."""
    lower = np.arange(1000) % 5 == 0
    row = counted(effect, np.where(lower, 0.0, 1.0), np.ones(1000), np.zeros(1000))
    assert row.p_same == 0.8 and row.p_text == "P(lower) = 0.20, else the same"
    assert row.p_better == pytest.approx(0.6), "a tie is a coin toss where one number is wanted"
    told = dataclasses.replace(effect, rows=(row,)).table
    assert told["p_same"][0] == 0.8 and effect.table["p_same"][1] == 0.0


def test_answers_of_one_median_are_not_one_answer(effect):
    """Before the record a treatment helped 9 in 100, and hurt nobody; after it 25 in 100. Both medians are zero."""
    helped, before = np.arange(2000) % 100 < 25, -(np.arange(1000) % 100 < 9).astype(float)
    row = counted(effect, np.where(helped, 0.0, 1.0), np.ones(2000), before)
    assert row.sd_ratio > 1.0 and row.median == 0.0 == np.median(before) and not row.same_as_prior
    assert counted(effect, np.where(helped, 0.0, 1.0), np.ones(2000), 0.0 - (np.arange(1000) % 100 < 23)).same_as_prior
    rng = np.random.default_rng(0)
    normal = counted(effect, rng.standard_normal(400), np.zeros(400), rng.standard_normal(1000))
    assert normal.same_as_prior and "The prior alone says about the same" in normal.text
