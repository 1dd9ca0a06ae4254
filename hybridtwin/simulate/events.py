"""Rules of care inside the integration of one lane: when they act, what it does, and how a step is split at the moment.

A rule that looks at certain nodes (`Rescue`) costs a comparison at each node. A rule that acts at the moment itself (`When`)
makes a sub-step a try: if a cubic Hermite polynomial of the watched value (from the states and rates at both ends) passes the
level, a small loop lands there instead, corrects the moment by Newton's method on the step itself, acts, and goes on with
what is left of the sub-step. Where no lane of a batch has an event the loop does not turn: most sub-steps are one try.

The last Newton correction is also the derivative of the moment: with t* = t - (v(t) - level) / v'(t) and v' held fixed, dt*/dp
= -(dv/dp) / v', which is the implicit function theorem. Forward mode goes through; reverse mode does not go through a loop of
unknown length.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from hybridtwin.simulate.steppers import Repeated

_LANDINGS = (3, 6)  # least and most: two corrections make the derivative right, more are for steps far too long
_CROSS, _TIMED, _RECOVER = 0, 1, 2
_POLISH = 4  # Newton steps on the cubic
_PIECES = 8  # the cubic is looked at this often in a step: a dip between two of them that goes back is missed


class Care(NamedTuple):
    """What the R rules of a lane have done so far."""

    count: jax.Array  # (R,) acts; at_most + 1 where more were needed
    times: jax.Array  # (R, M) of the acts, NaN where there was none
    ready: jax.Array  # (R,) time from which each may act again
    recovered: jax.Array  # (R,) has it seen its level of recovery since it last acted?
    factor: jax.Array  # (R,) by what it multiplies what it scales
    seen: jax.Array  # (R,) what it measured last, where it sees late
    ends: jax.Array  # (R, M) when what an act stopped went on, NaN where it did not; (R, 0) where nothing can go on

    @classmethod
    def fresh(cls, rules):
        """Nothing done yet."""
        count, most = len(rules), max((rule.at_most for rule in rules), default=0)
        resumed = any(rule.stop is not None and rule.recovers for rule in rules)
        return cls(
            jnp.zeros(count, jnp.int32),
            jnp.full((count, most), jnp.nan),
            jnp.full(count, -jnp.inf),
            jnp.ones(count, bool),
            jnp.ones(count),
            jnp.full(count, jnp.nan),
            jnp.full((count, most if resumed else 0), jnp.nan),
        )

    def over(self, rules):
        """Would some rule have acted more often than it may?"""
        return jnp.any(self.count > jnp.array([rule.at_most if not rule.looks else 2**30 for rule in rules], jnp.int32))


class Acts(NamedTuple):
    """What rules of care did in one lane."""

    given: jax.Array  # (K, Q) doses given by the rules that look at nodes, in dose units
    times: jax.Array  # (R, M) times at which the others acted, NaN where they did not
    code: jax.Array  # () FINE, NOT_FINITE or OVERFLOW
    ends: jax.Array  # (R, M) see `Care`
    memory: "Care | None" = None  # what the rules remember at the end, where the lane was told what they remember at its start


class Segment(NamedTuple):
    """One stretch between nodes, as functions of time, state and what each rule leaves (R,) of doses and signals there."""

    rates: Callable  # (t, x, left) -> State
    measured: Callable  # (t, x, left) -> (R,) watched values
    give: Callable  # (x, r, amount, t, left) -> x with the dose of rule r
    watch: Any  # (R,) is each rule watching (looking) here?
    numbers: jax.Array  # (R, 6) see `Mesh.rule`
    flip: Callable | None = None  # (x, r, t, left) -> x as switch r leaves it
    noise: Callable | None = None  # see `noise.milstein`
    read: Callable | None = None  # (r, value, t) -> the value as rule r reads it


def left_by(rules, care):
    """(R,) what each rule leaves of the dose or signal that it stops (nothing) or scales."""
    stops = ~care.recovered & jnp.array([rule.stop is not None for rule in rules], bool)
    return jnp.where(stops, 0.0, care.factor)


def _act(rules, r, segment, x, care, now, acts, excess=None):
    """Rule r acts at time `now` where `acts`; beyond `at_most` it is only counted, and ends. `excess`: a dose that varies."""
    rule, (amount, wait) = rules[r], segment.numbers[r, 2:4]
    fits = acts & (care.count[r] < rule.at_most) if not rule.looks else acts
    if rule.give is not None:
        amount = amount if excess is None else excess
        x = segment.give(x, r, jnp.where(fits, amount, 0.0), now, left_by(rules, care))
    if rule.sets:
        x = _chosen(fits, segment.flip(x, r, now, left_by(rules, care)), x)
    times = care.times
    if not rule.looks:
        here = fits & (jnp.arange(times.shape[1]) == care.count[r])
        times = times.at[r].set(jnp.where(here, now, times[r]))
    after = not (rule.recovers or rule.stop is not None)
    return x, care._replace(
        count=care.count.at[r].add(acts.astype(jnp.int32)),
        times=times,
        ready=care.ready.at[r].set(jnp.where(acts, now + wait, care.ready[r])),
        recovered=care.recovered.at[r].set(jnp.where(acts, after, care.recovered[r])),
    )


def look(rules, r, segment, x, care, now, measure):
    """Rule r, which looks at certain nodes, looks. Returns state, care, and the dose given or the factor set (else 0).

    `measure`: does it measure here what it will see at its next look? None where it sees at once.
    """
    value = segment.read(r, segment.measured(now, x, left_by(rules, care))[r], now)
    if measure is not None:
        value, now_seen = care.seen[r], value
        care = care._replace(seen=care.seen.at[r].set(jnp.where(measure, now_seen, care.seen[r])))
    if rules[r].scales is not None:
        low, high, up, down, least, most = segment.numbers[r]
        by = jnp.where(value < low, up, jnp.where(value > high, down, 1.0))
        old = care.factor[r]
        new = jnp.where(segment.watch[r], jnp.clip(old * by, least, most), old)
        return x, care._replace(factor=care.factor.at[r].set(new)), jnp.where(new != old, new, 0.0)
    if rules[r].excess:
        level, to, one, _, step, most = segment.numbers[r]
        dose = jnp.maximum(value - to, 0.0) / one
        dose = jnp.where(step > 0, jnp.floor(dose / jnp.where(step > 0, step, 1.0) + 1e-9) * step, dose)
        dose = jnp.where(most > 0, jnp.minimum(dose, most), dose)
        acts = segment.watch[r] & (value > level) & (dose > 0) & (now >= care.ready[r] - 1e-9)
        x, care = _act(rules, r, segment, x, care, now, acts, dose)
        return x, care, jnp.where(acts, dose, 0.0)
    acts = segment.watch[r] & (value < segment.numbers[r, 0]) & (now >= care.ready[r] - 1e-9)
    x, care = _act(rules, r, segment, x, care, now, acts)
    return x, care, jnp.where(acts, segment.numbers[r, 2], 0.0)


def _side(rules):
    """1 where a rule acts below its level, -1 where above it."""
    return jnp.array([-1.0 if rule.above else 1.0 for rule in rules])


def _slack(segment, change):
    """How far past its level a rule counts as recovered: more than rounding where it recovers at the level it acts at."""
    level, until = segment.numbers[:, 0], segment.numbers[:, 1]
    return jnp.where(level == until, 1e-7 * (jnp.abs(level) + jnp.abs(change)) + 1e-300, 0.0)


def settle(rules, segment, x, care, now, on=True):
    """Rules that may act and whose level is already passed at this moment act, in order."""
    for r, rule in enumerate(rules):
        if rule.looks:
            continue
        value = _side(rules)[r] * segment.measured(now, x, left_by(rules, care))[r]
        able = on & segment.watch[r] & care.recovered[r] & (care.count[r] <= rule.at_most)
        acts = able & (now >= care.ready[r] - 1e-9) & (value <= _side(rules)[r] * segment.numbers[r, 0])
        x, care = _act(rules, r, segment, x, care, now, acts)
    return x, care


def first_passage(v0, v1, d0, d1):
    """Where in [0, 1] the cubic with these values and slopes at its ends first reaches zero from above; inf: nowhere."""
    c, d = 3 * (v1 - v0) - 2 * d0 - d1, d0 + d1 - 2 * (v1 - v0)

    def cubic(s):
        return v0 + s * (d0 + s * (c + s * d))

    high = jnp.where(v1 <= 0, 1.0, jnp.inf)
    for i in range(_PIECES - 1, 0, -1):
        high = jnp.where(cubic(i / _PIECES) <= 0, i / _PIECES, high)
    passed = high <= 1.0

    def polish(_, bracket):  # Newton's method inside a bracket; on the step itself it does the rest
        low, s, high = bracket
        value = cubic(s)
        low, high = jnp.where(value > 0, s, low), jnp.where(value > 0, high, s)
        new = s - value / (d0 + s * (2 * c + 3 * s * d))
        return low, jnp.where((new >= low) & (new <= high), new, 0.5 * (low + high)), high

    s = lax.fori_loop(0, _POLISH, polish, (high - 1 / _PIECES, high - 0.5 / _PIECES, high))[1]
    return jnp.where(v0 <= 0, 0.0, jnp.where(passed, s, jnp.inf))


def _of(values, which):
    """Entry `which` of values (R,): chosen among a few, which batched lanes do sooner than they gather."""
    found = values[0]
    for r in range(1, len(values)):
        found = jnp.where(which == r, values[r], found)
    return found


class _Tried(NamedTuple):
    """A stretch in which nothing happened."""

    x: Any  # state at its end
    w: jax.Array  # (D,) paths of the process noise there
    begin: tuple[jax.Array, jax.Array]  # `_margins` (R,) at both ends
    end: tuple[jax.Array, jax.Array]


class _Where(NamedTuple):
    """Where a lane is in its segment."""

    step: jax.Array  # index of the sub-step
    at: jax.Array  # time since the start of the sub-step
    goal: jax.Array  # the stretch that is tried now
    landing: jax.Array  # 0: trying the rest of the sub-step; k: k-th try to land on an event
    low: jax.Array  # the event lies between these
    high: jax.Array
    who: jax.Array  # which rule
    kind: jax.Array  # what happens there
    x: Any
    care: Care
    w: jax.Array


def _margins(rules, segment, care, value, speed, length):
    """(R,) what must stay above zero for nothing to happen to each rule, and its slope per time.

    The level of a rule that may act, or, with the other sign, what is missing to recovery.
    """
    side, slack = _side(rules), _slack(segment, speed * length)
    level, until = side * segment.numbers[:, 0], side * segment.numbers[:, 1]
    acting = side * value - level
    missing = until + slack - side * value
    return jnp.where(care.recovered, acting, missing), jnp.where(care.recovered, 1.0, -1.0) * side * speed


def _may_happen(rules, segment, care, now, goal):
    """(R,): may something happen to each rule at all, and does it wait for its time (else for its level)?"""
    waiting = care.recovered & (care.ready > now + 1e-9 * jnp.maximum(goal, 1e-300))
    able = care.recovered | jnp.array([rule.recovers for rule in rules])
    ends_of = jnp.array([rule.at_most if not rule.looks else -1 for rule in rules], jnp.int32)
    return segment.watch & (care.count <= ends_of) & able, waiting


def _suspect(rules, segment, care, now, goal, tried: _Tried):
    """May something happen in the stretch? A cubic stays above zero where its control points do."""
    (v0, d0), (v1, d1) = tried.begin, tried.end
    alive, waiting = _may_happen(rules, segment, care, now, goal)
    above = (v0 > 0) & (v1 > 0) & (v0 + d0 * goal / 3 > 0) & (v1 - d1 * goal / 3 > 0)
    return jnp.any(alive & jnp.where(waiting, care.ready <= now + goal, ~above))


def _next_event(rules, segment, care, now, goal, tried: _Tried):
    """The first thing that happens in the stretch: (fraction of it or inf, rule, kind)."""
    (v0, d0), (v1, d1) = tried.begin, tried.end
    fraction = jax.vmap(first_passage)(v0, v1, d0 * goal, d1 * goal)
    alive, waiting = _may_happen(rules, segment, care, now, goal)
    timed = jnp.where(care.ready <= now + goal, (care.ready - now) / jnp.where(goal > 0, goal, 1.0), jnp.inf)
    found = jnp.where(alive, jnp.where(waiting, timed, fraction), jnp.inf)
    who = jnp.argmin(found)
    kind = _of(jnp.where(waiting, _TIMED, jnp.where(care.recovered, _CROSS, _RECOVER)), who)
    return lax.stop_gradient(_of(found, who)), who.astype(jnp.int32), kind.astype(jnp.int32)


def _chosen(condition, a, b):
    return jax.tree.map(lambda p, q: jnp.where(condition, p, q), a, b)


def _arrive(rules, segment, here, x1, now):
    """The lane has landed on its event: act, and whatever follows at this very moment."""
    x, care = x1, here.care
    for r, rule in enumerate(rules):
        if rule.looks:
            continue
        mine = here.who == r
        back = mine & (here.kind == _RECOVER) & (jnp.arange(care.ends.shape[1]) == care.count[r] - 1)
        care = care._replace(
            ends=care.ends.at[r].set(jnp.where(back, now, care.ends[r])),
            ready=care.ready.at[r].set(jnp.where(mine & (here.kind == _TIMED), -jnp.inf, care.ready[r])),
            recovered=care.recovered.at[r].set(care.recovered[r] | (mine & (here.kind == _RECOVER))),
        )
        x, care = _act(rules, r, segment, x, care, now, mine & (here.kind == _CROSS))
    return settle(rules, segment, x, care, now)


def cross(rules, stepper, segment, t, h, x, care, w):
    """State, care and noise paths at t + h: the segment in equal sub-steps, each split where a rule acts.

    Under process noise there is no smooth flow to search: the moment is where the straight line between the ends of a
    sub-step passes the level, and the state there is that of the path at that moment.
    """
    whole = isinstance(stepper, Repeated) and stepper.stepper.refines
    inner = stepper.inner if isinstance(stepper, Repeated) else stepper
    count = stepper.times if whole else 1
    step = h / count

    def one(here):
        now = t + here.step * step + here.at
        tried = _try(rules, inner, segment, now, here.goal, here.x, here.care, here.w, step)
        busy = (here.landing > 0) | _suspect(rules, segment, here.care, now, here.goal, tried)
        quiet = here._replace(step=here.step + 1, at=zero, goal=step, x=tried.x, w=tried.w)
        # A loop of one turn where any lane of a batch is busy, and of none elsewhere: both sides of a choice would be computed.
        turn = busy, here
        _, after = lax.while_loop(
            lambda turn: turn[0], lambda turn: (jnp.array(False), _onward(rules, segment, now, step, turn[1], tried)), turn
        )
        return _chosen(busy, after, quiet)

    zero, none = jnp.zeros_like(step), jnp.zeros((), jnp.int32)
    start = _Where(jnp.where(h > 0, 0, count).astype(jnp.int32), zero, step, none, zero, step, none, none, x, care, w)
    end = lax.while_loop(lambda here: here.step < count, one, start)
    return end.x, end.care, end.w


def _try(rules, inner, segment, now, goal, x, care, w, step) -> _Tried:
    """The stretch `goal` of a sub-step as it is if nothing happens in it."""
    off = left_by(rules, care)

    def rates(s, y):
        return segment.rates(s, y, off)

    def seen(s, y):
        return jax.jvp(lambda s, y: segment.measured(s, y, off), (s, y), (jnp.ones_like(s), rates(s, y)))

    x1, w1 = inner.advance(rates, now, goal, x), w
    if segment.noise is not None:
        x1, w1 = segment.noise(x1, x, now, goal, w, off)
    ends = [seen(now, x), seen(now + goal, x1)]
    if segment.noise is not None:
        straight = (ends[1][0] - ends[0][0]) / jnp.where(goal > 0, goal, 1.0)
        ends = [(value, straight) for value, _ in ends]
    begin, end = (_margins(rules, segment, care, value, speed, step) for value, speed in ends)
    return _Tried(x1, w1, begin, end)


def _onward(rules, segment, now, step, here: _Where, tried: _Tried) -> _Where:
    """What follows from a try, begun `now`, of the rest of a sub-step or of landing on an event in it."""
    noisy = segment.noise is not None
    fraction, who, kind = _next_event(rules, segment, here.care, now, here.goal, tried)
    v, d = _of(tried.end[0], here.who), lax.stop_gradient(_of(tried.end[1], here.who))
    trying = here.landing == 0
    found = trying & (fraction <= 1.0)
    near = (here.landing >= _LANDINGS[0]) & (jnp.abs(v) <= 1e-9 * jnp.abs(d * step))
    arrived = ~trying & (noisy | (here.kind == _TIMED) | near | (here.landing >= _LANDINGS[1]) | (here.goal <= 0))
    accepted = (trying & ~found) | arrived
    # where to try next: the cubic's root, Newton's correction of it, or what is left of the sub-step
    low = jnp.where(v > 0, lax.stop_gradient(here.goal), here.low)
    high = jnp.where(v > 0, here.high, lax.stop_gradient(here.goal))
    newton = jnp.where(d < 0, here.goal - v / jnp.where(d < 0, d, -1.0), jnp.inf)
    corrected = jnp.where((newton >= low) & (newton <= high), newton, 0.5 * (low + high))
    goal = jnp.where(trying, jnp.where(kind == _TIMED, _of(here.care.ready, who) - now, fraction * here.goal), corrected)
    x2, care = _arrive(rules, segment, here, tried.x, now + here.goal)
    x2 = _chosen(accepted, _chosen(arrived, x2, tried.x), here.x)
    at = here.at + jnp.where(arrived, here.goal, 0.0)
    left = step - at
    next_step = (trying & ~found) | (arrived & (left <= 1e-12 * jnp.abs(step)))
    return _Where(
        here.step + next_step.astype(jnp.int32),
        jnp.where(next_step, 0.0, at),
        jnp.where(accepted, jnp.where(next_step, step, left), goal),
        jnp.where(accepted, 0, here.landing + 1),
        jnp.where(trying, 0.0, low),
        jnp.where(trying, lax.stop_gradient(here.goal), high),
        jnp.where(found, who, here.who),
        jnp.where(found, kind, here.kind),
        x2,
        _chosen(arrived, care, here.care),
        _chosen(accepted, tried.w, here.w),
    )
