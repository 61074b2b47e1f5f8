"""What people might type to get a picture: short captions from an emoji's name, keywords, group and style.

Everything comes from Unicode CLDR (English and German). A caption never contains the emoji itself nor, in any
form, the base's held-out keyword: `EmojiRecord.keywords` no longer has it.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable
from functools import cache

from minidiff.common import check_choice, check_int
from minidiff.data.emoji import STYLES, EmojiRecord, EmojiSet

STYLE_SAID = 0.95  # of the training captions name the style; the others teach the model to choose one
GERMAN = 0.2
MOST_WORDS = 16  # about 24 tokens

_TONE = {
    "en": re.compile(r"(?:(?:medium-)?(?:light|dark)|medium) skin tone"),
    "de": re.compile(r"(?:(?:mittel)?(?:helle|dunkle)|mittlere) hautfarbe"),
}


def style_words(style: str) -> str:
    """How captions call a style: "fluent-3d" is "fluent 3d style". One that is not of the emoji is its own name."""
    return f"{style.replace('-', ' ')} style" if style in STYLES else style


def spoken_name(record: EmojiRecord, language: str = "en") -> str:
    """The name in lower case as one would say it: "woman: dark skin tone, red hair" is "woman with dark skin tone,
    red hair", "keycap: 3" is "keycap 3"; quotation marks and parentheses are left out.
    """
    return _parts(record.name if language == "en" else record.name_de, language)[0]


def canonical_caption(record: EmojiRecord, style: str | None = None) -> str:
    """The one caption used in evaluations: the spoken name and, if given, the style."""
    name = spoken_name(record)
    return name if style is None else f"{name}, {style_words(check_choice('style', style, STYLES))}"


def canonical_captions(emoji: EmojiSet, indices: Iterable[int]) -> list[str]:
    """Those of the pictures at flat indices, each with its style."""
    return [canonical_caption(emoji.records[emoji.concept_of(i)], emoji.style_of(i)) for i in indices]


def caption(record: EmojiRecord, style: str | None = None, *, rng: random.Random, language: str = "en") -> str:
    """One random caption of at most 16 words: name and shuffled keywords, or one of the two.

    In 100 captions: about 20 only the name, 65 the name and up to four keywords, 15 only keywords, never fewer
    than two. Skin tone is said with the name, and with the keywords as well. 15 name the group, too. `style` is
    said in 95% of them.

    language: "en" or "de". Raises ValueError for other languages or an unknown style.
    """
    check_choice("language", language, ("en", "de"))
    name, plain_name, tone = _parts(record.name if language == "en" else record.name_de, language)
    said = f", {style_words(check_choice('style', style, STYLES))}" if style is not None else ""
    if said and rng.random() >= STYLE_SAID:
        said = ""
    elif said and rng.random() < 0.25:
        said = f" in {said[2:]}" if language == "en" else f" im {said[2:-6]}-stil"
    pool = _new_words(record.keywords if language == "en" else record.keywords_de, plain_name)
    kind = rng.random()
    chosen: list[str] = []
    if kind >= 0.2 and pool:
        chosen = rng.sample(pool, min(len(pool), rng.randint(1, 4)))
    if kind >= 0.85 and len(pool) >= 2:
        chosen = chosen if len(chosen) >= 2 else rng.sample(pool, 2)
        parts = chosen + ([tone] if tone else [])
        rng.shuffle(parts)
    else:
        if tone and rng.random() < 0.3:
            name = f"{plain_name}, {tone}"
        elif language == "en" and not tone and rng.random() < 0.25:
            name = _with_article(name)
        parts = [name, *chosen]
        if chosen and rng.random() < 0.2:  # people also put the subject last
            parts = [*chosen, name]
    if language == "en" and rng.random() < 0.15:
        kin = (record.group if rng.random() < 0.5 else record.subgroup).replace("-", " ")
        parts += [kin] if kin not in parts else []
    return _fit(parts, name, MOST_WORDS - len(said.split())) + said


def training_captions(record: EmojiRecord, style: str | None, n: int, seed: int) -> list[str]:
    """n captions, one in five of them German: a function of the emoji, the style and the seed alone.

    The first is always the canonical one, so that every picture has at least one plain English name.
    """
    check_int("n", n, 0, 10_000)
    rng = random.Random(f"{seed}:{record.hexcode}:{style}")
    found = [canonical_caption(record, style)] if n else []
    while len(found) < n:
        found.append(caption(record, style, rng=rng, language="de" if rng.random() < GERMAN else "en"))
    return found


@cache
def _parts(label: str, language: str) -> tuple[str, str, str]:
    """Of a CLDR label: the spoken name, the same without its skin tone, and the skin tone, all in lower case."""
    label = re.sub(r"[“”„\"()!]", "", label).replace("’", "'").lower()
    tones = _TONE[language].findall(label)
    head, _, tail = _TONE[language].sub("", label).partition(": ")  # "12:30 uhr" has no space
    attributes = [word for word in (piece.strip() for piece in tail.split(",")) if word]
    head = head.strip()
    if head in ("keycap", "taste"):
        return f"{head} {tail}", f"{head} {tail}", ""
    glue = " with " if language == "en" else ", "  # after "mit", German would have to inflect
    plain, whole = (
        glue.join([head, *([", ".join(words)] if words else [])]) for words in (attributes, tones + attributes)
    )
    return whole, plain, ", ".join(tones)


@cache
def _new_words(keywords: tuple[str, ...], name: str) -> tuple[str, ...]:
    """The keywords that say more than the name."""
    return tuple(keyword for keyword in keywords if keyword not in name)


def _with_article(name: str) -> str:
    last = name.split()[-1]
    if last.endswith("s") or name[0] not in "abcdefghijklmnopqrstuvwxyz":
        return name
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _fit(parts: list[str], name: str, words: int) -> str:
    """Join the parts by commas and leave out the last ones that are not the name until at most `words` remain."""
    while len(parts) > 1 and sum(len(part.split()) for part in parts) > words:
        parts.pop(-2 if parts[-1] == name else -1)
    return ", ".join(parts)
