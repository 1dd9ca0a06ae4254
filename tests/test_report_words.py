"""What a reader may take from the page: chances no finer than draws allow, events as chances, a verdict a question."""

import dataclasses
import html
import re

import pytest
from small import drip_twin

import hybridtwin as ht
from hybridtwin import plots

AUC = ht.outcomes.auc("C", 30, 48)
WHY = "a worked example, nobody is treated"


@pytest.fixture(scope="module")
def plan():
    ahead = drip_twin().forecast("24 h", iv=ht.Regimen.bolus(120, "mg", at=[25, 33, 41]))
    return dataclasses.replace(ahead, draws=100)


@pytest.fixture(scope="module")
def choice(plan):
    grid = ht.Regimen.grid([20, 120, 400], "mg", first=25, every="8 h")
    limit = ht.Chance(ht.outcomes.cmax("C", 30, 48), above=(30, "mg/L"), at_most=0.2)
    middle = float(sorted(AUC.of(plan.simulate()))[50])
    aim = ht.outcomes.within(AUC, 0.8 * middle, 1.2 * middle, "mg*h/L")
    return ht.optimize(plan, {"iv": grid}, target=aim, limits=limit, accept=WHY)


@pytest.mark.heavy
def test_no_chance_on_the_page_is_surer_than_the_draws(choice, tmp_path):
    """A hundred draws: 3 in 100 at most, not none and not all."""
    worth = choice.next_reading([("C", 24.5)], draws=60)
    page = choice.twin.report(tmp_path / "p.html", [choice, worth]).read_text("utf-8")
    rows = re.findall(r"<td class=first>\d+ mg every.*?</tr>", page)
    shares = [re.findall(r"<td class=n>(.*?)</td>", row)[:3] for row in rows]
    told = {cell for row in shares for cell in row}
    assert len(rows) == 3 and "&lt; 3 %" in told and not {"0 %", "100 %"} & told
    assert not re.search(r"P = (0\.00|1\.00)", page) and "changes the choice: 0.00" not in page
    assert not re.search(r"P = (0\.00|1\.00)", worth.text) and "tries" not in worth.table


def test_a_dose_that_a_candidate_writes_down_is_not_one_that_was_kept(choice, plan):
    """The lived 120 mg at 33 and 41 h are in one candidate of the grid, too; a function of the plan keeps what it leaves."""
    assert not choice.kept and "kept as" not in choice.text
    later = ht.contrast(plan.do(iv=lambda d: 0.5 * d, stop=26), plan, AUC)
    assert len(later.kept) == 2 and "2 later decisions were kept as planned" in later.text and "kept as lived" not in later.text
    said = ht.contrast(plan.do(iv=ht.Regimen.bolus(60, "mg", at=25), stop=26), plan, AUC)
    assert len(said.kept) == 2, "what lies outside of the window of the new doses is kept"


@pytest.mark.heavy
def test_an_event_is_told_and_drawn_as_chances(plan, tmp_path):
    a = plan.do(iv=lambda d: 0.9 * d)
    level = float(sorted(ht.outcomes.cmax("C", 30, 48).of(plan.simulate()))[40])
    effect = ht.contrast(a, plan, ht.outcomes.ever_above("C", level, "mg/L", 30, 48))
    row = effect[0]
    assert 0.3 < row.b.mean() < 0.9
    page = plan.report(tmp_path / "e.html", effect).read_text("utf-8")
    cells = re.findall(r"<td class=n>(.*?)</td>", re.search(r"<td class=first>C ever above.*?</tr>", page)[0])
    assert cells[0].startswith("P ") and f"{row.b.mean():.2f}" in cells[1] and cells[3] == "chance of an event"
    assert float(cells[2].replace("−", "-")) == pytest.approx((row.a - row.b).mean(), abs=1e-3)
    drawn = [text.get_text() for text in plots.contrast(effect).axes[0].texts]
    assert any(float(t.replace("−", "-")) == pytest.approx((row.a - row.b).mean(), abs=5e-3) for t in drawn if t != "better")


@pytest.mark.heavy
def test_each_question_has_its_verdict_at_the_top(choice, tmp_path):
    page = choice.twin.report(tmp_path / "q.html", choice).read_text("utf-8")
    top = re.search(r'<section id="verdict".*?</section>', page, re.S)[0]
    assert "Verdict of the twin" in top and re.search(r'href="#decision-1">The decision</a>.*?CAUTION', top)
    assert f"which candidate: {choice.aim}" in html.unescape(top)
    assert "Verdict of the twin" not in choice.twin.report(tmp_path / "t.html").read_text("utf-8")


def test_a_long_reason_does_not_run_out_of_the_picture(choice):
    long = dataclasses.replace(choice, accepted="a reason that goes on for quite a while " * 5)
    figure = long.plot()
    figure.canvas.draw()
    assert figure._suptitle.get_window_extent().x1 <= figure.bbox.x1
