"""How a press is written: ``SnapKV``, ``SnapKV(window_size=32)``, ``AdaKV(SnapKV, alpha_safeguard=0.3)``."""

from __future__ import annotations

import ast
from typing import Any


def press_spec(text: str) -> dict[str, Any]:
    """The class ``name`` of a press, its ``options`` and, for a wrapper, the ``inner`` press.

    ``Press`` may be left out of names. Raises :class:`ValueError` for what is not written so.
    """
    try:
        return _read(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError) as error:
        raise ValueError(
            f"cannot read the press {text!r}; write SnapKV, SnapKV(window_size=32) or AdaKV(SnapKV)"
        ) from error


def _read(node: ast.expr) -> dict[str, Any]:
    if isinstance(node, ast.Name):
        return {"name": node.id.removesuffix("Press") + "Press", "options": {}}
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or len(node.args) > 1:
        raise ValueError("neither a name nor a call with at most one press in it")
    spec = _read(node.func)
    spec["options"] = {str(option.arg): ast.literal_eval(option.value) for option in node.keywords}
    if node.args:
        spec["inner"] = _read(node.args[0])
    return spec
