"""The gates one after the other, each of them asked only about what is left."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from curation.ledger import GATES, Ledger
from curation.output import Kept
from curation.pool import Candidates, Row, read_examinations, read_pools, unusable
from curation.repeats import Reason, examined, linked_patients, repeated
from curation.settings import Settings
from curation.specialties import UNASSIGNED, Rule, classification, classified, cohens_kappa
from curation.teachers import Request, Teacher
from curation.traces import trace_fault
from datamodules.prompts import VERSION
from endpoints.asking import ask
from endpoints.reading import Reply
from endpoints.replies import Replies
from evaluation.answers import extract, thinking_of
from lightning_modules.rewards.guidelines import Guideline


@dataclass
class Curation:
    """One run: what it was told, whom it asks, and its book."""

    settings: Settings
    rules: Sequence[Rule]
    tag_points: int
    guidelines: Mapping[str, Guideline]
    teacher: Teacher
    base: Teacher | None
    classifier: Teacher | None
    replies: Replies
    ledger: Ledger = field(default_factory=Ledger)
    agreement: dict[str, Any] = field(default_factory=dict)

    def candidates(self) -> list[Row]:
        """What is left of the pools before anybody is asked."""
        found = read_pools(self.settings.pools, self.rules, self.tag_points, self.settings.limit)
        rows = self.usable(found)
        rows = self.gate("repeats", rows, repeated({row.id: row.item for row in rows}))
        examinations = [*found.examinations, *read_examinations(self.settings.test_sets)]
        return self.gate("overlap", rows, examined({row.id: row.item for row in rows}, examinations))

    def usable(self, found: Candidates) -> list[Row]:
        """The candidates that are closed questions about pictures that open."""
        faults = {row.id: unusable(row) for row in found.rows}
        rejected = [row.rejected("usable", *faults[row.id]) for row in found.rows if faults[row.id]]
        came = {row.id: row.specialty for row in found.rows} | {one.row: one.specialty for one in found.unreadable}
        self.ledger.close("usable", came, [*found.unreadable, *rejected])
        return [row for row in found.rows if not faults[row.id]]

    def gate(self, name: str, rows: Sequence[Row], faults: Mapping[str, Reason]) -> list[Row]:
        """Stop the rows that have a fault, and write it down."""
        rejected = [row.rejected(name, *faults[row.id]) for row in rows if row.id in faults]
        self.ledger.close(name, {row.id: row.specialty for row in rows}, rejected)
        return [row for row in rows if row.id not in faults]

    def audited(self, rows: Sequence[Row]) -> list[Row]:
        """The first rows of each specialty by the rules, those without one included."""
        seen: Counter[str] = Counter()
        sample = []
        for row in rows:
            seen[row.assigned.specialty] += 1
            if seen[row.assigned.specialty] <= self.settings.audit_rows:
                sample.append(row)
        return sorted(sample, key=lambda row: row.assigned.specialty)

    def assigned(self, rows: Sequence[Row], audit: Sequence[Row]) -> list[Row]:
        """Rows with the specialty that counts; where the rules decide, the classifier is asked about the audit only."""
        decides = self.settings.decide == "classifier"
        asked = list(rows) if decides else audit
        faults: dict[str, Reason] = {}
        if self.classifier is not None and asked:
            requests = [classification(row.id, row.item.example, pictures(row), self.rules) for row in asked]
            replies = list(ask(self.classifier, requests, self.replies, "specialties"))
            named = {row.id: classified(reply.text, self.rules) for row, reply in zip(asked, replies, strict=True)}
            unknown = {row.id: reply.fault for row, reply in zip(asked, replies, strict=True) if reply.fault}
            self.compare(
                [(row.assigned.specialty, named[row.id]) for row in asked if row.id not in unknown], len(unknown)
            )
            if decides:
                rows = [replace(row, specialty=named[row.id]) for row in rows]
                faults = {row: ("classifier_unknown", fault) for row, fault in unknown.items()}
        faults |= {
            row.id: ("unassigned", f"no rule or reply names one of {len(self.rules)} specialties")
            for row in rows
            if row.specialty == UNASSIGNED and row.id not in faults
        }
        return self.gate("specialty", rows, faults)

    def compare(self, pairs: Sequence[tuple[str, str]], unknown: int) -> None:
        """Note how rules and classifier agree."""
        counted = sorted(Counter(pairs).items())
        table = [[a, b, count] for (a, b), count in counted]
        self.agreement = {"n": len(pairs), "unknown": unknown, "kappa": cohens_kappa(pairs), "table": table}

    def within_pass_rate(self, rows: Sequence[Row]) -> tuple[list[Row], dict[str, dict[str, Any]]]:
        """Questions that the base answers neither too often nor too rarely, and how often it answers each."""
        if self.base is None:
            return self.gate("pass_rate", rows, {}), {}
        k, (low, high) = self.settings.samples, self.settings.pass_rate
        held = ((row, pictures(row)) for row in rows)
        requests = [Request(row.id, row.item.example, keys, "", draw) for row, keys in held for draw in range(k)]
        replies = ask(self.base, requests, self.replies, "pass rate")
        rates, faults = {}, {}
        for row in rows:
            known = [reply for reply in islice(replies, k) if not reply.fault]
            right = sum(is_right(reply, row) for reply in known)
            rates[row.id] = {"right": right, "of": len(known), "unknown": k - len(known)}
            if 2 * len(known) < k:
                faults[row.id] = ("base_unknown", f"only {len(known)} of {k} answers of the base could be used")
            elif not low <= right / len(known) <= high:
                word = "too_hard" if right / len(known) < low else "too_easy"
                faults[row.id] = (word, f"the base is right in {right} of {len(known)}")
        return self.gate("pass_rate", rows, faults), rates

    def taught(self, rows: Sequence[Row]) -> tuple[list[Row], dict[str, dict[str, tuple[Request, Reply]]]]:
        """Rows with enough traces that pass, and those traces by guideline."""
        accepted: dict[str, dict[str, tuple[Request, Reply]]] = {row.id: {} for row in rows}
        outcome: dict[str, dict[str, str]] = {row.id: {} for row in rows}
        for draw in range(self.settings.draws):
            todo = [(row, g) for row in rows for g in self.guidelines.values() if g.name not in accepted[row.id]]
            requests = [Request(row.id, row.item.example, pictures(row), g.instruction, draw) for row, g in todo]
            replies = ask(self.teacher, requests, self.replies, f"traces {draw + 1}/{self.settings.draws}")
            for (row, guideline), request, reply in zip(todo, requests, replies, strict=True):
                fault = self.judged(reply, row, guideline)
                outcome[row.id][guideline.name] = fault
                if not fault:
                    accepted[row.id][guideline.name] = (request, reply)
        needed = self.settings.min_traces
        faults = {}
        for row in rows:
            if len(accepted[row.id]) < needed:
                said = ", ".join(f"{name}: {fault or 'accepted'}" for name, fault in outcome[row.id].items())
                known = any(not fault.startswith("unknown") for fault in outcome[row.id].values())
                faults[row.id] = ("too_few_traces" if known else "teacher_unknown", said)
        return self.gate("traces", rows, faults), accepted

    def judged(self, reply: Reply, row: Row, guideline: Guideline) -> str:
        """Why a reply is no trace; empty if it is one. Counted."""
        if reply.fault:
            self.ledger.note_trace(guideline.name, reply.fault, "unknown")
            return f"unknown:{reply.fault}" + (f" ({reply.model!r})" if reply.fault == "wrong_model" else "")
        limits = {
            "min_adherence": self.settings.min_adherence,
            "max_characters": self.settings.max_trace_characters,
        }
        fault = trace_fault(reply.text, row.item.example, guideline, **limits)
        self.ledger.note_trace(guideline.name, fault, "rejected" if fault else "accepted")
        return fault

    def kept(self, rows: Sequence[Row], rates: Mapping[str, Any], traces: Mapping[str, Any]) -> list[Kept]:
        """The rows of the result, with all that is known of how they came to be."""
        names = {row.id: f"{row.pool}/{row.item.example.patient_id}" for row in rows}
        patients = linked_patients(names, {row.id: row.item for row in rows})
        teacher = {"class_path": self.settings.teacher.class_path, **self.teacher.identity}
        teacher = {name: value if len(str(value)) <= 200 else digest(value) for name, value in teacher.items()}
        found = []
        for row in rows:
            pool, held = self.settings.pools[row.pool], traces[row.id]
            provenance = {
                "source": pool.source,
                "source_id": row.item.example.question_id,
                "licence": pool.licence,
                "pool": row.pool,
                "patient_id": row.item.example.patient_id,
                "specialty_by": self.settings.decide,
                "why": list(row.assigned.why),
                "teacher": teacher,
                "traces": {name: self.trace_facts(*pair) for name, pair in held.items()},
                "pass_rate": rates.get(row.id),
                "filters": list(GATES),
            }
            reasoning = {name: thinking_of(reply.text).strip() for name, (_, reply) in held.items()}
            found.append(Kept(row, row.specialty, patients[row.id], reasoning, provenance))
        return found

    def trace_facts(self, request: Request, reply: Reply) -> dict[str, Any]:
        """Where one trace is from: its reply's file is named by `request`."""
        return {
            "model": reply.model,
            "draw": request.draw,
            "prompt_version": VERSION,
            "prompt_sha256": digest(self.teacher.prompt(request)),
            "request": self.teacher.key(request),
            "reply_sha256": reply.sha256,
        }


def pictures(row: Row) -> tuple[str, ...]:
    """Hashes of a row's pictures."""
    return tuple(picture.key for picture in row.item.pictures)


def is_right(reply: Reply, row: Row) -> bool:
    """Whether the base's answer is strictly right: what a reward would say."""
    return extract(reply.text, row.item.example.options).letter == row.item.example.letter


def digest(value: Any) -> str:
    """SHA-256 of a text."""
    return hashlib.sha256(str(value).encode()).hexdigest()
