"""What rules of care and switches remember from one stretch of a day to the next, as numbers that a row may change.

A rule acts between two moments inside the flow map. What it carries over a moment beside the states is little: how long it must
still wait, whether it may act again, by what it multiplies, what it measured and has not acted on yet, and how often it acted
where that is bounded. These are variables of the node's own moment; the discrete state of a switch is a state like any other.
"""

import dataclasses
from collections.abc import Mapping

import jax
import numpy as np

from hybridtwin.interventions import Titrate, When, span_of
from hybridtwin.simulate.events import Care
from hybridtwin.simulate.rules import measures, rule_columns
from hybridtwin.simulate.trajectory import Act

_DOCS = {
    "wait": "how long it still waits before it may act again",
    "armed": "1 while it may act, 0 until it has seen its level of recovery",
    "factor": "by what it multiplies what it titrates",
    "seen": "what it measured last and has not acted on yet",
    "acts": "how often it acted, which is bounded",
}
_FRESH = {"wait": 0.0, "armed": 1.0, "factor": 1.0, "seen": np.nan, "acts": 0.0}


@dataclasses.dataclass(frozen=True)
class Remembered:
    """One number that a rule of care or a switch carries over a moment.

    `column`: its name; `place`: of the rule in `Layout.rules`; `moves`: the node of the rule, or the states that a switch sets;
    `pending`: (measured, looked) times between which it is carried (None: always).
    """

    column: str
    part: str
    place: int
    moves: tuple[str, ...]
    unit: str
    pending: tuple[tuple[float, float], ...] | None = None

    @property
    def doc(self) -> str:
        """What it is, in words."""
        return _DOCS[self.part]

    @property
    def fresh(self) -> float:
        """What it is before anything was done."""
        return _FRESH[self.part]

    def at(self, t: float) -> bool:
        """Is there something to carry over time t?"""
        slack = 1e-9 * max(1.0, abs(t))
        return self.pending is None or any(measured < t - slack and t - slack <= looked for measured, looked in self.pending)


def remembered(world, layout, spec, names) -> tuple[Remembered, ...]:
    """What the rules of a world, called `names`, and the switches of its system remember."""
    found = []
    places, measured = rule_columns(world, layout), measures(world, spec.time)
    for rule, place, name, read in zip(world.rules, places, names, measured, strict=True):
        static, own = layout.rules[place], {}
        if isinstance(rule, Titrate):
            own["factor"] = "1"
        elif rule.wait and span_of(rule.wait, "s") > 0:
            own["wait"] = spec.time
        if isinstance(rule, When):
            own |= {"armed": "1"} if static.recovers or static.stop else {}
            own |= {"acts": "1"} if static.recovers or static.give else {}
        elif static.delayed:
            unit, delay = (spec.outputs.get(static.what) or spec.states[static.what]).unit, span_of(rule.delay, spec.time)
            late = tuple((float(t), float(t) + delay) for t in read)
            found.append(Remembered(f"{name} seen", "seen", place, (name,), unit, late))
        found += [Remembered(f"{name} {part}", part, place, (name,), unit) for part, unit in own.items()]
    switches = ((place, rule) for place, rule in enumerate(layout.rules) if rule.sets)
    return (*found, *(Remembered(f"{rule.what} acts", "acts", place, rule.sets, "1") for place, rule in switches))


def care_of(memory, layout, x: Mapping[str, np.ndarray], t: float, count: int) -> Care:
    """What the rules of `count` rows remember at time t, from the numbers in `x`: leading axis `count`."""
    care = jax.tree.map(lambda a: np.repeat(np.asarray(a)[None], count, axis=0), Care.fresh(layout.rules))
    for one in memory:
        if one.column in x:
            value = np.asarray(x[one.column], float)
            if one.part == "wait":
                care.ready[:, one.place] = np.where(value > 0, t + value, -np.inf)
            elif one.part == "armed":
                care.recovered[:, one.place] = value > 0.5
            elif one.part == "acts":
                care.count[:, one.place] = np.round(np.nan_to_num(value))  # a row that failed fails on, by its states
            else:
                getattr(care, one.part)[:, one.place] = value
    return care


def told_of(memory, care: Care, t: float) -> dict[str, np.ndarray]:
    """Column -> (N,) of what the rules remember at time t."""
    parts = {"wait": np.maximum(care.ready - t, 0.0), "armed": care.recovered, "factor": care.factor, "seen": care.seen,
             "acts": care.count}  # fmt: skip
    return {one.column: np.asarray(parts[one.part][:, one.place], float) for one in memory}


def whole(stretches: list[tuple[Act, ...]]) -> tuple[Act, ...]:
    """What rules did over several stretches of a day, from what they did in each.

    A rule that acts at the moment itself keeps one list of its acts over the day, of which each stretch fills in its own; of
    others the acts of all stretches follow each other, those that were not needed last.
    """
    found = []
    for parts in zip(*stretches, strict=True):
        names = [name for name in ("times", "values", "ends") if getattr(parts[0], name) is not None]
        columns = {name: [getattr(part, name) for part in parts] for name in names}
        if parts[0].listed:
            joint = {name: np.fmax.reduce(values) for name, values in columns.items()}
        else:
            joint = {name: np.concatenate(values, axis=1) for name, values in columns.items()}
            order = np.argsort(joint["times"], axis=1, kind="stable")
            joint = {name: np.take_along_axis(values, order, axis=1) for name, values in joint.items()}
        found.append(dataclasses.replace(parts[0], **joint))
    return tuple(found)
