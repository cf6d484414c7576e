"""How large the adapters of a run are, told before any of them is loaded, or even made."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from artifacts.adapter_files import CONFIG, read_json
from callbacks.merge_experts import MergeExperts
from configs.build import config_of, import_class
from experiment.integration import start_places
from experiment.judges import judge_models
from experiment.lineage import Lineage


def acting_ranks(context: Lineage, run: str) -> list[int]:
    """Ranks of the adapters that act while a run learns; the one that learns is the last."""
    own = rank_set(context)
    if context.integrates:
        return [student_rank(context, own)]
    return [*(rank_set(parent) for parent in context.beneath(run)), own]


def held_ranks(context: Lineage) -> list[int]:
    """Ranks of those that are held beside them: teachers, and judges."""
    if context.integrates:
        return [rank_set(parent) for specialty in context.specialties for parent in context.beneath(specialty)]
    return [rank_at(judge.folder) for judge in judge_models(context)]


def rank_set(context: Lineage) -> int:
    """The rank that an experiment's stage gives its adapter."""
    return config_of(context.experiment.module).lora_rank


def rank_at(folder: Path) -> int:
    """The largest rank that an adapter has in any layer."""
    config = read_json(folder / CONFIG)
    return max(config["r"], *(config.get("rank_pattern") or {}).values(), 1)


def student_rank(context: Lineage, own: int) -> int:
    """That of the adapter which an agent starts from; `own` where it starts from zero."""
    places = start_places(context)
    if not places:
        return own
    made = next((place for place in places if (place / CONFIG).is_file()), None)
    return rank_at(made) if made is not None else merged_rank(context, held_ranks(context))


def merged_rank(context: Lineage, ranks: Sequence[int]) -> int:
    """The most that a merge which is yet to be made can have, of experts of these ranks."""
    start = context.resolved["module"]["init_args"]["start"]
    asked = next((merge.rank for merge in merges(context) if start in merge.names), "sum")
    if isinstance(asked, int):
        return asked
    return max(ranks) if asked == "max" else sum(ranks)


def merges(context: Lineage) -> Iterator[MergeExperts.Config]:
    """What the experiments beneath merge, the newest first."""
    for parent in reversed(context.lineage[:-1]):
        for callback in parent.experiment.callbacks.values():
            if callback is not None and issubclass(import_class(callback.class_path), MergeExperts):
                yield config_of(callback)
