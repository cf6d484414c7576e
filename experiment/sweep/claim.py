"""What was fixed before the first run: sweep.json. A file that says otherwise afterwards is refused."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from artifacts.durable import write_text
from artifacts.folders import locked
from configs.check import as_plain
from configs.problems import ConfigError, Problem
from configs.show import both_values
from configs.tree import place_of
from experiment.provenance import git_state
from experiment.sweep.reading import SweepFile
from experiment.sweep.spec import Sweep

FILE = "sweep.json"
FREE = ("name", "runs_dir", "workers", "launcher")
"""What may change: where and how runs are started, not what they are."""
GROWS = ("arms", "seeds")
"""What may be added to."""
REMEDY = "runs are there that were made for the former; put it back, or call this sweep by another `name`"


def fixed(sweep: Sweep) -> dict[str, Any]:
    """What of a sweep is fixed, as JSON gives it back."""
    plain = {one.name: as_plain(getattr(sweep, one.name)) for one in fields(sweep) if one.name not in FREE}
    return json.loads(json.dumps(plain))


def sha256(content: Mapping[str, Any]) -> str:
    """Hash of what is fixed."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def recorded(root: Path) -> dict[str, Any] | None:
    """What sweep.json holds; None where there is none yet.

    Raises:
        ConfigError: it is damaged.
    """
    path = root / FILE
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text("utf-8"))
        whole = isinstance(content["fixed"], dict) and isinstance(content["extensions"], list)
        whole = whole and isinstance(content["fixed"]["arms"], dict) and isinstance(content["fixed"]["seeds"], list)
        reason = "" if whole and sha256(content["first"]) == content["first_sha256"] else "its keys are not a sweep's"
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}"
    if reason:
        message = f"is damaged, so that nobody knows what was fixed before the first run ({reason}); put it back"
        raise ConfigError([Problem(str(path), "", None, message)])
    return content


def refuse_changed(file: SweepFile) -> dict[str, Any] | None:
    """Compare a sweep with what was fixed.

    Returns:
        What sweep.json holds; None where nothing was begun.

    Raises:
        ConfigError: something else than more arms and more seeds; every key that differs, with both values.
    """
    before, now = recorded(file.root), fixed(file.sweep)
    if before is None:
        return None
    problems: list[Problem] = []

    def refuse(key: str, message: str) -> None:
        problems.append(Problem(place_of(file.tree, key), key, None, f"{message}; {REMEDY}"))

    old = before["fixed"]
    for key in [key for key in dict.fromkeys([*old, *now]) if key not in GROWS]:
        if old.get(key) != now.get(key):
            refuse(key, both_values(old.get(key), now.get(key)))
    for arm, held in old["arms"].items():
        if arm not in now["arms"]:
            refuse("arms", f"arm {arm} is missing: arms are added, never taken away")
        elif held != now["arms"][arm]:
            refuse(f"arms.{arm}", both_values(held, now["arms"][arm]))
    if gone := [seed for seed in old["seeds"] if seed not in now["seeds"]]:
        refuse("seeds", f"seed {gone[0]} is missing: seeds are added, never taken away")
    if problems:
        raise ConfigError(problems)
    return before


def claim(file: SweepFile, finished: int) -> dict[str, Any]:
    """Write what is fixed, before the first run; what was added later is recorded as such.

    Args:
        file: the sweep.
        finished: arms' runs that have ended so far, whose results may have been seen.

    Returns:
        What sweep.json holds.

    Raises:
        ConfigError: as `refuse_changed`.
    """
    with locked(file.root, f"the sweep {file.sweep.name}", below=False):
        before, now = refuse_changed(file), fixed(file.sweep)
        if before is not None and before["fixed"] == now:
            return before
        facts = {"time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "git": git_state(runs_dir=Path(file.sweep.runs_dir))}
        if before is None:
            content = {"first": now, "first_sha256": sha256(now), **facts, "extensions": [], "fixed": now}
        else:
            added = {
                "arms": [arm for arm in now["arms"] if arm not in before["fixed"]["arms"]],
                "seeds": [seed for seed in now["seeds"] if seed not in before["fixed"]["seeds"]],
                "finished_before": finished,
            }
            told = [*before["extensions"], added | facts] if added["arms"] or added["seeds"] else before["extensions"]
            content = {**before, "extensions": told, "fixed": now}
        write_text(file.root / FILE, json.dumps(content, indent=2) + "\n")
        return content
