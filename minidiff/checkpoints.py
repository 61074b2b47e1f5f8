"""What a trained model is on disk: a folder with config.json, model.safetensors and a card, and how it is found.

No pickle is read or written, and no code comes with a checkpoint.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from minidiff.common import CheckpointError, NoiseSchedule, check_choice, check_number, pick_device
from minidiff.denoisers import NetDenoiser
from minidiff.nets.unet import UNet, UNetConfig
from minidiff.schedules import SCHEDULES, SHIFTS, levels, make_schedule, noise_end, own_shift
from minidiff.text import HubTextEncoder, MiniClip, MiniClipConfig, WordEncoder

if TYPE_CHECKING:
    from minidiff.judge import Judge

FORMAT = 1
# What is asked for -> which kinds of models that are
KINDS = {"prior": ("prior",), "look": ("lora",), "judge": ("judge",), "checkpoint": ("text-to-image", "denoiser")}
BUNDLED = Path(__file__).parent / "assets" / "models"


def bundled(what: str = "checkpoint") -> list[str]:
    """The names of the models that ship with minidiff: of those that draw, or a "prior", "look" or "judge"."""
    kinds = {path.parent.name: json.loads(path.read_text())["kind"] for path in BUNDLED.glob("*/config.json")}
    return sorted(name for name, kind in kinds.items() if kind in KINDS.get(what, kind))


def find(name: str | Path, what: str = "model") -> Path:
    """The folder of a bundled model or of one on disk; raises ValueError, naming what there is, for neither.

    what: as which argument it was given, see `bundled`; as a "model" any will do.
    """
    folder = Path(name)
    if (folder / "config.json").is_file():
        return folder
    if folder.exists() and str(name) not in bundled(what):
        said = f"must be a folder with config.json and model.safetensors; {name} has none"
        raise ValueError(f"`{what}` {said}: that of a training of your own gets them by save_pretrained.")
    return BUNDLED / check_choice(what, str(name), bundled(what), ", or the folder of a model")


def reads_words(name: str | Path) -> bool:
    """Whether the model of that name has a text encoder, so far as a configuration on this machine tells."""
    configs = (Path(name, "config.json"), BUNDLED / name / "config.json")
    try:
        return '"encoder"' in next((path.read_text() for path in configs if path.is_file()), "")
    except (OSError, ValueError):  # loading it will say what is wrong
        return False


def save_model(folder: str | Path, config: dict[str, Any], tensors: dict[str, Tensor], tokenizer: Any = None) -> None:
    """Write config.json, model.safetensors (fp16) and, if there is one, tokenizer.json."""
    from safetensors.torch import save as to_bytes

    for name, value in tensors.items():
        if value.is_floating_point() and not bool((value.abs() <= torch.finfo(torch.float16).max).all()):
            raise ValueError(f"`{name}` holds NaN, or numbers beyond 65,504, which half precision cannot store.")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    half = {k: (v.half() if v.is_floating_point() else v).contiguous().cpu() for k, v in tensors.items()}
    (folder / "model.safetensors").write_bytes(to_bytes(half))  # save_file makes it unreadable for others
    (folder / "config.json").write_text(json.dumps({"format": FORMAT, **config}, indent=2) + "\n")
    if tokenizer is not None:
        (folder / "tokenizer.json").write_text(tokenizer.to_str(), encoding="utf-8")  # on Windows, too


def load_model(name: str | Path, what: str = "model") -> tuple[dict[str, Any], dict[str, Tensor], Path]:
    """Read what `save_model` wrote: the configuration, the weights as float32, and the folder; what: see `find`."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = find(name, what)
    try:
        config = json.loads((folder / "config.json").read_text())
        tensors = load_file(folder / "model.safetensors")
    except (OSError, ValueError, SafetensorError) as error:
        said = f"`{what}` {name} is incomplete or damaged ({error}); fetch or train it again."
        raise CheckpointError(said) from error
    found = config.get("format") if isinstance(config, dict) else None
    if found != FORMAT:
        raise CheckpointError(
            f"`{what}` {name} has format {found}, this minidiff reads {FORMAT}: "
            + ("update minidiff." if isinstance(found, int) and found > FORMAT else "it is no model of minidiff.")
        )
    return config, {k: v.float() if v.is_floating_point() else v for k, v in tensors.items()}, folder


@contextmanager
def understanding(name: str | Path) -> Iterator[None]:
    """Say in one CheckpointError, instead of a traceback, what a configuration lacks or has too much.

    The global random state, from which a new network draws weights before it is given its own, is left as found.
    """
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    except CheckpointError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        what = (
            f"has no {error}"
            if isinstance(error, KeyError)
            else f"has an unknown or wrong value: {' '.join(str(error).split()).rstrip('.')}"
        )
        way = "update minidiff, or fetch the model again"
        if "`schedule`" in what:
            way = 'one of your own is registered first, as before saving: minidiff.schedules.SCHEDULES["name"] = ...'
        raise CheckpointError(
            f"`checkpoint` {name} is not for this minidiff, as its configuration {what}; {way}."
        ) from error


def part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The weights whose names start with the prefix, without it."""
    return {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}


def load_weights(module: nn.Module, tensors: dict[str, Tensor], name: str | Path) -> None:
    """Fill a module; raises ValueError when the checkpoint belongs to another architecture."""
    mine = {k: v.shape for k, v in module.state_dict().items()}
    theirs = {k: v.shape for k, v in tensors.items()}
    if mine != theirs:
        odd = sorted(k for k in mine.keys() | theirs.keys() if mine.get(k) != theirs.get(k))
        raise CheckpointError(
            f"`checkpoint` {name} does not fit this architecture: {len(odd)} weights differ, the first is {odd[0]}."
        )
    module.load_state_dict(tensors)


def fingerprint(module: nn.Module) -> str:
    """SHA-256 of a module's weights, rounded to half precision as they are stored; what LoRA adds does not count."""
    digest = hashlib.sha256()
    own = {k.replace(".base_layer", ""): v for k, v in module.state_dict().items() if ".lora_" not in k}
    for name, value in sorted(own.items()):
        digest.update(name.encode() + value.detach().cpu().half().numpy().tobytes())
    return digest.hexdigest()


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def describe_denoiser(denoiser: NetDenoiser) -> dict[str, Any]:
    """The configuration from which `build_denoiser` makes the same denoiser, to draw with or to train on."""
    net = denoiser.net
    if not isinstance(net, UNet):
        raise ValueError(
            f"`denoiser` must hold a UNet to be saved; got {type(net).__name__}: keep the weights of another "
            "network by safetensors.torch.save_file(net.state_dict(), path)."
        )
    if any("lora_" in weight for weight, _ in net.named_parameters()):
        raise ValueError("`denoiser` must be without LoRA to be saved: keep that with `save_lora`.")
    kind = type(denoiser.schedule).__name__
    schedule = next((name for name in SCHEDULES if _same_schedule(make_schedule(name), denoiser.schedule)), None)
    if schedule is None:
        raise ValueError(
            f"`denoiser` must have a schedule with a name to be saved; this {kind} has none: give it one, "
            f'minidiff.schedules.SCHEDULES["my-name"] = {kind} (or, for one with settings, a function that makes '
            "it), and the same before loading."
        )
    return {
        "net": asdict(net.config),
        "schedule": schedule,
        "shift": own_shift(denoiser.schedule),
        "schedule_at": levels(denoiser.schedule),
        "parameterization": denoiser.parameterization,
        "clip": denoiser.clip,
        "training": denoiser.learned_by,
    }


def _same_schedule(one: NoiseSchedule, other: NoiseSchedule) -> bool:
    """Whether two schedules are of one class with the same settings, as far as their numbers tell."""
    if type(one) is not type(other) or noise_end(one) != noise_end(other):
        return False
    t = torch.linspace(0, 1, 101, dtype=torch.float64)
    pairs = ((one.alpha(t), other.alpha(t)), (one.sigma(t), other.sigma(t)))
    return all(torch.equal(torch.as_tensor(a), torch.as_tensor(b)) for a, b in pairs)


def build_denoiser(config: dict[str, Any]) -> NetDenoiser:
    """An untrained denoiser of that configuration."""
    net, schedule = UNet(UNetConfig(**config["net"])), make_schedule(config["schedule"])
    if (shift := config.get("shift", 1.0)) != 1:  # models of earlier versions do not name it
        schedule.shift = check_number("shift", shift, *SHIFTS)
    now = levels(schedule)
    if not torch.allclose(torch.tensor(config.get("schedule_at", now)), torch.tensor(now), atol=1e-3):
        raise ValueError(f"`schedule` must be as when the model was saved; {config['schedule']!r} is another one")
    return NetDenoiser(net, schedule, config["parameterization"], clip=config["clip"], **config.get("training", {}))


def save_denoiser(folder: str | Path, denoiser: NetDenoiser, **more: Any) -> None:
    """Write a denoiser without its text encoder, if it has one; `more` goes into config.json.

    One that reads text is drawn from by `TextToImage(load_denoiser(folder), encoder)`, with the encoder it had.
    """
    config = {"kind": "denoiser", "denoiser": describe_denoiser(denoiser), **more}
    save_model(folder, config, {f"net.{k}": v for k, v in denoiser.net.state_dict().items()})


def load_denoiser(name: str | Path, device: torch.device | str = "cpu") -> NetDenoiser:
    """A trained denoiser, bundled or from a folder, ready to sample from; of a pipeline with words, its denoiser."""
    home = pick_device(device)
    config, tensors, _ = load_model(name, "checkpoint")
    with understanding(name):
        return read_denoiser(config, tensors, name).to(home)


def read_denoiser(config: dict[str, Any], tensors: dict[str, Tensor], name: str | Path) -> NetDenoiser:
    """The denoiser among a model's tensors, ready to sample from; raises CheckpointError if there is none."""
    if (kind := config.get("kind")) not in ("text-to-image", "denoiser"):
        way = f": a lora is drawn with by --recipe midjourney --look {name}" if kind == "lora" else ""
        raise CheckpointError(
            f"`checkpoint` {name} holds a {kind}, which cannot draw; give a text-to-image model, such as "
            f"{bundled()[0]}{way}."
        )
    denoiser = build_denoiser(config["denoiser"])
    load_weights(denoiser.net, part(tensors, "net." if config["kind"] == "denoiser" else "denoiser.net."), name)
    return denoiser.eval().requires_grad_(False)


Encoder = MiniClip | WordEncoder | HubTextEncoder
ENCODERS = {"mini-clip": MiniClip, "words": WordEncoder, "hub": HubTextEncoder}


def load_encoder(config: dict[str, Any], tensors: dict[str, Tensor], folder: Path) -> Encoder:
    """The text encoder that a checkpoint holds, with its weights, or names."""
    encoder: MiniClip | WordEncoder
    if config["kind"] == "hub":
        try:
            return HubTextEncoder(**config["settings"])
        except ValueError as error:
            raise CheckpointError(
                f"`checkpoint` {folder} was saved with the name of its text encoder: {error}."
            ) from error
    if config["kind"] == "mini-clip":
        from tokenizers import Tokenizer

        try:
            tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:  # tokenizers raises no narrower one
            raise CheckpointError(
                f"`checkpoint` {folder} has no tokenizer.json, or a damaged one ({error}); fetch it again."
            ) from error
        encoder = MiniClip(MiniClipConfig(**config["settings"]), tokenizer)
    else:
        encoder = WordEncoder(**config["settings"])
    load_weights(encoder, part(tensors, "encoder."), folder)
    return encoder.eval().requires_grad_(False)


def load_clip(name: str | Path) -> MiniClip:
    """The mini-CLIP of a checkpoint: `minidiff train clip` writes one, text-to-image models carry it."""
    config, tensors, folder = load_model(name, "clip")
    if config.get("encoder", {}).get("kind") != "mini-clip":
        raise ValueError(f"`clip` must be a checkpoint with a mini-CLIP (`minidiff train clip`); {name} has none.")
    with understanding(name):
        encoder = load_encoder(config["encoder"], tensors, folder)
    assert isinstance(encoder, MiniClip)
    return encoder


def save_judge(folder: str | Path, judge: Judge) -> None:
    """Write the classifier that evaluations are judged by."""
    save_model(folder, {"kind": "judge", "shape": judge.shape}, judge.state_dict())


def load_judge(name: str | Path = "judge", device: torch.device | str = "cpu") -> Judge:
    """The judge of a checkpoint, by default the bundled one, frozen."""
    from minidiff.judge import Judge

    home = pick_device(device)
    config, tensors, _ = load_model(name, "judge")
    if config.get("kind") != "judge":
        raise ValueError(f"`judge` must be a checkpoint of `minidiff train judge`; {name} is none.")
    with understanding(name):
        judge = Judge(**config["shape"])
        load_weights(judge, tensors, name)
    return judge.eval().requires_grad_(False).to(home)


def describe_encoder(encoder: Encoder) -> dict[str, Any]:
    """The configuration from which `load_encoder` makes the same encoder."""
    kind = next(name for name, cls in ENCODERS.items() if isinstance(encoder, cls))
    return {"kind": kind, "settings": encoder.settings()}
