"""What a judge is asked about one answer: a message for each group of a rubric's criteria, with its pictures."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from datamodules.batch import Example, image_key, load_image
from evaluation.predictions import Prediction
from judging.judge import Request
from judging.rubrics import Criterion, Rubric, message, without_reasoning


@dataclass(frozen=True)
class Asked:
    """One request about one answer."""

    item: Prediction
    group: tuple[Criterion, ...]
    request: Request


def asked_about(rubric: Rubric, judge: Mapping[str, Any], item: Prediction, example: Example) -> Iterator[Asked]:
    """What is asked about one answer; nothing where there is no reasoning to look at.

    Args:
        rubric: whose criteria.
        judge: who is asked, as of `Judge.identity`: a request's key hangs on it.
        item: the answer.
        example: the question.
    """
    if without_reasoning(rubric, item):
        return
    who = json.dumps(judge, sort_keys=True)
    for group in rubric.groups:
        prompt = message(rubric, group, example, item)
        pictures = example.images if group[0].looks else ()
        seen = [image_key(load_image(picture)) for picture in pictures]
        told = "\x1f".join([who, rubric.form, prompt, *seen])
        key = hashlib.sha256(told.encode("utf-8", "surrogatepass")).hexdigest()
        yield Asked(item, group, Request(item.question_id, key, prompt, pictures, (item.completion,), example.question))
