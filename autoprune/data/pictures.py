"""Files of pictures, read with care: kinds, sizes and names are not trusted."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from PIL import Image

from autoprune.errors import DataError, blame

ENDINGS = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp"})
FORMATS = ("PNG", "JPEG", "BMP", "WEBP")  # whatever the file is called: others have been ways to run programs
MOST_PIXELS = 2**27

Pixels: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"


def read_picture(
    file: Path, *, what: str, mode: Literal["RGB", "mask"] = "RGB", size: int | tuple[int, int] | None = None
) -> Pixels:
    """Pixels of a file: (3, H, W) bytes, or (H, W) numbers of a mask.

    Args:
        file: PNG, JPEG, BMP or WEBP; a mask must keep its numbers, so it is PNG or BMP of one channel.
        what: the data set, for messages.
        mode: "RGB", or "mask": the numbers of the file, of a palette the numbers of its colours.
        size: height and width, or both at once, in pixels; None: as the file has it.

    Raises:
        DataError: the file is not there, no picture, too large, of more than 8 bits a channel, or a mask of several
            channels.
    """
    if not file.is_file():
        raise DataError(f"{what}: {file} is no plain file; remove it")
    failing = blame(DataError, f"{what}: {file} cannot be read as a picture", then="Repair or remove it.")
    with failing, file.open("rb") as content, warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit is below
        picture = Image.open(content, formats=FORMATS)
        width, height = picture.size
        if width * height > MOST_PIXELS:
            raise DataError(
                f"{what}: {file} has {width:,} x {height:,} pixels, at most {MOST_PIXELS:,} are read; make it smaller "
                f"or remove it"
            )
        if mode == "mask" and (len(picture.getbands()) != 1 or picture.format == "JPEG"):
            raise DataError(
                f"{what}: {file} is no mask: {picture.format} with the channels {''.join(picture.getbands())}; save it "
                f"as PNG with one channel, whose numbers are classes"
            )
        if mode == "RGB" and picture.mode.startswith(("I", "F")):  # Pillow would make all above 255 white
            raise DataError(
                f"{what}: {file} has more than 8 bits a channel (mode {picture.mode}); save it with 8, scaled as you "
                f"want it, or give its numbers as the data set `tensor_files`"
            )
        shown = picture if mode == "mask" else picture.convert("RGB")
        if size is not None:
            high, wide = (size, size) if isinstance(size, int) else size
            smooth = Image.Resampling.NEAREST if mode == "mask" else Image.Resampling.BILINEAR
            shown = shown.resize((wide, high), smooth)
        pixels = np.asarray(shown)
    return pixels.astype(np.int64) if mode == "mask" else pixels.astype(np.uint8).transpose(2, 0, 1)


def shape_of(file: Path, *, what: str) -> tuple[int, int]:
    """Height and width in pixels, of the head of a file; raises DataError where it is no picture."""
    failing = blame(DataError, f"{what}: {file} cannot be read as a picture", then="Repair or remove it.")
    with failing, warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with Image.open(file, formats=FORMATS) as picture:
            return picture.height, picture.width


def pictures_in(folder: Path) -> Iterator[Path]:
    """Files below a folder that are pictures by their name, in alphabetical order."""
    return iter(sorted(file for file in folder.glob("**/*") if file.suffix.lower() in ENDINGS))
