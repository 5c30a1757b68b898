"""One cache for all pages, so that the machine's ceilings are measured once."""

import pytest


@pytest.fixture(scope="session")
def docs_cache(tmp_path_factory):
    """A cache folder of the tests' own."""
    return tmp_path_factory.mktemp("cache")
