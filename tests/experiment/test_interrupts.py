"""Reference: the uninterrupted lineage. Ctrl-C at every phase, then the same command once more.

Run: pytest tests/experiment/test_interrupts.py.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from callbacks.resume_point import ResumePoint

TRAIN = Path(__file__).resolve().parents[2] / "train.py"
MATRIX = "gba/evaluation/matrix.csv"


def stopping(function, at_call: int = 1):
    """The function, but for a KeyboardInterrupt at one of its calls."""
    calls = []

    def stopped(*args, **kwargs):
        calls.append(1)
        if len(calls) == at_call:
            raise KeyboardInterrupt
        return function(*args, **kwargs)

    return stopped


def status(folder: Path) -> dict:
    return json.loads((folder / "status.json").read_text())


def test_ctrl_c_in_every_phase_and_the_same_matrix_in_the_end(lineage, tmp_path, monkeypatch, capsys):
    from callbacks import evaluate_experts, merge_experts
    from experiment import run

    other = lineage.copy(tmp_path / "runs").without("gba/beta", "gba/merged", "gba/evaluation")
    phases = [
        (run, "quick_check", 1, "data"),
        (run, "_fit", 1, "training"),
        (ResumePoint, "on_train_batch_end", 2, "training"),
        (merge_experts, "merge_adapters", 2, "training"),
        (evaluate_experts, "score", 4, "EvaluateExperts"),
        (evaluate_experts, "matrix", 1, "EvaluateExperts"),
        (evaluate_experts, "write_text", 2, "EvaluateExperts"),
    ]
    for owner, name, call, phase in phases:
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, stopping(getattr(owner, name), call))
            assert other.run("gba") == 130, (phase, name)
        assert "the same command goes on" in capsys.readouterr().err
        assert (status(other.runs / "gba")["state"], status(other.runs / "gba")["phase"]) == ("interrupted", phase)
        assert not (other.runs / MATRIX).exists()
    assert other.run("gba") == 0
    assert status(other.runs / "gba")["state"] == status(other.runs / "gba/beta")["state"] == "finished"
    for name in (MATRIX, "gba/evaluation/predictions.jsonl", "gba/merged/ties/adapter/adapter_model.safetensors"):
        assert (other.runs / name).read_bytes() == (lineage.runs / name).read_bytes()


def start(machine, bars_module, *overrides: str) -> subprocess.Popen:
    """A real process, trained long enough to be interrupted."""
    command = [sys.executable, str(TRAIN), "--config", str(machine.files / "dsa.yaml"), f"runs_dir={machine.runs}"]
    return subprocess.Popen(
        [*command, "trainer.max_steps=4000", "callbacks.cards=null", *overrides],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(bars_module)},
    )


def wait_for(paths: list[Path], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not all(path.exists() for path in paths):
        assert time.monotonic() < end, f"{paths} did not appear"
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_signal_stops_a_process_and_its_workers_in_order(based, bars_module, tmp_path, number, workers):
    other = based.copy(tmp_path / "runs")
    runs = [other.runs / "dsa" / name for name in ("alpha", "beta")][:workers]
    process = start(other, bars_module, f"workers={workers}")
    wait_for([run / "checkpoints/last.ckpt" for run in runs])
    process.send_signal(number)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    assert "the same command goes on" in error
    for run in runs:
        assert status(run)["state"] == "interrupted"
        assert (run / "checkpoints/last.ckpt").exists()
        assert not (run / "adapter").exists()
