"""`minidiff export onnx`: the files answer as the model does, in int8, and say where they came from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from program import program, sentence
from small_models import small_pipe, styles_pipe

from minidiff import checkpoints
from minidiff.common import Condition, TextEmbedding
from minidiff.export import export_onnx, round_weights, sha256
from minidiff.nets import UNet
from minidiff.pipeline import TextToImage
from minidiff.text import MiniClip

ROOT = Path(__file__).resolve().parents[1]
COMMITTED = ROOT / "book" / "_static" / "playground" / "emoji-64"
Weights = dict[str, tuple[np.ndarray, np.ndarray]]


def stored_weights(path: Path) -> Weights:
    """What a graph stores as int8, and its scales, by the name that torch gives the weight."""
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}
    names = [name.removesuffix(".int8") for name in arrays if name.endswith(".int8")]
    return {name: (arrays[f"{name}.int8"], arrays[f"{name}.scale"]) for name in names}


def towers(pipe: TextToImage) -> tuple[MiniClip, UNet]:
    """Both networks of a model with text."""
    assert isinstance(pipe.encoder, MiniClip) and isinstance(pipe.denoiser.net, UNet)
    return pipe.encoder, pipe.denoiser.net


def load_stored_weights(pipe: TextToImage, folder: Path) -> None:
    """Put the weights of exported files, made floats again, into a model: the Python twin of what a page runs."""
    for file, module in (("text.onnx", towers(pipe)[0].model), ("unet.onnx", pipe.denoiser)):
        state = module.state_dict()
        for name, (q, scale) in stored_weights(folder / file).items():
            turned = scale.ndim == 2 and scale.shape[0] == 1 and q.shape[0] > 1
            weight = torch.from_numpy(q * scale)
            state[name].copy_(weight.T if turned else weight)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A small model's checkpoint and what `export_onnx` made of it."""
    checkpoint, folder = tmp_path_factory.mktemp("small"), tmp_path_factory.mktemp("onnx")
    small_pipe().save_pretrained(checkpoint)
    export_onnx(checkpoint, folder)
    return checkpoint, folder


def run(path: Path, **inputs: Any) -> list[torch.Tensor]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    said = session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})
    return [torch.from_numpy(array) for array in said]


def test_the_graphs_answer_as_the_model_with_the_stored_weights(exported: tuple[Path, Path]) -> None:
    checkpoint, folder = exported
    pipe = TextToImage.from_pretrained(checkpoint)
    load_stored_weights(pipe, folder)
    encoder, net = towers(pipe)
    ids, mask = encoder.tokenize(["a red heart, noto style"], full=True)
    tokens, pooled = run(folder / "text.onnx", ids=ids, mask=mask)
    cond = pipe.condition(["a red heart"], "noto")
    assert cond is not None and cond.text is not None
    length = cond.text.mask.shape[1]
    torch.testing.assert_close(tokens[:, :length], cond.text.tokens, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(pooled, cond.text.pooled, atol=1e-5, rtol=1e-5)
    x, t = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)), torch.tensor([0.7])
    nothing = [torch.zeros_like(part) for part in (tokens, mask, pooled)]
    both = [torch.cat(pair) for pair in zip((tokens, mask, pooled), nothing, strict=True)]
    for rows in (1, 2):  # alone, and beside the null condition
        words = [part[:rows] for part in both]
        inputs = {"x": x.expand(rows, -1, -1, -1), "t": t.expand(rows)}
        output, attention = run(
            folder / "unet.onnx", **inputs, **dict(zip(("tokens", "mask", "pooled"), words, strict=True))
        )
        with net.record_attention() as maps:
            expected = net(inputs["x"], inputs["t"], Condition(TextEmbedding(*words)))
        torch.testing.assert_close(output, expected, atol=1e-5, rtol=1e-5)
        finest = max(weights.shape[2] for weights in maps)
        mean = torch.stack([weights.mean(1) for weights in maps if weights.shape[2] == finest]).mean(0)
        torch.testing.assert_close(attention, mean, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(attention.sum(-1), torch.ones(rows, finest))
        assert rows == 1 or bool((attention[1, :, 0] == 1).all())  # without words, only the one that is always there


def test_every_large_weight_is_int8_and_off_by_half_a_step_at_most(exported: tuple[Path, Path]) -> None:
    checkpoint, folder = exported
    pipe = TextToImage.from_pretrained(checkpoint)
    for file, module in (("text.onnx", towers(pipe)[0].model), ("unet.onnx", pipe.denoiser)):
        state, stored = module.state_dict(), stored_weights(folder / file)
        assert stored
        for name, (q, scale) in stored.items():
            weight = state[name].numpy()
            weight = weight.T if weight.shape != q.shape or scale.shape[0] == 1 else weight
            assert q.dtype == np.int8 and abs(q).max() == 127
            assert (abs(q * scale - weight) <= scale / 2 + 1e-7).all()
        floats = [t for t in onnx.load(folder / file).graph.initializer if t.data_type == onnx.TensorProto.FLOAT]
        numbers = sum(q.size for q, _ in stored.values())
        assert sum(int(np.prod(t.dims)) for t in floats) < 0.4 * numbers  # this small model is half biases and norms


def test_rounding_keeps_a_scale_for_every_output_channel() -> None:
    layer = torch.nn.Linear(64, 16).requires_grad_(False)
    layer.weight[3] *= 100
    before = layer.weight.clone()
    q, scale = round_weights(layer)["weight"]
    assert scale.shape == (16, 1) and q.shape == (16, 64)
    torch.testing.assert_close(layer.weight, torch.from_numpy(q * scale), atol=0, rtol=0)
    error = (layer.weight - before).abs().amax(1)
    assert bool((error <= before.abs().amax(1) / 254 * 1.001).all())  # the loud row costs the others nothing


def test_the_manifest_knows_every_file_and_the_checkpoint(exported: tuple[Path, Path]) -> None:
    checkpoint, folder = exported
    manifest = json.loads((folder / "manifest.json").read_text())
    assert {path.name for path in folder.iterdir()} == {*manifest["files"], "manifest.json"}
    for name, facts in manifest["files"].items():
        assert facts == {"bytes": (folder / name).stat().st_size, "sha256": sha256(folder / name)}
    assert manifest["checkpoint"]["sha256"] == sha256(checkpoint / "model.safetensors")
    assert manifest["styles"]["fluent-3d"] == "fluent 3d style" and manifest["schedule"] == "flow"


def test_the_files_tell_nothing_of_the_machine_they_were_made_on(exported: tuple[Path, Path]) -> None:
    for path in exported[1].glob("*.onnx"):
        assert str(ROOT).encode() not in path.read_bytes() and b"site-packages" not in path.read_bytes()


def test_the_files_of_the_playground_come_from_the_checkpoint_that_ships() -> None:
    manifest = json.loads((COMMITTED / "manifest.json").read_text())
    shipped = checkpoints.find("emoji-64")
    assert manifest["checkpoint"] == {"name": "emoji-64", "sha256": sha256(shipped / "model.safetensors")}, (
        "run `make playground`"
    )
    for name, facts in manifest["files"].items():
        assert facts["sha256"] == sha256(COMMITTED / name)
    assert (COMMITTED / "tokenizer.json").read_bytes() == (shipped / "tokenizer.json").read_bytes()


@pytest.mark.release
def test_the_flagship_exports_to_the_weights_that_are_committed(tmp_path: Path) -> None:
    export_onnx("emoji-64", tmp_path)
    for file in ("text.onnx", "unet.onnx"):
        new, old = stored_weights(tmp_path / file), stored_weights(COMMITTED / file)
        assert new.keys() == old.keys()
        assert all(np.array_equal(new[name][part], old[name][part]) for name in new for part in (0, 1))
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 12e6


def test_what_cannot_be_exported_is_refused_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    minidiff = program(monkeypatch, capsys, tmp_path)
    sentence(minidiff("export", "onx", "--out", "x"), 2, "`kind` must be one of onnx; got 'onx'. Did you mean 'onnx'")
    sentence(minidiff("export", "onnx", "--out", "x", "--checkpoint", "emoij-64"), 2, "Did you mean 'emoji-64'")
    Path("file").write_text("")
    sentence(minidiff("export", "onnx", "--out", "file"), 2, "`out` must be a folder")
    styles_pipe().save_pretrained(tmp_path / "wordless")
    done = minidiff("export", "onnx", "--out", "x", "--checkpoint", "wordless")
    sentence(done, 2, "`checkpoint` must be a model with a mini-CLIP, such as emoji-64; wordless has none")
    monkeypatch.setattr("minidiff.export.find_spec", lambda name: None)
    sentence(minidiff("export", "onnx", "--out", "x"), 1, r"pip install 'minidiff\[export\]'")
    assert not Path("x").exists()
