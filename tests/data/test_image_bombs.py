"""Images that ask for more than they are worth, or for another program."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from harness.data import coco, reading
from harness.errors import DataError

SIDE = 50_000
ROOT = Path(__file__).resolve().parents[2]


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _png(width: int, height: int, *extra: bytes) -> bytes:
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n"
        + header
        + b"".join(extra)
        + _chunk(b"IDAT", zlib.compress(bytes(height * (1 + 3 * width) if width < SIDE else 1)))
    )


def _jpeg(width: int, height: int) -> bytes:
    frame = struct.pack(">BHHB", 8, height, width, 3) + b"\x01\x11\x00\x02\x11\x00\x03\x11\x00"
    return b"\xff\xd8\xff\xc0" + struct.pack(">H", len(frame) + 2) + frame + b"\xff\xd9"


def _webp(width: int, height: int) -> bytes:
    canvas = bytes(4) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, "WEBP", lossless=True)
    chunks = b"VP8X" + struct.pack("<I", len(canvas)) + canvas + stream.getvalue()[12:]
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WEBP" + chunks


def _tiff(width: int, height: int) -> bytes:
    tags = [(256, width), (257, height), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, height), (279, 100)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)


def _gif(width: int, height: int) -> bytes:
    stream = io.BytesIO()
    Image.new("P", (8, 8)).save(stream, "GIF")
    return stream.getvalue()[:6] + struct.pack("<HH", width, height) + stream.getvalue()[10:]


def _bmp(width: int, height: int) -> bytes:
    return b"BM" + struct.pack("<IHHI", 100, 0, 0, 54) + struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, *[0] * 6)


BOMBS = {"png": _png, "jpg": _jpeg, "webp": _webp, "tiff": _tiff, "gif": _gif, "bmp": _bmp}


@pytest.mark.parametrize("kind", BOMBS)
@pytest.mark.parametrize("read", [reading.read_image, reading.image_size])
def test_a_header_of_50_000_by_50_000_pixels_is_refused_before_decoding(tmp_path, kind, read, monkeypatch):
    (tmp_path / "bomb").write_bytes(BOMBS[kind](SIDE, SIDE))
    for decoder in ("imdecode", "imread"):
        monkeypatch.setattr(cv2, decoder, lambda *_: pytest.fail("decoded"))
    monkeypatch.setattr(Image.Image, "load", lambda *_: pytest.fail("decoded"))
    with pytest.raises(DataError, match=r"bomb: image header promises .*pixels, which is refused"):
        read(tmp_path / "bomb")


def test_png_chunks_that_unpack_to_hundreds_of_megabytes_fill_no_memory(tmp_path):
    packed = zlib.compress(bytes(200_000_000), 9)
    for chunk, head in ((b"zTXt", b"key\0\0"), (b"iCCP", b"key\0\0"), (b"iTXt", b"key\0\1\0\0\0")):
        (tmp_path / f"{chunk.decode()}.png").write_bytes(
            _png(8, 8, _chunk(chunk, head + packed)) + _chunk(b"IEND", b"")
        )
    code = (
        "import resource, sys\nfrom pathlib import Path\nfrom harness.data.reading import read_image\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for path in sys.argv[1:]: assert read_image(Path(path)).shape == (8, 8, 3)\n"
        "assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000, 'kB'"
    )
    files = [str(path) for path in tmp_path.iterdir()]
    done = subprocess.run([sys.executable, "-c", code, *files], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_a_jpeg_of_a_thousand_scans_is_refused_before_decoding(tmp_path, monkeypatch):
    picture = np.zeros((16, 16, 3), np.uint8)
    data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    last = data.rfind(b"\xff\xda")
    (tmp_path / "a.jpg").write_bytes(data[:last] + data[last:-2] * 1000 + b"\xff\xd9")
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    with pytest.raises(DataError, match=r"image has 1\d\d\d scans"):
        reading.read_image(tmp_path / "a.jpg")


def test_a_postscript_file_is_no_image_and_starts_no_program(tmp_path, monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a program was started"))
    text = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n(x) print\n%%EOF\n"
    (tmp_path / "a.jpg").write_bytes(text)
    with pytest.raises(DataError, match="not an image"):
        reading.read_image(tmp_path / "a.jpg")


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.jpg")
    with pytest.raises(DataError, match="no file"):
        reading.read_image(tmp_path / "a.jpg")


def test_a_link_out_of_the_data_root_is_refused_by_name(tmp_path):
    import json

    images, secret = tmp_path / "root" / "images", tmp_path / "secret.jpg"
    images.mkdir(parents=True)
    cv2.imwrite(str(secret), np.zeros((4, 5, 3), np.uint8))
    (images / "1.jpg").symlink_to(secret)
    category = {"id": 1, "name": "person", "keypoints": ["x"] * 17}
    entry = {"id": 1, "file_name": "1.jpg", "width": 5, "height": 4}
    gt = tmp_path / "root" / "gt.json"
    gt.write_text(json.dumps({"images": [entry], "annotations": [], "categories": [category]}))
    with pytest.raises(DataError, match=r"images/1\.jpg: the image is a link to a place outside"):
        coco.load(gt, images)
    assert coco.load(gt, images, root=tmp_path).images[0].file == "1.jpg"
