"""One image file -> pixels, or a message that says what is wrong with the file.

OpenCV fills the missing part of a truncated JPEG with grey and reports nothing; a benchmark would then score
grey crops. So the end of a file is looked at before it is decoded, and its header before memory is asked for.
"""

from __future__ import annotations

import io
import stat
import struct
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from harness.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["MAX_PIXELS", "header_size", "image_size", "read_image"]

MAX_PIXELS = 200_000_000  # a header that promises more is taken for a decompression bomb
_MAX_BYTES = 4 * MAX_PIXELS  # of a file: such an image with four channels, not packed at all
_MAX_SCANS = 100  # of a progressive JPEG, which has about ten; each goes over all its pixels
# Pillow would hand an EPS to Ghostscript, which is a programming language
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
# COCO's keypoints refer to pixels as stored; an EXIF rotation would turn the picture under them
_FLAGS = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
_JPEG_START, _JPEG_END, _SCAN = b"\xff\xd8", b"\xff\xd9", 0xDA
_PNG_START, _PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"
_HEADER = 1 << 16  # bytes in which the size of nearly every JPEG and PNG stands
_STANDALONE_MARKERS = {0x01, *range(0xD0, 0xD9)}  # TEM, RST0..RST7, SOI: no length follows
_NOT_A_FRAME = {0xC4, 0xC8, 0xCC}  # DHT, JPG, DAC share the range of the start-of-frame markers


def read_image(path: Path, expected: tuple[int, int] | None = None) -> np.ndarray:
    """Pixels of an image file: (height, width, 3) uint8 RGB. Grey becomes RGB, alpha and EXIF are ignored.

    `expected` is (width, height) according to the annotations. Raises DataError for a file that is missing,
    truncated, no image, larger than MAX_PIXELS, or of another size.
    """
    data = _bytes_of(path)
    size = _header_size(data, path)
    if expected is not None and size != tuple(expected):
        raise _other_size(path, size, expected)
    _refuse_incomplete(data, path)
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), _FLAGS)
    except cv2.error as error:
        raise _not_readable(path, f"image cannot be decoded ({error.err})") from None
    if pixels is None or pixels.shape[:2] != size[::-1]:
        raise _not_readable(path)
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB, dst=pixels)


def image_size(path: Path) -> tuple[int, int]:
    """(width, height) from the header; DataError as `read_image`. Whole JPEGs and PNGs are not decoded."""
    data = _bytes_of(path)
    size = _header_size(data, path)
    _refuse_incomplete(data, path)
    return size


def header_size(path: Path) -> tuple[int, int]:
    """(width, height) from the first bytes of a file, the rest unread; DataError as `read_image`."""
    start = _bytes_of(path, _HEADER)
    known = start.startswith((_PNG_START, _JPEG_START))
    if known and len(start) == _HEADER and start.startswith(_JPEG_START) and _jpeg_size(start) is None:
        start = _bytes_of(path)  # a large profile or preview stands before the picture
    return _header_size(start if known else _bytes_of(path), path)


def _bytes_of(path: Path, count: int = -1) -> bytes:
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):  # a pipe would be waited for
            raise DataError("image file is no file", where=str(path), expected="an image")
        if found.st_size > _MAX_BYTES:
            raise _too_large(path, f"file of {found.st_size:,} bytes")
        with path.open("rb") as file:
            return file.read(count)
    except FileNotFoundError:
        hint = "check the image folder" if path.parent.is_dir() else f"the folder {path.parent} does not exist"
        raise DataError("image file is missing", where=str(path), hint=hint) from None
    except OSError as error:
        raise DataError(f"image file cannot be read: {error.strerror}", where=str(path)) from None


def _header_size(data: bytes, path: Path) -> tuple[int, int]:
    """(width, height) as the header says. Raises DataError when it says nothing, or more than MAX_PIXELS."""
    size: tuple[int, int] | None = None
    if data.startswith(_PNG_START) and len(data) >= 24:
        size = struct.unpack(">II", data[16:24])
    elif data.startswith(_JPEG_START):
        size = _jpeg_size(data)
    elif data:
        size = _pillow_size(data, path)
    if size is None or min(size) < 1:
        raise _not_readable(path, "image file is empty" if not data else "not an image, or cut in its header")
    if size[0] * size[1] > MAX_PIXELS:
        raise _too_large(path, f"header promises {size[0]}x{size[1]} pixels")
    if data.startswith(_JPEG_START) and (scans := _scans(data)) > _MAX_SCANS:
        raise _too_large(path, f"has {scans} scans")
    return size


def _scans(data: bytes) -> int:
    """How often a scan begins in a JPEG; between its markers no 0xff is followed by anything but 0."""
    values = np.frombuffer(data, np.uint8)
    return int(np.count_nonzero(values[np.flatnonzero(values[:-1] == 0xFF) + 1] == _SCAN))


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) of the start-of-frame segment, ITU T.81 section B.2.2; None when there is none."""
    at = 2
    while at + 9 <= len(data):
        if data[at] != 0xFF:
            return None
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
        elif marker in _STANDALONE_MARKERS:
            at += 2
        elif 0xC0 <= marker <= 0xCF and marker not in _NOT_A_FRAME:
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            return width, height
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


def _pillow_size(data: bytes, path: Path) -> tuple[int, int] | None:
    try:
        return _opened(data).size
    except Exception as error:  # a damaged file raises almost anything
        if "Bomb" in type(error).__name__:
            raise _too_large(path, "header promises too many pixels") from None
        return None


def _opened(data: bytes) -> Image:
    """The image with its header read and no pixel decoded."""
    from PIL import Image

    return Image.open(io.BytesIO(data), formats=_FORMATS)


def _refuse_incomplete(data: bytes, path: Path) -> None:
    """Bytes after the end marker are common and harmless; Pillow refuses a picture that was really cut."""
    if data.startswith(_JPEG_START) and data.endswith(_JPEG_END):
        return
    if data.startswith(_PNG_START) and data.endswith(_PNG_END):
        return
    try:
        _opened(data).load()
    except Exception as error:  # a damaged file raises almost anything
        hint = "copy or download the file again"
        raise DataError(f"image file is truncated ({error})", where=str(path), hint=hint) from None


def _not_readable(path: Path, what: str = "image cannot be decoded") -> DataError:
    return DataError(
        what,
        where=str(path),
        expected="a complete JPEG, PNG or other image that OpenCV reads",
        hint="copy or download the file again",
    )


def _too_large(path: Path, what: str) -> DataError:
    return DataError(
        f"image {what}, which is refused",
        where=str(path),
        expected=f"at most {MAX_PIXELS // 1_000_000} megapixels, stored as cameras store them",
        hint="make the image smaller and scale its annotations with it",
    )


def _other_size(path: Path, found: tuple[int, int], expected: tuple[int, int]) -> DataError:
    return DataError(
        f"image is {found[0]}x{found[1]} pixels, its annotation says {expected[0]}x{expected[1]}",
        where=str(path),
        expected="the file that was annotated, neither scaled nor rotated",
        hint="use the original images, or correct width and height in the annotation file",
    )
