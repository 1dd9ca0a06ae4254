"""Along which paths of the causal graph an intervention reaches an outcome: natural direct and indirect effects.

With Y(w, M(v)) the outcome in world w when the state M takes the course that it has in world v:

    total = Y(a, M(a)) - Y(b, M(b)) = direct + indirect
    direct   = Y(a, M(b)) - Y(b, M(b))      what is done, while M stays as without it
    indirect = Y(a, M(a)) - Y(a, M(b))      what M's own change then adds
    alone    = Y(b, M(a)) - Y(b, M(b))      M's change without anything else that was done

M is held draw by draw to its course in the other world (`ht.as_in`), so the effects are those of each body under the structure of
the model; a body whose M was changed by other means is assumed to answer in the same way. Indirect and alone differ where M and
the rest act on each other.

Source: Robins and Greenland 1992, doi:10.1097/00001648-199203000-00013; Pearl 2001, arXiv:1301.2300.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from hybridtwin.causal import grounds
from hybridtwin.changes import as_in
from hybridtwin.errors import InterventionError, UnrelatedTwins
from hybridtwin.explain.players import settled
from hybridtwin.finding import Finding
from hybridtwin.fit import Verdict
from hybridtwin.outcomes import Outcome, as_outcome, signed
from hybridtwin.twin import simulate_worlds
from hybridtwin.units import plain

PARTS = ("total", "direct", "indirect", "alone")


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class PathEffect(Finding):
    """Effects of world `a` against world `b` through a state and past it: `draws[part]` (n,) for each of `PARTS`.

    `through`: the states that are held; `ways`: paths of the graph from what was done through them to the outcome, in words
    (() where there is none: then the indirect effect is zero); `error`: how far holding a state to its own course moves the
    outcome, at most.
    """

    outcome: Outcome
    through: tuple[str, ...]
    a_label: str
    b_label: str
    draws: dict[str, np.ndarray]
    ways: tuple[str, ...]
    error: float
    verdict: Verdict

    @property
    def table(self):
        """One row a part: median, 5 % and 95 % quantiles. Under DO NOT USE the numbers are missing."""
        import pandas as pd

        rows = []
        for part in PARTS:
            low, middle, high = np.nanquantile(self.draws[part], [0.05, 0.5, 0.95])
            rows.append({"effect": part, "through": ", ".join(self.through), "median": middle, "q05": low, "q95": high,
                         "unit": self.outcome.unit or ""})  # fmt: skip
        found = pd.DataFrame(rows)
        return found.assign(median=np.nan, q05=np.nan, q95=np.nan) if self.verdict.headline == "DO NOT USE" else found

    @property
    def text(self) -> str:
        """The parts in words, verdict first."""
        held, unit = " and ".join(self.through), f" {self.outcome.unit}" if self.outcome.unit not in (None, "", "1") else ""
        lines = [f"{self.outcome.label}: {self.a_label} compared with {self.b_label}.", f"Verdict: {self.verdict.headline}."]
        if self.verdict.headline == "DO NOT USE":
            return "\n".join([*lines, "No numbers are shown under this verdict.", "Research use; not a medical device."])
        words = {"total": "in all", "direct": f"past {held}", "indirect": f"through {held}",
                 "alone": f"by the change of {held} alone"}  # fmt: skip
        for part in PARTS:
            low, middle, high = np.nanquantile(self.draws[part], [0.05, 0.5, 0.95])
            lines.append(f"  {words[part]}: {signed(middle)} ({signed(low)} to {signed(high)}){unit}")
        own = f"held to its own course, {held} moves the outcome by up to {plain(self.error, 2)}{unit}"
        lines.append(f"  ({own}: less than that is nothing)")
        lines.append("Ways: " + ("; ".join(self.ways) if self.ways else f"none leads through {held}") + ".")
        lines.append(f"Rests on the structure of the model: {held} changed by other means is taken to act in the same way.")
        lines.append("Research use; not a medical device.")
        return "\n".join(lines)


def path_effect(a, b, outcome: Outcome, through: str | Sequence[str]) -> PathEffect:
    """What world `a` changes against world `b` through a state (or several held together), and past it.

    ```python
    path_effect(twin.do(meal=lambda m: 2 * m), twin, ht.outcomes.peak("G"), through="insulin.I")
    ```

    **Raises:** UnrelatedTwins for worlds that are not of one twin on one day; InterventionError for what is no state of every
    structure, or where rules of care act; DeclarationError, PastHorizon.
    """
    outcome = as_outcome(outcome)
    held = (through,) if isinstance(through, str) else tuple(through)
    if a.root != b.root:
        raise UnrelatedTwins("path_effect: the worlds do not come from one twin on one day. Make both by twin.do(...).")
    for fit in a.fits:
        for name in held:
            if name not in fit.model.spec.states:
                known = ", ".join(fit.model.spec.states)
                raise InterventionError(f"path_effect: {name!r} is no state of {fit.model.name}. States: {known}.")
    if not held:
        raise InterventionError('path_effect: through which state? Write through="insulin.I".')
    worlds = [a, b, *(w.do(**{n: as_in(other) for n in held}) for w, other in ((a, b), (b, a), (a, a)))]
    courses = simulate_worlds(worlds, names=(outcome.name,) if outcome.name else None)
    own, other, direct, alone, same = (outcome.of(c) for c in courses)
    pairs = {"total": (own, other), "direct": (direct, other), "indirect": (own, direct), "alone": (alone, other)}
    draws = {part: grounds.apart(*pair, 1.0 if outcome.unit == "%" else 0.0) for part, pair in pairs.items()}
    error = float(np.nanmax(np.abs(same - own), initial=0.0))
    asked = settled(a, outcome)
    return PathEffect(asked, held, a.label, b.label, draws, ways(a, b, outcome, held), error, a.verdict)


def ways(a, b, outcome: Outcome, held: Sequence[str]) -> tuple[str, ...]:
    """The shortest path of the causal graph from each thing that differs between two worlds through a held state to the
    outcome.
    """
    found = []
    for which, fit in enumerate(a.fits):
        spec, edges = fit.model.spec, {}
        for start, stop in fit.model.spec.edges:
            edges.setdefault(start, []).append(stop)
        ends = {f"y.{outcome.name}", f"x.{outcome.name}"} if outcome.name else {f"y.{n}" for n in spec.outputs}
        for source in grounds.different(a.world(which), b.world(which), spec):
            for name in held:
                first = _shortest(edges, source, {f"x.{name}"})
                last = _shortest(edges, f"x.{name}", ends)
                if first and last:
                    nodes = [n.removeprefix("u.").removeprefix("x.").removeprefix("y.") for n in (*first, *last[1:])]
                    found.append(" -> ".join(nodes))
    return tuple(dict.fromkeys(found))


def _shortest(edges, start, ends) -> list[str]:
    """The shortest path from a node to one of `ends`, both included; [] where there is none."""
    seen, rows = {start}, [[start]]
    while rows:
        path = rows.pop(0)
        if path[-1] in ends:
            return path
        for node in edges.get(path[-1], []):
            if node not in seen:
                seen.add(node)
                rows.append([*path, node])
    return []
