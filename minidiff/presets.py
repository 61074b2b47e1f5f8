"""Everything that `minidiff train NAME` can train: what, on which data, for how long, and what comes out."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from minidiff import checkpoints
from minidiff.cards import command, draw_samples, facts, flops_per_picture
from minidiff.checkpoints import fingerprint, load_clip
from minidiff.clip import (
    CaptionTable,
    ClipPairs,
    ConditionedEmoji,
    ContrastiveObjective,
    emoji_captions,
    keyword_retrieval,
    retrieval,
    train_tokenizer,
)
from minidiff.common import CheckpointError, check_choice
from minidiff.data.emoji import STYLES, EmojiPictures, data_hash, load_emoji
from minidiff.denoisers import NetDenoiser
from minidiff.hub import fetch
from minidiff.nets.unet import UNet, UNetConfig
from minidiff.pipeline import TextToImage
from minidiff.presets_recipes import RECIPE_PRESETS
from minidiff.schedules import CosineSchedule, RectifiedFlow
from minidiff.text import MiniClip, MiniClipConfig, WordEncoder
from minidiff.training import processes
from minidiff.training.config import TrainConfig
from minidiff.training.job import Job, Preset
from minidiff.training.loop import TrainResult, train
from minidiff.training.objectives import ConditionDropout, Denoising, JointDenoising

CAPTIONS = 24  # variants per picture


def build_clip(device: torch.device, clip: str | None = None) -> Job:
    """The mini-CLIP, on the training pictures and their captions."""
    emoji = load_emoji()
    captions = emoji_captions(emoji, CAPTIONS, seed=0)
    pictures = EmojiPictures(emoji, device=device, shift=4)
    seen = [caption for index in pictures.indices.tolist() for caption in captions[index]]
    config = MiniClipConfig()
    model = MiniClip(config, train_tokenizer(seen, config.vocabulary))

    def finish(objective: ContrastiveObjective, folder: Path) -> dict[str, Any]:
        trained = objective.clip.eval()
        config = {"kind": "clip", "encoder": checkpoints.describe_encoder(trained)}
        tensors = {f"encoder.{k}": v for k, v in trained.state_dict().items()}
        checkpoints.save_model(folder, config, tensors, trained.tokenizer)
        splits = {split: retrieval(trained, emoji, split) for split in ("validation", "test", "unseen")}
        return {"retrieval": splits, "held_out_keywords": keyword_retrieval(trained, emoji)}

    return Job(ContrastiveObjective(model), ClipPairs(pictures, captions, model), finish)


def build_emoji(
    device: torch.device,
    clip: str | None = None,
    *,
    net: UNetConfig,
    times: tuple[float, float] = (1.0, 1.4),
    drop: ConditionDropout = ConditionDropout(),  # noqa: B008 (it cannot be changed)
) -> Job:
    """Text to emoji: a U-Net of the given shape, told what a trained mini-CLIP makes of captions and pictures."""
    emoji = load_emoji()
    encoder = load_clip(clip or "emoji-64").to(device)
    table = CaptionTable(emoji_captions(emoji, CAPTIONS, seed=1), encoder, device)
    pictures = EmojiPictures(emoji, size=net.size, device=device, shift=max(1, net.size // 32))
    told = replace(net, context_dim=encoder.dim, pooled_dim=encoder.pooled_dim, image_dim=encoder.pooled_dim)
    # The sampler's shift of 3 moves log(t / (1 - t)) by log 3 = 1.1, so training looks there, and a little wider.
    schedule = RectifiedFlow(shift=3.0)
    denoiser = NetDenoiser(UNet(told), schedule, "flow", time_sampling="logit-normal", time_shape=times)
    source = ConditionedEmoji(pictures, table, encoder)

    def finish(objective: Denoising, folder: Path) -> dict[str, Any]:
        pipe = TextToImage(objective.denoiser, encoder, STYLES)  # type: ignore[arg-type]
        pipe.save_pretrained(folder)
        return {}

    objective = Denoising(denoiser, drop=drop)
    objective.start = f"CLIP {fingerprint(encoder)}"  # with another CLIP a run cannot go on
    return Job(objective, source, finish)


def build_teaching(device: torch.device, clip: str | None = None) -> Job:
    """The teaching model: the noise as target, the cosine schedule, 32x32 pictures, told no more than the style."""
    groups = ["smileys-emotion", "animals-nature", "food-drink"]
    pictures = EmojiPictures(load_emoji(), size=32, groups=groups, device=device, shift=1)
    net = UNetConfig(
        size=32,
        patch=1,
        widths=(48, 64, 64),
        attention=(False, False, True),
        blocks=1,
        embedding=96,
        labels=len(STYLES),
        dropout=0.05,
    )
    denoiser = NetDenoiser(UNet(net), CosineSchedule(), "eps", clip=1.0)

    def finish(objective: Denoising, folder: Path) -> dict[str, Any]:
        checkpoints.save_denoiser(folder, objective.denoiser, styles=list(STYLES))  # type: ignore[arg-type]
        return {"groups": groups}

    return Job(Denoising(denoiser, label_drop=0.2), pictures, finish)


def build_shapes(device: torch.device, clip: str | None = None, *, net: UNetConfig, scenes: int) -> Job:
    """Text to shapes: the text encoder is trained together with the U-Net."""
    from minidiff.data.shapes import CAPTION_LENGTH, VOCABULARY, ShapeScenes

    encoder = WordEncoder(VOCABULARY, CAPTION_LENGTH)
    told = replace(net, context_dim=encoder.dim, pooled_dim=encoder.dim)
    # Mostly noisy times: which color belongs to which shape, and what lies left of what, is decided early.
    denoiser = NetDenoiser(UNet(told), RectifiedFlow(), "flow", time_sampling="logit-normal", time_shape=(1.5, 1.5))
    drop = ConditionDropout(text=0.9, image=0.0, both=0.0, none=0.1)

    def finish(objective: JointDenoising, folder: Path) -> dict[str, Any]:
        pipe = TextToImage(objective.denoiser, objective.encoder)  # type: ignore[arg-type]
        pipe.save_pretrained(folder)
        return {}

    return Job(JointDenoising(denoiser, encoder, drop), ShapeScenes(scenes, seed=0, device=device), finish)


def build_judge(device: torch.device, clip: str | None = None) -> Job:
    """The classifier that evaluations are judged by; it shares nothing with the mini-CLIP."""
    from minidiff.judge import Judge, JudgeObjective, JudgePictures, training_bases

    emoji = load_emoji()

    def finish(objective: JudgeObjective, folder: Path) -> dict[str, Any]:
        checkpoints.save_judge(folder, objective.judge)
        return {}

    return Job(JudgeObjective(Judge(training_bases(emoji))), JudgePictures(emoji, device), finish)


SMALL_EMOJI = UNetConfig(size=64, patch=4, widths=(64, 96, 128), dropout=0.1, embedding=128, blocks=1)
MOSTLY_WORDS = ConditionDropout(text=0.6, image=0.15, both=0.15, none=0.1)
SHAPES = UNetConfig(
    size=32,
    widths=(32, 48, 64),
    attention=(False, True, True),
    blocks=1,
    head_dim=16,
    embedding=96,
    positions=True,
    dropout=0.0,
)

PRESETS: dict[str, Preset] = {
    "clip": Preset(
        "the mini-CLIP: captions and emoji in one space (one ships; minutes on a GPU)",
        TrainConfig(steps=12_000, batch_size=1024, learning_rate=1e-3, weight_decay=0.1, warmup=300, minutes=3),
        build_clip,
    ),
    "judge": Preset(
        "the classifier that evaluations are judged by (one ships; minutes on a GPU)",
        TrainConfig(12_000, 512, learning_rate=2e-3, weight_decay=0.05, warmup=200, decay=0.6, minutes=3),
        build_judge,
    ),
    "emoji-64": Preset(
        "the flagship: text to 64x64 emoji (15 minutes on one H100 or H200)",
        TrainConfig(60_000, 256, learning_rate=8e-4, warmup=500, ema_decay=0.9995, minutes=15, save_every=2000),
        partial(build_emoji, net=UNetConfig()),
        takes=("clip", "start"),
    ),
    "emoji-64-more": Preset(
        "a flagship (--start emoji-64) trained further, mostly where noise is strong (90 minutes on two CPU cores)",
        TrainConfig(20_000, 32, learning_rate=2e-4, decay=0.5, minutes=90, precision="bf16", save_every=200),
        # Of its times 45 % are above 0.9, where it is decided what will be seen; most are told words alone.
        partial(build_emoji, net=UNetConfig(dropout=0.0), times=(2.0, 1.5), drop=MOSTLY_WORDS),
        takes=("clip", "start"),
        needs=("start",),
    ),
    "emoji-t4": Preset(
        "the flagship on Colab's T4, in fp32 (about 4 hours by arithmetic; nobody has measured it)",
        TrainConfig(steps=30_000, batch_size=128, learning_rate=5e-4, warmup=500, minutes=240, save_every=500),
        partial(build_emoji, net=UNetConfig()),
        takes=("clip", "start"),
    ),
    "emoji-cpu": Preset(
        "the same path with a smaller network, for two CPU cores and some patience",
        TrainConfig(steps=20_000, batch_size=32, learning_rate=1e-3, minutes=60, save_every=200),
        partial(build_emoji, net=SMALL_EMOJI),
        takes=("clip", "start"),
    ),
    "teaching": Preset(
        "the model of chapters 2 and 3: 32x32, by style, eps target, cosine schedule",
        TrainConfig(steps=40_000, batch_size=256, learning_rate=1e-3, ema_decay=0.9995, minutes=6, save_every=2000),
        build_teaching,
        takes=("start",),
    ),
    "shapes-cpu": Preset(
        "text to 32x32 shapes in three minutes on two CPU cores",
        TrainConfig(steps=2_000, batch_size=32, learning_rate=2e-3, ema_decay=0.995, minutes=3, save_every=500),
        partial(build_shapes, net=SHAPES, scenes=8_000),
        takes=("start",),
    ),
    "shapes-gpu": Preset(
        "the same network, more scenes and longer, on a GPU",
        TrainConfig(steps=30_000, batch_size=256, learning_rate=1e-3, minutes=5, save_every=2000),
        partial(build_shapes, net=SHAPES, scenes=60_000),
        takes=("start",),
    ),
    **RECIPE_PRESETS,
}


def run(
    name: str,
    folder: str | Path,
    *,
    device: str | None = None,
    clip: str | None = None,
    start: str | None = None,
    compiled: bool = False,
    on_step: Callable[[TrainResult], bool | None] | None = None,
    **changes: Any,
) -> dict[str, Any]:
    """Train a preset and write model and card into the folder; a run that was cut off goes on from there.

    changes: fields of TrainConfig that differ from the preset's, as minutes=None for no limit. compiled: let
    torch.compile fuse the network, which pays on a GPU. clip: the checkpoint that an emoji model or a recipe's builds
    upon. start: a model of the same shape, whose weights training begins with. Returns the card.
    """
    preset = PRESETS[check_choice("preset", name, PRESETS)]
    preset.check(name, clip=clip, start=start)
    config = replace(preset.config, **changes)
    (team, where), folder = processes.join(device), Path(folder)
    with torch.random.fork_rng(devices=[]):  # the first weights are drawn on the CPU
        torch.default_generator.manual_seed(config.seed)
        given = None if start is None else TextToImage.from_pretrained(start)
        if given and clip is None and name.startswith("emoji") and not isinstance(given.encoder, MiniClip):
            raise ValueError(f"`start` must be a model with a mini-CLIP, as emoji-64; {start} has none.")
        told = clip or start
        job = preset.build(where, told and str(fetch(told)))
        begun = {} if given is None else {"start": begin_with(job.objective, given, start)}
        cost = flops_per_picture(job.objective, job.source)
    if compiled:
        net = next((part for part in job.objective.modules() if isinstance(part, UNet)), None)
        if net is None:
            raise ValueError(f"`compile` must be left out for {name}: only U-Nets are compiled.")
        net.compile()
    result = train(job.objective, job.source, config, folder=folder / "run", device=str(where), on_step=on_step)
    if not team.is_main_process:  # of several processes one writes
        return {}
    measured = job.finish(result.ema_objective, folder)
    said = changes | {k: v for k, v in {"clip": clip, "start": start, "compile": compiled}.items() if v}
    digest = getattr(job.source, "digest", data_hash())
    card = {"preset": name, "command": command(name, said), "data_sha256": digest} | begun
    card |= facts(config, result, where, cost, team.num_processes) | {"measured": measured}
    (folder / "card.json").write_text(json.dumps(card, indent=2) + "\n")
    draw_samples(folder, where)
    return card


def begin_with(objective: Any, pipe: TextToImage, name: Any) -> str:
    """Give what is trained the weights of a model of the same shape; returns the fingerprint of its network."""
    words = pipe.encoder if isinstance(pipe.encoder, WordEncoder) else nn.Module()
    try:
        checkpoints.load_weights(objective.denoiser.net, pipe.denoiser.net.state_dict(), name)
        if isinstance(objective, JointDenoising):
            checkpoints.load_weights(objective.encoder, words.state_dict(), name)
    except CheckpointError as error:
        raise CheckpointError(f"`start` must be a model of the shape that this preset trains: {error}") from error
    begun = fingerprint(pipe.denoiser.net)
    objective.start = ", ".join(filter(None, (objective.start, begun)))
    return begun
