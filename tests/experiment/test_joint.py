"""Reference: the uninterrupted run, byte for byte; hashes of what the runs left; rates and questions by hand.

Run: pytest tests/experiment/test_joint.py.
"""

import csv
import json

import pytest
import torch
import yaml

from artifacts.adapter_files import adapter_sha256
from configs.load import load
from datamodules.batch import SPECIALTY
from experiment.command import rejections
from experiment.run import assemble
from lightning_modules.sft_lora import SFTLoRA
from tests.experiment.test_resume import WEIGHTS, curves, point

LIGHT = ("callbacks.evaluate=null", "callbacks.cards=null")


@pytest.fixture(scope="module")
def joint(based, tmp_path_factory):
    """RL over all specialties on top of SFT over all: read it, do not change it."""
    made = based.copy(tmp_path_factory.mktemp("joint") / "runs")
    assert made.run("joint_rl") == 0
    return made


def test_one_agent_stands_on_the_other_and_both_are_in_the_matrix(joint):
    manifests = [
        json.loads((joint.runs / name / "agent/adapter/manifest.json").read_text()) for name in ("joint", "joint_rl")
    ]
    assert manifests[0]["parent"] is None
    assert manifests[1]["parent"] == {
        "sha256": adapter_sha256(joint.runs / "joint/agent/adapter"),
        "specialty": "agent",
    }
    assert all("made_from" not in manifest["extra"] for manifest in manifests)
    assert [path.name for path in sorted((joint.runs / "joint_rl").iterdir()) if path.is_dir()] == [
        "agent",
        "evaluation",
        "layout",
    ]
    with open(joint.runs / "joint_rl/evaluation/matrix.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["model"] for row in rows] == ["base", "joint/agent", "joint_rl/agent"]
    assert {"alpha/accuracy", "beta/accuracy"} <= set(rows[0])


def test_an_agent_s_parent_is_found_where_it_is_examined_by_its_folder(joint, tmp_path):
    made = joint.copy(tmp_path / "runs")
    overrides = ["requires=[base.yaml]", f"adapters=[{made.runs / 'joint_rl/agent'}]", "name=asked", "train=each"]
    context = assemble(load(str(made.files / "dsa.yaml"), [f"runs_dir={made.runs}", *overrides]))
    assert [path.parent.parent.name for path in context.examined["joint_rl/agent"]] == ["joint", "joint_rl"]


@pytest.mark.parametrize("name", [pytest.param("joint", marks=pytest.mark.slow), "joint_rl"])
def test_an_interrupted_joint_run_goes_on_to_the_same_bytes(joint, tmp_path, monkeypatch, name):
    settings = ["name=long", "trainer.max_steps=4", "fit.val_every=2", *LIGHT]
    whole, cut = joint.copy(tmp_path / "whole"), joint.copy(tmp_path / "cut")
    monkeypatch.setattr("experiment.fit.ResumePoint", point(every=2))
    assert whole.run(name, *settings) == 0
    monkeypatch.setattr("experiment.fit.ResumePoint", point(every=2, stop_at=3))
    assert cut.run(name, *settings) == 130
    monkeypatch.setattr("experiment.fit.ResumePoint", point(every=2))
    assert cut.run(name, *settings) == 0
    run, other = whole.runs / "long/agent", cut.runs / "long/agent"
    assert (run / WEIGHTS).read_bytes() == (other / WEIGHTS).read_bytes()
    assert curves(run) == curves(other)


def watched(monkeypatch) -> list[tuple[list[str], float]]:
    """Specialties of the rows of every step of SFT, and its learning rate."""
    seen, step = [], SFTLoRA.training_step

    def training_step(stage, batch, batch_idx):
        rate = stage.optimizers().param_groups[0]["lr"]
        seen.append(([example.tags[SPECIALTY] for example in batch.examples], rate))
        return step(stage, batch, batch_idx)

    monkeypatch.setattr(SFTLoRA, "training_step", training_step)
    return seen


def test_mixed_takes_as_much_of_each_and_sequential_one_after_the_other_with_a_schedule_each(
    based, tmp_path, monkeypatch
):
    made = based.copy(tmp_path / "runs")
    seen = watched(monkeypatch)
    shape = ["trainer.max_steps=6", "module.init_args.warmup=1", "module.init_args.schedule=linear"]
    shape += ["module.init_args.floor=0", "module.init_args.learning_rate=1.0", "module.init_args.max_grad_norm=1e-9"]
    assert made.run("joint", *shape, *LIGHT) == 0
    assert [sorted(specialties) for specialties, _ in seen] == [["alpha", "beta"]] * 6
    assert [rate for _, rate in seen] == pytest.approx([1, 1, 0.8, 0.6, 0.4, 0.2])
    seen.clear()
    assert made.run("joint", "name=sequence", "train=sequential", *shape, *LIGHT) == 0
    assert [specialties for specialties, _ in seen] == [["alpha"] * 2] * 3 + [["beta"] * 2] * 3
    assert [rate for _, rate in seen] == pytest.approx([1, 1, 0.5] * 2)
    weights = [
        torch.load(made.runs / n / "agent/checkpoints/last.ckpt", weights_only=True) for n in ("joint", "sequence")
    ]
    assert any(not torch.equal(v, weights[1]["state_dict"][k]) for k, v in weights[0]["state_dict"].items())


def test_a_longer_sequence_is_refused_and_a_longer_mixture_goes_on(joint, tmp_path, capsys):
    made = joint.copy(tmp_path / "runs")
    assert made.run("joint", "trainer.max_steps=3", *LIGHT) == 0
    assert made.run("joint", "name=sequence", "train=sequential", *LIGHT) == 0
    capsys.readouterr()
    assert made.run("joint", "name=sequence", "train=sequential", "trainer.max_steps=4", *LIGHT) == 2
    assert "a longer run would have changed over to the next one later" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("config", "overrides", "message"),
    [
        ("joint", ["only=[alpha]"], "one run is over all specialties"),
        ("joint", ["train=sequential", "trainer.max_steps=1"], "1 steps are too few for 2 specialties"),
        ("integrate", ["train=mixed"], "makes one agent of all specialties anyway; leave train at `each`"),
        ("base", ["train=mixed"], "makes a base; leave train at `each`"),
        ("gba", ["train=mixed", "callbacks.merge=null"], "dsa trains an expert of each specialty"),
        ("joint_rl", ["train=each"], "joint makes one agent of all specialties, and an expert of one"),
        ("joint", ["train=sequential", "fit.patience=1"], "before each specialty had its turn"),
        ("joint_rl", ["train=sequential", "module.init_args.minibatches=2"], "a step is one update"),
        ("joint_rl", ["train=sequential", "module.init_args.updates_per_rollout=2"], "a step is one update"),
        ("joint_rl", ["module.init_args.dynamic_share=0.5"], "chooses questions of one specialty"),
        ("joint_rl", ["module.init_args.pass_rate=[0.1, 0.9]"], "chooses questions of one specialty"),
        ("joint_rl", ["module.init_args.curriculum=true"], "chooses questions of one specialty"),
        (
            "joint_rl",
            ["callbacks.merge={class_path: callbacks.merge_experts.MergeExperts, init_args: {presets: [mean]}}"],
            "one agent leaves nothing to merge",
        ),
        ("joint", ["data.batch_size=5"], "as much of each of 2 specialties; give a multiple of 2"),
        ("joint_rl", ["module.init_args.questions_per_step=3"], "as much of each of 2 specialties"),
        ("joint", ["train=both"], "both"),
    ],
)
def test_what_cannot_be_joint_is_refused_before_anything_runs(based, capsys, config, overrides, message):
    before = sorted(based.runs.iterdir())
    assert based.run(config, "name=refused", *overrides) == 2
    assert message in capsys.readouterr().err
    assert sorted(based.runs.iterdir()) == before


def test_an_agent_whose_parent_was_trained_anew_is_refused(joint, tmp_path, capsys):
    made = joint.copy(tmp_path / "runs")
    record = made.runs / "joint_rl/agent/adapter/manifest.json"
    manifest = json.loads(record.read_text())
    manifest["parent"]["sha256"] = "0" * 64
    record.write_text(json.dumps(manifest))
    assert made.run("joint_rl", *LIGHT) == 1
    assert "grew from another adapter than" in capsys.readouterr().err


@pytest.mark.slow
def test_a_dry_run_takes_a_step_on_what_is_there_and_on_what_is_not(based, joint, capsys):
    for made, told in ((joint, "1 steps in one run over"), (based, "with a fresh dsa")):
        assert made.run("joint_rl", "name=dry", "trainer.max_steps=1", "--dry-run") == 0
        assert told in capsys.readouterr().out


def test_an_examination_shows_agents_and_experts_of_all_that_it_requires(based, tmp_path):
    """Controls beside experts in one table: an experiment without a module that requires them all."""
    made = based.write(tmp_path / "files", "joint_rl")
    content = yaml.safe_load((made.files / "joint_rl.yaml").read_text())
    content = {key: value for key, value in content.items() if key not in ("module", "train", "trainer")}
    content |= {"requires": ["gba.yaml", "joint_rl.yaml"]}
    (made.files / "all.yaml").write_text(yaml.safe_dump(content))
    context = assemble(load(str(made.files / "all.yaml"), [f"runs_dir={made.runs}"]))
    rows = {"base", *(f"{stage}/{name}" for stage in ("dsa", "gba") for name in ("alpha", "beta"))}
    assert set(context.examined) == rows | {"joint/agent", "joint_rl/agent"}
    assert [path.parent.parent.name for path in context.examined["joint_rl/agent"]] == ["joint", "joint_rl"]


def test_a_rejected_merge_is_told_at_the_end_with_its_reason(tmp_path):
    folder = tmp_path / "ties" / "rejected"
    folder.mkdir(parents=True)
    gates = [{"verdict": "note", "text": "small"}, {"verdict": "reject", "text": "a: 0.1 is below the base's 0.4"}]
    (folder / "conflict.json").write_text(json.dumps({"gates": {"gates": gates}}))
    assert rejections(tmp_path) == [f"{folder}/adapter: a: 0.1 is below the base's 0.4"]
    assert rejections(tmp_path / "none") == []
