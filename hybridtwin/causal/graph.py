"""The graph of a model: who answers to whom, read off the equations. Nobody draws it by hand.

A `Graph` is a value: nodes with kind, unit and description, and arrows. In continuous time it may have cycles (glucose and
insulin answer to each other); `unrolled` at decision times it has none, and is what methods for acyclic graphs want.
"""

import dataclasses
import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hybridtwin.changes import Stuck
from hybridtwin.dosing import Correct
from hybridtwin.drawing import columns_svg
from hybridtwin.errors import DeclarationError, UnknownTarget
from hybridtwin.interventions import Titrate, When
from hybridtwin.model import Model
from hybridtwin.system import System, nearest
from hybridtwin.twin import Twin
from hybridtwin.units import bracketed

KINDS = ("parameter", "noise", "input", "policy", "coupling", "state", "output", "reading", "outcome")  # from cause to effect
_COLUMNS = (("parameter",), ("input", "policy"), ("coupling",), ("state",), ("output", "noise"), ("reading", "outcome"))
_FILL = {"parameter": "#f3f0f7", "noise": "#f4f4f4", "input": "#e8eef7", "policy": "#f7e8ee", "coupling": "#f7f3e8",
         "state": "#fdf3e1", "output": "#e7f4ea", "reading": "#e3f2f4", "outcome": "#dff0d8"}  # fmt: skip
_SHAPE = {"parameter": "({})", "noise": "(({}))", "input": "([{}])", "policy": "{{{}}}", "coupling": ">{}]", "state": "[{}]",
          "output": "{{{{{}}}}}", "reading": "[/{}/]", "outcome": "[[{}]]"}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Node:
    """One variable. `kind`: one of `KINDS`; `done`: is it set by an intervention (its other causes are then cut)?

    `of`, `step`: in an unrolled graph the name it has in the graph itself, and its place among the times.
    """

    name: str
    kind: str
    unit: str = ""
    doc: str = ""
    done: bool = False
    of: str = ""
    step: int | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Graph:
    """Variables and arrows of a structural causal model.

    `nodes`: name -> `Node`; `edges`: (cause, effect). What has no cause in the graph is `exogenous`: parameters, inputs that
    nobody decides by a rule, the noise of readings and of the process.
    """

    title: str
    nodes: Mapping[str, Node]
    edges: tuple[tuple[str, str], ...]
    times: tuple[str, ...] = ()
    starts: frozenset[tuple[str, str]] = frozenset()  # arrows by which states begin; in an unrolled graph none
    moves: frozenset[tuple[str, str]] = frozenset()  # arrows along which they go on
    plain: "Graph | None" = None  # where it has couplings: the same with what they stand for written out

    @functools.cached_property
    def _up(self) -> dict[str, tuple[str, ...]]:
        return {name: tuple(a for a, b in self.edges if b == name) for name in self.nodes}

    @functools.cached_property
    def _down(self) -> dict[str, tuple[str, ...]]:
        return {name: tuple(b for a, b in self.edges if a == name) for name in self.nodes}

    @functools.cached_property
    def _moved_by(self) -> dict[str, tuple[str, ...]]:
        return {name: tuple(a for a, b in self.edges if b == name and (a, b) in self.moves) for name in self.nodes}

    @property
    def bare(self) -> "Graph":
        """The graph without couplings: what they stand for is written out."""
        return self if self.plain is None else self.plain

    def _known(self, name) -> str:
        if name not in self.nodes:
            raise UnknownTarget(f"{self.title}: no node {name!r} in this graph. {nearest(name, self.nodes)}")
        return name

    def parents(self, name: str) -> tuple[str, ...]:
        """Direct causes. **Raises:** UnknownTarget."""
        return self._up[self._known(name)]

    def children(self, name: str) -> tuple[str, ...]:
        """Direct effects. **Raises:** UnknownTarget."""
        return self._down[self._known(name)]

    def ancestors(self, name: str) -> frozenset[str]:
        """Everything that acts on it, directly or not. **Raises:** UnknownTarget."""
        return _reached(self._known(name), self._up)

    def descendants(self, name: str) -> frozenset[str]:
        """Everything it acts on, directly or not. **Raises:** UnknownTarget."""
        return _reached(self._known(name), self._down)

    def movers(self, name: str) -> frozenset[str]:
        """Everything that moves a state along the arrows of motion, directly or not. **Raises:** UnknownTarget."""
        return _reached(self._known(name), self._moved_by)

    @property
    def exogenous(self) -> tuple[str, ...]:
        """Nodes without a cause in the graph."""
        return tuple(name for name in self.nodes if not self._up[name])

    @property
    def acyclic(self) -> bool:
        """Is there no way from a node back to itself?"""
        return not any(name in self.descendants(name) for name in self.nodes)

    def unrolled(self, steps: int | Sequence[str], *, given: Mapping[str, Iterable[int]] | None = None) -> "Graph":
        """The graph over time: states, outputs and readings once for each of several moments.

        **Arguments:** `steps`: how many moments, or what to call them; `given`: dose -> the stretches into which it is given
        (left out: every one; a dose is a node for each, `bolus[k]` given in the stretch from moment k on).

        Couplings are written out. From one moment to the next a state answers to all that reaches it along the arrows in
        continuous time, itself included.
        """
        if self.plain is not None:
            return self.plain.unrolled(steps, given=given)
        labels = tuple(map(str, steps)) if not isinstance(steps, int) else tuple(f"time {k}" for k in range(steps))
        if len(labels) < 2:
            raise DeclarationError("a graph over time needs at least two moments. Write graph.unrolled(3).")
        nodes: dict[str, Node] = {}
        edges: list[tuple[str, str]] = []
        last = len(labels) - 1
        asked = given or {}
        when = {name: tuple(asked.get(name, range(last))) for name in self._of_kind("input", "policy")}

        def add(name, k=None):
            of = self.nodes[name]
            label = name if k is None else f"{name}[{k}]"
            nodes[label] = dataclasses.replace(of, name=label, of=name, step=k)

        for name in self._of_kind("parameter"):
            add(name)
        for k in range(last + 1):
            for name in self._of_kind("state", "output", "reading", "noise"):
                add(name, k)
            for name in self._of_kind("input", "policy"):
                if k in when[name]:
                    add(name, k)
        slow = [n for n in self.nodes if self.nodes[n].kind == "state"]
        for k in range(last + 1):
            for name in (n for n in self.nodes if self.nodes[n].kind in ("output", "reading", "policy", "input")):
                for cause in self.parents(name):
                    source = cause if self.nodes[cause].kind == "parameter" else f"{cause}[{k}]"
                    if source in nodes and f"{name}[{k}]" in nodes:
                        edges.append((source, f"{name}[{k}]"))
            for name in slow:
                if k == 0:
                    for cause in (a for a in self.nodes if (a, name) in self.starts):
                        source = cause if self.nodes[cause].kind == "parameter" else f"{cause}[0]"
                        edges += [(source, f"{name}[0]")] if source in nodes else []
                    continue
                edges += [(source, f"{name}[{k}]") for source in self._before(name, k, nodes)]
        return Graph(f"{self.title} over time", nodes, tuple(dict.fromkeys(edges)), labels)

    def _before(self, name, k, nodes):
        """Causes, at moment k - 1 and in the stretch behind it, of a state at moment k."""
        states = {n for n in _reached(name, self._moved_by) if self.nodes[n].kind == "state"} | {name}
        for state in (n for n in self.nodes if n in states):
            yield f"{state}[{k - 1}]"
            for cause in self._moved_by[state]:
                kind = self.nodes[cause].kind
                if kind == "parameter":
                    yield cause
                elif kind in ("input", "policy", "noise"):
                    for j in range(k):  # what was given before may still be on its way (lag, infusion)
                        if f"{cause}[{j}]" in nodes and (j == k - 1 or kind == "input"):
                            yield f"{cause}[{j}]"

    def _of_kind(self, *kinds):
        return [name for name, node in self.nodes.items() if node.kind in kinds]

    def to_networkx(self) -> Any:
        """A `networkx.DiGraph`; kind, unit and description are attributes of its nodes."""
        import networkx as nx

        found = nx.DiGraph()
        for name, node in self.nodes.items():
            found.add_node(name, kind=node.kind, unit=node.unit, doc=node.doc)
        found.add_edges_from(self.edges)
        return found

    def mermaid(self) -> str:
        """The graph as Mermaid text."""
        at = {name: f"n{i}" for i, name in enumerate(self.nodes)}
        lines = ["graph LR"]
        lines += [f"  {at[name]}{_SHAPE[n.kind].format(chr(34) + name + chr(34))}" for name, n in self.nodes.items()]
        return "\n".join([*lines, *(f"  {at[a]} --> {at[b]}" for a, b in self.edges)])

    def svg(self) -> str:
        """Inline SVG: kinds in columns, or in an unrolled graph moments in columns."""
        if self.times:
            columns = [[n for n in self.nodes.values() if n.step is None]]
            columns += [[n for n in self.nodes.values() if n.step == k] for k in range(len(self.times))]
        else:
            columns = [[n for n in self.nodes.values() if n.kind in kinds] for kinds in _COLUMNS]
        columns = [column for column in columns if column]
        return columns_svg([[n.name for n in column] for column in columns], self.edges, label=self._label,
                           fill=lambda name: _FILL[self.nodes[name].kind], title=lambda name: self.nodes[name].doc,
                           thick={n.name for n in self.nodes.values() if n.done})  # fmt: skip

    def _label(self, name):
        unit = self.nodes[name].unit
        return f"{name} {bracketed(unit)}" if unit not in ("", "1") else name

    def _repr_html_(self) -> str:
        from html import escape

        return f"<div><b>{escape(self.title)}</b>{self.svg()}</div>"

    def __repr__(self):
        cycles = "" if self.acyclic else ", with cycles"
        lines = [f"Graph of {self.title}: {len(self.nodes)} nodes, {len(self.edges)} arrows{cycles}"]
        for kind in KINDS:
            names = [n + (" (set)" if self.nodes[n].done else "") for n in self._of_kind(kind)]
            if names:
                more = f" and {len(names) - 12} more" if len(names) > 12 else ""
                lines.append(f"  {kind:<10}{', '.join(names[:12])}{more}")
        return "\n".join(lines)


def _reached(name, step) -> frozenset[str]:
    found, edge = set(), list(step[name])
    while edge:
        here = edge.pop()
        if here not in found:
            found.add(here)
            edge += step[here]
    return frozenset(found)


def graph(thing: "System | Model | Twin") -> Graph:
    """The causal graph of a system, a model (with its sensors) or a twin (with what was done and its rules of care).

    Read off `rates`, `initial`, `outputs` and `dosing` as JAX traces them, sensors and rules of care: an arrow is where one
    enters the computation of the other. **Raises:** DeclarationError for anything else.
    """
    found = _graph(thing, True)
    coupled = any(node.kind == "coupling" for node in found.nodes.values())
    return dataclasses.replace(found, plain=_graph(thing, False)) if coupled else found


def acts_on(rule) -> str:
    """The dose or signal that a rule of care gives, stops or scales."""
    if isinstance(rule, When):
        return rule.give[0] if rule.give else str(rule.stop)
    return rule.dose if isinstance(rule, Titrate | Correct) else rule.give


def _graph(thing, coupled: bool) -> Graph:
    """With couplings as nodes, or with what they stand for written out."""
    if isinstance(thing, Twin):
        return _of_twin(thing, coupled)
    if isinstance(thing, Model):
        return _of_model(thing, coupled)
    if isinstance(thing, System):
        nodes, edges, starts, moves = _of_spec(thing.spec, coupled)
        return Graph(thing.spec.name, nodes, edges, starts=starts, moves=moves)
    raise DeclarationError(f"graph of what? Give a system, a model or a twin, not {type(thing).__name__}.")


def _of_spec(spec, coupled: bool):
    """Nodes of a system, all of its arrows, those by which states begin and those along which they go on.

    An output that shares its name with a state or a coupling is that state or coupling.
    """
    nodes: dict[str, Node] = {}
    arrows = spec.drawn if coupled else spec.edges
    flows = {e for e in arrows if e in spec.flows or any(node.startswith("c.") for node in e)}
    own = {p for edge in arrows for p in edge}
    for path, field in {**spec.parameters, **spec.constants}.items():
        if path in own:
            nodes[path] = Node(path, "parameter", field.unit, field.doc)
    for path, field in {**spec.doses, **spec.signals, **spec.covariates}.items():
        nodes[path] = Node(path, "input", field.unit, field.doc)
    for path, field in spec.couplings.items() if coupled else ():
        nodes[path] = Node(path, "coupling", field.unit, field.doc)
    for path, field in spec.states.items():
        nodes[path] = Node(path, "state", field.unit, field.doc)
    for path, _ in spec.noise:
        nodes[f"noise of {path}"] = Node(f"noise of {path}", "noise", "1", f"Wiener process that moves {path}")
    for path, field in spec.outputs.items():
        if path not in nodes:
            nodes[path] = Node(path, "output", field.unit, field.doc)

    def drawn(edges):
        pairs = [(_plain(a), _plain(b)) for a, b in edges]
        # The lag or fraction of a dose acts where the dose goes in, not on what is given.
        own = {n for n, node in nodes.items() if node.kind == "parameter"}
        pairs = [(a, spec.doses[b].into if b in spec.doses and a in own else b) for a, b in pairs]
        return [(a, b) for a, b in pairs if a in nodes and b in nodes and a != b]

    noise = [(f"noise of {path}", path) for path, _ in spec.noise]
    starts, moves = frozenset(drawn(spec.starts)), frozenset([*drawn(flows), *noise])
    return nodes, tuple(dict.fromkeys([*drawn(arrows), *noise])), starts, moves


def _plain(name) -> str:
    return name[2:] if re.match(r"[ucxy]\.", name) else name


def _of_model(model, coupled: bool) -> Graph:
    nodes, edges, starts, moves = _of_spec(model.spec, coupled)
    if model.start == "steady":  # at rest every state answers to all that moves it
        known = Graph(model.name, nodes, edges, moves=moves)
        ways = ((cause, name) for name in model.spec.states for cause in _reached(name, known._moved_by))
        starts = frozenset((a, b) for a, b in ways if nodes[a].kind in ("parameter", "input") and a not in model.spec.doses)
    added = list(edges)
    for name, sensor in model.sensors.items():
        label = name if name not in nodes else f"reading of {name}"
        kind, unit = ("policy", "") if sensor.decides else ("reading", model.unit_of(sensor.of))
        nodes[label] = Node(label, kind, unit, f"{type(sensor).__name__} of {sensor.of}")
        nodes[f"error of {name}"] = Node(f"error of {name}", "noise", "1", f"what {name} reads beside {sensor.of}")
        added += [(label, sensor.decides)] if sensor.decides else []
        added += [(sensor.of, label), (f"error of {name}", label)]
        for path, field, _ in sensor.fields():
            nodes[f"{name}.{path}"] = Node(f"{name}.{path}", "parameter", field.unit, field.doc)
            added.append((f"{name}.{path}", label))
    return Graph(model.name, nodes, tuple(added), starts=starts, moves=moves)


def _of_twin(twin, coupled: bool) -> Graph:
    """With the interventions of the twin's world: a state held for good loses its causes; a rule of care is a node of its own."""
    known = _of_model(twin.fits[0].model, coupled)
    nodes, edges, moves = dict(known.nodes), list(known.edges), set(known.moves)
    world, spec = twin.world(), twin.fits[0].model.spec
    for name in dict.fromkeys(name for do in twin.dos for name in do.targets):
        label = next(n for n in (name, f"reading of {name}", name.removeprefix("reading of ")) if n in nodes)
        nodes[label] = dataclasses.replace(nodes[label], done=True)
    for edit in world.edits:
        new = {(_plain(cause), edit.state) for cause in edit.causes} - {(edit.state, edit.state), ("t", edit.state)}
        given = {(n, edit.state) for n, dose in spec.doses.items() if dose.into == edit.state}
        if edit.start <= world.start and edit.stop >= world.stop:  # the old equation holds at no time
            edges = [e for e in edges if e[1] != edit.state or e not in moves or e in given]
            moves = {e for e in moves if e[1] != edit.state or e in given}
        edges += [e for e in sorted(new) if e[0] in nodes and e not in edges]
        moves |= {e for e in new if e[0] in nodes}
    for part in world.misread:
        label = f"reading of {part.sensor}" if f"reading of {part.sensor}" in nodes else part.sensor
        if isinstance(part.change, Stuck) and part.start <= world.start and part.stop >= world.stop:
            edges = [e for e in edges if e[1] != label]
    for clamp in world.clamps:
        if clamp.start <= world.start and clamp.stop >= world.stop:
            edges, moves = [e for e in edges if e[1] != clamp.state], {e for e in moves if e[1] != clamp.state}
    for rule in world.rules:
        target, what = acts_on(rule), rule.what if isinstance(rule, When) else rule.when
        if not isinstance(rule, When) and rule.reads:
            what = f"reading of {rule.reads}" if f"reading of {rule.reads}" in nodes else rule.reads
        name = f"rule {sum(n.kind == 'policy' for n in nodes.values()) + 1}"
        into = spec.doses[target].into if target in spec.doses and not isinstance(rule, Titrate) else target
        nodes[name] = Node(name, "policy", "", str(rule))
        edges += [(what, name), (name, into)]
        moves |= {(what, name), (name, into)}
    starts = frozenset(known.starts) if twin.days[0].start in ("model", "free") else frozenset()
    return Graph(f"{known.title}, {twin.id}: {twin.label}", nodes, tuple(edges), starts=starts, moves=frozenset(moves))
