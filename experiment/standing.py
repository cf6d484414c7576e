"""What runs stand on: their rows and the expert beneath. Where that is not what it was, their results are refused."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from artifacts.adapter_files import AdapterError, adapter_sha256
from artifacts.folders import RunFolder
from artifacts.manifest import DamagedError
from configs.problems import ConfigError, Problem
from configs.schema import AGENT
from experiment.claim import REMEDY
from experiment.context import ExperimentContext
from experiment.integration import FOUNDATIONS, foundations
from experiment.judges import JUDGED_BY, judged_by
from experiment.reading import TOKENIZER

ROWS, BASE, PARENT = "data_sha256", "base_fingerprint", "parent_sha256"
"""Keys of provenance.json."""


def read_provenance(run: RunFolder) -> dict[str, Any]:
    """What an earlier start of a run recorded; empty where there is none.

    Raises:
        DamagedError: the file is no JSON object.
    """
    file = run.path / "provenance.json"
    if not file.exists():
        return {}
    try:
        content = json.loads(file.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        content = error
    if not isinstance(content, dict):
        raise DamagedError(
            f"{file}: is damaged ({content!r:.200}), so that nobody knows on what this run was begun; delete "
            f"{run.path} to train it anew"
        )
    return content


def parent_sha256(context: ExperimentContext, specialty: str) -> str | None:
    """Hash of the expert that a specialty's expert stands on; None where it stands on the bare base."""
    beneath = context.experts_beneath(specialty)
    return adapter_sha256(beneath[-1][1]) if beneath else None


def check_parents(context: ExperimentContext, specialties: Sequence[str]) -> None:
    """Refuse experts, finished or begun, whose foundation, or judge, was trained anew since.

    Raises:
        AdapterError: names the expert.
    """
    if context.integrates:
        check_foundations(context)
        return
    judges = judged_by(context)
    for specialty in specialties:
        beneath = context.experts_beneath(specialty)
        for place, record in records(context, specialty) if judges else ():
            if (record.get("extra") or record).get(JUDGED_BY) != judges:
                raise AdapterError(
                    f"{place}: was rewarded by another judge than the one that is there now; was a reward model "
                    "trained anew, or longer, or a rubric changed? Start this experiment afresh with overwrite=true, "
                    "or under another name"
                )
        for place, manifest in records(context, specialty) if beneath else ():
            recorded = (manifest["parent"] or {}).get("sha256") if "parent" in manifest else manifest.get(PARENT)
            if recorded is None and "parent" not in manifest:
                continue  # begun by a version that did not record it
            if recorded != adapter_sha256(beneath[-1][1]):
                raise AdapterError(
                    f"{place}: grew from another adapter than {beneath[-1][1]} is now; was that one trained anew, or "
                    "longer? Start this experiment afresh with overwrite=true, or under another name"
                )


def check_foundations(context: ExperimentContext) -> None:
    """Refuse an agent, finished or begun, whose teachers or start are others now.

    Raises:
        AdapterError: names the agent, and what differs.
    """
    for place, record in records(context, AGENT):
        recorded = (record.get("extra") or record)[FOUNDATIONS]
        now = foundations(context)
        if recorded == now:
            continue
        teachers = [name for name, hashes in now["teachers"].items() if recorded["teachers"].get(name) != hashes]
        changed = [*(f"the expert of {name}" for name in teachers), *(["start"] if not teachers else [])]
        raise AdapterError(
            f"{place}: was made from others than those that are there now ({', '.join(changed)}); was one trained or "
            "merged anew, or longer? Start this experiment afresh with overwrite=true, or under another name"
        )


def records(context: ExperimentContext, specialty: str) -> list[tuple[Path, Mapping[str, Any]]]:
    """(file, content) of what a run recorded of what it stands on: its result's manifest, its checkpoint's provenance.

    Empty where nothing was trained yet that could be gone on with.
    """
    run, found = context.folder.run(specialty), []
    if (left := context.result(specialty)) is not None:
        found.append((run.base if context.provides == "base" else run.adapter, left))
    if run.checkpoint.exists():
        found.append((run.path / "provenance.json", read_provenance(run)))
    return found


def check_rows(context: ExperimentContext, specialties: Sequence[str]) -> None:
    """Refuse what was trained on other rows than the training split holds now, finished or begun.

    Rows of finished runs that are not there any more cannot be compared; that is said.

    Raises:
        ConfigError: names every run with both hashes.
        BadExampleError: the rows of an unfinished run cannot be used.
    """
    problems = []
    for specialty in specialties:
        held = [(place, record[ROWS]) for place, record in records(context, specialty) if record.get(ROWS)]
        if not held:
            continue
        try:
            now = context.rows_sha256(specialty)
        except OSError as error:
            if not context.is_run_complete(specialty):
                raise
            print(f"{context.experiment.name}/{specialty}: its rows cannot be compared: {error}", flush=True)
            continue
        place, before = next(((place, before) for place, before in held if before != now), (None, now))
        if place is not None:
            root = context.data(specialty).root
            beside = " with what is replayed" if context.experiment.replay else ""
            message = (
                f"trained on rows with sha256 {before}, and the training split of {specialty!r} (root={str(root)!r})"
                f"{beside} has {now} now; bring the former rows back, or train on these: {REMEDY}"
            )
            problems.append(Problem(str(place), ROWS, before, message))
    if problems:
        raise ConfigError(problems)


def check_base(run: RunFolder, before: Mapping[str, Any], fingerprint: str, tokenizer: str) -> None:
    """Refuse to go on with a run that was begun on another base, or with a base that reads text otherwise.

    Args:
        run: its folder.
        before: its provenance so far.
        fingerprint: of the base now.
        tokenizer: hash of what it reads text by now.

    Raises:
        AdapterError: names both fingerprints, or both hashes.
    """
    if run.checkpoint.exists() and before.get(TOKENIZER) not in (None, tokenizer):
        raise AdapterError(
            f"{run.path / 'provenance.json'}: begun with a tokenizer of sha256 {before[TOKENIZER]}, and the base's has "
            f"{tokenizer} now; was its tokenizer.json changed? {REMEDY}"
        )
    recorded = before.get(BASE)
    if run.checkpoint.exists() and recorded not in (None, fingerprint):
        raise AdapterError(
            f"{run.path / 'provenance.json'}: begun on the base with fingerprint {recorded}, and the base has "
            f"{fingerprint} now; was it trained anew, or longer? {REMEDY}"
        )
