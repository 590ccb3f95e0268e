from __future__ import annotations

import json
import threading

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.data import boxes, coco, crops, reading
from harness.errors import DataError
from harness.pose.skeletons import COCO

SIZE = (64, 48)


# --- geometry


@pytest.mark.parametrize(
    ("key", "options"),
    [
        ("hrnet", {}),
        ("hrnet_inv", {"inverse": True}),
        ("mm0", {}),
        ("mm0_inv", {"inverse": True}),
        ("mm1", {}),
        ("mm0_udp", {"udp": True}),
        ("mm1_udp", {"udp": True}),
    ],
)
def test_affine_equals_the_published_matrices(golden, key, options):
    arrays = golden("affine")
    for (cx, cy, sx, sy, rotation, w, h), theirs in zip(arrays["cases_cx_cy_sx_sy_rot_w_h"], arrays[key]):
        ours = crops.affine((cx, cy), (sx, sy), rotation, (int(h), int(w)), **options)
        assert np.abs(ours - theirs).max() <= 1e-4 * np.abs(theirs).max()
        np.testing.assert_allclose(ours[:, :2], theirs[:, :2], rtol=1e-4, atol=1e-6)


def test_centers_and_scales_equal_the_published_ones(golden):
    arrays = golden("affine")
    for (w, h), centers, scales in zip(arrays["box_out_wh"], arrays["box_centers"], arrays["box_scales"]):
        ours = crops.center_scale(arrays["boxes_xywh"], (int(h), int(w)))
        assert [array.dtype for array in ours] == [np.float32, np.float32]
        np.testing.assert_array_equal(ours[0], centers)
        np.testing.assert_allclose(ours[1], scales, rtol=1e-6)


@pytest.mark.parametrize("rotation", [0, 30])
@pytest.mark.parametrize(("key", "udp"), [("std", False), ("udp", True)])
def test_crops_equal_the_published_ones(golden, key, udp, rotation):
    arrays = golden("affine")
    matrix = crops.affine(arrays["crop_center"], arrays["crop_scale"], rotation, (256, 192), udp=udp)
    ours = crops.warp(arrays["crop_image"], matrix, (256, 192))
    difference = np.abs(ours.astype(int) - arrays[f"crop_{key}_rot{rotation}"])
    assert ours.dtype == np.uint8 and difference.max() <= 2


def test_a_box_by_hand():
    # 60x120 at (10, 20), input 256x192: aspect 0.75 < 0.5 is false, so the width grows from 60 to 90
    centers, scales = crops.center_scale([[10, 20, 60, 120]], (256, 192))
    np.testing.assert_allclose(centers, [[40, 80]])
    np.testing.assert_allclose(scales, [[90 / 200 * 1.25, 120 / 200 * 1.25]], rtol=1e-6)


@pytest.mark.parametrize(("udp", "last"), [(False, (48, 64)), (True, (47, 63))])
def test_box_corners_land_on_the_corners_of_the_crop(udp, last):
    # a box of the crop's aspect without padding: 24x32 at (100, 50)
    center, scale = crops.center_scale([100, 50, 24, 32], SIZE, padding=1.0)
    matrix = crops.affine(center, scale, 0, SIZE, udp=udp)
    np.testing.assert_allclose(matrix @ [100, 50, 1], [0, 0], atol=1e-4)
    np.testing.assert_allclose(matrix @ [124, 82, 1], last, atol=1e-4)


def test_a_quarter_turn_by_hand():
    matrix = crops.affine((100, 100), (48 / 200, 64 / 200), 90, SIZE)
    np.testing.assert_allclose(matrix @ [100, 100, 1], [24, 32], atol=1e-4)
    np.testing.assert_allclose(matrix @ [110, 100, 1], [24, 22], atol=1e-4)


_coordinate = st.floats(-500, 2000, width=32)
_extent = st.floats(0.0625, 10, width=32)


@settings(max_examples=60, deadline=None)
@given(_coordinate, _coordinate, _extent, _extent, st.floats(-180, 180), st.booleans())
def test_there_and_back_is_the_identity(cx, cy, sx, sy, rotation, udp):
    there = crops.affine((cx, cy), (sx, sy), rotation, (256, 192), udp=udp)
    back = crops.affine((cx, cy), (sx, sy), rotation, (256, 192), udp=udp, inverse=True)
    points = np.array([[cx, cy, 1], [cx + 100 * sx, cy, 1], [cx, cy - 100 * sy, 1]]).T
    again = back @ np.vstack([there @ points, np.ones(3)])
    np.testing.assert_allclose(again, points[:2], atol=0.02)  # the three points are float32


@settings(max_examples=60, deadline=None)
@given(
    _coordinate,
    _coordinate,
    st.floats(1, 900),
    st.floats(1, 900),
    st.sampled_from([(256, 192), (384, 288), (256, 256)]),
)
def test_scales_have_the_aspect_of_the_input_and_hold_the_padded_box(x, y, w, h, size):
    center, scale = crops.center_scale((x, y, w, h), size)
    assert scale[0] / scale[1] == pytest.approx(size[1] / size[0], rel=1e-5)
    assert (scale * 200 >= np.array([w, h]) * 1.25 * (1 - 1e-5)).all()
    np.testing.assert_allclose(center, [x + w / 2, y + h / 2], rtol=1e-5, atol=1e-3)


def test_the_warp_is_black_outside_the_image():
    image = np.full((20, 20, 3), 255, np.uint8)
    crop = crops.warp(image, crops.affine((0, 0), (40 / 200, 40 / 200), 0, (40, 40)), (40, 40))
    assert crop[:19, :19].max() == 0 and crop[21:39, 21:39].min() == 255


@pytest.mark.parametrize("scale", [(0, 0), (-1, 1), (np.nan, 1), (np.inf, 1)])
def test_an_impossible_scale_is_refused(scale):
    with pytest.raises(DataError, match=r"no crop of center"):
        crops.affine((1, 2), scale, 0, SIZE)


# --- reading


def _picture(height=40, width=60, seed=0):
    noise = np.random.default_rng(seed).integers(0, 255, (height // 10, width // 10, 3), dtype=np.uint8)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)


def _save(path, rgb):
    channels = {2: None, 3: cv2.COLOR_RGB2BGR, 4: cv2.COLOR_RGBA2BGRA}
    code = channels[rgb.shape[2] if rgb.ndim == 3 else 2]
    assert cv2.imwrite(str(path), rgb if code is None else cv2.cvtColor(rgb, code))
    return path


def test_pixels_come_as_rgb(tmp_path):
    picture = _picture()
    np.testing.assert_array_equal(reading.read_image(_save(tmp_path / "a.png", picture), (60, 40)), picture)


@pytest.mark.parametrize("extension", ["png", "jpg", "bmp", "webp"])
def test_grey_images_become_rgb(tmp_path, extension):
    grey = np.full((40, 60), 77, np.uint8)
    image = reading.read_image(_save(tmp_path / f"a.{extension}", grey), (60, 40))
    assert image.shape == (40, 60, 3) and np.abs(image.astype(int) - 77).max() <= 2


def test_alpha_is_dropped(tmp_path):
    picture = np.dstack([_picture(), np.full((40, 60), 9, np.uint8)])
    np.testing.assert_array_equal(reading.read_image(_save(tmp_path / "a.png", picture)), picture[..., :3])


def test_exif_orientation_is_ignored(tmp_path):
    from PIL import Image

    image = Image.fromarray(_picture())
    exif = image.getexif()
    exif[0x0112] = 6  # turn by 90 degrees
    image.save(tmp_path / "a.jpg", exif=exif)
    assert reading.read_image(tmp_path / "a.jpg", (60, 40)).shape == (40, 60, 3)


@pytest.mark.parametrize("extension", ["jpg", "png", "bmp", "webp"])
@pytest.mark.parametrize("keep", [0.15, 0.5, 0.9])
@pytest.mark.parametrize("read", [reading.read_image, reading.image_size])
def test_a_truncated_file_is_refused(tmp_path, extension, keep, read):
    path = _save(tmp_path / f"a.{extension}", _picture(400, 600))
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
    with pytest.raises(DataError, match=rf"a\.{extension}: .*(truncated|cut in its header|decoded)"):
        read(path)


def test_a_jpeg_filled_up_with_zeros_is_refused(tmp_path):
    path = _save(tmp_path / "a.jpg", _picture(400, 600))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] + bytes(len(data) // 2))
    with pytest.raises(DataError, match=r"truncated"):
        reading.read_image(path)


@pytest.mark.parametrize("progressive", [False, True])
def test_bytes_after_the_end_of_a_jpeg_are_harmless(tmp_path, progressive):
    path = tmp_path / "a.jpg"
    cv2.imwrite(str(path), _picture(400, 600), [cv2.IMWRITE_JPEG_PROGRESSIVE, int(progressive)])
    whole = reading.read_image(path)
    path.write_bytes(path.read_bytes() + b"\0" * 100 + b"trailer")
    np.testing.assert_array_equal(reading.read_image(path), whole)


def test_a_cut_jpeg_with_a_whole_thumbnail_is_refused(tmp_path):
    path = _save(tmp_path / "a.jpg", _picture(400, 600))
    thumbnail = cv2.imencode(".jpg", _picture())[1].tobytes()
    data = path.read_bytes()
    segment = b"\xff\xe5" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    path.write_bytes(data[:2] + segment + data[2 : len(data) // 2])
    with pytest.raises(DataError, match=r"truncated"):
        reading.read_image(path)


@pytest.mark.parametrize("data", [b"", b"no picture at all", b"\xff\xd8\xff\xd9", b"\x89PNG\r\n\x1a\n" + bytes(30)])
def test_a_file_that_is_no_image_is_refused(tmp_path, data):
    (tmp_path / "a.jpg").write_bytes(data)
    with pytest.raises(DataError, match=r"empty|not an image"):
        reading.read_image(tmp_path / "a.jpg")


def test_a_missing_image_is_named_with_its_folder(tmp_path):
    with pytest.raises(DataError, match=r"a\.jpg: image file is missing"):
        reading.read_image(tmp_path / "a.jpg")
    with pytest.raises(DataError, match=r"folder .*gone does not exist"):
        reading.read_image(tmp_path / "gone" / "a.jpg")


def test_another_size_than_annotated_is_refused(tmp_path):
    path = _save(tmp_path / "a.jpg", _picture())
    with pytest.raises(DataError, match=r"image is 60x40 pixels, its annotation says 40x60"):
        reading.read_image(path, (40, 60))


@pytest.mark.parametrize("extension", ["png", "jpg", "bmp"])
def test_a_decompression_bomb_is_refused_before_decoding(tmp_path, extension, monkeypatch):
    path = _save(tmp_path / f"a.{extension}", _picture())
    data = bytearray(path.read_bytes())
    at, order = {"png": (16, "big"), "jpg": (data.find(b"\xff\xc0") + 5, "big"), "bmp": (18, "little")}[extension]
    width = 2 if extension == "jpg" else 4
    data[at : at + 2 * width] = (60000).to_bytes(width, order) * 2
    path.write_bytes(data)
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    with pytest.raises(DataError, match=r"at most 200 megapixels"):
        reading.read_image(path)


# --- streams of crops


@pytest.fixture
def people(tmp_path):
    """Six images, the fourth without persons, 0 to 5 persons each, image ids not in order."""
    images, entries = [], []
    for at, identity in enumerate([30, 10, 50, 20, 60, 40]):
        picture = _picture(40 + 10 * at, 60, seed=at)
        _save(tmp_path / f"{identity}.png", picture)
        images.append({"id": identity, "file_name": f"{identity}.png", "width": 60, "height": 40 + 10 * at})
        for person in range(0 if at == 3 else at + 1):
            entries.append(
                {"id": len(entries), "image_id": identity, "category_id": 1, "iscrowd": 0, "num_keypoints": 1,
                 "bbox": [3 + 4 * person, 2 + person, 20, 25], "area": 300, "keypoints": [5, 5, 2] + [0] * 48}
            )  # fmt: skip
    content = {
        "images": images,
        "annotations": entries[::-1],
        "categories": [{"id": 1, "name": "person", "keypoints": list(COCO.joints)}],
    }
    (tmp_path / "gt.json").write_text(json.dumps(content))
    dataset = coco.load(tmp_path / "gt.json", tmp_path)
    return dataset, boxes.from_ground_truth(dataset)


def _stream(people, **options):
    return crops.iter_crops(*people, **{"input_size": SIZE, "udp": False, **options})


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("udp", [False, True])
def test_every_person_is_cut_as_if_alone(people, workers, udp):
    dataset, found = people
    centers, scales = crops.center_scale(found.xywh, SIZE)
    seen = []
    for image in _stream(people, workers=workers, udp=udp):
        picture = reading.read_image(dataset.image_folder / f"{image.image_id}.png")
        for index, crop, center, scale in zip(image.indices, image.crops, image.centers, image.scales):
            assert found.image_ids[index] == image.image_id
            np.testing.assert_array_equal(center, centers[index])
            np.testing.assert_array_equal(scale, scales[index])
            matrix = crops.affine(center, scale, 0, SIZE, udp=udp)
            np.testing.assert_array_equal(crop, crops.warp(picture, matrix, SIZE))
        seen.extend(image.indices.tolist())
    assert seen == list(range(len(found)))


@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_is_decoded_once_and_one_without_boxes_never(people, workers, monkeypatch):
    read, lock = [], threading.Lock()

    def counting(path, expected):
        with lock:
            read.append(path.stem)
        return reading.read_image(path, expected)

    monkeypatch.setattr(crops, "read_image", counting)
    assert [image.image_id for image in _stream(people, workers=workers)] == [30, 10, 50, 60, 40]
    assert sorted(read) == ["10", "30", "40", "50", "60"]


def test_reading_ahead_is_bounded(people, monkeypatch):
    read, enough = [], threading.Event()

    def counting(path, expected):
        read.append(path.stem)
        enough.set()
        return reading.read_image(path, expected)

    monkeypatch.setattr(crops, "read_image", counting)
    stream = _stream(people, workers=1)
    next(stream)
    assert enough.wait(5) and len(read) <= 2


def test_an_image_with_very_many_boxes_comes_in_parts_of_bounded_size(people, monkeypatch):
    whole = list(_stream(people))
    monkeypatch.setattr(crops, "_CROPS_AT_ONCE", 2)
    parts = list(_stream(people, workers=2))
    assert [p.image_id for p in parts] == [30, 10, 50, 50, 60, 60, 60, 40, 40, 40]
    for name in ("indices", "crops", "centers", "scales"):
        joined = np.concatenate([getattr(part, name) for part in parts])
        np.testing.assert_array_equal(joined, np.concatenate([getattr(image, name) for image in whole]))


@pytest.mark.parametrize("udp", [False, True])
@pytest.mark.parametrize("inverse", [False, True])
def test_many_matrices_at_once_are_those_of_one_at_a_time(udp, inverse):
    rng = np.random.default_rng(0)
    centers, scales = rng.uniform(-100, 900, (50, 2)), rng.uniform(0.01, 5, (50, 2))
    together = crops.affines(centers, scales, 30.0, (64, 48), udp=udp, inverse=inverse)
    alone = [crops.affine(c, s, 30.0, (64, 48), udp=udp, inverse=inverse) for c, s in zip(centers, scales)]
    np.testing.assert_array_equal(together, alone)
    with pytest.raises(DataError, match="no crop of center"):
        crops.affines(centers, np.where(np.arange(50)[:, None] == 7, np.nan, scales), 0.0, (64, 48), udp=udp)


def test_bgr_is_rgb_reversed(people):
    rgb, bgr = next(_stream(people)), next(_stream(people, colour="bgr"))
    np.testing.assert_array_equal(rgb.crops[..., ::-1], bgr.crops)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_of_a_worker_arrives_with_the_image_named(people, workers):
    dataset, _ = people
    (dataset.image_folder / "50.png").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"image 50, .*50\.png: not an image"):
        list(_stream(people, workers=workers))


def test_a_missing_image_is_an_error_or_is_skipped_and_counted(people):
    dataset, found = people
    (dataset.image_folder / "10.png").unlink()
    with pytest.raises(DataError, match=r"image 10, .*missing"):
        list(_stream(people))
    stream = _stream(people, missing="skip")
    got = [index for image in stream for index in image.indices.tolist()]
    assert stream.skipped == [10] and len(got) == len(found) - 2


def test_skipping_the_missing_does_not_hide_the_truncated(people):
    dataset, _ = people
    path = dataset.image_folder / "10.png"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match=r"image 10"):
        list(_stream(people, missing="skip"))


def test_boxes_of_another_dataset_are_refused(people):
    dataset, found = people
    with pytest.raises(DataError, match=r"boxes of 4 images that the dataset does not have"):
        crops.iter_crops(coco.limit(dataset, 1), found, input_size=SIZE, udp=False)


def test_an_abandoned_stream_gives_back_its_threads_and_opencvs_setting(people):
    before, threads = cv2.getNumThreads(), threading.active_count()
    stream = _stream(people, workers=2)
    next(stream)
    assert cv2.getNumThreads() == 1
    del stream
    assert cv2.getNumThreads() == before and threading.active_count() == threads


@pytest.mark.parametrize("size", [1, 4, 5, 1000])
def test_batches_are_full_and_in_order(people, size):
    alone = list(_stream(people))
    got = list(crops.batches(_stream(people), size))
    total = sum(len(image.indices) for image in alone)
    assert [len(batch.indices) for batch in got[:-1]] == [size] * ((total - 1) // size)
    for name in ("indices", "crops", "centers", "scales"):
        joined = np.concatenate([getattr(batch, name) for batch in got])
        np.testing.assert_array_equal(joined, np.concatenate([getattr(image, name) for image in alone]))


def test_no_boxes_give_no_batches(people):
    dataset, _ = people
    none = boxes.from_ground_truth(coco.subset(dataset, [20]))
    assert list(crops.batches(crops.iter_crops(dataset, none, input_size=SIZE, udp=False), 4)) == []


def test_a_yielded_batch_is_not_written_again(people):
    stream = crops.batches(_stream(people), 3)
    first = next(stream)
    copy = first.crops.copy()
    list(stream)
    np.testing.assert_array_equal(first.crops, copy)
