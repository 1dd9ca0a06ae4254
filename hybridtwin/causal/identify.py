"""Can an effect be told from what is recorded? Asked of the graph read off the equations, answered by DoWhy.

A twin answers by its mechanism and needs no such permission; but where *why* a treatment was given is hidden and also acts on the
outcome, no record can tell the treatment's effect from that of its reason, and a mechanism that lacks the reason takes the
one for the other.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from hybridtwin.causal.graph import Graph, Node, graph
from hybridtwin.errors import DeclarationError, UnknownTarget
from hybridtwin.system import nearest

_NOW, _LATER = 1, 2  # the treatment is given in the stretch from moment 1 on, the outcome is looked at at moment 2


@dataclasses.dataclass(frozen=True, eq=False)
class Identification:
    """Whether the effect of a treatment on an outcome follows from what is recorded.

    `identified`; `adjust_for`: recorded nodes that make it so (empty where it was randomized); `open_paths`: ways from treatment
    to outcome, against the first arrow, that nothing recorded blocks; `graph`: over three moments, the treatment given after the
    second.
    """

    treatment: str
    outcome: str
    identified: bool
    adjust_for: tuple[str, ...]
    open_paths: tuple[tuple[str, ...], ...]
    graph: Graph
    estimand: Any

    @property
    def text(self) -> str:
        """In one or two sentences."""
        what = f"The effect of {self.treatment} on {self.outcome}"
        if self.identified and not self.adjust_for:
            return f"{what} is identified without adjustment: nothing that decides {self.treatment} acts on {self.outcome}."
        if self.identified:
            given = ", ".join(self.adjust_for)
            return f"{what} is identified given {given}. A twin is personalized to what is recorded of these."
        path = " - ".join(self.open_paths[0]) if self.open_paths else "a way through what is not recorded"
        open_ = f"{what} is NOT identified: {path} stays open whatever is recorded."
        nodes = [self.graph.nodes[n] for n in (self.open_paths[0] if self.open_paths else ())]
        if held := [node.of for node in nodes if node.kind == "policy"]:
            return (
                f"{open_} A comparison of people mixes the treatment with its reason. The model holds that reason as the policy "
                f"{held[0]!r}: a twin personalized with it answers by its mechanism, and rests on that policy being right."
            )
        told = f"{open_} A comparison then mixes the treatment with its reason, unless the model holds that reason."
        if not self.instruments:
            return told
        names = " and ".join(self.instruments)
        how = f"decides {self.treatment} and acts on {self.outcome} through nothing else"
        return f"{told} {names} {how}: an instrument, which would identify it only where all answer in proportion and alike."

    @property
    def instruments(self) -> tuple[str, ...]:
        """Recorded nodes that DoWhy finds to act on the outcome through the treatment alone."""
        kinds = {n: node.kind for n, node in self.graph.nodes.items()}
        found = self.estimand.get_instrumental_variables() or ()
        return tuple(n for n in found if kinds[n] in ("input", "reading"))

    def __repr__(self):
        return self.text


def identify(thing, treatment: str, outcome: str, *, decided_by: Sequence[str] = (),
             hidden: Mapping[str, Sequence[str]] | None = None) -> Identification:  # fmt: skip
    """Whether an effect is identified, by DoWhy on the graph over time.

    **Arguments:** `thing`: a system, model or twin; `treatment`: an input; `outcome`: an output, state or reading; `decided_by`:
    the readings, inputs or outputs that care looked at when it decided (none: randomized); `hidden`: reasons that are not
    recorded -> what they act on, the treatment's name among it, as in `hidden={"illness": ["bolus", "G"]}`.

    Recorded are inputs and readings; states, outputs, parameters and hidden reasons are not.

    **Raises:** UnknownTarget, DeclarationError.
    """
    base = graph(thing).bare
    for name in (treatment, outcome, *decided_by, *(n for acts in (hidden or {}).values() for n in acts)):
        if name not in base.nodes:
            raise UnknownTarget(f"identify: no node {name!r}. {nearest(name, base.nodes)}")
    if base.nodes[treatment].kind != "input":
        raise DeclarationError(f"identify: {treatment!r} is a {base.nodes[treatment].kind}. A treatment is an input.")
    if base.nodes[outcome].kind not in ("state", "output", "reading"):
        kind = base.nodes[outcome].kind
        raise DeclarationError(f"identify: {outcome!r} is a {kind}. An outcome is an output, a state or a reading of one.")
    over = _decided(base.unrolled(3), base, treatment, decided_by, hidden or {})
    given, seen = f"{treatment}[{_NOW}]", f"{outcome}[{_LATER}]"
    recorded = [n for n, node in over.nodes.items() if node.kind in ("input", "reading")]
    chosen = _adjustment(over, given, seen, recorded)
    estimand = _asked(over, given, seen, sorted({*(chosen or ()), given, seen}))
    if chosen is None:
        return Identification(treatment, outcome, False, (), _open(over, given, seen, recorded), over, estimand)
    return Identification(treatment, outcome, True, tuple(sorted(estimand.get_backdoor_variables() or ())), (), over, estimand)


def _decided(over, base, treatment, decided_by, hidden) -> Graph:
    """The graph over time with the reasons of the treatment in it."""
    nodes, edges = dict(over.nodes), list(over.edges)
    for k in (0, _NOW):
        for name in decided_by:
            looked = [name] if base.nodes[name].kind == "parameter" else [f"{name}[{j}]" for j in range(k + 1)]
            edges += [(n, f"{treatment}[{k}]") for n in looked if n in nodes and n != f"{treatment}[{k}]"]
    for name, acts in hidden.items():
        nodes[name] = Node(name, "noise", doc="a reason that is not recorded", of=name)
        for target in acts:
            at = [_NOW] if target == treatment else [_LATER] if f"{target}[{_LATER}]" in nodes else [_NOW]
            edges += [(name, f"{target}[{k}]") for k in at]
    return Graph(over.title, nodes, tuple(dict.fromkeys(edges)), over.times)


def _adjustment(over, given, seen, recorded) -> set[str] | None:
    """A minimal set of recorded nodes that blocks every way into the treatment; None where there is none.

    DoWhy looks through subsets, of which there are too many here. But if any recorded set does, one among the ancestors of
    treatment and outcome does, and a minimal one is found without search (van der Zander 2014, doi:10.48550/arXiv.1803.00116).
    """
    import networkx as nx

    behind = over.to_networkx()
    behind.remove_edges_from(list(behind.out_edges(given)))
    after = over.descendants(given) | {given, seen}
    return nx.find_minimal_d_separator(behind, given, seen, restricted=set(recorded) - after)


def _asked(over, given, seen, recorded):
    import logging

    from dowhy.causal_identifier.auto_identifier import BackdoorAdjustment, EstimandType, identify_effect_auto

    quiet = logging.getLogger("dowhy.causal_identifier")
    level = quiet.level
    quiet.setLevel(logging.ERROR)  # it warns of what we ask it about
    try:
        return identify_effect_auto(
            over.to_networkx(), [given], [seen], recorded, EstimandType.NONPARAMETRIC_ATE,
            backdoor_adjustment=BackdoorAdjustment.BACKDOOR_MIN,
        )  # fmt: skip
    finally:
        quiet.setLevel(level)


def _open(over, given, seen, recorded) -> tuple[tuple[str, ...], ...]:
    """Ways into the treatment that no recorded node lies on, and that end at the outcome: the shortest first.

    Such a way goes back from the treatment to something that acts on both, and on from there to the outcome.
    """
    import networkx as nx

    flat, found = over.to_networkx(), []
    away = flat.subgraph([n for n in flat if n not in {*recorded} - {seen} and n != given])
    for cause in (c for c in over.parents(given) if c in away):
        for common in {cause} | (over.ancestors(cause) & set(away)):
            if nx.has_path(away, common, cause) and nx.has_path(away, common, seen):
                back, on = nx.shortest_path(away, common, cause), nx.shortest_path(away, common, seen)
                if not set(back[1:]) & set(on[1:]):
                    found.append((given, *reversed(back), *on[1:]))
    return tuple(sorted(found, key=len))[:5]
