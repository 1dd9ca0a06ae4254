"""From a mesh to states: one scan over the nodes of one lane.

`states` is written for one person, one draw and one world; people, draws, chains and worlds are batched by `vmap`, in
which every lane has its own node times at no cost.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jax.flatten_util import ravel_pytree

from hybridtwin.rest import rest_of
from hybridtwin.simulate.events import Acts, Care, Segment, cross, left_by, look, settle
from hybridtwin.simulate.failures import FINE, NOT_FINITE, OVERFLOW
from hybridtwin.simulate.layout import NODES, Layout, Mesh
from hybridtwin.simulate.noise import floored, milstein, pushed, pushes, wander, wiener
from hybridtwin.simulate.steppers import in_parts, unforced
from hybridtwin.units import factor


class Extras(NamedTuple):
    """Numbers of one lane beside the parameters."""

    amounts: jax.Array  # (E,) latent factors on the amounts of uncertain events
    shifts: jax.Array  # (E,) latent shifts of their times, in system time
    overrides: jax.Array  # (P,) values of the parameters that `do` sets
    noise: Any = None  # (2,) data of the key of the process noise
    sets: Any = None  # (S,) numbers that states are set to once
    path: Any = None  # (D, G) increments of the inferred paths of the process noise, in standard deviations
    held: Any = None  # (2, K, Q) values and slopes of clamps, where a state follows its course in another world


def get(tree, path):
    """The leaf of a system or state at a dotted path."""
    for name in path.split("."):
        tree = getattr(tree, name)
    return tree


def put(tree, path, value):
    """The same tree with another leaf at a dotted path."""
    return eqx.tree_at(lambda t: get(t, path), tree, value, is_leaf=lambda leaf: leaf is None)


def _scales(spec):
    """Factor from dose unit to the unit of the state it enters, a route each."""
    return {name: factor(field.unit, spec.states[field.into].unit) for name, field in spec.doses.items()}


def _routes(system, spec, u):
    """Lag, fraction, modelled rate and duration of every route, as arrays over routes.

    The 1.0 of a rate or duration that no route declares is never used (binding refuses such a dose): a NaN would leak into
    the slopes of those that are.
    """
    given = system.dosing(u)

    def column(part, default):
        return (
            jnp.stack(
                [
                    jnp.asarray(
                        default if (r := given.get(name)) is None or getattr(r, part) is None else getattr(r, part),
                        float,
                    )
                    for name in spec.routes
                ]
            )
            if spec.routes
            else jnp.zeros(0)
        )

    return column("lag", 0.0), column("fraction", 1.0), column("rate", 1.0), column("duration", 1.0)


def _inputs(system, node):
    spec = system.spec
    values = {name: node["covariate"][i] for i, name in enumerate(spec.covariates)}
    return spec.input(values | {name: node["signal"][i] for i, name in enumerate(spec.signals)})


def _inputs_at(system, node, t):
    if not system.spec.signals or "slope" not in node:
        return _inputs(system, node)
    return _inputs(system, {**node, "signal": node["signal"] + node["slope"] * (t - node["t"])})


def _here(system, layout: Layout, node, extras):
    """The system with the values its parameters have at this node."""
    for i, (path, _) in enumerate(layout.varying):
        system = put(system, path, get(system, path)[node["occasion"][i]])
    for i, path in enumerate(layout.overridden):
        system = put(system, path, jnp.where(node["override"][i], extras.overrides[i], get(system, path)))
    first = len(layout.overridden)
    on = tuple(node["override"][first + i] for i in range(len(layout.edits)))
    return _Edited(system, layout.edits, on) if on else system


class _Edited(eqx.Module):
    """A system in which some states have other equations, where `on`; in all else it is the system."""

    system: Any
    edits: tuple = eqx.field(static=True)  # (state, rate)
    on: tuple  # () each

    def rates(self, t, x, u):
        dx = self.system.rates(t, x, u)
        for (path, rate), on in zip(self.edits, self.on, strict=True):
            dx = put(dx, path, jnp.where(on, rate(self.system, t, x, u), get(dx, path)))
        return dx

    def steady(self, u):
        """Where it rests; what the author wrote down is the rest of the old equations."""
        edited = jnp.any(jnp.array(self.on, bool))
        return jax.tree.map(lambda a, b: jnp.where(edited, a, b), rest_of(self, u), self.system.steady(u))

    def __getattr__(self, name):
        return getattr(self.system, name)


_SEEN = ("t", "signal", "slope", "covariate", "occasion", "override")  # what a system sees of a node


def first(system, layout: Layout, mesh: Mesh, extras: Extras):
    """The system and its inputs at the first node: what `initial` and `steady` see."""
    node = {name: getattr(mesh, name)[0] for name in _SEEN}
    here = _here(system, layout, node, extras)
    return here, _inputs(here, node)


def _routes_at(system, layout, mesh, extras, nodes):
    """`_routes` under the inputs of some nodes (M,): arrays (M, routes)."""

    def one(k):
        node = {name: getattr(mesh, name)[k] for name in _SEEN}
        here = _here(system, layout, node, extras)
        return _routes(here, system.spec, _inputs(here, node))

    return jax.vmap(one)(nodes)


def _lasting(amount, duration, given, modelled, own):
    """How long doses run: modelled, fraction * amount / rate, or as given; 0 is a bolus.

    `own`: fraction, modelled rate and modelled duration of their routes.
    """
    fraction, rate, modelled_duration = own
    return jnp.select(
        [modelled == 2, modelled == 1, given > 0],
        [modelled_duration, fraction * amount / rate, fraction * amount / jnp.where(given > 0, given, 1.0)],
        duration,
    )


def arrivals(system, layout, mesh, extras):
    """When the moving doses arrive (M,) if nothing cuts them short, and fraction, modelled rate and duration of their routes."""
    m = mesh.moving
    own = jnp.arange(m.route.shape[0])
    lag, *others = (part[own, m.route] for part in _routes_at(system, layout, mesh, extras, m.node))
    start = m.time + lag
    if layout.latents:
        start = start + jnp.where(m.shift >= 0, extras.shifts[m.shift], 0.0)
    # What the record says was given is given: at its start, where a lane would have it before.
    early = (m.back == 0) & (m.time >= m.floor) & (start < m.floor)
    return jnp.where(early, m.floor, start), others


def _insert_moving(system, layout, mesh, extras):
    """Nodes with the moving doses inserted at their rank. Returns node arrays and where the old nodes went.

    A dose that arrives exactly at the time of other nodes comes before them, as in NONMEM (a reading at that time sees
    it), but a dose without lag keeps its own place in the record's order: it is given at its own node.
    """
    m = mesh.moving
    start, (fraction, rate, duration) = arrivals(system, layout, mesh, extras)
    amount = m.amount
    if layout.latents:
        amount = amount * jnp.where(m.latent >= 0, extras.amounts[m.latent], 1.0)
    lasts = _lasting(amount, m.duration, m.rate, m.modelled, (fraction, rate, duration))
    infused = lasts > 0
    speed = jnp.where(infused, fraction * amount / jnp.where(infused, lasts, 1.0), 0.0)
    given = (
        ~infused
        & jnp.where(m.back > 0, start > m.floor, start >= m.floor)
        & (start < m.ceiling)
        & (start <= mesh.t[-1])
    )
    at_once = given & (start == m.time) & (m.back == 0)
    earliest, latest = jnp.maximum(m.floor, mesh.t[0]), jnp.clip(m.ceiling, mesh.t[0], mesh.t[-1])
    stop = jnp.clip(start + lasts, earliest, latest)
    start = jnp.clip(start, earliest, latest)
    hot = jax.nn.one_hot(m.route, len(system.spec.routes), dtype=mesh.t.dtype)
    bolus = jnp.where(given, fraction * amount, 0.0)[:, None] * hot
    pulse = speed[:, None] * hot

    moved = jnp.concatenate([start, stop]) if layout.moving_infused else start
    times = jnp.concatenate([mesh.t, moved])
    width, count = mesh.t.shape[0], moved.shape[0]
    # Ranks by counting: cheaper than a sort on a CPU, and the order among equals is ours to say.
    ahead = moved[None, :] <= mesh.t[:, None]
    before = (moved[None, :] < moved[:, None]) | ((moved[None, :] == moved[:, None]) & jnp.tri(count, k=-1, dtype=bool))
    place = jnp.arange(width) + jnp.sum(ahead, axis=1)
    spot = jnp.sum(~ahead, axis=0) + jnp.sum(before, axis=1)
    order = jnp.zeros(width + count, int).at[jnp.concatenate([place, spot])].set(jnp.arange(width + count))
    is_fixed = order < width
    source = jnp.maximum(jnp.cumsum(is_fixed) - 1, 0)  # the last fixed node before each node
    fixed = jnp.zeros((width, hot.shape[1])).at[m.node].add(jnp.where(at_once[:, None], bolus, 0.0))
    inserted = jnp.where(at_once[:, None], 0.0, bolus)
    jump = jnp.concatenate([fixed, inserted, *([jnp.zeros_like(bolus)] if layout.moving_infused else [])])[order]
    steps = jnp.concatenate([jnp.zeros_like(fixed), pulse, -pulse])[order] if layout.moving_infused else None
    node = {name: getattr(mesh, name)[source] for name in NODES}
    node["t"] = times[order]
    since = (node["t"] - mesh.t[source])[:, None]
    node["signal"] = node["signal"] + node["slope"] * since
    node["clamp_value"] = node["clamp_value"] + node["clamp_slope"] * since
    for name in ("set", "measure"):
        node[name] = node[name] & is_fixed[:, None]
    for name in ("jump", "latent_jump", "portion", "latent_portion"):
        node[name] = jnp.where(is_fixed.reshape(-1, *([1] * (node[name].ndim - 1))), node[name], 0.0)
    node["reset"] = node["reset"] & is_fixed
    looks = [rule.looks for rule in layout.rules]
    node["watch"] = node["watch"] & (is_fixed[:, None] | ~jnp.array(looks, bool)[None])
    node["moved"] = jump
    if layout.moving_infused:
        node["running"] = jnp.cumsum(steps, axis=0)
    node["index"] = jnp.where(is_fixed, source, -2)  # -1 marks a steady state that is padding
    return node, place


def _nodes(system, layout, mesh, extras):
    if layout.moving:
        return _insert_moving(system, layout, mesh, extras)
    node = {name: getattr(mesh, name) for name in NODES}
    node["index"] = jnp.arange(mesh.t.shape[0])
    return node, None


def _steady_states(system, layout, stepper, mesh, extras, x0):
    """State of each declared steady state at its declaration, by a Newton solve of "one cycle changes nothing".

    For a linear system one iteration is exact; the Jacobian of the cycle is taken forward through the stepper.
    """
    spec = system.spec
    scales = _scales(spec)
    flat, unravel = ravel_pytree(x0)
    gain = jnp.array([scales[name] for name in spec.routes])
    where = [spec.doses[name].into for name in spec.routes]
    pieces = layout.steady_pieces if stepper.refined() is not None else 1

    def one(e):
        node = {name: getattr(mesh, name)[e.node] for name in _SEEN}
        here = _here(system, layout, node, extras)
        u = _inputs(here, node)
        lag, fraction, rate, duration = (part[e.route] for part in _routes(here, spec, u))

        hot = jax.nn.one_hot(e.route, len(where), dtype=flat.dtype)
        amount = fraction * gain[e.route] * e.amount * hot
        endless = (e.amount == 0) & (e.rate > 0)
        lasts = jnp.where(endless, 0.0, _lasting(e.amount, e.duration, e.rate, e.modelled, (fraction, rate, duration)))
        flow = jnp.where(
            endless, gain[e.route] * e.rate * hot, jnp.where(lasts > 0, amount / jnp.where(lasts > 0, lasts, 1.0), 0.0)
        )
        over = jnp.where(endless, 1.0, lasts // e.interval)  # infusions that overlap
        rest = jnp.where(endless, 0.0, lasts - over * e.interval)

        def cross(x, step):
            h, running = step

            def f(t, y):
                dx = here.rates(t, y, u)
                for i, state in enumerate(where):
                    dx = put(dx, state, get(dx, state) + running * flow[i])
                return dx

            return stepper.advance(f, 0.0, h, x), None

        def cycle(v, until):
            """State at `until` after a dose that found the state `v`: (it, it again for a Jacobian that keeps it)."""
            x = unravel(v)
            for i, state in enumerate(where):
                x = put(x, state, get(x, state) + jnp.where(lasts > 0, 0.0, amount[i]))
            spans = jnp.stack([jnp.minimum(rest, until), jnp.maximum(until - rest, 0.0)]) / pieces
            steps = jnp.repeat(spans, pieces), jnp.repeat(jnp.stack([over + 1.0, over]), pieces)
            image = ravel_pytree(lax.scan(cross, x, steps)[0])[0]
            return image, image

        def newton(v, _):
            slope, image = jax.jacfwd(cycle, has_aux=True)(v, e.interval)
            return v + jnp.linalg.solve(jnp.eye(v.shape[0]) - slope, image - v), None

        rounds = 1 if spec.linear else 8
        v = lax.scan(newton, flat, None, length=rounds)[0]
        if not spec.linear:  # no rest (input beyond what can be removed), or not found: said, not guessed
            moved = jnp.abs(cycle(v, e.interval)[0] - v)
            v = jnp.where(jnp.all(moved <= 1e-6 * jnp.abs(v) + 1e-9 * jnp.max(jnp.abs(v))), v, jnp.nan)
        if not spec.moving:
            return v
        since = jnp.mod(-lag, e.interval)  # how long ago the last dose of the train arrived
        return jnp.where((lag > 0) & ~endless, cycle(v, since)[0], v)

    return jax.vmap(one)(mesh.steady), unravel


def _apply_steady(x, node, steady, values, unravel, x0):
    here = steady.node == node["index"]
    rest = ravel_pytree(x0)[0]  # what is there without any dose is not added a second time
    flat = ravel_pytree(x)[0]
    replace, add = here & ~steady.add, here & steady.add
    # `where` before the sum: a steady state that could not be solved must not leak into nodes it does not concern
    flat = jnp.where(jnp.any(replace), jnp.sum(jnp.where(replace[:, None], values, 0.0), axis=0), flat)
    return unravel(flat + jnp.sum(jnp.where(add[:, None], values - rest[None, :], 0.0), axis=0))


class _Packed:
    """Per-node arrays as columns of one matrix: a scan step then slices one row instead of a dozen arrays.

    On a CPU the slices, not the arithmetic, are most of a step for a few lanes.
    """

    def __init__(self, nodes):
        self._places, columns, at = {}, [], 0
        for name, a in nodes.items():
            if a.size:
                width = a[0].size
                self._places[name] = (at, width, a.shape[1:], a.dtype)
                columns.append(a.reshape(a.shape[0], width).astype(float))
                at += width
        self.rows = jnp.concatenate(columns, axis=1)

    def node(self, row):
        """The named values of one row."""
        return {
            name: row[at : at + width].reshape(shape).astype(kind) if shape else row[at].astype(kind)
            for name, (at, width, shape, kind) in self._places.items()
        }


def _idle(layout):
    """Node arrays that this layout never reads."""
    idle = {"steps"} | ({"reset"} if not layout.resets else set())
    idle |= {"index"} if not layout.steady else set()
    return idle


def _shares(here, fraction, scales):
    """State units that one dose unit becomes, a route each."""
    if not here.spec.defines & {"dosing"}:
        return scales
    return {name: fraction[i] * scales[name] for i, name in enumerate(here.spec.routes)}


def _give(here, layout, node, extras, share, scales):
    """Boluses of this node, by route, and the infusions that run from it on (state units, and per time)."""
    bolus, flow = {}, {}
    for i, name in enumerate(layout.jumps):
        amount = node["jump"][i]
        if layout.latents:
            amount = amount + node["latent_jump"][:, i] @ extras.amounts
        bolus[name] = share[name] * amount
    for i, name in enumerate(layout.rates):
        rate = node["rate"][i]
        if layout.latents:
            rate = rate + node["latent_rate"][:, i] @ extras.amounts
        flow[name] = share[name] * rate
    for name in layout.moving:
        i = here.spec.routes.index(name)
        moved = scales[name] * node["moved"][i]
        bolus[name] = bolus[name] + moved if name in bolus else moved
        if layout.moving_infused:
            flow[name] = flow.get(name, 0.0) + scales[name] * node["running"][i]
    return bolus, flow


def _left(layout, name, left, value):
    """What rules of care leave of a dose or signal: all of it where none stops or scales it."""
    places = [r for r, rule in enumerate(layout.rules) if name in (rule.stop, rule.scales)]
    return value * jnp.prod(left[jnp.array(places)]) if places else value


def _segment(here, layout, node, mesh, share, flow, paths=None, readers=None):
    """The stretch from a node to the next, with what rules of care see and do there (`left`: what each leaves of an input)."""
    spec = here.spec

    def inputs(t, left):
        u = _inputs_at(here, node, t)
        for name in spec.signals:
            if any(name in (rule.stop, rule.scales) for rule in layout.rules):
                u = put(u, name, _left(layout, name, left, get(u, name)))
        return u

    def read(r, value, t):
        name = layout.rules[r].reads
        if name is None or readers is None:
            return value
        found, first = readers[name](value, t), len(layout.overridden) + len(layout.edits)
        for i, (sensor, change) in enumerate(layout.misread):
            if sensor == name:
                found = jnp.where(node["override"][first + i], change(found), found)
        return found

    def rates(t, y, left):
        dx = here.rates(t, y, inputs(t, left))
        for name, rate in flow.items():
            into = spec.doses[name].into
            dx = put(dx, into, get(dx, into) + _left(layout, name, left, rate))
        if layout.stretches:
            dx = pushed(here, t, y, inputs(t, left), dx, node["push"], get, put)
        for i, name in enumerate(layout.clamped):
            dx = put(dx, name, jnp.where(node["clamp"][i], node["clamp_slope"][i], get(dx, name)))
        return dx

    def measured(t, y, left):
        u = inputs(t, left)
        found, own = here.outputs(y, u), here.switches(y, u) if spec.switches else {}

        def value(rule):
            if rule.sets:  # while it may not act, or what it would set is clamped, its margin lies below 0
                held = [node["clamp"][i] for i, name in enumerate(layout.clamped) if name in rule.sets]
                free = jnp.asarray(own[rule.what].only) & ~jnp.any(jnp.array(held, bool))
                return jnp.where(free, own[rule.what].passes, -1.0)
            return found[rule.what].value if rule.what in found else get(y, rule.what)

        return jnp.stack([jnp.asarray(value(rule), float) for rule in layout.rules])

    def give(x, r, amount, t, left):
        name = layout.rules[r].give
        into = spec.doses[name].into
        if name in layout.portions:
            after = here.portion(name, x, inputs(t, left), amount, jnp.ones_like(amount))
            x = jax.tree.map(lambda old, new: jnp.where(amount > 0, new, old), x, after)
        return put(x, into, get(x, into) + share[name] * amount)

    def flip(x, r, t, left):
        for path, value in here.switches(x, inputs(t, left))[layout.rules[r].what].sets.items():
            x = put(x, path, jnp.asarray(value, float))
        return x

    held = {name: node["clamp"][i] for i, name in enumerate(layout.clamped)}
    add = None if paths is None else milstein(here, layout, paths, inputs, get, put, held)
    return Segment(rates, measured, give, node.get("watch"), mesh.rule, flip, add, read), inputs


def _portion(x, here, layout, node, extras, u, left):
    """What the beginnings of portions at this node change."""
    for i, name in enumerate(layout.portions):
        amount = node["portion"][i]
        if layout.latents:
            amount = amount + node["latent_portion"][:, i] @ extras.amounts
        amount = _left(layout, name, left, amount)
        after = here.portion(name, x, u, amount, node["first"][i].astype(amount.dtype))
        x = jax.tree.map(lambda old, new, begins=amount > 0: old if new is old else jnp.where(begins, new, old), x, after)
    return x


class _Path:
    """Records the state, or `observe(here, x, u)`, and keeps nothing on the way."""

    marks = 1

    def __init__(self, observe):
        self.observe = observe

    def fresh(self):
        return ()

    def __call__(self, kept, here, x, u):
        return kept, x if self.observe is None else self.observe(here, x, u)


def states(system, layout: Layout, stepper, mesh: Mesh, x0, extras: Extras, observe=None, readers=None, care=None):
    """States after what happens at each node of `mesh`, for one lane.

    **Arguments:** as of `walk`; `observe(here, x, u)`: what to record at a node instead of the state.

    **Returns:** what was recorded, with leading axis K, and `Acts`: what the rules of care did, and why the lane failed.
    A failed solve leaves non-finite states from the failure on; nothing raises.
    """
    path, _, _, place, acts = walk(system, layout, stepper, mesh, x0, extras, _Path(observe), readers, care)
    if place is not None:
        path = jax.tree.map(lambda leaf: leaf[place], path)
    bad = ~jnp.all(jnp.array([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(path)]))
    return path, acts._replace(code=jnp.where(bad & (acts.code == FINE), NOT_FINITE, acts.code).astype(jnp.int32))


def walk(system, layout: Layout, stepper, mesh: Mesh, x0, extras: Extras, recorder, readers=None, care=None):
    """From node to node of `mesh`, for one lane, with a record of what is after what happens at each.

    **Arguments:** `system`: values in its leaves (a parameter that varies by occasion has one value an occasion);
    `x0`: state in front of the first node; `recorder`: its `fresh()` is what is kept in front of it, and called with (what is
    kept, the system there, state, inputs) it returns what is kept and recorded; it wants the state at the ends of `marks` equal
    stretches (or of fewer that divide the nodes); `readers`: sensor -> (value, t) -> reading, for rules that
    read sensors; `care`: what rules remember where a stretch begins.

    **Returns:** what was recorded, a row a node or a dose that moves among them; states at the ends of the stretches; what was
    kept; the rows (K,) of the nodes where doses move, else None; `Acts`, without the failures that only states tell.
    """
    spec, rules = system.spec, layout.rules
    scales = _scales(spec)
    x0, mesh = jax.tree.map(lambda leaf: jnp.asarray(leaf, float), x0), jax.tree.map(jnp.asarray, mesh)
    if extras.held is not None:
        mesh = mesh._replace(clamp_value=extras.held[0], clamp_slope=extras.held[1])
    nodes, place = _nodes(system, layout, mesh, extras)
    if layout.steady:
        steady, unravel = _steady_states(system, layout, stepper, mesh, extras, x0)
    other = layout.rates or layout.moving_infused or layout.clamped or layout.noise or layout.stretches or layout.edits
    if spec.unforced and not other:
        stepper = unforced(stepper)
    push = {"push": pushes(mesh.drive, nodes["t"], extras.path)} if layout.stretches else {}
    gaps = {"h": jnp.append(jnp.diff(nodes["t"]), 0.0), **push}
    packed = _Packed({name: a for name, a in {**nodes, **gaps}.items() if name not in _idle(layout)})

    paths = wiener(layout, mesh, extras.noise) if layout.noise else None
    w0 = jnp.zeros(0) if paths is None else paths.at(mesh.t[0])

    def visit(carry, at):
        (x, care, w, kept), (row, steps) = carry, at
        across = in_parts(stepper, steps)
        x = floored(spec, x, get, put) if layout.stretches else x
        node = packed.node(row)
        here = _here(system, layout, node, extras)
        u = _inputs(here, node)
        if layout.resets:
            x = jax.tree.map(lambda leaf, new: jnp.where(node["reset"], new, leaf), x, x0)
        if layout.steady:
            x = _apply_steady(x, node, mesh.steady, steady, unravel, x0)
        for i, (name, change) in enumerate(layout.sets):
            old = get(x, name)
            x = put(x, name, jnp.where(node["set"][i], extras.sets[i] if change is None else change(old), old))
        share = _shares(here, _routes(here, spec, u)[1], scales)
        bolus, flow = _give(here, layout, node, extras, share, scales)
        left = left_by(rules, care)
        for name, amount in bolus.items():
            into = spec.doses[name].into
            x = put(x, into, get(x, into) + _left(layout, name, left, amount))
        if layout.portions:
            x = _portion(x, here, layout, node, extras, u, left)
        for i, name in enumerate(layout.clamped):
            x = put(x, name, jnp.where(node["clamp"][i], node["clamp_value"][i], get(x, name)))
        segment, inputs = _segment(here, layout, node, mesh, share, flow, paths, readers)
        given = []
        for r in layout.looking:
            measure = node["measure"][r] if rules[r].delayed else None
            x, care, dose = look(rules, r, segment, x, care, node["t"], measure)
            given.append(dose)
        if layout.triggered:  # of several nodes at one time only the last lasts: a reading in front of a dose changes nothing
            x, care = settle(rules, segment, x, care, node["t"], (node["h"] > 0) | (node["t"] >= mesh.t[-1]))
        left, t, h = left_by(rules, care), node["t"], node["h"]
        kept, seen = recorder(kept, here, x, inputs(t, left) if rules else u)
        if layout.triggered:
            after = cross(rules, across, segment, t, h, x, care, w)
        elif layout.noise:
            x, w = wander(across, lambda s, y: segment.rates(s, y, left), lambda *a: segment.noise(*a, left), t, h, x, w)
            after = x, care, w
        else:
            after = across.advance(lambda s, y: segment.rates(s, y, left), t, h, x), care, w
        return (*after, kept), (seen, jnp.stack(given) if given else jnp.zeros(0))

    # How many steps lie between nodes is of the mesh: beside what may be each lane's own it would make lanes wait for each other.
    rows = packed.rows, mesh.steps if layout.strides > 1 else None
    start = x0, care or Care.fresh(rules), w0, recorder.fresh()
    (_, done, _, kept), (path, given), marks = _marked(visit, start, rows, recorder.marks)
    code = jnp.where(done.over(rules) if rules else False, OVERFLOW, FINE).astype(jnp.int32)
    given = given if place is None else given[place]
    return path, marks, kept, place, Acts(given, done.times, code, done.ends, None if care is None else done)


def _marked(visit, carry, rows, most):
    """A scan of `visit` over the rows: the last carry, what it returned row by row, and the first part of the carry (the state)
    at the ends of up to `most` stretches.

    In a loop of loops, for the state at every row is a lot to write where it is wanted at a few.
    """
    count = len(rows[0])
    marks = next(n for n in range(min(most, count), 0, -1) if count % n == 0)
    if most == 1:
        carry, found = lax.scan(visit, carry, rows)
        return carry, found, jax.tree.map(lambda a: a[None], carry[0])

    def stretch(carry, rows):
        carry, found = lax.scan(visit, carry, rows)
        return carry, (found, carry[0])

    shaped = jax.tree.map(lambda a: a.reshape(marks, count // marks, *a.shape[1:]), rows)
    carry, (found, states) = lax.scan(stretch, carry, shaped)
    return carry, jax.tree.map(lambda a: a.reshape(count, *a.shape[2:]), found), states


def observer(names):
    """Record outputs (or states) by name, as one vector a node."""

    def observe(here, x, u):
        found = here.outputs(x, u)
        return jnp.stack([jnp.asarray(found[n].value if n in found else get(x, n), float) for n in names])

    return observe
