"""Two processes train what one would have trained, and a GPU is never made to wait."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from test_training import Regression, config, data
from torch import Tensor

from minidiff.training import TensorSource, loop, train

WORKER = """
import os, signal, sys
import torch
from safetensors.torch import save_file
from torch import nn
sys.path[:0] = [{tests!r}, {root!r}]
from minidiff.training import TensorSource, train
from test_training import Regression, config, data

what, out = sys.argv[1:]
rank = int(os.environ.get("RANK", "0"))

class Noisy(Regression):
    def forward(self, batch, generator):
        if not hasattr(self, "drawn"):
            self.drawn = {{
                "noise": torch.randn(64, generator=generator),
                "dropout": nn.functional.dropout(torch.ones(256), 0.5),
                "samples": batch[0].clone(),
            }}
        return super().forward(batch, generator)

def die(result):
    if rank == 1 and result.step == 5:
        os.kill(os.getpid(), signal.SIGKILL)

gradients = {{}}
def look(result):
    for name, p in result.objective.named_parameters():
        gradients[f"gradient/{{result.step}}/{{name}}"] = p.grad.clone()

if what == "die":
    train(Regression(), TensorSource(data()), config(steps=10**7), device="cpu", on_step=die)
else:
    objective = Noisy(seed=rank)  # rank 1 starts elsewhere, and must be given rank 0's weights
    c = config(steps=12, clip_norm=None, save_every=6)
    folder = out + "/run" if what == "save" else None
    train(objective, TensorSource(data(20)), c, folder=folder, device="cpu", on_step=look)
    state = {{f"weight/{{k}}": v.detach() for k, v in objective.named_parameters()}}
    save_file({{**state, **gradients, **objective.drawn}}, f"{{out}}/{{what}}-{{rank}}.safetensors")
"""


def launch(folder: Path, what: str, processes: int) -> subprocess.CompletedProcess[str]:
    script = folder / "worker.py"
    here = Path(__file__).resolve().parent
    script.write_text(WORKER.format(tests=str(here), root=str(here.parent)))
    return together(processes, str(script), what, str(folder))


def together(processes: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python with these arguments, in several processes that know each other."""
    command = [sys.executable, *arguments]
    if processes > 1:
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        address = ["--master-addr", "127.0.0.1", "--master-port", str(port)]
        command[1:1] = ["-m", "torch.distributed.run", "--nproc-per-node", str(processes), *address]
    environment = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    environment |= {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=150)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Tensor]]:
    """The same training by one process and by two."""
    folder = tmp_path_factory.mktemp("processes")
    for what, processes in (("alone", 1), ("save", 2)):
        done = launch(folder, what, processes)
        assert done.returncode == 0, done.stderr[-3000:]
    return {p.stem: load_file(p) for p in folder.glob("*.safetensors")} | {"folder": folder}  # type: ignore[return-value, dict-item]


def test_a_preset_that_two_processes_train_is_written_once(tmp_path: Path) -> None:
    out = tmp_path / "shapes"
    few = ["--steps", "1", "--batch-size", "2", "--out", str(out)]
    done = together(2, "-m", "minidiff", "train", "shapes-cpu", *few)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("written to") == 1 and (out / "card.json").is_file()


def test_two_processes_share_a_batch_and_make_the_gradients_of_one(runs: dict[str, Any]) -> None:
    alone, first, second = runs["alone-0"], runs["save-0"], runs["save-1"]
    assert torch.equal(torch.cat([first["samples"], second["samples"]]), alone["samples"])
    names = [name for name in alone if name.startswith(("gradient/", "weight/"))]
    assert len(names) == 2 * 12 + 2
    for name in names:
        assert torch.equal(first[name], second[name])
        torch.testing.assert_close(first[name], alone[name], rtol=0, atol=1e-6)


def test_noise_and_dropout_differ_by_process(runs: dict[str, Any]) -> None:
    for kind in ("noise", "dropout"):
        assert not torch.equal(runs["save-0"][kind], runs["save-1"][kind])


def test_the_checkpoint_of_two_processes_holds_the_random_state_of_each(runs: dict[str, Any]) -> None:
    random = load_file(runs["folder"] / "run" / "step-00000012" / "random.safetensors")
    for rows in random.values():
        assert len(rows) == 2 and not torch.equal(rows[0], rows[1])


def test_a_dead_process_ends_the_run_within_a_minute_and_says_so(tmp_path: Path) -> None:
    start = time.monotonic()
    done = launch(tmp_path, "die", 2)
    assert done.returncode != 0
    assert signal.Signals(9).name in done.stderr
    assert time.monotonic() - start < 60


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_no_step_waits_for_the_device() -> None:
    reads = [0]

    def strict(result: Any) -> None:
        # From the second step on every implicit wait is an error, but for the reads that the loop announces.
        torch.cuda.set_sync_debug_mode("error")
        reads[0] += 1

    original = loop.Run._read

    def read(self: Any) -> None:
        torch.cuda.set_sync_debug_mode("default")
        original(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop.Run, "_read", read)
        try:
            result = train(Regression(), TensorSource(data(200)), config(steps=60), device="cuda", on_step=strict)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert reads[0] == 60 and result.stopped == "steps"
