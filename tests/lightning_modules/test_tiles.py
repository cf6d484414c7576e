# Reference: transformers' own processors and their texts for pictures. Run: pytest <this file>
import json
import random
from dataclasses import replace

import pytest
from PIL import Image
from transformers import GotOcr2ImageProcessorPil
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

from lightning_modules.families.checkpoint import CheckpointError
from lightning_modules.families.idefics3 import CutPicture, TileTokens
from lightning_modules.families.internvl import InternVL, Tiles
from lightning_modules.policy import Policy
from lightning_modules.rollout import sample
from tests.conftest import made_example
from tests.lightning_modules.families.tiled_shapes import INTERNVL, TILED_SHAPES


def sizes(rng: random.Random, largest: int, count: int) -> list[tuple[int, int]]:
    """Widths and heights of any shape, the thinnest and the squarest among them."""
    drawn = [tuple(int(largest ** rng.random()) for _ in range(2)) for _ in range(count)]
    return [(1, 1), (1, largest), (largest, 1), (largest, largest), *drawn]


@pytest.mark.parametrize("blank_line", [1, 2])
@pytest.mark.parametrize("per_tile", [7, 64, 81, 169])
def test_a_number_of_tokens_tells_its_tiles(per_tile, blank_line):
    tokens, seen = TileTokens(per_tile, blank_line), {}
    for rows in range(1, 7):
        for columns in range(1, 7):
            if rows * columns == 1:
                continue
            n = tokens.count(rows, columns)
            assert tokens.tiles(n) == (rows, columns)
            assert seen.setdefault(n, (rows, columns)) == (rows, columns)
    assert tokens.count(0, 0) == per_tile
    for n in range(per_tile + 1):
        assert tokens.tiles(n) == (0, 0)
    refused = 0
    for n in range(per_tile + 1, max(seen)):
        try:
            assert tokens.count(*tokens.tiles(n)) == n
        except ValueError as error:
            refused += 1
            assert f"no picture has {n} tokens" in str(error)  # noqa: PT017
    assert refused > max(seen) // 2


@pytest.mark.parametrize("settings", [{}, {"do_image_splitting": False}, {"size": {"longest_edge": 50}}])
def test_a_cut_picture_has_the_tokens_that_its_size_tells(settings):
    processor = Idefics3ImageProcessorPil(
        **{"size": {"longest_edge": 48}, "max_image_size": {"longest_edge": 12}} | settings
    )
    takes, rng = CutPicture(processor, TileTokens(9, 1)), random.Random(0)
    for width, height in sizes(rng, 90, 40):
        made = takes(Image.new("RGB", (width, height)))
        rows, columns = takes.tile_tokens.tiles(made.n_tokens)
        assert made.pixels.shape == (rows * columns + 1, 3, 12, 12)
        assert made.n_tokens == takes.tokens(width, height) <= takes.most_tokens, (width, height)
    for width, height in sizes(rng, 9000, 500):
        assert takes.tokens(width, height) <= takes.most_tokens, (width, height)


@pytest.mark.parametrize("most", [1, 2, 5, 12])
def test_tiles_have_the_tokens_that_the_size_tells(most):
    processor = GotOcr2ImageProcessorPil(size={"height": 8, "width": 8}, max_patches=most)
    takes, rng, found = Tiles(processor, 4), random.Random(most), set()
    for width, height in sizes(rng, 90, 40):
        made = takes(Image.new("RGB", (width, height)))
        assert made.pixels.shape[1:] == (3, 8, 8)
        assert made.n_tokens == takes.tokens(width, height) == 4 * len(made.pixels) <= takes.most_tokens
        found.add(made.n_tokens)
    assert takes.most_tokens in found


def test_control_tokens_beyond_the_head_are_no_matter(tmp_path):
    # InternVL3's tokenizer has a token for videos that the model has no row for
    text = {**INTERNVL.config["text_config"], "vocab_size": "{<video>}"}
    shape = replace(INTERNVL, config={**INTERNVL.config, "text_config": text})
    family = InternVL(InternVL.Config(path=str(shape.write(tmp_path / "hub", tied=False)), dtype="float32"))
    rows, policy = family.model.lm_head.weight.shape[0], Policy(family)
    assert family.tokenizer.convert_tokens_to_ids("<video>") == rows > max(family.banned_token_ids)
    found = sample(policy, [policy.prompt(made_example(0, sizes=((60, 90),)), "")], max_new_tokens=3, temperature=0.0)
    assert max(found[0].ids) < rows


def test_pictures_have_the_tokens_that_configs_model_states():
    # SmolVLM2-2.2B makes the longer side 1536 and cuts at 384; InternVL3 cuts at 448
    smol = Idefics3ImageProcessorPil(size={"longest_edge": 1536}, max_image_size={"longest_edge": 384})
    assert (
        CutPicture(smol, TileTokens(81, 1)).tokens(800, 800) == 1413
    )  # 17 tiles of 81, 36 markers, 3 + 1 newlines, -4
    for most, tokens in ((4, 1280), (12, 3328)):
        processor = GotOcr2ImageProcessorPil(size={"height": 448, "width": 448}, max_patches=most)
        assert Tiles(processor, 256).most_tokens == tokens


def outline(shape, folder, **settings):
    """The family of a shape without weights."""
    return shape.family_class(shape.family_class.Config(path=str(folder), **settings), outline=True)


def test_settings_replace_the_checkpoint_s_limits(tmp_path):
    # tiles of 36 pixels and 9 tokens, the longer side 144: 4 x 4 of them; tiles of 4 tokens, at most 5
    image, smol = Image.new("RGB", (200, 200)), TILED_SHAPES["smolvlm"][0]
    folder = smol.write(tmp_path / "smol", tied=False)
    for longest, tiles in ((None, 17), (72, 5), (36, 1)):
        family = outline(smol, folder, longest_edge=longest)
        assert len(family.preprocess(image).pixels) == tiles
        assert family.origin["checkpoint"]["pictures"]["replaced"] == ([] if longest is None else ["size"])
    folder = INTERNVL.write(tmp_path / "intern", tied=False)
    for most, tiles in ((None, 5), (1, 1)):  # 2 x 2 and the whole
        assert len(outline(INTERNVL, folder, max_patches=most).preprocess(image).pixels) == tiles


def test_more_tiles_than_there_are_tokens_for_are_refused(tmp_path):
    smol = TILED_SHAPES["smolvlm"][0]
    folder = smol.write(tmp_path / "hub", tied=False)
    outline(smol, folder, longest_edge=6 * 36)
    with pytest.raises(CheckpointError, match=r"cuts a side into up to 7 tiles of 9 tokens.*no <row_7_col_7>; choose"):
        outline(smol, folder, longest_edge=6 * 36 + 1)
    said = {**smol.preprocessor, "do_resize": False}
    (folder / "preprocessor_config.json").write_text(json.dumps(said))
    with pytest.raises(CheckpointError, match="without resizing them first"):
        outline(smol, folder)
