"""The whole way from pools to a set, and what it would ask at most."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from artifacts.folders import locked
from configs.build import build
from configs.problems import ConfigError, Problem
from configs.show import changed_settings
from curation.ledger import Ledger
from curation.output import COUNTS, FORMAT, write_result
from curation.settings import Settings, resolved
from curation.specialties import UNASSIGNED, classification, load_rules
from curation.stages import Curation, pictures
from curation.teachers import Request, Teacher
from endpoints.budget import Budget
from endpoints.replies import Replies
from lightning_modules.rewards.guidelines import load_guidelines


class NothingKeptError(ValueError):
    """A run of which nothing would be left; it carries the book that says why."""

    def __init__(self, ledger: Ledger) -> None:
        """Say so, and keep the book."""
        super().__init__("no question passed every gate, so nothing is written; every reply is kept")
        self.ledger = ledger


def prepare(settings: Settings) -> Curation:
    """Read what a run needs, before anything is asked.

    Raises:
        ConfigError: `out` holds something else, or a result of other settings; or rules or guidelines are wrong.
        UnusableError: a teacher cannot be used.
    """
    claim(settings)
    try:
        rules, tag_points = load_rules(settings.rule_file)
        guidelines = load_guidelines(settings.guidelines)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError([Problem("settings", "", None, str(error))]) from error
    named = {name: getattr(settings, name) for name in ("teacher", "base", "classifier")}
    teachers = [build(component) if component else None for name, component in named.items()]
    return Curation(settings, rules, tag_points, guidelines, *teachers, Replies(settings.reply_folder))


def claim(settings: Settings) -> None:
    """Refuse to replace a folder that is not a curated set, or one that was made with other settings.

    Raises:
        ConfigError: names the folder, or each differing key.
    """
    out = Path(settings.out)
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    try:
        before = json.loads((out / COUNTS).read_text(encoding="utf-8"))
        mine = before["format"] == FORMAT and isinstance(before["settings"], dict)
    except (OSError, ValueError, LookupError, TypeError):
        mine = False
    if not mine:
        message = "holds something else than a curated set, and would be replaced; choose another folder"
        raise ConfigError([Problem(str(out), "out", settings.out, message)])
    changed = changed_settings(before["settings"], json.loads(json.dumps(resolved(settings))))
    if changed and not settings.overwrite:
        message = "choose another `out`, or overwrite=true"
        raise ConfigError(
            [Problem(str(out / COUNTS), key, None, f"{both}; {message}") for key, both in changed.items()]
        )


def curate(settings: Settings, *, after_shares: bool = False) -> dict[str, Any]:
    """Make a set, or go on making it.

    Args:
        settings: of the curation.
        after_shares: spend nothing at an endpoint: all that may be spent was dealt out to the shares (`ask_share`).

    Returns:
        What counts.json holds.

    Raises:
        UnfinishedError: replies are missing; the same settings go on.
        NothingKeptError: no question passed every gate; nothing is written.
        ConfigError: as `prepare`.
        BadExampleError: a pool or a test set cannot be read.
        OSError: the disk is full, or a folder cannot be written.
    """
    with locked(settings.reply_folder, f"the replies of {settings.out}"):
        run = prepare(settings)
        for budget in budgets(run) if after_shares else ():
            budget.close()
        rows = run.candidates()
        audit = run.audited(rows)
        rows = run.assigned(rows, audit)
        rows, rates = run.within_pass_rate(rows)
        rows, traces = run.taught(rows)
        kept = run.kept(rows, rates, traces)
        if not kept:
            raise NothingKeptError(run.ledger)
        claim(settings)  # again, since hours may have passed
        return write_result(settings, kept, run.ledger, run.agreement, audit)


def ask_share(settings: Settings, index: int, count: int) -> int:
    """Ask what a share of the questions needs, and keep the replies; what `curate` then makes of them asks nobody.

    Shares are of the candidates, in turn. A question's gates look at no other question once nobody was asked yet, so
    that each share asks what the whole would ask about it.

    Args:
        settings: of the curation.
        index: of the share, from 0.
        count: of shares.

    Returns:
        The questions of the share.

    Raises:
        As `curate`, but a share that keeps nothing is none the worse for it.
    """
    with locked(settings.reply_folder, f"the replies of {settings.out}", shared=True):
        run = prepare(settings)
        for budget in budgets(run):
            budget.keep_to(index, count)
        whole = run.candidates()
        rows = whole[index::count]
        mine = {row.id for row in rows}
        rows = run.assigned(rows, [row for row in run.audited(whole) if row.id in mine])
        rows, _ = run.within_pass_rate(rows)
        run.taught(rows)
        return len(mine)


def budgets(run: Curation) -> list[Budget]:
    """What may be spent on each of those who are asked."""
    asked = filter(None, (run.teacher, run.base, run.classifier))
    return [teacher.budget for teacher in asked if teacher.budget is not None]


def most(settings: Settings) -> list[tuple[str, int, int, int]]:
    """What a run would ask at most.

    Returns:
        (what, requests, of these known already, upper bound of tokens with every further attempt) per part.

    Raises:
        As `curate`, but nobody is asked.
    """
    run = prepare(settings)
    rows = run.candidates()
    by_rules = settings.decide == "rules"
    asked = run.audited(rows) if by_rules else rows
    left = [row for row in rows if row.specialty != UNASSIGNED] if by_rules else rows
    parts: list[tuple[str, Teacher | None, Iterable[Request]]] = [
        ("specialties", run.classifier,
         [classification(row.id, row.item.example, pictures(row), run.rules) for row in asked]),
        ("pass rate", run.base,
         [Request(row.id, row.item.example, pictures(row), "", d) for row in left for d in range(settings.samples)]),
        ("traces", run.teacher,
         [Request(row.id, row.item.example, pictures(row), g.instruction, d)
          for row in left for g in run.guidelines.values() for d in range(settings.draws)]),
    ]  # fmt: skip
    found = []
    for what, teacher, requests in parts:
        if teacher is not None:
            distinct = {teacher.key(request): request for request in requests}
            new = [request for key, request in distinct.items() if run.replies.get(key) is None]
            tokens = sum(teacher.most_tokens(request) * teacher.attempts(request) for request in new)
            found.append((what, len(distinct), len(distinct) - len(new), tokens))
    return found
