"""Our side of the merge benchmark: recipes from adapter folders to adapter folders, reports and hashes included."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.clock import PeakMemory, versions
from benchmarks.merge_work import DENSITY, FIVE, WORKS
from merge.factors import TaskVector
from merge.methods.interface import Experts
from merge.recipe import Recipe, Source, build_method
from merge.run import ADAPTER, run_recipes
from merge.sources import open_sources
from merge.truncation import cut

METHODS: dict[str, dict[str, Any]] = {
    "task_arithmetic": {"class_path": "merge.methods.task_arithmetic.TaskArithmetic"},
    # Per matrix, as both peers trim; the paper trims over the whole expert, which takes the same time.
    "ties": {"class_path": "merge.methods.ties.Ties", "init_args": {"density": DENSITY, "trim": "tensor"}},
    "swudi_a": {"class_path": "merge.methods.swudi.Swudi"},
    "core_ties": {"class_path": "merge.methods.core_ties.CoreTies", "init_args": {"density": DENSITY}},
    "iso_c": {"class_path": "merge.methods.iso_c.IsoC"},
    "tsv_m": {"class_path": "merge.methods.tsv_m.TsvM"},
}


def alone(recipes: list[Recipe]) -> float:
    """CPU seconds of the merges and cuts by themselves, on experts in memory: what PEFT is timed over."""
    opened = open_sources(recipes[0]).experts
    held = {name: TaskVector({m: vector[m] for m in opened.modules}) for name, vector in opened.vectors.items()}
    experts = Experts(held, opened.weights)
    started = time.process_time()
    modules = [recipe.method.merge(experts) for recipe in recipes]
    for name in experts.modules:
        ranks = [f.rank for f in experts.factors(name)]
        for recipe, module in zip(recipes, modules, strict=True):
            cut(module(name).value, recipe.rank, ranks, experts.cores(name))
    return time.process_time() - started


def main(given: list[str] | None = None) -> None:
    """Run one piece of work and write what it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=Path, required=True)
    parser.add_argument("--work", choices=list(WORKS), required=True)
    parser.add_argument("--rank", type=int, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    chosen = parser.parse_args(given)
    torch.set_num_threads(1)
    sources = {path.name: [Source(path)] for path in sorted(chosen.inputs.glob("expert*"))}
    names = FIVE if chosen.work == "five" else (chosen.work,)
    recipes = []
    for name in names:
        method = build_method(METHODS[name]["class_path"], METHODS[name].get("init_args", {}))
        recipes.append(Recipe(sources, method, chosen.folder / name, rank=chosen.rank, gate="warn"))
    with PeakMemory() as memory:
        started = time.process_time()
        done = run_recipes(recipes)
        cpu_s = time.process_time() - started
    result = {
        "cpu_s": cpu_s,
        "alone_cpu_s": alone(recipes),
        "peak_added_mib": memory.added_mib,
        "energy": {name: summary.retained_energy for name, summary in zip(names, done, strict=True)},
        "adapters": {name: str(summary.out / ADAPTER) for name, summary in zip(names, done, strict=True)},
        "versions": versions("torch", "safetensors"),
    }
    chosen.out.write_text(json.dumps(result))


if __name__ == "__main__":
    main()
