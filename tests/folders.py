"""Folders of pictures for the tests of `minidiff.data.folder`."""

import pytest
import torch
from PIL import Image

from minidiff.data.folder import FolderPictures

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
