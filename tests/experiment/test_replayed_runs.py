"""Reference: the same run without replay, and uninterrupted. Run: pytest tests/experiment/test_replayed_runs.py."""

import csv
import json
import shutil
import signal

import pytest

from artifacts.adapter_files import read_manifest
from callbacks.resume_point import resumed_step
from lightning_modules.sft_lora import SFTLoRA
from tests.experiment.conftest import bars

WEIGHTS = "dsa/alpha/adapter/adapter_model.safetensors"


@pytest.fixture
def replay(based, bars_module, tmp_path):
    """The base's rows replayed in DSA; returns the machine and how to run one expert."""
    other = based.copy(tmp_path / "runs")
    data = bars(bars_module / "data/beta", names=["neutral"], val_fraction=0.2, test_fraction=0.25)
    return other.write(tmp_path / "files", "dsa", replay={"data": data, "share": 0.5})


def test_replayed_rows_reach_the_expert_and_an_interrupted_run_comes_to_the_same_one(replay, tmp_path, monkeypatch):
    plain = replay.copy(tmp_path / "plain")
    assert plain.run("dsa", "only=[alpha]", "replay=null") == 0
    whole = replay.copy(tmp_path / "whole")
    assert whole.run("dsa", "only=[alpha]") == 0
    mixed = (whole.runs / WEIGHTS).read_bytes()
    assert mixed != (plain.runs / WEIGHTS).read_bytes()
    assert json.loads((whole.runs / "dsa/alpha/config.resolved.json").read_text())["replay"]["share"] == 0.5
    hashes = [read_manifest(one.runs / "dsa/alpha/adapter")["data_sha256"] for one in (plain, whole)]
    assert hashes[0] != hashes[1]

    def step(self, batch, batch_idx):
        if self.trainer.global_step == 0:
            signal.raise_signal(signal.SIGTERM)
        return training_step(self, batch, batch_idx)

    training_step = SFTLoRA.training_step
    with monkeypatch.context() as patch:
        patch.setattr(SFTLoRA, "training_step", step)
        assert replay.run("dsa", "only=[alpha]") == 130
    assert resumed_step(replay.runs / "dsa/alpha/checkpoints/last.ckpt", 2) == 1
    assert replay.run("dsa", "only=[alpha]") == 0
    assert (replay.runs / WEIGHTS).read_bytes() == mixed


def test_a_finished_run_is_refused_where_what_is_replayed_is_another(replay, capsys):
    assert replay.run("dsa", "only=[alpha]") == 0
    capsys.readouterr()
    assert replay.run("dsa", "only=[alpha]", "replay.share=0.3") == 2
    assert "replay.share" in capsys.readouterr().err


def test_a_replayed_trace_that_is_too_long_is_told_before_anything_is_trained(
    replay, bars_module, tmp_path, monkeypatch, capsys
):
    root = tmp_path / "spoilt"
    shutil.copytree(bars_module / "data/beta", root)
    with open(root / "questions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    rows = [row | {"length": "very " * 2000 + row["length"]} for row in rows]
    with open(root / "questions.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    monkeypatch.setattr("experiment.fit._fit", lambda *_: pytest.fail("trained on it"))
    data = bars(root, names=["neutral"], val_fraction=0.2, test_fraction=0.25)
    long = replay.write(tmp_path / "long", "dsa", replay={"data": data, "share": 0.5})
    assert long.run("dsa", "only=[alpha]") == 1
    assert "over the model's context of 2048" in capsys.readouterr().err
    assert json.loads((long.runs / "dsa/status.json").read_text())["phase"] == "data"


def test_replay_is_for_modules_that_imitate_rows(replay, bars_module, capsys):
    data = {"data": bars(bars_module / "data/alpha", names=["neutral"])}
    gba = replay.write(replay.files.parent / "rl", "gba", replay=data)
    assert gba.run("gba") == 2
    error = capsys.readouterr().err
    assert "replay" in error
    assert "lightning_modules.rl_gba.GBA takes none" in error
    assert replay.run("dsa", "train=mixed") == 2
    assert "only into experts' steps, not with train: mixed" in capsys.readouterr().err
    assert replay.run("dsa", "replay.share=1.0") == 2
    assert "share must lie in (0, 1)" in capsys.readouterr().err


def test_a_specialty_s_test_questions_are_never_replayed(replay, bars_module, capsys):
    # alpha's own rows with the test fraction turned round: what is examined would be replayed
    leak = bars(bars_module / "data/alpha", names=["neutral"], val_fraction=0.0, test_fraction=0.0)
    other = replay.write(replay.files.parent / "leak", "dsa", replay={"data": leak, "share": 0.5})
    assert other.run("dsa", "only=[alpha]") == 1
    assert "what is examined must not be trained on" in capsys.readouterr().err
    alpha = bars(bars_module / "data/alpha")
    content = {"replay": {"data": leak, "share": 0.5}, "specialties": {"replay": alpha}}
    other = replay.write(replay.files.parent / "called_alike", "dsa", **content)
    assert other.run("dsa", "name=alike") == 1
    assert "what is examined must not be trained on" in capsys.readouterr().err


def test_the_dry_run_tells_how_many_rows_are_replayed(replay, capsys):
    assert replay.run("dsa", "only=[alpha]", "--dry-run") == 0
    assert "replayed: 1 of the 2 rows of every step are of made_bars.Bars" in capsys.readouterr().out
