"""Which rows are the experts of a specialty each, and where a router sent questions: told by a tag."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from evaluation.clustered import clustered_wilson
from evaluation.predictions import Prediction

SENT_TO = "sent_to"
"""Tag of a router's predictions: the specialty whose expert answered."""


def expert_rows(rows: Iterable[str], specialties: Sequence[str]) -> dict[str, dict[str, str]]:
    """Experiment -> specialty -> its expert's row, of every experiment that has an expert for each column.

    >>> expert_rows(["base", "dsa/a", "gba/a", "gba/b", "gba/merged/ties"], ["a", "b"])
    {'gba': {'a': 'gba/a', 'b': 'gba/b'}}
    """
    known = set(rows)
    names = dict.fromkeys(row.rpartition("/")[0] for row in rows if "/" in row)
    found = {name: {specialty: f"{name}/{specialty}" for specialty in specialties} for name in names}
    return {name: group for name, group in found.items() if group and set(group.values()) <= known}


def route_rows(parts: Mapping[str, Mapping[str, Sequence[Prediction]]]) -> list[tuple[str, str, int, tuple, str]]:
    """What each router did with the questions of each specialty.

    Args:
        parts: model -> specialty -> its predictions in the main way.

    Returns:
        Model, specialty, questions, (share sent to the specialty's own expert, its 95 % interval by patients), and
        where the others went; of models that are no routers nothing.
    """
    rows = []
    for model, columns in parts.items():
        for specialty, items in columns.items():
            sent = {item.question_id: item for item in items if SENT_TO in item.tags}
            if sent:
                own = [item.tags[SENT_TO] == specialty for item in sent.values()]
                interval = clustered_wilson(own, [item.patient_id for item in sent.values()])
                astray = Counter(item.tags[SENT_TO] for item in sent.values() if item.tags[SENT_TO] != specialty)
                told = ", ".join(f"{name} {count}" for name, count in sorted(astray.items()))
                rows.append((model, specialty, len(sent), (sum(own) / len(own), *interval), told))
    return rows
