"""Reference: folders made here with links, pipes and loops in them. Run: pytest tests/datamodules/test_places.py."""

import os
from types import SimpleNamespace

import pytest

from datamodules import embedded
from datamodules.batch import BadExampleError, PictureError, load_image
from datamodules.check.__main__ import main
from datamodules.mmedexpert import MMedExpert
from datamodules.places import find_picture
from datamodules.pmc_vqa import PMCVQA
from datamodules.readers import read_rows
from datamodules.released import split_files
from tests.datamodules import released_shapes as made


def read(root, **options):
    return PMCVQA(PMCVQA.Config(root=str(root), **options), specialty="s")


def hub_cache(root):
    """The layout of a hub's cache: every file of a snapshot links to a blob."""
    made.pmc_vqa(root / "whole")
    blobs, snapshot = root / "blobs", root / "snapshots" / "1f2e"
    blobs.mkdir()
    for number, path in enumerate(sorted(p for p in (root / "whole").rglob("*") if p.is_file())):
        (blobs / f"{number:064x}").write_bytes(path.read_bytes())
        place = snapshot / path.relative_to(root / "whole")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(os.path.relpath(blobs / f"{number:064x}", place.parent))
    return snapshot, blobs


def test_a_hub_s_cache_is_read_where_its_blobs_are_allowed(tmp_path, capsys):
    snapshot, blobs = hub_cache(tmp_path)
    with pytest.raises(BadExampleError) as caught:
        _ = read(snapshot).splits
    for name in ("train.csv", "test_clean.csv"):
        assert f"the symbolic link {snapshot / name} leads out of the root" in str(caught.value)
    assert f"allowed_roots: [{str(blobs)!r}]" in str(caught.value)
    splits = read(snapshot, allowed_roots=(str(blobs),)).splits
    assert len(splits["test"]) == made.TRIALS
    assert load_image(splits["test"][0].images[0]).size == (32, 24)
    command = ["datamodules.pmc_vqa.PMCVQA", f"root={snapshot}"]
    assert main(command) == 1
    assert main([*command, f"allowed_roots=[{blobs}]"]) == 0
    assert (
        "test_clean.csv: 40 read + 0 left out (0 bad, 0 not asked for) + 0 unread = 40 rows" in capsys.readouterr().out
    )


def test_a_linked_picture_folder_is_called_a_link_and_may_be_allowed(tmp_path):
    made.pmc_vqa(tmp_path / "set")
    (tmp_path / "set" / "images").rename(tmp_path / "elsewhere")
    (tmp_path / "set" / "images").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(
        BadExampleError, match=r"80 of 80 rows cannot be used(.|\n)*the symbolic link .*/set/images leads out"
    ):
        _ = read(tmp_path / "set").splits
    assert len(read(tmp_path / "set", allowed_roots=(str(tmp_path / "elsewhere"),)).splits["test"]) == made.TRIALS
    with pytest.raises(BadExampleError, match="leads out of the root"):
        _ = read(tmp_path / "set", allowed_roots=(str(tmp_path / "else"),)).splits


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (os.mkfifo, "is a named pipe"),
        (os.mkdir, "is a folder"),
        (lambda path: os.symlink("nowhere", path), "'nowhere', where nothing is"),
        (lambda path: os.symlink(path, path), "leads back to itself"),
    ],
)
def test_what_is_no_file_is_refused_at_once_as_rows_and_as_a_picture(tmp_path, spoil, said):
    made.pmc_vqa(tmp_path)
    for name in ("train.csv", "images/PMCtest3_F1.jpg"):
        (tmp_path / name).unlink()
        spoil(tmp_path / name)
    scan = read(tmp_path).scan
    assert [(fault.file, fault.row, fault.unread) for fault in scan.faults] == [
        ("train.csv", 0, True),
        ("test_clean.csv", 4, False),
    ]
    assert all(said in fault.reason for fault in scan.faults)
    with pytest.raises(BadExampleError, match="rows may be missing"):
        _ = read(tmp_path, on_bad_row="skip").splits
    with pytest.raises(PictureError):
        load_image(tmp_path / "images/PMCtest3_F1.jpg")


def test_a_device_is_refused_where_it_is_allowed(tmp_path):
    (tmp_path / "x.png").symlink_to("/dev/zero")
    with pytest.raises(BadExampleError, match="is a device"):
        find_picture(tmp_path, ("",), "x.png", ["/dev"])
    with pytest.raises(PictureError, match="is a device"):
        load_image(tmp_path / "x.png")


def test_rows_in_a_linked_folder_are_read_or_told_and_never_passed_over(tmp_path):
    made.mmedexpert(tmp_path / "set")
    rows = [made.mmedexpert_row(i, images=[]) for i in range(100, 120)]
    made.write_lines(tmp_path / "elsewhere" / "deep" / "more.jsonl", rows)
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set" / "linked").symlink_to(tmp_path / "elsewhere")

    def scan(**options):
        return MMedExpert(MMedExpert.Config(root=str(tmp_path / "set"), **options), specialty="s").scan

    (fault,) = scan().faults
    assert (fault.file, fault.unread) == ("linked/deep/more.jsonl", True)
    assert "the symbolic link" in fault.reason
    allowed = scan(allowed_roots=(str(tmp_path / "elsewhere"),))
    assert allowed.all_rows.read == allowed.all_rows.rows == 2 * made.TRIALS + 20


def test_parquet_counts_the_rows_of_a_group_that_cannot_be_read(tmp_path, monkeypatch):
    class Group:
        def __init__(self, *numbers):
            self.num_rows, self.numbers = len(numbers), numbers

        def to_pylist(self, **_):
            return [{"id": number} for number in self.numbers]

    class ParquetFile:  # what the reader asks of the package, which is not needed here
        groups = (Group(1, 2), Group(3, 4, 5), Group(6))
        num_row_groups = 3
        schema_arrow = SimpleNamespace(names=["id"], metadata=None)
        metadata = SimpleNamespace(row_group=groups.__getitem__, num_rows=6)

        def __init__(self, path):
            assert path.name == "rows.parquet"

        def read_row_group(self, group):
            if group == 1:
                raise OSError("corrupt snappy data")
            return self.groups[group]

    monkeypatch.setattr(embedded, "parquet_reader", lambda: SimpleNamespace(ParquetFile=ParquetFile))
    (tmp_path / "rows.parquet").write_bytes(b"PAR1")
    found = list(read_rows(tmp_path / "rows.parquet", tmp_path))
    assert [row.row for row in found] == [1, 2, 3, 6]
    assert (found[2].rows, found[2].unread) == (3, True)
    monkeypatch.setattr(ParquetFile, "schema_arrow", SimpleNamespace(names=["id", "id"]))
    (fault,) = read_rows(tmp_path / "rows.parquet", tmp_path)
    assert (fault.rows, fault.unread) == (6, True)


def test_a_shard_that_is_missing_is_told(tmp_path):
    for number in (0, 2):
        (tmp_path / f"train-0000{number}-of-00003.parquet").write_bytes(b"")
    assert [path.name for path in split_files(tmp_path, ["train"])][2:] == ["train-00001-of-00003.parquet"]
    (fault,) = read_rows(split_files(tmp_path, ["train"])[2], tmp_path)
    assert fault.unread
    assert "train-00001-of-00003.parquet" in str(fault)
