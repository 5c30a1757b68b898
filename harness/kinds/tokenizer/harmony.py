"""Which form of a morpheme stands in a word: vowel harmony, hard and soft consonants, buffers, softened roots."""

from __future__ import annotations

from collections.abc import Sequence

from harness.kinds.tokenizer.lexicon import Lexicon

SOFTENED = {"t": "d", "ç": "c", "k": "g"}
HARDENED = {soft: hard for hard, soft in SOFTENED.items()}


def last_vowel(form: str, before: str, lexicon: Lexicon) -> str:
    """The vowel that an affix after this form harmonises with; the one before it where it has none."""
    own = [c for c in form if c in lexicon.vowels]
    return lexicon.harmony_exceptions.get(form, own[-1] if own else before)


def _harmonises(form: str, vowel: str, lexicon: Lexicon) -> bool:
    """Wide vowels follow front or back, narrow ones also rounding; other vowels stay as they are."""
    own = next((c for c in form if c in lexicon.vowels), "")
    if not vowel or not lexicon.front:
        return True
    if own in ("a", "e"):
        return (own == "e") == (vowel in lexicon.front)
    if own in ("ı", "i", "u", "ü"):
        return own == ("iü" if vowel in lexicon.front else "ıu")[vowel in lexicon.rounded]
    return True


def _hard_enough(form: str, forms: Sequence[str], end: str, lexicon: Lexicon) -> bool:
    """Where an affix has a hard and a soft form, the hard one follows hard consonants."""
    hard = end in lexicon.hard
    if SOFTENED.get(form[0], "-") + form[1:] in forms:
        return hard
    if HARDENED.get(form[0], "-") + form[1:] in forms:
        return not hard
    return True


def _buffered(form: str, forms: Sequence[str], end: str, lexicon: Lexicon) -> bool:
    """Of two forms, one with a letter more in front: a consonant goes between vowels, a vowel between consonants."""
    after_vowel = end in lexicon.vowels
    if form[1:] in forms:
        return (form[0] in lexicon.vowels) != after_vowel
    extra = [other[0] for other in forms if other[1:] == form]
    return not extra or (extra[0] in lexicon.vowels) == after_vowel


def affix_form(forms: Sequence[str], vowel: str, end: str, lexicon: Lexicon) -> str:
    """The form of an affix after a word with this last vowel and last letter; the plain one where none fits."""
    for form in forms:
        fits = _hard_enough(form, forms, end, lexicon) and _buffered(form, forms, end, lexicon)
        if fits and _harmonises(form, vowel, lexicon):
            return form
    return forms[0]


def root_form(forms: Sequence[str], affix: Sequence[str] | None, lexicon: Lexicon) -> str:
    """The form of a root before an affix's forms; None stands for anything else."""
    plain, other = forms[0], forms[-1]
    if affix is None or len(forms) == 1:
        return plain
    if lexicon.narrowing and other == plain[:-1]:
        return other if affix[0] in lexicon.narrowing else plain
    following = affix_form(affix, last_vowel(plain, "", lexicon), plain[-1], lexicon)
    return other if following[0] in lexicon.vowels else plain
