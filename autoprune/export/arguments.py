"""What an export may call a factory with: plain data of sensible size; for libraries nothing to read or fetch."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from autoprune.errors import RunError
from autoprune.texts import printable

_DEEPEST, _MOST, _LONGEST, _LARGEST = 20, 10_000, 4096, 2**31
_SWITCHES = frozenset({"weights_only", "trust_remote_code"})
"""Keywords that guard against code in weights and repositories: never set by a file."""

_READS = frozenset(
    {"checkpoint_path", "pretrained_cfg_overlay", "cache_dir", "auto_map", "code_revision", "quantization_config"}
    | {
        "pretrained_model_name_or_path",
        "use_safetensors",
        "backbone_kwargs",
        "config_file",
        "state_dict",
        "url",
        "backbone",
    }
)
"""Keywords of libraries that name files, places on the network, or code."""

_FETCHES: Mapping[str, object] = {
    **{"weights": None, "weights_backbone": None, "pretrained": False, "pretrained_backbone": False},
    **{"use_pretrained_backbone": False},
}
"""Keywords of libraries that fetch weights -> what does not: all weights are replaced by those of the export."""

_WORD = re.compile(r"[\w.+\- ]{0,200}", re.ASCII)


def check_plain(arguments: object, place: str) -> dict[str, Any]:
    """The arguments, if they are keywords of plain data.

    Raises:
        RunError: they hold something else, are beyond any sense, or switch a guard off.
    """
    if not isinstance(arguments, Mapping):
        raise RunError(f"{place} must be keys and values, got {_shown(arguments)}; export the run anew")
    for number, (path, value) in enumerate(_walk(arguments, place, 0)):
        if number > _MOST:
            raise RunError(f"{place} holds more than {_MOST:,} values; export the run anew")
        if isinstance(value, int) and not -_LARGEST <= value <= _LARGEST:
            raise RunError(f"{path} is beyond {_LARGEST:,}: {_shown(value)}; correct it")
        if isinstance(value, str) and len(value) > _LONGEST:
            raise RunError(f"{path} has {len(value):,} characters, at most {_LONGEST:,} are allowed; correct it")
        if value is not None and not isinstance(value, bool | int | float | str | Mapping | list):
            raise RunError(f"{path} is a {type(value).__name__}; numbers, texts, lists and keys are allowed")
    return dict(arguments)


def library_arguments(function: Callable[..., Any], arguments: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Arguments for a factory of a library, such that it neither reads a file nor fetches anything.

    Raises:
        RunError: one names a file, a repository or code.
    """
    for path, value in _walk(arguments, "", 0):
        name = path.rpartition(".")[2]
        if name in _READS or (isinstance(value, str) and not _WORD.fullmatch(value)):
            raise RunError(
                f"{place}. It was not run: {name}={_shown(value)} may name a file, a place on the network, or code. "
                f"Only if you know who made the file, give trust=True, or build the full network yourself and give "
                f"model="
            )
    try:
        keywords = inspect.signature(function).parameters
    except (TypeError, ValueError):
        keywords = inspect.Signature().parameters
    legacy = {"pretrained", "pretrained_backbone"} if "weights" in keywords else set()  # torchvision's old names
    kept = {name: value for name, value in arguments.items() if name not in legacy}
    return {**kept, **{name: none for name, none in _FETCHES.items() if name in kept or name in keywords}}


def described_call(factory: str, arguments: Mapping[str, Any]) -> str:
    """What would run, short enough to read."""
    shown = ", ".join(f"{printable(str(name), 40)}={_shown(value)}" for name, value in list(arguments.items())[:6])
    return f"{printable(factory, 120)}({shown}{', …' if len(arguments) > 6 else ''})"


def _walk(value: object, path: str, depth: int) -> Iterator[tuple[str, Any]]:
    """(where, value) of all that a value holds, itself left out."""
    if depth > _DEEPEST:
        raise RunError(f"{printable(path, 200)} lies more than {_DEEPEST} levels deep; export the run anew")
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if not isinstance(key, str) or len(key) > 200:
                raise RunError(f"{printable(path, 200)}: keys must be short texts, got {_shown(key)}")
            if key in _SWITCHES:
                raise RunError(f"{printable(path, 200)}: {key} cannot be set by a file; leave it out")
            yield f"{path}.{key}", inner
            yield from _walk(inner, f"{path}.{key}", depth + 1)
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield f"{path}[{number}]", inner
            yield from _walk(inner, f"{path}[{number}]", depth + 1)


def _shown(value: object) -> str:
    if isinstance(value, int) and not -(2**64) < value < 2**64:
        return f"a number of {value.bit_length():,} bits"
    return printable(repr(value), 60) if isinstance(value, str | bytes) else printable(str(value), 60)
