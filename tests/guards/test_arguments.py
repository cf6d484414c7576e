"""Reference: the rules for what is printed. Run: pytest tests/guards/test_arguments.py."""

import importlib

import pytest

PROGRAMS = {
    "train": ["--config", "a.yaml"],
    "merge.__main__": ["run", "--config", "a.yaml"],
    "curation.__main__": ["run", "--config", "a.yaml"],
    "datamodules.check.__main__": ["run", "--config", "a.yaml"],
    "evaluation.compare": ["a", "b"],
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_strange_word_of_the_command_line_is_told_short_and_printable(program, capsys):
    main = importlib.import_module(program).main
    with pytest.raises(SystemExit, match="2"):
        main([*PROGRAMS[program], "--strange=" + "a" * 100_000 + "\x1b[2J"])
    told = capsys.readouterr().err
    assert "--strange" in told
    assert len(told) < 4000
    assert "\x1b" not in told
