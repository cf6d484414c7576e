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

from artifacts.folders import write_failure
from artifacts.interrupts import SIGNALS, deferred, stop_alike
from callbacks.resume_point import ResumePoint, resumed_step

TRAIN = Path(__file__).resolve().parents[2] / "train.py"
MATRIX = "gba/evaluation/matrix.csv"


@pytest.fixture(autouse=True)
def signals_as_in_a_terminal():
    """A test run in a shell's background is started deaf to Ctrl-C and hang-ups, which is not what is tested."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


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
    from answering import examination
    from callbacks import evaluate_experts, merge_experts
    from experiment import fit, run

    other = lineage.copy(tmp_path / "runs").without("gba/beta", "gba/merged", "gba/evaluation")
    phases = [
        (run, "quick_checks", 1, "data"),
        (fit, "_fit", 1, "training"),
        (ResumePoint, "on_train_batch_end", 2, "training"),
        (merge_experts, "merge_adapters", 2, "MergeExperts"),
        (examination, "score", 4, "EvaluateExperts"),
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


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_a_signal_waits_for_the_end_of_the_step_and_no_step_is_lost(lineage, tmp_path, monkeypatch, capsys, number):
    # The signal comes inside the first of two steps; the checkpoint is of this step although one is due only every 20.
    from lightning_modules.sft_lora import SFTLoRA

    def step(self, batch, batch_idx):
        if self.trainer.global_step == 0:
            signal.raise_signal(number)
        return training_step(self, batch, batch_idx)

    training_step = SFTLoRA.training_step
    other = lineage.copy(tmp_path / "runs").without("dsa/alpha", "gba")
    with monkeypatch.context() as patch:
        patch.setattr(SFTLoRA, "training_step", step)
        assert other.run("dsa") == 130
    assert "stopping at the end of this step" in capsys.readouterr().out
    assert status(other.runs / "dsa/alpha")["state"] == "interrupted"
    assert resumed_step(other.runs / "dsa/alpha/checkpoints/last.ckpt", 2) == 1
    assert other.run("dsa") == 0
    weights = "dsa/alpha/adapter/adapter_model.safetensors"
    assert (other.runs / weights).read_bytes() == (lineage.runs / weights).read_bytes()


def test_a_part_that_was_interrupted_and_made_good_says_nothing_of_it(lineage, tmp_path):
    # After the result was written, before the status was; the other specialty is still to come.
    other = lineage.copy(tmp_path / "runs").without("dsa/beta", "gba")
    for folder in ("dsa", "dsa/alpha"):
        write_failure(other.runs / folder, KeyboardInterrupt(), phase="training")
    assert other.run("dsa", "only=[alpha]") == 0
    assert status(other.runs / "dsa/alpha")["state"] == "finished"
    assert not (other.runs / "dsa/status.json").exists()


def test_a_second_signal_strikes_at_once_and_handlers_come_back():
    before = signal.getsignal(signal.SIGINT)
    done = []

    def block():
        with deferred() as waiting:
            signal.raise_signal(signal.SIGINT)
            done.append(waiting())
            signal.raise_signal(signal.SIGINT)
            done.append("went on after the second signal")

    with pytest.raises(KeyboardInterrupt):
        block()
    assert done == [True]
    assert signal.getsignal(signal.SIGINT) is before


def test_a_signal_that_nobody_asked_about_is_raised_at_the_end():
    done = []

    def block():
        with deferred():
            signal.raise_signal(signal.SIGTERM)
            done.append("the block")

    with pytest.raises(KeyboardInterrupt):
        block()
    assert done == ["the block"]


def test_a_process_started_deaf_stays_deaf():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    stop_alike()
    with deferred() as waiting:
        signal.raise_signal(signal.SIGHUP)
        assert not waiting()
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_a_signal_in_a_finaliser_is_not_swallowed(capsys):
    class Collected:
        def __del__(self):
            signal.raise_signal(signal.SIGTERM)
            done.append("collected")

    def block():
        Collected()
        done.append("went on")
        time.sleep(20)

    done = []
    stop_alike()
    with pytest.raises(KeyboardInterrupt):
        block()
    assert done == ["collected", "went on"]
    assert capsys.readouterr().err == ""


def start(machine, bars_module, *overrides: str) -> subprocess.Popen:
    """A real process, trained long enough to be interrupted."""
    command = [sys.executable, str(TRAIN), "--config", str(machine.files / "dsa.yaml"), f"runs_dir={machine.runs}"]
    return subprocess.Popen(
        [*command, "trainer.max_steps=4000", "callbacks.cards=null", *overrides],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background shell would have it ignored
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
