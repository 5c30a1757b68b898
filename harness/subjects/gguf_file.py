"""Converts a GGUF file once into a folder that loads in a second; later runs find the folder by the file's hash."""

from __future__ import annotations

import copy
import shutil
import struct
import tempfile
from pathlib import Path

import torch

from harness.errors import EnvironmentFailed
from harness.subjects.catalog import cache_dir
from harness.subjects.packages import file_sha256


def convert_gguf(path: Path) -> Path:
    """De-quantise a GGUF file to bfloat16-exact float32 safetensors in the cache and return the folder.

    Raises :class:`EnvironmentFailed` for a file that is missing, truncated or not GGUF.
    """
    if not path.is_file():
        raise EnvironmentFailed(f"no such model file: {path}")
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise EnvironmentFailed(f"{path} is not a GGUF file (its first bytes are not 'GGUF'); fetch it again")
    folder = cache_dir() / "models" / f"{path.stem}-{file_sha256(path)[:16]}"
    if not (folder / "config.json").is_file():
        _convert(path, folder)
    return folder


def _convert(path: Path, folder: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".converting-"))
    try:
        source, name = str(path.parent), path.name
        tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=name)
        quantised = AutoModelForCausalLM.from_pretrained(source, gguf_file=name, dtype=torch.float32)
        config = copy.deepcopy(quantised.config)
        if hasattr(config, "quantization_config"):
            del config.quantization_config
        plain = type(quantised)(config)
        plain.load_state_dict(quantised.state_dict())
        tokenizer.save_pretrained(work)
        plain.save_pretrained(work)
        # Renamed when whole, so a killed conversion leaves nothing that looks finished.
        work.replace(folder)
    except OSError as error:
        if folder.joinpath("config.json").is_file():
            return  # another process was faster
        raise EnvironmentFailed(f"cannot convert {path}: {error}") from error
    except (ValueError, KeyError, RuntimeError, IndexError, struct.error) as error:
        raise EnvironmentFailed(
            f"cannot convert {path}: {type(error).__name__}: {' '.join(str(error).split())[:200]} "
            "(the file may be truncated, or of an architecture transformers cannot read from GGUF)"
        ) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
