"""Checkpoints of a run that survive a kill, a full disk and a flipped bit. Safetensors and JSON only.

A checkpoint is a folder `step-00001234`: four safetensors files, `state.json`, and `manifest.json` with the
SHA-256 of each of them. It is written under a hidden name, the manifest last, everything flushed to the disk, and
appears under its own name by one rename: a checkpoint that can be seen is complete. Reading checks every hash,
since safetensors itself accepts a changed payload.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import warnings
from contextlib import suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from minidiff.common import CheckpointError

VERSION = 1  # of the format; raised when an older minidiff could no longer read what a newer one writes
_TENSORS = ("weights", "ema", "optimizer", "random")
_MANIFEST = "manifest.json"
_STATE = "state.json"
_HIDDEN = ".unfinished-"


class _Damaged(Exception):
    """This folder does not hold what its manifest says."""


class Counters(NamedTuple):
    """What a run counts: numbers, or scalars on its device. The first three begin anew with each line of the log.

    good: steps whose loss and gradient were finite; bad_in_a_row, most_in_a_row, skipped: those that were not;
    loss_bad: 1 where the loss itself was not, the last time.
    """

    loss_sum: Any
    norm_sum: Any
    good: Any
    bad_in_a_row: Any
    most_in_a_row: Any
    skipped: Any
    loss_bad: Any


@dataclass
class Checkpoint:
    """Everything a run needs to go on as if it had never stopped.

    weights: trained parameters and buffers; ema: the averaged weights; optimizer: its moments; random: the state
    of every random generator, one row per process. epoch, position: the place in the data. elapsed: seconds so
    far. images: the length of an epoch. ema_updates, counters: what the average and the log count, see `Counters`.
    """

    step: int
    epoch: int
    position: int
    elapsed: float
    images: int
    ema_updates: int
    counters: list[float]
    config: dict[str, Any]
    history: list[dict[str, float]]
    weights: dict[str, Tensor] = field(repr=False)
    ema: dict[str, Tensor] = field(repr=False)
    optimizer: dict[str, Tensor] = field(repr=False)
    random: dict[str, Tensor] = field(repr=False)


def save(folder: str | Path, state: Checkpoint, keep: int = 2) -> Path:
    """Write a checkpoint into `folder`, remove all but the `keep` newest, and return its path.

    A failure (a full disk, say) raises CheckpointError, leaves nothing behind and earlier checkpoints untouched.
    """
    folder = Path(folder)
    target = folder / f"step-{state.step:08d}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for stale in folder.glob(_HIDDEN + "*"):  # left by a run that was killed while it wrote
            shutil.rmtree(stale, ignore_errors=True) if stale.is_dir() else stale.unlink()
        staged = Path(tempfile.mkdtemp(prefix=_HIDDEN, dir=folder))
    except OSError as error:
        raise CheckpointError(_cannot_write(target, error)) from error
    try:
        hashes = {name: _write(staged / name, data) for name, data in _serialized(state)}
        _write(staged / _MANIFEST, json.dumps(hashes, indent=1).encode())
        _flush_folder(staged)
        if target.exists():  # a damaged one, which the run has just caught up with
            _discard(target)
        staged.chmod(0o755)
        staged.rename(target)
        _flush_folder(folder)
    except OSError as error:
        raise CheckpointError(_cannot_write(target, error)) from error
    finally:
        shutil.rmtree(staged, ignore_errors=True)  # by now it is there only if something went wrong
    older = [path for path in _checkpoints(folder) if path.name < target.name]
    for path in older[max(keep, 1) - 1 :]:
        _discard(path)
    return target


def latest(folder: str | Path) -> Checkpoint | None:
    """Read the newest checkpoint in `folder` that is whole, or return None if there is none at all.

    Damaged ones are skipped with a warning. Raises CheckpointError if all are damaged, or if the newest was
    written by a newer minidiff.
    """
    paths = _checkpoints(Path(folder))
    for path in paths:
        try:
            return _read(path)
        except _Damaged as damage:
            warnings.warn(f"The checkpoint {path} is damaged ({damage}): using the one before it.", stacklevel=2)
    if paths:
        raise CheckpointError(
            f"None of the {len(paths)} checkpoints in {folder} can be used: all are damaged; "
            "delete the folder to start the run again."
        )
    return None


def write_json(path: Path, value: Any) -> None:
    """Replace a JSON file in one step, so that a reader never sees half of it; CheckpointError if it cannot be."""
    staged = path.with_name(_HIDDEN + path.name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(staged, json.dumps(value, indent=1).encode())
        staged.replace(path)
    except OSError as error:
        with suppress(OSError):
            staged.unlink(missing_ok=True)
        raise CheckpointError(_cannot_write(path, error)) from error


def _serialized(state: Checkpoint) -> list[tuple[str, bytes]]:
    from safetensors.torch import save as to_bytes

    files = []
    for name in _TENSORS:
        # Copies, since safetensors refuses tensors that share memory, and contiguous, since it stores no strides.
        group = {key: value.detach().to("cpu", copy=True) for key, value in getattr(state, name).items()}
        content = to_bytes({key: value.contiguous() for key, value in group.items()})
        files.append((f"{name}.safetensors", content))
    rest = {f.name: getattr(state, f.name) for f in fields(state) if f.name not in _TENSORS}
    return [*files, (_STATE, json.dumps({"version": VERSION, **rest}, indent=1).encode())]


def _read(path: Path) -> Checkpoint:
    from safetensors.torch import load as from_bytes

    try:
        hashes = json.loads((path / _MANIFEST).read_bytes())
        data = {name: (path / name).read_bytes() for name in hashes}  # what else lies there, .DS_Store, is no matter
    except (OSError, ValueError, TypeError) as error:
        raise _Damaged(f"{_MANIFEST} or a file that it lists cannot be read: {error}") from error
    for name, content in data.items():
        if hashlib.sha256(content).hexdigest() != hashes[name]:
            raise _Damaged(f"{name} does not have the SHA-256 in {_MANIFEST}")
    # From here on the files are what was written, so a surprise is another version's doing, not the disk's.
    state = json.loads(data[_STATE])
    version = state.pop("version", VERSION)
    if version > VERSION:
        raise CheckpointError(
            f"The checkpoint {path} has format {version} of a newer minidiff, and this one reads formats up to "
            f"{VERSION}: upgrade minidiff, or train in another folder."
        )
    known = {f.name for f in fields(Checkpoint)}
    tensors = {name.removesuffix(".safetensors"): content for name, content in data.items() if name != _STATE}
    found = {*state, *tensors}
    if found != known:
        wrong = ", ".join(sorted(found ^ known))
        kind = "unknown" if found - known else "missing"
        raise CheckpointError(f"The checkpoint {path} has {kind} parts ({wrong}): train in another folder.")
    parts: dict[str, Any] = {name: from_bytes(content) for name, content in tensors.items()}
    return Checkpoint(**state, **parts)


def _checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder, newest first."""
    return sorted((path for path in folder.glob("step-" + "[0-9]" * 8) if path.is_dir()), reverse=True)


def _write(path: Path, data: bytes) -> str:
    """Write a file through to the disk and return its SHA-256."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return hashlib.sha256(data).hexdigest()


def _flush_folder(folder: Path) -> None:
    """Make new names in a folder permanent; Windows has no such call and needs none."""
    if os.name != "nt":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _discard(path: Path) -> None:
    """Remove a checkpoint so that, if we are killed half-way, no half of it looks like one."""
    hidden = path.with_name(_HIDDEN + path.name)
    shutil.rmtree(hidden, ignore_errors=True)
    path.rename(hidden)
    shutil.rmtree(hidden, ignore_errors=True)


def _cannot_write(target: Path, error: OSError) -> str:
    reason = error.strerror or error
    return (
        f"{target} could not be written ({reason}): free some space or choose another folder; "
        "earlier checkpoints are untouched, and the same call goes on from the newest."
    )
