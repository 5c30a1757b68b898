"""The model's own tokenizer as a method."""

from harness.kinds.stack import applied
from methods.tokenizer.native import Native


def test_nothing_changes(tiny):
    with applied([Native()], tiny) as changed:
        assert changed.model is tiny.model and changed.tokenizer is tiny.tokenizer
        assert changed.stack == ("native",)


def test_workload_encodes_the_unseen_text(tiny):
    (workload,) = Native().workloads(tiny)
    assert workload.name == "encode" and workload.max_error is None
    assert workload.make()() == workload.units["bytes"]
