"""Where the files of a data set may lie: below its root, or where links lead into folders that the settings allow."""

from __future__ import annotations

import os
import stat
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath, PureWindowsPath

from datamodules.batch import BadExampleError
from datamodules.regular import irregular


def inside_root(path: Path, root: Path, allowed: Sequence[str | Path] = ()) -> None:
    """Refuse a file outside the data set's folder, symbolic links resolved.

    Args:
        path: of a file.
        root: of the data set; it may be a link itself.
        allowed: further folders into which links below the root may lead.

    Raises:
        BadExampleError: names the path and the root, and where a link leads.
    """
    real = os.path.realpath(path)
    if any(Path(real).is_relative_to(os.path.realpath(folder)) for folder in (root, *allowed)):
        return
    if link := link_out(path, root, allowed):
        target = os.path.realpath(link)
        folder = target if os.path.isdir(target) else os.path.dirname(target)
        raise BadExampleError(
            f"{path}: the symbolic link {link} leads out of the root {root}, to {target!r}; to allow it, name it: "
            f"allowed_roots: [{folder!r}]"
        )
    raise BadExampleError(f"{path}: lies outside the data set's root {root}; absolute paths and '..' are refused")


def link_out(path: Path, root: Path, allowed: Sequence[str | Path]) -> Path | None:
    """The link on the way from the root to a file that leads out of all folders; None where no link does."""
    if not path.is_relative_to(root):
        return None
    folders = [os.path.realpath(folder) for folder in (root, *allowed)]
    place = root
    for part in path.relative_to(root).parts:
        if part == "..":
            return None
        place = place / part
        if place.is_symlink() and not any(Path(os.path.realpath(place)).is_relative_to(one) for one in folders):
            return place
    return None


def find_picture(root: Path, folders: Sequence[str], name: str, allowed: Sequence[str | Path] = ()) -> Path:
    """The file that a row names, in the first of the folders that holds it.

    Args:
        root: of the data set.
        folders: below the root; "" is the root itself.
        name: as the row has it; composed and decomposed accents are the same name.
        allowed: as of `inside_root`.

    Returns:
        The path, in the first folder where no folder holds the file: it will be counted as missing.

    Raises:
        BadExampleError: the name is empty, absolute, a URL, leads out of the root, symbolic links resolved, or is that
            of something else than a file.
    """
    if not name or "\0" in name or "://" in name:
        raise BadExampleError(f"picture {name!r}: expected the name of a file below the root {root}")
    if name[0] in "/\\" or ":" in name or ".." in name:
        parts = PureWindowsPath(name)  # knows both separators, drives and shares
        if parts.is_absolute() or parts.drive or PurePosixPath(name).is_absolute() or ".." in parts.parts:
            raise BadExampleError(
                f"picture {name!r}: lies outside the root {root}; absolute paths and '..' are refused"
            )
    forms = [name] if name.isascii() else [name, *(unicodedata.normalize(form, name) for form in ("NFC", "NFD"))]
    base = real_folder(os.getcwd(), str(root))
    for folder in folders:
        for spelling in dict.fromkeys(forms):
            found = plain_file(base, f"{folder}/{spelling}" if folder else spelling)
            if found is False:
                continue
            path = root / folder / spelling
            if found is None:  # there is a link on the way, or something else than a file
                inside_root(path, root, allowed)
                if strange := irregular(path):
                    raise BadExampleError(f"picture {name!r}: is {strange}, expected a file of a picture")
            return path
    return root / folders[0] / name


@lru_cache(maxsize=64)
def real_folder(_: str, folder: str) -> str:
    """A folder with its links resolved; the first argument is the working folder, from which it may be told."""
    return os.path.realpath(folder)


def plain_file(base: str, name: str) -> bool | None:
    """Whether a regular file lies below a folder without a link on the way; None where something else does."""
    mode, place = stat.S_IFDIR, base
    for part in name.split("/"):
        if part in ("", "."):
            continue
        place = f"{place}/{part}"
        try:
            mode = os.lstat(place).st_mode
        except (OSError, ValueError):
            return False
        if stat.S_ISLNK(mode):
            return None if os.path.lexists(f"{base}/{name}") else False
    return True if stat.S_ISREG(mode) else None


def files_below(root: Path, pattern: str, allowed: Sequence[str | Path] = ()) -> list[Path]:
    """The files below a root, also in folders that links lead to, which `Path.glob` passes over.

    Args:
        root: of the data set.
        pattern: as of `Path.glob`.
        allowed: as of `inside_root`; of a link to elsewhere the files are listed, to be refused by name.
    """
    found, seen, folders = [], set(), [root]
    while folders:
        folder = folders.pop()
        if (real := os.path.realpath(folder)) in seen:
            continue
        seen.add(real)
        found += folder.glob(pattern)
        entered = any(Path(real).is_relative_to(os.path.realpath(one)) for one in (root, *allowed))
        folders += links_to_folders(folder) if entered else []
    return sorted(set(found))


def links_to_folders(folder: Path) -> list[Path]:
    """The links to folders below a folder."""
    return sorted(
        Path(place) / name
        for place, names, _ in os.walk(folder)
        for name in names
        if os.path.islink(os.path.join(place, name))
    )
