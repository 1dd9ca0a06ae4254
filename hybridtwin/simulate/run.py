"""Solve many draws in many worlds, check the error by halving the steps, and refine the lanes that need it.

Draws are lanes of one compiled program of fixed width (`TILE`). The embedded error estimates of
Runge-Kutta pairs flag nearly every lane of such systems; comparing the outputs of n and 2n sub-steps gives 0.8 to 1.9
times the true error (DESIGN 6.1), so that is what is compared, lane by lane, and the finer of the two is what is
returned.
"""

from typing import Any, NamedTuple

import jax
import numpy as np

TILE = 64  # lanes of one call; fixed, because the bits of a lane can change with the number of lanes
_REFINEMENTS = 5


class Solved(NamedTuple):
    """Outputs of L draws in W worlds at N times, M outputs."""

    values: np.ndarray  # (W, L, N, M), NaN where a lane failed
    given: np.ndarray  # (W, L, N') rescue doses, or shape (W, L, 0)
    error: np.ndarray  # (L,) output error between n and 2n sub-steps, relative to `tol` scaling; 0 where exact
    failed: np.ndarray  # (L,)
    refined: int  # lanes that needed more sub-steps than the others
    reach: np.ndarray  # (L,) index of the first reading that is not finite in some world, N where all are


def _tiles(trees, count):
    """The draws of each world in groups of TILE, the last padded by repeats of its first draw: (how many, trees)."""
    for start in range(0, count, TILE):
        index = np.arange(start, start + TILE)
        index = np.where(index < count, index, start)
        yield min(TILE, count - start), [jax.tree.map(lambda a: np.asarray(a)[index], tree) for tree in trees]  # noqa: B023


def _scaled_error(coarse, fine):
    """Largest difference of two solutions of each draw, relative to the size of each output: (tile,)."""
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        size = np.max(np.abs(fine), axis=(0, 2), keepdims=True)
        error = np.abs(coarse - fine) / np.where(size > 0, size, 1.0)
    return np.where(np.isfinite(error).all(axis=(0, 2, 3)), np.max(error, axis=(0, 2, 3)), np.inf)


def solve_draws(program, draws, worlds, *, refine, tol=1e-4) -> Solved:
    """Solve every draw in every world.

    **Arguments:** `program`: a compiled function (draws (TILE, ...), world, sub-steps) -> (values (TILE, N, M), rescue doses
    (TILE, N')); `draws`: for each world a tree with leading axis L; `worlds`: a tree for each world, all of one shape;
    `refine`: can steps be halved? `tol`: largest accepted change of any output when the steps are halved, relative to that
    output's largest value.

    Worlds are solved one after the other by one program: what a world is does not depend on those it is compared with, to the
    last bit, and another number of worlds does not compile again.
    """
    count = len(jax.tree.leaves(draws[0])[0])
    parts: list[tuple[np.ndarray, ...]] = []
    refined = 0

    def solved(tiles, substeps):
        found = [program(tile, world, np.int32(substeps)) for tile, world in zip(tiles, worlds, strict=True)]
        return (np.stack([np.asarray(f[i]) for f in found]) for i in (0, 1))

    for kept, tiles in _tiles(draws, count):
        values, given = solved(tiles, 1)
        if not refine:
            error = np.where(np.isfinite(values).all(axis=(0, 2, 3)), 0.0, np.inf)
        else:
            substeps = 2
            fine, given = solved(tiles, substeps)
            error, values = _scaled_error(values, fine), fine
            for _ in range(_REFINEMENTS):
                bad = ~(error <= tol)
                if not bad[:kept].any():
                    break
                refined += int(bad[:kept].sum())
                substeps *= 2
                fine, more = solved(tiles, substeps)
                error = np.where(bad, _scaled_error(values, fine), error)
                values[:, bad], given[:, bad] = fine[:, bad], more[:, bad]
        parts.append((values[:, :kept], given[:, :kept], error[:kept]))
    values, given = (np.concatenate([p[i] for p in parts], axis=1) for i in (0, 1))
    error = np.concatenate([p[2] for p in parts])
    failed = ~np.isfinite(values).all(axis=(0, 2, 3)) | ~(error <= max(tol, 1e-2))
    broken = ~np.isfinite(values).all(axis=(0, 3))
    reach = np.where(broken.any(axis=1), np.argmax(broken, axis=1), values.shape[2])
    values = np.where(failed[None, :, None, None], np.nan, values)
    return Solved(values, given, error, failed, refined, reach)


def stack(trees: list[Any]):
    """One tree with a leading axis from several alike."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)
