"""How often a policy answers each training question right: for a filter by difficulty, and for a curriculum.

Rates are measured once per parent, data and way of asking, and kept in a file whose name is a hash of all these.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from hashlib import sha256
from pathlib import Path
from typing import Any

from answering.asking import ask
from answering.countdown import Countdown
from answering.decoding import Decoding
from artifacts.manifest import get_text, put_text
from artifacts.ranks import is_first, wait_for_first
from datamodules.batch import Example
from evaluation.scorers import strict
from lightning_modules.policy import Policy


def pass_rates(
    attached: AbstractContextManager[Policy],
    questions: Sequence[Example],
    decoding: Decoding,
    made_from: Mapping[str, Any],
    places: Sequence[Path],
) -> dict[str, float]:
    """Question id -> share of its sampled answers that are strictly right, under the neutral prompt.

    Of several devices the first measures and the others wait for its file, so that all know the same rates and none
    holds a model for it.

    Args:
        attached: gives the policy as it acts; entered where rates are to be measured.
        questions: of the training split.
        decoding: how answers are drawn; `samples` of them per question.
        made_from: all that rates depend on besides: base, adapters, data.
        places: folders where the file may lie; it is written into the first.

    Raises:
        DamagedError: the file is not as it was written.
        ValueError: a file that has the name holds other questions.
    """
    how = {key: value for key, value in vars(decoding).items() if key != "rows_at_once"}  # which changes no answer
    told = {**made_from, "decoding": how, "questions": len(questions)}
    name = sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()[:32] + ".json"
    if not is_first():
        wait_for_first(lambda: any((folder / name).exists() for folder in places))
    found = next((folder / name for folder in places if (folder / name).exists()), None)
    if found is not None:
        rates = json.loads(get_text(found))["rates"]
        if set(rates) != {example.question_id for example in questions}:
            raise ValueError(f"{found}: holds rates of other questions than these; delete it to measure them again")
        return rates
    rates, size = {}, decoding.questions_at_once(questions)
    countdown = Countdown("pass rates", len(questions), "questions")
    with attached as policy, policy.folded():
        for start in range(0, len(questions), size):
            part = questions[start : start + size]
            given = ask(policy, part, "", decoding)
            for number, example in enumerate(part):
                own = given[number * decoding.samples : (number + 1) * decoding.samples]
                rates[example.question_id] = sum(strict(a.prediction(example)).right for a in own) / len(own)
            countdown.advance(len(part))
    countdown.close()
    put_text(places[0] / name, json.dumps({"made_from": told, "rates": rates}, indent=2, default=str) + "\n")
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
