"""A decision in the report: what was found, how sure it is, what was held, the harm, and what not to do stand on the page."""

import dataclasses
import functools

import made
import pytest
from test_report import Page

import hybridtwin as ht
from hybridtwin import report
from hybridtwin.causal import decision_text
from hybridtwin.errors import DeclarationError

REASON = "a phantom <i>, nobody is treated"


@functools.cache
def decision():
    """Half to twice the second dose, for a trough of 3 to 5 mg/L under a limit of the peak."""
    lived = made.twin()
    offered = ht.candidates(lived, oral=ht.Regimen.grid([160, 320, 640], "mg", first=16.0), start=15.0)
    return ht.optimize(
        lived, offered, target=ht.outcomes.within(ht.outcomes.trough("C", 17, 32), 2, 3, "mg/L"),
        limits=ht.Chance(ht.outcomes.cmax("C", 17, 32), above=(12, "mg/L"), at_most=0.2), accept=REASON,
    )  # fmt: skip


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    choice = decision()
    worth = choice.next_reading([("C", 15.0), ("C", [14.0, 15.0])])
    path = made.twin().report(tmp_path_factory.mktemp("report") / "d.html", [worth, made.effect(), choice])
    return path.read_text(encoding="utf-8")


def test_a_reader_new_to_it_finds_everything(text):
    page, found = Page(text), decision()
    section = page.text[page.text.index("The decision", page.text.index("The body, before and after")):]
    for head in ("What was found", "How sure it is", "Harm that goes with it", "What was held fixed", "What this rests on",
                 "What must not be done with it"):  # fmt: skip
        assert head in section, head
    for option in found.options:
        assert option.label in section, "every candidate is in the table"
    assert f"Taken on record: {REASON}" in section and "<i>, nobody" not in text, "escaped"
    assert f"{found.lowest.label}: " in section and "the limit asked for is 20 %" in section
    assert "under " + found.lowest.label in section and "as lived" in section, "harm with it and without it"
    assert "320 mg" in section and "to carry a line of the table out as an order" in section
    assert page.ids.index("comparison-1") < page.ids.index("decision-1") < page.ids.index("reading-1")
    assert len(page.ids) == len(set(page.ids)) and {link[1:] for link in page.links} <= set(page.ids)
    assert "Which further reading would change the decision" in section


def test_under_do_not_use_no_number_of_the_decision_is_written(tmp_path):
    red = dataclasses.replace(decision(), verdict=made.verdict("DO NOT USE"))
    text = Page(report.write(made.twin(), tmp_path / "red.html", red).read_text(encoding="utf-8")).text
    section = text[text.index("The decision", text.index("The body, before and after")): text.index("What this must not be used")]
    assert "no numbers of this decision are shown" in section and "9.9 times <as large>" in section
    assert "P(in" not in section and "mg at" not in section and "What was found" not in section


def test_none_feasible_is_said_and_the_harm_of_the_nearest_is_told(tmp_path):
    lived = made.twin()
    found = ht.optimize(
        lived, ht.candidates(lived, oral=ht.Regimen.grid([160, 320, 640], "mg", first=16.0), start=15.0),
        target=ht.outcomes.trough("C", 17, 32, better="higher"),
        limits=ht.Chance(ht.outcomes.cmax("C", 17, 32), above=(1, "mg/L"), at_most=0.01), accept=REASON,
    )  # fmt: skip
    written = lived.report(tmp_path / "none.html", found).read_text(encoding="utf-8")
    text = Page(written).text
    assert "None of the 3 candidates meets every limit" in text and ">lowest expected loss<" not in written
    assert "100 % under 160 mg" in text


@pytest.mark.heavy
def test_a_track_record_stands_in_the_report(tmp_path):
    record = made.twin().track_record(least=1, method=ht.Laplace(draws=100, starts=1))
    text = Page(made.twin().report(tmp_path / "t.html", [record]).read_text(encoding="utf-8")).text
    assert "How past events were predicted before they were seen" in text
    assert f"held {100 * record.coverage():.0f} % of the readings" in text and "only 1 past event" in text


def test_what_is_no_finding_is_refused(tmp_path):
    with pytest.raises(DeclarationError, match="a Twin is nothing that a report shows"):
        made.twin().report(tmp_path / "x.html", [made.twin()])


def test_the_first_box_is_no_greener_than_what_is_asked(text):
    """Of a sound twin whose questions are in doubt the frame says doubt, and what was asked is not answered for the twin."""
    box = text[text.index('<section id="verdict"'):]
    box = box[: box.index("</section>")]
    asked = [decision().verdict.headline, made.effect().verdict.headline]
    assert "CAUTION" in asked and 'class="verdict caution"' in box and '<h2 class="level' in box
    assert made.twin().verdict.parts["supported"].reasons or "depends on what is asked" in box


def test_whether_a_candidate_meets_the_limits_stands_beside_its_name(text):
    """A wide table is cut at its right, on paper and on small screens."""
    heads = text[text.index("<th>Candidate"):]
    assert heads.startswith("<th>Candidate</th><th class=n>Meets every limit</th>")
    assert "<div class=small>lowest expected loss</div>" in text


def test_doses_outside_the_record_and_hindsight_are_said():
    """A day that was lived is judged knowing its end, and a dose twice as large as any of the record is the model's word."""
    lived = made.twin()
    found = ht.optimize(
        lived, ht.candidates(lived, oral=ht.Regimen.grid([160, 640], "mg", first=16.0), start=15.0),
        target=ht.outcomes.trough("C", 17, 32, better="higher"), accept=REASON,
    )  # fmt: skip
    said = decision_text.sureness(found)
    assert "oral: candidates have 160 to 640 mg, the record holds 320 to 320; the rest is the model's word." in said, said
    assert any("this is hindsight" in line for line in said)
