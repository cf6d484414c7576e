"""Start worker processes one after the other, ours and the peer's in turn, and put their results side by side."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import made_model, work
from benchmarks.clock import medians
from benchmarks.report import markdown
from experiment.provenance import git_state

ROOT = Path(__file__).resolve().parents[1]
PINNED = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "RAYON_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "CUDA_VISIBLE_DEVICES": "",
}
"""One thread, no network, no GPU."""


def arguments(description: str, works: Sequence[str], given: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line of a benchmark.

    Args:
        description: of the benchmark.
        works: kinds of work it knows.
        given: command line; None takes the process's own.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--size", choices=list(made_model.SIZES), required=True, help="parameters of the made model")
    parser.add_argument("--work", choices=list(works), default=works[0])
    parser.add_argument("--repeats", type=int, default=3, help="processes per side")
    parser.add_argument(
        "--steps", type=int, default=5, help=f"per process, after one of warm-up; 1 to {work.MAX_STEPS - 1}"
    )
    parser.add_argument("--out", type=Path, required=True, help="JSON file, or a folder to write it to")
    parser.add_argument("--peer-python", type=Path, default=ROOT / ".venv-bench" / "bin" / "python", help="TRL's")
    chosen = parser.parse_args(given)
    if not 1 <= chosen.steps < work.MAX_STEPS or chosen.repeats < 1:
        parser.error(f"--steps must lie in 1..{work.MAX_STEPS - 1} and --repeats be at least 1")
    chosen.peer_python = chosen.peer_python.absolute()  # not resolved: a venv's python is a link
    return chosen


def check_peer(python: Path) -> None:
    """Say how to make the peer's environment if it is not there.

    Raises:
        SystemExit: it is not there.
    """
    if not python.exists():
        raise SystemExit(
            f"--peer-python {python}: no such file. TRL needs an environment of its own:\n"
            "  python -m venv .venv-bench && .venv-bench/bin/pip install -r requirements-bench.txt"
        )


def run_worker(python: Path, module: str, chosen: argparse.Namespace, folder: Path, *more: str) -> dict[str, Any]:
    """Run one worker to its end.

    Args:
        python: of its environment.
        module: name in this package.
        chosen: size, work and steps.
        folder: of the tokenizer.
        more: further arguments of the worker.

    Raises:
        RuntimeError: the worker failed; carries the end of what it printed.
    """
    out = folder / "worker.json"
    out.unlink(missing_ok=True)
    size, kind, steps = chosen.size, chosen.work, str(chosen.steps)
    command = [str(python), "-m", f"benchmarks.{module}", "--size", size, "--work", kind, "--steps", steps]
    command += ["--folder", str(folder), "--out", str(out), *more]
    print(f"{module} {' '.join(more)}".strip(), flush=True)
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | PINNED,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"benchmarks.{module} ended with {done.returncode}:\n{done.stdout[-3000:]}")
    return json.loads(out.read_text())


def in_turn(chosen: argparse.Namespace, folder: Path, sides: dict[str, tuple[Path, str]]) -> dict[str, list[dict]]:
    """Run both sides `repeats` times: ours, peer, ours, peer, so that what the machine does besides hits both.

    Args:
        chosen: command line.
        folder: of the tokenizer.
        sides: name -> (python, module).
    """
    found: dict[str, list[dict]] = {name: [] for name in sides}
    for _ in range(chosen.repeats):
        for name, (python, module) in sides.items():
            found[name].append(run_worker(python, module, chosen, folder))
    return found


def middle(repeats: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians over processes of what each process's median step took."""
    return {
        "cpu_s": statistics.median(one["cpu_s"] for one in repeats),
        "peak_added_mib": statistics.median(one["peak_added_mib"] for one in repeats),
        "phases": medians([one["phases"] for one in repeats]),
        "counts": medians([one["counts"] for one in repeats]),
        "values": medians([values_of(one) for one in repeats]),
    }


def values_of(repeat: dict[str, Any]) -> dict[str, float]:
    """Means over the counted steps of what a process's trainer reported."""
    steps = [{k: v for k, v in step.items() if k not in ("cpu_s", "wall_s")} for step in repeat["per_step"][1:]]
    names = dict.fromkeys(name for step in steps for name in step)
    return {name: statistics.fmean(step[name] for step in steps if name in step) for name in names}


def beside(repeats: dict[str, list[dict]], fixed: dict[str, dict[str, float]]) -> dict[str, Any]:
    """Both sides' medians, their ratios (below 1: ours takes less) and the fixed batch.

    Args:
        repeats: "ours" and "peer" -> results of their processes.
        fixed: "ours" and "peer" -> loss and gradient norm.
    """
    ours, peer = middle(repeats["ours"]), middle(repeats["peer"])
    difference = {name: fixed["ours"][name] - fixed["peer"][name] for name in fixed["ours"]}
    return {
        "ours": ours,
        "peer": peer,
        "ratio_cpu": ours["cpu_s"] / peer["cpu_s"],
        "ratio_memory": ours["peak_added_mib"] / peer["peak_added_mib"],
        "fixed_batch": {**fixed, "difference": difference},
        "versions": {name: found[0]["versions"] for name, found in repeats.items()},
        "repeats": repeats,
    }


def write(result: dict[str, Any], chosen: argparse.Namespace, name: str) -> Path:
    """Write a result as JSON, and as a table beside it.

    Args:
        result: of the benchmark.
        chosen: command line.
        name: of the benchmark; names the file where `--out` is a folder.

    Returns:
        The JSON file.
    """
    path = chosen.out if chosen.out.suffix == ".json" else chosen.out / f"{name}_{chosen.size}_{chosen.work}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    facts = {"benchmark": name, "size": chosen.size, "work": chosen.work, "steps": chosen.steps}
    machine = {"python": platform.python_version(), "processor": platform.machine(), "cores": os.cpu_count()}
    result = facts | result | {"git": git_state(ROOT), "machine": machine}
    path.write_text(json.dumps(result, indent=1) + "\n")
    path.with_suffix(".md").write_text(markdown(result))
    print(markdown(result), flush=True)
    return path


def ours_python() -> Path:
    """The environment that this driver runs in."""
    return Path(sys.executable)
