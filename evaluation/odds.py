"""A verifier's log-odds that answers are right: the file beside the answers that keeps them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from evaluation.predictions import Prediction

FILE = "verified.jsonl"
"""Beside the predictions: whose odds they are, then key and log-odds of each answer."""
Odds = Mapping[str, float]
"""Key of an answer -> log-odds that it is right."""


def key_of(item: Prediction) -> str:
    """What tells an answer from all others of the experiment: its words, and what was asked, included."""
    told = (item.model, item.specialty, item.question_id, item.guideline, item.sample, item.options)
    told = (*told, item.prompt_sha256, item.completion)
    return sha256(repr(told).encode()).hexdigest()[:32]


def written(odds: Odds, identity: Mapping[str, Any]) -> str:
    """The file: whose odds they are, then one line each."""
    return "".join(
        json.dumps(line) + "\n"
        for line in ({"verifier": dict(identity)}, *({"key": key, "odds": value} for key, value in odds.items()))
    )


def read(path: Path, identity: Mapping[str, Any] | None = None) -> dict[str, float]:
    """Odds that were given before; none where the file is not there, or another verifier's than the one named.

    Raises:
        ValueError: it is damaged; names it.
    """
    if not path.is_file():
        return {}
    try:
        first, *rest = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
        if identity is not None and first["verifier"] != json.loads(json.dumps(dict(identity))):
            return {}
        return {line["key"]: float(line["odds"]) for line in rest}
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise ValueError(f"{path}: is no file of a verifier's scores ({error}); delete it") from error


def read_odds(path: Path) -> dict[str, float]:
    """The odds beside an experiment's predictions, whichever verifier gave them; empty where there are none.

    Args:
        path: as of `evaluation.predictions.read_predictions`; errors as of `read`.
    """
    folders = [path.parent] if path.suffix == ".jsonl" else [path / "evaluation", path]
    return next((read(folder / FILE) for folder in folders if (folder / FILE).is_file()), {})
