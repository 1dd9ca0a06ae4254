"""The part of a report that explains an outcome: verdict first, drivers in a figure and in words, what was not seen."""

from hybridtwin.explain import wording
from hybridtwin.plots import explanation as drawing
from hybridtwin.report import page
from hybridtwin.report.page import say


def section(found, number: int, count: int, figures) -> str:
    """One explanation as a section of the page. Under DO NOT USE it is named and the reasons are given, without a number."""
    title = "The explanation" if count == 1 else f"Explanation {number} of {count}"
    about = f"<p>What <b>{say(found.outcome.label)}</b> rests on, {say(found.twin.label)}.</p>"
    if found.refused:
        refused = page.refusal(found.twin.verdict, found.verdict, what="explanation")
        return page.section(f"explanation-{number}", title, about + refused)
    caption = ("What the outcome rests on. Bars: median, lines: 90 % of the draws. Inputs are taken away one after the other, in "
               "every order, and their shares add up to the whole. Readings: how far the mean moves by their being there; "
               "hollow bars are guesses, where only a refit without them would tell; "
               "unknown: nothing else tells what these tell.")  # fmt: skip
    parts = [page.caution(found.verdict), f"<p>{say(wording.answer(found))}</p>"]
    parts.append(page.figure(drawing.explanation(found), next(figures), caption))
    parts.append(page.listed("What drives it", wording.drivers(found), "No dose, and no signal that ever leaves its baseline."))
    parts.append(page.listed("What in this body it depends on", wording.body(found)))
    parts.append(page.listed("What would change it, to first order", wording.changes(found)))
    parts.append(page.listed("Readings that it rests on", wording.readings(found)))
    alike = [a.text for a in found.similar]
    parts.append(page.listed("Days of the record like this one", alike, "The record holds no other such day."))
    inside = "Nothing: the question lies inside the record."
    parts.append(page.listed("Outside of what the record has seen", found.unseen, inside))
    parts.append(page.listed("What this rests on", wording.assumptions(found)))
    parts.append(page.listed("Notes", found.notes))
    return page.section(f"explanation-{number}", title, about + "".join(parts))
