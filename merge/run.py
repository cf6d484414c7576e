"""Merge adapters into one: read, combine, cut, report, examine, write. Nothing is cached by path, all by content.

One module is in memory at a time, and the work is done on one thread: sums that are split otherwise round otherwise,
and the merged agent's bytes shall depend on the recipe alone.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from artifacts.adapter_checks import is_finite
from artifacts.adapter_files import AdapterError, adapter_sha256, verified, write_adapter_with
from artifacts.adoption import Base
from artifacts.durable import write_text
from artifacts.manifest import MANIFEST, entry_of, read_manifest, verify, write_manifest
from artifacts.tensor_stream import write_tensors
from merge.card import model_card
from merge.conflict import between_experts, with_merged
from merge.factors import Factors
from merge.gates import Examination, Gate, gates_on_answers, gates_on_reading, gates_on_updates, summary
from merge.methods.interface import Experts, MergeMethod, Update
from merge.parts import PREFIX, Parts
from merge.peft_layout import merged_config
from merge.recipe import Recipe, Source, identity, written_form
from merge.report import conflict_report, to_json, to_markdown
from merge.sources import Opened, open_sources
from merge.truncation import cut, parse_rank

ADAPTER, RECIPE, CONFLICT_JSON, CONFLICT_MD, CARD = (
    "adapter",
    "recipe.yaml",
    "conflict.json",
    "conflict.md",
    "README.md",
)
DENSE = "dense"
FORMAT = "merge/1"
BOARD = ("events.out.tfevents.*", "board.manifest.json")
"""What others draw of a merged agent beside it."""
REJECTED = "rejected"
"""Folder below a merged agent's that keeps what the gates rejected."""


@dataclass(frozen=True)
class MergeSummary:
    """What a merge did."""

    out: Path
    """Folder that holds the adapter and its reports; below the recipe's `out` where the merge was rejected."""
    sha256: str
    """Of the merged adapter's weights."""
    skipped: bool
    """True: the same recipe had been carried out before, and its files were verified."""
    retained_energy: float
    """Share of the merged update that the chosen rank keeps, in [0, 1]."""
    report: dict[str, Any]
    """See `merge.report.conflict_report`; `gates` holds what the gates found."""

    @property
    def accepted(self) -> bool:
        """Whether the gates let it through, or were told to."""
        return self.out.name != REJECTED


def merge_adapters(
    sources: Mapping[str, Sequence[Path]],
    method: MergeMethod,
    out: Path,
    *,
    base_fingerprint: str | None,
    rank: int | str = "sum",
    weights: Mapping[str, float] | None = None,
    gate: str = "reject",
    grams: Mapping[str, Path] | None = None,
    manifest_extra: Mapping[str, Any] | None = None,
    examination: Examination | None = None,
) -> MergeSummary:
    """Merge experts and write out/{adapter/, recipe.yaml, conflict.json, conflict.md, README.md}.

    The result depends on the names and contents of the sources, not on their order or place. Where `out` already holds
    the result of the same recipe, it is verified and left; anything else there is replaced.

    Args:
        sources: expert name -> chain of adapter folders, summed into one task vector before the method sees them.
        method: an instance of a class in `merge.methods`.
        out: folder of the merged agent; the adapter is written last.
        base_fingerprint: of the base that the agent is for; None takes the one that the sources agree on.
        rank: of the merged adapter: an integer, "sum", "max" or "energy:0.95".
        weights: expert name -> factor; 1 where not given.
        gate: "reject" keeps a merge that the gates reject apart, in out/rejected/; "warn" lets it through.
        grams: expert name -> file of Gram matrices, for methods that need them.
        manifest_extra: manifest keys (e.g. experiment, git) for the merged adapter; its `extra` is added to ours.
        examination: asks the agent questions, for the gates; None leaves its answers out.

    Returns:
        What was done.

    Raises:
        AdapterError: a source is incomplete, unsafe, of another base, or not the child of its forerunner.
        ValueError: experts, weights or rank do not fit, or the result is not finite.
        OSError: the disk is full.
    """
    chains = {name: [Source(Path(path)) for path in chain] for name, chain in sources.items()}
    recipe = Recipe(
        chains, method, Path(out), base_fingerprint, rank, dict(weights or {}), gate=gate, grams=dict(grams or {})
    )
    return run_recipe(recipe, manifest_extra=manifest_extra, examination=examination)


def run_recipe(
    recipe: Recipe,
    *,
    manifest_extra: Mapping[str, Any] | None = None,
    examination: Examination | None = None,
    base: Base | None = None,
) -> MergeSummary:
    """Carry out a recipe; see `merge_adapters` and `run_recipes`."""
    return run_recipes([recipe], manifest_extra=manifest_extra, examination=examination, base=base)[0]


def run_recipes(
    recipes: Sequence[Recipe],
    *,
    manifest_extra: Mapping[str, Any] | None = None,
    examination: Examination | None = None,
    base: Base | None = None,
) -> list[MergeSummary]:
    """Carry out several recipes on the same sources, going through the modules once; see `merge_adapters`.

    Args:
        recipes: of the same sources.
        manifest_extra: see `merge_adapters`.
        examination: see `merge_adapters`.
        base: in memory; the sources' layers must be its own.
    """
    for recipe in recipes:
        parse_rank(recipe.rank)
        same = ("sources", "weights", "grams", "missing", "base_fingerprint")
        if any(getattr(recipe, key) != getattr(recipes[0], key) for key in same):
            raise ValueError("recipes that run together must have the same sources, weights and Gram matrices")
    with one_thread():
        opened = open_sources(recipes[0], base)
        found: dict[int, MergeSummary] = {}
        jobs: dict[int, Job] = {}
        for number, recipe in enumerate(recipes):
            written = written_form(recipe, opened.fingerprint, opened.hashes, opened.gram_hashes)
            parts_of = identity(written)
            whole = text_sha256(parts_of + to_json(examination.protocol)) if examination else parts_of
            if (earlier := finished_before(recipe.out, whole, parts_of if examination is None else None)) is not None:
                remove_parts(recipe.out)
                found[number] = earlier
            else:
                module = recipe.method.merge(opened.experts)
                parts = Parts(recipe.out, parts_of, opened.experts.modules)
                jobs[number] = Job(recipe, written, parts_of, whole, module, parts, examination)
        for name in opened.experts.modules:
            todo = [job for job in jobs.values() if name not in job.parts.facts]
            among = facts_of_experts(opened.experts, name) if todo else {}
            for job in todo:
                factors, facts = merged_module(opened.experts, name, job.module(name), job.recipe.rank)
                job.parts.put(name, factors, among | facts)
        found |= {number: job.write(opened, manifest_extra or {}) for number, job in jobs.items()}
    return [found[number] for number in range(len(recipes))]


def report_of(recipe: Recipe) -> dict[str, Any]:
    """The conflict report of a recipe, without writing anything."""
    parse_rank(recipe.rank)
    with one_thread():
        opened = open_sources(recipe)
        experts = opened.experts
        module = recipe.method.merge(experts)
        facts = {
            name: facts_of_experts(experts, name) | merged_module(experts, name, module(name), recipe.rank)[1]
            for name in experts.modules
        }
    found = conflict_report(experts.names, facts)
    return found | {"gates": summary(gates_on_reading(opened.unrecorded) + gates_on_updates(found))}


def check_finite(name: str, figures: Sequence[float]) -> None:
    """Refuse a module whose figures are not finite.

    Raises:
        ValueError: names the module.
    """
    if not all(map(math.isfinite, figures)):
        raise ValueError(f"{name}: the merged update holds NaN or infinity; are weights or updates too large for fp32?")


def facts_of_experts(experts: Experts, name: str) -> dict[str, Any]:
    """What the report needs to know of a module's experts; see `merge.conflict.between_experts`."""
    facts = between_experts(experts.names, experts.factors(name), experts.stack(name).products)
    check_finite(name, facts["mass"])
    return facts


def merged_module(experts: Experts, name: str, update: Update, rank: int | str) -> tuple[Factors, dict[str, Any]]:
    """Cut a merged module to its rank, and collect what the report needs to know of it.

    Raises:
        ValueError: the result is not finite.
    """
    if isinstance(update.value, Tensor) and not is_finite(update.value):
        check_finite(name, [math.nan])
    joint = experts.cores(name) if isinstance(update.value, Tensor) else None
    merged, kept, whole = cut(update.value, rank, [f.rank for f in experts.factors(name)], joint)
    facts = with_merged(experts.stack(name), merged)
    check_finite(name, [whole, *map(sum, facts["gram"])])
    survival = None if update.kept is None else list(update.kept)
    return merged, facts | {"energy": [kept, whole], "rank": merged.rank, "survival": survival}


@dataclass(frozen=True)
class Job:
    """A recipe at work."""

    recipe: Recipe
    written: dict[str, Any]
    """The content of recipe.yaml."""
    recipe_sha256: str
    """Of the recipe alone."""
    identity: str
    """Of the recipe, and of the examination where there is one."""
    module: Callable[[str], Update]
    """Module's name -> merged update."""
    parts: Parts
    examination: Examination | None = None

    def write(self, opened: Opened, given: Mapping[str, Any]) -> MergeSummary:
        """Write the reports, the adapter and, last, what they are; below `rejected/` where the gates say so.

        What stood here before was merged from something else, or is let through no longer, and goes first: an agent
        never stands beside the report of another, nor in the place of one that was rejected.
        """
        facts = {name: note["facts"] for name, note in sorted(self.parts.facts.items())}
        report = conflict_report(opened.experts.names, facts)
        report |= {"gates": summary(self.gates(opened, facts, report))}
        rejected = report["gates"]["verdict"] == "reject" and self.recipe.gate == "reject"
        unfinished = self.recipe.out.glob(f".{DENSE}{PREFIX}*")
        (self.recipe.out / MANIFEST).unlink(missing_ok=True)  # from here on nothing here counts as finished
        for stale in (*(self.recipe.out / name for name in (ADAPTER, DENSE, REJECTED)), *unfinished):
            shutil.rmtree(stale, ignore_errors=True)
        of_it = [self.recipe.out / name for name in (CONFLICT_JSON, CONFLICT_MD, CARD)]
        boards = [path for pattern in BOARD for path in self.recipe.out.glob(pattern)]
        for path in (*of_it, *boards):
            path.unlink(missing_ok=True)
        out = self.recipe.out / REJECTED if rejected else self.recipe.out
        written = self.written if out == self.recipe.out else moved(self.recipe, out, opened)
        texts = {
            CONFLICT_JSON: to_json(report),
            CONFLICT_MD: to_markdown(report),
            RECIPE: yaml.safe_dump(written, sort_keys=False, allow_unicode=True),
            CARD: model_card(written, report, opened.origin),
        }
        energy = report["merged"]["retained_energy"]
        manifest = merged_manifest(given, opened, (self.recipe_sha256, self.identity), report)
        for name, text in texts.items():
            write_text(out / name, text)
        self.write_adapter(out / ADAPTER, opened, facts, manifest)
        files = {name: entry_of(out / name) for name in (*texts, f"{ADAPTER}/{MANIFEST}")}
        told = {"recipe_sha256": self.recipe_sha256, "identity": self.identity}
        write_manifest(out / MANIFEST, files, format=FORMAT, **told)
        remove_parts(self.recipe.out)
        return MergeSummary(out, adapter_sha256(out / ADAPTER), False, energy, report)

    def write_adapter(
        self, folder: Path, opened: Opened, facts: Mapping[str, Any], manifest: Mapping[str, Any]
    ) -> None:
        """Put the parts together."""
        config = merged_config({name: facts[name]["rank"] for name in facts}, opened.template)

        def fill(path: Path) -> str:
            return write_tensors(path, self.parts.plan(), {"format": "pt"}, durable=False)

        write_adapter_with(folder, config, fill, manifest)

    def gates(self, opened: Opened, facts: Mapping[str, Any], report: Mapping[str, Any]) -> list[Gate]:
        """What the gates find in the update and in the agent's answers; it stands among the parts for as long."""
        before = gates_on_reading(opened.unrecorded)
        if self.examination is None:
            return before + gates_on_updates(report)
        folder = self.parts.folder / "examined"
        self.write_adapter(folder, opened, facts, {"kind": "merged", "base_fingerprint": opened.fingerprint})
        return before + gates_on_updates(report, examined=True) + gates_on_answers(self.examination.answers(folder))


def remove_parts(out: Path) -> None:
    """Drop what a merge kept of itself until it was written."""
    for folder in out.glob(f"{PREFIX}*"):
        shutil.rmtree(folder, ignore_errors=True)


def moved(recipe: Recipe, out: Path, opened: Opened) -> dict[str, Any]:
    """The content of recipe.yaml in a folder below `out`; carried out again, it has its result in the same places."""
    written = written_form(replace(recipe, out=out), opened.fingerprint, opened.hashes, opened.gram_hashes)
    return written | {"out": os.path.relpath(recipe.out, out)}


def merged_manifest(
    given: Mapping[str, Any],
    opened: Opened,
    identities: tuple[str, str],
    report: Mapping[str, Any],
) -> dict[str, Any]:
    """The manifest of a merged adapter: what the caller knows, and what ties it to its recipe.

    Args:
        given: by the caller.
        opened: the sources.
        identities: of the recipe alone, and of recipe and examination.
        report: see `merge.report.conflict_report`.
    """
    recipe_sha256, whole_sha256 = identities
    ours = opened.reading | {
        "base": opened.origin,
        "recipe_sha256": recipe_sha256,
        "gates": report["gates"]["verdict"],
    }
    return dict(given) | {
        "kind": "merged",
        "base_fingerprint": opened.fingerprint,
        "config_sha256": whole_sha256,
        "metrics": dict(given.get("metrics") or {}) | {"retained_energy": report["merged"]["retained_energy"]},
        "extra": dict(given.get("extra") or {}) | ours,
    }


def finished_before(out: Path, whole_sha256: str, recipe_sha256: str | None = None) -> MergeSummary | None:
    """The summary of an earlier run of the same recipe, or None.

    Args:
        out: of the recipe.
        whole_sha256: of recipe and examination.
        recipe_sha256: of the recipe alone, where it does not matter how the earlier agent was examined.

    Raises:
        DamagedError: there was one, and a file of it is not as it was written; says how to merge anew.
        AdapterError: as `DamagedError`, of the adapter.
    """
    for folder in (out, out / REJECTED):
        if not (folder / MANIFEST).is_file():
            continue
        manifest = read_manifest(folder / MANIFEST)
        same = manifest.get("identity") == whole_sha256
        if same or (recipe_sha256 is not None and manifest.get("recipe_sha256") == recipe_sha256):
            return verify_result(folder)
    return None


def verify_result(folder: Path) -> MergeSummary:
    """Check every file of a merged agent against its manifest.

    Raises:
        DamagedError: a file is missing or changed.
        AdapterError: the adapter is.
    """
    listed = verify(folder / MANIFEST)["files"]
    if absent := {RECIPE, CONFLICT_JSON, CONFLICT_MD, CARD, f"{ADAPTER}/{MANIFEST}"} - set(listed):
        raise AdapterError(f"{folder / MANIFEST}: does not list {sorted(absent)[0]}; is {folder} a merged agent?")
    _, manifest = verified(folder / ADAPTER, None)
    if manifest["kind"] != "merged":
        raise AdapterError(f"{folder / ADAPTER}: an adapter of kind {manifest['kind']!r}, not a merged one")
    report = json.loads((folder / CONFLICT_JSON).read_text(encoding="utf-8"))
    energy = manifest["metrics"]["retained_energy"]
    return MergeSummary(folder, adapter_sha256(folder / ADAPTER), True, energy, report)


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread, so that no sum is split, for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def text_sha256(text: str) -> str:
    """Sixty-four hexadecimal digits over UTF-8."""
    return hashlib.sha256(text.encode()).hexdigest()
