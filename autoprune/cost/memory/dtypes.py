"""Bytes per element, by the names that torch gives its dtypes; megabytes are 10^6 bytes everywhere."""

from __future__ import annotations

from autoprune.errors import ConfigError, suggest

MEGABYTE = 1_000_000

_FLOATING = {
    "float64": 8,
    "float32": 4,
    "float16": 2,
    "bfloat16": 2,
    "float8_e4m3fn": 1,
    "float8_e5m2": 1,
    "complex64": 8,
    "complex128": 16,
}
_WHOLE = {"int64": 8, "int32": 4, "int16": 2, "int8": 1, "uint8": 1, "bool": 1, "uint16": 2, "uint32": 4, "uint64": 8}


def bytes_of(dtype: str, override: str | None = None) -> int:
    """Bytes of one element of this dtype; of `override` instead, where the dtype is a floating point one.

    Raises:
        ConfigError: the override is no dtype that weights can have (`int8` for quantised ones).
    """
    if override is not None:
        allowed = {**_FLOATING, "int8": 1}
        if override not in allowed:
            names = ", ".join(allowed)
            raise ConfigError(f"dtype {override!r} is unknown; choose one of {names}.{suggest(override, allowed)}")
        if dtype in _FLOATING:
            return allowed[override]
    return {**_FLOATING, **_WHOLE}.get(dtype, 4)
