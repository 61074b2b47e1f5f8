"""Taking a run's whole state into a checkpoint, and putting it back."""

from __future__ import annotations

import json
import warnings
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from minidiff.common import CheckpointError
from minidiff.training.checkpoint import Checkpoint, Counters
from minidiff.training.ema import kept_buffers
from minidiff.training.processes import stacked

if TYPE_CHECKING:
    from minidiff.training.loop import Run

# Settings that decide which samples come when: another value would not continue the run but make another one.
_FIXED = ("seed", "batch_size", "task")
# Settings that only say how far to go and what to show.
_FREE = ("steps", "minutes", "save_every", "keep", "progress", "log_every", "max_bad_steps")


def capture(run: Run) -> Checkpoint:
    """The whole state of a run; all processes call it, since each adds its own random state."""
    return Checkpoint(
        step=run.result.step,
        epoch=run.epoch,
        position=run.position,
        elapsed=run.result.seconds,
        images=len(run.order),
        ema_updates=run.ema.updates,
        counters=torch.stack(run.counters).tolist(),
        config=_settings(run),
        history=run.result.history,
        weights=_changing(run),
        ema=run.ema.shadow,
        optimizer={
            f"{name}/{key}": value
            for name, p in run.weights.items()
            for key, value in run.optimizer.state.get(p, {}).items()
        },
        random={name: stacked(state, run.device) for name, state in _random(run).items()},
    )


@torch.no_grad()
def restore(run: Run, found: Checkpoint) -> None:
    """Put a checkpoint into a run that has just been set up; CheckpointError says why it cannot be."""
    _compare_configs(run, found)
    _fill(_changing(run), found.weights, "weights")
    _fill(run.ema.shadow, found.ema, "averaged weights")
    for key, value in found.optimizer.items():
        name, part = key.rsplit("/", 1)
        if name not in run.weights:
            raise CheckpointError(f"The checkpoint has the optimizer's state of {name!r}, which this model lacks.")
        p = run.weights[name]
        # In the weight's own memory order (channels_last, say), which the fused kernel relies on.
        home = torch.empty_like(p)
        if part == "step":  # which the fused kernel wants on its device, and the other one on the CPU
            home = torch.empty((), device=run.device if run.fused else "cpu")
        run.optimizer.state[p][part] = home.copy_(value)
    run.ema.updates = found.ema_updates
    run.counters = Counters(*torch.tensor(found.counters, device=run.device))
    run.elapsed = found.elapsed
    run.seek(found.epoch, found.position)
    if len(run.order) != found.images:
        raise CheckpointError(
            f"The checkpoint was made with {found.images} samples in an epoch and the source has "
            f"{len(run.order)}: use the same data, or another folder."
        )
    _restore_random(run, found)
    result = run.result
    result.step = result.resumed_from = found.step
    result.seconds, result.history = found.elapsed, found.history
    result.skipped = int(Counters(*found.counters).skipped)


def _changing(run: Run) -> dict[str, Tensor]:
    """What training changes in the objective: trained parameters, and the buffers that a state dict holds."""
    return {**run.weights, **kept_buffers(run.objective)}


def _fill(into: dict[str, Tensor], found: dict[str, Tensor], what: str) -> None:
    here, there = ({name: tuple(value.shape) for name, value in part.items()} for part in (into, found))
    wrong = sorted(name for name in here | there if here.get(name) != there.get(name))
    if wrong:
        shapes = (f"has shape {part[wrong[0]]}" if wrong[0] in part else "is absent" for part in (there, here))
        raise CheckpointError(
            f"The checkpoint is of another model: {len(wrong)} of its {what} differ, the first, {wrong[0]!r}, "
            f"{' there and '.join(shapes)} here: use the same architecture, or another folder."
        )
    for name, value in found.items():
        into[name].copy_(value)


def _settings(run: Run) -> dict[str, Any]:
    """The run's settings as JSON keeps them, with what its objective says that it learns, and how, and its data."""
    told = {"task": getattr(run.objective, "task", ""), "data": getattr(run.source, "digest", None)}
    told |= getattr(run.objective, "details", {})
    return json.loads(json.dumps(asdict(run.config) | told))


def _compare_configs(run: Run, found: Checkpoint) -> None:
    mine = _settings(run)
    # Earlier checkpoints do not say what was learned.
    before = {name: value for name, value in mine.items() if not hasattr(run.config, name)} | found.config
    changed = {name: before.get(name) for name in mine if mine[name] != before.get(name)}
    for name in _FIXED:
        if name in changed:
            what = "What is learned" if name == "task" else f"`{name}`"
            raise CheckpointError(
                f"{what} must stay {changed[name]!r}, as in the checkpoint that this run would go on from; "
                f"got {mine[name]!r}: use the same value, or another folder."
            )
    other = sorted(set(changed) - set(_FREE))
    if other:
        warnings.warn(f"The run goes on with other settings than before: {', '.join(other)}.", stacklevel=2)


def _random(run: Run) -> dict[str, Tensor]:
    """The states of this process's random generators, as bytes."""
    states = {"cpu": torch.get_rng_state(), f"noise-{run.device.type}": run.noise.get_state()}
    if run.device.type != "cpu":
        states[run.device.type] = getattr(torch, run.device.type).get_rng_state()
    return states


def _restore_random(run: Run, found: Checkpoint) -> None:
    mine, rank = _random(run), run.team.process_index
    shapes = {name: (run.team.num_processes, len(state)) for name, state in mine.items()}
    if shapes != {name: tuple(rows.shape) for name, rows in found.random.items()}:
        warnings.warn("Another device or number of processes than before: noise is drawn afresh.", stacklevel=2)
        run.seed_random(found.step)
        return
    torch.set_rng_state(found.random["cpu"][rank])
    run.noise.set_state(found.random[f"noise-{run.device.type}"][rank])
    if run.device.type != "cpu":
        getattr(torch, run.device.type).set_rng_state(found.random[run.device.type][rank])
