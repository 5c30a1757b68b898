"""Installs the spikes' methods the way a third party would: a distribution that names one package."""

from pathlib import Path

import pytest

from harness.catalog.registry import read_catalog


@pytest.fixture(scope="module", autouse=True)
def spike_zoo(tmp_path_factory):
    """While a spike's tests run, the catalog holds the package ``spike_zoo``; afterwards it is as before."""
    site = tmp_path_factory.mktemp("site")
    info = site / "spike_zoo-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: spike-zoo\nVersion: 0.1\n", encoding="utf-8")
    (info / "entry_points.txt").write_text("[token_zoo.methods]\nspike-zoo = spike_zoo\n", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(site))
        patch.syspath_prepend(str(Path(__file__).parent))
        patch.setenv("ZOO_CACHE", str(tmp_path_factory.mktemp("cache")))
        read_catalog.cache_clear()
        yield
    read_catalog.cache_clear()
