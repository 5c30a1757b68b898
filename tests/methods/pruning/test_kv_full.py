"""The full cache is the plain subject."""

from harness.subjects.requests import GenerateRequest
from methods.pruning.kv_full import KvFull


def test_the_full_cache_writes_the_plain_text_and_keeps_all(tiny):
    request = GenerateRequest(prompts=[list(range(30)), [5, 6]], max_new_tokens=8, ignore_eos=True)
    with KvFull().apply(tiny) as full:
        rows = full.generate(request)
    plain = tiny.generate(request)
    assert [row.tokens for row in rows] == [row.tokens for row in plain]
    assert rows[0].counts["kv_kept_fraction"] == 1.0
    assert rows[0].counts["kv_bytes_held"] == plain[0].counts["kv_bytes_held"]


def test_all_checks_hold(tiny):
    for check in KvFull().checks(tiny):
        check.run()
