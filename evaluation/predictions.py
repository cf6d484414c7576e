"""One raw completion with all that is needed to score it again, and the files it is kept in."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

from evaluation.answers import LETTERS


@dataclass(frozen=True)
class Prediction:
    """One raw completion with all that is needed to score it again.

    Attributes:
        model: name of the row it counts for, such as "base" or "merged/ties".
        specialty: name of the column it counts for.
        question_id: unique within the specialty.
        patient_id: whom the question is about; questions of one patient are drawn together in intervals.
        guideline: whose instruction the prompt carried; "neutral" at test time.
        options: the texts in the order shown; none where the answer is free text.
        answer_letter: the right option's letter; empty where the answer is free text.
        completion: the text as generated; of a protocol with several turns, the last one's; empty where options were
            measured instead.
        tags: attributes to break results down by.
        n_tokens: length of the completion in tokens, together with that of the earlier turns.
        truncated: the completion, or an earlier turn, reached its token limit.
        answer: the right answer of a question without options.
        sample: counts the completions sampled for one question and guideline, from 0.
        protocol: what else decided the completion, such as {"temperature": "0.7", "image": "blank"}; results of
            different protocols are not compared. Its key "protocol" names a released one, see
            `evaluation.scorers.main_scorer`.
        turns: completions of the earlier turns, in order.
        option_losses: mean negative log-likelihood of each option's text after the question, nats per token.
        option_tokens: tokens of each option's text; minus its loss times these is its log-likelihood. Tokens without
            losses: a loss was not finite.
        prompt_sha256: hash of what was asked besides the options, before any variant of it: the prompt's version, stem,
            instruction, pictures; empty where it is unknown.
        score_version: `evaluation.answers.VERSION` of the scores that stand beside it; empty before 6.
        prompt_tokens: of what was asked, of all turns, as an endpoint counts them; 0 where the model ran here.
        fault: why an endpoint gave no usable words, such as "refused" or "filtered": the answer is empty then, and
            counts as wrong.
    """

    model: str
    specialty: str
    question_id: str
    patient_id: str
    guideline: str
    options: tuple[str, ...]
    answer_letter: str
    completion: str
    tags: Mapping[str, str] = field(default_factory=dict)
    n_tokens: int = 0
    truncated: bool = False
    answer: str = ""
    sample: int = 0
    protocol: Mapping[str, str] = field(default_factory=dict)
    turns: tuple[str, ...] = ()
    option_losses: tuple[float, ...] = ()
    option_tokens: tuple[int, ...] = ()
    prompt_sha256: str = ""
    score_version: str = ""
    prompt_tokens: int = 0
    fault: str = ""

    def __post_init__(self) -> None:
        where = f"prediction for question {self.question_id!r}"
        if self.options:
            if not self.answer_letter or self.answer_letter not in LETTERS[: len(self.options)]:
                raise ValueError(
                    f"{where}: answer_letter {self.answer_letter!r} is not one of the {len(self.options)} options' "
                    "letters"
                )
        elif self.answer_letter or not self.answer.strip():
            raise ValueError(
                f"{where}: has no options, so answer_letter must be empty and answer must hold the right text, got "
                f"{self.answer_letter!r} and {self.answer!r}"
            )
        for name in ("option_losses", "option_tokens"):
            held = getattr(self, name)
            if held and len(held) != len(self.options):
                raise ValueError(f"{where}: {len(held)} {name} for {len(self.options)} options")
        if self.sample < 0 or not all(map(math.isfinite, self.option_losses)) or min(self.option_tokens, default=1) < 1:
            raise ValueError(f"{where}: option_losses must be finite, option_tokens at least 1 and sample at least 0")

    @property
    def gold(self) -> str:
        """The right answer's text."""
        return self.options[LETTERS.index(self.answer_letter)] if self.options else self.answer

    @property
    def key(self) -> tuple[str, str, str, int]:
        """What one model answers once: (specialty, question, guideline, sample)."""
        return self.specialty, self.question_id, self.guideline, self.sample

    def to_json(self) -> str:
        """One line of predictions.jsonl; the keys are the attributes, the rarer ones only where they say something."""
        row = {name: getattr(self, name) for name in KINDS}
        return json.dumps({k: v for k, v in row.items() if k not in SPARSE or v}, ensure_ascii=False)

    @classmethod
    def from_json(cls, line: str, where: str = "prediction") -> Prediction:
        """Read one line of predictions.jsonl.

        Args:
            line: a JSON object.
            where: file and line for error messages.

        Raises:
            ValueError: not JSON, an unknown or missing key, or a value of the wrong type.
        """
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise ValueError(f"{where}: not a JSON object ({error}); was the file cut off?") from error
        if not isinstance(row, dict) or not NEEDED <= row.keys() <= KINDS.keys():
            found = sorted(row) if isinstance(row, dict) else type(row).__name__
            raise ValueError(f"{where}: got {found}, expected the keys {sorted(KINDS)}; needed are {sorted(NEEDED)}")
        for name, value in row.items():
            kind, element = KINDS[name]
            parts = () if element is None or not value else value.values() if type(value) is dict else value
            if type(value) is not kind or any(type(part) is not element for part in parts):
                of = f" of {element.__name__}" if element else ""
                raise ValueError(f"{where}: {name} must be a {kind.__name__}{of}, got {value!r}")
        try:
            return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in row.items()})
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error


def by_variant(predictions: Iterable[Prediction]) -> dict[str, list[Prediction]]:
    """Predictions by how the question was put, next to the main way, which is that of each model's first prediction.

    Returns:
        "" -> those of the main protocol, then for example "image=blank" -> those without the picture; each in order.
    """
    main: dict[str, dict[str, str]] = {}
    found: dict[str, list[Prediction]] = {"": []}
    for item in predictions:
        protocol = main.setdefault(item.model, dict(item.protocol))
        names = [name for name in VARIED if item.protocol.get(name) != protocol.get(name)]
        label = ", ".join(f"{name}={item.protocol.get(name, 'default')}" for name in names)
        found.setdefault(label, []).append(item)
    return found


VARIED = ("image", "shuffle", "wording")
"""Keys of a protocol that say how a question was put: the attributes of `evaluation.variants.Variant`."""
SPARSE = ("answer", "sample", "protocol", "turns", "option_losses", "option_tokens", "prompt_sha256", "score_version",
          "prompt_tokens", "fault")  # fmt: skip
KINDS: dict[str, tuple[type, type | None]] = {
    **{item.name: (str, None) for item in fields(Prediction)},
    "options": (list, str),
    "tags": (dict, str),
    "protocol": (dict, str),
    "turns": (list, str),
    "option_losses": (list, float),
    "option_tokens": (list, int),
    "n_tokens": (int, None),
    "prompt_tokens": (int, None),
    "sample": (int, None),
    "truncated": (bool, None),
}
"""Attribute -> its JSON type, and that of its elements if it has any."""
NEEDED = KINDS.keys() - {"tags", "n_tokens", "truncated", *SPARSE}


def read_predictions(path: Path) -> list[Prediction]:
    """All predictions of an experiment.

    Args:
        path: the experiment's folder, its `evaluation` folder, or a file of predictions.

    Raises:
        FileNotFoundError: there are none.
        ValueError: a line is malformed; names file and line.
    """
    tried = [path] if path.suffix == ".jsonl" else [path / "evaluation/predictions.jsonl", path / "predictions.jsonl"]
    found = next((file for file in tried if file.is_file()), None)
    if found is None:
        raise FileNotFoundError(f"{tried[0]}: no such file; has {path} been evaluated?")
    try:
        lines = found.read_text(encoding="utf-8").split("\n")  # splitlines() would cut at U+2028 too
    except UnicodeDecodeError as error:
        raise ValueError(f"{found}: not UTF-8 ({error})") from error
    return [Prediction.from_json(line, f"{found}:{number}") for number, line in enumerate(lines, 1) if line.strip()]
