"""Images from files: IDX folders, folders of classes, any image; and images that are moved while training."""

import gzip
import struct
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image

from adamas.training import digits, idx, images
from adamas.training.idx import is_idx_folder, read_idx, read_idx_folder
from adamas.training.images import jiggle, read_image, read_image_folder

CODES = {"u1": 0x08, "i1": 0x09, ">i2": 0x0B, ">i4": 0x0C, ">f4": 0x0D, ">f8": 0x0E}


def idx_bytes(array):
    code = CODES[array.dtype.str.lstrip("|")]
    return bytes([0, 0, code, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_part(folder, part, levels, labels, zipped=False):
    folder.mkdir(exist_ok=True)
    for kind, array in ((f"{part}-images-idx3-ubyte", levels), (f"{part}-labels-idx1-ubyte", labels)):
        data = idx_bytes(np.asarray(array, np.uint8))
        (folder / f"{kind}{'.gz' if zipped else ''}").write_bytes(gzip.compress(data) if zipped else data)


def test_all_is_sorted():
    for module in (idx, images):
        assert module.__all__ == sorted(module.__all__)
        assert all(hasattr(module, name) for name in module.__all__)


# --- IDX --------------------------------------------------------------------------------------------------------------


@given(
    st.sampled_from(sorted(CODES)).flatmap(lambda dtype: hnp.arrays(dtype, hnp.array_shapes(max_dims=4, min_side=0))),
    st.booleans(),
)
def test_idx_files_come_back(tmp_path_factory, array, zipped):
    path = tmp_path_factory.getbasetemp() / "array.idx"
    path.write_bytes(gzip.compress(idx_bytes(array)) if zipped else idx_bytes(array))
    found = read_idx(path)
    assert found.dtype == array.dtype
    assert_array_equal(found, array)


@given(st.binary(max_size=40) | st.builds(lambda end: b"\0\0" + end, st.binary(max_size=40)))
def test_any_other_bytes_are_refused_or_are_an_array(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "hostile.idx"
    path.write_bytes(data)
    with suppress(ValueError):
        assert idx_bytes(read_idx(path)) == data


GOOD = idx_bytes(np.zeros((2, 3), np.uint8))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is not an IDX file: it starts with the bytes of nothing"),
        (b"\x89PNG\r\n", "is not an IDX file: it starts with the bytes 89 50 4e 47"),
        (b"\0\0\x07\1\0\0\0\0", "is not an IDX file"),
        (GOOD[:9], "ends within its 2 dimensions"),
        (GOOD[:-1], r"must have 18 bytes for an array of \(2, 3\), but has 17"),
        (GOOD + b"\0", "must have 18 bytes .* but has 19"),
        (b"\0\0\x08\3" + b"\xff" * 12, "must have 79,228,162,458,924,105,385,300,197,391 bytes .* but has 16"),
        (gzip.compress(GOOD)[:-9], "is a damaged gzip file"),
        (gzip.compress(GOOD)[:-5] + b"12345", "is a damaged gzip file"),
    ],
)
def test_damaged_idx_files(tmp_path, data, message):
    path = tmp_path / "file"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=message):
        read_idx(path)


@pytest.mark.parametrize("zipped", [False, True])
def test_an_idx_folder(tmp_path, zipped):
    levels = np.random.default_rng(0).integers(0, 256, (6, 4, 5))
    write_part(tmp_path, "train", levels, [7, 2, 2, 7, 2, 9], zipped)
    assert is_idx_folder(tmp_path)
    train, test = read_idx_folder(tmp_path)
    assert test is None
    assert train.classes == ("2", "7", "9")
    assert_array_equal(train.labels, [1, 0, 0, 1, 0, 2])
    assert train.inputs.dtype == np.float32
    assert_allclose(train.inputs, levels / 255, rtol=1e-6)
    write_part(tmp_path, "t10k", levels[:2], [9, 1], zipped)
    train, test = read_idx_folder(tmp_path)
    assert train.classes == test.classes == ("1", "2", "7", "9")
    assert_array_equal(test.labels, [3, 0])
    assert_array_equal(test.inputs, train.inputs[:2])


def test_idx_folders_that_do_not_fit(tmp_path):
    assert not is_idx_folder(tmp_path)
    write_part(tmp_path, "train", np.zeros((3, 4, 4)), [0, 1])
    with pytest.raises(ValueError, match="train-images-idx3-ubyte has 3 images and there are 2 labels"):
        read_idx_folder(tmp_path)
    write_part(tmp_path, "train", np.zeros((0, 4, 4)), [])
    with pytest.raises(ValueError, match="has 0 images"):
        read_idx_folder(tmp_path)
    write_part(tmp_path, "train", np.zeros((2, 4)), [0, 1])
    with pytest.raises(ValueError, match="must hold bytes in 3 dimensions, not uint8 in 2"):
        read_idx_folder(tmp_path)
    write_part(tmp_path, "train", np.zeros((2, 4, 4)), [0, 1])
    write_part(tmp_path, "t10k", np.zeros((2, 5, 4)), [0, 1])
    with pytest.raises(ValueError, match="has images of 4x4 and 5x4 to train and to test on"):
        read_idx_folder(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(ValueError, match=r"has no t10k-labels-idx1-ubyte, with or without .gz"):
        read_idx_folder(tmp_path)


# --- image files ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digit():
    return np.rint(digits().inputs[777] * 255).astype(np.uint8)


@pytest.mark.parametrize("invert", [False, True])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "I;16", "1"])
def test_ink_is_1_and_paper_0_whatever_the_file(tmp_path, digit, mode, invert):
    levels = np.where(digit > 127, 255, 0).astype(np.uint8) if mode == "1" else digit
    levels = 255 - levels if invert else levels
    image = Image.fromarray(levels.astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(levels).convert(mode)
    image.save(tmp_path / "image.png")
    found = read_image(tmp_path / "image.png", (28, 28))
    assert found.dtype == np.float32
    expected = (255 - levels if invert else levels) / 255
    assert_allclose(found, expected, atol=1e-6)


def test_ink_on_what_is_transparent(tmp_path, digit):
    black_ink = np.zeros((28, 28, 4), np.uint8)
    black_ink[..., 3] = digit
    Image.fromarray(black_ink).save(tmp_path / "image.png")
    assert_allclose(read_image(tmp_path / "image.png", (28, 28)), digit / 255, atol=0.005)


def test_proportions_are_kept_and_the_border_filled(tmp_path):
    levels = np.full((10, 40), 230, np.uint8)
    levels[2:6, 10:30] = 0
    Image.fromarray(levels).save(tmp_path / "wide.png")
    found = read_image(tmp_path / "wide.png", (20, 20))
    assert found.shape == (20, 20)
    assert_allclose(found[:6], 1 - 230 / 255, atol=0.01)
    assert_allclose(found[9:11, 7:13], 1, atol=0.1)


@pytest.mark.parametrize("data", [b"", b"text", b"\x89PNG\r\n\x1a\n\0\0"])
def test_what_is_no_image_is_named(tmp_path, data):
    (tmp_path / "note.png").write_bytes(data)
    with pytest.raises(ValueError, match=r"note.png cannot be used: no image that Pillow opens"):
        read_image(tmp_path / "note.png", (28, 28))


def test_a_truncated_image_and_a_missing_one_are_named(tmp_path, digit):
    Image.fromarray(digit).save(tmp_path / "image.png")
    whole = (tmp_path / "image.png").read_bytes()
    for length in range(0, len(whole) - 20, 30):
        (tmp_path / "image.png").write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"image.png cannot be used: "):
            read_image(tmp_path / "image.png", (28, 28))
    with pytest.raises(FileNotFoundError, match=r"missing.png"):
        read_image(tmp_path / "missing.png", (28, 28))


def test_a_folder_of_classes(tmp_path, digit):
    for name, count in (("seven", 3), ("one", 2), (".git", 1)):
        (tmp_path / name).mkdir()
        for k in range(count):
            Image.fromarray(digit).save(tmp_path / name / f"{k}.{'jpg' if k else 'png'}")
    (tmp_path / "one" / ".DS_Store").write_bytes(b"anything")
    (tmp_path / "README").write_text("about")
    found = read_image_folder(tmp_path, (14, 12))
    assert found.classes == ("one", "seven")
    assert_array_equal(found.labels, [0, 0, 1, 1, 1])
    assert found.inputs.shape == (5, 14, 12)
    (tmp_path / "one" / "notes.txt").write_text("no image")
    with pytest.raises(ValueError, match=r"notes.txt cannot be used"):
        read_image_folder(tmp_path, (14, 12))


def test_folders_without_classes(tmp_path):
    with pytest.raises(ValueError, match=r"holds neither IDX files .* nor a folder for each class"):
        read_image_folder(tmp_path, (28, 28))
    for name in "ab":
        Path(tmp_path / name).mkdir()
    with pytest.raises(ValueError, match="a has no images: fill or remove it"):
        read_image_folder(tmp_path, (28, 28))


# --- images that move -------------------------------------------------------------------------------------------------


def test_moved_images_are_seeded_new_each_time_and_near_the_old(digit):
    before = np.stack([digit / np.float32(255)] * 50)
    kept = before.copy()
    first, again, other = (jiggle(before, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert_array_equal(before, kept)
    assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert not np.array_equal(first[0], first[1])
    assert (first.shape, first.dtype) == (before.shape, before.dtype)
    assert first.min() >= 0
    assert first.max() <= 1 + 1e-6
    ink = first.sum(axis=(1, 2)) / before[0].sum()
    assert 0.7 < ink.min() < ink.max() < 1.3, "scaled by a tenth either way"
    rows, columns = np.indices((28, 28))
    for axis in (rows, columns):
        middle = (first * axis).sum(axis=(1, 2)) / first.sum(axis=(1, 2))
        shift = middle - (before[0] * axis).sum() / before[0].sum()
        assert np.abs(shift).max() < 0.1 * 28 + 1.5
        assert np.abs(shift).max() > 1


def test_turning_keeps_the_proportions_of_images_that_are_not_square():
    wide = np.zeros((200, 20, 60), np.float32)
    wide[:, 8:12, 28:32] = 1  # a square of 4 by 4
    rows, columns = np.indices((20, 60))
    moved = jiggle(wide, np.random.default_rng(0))
    ink = moved.sum(axis=(1, 2))
    inside = ink > 8  # not shifted out
    spread = []
    for axis in (rows, columns):
        middle = (moved * axis).sum(axis=(1, 2)) / ink
        spread.append(((moved * (axis - middle[:, None, None]) ** 2).sum(axis=(1, 2)) / ink)[inside])
    assert inside.all()
    assert_allclose(np.mean(spread[0]), np.mean(spread[1]), rtol=0.02)
