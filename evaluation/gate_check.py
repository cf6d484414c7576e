"""Which gate would have been right: merged agents' gates beside what the agents answered in the matrix.

    python -m evaluation.gate_check runs/seed0/rl_gba runs/seed1/rl_gba

Gates decide on weights and on validation questions; the matrix asks the test questions. An agent counts as harmed where
it is below the base on a specialty, as helped where it is above the base over all questions and harmed nowhere, both
by an exact paired test at 5 % (over the number of specialties for the former); others tell nothing of a gate.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from evaluation.paired import paired_difference
from evaluation.predictions import Prediction, by_variant, read_predictions
from evaluation.scorers import main_outcome
from guards.arguments import Parser
from guards.printable import printable_lines, printable_whole

LEVEL = 0.05
Outcome = Literal["harmed", "helped", "undecided"]


@dataclass(frozen=True)
class Held:
    """A merged agent: what gates said, and what became of it."""

    name: str
    fired: frozenset[tuple[str, str]]
    """(check, verdict) of every gate that noted something, warned or rejected."""
    outcome: Outcome


def outcome(base: Sequence[Prediction], agent: Sequence[Prediction]) -> Outcome:
    """What the agent's answers say, next to the base's to the same questions.

    Raises:
        ValueError: they answered different questions, or none.
    """
    given = {item.key: item for item in base}
    if not given or set(given) != {item.key for item in agent}:
        raise ValueError(
            f"{len(given)} answers of the base and {len(agent)} of the agent are not to the same questions"
        )
    rows = [(item, main_outcome(given[item.key]).right, main_outcome(item).right) for item in agent]
    specialties = {item.specialty for item in agent}

    def compared(wanted: Iterable[str]):
        own = [row for row in rows if row[0].specialty in wanted]
        patients = [(item.specialty, item.patient_id) for item, _, _ in own]
        return paired_difference([right for _, right, _ in own], [right for *_, right in own], patients)

    parts = [compared({specialty}) for specialty in specialties]
    if any(part.difference < 0 and part.p < LEVEL / len(parts) for part in parts):
        return "harmed"
    whole = compared(specialties)
    return "helped" if whole.difference > 0 and whole.p < LEVEL else "undecided"


def held(folder: Path) -> list[Held]:
    """Every merged agent of an experiment that the matrix examined.

    Raises:
        OSError: there are no predictions.
        ValueError: a file cannot be read; names it.
    """
    answers: dict[str, list[Prediction]] = {}
    for item in by_variant(read_predictions(folder))[""]:
        answers.setdefault(item.model, []).append(item)
    found = []
    for file in sorted(folder.glob("merged/**/conflict.json")):
        place = file.parent.relative_to(folder).parts
        if "candidates" in place:
            continue  # the matrix does not examine them
        name = "/".join([folder.name, *place[:2]]) + (".rejected" if place[2:] == ("rejected",) else "")
        if name in answers:
            found.append(Held(name, fired(file), outcome(answers.get("base", ()), answers[name])))
    return found


def fired(file: Path) -> frozenset[tuple[str, str]]:
    """(check, verdict) of the gates of a conflict report that did not simply pass.

    Raises:
        ValueError: the report does not name its checks, or is none.
    """
    try:
        gates = json.loads(file.read_text(encoding="utf-8"))["gates"]["gates"]
        return frozenset((gate["check"], gate["verdict"]) for gate in gates if gate["verdict"] != "accept")
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(
            f"{file}: holds no gates with the names of their checks ({error!r}); merged by an earlier version? the "
            "command that merged makes it anew"
        ) from error


def counted(agents: Sequence[Held]) -> dict[str, Counter[tuple[bool, Outcome]]]:
    """Check -> (did it fire, what became of the agent) -> agents; for rejections alone, and for all that fired."""
    checks = sorted({check for agent in agents for check, _ in agent.fired})
    columns: dict[str, list[bool]] = {}
    for check in checks:
        rejected = [(check, "reject") in agent.fired for agent in agents]
        if any(rejected):
            columns[f"{check}, reject"] = rejected
        columns[f"{check}, any"] = [any(name == check for name, _ in agent.fired) for agent in agents]
    columns["any, reject"] = [any(verdict == "reject" for _, verdict in agent.fired) for agent in agents]
    return {
        name: Counter((hit, agent.outcome) for hit, agent in zip(hits, agents, strict=True))
        for name, hits in columns.items()
    }


def table(counts: Mapping[str, Counter[tuple[bool, Outcome]]]) -> str:
    """The counts in Markdown."""
    head = ["gate", "fired: harmed", "fired: helped", "silent: harmed", "silent: helped", "undecided, fired / silent"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for name, count in counts.items():
        cells = [count[hit, told] for hit in (True, False) for told in ("harmed", "helped")]
        rest = f"{count[True, 'undecided']} / {count[False, 'undecided']}"
        lines.append("| " + " | ".join([name, *map(str, cells), rest]) + " |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table.

    Returns:
        0; 1 if a file is missing; 2 if one cannot be used, or there is nothing to tell.
    """
    parser = Parser(prog="python -m evaluation.gate_check", description=__doc__)
    parser.add_argument("experiments", nargs="+", type=Path, help="folders of experiments that merged and examined")
    options = parser.parse_args(arguments)
    try:
        agents = [agent for folder in options.experiments for agent in held(folder)]
        if not agents:
            raise ValueError(f"{options.experiments[0]}: no merged agent that the matrix examined; was it evaluated?")
        for agent in agents:
            told = ", ".join(f"{check} {verdict}" for check, verdict in sorted(agent.fired)) or "all gates silent"
            print(printable_whole(f"{agent.name}: {agent.outcome}; {told}"))
        print("\n" + printable_whole(table(counted(agents))))
    except (ValueError, OSError) as error:
        print(printable_lines(error), file=sys.stderr)
        return 1 if isinstance(error, OSError) else 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
