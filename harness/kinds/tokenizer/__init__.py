"""Tokenizers: the same text in other tokens, and the model's embeddings moved onto them."""

from harness.kinds.tokenizer.base import Properties, TokenizerMethod
from harness.kinds.tokenizer.splits import Splits, split_table
from harness.kinds.tokenizer.vocabulary import Specials, TableTokenizer, Vocabulary

__all__ = ["Properties", "Specials", "Splits", "TableTokenizer", "TokenizerMethod", "Vocabulary", "split_table"]
