"""Which column is likely to hold what: by its name, and by what stands in it."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from datamodules.batch import LETTERS, BadExampleError
from datamodules.cells import SEVERAL, written_list
from datamodules.columns import SPLIT_NAMES
from datamodules.embedded import EmbeddedPicture, HubPicture
from datamodules.labelled import labelled
from datamodules.proposal.sample import Sample, distinct, share

PICTURE = re.compile(r".+\.(?:png|jpe?g|bmp|tiff?|webp|gif)", re.IGNORECASE)
NAMES = {
    "question": r"(?:.*_)?(?:question|stem|prompt|query|problem|frage|fragestellung|pregunta)(?:_text)?",
    "answer": r"(?:.*_)?(?:answer|answers|label|correct|gold|solution|target|key|truth|antwort|loesung|gt|diagnosis)"
    r"(?:_(?:label|letter|text|idx|index|key|option|answer|key))*",
    "id": r"(?:.*_)?(?:id|uid|qid|no|nr|number|index)",
    "patient": r"(?:.*_)?(?:patient|patients|pat|subject|person|mrn|case|pid)(?:_?(?:id|no|nr|number|name|code))?",
    "split": r"(?:.*_)?(?:split|partition|fold|subset|set)",
    "options": r"(?:.*_)?(?:options?|choices?|alternatives?|candidates?|antworten|answers)(?:_text)?",
    "images": r"(?:.*_)?(?:images?|img|pictures?|photos?|films?|scans?|files?|path|bild)(?:_?(?:id|name|path|file))?",
    "guideline": r"(?:.*_)?(?:guideline|strategy|perspective)",
    "chain": r"(?:.*_)?(?:reasoning|explanation|rationale|chain|cot|thoughts?|thinking|trace|analysis)(?:_text)?",
    "tags": r"(?:.*_)?(?:type|category|modality|kind|region|organ|source|dataset|difficulty|level|task|system|view)",
}
OPTION = re.compile(r"(?P<stem>(?:choice|option|opt|answer|ans|antwort|distractor)?)_?(?P<mark>[a-j]|10|[0-9])")
GUIDELINES = ("differential", "intuitive", "analytical", "bayesian", "neutral")
MOST_KINDS = 30
"""Different values of a column to break results down by."""
SEPARATORS = "|;\n/"


@dataclass
class Draft:
    """What is proposed so far.

    Attributes:
        columns: of the mapping, as `datamodules.columns.Columns` has them.
        settings: further settings of the set.
        reasons: role -> why.
        why: the same of settings.
        unsure: what somebody should look at.
    """

    columns: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    why: dict[str, str] = field(default_factory=dict)
    unsure: list[str] = field(default_factory=list)

    @property
    def used(self) -> set[str]:
        """Columns that have a role."""
        found: set[str] = set()
        for held in self.columns.values():
            found |= set(held.values() if isinstance(held, dict) else held if isinstance(held, list) else [held])
        return found

    def take(self, role: str, held: Any, why: str) -> None:
        """Give a column, or several, a role."""
        self.columns[role], self.reasons[role] = held, why


def plain_name(column: str) -> str:
    """A column's name in one spelling."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", column)
    folded = spaced.casefold().replace("ö", "oe").replace("ü", "ue").replace("ä", "ae").replace("ß", "ss")
    return re.sub(r"[^a-z0-9]+", "_", folded).strip("_")


def named(sample: Sample, role: str, but: Collection[str] = ()) -> list[str]:
    """Columns whose names say a role; those that say nothing else first."""
    pattern = re.compile(NAMES[role])
    found = [column for column in sample.columns if column not in but and pattern.fullmatch(plain_name(column))]
    return sorted((column for column in found if sample.filled(column)), key=lambda column: len(plain_name(column)))


def find_roles(sample: Sample, draft: Draft) -> None:
    """Give columns their roles, but for answer and options, which are told together; what has one already keeps it."""
    steps: Sequence[tuple[str, Callable[[Sample, Draft], None]]] = (
        ("images", find_images),
        ("split", find_split),
        ("question", find_question),
        ("reasoning", find_chains),
        ("id", find_id),
        ("patient", find_patient),
    )
    for role, step in steps:
        if role not in draft.columns:
            step(sample, draft)


def find_images(sample: Sample, draft: Draft) -> None:
    """Columns of pictures, or of names of picture files."""

    def shows(one: Any) -> bool:
        listed = written_list(one) if isinstance(one, str) else one
        names = SEVERAL.split(one) if isinstance(one, str) and not isinstance(listed, list) else listed
        return all(
            PICTURE.fullmatch(name.strip()) if isinstance(name, str) else isinstance(name, EmbeddedPicture | HubPicture)
            for name in (names if isinstance(names, list) else [names])
        )

    free = [column for column in sample.columns if column not in draft.used]
    found = [column for column in free if share(sample.filled(column), shows) >= 0.9]
    if found:
        draft.take("images", found, "pictures, or names of picture files, stand there")
    elif held := [column for column in named(sample, "images", draft.used) if sample.texts(column)]:
        draft.take("images", held[:1], "its name")


def find_split(sample: Sample, draft: Draft) -> None:
    """The column of train, val and test."""
    for column in named(sample, "split", draft.used):
        kinds = {text.casefold() for text in sample.texts(column)}
        if kinds <= SPLIT_NAMES.keys():
            draft.take("split", column, f"its name, and it holds {', '.join(sorted(kinds))}")
            return


def find_question(sample: Sample, draft: Draft) -> None:
    """The column of the stem."""
    held = named(sample, "question", draft.used)
    if held:
        draft.take("question", held[0], "its name")
        more = [column for column in held[1:] if len(distinct(sample.filled(column))) > 1]
        draft.unsure += [f"question: {', '.join(map(repr, more))} could be meant too"] if more else []
        return
    asks = [c for c in sample.columns if c not in draft.used and share(sample.texts(c), lambda t: "?" in t) >= 0.5]
    if asks:
        draft.take("question", asks[0], "most of its cells hold a question mark")
        draft.unsure.append(f"question: taken from {asks[0]!r}, whose name does not say so")


def find_chains(sample: Sample, draft: Draft) -> None:
    """Columns of worked chains, each under the guideline of its name; others follow none."""
    texts = [column for column in sample.columns if column not in draft.used and sample.texts(column)]
    found = {name: column for column in texts for name in [guideline_of(column)] if name}
    if not found and (held := named(sample, "chain", draft.used)):
        says = [column for column in named(sample, "guideline", draft.used) if sample.texts(column)]
        found = {"neutral": held[0]}
        if says:
            draft.take("guideline", says[0], "its name")
        else:
            draft.unsure.append(f"reasoning: {held[0]!r} follows no guideline that its name says, so it is `neutral`")
    if found:
        draft.take("reasoning", found, "worked chains, by their names")


def guideline_of(column: str) -> str:
    """The guideline that a column's name holds; empty where it holds none."""
    parts = plain_name(column).split("_")
    return next((name for name in GUIDELINES if name in parts), "")


def find_id(sample: Sample, draft: Draft) -> None:
    """The column that tells rows apart."""
    for column in named(sample, "id", draft.used):
        values = sample.filled(column)
        speaks_of_patients = re.fullmatch(NAMES["patient"], plain_name(column))
        if not speaks_of_patients and len(values) == len(sample.rows) == len(distinct(values)):
            draft.take("id", column, "its name, and no value comes twice")
            return


def find_patient(sample: Sample, draft: Draft) -> None:
    """The column that tells patients apart."""
    held = [c for c in named(sample, "patient", draft.used) if len(sample.filled(c)) == len(sample.rows)]
    if not held:
        stands = "each picture" if draft.columns.get("images") else "each row"
        draft.unsure.append(
            f"patient: no column says whose a row is, so that {stands} counts as a patient of its own; if a patient "
            "has several, name the column (columns.patient=…), or train and test share patients"
        )
        return
    # A case may be one picture of a patient; a column that says patient goes first.
    best = min(held, key=lambda column: "pat" not in plain_name(column) and "subject" not in plain_name(column))
    draft.take("patient", best, f"its name; {len(distinct(sample.filled(best)))} patients in {len(sample.rows)} rows")


def find_tags(sample: Sample, draft: Draft) -> None:
    """Columns to break results down by."""
    found = {}
    for column in named(sample, "tags", draft.used):
        kinds = len(distinct(sample.filled(column)))
        if 1 < kinds <= min(MOST_KINDS, len(sample.rows) // 2):
            name = plain_name(column)
            found["question_type" if name == "type" else name] = column
    if found:
        draft.take("tags", found, "few different values, to break results down by")


def option_columns(sample: Sample, but: Collection[str]) -> list[str]:
    """Columns with an option each, in their order: A, B, C, … or Option 1, Option 2, …; empty where there are none."""
    groups: dict[str, dict[int, str]] = {}
    for column in (column for column in sample.columns if column not in but):
        found = OPTION.fullmatch(plain_name(column))
        if found:
            mark = found["mark"]
            place = int(mark) if mark.isdecimal() else LETTERS.index(mark.upper())
            groups.setdefault(f"{found['stem']} {mark.isdecimal()}", {})[place] = column
    for group in sorted(groups.values(), key=len, reverse=True):
        places = sorted(group)
        if len(places) >= 2 and places[0] in (0, 1) and places == list(range(places[0], places[0] + len(places))):
            return [group[place] for place in places]
    return []


def option_lists(sample: Sample, draft: Draft) -> Iterator[tuple[str, str, str]]:
    """(column, separator, why) of columns that may hold all options in one cell."""
    for column in [*named(sample, "options", draft.used), *filter(None, [draft.columns.get("question")])]:
        values = sample.filled(column)
        if share(values, is_listed) >= 0.9:
            yield column, "", "its cells hold lists, or texts behind letters"
            continue
        for separator in SEPARATORS if column != draft.columns.get("question") else "":
            if share(values, lambda one, cut=separator: isinstance(one, str) and cut in one.strip(cut)) >= 0.9:
                yield column, separator, f"its cells hold texts with {separator!r} between them"
                break


def is_listed(one: Any) -> bool:
    """Whether a cell holds a list, or texts behind letters."""
    found = written_list(one) if isinstance(one, str) else one
    if isinstance(found, list | Mapping):
        return True
    try:
        return isinstance(one, str) and len(labelled(one)[1]) >= 2
    except BadExampleError:
        return False
