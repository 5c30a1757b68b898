"""What a quality trial keeps of its documents, and which subject a probe trial measures."""

from contextlib import nullcontext
from types import SimpleNamespace

from harness.kinds.method import Measurement
from harness.run import perform
from harness.run.perform import documents


def sample(doc_id, **figures):
    return {"doc_id": doc_id, "metrics": list(figures), **figures}


def test_documents_of_a_group_s_tasks_are_told_apart():
    rows = documents({"b": [sample(0, acc=1.0), sample(1, acc=0.0)], "a": [sample(0, acc=0.5)]})
    assert [(r["name"], r["value"]) for r in rows] == [("acc", 0.5), ("acc", 1.0), ("acc", 0.0)]
    assert len({r["unit"] for r in rows}) == 3 and rows[0]["unit"] == 0
    again = documents({"b": [sample(1, acc=0.0)], "a": []})
    assert again[0]["unit"] == rows[2]["unit"]  # a shorter run pairs with a longer one


def test_a_single_task_keeps_lm_eval_s_numbers_and_pairs_become_bits():
    rows = documents({"t": [sample(7, bits_per_byte=(-8.0, 4), acc=True, other=None)]})
    assert [(r["unit"], r["name"]) for r in rows] == [(7, "bits_per_byte"), (7, "acc")]


def test_probes_of_the_subject_before_are_measured_there_with_the_preparations_seed(monkeypatch):
    seen = []

    class Named:
        trains = False

        def prior_probes(self, seed):
            return [
                SimpleNamespace(measure=lambda subject: seen.append((subject, seed)) or [Measurement("before", 1.0)])
            ]

        def probes(self):
            return [SimpleNamespace(measure=lambda subject: seen.append(subject) or [Measurement("after", 2.0)])]

    monkeypatch.setattr(perform, "_single", lambda stack: Named())
    bench = SimpleNamespace(
        subject="bare", store=SimpleNamespace(seed=5), opened=lambda stack: lambda: nullcontext("changed")
    )
    figures, _, _ = perform.perform_probe(bench, {"method": "grpo"}, None)
    assert [m.metric for m in figures] == ["before", "after"] and seen == [("bare", 5), "changed"]
