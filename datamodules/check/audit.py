"""One set under the magnifier: its counts per split, every row and picture that cannot be used, and what it holds."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from datamodules.base import SPLITS, VQADataModule
from datamodules.batch import (
    AnswerStyle,
    BadExampleError,
    Example,
    ImageSource,
    PictureError,
    file_of,
    image_key,
    load_image,
)
from datamodules.picked import Picked
from datamodules.pictures import difference_hash
from datamodules.places import inside_root
from datamodules.prompts import question_text
from datamodules.row_set import Places, RowSet
from datamodules.rows import Fault
from datamodules.sight import Sight
from datamodules.spelling import plain, spells_nothing
from datamodules.store import HELD

TROUBLES = ("missing", "broken", "over_limits", "outside")
MANY_VALUES = 40
"""A tag with more values than this (an id, a free text) is not counted by value."""


@dataclass(frozen=True)
class Picture:
    """What is known of one picture.

    Attributes:
        key: hash of its pixels, or of what it is read from where it was not opened; equal pictures have equal keys.
        trouble: why it cannot be used, one of `TROUBLES`; empty where nothing is known against it.
        reason: the same in words.
        opened: whether its pixels were looked at.
        look: (4,) uint64 difference hash; None where it was not opened.
    """

    key: str
    trouble: str = ""
    reason: str = ""
    opened: bool = False
    look: np.ndarray | None = None


@dataclass(frozen=True)
class Item:
    """An example with the place of its row (`Fault` says how it counts) and its pictures."""

    example: Example
    file: str
    row: int
    pictures: tuple[Picture, ...]

    @property
    def text(self) -> str:
        """The question and its options in any order, without case, accents' form, spaces and punctuation."""
        return " | ".join([normal_text(self.example.question), *sorted(map(normal_text, self.example.options))])


@dataclass(frozen=True)
class Audit:
    """The result for one set.

    Attributes:
        name: the specialty.
        items: split -> its questions.
        splits: split -> counts.
        problems: what cannot be used.
        doubts: what can be used, and should be looked at.
        tolerated: whether the set's own settings leave bad rows out.
        notes: what a table of results should state about the set.
        answer_with: what the answer block of its training targets holds.
    """

    name: str
    items: Mapping[str, Sequence[Item]]
    splits: Mapping[str, dict[str, Any]]
    problems: Sequence[Fault]
    doubts: Sequence[Fault] = ()
    tolerated: bool = False
    notes: Mapping[str, Any] = field(default_factory=dict)
    answer_with: AnswerStyle = "letter"

    @property
    def usable(self) -> bool:
        """Whether a run may use the set as it is configured."""
        empty = any(problem.row == 0 or problem.unread for problem in self.problems)
        return not self.problems or (self.tolerated and not empty)


def normal_text(text: str) -> str:
    """Letters and digits in lower case, single spaces between words.

    Examples:
        >>> normal_text("Is the  heart ENLARGED?") == normal_text("is the heart enlarged")
        True
    """
    return " ".join(re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold()))


def audit(
    data: VQADataModule,
    *,
    limit: int | None = None,
    draw: bool = True,
    looks: bool = True,
    as_used: bool = False,
    tokens: Callable[[Example], int] | None = None,
    max_tokens: int = 0,
    sight: Sight | None = None,
) -> Audit:
    """Read a set and look at everything in it; nothing that is wrong with a row or a picture is raised.

    Args:
        data: the set; bad rows are listed whatever its `on_bad_row` says.
        limit: picture files to open, in the order of their names; None opens all.
        draw: also look at pictures that are made when they are looked at.
        looks: also hash what is opened.
        as_used: take the splits as a run would get them, and let them raise; without it every bad row is listed.
        tokens: length of an example's prompt and longest trace; None counts no tokens.
        max_tokens: lengths above it are counted as cut off; 0 sets no limit.
        sight: what the model can take; None asks no model.
    """
    examples, faults, places, notes = used(data) if as_used else read(data)
    pictures = look_at(chain.from_iterable(examples.values()), data, limit, draw, looks)
    unplaced = (data.config.root or type(data).__name__, 0)
    problems, items = list(faults), {}
    for split in SPLITS:
        items[split] = items_of(examples.get(split, ()), places, unplaced, pictures)
        for one in items[split] if any(picture.trouble for picture in pictures.values()) else ():
            where = "" if one.row else f"{one.example.question_id}: "
            problems += [Fault(one.file, one.row, where + p.reason) for p in one.pictures if p.trouble]
    for split, held in examples.items() if sight is not None else ():
        for name, reason in sight.unfit(split, held, data.config.answer_with).items():
            file, row = places.get(name, unplaced)
            problems.append(Fault(file, row, reason if row else f"{name}: {reason}"))
    splits = {split: counts(held, tokens, max_tokens) for split, held in items.items()}
    for split, number in bad_rows(data).items():
        splits[split]["bad_rows"] = number
    tolerated = getattr(data.config, "on_bad_row", "fail") == "skip"
    doubts = () if as_used else tuple(doubtful(chain.from_iterable(items.values())))
    answer_with = data.config.answer_with
    return Audit(data.specialty, items, splits, tuple(problems), doubts, tolerated, notes, answer_with)


Contents = tuple[Mapping[str, Sequence[Example]], list[Fault], Places | Mapping[str, tuple[str, int]], dict[str, Any]]
"""Examples by split, bad rows, places of the rows, and what to state about the set."""


def items_of(
    examples: Sequence[Example],
    places: Places | Mapping[str, tuple[str, int]],
    unplaced: tuple[str, int],
    pictures: Mapping[Any, Picture],
) -> Sequence[Item]:
    """Examples with their places and pictures; of many, each is made when it is asked for.

    Args:
        examples: of one split.
        places: where they are from.
        unplaced: where those are from of which it is not known.
        pictures: all of them, by `source_key`.
    """

    def item(number: int) -> Item:
        example = examples[number]
        held = tuple(pictures[source_key(source)] for source in example.images)
        return Item(example, *places.get(example.question_id, unplaced), held)

    found = Picked(item, range(len(examples)))
    return found if len(found) > HELD else list(found)


def used(data: VQADataModule) -> Contents:
    """A set as a run gets it.

    Raises:
        BadExampleError: it cannot be used.
    """
    return data.splits, [], data.scan.places if isinstance(data, RowSet) else {}, {}


def read(data: VQADataModule) -> Contents:
    """A set with every bad row listed."""
    whole = f"{data.config.root or type(data).__name__}"
    try:
        if not isinstance(data, RowSet):
            return used(data)
        lenient = data
        if data.config.on_bad_row != "fail":
            lenient = type(data)(replace(data.config, on_bad_row="fail"), specialty=data.specialty, seed=data.seed)
        scan = lenient.scan
        examples = {split: lenient.as_shown(scan.store, held.numbers) for split, held in scan.examples.items()}
        faults = list(scan.faults)
        for split in lenient.expected_splits():
            if not examples[split]:
                faults.append(Fault(", ".join(scan.files.get(split, [whole])), 0, f"the {split} split is empty"))
        return examples, faults, scan.places, {**lenient.statement, "left_out": dict(scan.left_out), "rows": scan.rows}
    except (BadExampleError, OSError) as error:
        return {}, [Fault(whole, 0, str(error))], {}, {}


def bad_rows(data: VQADataModule) -> Counter[str]:
    """Bad rows by the split of their file; a file that serves several splits counts for the first."""
    try:
        scan = data.scan if isinstance(data, RowSet) else None
    except (BadExampleError, OSError):  # no row was read at all, which `read` lists
        scan = None
    if scan is None:
        return Counter()
    split_of = {name: split for split, names in reversed(scan.files.items()) for name in names}
    found: Counter[str] = Counter()
    for fault in scan.faults:
        found[split_of[fault.file]] += 0 if fault.unread else fault.rows
    return found


def doubtful(items: Iterable[Item]) -> Iterator[Fault]:
    """Options that spell a missing value, and options of one question that look the same."""
    for item in items:
        options = item.example.options
        reasons = [f"option {text!r} is how programs write a missing value" for text in options if spells_nothing(text)]
        looks: dict[str, list[str]] = {}
        for text in options:
            looks.setdefault(plain(text), []).append(text)
        reasons += [f"options {', '.join(map(repr, held))} look the same" for held in looks.values() if len(held) > 1]
        where = "" if item.row else f"{item.example.question_id}: "
        yield from (Fault(item.file, item.row, where + reason) for reason in reasons)


def source_key(source: ImageSource) -> Any:
    """Tells sources apart: a path by its name, what knows its bytes by them, anything else by identity."""
    file = file_of(source)
    return str(file) if file is not None else getattr(source, "sha256", None) or id(source)


def look_at(
    examples: Iterable[Example], data: VQADataModule, limit: int | None, draw: bool, looks: bool
) -> dict[Any, Picture]:
    """Every distinct picture of the examples, by `source_key`."""
    root, allowed = data.root, data.further_folders
    sources = {source_key(source): source for example in examples for source in example.images}
    files = sorted(key for key, source in sources.items() if file_of(source) is not None)
    opened = len(files) if limit is None else limit
    found = {key: look(sources[key], root, number < opened, looks, allowed) for number, key in enumerate(files)}
    for key, source in sources.items():
        if key not in found:
            found[key] = look(source, root, draw, looks) if draw else Picture(str(key))
    return found


def look(source: ImageSource, root: Path, opened: bool, looks: bool, allowed: Sequence[str] = ()) -> Picture:
    """One picture; where it is not opened, only whether a file is there and lies below the root."""
    key, file = str(source_key(source)), file_of(source)
    try:
        if file is not None:
            inside_root(file, root, allowed)
            if not opened and not file.is_file():
                raise PictureError("missing", f"{file}: no such image file")
        if not opened:
            return Picture(key)
        image = load_image(source)
    except BadExampleError as error:
        return Picture(key, getattr(error, "trouble", "outside"), str(error))
    except (OSError, ValueError) as error:
        return Picture(key, "broken", f"{key}: {error}")
    return Picture(image_key(image), opened=True, look=difference_hash(image) if looks else None)


def counts(
    items: Sequence[Item], tokens: Callable[[Example], int] | None = None, max_tokens: int = 0
) -> dict[str, Any]:
    """What a split holds.

    `letters` are shares of the closed questions, `majority_guess` the accuracy of always answering the most frequent
    letter, `random_guess` that of a fair draw. `images` counts distinct pictures, whether or not they can be used.
    """
    letters: Counter[str] = Counter()
    options: Counter[int] = Counter()
    shown: Counter[int] = Counter()
    patients: set[str] = set()
    sources: dict[Any, Picture] = {}
    same = Same()
    characters, lengths, with_traces, random_guesses = array("Q"), array("Q"), 0, 0.0
    for item in items:
        example = item.example
        if example.options:
            letters[example.letter] += 1
            options[len(example.options)] += 1
            random_guesses += 1 / len(example.options)
        shown[len(item.pictures)] += 1
        patients.add(example.patient_id)
        sources.update(zip(map(source_key, example.images), item.pictures, strict=True))
        same.add(item)
        characters.append(len(question_text(example)))
        with_traces += bool(example.reasoning)
        if tokens is not None:
            lengths.append(tokens(example))
    closed = sum(letters.values())
    n = max(1, closed)
    troubles = Counter(picture.trouble for picture in sources.values())
    sound = [picture.key for picture in sources.values() if picture.opened]
    found = {
        "examples": len(items),
        "bad_rows": 0,
        "open_questions": len(items) - closed,
        "patients": len(patients),
        "with_traces": with_traces,
        "images": len(sources),
        "images_found": len(sources) - troubles["missing"],
        **{f"images_{trouble}": troubles[trouble] for trouble in TROUBLES},
        "images_opened": len(sound) + troubles["broken"] + troubles["over_limits"],
        "images_per_question": {str(k): v for k, v in sorted(shown.items())},
        "duplicate_images": len(sound) - len(set(sound)),
        "duplicate_questions": same.repeated,
        "contradictions": len(same.contradicting),
        "options": {str(k): v for k, v in sorted(options.items())},
        "letters": {letter: round(count / n, 3) for letter, count in sorted(letters.items())},
        "letter_counts": dict(sorted(letters.items())),
        "majority_guess": round(max(letters.values(), default=0) / n, 3),
        "random_guess": round(random_guesses / n, 3),
        "tags": tag_counts(items),
        "characters": spread(characters),
    }
    if tokens is not None:
        cut = sum(length > max_tokens for length in lengths) if max_tokens else 0
        found["tokens"] = {**spread(lengths), "limit": max_tokens, "cut_off": cut}
    return found


class Same:
    """Questions that are the same: text, options and pictures.

    Attributes:
        repeated: questions that stood there before.
        contradicting: those of which the right answer is given in two ways, as hashes.
    """

    def __init__(self) -> None:
        self.repeated = 0
        self.contradicting: set[bytes] = set()
        self._answers: dict[bytes, bytes] = {}

    def add(self, item: Item) -> None:
        """Count a question."""
        question = digest(item.text, *(picture.key for picture in item.pictures))
        answer = digest(normal_text(item.example.answer))
        first = self._answers.setdefault(question, answer)
        self.repeated += first is not answer
        if first != answer:
            self.contradicting.add(question)


def digest(*texts: str) -> bytes:
    """A hash of texts that takes little room; those that differ have different ones."""
    return hashlib.blake2b("\x1f".join(texts).encode("utf-8", "surrogatepass"), digest_size=16).digest()


def tag_counts(items: Sequence[Item]) -> dict[str, dict[str, int]]:
    """Tag -> value -> questions, most frequent first."""
    found: dict[str, Counter[str]] = {}
    for item in items:
        for name, value in item.example.tags.items():
            values = found.setdefault(name, Counter())
            if len(values) <= MANY_VALUES:
                values[value] += 1
    return {name: dict(values.most_common()) for name, values in found.items() if len(values) <= MANY_VALUES}


def spread(lengths: Sequence[int]) -> dict[str, float]:
    """Median, 95th percentile and maximum; zeros where there is nothing."""
    ordered = sorted(lengths) or [0]
    return {"median": median(ordered), "p95": ordered[int(0.95 * (len(ordered) - 1))], "max": ordered[-1]}
