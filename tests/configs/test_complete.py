"""Reference: what bash itself offers after TAB, and the keys that the loader accepts.

Run: pytest tests/configs/test_complete.py.
"""

import os
import pty
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from configs.complete import SCRIPTS, words
from configs.files import CONFIGS
from configs.load import load

ROOT = Path(__file__).resolve().parents[2]
AFTER_TAB = """
eval "$(cat script)"
for line in "${@:2}"; do
    read -ra COMP_WORDS <<< "${line//[=:]/ & }"      # as bash breaks a line
    [[ "$line" == *" " ]] && COMP_WORDS+=("")
    COMP_WORDS[0]="$1" COMP_LINE="$line" COMP_POINT=${#line} COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
    compopt() { :; }
    _train_py
    printf '%s|' "${COMPREPLY[@]}"; echo
done
"""


def offered(folder: Path, *lines: str) -> list[list[str]]:
    """What bash would show for each line, in one shell, without its trailing bar."""
    (folder / "script").write_text(SCRIPTS["bash"])
    (folder / "train.py").symlink_to(ROOT / "train.py")
    arguments = ["bash", "-c", AFTER_TAB, "bash", sys.executable, *lines]
    done = subprocess.run(
        arguments, cwd=folder, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert done.stderr == ""
    return [line.split("|")[:-1] for line in done.stdout.splitlines()]


def test_bash_offers_names_keys_values_and_leaves_other_programs_alone(tmp_path):
    start = "python train.py --config rl_gba.yaml"
    names, keys, values, named, other = offered(
        tmp_path,
        "python train.py --config rl_gb",
        f"{start} trainer.max_",
        f"{start} fit.keep=",
        f"{start} seed=1 sft_dsa:module.init_args.lora_r",
        "python other.py --config rl_gb",
    )
    assert names == [f"rl_gba{end}.yaml" for end in ("", "_3b", "_7b", "_judge", "_open", "_real", "_rubric")]
    assert keys == ["trainer.max_steps="]
    assert values == ["last", "best"]  # bash has "fit.keep=" already
    assert named == ["module.init_args.lora_rank="]
    assert other == [""]


@pytest.mark.skipif(shutil.which("zsh") is None, reason="no zsh here")
def test_zsh_completes_what_is_typed_at_a_terminal(tmp_path):
    (tmp_path / "script").write_text(SCRIPTS["zsh"])
    (tmp_path / "train.py").symlink_to(ROOT / "train.py")
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "TERM": "dumb"}
    ours, theirs = pty.openpty()
    shell = subprocess.Popen(
        ["zsh", "-f", "-i"], stdin=theirs, stdout=theirs, stderr=theirs, cwd=tmp_path, start_new_session=True,
        env=environment | {"PYTHONPATH": str(ROOT), "COLUMNS": "400"},
    )  # fmt: skip

    def typed(keys, expected):
        os.write(ours, keys.encode())
        shown, until = "", time.monotonic() + 60
        while expected not in shown:
            assert time.monotonic() < until, shown
            if select.select([ours], [], [], 0.2)[0]:
                shown += os.read(ours, 65536).decode(errors="replace")

    try:
        typed("PS1=''; source script; echo re''ady\n", "ready")
        typed("python train.py --config sft_dsa_cl\t", "sft_dsa_clinic.yaml")
        typed(" module.init_args.lora_r\t", "module.init_args.lora_rank=")
        typed("4 fit.keep=b\t", "fit.keep=best")
        typed("\x15ls tra\t", "train.py")
    finally:
        shell.kill()
        shell.wait()
        os.close(ours), os.close(theirs)


def test_the_script_is_printed_without_an_experiment_and_without_torch(tmp_path):
    code = "import sys, train\ntry:\n train.main(['--completion', 'bash'])\nexcept SystemExit as end:\n"
    code += " assert end.code == 0\nassert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == SCRIPTS["bash"]
    subprocess.run(["bash", "-n"], input=done.stdout, text=True, check=True)


def test_every_key_that_is_offered_is_one_of_the_experiment_s():
    loaded = load("sft_dsa.yaml")
    known = {word.partition("=")[0] for word in words("sft_dsa.yaml")}
    assert {key for key in loaded.origins if key.endswith(("lora_rank", "max_steps", "batch_size"))} <= known
    value = {"trainer.max_steps": "7", "fit.patience": "2", "data.batch_size": "3", "budget": "0.5"}
    assert set(value) <= known
    load("sft_dsa.yaml", [f"{key}={text}" for key, text in value.items()])


@pytest.mark.parametrize(
    "text",
    [
        "extends: [sft_dsa.yaml]\nseed: many\n",
        "extends: [sft_dsa.yaml]\ntrust: [stranger]\ncallbacks: {mine: {class_path: stranger.Mine}}\n",
    ],
)
def test_of_a_file_that_is_wrong_or_trusts_the_general_keys_are_told_and_nothing_is_imported(
    text, tmp_path, monkeypatch
):
    (tmp_path / "stranger.py").write_text("raise SystemExit('imported')\n")
    (tmp_path / "mine.yaml").write_text(text.replace("sft_dsa.yaml", str(CONFIGS / "sft_dsa.yaml")))
    monkeypatch.chdir(tmp_path)
    assert {"mine.yaml", "rl_gba.yaml"} <= set(words())
    assert {"fit.keep=best", "model=tiny", "seed="} <= set(words("mine.yaml"))
