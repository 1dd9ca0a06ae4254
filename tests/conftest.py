"""What every test stands on: strict numerics, a compilation cache, and the shared data.

x64 stays off globally (the verbs of hybridtwin must give float64 all the same), implicit rank promotion is
an error, and compiled programs are kept between runs under `.pytest_cache`.
"""

import importlib.util
import os
import sys
from pathlib import Path

import jax
import pytest

from hybridtwin.engine import prepare

_THEOPHYLLINE = """time,oral,C
0,320,
0.25,,2.84
0.57,,6.57
1.12,,10.5
2.02,,9.66
3.82,,8.58
5.1,,8.36
7.03,,7.47
9.05,,6.89
12.12,,5.94
24.37,,3.28
"""

ROOT = Path(__file__).resolve().parent.parent

prepare()  # fast loops on a CPU, which only the first to start JAX can ask for
jax.config.update("jax_enable_x64", False)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update(
    "jax_compilation_cache_dir", os.environ.get("HYBRIDTWIN_TEST_CACHE", str(ROOT / ".pytest_cache" / "xla"))
)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def shared_root() -> Path:
    """Where the reference data lie: `$HYBRIDTWIN_DATA`, else `../shared/data` beside the repository."""
    return Path(os.environ.get("HYBRIDTWIN_DATA") or ROOT.parent / "shared" / "data")


def benchmark(name: str):
    """A script of benchmarks/ as a module."""
    if str(ROOT) not in sys.path:  # scripts share benchmarks/measure.py
        sys.path.append(str(ROOT))
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", ROOT / "benchmarks" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def shared_data():
    """`shared_data("pkpd/theophylline.csv")`: the path of a shared file; skips the test where it is not there."""

    def find(name: str) -> Path:
        path = shared_root() / name
        if not path.exists():
            pytest.skip(f"{name} is not under {shared_root()}; set HYBRIDTWIN_DATA to the folder that holds it")
        return path

    return find


@pytest.fixture
def command_line(monkeypatch, tmp_path):
    """What a command needs around it: its own cache, and errors that come as NaN."""
    monkeypatch.setenv("EQX_ON_ERROR", "nan")
    monkeypatch.setenv("HYBRIDTWIN_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def table(tmp_path):
    """The path of a small record: theophylline by mouth."""
    path = tmp_path / "theo.csv"
    path.write_text(_THEOPHYLLINE)
    return str(path)
