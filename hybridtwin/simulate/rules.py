"""Rules of care on a mesh: what of them is static, their numbers, and when they look; and what they did, in words."""

import dataclasses
import math

import numpy as np

from hybridtwin.dosing import Correct
from hybridtwin.interventions import Rescue, Titrate, When, span_of
from hybridtwin.simulate.failures import OVERFLOW
from hybridtwin.simulate.trajectory import Act
from hybridtwin.units import factor, plain

FIRST, LAST = -1, 2**30  # ranks of what has no place in the record's order: before everything at its time, and after it


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
    scales: str | None = None  # dose or signal whose later amounts it multiplies
    reads: str | None = None  # the sensor it reads `what` by
    delayed: bool = False  # does it see what was measured a while ago?
    excess: bool = False  # what it gives grows with what it sees (`Correct`)


def static_of(rule) -> Rule:
    """The static part of a rule of care."""
    if not isinstance(rule, When):
        excess = isinstance(rule, Correct)
        scales = rule.dose if isinstance(rule, Titrate) else None
        give = None if isinstance(rule, Titrate) else rule.dose if isinstance(rule, Correct) else rule.give
        return Rule(rule.when, excess, give, None, 0, looks=True, recovers=False, scales=scales, reads=rule.reads,
                    delayed=span_of(rule.delay, "s") > 0, excess=excess)  # fmt: skip
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
    """Level, level of recovery, amount and wait of a rule, in the units of the system; see `Mesh.rule`."""
    what = rule.what if isinstance(rule, When) else rule.when
    unit = (spec.outputs.get(what) or spec.states[what]).unit
    if isinstance(rule, Titrate):
        low = rule.below[0] * factor(rule.below[1], unit) if rule.below else -math.inf
        high = rule.above[0] * factor(rule.above[1], unit) if rule.above else math.inf
        return low, high, rule.up, rule.down, rule.least, rule.most
    if isinstance(rule, Correct):
        level, to, one, wait, step, most = rule.numbers(unit, spec.doses[rule.dose].unit)
        return level, to, one, span_of(f"{wait!r} s", spec.time), step, most
    if isinstance(rule, Rescue):
        level = rule.below * factor(rule.unit, unit)
        amount = rule.amount * factor(rule.amount_unit, spec.doses[rule.give].unit)
        return level, level, amount, span_of(rule.wait, spec.time), 0.0, 0.0
    level, until = (float(v) * factor(u, unit) for v, u in (rule.level, rule.until or rule.level))
    amount = rule.give[1] * factor(rule.give[2], spec.doses[rule.give[0]].unit) if rule.give else 0.0
    return level, until, amount, span_of(rule.wait, spec.time) if rule.wait else 0.0, 0.0, 0.0


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
    """(time, rank) of each look of each rule of a world; a rule that acts at the moment itself starts to watch once.

    A rule looks in front of what is given at that time, as a level is drawn in front of the dose. Only the look with which one
    that looks at intervals begins lies behind: that is what it finds.
    """
    if world.attended is not None:
        return [looked for looked, _ in world.attended]
    if not world.rules:
        return []
    start = max(world.onset, world.start)

    def found(rule):
        if isinstance(rule, When):
            return [(start, FIRST)]
        if isinstance(rule, Correct) and rule.every is None:
            return [(t, FIRST) for t in sorted({float(d.time) for d in world.inputs[rule.dose].doses}) if start <= t < world.stop]
        every = span_of(rule.every, time)
        if isinstance(rule, Titrate):
            return [(float(t), FIRST) for t in np.arange(start + every, world.stop, every)]
        return [(float(t), FIRST if k else LAST) for k, t in enumerate(np.arange(start, world.stop, every))]

    return [found(rule) for rule in world.rules]


def checks(world, time):
    """(time, rank, do later ranks at that time have a node of their own?) of all that the rules of a world need nodes for."""
    ranks = [(t, rank, not isinstance(rule, When) and rank == FIRST)
             for rule, found in zip(world.rules, looks(world, time), strict=True) for t, rank in found]  # fmt: skip
    return ranks + [(float(t), FIRST, True) for times in measures(world, time) for t in times]


def measures(world, time):
    """Times at which each rule of a world that sees late measures."""
    if world.attended is not None:
        return [measured for _, measured in world.attended]
    if not world.rules:
        return []
    delays = [0.0 if isinstance(rule, When) else span_of(rule.delay, time) for rule in world.rules]
    pairs, start = zip(looks(world, time), delays, strict=True), max(world.onset, world.start)
    return [[t - delay for t, _ in found if delay and t - delay >= start] for found, delay in pairs]


def stretch_of(world, time, start, stop):
    """`World.attended` in the stretch [start, stop) of a day: when each rule looks and measures in it."""
    return tuple((tuple(look for look in looked if start <= look[0] < stop), tuple(t for t in measured if start <= t < stop))
                 for looked, measured in zip(looks(world, time), measures(world, time), strict=True))  # fmt: skip


def watched(world, spec, layout, nodes, width):
    """`Mesh.watch`, `Mesh.measure` and `Mesh.rule` of a world."""
    watch, numbers = np.zeros((width, len(layout.rules)), bool), np.zeros((len(layout.rules), 6))
    measure = np.zeros((width, len(layout.rules) if any(rule.delayed for rule in layout.rules) else 0), bool)
    until = np.inf if world.attended is None else world.stop
    for place in (place for place, rule in enumerate(layout.rules) if rule.sets):
        watch[:, place] = nodes.window(-np.inf, until)  # a switch acts at 0, without a wait
    for rule, place, found in zip(world.rules, rule_columns(world, layout), looks(world, spec.time), strict=True):
        numbers[place] = _numbers(rule, spec)
        if isinstance(rule, When):
            watch[:, place] = nodes.window(world.onset, until)
        else:
            watch[[nodes.at(t, rank, rank == FIRST) for t, rank in found], place] = True
    for place, times in zip(rule_columns(world, layout), measures(world, spec.time), strict=True):
        if len(times):
            measure[[nodes.at(float(t), FIRST, True) for t in times], place] = True
    return watch, measure, numbers


def acts_of(world, layout, acts, time, units) -> tuple[Act, ...]:
    """What each rule of a world did, then each switch of the system.

    `acts`: `Acts` of this world, leading axis L; `time` (K,): times of its nodes; `units`: of each dose.
    """
    found = []
    for rule, place in zip(world.rules, rule_columns(world, layout), strict=True):
        values = ends = None
        if not isinstance(rule, When):
            given = acts.given[:, : len(time), layout.looking.index(place)]
            times = np.full((len(given), max(int((given > 0).sum(axis=1).max(initial=0)), 1)), np.nan)
            lane, node = np.nonzero(given > 0)
            at = lane, np.cumsum(given > 0, axis=1)[lane, node] - 1
            times[at] = time[node]
            if isinstance(rule, Titrate | Correct):
                values = np.full(times.shape, np.nan)
                values[at] = given[lane, node]
            if isinstance(rule, Titrate):
                does, name, amount, unit = "titrate", rule.dose, np.nan, ""
            elif isinstance(rule, Correct):
                does, name, amount, unit = "give", rule.dose, np.nan, units[rule.dose]
            else:
                does, name, amount, unit = "give", rule.give, rule.amount, rule.amount_unit
        else:
            times = acts.times[:, place, : layout.rules[place].at_most]
            does, (name, amount, unit) = ("give", rule.give) if rule.give else ("stop", (str(rule.stop), np.nan, ""))
            ends = acts.ends[:, place, : times.shape[1]] if rule.stop and rule.until else None
        found.append(Act(str(rule), does, name, float(amount), unit, times, values, ends, isinstance(rule, When)))
    for place, rule in enumerate(layout.rules):
        if rule.sets:
            times = acts.times[:, place, : rule.at_most]
            found.append(Act(f"sets {', '.join(rule.sets)}", "switch", rule.what, math.nan, "", times, listed=True))
    return tuple(found)


def joined(structures, draws) -> tuple[Act, ...]:
    """Acts in several structures of so many draws each, as one over all draws; NaN where a structure has no such switch."""
    kinds = dict.fromkeys((act.rule, act.does, act.name) for parts in structures for act in parts)
    found = []
    for kind in kinds:
        own = [next((a for a in parts if (a.rule, a.does, a.name) == kind), None) for parts in structures]
        like = next(act for act in own if act is not None)
        most = max(act.times.shape[1] for act in own if act is not None)

        def joint(part, own=own, most=most):
            rows = [np.full((n, 0), np.nan) if act is None else getattr(act, part) for act, n in zip(own, draws, strict=True)]
            return np.concatenate([np.pad(r, ((0, 0), (0, most - r.shape[1])), constant_values=np.nan) for r in rows])

        more = {part: joint(part) for part in ("values", "ends") if getattr(like, part) is not None}
        found.append(dataclasses.replace(like, times=joint("times"), **more))
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
        mean = f"{plain(np.mean(count))}" if count.size else "an unknown number of"
        return f"{act.name}: {mean} times" + (" on average" if count.size > 1 else "")
    if act.does == "titrate":
        last = act.factor_at(np.inf)[~failed]
        if not last.size:
            return f"no draw says how {act.name} was titrated"
        changed = int((act.count[~failed] > 0).sum())
        ends = f"{plain(last[0])}" if last.size == 1 else f"{plain(np.median(last))} ({plain(last.min())} to {plain(last.max())})"
        return f"{act.name} titrated in {changed} of {last.size} draws; its factor ends at {ends}"
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
    more = f", {plain(np.mean(count))} times on average (at most {count.max()})"
    total = np.mean(act.total(-np.inf, np.inf)[~failed]) if act.does == "give" else 0.0
    return share + more + (f", {plain(total)} {act.unit} on average" if act.does == "give" else "")
