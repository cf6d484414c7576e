"""The report of a sweep: Markdown, a picture, CSV and JSON with every number; the same answers give the same bytes."""

from __future__ import annotations

import csv
import io
import json
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from artifacts.durable import write_text
from artifacts.manifest import file_sha256
from configs.files import spelled
from configs.show import flattened
from evaluation.detectable import smallest_by_error
from experiment.claim import RECORDS
from experiment.sweep.answers import FILE
from experiment.sweep.budget import given
from experiment.sweep.report_figure import figure
from experiment.sweep.report_text import PICTURE, markdown_report
from experiment.sweep.results import Results
from experiment.sweep.runs import RESERVED, Run, Runs, examiner

NAME = "report"


def write_report(runs: Runs, results: Results, recorded: Mapping[str, Any], more: Sequence[str] = ()) -> Path:
    """Write the four files; Markdown last, so that where it stands the others do.

    Args:
        runs: of the sweep.
        results: its figures.
        recorded: what sweep.json holds.
        more: further words of the command.

    Returns:
        The Markdown file.
    """
    content = content_of(runs, results, recorded, more)
    root = runs.file.root
    write_text(root / f"{NAME}.json", json.dumps(without_nan(content), indent=2, ensure_ascii=False) + "\n")
    write_text(root / f"{NAME}.csv", csv_report(content))
    figure(content).savefig(root / PICTURE, dpi=150)
    write_text(root / f"{NAME}.md", markdown_report(content) + "\n")
    return root / f"{NAME}.md"


def content_of(runs: Runs, results: Results, recorded: Mapping[str, Any], more: Sequence[str]) -> dict[str, Any]:
    """Everything that is told, as plain data."""
    sweep, file = runs.file.sweep, runs.file
    contrasts = [results.primary, *results.exploratory]
    return {
        "name": sweep.name,
        "question": sweep.question,
        "command": shlex.join(["python", "-m", "experiment.sweep", file.named, *file.overrides, *more]),
        "plan_sha256": recorded["first_sha256"],
        "git": recorded["git"],
        "extensions": [
            {key: one[key] for key in ("arms", "seeds", "finished_before")} for one in recorded["extensions"]
        ],
        "fixed": recorded["fixed"],
        "planned_detectable": planned_detectable(sweep.primary.spread, len(sweep.seeds), sweep.primary.confidence),
        "primary": told(contrasts[0]),
        "beside": {name: asdict(figures) for name, figures in results.beside.items()},
        "arms": {arm: {name: asdict(one) for name, one in found.items()} for arm, found in results.arms.items()},
        "beneath": {name: {n: asdict(one) for n, one in found.items()} for name, found in results.beneath.items()},
        "given": {run.arm: given([run]) for run in reversed(results.runs)},
        "by_seed": [asdict(row) for row in results.by_seed],
        "exploratory": [told(one) for one in contrasts[1:]],
        "tuning": {arm: tuned(choice) for arm, choice in results.choices.items() if choice is not None},
        "differences": differences(results.runs),
        "runs": [answers_told(run, file.root) for run in results.runs],
    }


def planned_detectable(spread: float, seeds: int, confidence: float) -> float:
    """The smallest difference that so many seeds find with 80 % at a spread of the paired differences."""
    return smallest_by_error(spread / math.sqrt(seeds), seeds - 1, alpha=1 - confidence)


def told(one: Any) -> dict[str, Any]:
    """A contrast as plain data."""
    figures = {name: asdict(figure) for name, figure in one.figures.items()}
    by_seed = {str(seed): value for seed, value in one.by_seed.items()}
    return {"arm": one.arm, "against": one.against, "figures": figures, "by_seed": by_seed, "p_holm": one.p_holm}


def tuned(choice: Any) -> dict[str, Any]:
    """What tuning came to, as plain data."""
    return {
        "taken": choice.taken,
        "at_the_edge": choice.at_the_edge,
        "tried": [asdict(one) for one in choice.tried],
    }


def answers_told(run: Run, root: Path) -> dict[str, Any]:
    """Where a run's answers lie, their hash, and the command that made them."""
    path = run.folder / FILE
    command = ["python", "train.py", "--config", spelled(run.config), *run.arguments]
    return {
        "run": run.label,
        "arm": run.arm,
        "seed": run.seed,
        "answers": path.relative_to(root).as_posix(),
        "sha256": file_sha256(path),
        "command": shlex.join(command),
    }


def differences(made: Sequence[Run]) -> dict[str, dict[str, Any]]:
    """Every setting that is not the same in all arms: key -> arm -> value; NAME:key of required experiments."""
    found: dict[str, dict[str, Any]] = {}
    first = {run.arm: run for run in reversed(made)}
    arms = sorted(first, key=lambda arm: [run.arm for run in made].index(arm))
    for arm in arms:
        loaded = first[arm].loaded
        whole = {None: loaded.resolved, **{called: one.resolved for called, one in loaded.beneath.items()}}
        for called, settings in whole.items():
            kept = {key: value for key, value in settings.items() if key not in (*RESERVED, *RECORDS, "description")}
            for key, value in flattened(kept).items():
                name = key if called is None else f"{called}:{key}"
                found.setdefault(name, {})[arm] = value
    own = f"callbacks.{examiner(first[arms[0]].loaded)}.init_args.rows_at_once"
    absent = "not there"
    return {
        key: {arm: values.get(arm, absent) for arm in arms}
        for key, values in found.items()
        if key != own and any(values.get(arm, absent) != values.get(arms[0], absent) for arm in arms)
    }


def without_nan(value: Any) -> Any:
    """The same with null for what cannot be told: JSON has no such number."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


FIGURES = ("mean", "low", "high", "sd", "df", "p", "detectable", "se_seed", "se_patient", "se_item")
FIGURES += ("crossed_low", "crossed_high", "crossed_df", "seeds", "n", "n_clusters")
COLUMNS = ("table", "arm", "against", "seed", "specialty", *FIGURES, "p_holm", "settings", "taken", "answers_sha256")


def csv_report(content: Mapping[str, Any]) -> str:
    """All tables below each other, told apart by their first column; fractions, empty where nothing can be told."""
    rows: list[dict[str, Any]] = []
    for one, table in [(content["primary"], "primary"), *((one, "exploratory") for one in content["exploratory"])]:
        for index, (specialty, figures) in enumerate(one["figures"].items()):
            p_holm = {"p_holm": one["p_holm"]} if table == "exploratory" and not index else {}
            named = {"table": table, "arm": one["arm"], "against": one["against"], "specialty": specialty}
            rows.append({**named, **figures, **p_holm})
    for name, figures in content["beside"].items():
        named = {"table": "beside", "arm": content["primary"]["arm"], "against": content["primary"]["against"]}
        rows.append({**named, "specialty": name, **figures})
    arms = [("arm", arm, columns) for arm, columns in content["arms"].items()]
    for table, arm, columns in [*arms, *(("beneath", name, found) for name, found in content["beneath"].items())]:
        # That an arm's accuracy is not 0 is no finding.
        shown = {name: {**figures, "p": math.nan, "detectable": math.nan} for name, figures in columns.items()}
        rows += [{"table": table, "arm": arm, "specialty": name, **figures} for name, figures in shown.items()]
    hashes = {(run["arm"], run["seed"]): run["sha256"] for run in content["runs"]}
    for row in content["by_seed"]:
        own = {"mean": row["accuracy"], "answers_sha256": hashes[row["arm"], row["seed"]]}
        rows.append({"table": "by patient within a seed", **row, **own})
    for arm, found in content["tuning"].items():
        for one in found["tried"]:
            named = {"table": "tuning", "arm": arm, "mean": one["mean"], "seeds": len(one["scores"])}
            rows.append({**named, "settings": json.dumps(one["values"]), "taken": one["point"] == found["taken"]})
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, restval="", extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: "" if value is None else value for key, value in without_nan(row).items()} for row in rows)
    return out.getvalue()
