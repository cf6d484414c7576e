"""The models of experiments as they are compared: what each got right, and who may stand beside whom."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from evaluation.baselines import Answers, read_training_answers, without_picture
from evaluation.predictions import Prediction, by_variant, read_predictions
from evaluation.scorers import main_outcome, scorer_named


@dataclass(frozen=True)
class System:
    """One model of one experiment.

    Attributes:
        name: unique in a comparison.
        folder: number of the experiment on the command line, from 0.
        model: row name in its experiment.
        items: key -> its prediction.
        right: key -> whether it is right by the chosen scorer.
        blind: key -> whether it is right without a picture, by the chosen scorer; empty where that was not measured.
        training: how often which answer is right in the training rows, as of `evaluation.baselines`.
    """

    name: str
    folder: int
    model: str
    items: Mapping[tuple, Prediction]
    right: Mapping[tuple, bool]
    blind: Mapping[tuple, bool] = field(default_factory=dict)
    training: Answers = field(default_factory=dict)


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
    beside: list[tuple[dict, Answers]] = []
    seen: set[str] = set()
    unfitting = dict.fromkeys(models)
    for folder, path in enumerate(paths):
        rows: dict[str, dict[tuple, Prediction]] = {}
        everything = read_predictions(path)
        for label, predictions in by_variant(everything).items():
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
        taken = [item for item in everything if item.model in rows]
        beside.append((without_picture(taken, outcome), read_training_answers(path)))
    if unfitting:
        patterns = " or ".join(map(repr, unfitting))
        raise ValueError(f"no model fits {patterns}; the experiments have {', '.join(sorted(seen)) or 'none'}")
    labels = [path.name for path in paths]
    shown = [label if labels.count(label) == 1 else str(path) for label, path in zip(labels, paths, strict=True)]
    names = [model for _, model, _ in found]
    systems = []
    for folder, model, items in found:
        right = {key: outcome(item).right for key, item in items.items()}
        blind = {key: held for part in beside[folder][0].get(model, {}).values() for key, held in part.items()}
        if all(item.protocol.get("image") == "none" for item in items.values()):
            blind = right
        name = model if names.count(model) == 1 else f"{shown[folder]}:{model}"
        systems.append(System(name, folder, model, items, right, blind, beside[folder][1]))
    return systems


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
        if item.score_version != other.score_version:
            versions = (side.score_version or "before 6" for side in (item, other))
            found.setdefault(
                "score_version",
                f"score_version {' and '.join(versions)}, so that the numbers beside them were not read alike (repeat "
                "the evaluation of the older: its answers are kept and scored anew)",
            )
    return {name: found[name] for name in sorted(found) if name not in vary}


def answer_alike(first: System, second: System) -> bool:
    """Whether two systems, which were asked the same, gave the very same completions to everything.

    Experiments that share a stage share its answers; a test of these would find nothing and cost the others power.
    """

    def said(item: Prediction) -> tuple:
        return item.options, item.turns, item.completion, item.option_losses

    return all(said(item) == said(second.items[key]) for key, item in first.items.items())
