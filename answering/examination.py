"""Asking a model the questions of a matrix's cells, piece by piece: a kill costs at most the piece in work."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from answering.asking import answers
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
            context: knows the base.
            questions: of a cell, in order, as its variant puts them.
            instructions: guideline -> what its prompts end with.
            decoding: how answers are drawn.
        """
        self.name = context.experiment.name
        self.questions, self.instructions, self.decoding = questions, instructions, decoding
        self.model = LiveModel(context)
        self.prompts = HeldPrompts(decoding.protocol)

    def run(self, todo: Sequence[Cell]) -> None:
        """Fill the cells.

        Raises:
            AdapterError: an adapter is damaged or of another base; told before the first question.
        """
        self.model.check(path for cell in todo for path in cell.adapters)
        total = sum(len(self.questions(cell)) for cell in todo) * self.decoding.samples
        progress = Countdown(self.name, total, "answers")
        for done, cell in enumerate(todo, 1):
            with self.model.acting(cell.adapters) as policy:
                text = "".join(self.pieces(policy, cell, progress))
            put_text(cell.path, text)
            shutil.rmtree(pieces_folder(cell), ignore_errors=True)
            predictions = read_cell(cell, self.questions(cell), self.decoding.samples)
            told = "nothing asked"
            if predictions:
                result = score(predictions)
                told = f"{100 * result.accuracy:.1f} % of {result.n}"
            progress.say(f"evaluated {cell.name}: {told}  ({done}/{len(todo)}, {progress.left} left)")
        progress.close()

    def run_share(self, todo: Sequence[Cell], index: int, count: int) -> None:
        """Answer every `count`-th piece of the cells, which whoever fills them then finds.

        Args:
            todo: the cells. Which pieces are of which share does not depend on them, as shares may see other ones.
            index: of the share, from 0.
            count: of the shares.

        Raises:
            AdapterError: as `run`.
        """
        self.model.check(path for cell in todo for path in cell.adapters)
        for cell in todo:
            first = int(cell.path.stem[:8], 16)  # the hash that names it, so that small cells are not all share 0's
            own = [piece for i, piece in enumerate(self.cut(cell), first) if i % count == index]
            missing = [(file, part) for file, part in own if not file.exists()]
            if not missing:
                continue
            with self.model.acting(cell.adapters) as policy:
                for file, part in missing:
                    self.put(file, policy, cell, part)
            print(f"answered {len(missing)} pieces of {cell.name}, share {index + 1} of {count}", flush=True)

    def pieces(self, policy: Policy, cell: Cell, progress: Countdown) -> Iterator[str]:
        """The lines of a cell, in pieces; those on disk are taken."""
        for file, part in self.cut(cell):
            found = file.exists()
            if not found:
                self.put(file, policy, cell, part)
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

    def put(self, file: Path, policy: Policy, cell: Cell, questions: Sequence[Example]) -> None:
        """Answer the questions of a piece, and write it."""
        predictions = self.answers(policy, cell, questions)
        put_text(file, "".join(prediction.to_json() + "\n" for prediction in predictions))

    def answers(self, policy: Policy, cell: Cell, questions: Sequence[Example]) -> list[Prediction]:
        """Answers of the policy as it stands; the samples of a question are contiguous."""
        rows = [(example, number) for example in questions for number in range(self.decoding.samples)]
        instruction = self.instructions[cell.guideline]
        group = (cell.specialty, cell.variant, cell.guideline)
        prompts = [self.prompts.of(policy, example, instruction, *group) for example in questions]
        given = answers(policy, questions, prompts, cell.guideline, self.decoding)
        names = {"model": cell.model, "specialty": cell.specialty, "guideline": cell.guideline}
        return [
            answer.prediction(example, sample=number, protocol=cell.protocol, **names)
            for (example, number), answer in zip(rows, given, strict=True)
        ]


def pieces_folder(cell: Cell) -> Path:
    """Where the pieces of an unfinished cell lie."""
    return cell.path.with_suffix(".parts")
