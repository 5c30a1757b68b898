"""Holds a model and its cache compressed by a kvpress press; works in kvpress's own environment, without the zoo.

``python worker.py`` reads one JSON request a line (``do``: a method of :class:`Worker`, ``with``: its arguments) and
answers each with one JSON line: ``{"ok": ...}`` or ``{"refused": "one line"}``.
"""

from __future__ import annotations

import contextlib
import copy
import json
import os
import sys
from importlib.metadata import version
from typing import Any

import torch

EAGER = {"ObservedAttentionPress"}
"""Presses that read the attention weights, which only this implementation gives."""
OTHER_POSITIONS = {"FinchPress", "KeyRerotationPress", "RestoreKVPress"}
WHILE_DECODING = {"CAMPress", "CompressionRatioDecodingPress", "DMSPress", "DecodingPress", "PrefillDecodingPress"}


def ratio_for(keep_ratio: float, length: int) -> float:
    """The compression ratio at which a press that rounds, up or down, keeps ``max(1, floor(keep_ratio * length))``."""
    keep = max(1, int(keep_ratio * length + 1e-9))
    return 1 - (keep + 0.25) / length if keep < length else 0.0


def names(spec: dict[str, Any]) -> list[str]:
    """Class names of a press and of those inside it, the outermost first."""
    return [spec["name"], *(names(spec["inner"]) if "inner" in spec else ())]


def made(spec: dict[str, Any], ratio: float) -> Any:
    """The press, around the one inside it where it wraps one; the innermost gets the compression ratio."""
    import kvpress

    if not hasattr(kvpress, spec["name"]):
        known = ", ".join(name.removesuffix("Press") for name in kvpress.__all__ if name.endswith("Press"))
        raise ValueError(f"kvpress has no {spec['name']}; it has {known}")
    cls = getattr(kvpress, spec["name"])
    if "inner" in spec:
        return cls(made(spec["inner"], ratio), **spec["options"])
    if "compression_ratio" not in getattr(cls, "__dataclass_fields__", {}):
        raise ValueError(f"{spec['name']} alone takes no compression ratio, so keep_ratio cannot be given to it")
    return cls(compression_ratio=ratio, **spec["options"])


class Worker:
    """One model, one press, one context at a time. Public methods are what may be asked."""

    def load(self, folder: str, device: str, dtype: str, threads: int) -> dict[str, str]:
        """Load a transformers checkpoint; returns the versions that answer."""
        import transformers
        from kvpress.presses.base_press import SUPPORTED_MODELS

        torch.set_num_threads(threads)
        transformers.utils.logging.disable_progress_bar()
        model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))
        if not isinstance(model, SUPPORTED_MODELS):
            served = ", ".join(cls.__name__ for cls in SUPPORTED_MODELS)
            raise ValueError(f"kvpress does not serve {type(model).__name__}; it serves {served}")
        self.model: Any = model.to(device).eval()
        return {"kvpress": version("kvpress"), "transformers": transformers.__version__}

    def press(self, spec: dict[str, Any], keep_ratio: float) -> None:
        """Choose the press of the contexts to come."""
        for name in names(spec):
            if name in WHILE_DECODING:
                raise ValueError(f"{name} goes on while decoding; presses that act once, after the prompt, are served")
            if name in OTHER_POSITIONS:
                raise ValueError(f"{name} moves tokens to other positions, which is not served")
        made(spec, 0.5)
        self.spec, self.keep_ratio = spec, keep_ratio
        self.model.set_attn_implementation("eager" if EAGER & set(names(spec)) else "sdpa")

    @torch.no_grad()
    def prefill(self, context: list[int]) -> dict[str, float]:
        """Read a context and compress its cache; returns what is held and the likeliest next token."""
        from transformers import DynamicCache

        for layer in self.model.model.layers:
            layer.self_attn.masked_key_indices = None
        self.cache, self.seen = DynamicCache(), len(context)
        with made(self.spec, ratio_for(self.keep_ratio, self.seen))(self.model):
            self.last = self._forward(self.cache, context, logits_to_keep=1)[-1]
        return self._held()

    @torch.no_grad()
    def score(self, continuations: list[list[int]]) -> list[tuple[float, bool]]:
        """Log-probability of each continuation after the context, and whether decoding greedily would write it."""
        return [self._score(tokens) for tokens in continuations]

    @torch.no_grad()
    def step(self, token: int) -> dict[str, float]:
        """Read one more token; returns what is held and the likeliest next token."""
        self.last = self._forward(self.cache, [token], self.seen)[-1]
        self.seen += 1
        return self._held()

    def _held(self) -> dict[str, float]:
        """``slots``: mean over layers and heads of those that may be read; ``bytes``: of all keys and values held."""
        layers = self.cache.layers
        slots, size = 0.0, 0
        for layer, block in zip(layers, self.model.model.layers, strict=True):
            masked = getattr(block.self_attn, "masked_key_indices", None)
            gone = 0 if masked is None else len(set(zip(*(index.tolist() for index in masked), strict=True)))
            slots += layer.keys.shape[2] - gone / layer.keys.shape[1]
            size += sum(t.numel() * t.element_size() for t in (layer.keys, layer.values))
        return {"next": int(self.last.argmax()), "slots": slots / len(layers), "bytes": size}

    def _forward(self, cache: Any, ids: list[int], start: int = 0, **options: Any) -> torch.Tensor:
        """Logits ``[T, V]`` in float32 of tokens at positions ``start``, ``start + 1`` ..."""
        device = self.model.device
        place = torch.arange(start, start + len(ids), device=device)[None]
        ids_1T = torch.tensor([ids], device=device)
        logits: torch.Tensor = (
            self.model(ids_1T, past_key_values=cache, position_ids=place, **options).logits[0].float()
        )
        return logits

    def _score(self, tokens: list[int]) -> tuple[float, bool]:
        rows = [self.last[None]]
        if len(tokens) > 1:
            branch = copy.deepcopy(self.cache)
            for start, part in self._parts(tokens[:-1]):
                rows.append(self._forward(branch, part, start))
        total, greedy, at = 0.0, True, 0
        for logits in rows:
            wanted = torch.tensor(tokens[at : at + len(logits)], device=logits.device)
            total += float(logits.log_softmax(-1).gather(-1, wanted[:, None]).double().sum())
            greedy = greedy and bool((logits.argmax(-1) == wanted).all())
            at += len(logits)
        return total, greedy

    def _parts(self, tokens: list[int]) -> list[tuple[int, list[int]]]:
        """What one forward may read, with its position: one token where layers differ in length, or heads mask slots.

        The library makes one mask for all layers, and kvpress one fake key for all queries of a forward.
        """
        lengths = {layer.keys.shape[2] for layer in self.cache.layers}
        masks = any(getattr(b.self_attn, "masked_key_indices", None) is not None for b in self.model.model.layers)
        if len(lengths) == 1 and not masks:
            return [(self.seen, tokens)]
        return [(self.seen + i, [token]) for i, token in enumerate(tokens)]


def main() -> None:
    """Answer requests until standard input closes; what libraries print goes to standard error."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    worker = Worker()
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = {"ok": getattr(worker, request["do"])(**request["with"])}
        except Exception as error:  # noqa: BLE001 - whatever a press raises is why it cannot serve
            text = str(error) if type(error) is ValueError else f"{type(error).__name__}: {error}"
            answer = {"refused": " ".join(text.split())[:500]}
        with contextlib.suppress(BrokenPipeError):
            answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
