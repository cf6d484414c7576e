"""The model card of a merged agent: what it is made of, how, and what was found."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from artifacts.base_origin import base_name, loading_lines
from merge.report import number, table


def how_to_load(origin: Any) -> list[str]:
    """The lines of Python that load the agent, in Markdown."""
    lines = loading_lines(origin)
    if not lines:
        return ["The experts do not say where their base is from, so no lines to load it can stand here.", ""]
    ours = any("lightning_modules" in line for line in lines)
    where = "this project's root on Python's path" if ours else "peft and transformers (AutoProcessor reads pictures)"
    return ["## Load it", "", f"In this folder, with {where}:", "", "```python", *lines, "```", ""]


def published(origin: Any) -> list[str]:
    """The card's `base_model`, by which the hub links it to its base, where that has a name there."""
    name = base_name(origin) if loading_lines(origin) else ""
    return [f"base_model: {name}"] if re.fullmatch(r"[\w.-]+/[\w.-]+", name) and not Path(name).is_dir() else []


def model_card(recipe: Mapping[str, Any], report: Mapping[str, Any], origin: Any = None) -> str:
    """Markdown for readers; the same merge gives the same text.

    Args:
        recipe: the content of recipe.yaml.
        report: see `merge.report.conflict_report`, with gates.
        origin: of the base, see `artifacts.base_origin`; None where the experts do not say.
    """
    method = recipe["method"]["class_path"].rpartition(".")[2]
    settings = yaml.safe_dump({"method": recipe["method"], "rank": recipe["rank"]}, sort_keys=False).strip()
    sources = [
        [name, f"{recipe['weights'][name]:g}", " + ".join(link["sha256"][:16] for link in chain)]
        for name, chain in recipe["sources"].items()
    ]
    experts = [[n, number(e["retention"]), number(e["interference"])] for n, e in report["experts"].items()]
    found = [f"- {gate['verdict']}: {gate['text']}" for gate in report["gates"]["gates"]]
    lines = [
        "---",
        "library_name: peft",
        "tags: [lora, merge]",
        *published(origin),
        "---",
        f"# Merged agent: {method} over {len(sources)} experts",
        "",
        "A LoRA that stands for several experts of one base model. It is bound to that base by its fingerprint,",
        f"`{recipe['base_fingerprint']}`; on another base it means nothing.",
        "",
        *how_to_load(origin),
        "## Made of",
        "",
        *table(["expert", "weight", "sha256 of the adapters"], sources),
        "```yaml",
        settings,
        "```",
        "",
        f"The LoRA keeps {report['merged']['retained_energy']:.4f} of the merged update's energy at rank "
        f"{report['merged']['rank']['min']} to {report['merged']['rank']['max']}.",
        "",
        "## What was found",
        "",
        f"Gates: **{report['gates']['verdict']}**",
        *found,
        "",
        *table(["expert", "retention", "interference"], experts),
        "The full report stands in `conflict.md`; `recipe.yaml` makes the same bytes again.",
        "",
        "## Limits",
        "",
        "Scores on examinations stand beside the merge, not here. No merged agent is fit for use on patients.",
    ]
    return "\n".join(lines) + "\n"
