"""Merges beside PEFT's and mergekit's: `python -m benchmarks.merge_vs_peers --layers 28 --out results`.

Four experts of rank 64 on the decoder of a model of 1.5 B parameters, LoRA out at rank 64, one thread. Ours is timed
from adapter folders to adapter folders: verified inputs, conflict report, gates, hashes; and once more over the merge
alone, on experts in memory, which is all that PEFT is timed over. mergekit is timed from command to command.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from artifacts.adoption import Base, adopt
from benchmarks.driver import PINNED, ROOT, check_peer, ours_python
from benchmarks.merge_inputs import FINGERPRINT, MergeWork, tensor_name, write_base, write_experts
from benchmarks.merge_work import DENSITY, PEERS, WORKS
from benchmarks.report import number, table
from experiment.provenance import git_state
from merge.factors import Factors
from merge.methods.interface import Experts
from merge.methods.ties import Ties


def worker(python: Path, module: str, work: str, inputs: Path, chosen: argparse.Namespace, folder: Path) -> dict:
    """Run one side once, in a process of its own and an empty folder.

    Raises:
        RuntimeError: it failed; carries the end of what it printed.
    """
    place = folder / work
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    out = folder / "worker.json"
    command = [str(python), "-m", f"benchmarks.{module}", "--inputs", str(inputs), "--folder", str(place)]
    command += ["--out", str(out)]
    command += ["--layers", str(chosen.layers)] if module == "peft_merge" else ["--rank", str(MergeWork.rank)]
    command += ["--work", work] if module != "mergekit_merge" else []
    print(f"{module} {work}", flush=True)
    done = subprocess.run(command, cwd=ROOT, env=os.environ | PINNED, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{module} ended with {done.returncode}:\n{(done.stdout + done.stderr)[-3000:]}")
    return json.loads(out.read_text())


def product(file: Path, name: str, layer: int, scale: float) -> Tensor:
    """The dense update of one module in a LoRA file."""
    with safe_open(file, framework="pt") as held:
        return scale * held.get_tensor(tensor_name(layer, name, "B")) @ held.get_tensor(tensor_name(layer, name, "A"))


def difference(ours: dict[str, Any], peer: dict[str, Any], work: str, inputs: Path) -> dict[str, float]:
    """How far two results differ over the first layer's modules.

    Of adapters, both cut to the same rank; of mergekit's dense checkpoint, before anything is cut. There, entries at
    the threshold fall on either side of it, for mergekit's updates are rounded once more: baked in and subtracted.

    Returns:
        max_abs_diff, and share_apart: the share of entries that differ by more than 1e-6, in [0, 1].
    """
    sizes = MergeWork(layers=1)
    if "lora" in peer:
        mine = Path(ours["adapters"]["task_arithmetic" if work == "five" else work]) / "adapter_model.safetensors"
        gaps = [
            product(mine, name, layer, 1.0) - product(Path(peer["lora"]), name, layer, 1.0)
            for layer, name, _ in sizes.modules()
        ]
    else:
        gaps = [uncut(sizes, layer, name) - changed(inputs, peer, layer, name) for layer, name, _ in sizes.modules()]
    apart = sum((gap.abs() > 1e-6).sum().item() for gap in gaps)
    return {
        "max_abs_diff": max(gap.abs().max().item() for gap in gaps),
        "share_apart": apart / sum(gap.numel() for gap in gaps),
    }


def uncut(sizes: MergeWork, layer: int, name: str) -> Tensor:
    """Our TIES of one module, as it is before it becomes a LoRA."""
    pairs = [sizes.factors(expert, layer, name) for expert in range(sizes.experts)]
    experts = Experts({f"expert{i}": {name: Factors(A, 2.0 * B)} for i, (A, B) in enumerate(pairs)})
    return Ties(Ties.Config(density=DENSITY, trim="tensor")).merge(experts)(name).value


def changed(inputs: Path, peer: dict[str, Any], layer: int, name: str) -> Tensor:
    """What mergekit added to one weight of the base."""
    weight = f"model.layers.{layer}.{name}.weight"
    return tensor_in(Path(peer["dense"]), weight).float() - tensor_in(inputs / "base", weight).float()


def tensor_in(folder: Path, name: str) -> Tensor:
    """A tensor of a checkpoint.

    Raises:
        KeyError: it is in none of the files.
    """
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            if name in file.keys():
                return file.get_tensor(name)
    raise KeyError(f"{folder}: no {name}")


def base_of(work: MergeWork) -> Base:
    """The base of the work as adapters meet it; its weights are never loaded."""
    modules = {f"model.layers.{layer}.{name}": shape for layer, name, shape in work.modules()}
    return Base(FINGERPRINT, modules, {}, {})


def compare(chosen: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Every work, ours and its peers' in turn, `repeats` times."""
    plain, inputs = folder / "plain", folder / "inputs"
    work = MergeWork(layers=chosen.layers)
    for path in write_experts(work, plain):
        adopt(path, inputs / path.name, base=base_of(work))
    shutil.rmtree(plain)
    rows = []
    if any("mergekit_ties" in WORKS[name] for name in chosen.works):
        write_base(work, inputs / "base")
    for name in chosen.works:
        sides = {name: [], **{peer: [] for peer in WORKS[name]}}
        for _ in range(chosen.repeats):
            sides[name].append(worker(ours_python(), "ours_merge", name, inputs, chosen, folder))
            for peer in WORKS[name]:
                module = peer.partition("_")[0] + "_merge"
                sides[peer].append(worker(chosen.peer_python, module, peer, inputs, chosen, folder))
        for peer in WORKS[name]:
            rows.append(row(name, peer, sides, inputs))
    return rows


def row(name: str, peer: str, sides: dict[str, list[dict]], inputs: Path) -> dict[str, Any]:
    """Ours beside one peer: medians over the repeats, ratios (below 1: ours takes less), and how far they differ."""

    def middle(side: str) -> dict[str, float]:
        keys = [key for key in ("cpu_s", "alone_cpu_s", "peak_added_mib") if key in sides[side][0]]
        return {key: statistics.median(one[key] for one in sides[side]) for key in keys}

    ours, other = middle(name), middle(peer)
    return {
        "work": name,
        "ours": ours | {"energy": sides[name][-1]["energy"]},
        "peer": {"name": PEERS[peer]} | other,
        "ratio_cpu": ours["cpu_s"] / other["cpu_s"],
        "ratio_cpu_alone": ours["alone_cpu_s"] / other["cpu_s"],
        "ratio_memory": ours["peak_added_mib"] / other["peak_added_mib"],
        **difference(sides[name][-1], sides[peer][-1], name, inputs),
        "repeats": {"ours": sides[name], "peer": sides[peer]},
    }


def markdown(rows: list[dict[str, Any]], chosen: argparse.Namespace) -> str:
    """The comparison as a table."""
    head = [
        "work",
        "against",
        "CPU s",
        "merge alone",
        "peer's",
        "ratio",
        "alone",
        "MiB added",
        "peer's",
        "ratio",
        "largest difference",
        "entries apart",
    ]
    lines = [head]
    for one in rows:
        cells = [one["work"].replace("_", " "), one["peer"]["name"]]
        cells += map(number, (one["ours"]["cpu_s"], one["ours"]["alone_cpu_s"], one["peer"]["cpu_s"]))
        cells += [f"1/{1 / one['ratio_cpu']:.1f}", f"1/{1 / one['ratio_cpu_alone']:.1f}"]
        cells += map(number, (one["ours"]["peak_added_mib"], one["peer"]["peak_added_mib"]))
        cells.append(f"1/{1 / one['ratio_memory']:.1f}")
        lines.append([*cells, f"{one['max_abs_diff']:.1e}", f"{one['share_apart']:.1e}"])
    title = f"### Merging four experts of rank 64 at rank 64, {chosen.layers} layers, one thread, n = {chosen.repeats}"
    return "\n".join([title, "", *table(lines), ""])


def main(given: list[str] | None = None) -> Path:
    """Run the benchmark and write its result."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--layers", type=int, default=28)
    parser.add_argument("--repeats", type=int, default=1, help="processes per side")
    parser.add_argument("--works", nargs="+", choices=list(WORKS), default=list(WORKS))
    parser.add_argument("--out", type=Path, required=True, help="JSON file, or a folder to write it to")
    parser.add_argument("--peer-python", type=Path, default=ROOT / ".venv-bench" / "bin" / "python")
    chosen = parser.parse_args(given)
    if chosen.layers < 1 or chosen.repeats < 1:
        parser.error("--layers and --repeats must be at least 1")
    chosen.peer_python = chosen.peer_python.absolute()  # not resolved: a venv's python is a link
    check_peer(chosen.peer_python)
    path = chosen.out if chosen.out.suffix == ".json" else chosen.out / f"merge_vs_peers_{chosen.layers}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        rows = compare(chosen, Path(folder))
    for one in rows:
        one["git"] = git_state(ROOT)
    path.write_text(json.dumps(rows, indent=1) + "\n")
    path.with_suffix(".md").write_text(markdown(rows, chosen))
    print(markdown(rows, chosen), flush=True)
    return path


if __name__ == "__main__":
    main()
