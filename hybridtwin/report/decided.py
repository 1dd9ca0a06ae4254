"""The parts of a report about a decision: what was found, how sure, what was held, which harm, what not to do; track records."""

import numpy as np

from hybridtwin.causal import decision_text as words
from hybridtwin.plots import decisions as drawing
from hybridtwin.report import page
from hybridtwin.report.page import say

_ROWS = 40  # candidates in the table


def section(found, number: int, count: int, figures) -> str:
    """One decision as a section of the page. Under DO NOT USE it is named and the reasons are given, without a number."""
    title = "The decision" if count == 1 else f"Decision {number} of {count}"
    about = (f"<p>{len(found)} candidates for <b>{say(found.twin.id)}</b>, {say(words.day(found))}. "
             f"Target: <b>{say(found.aim)}</b>.</p>")  # fmt: skip
    if found.verdict.headline == "DO NOT USE":
        return page.section(f"decision-{number}", title, about + page.refusal(found.verdict, what="decision"))
    taken = f'<div class="box caution"><p><b>Taken on record:</b> {say(found.accepted)}</p></div>' if found.accepted else ""
    caption = (f"Every candidate. Left: the target; then {found.risk} with two Monte Carlo errors (filled: not told from the "
               f"lowest; gray: misses a limit; dotted: {found.reference.label}), and harm, median and 90 % of the draws.")
    parts = [about, page.caution(found.verdict), taken, page.listed("What was found", words.findings(found)),
             page.figure(drawing.decision(found), next(figures), caption), _table(found),
             page.listed("How sure it is", words.sureness(found)),
             page.listed("Harm that goes with it", words.harm(found)),
             page.listed("What was held fixed", words.held(found)),
             page.listed("Left out, since it cannot be delivered", found.left_out),
             page.listed("What this rests on", found.assumptions), page.listed("Notes", found.notes),
             page.listed("What must not be done with it", words.never(found))]  # fmt: skip
    return page.section(f"decision-{number}", title, "".join(parts))


def _table(found) -> str:
    """One row a candidate: those that meet every limit first, lowest risk first."""
    order = np.argsort(np.where(found.feasible, found.risks, np.inf), kind="stable")
    aim, unit = found.aim, f" ({found.aim.unit})" if found.aim.unit not in (None, "1") else ""
    chances = ["P(below)", "P(in range)", "P(above)"] if aim.ranged else []
    heads = ["Candidate", *(["Meets every limit"] if found.limits else []), *chances, f"{found.short(aim.outcome)}{unit}",
             f"{str(found.risk)[:1].upper()}{str(found.risk)[1:]}", *(f"Harm: {found.short(h)} ({h.unit})" for h in found.harms),
             *(found.short(limit) for limit in found.limits)]  # fmt: skip
    rows = "".join(_row(found, int(i)) for i in order[:_ROWS])
    head = "".join(f"<th{' class=n' if k else ''}>{say(name)}</th>" for k, name in enumerate(heads))
    more = f"{len(order) - _ROWS} further candidates of higher risk are not shown. " if len(order) > _ROWS else ""
    told = (f"{more}Medians with 90 % intervals of the modelled values; {found.risk} with its Monte Carlo error (loss: "
            f"{aim.loss_text}); of a chance the estimate, and how high it may be by the number of draws.")  # fmt: skip
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    return f'<div class="wide">{table}</div><p class=small>{say(told)}</p>'


def _row(found, i: int) -> str:
    option = found.options[i]
    cells = [say(words.bounded(p, found.worth)) for p in found.aim.shares(option.value)] if found.aim.ranged else []
    risk = f"{page.minus(page.number(found.risks[i]))}<div class=small>± {page.number(found.errors[i])}</div>"
    cells += [page.interval(option.value), risk]
    cells += [page.interval(values) for values in option.harms]
    cells += [f"{words.percent(p)}<div class=small>up to {words.percent(b)}</div>"
              for p, b in zip(found.chances[i], found.bounds[i], strict=True)]  # fmt: skip
    meets = "no" if not found.feasible[i] else "yes" if found.sure[i] else "by the estimate"
    cells = [*([meets] if found.limits else []), *cells]  # first: a wide table is cut at its right
    place = f"lowest {found.risk}" if option is found.lowest else "not told from the lowest" if found.tied[i] else ""
    body = "".join(f"<td class=n>{cell}</td>" for cell in cells)
    return f"<tr><td class=first>{say(option.label)}<div class=small>{place}</div></td>{body}</tr>"


def track(found, figures) -> str:
    """A track record as a section of the page."""
    caption = ("Each past event, predicted from what was read before it only: band and line are from before the dots were seen. "
               "About nine readings in ten belong inside the band; those outside are orange.")
    drawn = page.figure(drawing.track(found), next(figures), caption) if found.events else ""
    lines = "".join(f"<p>{say(line.strip())}</p>" for line in found.text.splitlines()[:-1])
    return page.section("track", "How past events were predicted before they were seen", lines + drawn)


def worth(found, number: int, figures) -> str:
    """What further readings are worth to a decision. Nothing of it under DO NOT USE."""
    title = "Which further reading would change the decision"
    if found.decision.verdict.headline == "DO NOT USE":
        return page.section(f"reading-{number}", title, page.refusal(found.decision.verdict, what="answer"))
    caption = ("Loss that each reading saves on average, with two Monte Carlo errors; dotted: what full knowledge of the body "
               "would save.")
    lines = "".join(f"<p>{say(line.strip())}</p>" for line in found.text.splitlines())
    drawn = page.figure(drawing.readings(found), next(figures), caption)
    return page.section(f"reading-{number}", title, page.caution(found.decision.verdict) + lines + drawn)
