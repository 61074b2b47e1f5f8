"""What happens to prompts: nothing is lost when they are split, the telling words are kept when they are cut down."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from small_models import LONG, small_clip

from minidiff.data.captions import canonical_caption, training_captions
from minidiff.data.emoji import STYLES, load_emoji
from minidiff.prompts import HubRewriter, expand, keywords, split


@pytest.mark.parametrize("prompt", [LONG, "e" * 3000, "no stops " * 300, "猫、" * 200, "cat", "", " , . "])
def test_a_split_prompt_has_every_letter_and_each_part_fits(prompt: str) -> None:
    cut = small_clip().cut
    parts = split(prompt, cut)
    assert not any(map(cut, parts))
    assert "".join("".join(parts).split()) == "".join(prompt.split())


def test_keywords_are_the_telling_words_in_their_order() -> None:
    assert keywords("a panda") == "a panda"
    long = "Please draw me a very cute little panda who is riding on a skateboard through the rain at night"
    assert len(keywords(long).split()) == 4 and {"panda", "skateboard"} <= set(keywords(long).split())
    assert keywords(long, 2) == "panda skateboard"
    assert keywords("a b c d e f g h xyzzy quux") != ""  # words that no caption has are kept when there are no others


@pytest.mark.parametrize("prompt", ["show me the one that is in it please", "❤ ❤ ❤ ❤ ❤"])
def test_a_prompt_without_telling_words_is_kept(prompt: str) -> None:
    assert keywords(prompt) == prompt


def test_the_offline_rewriter_adds_keywords_and_never_says_a_training_caption() -> None:
    emoji = load_emoji()
    assert expand("a panda on the moon").startswith("a picture of a panda on the moon that makes one think of ")
    styled = "xyzzy, fluent flat style"  # a style names no concept
    assert expand(styled) == f"a picture of {styled}"
    assert expand("xyzzy") == "a picture of xyzzy" and expand("panda") == expand("panda")
    for record in random.Random(0).sample(emoji.records, 60):
        said = {expand(canonical_caption(record, style)) for style in (None, *STYLES)}
        own = {c for style in (None, *STYLES) for c in training_captions(record, style, 24, 1)}
        assert not said & own and not any(caption.startswith("a picture of") for caption in own)
        held_out = record.held_out_keyword
        assert held_out is None or held_out not in expand(canonical_caption(record)).split()


def test_a_language_model_may_rewrite(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    words = ["<eos>", "A", "drawing", "of", "It", "shows", "cat", ".", "stars", "heart", "It"]
    raw = Tokenizer(models.WordLevel({word: i for i, word in enumerate(dict.fromkeys(words))}, unk_token="<eos>"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()  # type: ignore[assignment]
    PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<eos>", pad_token="<eos>").save_pretrained(tmp_path)
    config = GPT2Config(vocab_size=10, n_positions=64, n_embd=16, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        GPT2LMHeadModel(config).save_pretrained(tmp_path)
    rewrite = HubRewriter(str(tmp_path), tokens=5)
    assert rewrite("cat").startswith("cat") and rewrite("cat") == rewrite("cat")
    with pytest.raises(ValueError, match=r"`rewriter` must be a text-generation model; .*nothing' is none"):
        HubRewriter(str(tmp_path / "nothing"))


def test_a_rewriter_adds_what_the_model_said_and_not_what_it_was_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(asked: str, *, return_full_text: bool = True, **how: Any) -> list[dict[str, str]]:
        return [{"generated_text": asked * return_full_text + " a hat."}]

    monkeypatch.setattr("transformers.pipeline", lambda task, **how: answer)
    assert HubRewriter("some/model")("cat") == "cat, a hat."
