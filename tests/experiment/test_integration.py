"""Reference: the uninterrupted run, byte for byte; the files that the experts and merges left; PEFT's sum of adapters.

Run: pytest tests/experiment/test_integration.py.
"""

import csv
import json
import shutil

import pytest
import torch
import yaml
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import train
from artifacts.adapter_files import adapter_sha256
from configs.load import load
from experiment.claim import faults
from experiment.integration import is_ready, start_of
from experiment.run import assemble
from tests.experiment.conftest import bars, contents, write_bars
from tests.experiment.test_resume import WEIGHTS, curves, point
from tests.lightning_modules.test_distillation import INTEGRATE

LIGHT = ("callbacks.evaluate=null", "callbacks.cards=null")


@pytest.fixture(scope="module")
def integrated(lineage, tmp_path_factory):
    """The lineage with its agent: read it, do not change it."""
    made = lineage.copy(tmp_path_factory.mktemp("integrated") / "runs")
    assert made.run("integrate") == 0
    return made


def test_one_run_makes_one_agent_that_stands_in_the_matrix(integrated):
    folder = integrated.runs / "integrate"
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == ["agent", "evaluation"]
    manifest = json.loads((folder / "agent/adapter/manifest.json").read_text())
    experts = {
        name: [adapter_sha256(integrated.runs / stage / name / "adapter") for stage in ("dsa", "gba")]
        for name in ("alpha", "beta")
    }
    start = integrated.runs / "gba/merged/task_arithmetic/adapter"
    assert manifest["kind"] == "agent"
    assert manifest["parent"] is None
    assert manifest["extra"]["made_from"] == {"teachers": experts, "start": adapter_sha256(start)}
    began, ended = (load_file(path / "adapter_model.safetensors") for path in (start, folder / "agent/adapter"))
    assert {name: value.shape for name, value in began.items()} == {name: value.shape for name, value in ended.items()}
    moved = max(float((ended[name] - began[name]).abs().max()) for name in began)
    assert 0 < moved < 0.05  # two steps of at most 0.01 each, from the merge and not from anywhere else
    with open(folder / "evaluation/matrix.csv") as file:
        rows = list(csv.DictReader(file))
    assert rows[-1]["model"] == "integrate/agent"
    assert {"alpha/accuracy", "beta/accuracy"} <= set(rows[-1])
    assert {"gba/alpha", "gba/merged/task_arithmetic", "base"} <= {row["model"] for row in rows}


def test_curves_and_validation_are_by_specialty(integrated):
    events = EventAccumulator(str(integrated.runs / "integrate/agent")).Reload()
    tags = set(events.Tags()["scalars"])
    parts = ("kl_nats", "weight", "token_share", "taught", "correct")
    assert {f"train/specialty/{name}/{part}" for name in ("alpha", "beta") for part in parts} <= tags
    assert {"train/kl/teacher_nats", "train/reward/correct", "train/completion/tokens", "train/grad_norm"} <= tags
    assert {f"val/accuracy/{name}" for name in ("agent", "alpha", "beta")} <= tags
    for step in (0, 1):
        weights = [events.Scalars(f"train/specialty/{name}/weight")[step].value for name in ("alpha", "beta")]
        assert sum(weights) == pytest.approx(1)
    first = {tag: events.Scalars(f"val/accuracy/{tag}")[0].value for tag in ("agent", "alpha", "beta")}
    assert min(first["alpha"], first["beta"]) <= first["agent"] <= max(first["alpha"], first["beta"])
    assert {tag for tag in tags if tag.startswith("work/")} >= {"work/time/teacher_s", "work/time/rollout_s"}


def test_an_interrupted_integration_goes_on_to_the_same_bytes(lineage, tmp_path, monkeypatch):
    settings = ["trainer.max_steps=4", *LIGHT]
    settings += ["module.init_args.gate=better", "module.init_args.gate_temperature=0.8", "fit.val_every=2"]
    whole, cut = lineage.copy(tmp_path / "whole"), lineage.copy(tmp_path / "cut")
    monkeypatch.setattr("experiment.fit.ResumePoint", point(every=2))
    assert whole.run("integrate", *settings) == 0
    monkeypatch.setattr("experiment.fit.ResumePoint", point(every=2, stop_at=3))
    assert cut.run("integrate", *settings) == 130
    monkeypatch.setattr("experiment.fit.ResumePoint", point(every=2))
    assert cut.run("integrate", *settings) == 0
    run, other = whole.runs / "integrate/agent", cut.runs / "integrate/agent"
    assert (run / WEIGHTS).read_bytes() == (other / WEIGHTS).read_bytes()
    assert curves(run) == curves(other)
    kept, again = (torch.load(r / "checkpoints/last.ckpt", weights_only=True)["integration"] for r in (run, other))
    assert kept == again
    assert len(kept["teacher_rates"]) > 4


@INTEGRATE.acts("start")
def test_the_student_starts_where_it_is_told(lineage, tmp_path):
    made = lineage.copy(tmp_path / "runs")
    starts = {
        "merge": ("ties", made.runs / "gba/merged/ties/adapter"),
        "folder": (str(made.runs / "dsa/alpha"), made.runs / "dsa/alpha/adapter"),
        "zero": ("", None),
    }
    still = ("trainer.max_steps=1", "module.init_args.learning_rate=1.0e-30", *LIGHT)
    for name, (start, expected) in starts.items():
        assert made.run("integrate", f"name={name}", f"module.init_args.start='{start}'", *still) == 0
        weights = load_file(made.runs / name / WEIGHTS.replace("adapter/", "agent/adapter/"))
        if expected is None:
            assert all(bool((value.abs() < 1e-20).all()) for key, value in weights.items() if "lora_B" in key)
        else:
            torch.testing.assert_close(weights, load_file(expected / "adapter_model.safetensors"))


def test_a_merge_that_the_gates_rejected_may_be_the_start(lineage, tmp_path):
    made = lineage.copy(tmp_path / "runs")
    merge = made.runs / "gba/merged/ties"
    (merge / "rejected").mkdir()
    shutil.move(merge / "adapter", merge / "rejected/adapter")
    overrides = [f"runs_dir={made.runs}", "module.init_args.start=ties"]
    assert start_of(assemble(load(made.files / "integrate.yaml", overrides))) == merge / "rejected/adapter"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["only=[alpha]"], "one run is over all specialties"),
        (["module.init_args.start=tie"], "no required experiment makes a merge of that name (task_arithmetic, ties)"),
        (["module.init_args.start=runs/gone"], "'runs/gone' is no adapter folder"),
        (["requires=[base.yaml]", "module.init_args.start=''"], "no required experiment trains one of alpha, beta"),
        (["specialties.agent={class_path: made_bars.Bars}"], "'agent' is the name of another folder"),
        (["module.init_args.gate_samples=3"], "gate_samples must be 1 at gate_temperature 0"),
    ],
)
def test_what_cannot_be_integrated_is_refused_before_anything_runs(lineage, capsys, overrides, message):
    before = sorted(lineage.runs.iterdir())
    assert lineage.run("integrate", "name=refused", *overrides) != 0
    assert message in capsys.readouterr().err
    assert sorted(lineage.runs.iterdir()) == before


def test_the_part_that_trains_an_agent_makes_the_merge_it_starts_from(lineage, tmp_path):
    made = lineage.copy(tmp_path / "runs").without("gba/merged")
    context = assemble(load(str(made.files / "integrate.yaml"), [f"runs_dir={made.runs}"]))
    assert not is_ready(context)
    command = ["--config", str(made.files / "integrate.yaml"), f"runs_dir={made.runs}", *LIGHT, "--part", "train"]
    assert train.main(command) == 0
    assert (made.runs / "integrate/agent" / WEIGHTS).exists()
    assert is_ready(context)
    (made.runs / "gba/merged/task_arithmetic/adapter/manifest.json").unlink()
    assert not is_ready(context)


def test_an_expert_on_another_expert_is_no_start(lineage, tmp_path, capsys):
    made = lineage.copy(tmp_path / "runs")
    assert made.run("integrate", f"module.init_args.start={made.runs / 'gba/alpha'}", *LIGHT) == 1
    assert "grew from another adapter" in capsys.readouterr().err


def test_an_agent_of_other_teachers_is_refused_and_one_that_stands_is_left_alone(integrated, tmp_path, capsys):
    made = integrated.copy(tmp_path / "runs")
    weights = made.runs / "integrate/agent" / WEIGHTS
    before = weights.stat().st_mtime_ns
    assert made.run("integrate") == 0
    assert weights.stat().st_mtime_ns == before
    told = capsys.readouterr().out
    assert told.count("\nmodel ") == 1  # the matrix, of the experiment that is asked for
    assert "gba: " in told
    assert "models are examined; matrix and verdict: " in told
    assert told.count("Everything of this experiment lies in") == told.count("python -m evaluation.report") == 1
    record = made.runs / "integrate/agent/adapter/manifest.json"
    manifest = json.loads(record.read_text())
    manifest["extra"]["made_from"]["teachers"]["beta"][1] = "0" * 64
    record.write_text(json.dumps(manifest))
    capsys.readouterr()
    assert made.run("integrate") == 1
    assert "was made from others than those that are there now (the expert of beta)" in capsys.readouterr().err


@pytest.mark.slow
def test_a_dry_run_takes_a_step_of_what_is_there_and_of_what_is_not(based, lineage, capsys):
    for made, told in ((lineage, "1 steps in one run over"), (based, "with a fresh set of teachers")):
        assert made.run("integrate", "trainer.max_steps=1", "--dry-run") == 0
        assert told in capsys.readouterr().out


def test_every_setting_has_a_test_that_needs_it():
    INTEGRATE.check()


def growing(machine, folder, data):
    """The files by which `gamma` joins the lineage, as configs/add_specialty.yaml and its folder have them."""
    files = folder / "files"
    shutil.copytree(machine.files, files)
    nothing = {"layout": None, "cards": None, "evaluate": None}
    written = {
        "more/dsa": {"extends": ["../dsa.yaml"], "name": "dsa", "requires": ["../base.yaml"]},
        "more/gba": {"extends": ["../gba.yaml"], "name": "gba", "requires": ["dsa.yaml"]},
        "more/merge": {"extends": ["../gba.yaml"], "requires": ["gba.yaml"], "module": None, "trainer": None},
        "add": {"extends": ["integrate.yaml"], "requires": ["more/merge.yaml"]},
    }
    written["more/gba"]["callbacks"] = {"merge": None, "evaluate": None}
    written["more/merge"]["callbacks"] = nothing
    (files / "more").mkdir()
    for name, content in written.items():
        (files / f"{name}.yaml").write_text(yaml.safe_dump({**content, "specialty": None}))
    (files / "gamma.yaml").write_text(yaml.safe_dump({"specialties": {"gamma": bars(data)}}))
    return files


def test_one_more_specialty_trains_merges_and_examines_beside_the_others_which_stay_as_they_are(
    lineage, bars_module, tmp_path
):
    data = bars_module / "data" / "gamma"
    write_bars(data, "g")
    files = growing(lineage, tmp_path, data)
    made = lineage.copy(tmp_path / "runs")
    kept = {stage: contents(made.runs / stage) for stage in ("base", "dsa", "gba")}
    told = ["specialty=gamma", f"data={files / 'gamma.yaml'}", f"runs_dir={made.runs}"]
    assert train.main(["--config", str(files / "add.yaml"), *told]) == 0
    for stage, before in kept.items():
        after = contents(made.runs / stage)
        changed = {name for name in before if after.get(name) != before[name]}
        assert changed <= {"experiment.json", "status.json"}, "bytes or times of what was finished"
    for stage in ("dsa", "gba"):
        assert (made.runs / stage / "gamma/adapter/manifest.json").exists()
        settings = json.loads((made.runs / stage / "experiment.json").read_text())
        assert (list(settings["specialties"]), list(settings["added"])) == (["alpha", "beta"], ["gamma"])
    recipe = yaml.safe_load((made.runs / "merge_gamma/merged/ties/recipe.yaml").read_text())
    assert len(recipe["sources"]) == 6
    made_from = json.loads((made.runs / "add_gamma/agent/adapter/manifest.json").read_text())["extra"]["made_from"]
    assert list(made_from["teachers"]) == ["alpha", "beta", "gamma"]
    assert made_from["start"] == adapter_sha256(made.runs / "merge_gamma/merged/task_arithmetic/adapter")
    with open(made.runs / "add_gamma/evaluation/matrix.csv") as file:
        rows = {row["model"]: row for row in csv.DictReader(file)}
    assert {"dsa/gamma", "gba/alpha", "gba/gamma", "merge_gamma/merged/ties", "add_gamma/agent"} <= set(rows)
    assert all(row["gamma/accuracy"] != "" and row["alpha/accuracy"] != "" for row in rows.values())
    claims = json.loads((made.runs / "add_gamma/evaluation/verdict.json").read_text())
    assert {"dsa's experts", "gba's experts"} <= {claim["system"] for claim in claims}  # of all three columns

    def refused(name, *more):
        """What the folders say to an experiment that is asked for now."""
        context = assemble(load(files / f"{name}.yaml", [f"runs_dir={made.runs}", *more]))
        return "\n".join(str(problem) for member in context.lineage for problem in faults(member))

    assert refused("gba") == refused("add", *told[:2]) == refused("dsa", "specialties=[beta]") == ""
    assert "would be replaced by that of others" in refused("gba", "specialties=[beta]")
    more = json.dumps(bars(data))
    assert "would be replaced by that of others" in refused("gba", f"specialties.gamma={more}")
    assert "made with" in refused("more/gba", *told[:2], "specialties.gamma.init_args.names=[bayesian]")
