"""The notebooks run from top to bottom in a fresh kernel, and what they carry stays small."""

import json
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


@pytest.mark.heavy
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path, tmp_path, monkeypatch):
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed: pip install hybridtwin[notebook]")
    nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed: pip install hybridtwin[notebook]")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed: pip install hybridtwin[notebook]")
    monkeypatch.setenv("PYTHONPATH", str(path.parents[1]))
    notebook = nbformat.read(path, 4)
    client = nbclient.NotebookClient(
        notebook, timeout=900, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    done = client.execute()  # a cell that raises is a CellExecutionError with its traceback
    code = [cell for cell in done.cells if cell.cell_type == "code"]
    assert code and all(cell.execution_count for cell in code if cell.source.strip())


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_small_and_without_pictures(path):
    assert path.stat().st_size < 100_000
    for cell in json.loads(path.read_text())["cells"]:
        for output in cell.get("outputs", []):
            assert not any(kind.startswith("image/") for kind in output.get("data", {})), (
                "strip pictures before a commit"
            )
            assert output["output_type"] != "error" and output.get("name") != "stderr"
