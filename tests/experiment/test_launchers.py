"""Reference: the same work in one process, without a launcher. SLURM is stood in for by made_cluster.py.

Run: pytest tests/experiment/test_launchers.py [-m slow]; that of Ray needs requirements-ray.txt.
"""

import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from artifacts.folders import LAUNCHED_AS
from experiment.launchers import ray
from experiment.launchers.interface import Job, Task
from experiment.launchers.part import Part
from experiment.launchers.slurm import Slurm
from experiment.run import finish_all
from tests.experiment import made_ray
from tests.experiment.made_cluster import installed

ROOT = Path(__file__).parents[2]
SLURM = ("launcher=slurm", "launcher.init_args.cpus=1", "launcher.init_args.gpus=false")


@pytest.fixture
def cluster(tmp_path, bars_module, monkeypatch):
    """Stand-ins for SLURM's programs on PATH; returns the module that runs what was submitted."""
    monkeypatch.setenv("PYTHONPATH", str(bars_module))
    return installed(tmp_path / "cluster", monkeypatch)


def calls(cluster, name: str) -> list[list[str]]:
    file = cluster.HERE / "calls.jsonl"
    lines = file.read_text().splitlines() if file.exists() else []
    return [one[1:] for one in map(json.loads, lines) if one[0] == name]


def logs(folder: Path) -> str:
    return "\n".join(f"== {file.name}\n{file.read_text()[-3000:]}" for file in sorted(folder.glob("*.out")))


# -- what is asked for -------------------------------------------------------------------------------------------------


def test_a_dry_run_shows_every_job_and_starts_none(machine, tmp_path, cluster, capsys):
    made = machine.at(tmp_path / "runs")
    assert made.run("gba", *SLURM, "launcher.init_args.evaluation_shards=3", "--dry-run") == 0
    told = capsys.readouterr().out
    names = [line.split(": ")[1] for line in told.splitlines() if line.startswith("job ")]
    assert names == ["base-base", "gba-train", "gba-merge", "gba-evaluate", "gba-finish"]
    assert "#SBATCH --array=0-1" in told
    assert "#SBATCH --array=0-2" in told
    assert "--dependency=afterok:JOB4" in told
    assert calls(cluster, "sbatch") == []
    assert not made.runs.exists()


def asked_of(machine, folder: Path, beneath: str):
    """An examination of what another experiment leaves."""
    made = machine.write(folder, beneath)
    content = yaml.safe_load((made.files / f"{beneath}.yaml").read_text())
    content = {key: value for key, value in content.items() if key not in ("module", "trainer", "train")}
    evaluate = {"evaluate": content["callbacks"]["evaluate"]}
    (made.files / "asked.yaml").write_text(
        yaml.safe_dump(content | {"requires": [f"{beneath}.yaml"], "callbacks": evaluate})
    )
    return made


@pytest.mark.parametrize(
    ("beneath", "names"),
    [
        ("gba", ["base-base", "gba-train"]),
        ("joint_rl", ["base-base", "joint-agent", "joint_rl-agent"]),
        ("integrate", ["base-base", "gba-train", "integrate-agent"]),
    ],
)
def test_whatever_an_examination_stands_on_is_trained_by_jobs_before_it(
    machine, tmp_path, cluster, capsys, beneath, names
):
    made = asked_of(machine, tmp_path / "files", beneath).at(tmp_path / "runs")
    for name, more in (("asked", ["asked-finish"]), (beneath, [f"{beneath}-finish"])):
        assert made.run(name, *SLURM, "--dry-run") == 0
        told = capsys.readouterr().out
        jobs = {part.split(": ")[1]: part for part in told.split("\njob ")}
        wanted = [*names, *more] if name == "asked" else [*names[:-1], f"{beneath}-train", *more]
        assert list(jobs) == wanted
        for job, text in jobs.items():
            assert f"/{job.rpartition('-')[0]}.yaml" in text
            assert ("--part train" in text) is not job.endswith("-finish")
            assert ("only=" in text) == (job == "gba-train")


def test_experts_that_an_agent_needs_are_trained_whoever_is_asked_for(machine, tmp_path, cluster, capsys):
    made = asked_of(machine, tmp_path / "files", "integrate").at(tmp_path / "runs")
    assert made.run("asked", *SLURM, "only=[beta]", "--dry-run") == 0
    assert "gba-train: 2 x" in capsys.readouterr().out
    made = asked_of(machine, tmp_path / "others", "gba").at(tmp_path / "runs")
    assert made.run("asked", *SLURM, "only=[beta]", "--dry-run") == 0
    assert "gba-train: 1 x" in capsys.readouterr().out
    file = made.files / "gba.yaml"
    content = yaml.safe_load(file.read_text())
    file.write_text(yaml.safe_dump(content | {"specialties": {"alpha": content["specialties"]["alpha"]}}))
    assert made.run("asked", *SLURM, "--dry-run") == 0  # of one specialty the expert is that of the experiment beneath
    told = capsys.readouterr().out
    names = [line.split(": ")[1] for line in told.splitlines() if line.startswith("job ")]
    assert names == ["base-base", "dsa-train", "gba-train", "asked-finish"]
    dsa = told.partition("job 2: ")[2].partition("job 3: ")[0]
    assert "beta" in dsa
    assert 'only=["alpha"]' not in dsa


def test_nodes_and_cards_become_resources_and_reach_the_command(machine, tmp_path, cluster, capsys):
    asked = ("launcher=slurm", "trainer.devices=8", "trainer.num_nodes=2", "launcher.init_args.gres=gpu:h100")
    assert machine.at(tmp_path / "runs").run("dsa", *asked, "--dry-run") == 0
    told = capsys.readouterr().out
    train = told.partition("job 2: dsa-train")[2].partition("job 3")[0]
    for line in ("--nodes=2", "--ntasks-per-node=8", "--gres=gpu:h100:8", "--signal=B:TERM@180", "--requeue"):
        assert f"#SBATCH {line}\n" in train
    assert "trainer.devices=8 trainer.num_nodes=2" in train
    assert "dsa:trainer.devices=1" in told.partition("job 3: dsa-finish")[2]


def test_the_short_form_in_a_file_is_the_choice_on_the_command_line(machine, tmp_path, cluster, capsys):
    made = machine.write(tmp_path / "files", "dsa", launcher="slurm").at(tmp_path / "runs")
    assert made.run("dsa", "--dry-run") == 0
    assert "dsa-train" in capsys.readouterr().out
    wrong = machine.write(tmp_path / "other", "dsa", launcher="slurn").at(tmp_path / "runs")
    assert wrong.run("dsa", "--dry-run") == 2
    told = capsys.readouterr().err
    assert "dsa.yaml:" in told
    assert "did you mean 'slurm'?" in told


METACHARACTERS = [f"gpu{c}touch x" for c in (";", "\n", "|", "&", "`", "$(", "'", '"', " ", "\\", ">", "#", "\r", "\0")]


@pytest.mark.parametrize(
    "name", ["partition", "account", "qos", "reservation", "exclude", "constraint", "gres", "memory", "time"]
)
def test_no_setting_of_the_scheduler_holds_what_a_shell_acts_on(name):
    for value in METACHARACTERS:
        with pytest.raises(ValueError, match=name):
            Slurm.Config(**{name: value})


def test_whatever_stands_in_a_command_reaches_it_as_it_is(tmp_path, cluster, monkeypatch):
    odd = [
        "$(touch bad)",
        "`touch bad`",
        "a b",
        "'",
        '"',
        "\n",
        "*",
        ";touch bad",
        "-n",
        "ä",
        "%j",
        "\\",
        "!x",
        "${HOME}",
    ]
    folder = tmp_path / "odd '; touch bad; %j $(touch bad)"
    folder.mkdir()
    monkeypatch.chdir(folder)
    show = "import json, sys; json.dump(sys.argv[1:], open('seen.json', 'w'))"
    job = Job("train", "odd", (Task("one", (sys.executable, "-c", show, *odd)),))
    Slurm(Slurm.Config(gpus=False)).start([job], folder / "jobs")
    assert list(cluster.run().values()) == [[0]], logs(folder / "jobs")
    assert json.loads((folder / "seen.json").read_text()) == odd
    assert sorted(path.name for path in folder.iterdir()) == ["jobs", "seen.json"]
    assert [path.suffix for path in sorted((folder / "jobs").iterdir())] == [".out", ".sh", ".json"]


@pytest.mark.parametrize(
    ("text", "part"),
    [("train", Part(trains_only=True)), ("merge", Part(merges_only=True)), ("3/3", Part(share=(2, 3)))],
)
def test_a_part_is_read(text, part):
    assert Part.read(text) == part


@pytest.mark.parametrize("text", ["0/3", "4/3", "1/0", "1", "x", "1/3 ", "-1/3", "٣/٣"])
def test_a_part_that_is_none_is_refused(text):
    with pytest.raises(ValueError, match="expected train, merge, or I/N"):
        Part.read(text)


# -- what is submitted -------------------------------------------------------------------------------------------------

QUICK = Job("train", "quick", (Task("a", ("true",)),))


def test_a_job_that_is_refused_takes_those_before_it_away(tmp_path, cluster):
    open_, closed = Slurm(), Slurm(Slurm.Config(partition="closed"))
    scripts = iter([open_.script(QUICK), closed.script(QUICK)])
    open_.script = lambda job: next(scripts)
    with pytest.raises(RuntimeError, match="partition closed is down"):
        open_.start([QUICK, QUICK], tmp_path / "jobs")
    assert calls(cluster, "scancel") == [["100"]]


def test_nothing_is_submitted_twice_while_it_is_in_the_queue(tmp_path, cluster):
    Slurm().start([QUICK], tmp_path / "jobs")
    with pytest.raises(RuntimeError, match=r"job 100 .* is still in the queue"):
        Slurm().start([QUICK], tmp_path / "jobs")
    cluster.run()
    Slurm().start([QUICK], tmp_path / "jobs")
    assert len(calls(cluster, "sbatch")) == 2


def test_a_second_submission_touches_nothing_of_the_first(machine, tmp_path, cluster, capsys):
    made = machine.at(tmp_path / "runs")
    assert made.run("base", *SLURM) == 0
    folder = made.runs / "base"
    before = {name: (folder / name).read_bytes() for name in ("status.json", "jobs/submitted.json")}
    for more in ((), ("overwrite=true",)):
        assert made.run("base", *SLURM, *more) == 1
        assert "still in the queue" in capsys.readouterr().err
        assert {name: (folder / name).read_bytes() for name in before} == before


def test_what_will_be_cleared_is_planned_anew(based, tmp_path, cluster, capsys):
    made = based.copy(tmp_path / "runs")
    for more, jobs in (((), ["base-finish"]), (("overwrite=true",), ["base-train", "base-finish"])):
        assert made.run("base", *SLURM, *more, "--dry-run") == 0
        told = capsys.readouterr().out
        assert [line.split(": ")[1] for line in told.splitlines() if line.startswith("job ")] == jobs


def test_what_stands_behind_the_matrix_waits_for_it(monkeypatch):
    ended = []

    class Made:
        def __init__(self, name, *, is_shared=False):
            self.name, self.is_shared = name, is_shared

        def finish(self):
            ended.append(self.name)

    callbacks = [Made("merge"), Made("matrix", is_shared=True), Made("later")]
    context = SimpleNamespace(
        experiment=SimpleNamespace(name="gba"),
        part=Part(merges_only=True),
        callbacks=lambda: callbacks,
        folder=SimpleNamespace(path=Path(".")),
    )
    finish_all(context, [])
    assert ended == ["merge"]


# -- Ray ---------------------------------------------------------------------------------------------------------------

RAY = ("launcher=ray", "launcher.init_args.cpus=1", "launcher.init_args.gpus=false", "launcher.init_args.local_cpus=2")
WRITES = (
    "import json, os, sys; from pathlib import Path; file = Path(sys.argv[1]) / os.environ.get('RANK', 'alone'); "
    "file.write_text(json.dumps(dict(os.environ)))"
)


@pytest.fixture
def asked(monkeypatch):
    """A stand-in for Ray; what is asked of it."""
    monkeypatch.setattr(ray, "LOOK", 0.05)
    return made_ray.installed(monkeypatch)


def by_ray(jobs, folder: Path) -> None:
    ray.Ray(ray.Ray.Config(cpus=3)).start(jobs, folder)


def test_ray_s_dry_run_shows_every_task_and_needs_no_ray(machine, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    made = machine.at(tmp_path / "runs")
    assert made.run("gba", *RAY, "launcher.init_args.evaluation_shards=2", "--dry-run") == 0
    told = capsys.readouterr().out
    names = [line.split(": ")[1] for line in told.splitlines() if line.startswith("job ")]
    assert names == ["base-base", "gba-train", "gba-merge", "gba-evaluate", "gba-finish"]
    assert "job 2: gba-train: 2 x 1 node x 1 process, 0 GPUs per node, 1 CPUs per node" in told
    assert f"  alpha > {made.runs}/gba/jobs/2-train-alpha.out" in told
    assert not made.runs.exists()
    assert made.run("base", *RAY) == 1
    assert "pip install -r requirements-ray.txt" in capsys.readouterr().err


@pytest.mark.parametrize(("nodes", "processes"), [(1, 1), (1, 3), (2, 2)])
def test_processes_of_one_task_are_told_of_each_other(tmp_path, asked, nodes, processes):
    task = Task("a", (sys.executable, "-c", WRITES, str(tmp_path)))
    by_ray([Job("train", "made", (task,), nodes, processes, gpus=processes)], tmp_path / "jobs")
    count = nodes * processes
    told = [json.loads((tmp_path / (str(rank) if count > 1 else "alone")).read_text()) for rank in range(count)]
    assert len({one.get("MASTER_PORT") for one in told}) == 1
    assert all(one[LAUNCHED_AS].startswith("ray made a, restarts: 0") for one in told)
    for rank, one in enumerate(told if count > 1 else ()):
        names = ("WORLD_SIZE", "LOCAL_WORLD_SIZE", "LOCAL_RANK", "GROUP_RANK")
        assert [int(one[name]) for name in names] == [count, processes, rank % processes, rank // processes]
        assert one["TORCHELASTIC_RUN_ID"]
    wanted = {"num_cpus": 3 * processes, "num_gpus": processes}
    shares = [settings for name, settings in asked if name == "run_here"]
    assert len(shares) == nodes
    assert all(share.items() >= wanted.items() for share in shares)
    if nodes > 1:
        assert ("STRICT_SPREAD", {"bundles": [{"CPU": 6, "GPU": 2}] * 2}) in asked
        assert asked[-1] == ("removed", {})


def test_ray_starts_what_was_interrupted_again_and_names_what_failed_when_all_have_ended(tmp_path, asked, capsys):
    counts = "import sys; from pathlib import Path; f = Path(sys.argv[1]); n = f.exists() and len(f.read_text()); "
    counts += "f.write_text('x' * (int(n) + 1)); sys.exit(130 if n < 2 else 0)"
    tasks = [Task(name, (sys.executable, "-c", counts, str(tmp_path / name))) for name in ("a", "b")]
    by_ray([Job("train", "made", tuple(tasks))], tmp_path / "jobs")
    assert [(tmp_path / name).read_text() for name in ("a", "b")] == ["xxx", "xxx"]
    assert capsys.readouterr().out.count("interrupted; started again to go on") == 4
    broken = Task("c", (sys.executable, "-c", "print('no such file'); raise SystemExit(3)"))
    slow = Task("d", (sys.executable, "-c", f"import time; time.sleep(1); open('{tmp_path / 'ended'}', 'w')"))
    after = Task("e", (sys.executable, "-c", f"open('{tmp_path / 'after'}', 'w')"))
    with pytest.raises(RuntimeError, match=r"made failed in c: exit code 3, see .*1-train-c\.out"):
        by_ray([Job("train", "made", (broken, slow)), Job("finish", "made", (after,))], tmp_path / "jobs")
    assert (tmp_path / "ended").exists()
    assert not (tmp_path / "after").exists()
    assert "no such file" in (tmp_path / "jobs/1-train-c.out").read_text()


def test_processes_beside_one_that_failed_are_ended(monkeypatch):
    monkeypatch.setattr(ray, "PATIENCE", 0.2)
    monkeypatch.setattr(ray, "LOOK", 0.05)
    commands = (["sleep", "100"], ["sh", "-c", "exit 3"], ["true"])
    began = time.monotonic()
    assert ray.ends_of([subprocess.Popen(command) for command in commands]) == [-15, 3, 0]
    assert time.monotonic() - began < 20
    assert ray.ends_of([subprocess.Popen(["true"]), subprocess.Popen(["sh", "-c", "exit 130"])]) == [0, 130]


def test_without_slurm_the_error_says_where_to_go(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeError, match="login node"):
        Slurm().start([QUICK], tmp_path / "jobs")


@pytest.mark.parametrize(
    ("code", "state", "again"),
    [(130, "RUNNING", 1), (130, "CANCELLED", 0), (130, "PREEMPTED", 0), (1, "RUNNING", 0), (0, "RUNNING", 0)],
)
def test_only_an_interrupted_job_that_nobody_cancelled_is_queued_again(
    tmp_path, cluster, monkeypatch, code, state, again
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "starts").write_text("")
    counts = f"echo >> starts; [ $(wc -l < starts) -gt 1 ] || exit {code}"
    job = Job("train", "ends", (Task("a", ("bash", "-c", counts)),))
    Slurm(Slurm.Config(gpus=False)).start([job], tmp_path / "jobs")
    (cluster.HERE / "squeue").write_text(f"#!/bin/sh\necho {state}\n")
    codes = cluster.run()
    assert len(calls(cluster, "scontrol")) == again
    assert codes == {100: [0 if again else code]}


# -- the same bytes ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_lineage_dealt_out_to_jobs_ends_in_the_bytes_of_one_command(lineage, machine, tmp_path, cluster, capsys):
    dealt = machine.at(tmp_path / "runs")
    assert dealt.run("gba", *SLURM, "launcher.init_args.evaluation_shards=2") == 0
    assert "submitted 100: base-base" in capsys.readouterr().out
    jobs = dealt.runs / "gba/jobs"
    assert json.loads((dealt.runs / "gba/status.json").read_text())["state"] == "submitted"
    assert all(code == 0 for codes in cluster.run().values() for code in codes), logs(jobs)
    for run in ("dsa/alpha", "dsa/beta", "gba/alpha", "gba/beta", "gba/merged/ties", "gba/merged/task_arithmetic"):
        name = f"{run}/adapter/adapter_model.safetensors"
        assert (dealt.runs / name).read_bytes() == (lineage.runs / name).read_bytes(), name
    for name in ("matrix.csv", "predictions.jsonl", "scores.json"):
        assert (dealt.runs / "gba/evaluation" / name).read_bytes() == (
            lineage.runs / "gba/evaluation" / name
        ).read_bytes()
    shares = [(jobs / f"4-evaluate-103_{i}.out").read_text() for i in (0, 1)]
    assert all("answered" in share for share in shares)
    assert json.loads((dealt.runs / "gba/status.json").read_text())["state"] == "finished"
    status = json.loads((dealt.runs / "gba/alpha/status.json").read_text())
    assert status["job"].startswith("slurm job 101_0, restarts: 0")
    assert dealt.run("gba", *SLURM, "--dry-run") == 0
    assert "job 1: gba-finish" in capsys.readouterr().out  # nothing is left to train


@pytest.mark.slow
def test_an_expert_on_two_processes_that_is_stopped_is_queued_again_and_ends_in_the_same_bytes(
    based, tmp_path, cluster
):
    whole, cut = based.copy(tmp_path / "whole"), based.copy(tmp_path / "cut")
    two = ("trainer.devices=2", "trainer.accelerator=cpu", "only=[alpha]", "trainer.max_steps=60", "fit.val_every=14",
           "data.batch_size=3", "callbacks.cards=null", "fit.checkpoint_every_steps=7")  # fmt: skip
    command = [sys.executable, "train.py", "--config", str(whole.files / "dsa.yaml"), f"runs_dir={whole.runs}", *two]
    subprocess.run(command, check=True, cwd=ROOT, capture_output=True)
    assert cut.run("dsa", *SLURM, *two) == 0
    codes = cluster.run(cut.runs / "dsa/alpha/checkpoints/last.ckpt")
    assert codes == {100: [0]}, logs(cut.runs / "dsa/jobs")
    assert len(calls(cluster, "scontrol")) == 1
    assert json.loads((cut.runs / "dsa/alpha/status.json").read_text())["job"].startswith("slurm job 100, restarts: 1")
    name = "dsa/alpha/adapter/adapter_model.safetensors"
    assert (cut.runs / name).read_bytes() == (whole.runs / name).read_bytes()


@pytest.mark.slow
def test_an_expert_on_two_processes_of_ray_is_that_of_one_command(based, bars_module, tmp_path, asked, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(bars_module))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    whole, dealt = based.copy(tmp_path / "whole"), based.copy(tmp_path / "dealt")
    two = ("trainer.devices=2", "trainer.accelerator=cpu", "only=[alpha]", "data.batch_size=3", "callbacks.cards=null")
    command = [sys.executable, "train.py", "--config", str(whole.files / "dsa.yaml"), f"runs_dir={whole.runs}", *two]
    subprocess.run(command, check=True, cwd=ROOT, capture_output=True)
    assert dealt.run("dsa", *RAY, *two) == 0, logs(dealt.runs / "dsa/jobs")
    name = "dsa/alpha/adapter/adapter_model.safetensors"
    assert (dealt.runs / name).read_bytes() == (whole.runs / name).read_bytes()


@pytest.mark.slow
def test_ray_ends_in_the_same_bytes(lineage, based, bars_module, tmp_path):
    if importlib.util.find_spec("ray") is None:
        pytest.skip("ray is not installed: pip install -r requirements-ray.txt")
    dealt = based.copy(tmp_path / "runs")
    asked = ("launcher=ray", "launcher.init_args.cpus=1", "launcher.init_args.gpus=false",
             "launcher.init_args.local_cpus=2", "trainer.accelerator=cpu")  # fmt: skip
    command = [sys.executable, "train.py", "--config", str(dealt.files / "gba.yaml"), f"runs_dir={dealt.runs}", *asked]
    environment = os.environ | {"PYTHONPATH": str(bars_module), "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert ended.returncode == 0, ended.stdout[-2000:] + ended.stderr[-3000:] + logs(dealt.runs / "gba/jobs")
    for run in ("gba/alpha", "gba/beta", "gba/merged/ties"):
        name = f"{run}/adapter/adapter_model.safetensors"
        assert (dealt.runs / name).read_bytes() == (lineage.runs / name).read_bytes(), name
    status = json.loads((dealt.runs / "gba/alpha/status.json").read_text())
    assert status["job"].startswith("ray gba-train alpha, restarts: 0")
