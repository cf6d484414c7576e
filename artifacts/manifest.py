"""The one manifest: size and sha256 of every file of something on disk, written last, verified on every read.

    <folder>/manifest.json           of a folder that is written whole: adapter, base, Gram matrices, merged agent
    <folder>/<name>.manifest.json    of one file (checkpoint, cell), or of some files of a folder (board, tables)

    {"format": "...", "files": {"model.safetensors": {"bytes": 1234, "sha256": "..."}}, ...}

What the other keys say is the writer's affair. Of a file that is about to take another's place the entry also says what
it `replaces`: a process killed between the two leaves a whole file, and a manifest that knows it.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from artifacts.durable import flush, named, write_text

MANIFEST = "manifest.json"
FORMAT = "files/1"
"""Of manifests whose writer has nothing more to say."""
MAX_BYTES = 8 * 2**20
"""Largest manifest that is read."""
SETTLED_NS = 2 * 10**9
"""Age from which a file's time of change tells it from a later one: the coarsest clock of a file system in use."""

Entry = dict[str, Any]
"""`bytes` and `sha256` of a file; `replaces` lists those that may still stand in its place."""

_known: dict[tuple, str] = {}


class DamagedError(ValueError):
    """Something on disk is not what was written."""


def file_sha256(path: Path) -> str:
    """Sixty-four hexadecimal digits over a file's bytes; a file that has not changed is read once per process."""
    with Path(path).open("rb") as file:
        held = os.fstat(file.fileno())
        times = held.st_mtime_ns, held.st_ctime_ns
        key = (str(path), held.st_dev, held.st_ino, held.st_size, *times)
        if key not in _known:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            if time.time_ns() - max(times) < SETTLED_NS:
                return digest  # a change to come might leave the same times
            _known[key] = digest
    return _known[key]


def entry_of(path: Path, sha256: str | None = None) -> Entry:
    """Measure a file.

    Args:
        path: the file.
        sha256: of its bytes, where that is known.
    """
    return {"bytes": path.stat().st_size, "sha256": sha256 or file_sha256(path)}


def beside(path: Path) -> Path:
    """Where the manifest of a single file stands."""
    return path.with_name(f"{path.name}.{MANIFEST}")


def write_manifest(path: Path, entries: Mapping[str, Entry], **content: Any) -> None:
    """Write a manifest; what it lists is on the disk by then.

    Args:
        path: of the manifest; the files' names are relative to its folder.
        entries: see `entry_of`.
        content: what else it shall say.

    Raises:
        OSError: the disk is full or the folder cannot be written.
    """
    told = {"format": FORMAT} | content | {"files": dict(entries)}
    write_text(path, json.dumps(told, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")


def measured(folder: Path, names: Iterable[str]) -> dict[str, Entry]:
    """Force files onto the disk, and measure them."""
    for name in sorted(names := list(names)):
        flush(folder / name)
    return {name: entry_of(folder / name) for name in sorted(names)}


def read_manifest(path: Path, remedy: str = "") -> dict[str, Any]:
    """A manifest of good form; its files are not looked at.

    Args:
        path: of the manifest.
        remedy: how to make anew what it stands for; by default, to delete its folder.

    Raises:
        DamagedError: it is absent, too large, no JSON object, or lists files otherwise than this module does.
    """
    remedy = remedy or made_anew(path)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DamagedError(f"{path}: more than {MAX_BYTES} bytes; {remedy}")
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, DamagedError):
            raise
        raise DamagedError(f"{path}: cannot be read as JSON: {error}; {remedy}") from error
    files = content.get("files") if isinstance(content, dict) else None
    if not isinstance(files, dict) or not all(map(is_good, files.items())):
        raise DamagedError(
            f"{path}: files must be a table of names inside of its folder with bytes and sha256, got {files!r:.200}; "
            f"{remedy}"
        )
    return content


def is_good(item: tuple[str, Any]) -> bool:
    """Whether a manifest may list this: a name that stays in the folder, with size and hash."""
    name, entry = item
    parts = PurePosixPath(name).parts
    return (
        bool(parts)
        and not PurePosixPath(name).is_absolute()
        and ".." not in parts
        and all(is_measure(one) for one in (entry, *alternatives(entry)))
    )


def is_measure(entry: Any) -> bool:
    """Whether this is a size with a hash."""
    return isinstance(entry, dict) and type(entry.get("bytes")) is int and isinstance(entry.get("sha256"), str)


def alternatives(entry: Any) -> list[Any]:
    """What may still stand in a file's place."""
    found = entry.get("replaces", []) if isinstance(entry, dict) else []
    return found if isinstance(found, list) else [found]


def check_files(folder: Path, files: Mapping[str, Entry], remedy: str) -> None:
    """Compare files with what a manifest says of them.

    Raises:
        DamagedError: names the first that is missing or another, and says how to make it anew.
    """
    for name, entry in files.items():
        path = folder / name
        if not path.is_file():
            raise DamagedError(f"{path}: missing, though its manifest lists it; {remedy}")
        sizes = [one["bytes"] for one in (entry, *alternatives(entry))]
        hashes = [one["sha256"] for one in (entry, *alternatives(entry))]
        if path.stat().st_size not in sizes or file_sha256(path) not in hashes:
            raise DamagedError(
                f"{path}: is damaged: not what the manifest recorded; changed after it was written? {remedy}"
            )


def verify(path: Path, remedy: str = "") -> dict[str, Any]:
    """The content of a manifest whose every file is as it was written; arguments and errors as of `read_manifest`."""
    content = read_manifest(path, remedy)
    check_files(path.parent, content["files"], remedy or made_anew(path))
    return content


def standing(path: Path, remedy: str = "") -> dict[str, Any] | None:
    """As `verify`; None where the manifest, or a file that it lists, is not there, so that it is to be made."""
    if not path.is_file():
        return None
    content = read_manifest(path, remedy)
    if not all((path.parent / name).is_file() for name in content["files"]):
        return None
    return verify(path, remedy)


def made_anew(path: Path) -> str:
    """What to do about a manifest, or a file that it lists."""
    what = path.parent if path.name == MANIFEST else path.with_name(path.name.removesuffix(f".{MANIFEST}"))
    return f"delete {what}, and the command that wrote it makes it anew"


def put(aside: Path, path: Path, entry: Entry) -> None:
    """Let a flushed file take its place; at every moment what stands there is whole, and known to its manifest.

    Args:
        aside: the file, on the same disk.
        path: its place.
        entry: its measure.
    """
    before = known_entries(path)
    meanwhile = entry | {"replaces": [*alternatives(entry), *before]} if before else entry
    write_manifest(beside(path), {path.name: meanwhile})
    os.replace(aside, path)
    flush(path.parent)
    if before:
        write_manifest(beside(path), {path.name: entry})


def known_entries(path: Path) -> list[Entry]:
    """What may stand at a path; nothing where that cannot be read, so that such a file is refused from then on."""
    try:
        (entry,) = read_manifest(beside(path))["files"].values()
    except ValueError:
        return []
    return [{key: one[key] for key in ("bytes", "sha256")} for one in (entry, *alternatives(entry))]


def verify_file(path: Path, remedy: str) -> None:
    """Refuse a file that is not as its own manifest says; under whatever name it was written.

    Raises:
        DamagedError: names the file, and says how to make it anew.
    """
    files = read_manifest(beside(path), remedy)["files"]
    if len(files) != 1:
        raise DamagedError(f"{beside(path)}: lists {len(files)} files, expected the one beside it; {remedy}")
    check_files(path.parent, {path.name: next(iter(files.values()))}, remedy)


def put_text(path: Path, text: str) -> None:
    """Replace a text file in one step, with its manifest beside it.

    Raises:
        OSError: the disk is full or the folder cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    content = text.encode()
    try:
        with named(path):
            aside.write_bytes(content)
        flush(aside)
        put(aside, path, {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()})
    finally:
        aside.unlink(missing_ok=True)


def get_text(path: Path) -> str:
    """What `put_text` wrote.

    Raises:
        DamagedError: the file is another; names it, and says how to make it anew.
    """
    verify_file(path, f"delete {path}, and the same command makes it anew")
    return path.read_bytes().decode("utf-8")
