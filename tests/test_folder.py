"""Folders of one's own pictures: each file is converted correctly or named in the error, with the reason."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
from folders import RED, is_color, one, refused, saved
from PIL import Image, features

from minidiff.data.decode import load_picture
from minidiff.data.folder import FolderPictures

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


def test_a_file_that_is_not_there_and_a_way_to_fit_that_is_none_get_a_sentence(tmp_path):
    with pytest.raises(ValueError, match=r"none\.png: is no file"):
        load_picture(tmp_path / "none.png", 16)
    with pytest.raises(ValueError, match="`fit` must be one of crop, pad; got 'stretch'"):
        load_picture(tmp_path / "none.png", 16, fit="stretch")
