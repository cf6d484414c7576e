"""Reference: the questions that the run is asked, and the uninterrupted run. Every setting of the section `fit`.

Run: pytest tests/experiment/test_fit.py.
"""

import json
import os
import signal

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from artifacts.checkpoints import Checkpoints
from callbacks.resume_point import ResumePoint, resumed_step
from configs.load import load
from configs.schema import Fit
from experiment import memory_table
from experiment.memory_of_run import MemoryOfRun
from experiment.memory_table import OVERHEAD
from experiment.run import assemble
from lightning_modules.sft_lora import SFTLoRA
from tests.settings import Register

FIT = Register(Fit)
WEIGHTS = "dsa/alpha/adapter/adapter_model.safetensors"
ONE = ("only=[alpha]", "callbacks.cards=null", "trainer.max_steps=6")


def curve(run, tag: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in EventAccumulator(str(run)).Reload().Scalars(tag)]


def steps(run, tag: str = "val/accuracy/alpha") -> list[int]:
    return [step for step, _ in curve(run, tag)]


@pytest.fixture
def runs(based, tmp_path):
    return based.copy(tmp_path / "runs")


@FIT.acts("val_every")
@pytest.mark.parametrize(
    ("every", "expected"), [("2", [0, 2, 4, 6]), ("4", [0, 4, 6]), ("0", [0, 6]), ("1h", [0, 6]), ("0.001s", range(7))]
)
def test_a_run_is_validated_at_its_start_its_end_and_between(runs, every, expected):
    assert runs.run("dsa", *ONE, f"fit.val_every={every}") == 0
    for tag in ("val/accuracy/alpha", "val/parsed/alpha", "val/loss"):
        assert steps(runs.runs / "dsa/alpha", tag) == [*expected], tag
    assert steps(runs.runs / "dsa/alpha", "train/loss") == [*range(6)]


def test_validation_changes_no_weight_and_starts_from_the_parent(runs, based, tmp_path):
    other = based.copy(tmp_path / "other")
    assert runs.run("dsa", *ONE, "fit.val_every=1") == 0
    assert other.run("dsa", *ONE, "fit.val_every=0") == 0
    assert (runs.runs / WEIGHTS).read_bytes() == (other.runs / WEIGHTS).read_bytes()
    first, second = (curve(folder.runs / "dsa/alpha", "val/loss") for folder in (runs, other))
    assert [first[0], first[-1]] == second
    manifest = json.loads((runs.runs / "dsa/alpha/adapter/manifest.json").read_text())
    accuracy = curve(runs.runs / "dsa/alpha", "val/accuracy/alpha")[-1][1]
    assert manifest["extra"]["checkpoint"] == {"kept": "last", "step": 6, "val_accuracy": pytest.approx(accuracy)}


@pytest.mark.parametrize(("given", "expected"), [((), True), (("trainer.deterministic=false",), False)])
def test_kernels_give_the_same_bits_each_time_unless_told_otherwise(runs, monkeypatch, given, expected):
    seen, step = [], SFTLoRA.training_step

    def watched(self, *batch):
        seen.append(torch.are_deterministic_algorithms_enabled())
        return step(self, *batch)

    monkeypatch.setattr(SFTLoRA, "training_step", watched)
    assert runs.run("dsa", *ONE[:2], "trainer.max_steps=1", *given) == 0
    assert seen == [expected]
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


@pytest.mark.parametrize("stop", [2, 3, 4])
def test_a_resumed_run_has_each_point_once(runs, based, tmp_path, monkeypatch, stop):
    def step(self, batch, batch_idx):
        if self.batches_done == stop - 1:
            signal.raise_signal(signal.SIGTERM)
        return training_step(self, batch, batch_idx)

    training_step, whole = SFTLoRA.training_step, based.copy(tmp_path / "whole")
    settings = (*ONE, "fit.val_every=2")
    assert whole.run("dsa", *settings) == 0
    with monkeypatch.context() as patch:
        patch.setattr(SFTLoRA, "training_step", step)
        assert runs.run("dsa", *settings) == 130
    assert resumed_step(runs.runs / "dsa/alpha/checkpoints/last.ckpt", 99) == stop
    assert runs.run("dsa", *settings) == 0
    assert (runs.runs / WEIGHTS).read_bytes() == (whole.runs / WEIGHTS).read_bytes()
    for tag in ("val/accuracy/alpha", "val/loss", "train/loss", "train/learning_rate", "train/grad_norm"):
        assert curve(runs.runs / "dsa/alpha", tag) == curve(whole.runs / "dsa/alpha", tag), tag


@FIT.acts("val_max_new_tokens")
def test_answers_are_cut_at_their_limit(runs):
    assert runs.run("dsa", *ONE, "fit.val_max_new_tokens=1") == 0
    assert {value for _, value in curve(runs.runs / "dsa/alpha", "val/parsed/alpha")} == {0.0}


def saved(monkeypatch) -> list[int]:
    """The steps whose checkpoints are written."""
    found, save = [], ResumePoint.save
    monkeypatch.setattr(ResumePoint, "save", lambda self, trainer: found.append(self.step) or save(self, trainer))
    return found


@FIT.acts("checkpoint_every_steps")
def test_checkpoints_come_every_so_many_steps(runs, monkeypatch):
    found = saved(monkeypatch)
    assert runs.run("dsa", *ONE, "fit.checkpoint_every_steps=2") == 0
    assert found == [2, 4, 6]


@FIT.acts("checkpoint_every_minutes")
def test_checkpoints_come_by_the_clock_too(runs, monkeypatch):
    found = saved(monkeypatch)
    assert runs.run("dsa", *ONE, "fit.checkpoint_every_minutes=1e-9") == 0
    assert found == [1, 2, 3, 4, 5, 6]


def scripted(monkeypatch, accuracies) -> None:
    """Validations after which the run believes these accuracies, the one before the first step included."""
    from lightning_modules.validation import Validation

    left, results = iter(accuracies), Validation.results
    monkeypatch.setattr(Validation, "results", lambda self: results(self) | {"val/accuracy/alpha": next(left)})


@FIT.acts("keep")
def test_the_weights_of_the_best_validation_become_the_result(runs, based, tmp_path, monkeypatch):
    short = based.copy(tmp_path / "short")
    settings = ("fit.val_every=2", "module.init_args.schedule=constant", "module.init_args.warmup=0")
    assert short.run("dsa", *ONE[:2], "trainer.max_steps=4", *settings) == 0
    scripted(monkeypatch, [0.0, 0.25, 0.75, 0.5])
    assert runs.run("dsa", *ONE, *settings, "fit.keep=best") == 0
    assert (runs.runs / WEIGHTS).read_bytes() == (short.runs / WEIGHTS).read_bytes()
    manifest = json.loads((runs.runs / "dsa/alpha/adapter/manifest.json").read_text())
    assert manifest["extra"]["checkpoint"] == {"kept": "best", "step": 4, "val_accuracy": 0.75}
    kept = {path.stem for path in (runs.runs / "dsa/alpha/checkpoints").glob("*.ckpt")}
    assert kept == {"last", "best-4"}  # what a longer run goes on from


def test_the_best_weights_move_with_their_run(runs, monkeypatch, tmp_path):
    def step(self, batch, batch_idx):
        if self.batches_done == 2:
            signal.raise_signal(signal.SIGTERM)
        return training_step(self, batch, batch_idx)

    training_step, settings = SFTLoRA.training_step, (*ONE, "fit.val_every=2", "fit.keep=best")
    with monkeypatch.context() as patch:
        patch.setattr(SFTLoRA, "training_step", step)
        scripted(patch, [0.0, 0.75])
        assert runs.run("dsa", *settings) == 130
    moved = runs.at(runs.runs.rename(tmp_path / "moved"))
    scripted(monkeypatch, [0.5, 0.4])
    assert moved.run("dsa", *settings) == 0
    manifest = json.loads((moved.runs / "dsa/alpha/adapter/manifest.json").read_text())
    assert manifest["extra"]["checkpoint"] == {"kept": "best", "step": 2, "val_accuracy": 0.75}


@FIT.acts("patience")
def test_a_run_that_gets_no_better_ends(runs, monkeypatch):
    scripted(monkeypatch, [0.0, 0.5, 0.4, 0.4, 0.9, 0.9, 0.9])
    assert runs.run("dsa", *ONE, "fit.val_every=1", "fit.patience=2", "fit.keep=best") == 0
    assert steps(runs.runs / "dsa/alpha", "train/loss") == [0, 1, 2]
    manifest = json.loads((runs.runs / "dsa/alpha/adapter/manifest.json").read_text())
    assert manifest["extra"]["checkpoint"]["step"] == 1


def test_the_best_of_no_validation_is_refused(runs, capsys):
    assert runs.run("dsa", *ONE, "fit.keep=best", "data.val_fraction=0") == 1
    assert "need validation questions" in capsys.readouterr().err


def test_the_best_of_all_validation_questions_is_no_validation_of_none(runs):
    settings = ("only=[alpha]", "callbacks.cards=null", "trainer.max_steps=1", "data.val_questions=0")  # 0 asks all
    assert runs.run("dsa", *settings, "fit.keep=best") == 0
    assert json.loads((runs.runs / "dsa/alpha/adapter/manifest.json").read_text())["extra"]["checkpoint"]["step"] == 1


def test_without_validation_questions_a_run_still_stops_and_leaves_checkpoints(runs, monkeypatch):
    def step(self, batch, batch_idx):
        if self.batches_done == 1:
            signal.raise_signal(signal.SIGTERM)
        return training_step(self, batch, batch_idx)

    training_step = SFTLoRA.training_step
    monkeypatch.setattr(SFTLoRA, "training_step", step)
    assert runs.run("dsa", *ONE, "fit.val_every=1", "data.val_fraction=0") == 130
    assert resumed_step(runs.runs / "dsa/alpha/checkpoints/last.ckpt", 99) == 2


@FIT.acts("memory")
def test_a_run_that_does_not_fit_takes_less(runs, monkeypatch):
    # what is chosen, and that it changes nothing else: test_memory_choice.py
    asked = MemoryOfRun(assemble(load(str(runs.files / "dsa.yaml"), [f"runs_dir={runs.runs}"])), "alpha")
    room = asked.need(next(iter(asked.remedies()))) + OVERHEAD
    monkeypatch.setattr(memory_table, "own_device", lambda experiment: ("a card", room))
    assert runs.run("dsa", *ONE, "trainer.max_steps=1", "fit.memory=auto") == 0
    assert json.loads((runs.runs / "dsa/alpha/memory.json").read_text()) == {"checkpoint_layers": True}


def test_every_setting_has_a_test_that_needs_it():
    FIT.check()


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("val_every=-1", "at least 0"),
        ("val_every=soon", "10m"),
        ("val_every=0m", "10m"),
        ("keep=first", "'last', 'best'"),
        ("patience=-1", "at least 0"),
        ("checkpoint_every_steps=0", "at least 1"),
        ("checkpoint_every_minutes=0", "above 0"),
        ("val_max_new_tokens=0", "at least 1"),
        ("evry=3", "fit.evry"),
    ],
)
def test_wrong_settings_are_named(runs, capsys, setting, told):
    assert runs.run("dsa", f"fit.{setting}") == 2
    error = capsys.readouterr().err
    assert f"fit.{setting.partition('=')[0]}" in error
    assert told in error


def test_a_folder_from_before_the_section_goes_on(runs):
    assert runs.run("dsa", *ONE) == 0
    file = runs.runs / "dsa/experiment.json"
    settings = json.loads(file.read_text())
    del settings["fit"]
    file.write_text(json.dumps(settings))
    assert runs.run("dsa", *ONE) == 0


def test_sft_that_is_not_finite_stops_and_leaves_good_weights(runs, monkeypatch, capsys):
    # The third step on: what stands is the checkpoint of the second, and the same command meets the same rows again.
    def step(self, batch, batch_idx):
        if self.batches_done >= 2:
            parameter = next(iter(self.trained.values()))
            parameter.register_hook(lambda gradient: gradient * float("nan"))
        return training_step(self, batch, batch_idx)

    training_step = SFTLoRA.training_step
    with monkeypatch.context() as patch:
        patch.setattr(SFTLoRA, "training_step", step)
        for _ in range(2):
            assert runs.run("dsa", *ONE, "fit.checkpoint_every_steps=1") == 1
            assert "3 steps in a row that are not finite" in capsys.readouterr().err
    run = runs.runs / "dsa/alpha"
    state = Checkpoints().load_checkpoint(run / "checkpoints/last.ckpt")
    assert state["batches_done"] == 2
    assert all(bool(torch.isfinite(tensor).all()) for tensor in state["state_dict"].values())
    records = [json.loads(line) for line in (run / "bad_steps.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [2, 3, 4]
    assert all(row.startswith("a") for record in records for row in record["rows"])
    assert not (run / "adapter").exists()
    assert json.loads((run / "status.json").read_text())["state"] == "failed"


def test_a_worker_that_a_signal_killed_is_named(runs, monkeypatch, capsys):
    from experiment import side_by_side

    class Dead:
        def __init__(self, command, **_):
            self.share = next(part for part in command if ":only=" in part)
            for name in json.loads(self.share.partition("=")[2]):
                (runs.runs / "dsa" / name).mkdir(parents=True)
                (runs.runs / "dsa" / name / "status.json").write_text('{"state": "running"}')

        def poll(self):
            return -9 if "alpha" in self.share else 0

    monkeypatch.setattr(side_by_side.subprocess, "Popen", Dead)
    assert runs.run("dsa", "workers=2") == 1
    assert "[alpha]: killed by SIGKILL" in capsys.readouterr().err
    status = json.loads((runs.runs / "dsa/alpha/status.json").read_text())
    assert (status["state"], "SIGKILL" in status["reason"]) == ("failed", True)
    assert json.loads((runs.runs / "dsa/beta/status.json").read_text())["state"] == "running"


def test_a_lineage_on_unequal_numbers_of_devices_is_refused(runs, capsys):
    assert runs.run("gba", "trainer.devices=2", "dsa:trainer.devices=3") == 2
    error = capsys.readouterr().err
    assert "trainer.devices" in error
    assert "dsa is on 3" in error


@pytest.mark.parametrize(
    ("overrides", "told"),
    [(["trainer.devices=2", "workers=2"], "workers"), (["trainer.devices=2", "fit.val_every=10m"], "fit.val_every")],
)
def test_what_several_devices_cannot_do_is_refused(runs, capsys, overrides, told):
    assert runs.run("dsa", *overrides) == 2
    assert told in capsys.readouterr().err
