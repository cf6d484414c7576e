"""How near free answers are to the right ones, by exact texts and shared words: ours, SQuAD's and MedEvalKit's."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from evaluation.clustered import clustered_wilson
from evaluation.official.medevalkit import open_answer
from evaluation.open_answers import Overlap, extract_open, overlap
from evaluation.predictions import Prediction
from evaluation.report_files import percent

PUNCTUATION = str.maketrans("", "", string.punctuation)
ARTICLE = re.compile(r"\b(a|an|the)\b")


def squad_words(text: str) -> list[str]:
    """Words as SQuAD compares them: lower case, without ASCII punctuation and articles.

    Source: normalize_answer of evaluate-v1.1.py, Rajpurkar et al. 2016, arXiv:1606.05250.
    Choice: kept as published beside `normal_answer`, which tells ER+ from ER- and hepatitis A from hepatitis.
    """
    return ARTICLE.sub(" ", text.lower().translate(PUNCTUATION)).split()


def squad(item: Prediction) -> Overlap:
    """SQuAD's exact match and F1 of the answer as it is leniently read."""
    said, right = squad_words(extract_open(item.completion, "lenient").text or ""), squad_words(item.gold)
    common = (Counter(said) & Counter(right)).total()
    if not common:
        return Overlap(said == right, 0.0, 0.0, 0.0)
    precision, recall = common / len(said), common / len(right)
    return Overlap(said == right, precision, recall, 2 * precision * recall / (precision + recall))


def ours(item: Prediction) -> Overlap:
    """The same by `normal_answer`."""
    return overlap(extract_open(item.completion, "lenient").text or "", item.gold)


def medevalkit(item: Prediction) -> Overlap:
    """MedEvalKit's, under the names of what they are: the release calls its F1 precision, and so on."""
    held = open_answer(item.completion, item.gold.strip())
    return Overlap(held.exact, held.recall, held.f1, held.precision)


READINGS: Mapping[str, Callable[[Prediction], Overlap]] = {"ours": ours, "squad": squad, "medevalkit": medevalkit}


def open_reading(item: Prediction, name: str) -> Overlap:
    """One reading of a free answer, by its name in `READINGS`."""
    return READINGS[name](item)


HEADER = ("model", "specialty", "n", *(f"{name}: {what}, %" for name in READINGS for what in ("exact", "F1")))
CAPTION = (
    "Free answers alone, read leniently. Ours keeps the signs and names that carry a finding; `squad` compares as "
    "SQuAD's script does, `medevalkit` as that release does, by its set of words. Intervals are 95 %, by patient; F1 "
    "varies less than a yes or no of its mean, so that its interval is rather too wide."
)


def open_rows(parts: Mapping[str, Mapping[str, Sequence[Prediction]]]) -> list[list[str]]:
    """Model and specialty -> exact match and mean F1 by each reading; no row where there is no free answer.

    Args:
        parts: model -> specialty -> its answers.
    """
    rows = []
    for model, columns in parts.items():
        for specialty, items in columns.items():
            free = [item for item in items if not item.options]
            patients = [item.patient_id for item in free]
            cells = []
            for name in READINGS if free else ():
                read = [open_reading(item, name) for item in free]
                for values in ([float(one.exact) for one in read], [one.f1 for one in read]):
                    cells.append(percent(sum(values) / len(values), *clustered_wilson(values, patients)))
            rows += [[model, specialty, str(len(free)), *cells]] if free else []
    return rows
