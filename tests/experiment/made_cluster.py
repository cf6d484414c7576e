"""Stands in for SLURM: `sbatch`, `squeue`, `srun`, `scontrol` and `scancel` that keep their arguments and run here.

Made after sbatch(1) and srun(1) of SLURM 24.05: what is parsed, the variables that tasks are given, which signals go
where, and that a job queued again keeps its number. Run as `<name> arguments...`, the name being a link to this file.
"""

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(os.environ.get("MADE_CLUSTER", "."))  # the default is for who only reads this file


def installed(folder: Path, monkeypatch):
    """Put the stand-ins on PATH; returns the module that runs what was submitted to them."""
    folder.mkdir()
    for name in ("sbatch", "squeue", "srun", "scontrol", "scancel"):
        program = folder / name
        program.write_text(f"#!{sys.executable}\n" + Path(__file__).read_text())
        program.chmod(0o755)
    monkeypatch.setenv("MADE_CLUSTER", str(folder))
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    spec = importlib.util.spec_from_file_location("made_cluster", __file__)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def jobs() -> list[dict]:
    return json.loads((HERE / "jobs.json").read_text()) if (HERE / "jobs.json").exists() else []


def keep(found: list[dict]) -> None:
    (HERE / "jobs.json").write_text(json.dumps(found))


def sbatch(arguments: list[str]) -> int:
    given = dict(one.removeprefix("--").partition("=")[::2] for one in arguments[:-1])
    lines = re.findall(r"^#SBATCH --([a-z-]+)=?(.*)$", Path(arguments[-1]).read_text(), re.M)
    found, options = jobs(), given | dict(lines)
    if options.get("partition") == "closed":
        print("sbatch: error: partition closed is down", file=sys.stderr)
        return 1
    identifier = 100 + len(found)
    keep([*found, {"id": identifier, "options": options, "script": arguments[-1], "state": "PENDING"}])
    print(f"{identifier};made")
    return 0


def squeue(arguments: list[str]) -> int:
    given = dict(one.removeprefix("--").partition("=")[::2] for one in arguments)
    found = {str(job["id"]): job["state"] for job in jobs()}
    number = given["jobs"].partition("_")[0]
    if number not in found:
        print("slurm_load_jobs error: Invalid job id specified", file=sys.stderr)
        return 1
    if found[number] not in ("COMPLETED", "FAILED"):
        print({"%T": found[number], "%i": number}[given["format"]])
    return 0


def scontrol(arguments: list[str]) -> int:
    verb, job = arguments
    assert verb == "requeue"
    (HERE / f"requeue-{job}").touch()
    return 0


def scancel(arguments: list[str]) -> int:
    keep([job | {"state": "FAILED"} if str(job["id"]) in arguments else job for job in jobs()])
    return 0


def srun(arguments: list[str]) -> int:
    while arguments[0].startswith("--"):
        arguments = arguments[1:]
    tasks = int(os.environ["SLURM_NTASKS"])
    step = {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": str(tasks), "SLURM_NODEID": "0"}
    running = [
        subprocess.Popen(arguments, env=os.environ | step | {"SLURM_PROCID": str(i), "SLURM_LOCALID": str(i)})
        for i in range(tasks)
    ]
    signal.signal(signal.SIGTERM, lambda *_: [one.terminate() for one in running])
    return max(one.wait() for one in running)


def work(job: dict, task: int | None, preempt_at: Path | None) -> int:
    """A task to its end, with a signal to its script when a file appears, and again when it queued itself again."""
    options, restarts = job["options"], 0
    number = str(job["id"]) + (f"_{task}" if task is not None else "")
    while True:
        array = {"SLURM_ARRAY_JOB_ID": str(job["id"]), "SLURM_ARRAY_TASK_ID": str(task)} if task is not None else {}
        environment = os.environ | array | {
            "SLURM_JOB_ID": number,
            "SLURM_JOB_NAME": options["job-name"],
            "SLURM_NTASKS": options["ntasks-per-node"],
            "SLURM_NTASKS_PER_NODE": options["ntasks-per-node"],
            "SLURM_NNODES": options["nodes"],
            "SLURM_CPUS_PER_TASK": options["cpus-per-task"],
            "SLURM_PROCID": "0",
            "SLURM_RESTART_COUNT": str(restarts),
            "MASTER_PORT": str(20000 + (os.getpid() + 7 * job["id"]) % 20000),
        }  # fmt: skip
        output = re.sub("%%|%A_%a|%j", lambda found: "%" if found[0] == "%%" else number, options["output"])
        with open(output, "a") as file:
            running = subprocess.Popen(["bash", job["script"]], env=environment, stdout=file, stderr=subprocess.STDOUT)
            while running.poll() is None and preempt_at is not None:
                if preempt_at.exists():
                    running.send_signal(signal.SIGTERM)
                    preempt_at = None
                time.sleep(0.05)
            code = running.wait()
        again = HERE / f"requeue-{number}"
        if not again.exists():
            return code
        again.unlink()
        restarts += 1


def run(preempt_at: Path | None = None) -> dict[int, list[int]]:
    """Run what was submitted, arrays side by side, each job after the one that it waits for; returns exit codes."""
    codes: dict[int, list[int]] = {}
    for job in jobs():
        after = job["options"].get("dependency", "").removeprefix("afterok:")
        if job["state"] == "FAILED" or (after and any(codes[int(after)])):
            codes[job["id"]] = [1]
            continue
        last = job["options"].get("array", "").partition("%")[0].rpartition("-")[2]
        keep([one | {"state": "RUNNING"} if one["id"] == job["id"] else one for one in jobs()])
        numbers = range(int(last) + 1) if last else [None]
        children = []
        for number in numbers:
            child = os.fork()
            if child == 0:
                code = 255
                try:
                    code = work(job, number, preempt_at if number in (0, None) else None) & 255
                finally:
                    os._exit(code)  # whatever happens: no second pytest
            children.append(child)
        codes[job["id"]] = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        state = "FAILED" if any(codes[job["id"]]) else "COMPLETED"
        keep([one | {"state": state} if one["id"] == job["id"] else one for one in jobs()])
    return codes


if __name__ == "__main__":
    called = Path(sys.argv[0]).name
    with open(HERE / "calls.jsonl", "a") as log:
        log.write(json.dumps([called, *sys.argv[1:]]) + "\n")
    sys.exit(
        {"sbatch": sbatch, "squeue": squeue, "srun": srun, "scontrol": scontrol, "scancel": scancel}[called](
            sys.argv[1:]
        )
    )
