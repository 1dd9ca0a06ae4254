"""Rules of care on a mesh: what of them is static, their numbers, and when they look; and what they did, in words."""

import dataclasses
import math

import numpy as np

from hybridtwin.interventions import Rescue, When, span_of
from hybridtwin.simulate.failures import OVERFLOW
from hybridtwin.simulate.trajectory import Act
from hybridtwin.units import factor

FIRST = -1  # rank of what has no place in the record's order and comes before everything at its time


@dataclasses.dataclass(frozen=True)
class Rule:
    """Static part of a rule of care: what it watches and does. Its numbers are data (`Mesh.rule`)."""

    what: str
    above: bool
    give: str | None
    stop: str | None
    at_most: int
    looks: bool  # it looks at certain nodes only (`Rescue`), instead of acting at the moment itself (`When`)
    recovers: bool  # it must see a level reached before it can act again
    sets: tuple[str, ...] = ()  # states that a switch of the system itself changes


def static_of(rule) -> Rule:
    """The static part of a `Rescue` or a `When`."""
    if isinstance(rule, Rescue):
        return Rule(rule.when, False, rule.give, None, 0, looks=True, recovers=False)
    passes = rule.give is not None and rule.wait is None  # acts each time the value passes the level
    most = rule.at_most if rule.give is not None or rule.until is not None else 1
    return Rule(rule.what, rule.above is not None, rule.give and rule.give[0], rule.stop, most, looks=False,
                recovers=rule.until is not None or passes)  # fmt: skip


def switched(spec, span) -> tuple[Rule, ...]:
    """The system's own switches as rules that always watch, over a span of time.

    How often one may act shapes the program, so it is rounded up to a power of two: days of about one length share it.
    """
    most = [2 ** math.ceil(math.log2(max(field.at_most * span, 2.0))) for field in spec.switches]
    return tuple(Rule(field.name, True, None, None, m, looks=False, recovers=False, sets=field.sets)
                 for field, m in zip(spec.switches, most, strict=True))  # fmt: skip


def _numbers(rule, spec):
    """Level, level of recovery, amount and wait of a rule, in the units of the system."""
    what = rule.what if isinstance(rule, When) else rule.when
    unit = (spec.outputs.get(what) or spec.states[what]).unit
    if isinstance(rule, Rescue):
        level = rule.below * factor(rule.unit, unit)
        amount = rule.amount * factor(rule.amount_unit, spec.doses[rule.give].unit)
        return level, level, amount, span_of(rule.wait, spec.time)
    level, until = (float(v) * factor(u, unit) for v, u in (rule.level, rule.until or rule.level))
    amount = rule.give[1] * factor(rule.give[2], spec.doses[rule.give[0]].unit) if rule.give else 0.0
    return level, until, amount, span_of(rule.wait, spec.time) if rule.wait else 0.0


def union(each):
    """What holds the parts of every world: as many of a kind as the world with most of it has."""
    found: list = []
    for parts in each:
        for part in dict.fromkeys(parts):
            found += [part] * (parts.count(part) - found.count(part))
    return tuple(found)


def columns_among(parts, known):
    """Place among the `known` for each part of a world."""
    free, places = list(enumerate(known)), []
    for part in parts:
        at = next(i for i, (_, other) in enumerate(free) if other == part)
        places.append(free.pop(at)[0])
    return places


def rule_columns(world, layout):
    """Place in `layout.rules` for each rule of a world."""
    return columns_among([static_of(rule) for rule in world.rules], layout.rules)


def looks(world, time):
    """Times at which each rule of a world looks; a rule that acts at the moment itself starts to watch once."""
    if not world.rules:
        return []
    start = max(world.onset, world.start)
    return [
        np.arange(start, world.stop, span_of(rule.every, time)) if isinstance(rule, Rescue) else np.array([start])
        for rule in world.rules
    ]


def watched(world, spec, layout, nodes, width):
    """`Mesh.watch` and `Mesh.rule` of a world."""
    watch, numbers = np.zeros((width, len(layout.rules)), bool), np.zeros((len(layout.rules), 4))
    watch[:, [place for place, rule in enumerate(layout.rules) if rule.sets]] = True  # a switch acts at 0, without a wait
    for rule, place, times in zip(world.rules, rule_columns(world, layout), looks(world, spec.time), strict=True):
        numbers[place] = _numbers(rule, spec)
        if isinstance(rule, Rescue):
            watch[[nodes.at(float(t), FIRST) for t in times], place] = True
        else:
            watch[:, place] = nodes.window(world.onset, np.inf)
    return watch, numbers


def acts_of(world, layout, acts, time) -> tuple[Act, ...]:
    """What each rule of a world did, then each switch of the system.

    `acts`: `Acts` of this world, leading axis L; `time` (K,): times of its nodes.
    """
    found = []
    for rule, place in zip(world.rules, rule_columns(world, layout), strict=True):
        if isinstance(rule, Rescue):
            given = acts.given[:, : len(time), layout.looking.index(place)] > 0
            times = np.full((len(given), max(int(given.sum(axis=1).max(initial=0)), 1)), np.nan)
            lane, node = np.nonzero(given)
            times[lane, np.cumsum(given, axis=1)[lane, node] - 1] = time[node]
            does, name, amount, unit = "give", rule.give, rule.amount, rule.amount_unit
        else:
            times = acts.times[:, place, : layout.rules[place].at_most]
            does, (name, amount, unit) = ("give", rule.give) if rule.give else ("stop", (str(rule.stop), np.nan, ""))
        found.append(Act(str(rule), does, name, float(amount), unit, times))
    for place, rule in enumerate(layout.rules):
        if rule.sets:
            times = acts.times[:, place, : rule.at_most]
            found.append(Act(f"sets {', '.join(rule.sets)}", "switch", rule.what, math.nan, "", times))
    return tuple(found)


def joined(structures, draws) -> tuple[Act, ...]:
    """Acts in several structures of so many draws each, as one over all draws; NaN where a structure has no such switch."""
    kinds = dict.fromkeys((act.rule, act.does, act.name) for parts in structures for act in parts)
    found = []
    for kind in kinds:
        own = [next((a for a in parts if (a.rule, a.does, a.name) == kind), None) for parts in structures]
        like = next(act for act in own if act is not None)
        times = [np.full((n, 0), np.nan) if act is None else act.times for act, n in zip(own, draws, strict=True)]
        most = max(t.shape[1] for t in times)
        times = [np.pad(t, ((0, 0), (0, most - t.shape[1])), constant_values=np.nan) for t in times]
        found.append(dataclasses.replace(like, times=np.concatenate(times)))
    return tuple(found)


def overflowed(world, code, spec) -> list[str]:
    """What to say about draws in which a rule would have acted more often than it may."""
    over = int(np.sum(code == OVERFLOW))
    if not over:
        return []
    rules = "; ".join([*(str(rule) for rule in world.rules if isinstance(rule, When)), *(s.name for s in spec.switches)])
    remedy = "Give the rule a larger at_most=, or a longer wait=." if world.rules else "Give ht.switch a larger at_most=."
    return [f"{over} of {len(code)} draws met a rule more often than it may act ({rules}); they are NaN. {remedy}"]


def told(act, clock, failed) -> str:
    """What a rule did, in words: times of a lone draw, else counts over the draws that were solved."""
    if act.does == "switch":
        count = act.count[~failed]
        mean = f"{np.mean(count):.3g}" if count.size else "an unknown number of"
        return f"{act.name}: {mean} times" + (" on average" if count.size > 1 else "")
    verb = "given" if act.does == "give" else "stopped"
    if len(act.times) == 1:
        when = [clock.label(float(t)) for t in act.times[0] if np.isfinite(t)]
        if act.does == "give":
            return f"rescue {act.name} given at {', '.join(when)}" if when else "no rescue was needed"
        return f"{act.name} stopped at {', '.join(when)}" if when else f"{act.name} was not stopped"
    count = act.count[~failed]
    if not count.size:
        return f"no draw says whether {act.name} was {verb}"
    rule = "rescue rule" if act.does == "give" else "rule of care"
    share = f"{act.name} {verb} by the {rule} in {int((count > 0).sum())} of {len(count)} draws"
    more = f", {np.mean(count):.3g} times on average (at most {count.max()})"
    return share + more + (f", {np.mean(count) * act.amount:.3g} {act.unit} on average" if act.does == "give" else "")
