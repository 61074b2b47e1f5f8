"""The words of the emoji: captions vary, say what matters, and keep one secret per concept."""

from __future__ import annotations

import random
from collections import Counter, defaultdict

import emoji_split
import pytest

from minidiff.data import captions
from minidiff.data.emoji import STYLES, load_emoji

EMOJI = load_emoji()


def families() -> dict[str, list]:
    found = defaultdict(list)
    for record in EMOJI.records:
        found[record.base].append(record)
    return found


def test_the_held_out_keyword_is_known_language_and_no_word_of_a_name():
    taught = Counter(k for f in families().values() for k in {k for r in f for k in r.keywords})
    held = 0
    for family in families().values():
        words = {record.held_out_keyword for record in family}
        assert len(words) == 1, "variants must agree"
        keyword = words.pop()
        if keyword:
            held += 1
            assert taught[keyword] >= 2
            assert not any(emoji_split.related(f"{r.name} {r.name_de}", keyword) for r in family)
    assert held == 762


def test_no_training_caption_holds_its_held_out_keyword_or_the_emoji():
    rng = random.Random(0)
    for record in EMOJI.records:
        said = captions.training_captions(record, rng.choice(STYLES), 8, seed=1)
        said += [captions.caption(record, rng=rng, language=language) for language in ("en", "de") for _ in range(4)]
        said += [captions.canonical_caption(record, STYLES[0])]
        for text in said:
            assert record.emoji.strip("\ufe0f") not in text or record.emoji[0].isascii()
            assert text == text.lower().strip() and len(text.split()) <= captions.MOST_WORDS
            if record.held_out_keyword:
                assert not emoji_split.related(text, record.held_out_keyword), (record.name, text)


def test_captions_are_a_function_of_their_seed_and_say_name_tone_and_style():
    thumb = EMOJI.find("thumbs up: medium-dark skin tone")
    assert captions.canonical_caption(thumb, "fluent-3d") == "thumbs up with medium-dark skin tone, fluent 3d style"
    assert (
        captions.spoken_name(EMOJI.find("woman: dark skin tone, red hair")) == "woman with dark skin tone, red hair"
    )
    assert captions.spoken_name(EMOJI.find("keycap: 3"), "de") == "taste 3"
    assert captions.spoken_name(EMOJI.find("twelve-thirty"), "de") == "12:30 uhr"
    first = captions.training_captions(thumb, "noto", 400, seed=0)
    assert first == captions.training_captions(thumb, "noto", 400, seed=0)
    assert first != captions.training_captions(thumb, "noto", 400, seed=1)
    assert all("medium-dark skin tone" in text or "mitteldunkle hautfarbe" in text for text in first)
    assert 0.92 < sum("noto" in text for text in first) / 400 < 0.98
    assert 0.12 < sum("mitteldunkle" in text for text in first) / 400 < 0.28
    assert len(set(first)) > 100


def test_forms_of_a_word_are_recognized():
    assert all(emoji_split.related(text, "party") for text in ("Parties", "partying", "a party hat", "Partyhut"))
    assert not emoji_split.related("part of a pie", "doctor")
    assert emoji_split.clean_keywords(["Arzt/Ärztin", "doktor(in)", "<3", "143", "12:30", "i’m"]) == [
        "arzt",
        "ärztin",
        "doktor",
        "12:30",
    ]


def test_wrong_input_gets_a_sentence():
    with pytest.raises(ValueError, match="`language` must be one of en, de"):
        captions.caption(EMOJI.records[0], rng=random.Random(0), language="fr")
    with pytest.raises(ValueError, match="`style` must be one of"):
        captions.canonical_caption(EMOJI.records[0], "noto style")
