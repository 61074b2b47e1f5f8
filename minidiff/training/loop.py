"""The training loop: it knows neither diffusion nor pictures, only an objective and a source of batches."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from minidiff.common import modes_kept
from minidiff.training import checkpoint, processes
from minidiff.training.checkpoint import Counters
from minidiff.training.config import TrainConfig, TrainingDiverged, adamw, learning_rate_at
from minidiff.training.ema import EMA, kept_buffers, trained_parameters
from minidiff.training.interrupt import held_back
from minidiff.training.resume import capture, restore
from minidiff.training.sources import Source, epoch_order, fold_in

MOST_STEPS_UNREAD = 20  # the device may run this far ahead before the host looks at its counters


@dataclass
class TrainResult:
    """A run, while it lasts (as `on_step` sees it) and when it is over.

    history: one dict per `log_every` steps with step, loss and grad_norm (means over those steps), lr,
    images_per_second, seconds since the start, and the steps skipped so far. objective holds the last weights,
    ema their average. stopped: "steps", "minutes", "on_step" or "Ctrl-C", and "" while running.
    """

    objective: nn.Module
    ema: EMA
    history: list[dict[str, float]] = field(default_factory=list)
    step: int = 0
    progress: float = 0.0
    seconds: float = 0.0
    skipped: int = 0
    resumed_from: int | None = None
    stopped: str = ""

    @property
    def ema_objective(self) -> nn.Module:
        """A fresh copy of the objective that holds the averaged weights, for sampling."""
        return self.ema.module()


def train(
    objective: nn.Module,
    source: Source,
    config: TrainConfig,
    *,
    folder: str | Path | None = None,
    device: str | torch.device | None = None,
    on_step: Callable[[TrainResult], bool | None] | None = None,
) -> TrainResult:
    """Minimize `objective(batch, generator)`, a loss per sample (B,) or one number, over a source's batches.

    AdamW on the parameters that require gradients. With a folder the run leaves checkpoints and history.json there
    (at the end, at Ctrl-C and every `save_every` steps), and a later call goes on from the newest (bit for bit on the
    CPU, without `minutes`). Started by `torchrun` or `accelerate launch`, each process takes its share of every
    batch, with its own noise. `on_step(result)` is called after each step (in every process) and ends the run by
    returning True. The global random state is left as found. Ctrl-C (KeyboardInterrupt) ends a run of one process
    with a folder after the step at hand, saved; a second one, or one in a thread, ends it at once. Raises ValueError
    for a source smaller than a batch or arguments that do not fit, TrainingDiverged, and CheckpointError.
    """
    if not isinstance(objective, nn.Module):
        raise ValueError(
            f"`objective` must be a module that returns the loss; got {type(objective).__name__}: it comes first."
        )
    if not (hasattr(source, "order") and hasattr(source, "batch")):
        raise ValueError(f"`source` must have order and batch, as a TensorSource; got {type(source).__name__}.")
    if not isinstance(config, TrainConfig):
        raise ValueError(f"`config` must be a TrainConfig, as TrainConfig(steps=1000); got {config!r:.80}.")
    if config.save_every and folder is None:
        warnings.warn("`save_every` needs a `folder` to save into: without one nothing is saved.", stacklevel=2)
    team, own = processes.join(device)
    with (
        processes.random_kept(own),
        torch.cuda.device(own) if own.type == "cuda" else nullcontext(),
        modes_kept(objective),
    ):
        return Run(objective, source, config, team, own).go(Path(folder) if folder else None, on_step)


class Run:
    """What lives as long as one call of `train`."""

    def __init__(self, objective: nn.Module, source: Any, config: TrainConfig, team: Any, device: torch.device):
        self.config, self.team, self.device = config, team, device
        if config.batch_size % team.num_processes:
            said = f"must be divisible by the number of processes ({team.num_processes}), which share each batch"
            raise ValueError(f"`batch_size` {said}; got {config.batch_size}.")
        self.objective = objective.to(device).train()
        self.weights = trained_parameters(objective)
        if not self.weights:
            raise ValueError("`objective` must have a parameter that requires a gradient: see requires_grad_(True).")
        if any(p.is_floating_point() and p.itemsize < 4 for p in self.weights.values()):  # updates would round away
            raise ValueError('`objective` must have weights of float32; computing in bf16 is precision="bf16".')
        self.buffers = list(kept_buffers(objective).values())
        if team.num_processes > 1:
            processes.same_weights(objective)
        moved = source.to(device) if hasattr(source, "to") else None
        self.source: Source = source if moved is None else moved
        self.fused = device.type in ("cpu", "cuda")
        self.optimizer = adamw(list(self.weights.values()), config, self.fused)
        bf16_here = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
        self.bf16 = config.precision == "bf16" or (config.precision == "auto" and bf16_here)
        self.noise = torch.Generator(device)
        self.ema = EMA(objective, config.ema_decay)
        self.result = TrainResult(objective, self.ema)
        self.counters = Counters(*torch.zeros(7, device=device))  # kept on the device
        self.epoch = self.position = 0
        self.order = self._order(0)
        self.elapsed, self.started = 0.0, time.monotonic()

    def go(self, folder: Path | None, on_step: Callable[[TrainResult], bool | None] | None) -> TrainResult:
        """Train from the newest checkpoint, or from the start, to the end."""
        from tqdm import tqdm

        config, result = self.config, self.result
        self.seed_random(step=0)
        found = checkpoint.latest(folder) if folder else None
        if found is not None:
            restore(self, found)
        if folder and self.team.is_main_process:  # or a folder that cannot be written costs the whole run
            checkpoint.write_json(folder / "history.json", result.history)
        saved = result.step
        self.next_read = result.step + 1
        self.read_at = self.logged_at = (result.step, self._now())
        quiet = not (config.progress and self.team.is_main_process)
        alone = folder is not None and self.team.num_processes == 1  # others would wait for it in vain
        self.bar = tqdm(total=config.steps, initial=result.step, disable=quiet, unit="step")
        with self.bar, held_back(alone) as ctrl_c:
            self._look_at_the_clock()
            while result.progress < 1.0 and not result.stopped:
                self._step()
                saves = bool(folder and config.save_every and result.step % config.save_every == 0)
                due = result.step >= min(self.next_read, config.steps) or result.step % config.log_every == 0
                if due or saves:
                    self._read()
                if on_step is not None and on_step(result) is True:
                    result.stopped = "on_step"
                if ctrl_c.pressed:
                    result.stopped = "Ctrl-C"
                if folder and saves:
                    self._save(folder)
                    saved = result.step
            if result.step == result.resumed_from:
                said = f"The run in {folder} is finished: nothing was trained. To train anew, use another folder."
                warnings.warn(said, stacklevel=3)
            result.stopped = result.stopped or ("steps" if result.step >= config.steps else "minutes")
            if result.step > saved or not folder:
                self._read()
                if folder:
                    self._save(folder)
        if result.skipped:
            lost = f"{result.skipped} of {result.step} steps were skipped, as their loss or gradient was not finite"
            warnings.warn(f"{lost}: check the data for NaN, or lower the learning rate.", stacklevel=3)
        if ctrl_c.pressed:
            raise KeyboardInterrupt(f"step {result.step} is saved in {folder}; the same call goes on from there.")
        return result

    def seed_random(self, step: int) -> None:
        """Give each process random numbers of its own: dropout from the global generators, noise from ours."""
        seed, rank = self.config.seed, self.team.process_index
        torch.default_generator.manual_seed(fold_in(seed, rank, step, 0))
        if self.device.type != "cpu":
            getattr(torch, self.device.type).manual_seed(fold_in(seed, rank, step, 0))
        self.noise.manual_seed(fold_in(seed, rank, step, 1))

    def seek(self, epoch: int, position: int) -> None:
        """Go to a place in the data."""
        if epoch != self.epoch:
            self.order = self._order(epoch)
        self.epoch, self.position = epoch, position

    def _order(self, epoch: int) -> Tensor:
        return epoch_order(self.source, self.config.batch_size, self.config.seed, epoch)

    def _step(self) -> None:
        """One update of the weights; nothing in it waits for a CUDA device."""
        from accelerate.utils import send_to_device

        config, result = self.config, self.result
        if self.position + config.batch_size > len(self.order):
            self.seek(self.epoch + 1, 0)
        share = config.batch_size // self.team.num_processes
        first = self.position + share * self.team.process_index
        batch = self.source.batch(self.order[first : first + share], self.noise)
        batch = send_to_device(batch, self.device, non_blocking=True)
        self.rate = learning_rate_at(config, result.step, result.progress)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate

        self.optimizer.zero_grad()
        before = [buffer.clone() for buffer in self.buffers]
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            loss = self.objective(batch, self.noise)
        if not (isinstance(loss, Tensor) and loss.requires_grad):
            raise ValueError(f"`objective` must return a loss to learn from, a tensor; got {loss!r:.60}.")
        loss = loss.float().mean()
        loss.backward()
        loss = loss.detach()
        if self.team.num_processes > 1:
            loss = processes.average(loss, self.weights.values())
        limit = math.inf if config.clip_norm is None else config.clip_norm
        norm = nn.utils.clip_grad_norm_(self.weights.values(), limit)
        finite = loss.isfinite() & norm.isfinite()
        if self.fused:  # the kernel itself then leaves weights and moments alone: GradScaler's own way to skip
            self.optimizer.found_inf = (~finite).float()  # type: ignore[attr-defined]
            self.optimizer.step()
        elif finite:
            self.optimizer.step()
        for buffer, kept in zip(self.buffers, before, strict=True):  # batch normalization's averages, say
            buffer.copy_(torch.where(finite, buffer, kept))
        self.ema.update()
        self._count(loss, norm, finite)
        self.position += config.batch_size
        result.step += 1
        self._look_at_the_clock()

    def _count(self, loss: Tensor, norm: Tensor, finite: Tensor) -> None:
        before = self.counters
        in_a_row = torch.where(finite, 0.0, before.bad_in_a_row + 1)
        self.counters = Counters(
            loss_sum=before.loss_sum + torch.where(finite, loss, 0.0),
            norm_sum=before.norm_sum + torch.where(finite, norm, 0.0),
            good=before.good + finite,
            bad_in_a_row=in_a_row,
            most_in_a_row=torch.maximum(before.most_in_a_row, in_a_row),
            skipped=before.skipped + ~finite,
            loss_bad=torch.where(finite, before.loss_bad, (~loss.isfinite()).float()),
        )

    def _now(self) -> float:
        """Seconds that this run has taken so far, earlier parts of it included."""
        seconds = self.elapsed + time.monotonic() - self.started
        return processes.first_says(seconds, self.device) if self.team.num_processes > 1 else seconds

    def _look_at_the_clock(self) -> None:
        spent = self.result.seconds / (60 * self.config.minutes) if self.config.minutes else 0.0
        self.result.progress = min(1.0, max(self.result.step / self.config.steps, spent))

    def _read(self) -> None:
        """Look at the device's counters, which waits for it, and at the clock; every second or so is enough."""
        config, result = self.config, self.result
        counted = Counters(*torch.stack(self.counters).tolist())
        result.seconds, result.skipped = self._now(), int(counted.skipped)
        if counted.most_in_a_row >= config.max_bad_steps:
            last = f" The last good loss was {result.history[-1]['loss']:.4g}." if result.history else ""
            what, steps = "loss" if counted.loss_bad else "gradient", int(counted.most_in_a_row)
            raise TrainingDiverged(
                f"Training stopped at step {result.step}: the {what} was not a "
                f"finite number for {steps} steps in a row.{last} Try a smaller `learning_rate`, a "
                'longer `warmup` or `precision="fp32"`, and check the data for NaN.'
            )
        self._look_at_the_clock()
        steps, seconds = result.step - self.read_at[0], result.seconds - self.read_at[1]
        if steps:
            self.next_read = result.step + max(1, min(MOST_STEPS_UNREAD, int(steps / max(seconds, 1e-9))))
            self.read_at = (result.step, result.seconds)
            self.bar.total = round(result.step / result.progress)  # steps or minutes, whichever end it
            self.bar.update(steps)
        if counted.good and (result.step % config.log_every == 0 or result.progress >= 1.0):
            self._log(counted)

    def _log(self, counted: Counters) -> None:
        step, seconds = self.result.step, self.result.seconds
        images = (step - self.logged_at[0]) * self.config.batch_size
        entry = {
            "step": step,
            "loss": counted.loss_sum / counted.good,
            "grad_norm": counted.norm_sum / counted.good,
            "lr": self.rate,
            "images_per_second": images / max(seconds - self.logged_at[1], 1e-9),
            "seconds": seconds,
            "skipped": self.result.skipped,
        }
        self.result.history.append(entry)
        speed = f"{entry['images_per_second']:.0f} images/s"
        self.bar.set_postfix_str(f"loss {entry['loss']:.4f}, lr {self.rate:.1e}, {speed}")
        self.logged_at = (step, seconds)
        zero = torch.zeros((), device=self.device)
        self.counters = self.counters._replace(loss_sum=zero, norm_sum=zero, good=zero)

    def _save(self, folder: Path) -> None:
        state = capture(self)  # all processes: each adds its random state
        if self.team.is_main_process:
            checkpoint.save(folder, state, self.config.keep)
            checkpoint.write_json(folder / "history.json", self.result.history)
        self.team.wait_for_everyone()
