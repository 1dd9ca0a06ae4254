"""Solve many draws in many worlds, check the error by halving the steps, and refine the lanes that need it.

Draws are lanes of one compiled program of fixed width (`tile`). The embedded error estimates of
Runge-Kutta pairs flag nearly every lane of such systems; comparing the outputs of n and 2n sub-steps gives 0.8 to 1.9
times the true error (DESIGN 6.1), so that is what is compared, lane by lane, and the finer of the two is what is
returned.

That holds where steps are short enough to converge. Two solutions that are both wrong are told by their states: these are
compared too, at nodes over the whole mesh and not only where an output is read, with a hundred times the tolerance.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from hybridtwin.engine import devices, side_by_side
from hybridtwin.packing import Packed
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
    worst: np.ndarray  # (L, 2) reading and output of `error`


def _relative(coarse, fine, size, rounding=0.0):
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        return np.maximum(np.abs(coarse - fine) - rounding, 0.0) / np.where(size > 0, size, 1.0)


def _compare(coarse: Course, fine: Course) -> _Check:
    count, peak = fine.values.shape[-1], np.max(fine.size, axis=0)[None, :, None, :]
    with np.errstate(invalid="ignore"):
        read = np.max(np.abs(fine.values), axis=(0, 2), keepdims=True)
    # Where only the tail of what has long decayed is read, it may be of no more than the size of a rounding error.
    rounding = _ROUNDING * np.max(read, axis=-1, keepdims=True, initial=0.0)
    moved = _relative(coarse.values, fine.values, np.maximum(read, _TAIL * peak[..., :count]), rounding)
    finite = np.isfinite(moved)
    flat = np.max(np.where(finite, moved, np.inf), axis=0)  # (L, N, M)
    lanes, _, outputs = flat.shape
    most = np.argmax(flat.reshape(lanes, -1), axis=1)  # the first that is not finite, else the largest
    held = _relative(coarse.marks, fine.marks, peak[..., count:], rounding)
    held = np.where(np.isfinite(held), held, 0.0)  # what happens after the last reading concerns nobody
    held = _STATES * np.max(held, axis=(0, 2, 3), initial=0.0)

    def largest(difference):
        found = np.max(np.where(finite, difference, 0.0), axis=(0, 2, 3), initial=0.0)
        return np.where(finite.all(axis=(0, 2, 3)), np.maximum(found, held), np.inf)

    gross = _relative(coarse.values, fine.values, np.maximum(read, peak[..., :count]), rounding)
    return _Check(largest(moved), largest(gross), np.stack([most // outputs, most % outputs], axis=1))


def solve_draws(
    program, draws, worlds, *, refine, tol=1e-4, instead: Callable[[], Any] | None = None, width: int = TILE, cost: float = 0.0
) -> Solved:
    """Solve every draw in every world.

    **Arguments:** `program`: a compiled function, such as `Lanes`: (draws (width, ...), world, sub-steps) -> `Course` with
    leading axis `width`; `draws`: for each world a dictionary of arrays with leading axis L; `worlds`: a tree for each world,
    all of one shape; `refine`: can steps be halved? `tol`: largest accepted change of any output when the steps are halved,
    relative to that output's largest value; `instead`: makes a second program, of a method that controls its own error, and
    the worlds as it wants them, for the lanes that do not settle (their draws have a `size` (L, S), too); `width`: lanes of
    one call on one device, `tile` of the system; `cost`: evaluations of the rates of one lane with one sub-step a segment.

    Worlds are solved one after the other by one program: what a world is does not depend on those it is compared with, to the
    last bit, and another number of worlds does not compile again.
    """
    count = len(jax.tree.leaves(draws[0])[0])

    here = jax.device_put([Packed.of(world) for world in worlds])  # once, and not with every tile

    def solved(program, draws, worlds, width, lanes, substeps) -> Course:
        """The courses (W, L, ...) of some lanes: tiles of one width, side by side on all cores."""
        wide = width * devices()
        tiles = [np.resize(lanes[i : i + wide], wide) for i in range(0, len(lanes), wide)]

        def part(tree, world, at):
            return jax.tree.map(np.asarray, program(jax.tree.map(lambda a: np.asarray(a)[at], tree), world, np.int32(substeps)))

        calls = [
            functools.partial(part, tree, world, at) for tree, world in zip(draws, worlds, strict=True) for at in tiles
        ]
        first = [] if getattr(program, "called", False) else [calls.pop(0)()]  # alone, so that it is compiled once
        found = first + side_by_side(calls, most=1 if devices() > 1 else None)
        each = [found[i : i + len(tiles)] for i in range(0, len(found), len(tiles))]
        return stack([jax.tree.map(lambda *a: np.concatenate(a)[: len(lanes)], *one) for one in each])

    everyone, refined = np.arange(count), 0
    run = functools.partial(solved, program, draws, here, width)
    best = run(everyone, 1)
    check = _compare(best, best)
    if refine:
        coarse, best = best, run(everyone, 2)
        check = _compare(coarse, best)
        refined = int(np.sum(~(check.error <= tol)))
        most = _patient(cost) if instead is not None else _FINEST
        _settle(run, best, check, ~(check.error <= tol), tol, (2, most), known=best)
        left = ~(check.error <= tol)
        if instead is not None and left.any():
            stable, own = instead()
            sized = [tree | {"size": _sizes(best)} for tree in draws]
            other, told = jax.tree.map(np.copy, (best, check))
            own = jax.device_put([Packed.of(world) for world in own])
            again = functools.partial(solved, stable, sized, own, min(width, _FEW))
            _settle(again, other, told, left, tol, (0, _LAST), hopeless=_HOPELESS)
            # A stable method can step across a pole: where the first left the finite numbers only a settled answer is taken.
            took = (told.error <= tol) | ((told.error < check.error) & np.isfinite(check.error))
            _take((best, check), (other, told), took, took)
        if most < _FINEST:
            left = ~(check.error <= tol) & np.isfinite(check.error)
            _settle(run, best, check, left, tol, (most // 2, _FINEST))
    return _judged(best, check, refined, tol)


def _sizes(course: Course):
    """(L, S) how large each state gets, in any world: as in most lanes, for one that has not settled may have run away."""
    size = np.median(np.max(course.size, axis=0), axis=0)[course.values.shape[-1] :]
    return np.broadcast_to(size, (course.size.shape[1], len(size)))


def _patient(cost: float) -> int:
    """Sub-steps up to which steps are halved before another method is tried: more where they cost little.

    A program of that method takes seconds to compile, so it must have something to save.
    """
    few = 2 ** int(np.log2(max(_PATIENCE / max(cost, 1.0), 1.0)))
    return int(np.clip(few, 2, _FINEST))


def _settle(solve, best: Course, check: _Check, bad, tol, between=(0, _FINEST), known=None, hopeless=np.inf):
    """Halve the steps of the `bad` lanes until they settle; in place.

    `between`: sub-steps already taken, and at most; `known`: courses of all lanes with those already taken (else they are
    solved once more, or are of another method); `hopeless`: sub-steps at which a lane that is still not finite is given up.
    """
    bad, (substeps, most) = np.flatnonzero(bad), between
    known = None if known is None else _lanes(known, bad)
    while bad.size and substeps < most:
        substeps = max(2 * substeps, 1)
        fine = solve(bad, substeps)
        if known is not None:
            now = _compare(known, fine)
            better = (now.error < check.error[bad]) | ~np.isfinite(check.error[bad])
            _take((best, check), (fine, now), bad[better], better)
        stay = ~(check.error[bad] <= tol) & (np.isfinite(fine.values).all(axis=(0, 2, 3)) | (substeps < hopeless))
        bad, known = bad[stay], _lanes(fine, stay)


def _take(old, new, to, of):
    """Write lanes `of` of one course and its check into the lanes `to` of another."""
    for part, other in zip(jax.tree.leaves(old[0]), jax.tree.leaves(new[0]), strict=True):
        if other.size:  # another mesh has another number of nodes, at which without rules nothing is given
            part[:, to] = other[:, of]
    for part, other in zip(old[1], new[1], strict=True):
        part[to] = other[of]


def _lanes(tree: Course, lanes) -> Course:
    return jax.tree.map(lambda a: a[:, lanes], tree)


def _judged(best: Course, check: _Check, refined, tol) -> Solved:
    """What became of every lane."""
    finite = np.isfinite(best.values).all(axis=(0, 2, 3))
    failed = ~finite | ~(check.gross <= max(tol, _LOST))
    code = np.select([~finite, failed, ~(check.error <= tol)], [NOT_FINITE, UNSETTLED, LOOSE], FINE)
    over = np.max(best.acts.code, axis=0) == OVERFLOW
    code, failed = np.where(over, OVERFLOW, code), failed | over
    nodes = np.where(best.broken[..., 0] >= 0, best.broken[..., 0], np.iinfo(np.int32).max)  # (W, L)
    world = np.argmin(nodes, axis=0)
    node, place = best.broken[world, np.arange(len(world))].T
    where = np.stack([world, np.where(code == NOT_FINITE, node, -1), place], axis=1)
    values = np.where(failed[None, :, None, None], np.nan, best.values)
    return Solved(values, best.acts, check.error, failed, refined, code, where, check.worst)


def stack(trees: list[Any]):
    """One tree with a leading axis from several alike."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)
