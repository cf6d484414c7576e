"""Reference: the uninterrupted longer run, byte for byte where the schedule does not depend on the length.

Run: pytest tests/experiment/test_continuation.py.
"""

import json
from pathlib import Path

import pytest

from artifacts.adapter_files import adapter_sha256, read_manifest
from artifacts.base_files import is_base_complete
from experiment.continuation import checkpoint_step
from tests.experiment.conftest import contents
from tests.experiment.test_resume import WEIGHTS, curves

ALPHA = ("only=[alpha]", "callbacks.cards.init_args.every=1")


def load(path: Path):
    return json.loads(path.read_text())


CONSTANT = ("module.init_args.schedule=constant", "module.init_args.warmup=1")
"""The learning rate does not depend on how long the run is."""


@pytest.mark.parametrize("name", ["dsa", "gba"])
def test_a_finished_run_goes_on_to_the_bytes_of_the_longer_one(lineage, tmp_path, name):
    settings = [
        "name=long",
        *ALPHA,
        *CONSTANT,
        *(["callbacks.merge=null", "callbacks.evaluate=null"] if name == "gba" else []),
    ]
    whole, other = lineage.copy(tmp_path / "whole"), lineage.copy(tmp_path / "extended")
    assert whole.run(name, *settings, "trainer.max_steps=5") == 0
    assert other.run(name, *settings, "trainer.max_steps=3") == 0
    run, longer = other.runs / "long/alpha", whole.runs / "long/alpha"
    short = (run / WEIGHTS).read_bytes()
    assert short != (longer / WEIGHTS).read_bytes()
    assert other.run(name, *settings, "trainer.max_steps=5") == 0
    assert (run / WEIGHTS).read_bytes() == (longer / WEIGHTS).read_bytes()
    assert (run / "samples.jsonl").read_bytes() == (longer / "samples.jsonl").read_bytes()
    assert read_manifest(run / "adapter")["metrics"].keys() == read_manifest(longer / "adapter")["metrics"].keys()
    extra = {tag for tag in curves(run) if tag.startswith("val/")}  # a point where the shorter run ended
    extended = {t: [p for p in points if t not in extra or p[0] != 3] for t, points in curves(run).items()}
    assert extended == curves(longer)
    assert checkpoint_step(run / "checkpoints/last.ckpt") == 5


def test_a_continuation_is_recorded_where_the_result_and_the_settings_are(lineage, tmp_path):
    other = lineage.copy(tmp_path / "runs")
    assert other.run("dsa", *ALPHA, "trainer.max_steps=3") == 0
    assert other.run("dsa", *ALPHA, "trainer.max_steps=4") == 0
    steps = [(2, 3), (3, 4)]
    run = other.runs / "dsa/alpha"
    for held in (
        load(other.runs / "dsa/experiment.json")["continuations"],
        load(run / "provenance.json")["continuations"],
        read_manifest(run / "adapter")["extra"]["continuations"],
    ):
        assert [(one["from_step"], one["to_step"]) for one in held] == steps
        assert all(one["time"] and one["git"] == load(run / "provenance.json")["git"] for one in held)
        assert held[1]["schedule"] == "planned anew: from step 3 on, the learning rate of a run of 4 steps"
    assert read_manifest(run / "adapter")["extra"]["steps"] == 4
    assert load(other.runs / "dsa/experiment.json")["trainer"]["max_steps"] == 4
    assert load(run / "config.resolved.json")["trainer"]["max_steps"] == 4
    # The other specialty was not asked for: it stands as it was, and counts as unfinished until it has gone on too.
    assert read_manifest(other.runs / "dsa/beta/adapter")["extra"]["steps"] == 2
    before = contents(other.runs / "dsa/alpha")
    assert other.run("dsa", "only=[beta]", "callbacks.cards.init_args.every=1", "trainer.max_steps=4") == 0
    manifest = read_manifest(other.runs / "dsa/beta/adapter")["extra"]
    assert (manifest["steps"], [one["from_step"] for one in manifest["continuations"]]) == (4, [2])
    assert contents(other.runs / "dsa/alpha") == before
    assert len(load(other.runs / "dsa/experiment.json")["continuations"]) == 2


def test_the_schedule_is_that_of_the_new_length(lineage, tmp_path, monkeypatch):
    from lightning_modules import schedule

    asked = []

    def factor(step, shape, rise, max_steps, floor):
        asked.append((step, max_steps))
        return rate_factor(step, shape, rise, max_steps, floor)

    rate_factor = schedule.rate_factor
    other = lineage.copy(tmp_path / "runs")
    monkeypatch.setattr(schedule, "rate_factor", factor)
    assert other.run("dsa", *ALPHA, "trainer.max_steps=4") == 0
    assert {steps for _, steps in asked} == {4}
    assert {step for step, _ in asked if step > 0} == {2, 3, 4}  # nothing before the checkpoint is done again


def test_the_first_step_of_a_continuation_has_the_rate_of_the_longer_run(based, tmp_path):
    # linear from 0.002 to a floor of a tenth: after 2 of 2 steps 0.0002, after 2 of 4 steps 0.0011
    settings = ("only=[alpha]", "callbacks.cards=null", "module.init_args.schedule=linear", "module.init_args.warmup=0")
    whole, other = based.copy(tmp_path / "whole"), based.copy(tmp_path / "extended")
    assert whole.run("dsa", *settings, "trainer.max_steps=4") == 0
    assert other.run("dsa", *settings, "trainer.max_steps=2") == 0
    assert other.run("dsa", *settings, "trainer.max_steps=4") == 0
    longer, extended = (curves(folder.runs / "dsa/alpha")["train/learning_rate"] for folder in (whole, other))
    assert longer[2:] == extended[2:]
    assert longer[2][1] == pytest.approx(0.0011)


def test_an_interrupted_continuation_goes_on_and_is_recorded_once(lineage, tmp_path, monkeypatch):
    from lightning_modules.sft_lora import SFTLoRA

    def step(self, batch, batch_idx):
        if self.trainer.global_step == 4:
            raise KeyboardInterrupt
        return training_step(self, batch, batch_idx)

    training_step = SFTLoRA.training_step
    whole, other = lineage.copy(tmp_path / "whole"), lineage.copy(tmp_path / "runs")
    assert whole.run("dsa", "name=long", *ALPHA, *CONSTANT, "trainer.max_steps=6") == 0
    assert other.run("dsa", "name=long", *ALPHA, *CONSTANT, "trainer.max_steps=2") == 0
    before = (other.runs / "long/alpha" / WEIGHTS).read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(SFTLoRA, "training_step", step)
        assert other.run("dsa", "name=long", *ALPHA, *CONSTANT, "trainer.max_steps=6") == 130
    # The shorter run's expert stands, whole, until the longer one's takes its place.
    assert (other.runs / "long/alpha" / WEIGHTS).read_bytes() == before
    assert other.run("dsa", "name=long", *ALPHA, *CONSTANT, "trainer.max_steps=6") == 0
    assert (other.runs / "long/alpha" / WEIGHTS).read_bytes() == (whole.runs / "long/alpha" / WEIGHTS).read_bytes()
    held = read_manifest(other.runs / "long/alpha/adapter")["extra"]["continuations"]
    assert [(one["from_step"], one["to_step"]) for one in held] == [(2, 6)]


def test_a_base_goes_on_too(based, tmp_path):
    other = based.copy(tmp_path / "runs")
    before = (other.runs / "base/mixed/base/model.safetensors").read_bytes()
    assert other.run("base", "trainer.max_steps=42") == 0
    assert is_base_complete(other.runs / "base/mixed/base")
    assert (other.runs / "base/mixed/base/model.safetensors").read_bytes() != before
    assert load(other.runs / "base/mixed/base/manifest.json")["extra"]["continuations"][0]["from_step"] == 40


def test_fewer_steps_than_were_trained_are_refused_with_both(lineage, tmp_path, capsys):
    other = lineage.copy(tmp_path / "runs")
    before = contents(other.runs)
    assert other.run("dsa", "trainer.max_steps=1") == 2
    error = capsys.readouterr().err
    assert "dsa/experiment.json: trainer.max_steps: made with 2, asked for is 1; a run goes on with more steps" in error
    assert contents(other.runs) == before


def test_more_steps_and_another_setting_are_refused_for_the_setting(lineage, tmp_path, capsys):
    other = lineage.copy(tmp_path / "runs")
    assert other.run("dsa", "trainer.max_steps=3", "module.init_args.learning_rate=0.5") == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "dsa/experiment.json: module.init_args.learning_rate: made with 0.002, asked for is 0.5; choose" in line


@pytest.mark.parametrize("recorded", [True, False], ids=["removed", "of an earlier version"])
def test_a_run_without_its_last_checkpoint_does_not_go_on(lineage, tmp_path, capsys, recorded):
    other = lineage.copy(tmp_path / "runs").without("dsa/beta/checkpoints")
    if not recorded:
        file = other.runs / "dsa/beta/adapter/manifest.json"
        manifest = load(file)
        del manifest["extra"]["steps"]
        file.write_text(json.dumps(manifest))
    before = contents(other.runs)
    assert other.run("dsa", "trainer.max_steps=3") == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "dsa/beta/checkpoints/last.ckpt: trainer.max_steps: 3 steps are asked for, and the run ended after 2" in line
    assert contents(other.runs) == before
    assert other.run("dsa") == 0  # it stays finished


def test_a_run_killed_between_its_last_checkpoint_and_its_result_leaves_the_same_result(lineage, tmp_path, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    other = lineage.copy(tmp_path / "runs").without("dsa/alpha")
    with monkeypatch.context() as patch:
        patch.setattr("experiment.result.write_adapter", killed)
        assert other.run("dsa", "only=[alpha]") == 130
    assert not (other.runs / "dsa/alpha/adapter").exists()
    assert other.run("dsa", "only=[alpha]") == 0
    ours, theirs = other.runs / "dsa/alpha", lineage.runs / "dsa/alpha"
    assert (ours / WEIGHTS).read_bytes() == (theirs / WEIGHTS).read_bytes()
    assert read_manifest(ours / "adapter")["metrics"] == read_manifest(theirs / "adapter")["metrics"] != {}
    assert (ours / "samples.jsonl").read_bytes() == (theirs / "samples.jsonl").read_bytes()


def test_experts_on_a_foundation_that_went_on_are_refused(lineage, tmp_path, capsys):
    other = lineage.copy(tmp_path / "runs")
    foundation = other.runs / "dsa/alpha/adapter"
    before = adapter_sha256(foundation)
    assert other.run("dsa", "trainer.max_steps=3") == 0
    assert adapter_sha256(foundation) != before
    capsys.readouterr()
    # As its file says it, the foundation would be shorter than it is; as it is, the experts did not grow from it.
    assert other.run("gba") == 2
    assert "dsa/experiment.json: trainer.max_steps: made with 3, asked for is 2" in capsys.readouterr().err
    assert other.run("gba", "dsa:trainer.max_steps=3") == 2
    assert "gba/experiment.json: dsa:trainer.max_steps: made with 2, asked for is 3" in capsys.readouterr().err
    settings = load(other.runs / "gba/experiment.json")
    del settings["required"]  # a folder of a version that did not remember what is beneath
    (other.runs / "gba/experiment.json").write_text(json.dumps(settings))
    assert other.run("gba", "dsa:trainer.max_steps=3") == 1
    error = capsys.readouterr().err
    assert "gba/alpha/adapter: grew from another adapter than" in error
    assert "or longer?" in error


def test_a_begun_expert_on_a_foundation_that_went_on_is_refused(lineage, tmp_path, capsys):
    other = lineage.copy(tmp_path / "runs").without("gba/alpha/adapter")  # a checkpoint, and no result
    assert other.run("dsa", "trainer.max_steps=3") == 0
    settings = load(other.runs / "gba/experiment.json")
    settings["required"]["dsa"]["trainer"]["max_steps"] = 3
    (other.runs / "gba/experiment.json").write_text(json.dumps(settings))
    capsys.readouterr()
    assert other.run("gba", "only=[alpha]", "dsa:trainer.max_steps=3") == 1
    assert "gba/alpha/provenance.json: grew from another adapter" in capsys.readouterr().err
