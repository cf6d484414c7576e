"""Asking a model the questions of a matrix's cells, piece by piece: a kill costs at most the piece in work."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from answering.answer import Answer
from answering.asking import answers
from answering.behind_endpoint import BehindEndpoint
from answering.context import AskingContext
from answering.countdown import Countdown
from answering.decoding import Decoding
from answering.held_prompts import HeldPrompts
from answering.live_model import LiveModel
from artifacts.manifest import get_text, put_text
from datamodules.batch import Example
from evaluation.predictions import Prediction
from evaluation.scoring import score
from evaluation.variants import Variant
from lightning_modules.policy import Policy


@dataclass(frozen=True)
class Cell:
    """One model on one specialty, asked in one way under one guideline.

    Attributes:
        model: row name.
        adapters: folders of the adapters that act together.
        specialty: column name.
        variant: how the questions are put.
        guideline: whose instruction the prompts carry.
        protocol: what differs from the default protocol.
        path: where its predictions go.
    """

    model: str
    adapters: tuple[Path, ...]
    specialty: str
    variant: Variant
    guideline: str
    protocol: Mapping[str, str]
    path: Path

    @property
    def name(self) -> str:
        """For a line of progress."""
        ways = [f"{key}={value}" for key, value in self.variant.protocol.items()]
        return " ".join(
            [self.model, "on", self.specialty, *([self.guideline] if self.guideline != "neutral" else ()), *ways]
        )


def read_cell(cell: Cell, questions: Sequence[Example], samples: int) -> list[Prediction]:
    """Predictions of a stored cell, under this experiment's names and with the tags that its questions have now.

    Args:
        cell: which.
        questions: that it asks.
        samples: answers to each.

    Raises:
        DamagedError: the file is not as it was written; names it.
        ValueError: a line is malformed, or these are not the answers to these questions; names the file.
    """
    lines = get_text(cell.path).split("\n")[:-1]  # splitlines() would cut at U+2028 too
    found = [Prediction.from_json(line, str(cell.path)) for line in lines]
    tags = {example.question_id: dict(example.tags) for example in questions}
    if Counter(item.question_id for item in found) != Counter(dict.fromkeys(tags, samples)):
        raise ValueError(
            f"{cell.path}: holds {len(found)} answers, expected {samples} to each of {len(tags)} questions; was the "
            "file cut off? delete it, and the same command answers them again"
        )
    names = {"model": cell.model, "specialty": cell.specialty, "protocol": dict(cell.protocol)}
    return [replace(item, tags=tags[item.question_id], **names) for item in found]


class Examinee(Protocol):
    """Who is asked the questions of a cell."""

    def answers(self, cell: Cell, questions: Sequence[Example], instruction: str) -> list[Answer]:
        """The answers to some of a cell's questions; the samples of a question are contiguous.

        Args:
            cell: which.
            questions: as its variant puts them.
            instruction: of its guideline.
        """


@dataclass(frozen=True)
class Acting:
    """A policy as it stands, and the prompts that were written for it."""

    policy: Policy
    prompts: HeldPrompts
    decoding: Decoding

    def answers(self, cell: Cell, questions: Sequence[Example], instruction: str) -> list[Answer]:
        """As of `Examinee`."""
        group = (cell.specialty, cell.variant, cell.guideline)
        prompts = [self.prompts.of(self.policy, example, instruction, *group) for example in questions]
        return answers(self.policy, questions, prompts, cell.guideline, self.decoding)


class OnBase:
    """The experiment's own base, with a cell's adapters folded in."""

    def __init__(self, context: AskingContext, decoding: Decoding) -> None:
        """Keep how; nothing is loaded yet."""
        self.model, self.prompts, self.decoding = LiveModel(context), HeldPrompts(decoding.protocol), decoding

    def check(self, adapters: Iterable[Path]) -> None:
        """As of `LiveModel.check`."""
        self.model.check(adapters)

    def keep_to(self, index: int, count: int) -> None:
        """There is no budget to share."""

    @contextmanager
    def acting(self, adapters: Sequence[Path]) -> Iterator[Examinee]:
        """Who answers with these adapters."""
        with self.model.acting(adapters) as policy:
            yield Acting(policy, self.prompts, self.decoding)


class Examination:
    """Works through missing cells with one model in memory; what is done is on disk."""

    def __init__(
        self,
        context: AskingContext,
        questions: Callable[[Cell], Sequence[Example]],
        instructions: Mapping[str, str],
        decoding: Decoding,
    ) -> None:
        """Keep what to ask; nothing is loaded yet.

        Args:
            context: knows the base, or the endpoint.
            questions: of a cell, in order, as its variant puts them.
            instructions: guideline -> what its prompts end with.
            decoding: how answers are drawn.
        """
        self.name = context.experiment.name
        self.questions, self.instructions, self.decoding = questions, instructions, decoding
        endpoint = context.endpoint
        self.model = OnBase(context, decoding) if endpoint is None else BehindEndpoint(*endpoint, decoding)

    def run(self, todo: Sequence[Cell]) -> None:
        """Fill the cells.

        Raises:
            AdapterError: an adapter is damaged or of another base; told before the first question.
        """
        self.model.check(path for cell in todo for path in cell.adapters)
        total = sum(len(self.questions(cell)) for cell in todo) * self.decoding.samples
        progress = Countdown(self.name, total, "answers")
        for done, cell in enumerate(todo, 1):
            with nullcontext() if self.is_answered(cell) else self.model.acting(cell.adapters) as who:
                text = "".join(self.pieces(who, cell, progress))
            put_text(cell.path, text)
            shutil.rmtree(pieces_folder(cell), ignore_errors=True)
            predictions = read_cell(cell, self.questions(cell), self.decoding.samples)
            told = "nothing asked"
            if predictions:
                result = score(predictions)
                told = f"{100 * result.accuracy:.1f} % of {result.n}"
            progress.say(f"evaluated {cell.name}: {told}  ({done}/{len(todo)}, {progress.left} left)")
        progress.close()

    def run_share(self, todo: Sequence[Cell], index: int, count: int) -> bool:
        """Answer every `count`-th piece of the cells, which whoever fills them then finds.

        Args:
            todo: the cells. Which pieces are of which share does not depend on them, as shares may see other ones.
            index: of the share, from 0.
            count: of the shares.

        Returns:
            Whether any piece of the share was missing.

        Raises:
            AdapterError: as `run`.
        """
        answered = False
        self.model.check(path for cell in todo for path in cell.adapters)
        self.model.keep_to(index, count)
        for cell in todo:
            first = int(cell.path.stem[:8], 16)  # the hash that names it, so that small cells are not all share 0's
            own = [piece for i, piece in enumerate(self.cut(cell), first) if i % count == index]
            missing = [(file, part) for file, part in own if not file.exists()]
            if not missing:
                continue
            with self.model.acting(cell.adapters) as who:
                for file, part in missing:
                    self.put(file, who, cell, part)
            answered = True
            print(f"answered {len(missing)} pieces of {cell.name}, share {index + 1} of {count}", flush=True)
        return answered

    def is_answered(self, cell: Cell) -> bool:
        """Whether every piece of a cell is on disk, so that nobody has to be asked."""
        return all(file.exists() for file, _ in self.cut(cell))

    def pieces(self, who: Examinee | None, cell: Cell, progress: Countdown) -> Iterator[str]:
        """The lines of a cell, in pieces; those on disk are taken."""
        for file, part in self.cut(cell):
            found = file.exists()
            if not found:
                self.put(file, who, cell, part)
            progress.advance(len(part) * self.decoding.samples, found=found)
            yield get_text(file)

    def cut(self, cell: Cell) -> Iterator[tuple[Path, Sequence[Example]]]:
        """(file, questions) of each piece of a cell: as many questions as are decoded together.

        The pieces are the batches of an uninterrupted run, so that its bytes do not depend on where it was killed.
        """
        questions = self.questions(cell)
        size = self.decoding.questions_at_once(questions)
        for start in range(0, len(questions), size):
            part = questions[start : start + size]
            yield pieces_folder(cell) / f"{start:06}-{start + len(part):06}.jsonl", part

    def put(self, file: Path, who: Examinee, cell: Cell, questions: Sequence[Example]) -> None:
        """Answer the questions of a piece, and write it."""
        predictions = self.answers(who, cell, questions)
        put_text(file, "".join(prediction.to_json() + "\n" for prediction in predictions))

    def answers(self, who: Examinee, cell: Cell, questions: Sequence[Example]) -> list[Prediction]:
        """Answers of whoever is asked, as it stands; the samples of a question are contiguous."""
        rows = [(example, number) for example in questions for number in range(self.decoding.samples)]
        given = who.answers(cell, questions, self.instructions[cell.guideline])
        names = {"model": cell.model, "specialty": cell.specialty, "guideline": cell.guideline}
        return [
            answer.prediction(example, sample=number, protocol=cell.protocol, **names)
            for (example, number), answer in zip(rows, given, strict=True)
        ]


def pieces_folder(cell: Cell) -> Path:
    """Where the pieces of an unfinished cell lie."""
    return cell.path.with_suffix(".parts")
