"""The rules of the house that a program can check (CONTRIBUTING.md)."""

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "hybridtwin"
FILES = sorted(PACKAGE.rglob("*.py"))

# A file imports, at module level, only from names before its own. Every top-level name has a place.
# fmt: off
ORDER = [
    "errors", "finding", "keys", "packing", "engine", "program", "paths", "progress", "versions", "units", "terms",
    "priors", "fields", "dimensions",
    "drawing", "rest", "wholes", "system", "clock", "signals", "records", "record_text", "binding", "io", "levels",
    "changes", "dosing",
    "interventions", "simulate", "sensors", "policies",
    "coordinates", "pooling", "varying", "kernel", "model",
    "fit", "worlds", "measures", "asked", "aims", "outcomes", "glycemia", "twins", "twin", "inference", "causal", "explain",
    "physiology", "datasets", "plots",
    "report", "grammar", "cli", "demo", "__main__", "__init__",
]
# fmt: on
LAZY = {
    "arviz",
    "dowhy",
    "matplotlib",
    "pandas",
    "polars",
    "pint",
    "rich",
    "pooch",
    "sklearn",
    "numba",
    "SALib",
    "shap",
    "IPython",
}


def name_of(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def module_level(tree):
    """Statements that run at import: the module's own and those inside its if, try, with and class bodies."""
    todo = list(tree.body)
    while todo:
        node = todo.pop()
        yield node
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            todo += node.orelse
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for name in ("body", "orelse", "finalbody"):
                todo += getattr(node, name, [])
            todo += [statement for handler in getattr(node, "handlers", []) for statement in handler.body]


def imports(path):
    """Absolute dotted names that a file imports at module level."""
    for node in module_level(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def run(code, **env):
    """What a fresh interpreter prints, as JSON."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", **env}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_run_downwards(path):
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    assert own in ORDER, f"{own} has no place in the order of the house: give it one in {__file__}"
    for imported in imports(path):
        parts = imported.split(".")
        if parts[0] != "hybridtwin" or own == "__init__":
            continue
        assert len(parts) > 1, f"{path}: import the module it needs, not the whole package"
        other = parts[1]
        assert other in ORDER, f"{path} imports hybridtwin.{other}, which has no place in the order of the house"
        assert ORDER.index(other) <= ORDER.index(own), f"{path} imports {imported}, which stands below it"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_nothing_heavy_is_imported_at_module_level(path):
    names = set(imports(path))
    heavy = {name.split(".")[0] for name in names} & LAZY
    heavy |= {name for name in names if name.startswith(("scipy.stats", "scipy.optimize"))}  # JAX loads neither
    assert not heavy, f"{path} imports {heavy} at module level: do it inside the function that needs it"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_files_and_functions_are_short(path):
    text = path.read_text()
    assert text.count("\n") <= 600, f"{path} has more than 600 lines"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = node.end_lineno - node.lineno + 1
            assert length <= 80, f"{path}: {node.name} has {length} lines"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_file_runs_code_when_loaded_and_none_is_unfinished(path):
    text = path.read_text()
    tree = ast.parse(text)
    assert ast.get_docstring(tree), f"{path} says nothing of what it is for"
    words = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} | {
        name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for name in [node.names[0].name]
    }
    assert not words & {"pickle", "cloudpickle", "dill", "joblib"}, f"{path} may run what it loads"
    assert "allow_pickle=True" not in text
    assert not re.search(r"\b(TODO|FIXME|XXX)\b", text), f"{path} is unfinished"
    if "from jaxtyping import" in text:
        assert "from __future__ import annotations" not in text, f"{path}: jaxtyping needs real annotations"


def test_public_names_are_exact():
    found = run(
        "import json, types, hybridtwin as ht\n"
        "resolved = [n for n in ht.__all__ if getattr(ht, n, None) is not None]\n"
        "public = [n for n, v in vars(ht).items() if not n.startswith('_') and not isinstance(v, types.ModuleType)]\n"
        "print(json.dumps([ht.__all__, resolved, public, ht.__version__]))"
    )
    names, resolved, public, version = found
    assert names in (sorted(names), sorted(names, key=str.casefold)), "__all__ is sorted"
    assert len(set(names)) == len(names)
    assert resolved == names, f"in __all__ and not there: {set(names) - set(resolved)}"
    assert set(public) <= set(names), f"public and not in __all__: {set(public) - set(names)}"
    assert version == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def test_import_has_no_side_effects():
    found = run(
        "import json, sys, warnings\n"
        "import jax, numpyro, diffrax\n"
        "before, filters, x64 = set(sys.modules), list(warnings.filters), jax.config.jax_enable_x64\n"
        "import hybridtwin\n"
        "from jax._src import xla_bridge\n"
        "new = sorted({n.split('.')[0] for n in set(sys.modules) - before})\n"
        "same = warnings.filters == filters and jax.config.jax_enable_x64 == x64\n"
        "print(json.dumps([xla_bridge.backends_are_initialized(), new, same]))"
    )
    started, new, same = found
    assert not started, "importing hybridtwin starts a JAX backend"
    assert not set(new) & LAZY, f"importing hybridtwin loads {set(new) & LAZY}"
    assert same, "importing hybridtwin changes filters or the configuration of JAX"


def test_import_is_quick():
    """At most 1.3 times `import jax, numpyro, diffrax`; the least of several runs, since other work disturbs them."""
    clock = "import json, time; t = time.perf_counter(); import {}; print(json.dumps(time.perf_counter() - t))"
    best = {"jax, numpyro, diffrax": [], "hybridtwin": []}
    for turn in range(8):
        for names, times in best.items():
            times.append(run(clock.format(names)))
        base, own = (min(times) for times in best.values())
        if turn and own <= 1.3 * base:
            break
    assert own <= 1.3 * base, f"import hybridtwin takes {own:.2f} s, {own / base:.2f} times jax, numpyro and diffrax"


def test_the_code_of_the_readme_runs(tmp_path):
    """Every python block of the README in turn, in one namespace; `python no-run` blocks are for reading only."""
    text = (ROOT / "README.md").read_text()
    blocks = re.findall(r"^```python[ \t]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert blocks, "the README shows no code"
    script = tmp_path / "readme.py"
    script.write_text("\n\n".join(blocks))
    for path in PACKAGE.glob("datasets/virtual_adult.csv"):
        (tmp_path / "anna.csv").write_text(path.read_text())
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, cwd=tmp_path, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_what_is_shipped_is_small_and_ours():
    sizes = {
        path: path.stat().st_size
        for path in PACKAGE.rglob("*")
        if path.suffix not in (".py", ".pyc") and path.is_file()
    }
    assert sum(sizes.values()) < 200_000, f"the package carries {sum(sizes.values())} bytes of data"
    shared = {"theophylline.csv", "warfarin_pkpd.csv", "shanghai_t1dm.csv.gz", "d1namo_glucose.csv.gz"}
    assert not {path.name for path in sizes} & shared, "the shared recordings are not ours to ship"


def test_locks_name_no_index_and_no_place():
    for lock in ROOT.glob("requirements-py*.lock"):
        for line in lock.read_text().splitlines():
            assert re.fullmatch(r"[A-Za-z0-9._-]+(\[[a-z,]+\])?==\S+( ;.*)?", line), f"{lock.name}: {line}"
