"""Reference: arithmetic by hand on made answers; for whole sweeps, the same sweep without an interruption.

Run: pytest tests/experiment/test_sweep.py [-m slow].
"""

import hashlib
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from artifacts.manifest import entry_of, write_manifest
from configs.load import CONFIGS, load
from evaluation.predictions import Prediction
from experiment.claim import claim_folder
from experiment.launchers import here
from experiment.launchers.here import Here
from experiment.launchers.interface import Job, Task
from experiment.run import assemble
from experiment.sweep import choice, jobs, results, work
from experiment.sweep.__main__ import main
from experiment.sweep.budget import given
from experiment.sweep.checks import check
from experiment.sweep.claim import claim
from experiment.sweep.costs import counted, estimate, seconds_of
from experiment.sweep.reading import read_sweep
from experiment.sweep.report import planned_detectable
from experiment.sweep.report_figure import figure
from experiment.sweep.runs import Run, Runs
from experiment.sweep.spec import Primary, Sweep, Tuning
from experiment.sweep.standing import merge_faults
from tests.experiment.conftest import contents

SWEEP = {
    "question": "Does GBA beat GRPO on bars?",
    "config": "gba.yaml",
    "settings": {"callbacks.merge": None, "base:seed": 0},
    "seeds": [0, 1],
    "shared": ["dsa"],
    "arms": {
        "grpo": {
            "settings": {"module.init_args.guidelines": ["differential"], "module.init_args.rollouts_per_guideline": 4}
        },
        "gba": {},
    },
    "tuning": {"seeds": [7], "questions": 2, "grid": {"module.init_args.learning_rate": [0.01, 0.03]}},
    "primary": {"arm": "gba", "against": "grpo"},
    "questions": 4,
}


@pytest.fixture
def write(machine, tmp_path, monkeypatch):
    """Writes a sweep beside copies of the made experiments, into a folder that becomes the working one."""
    monkeypatch.chdir(tmp_path)
    files = machine.write(tmp_path / "files", "gba").files

    def written(name: str = "arms", **changes) -> str:
        content = {key: value for key, value in {**SWEEP, **changes}.items() if value is not None}
        (files / f"{name}.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
        return f"files/{name}.yaml"

    return written


def line_of(path: str, text: str) -> int:
    return next(i for i, line in enumerate(Path(path).read_text().splitlines(), 1) if text in line)


def test_what_arms_are_given_counts_all_that_they_write():
    runs = Runs(read_sweep("sweeps/integration.yaml"))
    found = {arm: given([runs.arm(arm, 0)]) for arm in runs.file.sweep.arms}
    assert {arm: one["optimiser steps"] for arm, one in found.items()} == {
        **dict.fromkeys(("integrated", "joint", "off_policy", "sequential"), 640),
        "joint_and_rl": 24,
    }
    # 4 questions of each of 4 specialties at each of 640 steps; 8 questions with 10 rollouts at each of 24
    assert {arm: one["rollouts"] for arm, one in found.items()} == {
        **dict.fromkeys(("integrated", "off_policy"), 640 * 4 * 4),
        **dict.fromkeys(("joint", "sequential"), 0),
        "joint_and_rl": 24 * 8 * 10,
    }


# -- the plan ----------------------------------------------------------------------------------------------------------


def test_a_dry_run_tells_every_run_and_leaves_nothing(write, tmp_path, capsys):
    before = contents(tmp_path)
    assert main([write(), "workers=3", "--dry-run"]) == 0
    told = capsys.readouterr().out
    # one base, as it states its seed; one DSA expert per seed; 2 arms x 2 rates; 2 arms x 2 seeds; the report
    assert [line.strip() for line in told.splitlines() if line.startswith("job ")] == [
        "job 1: arms-required0: 1 tasks, 3 at once",
        "job 2: arms-required1: 3 tasks, 3 at once",
        "job 3: arms-tuning2: 4 tasks, 3 at once",
        "job 4: arms-arm3: 4 tasks, 3 at once",
        "job 5: arms-report: 1 tasks, 3 at once",
    ]
    assert "required runs, shared by all arms: 4 runs, 0 finished" in told
    # t_1(0.975) + t_1(0.8) = 12.706 + 1.376, times 4 points / sqrt(2)
    assert "shows differences from 39.8 points on" in told
    assert "12 runs are left; of all 12 nothing alike has finished yet" in told
    left = {name: held for name, held in contents(tmp_path).items() if not name.startswith("files")}
    assert left == {name: held for name, held in before.items() if not name.startswith("files")}


def test_the_same_plan_goes_to_slurm(write, capsys):
    assert main([write(), "launcher=slurm", "launcher.init_args.gpus=false", "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert [line for line in told.splitlines() if "--array" in line] == [
        "  | #SBATCH --array=0-2",
        "  | #SBATCH --array=0-3",
        "  | #SBATCH --array=0-3",
    ]
    assert "--dependency=afterok:JOB4" in told
    assert "--part arm-gba-seed1" in told


def test_all_of_it_is_submitted_at_once_each_job_after_the_one_before(write, tmp_path, monkeypatch, capsys):
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, does in (("sbatch", f'echo "$@" >> {programs}/log; wc -l < {programs}/log'), ("squeue", "exit 1")):
        (programs / name).write_text(f"#!/bin/sh\n{does}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    assert main([write(), "launcher=slurm", "launcher.init_args.gpus=false"]) == 0
    calls = [line.split() for line in (programs / "log").read_text().splitlines()]
    waits = [next((word for word in call if word.startswith("--dependency")), "") for call in calls]
    assert waits == ["", *(f"--dependency=afterok:{number}" for number in (1, 2, 3, 4))]
    scripts = [Path(call[-1]).read_text() for call in calls]
    labels = [re.findall(r"--part ([^)]+)\)", script) for script in scripts]
    assert labels == [
        ["required-base"],
        ["required-dsa-seed0", "required-dsa-seed1", "required-dsa-seed7"],
        ["tuning-grpo-0-seed7", "tuning-grpo-1-seed7", "tuning-gba-0-seed7", "tuning-gba-1-seed7"],
        ["arm-grpo-seed0", "arm-gba-seed0", "arm-grpo-seed1", "arm-gba-seed1"],
        ["report"],
    ]
    assert "submitted 5: arms-report (report)" in capsys.readouterr().out
    assert Path("runs/arms/sweep.json").exists()


def test_every_run_has_the_settings_that_it_is_meant_to_have(write):
    runs = Runs(read_sweep(write()))
    one = runs.arm("gba", 1, {"module.init_args.learning_rate": 0.03}).loaded
    assert (one.experiment.name, one.experiment.seed, one.experiment.runs_dir) == ("gba", 1, "runs/arms/seed1")
    assert one.experiment.module.init_args["learning_rate"] == 0.03
    assert one.resolved["callbacks"]["evaluate"]["init_args"]["split"] == "test"
    places = {name: (m.experiment.runs_dir, m.experiment.seed) for name, m in one.beneath.items()}
    assert places == {"base": ("runs/arms/shared", 0), "dsa": ("runs/arms/seed1", 1)}
    tried = runs.tuning("grpo", 1, 7).loaded
    assert (tried.experiment.name, tried.experiment.runs_dir) == ("grpo-1", "runs/arms/tuning/seed7")
    assert tried.resolved["callbacks"]["evaluate"]["init_args"]["split"] == "val"
    assert tried.experiment.module.init_args["guidelines"] == ["differential"]
    for run in [*runs.required(), *runs.tried_of("gba")]:  # the command that is told makes the same
        again = load(run.config, run.arguments)
        assert (again.experiment.runs_dir, again.resolved) == (run.loaded.experiment.runs_dir, run.loaded.resolved)


def test_what_is_left_is_estimated_by_the_runs_most_like_it(tmp_path):
    def run(kind, arm, seed):
        return Run(f"{kind}-{arm}-seed{seed}", kind, arm, seed, tmp_path, (), None)

    done = [run("arm", "grpo", 0), run("arm", "gba", 0), run("tuning", "gba", 7), run("required", "dsa", 0)]
    for one, seconds in zip(done, (60, 120, 30, 500), strict=True):
        (tmp_path / "costs").mkdir(exist_ok=True)
        (tmp_path / f"costs/{one.label}.json").write_text(json.dumps({"seconds": seconds}))
    left = [run("arm", "grpo", 1), run("arm", "gba", 1), run("arm", "new", 0), run("required", "base", 0)]
    # 60 + 120 + the mean of those three that are no requirement, 70; of the base nothing is known
    told = "4 runs are left: about 4 min of work, 2 min with 2 at a time; of 1 nothing alike has finished yet"
    assert estimate(tmp_path, done, left, 2).startswith(told)
    assert estimate(tmp_path, done, [], 2) == "nothing is left to run"
    with pytest.raises(KeyboardInterrupt), counted(tmp_path, done[0].label):  # an interrupted start counts too
        raise KeyboardInterrupt
    assert 60 <= seconds_of(tmp_path, done[0].label) < 61


SHIPPED = sorted(path.name for path in (CONFIGS / "sweeps").glob("*.yaml"))


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_sweep_reads(name):
    runs = Runs(read_sweep(f"sweeps/{name}"))
    primary = runs.file.sweep.primary
    assert [runs.bare(arm).experiment.name for arm in (primary.arm, primary.against)] == [primary.arm, primary.against]


@pytest.mark.slow  # half a minute: every arm with every value that is tried
@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_sweep_can_be_run(name):
    check(Runs(read_sweep(f"sweeps/{name}")))


def test_the_page_says_what_is_so(tmp_path):
    page = (CONFIGS.parent / "docs/sweeps.md").read_text("utf-8")
    (tmp_path / "mine.yaml").write_text(page.partition("```yaml\n")[2].partition("```")[0])
    runs = Runs(read_sweep(str(tmp_path / "mine.yaml")))
    assert [runs.bare(arm).experiment.name for arm in runs.file.sweep.arms] == ["grpo", "gba", "gba_lambda_0"]
    for one in (Sweep, Tuning, Primary):
        assert [f.name for f in fields(one) if f"`{f.name}" not in page and f"{f.name}:" not in page] == []
    told = re.search(
        r"8 of them show differences from (\S+) points on, 5 from (\S+), 3 from (\S+), and 2 from\s(\S+):", page
    )
    assert [f"{100 * planned_detectable(0.04, seeds, 0.95):.1f}" for seeds in (8, 5, 3, 2)] == list(told.groups())


# -- what is refused ---------------------------------------------------------------------------------------------------

ARMS, PRIMARY = SWEEP["arms"], SWEEP["primary"]
REFUSED = {
    "one arm": ({"arms": {"gba": {}}}, "arms must be at least two"),
    "unknown key": ({"sedes": [1]}, "did you mean 'seeds'?"),
    "unknown arm": ({"primary": {"arm": "gpa", "against": "grpo"}}, "did you mean 'gba'?"),
    "itself": ({"primary": {"arm": "gba", "against": "gba"}}, "must name another arm"),
    "scorer": (
        {"primary": {**PRIMARY, "scorer": "strickt"}},
        "scorer must be empty or one of strict, lenient",
    ),
    "rows": ({"primary": {**PRIMARY, "answers_of": "merged"}}, "expert, agent, base or merged/METHOD"),
    "one seed": ({"seeds": [0]}, "seeds must be at least 2, got 1"),
    "seed twice": ({"seeds": [0, 1, 0]}, "seeds names 0 twice"),
    "tuned on its own seed": ({"tuning": {**SWEEP["tuning"], "seeds": [1]}}, "tuning.seeds must be none of the sweep"),
    "unequal grids": (
        {"arms": {**ARMS, "gba": {"grid": {"module.init_args.learning_rate": [0.1, 0.2, 0.3]}}}},
        "every arm must try as many combinations, got grpo 2, gba 3",
    ),
    "unequal rollouts": (  # 2 rates x 2 specialties x 2 steps x 2 questions x (4 + 1 neutral, or 2 x 1 + 1 neutral)
        {"arms": {**ARMS, "gba": {"settings": {"module.init_args.rollouts_per_guideline": 1}}}},
        "as many rollouts per seed, got grpo 80, gba 48",
    ),
    "unequal rollouts by minibatches": (  # a batch of rollouts serves two steps
        {"arms": {**ARMS, "gba": {"settings": {"module.init_args.minibatches": 2}}}},
        "as many rollouts per seed, got grpo 80, gba 40",
    ),
    "unequal steps": (
        {"arms": {**ARMS, "gba": {"settings": {"trainer.max_steps": 3}}}},
        "as many optimiser steps per seed, got grpo 8, gba 12",
    ),
    "grid without tuning": ({"tuning": None, "arms": {**ARMS, "gba": {"grid": {"seed": [1, 2]}}}}, "tuning is missing"),
    "a value twice": ({"tuning": {**SWEEP["tuning"], "grid": {"budget": [1, 1]}}}, "none of them twice"),
    "reserved": ({"settings": {**SWEEP["settings"], "runs_dir": "x"}}, "say it by runs_dir of the sweep"),
    "dotted arm": ({"arms": {**ARMS, "a.b": {}}}, "'a.b' must not have a dot"),
    "own questions": ({"settings": {"callbacks.evaluate.init_args.n": 9}}, "is said by `questions`"),
    "tuned requirement": ({"tuning": {**SWEEP["tuning"], "grid": {"dsa:budget": [1, 2]}}}, "are not tuned"),
    "no such file": ({"config": "gbaa.yaml"}, "did you mean 'gba.yaml'?"),
    "not shared": ({"shared": ["dsaa"]}, "did you mean 'dsa'?"),
    "own requirement": (
        {"arms": {**ARMS, "gba": {"settings": {"dsa:trainer.max_steps": 3}}}},
        "required experiment dsa is not that of arm grpo: trainer.max_steps made with 2, asked for is 3",
    ),
    "name of a requirement": (
        {"arms": {"dsa": {}, "gba": {}}, "primary": {"arm": "gba", "against": "dsa"}},
        "is the name of a required experiment (base, dsa)",
    ),
    "nobody examines": ({"settings": {"callbacks.evaluate": None}}, "has no callback callbacks.evaluate_experts"),
    "unknown specialty": ({"primary": {**PRIMARY, "specialties": ["alfa"]}}, "did you mean 'alpha'?"),
    "too few questions": ({"questions": 5}, "alpha has 4 questions in its split 'test', and 5 are asked for"),
    "setting": ({"settings": {"module.init_args.lerning_rate": 1}}, "did you mean 'learning_rate'?"),
    "value": ({"tuning": {**SWEEP["tuning"], "grid": {"module.init_args.learning_rate": [-1.0, 0.1]}}}, "got -1.0"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_sweep_that_cannot_be_is_refused_before_anything_runs(write, name, capsys):
    changes, told = REFUSED[name]
    path = write(**changes)
    assert main([path]) == 2
    said = capsys.readouterr().err
    assert told in said, said
    assert "Traceback" not in said
    assert not Path("runs").exists()


def test_all_faults_are_told_at_once_each_at_its_line(write, capsys):
    arms = {
        "grpo": {"settings": {"module.init_args.temprature": 1.0, "trainer.max_stesp": 2}},
        "gba": {"settings": {"module.init_args.temperature": "hot"}},
    }
    path = write(arms=arms)
    assert main([path]) == 2
    told = capsys.readouterr().err
    for key, hint in (
        ("temprature", "'temperature'?"),
        ("max_stesp", "'max_steps'?"),
        ("temperature: hot", "expected"),
    ):
        line = next(line for line in told.splitlines() if line.startswith(f"{path}:{line_of(path, key)}: arms."))
        assert hint in line


def test_an_unknown_part_or_contrast_is_refused(write, capsys):
    path = write()
    assert main([path, "--part", "arm-gba-seed3"]) == 2
    assert "no run of this sweep is called so" in capsys.readouterr().err
    for words in (["--report", "--contrast", "gpa", "grpo"], ["--contrast", "gba", "grpo"]):
        with pytest.raises(SystemExit):
            main([path, *words])


def test_what_was_fixed_may_only_grow(write, capsys):
    path = write()
    claim(read_sweep(path), 0)
    fixed = Path("runs/arms/sweep.json").read_bytes()
    changed = {
        "primary": {"arm": "grpo", "against": "gba"},
        "questions": 5,
        "seeds": [0, 2],
        "arms": {**ARMS, "gba": {"settings": {"module.init_args.temperature": 0.9}}},
        "tuning": {**SWEEP["tuning"], "grid": {"module.init_args.learning_rate": [0.01, 0.02]}},
    }
    write(**changed)
    assert main([path, "--dry-run"]) == 2
    told = capsys.readouterr().err
    for key in ("primary:", "questions: made with 4, asked for is 5", "seed 1 is missing", "arms.gba:", "tuning:"):
        assert key in told
    write(arms={"grpo": ARMS["grpo"], "gpa": ARMS["gba"]}, primary={"arm": "gpa", "against": "grpo"})
    assert main([path]) == 2
    assert "arm gba is missing: arms are added, never taken away" in capsys.readouterr().err
    assert Path("runs/arms/sweep.json").read_bytes() == fixed
    write(seeds=[0, 1, 2], arms={**ARMS, "more": ARMS["gba"]}, workers=2)
    assert main([path, "--dry-run"]) == 0
    assert Path("runs/arms/sweep.json").read_bytes() == fixed
    content = claim(read_sweep(path), 3)
    added = [{key: one[key] for key in ("arms", "seeds", "finished_before")} for one in content["extensions"]]
    assert added == [{"arms": ["more"], "seeds": [2], "finished_before": 3}]
    assert content["first"]["seeds"] == [0, 1]


def test_a_damaged_record_is_told(write, capsys):
    path = write()
    claim(read_sweep(path), 0)
    file = Path("runs/arms/sweep.json")
    held = json.loads(file.read_text())
    held["first"]["primary"]["arm"] = "grpo"  # who edits what was fixed is seen
    for text in (json.dumps(held), "{", "[]"):
        file.write_text(text)
        assert main([path, "--dry-run"]) == 2
        assert "sweep.json: is damaged" in capsys.readouterr().err


# -- the report of made answers ----------------------------------------------------------------------------------------


def answer(model, specialty, number, right, patient="", **more):
    options = ("short", "long")
    return Prediction(
        model, specialty, f"q{number}", patient or f"p{number}", more.pop("guideline", "neutral"), options, "A",
        f"<think>x</think><answer>{'A' if right else 'B'}</answer>", **more,
    )  # fmt: skip


def keep(folder: Path, answers) -> None:
    (folder / "evaluation").mkdir(parents=True, exist_ok=True)
    (folder / "evaluation/predictions.jsonl").write_text("".join(one.to_json() + "\n" for one in answers))


@pytest.fixture
def answered(write, monkeypatch):
    """A sweep whose runs count as finished, with answers that are right on the first so many of ten questions."""
    for module in (choice, jobs, results, work):
        if hasattr(module, "is_finished"):
            monkeypatch.setattr(module, "is_finished", lambda run: True)

    def made(right: dict[tuple[str, int], tuple[int, int]], tuned: dict[str, int] | None = None, **changes) -> str:
        path = write(**changes)
        claim(read_sweep(path), 0)
        for (arm, seed), counts in right.items():
            columns = list(zip(("alpha", "beta"), counts, strict=True))
            rows = {f"{arm}/{name}": count for name, count in columns}
            rows |= {f"dsa/{name}": 5 for name, _ in columns}
            own = [answer(m, m.partition("/")[2], i, i < count) for m, count in rows.items() for i in range(10)]
            own += [answer("base", name, i, i < 2) for name, _ in columns for i in range(10)]
            keep(Path(f"runs/arms/seed{seed}/{arm}"), own)
        for name, count in (tuned or {"grpo-0": 5, "grpo-1": 5, "gba-0": 2, "gba-1": 7}).items():
            own = [answer(f"{name}/{s}", s, i, i < count) for s in ("alpha", "beta") for i in range(10)]
            keep(Path(f"runs/arms/tuning/seed7/{name}"), own)
        return path

    return made


RIGHT = {("grpo", 0): (5, 5), ("grpo", 1): (6, 4), ("gba", 0): (7, 6), ("gba", 1): (8, 7)}


def test_the_report_is_what_arithmetic_says(answered, capsys):
    path = answered(RIGHT)
    assert main([path, "--report"]) == 0
    found = json.loads(Path("runs/arms/report.json").read_text())
    # differences: seed 0 (20 + 10) / 2 = 15 points, seed 1 (20 + 30) / 2 = 25; mean 20, sd 7.07, t_1(0.975) = 12.706
    primary = found["primary"]["figures"]["mean over specialties"]
    assert found["primary"]["by_seed"] == pytest.approx({"0": 0.15, "1": 0.25})
    assert primary["mean"] == pytest.approx(0.2)
    assert primary["sd"] == pytest.approx(0.05 * 2**0.5)
    assert (primary["low"], primary["high"]) == pytest.approx((0.2 - 12.7062 * 0.05, 0.2 + 12.7062 * 0.05), abs=1e-4)
    assert primary["p"] == pytest.approx(0.1560, abs=1e-4)  # t = 4 of 1 degree: 1 - 2 atan(4) / pi
    assert found["arms"]["gba"]["alpha"]["mean"] == pytest.approx(0.75)
    assert [found["beneath"][name]["beta"]["mean"] for name in ("base", "dsa")] == pytest.approx([0.2, 0.5])
    assert found["arms"]["grpo"]["mean over specialties"]["low"] is None  # both seeds came to 50 %
    assert {(r["arm"], r["seed"], r["specialty"]): r["accuracy"] for r in found["by_seed"]}["gba", 1, "beta"] == 0.7
    # equally good ones: the first; else the better
    assert {arm: one["taken"] for arm, one in found["tuning"].items()} == {"grpo": 0, "gba": 1}
    assert set(found["differences"]) == {
        f"module.init_args.{name}" for name in ("guidelines", "rollouts_per_guideline", "learning_rate")
    }
    text = Path("runs/arms/report.md").read_text()
    assert "**No evidence of a difference** between gba and grpo" in text
    assert "+20.0 [-43.5, +83.5]" in text
    assert "python -m experiment.sweep files/arms.yaml\n" in text
    for run in found["runs"]:
        assert run["sha256"] == hashlib.sha256(Path(f"runs/arms/{run['answers']}").read_bytes()).hexdigest()
        assert run["sha256"] in text
        assert f"seed={run['seed']}" in run["command"]
    lines = Path("runs/arms/report.csv").read_text().splitlines()
    assert lines[1].startswith("primary,gba,grpo,,mean over specialties,0.2")
    assert "**Not fixed beforehand**" not in capsys.readouterr().out


@pytest.mark.parametrize(("taken", "edge"), [(0, ["rate"]), (1, []), (2, ["rate"])])
def test_the_edge_of_a_grid_is_told(taken, edge):
    # of a rate with three values; a switch and a name have no edge
    values = [{"rate": rate, "switch": True, "name": "x"} for rate in (0.1, 0.2, 0.3)]
    tried = tuple(choice.Tried(i, one, (0.5,), 0.5) for i, one in enumerate(values))
    assert choice.Choice(tried, taken).at_the_edge == edge


def test_the_same_answers_give_the_same_bytes(answered):
    path = answered(RIGHT)
    files = [Path(f"runs/arms/report.{kind}") for kind in ("md", "csv", "json", "png")]
    assert main([path, "--report"]) == 0
    first = [file.read_bytes() for file in files]
    assert main([path, "--report"]) == 0
    assert [file.read_bytes() for file in files] == first


def test_the_picture_shows_every_arm_and_contrast_with_its_seeds_and_interval():
    spread = {"mean": 0.7, "low": 0.6, "high": 0.8}
    alike = {"mean": 0.5, "low": math.nan, "high": math.nan}
    told = (("gba", {"mean": 0.2, "low": -0.1, "high": 0.5}, 0.1, 0.3), ("x$y", alike, 0.5, 0.5))
    contrasts = [
        {"arm": arm, "against": "grpo", "figures": {"mean": one, "alpha": alike}, "by_seed": {"0": low, "1": high}}
        for arm, one, low, high in told
    ]
    content = {
        "name": "arms",
        "fixed": {"primary": {"confidence": 0.9}},
        "primary": contrasts[0],
        "exploratory": contrasts[1:],
        "beneath": {"base": {"mean": alike, "alpha": spread}},
        "arms": {"gba": {"mean": spread, "alpha": alike}, "grpo": {"mean": alike, "alpha": spread}},
        "by_seed": [
            {"arm": arm, "seed": seed, "specialty": name, "accuracy": value}
            for arm, values in (("gba", ((0, 0.6), (1, 0.8))), ("grpo", ((0, 0.5), (1, 0.5))))
            for seed, value in values
            for name in ("alpha", "beta")
        ],
    }
    left, right = figure(content).axes
    assert [text.get_text() for text in left.get_yticklabels()] == ["base", "gba", "grpo"]
    assert [text.get_text() for text in right.get_yticklabels()] == ["gba - grpo", r"x\$y - grpo"]

    def marks(axes, y):
        found = [line.get_xdata() for line in axes.lines if len(line.get_ydata()) and set(line.get_ydata()) == {y}]
        return [pytest.approx(list(one)) for one in found if len(one)]

    assert marks(left, 0) == [[50]]  # of what is beneath no seeds are told, and all were alike
    assert marks(left, 1) == [[60, 80], [60, 80], [70]]
    assert marks(right, 0) == [[10, 30], [-10, 50], [20]]
    assert marks(right, 1) == [[50, 50], [50]]
    assert "90 % over seeds" in figure(content).get_suptitle()


def test_what_was_not_fixed_is_exploratory_whoever_asks(answered, capsys):
    arms = {**ARMS, "more": ARMS["gba"]}
    right = {**RIGHT, ("more", 0): (9, 9), ("more", 1): (9, 10)}
    path = answered(right, {f"{arm}-{i}": 3 for arm in arms for i in (0, 1)}, arms=arms)
    asked = [("more", "gba"), ("grpo", "gba"), ("gba", "grpo")]
    assert main([path, "--report", *(word for pair in asked for word in ("--contrast", *pair))]) == 0
    found = json.loads(Path("runs/arms/report.json").read_text())
    assert (found["primary"]["arm"], found["primary"]["against"]) == ("gba", "grpo")
    assert [(one["arm"], one["against"]) for one in found["exploratory"]] == [
        ("more", "grpo"),
        ("more", "gba"),
        ("grpo", "gba"),
    ]
    ps = [one["figures"]["mean over specialties"]["p"] for one in found["exploratory"]]
    corrected = sorted(one["p_holm"] for one in found["exploratory"])
    assert corrected == pytest.approx([p * times for p, times in zip(sorted(ps), (3, 2, 1), strict=True)])
    text = Path("runs/arms/report.md").read_text()
    assert text.index("## Primary contrast") < text.index("## Exploratory contrasts")
    assert "more" not in text[text.index("## Primary contrast") : text.index("## Arms")]
    assert "--contrast more gba" in text


def test_a_report_is_made_of_all_runs_or_none(answered, monkeypatch, capsys):
    path = answered(RIGHT)
    monkeypatch.setattr(results, "is_finished", lambda run: run.label != "arm-gba-seed1")
    assert main([path, "--report"]) == 1
    told = capsys.readouterr()
    assert "1 of 4 runs have not ended, such as arm-gba-seed1" in told.err
    assert "gba" not in told.out
    assert not Path("runs/arms/report.md").exists()


def test_seeds_that_were_added_after_a_look_are_told(answered):
    path = answered(RIGHT)
    right = {**RIGHT, ("grpo", 2): (5, 5), ("gba", 2): (7, 7)}
    file = Path(path)
    file.write_text(yaml.safe_dump({**SWEEP, "seeds": [0, 1, 2]}, sort_keys=False))
    claim(read_sweep(path), 4)
    answered(right, seeds=[0, 1, 2])
    assert main([path, "--report"]) == 0
    text = Path("runs/arms/report.md").read_text()
    assert "Added later, when 4 runs of arms had ended: seeds 2; who adds seeds after a look" in text


def test_only_what_counts_is_counted_and_tags_that_are_nowhere_are_told(answered, capsys):
    where, prior = {"type": ["prior", "chain"]}, {"type": "prior"}
    path = answered(RIGHT, primary={**PRIMARY, "specialties": ["alpha"], "where": where})
    assert main([path, "--report"]) == 1
    assert "tag 'type' has no value (asked for prior, chain)" in capsys.readouterr().err
    for (arm, seed), (count, _) in RIGHT.items():
        kinds = ["prior", "chain", "pattern"]
        own = [answer(f"{arm}/alpha", "alpha", i, i < count, tags={"type": kinds[i % 3]}) for i in range(10)]
        own += [answer(f"{arm}/alpha", "alpha", i, True, guideline="bayesian", tags=prior) for i in range(10)]
        own += [answer(model, "alpha", i, False, tags=prior) for model in ("base", "dsa/alpha") for i in range(10)]
        keep(Path(f"runs/arms/seed{seed}/{arm}"), own)
    for name in ("grpo-0", "grpo-1", "gba-0", "gba-1"):
        keep(Path(f"runs/arms/tuning/seed7/{name}"), [answer(f"{name}/alpha", "alpha", 0, True, tags=prior)])
    assert main([path, "--report"]) == 0
    whole = json.loads(Path("runs/arms/report.json").read_text())
    found = whole["arms"]
    # of questions 0 to 9 the types prior and chain are 0 1 3 4 6 7 9; right are those below the count
    assert found["gba"]["alpha"]["n"] == 7
    assert found["grpo"]["alpha"]["mean"] == pytest.approx((4 / 7 + 4 / 7) / 2)
    assert found["gba"]["alpha"]["mean"] == pytest.approx((5 / 7 + 6 / 7) / 2)
    # what is left out, 2 5 8, and everything stand beside it
    gains = [RIGHT["gba", seed][0] - RIGHT["grpo", seed][0] for seed in (0, 1)]
    assert {name: one["n"] for name, one in whole["beside"].items()} == {"all questions": 10, "questions left out": 3}
    assert whole["beside"]["all questions"]["mean"] == pytest.approx(sum(gains) / 20)
    out = [
        sum(i < RIGHT["gba", s][0] for i in (2, 5, 8)) - sum(i < RIGHT["grpo", s][0] for i in (2, 5, 8)) for s in (0, 1)
    ]
    assert whole["beside"]["questions left out"]["mean"] == pytest.approx(sum(out) / 6)
    text = Path("runs/arms/report.md").read_text()
    assert "| gba | grpo | questions left out | 3 |" in text


def test_arms_that_were_asked_different_questions_are_not_compared(answered, capsys):
    path = answered(RIGHT)
    folder = Path("runs/arms/seed1/gba")
    keep(folder, [answer(f"gba/{s}", s, i + 1, True) for s in ("alpha", "beta") for i in range(10)])
    assert main([path, "--report"]) == 1
    assert "they were asked different questions" in capsys.readouterr().err


def test_a_report_of_what_is_not_on_record_says_how_it_comes_there(answered, capsys):
    path = answered(RIGHT)
    content = yaml.safe_load(Path(path).read_text())
    Path(path).write_text(yaml.safe_dump(content | {"arms": {**content["arms"], "more": None}}))
    assert main([path, "--report"]) == 1
    told = capsys.readouterr().err
    assert "runs/arms does not have on record what was added to the file" in told
    assert "without --report and --part once" in told
    Path("runs/arms/sweep.json").unlink()
    assert main([path, "--report"]) == 1
    assert "runs/arms holds no sweep yet; give the command without" in capsys.readouterr().err


def test_runs_that_were_made_or_examined_otherwise_are_told(answered, capsys):
    path = answered(RIGHT)
    runs = Runs(read_sweep(path))
    run = runs.arm("gba", 0, {"module.init_args.learning_rate": 0.03})
    claim_folder(assemble(run.loaded))
    answers = run.folder / "evaluation/predictions.jsonl"
    write_manifest(answers.with_name("manifest.json"), {answers.name: entry_of(answers)})
    assert main([path, "--report"]) == 0
    file = Path("files/gba.yaml")
    content = yaml.safe_load(file.read_text())
    module, examination = content["module"]["init_args"], content["callbacks"]["evaluate"]["init_args"]
    for settings, key, value, told in (
        (module, "temperature", 0.9, "module.init_args.temperature: made with 0.6, asked for is 0.9"),
        (examination, "max_new_tokens", 30, "callbacks.evaluate: examined otherwise than arm-gba-seed0 is to be"),
    ):
        before = dict(settings)
        settings[key] = value
        file.write_text(yaml.safe_dump(content))
        assert main([path, "--report"]) == 2
        assert told in capsys.readouterr().err
        settings.clear()
        settings.update(before)
    file.write_text(yaml.safe_dump(content))
    assert main([path, "--report"]) == 0


def test_merges_that_were_made_otherwise_are_told(machine, tmp_path):
    def context(*overrides):
        return assemble(load(str(machine.files / "gba.yaml"), [f"runs_dir={tmp_path / 'runs'}", *overrides]))

    before, other = context(), context("callbacks.merge.init_args.rank=3")
    claim_folder(before)
    assert merge_faults(other) == []  # none was made yet
    (before.folder.path / "merged").mkdir()
    assert merge_faults(before) == []
    assert merge_faults(context("callbacks.evaluate=null")) == []
    (found,) = merge_faults(other)
    assert found.key == "callbacks.merge"
    assert "seeds would be averaged over both" in found.message


# -- this machine ------------------------------------------------------------------------------------------------------


def test_tasks_run_so_many_at_once_and_one_that_fails_lets_the_others_end(tmp_path, monkeypatch):
    monkeypatch.setattr(here, "LOOK_SECONDS", 0.01)
    log = tmp_path / "log"
    note = f"import os, sys, time; f = open({str(log)!r}, 'a'); f.write('+'); f.flush(); time.sleep(0.2); f.write('-')"
    tasks = tuple(
        Task(f"t{i}", (sys.executable, "-c", f"{note}; f.flush(); sys.exit({3 * (i == 0)})")) for i in range(4)
    )
    with pytest.raises(RuntimeError, match=r"job failed in t0: exit code 3.*t0\.out"):
        Here(Here.Config(workers=2)).start([Job("arm", "job", tasks), Job("arm", "never", tasks)], tmp_path / "jobs")
    running, most = 0, 0
    for sign in log.read_text():
        running += 1 if sign == "+" else -1
        most = max(most, running)
    assert (log.read_text().count("+"), running, most) == (4, 0, 2)


def test_a_signal_stops_the_tasks_and_waits_for_them(tmp_path, monkeypatch):
    monkeypatch.setattr(here, "LOOK_SECONDS", 0.01)
    slow = (
        "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(print('stopped') or 130)); "
        "print('there', flush=True); time.sleep(60)"
    )
    task = Task("slow", (sys.executable, "-c", slow))
    looked = []

    def look(seconds):
        if "there" in (tmp_path / "slow.out").read_text():
            looked.append(1)
            raise KeyboardInterrupt
        REAL_SLEEP(seconds)

    monkeypatch.setattr(here.time, "sleep", look)
    with pytest.raises(KeyboardInterrupt):
        Here().run(Job("arm", "job", (task,)), tmp_path)
    assert (tmp_path / "slow.out").read_text().split() == ["there", "stopped"]


REAL_SLEEP = time.sleep


# -- whole sweeps ------------------------------------------------------------------------------------------------------


class Inside:
    """A task in this process."""

    def __init__(self, task, *_):
        self.code = main(list(task.command[3:]))

    def poll(self):
        return self.code


REPORTS = [Path(f"runs/arms/report.{kind}") for kind in ("md", "csv", "json", "png")]


def reports() -> list[str]:
    """The three files; without the commit, which may be another where somebody works on the code meanwhile."""
    found = [re.sub(r"commit [0-9a-f]{12}(, with changes)?", "", file.read_text("utf-8")) for file in REPORTS]
    return [*found[:2], re.sub(r'"(commit|dirty)": \S+', "", found[2])]


def times(root: Path) -> dict[str, int]:
    """When each adapter and base was written."""
    found = [*root.rglob("adapter_model.safetensors"), *root.glob("shared/base/mixed/base/manifest.json")]
    return {str(path.relative_to(root)): path.stat().st_mtime_ns for path in found}


@pytest.mark.slow  # two minutes: two whole sweeps of one specialty, of which one is killed
def test_a_sweep_that_was_killed_goes_on_to_the_bytes_of_one_that_was_not(write, bars_module, tmp_path, monkeypatch):
    monkeypatch.setattr(here, "LOOK_SECONDS", 0)
    monkeypatch.setattr(here, "begin", Inside)
    path = write(settings={**SWEEP["settings"], "specialties.beta": None, "dsa:specialties.beta": None})
    assert main([path]) == 0
    root = tmp_path / "runs/arms"
    trained = times(root)
    dsa = [name for name in trained if "/dsa/" in name]
    assert sorted(name.partition("/dsa")[0] for name in dsa) == ["seed0", "seed1", "tuning/seed7"]
    assert sum("/base/" in name for name in trained) == 1
    arms = [name for name in trained if name.startswith("seed") and "/dsa/" not in name]
    assert len(arms) == 2 * 2
    told = reports()
    assert main([path]) == 0  # nothing is done again
    assert times(root) == trained
    assert reports() == told

    other = tmp_path / "other"
    other.mkdir()
    (tmp_path / "files").rename(other / "files")
    for part in ("shared/base", "seed0/dsa", "seed1/dsa", "tuning/seed7/dsa"):  # so that the kill comes soon
        shutil.copytree(root / part, other / "runs/arms" / part)
    monkeypatch.chdir(other)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(bars_module), str(Path(here.__file__).parents[2])])}
    command = [sys.executable, "-m", "experiment.sweep", path, "workers=2"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    deadline = time.monotonic() + 300
    while not list((other / "runs").rglob("tuning/*/*-*/*/checkpoints/last.ckpt")) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert (process.wait(timeout=120), "interrupted" in process.stdout.read()) == (130, True)
    assert not REPORTS[0].exists()
    assert main([path]) == 0
    assert reports() == told
    assert set(times(other / "runs/arms")) == set(trained)
