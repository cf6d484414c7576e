"""Compare models on the same questions, with intervals, exact or t-based tests and a verdict.

    python -m evaluation.compare runs/seed0/rl_gba                       every model of one experiment with its first
    python -m evaluation.compare runs/a runs/b                           models of the same name, b against a
    python -m evaluation.compare runs/a runs/b --models '*/merged/*' --baseline base --out compared
    python -m evaluation.compare runs/a --models base 'base@*' --vary image          with its picture and without
    python -m evaluation.compare --by seed runs/seed*/sft -- runs/seed*/rl           two methods over seeds
    python -m evaluation.compare --by seed runs/seed*/rl --baseline base             models of one method over seeds

Answers are scored again from `predictions.jsonl`. Different questions and different protocols are refused, and so are
"seeds" that differ by more than their seed.
"""

from __future__ import annotations

import argparse
import sys
from argparse import Namespace
from collections.abc import Collection, Sequence
from pathlib import Path

from evaluation import comparison_report, seed_table
from evaluation.comparison_report import Comparison
from evaluation.methods import labels_of, method_pairs, methods_of, same_answers
from evaluation.pairwise import compare_pair, judged
from evaluation.report_files import write_reports
from evaluation.scorers import SCORERS, main_scorer
from evaluation.seeds import facts_of, refuse_no_seeds
from evaluation.systems import System, answer_alike, load_systems, pairs_of, refuse_unlike
from guards.arguments import Parser
from guards.printable import printable_lines, printable_whole


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        0; 2 if the experiments cannot be read or compared.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    cut = words.index("--") if "--" in words else len(words)
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiments", nargs="+", type=Path, help="experiment folders or files of predictions")
    parser.add_argument("--by", choices=["seed"], help="take the experiments for seeds; those after -- for another's")
    parser.add_argument("--models", nargs="+", default=["*"], help="patterns of row names; all by default")
    parser.add_argument("--baseline", help="row name that all others are compared with")
    parser.add_argument("--scorer", default="", choices=list(SCORERS), help="by default what each protocol counts by")
    parser.add_argument("--vary", nargs="+", default=[], help="protocol keys that may differ, such as image or shuffle")
    parser.add_argument("--alpha", type=float, default=0.05, help="family-wise error rate; intervals cover 1 - alpha")
    parser.add_argument("--out", type=Path, help="folder for compare.md, .csv, .tex and .png")
    given = parser.parse_args(words[:cut])
    others = [Path(word) for word in words[cut + 1 :]]
    try:
        if not 0 < given.alpha < 1:
            raise ValueError(f"--alpha must lie in (0, 1), got {given.alpha}")
        if late := [word for word in words[cut + 1 :] if word.startswith("-")]:
            raise ValueError(f"{late[0]} stands behind --, where only experiments may; put options before it")
        if others and not given.by:
            raise ValueError(f"-- {others[0]} …: a second method needs --by seed; name single experiments without --")
        print(printable_whole(over_seeds(given, others) if given.by else one_by_one(given)))
    except (OSError, ValueError) as error:
        print(printable_lines(f"compare: {error}"), file=sys.stderr)
        return 2
    return 0


def one_by_one(given: Namespace) -> str:
    """The table of single systems, each with its baseline; arguments of the command line as parsed."""
    systems = load_systems(given.experiments, given.models, given.scorer)
    rows, told = compared(systems, given.baseline, given.scorer, given.vary, given.alpha)
    return write_reports(rows, comparison_report.HEADER, list(map(comparison_report.cells, rows)), told, given.out)


def compared(
    systems: Sequence[System],
    baseline: str | None = None,
    scorer: str = "",
    vary: Collection[str] = (),
    alpha: float = 0.05,
) -> tuple[list[Comparison], str]:
    """Compare single systems, each with its baseline.

    Args:
        systems: as of `evaluation.systems.load_systems`.
        baseline: as of `evaluation.systems.pairs_of`.
        scorer: what the systems were scored by; empty where it is the main score of each protocol.
        vary: keys of the protocol that may differ.
        alpha: family-wise error rate; intervals cover 1 - alpha.

    Returns:
        The rows, judged together, and the caption.

    Raises:
        ValueError: nothing can be compared; says why.
    """
    pairs = pairs_of(systems, baseline)
    for first, second in pairs:
        refuse_unlike(first, second, vary)
    apart = [pair for pair in pairs if not answer_alike(*pair)]
    if not apart:
        raise ValueError(
            f"all {len(pairs)} pairs gave the very same completions to every question, such as "
            f"{pairs[0][0].name!r} and {pairs[0][1].name!r}; are these the same models? Name "
            "others by --models and --baseline"
        )
    rows = judged([row for pair in apart for row in compare_pair(*pair, confidence=1 - alpha)], alpha)
    return rows, comparison_report.caption(rows, scorer_of(scorer, systems), alpha, len(pairs) - len(apart))


def over_seeds(given: Namespace, others: Sequence[Path]) -> str:
    """The table of methods over seeds; those after -- stand in `others`, else the models of one are compared."""
    sides = [given.experiments, others] if others else [given.experiments]
    notes = [refuse_no_seeds([facts_of(path) for path in paths]) for paths in sides]
    loaded = [load_systems(paths, given.models, given.scorer) for paths in sides]
    labels = labels_of(*sides) if others else ("",)
    methods = [methods_of(*side) for side in zip(loaded, sides, labels, strict=True)]
    if others:
        pairs = method_pairs(*methods, given.baseline)
    else:
        pairs = method_pairs(methods[0], methods[0], given.baseline or methods[0][0].model)
    for first, second in pairs:
        for method in (first, second):
            for run in method.runs[1:]:
                refuse_unlike(method.runs[0], run)
        refuse_unlike(first.runs[0], second.runs[0], given.vary)
    apart = [pair for pair in pairs if not same_answers(*pair)]
    if not apart:
        raise ValueError(f"{pairs[0][0].name!r} and {pairs[0][1].name!r} gave the very same completions; name others")
    rows = [row for pair in apart for row in seed_table.compare_methods(*pair, confidence=1 - given.alpha)]
    rows = judged(rows, given.alpha)
    scorer = scorer_of(given.scorer, [system for side in loaded for system in side])
    told = seed_table.caption(rows, scorer, given.alpha, [note for note in dict.fromkeys(notes) if note])
    return write_reports(rows, seed_table.HEADER, list(map(seed_table.cells, rows)), told, given.out)


def scorer_of(scorer: str, systems: Sequence[System]) -> str:
    """By which name answers were scored, where the user named none."""
    used = sorted({main_scorer(item) for system in systems for item in system.items.values()})
    return scorer or " and ".join(used)


if __name__ == "__main__":
    sys.exit(main())
