"""Reference: by hand, the shipped files. Run: pytest tests/configs/test_adding.py."""

import pytest
import yaml

from configs.load import load
from configs.problems import ConfigError
from configs.show import format_resolved

FOUR = ["adult_medicine", "pediatrics", "brain_senses", "oncology_surgery"]


def faults(name, *overrides):
    with pytest.raises(ConfigError) as caught:
        load(name, overrides)
    return str(caught.value)


def write(folder, **specialties):
    """A file that describes specialties by the options of their sets."""
    entries = {
        name: {"class_path": "datamodules.table.Table", "init_args": {"columns": {"question": "q"}, **options}}
        for name, options in specialties.items()
    }
    entries["clinic"] = {"class_path": "datamodules.phantoms.clinic.Clinic"}  # the one that has p0
    (folder / "more.yaml").write_text(yaml.safe_dump({"specialties": entries, "data": {"val_questions": 7, "p0": 0.5}}))
    return str(folder / "more.yaml")


def test_one_more_joins_every_experiment_of_the_lineage_beside_those_there_are(tmp_path):
    file = write(tmp_path, dental={"root": "films"}, other={})
    loaded = load("add_specialty.yaml", ["specialty=dental", f"data={file}", "runs_dir=r"])
    members = {one.experiment.name: one.experiment for one in [*loaded.beneath.values(), loaded]}
    assert list(members) == ["sft_dsa", "rl_gba", "merge_dental", "add_specialty_dental"]
    alone = load("integrate.yaml", ["runs_dir=r"])
    for name, one in members.items():
        assert list(one.specialties) == [*FOUR, "dental"], name
        assert one.specialties["dental"].init_args["root"] == "films"
        assert one.specialties["dental"].init_args["val_questions"] == 7  # of `data` in its own file
        assert one.specialties["dental"].init_args["answer_with"] == "text"  # of `data` in the experiment's
        assert {"n_patients", "p0"} & set(one.specialties["dental"].init_args) == set()
    for name in ("sft_dsa", "rl_gba"):  # what is finished there was made with these, to the letter
        before = alone.beneath[name]
        for key in FOUR:
            assert members[name].specialties[key] == before.experiment.specialties[key]
        assert (members[name].module, members[name].trainer) == (before.experiment.module, before.experiment.trainer)
    assert yaml.safe_load(format_resolved(loaded)) == loaded.resolved


def test_each_experiment_can_be_made_again_by_its_own_arguments(tmp_path):
    file = write(tmp_path, dental={"root": "films"})
    loaded = load("add_specialty.yaml", ["specialty=dental", f"data={file}", "runs_dir=r", "seed=3", "merge:threads=2"])
    for one in loaded.beneath.values():
        assert load(one.path, one.arguments).resolved == one.resolved


def test_without_a_file_the_one_of_its_own_name_describes_it():
    assert list(load("add_specialty.yaml", ["specialty=clinic"]).experiment.specialties) == [*FOUR, "clinic"]


def test_several_may_join_at_once(tmp_path):
    file = write(tmp_path, dental={}, ent={})
    loaded = load("add_specialty.yaml", ["specialty=[dental, ent]", f"data={file}"])
    assert list(loaded.experiment.specialties) == [*FOUR, "dental", "ent"]
    assert loaded.experiment.name == "add_specialty_dental_ent"


def test_what_is_wrong_is_told_once(tmp_path):
    file = write(tmp_path, dental={})
    told = faults("add_specialty.yaml")
    assert told.count("\n") == 0
    assert "specialty: missing; name it, and the file that describes it: specialty=NAME data=FILE" in told
    told = faults("add_specialty.yaml", "specialty=dentl", f"data={file}")
    assert "describes no specialty 'dentl'; there are clinic, dental; did you mean 'dental'?" in told
    assert told.count("\n") == 0
    assert "is one of those that are there already" in faults(
        "add_specialty.yaml", "specialty=pediatrics", "data=phantoms"
    )
    assert "no such file: 'nowhere'" in faults("add_specialty.yaml", "specialty=dental", "data=nowhere")
    assert "specialty: unknown key" in faults("rl_gba.yaml", "specialty=dental")


def test_a_further_specialty_reaches_no_experiment_that_takes_none(tmp_path):
    file = write(tmp_path, dental={})
    (tmp_path / "top.yaml").write_text("extends: [integrate.yaml]\nspecialty:\nrequires: [rl_gba.yaml]\n")
    loaded = load(tmp_path / "top.yaml", ["specialty=dental", f"data={file}"])
    assert [list(one.experiment.specialties) for one in loaded.beneath.values()] == [FOUR, FOUR]


def test_options_under_data_go_to_the_sets_that_have_them_and_the_others_are_named_once(tmp_path):
    file = write(tmp_path, dental={})
    loaded = load("add_specialty.yaml", ["specialty=dental", f"data={file}", "add_specialty:data.difficulty=0.1"])
    whole = loaded.experiment.specialties
    assert {name for name in whole if whole[name].init_args.get("difficulty") == 0.1} == set(FOUR)
    assert loaded.all_notes == [
        "sft_dsa, rl_gba, merge_dental: settings under data go to the sets that have them: dental has no n_patients",
        "add_specialty_dental: settings under data go to the sets that have them: dental has no difficulty, n_patients",
    ]
    assert load("rl_gba.yaml").all_notes == []


def test_an_option_that_no_set_has_is_refused():
    told = faults("rl_gba.yaml", "data.n_patient=3")
    assert "data.n_patient: unknown key" in told
    assert "did you mean 'n_patients'?" in told


def test_a_list_takes_some_of_the_specialties_that_are_described(tmp_path):
    assert list(load("rl_gba.yaml", ["specialties=[pediatrics, adult_medicine]"]).experiment.specialties) == [
        "pediatrics",
        "adult_medicine",
    ]
    (tmp_path / "two.yaml").write_text("extends: [sft_dsa.yaml]\nspecialties: [brain_senses]\n")
    assert list(load(tmp_path / "two.yaml").experiment.specialties) == ["brain_senses"]
    told = faults("rl_gba.yaml", "specialties=[pediatric]")
    assert "specialties.pediatric: is described nowhere here" in told
    assert "did you mean 'pediatrics'?" in told
