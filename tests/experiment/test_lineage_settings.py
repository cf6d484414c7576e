"""Reference: the folders' own records. Run: pytest tests/experiment/test_lineage_settings.py."""

import json
import shutil

import pytest

from artifacts.adapter_files import read_manifest
from configs.load import CONFIGS, load
from configs.problems import ConfigError
from datamodules.base import VQADataModule
from experiment.claim import claim_folder, refuse_changed
from experiment.run import assemble
from tests.experiment.conftest import contents

QUICK = ("callbacks.merge=null", "callbacks.evaluate=null", "callbacks.cards=null", "only=[alpha]")


def steps(runs, name: str) -> int:
    return read_manifest(runs / name / "alpha/adapter")["extra"]["steps"]


def test_a_required_experiment_is_set_by_its_name_and_the_child_remembers(based, tmp_path, capsys):
    other = based.copy(tmp_path / "runs")
    assert other.run("gba", *QUICK, "trainer.max_steps=1", "dsa:trainer.max_steps=3") == 0
    assert (steps(other.runs, "dsa"), steps(other.runs, "gba")) == (3, 1)
    remembered = json.loads((other.runs / "gba/experiment.json").read_text())
    assert remembered["required"]["dsa"]["trainer"]["max_steps"] == 3
    assert remembered["required"]["base"]["trainer"]["max_steps"] == 40
    before = contents(other.runs)
    for asked, shown in (("dsa:trainer.max_steps=4", 4), ("dsa:trainer.max_steps=2", 2)):
        assert other.run("gba", *QUICK, "trainer.max_steps=1", asked) == 2
        key = f"gba/experiment.json: dsa:trainer.max_steps: made with 3, asked for is {shown}"
        assert key in capsys.readouterr().err
    assert other.run("gba", *QUICK, "trainer.max_steps=1") == 2  # without it, what the file says is asked for
    assert "dsa:trainer.max_steps: made with 3, asked for is 2" in capsys.readouterr().err
    assert contents(other.runs) == before
    assert other.run("gba", *QUICK, "trainer.max_steps=1", "dsa:trainer.max_steps=3") == 0


def test_a_folder_is_the_same_from_wherever_the_command_is_given(tmp_path, monkeypatch):
    def asked(*overrides: str):
        return assemble(load(str(CONFIGS / "rl_gba.yaml"), [f"runs_dir={tmp_path / 'runs'}", *overrides]))

    monkeypatch.chdir(CONFIGS.parent)
    for member in asked().lineage:
        claim_folder(member)
    assert asked().resolved["model"]["init_args"]["path"] == "configs/model/tiny_base"
    monkeypatch.chdir(tmp_path)
    assert asked().resolved["model"]["init_args"]["path"] == str(CONFIGS / "model/tiny_base")
    refuse_changed(asked())
    shutil.copytree(CONFIGS / "model/tiny_base", tmp_path / "configs/model/tiny_base")  # is called alike from here
    other = f"model={tmp_path / 'configs/model/tiny_base'}"
    with pytest.raises(ConfigError, match=r"model\.init_args\.path: made with configs/model/tiny_base, asked for"):
        refuse_changed(asked(other, "model.init_args.dtype=float32", f"sft_dsa:{other}"))


def test_a_base_is_the_same_whatever_its_readme_says(tmp_path):
    folder = tmp_path / "base"
    shutil.copytree(CONFIGS / "model/tiny_base", folder)

    def key() -> str:
        return assemble(load(str(CONFIGS / "evaluate.yaml"), [f"model={folder}"])).base_key

    before = key()
    for name in ("README.md", ".gitattributes", "card.png"):
        (folder / name).write_text("written anew")
    assert key() == before
    for name in ("tokenizer_config.json", "chat_template.jinja"):
        (folder / name).write_text((folder / name).read_text() + "\n")
        assert key() != before
        before = key()


def test_a_lineage_that_is_refused_leaves_no_folder(lineage, tmp_path, capsys):
    other = lineage.copy(tmp_path / "runs").without("gba")
    before = contents(other.runs)
    assert other.run("gba", "dsa:module.init_args.learning_rate=0.5") == 2
    assert "dsa/experiment.json: module.init_args.learning_rate: made with 0.002, asked for is 0.5" in (
        capsys.readouterr().err
    )
    assert contents(other.runs) == before


def test_every_differing_key_is_named_with_both_values(lineage, tmp_path, capsys):
    other = lineage.copy(tmp_path / "runs")
    names = "[" + ", ".join(["differential"] * 30) + "]"
    assert other.run("dsa", "module.init_args.lora_rank=3", f"data.names={names}") == 2
    lines = capsys.readouterr().err.strip().splitlines()
    place = f"{other.runs}/dsa/experiment.json"
    found = {line.removeprefix(f"{place}: ").partition(": ")[0]: line.partition(": made with ")[2] for line in lines}
    assert found["module.init_args.lora_rank"].startswith("2, asked for is 3; choose another `name`")
    assert found["data.names"].startswith("no such setting, asked for is [differential, differential, ")
    shown = found["specialties.beta.init_args.names"]
    assert shown.startswith("[differential, intuitive, analytical, bayesian], asked for is [differential, differ")
    assert shown.partition("; choose")[0].endswith(" …")
    assert len(shown) < len(names)
    assert set(found) == {
        "module.init_args.lora_rank",
        "data.names",
        "specialties.alpha.init_args.names",
        "specialties.beta.init_args.names",
    }


def test_a_required_experiment_starts_afresh_by_its_name_once(lineage, tmp_path):
    other = lineage.copy(tmp_path / "runs").without("gba")
    assert other.run("gba", *QUICK, "dsa:overwrite=true", "dsa:trainer.max_steps=1") == 0
    assert steps(other.runs, "dsa") == 1
    assert not (other.runs / "dsa/beta").exists()


def test_settings_by_name_reach_worker_processes(based, bars_module, monkeypatch, tmp_path):
    other = based.copy(tmp_path / "runs")
    monkeypatch.setenv("PYTHONPATH", str(bars_module))
    given = ["workers=2", "trainer.max_steps=1", "dsa:trainer.max_steps=3", "gba:threads=1", "dsa:overwrite=true"]
    assert other.run("gba", *given, *QUICK[:2], "dsa:callbacks.cards=null") == 0
    for specialty in ("alpha", "beta"):
        assert read_manifest(other.runs / "dsa" / specialty / "adapter")["extra"]["steps"] == 3
        assert read_manifest(other.runs / "gba" / specialty / "adapter")["extra"]["steps"] == 1


def test_print_config_shows_what_is_set_by_name(machine, capsys):
    assert machine.run("gba", "--print-config", "dsa:trainer.max_steps=3") == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("# dsa:trainer")]
    assert line.split() == ["#", "dsa:trainer.max_steps=3", "#", "command", "line", "for", "dsa"]


def test_an_unknown_name_is_refused_with_those_of_the_lineage(machine, capsys):
    assert machine.run("gba", "dsaa:trainer.max_steps=3") == 2
    error = capsys.readouterr().err
    assert "no experiment of this lineage is called 'dsaa'; there are gba, dsa, base; did you mean 'dsa'?" in error


def test_a_base_is_not_trained_at_the_precision_of_frozen_weights(machine, tmp_path, capsys):
    assert machine.at(tmp_path).run("base", "precision=bf16") == 2
    assert "precision: bf16 is the precision of frozen base weights" in capsys.readouterr().err


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_frozen_weights_have_the_precision_asked_for_and_the_base_its_fingerprint(lineage, tmp_path, precision):
    import torch

    from configs.load import load
    from experiment.run import assemble

    context = assemble(load(lineage.files / "dsa.yaml", [f"runs_dir={lineage.runs}", f"precision={precision}"]))
    policy, fingerprint = context.policy()
    manifest = read_manifest(lineage.runs / "dsa/alpha/adapter")
    assert fingerprint == manifest["base_fingerprint"]  # of the source weights
    stage = context.stage("alpha", policy, fingerprint)
    trained = {parameter.dtype for parameter in stage.parameters() if parameter.requires_grad}
    frozen = {parameter.dtype for parameter in stage.parameters() if not parameter.requires_grad}
    assert trained == {torch.float32}
    assert frozen == {torch.float32 if precision == "float32" else torch.bfloat16}
    other = assemble(load(lineage.files / "dsa.yaml", [f"runs_dir={lineage.runs}"]))
    assert (other.base_key == context.base_key) == (precision == "float32")


def test_objectives_that_cannot_learn_are_refused_before_anything_trains(machine, tmp_path, capsys):
    other = machine.at(tmp_path)
    module = "module.init_args"
    silent = [
        f"{module}.rollouts_per_guideline=1",
        f"{module}.advantage.init_args.lambda_=0",
        f"{module}.neutral_share=0",
    ]
    assert other.run("gba", *silent) == 2
    assert "every advantage is zero" in capsys.readouterr().err
    assert other.run("gba", f"{module}.advantage.init_args.priors={{nobody: 2}}") == 2
    assert "'nobody'" in capsys.readouterr().err
    weights = "{class_path: lightning_modules.rewards.format.Format, init_args: {weight: 2.0}}"
    assert other.run("gba", f"{module}.rewards=[{weights}]") == 2
    assert not any(tmp_path.rglob("status.json"))


@pytest.mark.parametrize(
    ("overrides", "times"),
    [((), 1), (("sft_dsa:data.batch_size=3",), 1), (("sft_dsa:data.n_patients=150",), 2)],
    ids=["equal", "other batches", "other rows"],
)
def test_experiments_of_a_lineage_read_equal_rows_once(tmp_path, monkeypatch, overrides, times):
    read: list[str] = []
    collected = VQADataModule.collected
    monkeypatch.setattr(VQADataModule, "collected", lambda self: read.append(self.specialty) or collected(self))
    asked = [f"runs_dir={tmp_path / 'runs'}", "data.n_patients=200", "sft_dsa:data.n_patients=200", *overrides]
    lineage = assemble(load(str(CONFIGS / "rl_gba.yaml"), asked)).lineage
    held = [member.data("pediatrics") for member in lineage]
    splits = [data.splits for data in held]
    assert len(held) == 2
    assert read == ["pediatrics"] * times
    assert held[0].sight is not held[1].sight  # each asks its own model
    assert (list(splits[0]["train"]) == list(splits[1]["train"])) == (times == 1)
