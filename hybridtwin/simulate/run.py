"""Solve many draws in many worlds, check the error by halving the steps, and refine the lanes that need it.

Draws are lanes of one compiled program of fixed width (`TILE`). The embedded error estimates of
Runge-Kutta pairs flag nearly every lane of such systems; comparing the outputs of n and 2n sub-steps gives 0.8 to 1.9
times the true error (DESIGN 6.1), so that is what is compared, lane by lane, and the finer of the two is what is
returned.
"""

from typing import Any, NamedTuple

import jax
import numpy as np

from hybridtwin.engine import devices
from hybridtwin.simulate.events import OVERFLOW, Acts

TILE = 64  # lanes of one call on one device; fixed, because the bits of a lane can change with the number of lanes
_REFINEMENTS = 5
_ROUNDING = 1e-13


class Solved(NamedTuple):
    """Outputs of L draws in W worlds at N times, M outputs."""

    values: np.ndarray  # (W, L, N, M), NaN where a lane failed
    acts: Acts  # what rules of care did, leading axes (W, L)
    error: np.ndarray  # (L,) output error between n and 2n sub-steps, relative to `tol` scaling; 0 where exact
    failed: np.ndarray  # (L,)
    refined: int  # lanes that needed more sub-steps than the others
    code: np.ndarray  # (L,) why a lane failed: FINE, NOT_FINITE or OVERFLOW in some world (simulate/events.py)
    reach: np.ndarray  # (L,) index of the first reading that is not finite in some world, N where all are


def _scaled_error(coarse, fine):
    """Largest difference of two solutions of each draw, relative to the size of each output: (tile,).

    What is no more than rounding of the draw's largest number is no error: an action at rest is zero but for rounding.
    """
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        size = np.max(np.abs(fine), axis=(0, 2), keepdims=True)
        rounding = _ROUNDING * np.max(size, axis=-1, keepdims=True)
        error = np.maximum(np.abs(coarse - fine) - rounding, 0.0) / np.where(size > 0, size, 1.0)
    return np.where(np.isfinite(error).all(axis=(0, 2, 3)), np.max(error, axis=(0, 2, 3)), np.inf)


def solve_draws(program, draws, worlds, *, refine, tol=1e-4) -> Solved:
    """Solve every draw in every world.

    **Arguments:** `program`: a compiled function (draws (TILE, ...), world, sub-steps) -> (values (TILE, N, M), `Acts` of
    the tile); `draws`: for each world a tree with leading axis L; `worlds`: a tree for each world, all of one shape;
    `refine`: can steps be halved? `tol`: largest accepted change of any output when the steps are halved, relative to that
    output's largest value.

    Worlds are solved one after the other by one program: what a world is does not depend on those it is compared with, to the
    last bit, and another number of worlds does not compile again.
    """
    count = len(jax.tree.leaves(draws[0])[0])

    def solved(lanes, substeps):
        """Values and acts (W, L, ...) of some lanes; all tiles are under way before the first is waited for."""
        width = TILE * devices()
        tiles = [np.resize(lanes[i : i + width], width) for i in range(0, len(lanes), width)]
        under_way = [
            [program(jax.tree.map(lambda a, at=at: np.asarray(a)[at], tree), world, np.int32(substeps)) for at in tiles]
            for tree, world in zip(draws, worlds, strict=True)
        ]
        worlds_of = [jax.tree.map(lambda *a: np.concatenate(a)[: len(lanes)], *found) for found in under_way]
        return stack(worlds_of)

    everyone, refined = np.arange(count), 0
    values, acts = solved(everyone, 1)
    if not refine:
        error = np.where(np.isfinite(values).all(axis=(0, 2, 3)), 0.0, np.inf)
    else:
        substeps = 2
        fine, acts = solved(everyone, substeps)
        error, values = _scaled_error(values, fine), fine
        for _ in range(_REFINEMENTS):
            bad = np.flatnonzero(~(error <= tol))
            if not bad.size:
                break
            refined += len(bad)
            substeps *= 2
            fine, better = solved(bad, substeps)
            for old, new in zip(acts, better, strict=True):
                old[:, bad] = new
            error[bad], values[:, bad] = _scaled_error(values[:, bad], fine), fine
    code = acts.code.max(axis=0)
    failed = ~np.isfinite(values).all(axis=(0, 2, 3)) | ~(error <= max(tol, 1e-2)) | (code == OVERFLOW)
    broken = ~np.isfinite(values).all(axis=(0, 3))
    reach = np.where(broken.any(axis=1), np.argmax(broken, axis=1), values.shape[2])
    values = np.where(failed[None, :, None, None], np.nan, values)
    return Solved(values, acts, error, failed, refined, code, reach)


def stack(trees: list[Any]):
    """One tree with a leading axis from several alike."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)
