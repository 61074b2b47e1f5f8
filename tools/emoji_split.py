"""Which emoji are variants of one another, and what is held out: the split as a scientific instrument.

A *base* is an emoji with skin tone, gender and hair removed: "woman health worker: dark skin tone" and
"man health worker" have one base. Everything is held out by base, because a model that has seen the man in
a style has as good as seen the woman. All choices are functions of the base's code points and SALT alone.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

from minidiff.data.emoji import STYLES

SALT = "minidiff emoji split 1"
UNSEEN, TEST, VALIDATION = 0.02, 0.05, 0.025  # of the bases
MIN_KEYWORDS = 4  # a base with fewer gives none of them away
SHARED = (2, 40)  # other bases that have the held-out word too: known language, but not a word for everything

TONES = ("1f3fb", "1f3fc", "1f3fd", "1f3fe", "1f3ff")  # skin from light to dark
HAIR = {"1f9b0", "1f9b1", "1f9b2", "1f9b3"}  # red, curly, bald, white
FEMALE, MALE = "2640", "2642"
# Emoji whose gender or hair is not a separate code point -> the neutral one.
NEUTRAL = {
    "1f468": "1f9d1",  # man -> person
    "1f469": "1f9d1",  # woman
    "1f471": "1f9d1",  # person: blond hair
    "1f9d4": "1f9d1",  # person: beard
    "1f466": "1f9d2",  # boy -> child
    "1f467": "1f9d2",  # girl
    "1f474": "1f9d3",  # old man -> older person
    "1f475": "1f9d3",  # old woman
    "1f934": "1fac5",  # prince -> person with crown
    "1f478": "1fac5",  # princess
    "1f57a": "1f483",  # man dancing -> woman dancing (there is no neutral one)
    "1f930": "1fac4",  # pregnant woman -> pregnant person
    "1fac3": "1fac4",  # pregnant man
}
WHOLE = {
    "1f385": "1f9d1-1f384",  # Santa Claus -> Mx Claus
    "1f936": "1f9d1-1f384",  # Mrs. Claus
    "1f931": "1f9d1-1f37c",  # breast-feeding -> person feeding baby
}
GENDER = {
    "man": {"1f468", "1f466", "1f474", "1f934", "1f57a", "1fac3", "1f385"},
    "woman": {"1f469", "1f467", "1f475", "1f478", "1f483", "1f930", "1f931", "1f936", "1f9d5"},
}


def base_code(code: str) -> str:
    """The base of an emoji given by its code points in lower case without FE0F: tone, gender, hair removed."""
    head, *tail = code.split("-")
    parts = [NEUTRAL.get(head, head)]  # the sign ♀ on its own is an emoji: the head is never removed
    parts += [p for p in tail if p not in {*TONES, *HAIR, FEMALE, MALE, "200d"}]
    return WHOLE.get("-".join(parts), "-".join(parts))


def gender_of(code: str) -> str | None:
    """ "man" or "woman" where the emoji (code points as for `base_code`) says so, else None."""
    head, *tail = code.split("-")
    for gender, sign in (("man", MALE), ("woman", FEMALE)):
        if sign in tail or head in GENDER[gender]:
            return gender
    return None


def rank(text: str) -> int:
    """A number that looks random and never changes: SHA-256 of SALT and `text`."""
    return int.from_bytes(hashlib.sha256(f"{SALT}:{text}".encode()).digest()[:8], "big")


def assign_splits(bases: Iterable[str]) -> dict[str, dict[str, str]]:
    """base -> {style: "train" | "validation" | "test" | "unseen"}.

    The bases in the order of `rank`: the first 2 % are unseen in all styles, of the next 5 % (test) and
    2.5 % (validation) one style each is held out, the four styles in turn.
    """
    ordered = sorted(set(bases), key=rank)
    n_unseen, n_test, n_validation = (round(part * len(ordered)) for part in (UNSEEN, TEST, VALIDATION))
    splits = {base: dict.fromkeys(STYLES, "unseen" if i < n_unseen else "train") for i, base in enumerate(ordered)}
    for i, base in enumerate(ordered[n_unseen : n_unseen + n_test + n_validation]):
        splits[base][STYLES[i % len(STYLES)]] = "test" if i < n_test else "validation"
    return splits


def clean_keywords(tags: list[str]) -> list[str]:
    """CLDR's keywords in lower case, without emoticons, bare numbers and whole sentences; "arzt/ärztin" is two."""
    found: dict[str, None] = {}
    for tag in tags:
        for word in re.sub(r"\(.*?\)", "", tag.lower().replace("’", "'")).split("/"):
            word = word.strip(" -")
            speaks = re.fullmatch(r"[^\W_][\w':.& -]+", word) and re.search(r"[^\W\d_]{2}|\d:\d", word)
            if speaks and len(word.split()) <= 3:
                found[word] = None
    return list(found)


def tokens(text: str) -> list[str]:
    """Words of `text` in lower case."""
    return re.findall(r"[^\W_]+", text.lower().replace("’", "'"))


def stem(word: str) -> str:
    """`word` without an English inflection, never shorter than three letters."""
    return re.sub(r"(?<=\w{3})(ing|ed|es|s|e|y|ies)$", "", word)


def related(text: str, keyword: str) -> bool:
    """Whether some word of `text` is `keyword` or one of its forms: either begins with the other's stem."""
    forms = [stem(word) for word in tokens(keyword)]
    for word in map(stem, tokens(text)):
        if any(word.startswith(form) or (len(word) >= 3 and form.startswith(word)) for form in forms):
            return True
    return False


def choose_held_out(rows: list[dict[str, Any]]) -> dict[str, str | None]:
    """base -> the one keyword that no caption of its variants may use, or None.

    A single word that every variant has, that no name (either language) nor group of theirs contains in any
    form, and that other bases teach (SHARED): the test is whether the model connects a word it knows with a
    picture it knows.
    """
    families: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        families[row["base"]].append(row)
    common = {b: sorted(set.intersection(*(set(r["keywords"]) for r in family))) for b, family in families.items()}
    all_of = {b: {k for r in family for k in r["keywords"]} for b, family in families.items()}
    taught = Counter(k for keywords in all_of.values() for k in keywords)  # bases whose captions have the word
    spread = taught.copy()
    chosen: dict[str, str | None] = dict.fromkeys(families)
    for base in sorted(families, key=rank):
        if len(common[base]) < MIN_KEYWORDS:
            continue
        family = families[base]
        said = " ".join({r[f] for r in family for f in ("name", "name_de", "group", "subgroup")} | {"style", *STYLES})
        for keyword in sorted(common[base], key=lambda keyword: rank(f"{base}:{keyword}")):
            gone = [k for k in all_of[base] if related(k, keyword)]
            scarce = {k for k in gone if taught[k] <= SHARED[0]}  # somebody must go on teaching what is tested
            if (
                keyword.isalpha()
                and len(keyword) >= 3
                and spread[keyword] - 1 <= SHARED[1]
                and not scarce & {keyword, *chosen.values()}
                and not related(said, keyword)
                and not related(keyword, "man woman person boy girl")
            ):
                chosen[base] = keyword
                taught.subtract(gone)
                break
    return chosen
