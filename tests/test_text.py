"""Words: tokens that come back as they went in, padding that nobody hears, and what a condition may forget."""

from __future__ import annotations

import unicodedata
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from minidiff.clip import train_tokenizer
from minidiff.common import Condition, TextEmbedding, randn, seeded
from minidiff.data.captions import canonical_caption
from minidiff.data.emoji import load_emoji
from minidiff.data.shapes import CAPTION_LENGTH, VOCABULARY, ShapeScenes
from minidiff.nets.unet import UNet, UNetConfig
from minidiff.text import BOS, EOS, PAD, MiniClip, MiniClipConfig, WordEncoder, unit_rms

SENTENCES = (
    "a red heart", "panda on a skateboard, fluent 3d style", "Grinning Face", "KEYCAP: 3", "it's 5 o'clock", "5 %",
    "ein rotes Herz", "Straße mit Bäumen", "GRÖSSE", "français, où est-il ?", "¿dónde está?", "São Paulo", "ĳsvogel",
    "Ångström", "Łódź", "naïve", "ﬁsh and ﬂowers", "①②③", "ｆｕｌｌ ｗｉｄｔｈ", "x² + y²", "½ cup", "™ and ®",
    "красное сердце", "ПРИВЕТ, МИР", "українська", "ελληνικά", "ΚΑΡΔΙΑ", "հայերեն", "ქართული", "қазақ тілі",
    "赤いハート", "カタカナ", "ﾊﾟﾝﾀﾞ", "熊猫", "龍と虎", "한국어", "빨간 하트", "ภาษาไทย", "हिन्दी दिल", "বাংলা",
    "தமிழ்", "తెలుగు", "ಕನ್ನಡ", "മലയാളം", "සිංහල", "ພາສາລາວ", "မြန်မာ", "ខ្មែរ", "བོད་ཡིག", "አማርኛ",
    "قلب أحمر", "فارسی", "اردو", "לב אדום", "ᏣᎳᎩ", "ⵜⴰⵎⴰⵣⵉⵖⵜ", "ᓀᐦᐃᔭᐍᐏᐣ", "Tiếng Việt",
    "❤️", "🐼", "👩🏿‍🚀", "🏳️‍🌈", "🇩🇪", "👨‍👩‍👧‍👦 family", "a\u0301 e\u0308", "“quotes” – dashes … dots",
)  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return train_tokenizer([canonical_caption(record) for record in load_emoji().records[::10]], vocabulary=600)


@pytest.fixture(scope="module")
def clip(tokenizer: Any) -> MiniClip:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = MiniClipConfig(
            dim=16, context=24, vocabulary=600, text_width=16, text_layers=2, text_heads=2,
            image_size=16, image_patch=8, image_width=16, image_layers=1, image_heads=2,
        )  # fmt: skip
        return MiniClip(config, tokenizer).eval().requires_grad_(False)


@pytest.mark.parametrize("sentence", SENTENCES)
def test_every_script_comes_back_in_lower_case(clip: MiniClip, sentence: str) -> None:
    ids = clip.tokenizer.encode(sentence, add_special_tokens=False).ids
    assert ids and not {PAD, BOS, EOS} & set(ids)
    assert clip.tokenizer.decode(ids).removeprefix(" ") == unicodedata.normalize("NFKC", sentence).lower()


def test_a_prompt_is_begin_its_pieces_end_and_padding(clip: MiniClip) -> None:
    ids, mask = clip.tokenize(["", "cat", "cat face with wry smile"])
    assert (ids[:, 0] == BOS).all() and torch.equal(mask, ids != PAD)
    for row, real in zip(ids, mask, strict=True):
        assert row[real][-1] == EOS and (row == EOS).sum() == 1 and (row[~real] == PAD).all()
    assert mask.sum(1).tolist() == sorted(mask.sum(1).tolist()) and mask[0].sum() == 2
    assert torch.equal(clip.tokenize(["  cat\tface "])[0], clip.tokenize(["cat face"])[0])  # spaces are no words
    assert clip.tokenize(["cat"], full=True)[0].shape == (1, clip.config.context)


def test_a_word_is_made_of_the_same_pieces_wherever_it_stands(clip: MiniClip) -> None:
    alone, twice = (clip.tokenize([prompt])[0][0, 1:-1].tolist() for prompt in ("cat", "cat cat"))
    assert twice == alone + alone


def test_a_large_picture_is_averaged_and_not_sampled_here_and_there(clip: MiniClip) -> None:
    x = torch.rand(1, 3, 128, 128, generator=seeded(0)) * 2 - 1
    small = F.interpolate(x, (16, 16), mode="area")
    assert torch.cosine_similarity(clip.encode_image(x), clip.encode_image(small)) > 0.98


def test_typed_special_tokens_are_plain_letters(clip: MiniClip) -> None:
    """Otherwise "<eos>" would end the sentence in its middle, and "<pad>" would be hidden by the mask."""
    ids, mask = clip.tokenize(["<bos> <pad> <eos> <unk>"])
    assert bool(mask.all()) and (ids == EOS).sum() == 1 and (ids == BOS).sum() == 1


def test_what_does_not_fit_is_cut_and_named(clip: MiniClip) -> None:
    long = " ".join(["cat face"] * 40)
    ids, mask = clip.tokenize([long])
    assert ids.shape == (1, 24) and ids[0, -1] == EOS and bool(mask.all())
    read = clip.tokenizer.decode(ids[0, 1:-1].tolist())
    assert clip.cut(long) and (read + clip.cut(long)).replace(" ", "") == long.replace(" ", "")
    assert clip.cut("cat face") == "" and clip.cut("") == ""
    assert len(clip.words(long)) == 24 and clip.words("cat")[0] == "<begin>"
    assert "".join(clip.words("cat")[1:-1]) == "cat" and clip.words("cat")[-1] == "<end>"


@pytest.mark.parametrize("kind", ["clip", "words"])
def test_a_prompt_means_the_same_alone_and_beside_longer_ones(clip: MiniClip, kind: str) -> None:
    torch.manual_seed(0)
    encoder = clip if kind == "clip" else WordEncoder(VOCABULARY, CAPTION_LENGTH, dim=16, layers=2, heads=2).eval()
    short, long = ("a red circle", "two small blue squares left of a green star")
    ids, mask = encoder.tokenize([short])
    n = int(mask.sum())
    alone, both = encoder.encode_ids(ids[:, :n], mask[:, :n]), encoder([short, long])
    assert both.mask[1].sum() > n == both.mask[0].sum()
    assert torch.allclose(both.tokens[0, :n], alone.tokens[0, :n], atol=1e-5)
    assert torch.allclose(both.pooled[0], alone.pooled[0], atol=1e-5)
    assert not both.tokens[0, n:].any()  # padding is zero
    if kind == "words":
        assert torch.allclose(both.pooled[0], unit_rms(both.tokens[0, :n].mean(0)), atol=1e-5)
    assert torch.allclose(both.pooled.square().mean(1), torch.ones(2), atol=1e-4)
    assert not torch.allclose(both.pooled[0], both.pooled[1], atol=1e-2)


def test_the_network_cannot_tell_what_stands_in_the_padding(clip: MiniClip) -> None:
    config = UNetConfig(
        size=8, widths=(8, 16), attention=(False, True), blocks=1, head_dim=8, embedding=16,
        context_dim=16, pooled_dim=16,
    )  # fmt: skip
    torch.manual_seed(0)
    net = UNet(config).eval().requires_grad_(False)
    for parameter in net.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    x, t = randn((2, 3, 8, 8), seeded(0)), torch.tensor([0.3, 0.7])
    text = clip(["cat", "grinning cat with smiling eyes"])
    noise = randn(text.tokens.shape, seeded(1))
    other = text._replace(tokens=torch.where(text.mask[..., None], text.tokens, 100 * noise))
    heard = text._replace(tokens=torch.where(text.mask[..., None], noise, text.tokens))
    answer = net(x, t, Condition(text=text))
    assert torch.allclose(net(x, t, Condition(text=other)), answer, atol=1e-5)
    assert not torch.allclose(net(x, t, Condition(text=heard)), answer, atol=1e-3)


def test_the_word_encoder_knows_its_words_and_suggests_the_nearest() -> None:
    encoder = WordEncoder(VOCABULARY, CAPTION_LENGTH, dim=16, layers=1, heads=2).eval()
    with pytest.raises(ValueError, match=r"'circel'.*circle"):
        encoder(["a red circel"])
    assert not encoder([""]).mask.any()
    for part in encoder(["", "a red circle"]):  # torch's own answer to a prompt of padding alone is NaN
        assert part.isfinite().all() and not part[0].any() and part[1].any()
    with pytest.raises(ValueError, match=rf"`prompts` must have at most {CAPTION_LENGTH} words each; got 99"):
        encoder(["red " * 99])
    with pytest.raises(ValueError, match=r"`prompts` must be a list of strings.*write \[prompt\]"):
        encoder("a red circle")
    source = ShapeScenes(20, device="cpu")
    captions = [f"{scene.caption().title().replace(' ', ', ')}." for scene in source.scenes]
    for mine, of_the_data in zip(encoder.tokenize(captions), (source.ids, source.mask), strict=True):
        assert torch.equal(mine, of_the_data)  # what it is told in drawing is what it was trained on
    own = WordEncoder(["<pad>", "up", "down"], 2, dim=16, layers=1, heads=2)
    assert own.tokenize(["Down, up."])[0].tolist() == [[2, 1]]


def everything() -> Condition:
    mask = torch.tensor([[True, True, False], [True, True, True]])
    text = TextEmbedding(randn((2, 3, 4), seeded(0)) * mask[..., None], mask, randn((2, 5), seeded(1)))
    return Condition(text, randn((2, 6), seeded(2)), torch.tensor([3, 4]))


def leaves(cond: Condition) -> list[torch.Tensor]:
    assert cond.text is not None and cond.image is not None and cond.label is not None
    return [*cond.text, cond.image, cond.label]


def test_absence_is_zero_and_keeps_its_shape() -> None:
    cond, all_rows = everything(), torch.tensor([True, True])
    for full, none in zip(leaves(cond), leaves(cond.null()), strict=True):
        assert full.shape == none.shape and full.dtype == none.dtype and full.any() and not none.any()
    dropped = cond.drop(text=all_rows, image=all_rows, label=all_rows)
    assert all(map(torch.equal, leaves(dropped), leaves(cond.null())))


def test_parts_are_forgotten_row_by_row() -> None:
    cond, first = everything(), torch.tensor([True, False])
    for name in ("text", "image", "label"):
        dropped = cond.drop(**{name: first})
        assert all(map(torch.equal, leaves(dropped.index([1])), leaves(cond.index([1]))))
        gone = [not leaf.any() for leaf in leaves(dropped.index([0]))]
        assert gone == [name == "text"] * 3 + [name == "image", name == "label"]
    assert Condition().drop(text=first, image=first, label=first) == Condition()


def test_conditions_are_stacked_and_the_shorter_text_is_padded() -> None:
    cond = everything()
    short = cond.index([0])
    assert short.text is not None
    short = Condition(
        TextEmbedding(short.text.tokens[:, :2], short.text.mask[:, :2], short.text.pooled), *leaves(short)[3:]
    )
    for both, rows in ((Condition.cat([short, cond]), [0, 0, 1]), (Condition.cat([cond, short]), [0, 1, 0])):
        assert len(both) == 3
        assert all(map(torch.equal, leaves(both), leaves(cond.index(rows))))


def test_what_only_some_conditions_say_is_absent_in_the_rows_of_the_others() -> None:
    cond = everything()
    only = {name: Condition(**{name: getattr(cond, name)}) for name in ("text", "image", "label")}
    for name, part in only.items():
        gone = cond.drop(**{other: torch.tensor([True, True]) for other in only if other != name})
        for both, rows in ((Condition.cat([part, cond]), (gone, cond)), (Condition.cat([cond, part]), (cond, gone))):
            assert len(both) == 4
            assert all(map(torch.equal, leaves(both.index([0, 1])), leaves(rows[0])))
            assert all(map(torch.equal, leaves(both.index([2, 3])), leaves(rows[1])))
    alone = Condition.cat([only["image"], only["image"]])
    assert alone.text is None and alone.label is None and Condition.cat([Condition()]) == Condition()


def test_one_row_can_be_said_to_many() -> None:
    cond = everything()
    assert all(map(torch.equal, leaves(cond.index([1]).expand(3)), leaves(cond.index([1, 1, 1]))))
    assert cond.expand(2) is cond and len(Condition()) == 0
    with pytest.raises(ValueError, match=r"`cond` must have 1 row or one per sample \(5\); got 2"):
        cond.expand(5)


def test_a_word_encoder_is_made_for_the_captions_it_is_given() -> None:
    encoder = WordEncoder.of(["A red cat.", "two blue, fat dogs"], dim=16, heads=2)
    assert set(encoder.vocabulary[1:]) == {"a", "red", "cat", "two", "blue", "fat", "dogs"} and encoder.context == 4
    assert encoder(["a red cat"]).mask.tolist() == [[True, True, True, False]]
    assert torch.equal(encoder(['A "red" cat!?']).tokens, encoder(["a red cat"]).tokens)
    with pytest.raises(ValueError, match=r"`words` must be one of .*'dog'\. Did you mean 'dogs'"):
        encoder(["a dog"])
    with pytest.raises(ValueError, match=r"`captions` must have at least one word between them; got \['', ' '\]"):
        WordEncoder.of(["", " "])
