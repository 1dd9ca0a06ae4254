"""A function of one lane, compiled for any number of lanes: values and gradients, at what a call must cost and no more.

Beside the arithmetic a call of a compiled program has three prices, and for one lane they are most of it (2 cores of an AMD
EPYC, three states, 41 nodes: 19 us, of which the integration is 3):

- every array passed costs a third of a microsecond, and a record is fifty of them: `Packing` makes them one vector;
- XLA on a CPU starts every fused operation in front of and behind the loop by itself. A loop it compiles into one function
  (`engine.prepare`), so one lane is put into a loop of one turn, whose number of turns XLA is not told;
- a batch beyond a few hundred lanes leaves the cache, and one call uses one core: batches go in tiles, a thread a core.

Gradients are taken of the batch and not lane by lane, so that tangents of many lanes lie side by side in memory, and forward
or backward by `backward`.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from hybridtwin.engine import double, fast_loops, side_by_side
from hybridtwin.errors import ParameterError

WIDTHS = (1, 4, 16, 64, 256)  # lanes of one call; a lane's bits belong to its width
_ACCELERATED = 65_536  # widest call on an accelerator
_EXACT = 2**53  # integers up to here are exact in float64


@dataclasses.dataclass(frozen=True)
class Packing:
    """How a tree of arrays becomes one vector of float64, and the tree again inside a program. A static key of programs."""

    tree: Any
    kinds: tuple[tuple[tuple[int, ...], np.dtype], ...]

    @classmethod
    def of(cls, numbers) -> "Packing":
        """The packing of trees like this one: real numbers, integers up to 2**53 and truth values."""
        leaves, tree = jax.tree.flatten(numbers)
        arrays = [np.asarray(leaf) for leaf in leaves]
        for a in arrays:
            if a.dtype.kind not in "fiub" or (a.dtype.kind in "iu" and a.size and np.abs(a.astype(float)).max() > _EXACT):
                raise ParameterError(
                    f"an array of {a.dtype} is not packed without loss. Pack real numbers, truth values, integers up to 2**53."
                )
        return cls(tree, tuple((a.shape, a.dtype) for a in arrays))

    @property
    def size(self) -> int:
        """Length of the vector."""
        return sum(int(np.prod(shape)) for shape, _ in self.kinds)

    def pack(self, numbers) -> np.ndarray:
        """One vector (size,), on the host."""
        leaves = [np.asarray(leaf, float).ravel() for leaf in jax.tree.leaves(numbers)]
        return np.concatenate(leaves) if leaves else np.zeros(0)

    def open(self, vector):
        """The tree of a vector (size,); traced."""
        leaves, at = [], 0
        for shape, kind in self.kinds:
            size = int(np.prod(shape))
            leaves.append(vector[at : at + size].reshape(shape).astype(kind))
            at += size
        return jax.tree.unflatten(self.tree, leaves)


def backward(unknowns: int, lanes: int) -> bool:
    """Is reverse mode the cheaper gradient of one number a lane? The one place of this rule, by measurement (docs/design.md).

    A tangent costs one more pass over the arithmetic where lanes already fill the vector unit, and a fraction of that where
    tangents fill it; backward costs about five passes, and memory for every step.
    """
    return unknowns > (30 if lanes < 4 else 8 if lanes < 16 else 3)


def slopes(f, z, reverse: bool):
    """Values (n,) and gradients (n, d) of a batch function f: (n, d) -> (n,), in which no lane depends on another."""
    if reverse or not z.shape[1]:
        values, pull = jax.vjp(f, z)
        return values, pull(jnp.ones_like(values))[0]

    def along(unit):
        return jax.jvp(f, (z,), (jnp.broadcast_to(unit, z.shape),))

    return jax.vmap(along, out_axes=(None, 1))(jnp.eye(z.shape[1], dtype=z.dtype))


def _whole(program, size, length):
    """`program` of one lane in a loop of as many turns as the number behind its vector says, which is 1.

    What the loop reads depends on the turn, or XLA would take it out of the loop again.
    """

    def run(z, vector):
        row = jnp.append(z[0], 0.0)

        def turn(i, _):
            return program(lax.dynamic_slice(row, (i,), (size,))[None], lax.dynamic_slice(vector, (i,), (length,)))

        empty = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(program, z, vector[:length]))
        return lax.fori_loop(np.int32(0), vector[length].astype(np.int32), turn, empty)

    return run


@functools.lru_cache(maxsize=128)
def _compiled(f, packing: Packing, width: int, sloped: bool, reverse: bool, whole: bool):
    """Compiled: (z (width, d), vector (size + 1,)) -> values (width, ...), or values and gradients."""

    def program(z, vector):
        numbers = packing.open(vector)

        def lanes(z):
            return jax.vmap(lambda one: f(one, numbers))(z)

        return slopes(lanes, z, reverse) if sloped else lanes(z)

    def sized(z, vector):
        return (_whole(program, z.shape[1], packing.size) if whole else program)(z, vector)

    return jax.jit(sized)


class Program:
    """`f(z, numbers)` of one lane z (d,) and numbers that all lanes share, for any number of lanes.

    **Arguments:** `f`: traced; hashable, and equal where its programs may be shared; `numbers`: a tree of arrays, packed once;
    `reverse`: how gradients are taken (None: whichever is cheaper by `backward`); `whole`: is one lane compiled into one
    function? (None: on a CPU where XLA's setting allows it.) `widest`: lanes of a tile at most (None: 256 on a CPU).

    `program(z)` at z (d,) or (n, d) gives what f returns, (n, ...); `program.gradient(z)` the values (n,) of a scalar f
    and their gradients (n, d). NumPy, float64. The bits of a lane depend on the width of its tile (1, 4, 16, 64 or 256), not on
    who else is in it, nor on the number of threads.
    """

    def __init__(self, f, numbers, *, reverse: bool | None = None, whole: bool | None = None, widest: int | None = None):
        self._f, self._packing = f, Packing.of(numbers)
        self._reverse, self._whole, self._widest = reverse, whole, widest
        self._one: dict[tuple[int, int, bool], Any] = {}  # to look a program up by all that it is costs two microseconds
        with double():
            self.vector = jnp.asarray(np.append(self._packing.pack(numbers), 1.0))

    def __call__(self, z):
        return self._run(z, False)

    def gradient(self, z):
        """Values and gradients."""
        return self._run(z, True)

    def compiled(self, width: int, unknowns: int, sloped: bool):
        """The compiled program of one tile: (z (width, d), vector) -> arrays."""
        asked = (width, unknowns, sloped)
        if asked not in self._one:
            reverse = backward(unknowns, width) if self._reverse is None else self._reverse
            whole = fast_loops() and jax.default_backend() == "cpu" if self._whole is None else self._whole
            self._one[asked] = _compiled(self._f, self._packing, width, sloped, sloped and reverse, whole and width == 1)
        return self._one[asked]

    def _run(self, z, sloped):
        z = np.asarray(z, float)
        rows = z if z.ndim > 1 else z[None]
        with double():
            if len(rows) == 1:
                found = jax.tree.map(np.asarray, self.compiled(1, rows.shape[1], sloped)(rows, self.vector))
            else:
                found = self._tiled(rows, sloped)
        return found if z.ndim > 1 else jax.tree.map(lambda a: a[0], found)

    def _tiled(self, z, sloped):
        most = self._widest or (WIDTHS[-1] if jax.default_backend() == "cpu" else _ACCELERATED)
        width = next((w for w in WIDTHS if w >= len(z)), most)
        program = self.compiled(width, z.shape[1], sloped)

        def tile(at):
            part = z[at : at + width]
            if len(part) < width:
                part = np.concatenate([part, np.repeat(part[:1], width - len(part), axis=0)])
            return jax.tree.map(np.asarray, program(part, self.vector))

        parts = side_by_side([functools.partial(tile, at) for at in range(0, len(z), width)])
        return jax.tree.map(lambda *a: np.concatenate(a)[: len(z)], *parts)
