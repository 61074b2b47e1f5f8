"""Folders of one's own pictures: each file is converted correctly or named in the error, with the reason."""

import io
import json
import os
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, features

from minidiff.data.folder import CaptionedPictures, FolderPictures, from_torchvision

RED = (255, 0, 0)


def one(folder, size=16, **options):
    """The only picture of a folder."""
    loaded = FolderPictures(folder, size, {path.name: "a thing" for path in folder.iterdir()}, **options)
    assert len(loaded) == 1 and loaded.pictures.dtype == torch.uint8 and loaded.pictures.shape == (1, 3, size, size)
    return loaded.pictures[0]


def refused(folder, captions=None, size=16):
    """The sentence that a folder is refused with."""
    with pytest.raises(ValueError, match=r"`\w+`") as caught:
        FolderPictures(folder, size, captions)
    message = str(caught.value)
    assert "\n" not in message
    return message


def saved(path, mode="RGB", color=RED, size=(20, 20), **options):
    Image.new(mode, size, color).save(path, **options)
    return path


def is_color(picture, color, tolerance=0):
    gap = (picture.int() - torch.tensor(color)[:, None, None]).abs().max()
    return int(gap) <= tolerance


# --- converted correctly


@pytest.mark.parametrize("suffix", ["png", "jpg", "jpeg", "webp", "gif", "bmp", "tif", "tiff", "JPG"])
def test_every_usual_format_is_read(tmp_path, suffix):
    saved(tmp_path / f"a.{suffix}")
    assert is_color(one(tmp_path), RED, tolerance=2)


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")
def test_avif_is_read(tmp_path):
    saved(tmp_path / "a.avif")
    assert is_color(one(tmp_path), RED, tolerance=4)


def test_grey_and_black_and_white_become_rgb(tmp_path):
    saved(tmp_path / "a.png", "L", 100)
    assert is_color(one(tmp_path), (100, 100, 100))
    saved(tmp_path / "a.png", "1", 1)
    assert is_color(one(tmp_path), (255, 255, 255))


def test_cmyk_becomes_rgb(tmp_path):
    saved(tmp_path / "a.jpg", "CMYK", (0, 255, 255, 0))
    assert is_color(one(tmp_path), RED, tolerance=2)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA-like palette", "RGB with a transparent color"])
def test_transparency_is_laid_on_white(tmp_path, mode):
    if mode == "RGBA":
        saved(tmp_path / "a.png", "RGBA", (0, 0, 0, 51))
    elif mode == "LA":
        saved(tmp_path / "a.png", "LA", (0, 51))
    elif mode == "PA-like palette":
        image = Image.new("P", (20, 20), 0)
        image.putpalette([0, 0, 0] * 256)
        image.save(tmp_path / "a.png", transparency=bytes([51] * 256))
    else:
        saved(tmp_path / "a.png", "RGB", (9, 9, 9), transparency=(9, 9, 9))
    value = 255 if mode.startswith("RGB w") else 204  # black at 20 % on white
    assert is_color(one(tmp_path), (value,) * 3, tolerance=1)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_are_scaled_and_not_cut_off(tmp_path, suffix):
    Image.fromarray(np.full((20, 20), 32768, dtype=np.uint16)).save(tmp_path / f"a.{suffix}")
    assert is_color(one(tmp_path), (128,) * 3)


def test_sixteen_bits_per_channel_in_color_are_scaled(tmp_path):
    (tmp_path / "a.png").write_bytes(png(20, 20, depth=16, kind=2, row=struct.pack(">HHH", 65535, 32768, 0) * 20))
    assert is_color(one(tmp_path), (255, 128, 0))


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "tif"])
def test_of_a_moving_picture_the_first_frame_is_taken(tmp_path, suffix):
    frames = [Image.new("RGB", (20, 20), color) for color in (RED, (0, 0, 255))]
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:])
    assert is_color(one(tmp_path), RED, tolerance=2)


def test_the_camera_s_rotation_is_undone(tmp_path):
    image = Image.new("RGB", (32, 32), RED)
    image.paste((0, 0, 255), (0, 0, 32, 16))  # blue above red
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn by 90 degrees to the right to see it upright"
    image.save(tmp_path / "a.png", exif=exif)
    upright = one(tmp_path)
    assert is_color(upright[:, :, :6], RED, 1) and is_color(upright[:, :, 10:], (0, 0, 255), 1)


def test_crop_cuts_the_middle_out_and_pad_adds_white(tmp_path):
    image = Image.new("RGB", (40, 20), (0, 0, 255))
    image.paste(RED, (10, 0, 30, 20))
    image.save(tmp_path / "a.png")
    assert is_color(one(tmp_path)[:, :, 2:-2], RED)
    padded = one(tmp_path, fit="pad")
    assert is_color(padded[:, :4], (255, 255, 255)) and is_color(padded[:, 4:12, 6:10], RED, 1)


# --- named in the error


def png(width, height, depth=8, kind=0, row=b""):
    """A PNG whose header says what we like."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    body = zlib.compress((b"\0" + row) * (height if row else 1))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def jpeg_bytes():
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, "jpeg")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("empty.png", b"", "is empty"),
        ("text.png", b"hello, I am no picture", "is no picture in a known format"),
        ("cut.jpg", jpeg_bytes()[:1500], "cannot be decoded"),
        ("bomb.png", png(20_000, 20_000), "more than 64 million pixels"),
        ("large.png", png(9_000, 9_000), "more than 64 million pixels"),
        ("short.png", png(100, 100, row=b"")[:60], "cannot be decoded"),
        ("phone.heic", b"x", "convert .heic to .png"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_with_the_reason(tmp_path, name, content, why):
    (tmp_path / name).write_bytes(content)
    saved(tmp_path / "good.png")
    message = refused(tmp_path, {name: "a", "good.png": "b"})
    assert f"{name} " in message and why in message and "good.png" not in message


def test_flipped_bytes_never_give_anything_but_a_sentence(tmp_path):
    rng, whole = np.random.default_rng(0), [jpeg_bytes(), png(8, 8, row=b"\7" * 8)]
    path = tmp_path / "a.png"
    for _ in range(100):
        data = bytearray(whole[rng.integers(2)])
        data[rng.integers(len(data))] = rng.integers(256)
        path.write_bytes(data[: rng.integers(1, len(data) + 1)])
        try:
            one(tmp_path)
        except ValueError as error:
            assert "a.png " in str(error)


def test_floating_point_pictures_are_named(tmp_path):
    Image.fromarray(np.zeros((20, 20), dtype=np.float32)).save(tmp_path / "a.tif")
    assert "a.tif cannot be decoded (mode F" in refused(tmp_path, {"a.tif": "a"})


def test_links_are_named_and_not_followed(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    secret = saved(tmp_path / "outside.png")
    try:
        (folder / "link.png").symlink_to(secret)
        (folder / "loop").symlink_to(folder)
    except OSError:
        pytest.skip("no links on this system")
    message = refused(folder)
    assert "link.png is a link" in message and "loop is a link" in message


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes on this system")
def test_a_pipe_is_named_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    assert "pipe.png is not a plain file" in refused(tmp_path)


def test_all_bad_files_are_named_at_once(tmp_path):
    for i in range(3):
        (tmp_path / f"{i}.png").write_bytes(b"x")
        (tmp_path / f"{i}.txt").write_text("a")
    message = refused(tmp_path)
    assert all(f"{i}.png" in message for i in range(3))


@pytest.mark.parametrize("kind", ["missing", "file", "empty"])
def test_a_folder_without_pictures_is_refused(tmp_path, kind):
    target = tmp_path / "x"
    if kind == "file":
        target.write_text("x")
    elif kind == "empty":
        target.mkdir()
    words = {"missing": "does not exist", "file": "is a file", "empty": "has none"}
    assert words[kind] in refused(target)


def test_size_and_fit_are_checked_first(tmp_path):
    assert "`size` must be an integer from 8 to 1024; got 4" in refused(tmp_path, size=4)
    with pytest.raises(ValueError, match=r"`fit` must be one of crop, pad; got 'crp'. Did you mean 'crop'\?"):
        FolderPictures(tmp_path, 16, fit="crp")


# --- captions


@pytest.fixture
def two(tmp_path):
    saved(tmp_path / "cat.png")
    (tmp_path / "more").mkdir()
    saved(tmp_path / "more" / "dog.png", color=(0, 0, 255))
    return tmp_path


CSV = 'file,caption\ncat.png,a cat\nmore/dog.png,"a dog, blue"\n'


@pytest.mark.parametrize("way", ["csv", "Windows csv", "jsonl", "metadata.csv", "txt", "mapping", "given file"])
def test_captions_are_found_wherever_they_stand(two, way):
    given = None
    lines = [{"file_name": "cat.png", "text": "a cat"}, {"file_name": "more/dog.png", "text": "a dog, blue"}]
    if way == "csv":
        (two / "captions.csv").write_text(CSV)
    elif way == "Windows csv":
        (two / "captions.csv").write_bytes(b"\xef\xbb\xbf" + CSV.replace("/", "\\").replace("\n", "\r\n").encode())
    elif way == "metadata.csv":
        (two / way).write_text(CSV)
    elif way == "jsonl":
        (two / "captions.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    elif way == "txt":
        (two / "cat.txt").write_text("a cat\n")
        (two / "more" / "dog.txt").write_text("a dog, blue")
    elif way == "mapping":
        given = {"cat.png": "a cat", "more/dog.png": "a dog, blue"}
    else:
        given = two / "words.csv"
        given.write_text(CSV)
    loaded = FolderPictures(two, 16, given)
    assert loaded.names == ["cat.png", "more/dog.png"] and loaded.captions == ["a cat", "a dog, blue"]
    assert is_color(loaded.pictures[0], RED) and is_color(loaded.pictures[1], (0, 0, 255))


@pytest.mark.parametrize(
    ("captions", "sentence"),
    [
        (None, "cat.png has no caption; more/dog.png has no caption"),
        ({"cat.png": "a cat"}, "more/dog.png has no caption"),
        ({"cat.png": " ", "more/dog.png": "a"}, "cat.png has an empty caption"),
        ({"cat.png": "a", "more/dog.png": "a", "../x.png": "a"}, "../x.png has a caption but is no picture in"),
    ],
)
def test_missing_empty_and_stray_captions_are_named(two, captions, sentence):
    assert sentence in refused(two, captions)


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("captions.csv", b"file,words\ncat.png,a\n", "row 1 of"),
        ("captions.csv", CSV.encode() + b"cat.png,another\n", "cat.png has two captions"),
        ("captions.csv", b"file,caption\ncat.png,\xff\xfe\n", "must be UTF-8"),
        ("captions.jsonl", b'{"file": "cat.png", "caption": "a"}\n{"file": \n', "row 2 of"),
        ("captions.jsonl", b"[1, 2]\n", "row 1 of"),
        ("captions.jsonl", b"[" * 100_000, "row 1 of"),
        ("captions.csv", b'file,caption\ncat.png,"' + b"x" * 200_000 + b'"\n', "row 1 of"),
    ],
)
def test_a_damaged_caption_file_is_named_with_its_row(two, name, content, sentence):
    (two / name).write_bytes(content)
    assert sentence in refused(two)


def test_a_caption_file_that_is_not_there_or_of_another_kind_is_named(two):
    assert "cannot be read from" in refused(two, two / "no.csv")
    assert "`captions` must be one of .csv, .jsonl; got '.xml'" in refused(two, two / "no.xml")


# --- as a training source


def test_a_batch_is_pictures_in_the_unit_range_and_captions():
    pictures = torch.tensor([0, 255], dtype=torch.uint8)[:, None, None, None].expand(2, 3, 8, 8)
    source = CaptionedPictures(pictures, ["black", "white"])
    x0, captions = source.batch(torch.tensor([1, 0, 1]))
    assert captions == ["white", "black", "white"] and x0[:, 0, 0, 0].tolist() == [1, -1, 1]
    assert sorted(source.order(0, 0).tolist()) == [0, 1] and torch.equal(source.order(3, 4), source.order(3, 4))
    with pytest.raises(ValueError, match=r"one entry per picture \(2\).* got 1 captions"):
        CaptionedPictures(pictures, ["black"])


class Classes(list):
    classes = ("cat", "dog")


@pytest.mark.parametrize(
    "picture",
    [
        Image.new("RGB", (20, 20), RED),
        torch.tensor([1.0, 0, 0])[:, None, None].expand(3, 20, 20),
        torch.tensor([255, 0, 0], dtype=torch.uint8)[:, None, None].expand(3, 20, 20),
    ],
    ids=["PIL", "float", "uint8"],
)
def test_torchvision_items_become_pictures_names_and_labels(picture):
    loaded = from_torchvision(Classes([(picture, 1), (picture, 0), (picture, 0)]), 16, limit=2)
    assert (
        loaded.captions == ["dog", "cat"] and loaded.labels is not None and loaded.labels.tolist() == [2, 1]
    )  # 0 means no label
    assert is_color(loaded.pictures[0], RED)


def test_a_grey_tensor_becomes_rgb_and_captions_stay_captions():
    grey = torch.full((1, 20, 20), 0.2)
    loaded = from_torchvision([(grey, "a wall"), (grey, ["fog", "mist"])], 16)
    assert is_color(loaded.pictures[0], (51,) * 3) and loaded.captions == ["a wall", "fog"] and loaded.labels is None


def test_a_real_torchvision_dataset_works():
    datasets = pytest.importorskip("torchvision.datasets")
    loaded = from_torchvision(datasets.FakeData(size=3, image_size=(3, 24, 24), num_classes=5), 16)
    assert loaded.pictures.shape == (3, 3, 16, 16) and loaded.labels is not None and loaded.labels.min() >= 1


@pytest.mark.parametrize(
    ("items", "sentence"),
    [
        ([], "must have at least one item"),
        ([(torch.full((3, 9, 9), 2.0), 0)], r"item 0 .* uint8 or in \[0, 1\]"),
        ([(torch.zeros(9, 9), 0)], r"item 0 .* \(1 or 3, H, W\)"),
        ([("cat.png", 0)], "item 0 is no usable picture"),
        ([(torch.zeros(3, 9, 9), None)], "item 0 must have a class number or a caption"),
        (Classes([(torch.zeros(3, 9, 9), 2)]), "item 0 must have a class number"),
    ],
)
def test_an_unusable_item_is_named(items, sentence):
    with pytest.raises(ValueError, match=sentence):
        from_torchvision(items, 16)
