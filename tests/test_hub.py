"""Where a pipeline is found, and what saving it leaves: folders and the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from small_models import small_pipe

from minidiff.pipeline import TextToImage


@pytest.fixture(scope="module")
def pipe() -> TextToImage:
    return small_pipe()


def test_only_owner_and_name_are_looked_up_on_the_hub(
    pipe: TextToImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, Any]] = []

    def download(name: str, **options: Any) -> str:
        asked.append((name, options))
        pipe.save_pretrained(tmp_path / "hub")
        return str(tmp_path / "hub")

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    for name in ("nothing", "../x/y", "/x/y", "a/b/c", tmp_path / "a", "emoji-63", "~/model", ".", "owner/", "a b/c"):
        with pytest.raises(ValueError, match="`checkpoint`"):
            TextToImage.from_pretrained(name)
    assert asked == []
    assert TextToImage.from_pretrained("owner/name.v2", revision="main").styles == pipe.styles
    ((name, options),) = asked
    assert name == "owner/name.v2" and options.pop("revision") == "main"
    files = options.pop("allow_patterns")
    assert options == {} and sorted(files) == ["card.json", "config.json", "model.safetensors", "tokenizer.json"]
    (tmp_path / "owner").mkdir()
    monkeypatch.chdir(tmp_path)
    pipe.save_pretrained("owner/model")
    TextToImage.from_pretrained("owner/model")  # it is here, so nobody is asked
    assert len(asked) == 1


def test_a_hub_that_does_not_answer_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(name: str, **_: Any) -> str:
        raise OSError("no route to host\nand\nmuch more")

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    with pytest.raises(
        ValueError, match=r"bundled model .*emoji-64.*; got 'owner/name', no folder here: no route to host$"
    ):
        TextToImage.from_pretrained("owner/name")


def test_a_text_encoder_of_others_cannot_be_saved(tmp_path: Path) -> None:
    pipe = small_pipe()
    pipe.save_pretrained(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    pipe.encoder = torch.nn.Identity()  # type: ignore[assignment]
    with pytest.raises(ValueError, match="with a text encoder of your own cannot be saved"):
        pipe.save_pretrained(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before  # the model there is still whole


@pytest.mark.parametrize("flaw", ["weights", "card"])
def test_what_cannot_be_written_leaves_the_model_that_lies_there(tmp_path: Path, flaw: str) -> None:
    pipe = small_pipe()
    pipe.save_pretrained(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    if flaw == "weights":
        next(pipe.denoiser.parameters()).data.fill_(float("nan"))
    else:
        pipe.card = {"loss": torch.tensor(0.1)}
    with pytest.raises((ValueError, TypeError), match=r"NaN|JSON"):
        pipe.save_pretrained(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_an_option_of_the_hub_is_not_dropped_for_a_model_that_is_here(tmp_path: Path) -> None:
    small_pipe().save_pretrained(tmp_path)
    for name, option in (("emoji-64", {"device": "cuda"}), (tmp_path, {"revison": "main"})):
        with pytest.raises(ValueError, match=rf"`{next(iter(option))}` is for models of the hub, not for .*\.to\("):
            TextToImage.from_pretrained(name, **option)


def test_loading_leaves_the_global_random_state_as_it_was(tmp_path: Path) -> None:
    small_pipe().save_pretrained(tmp_path)
    state = torch.get_rng_state()
    TextToImage.from_pretrained(tmp_path)
    assert torch.equal(torch.get_rng_state(), state)
