"""The python blocks of docs/ run, page by page, in one namespace a page; `python no-run` blocks are for reading only."""

import os
import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
QUICK = {"records", "declare", "sensors"}  # the others personalize
PAGES = [
    pytest.param(path, id=path.stem, marks=() if path.stem in QUICK else pytest.mark.heavy)
    for path in sorted((ROOT / "docs").glob("*.md"))
    if re.search(r"^```python[ \t]*$", path.read_text(), re.MULTILINE)
]


@pytest.mark.parametrize("page", PAGES)
def test_the_code_of_a_page_runs(page, tmp_path, monkeypatch):
    blocks = re.findall(r"^```python[ \t]*\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    script = tmp_path / f"{page.stem}.py"
    script.write_text("\n\n".join(blocks))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    made = runpy.run_path(str(script))
    assert "ht" in made


def test_links_lead_somewhere():
    for page in [*ROOT.glob("docs/*.md"), ROOT / "README.md"]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} points to {target}"
        for name in re.findall(r"`((?:notebooks|benchmarks|docs)/[\w./]+\w)`", page.read_text()):
            assert os.path.exists(ROOT / name), f"{page.name} names {name}"
