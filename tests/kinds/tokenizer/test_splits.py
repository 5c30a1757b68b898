"""The split table against brute force."""

from harness.kinds.tokenizer.splits import split_table
from harness.kinds.tokenizer.vocabulary import Vocabulary
from harness.subjects.tiny import ByteIds


def test_every_pair_of_tokens_that_joins_to_a_token_is_listed(incomplete):
    tokens = Vocabulary(incomplete).tokens
    table = split_table(Vocabulary(incomplete))
    expected = {}
    for i, left in enumerate(tokens):
        for j, right in enumerate(tokens):
            if left and right and left + right in tokens:
                expected.setdefault(tokens.index(left + right), set()).add((i, j))
    assert {token: set(pairs) for token, pairs in table.items()} == expected
    assert max(map(len, table.values())) > 1


def test_single_bytes_and_specials_have_no_split(incomplete):
    assert split_table(Vocabulary(ByteIds())) == {}
    tokens = Vocabulary(incomplete).tokens
    assert all(tokens[i] is not None and len(tokens[i]) > 1 for i in split_table(Vocabulary(incomplete)))
