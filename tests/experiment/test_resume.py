"""Reference: the uninterrupted run, byte for byte. Run: pytest tests/experiment/test_resume.py."""

import json
import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from callbacks.last_validation import LastValidation
from callbacks.resume_point import ResumePoint

TRAIN = Path(__file__).resolve().parents[2] / "train.py"
WEIGHTS = "adapter/adapter_model.safetensors"
FIT_ONLY = ("callbacks.merge=null", "callbacks.evaluate=null", "only=[alpha]", "callbacks.cards.init_args.every=1")


def point(every: int, stop_at: int | None = None):
    """A resume point that stops the run like Ctrl-C, after the step's other callbacks."""

    class Point(ResumePoint):
        def __init__(self, path, every_steps, every_minutes, val_every, stop_wanted):
            super().__init__(path, every, every_minutes, val_every, stop_wanted)

        def on_train_batch_end(self, trainer, *rest):
            super().on_train_batch_end(trainer, *rest)
            if trainer.global_step == stop_at:
                raise KeyboardInterrupt

    return Point


def curves(run: Path) -> dict[str, list[tuple[int, float]]]:
    """Every scalar of a run; of what the machine decides, the steps alone."""
    events = EventAccumulator(str(run)).Reload()
    return {
        tag: [(e.step, 0.0 if tag.startswith("work/") else e.value) for e in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


def cards(run: Path) -> dict[str, list[tuple[int, bytes]]]:
    """Every picture of a run."""
    events = EventAccumulator(str(run), size_guidance={"images": 0}).Reload()
    return {tag: [(e.step, e.encoded_image_string) for e in events.Images(tag)] for tag in events.Tags()["images"]}


@pytest.mark.parametrize(
    ("name", "steps", "overrides"),
    [
        ("dsa", 5, []),
        ("gba", 5, ["module.init_args.choice={class_path: lightning_modules.choices.learned.Learned}"]),
        ("gba", 8, ["module.init_args.updates_per_rollout=2"]),
    ],
    ids=["sft", "gba that learns to choose", "gba with two updates per rollout"],
)
def test_an_interrupted_fit_goes_on_to_the_same_bytes(lineage, tmp_path, monkeypatch, name, steps, overrides):
    settings = ["name=long", f"trainer.max_steps={steps}", *FIT_ONLY[name == "dsa" and 2 :], *overrides]
    whole, cut = lineage.copy(tmp_path / "whole"), lineage.copy(tmp_path / "cut")
    twice = steps == 8
    stop = 6 if twice else 3  # one batch after the checkpoint: what that batch left must be withdrawn
    monkeypatch.setattr("experiment.fit.ResumePoint", point(every=4 if twice else 2))
    assert whole.run(name, *settings) == 0
    monkeypatch.setattr("experiment.fit.ResumePoint", point(every=4 if twice else 2, stop_at=stop))
    assert cut.run(name, *settings) == 130
    run, other = whole.runs / "long/alpha", cut.runs / "long/alpha"
    assert json.loads((other / "status.json").read_text())["state"] == "interrupted"
    assert (other / "checkpoints/last.ckpt").exists()
    assert not (other / "adapter").exists()
    monkeypatch.setattr("experiment.fit.ResumePoint", point(every=4 if twice else 2))
    time.sleep(1.0)  # files of one second are read in the order of names that end in a number of no fixed width
    assert cut.run(name, *settings) == 0
    assert (run / WEIGHTS).read_bytes() == (other / WEIGHTS).read_bytes()
    kept, again = (torch.load(r / "checkpoints/last.ckpt", weights_only=True)["callbacks"] for r in (run, other))
    assert {**kept, "PhaseTimes": None} == {**again, "PhaseTimes": None}  # seconds differ, and cards were drawn again
    assert (run / "samples.jsonl").read_bytes() == (other / "samples.jsonl").read_bytes()
    first, second = curves(run), curves(other)
    assert {tag for tag in first if tag.startswith("work/time/")} >= {
        "work/time/forward_s",
        "work/time/backward_s",
        "work/time/optimizer_s",
    }
    assert first == second
    assert cards(run) == cards(other)
    for points in curves(other).values():
        assert [step for step, _ in points] == sorted({step for step, _ in points})


def test_the_last_metrics_do_not_depend_on_which_process_validated_before():
    last, shown = LastValidation(), {"train/loss": torch.tensor(2.0), "val/loss": torch.tensor(3.0)}
    for metrics in (shown, {"train/loss": shown["train/loss"]}):  # of one process, and of one that went on
        last.on_train_batch_end(SimpleNamespace(global_step=3, max_steps=3, callback_metrics=metrics), None)
        assert last.state_dict() == {"metrics": {"train/loss": 2.0}}


@pytest.mark.parametrize("name", ["dsa", "gba"])
def test_workers_that_read_pictures_ahead_change_no_byte(lineage, tmp_path, monkeypatch, name):
    settings = ["name=long", "trainer.max_steps=4", *FIT_ONLY[name == "dsa" and 2 :]]
    whole, cut = lineage.copy(tmp_path / "whole"), lineage.copy(tmp_path / "cut")
    assert whole.run(name, *settings) == 0
    monkeypatch.setattr("experiment.fit.ResumePoint", point(every=2, stop_at=3))
    assert cut.run(name, *settings, "data.num_workers=2") == 130
    monkeypatch.setattr("experiment.fit.ResumePoint", point(every=2))
    assert cut.run(name, *settings, "data.num_workers=2") == 0
    run, other = whole.runs / "long/alpha", cut.runs / "long/alpha"
    assert (run / WEIGHTS).read_bytes() == (other / WEIGHTS).read_bytes()
    assert curves(run) == curves(other)
    assert not multiprocessing.active_children()


@pytest.mark.slow  # stops inside of stages are tested beside it, and in every phase in test_interrupts.py
def test_a_run_stopped_between_stages_ends_in_the_same_matrix(lineage, tmp_path):
    cut = lineage.copy(tmp_path / "runs").without("gba/beta", "gba/merged", "gba/evaluation", "dsa/beta")
    assert cut.run("gba") == 0
    for name in ("gba/evaluation/matrix.csv", "gba/evaluation/predictions.jsonl", "gba/beta/" + WEIGHTS):
        assert (cut.runs / name).read_bytes() == (lineage.runs / name).read_bytes()


def test_changed_settings_are_refused_by_name(lineage, tmp_path, capsys):
    other = lineage.copy(tmp_path / "runs")
    assert other.run("dsa", "module.init_args.learning_rate=0.5", "seed=3") == 2
    error = capsys.readouterr().err
    assert "module.init_args.learning_rate" in error
    assert "seed" in error
    assert "overwrite=true" in error
    assert "lora_rank" not in error


def test_a_folder_of_a_version_with_fewer_settings_goes_on(lineage, tmp_path, capsys):
    other = lineage.copy(tmp_path / "runs")
    file = other.runs / "gba/experiment.json"
    settings = json.loads(file.read_text())
    del settings["feature_cache"], settings["module"]["init_args"]["entropy_bonus"]
    del settings["callbacks"]["merge"]["init_args"]["gate_n"]
    del settings["specialties"]["alpha"]["init_args"]["shuffle_options"]
    file.write_text(json.dumps(settings))
    assert other.run("gba") == 0
    settings["module"]["init_args"]["no_longer_there"] = 1  # a setting that was removed counts as changed
    file.write_text(json.dumps(settings))
    assert other.run("gba") == 2
    assert "module.init_args.no_longer_there" in capsys.readouterr().err


def test_overwrite_starts_afresh(lineage, tmp_path):
    other = lineage.copy(tmp_path / "runs")
    before = {s: (other.runs / "dsa" / s / WEIGHTS).read_bytes() for s in ("alpha", "beta")}
    assert other.run("dsa", "module.init_args.learning_rate=0.05", "overwrite=true", "only=[alpha]") == 0
    assert (other.runs / "dsa/alpha" / WEIGHTS).read_bytes() != before["alpha"]
    assert not (other.runs / "dsa/beta").exists()


def test_an_expert_whose_foundation_was_trained_anew_is_refused(lineage, tmp_path, capsys):
    other = lineage.copy(tmp_path / "runs").without("dsa/alpha/adapter")
    (other.runs / "dsa/beta/adapter").rename(other.runs / "dsa/alpha/adapter")
    manifest = json.loads((other.runs / "dsa/alpha/adapter/manifest.json").read_text())
    rows = json.loads((other.runs / "dsa/alpha/provenance.json").read_text())["data_sha256"]
    (other.runs / "dsa/alpha/adapter/manifest.json").write_text(json.dumps(manifest | {"data_sha256": rows}))
    assert other.run("gba", "only=[alpha]") == 1
    assert "grew from another adapter" in capsys.readouterr().err


def test_specialties_one_by_one_merge_when_the_last_is_in(lineage, tmp_path, capsys):
    other = lineage.copy(tmp_path / "runs").without("gba")
    assert other.run("gba", "only=[beta]") == 0
    assert "alpha still to come" in capsys.readouterr().out
    assert not (other.runs / "gba/merged").exists()
    assert other.run("gba", "only=[alpha]") == 0
    assert (other.runs / "gba/evaluation/matrix.csv").read_bytes() == (
        lineage.runs / "gba/evaluation/matrix.csv"
    ).read_bytes()


def test_a_run_whose_every_update_is_skipped_ends_and_leaves_nothing(lineage, tmp_path, monkeypatch, capsys):
    other = lineage.copy(tmp_path / "runs")
    monkeypatch.setattr("torch.nn.utils.clip_grad_norm_", lambda *_: __import__("torch").tensor(float("nan")))
    settings = ["name=bad", *FIT_ONLY, "module.init_args.max_bad_steps=1000"]
    assert other.run("gba", *settings) == 1
    assert "stopped at step 0 of 2" in capsys.readouterr().err
    assert not (other.runs / "bad/alpha/adapter").exists()


@pytest.mark.slow
def test_worker_processes_make_the_same_experts(lineage, bars_module, tmp_path):
    other = lineage.copy(tmp_path / "runs").without("gba", "dsa")
    command = [sys.executable, str(TRAIN), "--config", str(other.files / "gba.yaml"), f"runs_dir={other.runs}"]
    done = subprocess.run(
        [*command, "workers=2"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(bars_module)},
    )
    assert done.returncode == 0, done.stderr
    for name in ("dsa/alpha", "dsa/beta", "gba/alpha", "gba/beta"):
        assert (other.runs / name / WEIGHTS).read_bytes() == (lineage.runs / name / WEIGHTS).read_bytes()
    matrix = "gba/evaluation/matrix.csv"
    assert (other.runs / matrix).read_bytes() == (lineage.runs / matrix).read_bytes()
