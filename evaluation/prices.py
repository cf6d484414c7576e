"""What the answers of models behind endpoints cost: tokens as the endpoints count them, and money by stated prices."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from evaluation.predictions import Prediction

FILE = "prices.json"
"""Beside the predictions: model -> money per million tokens, of "prompt" and of "completion"."""
MILLION = 1_000_000
Prices = Mapping[str, Mapping[str, float]]
CAPTION = (
    "Of the answers that stand here, whenever and by whichever experiment they were asked for; attempts that failed, "
    "and may have cost something too, are not in it. Answers without words count as wrong. Where an endpoint tells no "
    "tokens of an answer, what it counts costs at most the dearer of the two prices, and that is taken."
)


def cost_rows(predictions: Sequence[Prediction], prices: Prices) -> list[list[str]]:
    """Per model that was asked at an endpoint: answers, those without words, tokens of both kinds, money.

    Args:
        predictions: all of them, variants too.
        prices: of the models whose price is known.
    """
    models: dict[str, list[Prediction]] = {}
    for item in predictions:
        models.setdefault(item.model, []).append(item)
    rows = []
    for model, items in models.items():
        prompt, completion = sum(item.prompt_tokens for item in items), sum(item.n_tokens for item in items)
        faults = Counter(item.fault for item in items if item.fault)
        if not (prompt or faults):
            continue
        told = ", ".join(f"{fault} {count}" for fault, count in sorted(faults.items())) or "0"
        money = f"{sum(cost(item, prices[model]) for item in items) / MILLION:.4f}" if model in prices else "no price"
        rows.append([model, str(len(items)), told, str(prompt), str(completion), money])
    return rows


def cost(item: Prediction, price: Mapping[str, float]) -> float:
    """Money for a million answers like this one; where only a sum of tokens is known, at most."""
    of_prompt = price["prompt"] if item.n_tokens else max(price["prompt"], price["completion"])
    return item.prompt_tokens * of_prompt + item.n_tokens * price["completion"]


NAMES = ["model", "answers", "without words", "tokens of prompts", "tokens of answers", "money"]


def read_prices(path: Path) -> Prices:
    """The prices beside an experiment's predictions; empty where none were written.

    Args:
        path: as of `evaluation.predictions.read_predictions`.

    Raises:
        ValueError: the file holds something else.
    """
    folders = [path.parent] if path.suffix == ".jsonl" else [path / "evaluation", path]
    file = next((folder / FILE for folder in folders if (folder / FILE).is_file()), None)
    if file is None:
        return {}
    try:
        held = json.loads(file.read_text(encoding="utf-8"))
        values = [price[name] for price in held.values() for name in ("prompt", "completion")]
    except (ValueError, AttributeError, LookupError, TypeError) as error:
        raise ValueError(f"{file}: not a JSON object of models and their two prices ({error}); remove it") from error
    if not all(type(value) in (int, float) and 0 <= value < float("inf") for value in values):
        raise ValueError(f"{file}: a price is not a number of at least 0; remove the file")
    return held
