"""Reference: the layout that the README promises, and files recomputed from one another.

Run: pytest tests/experiment/test_run_folders.py.
"""

import json
import subprocess
from pathlib import Path

import pytest
import torch
import yaml

from artifacts.adapter_files import read_adapter, read_manifest
from artifacts.base_files import is_base_complete
from evaluation.baselines import majority
from evaluation.matrix_table import matrix_csv
from evaluation.scoring import Prediction, matrix
from experiment.continuation import checkpoint_step
from experiment.provenance import git_state, processor, provenance
from tests.experiment.conftest import contents

RUNS = [("dsa", "alpha"), ("dsa", "beta"), ("gba", "alpha"), ("gba", "beta")]


@pytest.mark.parametrize(("experiment", "specialty"), RUNS)
def test_every_run_leaves_what_the_readme_promises(lineage, experiment, specialty):
    run = lineage.runs / experiment / specialty
    adapter = read_adapter(run / "adapter", base_fingerprint=None)
    base = json.loads((lineage.runs / "base/mixed/base/manifest.json").read_text())
    facts = json.loads((run / "provenance.json").read_text())
    assert adapter.manifest["specialty"] == specialty
    assert adapter.manifest["kind"] == experiment
    assert adapter.manifest["data_sha256"] == facts["data_sha256"] != base["data_sha256"]
    assert facts["git"] == git_state()
    assert {"torch", "lightning", "peft"} <= set(facts["packages"])
    assert facts["command"]
    assert json.loads((run / "status.json").read_text())["state"] == "finished"
    resolved = json.loads((run / "config.resolved.json").read_text())
    remembered = json.loads((lineage.runs / experiment / "experiment.json").read_text())
    beneath = remembered.pop("required")
    assert Path(remembered.pop("working_folder")).is_dir()
    assert resolved == remembered
    base_settings = json.loads((lineage.runs / "base/mixed/config.resolved.json").read_text())
    assert beneath["base"] | {"runs_dir": ""} == base_settings | {"runs_dir": ""}  # its folder was copied
    assert list(beneath) == {"dsa": ["base"], "gba": ["base", "dsa"]}[experiment]
    assert resolved["trainer"]["max_steps"] == 2
    assert list(run.glob("events.out.tfevents.*"))
    rows = [json.loads(line) for line in (run / "samples.jsonl").read_text().splitlines()]
    assert sorted({row["step"] for row in rows}) == [0, 2]
    assert checkpoint_step(run / "checkpoints/last.ckpt") == 2


def test_the_experts_of_one_lineage_are_bound_to_each_other(lineage):
    assert is_base_complete(lineage.runs / "base/mixed/base")
    manifests = {run: read_manifest(lineage.runs / run[0] / run[1] / "adapter") for run in RUNS}
    assert len({manifest["base_fingerprint"] for manifest in manifests.values()}) == 1
    for specialty in ("alpha", "beta"):
        expert = manifests["dsa", specialty]["files"]["adapter_model.safetensors"]["sha256"]
        assert manifests["gba", specialty]["parent"] == {"sha256": expert, "specialty": specialty}
    assert len({m["files"]["adapter_model.safetensors"]["sha256"] for m in manifests.values()}) == 4


@pytest.mark.parametrize("method", ["ties", "task_arithmetic"])
def test_the_merged_agent_comes_with_recipe_and_report(lineage, method):
    merged = lineage.runs / "gba" / "merged" / method
    assert read_adapter(merged / "adapter", base_fingerprint=None).manifest["kind"] == "merged"
    recipe = yaml.safe_load((merged / "recipe.yaml").read_text())
    assert {"gba.alpha", "dsa.beta"} <= set(str(recipe).replace("'", " ").split())
    report = json.loads((merged / "conflict.json").read_text())
    assert report["verdict"] in ("good", "warn")
    assert (merged / "conflict.md").read_text().strip()


def test_the_matrix_follows_from_the_predictions_alone(lineage):
    folder = lineage.runs / "gba" / "evaluation"
    rows = [Prediction.from_json(line) for line in (folder / "predictions.jsonl").read_text("utf-8").split("\n")[:-1]]
    table = matrix(rows)
    assert matrix_csv(table) == (folder / "matrix.csv").read_text()
    training = json.loads((folder / "training_answers.json").read_text())
    assert list(training) == ["alpha", "beta"]
    assert sum(training["alpha"].values()) == 12  # 24 patients less those of the other splits
    assert f"| {majority(rows[:4], training['alpha'])} | not measured: " in (folder / "report.md").read_text()
    scores = json.loads((folder / "scores.json").read_text())
    for row in table:
        assert {s: cell.accuracy for s, cell in row.cells.items()} == {
            s: cell["accuracy"] for s, cell in scores[row.model].items()
        }
    assert [row.model for row in table] == [
        "base",
        *(f"{experiment}/{specialty}" for experiment, specialty in RUNS),
        "gba/merged/task_arithmetic",
        "gba/merged/ties",
    ]


def test_repeating_the_command_changes_no_file(lineage, tmp_path, monkeypatch, capsys):
    def training(*_):
        raise AssertionError("trained although everything was finished")

    again = lineage.copy(tmp_path / "runs")
    before = contents(again.runs)
    monkeypatch.setattr("experiment.fit._fit", training)
    assert again.run("gba") == 0
    after = contents(again.runs)
    assert {name for name in before | after if before.get(name) != after.get(name)} == set()
    assert "matrix.csv" in capsys.readouterr().out


def test_new_sources_make_a_checkout_dirty(tmp_path):
    def git(*arguments):
        who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        subprocess.run(["git", "-C", str(tmp_path), *who, *arguments], check=True, capture_output=True)

    assert git_state(tmp_path) == {}
    (tmp_path / ".gitignore").write_text("ignored/\n")
    git("init")
    git("add", ".gitignore")
    git("commit", "-m", "first")
    for name in ("ignored/a.py", "out/recipe.yaml", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    assert git_state(tmp_path, tmp_path / "out")["dirty"] is False
    assert git_state(tmp_path)["dirty"] is True  # without knowing what holds the results
    for name in ("datamodules/dental.py", "configs/dental study.yaml"):
        path = tmp_path / name
        path.parent.mkdir()
        path.write_text("")
        assert git_state(tmp_path, tmp_path / "out")["dirty"] is True
        path.unlink()
    (tmp_path / ".gitignore").write_text("ignored/\n\n")
    assert git_state(tmp_path, tmp_path / "out")["dirty"] is True


def test_a_run_says_which_processor_its_last_bits_are_of(tmp_path):
    stated = "processor\t: {n}\nmodel name\t: A Chip @ 2 GHz\ncpu family\t: 6\nmodel\t\t: 167\nstepping\t: 1\n\n"
    (tmp_path / "cpuinfo").write_text(stated.format(n=0) + stated.format(n=1).replace("A Chip", "Another"))
    said = processor(tmp_path / "cpuinfo")
    assert said.endswith(", A Chip @ 2 GHz, cpu family 6, model 167, stepping 1")
    (tmp_path / "other").write_text("Hardware\t: a board\n")
    assert processor(tmp_path / "other") == processor(tmp_path / "none").partition(",")[0]
    found = provenance(tmp_path)
    assert found["processor"] == processor()
    assert found["vector_units"] == torch.backends.cpu.get_cpu_capability()
