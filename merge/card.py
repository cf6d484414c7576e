"""The model card of a merged agent: what it is made of, how, and what was found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from merge.report import number, table


def model_card(recipe: Mapping[str, Any], report: Mapping[str, Any]) -> str:
    """Markdown for readers; the same merge gives the same text.

    Args:
        recipe: the content of recipe.yaml.
        report: see `merge.report.conflict_report`, with gates.
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
        "---",
        f"# Merged agent: {method} over {len(sources)} experts",
        "",
        "A LoRA that stands for several experts of one base model. It is bound to that base by its fingerprint,",
        f"`{recipe['base_fingerprint']}`; on another base it means nothing.",
        "",
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
