"""Reference: Bayes and pixels by hand; set contracts need `python -m datamodules.assets`. Run: pytest this file."""

from collections import Counter

import numpy as np
import pytest
from PIL import Image

from datamodules.assets import AssetError, require_assets
from datamodules.base import VQADataModule
from datamodules.batch import load_image
from datamodules.chest_ct import ChestCTSlices
from datamodules.dermatology import DermoscopyPairs, clean_pairs
from datamodules.neuroradiology import BrainSlices
from datamodules.ophthalmology import FundusRegions, vessel_map
from datamodules.pathology import HistologyWindows, brown_map, window_means
from datamodules.prompts import NEUTRAL
from datamodules.real_perception import RealPerceptionMixture
from datamodules.windows import TURNS, window
from datamodules.worked import Clue, posterior, worked

GUIDELINES = {"differential", "intuitive", "analytical", "bayesian"}
EASY = (DermoscopyPairs, BrainSlices, HistologyWindows, FundusRegions)
SETS = (*EASY, ChestCTSlices)
NEEDS = ["dermoscopy", "mni152", "skin_layers", "ihc", "fundus", "chest_ct"]


def fetched():
    try:
        return bool(require_assets("assets", NEEDS))
    except AssetError:
        return False


needs_assets = pytest.mark.skipif(not fetched(), reason="run `python -m datamodules.assets` first")


@pytest.fixture(scope="module")
def built():
    """Each set, read once."""
    modules = {kind: kind() for kind in (*SETS, RealPerceptionMixture)}
    for module in modules.values():
        module.setup()
    return modules


def every(module):
    return [example for split in module.splits.values() for example in split]


# Maths, by hand: no files needed.


def test_posterior_by_hand():
    # 1/4 * 0.9 = 0.225 against 3/4 * 0.1 = 0.075: three to one
    assert posterior(0.25, 0.9, 0.1) == pytest.approx(0.75)
    assert posterior(0.3, 0.5, 0.5) == pytest.approx(0.3)


def test_four_chains_differ_in_kind_and_end_in_the_answer():
    clue = Clue("a dark red band", "blood absorbs green", "background", "plain fundus has no band", 0.9, 0.1)
    for key in map(str, range(8)):
        chains = worked("vessel", clue, 0.25, key)
        assert chains.keys() == GUIDELINES
        assert all(chain.startswith("a dark red band") and chain.endswith("vessel.") for chain in chains.values())
        assert "background" in chains["differential"]
        assert clue.against in chains["differential"]
        assert clue.cause in chains["analytical"]
        assert "25%" in chains["bayesian"]
        assert "posterior 75%" in chains["bayesian"]
        assert min(chains, key=lambda name: len(chains[name])) == "intuitive"
    assert len({worked("vessel", clue, 0.25, str(key))["differential"] for key in range(8)}) == 2


def test_window_cuts_and_turns_by_hand(tmp_path):
    values = np.arange(16, dtype=np.uint8).reshape(4, 4)
    Image.fromarray(values).save(tmp_path / "x.png")
    cut = [np.asarray(window(tmp_path / "x.png", 1, 2, 2, turn))[..., 0].tolist() for turn in range(len(TURNS))]
    assert cut[0] == [[9, 10], [13, 14]]
    assert cut[1] == [[10, 9], [14, 13]]
    assert len({str(rows) for rows in cut}) == 8


def test_window_means_by_hand():
    mask = np.array([[1, 1, 0], [1, 0, 0], [0, 0, 0]], dtype=bool)
    assert window_means(mask, 2).tolist() == [[0.75, 0.25], [0.25, 0.0]]


def test_brown_is_told_from_blue_and_white():
    # Pure dyes by Beer-Lambert: intensity 255 * 10 ** -(amount * density of the channel)
    dab, haematoxylin = (255 * 10 ** -np.array(d) for d in ((0.27, 0.57, 0.78), (0.65, 0.70, 0.29)))
    row = np.array([[dab, haematoxylin, [250, 250, 250]]]).astype(np.uint8)
    assert brown_map(row).tolist() == [[True, False, False]]


def test_a_dark_line_is_a_vessel_and_a_slow_gradient_is_not():
    green = np.tile(np.linspace(80, 120, 200), (200, 1))
    green[:, 95:105] -= 30
    found = vessel_map(Image.fromarray(np.stack([green] * 3, -1).astype(np.uint8)))
    assert found[100, 97:103].all()
    assert not found[100, 20:80].any()


@pytest.mark.parametrize("kind", SETS)
def test_without_files_the_error_names_the_command(kind, tmp_path):
    with pytest.raises(AssetError, match=r"python -m datamodules\.assets --root"):
        kind(kind.Config(root=str(tmp_path))).setup()


# Contracts of the sets: real files.


@needs_assets
@pytest.mark.parametrize("kind", SETS)
def test_splits_are_sound(kind, built):
    module = built[kind]
    patients = {name: {e.patient_id for e in split} for name, split in module.splits.items()}
    assert not patients["train"] & patients["test"]
    assert not patients["val"] & (patients["train"] | patients["test"])
    assert len(module.splits["test"]) >= (40 if kind is ChestCTSlices else 200)
    again = kind()
    assert [e.question_id for e in every(again)] == [e.question_id for e in every(module)]


@needs_assets
@pytest.mark.parametrize("kind", EASY)
def test_answers_and_letters_are_balanced(kind, built):
    train = built[kind].splits["train"]
    for question_type in {e.tags["question_type"] for e in train}:
        rows = [e for e in train if e.tags["question_type"] == question_type]
        classes = len(rows[0].options)
        for counted in (Counter(e.answer for e in rows), Counter(e.letter for e in rows)):
            assert len(counted) == classes
            assert max(counted.values()) / len(rows) < 1 / classes + 0.1


@needs_assets
@pytest.mark.parametrize("kind", SETS)
def test_pictures_open_and_are_drawn_alike_each_time(kind, built):
    for example in every(built[kind])[::25]:
        first, second = (load_image(example.images[0]) for _ in range(2))
        assert first.tobytes() == second.tobytes()
        assert 30 <= min(first.size)
        assert max(first.size) <= 240


@needs_assets
@pytest.mark.parametrize("kind", SETS)
def test_every_question_has_four_short_chains(kind, built):
    for example in every(built[kind]):
        assert example.reasoning.keys() == GUIDELINES
        for chain in example.reasoning.values():
            assert 8 <= len(chain.split()) <= 22
            last = chain.rstrip(".").split(". ")[-1]
            assert last.endswith(example.answer)
            assert chain.startswith(example.tags["finding"])


@needs_assets
def test_no_patch_of_skin_is_in_two_splits(built):
    places = {}
    for name, split in built[DermoscopyPairs].splits.items():
        for example in split:
            for path in example.images[0].args:
                assert places.setdefault(path.read_bytes(), name) == name
    # The guard is needed: before it, patches do cross photographs.
    kept = {
        path
        for pairs in clean_pairs(require_assets("assets", ["dermoscopy"])["dermoscopy"]).values()
        for pair in pairs
        for path in pair[1:]
    }
    assert len(kept) < 3980


@needs_assets
@pytest.mark.parametrize("kind", [FundusRegions, HistologyWindows])
def test_windows_of_two_splits_share_no_pixel(kind, built):
    owner = {}
    for code, split in enumerate(built[kind].splits.values(), 1):
        for example in split:
            path, left, top, side, _ = example.images[0].args
            board = owner.setdefault(path, np.zeros((1411, 1411), np.int8))
            place = board[top : top + side, left : left + side]
            assert np.isin(place, (0, code)).all()
            place[...] = code


@needs_assets
def test_slices_of_two_splits_lie_apart(built):
    owner = {}
    for name, split in built[BrainSlices].splits.items():
        for example in split:
            _, plane, number = example.images[0].args[:3]
            owner.setdefault((plane, number), set()).add(name)
    assert all(len(names) == 1 for names in owner.values())
    for (plane, number), names in owner.items():
        assert owner.get((plane, number + 1), names) == names


@needs_assets
def test_the_ring_sits_on_its_tissue(built):
    # Mean grey level inside the ring, by tissue: fluid darkest, white matter brightest.
    levels = {}
    for example in built[BrainSlices].splits["test"]:
        if example.tags["question_type"] == "tissue":
            view = np.asarray(load_image(example.images[0])).astype(int)
            ring = (view[..., 0] > 200) & (view[..., 1] > 200) & (view[..., 2] < 60)
            rows, columns = np.nonzero(ring)
            y, x = (int(v.min() + v.max()) // 2 for v in (rows, columns))
            levels.setdefault(example.answer, []).append(view[y - 2 : y + 3, x - 2 : x + 3, 2].mean())
    fluid, grey, white = (np.array(levels[k]) for k in ("cerebrospinal fluid", "grey matter", "white matter"))
    assert np.quantile(fluid, 0.95) < np.quantile(grey, 0.05)
    assert np.quantile(grey, 0.95) < np.quantile(white, 0.05)


@needs_assets
def test_the_orientation_of_brain_slices(built):
    # The cerebellum lies low and behind: in a sagittal slice that faces left, low and right.
    example = next(e for e in every(built[BrainSlices]) if e.question_id.startswith("plane-sagittal"))
    folder, plane, _, key = example.images[0].args
    view = np.asarray(example.images[0].func(folder, plane, 70, key))[..., 0]
    rows, columns = np.nonzero(view)
    low = view[int(np.quantile(rows, 0.9)) :]
    assert np.nonzero(low)[1].mean() > columns.mean()


@needs_assets
def test_tumour_slices_are_those_of_the_outlines(built):
    # Counted from the four structure sets: 26, 7, 12 and 23 heights.
    counts = Counter(e.patient_id for e in every(built[ChestCTSlices]) if e.answer == "present")
    assert counts == {"lung-pat_1": 26, "lung-pat_2": 7, "lung-pat_3": 12, "lung-pat_4": 23}


@needs_assets
def test_the_mixture_knows_no_diagnosis_and_no_test_patient(built):
    mixture = built[RealPerceptionMixture]
    held_out = {e.patient_id for k in EASY for name in ("val", "test") for e in built[k].splits[name]}
    diagnoses = {option for k in EASY for e in every(built[k]) for option in e.options}
    rows = mixture.rows()
    assert isinstance(mixture, VQADataModule)
    for example, guideline, completion in rows:
        assert guideline == NEUTRAL
        assert example.patient_id not in held_out
        assert completion == example.trace(NEUTRAL)
        if example.images:
            assert not diagnoses & set(example.options)
    text = sum(not example.images for example, _, _ in rows) / len(rows)
    assert text == pytest.approx(mixture.config.text_share, abs=0.03)
    assert {e.tags["modality"] for e, _, _ in rows} > {"dermoscopy", "MRI T1", "histology", "fundus photograph"}


def test_the_mixture_checks_its_numbers():
    with pytest.raises(ValueError, match="text_share"):
        RealPerceptionMixture.Config(text_share=1.0)
    with pytest.raises(ValueError, match="most_options"):
        RealPerceptionMixture.Config(most_options=1)
