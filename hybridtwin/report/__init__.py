"""The report: one HTML file that a person can read, print and keep, without network and without script."""

import datetime
import itertools
from pathlib import Path
from typing import Any

import numpy as np

from hybridtwin import plots
from hybridtwin.causal import decision_text
from hybridtwin.causal.contrast import Contrast
from hybridtwin.causal.grounds import as_it_was
from hybridtwin.causal.information import NextReading
from hybridtwin.causal.optimize import Decision
from hybridtwin.causal.track import TrackRecord
from hybridtwin.drawing import headline
from hybridtwin.errors import DeclarationError, NotTrustworthy
from hybridtwin.explain import wording
from hybridtwin.explain.explanation import Explanation
from hybridtwin.report import decided, explained, page
from hybridtwin.report.page import say

NOTICE = "Research use; not a medical device"


def write(twin, path, contrasts=()) -> Path:
    """Write the report of a twin and of what was asked of it, one or a list: contrasts, decisions (`ht.optimize`), worths of
    readings, explanations and a track record, in any order; returns the path.

    The verdict comes first. Under DO NOT USE a comparison is named and explained, but none of its numbers is written;
    under CAUTION the notice stands beside every comparison. The same holds for decisions, whatever was accepted.

    **Raises:** DeclarationError for anything else.
    """
    given = list(contrasts) if isinstance(contrasts, list | tuple) else [contrasts]
    kinds = (Contrast, Decision, NextReading, Explanation, TrackRecord)
    if wrong := [each for each in given if not isinstance(each, kinds)]:
        raise DeclarationError(
            f"a {type(wrong[0]).__name__} is nothing that a report shows. Give what contrast, optimize, next_reading, explain or "
            "track_record returned."
        )
    contrasts, choices, worths, reasons, records = ([each for each in given if isinstance(each, kind)] for kind in kinds)
    path = Path(path)
    figures = itertools.count(1)
    asked: list[tuple[str, str, Any]] = []
    asked += [(_title(n, len(contrasts)), f"comparison-{n}", each) for n, each in enumerate(contrasts, 1)]
    asked += [(_named("decision", n, len(choices)), f"decision-{n}", each) for n, each in enumerate(choices, 1)]
    asked += [(_named("explanation", n, len(reasons)), f"explanation-{n}", each) for n, each in enumerate(reasons, 1)]
    verdict = page.verdict(twin.verdict, [(name, anchor, _asks(e), _briefly(twin, e), e.verdict) for name, anchor, e in asked])
    parts = [_head(twin, contrasts, choices, worths, reasons, records), verdict, _record(twin, figures),
             _fit(twin, figures), _posterior(twin, figures)]
    parts += [_contrast(twin, each, n, len(contrasts), figures) for n, each in enumerate(contrasts, 1)]
    parts += [decided.section(each, n, len(choices), figures) for n, each in enumerate(choices, 1)]
    parts += [decided.worth(each, n, figures) for n, each in enumerate(worths, 1)]
    parts += [decided.track(each, figures) for each in records[:1]]
    parts += [explained.section(each, n, len(reasons), figures) for n, each in enumerate(reasons, 1)]
    parts += [_limits(), page.section("numbers", "Parameters in numbers", page.parameters(twin)), _provenance(twin)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page.document(f"Twin of {twin.id}", "\n".join(parts), NOTICE), encoding="utf-8")
    return path


def _head(twin, comparisons, choices, worths, reasons, records) -> str:
    clock = twin.record.clock
    structures = " and ".join(plots.structure_names(twin))
    span = f"{clock.label(clock.start)} to {clock.label(clock.stop)}" + (f" ({clock.tz})" if clock.tz else "")
    entries = [("record", "Record"), ("fit", "Fit"), ("parameters", "Parameters"),
               *((f"comparison-{n}", _title(n, len(comparisons))) for n in range(1, len(comparisons) + 1)),
               *((f"decision-{n}", _named("decision", n, len(choices))) for n in range(1, len(choices) + 1)),
               *((f"reading-{n}", "Next reading") for n in range(1, len(worths) + 1)),
               *[("track", "Track record")] * bool(records),
               *((f"explanation-{n}", _named("explanation", n, len(reasons))) for n in range(1, len(reasons) + 1)),
               ("limits", "Limits of use"), ("numbers", "Numbers"), ("provenance", "Provenance")]
    return (f"<header><p class=notice>{say(NOTICE)}</p><h1>Twin of {say(twin.id)}</h1>"
            f"<p>{say(structures)}, personalized to the record from {say(span)}.</p>{_bodies(twin)}</header>"
            f"{page.index(entries)}")


def _bodies(twin) -> str:
    """What each structure is, in its own words."""
    words = {fit.model.name: headline(fit.model.system) for fit in twin.fits}
    return "".join(f"<p class=small>{say(name)}: {say(text)}</p>" for name, text in words.items() if text)


def _asks(found: Contrast | Decision | Explanation) -> str:
    """What is asked, in a line."""
    if isinstance(found, Contrast):
        return f"{found.a_label}, compared with {found.b_label}"
    return f"which candidate: {found.aim}" if isinstance(found, Decision) else f"what {found.outcome.label} rests on"


def _briefly(twin, found) -> list[str]:
    """The answer in a few lines, of a comparison all that was asked, and the harm that differs; nothing under DO NOT USE."""
    if "DO NOT USE" in (found.verdict.headline, twin.verdict.headline):
        return []
    if isinstance(found, Decision):
        return decision_text.findings(found)[:2]
    if isinstance(found, Explanation):
        return [wording.answer(found)]
    harms = [row for row in found.rows if row.harm]
    moved = [f"watched for harm: {row.brief}" for row in harms if np.any(np.nan_to_num(row.difference))]
    still = "watched for harm: nothing differs" if harms and not moved else ""
    return [*(row.brief for row in found.rows if not row.harm), *moved, *filter(None, [still])]


def _title(number: int, count: int) -> str:
    return "The comparison" if count == 1 else f"Comparison {number} of {count}"


def _named(kind: str, number: int, count: int) -> str:
    return f"The {kind}" if count == 1 else f"{kind.capitalize()} {number}"


def _record(twin, figures) -> str:
    person = twin.record
    limits = any(np.any(np.asarray(series.censored)) for series in person.series.values())
    unknown = any(dose.amount is None for regimen in person.regimens.values() for dose in regimen)
    caption = ("The record as it was read. Dots are readings" + ", triangles readings of which only a limit is known" * limits
               + ", stems doses and meals" + ", question marks events of unknown amount" * unknown + ".")
    shown = page.figure(plots.record(person), next(figures), caption)
    return page.section("record", "The record", shown + f"<pre>{say(repr(person))}</pre>")


def _fit(twin, figures) -> str:
    predicted = twin.predict()
    caption = ("Readings over the twin. Dark band: 90 % of the draws of the modelled value. Light band: 90 % of what "
               "new readings would be, sensor error included; about nine readings in ten belong inside it.")
    told = []
    for name, p in predicted.items():
        if len(p.observed_time):
            told.append(f"{100 * p.coverage(0.9):.0f} % of the {len(p.observed_time)} {name} readings lie inside their "
                        "90 % predictive band.")
    text = "".join(f"<p>{say(line)}</p>" for line in told)
    drawn = page.figure(plots.fit(twin, predicted), next(figures), caption)
    return page.section("fit", "What the twin makes of it", drawn + text)


def _posterior(twin, figures) -> str:
    caption = ("What the record added: each parameter before it was seen (gray) and after (line). Where the two look "
               "alike, the record says nothing about that parameter.")
    drawn = page.figure(plots.priors_posteriors(twin), next(figures), caption)
    return page.section("parameters", "The body, before and after the record", drawn)


def _contrast(twin, effect, number, count, figures) -> str:
    worlds = (f"<p><b>{say(effect.a_label)}</b> compared with <b>{say(effect.b_label)}</b>, in the same body on the "
              "same day.</p>")
    try:
        trusted = twin.verdict.headline != "DO NOT USE" and not plots.refused(effect)
        body = _answers(effect, figures) if trusted else page.refusal(twin.verdict, effect.verdict)
    except NotTrustworthy:
        body = page.refusal(twin.verdict, effect.verdict)
    return page.section(f"comparison-{number}", _title(number, count), worlds + body)


def _answers(effect, figures) -> str:
    parts = [page.caution(effect.verdict)]
    several = " (thin ones of each structure alone)" * (len(effect.twin.fits) > 1)
    green = " Green: 70 to 180 mg/dL." * any("glucose" in row.outcome.label for row in effect.rows)
    parts.append(page.figure(plots.worlds(effect), next(figures), (
        f"The two worlds, as modelled. Lines are medians{several}, bands hold 90 % of the draws of each world, the yellow "
        f"stretch is the window asked about.{green} The worlds share every draw of the body: their difference is known "
        "better than either.")))
    parts.append(page.figure(plots.contrast(effect), next(figures), (
        "Differences between the worlds: median and 90 % credible interval of the modelled values; blue for this "
        "person, gray for the same model before it saw the record.")))
    parts.append(page.contrast_table(effect))
    words = [("Watched for harm: " if row.harm else "") + row.text for row in effect.rows]
    parts.append(page.listed("In words", words))
    parts.append(page.listed("What this rests on", effect.assumptions))
    how = as_it_was(effect.twin)
    parts.append(page.listed(f"Decisions kept {how}", effect.kept, "None: no later decision of that day was kept."))
    parts.append(page.listed("Notes", effect.notes))
    return "".join(parts)


def _limits() -> str:
    items = ("to choose, give or change a treatment without a clinician who knows the person;",
             "for alarms, or anything that acts without a person who checks it;",
             "for anyone else than the person whose record this is;",
             "beyond the span of the record, far beyond its treatments (answers say where they leave them), or beyond the "
             "horizon that the system declares;",
             "to diagnose: a model that fits is no proof that its mechanism is the person's.")
    return page.section("limits", "What this must not be used for", "<ul class=limits>" + "".join(
        f"<li>{say(item)}</li>" for item in items) + f"</ul><p class=notice>{say(NOTICE)}</p>")


def _provenance(twin) -> str:
    from hybridtwin.versions import versions

    written = datetime.datetime.now().astimezone()
    rows = {"Structures": " + ".join(plots.structure_names(twin)), "Method": repr(twin.method),
            "Temper": f"{twin.temper:g}" + " (the likelihood counts to the power 1/temper)" * (twin.temper > 1),
            "Seed": twin.seed, "Record (SHA-256)": twin.data_hash, "World": twin.label,
            "Software": ", ".join(f"{name} {number}" for name, number in versions().items()),
            "Written": f"{written:%B} {written.day}, {written:%Y %I:%M %p %Z}"}
    table = "".join(f"<tr><th scope=row>{say(k)}</th><td>{say(v)}</td></tr>" for k, v in rows.items())
    return page.section("provenance", "How this was made", f"<table class=facts>{table}</table>")
