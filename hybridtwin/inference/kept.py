"""Finished work of a long run, kept in a folder so that an interrupted run resumes to the same bits.

One `.npz` of plain arrays for each person and model, named by a fingerprint of all that decides its numbers: the program of
the density, record, key, method, temper, versions, backend. A file of another run is never read, and reading one never runs code.
"""

import hashlib
import os
import re
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from hybridtwin.inference.modes import LaplaceFit
from hybridtwin.model import Temper
from hybridtwin.versions import versions


class Sampled(NamedTuple):
    """What costs time in fitting one model to one person."""

    z: np.ndarray  # (C, N, d)
    stats: dict[str, Any]
    laplaces: list[LaplaceFit]
    temper: Temper


def fingerprint(problem, key, method, temper) -> str:
    """The name of one person's work, the same in every process.

    The model enters by the program of its density, so that an edited equation, prior or sensor is other work.
    """
    kernel = problem.kernel
    z = np.zeros(kernel.size)
    program = jax.make_jaxpr(kernel.log_density)(z, problem.data, kernel.untempered())
    words = (str(program), kernel.names, method, temper, versions(), jax.default_backend())
    hashed = hashlib.sha256(re.sub(r"0x[0-9a-f]+", "", repr(words)).encode())
    for leaf in [*program.consts, *jax.tree.leaves(problem.data), jax.random.key_data(key)]:
        hashed.update(np.asarray(leaf).tobytes())
    return hashed.hexdigest()[:32]


def load(folder: Path, name: str) -> Sampled | None:
    """Work that was kept, or None."""
    try:
        with np.load(folder / f"{name}.npz", allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
    except (FileNotFoundError, ValueError, OSError, zipfile.BadZipFile):
        return None  # never kept, or the run ended while it was written: it is computed again
    stats = {k.removeprefix("stats."): v if v.ndim else v.item() for k, v in arrays.items() if k.startswith("stats.")}
    def fit(i):
        values = [arrays[f"laplace.{i}.{field}"] for field in LaplaceFit._fields]
        return LaplaceFit(*(v if v.ndim else v.item() for v in values))

    laplaces = [fit(i) for i in range(int(arrays["laplaces"]))]
    return Sampled(arrays["z"], stats, laplaces, Temper(*(arrays[f"temper.{f}"] for f in Temper._fields)))


def save(folder: Path, name: str, sampled: Sampled) -> None:
    """Keep one person's work; the file appears whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {"z": sampled.z, "laplaces": np.array(len(sampled.laplaces))}
    arrays |= {f"stats.{k}": np.asarray(v) for k, v in sampled.stats.items()}
    arrays |= {f"temper.{k}": np.asarray(v) for k, v in sampled.temper._asdict().items()}
    for i, fit in enumerate(sampled.laplaces):
        arrays |= {f"laplace.{i}.{k}": np.asarray(v) for k, v in fit._asdict().items()}
    part = folder / f"{name}.part"
    with open(part, "wb") as file:
        np.savez(file, **arrays)
    os.replace(part, folder / f"{name}.npz")
