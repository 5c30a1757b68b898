"""Several methods after one prefill score as each does alone; what reads the prompt in another way is refused."""

from contextlib import ExitStack

import pytest

from harness.catalog.spec import MethodSpec
from harness.errors import Refused
from harness.kinds.stack import applied
from harness.subjects.requests import ScoreRequest
from harness.subjects.runner import Runner
from harness.subjects.shared_prefill import SharedScorer

METHODS = (
    "kv_full",
    "kv_snapkv@keep_ratio=0.4@window=4",
    "kv_h2o@keep_ratio=0.4",
    "kv_ada@keep_ratio=0.4@window=4",
    "token_select@keep_ratio=0.5@num_sinks=1@window=2",
    "hisa@keep_ratio=0.4@page=4@blocks=3",
)
TEXT = tuple((7 * i * i + 3) % 251 for i in range(60))
REQUESTS = [
    ScoreRequest(context=TEXT[:40], continuation=TEXT[40:43]),
    ScoreRequest(context=TEXT[:30], continuation=TEXT[40:41]),
    ScoreRequest(context=TEXT[:40], continuation=TEXT[50:57]),
    ScoreRequest(context=TEXT[:40], continuation=TEXT[44:45]),
]


@pytest.fixture
def subjects(tiny):
    with ExitStack() as opened:
        yield {name: opened.enter_context(applied([MethodSpec.parse(name).build()], tiny)) for name in METHODS}


@pytest.mark.parametrize("batch_size", [1, 8])
def test_scores_are_those_of_each_method_alone(subjects, batch_size):
    shared = SharedScorer(subjects)
    for name, alone in subjects.items():
        together = shared.subject(name).score(REQUESTS, batch_size)
        assert [s.logprob for s in together] == pytest.approx([s.logprob for s in alone.score(REQUESTS)], abs=1e-4)
    plain, snap = (shared.subject(name).score(REQUESTS)[0].logprob for name in METHODS[:2])
    assert abs(plain - snap) > 1e-3


def test_a_context_is_read_once_for_all_methods(subjects, monkeypatch):
    read, prefill = [], Runner.prefill
    monkeypatch.setattr(Runner, "prefill", lambda self, prompts, **kw: read.append(prompts) or prefill(self, prompts))
    shared = SharedScorer(subjects)
    for name in METHODS:
        shared.subject(name).score(REQUESTS)
    assert [len(prompts[0]) for prompts in read] == [40, 30]


@pytest.mark.parametrize(("name", "why"), [("kv_kivi@residual=32", "another form"), ("spatten", "spatten changes")])
def test_what_reads_the_prompt_in_its_own_way_is_refused(tiny, name, why):
    with applied([MethodSpec.parse(name).build()], tiny) as subject, pytest.raises(Refused, match=why):
        SharedScorer({"kv_full": tiny, name: subject})


def test_hooks_that_change_nothing_do_not_refuse(subjects, tiny):
    # Transformers leaves its own on a model once hidden states were asked for.
    hook = tiny.model.get_decoder().register_forward_hook(lambda *_: None)
    try:
        SharedScorer(subjects)
    finally:
        hook.remove()
