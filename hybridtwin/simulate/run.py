"""Solve many draws in many worlds, check the error by halving the steps, and refine the lanes that need it.

Draws are lanes of one compiled program of fixed width (`tile`). The embedded error estimates of
Runge-Kutta pairs flag nearly every lane of such systems; comparing the outputs of n and 2n sub-steps gives 0.8 to 1.9
times the true error (DESIGN 6.1), so that is what is compared, lane by lane, and the finer of the two is what is
returned.

That holds where steps are short enough to converge. Two solutions that are both wrong are told by their states: these are
compared too, at nodes over the whole mesh and not only where an output is read, with a hundred times the tolerance. Where both
agree on a state below its bound, a method that controls its own error is asked (`_fallen`).
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from hybridtwin.engine import devices, side_by_side
from hybridtwin.packing import Packed, Packing
from hybridtwin.simulate.course import Course
from hybridtwin.simulate.events import Acts
from hybridtwin.simulate.failures import FINE, LOOSE, NOT_FINITE, OVERFLOW, UNSETTLED

TILE = 64  # lanes of one call on one device; fixed, because the bits of a lane can change with the number of lanes
_TINY, _CHEAP = 4, 8.0
_SMALL = 8  # states; the arrays of a tile of larger systems leave the first cache, which costs a third (`benchmarks.simglucose`)
_FINEST = 64  # sub-steps of a segment at most
_PATIENCE = 500_000  # evaluations of the rates of a lane beyond which steps are not halved further while there is another method
_STATES = 0.01  # how much a difference of a state counts beside that of an output
_FEW = 8  # lanes of one call of the second method: few go there, wait for each other, and each at its own steps
_HOPELESS, _LAST = 8, 16  # its sub-steps after which a lane that is not finite is given up, and any lane: its rates have a pole
_LOST = 1e-2  # error, relative to the largest value anywhere, above which numbers are masked
_WRONG = 10.0  # tolerances that a state may fall below its bound before two solutions that agree on it are doubted
_ROUNDING = 1e-13  # share of a draw's largest number that is no more than rounding: an action at rest is zero but for that
_TAIL = 1e-12  # share of that largest value below which what is read is nothing


def tile(states: int, cost: float = np.inf) -> int:
    """Lanes of one call on one device, for a system with so many states and steps that cost so many evaluations of its rates."""
    if states <= _TINY and cost <= _CHEAP:  # there what a node costs beside the arithmetic is most of it
        return 4 * TILE
    return TILE if states <= _SMALL else TILE // 2


class Solved(NamedTuple):
    """Outputs of L draws in W worlds at N times, M outputs."""

    values: np.ndarray  # (W, L, N, M), NaN where a lane failed
    acts: Acts  # what rules of care did, leading axes (W, L)
    error: np.ndarray  # (L,) output error between n and 2n sub-steps, relative to `tol` scaling; 0 where exact
    failed: np.ndarray  # (L,)
    refined: int  # lanes that needed more sub-steps than the others
    code: np.ndarray  # (L,) why a lane failed or missed the tolerance, FINE where it did not
    where: np.ndarray  # (L, 3) world, node and state at which it first was not finite; node -1 where it was
    worst: np.ndarray  # (L, 2) reading and output that were not finite first, or moved most when the steps were halved


class _Check(NamedTuple):
    """How two solutions of each of L draws compare."""

    error: np.ndarray  # (L,) largest difference, relative to the largest value that is read of that output
    gross: np.ndarray  # (L,) the same relative to its largest value anywhere
    worst: np.ndarray  # (L, 2) reading and output of `error` where that is beyond the tolerance


def _relative(apart, size, rounding=0.0):
    return np.maximum(apart - rounding, 0.0) / np.where(size > 0, size, 1.0)


def _most(values):
    """Largest absolute value along the last axis; not finite where one of them is not."""
    return np.maximum(np.max(values, axis=-1, initial=0.0), -np.min(values, axis=-1, initial=0.0))


def _compare(coarse: list[Course], fine: list[Course], tol=0.0) -> _Check:
    """Two solutions of the same worlds: of each draw what is largest over all worlds."""
    count, pairs = fine[0].values.shape[1], list(zip(coarse, fine, strict=True))

    def most(each):
        return np.max([_most(part) for part in each], axis=0)

    with np.errstate(invalid="ignore", over="ignore"):
        peak, read = np.max([f.size for f in fine], axis=0), most(f.values for f in fine)  # (L, M + S), (L, M)
        peak = np.where(np.isfinite(peak), peak, 0.0)  # of a lane that is lost after its last reading nothing else counts
        # Where only the tail of what has long decayed is read, it may be of no more than the size of a rounding error.
        rounding = _ROUNDING * np.max(read, axis=-1, keepdims=True, initial=0.0)
        scale, apart = np.maximum(read, _TAIL * peak[:, :count]), most(c.values - f.values for c, f in pairs)
        looks = [] if fine[0].looks is None else [c.looks - f.looks for c, f in pairs]
        marks = [c.marks - f.marks for c, f in pairs]
        marks = most(np.where(np.isfinite(part), part, 0.0) for part in marks)  # (L, S)
        known = np.where(peak[:, count:] > 0, peak[:, count:], np.inf)
        held = _STATES * np.max(_relative(marks, known, rounding), axis=-1, initial=0.0)
        if looks:  # whatever is read, all that lies before is as if it were
            moved = most(np.where(np.isfinite(part), part, 0.0) for part in looks)
            held = np.maximum(held, np.max(_relative(moved, peak[:, :count], rounding), axis=-1, initial=0.0))

        def largest(size):
            found = np.max(_relative(apart, size, rounding), axis=-1, initial=0.0)
            return np.where(np.isfinite(found), np.maximum(found, held), np.inf)

        error, gross = largest(scale), largest(np.maximum(read, peak[:, :count]))
        worst, bad = np.zeros((len(error), 2), int), np.flatnonzero(~(error <= tol))
        if bad.size:
            how = scale[bad][..., None], rounding[bad][..., None]
            moved = np.max([_relative(np.abs(c.values[bad] - f.values[bad]), *how) for c, f in pairs], axis=0)
            moved = np.where(np.isfinite(moved), moved, np.inf).swapaxes(1, 2).reshape(len(bad), -1)
            worst[bad] = np.stack(np.divmod(np.argmax(moved, axis=1), count), axis=1)  # the first not finite, else the largest
    return _Check(error, gross, worst)


def solve_draws(
    program, draws, worlds, *, refine, tol=1e-4, instead: Callable[[], Any] | None = None, width: int = TILE, cost: float = 0.0,
    shown: int | None = None,
) -> Solved:
    """Solve every draw in every world.

    **Arguments:** `program`: a compiled function, such as `Lanes`: (draws (width, ...), world, sub-steps) -> `Course` with
    leading axis `width`; `draws`: for each world a dictionary of arrays with leading axis L; `worlds`: a tree for each world,
    all of one shape; `refine`: can steps be halved? `tol`: largest accepted change of any output when the steps are halved,
    relative to that output's largest value; `instead`: makes a second program, of a method that controls its own error, and
    the worlds as it wants them, for the lanes that do not settle, or that exact steps cannot cross (their draws have a `size`
    (L, S), too); `width`: lanes of one call on one device, `tile` of the system; `cost`: evaluations of the rates of one lane
    with one sub-step a segment.

    Worlds are solved one after the other by one program: what a world is does not depend on those it is compared with, to the
    last bit, and another number of worlds does not compile again.
    """
    draws = jax.tree.map(np.asarray, draws)
    count = len(jax.tree.leaves(draws[0])[0])
    here = _packed(worlds, count > width * devices())

    def solved(program, draws, worlds, width, lanes, *substeps) -> list[list[Course]]:
        """The course of some lanes in each world for each number of sub-steps: tiles of one width, side by side on all cores."""
        wide = width * devices()
        tiles = [np.resize(lanes[i : i + wide], wide) for i in range(0, len(lanes), wide)]
        parts = [(jax.tree.map(lambda a, at=at: a[at], own), w) for own, w in zip(draws, worlds, strict=True) for at in tiles]

        def part(own, world, substeps):
            found = jax.tree.map(np.asarray, program(own, world, np.int32(substeps)))
            if shown is None:
                return found
            return found._replace(values=found.values[..., :shown], looks=found.values[..., shown:])

        calls = [functools.partial(part, *each, n) for n in substeps for each in parts]
        first = [] if getattr(program, "called", False) else [calls.pop(0)()]  # alone, so that it is compiled once
        found = first + side_by_side(calls, most=1 if devices() > 1 else None)
        whole = [_whole(found[i : i + len(tiles)], len(lanes)) for i in range(0, len(found), len(tiles))]
        return [whole[i : i + len(worlds)] for i in range(0, len(whole), len(worlds))]

    everyone = np.arange(count)
    run = functools.partial(solved, program, draws, here, width)
    if refine:
        coarse, best = run(everyone, 1, 2)
    else:
        (best,) = run(everyone, 1)
        coarse = best
    check = _compare(coarse, best, tol)
    left, doubtful = ~(check.error <= tol), refine and instead is not None
    refined = int(np.sum(left | _fallen(best, tol) if doubtful else left))
    if refined:
        best, most = jax.tree.map(np.array, best), _patient(cost) if instead is not None else _FINEST
        if refine:
            _settle(run, best, check, left, tol, (2, most), known=best)
            if doubtful:
                fell = _fallen(best, tol)
                check.error[fell], check.gross[fell] = np.inf, np.inf
            left = ~(check.error <= tol)
        if instead is not None and left.any():
            stable, own = instead()
            sized = [tree | {"size": _sizes(best)} for tree in draws]
            other, told = jax.tree.map(np.copy, (best, check))
            own = _packed(own, True)
            again = functools.partial(solved, stable, sized, own, min(width, _FEW))
            _settle(again, other, told, left, tol, (0, _LAST), hopeless=_HOPELESS)
            # A stable method can step across a pole: where the first left the finite numbers only a settled answer is taken.
            took = (told.error <= tol) | ((told.error < check.error) & np.isfinite(check.error))
            _take((best, check), (other, told), took, took)
        if refine and most < _FINEST:
            left = ~(check.error <= tol) & np.isfinite(check.error)
            _settle(run, best, check, left, tol, (most // 2, _FINEST))
    return _judged(best, check, refined, tol)


def _fallen(courses: list[Course], tol):
    """(L,) did a state fall below its declared bound, by more than may pass for an error?

    Beyond a pole, or where an elimination goes on though nothing is left (Michaelis-Menten's below -Km), n and 2n steps agree on
    what no body does. It is for a method that controls its own error to say whether the state does so (then it only was declared
    in another way).
    """
    count = courses[0].values.shape[1]
    size, under = np.max([c.size for c in courses], axis=0), np.max([c.under for c in courses], axis=0)
    with np.errstate(invalid="ignore"):
        rounding = _ROUNDING * np.max(size, axis=1, keepdims=True, initial=0.0)
        return np.any(under > _WRONG * tol * size[:, count:] + rounding, axis=1)


def _packed(worlds, often: bool) -> list[Packed]:
    """Worlds as programs take them; on the device where they are passed `often`, for that takes as long as ten calls."""
    like = Packing.of(worlds[0])
    packed = [Packed(like.pack(world), like) for world in worlds]
    return jax.device_put(packed) if often else packed


def _whole(tiles: list[Course], count: int) -> Course:
    """The first `count` lanes of several tiles."""
    if len(tiles) == 1:
        return _lanes(tiles[0], slice(count))
    return jax.tree.map(lambda *a: np.concatenate(a)[:count], *tiles)


def _sizes(best: list[Course]):
    """(L, S) how large each state gets, in any world: as in most lanes, for one that has not settled may have run away."""
    size = np.max(np.stack([course.size for course in best]), axis=0)[:, best[0].values.shape[1] :]
    sound = size[np.isfinite(size).all(axis=1)]
    return np.broadcast_to(np.median(sound if len(sound) else np.zeros_like(size), axis=0), size.shape)


def _patient(cost: float) -> int:
    """Sub-steps up to which steps are halved before another method is tried: more where they cost little.

    A program of that method takes seconds to compile, so it must have something to save.
    """
    few = 2 ** int(np.log2(max(_PATIENCE / max(cost, 1.0), 1.0)))
    return int(np.clip(few, 2, _FINEST))


def _settle(solve, best: list[Course], check: _Check, bad, tol, between=(0, _FINEST), known=None, hopeless=np.inf):
    """Halve the steps of the `bad` lanes until they settle; in place.

    `between`: sub-steps already taken, and at most; `known`: courses of all lanes with those already taken (else they are
    solved once more, or are of another method); `hopeless`: sub-steps at which a lane that is still not finite is given up.
    """
    bad, (substeps, most) = np.flatnonzero(bad), between
    known = None if known is None else _lanes(known, bad)
    while bad.size and substeps < most:
        substeps = max(2 * substeps, 1)
        (fine,) = solve(bad, substeps)
        if known is not None:
            now = _compare(known, fine, tol)
            better = (now.error < check.error[bad]) | ~np.isfinite(check.error[bad])
            _take((best, check), (fine, now), bad[better], better)
        stay = ~(check.error[bad] <= tol) & (_finite(fine) | (substeps < hopeless))
        bad, known = bad[stay], _lanes(fine, stay)


def _take(old, new, to, of):
    """Write lanes `of` of some courses and their check into the lanes `to` of others."""
    for part, other in zip(jax.tree.leaves(old[0]), jax.tree.leaves(new[0]), strict=True):
        if part.shape[1:] == other.shape[1:]:  # marks, and what is given at nodes, are of a mesh: another has its own
            part[to] = other[of]
    for part, other in zip(old[1], new[1], strict=True):
        part[to] = other[of]


def _lanes(courses, lanes):
    return jax.tree.map(lambda a: a[lanes], courses)


def _finite(courses: list[Course]):
    """(L,) was all that is read finite?"""
    return np.all([np.isfinite(_most(course.values)).all(axis=1) for course in courses], axis=0)


def _judged(best: list[Course], check: _Check, refined, tol) -> Solved:
    """What became of every lane."""
    finite = _finite(best)
    failed = ~finite | ~(check.gross <= max(tol, _LOST))
    code = np.select([~finite, failed, ~(check.error <= tol)], [NOT_FINITE, UNSETTLED, LOOSE], FINE)
    acts, broken = stack([course.acts for course in best]), np.stack([course.broken for course in best])
    over = np.max(acts.code, axis=0) == OVERFLOW
    code, failed = np.where(over, OVERFLOW, code), failed | over
    nodes = np.where(broken[..., 0] >= 0, broken[..., 0], np.iinfo(np.int32).max)  # (W, L)
    world = np.argmin(nodes, axis=0)
    node, place = broken[world, np.arange(len(world))].T
    where = np.stack([world, np.where(code == NOT_FINITE, node, -1), place], axis=1)
    values = np.stack([course.values for course in best])
    values[:, failed] = np.nan
    return Solved(np.swapaxes(values, 2, 3), acts, check.error, failed, refined, code, where, check.worst)


def stack(trees: list[Any]):
    """One tree with a leading axis from several alike."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)
