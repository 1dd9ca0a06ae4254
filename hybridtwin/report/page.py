"""Pieces of the report's page: everything that is text is escaped here, every figure becomes inline SVG."""

import html
import io
import re

import numpy as np

from hybridtwin.causal.grounds import chance

_MARK = {"OK": "✓", "CAUTION": "!", "DO NOT USE": "✕"}
_CLASS = {"OK": "ok", "CAUTION": "caution", "DO NOT USE": "red"}
QUESTIONS = {"computed": "Did the computation converge?", "fits": "Does the model fit what was seen?",
             "informed": "Did the record narrow what is asked?", "supported": "Does the question lie in what was seen?"}

CSS = """
:root{color-scheme:light}
*{box-sizing:border-box}
body{font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,Helvetica,Arial,sans-serif;color:#1b1f24;background:#fff;
max-width:62rem;margin:0 auto;padding:1.2rem 1.4rem 3rem}
h1{font-size:1.7rem;margin:.2rem 0 .2rem}h2{font-size:1.2rem;margin:0 0 .6rem}h3{font-size:1rem;margin:1.1rem 0 .3rem}
header{border-bottom:2px solid #1b1f24;margin-bottom:1.2rem}header p{margin:.2rem 0 .6rem}
section{margin:1.8rem 0}
.notice{font-weight:600;font-size:.85rem;letter-spacing:.02em}
header .notice{color:#7a2e00}
.verdict{border:2px solid;border-radius:6px;padding:.7rem 1rem}
.verdict h2{margin:0 0 .4rem;font-size:1.25rem}
.verdict.ok,.box.ok{border-color:#00704f}.verdict.caution,.box.caution{border-color:#b35c00}
.verdict.red,.box.red{border-color:#b00020}
.ok h2,.level.ok{color:#00704f}.caution h2,.level.caution{color:#9a4f00}.red h2,.level.red{color:#b00020}
nav{font-size:.88rem;margin:.4rem 0 0}nav a{color:#005a8c;margin-right:1rem}
.level{font-weight:700;white-space:nowrap}h2.level{white-space:normal}
.box{border-left:5px solid;padding:.5rem .9rem;margin:.8rem 0;background:#fafafa}
.box.caution{background:#fff8ec}.box.red{background:#fff1f2}
.box p{margin:.2rem 0}
table{border-collapse:collapse;width:100%;font-size:.86rem;margin:.6rem 0}
th,td{text-align:left;vertical-align:top;padding:.3rem .55rem;border-bottom:1px solid #d5d9de}
thead th{border-bottom:1.5px solid #1b1f24;font-weight:600}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}
tr.harm td{background:#fdf6ec}
.small{color:#4b5563;font-size:.8rem}td.n{white-space:nowrap}td.n .long{white-space:normal}td.m{white-space:nowrap}
figure{margin:.6rem 0 1rem}figure svg{width:100%;height:auto;display:block}
figcaption{font-size:.84rem;color:#374151}
pre{font:12.5px/1.45 ui-monospace,Menlo,Consolas,monospace;background:#f6f7f9;padding:.7rem .9rem;white-space:pre-wrap;
overflow-wrap:anywhere;border-radius:4px}
.facts th{width:11rem;font-weight:600}.facts td{overflow-wrap:anywhere}
.limits li{margin:.25rem 0}
.meter{display:inline-block;width:60px;height:7px;background:#d5d9de;margin-right:.4rem}
.meter i{display:block;height:7px;background:#0072B2}
footer{border-top:1px solid #d5d9de;margin-top:2rem;padding-top:.5rem}
.wide{overflow-x:auto}.wide table{font-size:.86rem}nav a{white-space:nowrap}
.wide td,.wide th{padding-left:.3rem;padding-right:.3rem}.wide .first{min-width:9rem}
.first{min-width:12rem}tr.group td{font-weight:600;border-bottom:1.5px solid #6b7280;padding-top:.8rem}
@media print{body{max-width:none;padding:0;font-size:9.5pt}figure,.verdict,.box,tr,pre{break-inside:avoid}
h2,h3{break-after:avoid}.small,figcaption{font-size:.76rem}nav{display:none}section{margin:1.1rem 0}
.first{min-width:9rem}
*{-webkit-print-color-adjust:exact;print-color-adjust:exact}@page{margin:14mm}}
"""


def say(text) -> str:
    """Text, escaped."""
    return html.escape(str(text))


def minus(text) -> str:
    """Text, escaped, with minus signs in front of its negative numbers."""
    return re.sub(r"(?<![\w.])-(?=\d)", "−", say(text))


def document(title: str, body: str, notice: str) -> str:
    """The whole file."""
    safe = "default-src 'none'; style-src 'unsafe-inline'"  # a browser then loads and runs nothing at all
    return (f'<!doctype html>\n<html lang="en-US"><head><meta charset="utf-8">'
            f'<meta http-equiv="Content-Security-Policy" content="{safe}">'
            f'<meta name="viewport" content="width=device-width,initial-scale=1"><title>{say(title)}</title>'
            f"<style>{CSS}</style></head><body>\n{body}\n<footer class=notice>{say(notice)}</footer></body></html>\n")


def index(entries) -> str:
    """Links to the sections: (id, title) each."""
    return "<nav>" + " ".join(f'<a href="#{say(name)}">{say(title)}</a>' for name, title in entries) + "</nav>"


def section(name: str, title: str, body: str) -> str:
    """One part of the page."""
    kind = ' class="comparison"' if name.startswith("comparison") else ""
    return f'<section id="{say(name)}"{kind}><h2>{say(title)}</h2>{body}</section>'


def figure(drawn, number: int, caption: str) -> str:
    """A matplotlib figure as inline SVG with its caption; letters stay letters, to be searched and read aloud."""
    import matplotlib

    out = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": f"figure {number}", "text.parse_math": False}):
        drawn.savefig(out, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = out.getvalue()
    svg = svg[svg.index("<svg"):]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="([^"]+)"', rf'id="f{number}-\1"', svg)  # ids are shared by all figures of one page
    svg = re.sub(r'(href="#|url\(#)([^")]+)', rf"\1f{number}-\2", svg)
    svg = svg.replace("<svg", f'<svg role="img" aria-label="{say(caption)}"', 1)
    return f"<figure>{svg}<figcaption>Figure {number}. {say(caption)}</figcaption></figure>"


def number(x: float) -> str:
    """Three significant digits, without an exponent where it can be helped."""
    if not np.isfinite(x):
        return "unknown"
    if x == 0 or 1e-3 <= abs(x) < 1e5:
        digits = 0 if abs(x) >= 100 else int(2 - np.floor(np.log10(abs(x)))) if x else 0
        text = f"{x:,.{max(digits, 0)}f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    return f"{x:.2e}"


def verdict(found, asked=()) -> str:
    """The headline and its four parts with their reasons; then each question `asked`: (name, anchor, words, answers, verdict)."""
    level = found.headline

    def row(name, part):
        head = f"<tr><td>{say(QUESTIONS.get(name, name))}<div class=small>{say(name)}</div></td>"
        if asked and name in ("informed", "supported") and not part.reasons:  # what is asked is not the twin's to answer
            return f"{head}<td class=level>–</td><td>depends on what is asked: see the verdict of each question below</td></tr>"
        return (f'{head}<td class="level {_CLASS[part.level]}">{_MARK[part.level]}&nbsp;{say(part.level)}</td>'
                f"<td>{'<br>'.join(say(r) for r in part.reasons) or 'nothing against it'}</td></tr>")

    rows = "".join(row(name, part) for name, part in found.parts.items())
    own = "".join(
        f'<tr><td><a href="#{anchor}">{say(name)}</a>: {say(words)}'
        f'{"".join(f"<div class=small>{minus(line)}</div>" for line in answers)}</td>'
        f'<td class="level {_CLASS[v.headline]}">{_MARK[v.headline]}&nbsp;{say(v.headline)}</td></tr>'
        for name, anchor, words, answers, v in asked)  # fmt: skip
    own = f"<p>Each question on this page has a verdict of its own:</p><table><tbody>{own}</tbody></table>" if asked else ""
    of = " of the twin" if asked else ""
    worst = max([level, *(v.headline for *_, v in asked)], key=list(_CLASS).index)  # no green frame round a question in doubt
    rest = f'; <span class="level {_CLASS[worst]}">of the answers: {_MARK[worst]}&nbsp;{say(worst)}</span>'
    rest *= worst != level
    return (f'<section id="verdict" class="verdict {_CLASS[worst]}">'
            f'<h2 class="level {_CLASS[level]}">Verdict{of}: {_MARK[level]}&nbsp;{say(level)}{rest}</h2>'
            "<table><thead><tr><th>Question</th><th>Answer</th><th>Reasons</th></tr></thead>"
            f"<tbody>{rows}</tbody></table>{own}</section>")


def _reasons(*verdicts, levels) -> str:
    found = dict.fromkeys((QUESTIONS.get(name, name), reason) for v in verdicts for name, part in v.parts.items()
                          for reason in part.reasons if part.level in levels)
    return "".join(f"<p><i>{say(question)}</i> {say(reason)}.</p>" for question, reason in found)


def refusal(*verdicts, what: str = "comparison") -> str:
    """What stands where the numbers of a comparison would, under DO NOT USE."""
    return (f'<div class="box red"><p><b>DO NOT USE: no numbers of this {what} are shown.</b> The verdict forbids '
            f"it, because:</p>{_reasons(*verdicts, levels=('DO NOT USE',))}</div>")


def caution(found) -> str:
    """The notice over a comparison under CAUTION."""
    if found.headline != "CAUTION":
        return ""
    return ('<div class="box caution"><p><b>CAUTION.</b> These numbers describe what the model says, with the '
            "reservations below; the doses in them are those that were asked about and are no recommendation.</p>"
            f"{_reasons(found, levels=('CAUTION',))}</div>")


def interval(draws) -> str:
    """Median over its 90 % interval."""
    low, middle, high = np.nanquantile(draws, [0.05, 0.5, 0.95])
    return f"{number(middle)}<div class=small>{number(low)} to {number(high)}</div>"


def _signed(draws) -> str:
    low, middle, high = np.nanquantile(draws, [0.05, 0.5, 0.95])
    text = [("+" if x > 0 else "") + number(x).replace("-", "−") for x in (middle, low, high)]
    return f"{text[0]}<div class=small>{text[1]} to {text[2]}</div>"


def _times(draws) -> str:
    low, middle, high = np.nanquantile(draws, [0.05, 0.5, 0.95])
    return f"× {number(middle)}<div class=small>{number(low)} to {number(high)}</div>"


def contrast_table(effect) -> str:
    """Every outcome in both worlds, their difference, P(better), and the same before the record was seen."""
    rows = []
    for row in effect.rows:
        better = f"{say(row.better)} is better" if row.better else "neither way is better by itself"
        kind = "<div class=small>watched for harm</div>" if row.harm else ""
        same = "<div class='small long'>about the same, no less surely: the answer does not come from this person's data</div>"
        told = _signed if row.scale == "difference" else _times
        prior = "" if row.prior_effect is None else told(row.prior_effect) + same * row.same_as_prior
        cells = [interval(row.a), interval(row.b), told(row.effect), say(row.p_text).replace(", ", "<br>"), prior]
        if row.event:  # of zeros and ones a mean is the chance, and quantiles tell nothing
            chances = [f"P {say(chance(float(np.nanmean(x)), row.draws))}" for x in (row.a, row.b)]
            change, before = (number(float(np.nanmean(x))).replace("-", "−") for x in (row.difference, row.prior_difference))
            cells = [*chances, change, "chance of an event", before]
        unit = "" if row.event else f" ({say(row.unit)})"
        rows.append(f'<tr{" class=harm" if row.harm else ""}><td class=first>{say(row.outcome.label)}{unit}'
                    f"<div class=small>{better}</div>{kind}</td>{''.join(f'<td class=n>{cell}</td>' for cell in cells)}</tr>")
    other = "As lived, modelled" if effect.b_label == "as lived" else "In the other world"
    return ("<div class=wide><table><thead><tr><th>Outcome</th>"
            f"<th class=n>In the world asked about</th><th class=n>{say(other)}</th><th class=n>Difference</th>"
            "<th class=n>Probability</th><th class=n>Difference before the record was seen</th></tr></thead>"
            f"<tbody>{''.join(rows)}</tbody></table></div><p class=small>Medians with 90 % credible intervals (5 % below, "
            "5 % above) of the modelled values, not of readings; differences of percents are percentage points. P counts draws "
            "and is never told finer than their number allows.</p>")


def listed(title: str, items, otherwise: str = "") -> str:
    """A titled list, or what is said where it is empty."""
    items = list(items)
    if not items:
        return f"<h3>{say(title)}</h3><p>{say(otherwise)}</p>" if otherwise else ""
    return f"<h3>{say(title)}</h3><ul>{''.join(f'<li>{minus(item)}</li>' for item in items)}</ul>"


def parameters(twin) -> str:
    """Prior beside posterior, parameter by parameter."""
    several = len(twin.fits) > 1
    rows = []
    for fit in twin.fits:
        docs = {path: field.doc for path, field in fit.model.spec.parameters.items()}
        if several:
            rows.append(f"<tr class=group><td colspan=5>{say(fit.model.name)}</td></tr>")
        for row in fit.table():
            name = row["parameter"]
            left = min(max(row["sd_ratio"], 0.0), 1.0)
            learned = f'<span class=meter><i style="width:{60 * left:.0f}px"></i></span>{100 * row["sd_ratio"]:.0f} %'
            doc = docs.get(re.split("[@[]", name)[0], "")
            rows.append(f"<tr><td class=first>{say(name)}<div class=small>{say(doc)}</div></td>"
                        f"<td>{say(row['unit'])}</td>{_range(row, 'prior_')}{_range(row, '')}"
                        f"<td class=m>{learned}</td></tr>")
    head = "<th>Parameter</th><th>Unit</th><th class=n>Before</th><th class=n>After</th><th>Spread left</th>"
    return (f"<div class=wide><table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div><p class=small>"
            "Medians with 90 % intervals, before and after the record was seen. Spread left: how wide the posterior is beside "
            "the prior. From about 100 % on the record has narrowed nothing, though it may have moved the value.</p>")


def _range(row, prefix: str) -> str:
    low, middle, high = (row[f"{prefix}q{q}"] for q in ("05", "50", "95"))
    return f"<td class=n>{number(middle)}<div class=small>{number(low)} to {number(high)}</div></td>"
