"""What a command leaves on disk: whole or torn, equal to another run's or not, and whether anything was forgotten."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from artifacts.manifest import MANIFEST, DamagedError, beside, read_manifest, verify
from callbacks.board_files import BOARD

IGNORED = re.compile(r"(^|/)(\.lock$|earlier/|\.checked/)")
"""Locks: they say nothing, and stay. Curves that a fresh start set aside are kept on purpose. Remembered checks are
named by the times of files, which no two copies of a folder share."""
TEMPORARY = re.compile(r"\.(tmp|old)$|(^|/)\.[^/]*\.\d+\.")
"""What only a process at work needs."""
BEFORE = re.compile(rf"last\.ckpt\.before(\.{re.escape(MANIFEST)})?$")
"""The last checkpoint but one is of the step at which a run was interrupted, if it was."""
EVENTS = "events.out.tfevents."
logging.getLogger("tensorboard").setLevel(logging.ERROR)  # says of each board what was withdrawn
TIMED = ("work/",)
"""Scalars whose values the machine decides; their steps are compared all the same."""
MAY_DIFFER: dict[str, tuple[str, ...]] = {
    "status.json": ("time", "pid", "seconds"),
    "provenance.json": ("time",),
    "manifest.json": ("time",),
    "experiment.json": ("time",),
}
"""Keys, at any depth, that tell when and by which process a file was written. All else is compared byte for byte, but
the values in timings.json and of curves below `TIMED`, and Lightning's count of validations in a checkpoint."""


def files(folder: Path) -> dict[str, Path]:
    """Path below the folder -> path, without locks."""
    found = {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if not path.is_dir()}
    return {name: path for name, path in found.items() if not IGNORED.search(name)}


def points(folder: Path) -> Counter[tuple[str, int, str]]:
    """How often each point stands on a board, (tag, step, value): as TensorBoard shows it, less what was withdrawn."""
    if not any(folder.glob(f"{EVENTS}*")):
        return Counter()
    held = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0, "tensors": 0}).Reload()
    found: Counter[tuple[str, int, str]] = Counter()
    for tag in held.Tags()["scalars"]:
        for event in held.Scalars(tag):
            found[tag, event.step, "" if tag.startswith(TIMED) else repr(event.value)] += 1
    for tag in held.Tags()["images"]:
        for event in held.Images(tag):
            found[tag, event.step, hashlib.sha256(event.encoded_image_string).hexdigest()[:16]] += 1
    for tag in held.Tags()["tensors"]:
        for event in held.Tensors(tag):
            found[tag, event.step, hashlib.sha256(event.tensor_proto.SerializeToString()).hexdigest()[:16]] += 1
    return found


def _without(keys: tuple[str, ...], path: Path) -> dict[str, str]:
    found = leaves(json.loads(path.read_text("utf-8")))
    return {place: value for place, value in found if not set(place.split("/")) & set(keys)}


def _shape(text: str) -> Any:
    return sorted(json.loads(text))


def _checkpoint(path: Path) -> dict[str, str]:
    content = torch.load(path, weights_only=True)
    content["loops"].pop("validate_loop", None)  # Lightning counts the process's own validations
    content["callbacks"].pop("PhaseTimes", None)  # seconds, and cards that were drawn twice
    for state in content["callbacks"].values():
        state.pop("current_score", None)  # Lightning's, of the newest validation that this very process held
    return dict(leaves(content))


def leaves(content: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """Place -> value of everything in nested data, with hashes in place of tensors."""
    if isinstance(content, torch.Tensor):
        raw = content.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        yield place, f"{content.dtype} {tuple(content.shape)} {hashlib.sha256(raw).hexdigest()[:16]}"
    elif isinstance(content, dict) and content:
        for key, value in content.items():
            yield from leaves(value, f"{place}/{key}")
    elif isinstance(content, list | tuple) and content:
        for index, value in enumerate(content):
            yield from leaves(value, f"{place}/{index}")
    else:
        yield place, repr(content)


def comparable(name: str) -> Callable[[Path], Any]:
    """How a file is read for comparison; as bytes, unless it tells of the process that wrote it."""
    last = name.rpartition("/")[2]
    if last == "timings.json":
        return lambda path: _shape(path.read_text("utf-8"))
    if last.endswith(".ckpt"):
        return _checkpoint
    if last.endswith(f".ckpt.{MANIFEST}"):
        return lambda path: bool(verify(path))  # seconds stand in the checkpoint, so its hash differs
    if last == BOARD:
        return lambda path: verify(path)["made_from"]  # what is on a board is compared point by point
    if last in MAY_DIFFER:
        return lambda path: _without(MAY_DIFFER[last], path)
    return Path.read_bytes


def differences(reference: Path, found: Path) -> Iterator[tuple[str, str]]:
    """What a folder's content differs in from that of an uninterrupted run.

    Yields:
        (column of the table, what it is).
    """
    expected, there = ({n: p for n, p in files(one).items() if not BEFORE.search(n)} for one in (reference, found))
    boards = {str(Path(name).parent) for name in {*expected, *there} if EVENTS in name}
    expected, there = ({n: p for n, p in some.items() if EVENTS not in n} for some in (expected, there))
    for name in sorted(expected.keys() - there.keys()):
        yield "silent losses", f"{name} is missing"
    for name in sorted(there.keys() - expected.keys()):
        yield "different", f"{name} is left over" if TEMPORARY.search(name) else f"{name} is one too many"
    for name in sorted(expected.keys() & there.keys()):
        read = comparable(name)
        try:
            one, other = read(expected[name]), read(there[name])
            if one != other:
                yield "different", f"{name} differs{where(one, other)}"
        except ValueError as error:
            yield "torn", f"{name}: {error}"
    for board in sorted(boards):
        wanted, shown = points(reference / board), points(found / board)
        lost, more = wanted - shown, shown - wanted
        if lost:
            yield "silent losses", f"{board}: {sum(lost.values())} points are missing, such as {sorted(lost)[0]}"
        if more:
            yield "different", f"{board}: {sum(more.values())} points too many, such as {sorted(more)[0]}"


def where(one: Any, other: Any) -> str:
    """The first places in which two readings differ, if they have places."""
    if not isinstance(one, dict):
        return ""
    places = [key for key in {**one, **other} if one.get(key) != other.get(key)]
    return "".join(f"; {key}: {one.get(key)} became {other.get(key)}" for key in places[:3])


def torn(folder: Path) -> Iterator[tuple[str, str]]:
    """Files under a final name that are cut off, at whatever moment one looks."""
    for name, path in files(folder).items():
        if TEMPORARY.search(name) or any(TEMPORARY.search(part) for part in Path(name).parts):
            continue
        try:
            if path.suffix == ".json":
                json.loads(path.read_text("utf-8"))
            elif path.suffix == ".jsonl" and path.name != "samples.jsonl":  # appended to, and cut at the resume point
                [json.loads(line) for line in path.read_text("utf-8").splitlines()]
            elif path.suffix == ".safetensors":
                whole_tensors(path)
            elif path.suffix == ".ckpt":
                verify(beside(path))
            if path.name.endswith(MANIFEST) and not waits_for_its_file(path):
                verify(path)
        except (DamagedError, ValueError, KeyError, OSError) as error:
            yield "torn", f"{name}: {type(error).__name__}: {error}"


def waits_for_its_file(manifest: Path) -> bool:
    """Whether this is a single file's manifest, which is written before the file takes its place."""
    file = manifest.with_name(manifest.name.removesuffix(f".{MANIFEST}"))
    return set(read_manifest(manifest)["files"]) == {file.name} and not file.exists()


def whole_tensors(path: Path) -> None:
    """Refuse a safetensors file that does not end where its header says.

    Raises:
        ValueError: says so.
    """
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    end = max((entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__"), default=0)
    if len(content) != 8 + length + end:
        raise ValueError(f"{len(content)} bytes of {8 + length + end}")
