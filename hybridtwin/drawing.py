"""How a declared system shows itself: text, table and graph. Knows a `Spec` only by its attributes."""

import re
from html import escape

from hybridtwin.priors import describe
from hybridtwin.units import bracketed


def headline(system) -> str:
    """The first line of the author's docstring."""
    own = (type(system).__doc__ or "").strip()
    made_up = own.startswith(f"{type(system).__name__}(")  # dataclasses write the signature where there is no docstring
    return "" if made_up or not own else own.splitlines()[0].strip()


# A period ends a sentence, but not behind a short form or an initial: "St. Hilaire 2007", "Friberg et al. 2002".
_END = r"(.*?)(?:(?<!\bSt)(?<!\bal)(?<!\bvs)(?<!\b[A-Z])\.\s|\.?$)"
_SOURCE = re.compile(r"Sources?(?: of the model)?: " + _END)
_ACTS = re.compile(r"(?:Interventions: |`do` acts on )" + _END)


def _told(system, pattern) -> str:
    said = pattern.search(" ".join((type(system).__doc__ or "").split()))
    return said.group(1) if said else ""


def source(system) -> str:
    """What the author's docstring says behind "Source:", in one line; empty where it says nothing."""
    return _told(system, _SOURCE)


def interventions(system) -> str:
    """What `do` acts on sensibly: what the author's docstring says behind "Interventions:" (or "`do` acts on"), in one line."""
    return _told(system, _ACTS)


def _named(fields) -> list[str]:
    """Names with their unit, said once for neighbors that share it: "gut.q1, gut.q2 [g]"."""
    items = list(fields.items())
    last = [i + 1 == len(items) or items[i + 1][1].unit != f.unit for i, (_, f) in enumerate(items)]
    return [f"{p} {bracketed(f.unit)}" if ends else p for (p, f), ends in zip(items, last, strict=True)]


def _listed(label: str, items, width: int = 110) -> list[str]:
    text = ", ".join(items)
    return [f"  {label:<10}{text if len(text) <= width else text[: width - 4] + ' ...'}"] if text else []


def _coupled(spec) -> list[str]:
    """Each coupling with its unit, what makes it and what it acts on."""
    plain = lambda node: node[2:] if node[1:2] == "." and node[0] in "ucxy" and node not in spec.parameters else node
    told = []
    for name, field in spec.couplings.items():
        node = f"c.{name}"
        made = ", ".join(plain(a) for a, b in spec.drawn if b == node)
        into = ", ".join(dict.fromkeys(plain(b) for a, b in spec.drawn if a == node and plain(b) != name))
        told.append(f"{name} {bracketed(field.unit)}: {made} -> {into}")
    return told


def text(system, most: int = 9) -> str:
    """About fifteen lines: states, inputs, outputs, and the first `most` parameters with unit and prior."""
    spec, leaves = system.spec, {p: v for p, _, v in system.fields()}
    title, kind = headline(system), "linear" if spec.linear else "nonlinear"
    lines = [f"{spec.name}: {title}" if title else spec.name]
    lines += _listed("states", _named(spec.states))
    lines += _listed("doses", (f"{p} {bracketed(f.unit)} into {f.into}" for p, f in spec.doses.items()))
    lines += _listed("inputs", _named({**spec.covariates, **spec.signals}))
    lines += [f"  {'coupling' if i == 0 else '':<10}{told}" for i, told in enumerate(_coupled(spec))]
    lines += _listed("outputs", _named(spec.outputs))
    lines += _listed("conserved", (f"{name} {bracketed(unit)}" for name, unit in spec.conserved.items()))
    fields = list({**spec.parameters, **spec.constants}.items())
    rows = [(p, f.unit, describe(leaves[p]), f.doc) for p, f in fields[:most]]
    widths = [max((len(r[i]) for r in rows), default=0) for i in range(3)]
    lines += [
        ("  " + "  ".join(c.ljust(w) for c, w in zip(r, widths, strict=False)) + f"  {r[3]}")[:120].rstrip()
        for r in rows
    ]
    if len(fields) > most:
        lines.append(f"  ... and {len(fields) - most} more: .spec.parameters")
    lines += _listed("unchecked", spec.unchecked)
    return "\n".join([*lines, f"  time in {spec.time}, {kind}"])


def html(system) -> str:
    """Table of parameters (unit, prior, description, source) and constants, and the graph as inline SVG."""
    spec, leaves = system.spec, {p: v for p, _, v in system.fields()}
    rows = "".join(
        f"<tr><th>{escape(p)}</th><td>{escape(f.unit)}</td><td>{escape(describe(leaves[p]))}</td><td>{escape(_kind(f))}</td>"
        f"<td>{escape(f.doc)}</td><td>{escape(f.source)}</td></tr>"
        for p, f in {**spec.parameters, **spec.constants}.items()
    )
    head = "".join(
        f"<th>{h}</th>" for h in ("parameter", "unit", "prior: median (90 %)", "inferred", "description", "source")
    )
    note = f"<p>Not checked for units: {escape('; '.join(spec.unchecked))}</p>" if spec.unchecked else ""
    return (
        f"<div><b>{escape(spec.name)}</b> {escape(headline(system))} "
        f"<small>time in {escape(spec.time)}</small>{svg(spec)}"
        f'<table style="text-align:left"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>{note}</div>'
    )


def _kind(declared) -> str:
    if hasattr(declared, "value"):
        return "never"
    if declared.varies:
        return f"once for each {declared.varies}"
    return "for a cohort" if declared.shared else "for each person"


def mermaid(spec, parameters: bool = False) -> str:
    """The graph as Mermaid text; with `parameters` their nodes too."""
    lines, names = ["graph LR"], {}
    shapes = {"u": "([{}])", "c": "{{{{{}}}}}", "x": "[{}]", "y": "{{{{{}}}}}", "p": "({})"}
    for node in _nodes(spec, parameters):
        names[node] = f"n{len(names)}"
        kind = node[0] if node[1:2] == "." and node[0] in "ucxy" and node not in spec.parameters else "p"
        label = node if kind == "p" else node[2:]
        lines.append(f"  {names[node]}{shapes[kind].format(chr(34) + label + chr(34))}")
    lines += [f"  {names[a]} --> {names[b]}" for a, b in spec.drawn if a in names and b in names]
    return "\n".join(lines)


def _nodes(spec, parameters=False) -> list[str]:
    inputs = [f"u.{p}" for p in (*spec.doses, *spec.signals, *spec.covariates)]
    nodes = [*inputs, *(f"c.{p}" for p in spec.couplings), *(f"x.{p}" for p in spec.states), *(f"y.{p}" for p in spec.outputs)]
    used = {n for edge in spec.drawn for n in edge}
    return nodes + [p for p in (*spec.parameters, *spec.constants) if p in used] if parameters else nodes


def svg(spec) -> str:
    """Inputs, couplings if any, states and outputs in columns; the parameters of a rate are the tooltip of its state."""
    fields = {"u": {**spec.doses, **spec.signals, **spec.covariates}, "c": spec.couplings, "x": spec.states, "y": spec.outputs}
    drawn = set(_nodes(spec))

    def declared(node):
        return fields[node[0]][node[2:]]

    def title(node):
        needs = ", ".join(a for a, b in spec.drawn if b == node and a not in drawn)
        return f"{declared(node).doc}{': depends on ' + needs if needs else ''}"

    fill = {"u": "#e8eef7", "c": "#f7e8ee", "x": "#fdf3e1", "y": "#e7f4ea"}
    return columns_svg(
        [column for kind in "ucxy" if (column := [n for n in _nodes(spec) if n[0] == kind]) or kind != "c"],
        spec.drawn,
        label=lambda node: f"{node[2:]} {bracketed(declared(node).unit)}",
        fill=lambda node: fill[node[0]],
        title=title,
    )


def columns_svg(columns, edges, *, label, fill, title, thick=(), row: int = 44, gap: int = 110) -> str:
    """Nodes in columns with their arrows, as inline SVG.

    **Arguments:** `columns`: names from top to bottom; `edges`: (from, to), those between drawn nodes are drawn; `label`,
    `fill`, `title`: name -> text, color, tooltip; `thick`: names with a thick border.
    """
    width = max([110, *(16 + 7 * len(label(n)) for column in columns for n in column)])
    height = row * max(map(len, columns), default=1)
    place = {
        n: (c * (width + gap), (height - row * len(nodes)) / 2 + row * i)
        for c, nodes in enumerate(columns)
        for i, n in enumerate(nodes)
    }
    parts = []
    for a, b in edges:
        if a not in place or b not in place:
            continue
        (xa, ya), (xb, yb) = place[a], place[b]
        ya, yb = ya + 14, yb + 14
        if xa == xb:  # in one column: down on the right side, up on the left, wider the farther apart
            side, reach = (xa + width, 1) if yb > ya else (xa, -1)
            bend = side + reach * (18 + 10 * abs(yb - ya) / row)
            path = f"M{side},{ya} C{bend},{ya} {bend},{yb} {side + 2 * reach},{yb}"
        else:
            path = f"M{xa + width},{ya} C{xa + width + gap / 2},{ya} {xb - gap / 2},{yb} {xb - 2},{yb}"
        parts.append(f'<path d="{path}" fill="none" stroke="#7a869a" marker-end="url(#ht-tip)"/>')
    for node, (x, y) in place.items():
        border = 'stroke="#26344d" stroke-width="2.5"' if node in thick else 'stroke="#7a869a"'
        parts.append(
            f'<g><title>{escape(title(node))}</title><rect x="{x}" y="{y}" width="{width}" height="28" rx="6" '
            f'fill="{fill(node)}" {border}/>'
            f'<text x="{x + width / 2}" y="{y + 18}" text-anchor="middle">'
            f"{escape(label(node))}</text></g>"
        )
    tip = (
        '<defs><marker id="ht-tip" markerWidth="7" markerHeight="7" refX="6" refY="3" orient="auto">'
        '<path d="M0,0 L6,3 L0,6 z" fill="#7a869a"/></marker></defs>'
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="what depends on what" '
        f'width="{len(columns) * (width + gap) - gap + 40}" '
        f'height="{height + 4}" font-family="sans-serif" font-size="12">{tip}{"".join(parts)}</svg>'
    )
