"""How often a policy answers each training question right: for a filter by difficulty, and for a curriculum.

Rates are measured once per parent, data and way of asking, by the first of a run's processes, and kept in a file whose
name is a hash of all these.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from answering.asking import ask
from answering.countdown import Countdown
from answering.decoding import Decoding
from artifacts.durable import write_text
from artifacts.ranks import is_first, wait_for_first
from datamodules.batch import Example
from evaluation.scorers import strict
from lightning_modules.policy import Policy


def pass_rates(
    policy: Policy,
    questions: Sequence[Example],
    decoding: Decoding,
    made_from: Mapping[str, Any],
    places: Sequence[Path],
) -> dict[str, float]:
    """Question id -> share of its sampled answers that are strictly right, under the neutral prompt.

    Args:
        policy: as it acts.
        questions: of the training split.
        decoding: how answers are drawn; `samples` of them per question.
        made_from: all that rates depend on besides: base, adapters, data.
        places: folders where the file may lie; it is written into the first.

    Raises:
        ValueError: a file that has the name holds other questions.
    """
    told = {**made_from, "decoding": vars(decoding), "questions": len(questions)}
    name = sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()[:32] + ".json"

    def held() -> Path | None:
        return next((folder / name for folder in places if (folder / name).exists()), None)

    if not is_first():
        wait_for_first(lambda: held() is not None)  # devices that measured for themselves might take other questions
    if (found := held()) is not None:
        rates = json.loads(found.read_text("utf-8"))["rates"]
        if set(rates) != {example.question_id for example in questions}:
            raise ValueError(f"{found}: holds rates of other questions than these; delete it to measure them again")
        return rates
    rates, size = {}, decoding.questions_at_once(questions)
    countdown = Countdown("pass rates", len(questions), "questions")
    with policy.folded():
        for start in range(0, len(questions), size):
            part = questions[start : start + size]
            given = ask(policy, part, "", decoding)
            for number, example in enumerate(part):
                own = given[number * decoding.samples : (number + 1) * decoding.samples]
                rates[example.question_id] = sum(strict(a.prediction(example)).right for a in own) / len(own)
            countdown.advance(len(part))
    countdown.close()
    write_text(places[0] / name, json.dumps({"made_from": told, "rates": rates}, indent=2, default=str) + "\n")
    return rates


def by_pass_rate(rates: Mapping[str, float], low: float, high: float, *, easy_first: bool) -> tuple[str, ...]:
    """Ids of the questions whose rate lies in [low, high].

    Args:
        rates: question id -> rate, in the split's order.
        low: at least.
        high: at most.
        easy_first: sort them from the highest rate to the lowest; ties keep their order.

    Examples:
        >>> by_pass_rate({"a": 0.5, "b": 1.0, "c": 0.75}, 0.1, 0.9, easy_first=True)
        ('c', 'a')
    """
    chosen = [name for name, rate in rates.items() if low <= rate <= high]
    return tuple(sorted(chosen, key=lambda name: -rates[name]) if easy_first else chosen)
