"""``python -m harness.cli`` is ``zoo``."""

from harness.cli.app import main

main()
