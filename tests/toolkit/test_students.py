"""Students of a target: what they start from and what they learn from."""

import torch

from harness.kinds.invariants import forced_logits
from harness.toolkit.students import batches, new_student, requests, student_config, teacher_texts


def test_requests_are_many_kinds_and_the_same_for_a_seed():
    first = requests(60, 0)
    assert len(set(first)) > 50 and first == requests(60, 0) != requests(60, 1)


def test_teacher_texts_hold_the_states_that_the_head_reads(tiny):
    text = teacher_texts(tiny, 3, 5, seed=0)[1]
    exact = forced_logits(tiny, [text.prompt], [text.continuation[:-1]])[0]
    ours = tiny.model.get_output_embeddings()(text.hidden_CH)
    assert ours.shape[0] == len(text.continuation) and torch.allclose(ours, exact, atol=1e-4)


def test_a_student_starts_from_the_leading_components_of_the_target_s_embeddings(tiny):
    config = student_config(tiny, 8, 1)
    student = new_student(tiny, config, 0)
    table = tiny.model.get_output_embeddings().weight.detach()
    centred = table - table.mean(0)
    ours = student.get_input_embeddings().weight.detach()
    assert ours.shape == (258, 8) and student.get_output_embeddings().weight is student.get_input_embeddings().weight
    ratio = ours.norm() / centred.norm()
    best = torch.linalg.svdvals(centred)[:8].square().sum().sqrt() / centred.norm()
    # The best eight directions hold this share of the table; the student's are those, but for one common factor.
    u = torch.linalg.svd(centred, full_matrices=False).U[:, :8]
    assert torch.allclose(u @ (u.T @ ours), ours, atol=1e-4) and ratio > 0 and best > 0


def test_batches_go_through_all_texts_before_any_comes_again(tiny):
    texts = teacher_texts(tiny, 6, 4, seed=1)
    found = [t for batch in batches(texts, 1, 12, 0) for t in batch]
    assert len(found) == 12
    assert {id(t) for t in found[:6]} == {id(t) for t in found[6:]} == {id(t) for t in texts}
    sizes = [sum(len(t.continuation) for t in batch) for batch in batches(texts, 6, 4, 0)]
    assert min(sizes) >= 6
