# Reference: reward_hacks.yaml beside this file, a table of what each trick may earn at most, and honest reasoning that
# must not be hurt by it. Run: pytest tests/lightning_modules/test_reward_hacks.py.
from pathlib import Path

import pytest
import yaml

from datamodules import chest_ct, neuroradiology, ophthalmology, pathology
from datamodules.batch import Example
from datamodules.phantoms.base import phantom_classes
from datamodules.phantoms.perception import PerceptionMixture
from datamodules.worked import worked
from lightning_modules.rewards.adherence import Adherence
from lightning_modules.rewards.combine import Rewards
from lightning_modules.rewards.correct import Correct
from lightning_modules.rewards.format import Format
from lightning_modules.rewards.gates import gates
from lightning_modules.rewards.guidelines import NEUTRAL, load_guidelines
from lightning_modules.rewards.reading import normal
from lightning_modules.rewards.verdict import contradicts

NAMES = ("differential", "intuitive", "analytical", "bayesian")
GUIDELINES = load_guidelines([*NAMES, NEUTRAL])
REWARDS = Rewards([Correct(), Format(), Adherence()])
TABLE = yaml.safe_load(Path(__file__).with_name("reward_hacks.yaml").read_text(encoding="utf-8"))
CASES = {
    name: Example("p", (), row["question"], tuple(row["options"]), row["answer"], name, row["reasoning"])
    for name, row in TABLE["cases"].items()
}
HACKS = [(kind, row) for kind, rows in TABLE["hacks"].items() for row in rows]
FULL = 1.3


def tagged(thinking, letter):
    return f"<think>{thinking}</think><answer>{letter}</answer>"


def test_the_table_is_large_and_its_rows_differ():
    assert len(HACKS) >= 100
    assert len({(str(sorted(row.items()))) for _, row in HACKS}) == len(HACKS)
    assert all(row["total"] < 1.27 for _, row in HACKS)
    assert {row["guideline"] for _, row in HACKS} == set(NAMES)


@pytest.mark.parametrize(("kind", "row"), HACKS, ids=[f"{kind}-{i}" for i, (kind, _) in enumerate(HACKS)])
def test_no_hack_earns_more_than_the_table_allows(kind, row):
    example = CASES[row["case"]]
    completion = row.get("raw") or tagged(row["text"], row.get("letter", example.letter))
    found = REWARDS(completion, example, GUIDELINES[row["guideline"]])
    assert found.total <= row["total"] + 1e-9, (kind, found)
    assert found.parts["adherence"] <= row.get("adherence", 0) + 1e-9, (kind, found)
    if row["total"] == 0:
        assert (found.gate is None, found.right) == (False, False)


@pytest.mark.parametrize(("case", "name", "least", "text"), TABLE["honest"])
def test_honest_reasoning_keeps_its_reward(case, name, least, text):
    example = CASES[case]
    found = REWARDS(tagged(text, example.letter), example, GUIDELINES[name])
    assert (found.gate, found.right) == (None, True)
    assert found.parts["adherence"] >= least, found
    assert found.total >= 1.1 + 0.2 * least


@pytest.mark.parametrize("case", CASES)
def test_the_table_s_own_traces_earn_full_or_nearly_full_marks(case):
    example = CASES[case]
    for name in example.reasoning:
        found = REWARDS(example.trace(name), example, GUIDELINES[name])
        assert found.total >= FULL - 0.2 * 0.2, (name, found)


@pytest.mark.parametrize("phantom", phantom_classes(), ids=lambda phantom: phantom.PREFIX)
def test_every_phantom_trace_is_sound_with_its_answer_and_a_contradiction_with_any_other(phantom):
    for example in phantom(phantom.Config(n_patients=60)).examples():
        for name, text in example.reasoning.items():
            assert REWARDS(example.trace(name), example, GUIDELINES[name]).total >= FULL - 0.2 * 0.2
            for i, option in enumerate(example.options):
                assert contradicts(normal(text), example.options, i) == (option != example.answer), text


def test_every_perception_trace_is_sound():
    for example in PerceptionMixture(PerceptionMixture.Config(n_rows=600)).examples():
        (text,) = example.reasoning.values()
        assert not contradicts(normal(text), example.options, example.options.index(example.answer)), text


@pytest.mark.parametrize("module", [chest_ct, neuroradiology, ophthalmology, pathology], ids=lambda m: m.__name__)
def test_worked_traces_of_real_pictures_earn_full_marks(module):
    for option, clue in module.CLUES.items():
        others = [name for name in module.CLUES if name not in (option, clue.rival)]
        for key in "abcdefgh":
            traces = worked(option, clue, 0.33, key)
            options = (clue.rival, option, *others)
            example = Example("p", (), "What is marked here?", options, option, key, traces)
            for name in NAMES:
                found = REWARDS(example.trace(name), example, GUIDELINES[name])
                assert found.gate is None, traces[name]
                assert found.total == pytest.approx(FULL), (traces[name], found)


YES = Example("p", (), "Is there an effusion?", ("yes", "no"), "yes", "q")
SIDES = Example("p", (), "Which side is affected?", ("left", "right"), "left", "q")
FILM = Example("p", (), "What does the film show?", ("pneumonia", "effusion", "normal"), "effusion", "q")
DRUG = Example("p", (), "Which drug is best?", ("Vitamin A", "Vitamin D", "A statin"), "Vitamin D", "q")
BLOOD = Example("p", (), "Which blood group is it?", ("A", "B", "AB", "O"), "AB", "q")
SOUND = [
    (YES, "There is no pneumothorax, and no consolidation. The angle is blunted, so yes."),
    (YES, "No air is seen and no bronchogram. A blunted angle indicates fluid."),
    (YES, "The answer is no mystery: the angle is blunted, hence yes."),
    (YES, "Is the answer no? The angle is blunted and the meniscus curved. Yes."),
    (SIDES, "The opacity lies in the right of the picture. Films mirror the patient, therefore left."),
    (SIDES, "It is right of the midline on the film, and the film is mirrored. The answer is left."),
    (SIDES, "The right lung is clear. It is normal there. The left lung is white."),
    (FILM, "Pneumonia would be the answer if there were bronchograms. There are none, and the edge is curved."),
    (FILM, "At first the answer seems to be pneumonia. Actually the edge is curved, so effusion."),
    (FILM, "The answer is effusion, not pneumonia."),
    (FILM, "The answer is effusion rather than pneumonia or normal lungs."),
    (FILM, "The answer is effusion. The other lung is clear; it is normal."),
    (FILM, "The answer is effusion. Pneumonia fits less well, and normal is excluded."),
    (FILM, "This may be pneumonia. The blunt angle, however, means effusion."),
    (FILM, "It is not normal, and it is not pneumonia. The angle is blunt."),
    (FILM, "Effusion cannot be excluded, and nothing else fits. So the answer is effusion."),
    (FILM, "One might say the answer is pneumonia. I do not think so: the diagnosis is effusion."),
    (FILM, "Consistent with pneumonia at first sight, but the edge is curved, typical of effusion."),
    (FILM, "If normal, the angle would be sharp. If pneumonia, air would show. So it is effusion."),
    (FILM, "The curved edge is the classic sign here and the angle is lost."),
    (DRUG, "The bones are soft and bent, so a lack of sun is likely. The answer is Vitamin D."),
    (DRUG, "A statin lowers lipids and does nothing for bones. Vitamin A is toxic here. Vitamin D it is."),
    (BLOOD, "A reaction with anti-A and one with anti-B are seen. So a group with both."),
]


@pytest.mark.parametrize(("example", "text"), SOUND)
def test_sound_reasoning_is_no_contradiction(example, text):
    completion = tagged(text, example.letter)
    assert gates(completion, example.question, example.options, "") is None
    assert REWARDS(completion, example, GUIDELINES[NEUTRAL]).total == pytest.approx(1.1)


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("No air is seen, and the angle is sharp. The answer is no.", "A"),
        ("The angle is blunted on one side, so yes.", "B"),
        ("Fluid is seen at the base. I choose A.", "B"),
        ("Fluid is seen at the base, the answer is (A).", "B"),
    ],
)
def test_short_options_and_letters_are_read_too(text, letter):
    assert gates(tagged(text, letter), YES.question, YES.options, "") == "contradiction"
