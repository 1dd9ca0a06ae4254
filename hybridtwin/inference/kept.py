"""Finished work of a long run, kept in a folder so that an interrupted run resumes to the same bits.

One `.npz` of plain arrays for each person and model, or for each part of a pooled fit, named by a fingerprint of all that decides
its numbers: the program of the density, records, key, method, temper, versions, backend.
A file of another run is never read, and reading one never runs code.
"""

import dataclasses
import hashlib
import os
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hybridtwin.inference.modes import LaplaceFit
from hybridtwin.kernel import Temper
from hybridtwin.versions import versions


class Sampled(NamedTuple):
    """What costs time in fitting one model to one person."""

    z: np.ndarray  # (C, N, d)
    stats: dict[str, Any]
    laplaces: list[LaplaceFit]
    temper: Temper


def _is_key(a) -> bool:
    return isinstance(a, jax.Array) and jnp.issubdtype(a.dtype, jax.dtypes.prng_key)


def fingerprint(problem, key, method, temper) -> str:
    """The name of one person's work, the same in every process.

    The model enters by the program of its density, so that an edited equation, prior or sensor is other work.
    """
    kernel = problem.kernel
    program = jax.make_jaxpr(kernel.log_density)(np.zeros(kernel.size), problem.data, kernel.untempered())
    return _named([program], (kernel.names, method, temper), problem.data, key)


def _named(programs, words, data, key) -> str:
    words = ([str(program) for program in programs], words, versions(), jax.default_backend())
    hashed = hashlib.sha256(re.sub(r"0x[0-9a-f]+", "", repr(words)).encode())
    consts = [const for program in programs for const in program.consts]
    for leaf in [*consts, *jax.tree.leaves(data), jax.random.key_data(key)]:
        hashed.update(np.asarray(leaf).tobytes())
    return hashed.hexdigest()[:32]


def _arrays(path: Path) -> dict[str, np.ndarray] | None:
    """The arrays of a file, or None."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return {key: file[key] for key in file.files}
    except (FileNotFoundError, ValueError, OSError, zipfile.BadZipFile):
        return None  # never kept, or the run ended while it was written: it is computed again


def _write(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """The file appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    with open(part, "wb") as file:
        np.savez(file, **arrays)  # pyright: ignore[reportArgumentType]
    os.replace(part, path)


def load(folder: Path, name: str) -> Sampled | None:
    """Work that was kept, or None."""
    arrays = _arrays(folder / f"{name}.npz")
    if arrays is None:
        return None
    stats = {k.removeprefix("stats."): v if v.ndim else v.item() for k, v in arrays.items() if k.startswith("stats.")}
    def fit(i):
        values = [arrays[f"laplace.{i}.{field}"] for field in LaplaceFit._fields]
        return LaplaceFit(*(v if v.ndim else v.item() for v in values))

    laplaces = [fit(i) for i in range(int(arrays["laplaces"]))]
    return Sampled(arrays["z"], stats, laplaces, Temper(*(arrays[f"temper.{f}"] for f in Temper._fields)))


def save(folder: Path, name: str, sampled: Sampled) -> None:
    """Keep one person's work."""
    arrays = {"z": sampled.z, "laplaces": np.array(len(sampled.laplaces))}
    arrays |= {f"stats.{k}": np.asarray(v) for k, v in sampled.stats.items()}
    arrays |= {f"temper.{k}": np.asarray(v) for k, v in sampled.temper._asdict().items()}
    for i, fit in enumerate(sampled.laplaces):
        arrays |= {f"laplace.{i}.{k}": np.asarray(v) for k, v in fit._asdict().items()}
    _write(folder / f"{name}.npz", arrays)


@dataclasses.dataclass(frozen=True)
class Work:
    """Where a pooled fit keeps what it has after each round: a tree of arrays that replaces the one before. Without a folder
    nothing is kept.
    """

    folder: Path | None
    name: str = ""

    @classmethod
    def of(cls, folder, pool, groups, key, method) -> "Work":
        """The work of a cohort, named by the programs of everybody's readings and of the hyperpriors, records, key, method."""
        if folder is None:
            return cls(None)
        u, programs = np.zeros(pool.size), []
        for group in groups:
            data, b = jax.tree.map(lambda a: a[0], group.data), np.zeros(pool.effects(group.kernel))

            def said(u, b, data, kernel=group.kernel):
                return pool.rows(kernel, pool.person(kernel, u, b), data), pool.log_prior(u)

            programs.append(jax.make_jaxpr(said)(u, b, data))
        words = (pool.names, [group.kernel.names for group in groups], [group.rows.tolist() for group in groups], method)
        return cls(Path(folder), _named(programs, words, [group.data for group in groups], key))

    def part(self, which) -> "Work":
        """The work of one part of the fit."""
        return dataclasses.replace(self, name=f"{self.name}.{which}")

    def load(self, like):
        """What was kept, in the structure of the tree `like`; None where nothing was."""
        arrays = None if self.folder is None else _arrays(self.folder / f"{self.name}.npz")
        if arrays is None:
            return None
        leaves, tree = jax.tree.flatten(like)
        if len(arrays) != len(leaves):
            return None
        values = [arrays[f"{i}"] for i in range(len(leaves))]
        values = [jax.random.wrap_key_data(v) if _is_key(a) else v for a, v in zip(leaves, values, strict=True)]
        return jax.tree.unflatten(tree, values)

    def save(self, tree) -> None:
        """Keep a tree of arrays."""
        if self.folder is not None:
            leaves = [np.asarray(jax.random.key_data(a) if _is_key(a) else a) for a in jax.tree.leaves(tree)]
            _write(self.folder / f"{self.name}.npz", {f"{i}": a for i, a in enumerate(leaves)})
