"""Many arrays as one: every array that a compiled program is given costs the host a microsecond or ten, and a record is fifty."""

import dataclasses
from typing import Any

import jax
import numpy as np

from hybridtwin.errors import ParameterError

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
        leaves = [np.asarray(leaf, float).ravel() for leaf in jax.tree.leaves(numbers) if np.size(leaf)]
        return np.concatenate(leaves) if leaves else np.zeros(0)

    def open(self, vector):
        """The tree of a vector (size,); traced."""
        leaves, at = [], 0
        for shape, kind in self.kinds:
            size = int(np.prod(shape))
            leaves.append(vector[at : at + size].reshape(shape).astype(kind))
            at += size
        return jax.tree.unflatten(self.tree, leaves)


@jax.tree_util.register_pytree_node_class
@dataclasses.dataclass(frozen=True, eq=False)
class Packed:
    """A tree of arrays as one vector that knows its packing: an argument of compiled programs, which see the tree by `open`."""

    vector: Any
    packing: Packing

    @classmethod
    def of(cls, numbers) -> "Packed":
        """One tree, packed on the host."""
        packing = Packing.of(numbers)
        return cls(packing.pack(numbers), packing)

    def open(self):
        """The tree; traced."""
        return self.packing.open(self.vector)

    def tree_flatten(self):
        return (self.vector,), self.packing

    @classmethod
    def tree_unflatten(cls, packing, children):
        return cls(children[0], packing)
