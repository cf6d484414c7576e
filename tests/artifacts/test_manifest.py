"""Reference: the bytes that were written, and kills between any two calls. Run: pytest tests/artifacts."""

import errno
import fcntl
import json
import os
import random
from pathlib import Path

import pytest

from artifacts import manifest
from artifacts.durable import remove_left_behind
from artifacts.folders import locked
from artifacts.manifest import (
    MANIFEST,
    DamagedError,
    beside,
    entry_of,
    file_sha256,
    get_text,
    measured,
    put_text,
    standing,
    verify,
    write_manifest,
)


@pytest.fixture
def folder(tmp_path):
    """Three files of random bytes, one of them below another folder, and their manifest."""
    draw = random.Random(0)
    (tmp_path / "in").mkdir()
    for name in ("a", "b.json", "in/c"):
        (tmp_path / name).write_bytes(draw.randbytes(200))
    write_manifest(tmp_path / MANIFEST, measured(tmp_path, ["a", "b.json", "in/c"]), made_from="x")
    return tmp_path


@pytest.mark.parametrize("seed", range(20))
def test_any_damage_of_any_file_is_named_with_the_way_out(folder, seed):
    draw = random.Random(seed)
    path = folder / draw.choice(["a", "b.json", "in/c"])
    content = bytearray(path.read_bytes())
    match draw.randrange(4):
        case 0:
            content[draw.randrange(200)] ^= 1 << draw.randrange(8)
        case 1:
            del content[draw.randrange(200) :]
        case 2:
            content += b"\0"
        case 3:
            content = content[100:] + content[:100]
    path.write_bytes(content)
    for look in (verify, standing):
        with pytest.raises(DamagedError, match=f"{path}: is damaged.* delete {folder}"):
            look(folder / MANIFEST)
    path.unlink()
    assert standing(folder / MANIFEST) is None
    with pytest.raises(DamagedError, match=f"{path}: missing"):
        verify(folder / MANIFEST)


@pytest.mark.parametrize(
    "content",
    [
        *("", "[]", "{", "null", '{"files": 1}', '{"files": {"a": 1}}', '{"files": {"a": {"bytes": "1"}}}'),
        '{"files": {"../a": {"bytes": 1, "sha256": "0"}}}',
        '{"files": {"/etc/passwd": {"bytes": 1, "sha256": "0"}}}',
        '{"files": {"": {"bytes": 1, "sha256": "0"}}}',
        '{"files": {"a": {"bytes": 1, "sha256": "0", "replaces": 7}}}',
        "[" * 100_000,
    ],
)
def test_a_manifest_of_another_form_is_refused(folder, content):
    (folder / MANIFEST).write_text(content)
    with pytest.raises(DamagedError, match=r"manifest\.json"):
        verify(folder / MANIFEST)


def test_a_file_is_hashed_once_and_again_after_any_change(tmp_path, monkeypatch):
    read = []
    real = manifest.hashlib.file_digest
    monkeypatch.setattr(manifest.hashlib, "file_digest", lambda file, name: read.append(file.name) or real(file, name))
    path = tmp_path / "weights"
    path.write_bytes(b"old")
    old = file_sha256(path)
    path.write_bytes(b"new")  # of the same size, and perhaps within one tick of the clock
    assert file_sha256(path) != old
    monkeypatch.setattr(manifest, "SETTLED_NS", 0)
    before = len(read)
    assert file_sha256(path) == file_sha256(path) == entry_of(path)["sha256"]
    assert len(read) == before + 1


@pytest.mark.parametrize("call", range(8))
def test_killed_at_any_moment_a_whole_text_is_left(tmp_path, monkeypatch, call):
    class Killed(BaseException):
        pass

    path, calls = tmp_path / "cell.jsonl", []
    put_text(path, "old\n")

    def counted(function):
        def run(*args, **kwargs):
            if len(calls) >= call:
                raise Killed
            calls.append(function)
            return function(*args, **kwargs)

        return run

    with monkeypatch.context() as patch:
        for name in ("replace", "fsync"):
            patch.setattr(os, name, counted(getattr(os, name)))
        patch.setattr(Path, "unlink", lambda *_, **__: None)
        with pytest.raises(Killed):
            put_text(path, "new\n")
    assert get_text(path) in ("old\n", "new\n")
    put_text(path, "newer\n")
    assert get_text(path) == "newer\n"
    assert "replaces" not in beside(path).read_text()


def test_a_text_without_its_manifest_or_with_anothers_is_refused(tmp_path):
    put_text(tmp_path / "a", "\u2028 λ\n")
    put_text(tmp_path / "b", "other")
    assert get_text(tmp_path / "a") == "\u2028 λ\n"
    os.replace(beside(tmp_path / "b"), beside(tmp_path / "a"))
    for name in "ab":
        with pytest.raises(DamagedError, match=f"delete {tmp_path / name}, and the same command"):
            get_text(tmp_path / name)


def test_what_killed_processes_left_goes_and_what_others_write_stays(tmp_path):
    dead, alive = 2**22 + 1, 1  # above the largest number that Linux gives; process 1 always runs
    names = [
        f".status.json.{dead}.tmp",
        f".adapter.{dead}.old",
        f"in/.cell.jsonl.{dead}.tmp",
        f".own.{os.getpid()}.tmp",
    ]
    kept = [f".other.{alive}.tmp", "status.json", ".hidden", ".a.b.tmp", f"x.{dead}.tmp", f".x.{dead}.json"]
    for name in (*names, *kept):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.mkdir() if "adapter" in name else path.write_text("")
    remove_left_behind(tmp_path, below=False)
    assert (tmp_path / names[2]).exists()
    with locked(tmp_path, "this"):
        pass
    found = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")}
    assert found == {*kept, "in", ".lock"}


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_told_with_the_remedy(tmp_path, monkeypatch, code):
    def flock(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(OSError, match=rf"has no locks.*set runs_dir.*{tmp_path}/\.lock"), locked(tmp_path, "this"):
        raise AssertionError("worked without a lock")


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES])
def test_to_read_a_folder_that_cannot_be_written_takes_no_lock(tmp_path, monkeypatch, code):
    def no(path, *_, **__):
        raise OSError(code, os.strerror(code), str(path))

    monkeypatch.setattr("builtins.open", no)
    entered = []
    with locked(tmp_path, "this"):
        entered.append(True)
    assert entered
    monkeypatch.setattr(Path, "mkdir", no)
    with pytest.raises(OSError, match="absent"), locked(tmp_path / "absent", "this"):
        raise AssertionError("there is nothing to read")


def test_manifests_say_what_they_are_told(folder):
    content = json.loads((folder / MANIFEST).read_text())
    assert content["made_from"] == "x"
    assert content["files"]["a"] == {"bytes": 200, "sha256": file_sha256(folder / "a")}
    assert list(content["files"]) == ["a", "b.json", "in/c"]
