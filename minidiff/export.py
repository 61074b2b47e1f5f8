"""A text-to-image model as files for a web page: two ONNX graphs with weights in int8, the tokenizer, a manifest.

The page computes what `TextToImage` does: it tokenizes, asks the text tower once and the U-Net at every step. The
manifest says all it has to know besides: sizes, styles, schedule, and the checkpoint that the files came from.
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import minidiff
from minidiff import checkpoints
from minidiff.checkpoints import sha256
from minidiff.common import Condition, TextEmbedding
from minidiff.data.captions import style_words
from minidiff.pipeline import TextToImage
from minidiff.text import BOS, EOS, PAD, MiniClip

FORMAT = 2
SMALLEST = 512  # weights with fewer numbers stay as they are
TOLERANCE = 1e-3  # between torch and onnxruntime, for outputs of size 1

Weights = dict[str, tuple[np.ndarray, np.ndarray]]  # name: (int8, scale)


def export_onnx(
    checkpoint: str | Path, folder: str | Path, say: Callable[[str], object] = lambda text: None
) -> dict[str, Any]:
    """Write text.onnx, unet.onnx, tokenizer.json and manifest.json into `folder`; return the manifest.

    text.onnx: ids (1, L) and mask (1, L) to tokens (1, L, D) and pooled (1, P); L is always the whole context.
    unet.onnx: x (B, 3, H, W), t (B,) and tokens, mask, pooled with B rows, any B, to output (B, 3, H, W) and
    attention (B, places, 1 + L): what each place reads, over the heads and layers of the finest attention.

    Both graphs are run once and compared with torch. checkpoint: a bundled model or a folder, with a mini-CLIP. say:
    called before each long part. Raises ValueError for a model of another kind, RuntimeError when the
    packages for exporting are missing or a graph does not agree with torch.
    """
    require_packages()
    source, target = checkpoints.find(checkpoint), Path(folder)
    pipe = TextToImage.from_pretrained(source)
    encoder, net = pipe.encoder, pipe.denoiser.net
    shape: Any = net.config
    if not isinstance(encoder, MiniClip):
        raise ValueError(f"`checkpoint` must be a model with a mini-CLIP, such as emoji-64; {checkpoint} has none.")
    if not (shape.context_dim and any(shape.attention)):
        raise ValueError(f"`checkpoint` must be a model with cross-attention; {checkpoint} has none.")
    target.mkdir(parents=True, exist_ok=True)
    say("text tower ...")
    ids, mask = encoder.tokenize(["a red heart"], full=True)
    _write(target / "text.onnx", _TextTower(encoder), {"ids": ids, "mask": mask}, ["tokens", "pooled"])
    say("U-Net (a minute or two) ...")
    x = torch.linspace(-2, 2, 3 * pipe.size**2).view(1, 3, pipe.size, pipe.size)
    inputs = {"x": x, "t": torch.tensor([0.5]), **encoder.encode_ids(ids, mask)._asdict()}
    batch = {name: tensor.expand(2, *tensor.shape[1:]).contiguous() for name, tensor in inputs.items()}
    _write(target / "unet.onnx", _LookingUNet(net), batch, ["output", "attention"], any_batch=True)
    shutil.copyfile(source / "tokenizer.json", target / "tokenizer.json")

    config = checkpoints.describe_denoiser(pipe.denoiser)
    files = [target / name for name in ("text.onnx", "unet.onnx", "tokenizer.json")]
    manifest = {
        "format": FORMAT,
        "minidiff": minidiff.__version__,
        "checkpoint": {"name": source.name, "sha256": sha256(source / "model.safetensors")},
        "size": pipe.size,
        "context": encoder.config.context,
        "tokens": {"pad": PAD, "begin": BOS, "end": EOS},
        "text_dim": encoder.dim,
        "pooled_dim": encoder.pooled_dim,
        "styles": {style: style_words(style) for style in pipe.styles},
        **{name: config[name] for name in ("schedule", "shift", "parameterization", "clip")},
        "files": {file.name: {"bytes": file.stat().st_size, "sha256": sha256(file)} for file in files},
    }
    (target / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
    return manifest


def require_packages() -> None:
    """Raise RuntimeError, naming the cure, where a package that exporting needs is missing."""
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise RuntimeError(f"exporting needs {', '.join(missing)}: pip install 'minidiff[export]'")


def round_weights(module: nn.Module) -> Weights:
    """Round the large weights of a module, in place, to multiples that fit into int8; return {name: (q, scale)}.

    w = scale q with q in -127 ... 127 and scale = max |w| / 127, one scale per output channel (the first index):
    an error of at most scale / 2. q: like w; scale: (channels, 1, ...), float32.
    """
    rounded = {}
    for name, weight in module.state_dict().items():
        if weight.dim() < 2 or weight.numel() < SMALLEST or not weight.is_floating_point() or not weight.any():
            continue
        scale = weight.abs().amax(tuple(range(1, weight.dim())), keepdim=True) / 127
        q = (weight / scale.clamp(min=1e-12)).round().to(torch.int8)
        weight.copy_(q * scale)  # the module's own storage
        rounded[name] = (q.numpy(), scale.numpy())
    return rounded


class _TextTower(nn.Module):
    def __init__(self, encoder: MiniClip):
        super().__init__()
        self.text_model, self.text_projection = encoder.model.text_model, encoder.model.text_projection
        self.encode = encoder.encode_ids

    def forward(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        text = self.encode(ids, mask)
        return text.tokens, text.pooled


class _LookingUNet(nn.Module):
    """The U-Net, and where it looked: cross-attention, averaged over heads and the layers of finest resolution."""

    def __init__(self, net: Any):
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, t: Tensor, tokens: Tensor, mask: Tensor, pooled: Tensor) -> tuple[Tensor, Tensor]:
        with self.net.record_attention() as maps:
            output = self.net(x, t, Condition(TextEmbedding(tokens, mask, pooled)))
        places = max(weights.shape[2] for weights in maps)
        finest = [weights.mean(1) for weights in maps if weights.shape[2] == places]
        return output, torch.stack(finest).mean(0)


def _write(
    path: Path, module: nn.Module, inputs: dict[str, Tensor], outputs: list[str], any_batch: bool = False
) -> None:
    """Round the module's weights, export it, store its weights as int8, and see that the file answers the same."""
    import onnx
    import onnxruntime

    quantized = round_weights(module.eval().requires_grad_(False))
    free = tuple({0: torch.export.Dim("batch")} for _ in inputs) if any_batch else None
    names: dict[str, Any] = {"input_names": list(inputs), "output_names": outputs}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the exporter's own future
        program: Any = torch.onnx.export(
            module, tuple(inputs.values()), dynamo=True, opset_version=18, dynamic_shapes=free, verbose=False, **names
        )
    onnx.save(_shrunk(program.model_proto, quantized), path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for rows in (1, 2) if any_batch else (1,):
        few = {name: tensor[:rows] for name, tensor in inputs.items()}
        said = session.run(outputs, {name: tensor.numpy() for name, tensor in few.items()})
        error = max(
            abs(theirs - ours.numpy()).max() for theirs, ours in zip(said, module(*few.values()), strict=True)
        )
        if not error <= TOLERANCE:
            raise RuntimeError(f"{path.name} differs from torch by {error:.1e}: this export is not to be used.")


def _shrunk(model: Any, quantized: Weights) -> Any:
    """The ONNX model with each rounded weight as int8 and scales, which two nodes turn into floats when it is loaded.

    The exporter renames weights and turns matrices round, so they are recognized by their numbers.
    """
    from onnx import TensorProto, checker, helper, numpy_helper

    known = {}
    for name, (q, scale) in quantized.items():
        known[(q * scale).tobytes()] = (name, q, scale)
        if q.ndim == 2:
            known[(q * scale).T.tobytes()] = (name, np.ascontiguousarray(q.T), np.ascontiguousarray(scale.T))
    graph, kept, unpack = model.graph, [], []
    for tensor in graph.initializer:
        found = known.get(numpy_helper.to_array(tensor).tobytes())
        if found is None:
            kept.append(tensor)
            continue
        name, q, scale = found
        kept += [numpy_helper.from_array(q, f"{name}.int8"), numpy_helper.from_array(scale, f"{name}.scale")]
        unpack.append(helper.make_node("Cast", [f"{name}.int8"], [f"{name}.float"], to=TensorProto.FLOAT))
        unpack.append(helper.make_node("Mul", [f"{name}.float", f"{name}.scale"], [tensor.name]))
    nodes = [*unpack, *graph.node]
    for part in (model, graph, *nodes, *kept, *graph.input, *graph.output):
        part.ClearField("metadata_props")  # the exporter notes where each line of code lies on this machine
        part.ClearField("doc_string")
    for field, content in (("node", nodes), ("initializer", kept), ("value_info", ())):
        graph.ClearField(field)
        getattr(graph, field).extend(content)
    checker.check_model(model)
    return model
