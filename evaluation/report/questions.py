"""The questions behind the answers: the data sets that an experiment names are read again, by their ids."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from configs.build import build
from configs.check import Checker
from configs.problems import ConfigError, Problem
from configs.schema import Component, Slot
from datamodules.batch import BadExampleError, Example
from datamodules.hashes import prompt_sha256
from datamodules.prompts import NEUTRAL
from evaluation.costs import read
from evaluation.kept import KEPT
from evaluation.predictions import Prediction

DATA = Slot("datamodules.base.VQADataModule")


@dataclass
class Questions:
    """The questions of one experiment.

    Attributes:
        known: column -> question id -> question.
        notes: why questions of a column cannot be shown, in words.
    """

    known: dict[str, dict[str, Example]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def asked(self, item: Prediction) -> Example | None:
        """The question that an answer is to, if it is known and still the same as when it was asked."""
        found = self.known.get(item.specialty, {}).get(item.question_id)
        return found if found is not None and not change(found, item) else None


def change(example: Example, item: Prediction) -> str:
    """What has changed of a question since an answer was given to it, in words; empty where nothing has.

    Choice: stem and pictures are compared where the prompt carried no guideline of which the wording would be needed,
        which is the way of every matrix; options and right answer always.
    """
    if sorted(example.options) != sorted(item.options) or example.answer != item.gold:
        return f"the right answer is {example.answer!r} of {example.options}, and was {item.gold!r} of {item.options}"
    plain = item.guideline == NEUTRAL and not item.protocol.keys() & {"protocol", "image", "wording"}
    if plain and item.prompt_sha256 and prompt_sha256(example, "") != item.prompt_sha256:
        return "its stem or its pictures are others"
    return ""


def questions_of(experiment: Path, wanted: Collection[str], trust: Sequence[str] = ()) -> Questions:
    """Read the sets of an experiment's folder; what cannot be read is told in the notes.

    Args:
        experiment: its folder.
        wanted: ids of the questions that are kept; sets may be far larger than what was asked.
        trust: packages besides this project's whose data sets may be read. Those that the folder itself states do not
            count: it may come from somebody else.

    Raises:
        ValueError: the settings are damaged.
    """
    settings = read(experiment / "experiment.json")
    if settings is None:
        return Questions(notes=[f"{experiment} has no experiment.json: questions and pictures are not shown"])
    found = Questions()
    for name, component in sets_of(settings).items():
        try:
            data = build(checked(component, name, trust, experiment), specialty=name, seed=settings.get("seed", 0))
            every = chain.from_iterable(data.splits.values())
            found.known[name] = {one.question_id: one for one in every if one.question_id in wanted}
        except (ConfigError, BadExampleError, ImportError, OSError, ValueError) as error:
            found.notes.append(f"questions of {name} cannot be read, and are not shown: {error}")
    return found


def sets_of(settings: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Column -> component of its data set, as resolved settings state them."""
    callbacks = [one for one in (settings.get("callbacks") or {}).values() if isinstance(one, dict)]
    kept = next((own for one in callbacks if (own := (one.get("init_args") or {}).get(KEPT))), None)
    return {**(settings.get("specialties") or {}), **({KEPT: kept} if kept else {})}


def checked(component: Any, name: str, trust: Sequence[str], experiment: Path) -> Component:
    """A component of a file that may be anybody's, checked like one of a configuration.

    Raises:
        ConfigError: it is no data set of this project or of a trusted package, or has wrong options.
    """
    problems: list[Problem] = []
    place = str(experiment / "experiment.json")
    good = Checker(lambda *fault: problems.append(Problem(place, *fault)), trust).component(component, DATA, name)
    if problems:
        raise ConfigError(problems)
    return Component(good["class_path"], good["init_args"])
