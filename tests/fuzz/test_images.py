"""Images that somebody damaged, or made to do damage."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from harness.data.reading import image_size, read_image
from harness.errors import DataError

KINDS = {
    "jpeg": {}, "png": {}, "bmp": {}, "gif": {}, "webp": {}, "tiff": {},
    "progressive": {"format": "JPEG", "progressive": True}, "lossless": {"format": "WEBP", "lossless": True},
    "packed": {"format": "TIFF", "compression": "tiff_lzw"},
}  # fmt: skip


def _encoded(how: dict, kind: str) -> bytes:
    pixels = np.random.default_rng(0).integers(256, size=(24, 32, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, **({"format": kind.upper()} | how))
    return stream.getvalue()


VALID = [_encoded(how, kind) for kind, how in KINDS.items()]


@pytest.mark.filterwarnings("ignore")  # Pillow's, on damaged files
def test_changed_images_are_read_or_refused(fuzz, tmp_path):
    path = tmp_path / "image"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        try:
            width, height = image_size(path)
        except DataError:
            width = 0
        pixels = read_image(path)
        assert pixels.shape == (height, width, 3) and pixels.dtype == np.uint8

    fuzz.bytes(VALID, read)
