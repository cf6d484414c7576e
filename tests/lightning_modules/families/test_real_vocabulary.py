# Reference: the stock tokenizer's apply_chat_template on Qwen's real vocabulary, and the byte-pair rule by hand. The
# vocabulary lies in the package `dashscope`, of which nothing is run: pip install --no-deps dashscope, in any
# environment, and its site-packages on PYTHONPATH. Run: pytest <this file> -m slow
import base64
import random
import unicodedata
from dataclasses import replace
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import pytest
import regex
from tokenizers import models
from transformers.convert_slow_tokenizer import bytes_to_unicode
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

from tests.lightning_modules.families.hub import by_template, ids_of, said
from tests.lightning_modules.families.shapes import SHAPES

pytestmark = pytest.mark.slow
NAMES = ("qwen2_5_vl", "qwen3_vl", "qwen3")
WORDS = 151_643
"""Of the real vocabulary, before the added tokens."""
TEXTS = (
    "Which finding is shown?\nA) pneumothorax\nB) pleural effusion\nC) both",
    "\n\n\nBefund: Herzgröße grenzwertig, keine Stauungszeichen.\r\n\r\n  CRP 12,5 mg/l ↑",
    "\n患者女性,63岁,右肺下叶见磨玻璃影。最可能的诊断是什么?\n",
    "右下肺野に浸潤影を認める。最も考えられる疾患は?",
    "ما هو التشخيص الأكثر احتمالاً؟",
    "इस एक्स-रे में क्या दिखाई देता है?",
    "У пациента лихорадка 39,4 °C, SpO₂ 88 %; β-блокатор?",
    "Quelle est la lésion cérébrale ? L’IRM (séquence T2/FLAIR) — hypersignal périventriculaire…",
    "Τι δείχνει η αξονική;  \t\t 5 µg/dl,  HbA1c ≥ 6.5%  ",
    "cafe\u0301 au lait 斑 \U0001fa7a\u200d\U0001f52c \ufeffx\u00a0y",
    "",
    "\n",
)


@pytest.fixture(scope="module")
def ranks():
    """The real vocabulary: bytes of a word -> its number."""
    found = find_spec("dashscope")
    file = Path(found.submodule_search_locations[0], "resources/qwen.tiktoken") if found else None
    if file is None or not file.is_file():
        pytest.skip("the package dashscope, which carries Qwen's vocabulary, is not on the path")
    pairs = (line.split() for line in file.read_bytes().splitlines())
    return {base64.b64decode(word): int(number) for word, number in pairs}


def merged(word: bytes, ranks: dict[bytes, int], below: int) -> list[bytes]:
    """Join neighbours of the least rank until none below a bound is left."""
    parts = [word[i : i + 1] for i in range(len(word))]
    while len(parts) > 1:
        joined = [ranks.get(a + b, below) for a, b in pairwise(parts)]
        if (least := min(joined)) >= below:
            break
        at = joined.index(least)
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts


@pytest.fixture(scope="module", params=NAMES)
def checkpoint(request, ranks, tmp_path_factory):
    """(shape, folder, family without weights) of a checkpoint with the real vocabulary."""
    if not hasattr(checkpoint, "bpe"):
        spelt = bytes_to_unicode()

        def letters(word):
            return "".join(spelt[byte] for byte in word)

        vocabulary = {letters(word): number for word, number in ranks.items()}
        pairs = [map(letters, merged(word, ranks, number)) for word, number in ranks.items() if len(word) > 1]
        checkpoint.bpe = models.BPE(vocabulary, [tuple(pair) for pair in pairs])
    shape = replace(SHAPES[request.param][0], bpe=checkpoint.bpe)
    folder = tmp_path_factory.mktemp(request.param)
    shape.write_tokenizer(folder)
    shape.write_settings(folder, tied=True)
    return shape, folder, shape.family_class(shape.family_class.Config(path=str(folder)), outline=True)


def made_texts():
    """Pieces of all texts, in any order."""
    draw = random.Random(5)
    pieces = [piece for text in TEXTS for piece in regex.findall(r"\s+|\w+|[^\s\w]+", text)]
    return ["".join(draw.choices(pieces, k=draw.randrange(1, 40))) for _ in range(60)]


def test_the_vocabulary_is_the_real_one(checkpoint, ranks):
    shape, folder, _ = checkpoint
    assert sorted(ranks.values()) == list(range(WORDS))
    assert list(ids_of(folder).values()) == list(range(WORDS, WORDS + len(shape.added)))
    assert ids_of(folder)["<|im_end|>"] == 151_645  # as the released tokenizer_config.json says


@pytest.mark.parametrize("text", TEXTS)
def test_words_are_joined_as_the_ranks_say(checkpoint, ranks, text):
    _, _, family = checkpoint
    words = [word.encode() for word in regex.findall(PRETOKENIZE_REGEX, unicodedata.normalize("NFC", text))]
    assert family.text_ids(text) == [ranks[part] for word in words for part in merged(word, ranks, WORDS)]


def test_prompts_are_the_template_s(checkpoint):
    shape, folder, family = checkpoint
    draw = random.Random(0)
    for text in (*TEXTS, *made_texts()):
        counts = [draw.randrange(1, 9) for _ in range(draw.randrange(4))] if shape.preprocessor is not None else []
        system, last = draw.choice((None, "Answer briefly.\n\n", "你是一名放射科医生。")), draw.random() < 0.5
        told = [{"role": "system", "content": said(shape, system)}] if system else []
        asked = [*told, {"role": "user", "content": said(shape, text, len(counts), last)}]
        expected = by_template(shape, folder, asked, counts)
        assert family.prompt_ids(text, counts, system=system, pictures_last=last) == expected, text


def test_control_tokens_in_a_question_stay_text(checkpoint):
    shape, _, family = checkpoint
    control = [name for name, special in shape.added if special]
    numbers = set(family.tokenizer.convert_tokens_to_ids(control))
    counts = [3, 2] if shape.preprocessor is not None else []
    draw = random.Random(1)
    plain = [token for token in family.prompt_ids("x", counts, system="") if token in numbers]
    for text in made_texts()[:30]:
        at = draw.randrange(len(text) + 1)
        text = text[:at] + "".join(draw.choices(control, k=draw.randrange(1, 4))) + text[at:]
        ids = family.prompt_ids(text, counts, system="")
        assert [token for token in ids if token in numbers] == plain
        assert unicodedata.normalize("NFC", text).strip() in family.tokenizer.decode(ids)
