"""Checkpoints survive a kill at any moment, a flipped bit and a full disk."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from minidiff.training import CheckpointError
from minidiff.training.checkpoint import Checkpoint, latest, save


def small(step: int, size: int = 64) -> Checkpoint:
    part = {"w": torch.full((size,), float(step))}
    return Checkpoint(step, 0, step, 1.5, 10, step, [0.0], {"seed": 0}, [], part, part, part, part)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_was_saved_is_read_and_only_the_newest_are_kept(tmp_path: Path) -> None:
    assert latest(tmp_path / "nowhere") is None
    for step in (9, 10, 123):
        save(tmp_path, small(step), keep=2)
    found = latest(tmp_path)
    assert found is not None
    for f in fields(Checkpoint):
        a, b = getattr(found, f.name), getattr(small(123), f.name)
        assert torch.equal(a["w"], b["w"]) if isinstance(a, dict) and "w" in a else a == b
    assert names(tmp_path) == ["step-00000010", "step-00000123"]
    endings = {path.suffix for path in tmp_path.glob("*/*")}
    assert endings == {".safetensors", ".json"}


def test_a_checkpoint_can_be_read_by_others_of_the_machine(tmp_path: Path) -> None:
    assert save(tmp_path, small(1)).stat().st_mode & 0o055 == 0o055  # a temporary folder is its owner's alone


def test_tensors_in_any_memory_order_are_saved_by_value(tmp_path: Path) -> None:
    image = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    shared = {"a": image, "b": image, "c": image.mT, "d": torch.ones(1).expand(7)}
    save(tmp_path, replace(small(1), weights=shared))
    found = latest(tmp_path)
    assert found is not None and all(torch.equal(found.weights[key], value) for key, value in shared.items())


def test_one_thousand_flipped_bits_are_all_caught(tmp_path: Path) -> None:
    save(tmp_path, small(1))
    newest = save(tmp_path, small(2))
    draw = random.Random(0)
    files = sorted(newest.iterdir())
    for _ in range(1000):
        file = draw.choice(files)
        good = file.read_bytes()
        bad = bytearray(good)
        bad[draw.randrange(len(bad))] ^= 1 << draw.randrange(8)
        file.write_bytes(bad)
        with pytest.warns(UserWarning, match=r"step-00000002 is damaged \(.*using the one before it"):
            found = latest(tmp_path)
        assert found is not None and found.step == 1
        file.write_bytes(good)
    found = latest(tmp_path)
    assert found is not None and found.step == 2


@pytest.mark.parametrize("damage", ["truncated", "removed", "empty"])
def test_a_damaged_checkpoint_is_passed_over_and_a_folder_of_them_refused(tmp_path: Path, damage: str) -> None:
    for step in (1, 2):
        save(tmp_path, small(step))
    for step in (2, 1):
        file = tmp_path / f"step-0000000{step}" / "ema.safetensors"
        match damage:
            case "truncated":
                file.write_bytes(file.read_bytes()[:-1])
            case "removed":
                file.unlink()
            case "empty":
                shutil.rmtree(file.parent)
                file.parent.mkdir()
        if step == 2:
            with pytest.warns(UserWarning, match="is damaged"):
                found = latest(tmp_path)
            assert found is not None and found.step == 1
    with pytest.warns(UserWarning), pytest.raises(CheckpointError, match="None of the 2 checkpoints"):
        latest(tmp_path)


def test_what_file_browsers_and_notebooks_leave_in_a_checkpoint_is_no_damage(tmp_path: Path) -> None:
    save(tmp_path, small(1))
    (tmp_path / "step-00000001" / ".DS_Store").write_bytes(b"Finder")
    (tmp_path / "step-00000001" / ".ipynb_checkpoints").mkdir()
    found = latest(tmp_path)
    assert found is not None and found.step == 1


def rewrite(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change state.json as another version would have written it, with a manifest that fits."""
    state = json.loads((path / "state.json").read_text())
    change(state)
    (path / "state.json").write_text(json.dumps(state))
    hashes = json.loads((path / "manifest.json").read_text())
    hashes["state.json"] = hashlib.sha256((path / "state.json").read_bytes()).hexdigest()
    (path / "manifest.json").write_text(json.dumps(hashes))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda s: s.update(version=2), "format 2 of a newer minidiff.*upgrade minidiff"),
        (lambda s: s.update(surprise=1), r"unknown parts \(surprise\)"),
        (lambda s: s.pop("epoch"), r"missing parts \(epoch\)"),
    ],
)
def test_another_version_is_refused_by_a_sentence_and_not_passed_over(
    tmp_path: Path, change: Any, sentence: str
) -> None:
    save(tmp_path, small(1))
    rewrite(save(tmp_path, small(2)), change)
    with pytest.raises(CheckpointError, match=sentence):
        latest(tmp_path)


# --- a full disk -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", range(6))  # the disk fills up while the n-th file is written
def test_a_full_disk_leaves_the_checkpoint_before_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: int
) -> None:
    save(tmp_path, small(1))
    calls, flush = iter(range(99)), os.fsync

    def fsync(handle: int) -> None:
        if next(calls) == file:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        flush(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        with pytest.raises(CheckpointError, match=r"could not be written \(No space left on device\): free"):
            save(tmp_path, small(2))
    assert names(tmp_path) == ["step-00000001"]
    found = latest(tmp_path)
    assert found is not None and found.step == 1


LIMITED = """
import resource, signal, sys
from pathlib import Path
sys.path[:0] = [{tests!r}, {root!r}]
from test_checkpoint import CheckpointError, latest, names, save, small
folder = Path(sys.argv[1])
save(folder, small(1))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    save(folder, small(2, size=100_000))
except CheckpointError as error:
    print(error)
print(names(folder), latest(folder).step)
"""


def test_files_that_the_system_refuses_to_grow_leave_the_checkpoint_before(tmp_path: Path) -> None:
    here = Path(__file__).resolve().parent
    code = LIMITED.format(tests=str(here), root=str(here.parent))
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=100)
    assert "step-00000002 could not be written (File too large)" in done.stdout, done.stderr
    assert done.stdout.splitlines()[-1] == "['step-00000001'] 1"


# --- kill -9 -----------------------------------------------------------------------------------------------------

# One warm parent forks a child per kill, since importing torch anew each time would cost minutes. A child saves
# step after step and reports each one that is done; the parent kills it at a random moment while it writes.
KILLER = """
import os, random, signal, sys, time, warnings
from pathlib import Path
sys.path[:0] = [{tests!r}, {root!r}]
from test_checkpoint import latest, save, small
warnings.simplefilter("error")  # a damaged checkpoint would warn
folder, kills = Path(sys.argv[1]), int(sys.argv[2])
draw = random.Random(0)
start = time.monotonic()
for step in range(1, 6):
    save(folder, small(step, 50_000))
usual = (time.monotonic() - start) / 5
done = halfway = 0
while done < kills or (halfway < kills // 4 and done < 10 * kills):  # on a busy machine few kills hit a save
    done += 1
    known = latest(folder).step
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        for step in range(known + 1, 10**6):
            save(folder, small(step, 50_000))
            os.write(send, b".")
    os.close(send)
    time.sleep(draw.uniform(0, 4 * usual))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    reported = 0
    while chunk := os.read(receive, 4096):
        reported += len(chunk)
    os.close(receive)
    halfway += any(path.name.startswith(".") for path in folder.iterdir())
    found = latest(folder)
    assert known + reported <= found.step <= known + reported + 1, (known, reported, found.step)
    assert float(found.weights["w"][0]) == found.step
print(done, "kills", halfway, "halfway")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("kills", [10, pytest.param(100, marks=pytest.mark.release)])
def test_a_kill_at_any_moment_leaves_a_valid_checkpoint_and_loses_at_most_one(tmp_path: Path, kills: int) -> None:
    here = Path(__file__).resolve().parent
    code = KILLER.format(tests=str(here), root=str(here.parent))
    start = time.monotonic()
    command = [sys.executable, "-c", code, str(tmp_path), str(kills)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    halfway = int(done.stdout.split()[2])
    assert halfway >= kills // 4, f"the kills must hit saves: {done.stdout} in {time.monotonic() - start:.0f} s"
