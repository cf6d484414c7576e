"""What can be read of a chat completion: its words, or why there are none. Nothing that can stand in it raises."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from datamodules.json_rows import load_json

Fault = Literal[
    "",  # usable
    "malformed",  # no UTF-8, no JSON, or JSON without a first choice that holds a text
    "wrong_model",  # another model answered than the one that was asked
    "refused",  # the endpoint would not take this request: too large, a picture it cannot read, a policy
    "filtered",  # the endpoint stopped the answer
    "empty",  # no words
    "truncated",  # cut off at the limit
    "not_text",  # half a surrogate pair, which no file takes
]
RETRIED = ("malformed", "wrong_model")
"""Faults of the moment rather than of the request: asked again before they are believed."""
DOUBTED = (*RETRIED, "refused")
"""Faults that say nothing about a request when every request meets them."""
DATED = re.compile(r"-\d{3,8}(-\d\d){0,2}", re.ASCII)
"""What makes a version of a name: -2026-01-01, -20260101, -0613, -002; not -mini, which is another model."""
REFUSED = 400
"""HTTP statuses from here on say that there is no answer."""


@dataclass(frozen=True)
class Reply:
    """What can be read of a reply.

    Attributes:
        text: the completion, reasoning that came apart included; of one that was cut off, what came; empty behind any
            other fault.
        fault: why it says nothing about the question; an unusable reply is unknown, never wrong.
        model: as who answered calls itself; empty where it does not say.
        prompt_tokens: as the endpoint counts them; 0 where it does not say.
        completion_tokens: those of the answer, hidden reasoning included, likewise.
        sha256: of the reply's bytes.
    """

    text: str
    fault: Fault
    model: str
    prompt_tokens: int
    completion_tokens: int
    sha256: str

    @property
    def tokens(self) -> int:
        """Of prompt and answer; 0 where it is not said."""
        return self.prompt_tokens + self.completion_tokens


def read_reply(status: int, body: bytes, names: Sequence[str] = ()) -> Reply:
    """Read a chat completion.

    Args:
        status: HTTP's.
        body: as it came.
        names: models that may answer, also with a version behind the name (`DATED`); empty believes any.
    """
    digest = hashlib.sha256(body).hexdigest()
    if status >= REFUSED:
        return Reply("", "refused", "", 0, 0, digest)
    try:
        content = load_json(body)
        choice = content["choices"][0]
        message, finish = choice["message"], choice.get("finish_reason")
        text, reasoning = message["content"], reasoning_of(message)
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        return Reply("", "malformed", "", 0, 0, digest)
    model = content.get("model")
    model = model if isinstance(model, str) else ""
    whole, fault = words_of(text, reasoning, finish)
    if names and model and not any(is_called(model, name) for name in names):
        whole, fault = "", "wrong_model"
    return Reply(whole, fault, model, *tokens_of(content.get("usage")), digest)


def is_called(model: str, name: str) -> bool:
    """Whether a model's name is a given one, or a version of it.

    Examples:
        >>> is_called("expert-4-2026-01-01", "expert-4"), is_called("expert-4-mini", "expert-4")
        (True, False)
    """
    return model == name or (model.startswith(name) and DATED.fullmatch(model, len(name)) is not None)


def words_of(text: Any, reasoning: str, finish: Any) -> tuple[str, Fault]:
    """The words of a completion, and its fault.

    Args:
        text: its content.
        reasoning: that stood beside it.
        finish: why it ended.
    """
    if finish == "content_filter":
        return "", "filtered"
    if text is not None and not isinstance(text, str):
        return "", "malformed"
    cut = finish == "length"
    has_words = bool(text and text.strip())
    if not (has_words or cut):
        return "", "empty"
    whole = with_reasoning(text, reasoning) if has_words else unfinished(reasoning)
    try:
        whole.encode("utf-8")
    except UnicodeEncodeError:
        return "", "not_text"
    return whole, "truncated" if cut else ""


def reasoning_of(message: Mapping[str, Any]) -> str:
    """The reasoning that a server took out of a completion; empty where there is none.

    Source: `reasoning_content` of DeepSeek, vLLM and SGLang; `reasoning` of newer vLLM, OpenRouter and Ollama.
    """
    found = (message.get(name) for name in ("reasoning_content", "reasoning"))
    return next((text.strip() for text in found if isinstance(text, str) and text.strip()), "")


def with_reasoning(text: str, reasoning: str) -> str:
    """A completion with its reasoning in front, as the model wrote it before a server took it apart.

    Choice: a completion that holds a thinking block of its own is whole; what was hidden besides is no part of it.
    """
    if not reasoning or "<think>" in text:
        return text
    inner = reasoning.removeprefix("<think>").removesuffix("</think>").strip()
    return f"<think>{inner}</think>{text.removeprefix('</think>').strip()}"


def unfinished(reasoning: str) -> str:
    """A reasoning that was cut off before the model answered: its block stays open."""
    return f"<think>{reasoning.removeprefix('<think>').strip()}" if reasoning else ""


def tokens_of(usage: Any) -> tuple[int, int]:
    """Tokens of prompt and of answer; one that is not told is what the sum leaves, and a sum alone the prompt's.

    Examples:
        >>> tokens_of({"prompt_tokens": 20, "total_tokens": 30}), tokens_of({"total_tokens": 30})
        ((20, 10), (30, 0))
    """
    prompt, completion = whole(usage, "prompt_tokens"), whole(usage, "completion_tokens")
    left = max(0, whole(usage, "total_tokens") - prompt - completion)
    return (prompt, completion or left) if prompt else (left, completion)


def beginning(body: bytes) -> str:
    """The first words of a reply, for a message."""
    return " ".join(body[:200].decode("utf-8", "replace").split())


def whole(content: Any, name: str) -> int:
    """A whole number of at least 0 in a mapping; 0 where there is none."""
    value = content.get(name) if isinstance(content, dict) else None
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else 0
