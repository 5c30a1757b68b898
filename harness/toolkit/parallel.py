"""Parallel text: messages of the Django framework in thirteen languages, out of the catalogues inside its package.

The package is fetched once into the cache and checked; nothing of it is imported, and nothing is copied into the
project. Messages are short: labels, names and sentences of a user interface. Those with placeholders, markup, plural
forms or a context are left out.
"""

from __future__ import annotations

import re
import struct
from functools import lru_cache
from pathlib import Path

from harness.subjects.packages import Package

_SHA256 = {
    ("conf", "ar"): "a816843e17c9c5dda62b5b8f1fb274ea13c8dff95e44fb1691581c2ad25202f4",
    ("contrib/admin", "ar"): "a1120124d9aebf9d13cdb8741f7d735667aa7122fdde1188dcc04dec2cafdecb",
    ("contrib/auth", "ar"): "ecb87115f2fdcba4407d9f0f53ed65288d95d362db1f15ed0755007ffbd7a6e7",
    ("conf", "de"): "8a82eaa6cc61030c6e75c7dcd28547cedb9c0a7736db88385bb9a11650b02ab1",
    ("contrib/admin", "de"): "f262a60fb604bf6a9af3c132ec8ffb18eedefeeca8599396c9438170c85b1526",
    ("contrib/auth", "de"): "29ee0c556c0c550c577897c3a5e9b4d597291f99874a34f259f0e362736aaa26",
    ("conf", "es"): "16fb84c1ce340ebe0706360c8bd49e03bad90bca94065ec60ae372251ed424df",
    ("contrib/admin", "es"): "cfb989d98515e9ed3fa1da6eba4323a2a6834f945188b187e54bb04a225e627e",
    ("contrib/auth", "es"): "afc16c4a10a24419ebefd759b25dbdb0085467de2e049a3233c08e5a800bdd02",
    ("conf", "fi"): "b570b7eb3e243f86f4ed871f271291b72f37c284fb00699c27fe628830385148",
    ("contrib/admin", "fi"): "a9734028b78918e5eed3a956407d848c07fcf12cf6f1090de92935ebd9cb3fcc",
    ("contrib/auth", "fi"): "043d52f82d4a858fa25c861ffb104e02afb0ed4184ce798484dd8353bcaead7a",
    ("conf", "hi"): "f295798f9abc55baf175591c4b4ab0855c7a0e65d14573ca7d1b26de75a12368",
    ("contrib/admin", "hi"): "c968d3632ad5c57c7005680fb02ec827d2312fff39bf7efc4e8e0f08411cc2e2",
    ("contrib/auth", "hi"): "ec2c55d47dfb84c6e0288867016c7e6899a2a4b468b097b5aa0f011f608005fc",
    ("conf", "ja"): "c56fe1a8b51d0ef5a95eb40b8f418f6874e75eec78c67a143d290db792c86102",
    ("contrib/admin", "ja"): "0c85b250863f19febf4164253967adf3fb8b10c7aecd1d451272f62824445e4d",
    ("contrib/auth", "ja"): "67a09dfa222c3ead0008c0e2dd15c5679cd6add83188a03fdd32e8679501cefc",
    ("conf", "ko"): "692b7eb875956c5095acf33e4e08806bc58dfb616074c0a5e595ed2729ad21ef",
    ("contrib/admin", "ko"): "1c79f18a4ee6d8723d8f03ccb3f9c43f5062bde9e859ff55c06ed70dcaabd105",
    ("contrib/auth", "ko"): "c48cb83b1c34e91b4605eb6432e16d5370119db08f6839c8c77b73c262426430",
    ("conf", "mr"): "c03692e053a129cc4cee6873c08b6279acd0fea069f7b65a2a14d98044c35edd",
    ("contrib/admin", "mr"): "1230869341cdd865738864736aeb822dcff6ee792edf9bfa452ed4d894fed1bf",
    ("contrib/auth", "mr"): "73f5b516c75ebc604225fa5c6383268123c6506a8502a580ae95e195d9fd300f",
    ("conf", "ru"): "d76f34242dc538154255a2bb044fe2aeedb1624018acdc49fb425838d47330b0",
    ("contrib/admin", "ru"): "a2cc628462f5d7fe4fd8dacd5add0627801390ee42ad250557eec061fa6a185e",
    ("contrib/auth", "ru"): "efbf7e6369143d748778a94422359f0c79c0781c936fc2eaeb905c60fb1da98d",
    ("conf", "sw"): "69498854b00d8120932b92eaf1064f10a5a36569ec9c1be6ffe65472287727a8",
    ("contrib/admin", "sw"): "922cb8662051e92233177488a82ddd34b4d40e7719f6a8d37621b502422eb979",
    ("contrib/auth", "sw"): "23f944b0ab8c1a6d3b5f5bccdfe45e183c768f4f4f18b916706d289c2f2ad6e4",
    ("conf", "tr"): "b87d94bbcd5741a41ea22cc4fb97941c86daf95d4cafbab5b2618777402e83b9",
    ("contrib/admin", "tr"): "fccaf80703a16cd0a896930e34b85d317923364f1d519931519a7861c83bb4aa",
    ("contrib/auth", "tr"): "22c743874808e703ac732ed7013ee4832e8408946791cb8ce5bc661dba63919d",
    ("conf", "zh_Hans"): "099a8a392f72c616cdd4184d1df7d9749dea13541a78899d5bc5d4a9ee56ddb1",
    ("contrib/admin", "zh_Hans"): "32a7fed87fd0516dc4c77d27fca496756b9f3ba805518494b01c5d5b8d7c86e3",
    ("contrib/auth", "zh_Hans"): "6ee0df53ab6117ba37f5e30241a751c4d287a6bafee353cff908dd729f9ada6e",
}
PIVOT = "en"
LANGUAGES = (PIVOT, *dict.fromkeys(language for _, language in _SHA256))
LICENCE = "BSD-3-Clause, Django Software Foundation and its translators; read in the cache, not redistributed"


def _member(part: str, language: str) -> str:
    return f"django/{part}/locale/{language}/LC_MESSAGES/django.mo"


DJANGO = Package(
    requirement="django==5.2.8",
    members={_member(*key): digest for key, digest in _SHA256.items()},
    what="translated messages of Django",
    remedy="with network access it is fetched once; without, set PIP_FIND_LINKS to a folder with its wheel",
)


def read_catalogue(path: Path) -> dict[str, str]:
    """Messages and their translations out of a compiled gettext catalogue (little-endian)."""
    data = path.read_bytes()
    _, _, count, messages_at, translations_at = struct.unpack_from("<5I", data)

    def text(table: int, index: int) -> str:
        length, start = struct.unpack_from("<2I", data, table + 8 * index)
        return data[start : start + length].decode()

    return {text(messages_at, i): text(translations_at, i) for i in range(count)}


def usable(message: str, translation: str) -> bool:
    """Whether both are plain text: no header, plural forms, context, placeholders or markup."""
    return bool(message and translation) and not re.search(r"[\0\x04%{}<>&]", message + translation)


@lru_cache(maxsize=1)
def translations() -> dict[str, dict[str, str]]:
    """For each language its usable messages by the English one; English holds those that all languages have."""
    held: dict[str, dict[str, str]] = {}
    for part, language in _SHA256:
        catalogue = read_catalogue(DJANGO.obtain(_member(part, language)))
        held.setdefault(language, {}).update({m: t for m, t in catalogue.items() if usable(m, t)})
    common = set.intersection(*(set(texts) for texts in held.values()))
    return {PIVOT: {message: message for message in sorted(common)}} | held


def aligned() -> dict[str, list[str]]:
    """The messages that all languages have, for each language in the same order."""
    held = translations()
    return {language: [texts[message] for message in held[PIVOT]] for language, texts in held.items()}


def pieces(language: str | None = None) -> tuple[tuple[str, str], ...]:
    """``(English message, text)`` of one language, or of all; a message falls into one split in every language."""
    held = translations()
    chosen = held if language is None else {language: held[language]}
    return tuple((message, text) for texts in chosen.values() for message, text in texts.items())
