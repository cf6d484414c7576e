"""Reference: the notebook of the documentation, cell by cell in one process, as Jupyter would run it.

Run: pytest tests/docs/test_notebook.py.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "docs" / "first_hour.ipynb"


def cells(kind: str) -> list[str]:
    """The notebook's cells of one kind."""
    return [
        "".join(cell["source"])
        for cell in json.loads(NOTEBOOK.read_text("utf-8"))["cells"]
        if cell["cell_type"] == kind
    ]


def test_the_notebook_is_stored_without_outputs_and_walks_the_whole_way():
    made = [cell for cell in json.loads(NOTEBOOK.read_text("utf-8"))["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in made)
    headings = [text.splitlines()[0] for text in cells("markdown") if text.startswith("## ")]
    assert headings == ["## 1. Data", "## 2. Experts", "## 3. The board", "## 4. Merge", "## 5. The matrix"]
    for text in cells("code"):
        compile(text, str(NOTEBOOK), "exec")


@pytest.mark.slow
def test_every_cell_runs_in_its_order(tmp_path):
    (tmp_path / "cells.json").write_text(json.dumps(cells("code")))
    code = (
        f"import json\nplace = {{}}\nfor cell in json.load(open({str(tmp_path / 'cells.json')!r})):\n exec(cell, place)"
    )
    given = {"RUNS": str(tmp_path / "runs"), "STEPS": "2", "MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT / "docs", capture_output=True, text=True, env={**os.environ, **given}
    )
    assert done.returncode == 0, done.stderr
    [matrix] = (tmp_path / "runs").glob("evaluate/evaluation/matrix.csv")
    rows = [line.partition(",")[0] for line in matrix.read_text().splitlines()]
    assert len(rows) == 5  # the head, the base, two experts, the merged agent
