"""Whose folder it is: the settings that everything in it was made with, and those of the experiments beneath."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from artifacts.durable import write_text
from artifacts.folders import locked
from configs.problems import ConfigError, Problem
from configs.show import both_values, changed_settings, completed, flattened
from experiment.continuation import continuation
from experiment.growth import goes_on, held, in_common, longer, replaces_results, with_added
from experiment.lineage import PLACES, Lineage, steps_of, trained_steps

REMEDY = "choose another `name` or `runs_dir`, or start afresh with overwrite=true"
FOLDER = "working_folder"
RECORDS = ("required", "continuations", "added", FOLDER)
"""Keys of experiment.json that are no settings of the experiment's own: the settings of the experiments beneath it by
name, how a finished experiment was extended, the specialties that joined those it was made with, and where relative
paths in it begin."""
STEPS = "trainer.max_steps"


def claim_folder(context: Lineage) -> None:
    """Write the settings into the experiment's folder, or check that they are the ones it was made with.

    More steps than before are taken as a continuation, and further specialties as added; both are recorded.

    Raises:
        ConfigError: other settings differ; names each differing key with both values.
    """
    file = context.folder.settings
    if file.exists() and not faults(context) and not goes_on(context, settings_in(file)):
        return  # nothing to write, so that no lock is needed
    with locked(context.folder.path, f"the settings of {context.experiment.name}", below=False):
        if problems := faults(context):
            raise ConfigError(problems)
        content = remembered(context)
        if file.exists():
            before = settings_in(file)
            if not goes_on(context, before):
                return
            if longer(before, content):
                step = continuation(steps_of(before), context.steps, Path(context.experiment.runs_dir))
                content["continuations"] = [*before.get("continuations", []), step]
                if "required" not in before:
                    del content["required"]  # of a version that did not write them: what is beneath was not checked
            else:
                content = dict(before)
            content |= with_added(context, before)
            content = {key: one for key, one in content.items() if key != "added" or one}
        write_text(file, json.dumps(content, indent=2) + "\n")


def refuse_changed(lineage: Lineage) -> None:
    """Check a whole lineage against its folders before anything is written into one of them.

    Raises:
        ConfigError: as `claim_folder`, of all experiments at once.
    """
    members = [member for member in lineage.lineage if not member.experiment.overwrite]
    if problems := [problem for member in members for problem in faults(member)]:
        raise ConfigError(problems)


def clear_overwritten(lineage: Lineage) -> None:
    """Empty the folders of the experiments that are to start afresh."""
    for member in lineage.lineage:
        if member.experiment.overwrite and member.folder.settings.exists():
            with locked(member.folder.path, f"the settings of {member.experiment.name}", below=False):
                member.folder.clear()


def remembered(context: Lineage) -> dict[str, Any]:
    """What experiment.json holds, as JSON gives it back."""
    beneath = {member.called: member.resolved for member in context.lineage[:-1]}
    return json.loads(json.dumps(context.resolved | {"required": beneath, FOLDER: str(Path.cwd())}))


def settings_in(file: Path) -> dict[str, Any]:
    """What an experiment.json holds.

    Raises:
        ConfigError: it is not what this program writes there.
    """
    try:
        content = json.loads(file.read_text("utf-8"))
        whole = (
            all(isinstance(content[key], dict) for key in ("model", "specialties"))
            and all(isinstance(content.get(key) or {}, dict) for key in ("callbacks", "fit", "trainer"))
            and isinstance((content.get("trainer") or {}).get("max_steps", 1), int)
            and all(isinstance(one, dict) for one in (content.get("required") or {}).values())
            and isinstance(content.get("continuations", []), list)
            and isinstance(content.get("added", {}), dict)
            and isinstance(content.get(FOLDER, ""), str)
        )
        reason = "" if whole else "its keys are not those of an experiment"
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
    if reason:
        message = (
            f"is damaged, so that nobody knows with what settings this folder was made ({reason}). Put it back: "
            f"{file.parent}/<specialty>/config.resolved.json of a run holds the same settings; or {REMEDY}"
        )
        raise ConfigError([Problem(str(file), "", message=message)])
    return content


def faults(context: Lineage) -> list[Problem]:
    """Every setting that may not differ from the folder's and does; nothing where the folder is new."""
    file = context.folder.settings
    if not file.exists():
        return []
    before, now, trust = settings_in(file), remembered(context), context.experiment.trust
    whole, experts = own(before) | {"specialties": held(before)}, context.provides == "expert"
    changed = differing(whole, own(now), trust, before.get(FOLDER), in_part=experts)
    if "required" in before:  # which says it by what the files are called, from wherever they are named
        changed.pop("requires", None)
    changed |= changed_beneath(context, before, now)
    if experts and not changed and replaces_results(context, before, now):
        names = ", ".join(before["specialties"])
        message = (
            f"what is merged or examined here is of {names}, and would be replaced by that of others; choose another "
            "`name` or `runs_dir`, or add a specialty beside them by add_specialty.yaml"
        )
        return [Problem(str(file), "specialties", message=message)]
    note = "a run goes on with more steps, never with fewer"
    if longer(before, now) and context.experiment.train == "sequential":
        note = "one specialty after the other, a longer run would have changed over to the next one later"
    elif longer(before, now):
        changed.pop(STEPS, None)
        if not changed:
            return [problem for name in context.runs for problem in cannot_go_on(context, name, before)]
    notes = {STEPS: f"; {note}"}
    return [Problem(str(file), key, message=f"{both}{notes.get(key, '')}; {REMEDY}") for key, both in changed.items()]


def differing(
    before: dict[str, Any], now: dict[str, Any], trust: Sequence[str], folder: str | None, *, in_part: bool
) -> dict[str, str]:
    """The settings of an experiment that may not differ and do, with both values in words.

    Args:
        before: those that it was made with.
        now: those that are asked for.
        trust: packages whose code may run.
        folder: in which its relative paths began; None where a former version did not record it.
        in_part: compare those specialties alone that both have.
    """
    before = completed(before, trust)
    before, now = in_common(before, now) if in_part else (before, now)
    old, new = flattened(before), flattened(now)
    changed = changed_settings(before, now)
    return {key: both for key, both in changed.items() if not same_place(key, old.get(key), new.get(key), folder)}


def same_place(key: str, before: Any, now: Any, folder: str | None) -> bool:
    """Whether a setting that names a file or a folder names the same one, from wherever either command was given."""
    if folder is None or key.rpartition(".")[2] not in PLACES or not (isinstance(before, str) and isinstance(now, str)):
        return False
    try:
        return (Path(folder) / before).resolve() == Path(now).resolve()
    except (OSError, ValueError):  # no file can be called so
        return False


def own(content: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of experiment.json that are the experiment's own."""
    return {key: value for key, value in content.items() if key not in RECORDS}


def changed_beneath(context: Lineage, whole: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, str]:
    """What differs in the experiments beneath, as `NAME:key`; nothing where a former version did not record them."""
    before, after = whole.get("required"), now["required"]
    if before is None:
        return {}
    if set(before) != set(after):
        return {"requires": both_values(sorted(before), sorted(after))}
    found: dict[str, str] = {}
    for member in context.lineage[:-1]:
        name, experts = member.called, member.provides == "expert"
        both = (before[name], after[name], context.experiment.trust, whole.get(FOLDER))
        told = differing(*both, in_part=experts)
        found |= {f"{name}:{key}": values for key, values in told.items() if key != "requires"}
    return found


def cannot_go_on(context: Lineage, specialty: str, before: Mapping[str, Any]) -> list[Problem]:
    """A finished run whose last checkpoint is not there any more."""
    left, checkpoint = context.result(specialty), context.folder.run(specialty).checkpoint
    if left is None or checkpoint.exists():
        return []
    trained = trained_steps(left, steps_of(before))
    if trained >= context.steps:
        return []
    message = (
        f"{context.steps} steps are asked for, and the run ended after {trained} without the checkpoint to go on from; "
        f"was it removed, or is the run of an earlier version? {REMEDY}"
    )
    return [Problem(str(checkpoint), STEPS, message=message)]
