"""Pictures of your own: a folder with captions, or any torchvision dataset, as a training source.

Every file is either converted correctly or named in the error, all of them at once: nothing is skipped in silence.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minidiff.common import Condition, TextEmbedding, check_choice, check_int
from minidiff.data.decode import FITS, load_picture, on_paper, to_pil, to_tensor
from minidiff.data.pixels import to_float
from minidiff.text import TextEncoder
from minidiff.training.sources import InMemory

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif")
NOT_READ = (".heic", ".heif", ".svg", ".psd", ".jxl", ".dng")  # pictures too, so not to be passed over
CAPTION_FILES = ("captions.csv", "captions.jsonl", "metadata.csv", "metadata.jsonl")
FILE_COLUMNS, CAPTION_COLUMNS = ("file", "file_name", "filename", "image"), ("caption", "text", "prompt")


class CaptionedPictures(InMemory):
    """A training source: `pictures` uint8 (N, 3, S, S) and their `captions`, held in memory.

    labels: (N,) long, 1 and up (0 means "no label" in a `Condition`), or None. Raises ValueError when the numbers
    differ, or for pictures of another type.
    """

    def __init__(self, pictures: Tensor, captions: Sequence[str], labels: Tensor | None = None) -> None:
        counts = {len(pictures), len(captions), len(pictures) if labels is None else len(labels)}
        if len(counts) > 1:
            raise ValueError(
                f"`captions` must have one entry per picture ({len(pictures)}), as must `labels`; "
                f"got {len(captions)} captions and {'no' if labels is None else len(labels)} labels."
            )
        if not isinstance(pictures, Tensor) or pictures.dtype != torch.uint8:
            got = pictures.dtype if isinstance(pictures, Tensor) else type(pictures).__name__
            raise ValueError(f"`pictures` must be a uint8 tensor, from 0 to 255; got {got}.")
        self.pictures, self.captions, self.labels = pictures, list(captions), labels

    def __len__(self) -> int:
        return len(self.captions)

    def batch(self, indices: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, list[str]]:
        """The pictures at `indices` (B,) as x0 (B, 3, S, S) in [-1, 1], and their captions."""
        indices = indices.to(self.pictures.device)
        return to_float(self.pictures[indices]), [self.captions[i] for i in indices.tolist()]


class EncodedPictures(InMemory):
    """Pictures whose captions a frozen text encoder has read, once for all: a batch is (x0, Condition(text=...)).

    Raises ValueError for an encoder with weights to train, which needs `JointDenoising` and the captions themselves.
    """

    def __init__(self, pictures: CaptionedPictures, encoder: TextEncoder) -> None:
        if isinstance(encoder, torch.nn.Module) and any(p.requires_grad for p in encoder.parameters()):
            way = "train it along by JointDenoising, or call its requires_grad_(False)"
            raise ValueError(f"`encoder` must be frozen, as it would not be trained here: {way}.")
        self.pictures, self.captions = pictures.pictures, pictures.captions
        parts = [pictures.captions[i : i + 256] for i in range(0, len(pictures), 256)]  # all at once may not fit
        text = Condition.cat([Condition(encoder(part)) for part in parts]).text
        assert text is not None
        self.tokens, self.mask, self.pooled = text

    def __len__(self) -> int:
        return len(self.captions)

    def batch(self, indices: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Condition]:
        """The pictures at `indices` (B,), (B, 3, S, S) in [-1, 1], and what the encoder made of their captions."""
        text = TextEmbedding(self.tokens[indices], self.mask[indices], self.pooled[indices])
        return to_float(self.pictures[indices]), Condition(text=text)


class FolderPictures(CaptionedPictures):
    """The pictures of `folder` and its subfolders at `size` x `size`, on white; `names` are their paths in it.

    captions: a mapping from names to captions, or a .csv or .jsonl file with a column "file" and a column
    "caption"; by default captions.csv or captions.jsonl in the folder, else "cat.txt" beside "cat.png".
    fit: "crop" cuts the middle square out, "pad" adds white borders.
    Raises ValueError that names every file that lacks a caption or cannot be used, and why.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        size: int,
        captions: Mapping[str, str] | str | os.PathLike[str] | None = None,
        *,
        fit: str = "crop",
    ) -> None:
        check_int("size", size, 8, 1024)
        check_choice("fit", fit, FITS)
        root = Path(folder)
        if not root.is_dir():
            what = "is a file" if root.exists() else "does not exist"
            raise ValueError(f"`folder` must be a folder of pictures; {root} {what}: check the path.")
        problems: dict[str, str] = {}
        files = dict(_find(root, problems))
        if not files and not problems:
            raise ValueError(f"`folder` must hold pictures ({' '.join(SUFFIXES)}); {root} has none: add some.")
        table = _captions(root, captions, files, problems)
        pictures = []
        for name, path in files.items():
            if name not in table:
                problems.setdefault(name, "has no caption")
            try:
                pictures.append(load_picture(path, size, fit=fit))
            except ValueError as error:
                problems[name] = str(error).partition(": ")[2] or str(error)
        if problems:
            shown = "; ".join(f"{name} {why}" for name, why in list(problems.items())[:8])
            more = f"; and {len(problems) - 8} more" if len(problems) > 8 else ""
            if "has no caption" in problems.values() and not any(table.values()):
                more += " (captions.csv has columns file and caption; of classes in folders see from_torchvision)"
            raise ValueError(
                f"`folder` {root} must hold usable pictures with captions only, but {shown}{more}: "
                "repair or remove them."
            )
        self.names = list(files)
        super().__init__(torch.stack(pictures), [table[name] for name in files])


def _find(root: Path, problems: dict[str, str]) -> Iterator[tuple[str, Path]]:
    """Yield (name, path) of all picture files, sorted; what must not be followed or read goes to `problems`."""
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for entry in [*folders, *sorted(files)]:
            path = Path(folder, entry)
            name, suffix = path.relative_to(root).as_posix(), path.suffix.lower()
            if entry.startswith(".") or (entry not in folders and suffix not in SUFFIXES + NOT_READ):
                continue
            if path.is_symlink():  # a link may lead anywhere, also into itself
                problems[name] = "is a link (copy what it points to)"
            elif entry in folders:
                continue
            elif not path.is_file():
                problems[name] = "is not a plain file"
            elif suffix in NOT_READ:
                problems[name] = f"is in a format that is not read here (convert {suffix} to .png)"
            else:
                yield name, path


def _captions(root: Path, captions: Any, files: Mapping[str, Path], problems: dict[str, str]) -> dict[str, str]:
    """Return name -> caption; entries for pictures that are not there, and empty captions, go to `problems`."""
    if not isinstance(captions, Mapping | str | os.PathLike | None):
        raise ValueError(f"`captions` must map names to captions, or be a .csv or .jsonl; got {captions!r:.60}.")
    if isinstance(captions, Mapping):
        pairs = list(captions.items())
    else:
        listed = [root / name for name in CAPTION_FILES if (root / name).is_file()]
        source = Path(captions) if captions is not None else listed[0] if listed else None
        if source is None:
            beside = [(name, path.with_suffix(".txt")) for name, path in files.items()]
            pairs = [(name, _text(path)) for name, path in beside if path.is_file() and not path.is_symlink()]
        else:
            pairs = _rows(source)
    table: dict[str, str] = {}
    for name, caption in pairs:
        if not isinstance(caption, str) or not caption.strip():
            problems[name] = "has an empty caption"
        elif name in table:
            problems[name] = "has two captions"
        elif name not in files:
            problems.setdefault(name, "has a caption but is no picture in the folder")
        else:
            table[name] = " ".join(caption.split())
    for name in problems:
        table.setdefault(name, "")  # one reason is enough: do not also report it as lacking a caption
    return table


def _text(path: Path) -> str:
    """Return a UTF-8 text file's content, with or without the byte order mark that Windows writes."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"`captions` must be UTF-8 text; {path} is not: save it as UTF-8.") from None
    except OSError as error:
        raise ValueError(f"`captions` cannot be read from {path} ({error.strerror}): check the path.") from None


def _rows(path: Path) -> list[tuple[str, Any]]:
    """Return the (name, caption) pairs of a .csv or .jsonl file."""
    check_choice("captions", path.suffix.lower(), (".csv", ".jsonl"))
    lines = io.StringIO(_text(path), newline="")  # str.splitlines would split at what a caption may contain
    records: Iterator[Any] = iter(csv.DictReader(lines)) if path.suffix.lower() == ".csv" else _json(lines)
    pairs: list[tuple[str, Any]] = []
    try:
        for record in records:
            if isinstance(record, dict) and any(map(str.strip, record.get(None) or ())):  # csv: what has no column
                raise ValueError("it has more columns than the first row: put a caption with a comma in quotes")
            keys = {str(key).strip().lower(): value for key, value in record.items()}
            name = next((keys[column] for column in FILE_COLUMNS if column in keys), None)
            caption = next((keys[column] for column in CAPTION_COLUMNS if column in keys), None)
            if not isinstance(name, str) or caption is None:
                raise ValueError(f"its columns are {', '.join(keys)}")
            pairs.append((name.strip().replace("\\", "/").removeprefix("./"), caption))
    except (ValueError, AttributeError, RecursionError, csv.Error) as error:
        raise ValueError(
            f"`captions` must have a column `file` and a column `caption`; row {len(pairs) + 1} of {path} "
            f"cannot be used ({error}): repair it."
        ) from None
    return pairs


def _json(lines: Iterable[str]) -> Iterator[Any]:
    return (json.loads(line) for line in lines if line.strip())


def from_torchvision(dataset: Any, size: int, limit: int | None = None, *, fit: str = "crop") -> CaptionedPictures:
    """Return the first `limit` items (all by default) of any dataset of (picture, target) pairs.

    Pictures may be PIL images, or tensors (1 or 3, H, W) that are uint8 or in [0, 1]. Targets may be class numbers
    (the caption is the class's name, `labels` is the number + 1), captions, or lists of captions (the first one).
    To train by class: `TensorSource(to_float(found.pictures), found.labels)`. Raises ValueError for anything else,
    naming the item.
    """
    check_int("size", size, 8, 1024)
    check_choice("fit", fit, FITS)
    count = len(dataset) if limit is None else min(check_int("limit", limit, 1, 10**9), len(dataset))
    if count == 0:
        raise ValueError("`dataset` must have at least one item; it is empty.")
    classes = getattr(dataset, "classes", None)
    pictures, captions, labels = [], [], []
    for index in range(count):
        try:
            picture, target, *_ = dataset[index]
            pictures.append(to_tensor(on_paper(to_pil(picture)), size, fit))
        except (ValueError, AttributeError, TypeError) as error:
            raise ValueError(f"`dataset` item {index} is no usable picture: {error}.") from None
        if isinstance(target, list | tuple) and target and isinstance(target[0], str):
            target = target[0]
        if isinstance(target, str):
            captions.append(target)
        else:
            try:
                number = target.item() if hasattr(target, "item") else target
                labels.append(check_int("label", number, 0, len(classes) - 1 if classes else 10**9) + 1)
            except (TypeError, ValueError):
                raise ValueError(
                    f"`dataset` item {index} must have a class number or a caption as target; got {target!r:.80}."
                ) from None
            captions.append(str(classes[labels[-1] - 1]) if classes else str(labels[-1] - 1))
    given = torch.tensor(labels) if len(labels) == count else None
    return CaptionedPictures(torch.stack(pictures), captions, given)
