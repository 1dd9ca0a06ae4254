"""What every benchmark shares: its arguments, the machine it ran on, timing of rivals in turns, and the result line.

    given = measure.arguments(__doc__, repeats=7).parse_args()
    measure.use(given.device)                                   # before JAX starts
    times = measure.interleaved({"ours": f, "peer": g}, repeats=given.repeats)
    measure.report("name", given, claims={"ratio": times["peer"].median / times["ours"].median}, results=...)

With `--json` the last line printed is one JSON object: `name`, `date`, `machine`, `claims` (a flat mapping of numbers),
`peak_memory` (GiB of this process and of its largest child) and whatever else the script found. `--json FILE` writes it to a
file too.
"""

import argparse
import dataclasses
import datetime
import json
import math
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


def arguments(doc: str, *, repeats: int = 7) -> argparse.ArgumentParser:
    """A parser with what every benchmark takes; the script adds its own."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    said = "print one JSON object as the last line (and write it to FILE)"
    parser.add_argument("--json", nargs="?", const="-", metavar="FILE", help=said)
    parser.add_argument("--device", choices=["cpu", "gpu"], default="cpu")
    parser.add_argument("--repeats", type=int, default=repeats, help="timed rounds, after one that warms up")
    return parser


def use(device: str) -> None:
    """Compute on this kind of device; to be called before JAX starts."""
    if device == "cpu":
        os.environ["JAX_PLATFORMS"] = "cpu"
    else:
        os.environ["JAX_PLATFORMS"] = "cuda,cpu"
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def machine(device: str = "cpu") -> dict[str, Any]:
    """What the figures were measured on. Starts JAX."""
    import importlib.metadata

    import jax

    found = {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
    }
    found |= {name: importlib.metadata.version(name) for name in ("jax", "numpyro", "diffrax", "numpy")}
    if device == "gpu":
        found["accelerator"] = jax.devices()[0].device_kind
    return found


@dataclasses.dataclass(frozen=True)
class Times:
    """Seconds of each round of one side."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def least(self) -> float:
        return min(self.seconds)

    def to_json(self) -> dict[str, Any]:
        """Median, least and all rounds, in seconds."""
        return {"median": self.median, "least": self.least, "rounds": list(self.seconds)}


def interleaved(
    sides: Mapping[str, Callable[[], Any]], *, repeats: int = 7, warmup: int = 1, at_least: float = 0.0
) -> dict[str, Times]:
    """Time rivals in turns (a, b, a, b, ...), so that a disturbance of the machine meets all of them.

    **Arguments:** `sides`: what to run; JAX arrays in what it returns are waited for. `warmup`: rounds that do not count.
    `at_least`: seconds; a side that takes less is called several times a round and the mean counted.
    """
    import jax

    calls, found = dict.fromkeys(sides, 1), {name: [] for name in sides}
    for turn in range(warmup + repeats):
        for name, side in sides.items():
            began = time.perf_counter()
            for _ in range(calls[name]):
                jax.block_until_ready(side())
            spent = (time.perf_counter() - began) / calls[name]
            if turn >= warmup:
                found[name].append(spent)
            elif turn == warmup - 1 and spent < at_least:  # timed again: the first call may have compiled
                began = time.perf_counter()
                jax.block_until_ready(side())
                calls[name] = max(1, round(at_least / max(time.perf_counter() - began, 1e-7)))
    return {name: Times(tuple(seconds)) for name, seconds in found.items()}


def held() -> float:
    """Most memory that this process has held so far, in GiB (NaN on Windows).

    Read from /proc where there is one: elsewhere the figure of a process begins with what its parent held.
    """
    status = Path("/proc/self/status")
    if status.exists():
        return next(int(line.split()[1]) / 2**20 for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    try:
        import resource
    except ImportError:
        return math.nan
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform != "darwin" else 2**30)


def peak_memory() -> dict[str, float]:
    """Most memory held so far, in GiB: by this process, and by the largest one that it started and waited for."""
    try:
        import resource
    except ImportError:  # not on Windows
        return {}
    unit = 2**20 if sys.platform != "darwin" else 2**30
    return {"self": round(held(), 3), "child": round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / unit, 3)}


def table(rows: list[tuple[Any, ...]], heads: tuple[str, ...]) -> str:
    """Rows under heads, in columns; numbers at four digits."""
    cells = [heads, *(tuple(f"{c:.4g}" if isinstance(c, float) else str(c) for c in row) for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(heads))]
    return "\n".join(
        "  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))) for row in cells
    )


def report(name: str, given: argparse.Namespace, *, claims: Mapping[str, float], **more: Any) -> dict[str, Any]:
    """Print the claims, and with `--json` the one JSON object of the run as the last line."""
    found = {
        "name": name,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "device": given.device,
        "machine": machine(given.device),
        "claims": {key: float(value) for key, value in claims.items()},
        "peak_memory": peak_memory(),
        **more,
    }
    for key, value in found["claims"].items():
        print(f"{key:<28} {value:.4g}")
    if given.json:
        line = json.dumps(found)
        if given.json != "-":
            Path(given.json).write_text(line + "\n")
        print(line)
    sys.stdout.flush()
    return found
