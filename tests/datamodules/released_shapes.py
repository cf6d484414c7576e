"""Made folders in the shapes in which sets are released: names, fields and odd spellings, but no real record."""

import csv
import json
from pathlib import Path

import numpy as np
from PIL import Image

from datamodules.columns import Columns

TRIALS = 40
"""Questions per split, on as many pictures."""
STEMS = (
    "A 54-year-old woman has had a dull ache below the ribs for three weeks and lost weight; which organ is enlarged",
    "A boy of nine limps after a fall from a swing and will not bear weight; which bone does the film show broken",
)


def picture(path: Path, seed: int) -> str:
    """Write a small picture of its own; returns its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.RandomState(seed).randint(0, 255, (24, 32, 3), dtype=np.uint8)).save(path)
    return path.name


def write_json(path: Path, content) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def write_lines(path: Path, rows) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_csv(path: Path, rows) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def medxpertqa_row(i: int, shape: str = "hf", letters: str = "ABCDE", n_images: int = 1) -> dict:
    """One MM record; the stem repeats the choices as the release does."""
    texts = {letter: f"finding {i} {letter.lower()}" for letter in letters}
    listed = " ".join(f"({letter}) {text}" for letter, text in texts.items())
    names = [f"MM-{i}-{'abcdef'[k]}.png" for k in range(n_images)]
    github = shape == "github"
    label = letters[i % len(letters)]
    return {
        "id": f"MM-{i}",
        "question": f"{STEMS[i % 2]} in case {i}?\nAnswer Choices: {listed}",
        "options": [{"letter": key, "content": text} for key, text in texts.items()] if github else texts,
        "label": [label] if github else label,
        "images": [{"image_path": name} for name in names] if github else names,
        "medical_task": "Diagnosis",
        "body_system": "Other / NA" if i % 2 else "Skeletal",
        "question_type": "Reasoning",
    }


def medxpertqa(root: Path, shape: str = "hf") -> dict:
    rows = [medxpertqa_row(i, shape, n_images=1 + i % 6) for i in range(TRIALS)]
    for i, row in enumerate(rows):
        for k in range(len(row["images"])):
            picture(root / "images" / f"MM-{i}-{'abcdef'[k]}.png", 1000 + 10 * i + k)
    write_lines(root / ("MM/test.jsonl" if shape == "hf" else "medxpertqa_mm_input.jsonl"), rows)
    return {"root": str(root)}


def omnimedvqa_row(i: int, n_options: int = 4) -> dict:
    texts = [f"organ {i} {k}" for k in range(n_options)]
    return {
        "dataset": "MadeSet",
        "question_id": f"MadeSet_{i:04}",
        "question_type": "Disease Diagnosis",
        "question": "What is visible in this image?",
        "gt_answer": texts[i % n_options],
        "image_path": f"Images/MadeSet/{i}.png",
        **{f"option_{'ABCD'[k]}": text for k, text in enumerate(texts)},
        "modality_type": ("MR (Mag-netic Resonance Imaging)", "OCT (Optical Coherence Tomography", "ultrasound")[i % 3],
    }


def omnimedvqa(root: Path) -> dict:
    rows = [omnimedvqa_row(i, 2 + i % 3) for i in range(TRIALS)]
    rows[0]["modality"] = rows[0].pop("modality_type")
    for i in range(TRIALS):
        picture(root / "Images" / "MadeSet" / f"{i}.png", 2000 + i)
    write_json(root / "QA_information" / "Open-access" / "MadeSet.json", rows)
    return {"root": str(root)}


def slake_row(i: int, answer: str, **fields) -> dict:
    return {
        "img_id": i,
        "img_name": f"xmlab{i}/source.jpg",
        "question": f"Is the liver of case {i} healthy?",
        "answer": answer,
        "q_lang": "en",
        "location": "Abdomen",
        "modality": "X-Ray",
        "answer_type": "CLOSED",
        "base_type": "vqa",
        "content_type": "Abnormality",
        "triple": ["vhead", "_", "_"],
        "qid": i,
        **fields,
    }


def slake(root: Path) -> dict:
    for number, name in enumerate(("train", "validation", "test")):
        ids = range(100 * number, 100 * number + TRIALS)
        rows = [slake_row(i, ("Yes", "No")[i % 2]) for i in ids]
        rows += [slake_row(i, "Liver", qid=1000 + i, answer_type="OPEN") for i in ids]
        rows += [slake_row(i, "Left", qid=2000 + i) for i in ids]
        rows += [slake_row(i, "是", q_lang="zh", qid=3000 + i) for i in ids]
        for i in ids:
            picture(root / "imgs" / f"xmlab{i}" / "source.jpg", 3000 + i)
        write_json(root / f"{name}.json", rows)
    return {"root": str(root)}


def short_answers(root: Path, splits=("train", "validation", "test")) -> dict:
    for number, name in enumerate(splits):
        rows = []
        for i in range(TRIALS):
            image = picture(root / "images" / f"{name}-{i}.png", 4000 + 100 * number + i)
            rows.append({"image": image, "question": f"is case {i} of {name} sick?", "answer": ("yes", "no")[i % 2]})
            rows.append({"image": image, "question": f"what does case {i} of {name} show?", "answer": "a wide heart"})
        write_lines(root / f"{name}.jsonl", rows)
    return {"root": str(root)}


def pmc_vqa_row(i: int, split: str, version: str) -> dict:
    texts = {letter: f" {letter}:uptake {i} {letter.lower()}" for letter in "ABCD"}
    row = {
        "Figure_path": f"PMC{split}{i}_F1.jpg",
        "Question": f"Which uptake does figure {i} show?",
        **{f"Choice {letter}": text for letter, text in texts.items()},
    }
    letter = "ABCD"[i % 4]
    if version == "v1":
        return {**row, "Answer": texts[letter].partition(":")[2], "Answer_label": letter}
    return {
        "index": i,
        "Caption": "a caption, with a comma\nand a second line",
        **row,
        "Answer": letter,
        "split": split,
    }


def pmc_vqa(root: Path, version: str = "v1") -> dict:
    names = {"v1": ("train.csv", "test_clean.csv"), "v2": ("train_2.csv", "test_2.csv")}[version]
    for number, (split, name) in enumerate(zip(("train", "test"), names, strict=True)):
        rows = [pmc_vqa_row(i, split, version) for i in range(TRIALS)]
        for i, row in enumerate(rows):
            picture(root / ("images" if version == "v1" else "images_2") / row["Figure_path"], 5000 + 100 * number + i)
        write_csv(root / name, rows)
    return {"root": str(root), "version": version}


def mmmu_row(i: int, split: str = "validation", subject: str = "Pharmacy") -> dict:
    return {
        "id": f"{split}_{subject}_{i}",
        "question": f"<image 1> What does the curve of drug {i} in <image 2> show?",
        "options": str([f"a rise {i}", f"it's a fall {i}", "<image 3>"]),
        "explanation": "",
        **{f"image_{k}": f"{split}-{i}-{k}.png" if k < 4 else None for k in range(1, 8)},
        "img_type": "['Plots']",
        "answer": "ABC"[i % 3],
        "topic_difficulty": "Easy",
        "question_type": "multiple-choice",
        "subfield": "Pharmacology",
    }


def mmmu(root: Path) -> dict:
    for number, split in enumerate(("dev", "validation")):
        rows = [mmmu_row(i, split) for i in range(TRIALS)]
        for i in range(TRIALS):
            for k in range(1, 4):
                picture(root / "images" / f"{split}-{i}-{k}.png", 6000 + 1000 * number + 10 * i + k)
        rows.append({**mmmu_row(99, split), "question_type": "open", "answer": "12"})
        write_lines(root / "Pharmacy" / f"{split}.jsonl", rows)
    return {"root": str(root)}


def medvlm_row(i: int, split: str = "test") -> dict:
    texts = [f"view {i} {k}" for k in range(4)]
    stem = f"Which view is this, case {i} of {split}?"
    return {
        "image": [f"images/{split}{i}.png"],
        "problem": "\n".join([stem, *(f"{letter}) {text}" for letter, text in zip("ABCD", texts, strict=True))]),
        "solution": "ABCD"[i % 4],
        "question": stem,
        "options": texts,
        "answer": texts[i % 4],
        "dataset": "OmniMedVQA",
        "subset": "CT(Computed Tomography)",
    }


def medr1_row(i: int, split: str = "train") -> dict:
    row = medvlm_row(i, split)
    problem = " ".join(row["problem"].split("\n"))
    return {"image": row["image"][0], "problem": problem, "solution": f"<answer> {row['solution']} </answer>"}


def r1_json(root: Path) -> dict:
    for number, (split, make) in enumerate((("train", medr1_row), ("test", medvlm_row))):
        for i in range(TRIALS):
            picture(root / "images" / f"{split}{i}.png", 7000 + 100 * number + i)
        write_json(root / split / f"CT_{split}.json", [make(i, split) for i in range(TRIALS)])
    return {"root": str(root)}


def mmedexpert_row(i: int, **fields) -> dict:
    texts = {letter: f"sign {i} {letter.lower()}" for letter in "ABCD"}
    answer = "ABCD"[i % 4]
    return {
        "id": f"made-{i}",
        "specialty": ("adult_medicine", "pediatrics", "brain_senses", "oncology_surgery")[i % 4],
        "patient_id": f"case-{i // 2}",
        "images": [f"images/{i // 2}.png"],
        "question": f"Which sign does case {i} show?",
        "options": texts,
        "answer": answer,
        "reasoning": {"differential": f"two signs compete, the first fits: {texts[answer]}."},
        "tags": {"modality": "X-ray"},
        "provenance": {"source": "made", "source_id": str(i), "licence": "CC0"},
        **fields,
    }


def mmedexpert(root: Path) -> dict:
    for i in range(TRIALS):
        picture(root / "images" / f"{i}.png", 8000 + i)
    write_lines(root / "all.jsonl", [mmedexpert_row(i) for i in range(2 * TRIALS)])
    return {"root": str(root)}


def table_row(i: int) -> dict:
    return {
        "case": f"{i // 2}.0",
        "film": f"{i}.png",
        "question": f"Which sign does film {i} show?",
        **{letter: f"sign {i} {letter.lower()}" for letter in "ABCD"},
        "answer": "ABCD"[i % 4],
        "chain": f"the shadow is round, so the answer is sign {i} {'abcd'[i % 4]}." if i % 3 else "",
        "kind": "panorama" if i % 2 else "bite wing",
    }


TABLE_COLUMNS = {
    "patient": "case",
    "images": ("film",),
    "options": tuple("ABCD"),
    "reasoning": {"differential": "chain"},
    "tags": {"question_type": "kind"},
}


def table(root: Path) -> dict:
    for i in range(2 * TRIALS):
        picture(root / "films" / f"{i}.png", 9000 + i)
    write_csv(root / "questions.csv", [table_row(i) for i in range(2 * TRIALS)])
    return {"root": str(root), "images": "films", "answer_as": "letter", "columns": Columns(**TABLE_COLUMNS)}


SHAPES = {
    "datamodules.medxpertqa.MedXpertQA": medxpertqa,
    "datamodules.mmedexpert.MMedExpert": mmedexpert,
    "datamodules.mmmu_med.MMMUMed": mmmu,
    "datamodules.omnimedvqa.OmniMedVQA": omnimedvqa,
    "datamodules.path_vqa.PathVQA": short_answers,
    "datamodules.pmc_vqa.PMCVQA": pmc_vqa,
    "datamodules.r1_json.R1Json": r1_json,
    "datamodules.slake.Slake": slake,
    "datamodules.table.Table": table,
    "datamodules.vqa_rad.VQARad": lambda root: short_answers(root, ("train", "test")),
}
"""Class path -> a function that makes a folder in its shape and returns the options to read it with."""
