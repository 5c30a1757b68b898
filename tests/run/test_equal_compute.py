"""Equal compute: what is held equal, how a rate is chosen, and when a difference is called."""

import json

import pytest

from harness.errors import UsageError
from harness.kinds.artifacts import ArtifactStore
from harness.run.equal_compute import Arm, Terms, Trained, compare, contest, opened, run_arm
from harness.stats.intervals import Estimate

SHAPE = "@hidden=16@layers=1@heads=1@batch=4"
BYTES, MERGED = f"byte+tiny_llama{SHAPE}", f"bpe@vocab_size=400@train_bytes=50000+tiny_llama{SHAPE}"
TERMS = Terms(flops=2e8, seeds=2, rates=(1e-4, 2e-2), window=64, test_bytes=2_000)


@pytest.fixture
def said(monkeypatch, tmp_path):
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path))
    return []


def arm(name, *runs):
    return Arm(name, 1e-3, 1.0, [Trained(list(bits), 1.0, 1, 1.0, 10) for bits in runs])


def test_arms_get_the_same_flops_and_rows_of_the_same_bytes(tiny, said):
    arms, (finding,) = contest([BYTES, MERGED], tiny, TERMS, said.append)
    for one in arms:
        assert one.rate == 2e-2  # 1e-4 learns nothing in so few steps
        assert all(0.9 * TERMS.flops < run.flops <= TERMS.flops for run in one.runs)
    assert arms[0].tokens_per_byte == 1 > arms[1].tokens_per_byte
    lengths = []
    for name in (BYTES, MERGED):
        with opened(name, tiny, TERMS, ArtifactStore(0)) as (method, _, _):
            lengths.append(method.length)
    assert lengths[0] == 64 and lengths[1] == round(64 * arms[1].tokens_per_byte)
    assert len(said) == 8 and finding.difference.n == len(TERMS.texts("test"))
    total = sum(len(t.encode()) for t in TERMS.texts("test"))
    means = [sum(a.mean_bits()) / total for a in arms]
    assert finding.difference.value == pytest.approx(means[0] - means[1])
    assert run_arm(MERGED, tiny, TERMS, said.append) == arms[1]  # found again, not trained again
    body = 16 * 16 * 16 + 3 * 16  # one layer and the last norm; embeddings are tied
    assert {run.parameters for run in arms[0].runs} == {body + 258 * 16}


def test_one_rate_is_taken_as_it_is(tiny, said):
    found = run_arm(BYTES, tiny, Terms(flops=1e8, seeds=1, rates=(5e-3,), window=64, test_bytes=3_000), said.append)
    assert found.rate == 5e-3 and len(said) == 1


def test_a_difference_needs_an_interval_without_zero_and_seeds_that_agree():
    sizes = [10] * 6
    low, high = [10.0, 11, 10, 12, 11, 10], [14.0, 15, 15, 16, 14, 15]
    (clear,) = compare([arm("a", low, low), arm("b", high, high)], sizes)
    assert clear.found and clear.line().startswith("a needs fewer bits than b")
    (turned,) = compare([arm("b", high, high), arm("a", low, low)], sizes)
    assert turned.line().startswith("b needs more bits than a")
    above = [h + 1.0 for h in high]
    (torn,) = compare([arm("a", low, above), arm("b", high, high)], sizes)
    assert not torn.found and torn.difference.high < 0 and torn.line().startswith("no difference found")
    mixed = [h + d for h, d in zip(high, (1, -1, 2, -2, 1, -1), strict=True)]
    (even,) = compare([arm("a", mixed, mixed), arm("b", high, high)], sizes)
    assert not even.found and isinstance(even.difference, Estimate)
    assert len(compare([arm(n, low) for n in "abc"], sizes)) == 3


def test_what_cannot_be_compared_is_refused(tiny, said):
    with pytest.raises(UsageError, match="does not end in an architecture"):
        run_arm("byte", tiny, TERMS, said.append)
    for wrong in ({"flops": 0}, {"rates": ()}, {"rates": (-1.0,)}, {"window": 8}):
        with pytest.raises(UsageError, match="must be positive"):
            Terms(**{"flops": 1e8} | wrong)


def test_the_command_prints_arms_and_findings(tiny, said, capsys):
    from harness.cli import app

    options = ["--model", "tiny-random", "--flops", "5e7", "--seeds", "1", "--window", "64", "--test-bytes", "2000"]
    options += ["--learning-rates", "5e-3"]
    assert app.run(["equal-compute", BYTES, MERGED, *options, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [a["arm"] for a in found["arms"]] == [BYTES, MERGED] and len(found["findings"]) == 1
    assert app.run(["equal-compute", BYTES, *options[:-1], "fast"]) == 2
    assert "learning rates are numbers" in capsys.readouterr().err
