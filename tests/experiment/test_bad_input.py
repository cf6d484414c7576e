"""Reference: the messages' own claims: each names the place, and nothing half-made is taken for finished.

Run: pytest tests/experiment/test_bad_input.py.
"""

import csv
import errno
import json
import os
import shutil
from functools import partial

import pytest
from PIL import Image

from artifacts.adapter_files import is_complete
from callbacks.resume_point import ResumePoint
from tests.experiment.conftest import bars

WEIGHTS = "adapter/adapter_model.safetensors"


def truncate_a_picture(root):
    path = root / "a03.png"
    path.write_bytes(path.read_bytes()[:60])


def put_text_for_a_picture(root):
    (root / "a03.png").write_text("not a picture")


def put_a_strip(root):
    Image.new("L", (1200, 4)).save(root / "a03.png")


def edit(root, line: int, column: str, value: str):
    with open(root / "questions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    rows[line][column] = value
    with open(root / "questions.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def leave_the_root_by_a_link(root):
    outside = root.parent / "outside.png"
    shutil.copy(root / "a03.png", outside)
    (root / "a03.png").unlink()
    (root / "a03.png").symlink_to(outside)


def leave_the_root_by_dots(root):
    shutil.copy(root / "a03.png", root.parent / "outside.png")
    edit(root, 3, "file", "../outside.png")


def keep_no_rows(root):
    (root / "questions.csv").write_text((root / "questions.csv").read_text().splitlines()[0] + "\n")


BAD = {
    "truncated picture": (truncate_a_picture, ["a03.png", "truncated"]),
    "not a picture": (put_text_for_a_picture, ["a03.png", "cannot be read as an image"]),
    "missing picture": (lambda root: (root / "a03.png").unlink(), ["a03.png", "no such image file"]),
    "answer outside the options": (partial(edit, line=3, column="answer", value="huge"), ["a03-q", "'huge'", "alpha"]),
    "two equal options": (partial(edit, line=3, column="A", value="long"), ["a03-q", "repeat"]),
    "question id twice": (partial(edit, line=3, column="question_id", value="a04-q"), ["a04-q", "twice", "alpha"]),
    "no patient": (partial(edit, line=3, column="patient_id", value=""), ["a03-q", "patient_id"]),
    "a strip of a picture": (put_a_strip, ["a03-q", "a03.png", "one side is 300 times the other"]),
    "a question beyond the context": (
        partial(edit, line=3, column="question", value="how long is the bar? " * 900),
        ["a03-q", "over the model's context of 2048"],
    ),
    "a trace with tags": (
        partial(edit, line=3, column="length", value="<answer>B</answer>"),
        ["a03-q", "reasoning.differential holds the tags", "no_think"],
    ),
    "empty specialty": (keep_no_rows, ["alpha", "split is empty"]),
    "no such folder": (shutil.rmtree, ["questions.csv"]),
    "a link out of the root": (leave_the_root_by_a_link, ["a03.png", "leads out of the root", "allowed_roots"]),
    "dots out of the root": (leave_the_root_by_dots, ["outside.png", "outside the data set's root"]),
}


@pytest.mark.parametrize("fault", BAD)
def test_bad_data_are_named_before_anything_is_trained(based, bars_module, tmp_path, monkeypatch, capsys, fault):
    def training(*_):
        raise AssertionError("trained on bad data")

    spoil, expected = BAD[fault]
    root = tmp_path / "data"
    shutil.copytree(bars_module / "data" / "alpha", root)
    spoil(root)
    other = based.copy(tmp_path / "runs").write(tmp_path / "files", "dsa", specialties={"alpha": bars(root)})
    monkeypatch.setattr("experiment.fit._fit", training)
    assert other.run("dsa") == 1
    error = capsys.readouterr().err
    assert all(part in error for part in expected), error
    assert "Traceback" not in error
    status = json.loads((other.runs / "dsa/status.json").read_text())
    assert (status["state"], status["phase"]) == ("failed", "data")
    assert not (other.runs / "dsa/alpha").exists()


def change_the_base(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"base_fingerprint": "0" * 64}))


def flip_a_byte(folder):
    weights = bytearray((folder / "adapter_model.safetensors").read_bytes())
    weights[-5] ^= 1
    (folder / "adapter_model.safetensors").write_bytes(weights)


def test_a_base_on_rows_of_guidelines_alone_is_refused(based, tmp_path, capsys):
    names = "specialties.mixed.init_args.names=[differential]"
    assert based.at(tmp_path / "runs").run("base", names) == 1
    assert "no training example carries a reasoning trace of ['neutral']" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("spoil", "expected", "told_in"),
    [(change_the_base, "fingerprint", "gba/alpha"), (flip_a_byte, "not what the manifest recorded", "dsa")],
    ids=["of another base", "damaged"],
)
def test_a_wrong_expert_beneath_is_refused(lineage, tmp_path, capsys, spoil, expected, told_in):
    other = lineage.copy(tmp_path / "runs").without("gba")
    spoil(other.runs / "dsa/alpha/adapter")
    assert other.run("gba", "only=[alpha]") == 1
    error = capsys.readouterr().err
    assert expected in error
    assert "dsa/alpha/adapter" in error
    assert not is_complete(other.runs / "gba/alpha/adapter")
    assert json.loads((other.runs / told_in / "status.json").read_text())["state"] == "failed"


def test_a_truncated_expert_is_refused_and_made_anew_once_it_is_deleted(lineage, tmp_path, capsys):
    other = lineage.copy(tmp_path / "runs").without("gba")
    weights = other.runs / "dsa/alpha" / WEIGHTS
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-100])
    assert other.run("dsa") == 1
    error = capsys.readouterr().err
    assert f"{weights}: is damaged" in error
    assert f"delete {weights.parent}" in error
    assert weights.read_bytes() == whole[:-100]
    shutil.rmtree(weights.parent)
    assert other.run("dsa") == 0
    assert weights.read_bytes() == whole


def test_a_damaged_checkpoint_is_named(based, tmp_path, capsys):
    other = based.copy(tmp_path / "runs")
    checkpoint = other.runs / "dsa/alpha/checkpoints/last.ckpt"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_bytes(b"PK half a checkpoint")
    assert other.run("dsa", "only=[alpha]") == 1
    assert "last.ckpt" in capsys.readouterr().err


@pytest.mark.parametrize(
    "victim",
    [
        "adapter_model.safetensors",
        "predictions.jsonl",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("last.ckpt", "cells/", "merged/", "config.resolved.json")
        ),
    ],
)
def test_a_full_disk_is_named_and_the_rerun_finishes(lineage, tmp_path, monkeypatch, capsys, victim):
    def full(descriptor):
        if victim in os.readlink(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.ENOSPC, "No space left on device")
        return fsync(descriptor)

    fsync = os.fsync
    other = lineage.copy(tmp_path / "runs").without("gba/beta", "gba/merged", "gba/evaluation")
    monkeypatch.setattr("experiment.fit.ResumePoint", lambda path, *_: ResumePoint(path, 1, 10.0))
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        assert other.run("gba") == 1
    error = capsys.readouterr().err
    assert "No space left on device" in error
    assert victim.strip("/") in error
    assert not list(other.runs.rglob("*.tmp"))
    assert not list(other.runs.rglob("*.part"))
    assert not (other.runs / "gba/evaluation/matrix.csv").exists()
    assert json.loads((other.runs / "gba/status.json").read_text())["state"] == "failed"
    assert other.run("gba") == 0
    assert json.loads((other.runs / "gba/status.json").read_text())["state"] == "finished"
    matrix = "gba/evaluation/matrix.csv"
    assert (other.runs / matrix).read_bytes() == (lineage.runs / matrix).read_bytes()
