"""`hybridtwin optimize`: offers in one line, refusals by name, no numbers without an accepted reason, the report."""

import re

import made
import numpy as np
import pytest
from test_cli import KNOWN, NOTICE, QUICK

from hybridtwin import cli, grammar
from hybridtwin.errors import AmbiguousDose, DeclarationError, UnitError
from hybridtwin.signals import Regimen

ASKED = ["--dose", "oral: 160, 320 mg at 0 h @0..1", "--target", "trough(C) at least 2 mg/L",
         "--limit", "cmax(C) > 15 mg/L at most 20 %"]  # fmt: skip


pytestmark = pytest.mark.usefixtures("command_line")


def test_an_offer_is_a_grid_in_one_line():
    found = grammar.offer("bolus: 2..3 [IU] step 0.5 at 07:00, 07:20 @07:00..10:00")
    assert found.grid == Regimen.grid([2, 2.5, 3], "[IU]", first=["07:00", "07:20"]) and found.start == "07:00"
    found = grammar.offer("iv: 500, 750 mg at 22 every 8 h, 12 h over 1 h max 1 g/h total 4 g/d")
    wanted = Regimen.grid([500, 750], "mg", first=[22.0], every=["8 h", "12 h"], over="1 h", max_rate="1 g/h", max_total="4 g/d")
    assert found.grid == wanted and found.start is None
    ratios = grammar.offer("bolus: 1 [IU] per 6..10 g of meal step 2 before 0 min, 20 min").grid.ratios
    assert [(r.per, r.before) for r in ratios][::3] == [((6.0, "g"), "0 min"), ((8.0, "g"), "20 min")] and len(ratios) == 6


@pytest.mark.parametrize(
    ("text", "error", "told"),
    [
        ("bolus 2..8 [IU] at 07:00", DeclarationError, "Write \"bolus: 2..8"),
        ("bolus: 2..8 [IU] at 07:00", DeclarationError, "say step"),
        ("bolus: 8..2 [IU] step 1 at 07:00", DeclarationError, "no steps of 1 from 8 to 2"),
        ("bolus: 2..8 step 1 at 07:00", DeclarationError, "the unit is missing"),
        ("bolus: 2..8 U step 1 at 07:00", UnitError, r"write \[IU\]"),
        ("bolus: 2..8 [IU] step 1", AmbiguousDose, "not when"),
        ("bolus: 2..8 [IU] step 0 at 07:00", DeclarationError, "no step above 0"),
        ("bolus: 2..8 [IU] step 1 step 2 at 07:00", DeclarationError, "twice"),
        ("bolus: a lot [IU] at 07:00", DeclarationError, "cannot read the amounts"),
        ("bolus: 1 [IU] per 8..12 g of meal step 2 every 8 h", DeclarationError, "every does not go with a ratio"),
    ],
)
def test_a_slip_of_the_pen_names_its_remedy(text, error, told):
    with pytest.raises(error, match=told):
        grammar.offer(text)


def test_aims_and_limits_in_one_line():
    aim = grammar.aim("auc(C) within 400-600 mg*h/L @08:00..20:00")
    assert (aim.low, aim.high, aim.unit) == (400.0, 600.0, "mg*h/L")
    assert (aim.outcome.start, aim.outcome.stop) == ("08:00", "20:00")
    assert grammar.aim("peak(C) at most 20 mg/L").high == 20.0 and np.isinf(grammar.aim("nadir(C) at least 2 mg/L").high)
    assert grammar.aim("time_in_range(G, 70-180 mg/dL)").outcome.better == "higher"
    limit = grammar.chance("P(time_below(G, 54 mg/dL) > 1 %) <= 0.05")
    assert limit.above == (1.0, "%") and limit.at_most == 0.05
    assert grammar.chance("nadir(G) < 54 mg/dL at most 1 %").at_most == pytest.approx(0.01)
    for text in ("nadir(G) below 54", "nadir(G) < 54 at most 1 %"):
        with pytest.raises(DeclarationError, match="cannot read the limit"):
            grammar.chance(text)


@pytest.mark.heavy
def test_candidates_of_offers_and_worlds_and_a_plan():
    lived = made.twin()
    offers = [grammar.offer("oral: 160..320 mg step 80 at 16:00 @15:00..17:00")]
    found = grammar.candidates(lived, offers, {"oral=*2 @15:00..": grammar.world("oral=*2 @15:00..")})
    assert len(found) == 4 and list(found)[-1] == "oral=*2 @15:00.."
    plan = grammar.forecast(lived, "12 h", grammar.world("oral=bolus(100 mg at 34), oral=+bolus(50 mg at 36)"))
    assert [(d.time, d.amount) for d in plan.world().inputs["oral"].doses] == [(34.0, 100.0), (36.0, 50.0)]


def run(*args):
    try:
        return cli.main(["optimize", *args])
    except SystemExit as left:
        return left.code


def test_without_a_reason_no_treatment_is_shown_and_with_one_it_stands_everywhere(table, capsys, tmp_path):
    assert run(table, *KNOWN, *QUICK, *ASKED) == 3
    said = capsys.readouterr()
    assert '--accept-risk "why"' in said.err and "Traceback" not in said.err
    assert "P(in)" not in said.out and "160 mg" not in said.out and NOTICE in said.out
    report = tmp_path / "choice.html"
    assert run(table, *KNOWN, *QUICK, *ASKED, "--accept-risk", "a worked example", "--report", str(report)) == 0
    said = capsys.readouterr().out
    assert "taken on record: a worked example" in said and "160 mg at 0 h" in said and "watched for harm" in said
    text = report.read_text(encoding="utf-8")
    assert "a worked example" in text and "What must not be done with it" in text


def test_under_do_not_use_no_number_is_printed_whatever_was_accepted(table, capsys, monkeypatch, tmp_path):
    red = made.verdict("DO NOT USE")
    monkeypatch.setattr("hybridtwin.twin.Twin.verdict", red)
    assert run(table, *KNOWN, *QUICK, *ASKED, "--accept-risk", "a worked example", "--report", str(tmp_path / "r.html")) == 3
    said = capsys.readouterr()
    assert "DO NOT USE: no treatment is shown" in said.out and "P(in)" not in said.out and "160 mg" not in said.out


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["--target", "trough(C) at least 2 mg/L"], "what may be chosen?"),
        (["--dose", "oral: 160 mg at 0", "--target", "trough(C) at least 2 mg/L"], "which lived doses of oral do these replace"),
        ([*ASKED, "--plan", "oral=bolus(100 mg at 30)"], "--plan is for the time to come"),
        ([*ASKED, "--accept-risk", "yes"], "--accept-risk 'yes' is no reason"),
        (["--dose", "orl: 160 mg at 0 @0..1", "--target", "trough(C) at least 2 mg/L"], "Did you mean|is no dose of"),
        (["--dose", "oral: 160 mL at 0 @0..1", "--target", "trough(C) at least 2 mg/L"], "mL"),
        ([*ASKED[:2], "--target", "peek(C)"], "Did you mean 'peak'"),
        ([*ASKED[:2], "--target", "at(C, 12)"], "which way is better"),
        ([*ASKED, "--limit", "cmax(C) 15"], "cannot read the limit"),
        (["--dose", "oral: 160 mg at 0 @50..60", "--target", "trough(C) at least 2 mg/L"], "outside|after"),
    ],
)
def test_a_newcomers_mistakes_are_told_by_name_before_any_work(table, capsys, monkeypatch, args, told):
    monkeypatch.setattr("hybridtwin.inference.personalize.personalize", lambda *a, **k: pytest.fail("work was begun"))
    assert run(table, *KNOWN, *QUICK, *args) == 1
    said = capsys.readouterr()
    assert said.err.startswith("hybridtwin: ") and "Traceback" not in said.err
    assert re.search(told, said.err), said.err
