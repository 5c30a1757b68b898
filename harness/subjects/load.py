"""Makes a subject out of a model's name: a catalog name, a local folder, a GGUF file or a hub id."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from harness.errors import EnvironmentFailed, Refused, UsageError
from harness.subjects import attention
from harness.subjects.cache import KVCache
from harness.subjects.catalog import MODELS, ModelEntry, model_names
from harness.subjects.decode import AutoregressiveDecoder
from harness.subjects.few_rows import use_few_row_kernels
from harness.subjects.scoring import CausalScorer
from harness.subjects.subject import GENERATE, KV_VIEWS, SCORE, TRAIN, Subject
from harness.subjects.tokenizer import PretrainedTokenizer, Tokenizer

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
SERVED_LAYERS = {"full_attention", "sliding_attention"}


def pick_device(device: str = "auto") -> torch.device:
    """``auto`` is the first CUDA device, else the CPU."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        picked = torch.device(device)
    except RuntimeError as error:
        raise UsageError(f"unknown device {device!r}; write cpu, cuda, cuda:0 or auto") from error
    if picked.type == "cuda" and not torch.cuda.is_available():
        raise EnvironmentFailed(f"device {device!r} was asked for, but torch sees no CUDA device; use --device cpu")
    return picked


def pick_dtype(dtype: str) -> torch.dtype:
    """A torch type by its name."""
    if dtype not in DTYPES:
        raise UsageError(f"unknown dtype {dtype!r}; known: {', '.join(DTYPES)}")
    return DTYPES[dtype]


def wrap_model(
    model: Any, tokenizer: Tokenizer | None, name: str, max_length: int | None = None, trainable: bool = True
) -> Subject:
    """A subject around a transformers causal model; refuses architectures whose attention the zoo cannot serve."""
    config = model.config.get_text_config()
    layer_types = set(getattr(config, "layer_types", None) or SERVED_LAYERS)
    # A model that refuses SDPA adds something to its attention (learnt sinks, a bias) that ours would lose silently.
    through_interface = getattr(model, "_supports_attention_backend", False) and getattr(model, "_supports_sdpa", False)
    if not through_interface or not layer_types <= SERVED_LAYERS:
        raise Refused(
            f"{name}: {type(model).__name__} does not run its attention through transformers' attention interface; "
            "the zoo serves decoder-only models such as Llama, Mistral, Qwen2/3 and Gemma"
        )
    model.set_attn_implementation(attention.NAME)
    model.eval()
    use_few_row_kernels(model)
    capabilities = {SCORE, GENERATE, KV_VIEWS} | ({TRAIN} if trainable else set())
    return Subject(
        name=name,
        model=model,
        tokenizer=tokenizer,
        new_cache=functools.partial(KVCache, config.num_hidden_layers),
        scorer=CausalScorer(),
        decoder=AutoregressiveDecoder(),
        capabilities=frozenset(capabilities),
        max_length=max_length or int(getattr(config, "max_position_embeddings", 0) or 2048),
    )


def load_subject(name: str, device: str = "auto", dtype: str | None = None, trust_remote_code: bool = False) -> Subject:
    """Load a model by catalog name, folder, GGUF file or hub id.

    ``dtype`` None takes the catalog's, else bfloat16. Raises :class:`UsageError` for an unknown name and
    :class:`EnvironmentFailed` for a missing, truncated or unreachable file.
    """
    place = pick_device(device)
    entry = MODELS.get(name)
    kind = pick_dtype(dtype or (entry.dtype if entry else "bfloat16"))
    if entry is not None:
        return _from_catalog(entry, place, kind)
    path = Path(name).expanduser()
    if path.suffix == ".gguf":
        from harness.subjects.gguf_file import convert_gguf

        return _from_folder(str(convert_gguf(path)), name, place, kind, trust_remote_code)
    if path.exists() or name.startswith((".", "/", "~")):
        if not (path / "config.json").is_file():
            raise UsageError(f"model folder {name!r} has no config.json; give a transformers folder or a .gguf file")
        return _from_folder(str(path), name, place, kind, trust_remote_code)
    if "/" not in name:
        from harness.errors import unknown_name

        raise unknown_name("model", name, model_names(), "or give a hub id, a folder or a .gguf file")
    return _from_folder(name, name, place, kind, trust_remote_code)


def _from_catalog(entry: ModelEntry, device: torch.device, dtype: torch.dtype) -> Subject:
    made = entry.make()
    if isinstance(made, Path):
        return _from_folder(str(made), entry.name, device, dtype, False)
    model, tokenizer, max_length = made
    return wrap_model(model.to(device=device, dtype=dtype), tokenizer, entry.name, max_length)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]


def _load(make: Callable[[], Any], name: str, what: str) -> Any:
    """Run a transformers loader and turn its many kinds of failure into one line."""
    try:
        return make()
    except (OSError, ValueError, RuntimeError, KeyError, ImportError) as error:
        raise EnvironmentFailed(
            f"cannot load the {what} of {name!r}: {type(error).__name__}: {_one_line(error)} "
            "(check the name or path; without network give a local folder, a .gguf file or a catalog name)"
        ) from error
    except Exception as error:
        if type(error).__module__.startswith(("safetensors", "huggingface_hub", "httpx")):
            raise EnvironmentFailed(f"cannot load the {what} of {name!r}: {_one_line(error)}") from error
        raise


def _from_folder(source: str, name: str, device: torch.device, dtype: torch.dtype, trust: bool) -> Subject:
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    tokenizer = _load(lambda: AutoTokenizer.from_pretrained(source, trust_remote_code=trust), name, "tokenizer")
    model = _load(
        lambda: AutoModelForCausalLM.from_pretrained(
            source, dtype=dtype, trust_remote_code=trust, use_safetensors=True
        ),
        name,
        "model",
    )
    stops = getattr(model.generation_config, "eos_token_id", None)
    model_eos = [] if stops is None else [stops] if isinstance(stops, int) else list(stops)
    return wrap_model(model.to(device), PretrainedTokenizer(tokenizer, model_eos=model_eos), name)
