"""A function of one lane, compiled for any number of lanes: values and gradients, at what a call must cost and no more.

Beside the arithmetic a call of a compiled program has three prices, and for one lane they are most of it (2 cores of an AMD
EPYC, three states, 41 nodes: 19 us, of which the integration is 3):

- every array passed costs a third of a microsecond, and a record is fifty of them: `Packing` makes them one vector;
- XLA on a CPU starts every fused operation in front of and behind the loop by itself. A loop it compiles into one function
  (`engine.prepare`), so one lane is put into a loop of one turn, whose number of turns XLA is not told;
- a batch beyond a few hundred lanes leaves the cache, and one call uses one core: batches go in tiles, a thread a core, and
  each call goes over several tiles in a loop, for starting a call costs as much as a tenth of a tile.

Gradients are taken of the batch and not lane by lane, so that tangents of many lanes lie side by side in memory, and forward
or backward by `backward`.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from hybridtwin.engine import cores, double, fast_loops, side_by_side
from hybridtwin.packing import Packing

WIDTHS = (1, 4, 16, 64, 256)  # lanes of one call; a lane's bits belong to its width
_BATCH = 1024  # lanes of one call that holds several tiles
_ACCELERATED = 65_536  # widest call on an accelerator


def backward(unknowns: int, lanes: int, stiff: bool = False) -> bool:
    """Is reverse mode the cheaper gradient of one number a lane? The one place of this rule, by measurement (docs/design.md).

    A tangent costs one more pass over the arithmetic where lanes already fill the vector unit, and a fraction of that where
    tangents fill it; backward costs about five passes, and memory for every step. A `stiff` step is linear algebra whose
    derivative backward is one more solve, while a tangent goes through all of it again.
    """
    return unknowns > 1 if stiff else unknowns > (30 if lanes < 4 else 8 if lanes < 16 else 3)


def slopes(f, z, reverse: bool):
    """Values (n,) and gradients (n, d) of a batch function f: (n, d) -> (n,), in which no lane depends on another."""
    if reverse or not z.shape[1]:
        values, pull = jax.vjp(f, z)
        return values, pull(jnp.ones_like(values))[0]

    def along(unit):
        return jax.jvp(f, (z,), (jnp.broadcast_to(unit, z.shape),))

    return jax.vmap(along, out_axes=(None, 1))(jnp.eye(z.shape[1], dtype=z.dtype))


def by_tangents(f, z):
    """f(z), a number, whose derivative backward in z (d,) was found forward: for what reverse mode does not go through."""
    at = lax.stop_gradient(z)
    slope, value = jax.jacfwd(lambda z: (f(z), f(z)), has_aux=True)(at)
    return lax.stop_gradient(value) + lax.stop_gradient(jnp.where(jnp.isfinite(slope), slope, 0.0)) @ (z - at)


def _turns(program, width, unknowns, length):
    """`program` of `width` lanes in a loop over tiles: as many turns as the number behind its vector says.

    With one tile all that the loop reads depends on the turn, or XLA would take it out of the loop again.
    """

    def run(z, vector):
        many, numbers = len(z) > width, vector[:length]
        rows = z if many else jnp.concatenate([z, jnp.zeros((1, unknowns), z.dtype)])

        def turn(i, found):
            part = lax.dynamic_slice(rows, (i * width, np.int32(0)), (width, unknowns))
            one = program(part, numbers if many else lax.dynamic_slice(vector, (i,), (length,)))
            return jax.tree.map(lambda a, b: lax.dynamic_update_slice_in_dim(a, b, i * width, 0), found, one)

        shapes = jax.eval_shape(program, z[:width], vector[:length])
        empty = jax.tree.map(lambda s: jnp.zeros((len(z), *s.shape[1:]), s.dtype), shapes)
        return lax.fori_loop(np.int32(0), vector[length].astype(np.int32), turn, empty)

    return run


@functools.lru_cache(maxsize=128)
def _compiled(f, packing: Packing, width: int, sloped: bool, reverse: bool, whole: bool):
    """Compiled: (z (n, d), vector (size + 1,)) -> values (n, ...), or values and gradients; n = width unless `whole`."""

    def program(z, vector):
        numbers = packing.open(vector)

        def lanes(z):
            return jax.vmap(lambda one: f(one, numbers))(z)

        return slopes(lanes, z, reverse) if sloped else lanes(z)

    def sized(z, vector):
        return (_turns(program, width, z.shape[1], packing.size) if whole else program)(z, vector)

    return jax.jit(sized)


class Program:
    """`f(z, numbers)` of one lane z (d,) and numbers that all lanes share, for any number of lanes.

    **Arguments:** `f`: traced; hashable, and equal where its programs may be shared; `numbers`: a tree of arrays, packed once;
    `reverse`: how gradients are taken (None: whichever is cheaper by `backward`); `whole`: is a tile compiled into one
    function? (None: on a CPU where XLA's setting allows it.) `widest`: lanes of a tile at most (None: 256 on a CPU).

    `program(z)` at z (d,) or (n, d) gives what f returns, (n, ...); `program.gradient(z)` the values (n,) of a scalar f
    and their gradients (n, d). NumPy, float64. The bits of a lane depend on the width of its tile (1, 4, 16, 64 or 256), not on
    who else is in it, nor on the number of threads.
    """

    def __init__(self, f, numbers, *, reverse: bool | None = None, whole: bool | None = None, widest: int | None = None):
        self._f, self._packing = f, Packing.of(numbers)
        self._reverse, self._whole, self._widest = reverse, whole, widest
        self._one: dict[tuple[int, int, bool], Any] = {}  # to look a program up by all that it is costs two microseconds
        self._vector = self._packing.pack(numbers)
        self._told: dict[int, Any] = {}

    def vector(self, turns: int = 1):
        """What a compiled program reads beside z: the numbers, and over how many tiles it goes."""
        if turns not in self._told:
            with double():
                self._told[turns] = jnp.asarray(np.append(self._vector, float(turns)))
        return self._told[turns]

    def __call__(self, z):
        return self._run(z, False)

    def gradient(self, z):
        """Values and gradients."""
        return self._run(z, True)

    def compiled(self, width: int, unknowns: int, sloped: bool):
        """The compiled program of tiles of a width: (z, vector) -> arrays; z (width, d), or (`_BATCH`, d) if tiles are wide."""
        asked = (width, unknowns, sloped)
        if asked not in self._one:
            reverse = backward(unknowns, width) if self._reverse is None else self._reverse
            whole = self._whole_tile(width, sloped)
            self._one[asked] = _compiled(self._f, self._packing, width, sloped, sloped and reverse, whole)
        return self._one[asked]

    def _whole_tile(self, width, sloped) -> bool:
        """Is a tile one function? Gradients of some lanes gain nothing from it, and those of wide tiles only side by side."""
        whole = fast_loops() and jax.default_backend() == "cpu" if self._whole is None else self._whole
        return whole and not (sloped and 1 < width < WIDTHS[-1])

    def _run(self, z, sloped):
        z = np.asarray(z, float)
        rows = z if z.ndim > 1 else z[None]
        with double():
            if len(rows) == 1:
                found = jax.tree.map(np.asarray, self.compiled(1, rows.shape[1], sloped)(rows, self.vector()))
            else:
                found = self._tiled(rows, sloped)
        return found if z.ndim > 1 else jax.tree.map(lambda a: a[0], found)

    def _tiled(self, z, sloped):
        most = self._widest or (WIDTHS[-1] if jax.default_backend() == "cpu" else _ACCELERATED)
        width = next((w for w in WIDTHS if w >= len(z)), most)
        program, tiles = self.compiled(width, z.shape[1], sloped), -(-len(z) // width)
        # how many tiles one call goes over
        room = max(1, _BATCH // width) if width >= WIDTHS[-1] and self._whole_tile(width, sloped) else 1
        turns = min(room, -(-tiles // cores()))

        def call(at):
            part = z[at : at + turns * width]
            if len(part) < room * width:
                part = np.concatenate([part, np.repeat(part[:1], room * width - len(part), axis=0)])
            found = program(part, self.vector(-(-min(len(z) - at, turns * width) // width)))
            return jax.tree.map(lambda a: np.asarray(a)[: turns * width], found)

        parts = side_by_side([functools.partial(call, at) for at in range(0, len(z), turns * width)])
        return jax.tree.map(lambda *a: np.concatenate(a)[: len(z)], *parts)
