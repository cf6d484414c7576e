"""Compare models on the same questions, with intervals, paired tests and a verdict.

    python -m evaluation.compare runs/seed0/rl_gba                       every model of one experiment with its first
    python -m evaluation.compare runs/a runs/b                           models of the same name, b against a
    python -m evaluation.compare runs/a runs/b --models '*/merged/*' --baseline base --out compared
    python -m evaluation.compare runs/a --models base 'base@*' --vary image          with its picture and without

Answers are scored again from `predictions.jsonl`. Different questions and different protocols are refused.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from statistics import NormalDist

import numpy as np

from evaluation.clustered import cluster_index, clustered_se, clustered_wilson
from evaluation.comparison_report import Comparison, Verdict, write_reports
from evaluation.paired import macro_difference, paired_difference
from evaluation.predictions import Prediction, by_variant, read_predictions
from evaluation.scorers import SCORERS, main_outcome, main_scorer, scorer_named
from evaluation.statistics import holm

ALL, MACRO = "all questions", "mean over specialties"


@dataclass(frozen=True)
class System:
    """One model of one experiment.

    Attributes:
        name: unique in a comparison.
        folder: number of the experiment on the command line, from 0.
        model: row name in its experiment.
        items: key -> its prediction.
        right: key -> whether it is right by the chosen scorer.
    """

    name: str
    folder: int
    model: str
    items: Mapping[tuple, Prediction]
    right: Mapping[tuple, bool]


def load_systems(paths: Sequence[Path], models: Sequence[str] = ("*",), scorer: str = "") -> list[System]:
    """Read and score the models of several experiments, in the order of the files.

    Args:
        paths: experiment folders or files of predictions.
        models: patterns of row names, as in a shell; a model that fits one of them is taken. Answers to other variants
            of the questions go by names such as base@image=none, and are taken only by patterns with an @.
        scorer: a name of `evaluation.scorers.SCORERS`; empty takes the main score of each answer's protocol.

    Raises:
        FileNotFoundError: an experiment has no predictions.
        ValueError: a line is malformed, a model answered one question twice, or no model fits one of the patterns.
    """
    outcome = scorer_named(scorer) if scorer else main_outcome
    found: list[tuple[int, str, dict[tuple, Prediction]]] = []
    seen: set[str] = set()
    unfitting = dict.fromkeys(models)
    for folder, path in enumerate(paths):
        rows: dict[str, dict[tuple, Prediction]] = {}
        for label, predictions in by_variant(read_predictions(path)).items():
            for item in predictions:
                name = f"{item.model}@{label}" if label else item.model
                seen.add(name)
                fitting = [p for p in models if (not label or "@" in p) and fnmatchcase(name, p)]
                if not fitting:
                    continue
                for pattern in fitting:
                    unfitting.pop(pattern, None)
                items = rows.setdefault(name, {})
                if item.key in items:
                    raise ValueError(
                        f"{path}: model {name!r} answers {item.key} (specialty, question, guideline, sample) twice; "
                        "were two evaluations appended to one file?"
                    )
                items[item.key] = item
        found += [(folder, model, items) for model, items in rows.items()]
    if unfitting:
        patterns = " or ".join(map(repr, unfitting))
        raise ValueError(f"no model fits {patterns}; the experiments have {', '.join(sorted(seen)) or 'none'}")
    labels = [path.name for path in paths]
    shown = [label if labels.count(label) == 1 else str(path) for label, path in zip(labels, paths, strict=True)]
    names = [model for _, model, _ in found]
    return [
        System(
            model if names.count(model) == 1 else f"{shown[folder]}:{model}",
            folder,
            model,
            items,
            {key: outcome(item).right for key, item in items.items()},
        )
        for folder, model, items in found
    ]


def pairs_of(systems: Sequence[System], baseline: str | None = None) -> list[tuple[System, System]]:
    """Which system is compared with which: (baseline, system).

    With a named baseline, every other system is compared with it. Without, one experiment's models are compared with
    its first; of several experiments, models are compared with their namesake in the first, or the only with the only.

    Raises:
        ValueError: the baseline is not among the systems, or nothing is left to compare.
    """
    if baseline is not None or len({system.folder for system in systems}) == 1:
        first = next((s for s in systems if baseline is None or baseline in (s.name, s.model)), None)
        pairs = [(first, other) for other in systems if other is not first] if first else []
    else:
        firsts = [system for system in systems if system.folder == systems[0].folder]
        others = [system for system in systems if system.folder != systems[0].folder]
        by_model = {system.model: system for system in firsts}
        lone = len(firsts) == 1 and all(sum(o.folder == other.folder for o in others) == 1 for other in others)
        pairs = [(by_model.get(other.model, firsts[0]), other) for other in others if lone or other.model in by_model]
    if not pairs:
        among = f"with baseline {baseline!r} " if baseline is not None else ""
        raise ValueError(
            f"nothing to compare {among}among {', '.join(s.name for s in systems)}; name one of them by --baseline, or "
            "take in more models by --models"
        )
    return pairs


def refuse_unlike(first: System, second: System, vary: Collection[str] = ()) -> None:
    """Make sure that two systems answered the same questions in the same way.

    Args:
        first: the baseline.
        second: what is compared with it.
        vary: keys of the protocol that may differ, such as "image"; "shuffle" also lets the order of options differ,
            and "prompt" stem, instruction and pictures. Files that do not state `prompt_sha256` are taken for alike.

    Raises:
        ValueError: names every key of the protocols that differs, else the first question that does.
    """
    where = f"{first.name!r} and {second.name!r} cannot be compared"
    only = [sorted(set(a.items) - set(b.items)) for a, b in ((first, second), (second, first))]
    if only[0] or only[1]:
        example = (only[0] or only[1])[0]
        raise ValueError(
            f"{where}: they were asked different questions ({len(only[0])} only the former, {len(only[1])} only the "
            f"latter, such as {example}); evaluate both on the same split with the same n and guidelines"
        )
    if unlike := protocol_differences(first, second, vary):
        raise ValueError(
            f"{where}: their protocols differ: {'; '.join(unlike.values())}; evaluate both alike, or name what is "
            f"meant to differ by --vary {' '.join(unlike)}"
        )
    for key, item in first.items.items():
        other = second.items[key]
        ordered = [tuple(sorted(i.options)) if "shuffle" in vary else i.options for i in (item, other)]
        if ordered[0] != ordered[1] or item.gold != other.gold or item.patient_id != other.patient_id:
            raise ValueError(
                f"{where}: question {key} has other options, another right answer or another patient "
                f"({item.options} right {item.gold!r}, {other.options} right {other.gold!r}); were options shuffled "
                "with another seed?"
            )


def protocol_differences(first: System, second: System, vary: Collection[str] = ()) -> dict[str, str]:
    """What else decided the answers of two systems to the same questions, and is not the same.

    Args:
        first: the baseline.
        second: what is compared with it; it has the same keys.
        vary: as of `refuse_unlike`.

    Returns:
        Key of the protocol, or "prompt" -> the two values of the first question that they differ for.
    """
    found: dict[str, str] = {}
    for key, item in first.items.items():
        other = second.items[key]
        for name in sorted({name for name, _ in set(item.protocol.items()) ^ set(other.protocol.items())}):
            values = (repr(side.protocol.get(name, "not stated")) for side in (item, other))
            found.setdefault(name, f"{name} {' and '.join(values)}")
        if len({item.prompt_sha256, other.prompt_sha256} - {""}) > 1:
            found.setdefault(
                "prompt",
                f"prompt, as question {key} was put with another stem, instruction or picture (was the data set or the "
                "guideline of this name changed between them?)",
            )
    return {name: found[name] for name in sorted(found) if name not in vary}


def answer_alike(first: System, second: System) -> bool:
    """Whether two systems, which were asked the same, gave the very same completions to everything.

    Experiments that share a stage share its answers; a test of these would find nothing and cost the others power.
    """

    def said(item: Prediction) -> tuple:
        return item.options, item.turns, item.completion, item.option_losses

    return all(said(item) == said(second.items[key]) for key, item in first.items.items())


def compare_pair(
    first: System, second: System, *, confidence: float = 0.95, n_resamples: int = 10_000
) -> list[Comparison]:
    """Compare two systems per specialty, over all questions, and by the mean over specialties; p is not corrected yet.

    Args:
        first: the baseline.
        second: what is compared with it.
        confidence: coverage of all intervals, in (0, 1).
        n_resamples: bootstrap draws.

    Returns:
        `Comparison`s; the two last only where there are several specialties.
    """
    columns: dict[str, list[tuple]] = {}
    for key in first.items:
        columns.setdefault(key[0], []).append(key)
    parts = columns if len(columns) == 1 else {**columns, ALL: list(first.items)}
    rows, differences, errors = [], [], []
    for name, keys in parts.items():
        right = [np.fromiter((s.right[key] for key in keys), dtype=np.int64, count=len(keys)) for s in (first, second)]
        patients = cluster_index([(key[0], first.items[key].patient_id) for key in keys])
        found = paired_difference(*right, patients, confidence=confidence, n_resamples=n_resamples)
        bounds = [clustered_wilson(side, patients, confidence) for side in right]
        means = [float(side.mean()) for side in right]
        rows.append(Comparison(first.name, second.name, name, *means, *bounds, **found.__dict__))
        if name != ALL:
            differences.append(found.difference)
            errors.append((clustered_se(right[0], patients), clustered_se(right[1], patients), found.se))
    if len(columns) > 1:
        rows.append(_macro(rows[:-1], differences, errors, rows[-1], confidence))
    return rows


def _macro(rows: Sequence[Comparison], differences, errors, pooled: Comparison, confidence: float) -> Comparison:
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    mean, error, p = macro_difference(differences, [paired for _, _, paired in errors])
    sides = []
    for i, name in enumerate(("accuracy_a", "accuracy_b")):
        centre, width, _ = macro_difference([getattr(row, name) for row in rows], [e[i] for e in errors])
        sides.append((centre, (max(0.0, centre - z * width), min(1.0, centre + z * width))))
    (a, bounds_a), (b, bounds_b) = sides
    return replace(
        pooled,
        specialty=MACRO,
        accuracy_a=a,
        accuracy_b=b,
        interval_a=bounds_a,
        interval_b=bounds_b,
        difference=mean,
        low=mean - z * error,
        high=mean + z * error,
        p_mcnemar=math.nan,
        p=p,
        se=error,
    )


def judged(rows: Sequence[Comparison], alpha: float = 0.05) -> list[Comparison]:
    """Correct the p-values of a whole table by Holm's method and say what holds.

    "better" and "worse" need both: a corrected p below alpha and an interval without 0. A p that is unknown (one
    patient in a specialty) is taken for 1.
    """
    corrected = holm([1.0 if math.isnan(row.p) else row.p for row in rows])
    judged_rows = []
    for row, p in zip(rows, corrected, strict=True):
        verdict: Verdict = "no evidence"
        if p < alpha and row.low > 0:
            verdict = "better"
        elif p < alpha and row.high < 0:
            verdict = "worse"
        judged_rows.append(replace(row, p_holm=p, verdict=verdict))
    return judged_rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        0; 2 if the experiments cannot be read or compared.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiments", nargs="+", type=Path, help="experiment folders or files of predictions")
    parser.add_argument("--models", nargs="+", default=["*"], help="patterns of row names; all by default")
    parser.add_argument("--baseline", help="row name that all others are compared with")
    parser.add_argument("--scorer", default="", choices=list(SCORERS), help="by default what each protocol counts by")
    parser.add_argument("--vary", nargs="+", default=[], help="protocol keys that may differ, such as image or shuffle")
    parser.add_argument("--alpha", type=float, default=0.05, help="family-wise error rate; intervals cover 1 - alpha")
    parser.add_argument("--out", type=Path, help="folder for compare.md, .csv, .tex and .png")
    given = parser.parse_args(arguments)
    try:
        if not 0 < given.alpha < 1:
            raise ValueError(f"--alpha must lie in (0, 1), got {given.alpha}")
        systems = load_systems(given.experiments, given.models, given.scorer)
        pairs = pairs_of(systems, given.baseline)
        for first, second in pairs:
            refuse_unlike(first, second, given.vary)
        apart = [pair for pair in pairs if not answer_alike(*pair)]
        if not apart:
            raise ValueError(
                f"all {len(pairs)} pairs gave the very same completions to every question, such as "
                f"{pairs[0][0].name!r} and {pairs[0][1].name!r}; are these the same models? Name "
                "others by --models and --baseline"
            )
        rows = [row for pair in apart for row in compare_pair(*pair, confidence=1 - given.alpha)]
    except (OSError, ValueError) as error:
        print(f"compare: {error}", file=sys.stderr)
        return 2
    alike = len(pairs) - len(apart)
    main_scorers = sorted({main_scorer(item) for system in systems for item in system.items.values()})
    scorer = given.scorer or " and ".join(main_scorers)
    print(write_reports(judged(rows, given.alpha), given.out, scorer, given.alpha, alike=alike))
    return 0


if __name__ == "__main__":
    sys.exit(main())
