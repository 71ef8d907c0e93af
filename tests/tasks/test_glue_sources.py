"""GLUE from directories: which folder is taken, what is in it, and what the real files hold."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from bench.core import hub
from bench.core.errors import AbsentTask, DataProblem, UsageError
from bench.records.data import DataRequest
from tasks.glue.schema import SCHEMAS
from tasks.glue.task import GLUE

SINGLE = {"cola", "sst2"}
FOLDERS = {"cola": "CoLA", "sst2": "SST-2", "mrpc": "MRPC", "stsb": "STS-B", "qqp": "QQP"}
FOLDERS |= {"mnli": "MNLI", "qnli": "QNLI", "rte": "RTE", "wnli": "WNLI"}
TREES = "index promptID pairID genre sentence1_binary_parse sentence2_binary_parse sentence1_parse sentence2_parse"
HEADERS = {
    "cola": None,
    "sst2": "sentence label",
    "mrpc": "Quality,#1 ID,#2 ID,#1 String,#2 String",
    "stsb": "index genre filename year old_index source1 source2 sentence1 sentence2 score",
    "qqp": "id qid1 qid2 question1 question2 is_duplicate",
    "mnli": f"{TREES} sentence1 sentence2 label1 gold_label",
    "qnli": "index question sentence label",
    "rte": "index sentence1 sentence2 label",
    "wnli": "index sentence1 sentence2 label",
}
MNLI_DEV = f"{TREES} sentence1 sentence2 label1 label2 label3 label4 label5 gold_label"


def line(member: str, header: str, mark: str, label: str) -> str:
    """A row whose texts say which split they come from and everything else is `-`."""
    if member == "cola":
        return f"src\t{label}\t\t{mark} one"
    first, *second = {"qnli": ["question", "sentence"]}.get(member, SCHEMAS[member].tsv[:-1])
    known = {first: f"{mark} one", SCHEMAS[member].tsv[-1]: label, **dict.fromkeys(second, f"{mark} two")}
    return "\t".join(known.get(name, "-") for name in split_names(header))


def split_names(header: str) -> list[str]:
    return header.split("," if "," in header else " ")


def write(folder: Path, member: str, *labels: str, mark: str = "text") -> Path:
    """The TSV files of a task as the GLUE download script lays them out."""
    folder.mkdir(parents=True, exist_ok=True)
    for split in SCHEMAS[member].splits:
        header = MNLI_DEV if split.startswith("dev_") else HEADERS[member]
        top = ["\t".join(split_names(header))] if header else []
        rows = [line(member, header or "", f"{mark} {split}", label) for label in labels or ("0",)]
        (folder / f"{split}.tsv").write_text("\n".join([*top, *rows]) + "\n", encoding="utf-8")
    return folder


def opened(member: str, *dirs: Path | tuple[str, Path], **kw):
    entries = tuple((None, d) if isinstance(d, Path) else d for d in dirs)
    return GLUE(member).open(DataRequest(dirs=entries, **kw))


@pytest.fixture(autouse=True)
def _no_network(monkeypatch, tmp_path_factory):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path_factory.mktemp("hf")))
    for name in ("HF_DATASETS_CACHE", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    hub.connection_error.cache_clear()
    yield
    hub.connection_error.cache_clear()


# the tasks


def test_the_nine_tasks_and_their_metrics():
    assert GLUE.members == ("cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte", "wnli")
    specs = {member: GLUE(member).spec for member in GLUE.members}
    assert {s.name for s in specs.values()} == {f"glue/{member}" for member in GLUE.members}
    assert {member: s.num_classes for member, s in specs.items() if s.num_classes != 2} == {"stsb": 0, "mnli": 3}
    names = {member: s.primary_name for member, s in specs.items() if s.primary_name != "accuracy"}
    assert names == {"cola": "matthews", "stsb": "pearson+spearman", "mrpc": "accuracy+f1", "qqp": "accuracy+f1"}
    assert all(set(s.primary) <= set(s.metrics) and s.higher_is_better for s in specs.values())


def test_an_unknown_cell_is_a_usage_error_with_a_hint():
    with pytest.raises(UsageError, match=r"(?s)sst3.*cola, sst2.*Did you mean 'sst2'"):
        GLUE("sst3")


@pytest.mark.parametrize("member", GLUE.members)
def test_the_layout_of_the_download_script(tmp_path, member):
    dataset = opened(member, write(tmp_path / FOLDERS[member], member))
    splits = {"train": dataset.train, **dataset.evaluation}
    assert list(splits) == (["train", "dev_matched", "dev_mismatched"] if member == "mnli" else ["train", "dev"])
    for split, rows in splits.items():
        assert rows == [(f"text {split} one", None if member in SINGLE else f"text {split} two", 0)]
    assert (dataset.source, dataset.revision, dataset.notes) == ("directory", FOLDERS[member], ())


@pytest.mark.parametrize(
    ("member", "written", "read"),
    [
        ("rte", ["entailment", "not_entailment"], [0, 1]),
        ("qnli", ["entailment", "not_entailment"], [0, 1]),
        ("mnli", ["contradiction", "entailment", "neutral"], [2, 0, 1]),
        ("wnli", ["0", "1"], [0, 1]),
        ("wnli", ["not_entailment", "entailment"], [0, 1]),
        ("stsb", ["5.000", "0.25"], [5.0, 0.25]),
    ],
)
def test_labels_become_hugging_face_indices(tmp_path, member, written, read):
    dataset = opened(member, write(tmp_path, member, *written))
    assert [[row.label for row in rows] for rows in (dataset.train, *dataset.evaluation.values())] == [read] * (
        3 if member == "mnli" else 2
    )


def test_reading_tsv_imports_nothing_heavy(tmp_path):
    write(tmp_path / "RTE", "rte")
    script = (
        "import sys; from pathlib import Path;"
        "from bench.records.data import DataRequest; from tasks.glue.task import GLUE;"
        "GLUE('rte').open(DataRequest(dirs=((None, Path(sys.argv[1])),)));"
        "print([m for m in ('torch', 'datasets', 'pyarrow', 'numpy', 'huggingface_hub') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# which folder


@pytest.mark.parametrize("name", ["SST-2", "sst2", "sst_2", "SST2", "Sst-2"])
@pytest.mark.parametrize("above", ["", "glue", "GLUE"])
@pytest.mark.parametrize("given", ["parent", "own"])
def test_folder_names_are_compared_loosely(tmp_path, name, above, given):
    own = write(tmp_path / above / name, "sst2")
    dataset = opened("sst2", tmp_path if given == "parent" else own)
    assert (len(dataset.train), dataset.revision) == (1, name)


def test_the_suite_below_a_parent_wins_over_a_folder_beside_it(tmp_path):
    write(tmp_path / "RTE", "rte", mark="beside")
    write(tmp_path / "glue" / "RTE", "rte", mark="suite")
    assert opened("rte", tmp_path).train[0].text == "suite train one"


def test_a_folder_of_any_other_name_is_the_tasks_own(tmp_path):
    write(tmp_path / "mine", "rte")
    dataset = opened("rte", tmp_path / "mine")
    assert (dataset.train[0].text, dataset.revision) == ("text train one", "mine")


def test_a_relative_folder_is_named_without_its_path(tmp_path, monkeypatch):
    monkeypatch.chdir(write(tmp_path / "RTE", "rte"))
    assert opened("rte", Path()).revision == "RTE"


@pytest.mark.parametrize("data", ["auto", "dir"])
def test_a_directory_without_the_task_is_absent_and_nothing_else_is_taken(tmp_path, data):
    write(tmp_path / "glue" / "CoLA", "cola")
    for directory in (tmp_path, tmp_path / "glue", tmp_path / "glue" / "CoLA"):
        assert opened("cola", directory, data=data).source == "directory"
        with pytest.raises(AbsentTask, match=r"no glue/rte in (?s:.*) RTE"):
            opened("rte", directory, data=data)
    (tmp_path / "empty").mkdir()
    with pytest.raises(AbsentTask):
        opened("rte", tmp_path / "empty", data=data)


@pytest.mark.parametrize("data", ["auto", "dir"])
def test_a_directory_that_does_not_exist_is_a_problem(tmp_path, data):
    (tmp_path / "file").write_text("")
    for name, words in (("nowhere", "does not exist"), ("file", "is not a directory")):
        with pytest.raises(DataProblem, match=words) as caught:
            opened("rte", tmp_path / name, data=data)
        assert str(tmp_path / name) in str(caught.value)
        assert caught.value.exit_code == 3


def test_two_folders_of_one_name_are_a_problem(tmp_path):
    write(tmp_path / "SST-2", "sst2")
    write(tmp_path / "SST2", "sst2")
    with pytest.raises(DataProblem, match=r"several folders(?s:.*)SST-2, SST2"):
        opened("sst2", tmp_path)


@pytest.mark.parametrize("name", ["glue/rte", "rte", "glue/RTE"])
def test_entries_for_the_task_win_over_the_suite_and_that_over_the_nameless(tmp_path, name):
    nameless, suite, task = (write(tmp_path / mark / "RTE", "rte", mark=mark) for mark in ("nameless", "suite", "task"))
    order = [nameless, ("glue", suite.parent), (name, task)]
    assert opened("rte", *order).train[0].text == "task train one"
    assert opened("rte", *order[:2]).train[0].text == "suite train one"
    assert opened("rte", *order[:1]).train[0].text == "nameless train one"


def test_entries_for_other_tasks_do_not_count(tmp_path):
    write(tmp_path / "RTE", "rte")
    assert opened("rte", tmp_path, ("glue/cola", tmp_path / "nowhere")).source == "directory"
    assert opened("rte", ("glue/cola", tmp_path / "nowhere")).source == "embedded"


def test_a_directory_named_for_the_task_must_hold_it(tmp_path):
    with pytest.raises(DataProblem, match="split 'train' is missing") as caught:
        opened("rte", ("glue/rte", tmp_path))
    assert not isinstance(caught.value, AbsentTask)


# BENCH_DATA


def test_bench_data_is_a_parent_that_counts_only_with_the_suite_or_the_task(tmp_path):
    request = DataRequest(parent=tmp_path)
    assert GLUE("rte").open(request).source == "embedded"
    write(tmp_path, "rte")
    assert GLUE("rte").open(request).source == "embedded", "loose files in BENCH_DATA are nobody's"
    write(tmp_path / "glue" / "CoLA", "cola")
    assert GLUE("cola").open(request).source == "directory"
    with pytest.raises(AbsentTask):
        GLUE("rte").open(request)
    write(tmp_path / "RTE", "rte")
    assert GLUE("rte").open(request).source == "directory"


def test_named_directories_win_over_bench_data(tmp_path):
    for mark in ("named", "parent"):
        write(tmp_path / mark / "RTE", "rte", mark=mark)
    write(tmp_path / "parent" / "CoLA", "cola")
    request = DataRequest(dirs=((None, tmp_path / "named"),), parent=tmp_path / "parent")
    assert GLUE("rte").open(request).train[0].text == "named train one"
    with pytest.raises(AbsentTask):
        GLUE("cola").open(request)


def test_a_lost_bench_data_is_said(tmp_path):
    dataset = GLUE("rte").open(DataRequest(parent=tmp_path / "gone"))
    assert dataset.source == "embedded"
    assert "BENCH_DATA names a folder that does not exist" in dataset.notes


# the other sources


def test_dir_without_a_directory_says_how_to_name_one():
    with pytest.raises(DataProblem, match=r"(?s)no directory.*--data-dir DIR"):
        GLUE("rte").open(DataRequest(data="dir"))


def test_embedded_ignores_directories_and_carries_the_generators_version(tmp_path):
    from tasks.glue.generated import VERSION, generate

    write(tmp_path / "MNLI", "mnli")
    dataset = opened("mnli", tmp_path, data="embedded")
    assert (dataset.source, dataset.revision, dataset.notes) == ("embedded", VERSION, ())
    assert list(dataset.evaluation) == ["dev_matched", "dev_mismatched"]
    assert dataset.train == generate("mnli")["train"]


def test_the_hash_depends_on_the_source_but_not_on_the_place(tmp_path):
    first, second = (opened("rte", write(tmp_path / name / "RTE", "rte")) for name in ("a", "b"))
    assert first.hash == second.hash
    assert replace(first, source="hub").hash != first.hash


# bad files, as a user meets them


def test_bad_files_name_file_and_line(tmp_path):
    folder = write(tmp_path / "RTE", "rte", "entailment", "not_entailment")
    good = (folder / "dev.tsv").read_text()
    for text, words in [
        (good.replace("not_entailment", "maybe"), "dev.tsv, line 3"),
        (good.replace("\tentailment", ""), "dev.tsv, line 2"),
        (good.replace("sentence2", "other"), "there is no column 'sentence2'"),
        ("", "the file is empty"),
        (good.splitlines()[0], "at least one example"),
    ]:
        (folder / "dev.tsv").write_text(text)
        with pytest.raises(DataProblem) as caught:
            opened("rte", tmp_path)
        assert words in str(caught.value)
        assert str(folder / "dev.tsv") in str(caught.value)
        assert not isinstance(caught.value, AbsentTask)


@pytest.mark.parametrize("gone", ["train", "dev"])
def test_a_missing_split_is_named(tmp_path, gone):
    folder = write(tmp_path / "RTE", "rte")
    (folder / f"{gone}.tsv").unlink()
    with pytest.raises(DataProblem, match=f"split '{gone}' is missing in .*RTE") as caught:
        opened("rte", tmp_path)
    assert not isinstance(caught.value, AbsentTask)


def test_an_empty_folder_of_the_tasks_name_is_a_problem(tmp_path):
    (tmp_path / "RTE").mkdir()
    with pytest.raises(DataProblem, match="split 'train' is missing"):
        opened("rte", tmp_path)


def test_the_short_rows_of_qqp_are_counted_in_a_note(tmp_path):
    folder = write(tmp_path / "QQP", "qqp", *["1"] * 3000)
    with (folder / "train.tsv").open("a") as file:
        file.write('1\t2\t3\t"half a question\n"\tthe other half?\t0\n')
    dataset = opened("qqp", tmp_path)
    assert len(dataset.train) == 3000
    assert dataset.notes == ("glue/qqp: 2 rows with too few columns left out",)


# the real files


@pytest.fixture
def real() -> Path:
    parent = os.environ.get("BENCH_DATA")
    if not parent or not (Path(parent) / "glue").is_dir():
        pytest.skip("BENCH_DATA names no folder that holds glue/")
    return Path(parent)


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("member", "train", "dev", "dev_labels"),
    [
        ("cola", 8551, 1043, {1: 721, 0: 322}),
        ("sst2", 67349, 872, {1: 444, 0: 428}),
        ("mrpc", 3668, 408, {1: 279, 0: 129}),
        ("rte", 2490, 277, {0: 146, 1: 131}),
        ("stsb", 5749, 1500, None),
    ],
)
def test_the_real_corpora(real, member, train, dev, dev_labels):
    dataset = GLUE(member).open(DataRequest(parent=real))
    assert (len(dataset.train), len(dataset.evaluation["dev"]), dataset.notes) == (train, dev, ())
    if dev_labels:
        assert Counter(row.label for row in dataset.evaluation["dev"]) == dev_labels
    if member == "mrpc":
        assert Counter(row.label for row in dataset.train)[1] == 2474


@pytest.mark.realdata
def test_the_real_scores_are_as_written(real):
    dataset = GLUE("stsb").open(DataRequest(parent=real))
    text = (real / "glue" / "STS-B" / "dev.tsv").read_bytes().decode()
    assert [row.label for row in dataset.evaluation["dev"]] == [
        float(row.split("\t")[-1]) for row in text.split("\n")[1:-1]
    ]
