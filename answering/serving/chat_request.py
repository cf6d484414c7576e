"""A body of POST /v1/chat/completions, read strictly: what would change the answer and is not done here is refused."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from answering.conversation import Turn
from answering.decoding import Decoding
from answering.serving.errors import ApiError
from answering.serving.sent_picture import SentPicture, check_pictures, sent_picture
from datamodules.json_rows import load_json

HONOURED = {"model", "messages", "max_tokens", "max_completion_tokens", "temperature", "seed", "stream"} | {
    "stream_options",
    "guideline",
    "top_p",
}
IGNORED = {"user", "metadata", "store", "service_tier", "parallel_tool_calls", "safety_identifier", "prompt_cache_key"}
"""Fields that say nothing about the answer."""
ONLY: Mapping[str, tuple[Any, ...]] = {
    "n": (1,),
    "stop": ([], ""),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "response_format": ({"type": "text"},),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "modalities": (["text"],),
}
"""Fields that are taken with these values alone, under which they change nothing; null is one of them always."""
MOST_MESSAGES = 1000
LETTERS_PER_TOKEN = 40
"""No text of so many letters per token of a context fits into it; it need not be tokenised to see that."""


@dataclass(frozen=True)
class ChatRequest:
    """What is asked.

    Attributes:
        model: who is to answer.
        turns: of the conversation.
        system: system prompt; None is the model's own.
        decoding: how the answer is drawn.
        stream: whether it is wanted piece by piece.
        counts: whether a stream ends with the numbers of tokens.
    """

    model: str
    turns: tuple[Turn, ...]
    system: str | None
    decoding: Decoding
    stream: bool
    counts: bool


@dataclass(frozen=True)
class Offer:
    """What may be asked for.

    Attributes:
        models: names.
        guidelines: name -> instruction.
        max_tokens: the most that an answer may have.
        context: of the model, in tokens.
    """

    models: Collection[str]
    guidelines: Mapping[str, str]
    max_tokens: int
    context: int


def read_request(body: bytes, offer: Offer) -> ChatRequest:
    """Read a body.

    Args:
        body: as it came.
        offer: what there is.

    Raises:
        ApiError: it is refused; names the field, the value and what is allowed.
    """
    content = json_of(body)
    refuse_fields(content)
    model = content.get("model")
    if not isinstance(model, str) or model not in offer.models:
        names = ", ".join(offer.models)
        raise ApiError(404, f"model: {model!r:.100} is not served here; there are {names}", "model", "model_not_found")
    system, turns = read_messages(content.get("messages"), offer.context)
    turns = with_instruction(turns, content.get("guideline"), offer.guidelines)
    check_pictures([part for turn in turns for part in turn.parts if isinstance(part, SentPicture)])
    options = content.get("stream_options") or {}
    if not isinstance(options, dict) or not set(options) <= {"include_usage", "include_obfuscation"}:
        raise ApiError(400, "stream_options: an object with include_usage", "stream_options", "unsupported_parameter")
    return ChatRequest(
        model,
        turns,
        system,
        read_decoding(content, offer.max_tokens),
        flag(content, "stream"),
        flag(options, "include_usage"),
    )


def json_of(body: bytes) -> dict[str, Any]:
    """The object of a body.

    Raises:
        ApiError: it is none.
    """
    try:
        content = load_json(body)
        body.decode("utf-8-sig").encode()
    except (ValueError, RecursionError) as error:
        raise ApiError(400, f"the body is not JSON: {error}", code="invalid_json") from error
    if not isinstance(content, dict):
        raise ApiError(400, f"the body must be a JSON object, got {type(content).__name__}", code="invalid_json")
    return content


def refuse_fields(content: Mapping[str, Any]) -> None:
    """Refuse fields that nothing is done about here, and that ask for something.

    Raises:
        ApiError: names the field.
    """
    for name, value in content.items():
        if name in HONOURED | IGNORED or value is None:
            continue
        if name not in ONLY:
            known = ", ".join(sorted(HONOURED))
            raise ApiError(400, f"{name}: unknown field; known are {known}", name, "unknown_parameter")
        if not any(type(value) is type(v) and value == v for v in ONLY[name]) and not is_zero(value, ONLY[name]):
            allowed = " or ".join(repr(v) for v in ONLY[name])
            message = f"{name}: {value!r:.60} is not supported; leave it out, or send {allowed}"
            raise ApiError(400, message, name, "unsupported_parameter")


def is_zero(value: Any, allowed: tuple[Any, ...]) -> bool:
    """Whether a number is one of those allowed: clients write 0 and 0.0."""
    return type(value) in (int, float) and any(type(v) in (int, float) and v == value for v in allowed)


def read_messages(messages: Any, context: int) -> tuple[str | None, tuple[Turn, ...]]:
    """System prompt and turns.

    Raises:
        ApiError: a message is of no form that is taken here, or the last is not the user's.
    """
    if not isinstance(messages, list) or not 1 <= len(messages) <= MOST_MESSAGES:
        raise ApiError(400, f"messages: expected a list of 1 to {MOST_MESSAGES} messages", "messages", "invalid_value")
    system, turns, letters = None, [], 0
    for number, message in enumerate(messages):
        place = f"messages[{number}]"
        if not isinstance(message, dict):
            raise ApiError(400, f"{place}: expected an object, got {type(message).__name__}", place, "invalid_type")
        role, parts = message.get("role"), read_parts(message.get("content"), place)
        letters += sum(len(part) for part in parts if isinstance(part, str))
        if letters > LETTERS_PER_TOKEN * context:
            raise ApiError(
                400, f"{place}: longer than the context of {context} tokens", place, "context_length_exceeded"
            )
        if role in ("system", "developer") and number == 0 and all(isinstance(part, str) for part in parts):
            system = "\n".join(parts)
        elif role == "user" or (role == "assistant" and all(isinstance(part, str) for part in parts)):
            turns.append(Turn(role, parts))
        else:
            message = f"{place}.role: {role!r:.40} is not taken there: system comes first and once, then user (with "
            raise ApiError(400, message + "pictures) and assistant (texts alone)", f"{place}.role", "invalid_value")
    if not turns or turns[-1].role != "user":
        raise ApiError(400, "messages: the last one must be the user's", "messages", "invalid_value")
    return system, tuple(turns)


def read_parts(content: Any, place: str) -> tuple[str | SentPicture, ...]:
    """Texts and pictures of one message.

    Raises:
        ApiError: there is nothing, or a part of another kind.
    """
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    if not isinstance(parts, list) or not parts:
        message = f"{place}.content: expected a text, or a list of parts, got {type(content).__name__}"
        raise ApiError(400, message, f"{place}.content", "invalid_type")
    return tuple(read_part(part, f"{place}.content[{number}]") for number, part in enumerate(parts))


def read_part(part: Any, place: str) -> str | SentPicture:
    """A text or a picture.

    Raises:
        ApiError: it is neither.
    """
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "text" and isinstance(text := part.get("text"), str):
        if any("\ud800" <= letter <= "\udfff" for letter in text):
            raise ApiError(400, f"{place}: holds half a surrogate pair, which is no character", place, "invalid_value")
        return text
    if kind == "image_url":
        held = part.get("image_url")
        return sent_picture(held.get("url") if isinstance(held, dict) else held, f"{place}.image_url")
    message = f"{place}: expected a part of type text or image_url, got {kind!r:.40}"
    raise ApiError(400, message, place, "invalid_value")


def with_instruction(turns: tuple[Turn, ...], name: Any, guidelines: Mapping[str, str]) -> tuple[Turn, ...]:
    """The turns, the last one's text followed by a guideline's instruction, as a question's prompt has it.

    Raises:
        ApiError: there is no such guideline.
    """
    if name is None:
        return turns
    if not isinstance(name, str) or name not in guidelines:
        known = ", ".join(guidelines)
        raise ApiError(400, f"guideline: {name!r:.60} is unknown; known are {known}", "guideline", "invalid_value")
    if not guidelines[name]:
        return turns
    parts = list(turns[-1].parts)
    texts = [number for number, part in enumerate(parts) if isinstance(part, str)]
    if not texts:
        return (*turns[:-1], Turn("user", (*parts, guidelines[name])))
    parts[texts[-1]] = f"{parts[texts[-1]]}\n{guidelines[name]}"
    return (*turns[:-1], Turn("user", tuple(parts)))


def read_decoding(content: Mapping[str, Any], most: int) -> Decoding:
    """How the answer is drawn; without a word about it, the most likely tokens up to the limit.

    Raises:
        ApiError: a number is none, or out of its range.
    """
    temperature = number(content, "temperature", 0.0, 0, 2)
    if temperature and number(content, "top_p", 1.0, 0, 1) != 1:
        message = "top_p: only 1 is supported above temperature 0; leave it out"
        raise ApiError(400, message, "top_p", "unsupported_parameter")
    limits = [name for name in ("max_completion_tokens", "max_tokens") if content.get(name) is not None]
    limit = number(content, limits[0], most, 1, most, whole=True) if limits else most
    seed = number(content, "seed", 0, -(2**63), 2**63 - 1, whole=True)
    return Decoding(int(limit), temperature=temperature, seed=int(seed))


def number(
    content: Mapping[str, Any], name: str, default: float, low: float, high: float, *, whole: bool = False
) -> float:
    """A number of a body.

    Raises:
        ApiError: it is none, or out of its range.
    """
    value = content.get(name)
    if value is None:
        return default
    kinds = (int,) if whole else (int, float)
    if type(value) not in kinds or not low <= value <= high:
        kind = "a whole number" if whole else "a number"
        raise ApiError(400, f"{name}: expected {kind} from {low} to {high}, got {value!r:.40}", name, "invalid_value")
    return value


def flag(content: Mapping[str, Any], name: str) -> bool:
    """True or false.

    Raises:
        ApiError: it is neither.
    """
    value = content.get(name)
    if value not in (None, True, False) or isinstance(value, int) != isinstance(value, bool):
        raise ApiError(400, f"{name}: expected true or false, got {value!r:.40}", name, "invalid_type")
    return bool(value)
