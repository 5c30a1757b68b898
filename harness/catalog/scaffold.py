"""Writes a new method with its card and its test: into the zoo's own checkout, or as a package of its own."""

from __future__ import annotations

import keyword
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from string import Template

from harness.catalog.card import KINDS
from harness.catalog.registry import catalog
from harness.errors import EnvironmentFailed, UsageError, unknown_name

TEMPLATES = Path(__file__).parent / "templates"
LONGEST_ID = 60


@dataclass(frozen=True)
class Written:
    """What was written, and what comes next, as commands."""

    files: tuple[Path, ...]
    next_steps: tuple[str, ...]


def kinds_with_templates() -> list[str]:
    """Kinds a new method can be written for."""
    return [kind for kind in KINDS if (TEMPLATES / f"{kind}.py.tmpl").is_file()]


def checkout_root(start: Path) -> Path | None:
    """The zoo's own checkout around a folder, or None."""
    for folder in (start.resolve(), *start.resolve().parents):
        try:
            project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8")).get("project", {})
        except (OSError, tomllib.TOMLDecodeError):
            continue
        if project.get("name") == "token-zoo":
            return folder
    return None


def refuse_bad_id(method_id: str) -> None:
    """An id is a Python module's name in lower case, and it is free."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", method_id) or keyword.iskeyword(method_id) or len(method_id) > LONGEST_ID:
        near = re.sub(r"[^a-z0-9]+", "_", method_id.lower()).strip("_")[:LONGEST_ID]
        usable = near if near[:1].isalpha() and not keyword.iskeyword(near) else f"my_{near or 'method'}"[:LONGEST_ID]
        raise UsageError(f"{method_id!r} is not a method id (lower-case letters, digits, '_'); try {usable!r}")
    taken = catalog().get(method_id)
    if taken is not None:
        raise UsageError(f"the id {method_id!r} is taken by {taken.source}; choose another")


def refuse_bad_kind(kind: str) -> None:
    """The kind exists and has a template."""
    if kind not in KINDS:
        raise unknown_name("kind", kind, KINDS)
    if kind not in kinds_with_templates():
        have = ", ".join(kinds_with_templates())
        raise UsageError(f"no template for the kind {kind!r} yet; there are templates for {have}")


def names(kind: str, method_id: str, module: str, package: str) -> dict[str, str]:
    """What the templates' placeholders stand for. A class never takes a name that its template uses already."""
    words = method_id.split("_")
    class_name = "".join(word.capitalize() for word in words)
    template = (TEMPLATES / f"{kind}.py.tmpl").read_text(encoding="utf-8")
    if re.search(rf"\b{class_name}\b", template):
        class_name += "Method"
    return {
        "id": method_id,
        "kind": kind,
        "title": " ".join(words).strip().capitalize(),
        "class_name": class_name,
        "module": module,
        "package": package,
        "distribution": package.replace("_", "-"),
    }


def _fill(template: str, values: dict[str, str]) -> str:
    return Template((TEMPLATES / template).read_text(encoding="utf-8")).substitute(values)


def _write_all(files: dict[Path, str]) -> tuple[Path, ...]:
    """Write all files, or none where one exists or a folder refuses."""
    for path in files:
        if path.exists():
            raise UsageError(f"{path} exists already; nothing was written")
    written: list[Path] = []
    try:
        for path, text in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            written.append(path)
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        for path in written:
            path.unlink(missing_ok=True)
        raise EnvironmentFailed(f"cannot write {error.filename}: {error.strerror}; nothing was written") from error
    return tuple(files)


def write_into_checkout(root: Path, kind: str, method_id: str) -> Written:
    """``methods/<kind>/<id>.py`` and its test."""
    values = names(kind, method_id, f"methods.{kind}.{method_id}", "methods")
    source = root / "methods" / kind / f"{method_id}.py"
    test = root / "tests" / "methods" / kind / f"test_{method_id}.py"
    files = _write_all({source: _fill(f"{kind}.py.tmpl", values), test: _fill(f"{kind}_test.py.tmpl", values)})
    return Written(files, (f"zoo check {method_id}", f"pytest {test.relative_to(root)}"))


def write_package(folder: Path, kind: str, method_id: str) -> Written:
    """A distribution of its own that names its package in the entry-point group of the zoo."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} is not an empty folder; give a new one to --dir")
    package = f"zoo_{method_id}"
    values = names(kind, method_id, f"{package}.{method_id}", package)
    files = _write_all(
        {
            folder / "pyproject.toml": _fill("package.toml.tmpl", values),
            folder / package / "__init__.py": f'"""{values["title"]}: a method for Token Zoo."""\n',
            folder / package / f"{method_id}.py": _fill(f"{kind}.py.tmpl", values),
            folder / "tests" / f"test_{method_id}.py": _fill(f"{kind}_test.py.tmpl", values),
        }
    )
    return Written(files, (f"pip install -e {folder}", f"zoo check {method_id}", f"pytest {folder}"))


def new_method(kind: str, method_id: str, folder: Path | None = None) -> Written:
    """Write a method that passes its checks as it is. ``folder`` asks for a package; else the checkout around here."""
    refuse_bad_kind(kind)
    refuse_bad_id(method_id)
    if folder is not None:
        return write_package(folder, kind, method_id)
    root = checkout_root(Path.cwd())
    if root is None:
        raise UsageError("this is not the zoo's checkout; give --dir FOLDER to write a package of your own")
    return write_into_checkout(root, kind, method_id)
