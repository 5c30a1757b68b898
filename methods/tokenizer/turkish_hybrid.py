"""Roots and affixes of a dictionary as tokens, one id for all forms of a morpheme, capitals as a mark of their own.

A text is cut at spaces, which are tokens, and before capitals, which become a mark and a small letter. Then, from the
left: the longest root, else the longest affix, else the longest piece, else bytes. Decoding chooses the form of a
morpheme by its neighbours: vowel harmony, hard and soft consonants, buffers between vowels.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import takewhile
from typing import Literal

from pydantic import Field

from harness.catalog import method
from harness.kinds.tokenizer import Properties, Specials, TableTokenizer, TokenizerMethod
from harness.kinds.tokenizer.harmony import affix_form, last_vowel, root_form
from harness.kinds.tokenizer.intrinsics import Intrinsics
from harness.kinds.tokenizer.lexicon import Lexicon, load_lexicon
from harness.kinds.tokenizer.purity import Purity, load_validator
from harness.toolkit.corpora import documents

SPACE, CAPITAL, LOST = range(3)


class HybridTokenizer(TableTokenizer):
    """Ids: the space, the mark of a capital, what is lost, then roots, affixes, pieces and, unless lost, bytes."""

    def __init__(self, lexicon: Lexicon, unknown: str, specials: Specials) -> None:
        kinds = (lexicon.roots, lexicon.affixes, tuple((piece,) for piece in lexicon.pieces))
        self.lexicon, self.unknown = lexicon, unknown
        self.forms = dict(enumerate((forms for entries in kinds for forms in entries), start=3))
        ids = iter(self.forms)
        self.roots, self.affixes, pieces = ([next(ids) for _ in entries] for entries in kinds)
        self.tables = [{form: i for i in held for form in self.forms[i]} for held in (self.roots, self.affixes, pieces)]
        self.longest = max(len(form) for table in self.tables for form in table)
        tokens = [b" ", b"", b"", *(forms[0].encode() for forms in self.forms.values())]
        self.first_byte = len(tokens)
        if unknown == "bytes":
            tokens += [bytes([b]) for b in range(256)]
        content = hashlib.sha256(f"{lexicon.model_dump_json()}{unknown}".encode()).hexdigest()[:8]
        super().__init__(f"hybrid-{lexicon.language}-{content}", tokens, lambda text: list(self.cut(text)), specials)

    def cut(self, text: str) -> Iterator[int]:
        """Ids of a text: spaces, marks, and what the tables hold of the rest."""
        start = 0
        while start < len(text):
            end = next((k for k in range(start + 1, len(text)) if self._begins(text[k])), len(text))
            piece = text[start:end]
            if self.lexicon.is_capital(piece[0]):
                yield CAPITAL
                piece = self.lexicon.lower(piece[0]) + piece[1:]
            if piece[0] == " ":
                yield SPACE
                piece = piece[1:]
            yield from self._match(piece)
            start = end

    def _begins(self, character: str) -> bool:
        return character == " " or self.lexicon.is_capital(character)

    def _match(self, text: str) -> Iterator[int]:
        while text:
            ends = range(min(len(text), self.longest), 0, -1)
            found = next(((table[text[:e]], e) for table in self.tables for e in ends if text[:e] in table), None)
            if found is not None:
                yield found[0]
            elif self.unknown == "lost":
                yield LOST
            else:
                yield from (self.first_byte + b for b in text[0].encode())
            text = text[found[1] if found else 1 :]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of the ids, each morpheme in the form that its neighbours ask for."""
        ids = [i for i in ids if i < len(self.tokens) and i != LOST]
        out = vowel = ""
        capital, place = False, 0
        while place < len(ids):
            here, following = ids[place], ids[place + 1 : place + 2]
            run = [i - self.first_byte for i in takewhile(lambda i: i >= self.first_byte, ids[place : place + 4000])]
            place += max(1, len(run))
            if here == CAPITAL:
                capital = True
                continue
            text = bytes(run).decode("utf-8", "replace") if run else self._form(here, following, vowel, out[-1:])
            vowel = last_vowel(self.forms[here][0] if here in self.roots else text, vowel, self.lexicon)
            # Harmony stays within a word.
            vowel = vowel if text[-1:].isalpha() else ""
            out += self.lexicon.upper(text[0]) + text[1:] if capital else text
            capital = False
        return out

    def _form(self, here: int, following: Sequence[int], vowel: str, before: str) -> str:
        if here == SPACE:
            return " "
        if here in self.affixes:
            return affix_form(self.forms[here], vowel, self.lexicon.lower(before) or " ", self.lexicon)
        if here in self.roots:
            affix = self.forms[following[0]] if following and following[0] in self.affixes else None
            return root_form(self.forms[here], affix, self.lexicon)
        return self.forms[here][0]


@method(
    id="turkish_hybrid",
    kind="tokenizer",
    title="Tokens with meaning: roots and affixes with shared ids",
    guarantee="approximate",
    baseline="native",
    needs="a dictionary of roots and affixes; toy ones of Turkish and English are shipped",
    claims=[
        {"metric": "TR%", "value": 90.29, "against": "general tokenizers", "on": "TR-MMLU"},
        {"metric": "Pure%", "value": 85.8, "against": "general tokenizers", "on": "TR-MMLU"},
    ],
    details={
        "order": "reference code: longest root, else longest affix, else longest piece, at every place of a word",
        "capitals": "reference code: a mark before every capital; Turkish has the pairs i and \u0130, \u0131 and I",
        "unknown": "reference code: one id, the character is lost; ours by default: its bytes",
        "decoding": "reconstruction: the forms of an entry are the harmony table, and rules on its neighbours choose",
        "lexicon": "ours: toy dictionaries of some 70 roots; the release has 22,231 root strings, 361 of affixes and "
        "12,512 pieces. Give your own as JSON",
        "purity": "measured only with a validator of your own: one made from the dictionary itself finds about 100 %",
        "embeddings": "mean of the parts of the plain form; the mark of a capital gets the mean row",
    },
)
class TurkishHybrid(TokenizerMethod):
    """Tokenizes by ``lexicon``: ``tr``, ``en`` or the path of a JSON file like those."""

    lexicon: str = Field("tr", description="tr or en (toy dictionaries), or path of a JSON file")
    unknown: Literal["bytes", "lost"] = Field("bytes", description="what becomes of characters in no table")
    validator: str = Field("", description="path of a JSON file with words, roots and affixes, for TR% and Pure%")
    text: str = Field("", description="corpus or path for the purity; empty: the dictionary's own sample")

    def declared(self, tokenizer) -> Properties:  # type: ignore[no-untyped-def]
        """With bytes, every text can be written; forms may still come back as others."""
        return Properties(lossless=False, byte_complete=self.unknown == "bytes", normalizes=True)

    def make(self, tokenizer, artifact):  # type: ignore[no-untyped-def]
        """The dictionary's tokenizer with the subject's special tokens."""
        return HybridTokenizer(load_lexicon(self.lexicon), self.unknown, Specials.of(tokenizer))

    def probes(self) -> Iterable:  # type: ignore[type-arg]
        """The tokenizer's intrinsics, and the meaning of its tokens."""
        lexicon = load_lexicon(self.lexicon)
        texts = documents(self.text, "test") if self.text else lexicon.sample
        validator = load_validator(self.validator) if self.validator else None
        return (Intrinsics(), Purity(texts, validator, lexicon.lower))
