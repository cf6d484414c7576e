"""Reference: the hashes that a run recorded of its rows. Run: pytest tests/experiment/test_rows.py."""

import csv
import json
import os
import shutil

import pytest
from PIL import Image

from artifacts.adapter_files import read_manifest
from datamodules.hashes import data_sha256
from tests.experiment.conftest import bars, contents


def edit(root):
    """Change the trace of every row."""
    with open(root / "questions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row["length"] += "0"
    with open(root / "questions.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def paint(root):
    """Change every picture, and none of the files' names."""
    for path in sorted(root.glob("*.png")):
        Image.new("RGB", (56, 56), (1, 2, len(path.name) + int(path.name[1:3]))).save(path)


@pytest.fixture
def made(lineage, bars_module, tmp_path):
    """One specialty whose rows may be edited, an expert of it finished; returns the machine and the rows' folder."""
    root = tmp_path / "rows"
    shutil.copytree(bars_module / "data/alpha", root)
    other = lineage.copy(tmp_path / "runs").without("gba", "dsa")
    other = other.write(tmp_path / "files", "dsa", specialties={"alpha": bars(root)})
    other = other.write(tmp_path / "both", "gba", specialties={"alpha": bars(root)})
    assert other.run("dsa") == 0
    return other, root


@pytest.mark.parametrize("change", [edit, paint])
def test_a_finished_run_whose_rows_changed_is_not_skipped(made, capsys, change):
    other, root = made
    recorded = read_manifest(other.runs / "dsa/alpha/adapter")["data_sha256"]
    change(root)
    before = contents(other.runs / "dsa/alpha")
    capsys.readouterr()
    assert other.run("dsa") == 2
    error = capsys.readouterr().err
    now = error.partition(" has ")[2].partition(" now")[0]
    assert f"dsa/alpha/adapter: data_sha256: trained on rows with sha256 {recorded}" in error
    assert len(now) == 64
    assert now != recorded
    assert "another `name`" in error
    assert "overwrite=true" in error
    assert contents(other.runs / "dsa/alpha") == before
    assert other.run("dsa", "overwrite=true") == 0
    assert read_manifest(other.runs / "dsa/alpha/adapter")["data_sha256"] == now


def test_what_requires_it_is_refused_as_well(made, capsys):
    other, root = made
    edit(root)
    assert other.run("gba") == 2
    assert "dsa/alpha/adapter: data_sha256: trained on rows" in capsys.readouterr().err
    assert not (other.runs / "gba/alpha").exists()


def test_a_begun_run_does_not_go_on_with_other_rows(made, capsys):
    other, root = made
    recorded = json.loads((other.runs / "dsa/alpha/provenance.json").read_text())["data_sha256"]
    shutil.rmtree(other.runs / "dsa/alpha/adapter")
    kept = (root / "questions.csv").read_text()
    edit(root)
    assert other.run("dsa") == 2
    error = capsys.readouterr().err
    assert f"dsa/alpha/provenance.json: data_sha256: trained on rows with sha256 {recorded}" in error
    (root / "questions.csv").write_text(kept)
    assert other.run("dsa") == 0


def test_rows_that_are_gone_are_said_not_to_be_compared(made, capsys):
    other, root = made
    content = (other.files / "dsa.yaml").read_text()
    shutil.move(root, root.with_name("elsewhere"))
    assert content.count(str(root)) == 1
    assert other.run("dsa") == 0
    assert "dsa/alpha: its rows cannot be compared" in capsys.readouterr().out


def test_files_are_read_once_for_the_same_rows_and_again_when_they_change(made, monkeypatch):
    from configs.load import load
    from datamodules import hashes
    from experiment.run import assemble

    def picture_bytes(source):
        read.append(source)
        return original(source)

    def data(name):
        return assemble(load(other.files / f"{name}.yaml", [f"runs_dir={other.runs}"])).data("alpha")

    (other, _), read, original = made, [], hashes.picture_bytes
    monkeypatch.setattr(hashes, "picture_bytes", picture_bytes)
    monkeypatch.setattr(hashes, "_known", {})
    shutil.rmtree(other.runs / ".checked", ignore_errors=True)  # a slow machine had the time to remember
    first = data_sha256(data("dsa"), "train")
    count = len(read)
    assert count == len(data("dsa").splits["train"])
    assert data_sha256(data("gba"), "train") == first == read_manifest(other.runs / "dsa/alpha/adapter")["data_sha256"]
    assert len(read) == count
    source = read[0]
    Image.new("RGB", (56, 56), (9, 9, 9)).save(source)
    os.utime(source, ns=(1, 1))
    assert data_sha256(data("dsa"), "train") != first
    assert len(read) == 2 * count
