"""The pages that are made from the code are as the code is now, and no page leads nowhere."""

import importlib.util
import re
from pathlib import Path

import pytest

from harness.catalog.registry import catalog
from harness.cli.app import VERBS
from harness.records.metrics import metrics

DOCS = Path(__file__).resolve().parents[2] / "docs"
spec = importlib.util.spec_from_file_location("make_pages", DOCS / "make_pages.py")
make_pages = importlib.util.module_from_spec(spec)
spec.loader.exec_module(make_pages)


@pytest.mark.parametrize("name", make_pages.PAGES)
def test_the_page_is_what_the_code_says_now(name):
    stored = (DOCS / name).read_text(encoding="utf-8")
    assert stored == make_pages.PAGES[name](), f"docs/{name} is stale; run `make docs`"


def test_every_method_metric_and_command_has_its_entry():
    methods, options = make_pages.methods_page(), make_pages.options_page()
    own = [e.card.id for e in catalog().values() if e.distribution == make_pages.OWN]
    assert own and all(f"### `{name}`" in methods for name in own)
    assert all(f"| `{name}` |" in make_pages.dictionary_page() for name in metrics())
    assert all(f"## `zoo {name}" in options for name in VERBS)
    assert "`--batch_size` | `ZOO_BATCH_SIZE` | `8` |" in options


@pytest.mark.parametrize("page", sorted(p.name for p in DOCS.glob("*.md")))
def test_links_between_pages_lead_somewhere(page):
    text = (DOCS / page).read_text(encoding="utf-8")
    targets = [t.partition("#")[0] for t in re.findall(r"\]\(([^)\s]+)\)", text) if not t.startswith("http")]
    missing = [target for target in targets if target and not (DOCS / target).exists()]
    assert not missing
