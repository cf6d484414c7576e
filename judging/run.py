"""Putting a release's cases to a judge: what is answered already is not asked again, what comes is kept at once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from configs.build import build
from endpoints.asking import UnfinishedError
from judging.cases import Case
from judging.judge import Judge, JudgeError, Request
from judging.messages import VERSION, instruction, message
from judging.pairs import pair_cases, pairs_sha256
from judging.record import Order, Record, line_of
from judging.release import data_sha256, read_release
from judging.settings import Settings


@dataclass(frozen=True)
class Place:
    """Where a reply belongs: to which case, in which order, and to which answer in `score` mode."""

    case: Case
    order: Order
    part: int


@dataclass(frozen=True)
class Judging:
    """What one run asks whom.

    Attributes:
        judge: who is asked.
        record: the folder of the replies.
        about: all that the replies follow from, as JSON.
        asked: key -> request, and where its reply belongs.
    """

    judge: Judge
    record: Record
    about: dict[str, Any]
    asked: dict[str, tuple[Request, Place]]

    def waiting(self) -> list[Request]:
        """The requests that the folder holds no reply to."""
        known = {line.key for line in self.record.lines()}
        return [request for key, (request, _) in self.asked.items() if key not in known]


def prepare(settings: Settings) -> Judging:
    """Read what a run needs, before anything is asked or written.

    Raises:
        BadExampleError: the release, or the pairs, cannot be used.
        JudgeError: the judge cannot.
        RecordError: the folder holds something else.
    """
    judge: Judge = build(settings.judge)
    if settings.mode not in judge.modes:
        raise JudgeError(f"mode {settings.mode!r}: {settings.judge.class_path} knows {', '.join(judge.modes)}")
    cases, left_out = cases_of(settings, decode=judge.sees)
    judge.study(cases)
    told = words_of(settings)
    about = {
        "judge": dict(judge.identity),
        "mode": settings.mode,
        "wording": told if settings.instruction else f"ours, version {VERSION}" + ", thinking" * settings.thinking,
        "cases": len(cases),
        "left_out_rows": left_out,
        "data_sha256": data_sha256(cases) if settings.pairs is None else pairs_sha256(cases),
    }
    record = Record(Path(settings.out))
    record.check(about)
    asked = {request.key: (request, place) for request, place in requests(judge, cases, told, settings)}
    return Judging(judge, record, about, asked)


def run(settings: Settings) -> int:
    """Ask for every reply that is missing.

    Returns:
        How many replies the folder holds.

    Raises:
        OSError: the disk is full or the folder cannot be written.
        UnfinishedError: replies are missing. The rest as of `prepare`.
    """
    judging = prepare(settings)
    judge, record, asked = judging.judge, judging.record, judging.asked
    with record.writer(judging.about) as keep:
        waiting = judging.waiting()
        for request, reply in tqdm(
            judge.replies(waiting) if waiting else (), "judging", len(waiting), unit="reply", mininterval=1
        ):
            place = asked[request.key][1]
            keep(line_of(place.case, request.key, place.order, place.part, reply.text, reply.truncated))
    held = len({line.key for line in record.lines()} & set(asked))
    if held < len(asked):
        raise UnfinishedError(f"{held} of {len(asked)} replies are there; run the same command again to go on")
    return held


def cases_of(settings: Settings, *, decode: bool) -> tuple[tuple[Case, ...], int]:
    """The cases to judge, and how many rows of a release cannot be used.

    Args:
        settings: name a release or pairs.
        decode: as of `read_release`.

    Raises:
        BadExampleError: the release, or the pairs, cannot be used.
    """
    if settings.pairs is not None:
        return pair_cases(build(settings.pairs, specialty="pairs")), 0
    release = read_release(Path(settings.data), settings.organs, settings.allowed_roots, decode=decode)
    return release.usable(settings.on_bad_row), len(release.faults)


def cost(settings: Settings) -> str:
    """What a run would ask, and cost at most, in words; nobody is asked. Errors as of `prepare`."""
    judging = prepare(settings)
    waiting = judging.waiting()
    known = f"{len(judging.asked)} replies, {len(judging.asked) - len(waiting)} of them in {settings.out}"
    paid = judging.judge.cost(waiting)
    return f"{known}; {len(waiting)} to come" + (f", {paid}" if paid else "")


def words_of(settings: Settings) -> str:
    """The instruction.

    Raises:
        OSError: its file cannot be read.
        ValueError: it is no UTF-8, or empty.
    """
    if not settings.instruction:
        return instruction(settings.mode, settings.thinking)
    text = Path(settings.instruction).read_text(encoding="utf-8").removesuffix("\n")
    if not text.strip():
        raise ValueError(f"instruction: {settings.instruction!r} is empty")
    return text


def requests(judge: Judge, cases: Sequence[Case], told: str, settings: Settings) -> Iterator[tuple[Request, Place]]:
    """Every message of a run with its place, case by case."""
    who = json.dumps(judge.identity, sort_keys=True)
    for case in cases:
        first, second = case.answers
        if settings.mode == "score":
            shown = [((first,), Place(case, "given", 0)), ((second,), Place(case, "given", 1))]
        else:
            shown = [((first, second), Place(case, "given", 0))]
            shown += [((second, first), Place(case, "swapped", 0))] if settings.orders == "both" else []
        for answers, place in shown:
            prompt = message(told, case.question, answers, settings.mode)
            about = (who, settings.mode, case.case_id, place.order, str(place.part), case.cluster, prompt)
            key = hashlib.sha256("\x1f".join(about).encode()).hexdigest()
            yield Request(case.case_id, key, prompt, (case.picture,), answers, case.question), place
