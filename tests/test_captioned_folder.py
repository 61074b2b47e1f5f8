"""Pictures of one's own with their captions, as a training source."""

import json

import pytest
import torch
from folders import RED, is_color, refused, saved
from PIL import Image
from small_models import small_clip

from minidiff.data.folder import CaptionedPictures, EncodedPictures, FolderPictures, from_torchvision


@pytest.fixture
def two(tmp_path):
    saved(tmp_path / "cat.png")
    (tmp_path / "more").mkdir()
    saved(tmp_path / "more" / "dog.png", color=(0, 0, 255))
    return tmp_path


CSV = 'file,caption\ncat.png,a cat\nmore/dog.png,"a dog, blue"\n'


@pytest.mark.parametrize("odd", ["\u2028", "\x85", "\x0b"])
def test_a_line_ends_where_the_format_says_and_not_where_unicode_would(two, odd):
    said = f"a cat{odd}that sleeps"
    rows = [{"file": "cat.png", "caption": said}, {"file": "more/dog.png", "caption": "a dog"}]
    lines = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    for name, text in (("a.jsonl", lines), ("a.csv", f'file,caption\ncat.png,"{said}"\nmore/dog.png,a dog\n')):
        (two / name).write_text(text, encoding="utf-8")
        assert FolderPictures(two, 16, two / name).captions == ["a cat that sleeps", "a dog"]


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
        ("captions.jsonl", b'"cat.png"\n', "row 1 of"),
        ("captions.jsonl", b"null\n", "row 1 of"),
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
    with pytest.raises(ValueError, match=r"`pictures` must be a uint8 tensor, from 0 to 255; got torch\.float32"):
        CaptionedPictures(pictures.float(), ["black", "white"])


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


def test_a_row_may_end_in_empty_columns_as_spreadsheets_write_them(two):
    (two / "captions.csv").write_text("file,caption\ncat.png,a cat,,\nmore/dog.png,a dog,\n")
    assert FolderPictures(two, 16).captions == ["a cat", "a dog"]


def test_a_comma_in_a_caption_wants_quotes(two):
    (two / "captions.csv").write_text("file,caption\ncat.png,a cat, black\nmore/dog.png,a dog\n")
    with pytest.raises(ValueError, match=r"row 1 .*more columns than the first row: put a caption with a comma"):
        FolderPictures(two, 16)


def test_captions_are_read_once_by_a_frozen_encoder() -> None:
    clip, captions = small_clip(), ["a cat face", "rocket", "a red heart, noto style"]
    pictures = CaptionedPictures(torch.randint(256, (3, 3, 8, 8), dtype=torch.uint8), captions)
    told = EncodedPictures(pictures, clip)
    assert len(told) == 3 and sorted(told.order(0, 0).tolist()) == [0, 1, 2]
    x, cond = told.batch(torch.tensor([2, 0]))
    assert torch.equal(x, pictures.batch(torch.tensor([2, 0]))[0]) and cond.text is not None
    for got, wanted in zip(cond.text, clip(captions), strict=True):
        assert torch.equal(got, wanted[[2, 0]])
    many = 100 * captions  # read in parts: the longest caption of the first is not that of the last
    few = EncodedPictures(CaptionedPictures(pictures.pictures.repeat(100, 1, 1, 1), [*many[:-1], "cat"]), clip)
    assert len(few) == 300 and few.tokens.shape[1] == told.tokens.shape[1]
    for got, wanted in zip((few.tokens, few.mask, few.pooled), (told.tokens, told.mask, told.pooled), strict=True):
        torch.testing.assert_close(got[-3:-1], wanted[:2])
    other = EncodedPictures(CaptionedPictures(pictures.pictures, captions[::-1]), clip)
    assert told.digest != other.digest  # a run that goes on with wrong captions says so
