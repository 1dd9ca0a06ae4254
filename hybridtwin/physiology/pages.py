"""`docs/physiology/`: a page a system, written from what the system itself carries.

    python -m hybridtwin.physiology.pages docs/physiology [NAME ...]

A page holds the docstring, what goes in and comes out, the parameters with unit, prior and source, the table of
references with today's values, and a picture of the typical day.
"""

import argparse
import inspect
import io
from pathlib import Path

from hybridtwin.drawing import headline, interventions
from hybridtwin.physiology import REGISTRY
from hybridtwin.physiology.balance import balance
from hybridtwin.physiology.reference import Evidence, evidence
from hybridtwin.priors import describe
from hybridtwin.units import bracketed


def _table(head, rows) -> list[str]:
    return ["| " + " | ".join(head) + " |", "|" + "---|" * len(head), *("| " + " | ".join(r) + " |" for r in rows), ""]


def said(system) -> list[str]:
    """What a page says that needs no simulation: docstring, inputs, states, outputs, parameters."""
    spec, leaves = system.spec, {p: v for p, _, v in system.fields()}
    lines = [f"# {spec.name}", "", headline(system), "", "```text", inspect.getdoc(type(system)) or "", "```", ""]
    kinds = {"dose": spec.doses, "signal": spec.signals, "covariate": spec.covariates,
             "coupling": spec.couplings, "state": spec.states,
             "output": spec.outputs}  # fmt: skip
    rows = [(kind, f"`{name}`", bracketed(f.unit), f.doc) for kind, fields in kinds.items() for name, f in fields.items()]
    lines += _table(("kind", "name", "unit", "description"), rows)
    rows = [(f"`{p}`", bracketed(f.unit), describe(leaves[p]), f.doc, f.source)
            for p, f in {**spec.parameters, **spec.constants}.items()]  # fmt: skip
    lines += ["## Parameters", "", *_table(("name", "unit", "prior: median (90 %)", "description", "source"), rows)]
    inputs = ", ".join(f"`{name}`" for fields in (spec.doses, spec.signals) for name in fields)
    every = f"`do` acts on every input ({inputs}), parameter and state above." if inputs else \
        "`do` acts on every parameter and state above."
    sensible = interventions(system)
    return [*lines, "## Interventions", "", *([f"What makes sense: {sensible}.", ""] if sensible else []), every, ""]


def kept(found: Evidence) -> list[str]:
    """What is conserved, counted over the typical day; or why nothing is."""
    body, protocol = found.lived.body, found.lived.protocol
    if not body.spec.conserved:
        return ["## Conserved", "", f"Nothing: {body.unconserved}.", ""]
    counted = balance(body, protocol.person(body.spec.time), tol=protocol.tol)
    rows = [(*row[:-1], "yes" if account.holds else f"no: {row[-1]}")
            for row, account in zip(counted.rows(), counted.accounts.values(), strict=True)]  # fmt: skip
    head = ("what", "before", "given", "gained by itself", "at the end", "adds up")
    return ["## Conserved", "", "Over the typical day below; what is gained is made less lost.", "", *_table(head, rows)]


def page(system, found: Evidence) -> str:
    """The page of a system (with its priors) as Markdown."""
    lines = [*said(system), *kept(found)]
    lines += ["## Held against what was published", "", found.markdown() if found.rows else "Nothing yet.", ""]
    name = found.name
    lines += [f"## A typical day: {found.day}", "", f"![{name}: {found.lived.protocol.doc}]({name}.svg)", ""]
    if found.lived.protocol.undrawn:
        lines += [f"No published value is drawn: {found.lived.protocol.undrawn}.", ""]
    return "\n".join([*lines, f"Solved by {found.lived.course.solver}. Research use; not a medical device.", ""])


def picture(found: Evidence) -> str:
    """The typical day as SVG, the same bytes for the same values."""
    import matplotlib

    out = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": found.name, "path.simplify_threshold": 0.5}):
        found.plot().savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()


def index() -> str:
    """The list of all systems as Markdown."""
    rows = [(f"[{name}]({name}.md)", headline(cls()), cls.spec.time,
             f"none: {cls.protocol.undrawn}" if cls.protocol.undrawn else str(sum(r.drawn is not None for r in cls.references)))
            for name, cls in REGISTRY.items()]  # fmt: skip
    lines = ["# The library of physiologies", "", "Written by `python -m hybridtwin.physiology.pages docs/physiology`.", "",
             "The last column counts the published values that the picture of a page shows over our curve, under the protocol "
             "that the page names; a horizontal bar is a published time. Where there is none it says why: the picture is our own "
             "curve, and the page's table alone is held against papers.", ""]  # fmt: skip
    return "\n".join([*lines, *_table(("system", "what it is", "time in", "published values drawn"), rows)])


def write(folder: Path, names=()) -> None:
    """Write the pages of these systems (all by default) and the index."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names or REGISTRY:
        found = evidence(REGISTRY[name])
        (folder / f"{name}.md").write_text(page(REGISTRY[name](), found))
        (folder / f"{name}.svg").write_text(picture(found))
    (folder / "README.md").write_text(index())


if __name__ == "__main__":
    asked = argparse.ArgumentParser(description="Write the pages of systems, and the list of them all.")
    asked.add_argument("folder", type=Path)
    asked.add_argument("names", nargs="*", metavar="NAME", help="systems; all by default")
    given = asked.parse_args()
    if unknown := [name for name in given.names if name not in REGISTRY]:
        asked.error(f"no system is called {unknown[0]!r}. Known: {', '.join(REGISTRY)}")
    write(given.folder, given.names)
