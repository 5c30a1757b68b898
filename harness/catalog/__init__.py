"""Cards, the registry of methods and how a method is named on the command line."""

from harness.catalog.card import Card, method
from harness.catalog.registry import Entry, catalog, find
from harness.catalog.spec import MethodSpec, Stack, parse_stack

__all__ = ["Card", "Entry", "MethodSpec", "Stack", "catalog", "find", "method", "parse_stack"]
