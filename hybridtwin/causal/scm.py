"""A twin as a structural causal model for DoWhy: moments of its day as nodes, its flow as mechanisms, its draws as noise.

`dowhy.gcm` asks for an acyclic graph whose nodes are single numbers, a mechanism for each, and one row of noise a unit. A day cut
at moments is that: states at each moment, doses and what holds still in between, outcomes at the end. Abduction is ours (the
posterior), so `noise` is a draw's own row and nothing has to be estimated again; what DoWhy then does with interventions,
attribution, anomalies, changes of distribution and falsification runs on a body.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from hybridtwin.causal.flow import BODY, NOISE, Flow
from hybridtwin.causal.graph import Graph, Node, graph
from hybridtwin.causal.memory import whole
from hybridtwin.errors import InterventionError, UnknownTarget
from hybridtwin.fit import unit_of
from hybridtwin.outcomes import Outcome, as_outcome
from hybridtwin.simulate.rules import FIRST
from hybridtwin.simulate.trajectory import Trajectory
from hybridtwin.system import nearest
from hybridtwin.twin import Twin


@dataclasses.dataclass(frozen=True, eq=False)
class SCM:
    """A day of a twin as a structural causal model over moments.

    `graph`: what acts on what; `noise`: a data frame, one row a draw, with the value of each root and 0 for what is decided by
    its causes; `data`: the same day as it is, every node. `left_out`: inputs that are no variable here, because they change
    inside a stretch.

    Parameters of a posterior depend on each other (`body`, the draw itself, is their common cause); those of a prior are roots,
    and `noise` is then the draw whose errors of readings and paths of process noise a row has.
    """

    flow: Flow
    graph: Graph
    outcomes: tuple[Outcome, ...]
    noise: Any
    prior: bool

    @property
    def left_out(self) -> tuple[str, ...]:
        """Signals and covariates that change inside a stretch, so that no single number stands for them."""
        held = {h.input for h in self.flow.held}
        return tuple(n for n in (*self.flow.spec.signals, *self.flow.spec.covariates) if n not in held)

    @functools.cached_property
    def data(self):
        """Every node of the day as it is, one row a draw: a data frame."""
        return self.counterfactual({})

    @functools.cached_property
    def model(self):
        """A `dowhy.gcm.InvertibleStructuralCausalModel`, its mechanisms set and ready: no fit is needed."""
        from dowhy import gcm
        from dowhy.gcm.causal_models import PARENTS_DURING_FIT

        made = gcm.InvertibleStructuralCausalModel(self.graph.to_networkx())
        for name in self.graph.nodes:
            made.set_causal_mechanism(name, _mechanism(self, name))
            made.graph.nodes[name][PARENTS_DURING_FIT] = sorted(self.graph.parents(name))  # nothing is left to be fitted
        return made

    def counterfactual(self, interventions: Mapping[str, Callable | float]):
        """The same draws with nodes set: `dowhy.gcm.counterfactual_samples` on our noise, a data frame, one row a draw.

        **Arguments:** `interventions`: node -> a number, or a function of what the node would have been.
        **Raises:** UnknownTarget.
        """
        from dowhy import gcm

        for name in interventions:
            if name not in self.graph.nodes:
                raise UnknownTarget(f"counterfactual: no node {name!r}. {nearest(name, self.graph.nodes)}")
        acts = {n: v if callable(v) else (lambda old, v=v: np.full(np.shape(old), float(v))) for n, v in interventions.items()}
        return gcm.counterfactual_samples(self.model, acts, noise_data=self.noise)

    # ------------------------------------------------------------------ mechanisms

    def mechanism(self, name: str) -> Callable[[np.ndarray], np.ndarray]:
        """How a node follows from its causes: a function of an array (N, causes), the causes sorted by name, to (N,).

        **Raises:** UnknownTarget for no node, InterventionError for a root.
        """
        parents, node = sorted(self.graph.parents(name)), self.graph.nodes[name]
        if not parents:
            raise InterventionError(f"{name!r} has no cause in this graph.")

        def evaluate(values):
            values = np.asarray(values, float).reshape(-1, len(parents))
            own = {p: values[:, i] for i, p in enumerate(parents)}
            if parents == [BODY]:  # a parameter, or a state that the day begins with
                known = self.flow.rows[name] if name in self.flow.rows else self.flow.x0[node.of]
                found = known[np.clip(np.round(own[BODY]).astype(int), 0, self.flow.count - 1)]
            elif node.kind == "outcome":
                found = self._outcome(node, own, len(values))
            else:
                found = self._solved(node, own, len(values))
            self._seen.update(own | {name: found})
            return found

        return evaluate

    def _column(self, name, own, count) -> np.ndarray:
        """Values (N,) of a variable: the node's own causes as they are given, of all others what was seen last.

        What is no cause of a node does not change it. But nodes of one moment are one solution, and all of them are had from
        the first if its other variables were right as well.
        """
        seen = own.get(name, self._seen.get(name))
        if seen is not None and len(seen) == count:
            return seen
        if name in self.flow.rows:
            known = self.flow.rows[name]
            return known if len(known) == count else np.full(count, known.mean())
        return np.full(count, self._typical[name.rsplit("[", 1)[0]])

    def _rows(self, own, count):
        return {c: self._column(c, own, count) for c in self.flow.rows}

    def _state(self, k, own, count):
        return {p: self._column(f"{p}[{k}]", own, count) for p in self.flow.carried(k)}

    def _solved(self, node, own, count) -> np.ndarray:
        """A state or output (N,): from the last solution of its moment if that was made of the same causes, else of a new one."""
        flow, kind = self.flow, "output" if node.kind == "output" else "state"
        names = list(flow.spec.outputs) if kind == "output" else flow.carried(node.step)
        known = self._kept.get((kind, node.step))
        if known is not None and all(np.array_equal(known[0].get(p), v) for p, v in own.items()):
            return known[1][:, names.index(node.of)]
        k = node.step if kind == "output" else node.step - 1
        rows = self._rows(own, count)
        x = None if k < 0 else self._state(k, own, count)
        found = flow.onward(rows, x, k) if kind == "state" and k >= 0 else flow.at(rows, x, max(k, 0), names)
        self._kept[kind, node.step] = rows | {f"{p}[{k}]": v for p, v in (x or {}).items()}, found
        return found[:, names.index(node.of)]

    @functools.cached_property
    def _seen(self) -> dict[str, np.ndarray]:
        return {}

    @functools.cached_property
    def _kept(self) -> dict[tuple[str, int], Any]:
        return {}

    @functools.cached_property
    def _typical(self) -> dict[str, float]:
        names = tuple(self.flow.spec.states)
        fresh = {one.column: one.fresh for one in self.flow.memory}
        if not self.flow.begins:
            return fresh | {p: float(np.mean(v)) for p, v in self.flow.x0.items()}
        found = self.flow.at(self.flow.rows, None, 0, names)
        return fresh | dict(zip(names, map(float, np.nanmean(found, axis=0)), strict=True))

    def _outcome(self, node, own, count):
        outcome, moments = self.outcomes[node.step], self.flow.moments
        rows, names = self._rows(own, count), self._read(outcome)
        reads, parts, acts, times = self.flow.reads(), [], [], []
        for k in self._stretches(outcome):
            last = k == len(moments) - 2
            inside = [r for r in reads if (moments[k], FIRST) <= r and (last or r < (moments[k + 1], FIRST))]
            found, did = self.flow.course(rows, self._state(k, own, count), k, names, inside)
            parts.append(found)
            acts.append(did)
            times += [t for t, _ in inside]
        return outcome.of(self._trajectory(np.array(times), names, np.concatenate(parts, axis=1), rows, whole(acts)))

    def _read(self, outcome) -> tuple[str, ...]:
        names = tuple(self.flow.spec.outputs)
        return names if outcome.name in ("", *names) else (outcome.name,)

    def _trajectory(self, times, names, values, rows, acts):
        each = {n: [rows[g.column] for g in self.flow.doses if g.input == n] for n in self.flow.inputs}
        amounts = {n: np.stack(columns, axis=1) for n, columns in each.items() if columns}
        units = {n: self.flow.fit.model.unit_of(n) for n in names}
        failed = ~np.isfinite(values).all(axis=(1, 2))
        return Trajectory(times, {n: values[:, :, i] for i, n in enumerate(names)}, units, self.flow.day.bound.clock,
                          np.full(len(failed), self.flow.fit.model.name), failed, self.flow.tol, acts=acts,
                          inputs=self.flow.inputs, amounts=amounts)  # fmt: skip

    def _stretches(self, outcome) -> range:
        """The stretches that an outcome's window touches, from the first to the last."""
        return _stretches(self.flow, outcome)

    def __repr__(self):
        clock = self.flow.day.bound.clock
        when = ", ".join(map(clock.label, self.flow.moments))
        lines = [f"SCM of {self.flow.day.bound.person}: {self.flow.fit.model.name} at {when}, {self.flow.count} draws of the "
                 f"{'prior' if self.prior else 'posterior'}"]  # fmt: skip
        lines += repr(self.graph).splitlines()[1:]
        lines += [f"  left out: {', '.join(self.left_out)} (they change inside a stretch)"] if self.left_out else []
        return "\n".join(lines)


def scm(twin: Twin, moments: Sequence, *outcomes: Outcome, outputs: Sequence[str] | None = None, structure: int = 0,
        prior: bool = False, tol: float = 1e-7) -> SCM:  # fmt: skip
    """A twin's day as a structural causal model over moments, for `dowhy.gcm`.

    **Arguments:** `moments`: clock times or numbers of system time inside the day (its start is always one); `outcomes`: what is
    asked, a node each; `outputs`: outputs that are nodes at each moment (default: those that sensors read); `structure`: which
    of the twin's models; `prior`: draws of the prior, in which parameters are independent, instead of the posterior; `tol`: of
    the integration.

    **Returns:** `SCM`; its `model` is DoWhy's, its `counterfactual({node: value})` asks it.

    **Raises:** InterventionError where the world remembers what no number of a row can hold: resets, a state that follows another
    world, process noise of a day that was not lived.
    """
    base = graph(dataclasses.replace(twin, fits=(twin.fits[structure],), days=(twin.days[structure],))).bare
    policies = [name for name, node in base.nodes.items() if node.kind == "policy"]
    rules = policies[len(policies) - len(twin.world(structure).rules) :]  # those of the model come first
    flow = Flow(twin, moments, structure=structure, prior=prior, tol=tol, rules=rules)
    shown = tuple(outputs) if outputs is not None else tuple(dict.fromkeys(s.of for s in flow.fit.model.sensors.values()))
    asked = tuple(as_outcome(o) for o in outcomes)
    nodes, edges = _unrolled(flow, base, tuple(n for n in shown if n not in flow.spec.states), prior)
    for i, outcome in enumerate(asked):
        name = outcome.label
        nodes[name] = Node(name, "outcome", outcome.unit or "", outcome.label, step=i)
        edges += [(cause, name) for cause in _causes_of(flow, base, outcome)]
    labels = tuple(map(flow.day.bound.clock.label, flow.moments))
    made = Graph(f"{flow.fit.model.name} over time", nodes, tuple(dict.fromkeys(edges)), labels)
    return SCM(flow, made, asked, _noise(flow, made, prior), prior)


def _stretches(flow, outcome) -> range:
    clock, moments = flow.day.bound.clock, flow.moments
    if not outcome.name:
        return range(len(moments) - 1)
    start, stop = clock.window(outcome.start, outcome.stop, moments[0], flow.day.bound.stop)
    if stop > moments[-1] + 1e-9:
        raise InterventionError(
            f"{outcome.label}: the window ends at {clock.label(stop)}, after the last moment, {clock.label(moments[-1])}. "
            "Add a moment at its end or after it."
        )
    first = min(max(int(np.searchsorted(moments, start, side="right")) - 1, 0), len(moments) - 2)
    last = int(np.searchsorted(moments, stop, side="left"))
    return range(first, max(last, first + 1))


def _unrolled(flow, base, outputs, prior):
    """Nodes and arrows of the day over its moments, without outcomes."""
    clock, spec = flow.day.bound.clock, flow.spec
    nodes: dict[str, Node] = {} if prior else {BODY: Node(BODY, "noise", "1", "which draw of the posterior")}
    if flow.root == NOISE:
        nodes[NOISE] = Node(NOISE, "noise", "1", "which draw's errors of readings, and shape of the path of the process noise")
    edges: list[tuple[str, str]] = []
    for column, (site, _) in flow.parameters.items():
        nodes[column] = Node(column, "parameter", unit_of(flow.fit.model, site), _doc(spec, site))
        edges += [] if prior else [(BODY, column)]
    for g in flow.doses:
        unit = spec.doses[g.input].unit
        nodes[g.column] = Node(g.column, "input", unit, f"{g.input} at {clock.label(g.time)}", step=_place(flow, g.time))
    for h in flow.held:
        field = spec.signals.get(h.input) or spec.covariates[h.input]
        nodes[h.column] = Node(h.column, "input", field.unit, field.doc, step=_place(flow, h.start) if "[" in h.column else None)
    for push in flow.pushes:
        doc = "how far the process noise goes in this stretch, in standard deviations"
        nodes[push.column] = Node(push.column, "noise", "1", doc, step=push.stretch)
        edges += [] if prior else [(BODY, push.column)]
    for k in range(len(flow.moments)):
        for one in flow.memory:
            if one.column in flow.carried(k):
                name = f"{one.column}[{k}]"
                nodes[name] = Node(name, "policy", one.unit, one.doc, of=one.column, step=k)
                edges += [(cause, name) for cause in _within(flow, _movers(base, one.moves), k - 1)]
        for state, field in spec.states.items():
            name = f"{state}[{k}]"
            nodes[name] = Node(name, "state", field.unit, field.doc, of=state, step=k)
            edges += [(cause, name) for cause in (_starts(flow, base, state) if k == 0 else _causes(flow, base, state, k - 1))]
        for output in outputs:
            name = f"{output}[{k}]"
            nodes[name] = Node(name, "output", spec.outputs[output].unit, spec.outputs[output].doc, of=output, step=k)
            edges += [(cause, name) for cause in _direct(flow, base, output, k)]
    if not flow.begins and not prior:
        edges += [(BODY, f"{state}[0]") for state in spec.states]
    return nodes, edges


def _doc(spec, site):
    field = spec.parameters.get(site.split("@")[0])
    return field.doc if field is not None else "shift of the time of an uncertain event"


def _place(flow, t) -> int:
    return int(np.clip(np.searchsorted(flow.moments, t, side="right") - 1, 0, len(flow.moments) - 1))


def _columns(flow, name) -> list[str]:
    """Columns of a parameter: itself, and what it is on each occasion."""
    return [c for c, (site, _) in flow.parameters.items() if site.split("@")[0] == name]


def _starts(flow, base, state) -> list[str]:
    causes = [a for a, b in base.starts if b == state]
    if not flow.begins:
        return []
    held = {h.input: h.column for h in flow.holding(0)}
    return [c for name in base.nodes if name in causes for c in [*_columns(flow, name), *([held[name]] if name in held else [])]]


def _movers(base, targets) -> set[str]:
    """All that reaches some states or rules along the arrows of motion, these included; rules see by what is read."""
    found, edge = set(targets), list(targets)
    while edge:
        name = edge.pop()
        causes = base.parents(name) if base.nodes[name].kind == "reading" else base.movers(name)
        edge += [cause for cause in causes if cause not in found]
        found |= set(causes)
    return found


def _causes(flow, base, state, k) -> list[str]:
    """Causes of a state at moment k + 1."""
    return _within(flow, _movers(base, [state]), k)


def _within(flow, movers, k) -> list[str]:
    """Variables among `movers` at moment k and in the stretch from it on."""
    spec = flow.spec
    found = [f"{s}[{k}]" for s in spec.states if s in movers]
    held = flow.carried(k)
    found += [f"{one.column}[{k}]" for one in flow.memory if one.column in held and not movers.isdisjoint(one.moves)]
    read = [name for name in flow.errors if not movers.isdisjoint({name, f"reading of {name}"})]
    errors = {site for name in read for site in flow.errors[name]}
    found += [c for c, (site, _) in flow.parameters.items() if site.split("@")[0] in movers or site in errors]
    doses = [g for g in flow.given(k) if spec.doses[g.input].into in movers or g.input in movers]
    found += [g.column for g in doses] + [h.column for h in flow.holding(k) if h.input in movers]
    if any(g.until == np.inf for g in doses):
        found += [c for c, (site, _) in flow.parameters.items() if site == "times"]
    pushes = [push.column for push in flow.pushes if push.stretch == k and f"noise of {spec.noise[push.place][0]}" in movers]
    return found + pushes + ([flow.root] if read or pushes else [])


def _direct(flow, base, output, k) -> list[str]:
    """Causes of an output at moment k: what enters its formula."""
    causes, held = base.parents(output), {h.input: h.column for h in flow.holding(k)}
    found = []
    for name in causes:
        found += [f"{name}[{k}]"] if name in flow.spec.states else _columns(flow, name)
        found += [held[name]] if name in held else []
    return found


def _causes_of(flow, base, outcome) -> list[str]:
    """Causes of an outcome: what enters its output, and what moves that, from the first to the last stretch of its window."""
    names = [outcome.name] if outcome.name else list(flow.spec.outputs)
    direct = {cause for name in names for cause in (base.parents(name) if name not in flow.spec.states else [])}
    states = [s for s in flow.spec.states if s in direct or s in names]
    movers = _movers(base, states) | direct if outcome.name else set(base.nodes)
    return list(dict.fromkeys(c for k in _stretches(flow, outcome) for c in _within(flow, movers, k)))


def _noise(flow, made, prior):
    """A data frame: roots have their values, everything else 0."""
    import pandas as pd

    columns = {}
    for name, node in made.nodes.items():
        root = not made.parents(name)
        if name == BODY:
            columns[name] = np.arange(flow.count, dtype=float)
        elif root and node.kind == "state":
            columns[name] = flow.x0[node.of] if not flow.begins else _fixed_start(flow, node.of)
        else:
            columns[name] = np.asarray(flow.rows[name], float) if root else np.zeros(flow.count)
    return pd.DataFrame(columns)


def _fixed_start(flow, state):
    """Where a state begins that no parameter decides."""
    return flow.at(flow.rows, None, 0, [state])[:, 0]


def _mechanism(model, name):
    """DoWhy's mechanism of a node."""
    from dowhy import gcm

    kinds = _kinds()
    if not model.graph.parents(name):
        found = gcm.EmpiricalDistribution()
        found.fit(model.noise[name].to_numpy())
        return found
    return gcm.AdditiveNoiseModel(kinds["flow"](model.mechanism(name)), kinds["nothing"]())


@functools.cache
def _kinds() -> dict[str, Any]:
    """Classes that DoWhy asks for; made when it is loaded."""
    from dowhy.gcm.causal_mechanisms import StochasticModel
    from dowhy.gcm.ml import PredictionModel

    class FlowMap(PredictionModel):
        """A mechanism of the body: known, so there is nothing to fit."""

        def __init__(self, evaluate):
            self._evaluate = evaluate

        def fit(self, X, Y):
            """The body is what it is."""

        def predict(self, X):
            return self._evaluate(X).reshape(-1, 1)

        def clone(self):
            return FlowMap(self._evaluate)

    class Nothing(StochasticModel):
        """No noise, until a fit on data that a body does not explain finds some."""

        def __init__(self, residuals=None):
            self._residuals = residuals

        def fit(self, X):
            found = np.asarray(X, float).ravel()
            self._residuals = found if np.abs(found).max(initial=0.0) > 0 else None

        def draw_samples(self, num_samples):
            if self._residuals is None:
                return np.zeros((num_samples, 1))
            return np.random.choice(self._residuals, (num_samples, 1))  # noqa: NPY002 the generator that DoWhy seeds

        def clone(self):
            return Nothing()

    return {"flow": FlowMap, "nothing": Nothing}
