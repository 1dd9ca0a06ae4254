"""The mesh of one person: K segments between the times at which something happens, laid out on the host as data.

Doses, infusion ends, signal knots, windows of `do`, days and readings all fall exactly on nodes, so the integrator
never steps across a jump. Worlds that are to be compared are laid on the union of their nodes. What a set of worlds can
never do (no infusion, no clamp, no reset, ...) is left out of the `Layout`, which is static: what is absent costs
nothing.

A node is a time *and* a place in the record's order: a trough drawn at 09:00 before the dose of 09:00 gets a node of
its own, in front of the dose's node. The state recorded at a node is the state after what happens there.
"""

import bisect
import dataclasses
import itertools
import math

import numpy as np

from hybridtwin.errors import RecordError
from hybridtwin.signals import Signal
from hybridtwin.simulate.layout import Layout, Mesh, Moving, Steady, pad
from hybridtwin.simulate.portions import portioned
from hybridtwin.simulate.rules import FIRST, checks, columns_among, static_of, switched, union, watched

_PREDECESSORS = (
    6  # doses of a steady train that can still be on their way when it is declared (lag or infusion > interval)
)


@dataclasses.dataclass(frozen=True)
class _Entry:
    """A dose as the simulator sees it: amounts in dose units, times in system units, spread applied."""

    time: float
    order: int
    route: int
    name: str
    amount: float
    duration: float
    rate: float
    modelled: int
    interval: float
    steady: int
    latent: int
    shift: int
    fixed: bool  # its times are data
    cut: tuple[float, int] | None  # (time, rank) of the reset or SS = 1 that cancels what is still to come of it
    portion: int = 0  # 0: not one of several portions; 2: the first since a pause; 1: a later one

    @property
    def endless(self):
        """An infusion since for ever that ends at the record (SS = 1 or 2, AMT = 0, RATE > 0)."""
        return bool(self.steady and not self.amount)

    @property
    def end(self):
        """When a fixed infusion ends by itself."""
        return self.time + self.duration

    @property
    def ceiling(self):
        return self.cut[0] if self.cut else math.inf


def _entries(world, spec):
    """All doses of a world."""
    found = []
    cuts = sorted(
        [
            *world.resets,
            *((float(d.time), int(d.order)) for name in spec.routes for d in world.inputs[name].doses if d.ss == 1),
        ]
    )
    for route, name in enumerate(spec.routes):
        spread, given = spec.spread(name), []
        for dose in world.inputs[name].doses:
            unsure = dose.latent is not None
            number = dose.latent if unsure and (dose.amount is None or dose.amount_sd) else -1
            shift = dose.latent if unsure and dose.time_sd else -1
            amount = float(dose.amount) if dose.amount is not None else float(dose.prior[0])
            rate = float(dose.rate or 0.0)
            modelled = {None: 0, "rate": 1, "duration": 2}[dose.modelled]
            duration = float(dose.duration or 0.0)
            if spread and not duration and not rate and not modelled:
                duration = amount / spread  # of the amount as recorded, so that a latent amount moves no node
            fixed = name not in spec.moving and shift < 0 and not modelled
            if rate and not amount and dose.ss:
                duration = np.inf
            elif rate and fixed:
                if "dosing" in spec.defines:  # it lasts fraction * amount / rate, and the fraction may be personal
                    fixed = False
                else:
                    duration, rate = amount / rate, 0.0
            time, order = float(dose.time), int(dose.order)
            later = bisect.bisect_right(cuts, (time, order))
            given.append(
                _Entry(
                    time,
                    order,
                    route,
                    name,
                    amount,
                    duration,
                    rate,
                    modelled,
                    float(dose.ii or 0.0),
                    int(dose.ss or 0),
                    number,
                    shift,
                    fixed,
                    cuts[later] if later < len(cuts) else None,
                )
            )
        portion = spec.portion(name)
        marked = "portion" in spec.defines
        found += given if portion is None else portioned(given, portion, spread is not None, marked, FIRST)
    return found


def layout_of(worlds, spec, *, varying=(), latents=0, noise=False, drive=(), roomy=False):
    """The layout that holds every one of these worlds.

    `latents`: number of events with an uncertain amount or time; `noise`: is the system's process noise drawn? `drive`: knots
    of its inferred paths, which are not drawn. `roomy`: with room for boluses that nobody gave, so that people share a layout.
    """
    jumps, rates, moving, infused, steady = set(), set(), set(), False, 0
    pieces = 1
    marked = tuple(n for n in spec.routes if "portion" in spec.defines and spec.portion(n) is not None)
    eaten: set[str] = set()
    for world in worlds:
        entries = _entries(world, spec)
        eaten |= {e.name for e in entries if e.name in marked}
        steady = max(steady, sum(bool(e.steady) for e in entries))
        for e in entries:
            if e.steady:
                pieces = max(pieces, 24)
            if not e.fixed:
                moving.add(e.name)
                infused |= bool(e.duration or e.rate or e.modelled)
            elif e.duration:
                rates.add(e.name)
            else:
                jumps.add(e.name)
    jumps |= {name for name in spec.routes if roomy and name not in spec.moving}
    rules = union([[static_of(rule) for rule in world.rules] for world in worlds])
    rules = (*switched(spec, max(world.stop - world.start for world in worlds)), *rules)
    return Layout(
        jumps=tuple(n for n in spec.routes if n in jumps),
        rates=tuple(n for n in spec.routes if n in rates),
        moving=tuple(n for n in spec.routes if n in moving),
        moving_infused=infused,
        overridden=_overridden(worlds),
        edits=union([[(e.state, e.rate) for e in world.edits] for world in worlds]),
        misread=union([[(m.sensor, m.change) for m in world.misread] for world in worlds]),
        varying=tuple(varying),
        clamped=tuple(dict.fromkeys(c.state for w in worlds for c in w.clamps)),
        sets=union([[(s.state, s.change) for s in world.sets] for world in worlds]),
        resets=any(w.resets for w in worlds),
        steady=steady,
        steady_pieces=pieces,
        latents=latents,
        portions=tuple(n for n in marked if n in eaten or any(rule.give == n for rule in rules)),
        rules=rules,
        noise=spec.noise if noise and not drive else (),
        stretches=max(len(drive) - 1, 0),
    )


def _overridden(worlds):
    """One entry for each override that some world has, so that windows on one parameter keep apart."""
    return union([[o.path for o in world.overrides] for world in worlds])


def override_columns(world, layout):
    """Column of `layout.overridden` for each override of a world."""
    return columns_among([o.path for o in world.overrides], layout.overridden)


def set_columns(world, layout):
    """Column of `layout.sets` for each state that a world sets once."""
    return columns_among([(s.state, s.change) for s in world.sets], layout.sets)


def _windows(world, layout):
    """What has a window in a world, with its column of `Mesh.override`: parameters, then equations, then sensors."""
    edits, misread = [(e.state, e.rate) for e in world.edits], [(m.sensor, m.change) for m in world.misread]
    first = len(layout.overridden)
    yield from zip(world.overrides, override_columns(world, layout), strict=True)
    yield from zip(world.edits, (first + c for c in columns_among(edits, layout.edits)), strict=True)
    first += len(layout.edits)
    yield from zip(world.misread, (first + c for c in columns_among(misread, layout.misread)), strict=True)


class _Nodes:
    """Nodes at the union of all events: times, and where each event of the record's order stands."""

    def __init__(self, events, max_step, strides=1):
        times = sorted({float(e[0]) for e in events})
        snap = dict(zip(times, times, strict=True))
        for early, late in itertools.pairwise(times):  # times that differ by rounding alone are one time
            if late - snap[early] <= 1e-9 * max(1.0, abs(late)):
                snap[late] = snap[early]
        rows = sorted({(snap[t], rank, read) for t, rank, read in events})
        nodes, steps, self._place, has_read = [], [], {}, False
        for t, rank, read in rows:
            if not nodes or nodes[-1] != t or (has_read and not read):
                if nodes and nodes[-1] < t:
                    pieces = max(math.ceil((t - nodes[-1]) / max_step - 1e-9), 1)
                    step, last, looks = (t - nodes[-1]) / pieces, nodes[-1], -(-pieces // strides)
                    at = [pieces * i // looks for i in range(looks + 1)]
                    nodes.extend(i * step + last for i in at[1:-1])
                    steps[-1:] = [b - a for a, b in itertools.pairwise(at)]
                nodes.append(t)
                steps.append(1)
                has_read = False
            has_read |= read
            self._place[t, rank, read] = len(nodes) - 1
        self._snap, self.t, self.steps = snap, np.array(nodes), np.array(steps, np.int32)

    def at(self, time, rank, read=False):
        """The node of an event."""
        return self._place[self._snap[time], rank, read]

    def snap(self, time):
        """The time of the node at which something happens, where that differs from `time` by rounding."""
        return self._snap.get(time, time)

    def window(self, start, stop):
        """(K,) booleans: does the stretch from this node on lie inside [start, stop)?"""
        return (self.t >= self.snap(start)) & (self.t < self.snap(stop))


def _events(world, spec, entries, knots):
    """(time, rank, is it a reading) of everything that must fall on a node."""
    events = [(world.start, FIRST, False), (world.stop, FIRST, False)]
    events += [(t, order, False) for t, order in world.resets]
    for e in entries:
        events.append((e.time, e.order, False))
        ends = [*_train_ends(e), e.end] if e.fixed and e.duration and not e.endless else []
        events += [(end, FIRST, False) for end in ends if end < e.ceiling]
    for name in (*spec.signals, *spec.covariates):
        events += [(float(t), FIRST, False) for t in world.inputs[name].knots if world.start <= t <= world.stop]
    for part in (*world.overrides, *world.clamps, *world.edits, *world.misread):
        events += [(t, FIRST, False) for t in (part.start, part.stop) if world.start <= t <= world.stop]
    for clamp in world.clamps:
        events += [(float(t), FIRST, False) for t in clamp.signal.knots if world.start <= t <= world.stop]
    events += [(s.time, FIRST, False) for s in world.sets]
    return events + [(t, FIRST, False) for t in knots]


def moments(world, spec) -> set[float]:
    """Times of a world at which the course of a state may jump or bend, but for doses that move with parameters."""
    return {t for t, _, _ in _events(world, spec, _entries(world, spec), ()) if world.start <= t <= world.stop}


def _train_ends(entry):
    """Ends of infusions of a steady train that still run when it is declared (times that are data)."""
    if not entry.steady or not entry.fixed or not np.isfinite(entry.duration) or not entry.interval:
        return []
    ends = [entry.end - k * entry.interval for k in range(1, 2 + int(entry.duration // entry.interval))]
    return [end for end in ends if end > entry.time]


def _matters(entry, start):
    """Whether a dose can act at or after the start of the mesh."""
    return entry.time >= start or not entry.fixed or (not entry.steady and entry.end > start)


def lay(worlds, spec, layout, reads, *, max_step, occasions=None, knots=(), drive=()):
    """One mesh a world, all on the union of their nodes.

    **Arguments:** `reads`: (time, rank) of every reading wanted, in any order (rank `LAST`: after everything at that
    time); `max_step`: longest step, in system time (`layout.strides` of them may lie between two nodes); `occasions`: group ->
    sorted edges between occasions; `knots`: further node times; `drive`: knots of the inferred paths of the process noise.

    **Returns:** list of `Mesh`, all of the same shapes.
    """
    occasions = occasions or {}
    start = min(world.start for world in worlds)
    tables = [[e for e in _entries(world, spec) if _matters(e, start)] for world in worlds]
    edges = [float(t) for group in occasions.values() for t in group]
    events = [
        event
        for world, entries in zip(worlds, tables, strict=True)
        for event in _events(world, spec, entries, [*knots, *drive, *edges])
    ]
    events += [(float(t), int(rank), True) for t, rank in reads]
    events += [check for world in worlds for check in checks(world, spec.time)]
    nodes = _Nodes([e for e in events if e[0] >= start], max_step, layout.strides)
    if spec.step is not None:
        _whole_steps(nodes.t, start, spec)
    read = np.array([nodes.at(float(t), int(rank), True) for t, rank in reads], dtype=np.int32)
    known = {}  # what worlds have in common is looked up once
    for signal in (world.inputs[name] for world in worlds for name in (*spec.signals, *spec.covariates)):
        if id(signal) not in known:
            known[id(signal)] = _sampled(signal, nodes.t)
    meshes = [
        _lay_one(world, spec, layout, entries, nodes, read, occasions, drive, known)
        for world, entries in zip(worlds, tables, strict=True)
    ]
    width, most = len(nodes.t), max(len(m.moving.time) for m in meshes)
    return [m if len(m.moving.time) == most else pad(m, width, len(read), most) for m in meshes]


def _whole_steps(t, start, spec):
    """**Raises:** RecordError where something happens, or is read, within a step of a difference equation."""
    steps = (t - start) / spec.step
    within = t[np.abs(steps - np.round(steps)) > 1e-6]
    if len(within):
        raise RecordError(
            f"{spec.name} is a difference equation: it moves from {start:g} {spec.time} on in steps of {spec.step:g} "
            f"{spec.time}, and at {within[0]:g} {spec.time} a dose, a change of a signal, a reading or a window falls inside one",
            remedy=f"Move it to a whole number of steps, {spec.step * np.floor(steps[t == within[0]][0]) + start:g} or "
            f"{spec.step * np.ceil(steps[t == within[0]][0]) + start:g} {spec.time}",
        )


def _spans(nodes, parts, width, count):
    """(K, P) booleans: is node k inside the window of the part in column p? `parts`: (part, column)."""
    inside = np.zeros((width, count), bool)
    for part, column in parts:
        inside[:, column] |= nodes.window(part.start, part.stop)
    return inside


def _sampled(signal, t):
    """Value at each node and slope to the next, for a signal whose knots lie on nodes.

    Read inside the segments: a knot can differ from its node by rounding, and what counts is the segment's own line.
    """
    h = np.diff(t)
    early, late = (np.asarray(signal(t[:-1] + part * h)) for part in (0.25, 0.75))
    slope = np.divide(2 * (late - early), h, out=np.zeros_like(h), where=h > 0)
    slope[np.abs(slope) * h < 1e-13 * np.maximum(1.0, np.abs(early))] = 0.0
    value = np.append(np.where(slope == 0.0, early, early - 0.25 * slope * h), signal(t[-1]))
    for k in np.flatnonzero(h == 0)[::-1]:  # nodes at one time have the inputs of the last of them
        value[k] = value[k + 1]
    return value, np.append(slope, 0.0)


def _doses(layout, entries, nodes, width, jump, rate):
    """Write fixed doses into `jump` and `rate`; return latent shares."""
    latent_jump = np.zeros((width, layout.latents, len(layout.jumps)))
    latent_rate = np.zeros((width, layout.latents, len(layout.rates)))
    for e in entries:
        if not e.fixed or e.endless or _superseded(e, nodes):
            continue
        k = nodes.at(e.time, e.order) if e.time >= nodes.t[0] else 0
        if not e.duration:
            column = layout.jumps.index(e.name)
            if e.latent >= 0:
                latent_jump[k, e.latent, column] = e.amount
            else:
                jump[k, column] += e.amount
            continue
        column = layout.rates.index(e.name)
        for end in (e.end, *_train_ends(e)):
            stretch = slice(k, nodes.at(end, FIRST) if end < e.ceiling else nodes.at(*e.cut))
            if e.latent >= 0:
                latent_rate[stretch, e.latent, column] += e.amount / e.duration
            else:
                rate[stretch, column] += e.amount / e.duration
    return latent_jump, latent_rate


def _portions(layout, entries, nodes, width):
    """Where portions begin: amounts, whether each is the first since a pause, and latent shares."""
    amount, latent = np.zeros((width, len(layout.portions))), np.zeros((width, layout.latents, len(layout.portions)))
    first = np.zeros((width, len(layout.portions)), bool)
    for e in entries:
        if e.portion and e.name in layout.portions and e.time >= nodes.t[0] and not _superseded(e, nodes):
            k, column = nodes.at(e.time, e.order), layout.portions.index(e.name)
            first[k, column] |= e.portion == 2
            if e.latent >= 0:
                latent[k, e.latent, column] += e.amount
            else:
                amount[k, column] += e.amount
    return amount, first, latent


def _superseded(entry, nodes):
    """Whether a later reset or SS = 1 at the very same node undoes this record."""
    return (
        entry.cut is not None and entry.time >= nodes.t[0] and nodes.at(*entry.cut) == nodes.at(entry.time, entry.order)
    )


def _steady_of(layout, entries, nodes):
    rows = [
        (nodes.at(e.time, e.order), e.steady == 2, e.route, e.amount, e.duration, e.rate, e.modelled, e.interval or 1.0)
        for e in entries
        if e.steady and e.time >= nodes.t[0] and not _superseded(e, nodes)
    ]
    rows += [(-1, False, 0, 0.0, 0.0, 0.0, 0, 1.0)] * (layout.steady - len(rows))
    columns = list(zip(*rows, strict=True)) if rows else [()] * 8
    kinds = (np.int32, bool, np.int32, float, float, float, np.int32, float)
    return Steady(*(np.array(c, dtype=k) for c, k in zip(columns, kinds, strict=True)))


def _moving_of(entries, nodes, start):
    """Moving doses, with the predecessors of a steady train that may still be on their way."""
    rows = []
    for e in entries:
        if e.fixed or e.endless:
            continue
        node = nodes.at(e.time, e.order) if e.time >= nodes.t[0] else 0
        for k in range(1 + (_PREDECESSORS if e.steady and e.interval else 0)):
            rows.append(
                (
                    e.time - k * e.interval,
                    e.route,
                    e.amount,
                    e.duration,
                    e.rate,
                    e.modelled,
                    e.time if k else start,
                    e.latent,
                    e.shift,
                    nodes.snap(e.ceiling),
                    node,
                    k,
                )
            )
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(Moving._fields)
    whole = ("route", "modelled", "latent", "shift", "node", "back")
    return Moving(
        *(
            np.array(c, dtype=np.int32 if name in whole else float)
            for name, c in zip(Moving._fields, columns, strict=True)
        )
    )


def _lay_one(world, spec, layout, entries, nodes, read, occasions, drive, known):
    width = len(nodes.t)
    jump, rate = np.zeros((width, len(layout.jumps))), np.zeros((width, len(layout.rates)))
    latent_jump, latent_rate = _doses(layout, entries, nodes, width, jump, rate)
    portion, first, latent_portion = _portions(layout, entries, nodes, width)
    signals = [known[id(world.inputs[name])] for name in spec.signals]
    covariates = [known[id(world.inputs[name])][0] for name in spec.covariates]
    reset = np.zeros(width, bool)
    for t, order in world.resets:
        reset[nodes.at(t, order)] = True
    once = np.zeros((width, len(layout.sets)), bool)
    for part, column in zip(world.sets, set_columns(world, layout), strict=True):
        once[nodes.at(part.time, FIRST), column] = True
    held = {name: np.zeros((2, width)) for name in layout.clamped}
    for clamp in world.clamps:
        if isinstance(clamp.signal, Signal):  # the course of another world is each lane's own (`Extras.held`)
            inside = nodes.window(clamp.start, clamp.stop)
            held[clamp.state][:, inside] = np.stack(_sampled(clamp.signal, nodes.t))[:, inside]
    watch, measure, numbers = watched(world, spec, layout, nodes, width)
    groups = [group for _, group in layout.varying]
    occasion = [np.searchsorted(np.asarray(occasions.get(g, ())), nodes.t, side="right") for g in groups]

    def columns(parts, kind=float):
        return np.stack(parts, axis=-1).astype(kind) if parts else np.zeros((width, 0), kind)

    return Mesh(
        t=nodes.t,
        steps=nodes.steps,
        jump=jump,
        rate=rate,
        signal=columns([v for v, _ in signals]),
        slope=columns([s for _, s in signals]),
        covariate=columns(covariates),
        occasion=columns(occasion, np.int32),
        reset=reset,
        set=once,
        override=_spans(nodes, _windows(world, layout), width, len((*layout.overridden, *layout.edits, *layout.misread))),
        clamp=_spans(nodes, ((c, layout.clamped.index(c.state)) for c in world.clamps), width, len(layout.clamped)),
        clamp_value=columns([held[n][0] for n in layout.clamped]),
        clamp_slope=columns([held[n][1] for n in layout.clamped]),
        watch=watch,
        measure=measure,
        cells=np.arange(*(math.floor(nodes.t[0]), math.floor(nodes.t[-1]) + 1) if layout.noise else (0,), dtype=np.int32),
        drive=np.array(drive, float),
        rule=numbers,
        steady=_steady_of(layout, entries, nodes),
        moving=_moving_of(entries, nodes, world.start),
        latent_jump=latent_jump,
        latent_rate=latent_rate,
        portion=portion,
        first=first,
        latent_portion=latent_portion,
        read=read,
    )
