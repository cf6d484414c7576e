"""How far the runs of a sweep are, by their own folders; and whether what lies there is what the sweep asks for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from artifacts.folders import read_state
from artifacts.manifest import MANIFEST, standing
from callbacks.merge_experts import MergeExperts
from configs.build import import_class
from configs.problems import Problem
from experiment.claim import faults as settings_faults
from experiment.claim import settings_in
from experiment.lineage import Lineage
from experiment.run import assemble
from experiment.sweep.runs import Run, examiner

FREE = ("rows_at_once",)
"""Options of an examination that change no answer."""


def is_finished(run: Run) -> bool:
    """Whether a run has left all that it shall leave, as its folder says; every file of it is verified.

    Raises:
        DamagedError: something there is not as it was written.
    """
    context = assemble(run.loaded)
    folder = context.folder
    ended = read_state(folder.path) == "finished" and context.is_complete()
    return ended and (run.kind == "required" or standing(folder.evaluation / MANIFEST) is not None)


def faults(run: Run) -> list[Problem]:
    """What lies in a run's folder and was made otherwise than the sweep asks for."""
    context = assemble(run.loaded)
    found = [problem for member in context.lineage for problem in (*settings_faults(member), *merge_faults(member))]
    if found or run.kind == "required" or not context.folder.settings.exists():
        return found
    name = examiner(run.loaded)
    held, asked = (
        counting(content.get("callbacks", {}).get(name))
        for content in (settings_in(context.folder.settings), plain(run))
    )
    if held == asked or not (context.folder.evaluation / MANIFEST).exists():
        return []
    message = (
        f"examined otherwise than {run.label} is to be: with {held}, asked for is {asked}; put the settings of the "
        f"examination back, or delete {context.folder.path} to make it anew"
    )
    return [Problem(str(context.folder.settings), f"callbacks.{name}", None, message)]


def merge_faults(member: Lineage) -> list[Problem]:
    """Merges of a folder that were made otherwise than is asked for now; a run alone would make them anew."""
    if not (member.folder.path / "merged").exists() or not member.folder.settings.exists():
        return []
    held = settings_in(member.folder.settings).get("callbacks", {})
    asked = json.loads(json.dumps(member.resolved)).get("callbacks", {})
    return [
        Problem(
            str(member.folder.settings),
            f"callbacks.{name}",
            None,
            f"merges were made with {held.get(name)}, asked for is {asked.get(name)}; seeds would be averaged over "
            f"both: put the settings back, or delete {member.folder.path} to make it anew",
        )
        for name, callback in member.experiment.callbacks.items()
        if callback is not None and issubclass(import_class(callback.class_path), MergeExperts)
        if held.get(name) != asked.get(name)
    ]


def plain(run: Run) -> dict[str, Any]:
    """A run's settings as JSON gives them back."""
    return json.loads(json.dumps(run.loaded.resolved))


def counting(callback: Mapping[str, Any] | None) -> dict[str, Any]:
    """The options of an examination that count."""
    given = (callback or {}).get("init_args") or {}
    return {key: value for key, value in given.items() if key not in FREE}
