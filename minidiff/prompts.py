"""What happens to a prompt before it is read: it is checked, cut into parts, reduced to keywords or written out."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from minidiff.common import check_int
from minidiff.data.captions import spoken_name, style_words
from minidiff.data.emoji import STYLES, EmojiRecord, load_emoji

LONGEST = 20_000  # characters; far above any context, and a bound on what a stranger can make us tokenize
_WORD = re.compile(r"[^\W_][\w'-]*")
# Words that say nothing about a picture, however rare the captions make them.
_EMPTY = frozenset(
    """a an and are as at be but by can for from has have he her his i if in into is it its like made me my no not of
    on or our out please she so that the their them then there these they this to up us very was we were which who
    with you your show shows draw drawing picture image one own all any more most just style""".split()  # noqa: SIM905
)


def readable(prompts: Any, name: str = "prompts") -> list[str]:
    """The prompts, one or a sequence of them, as a list; raises ValueError for what no model could read."""
    prompts = [prompts] if isinstance(prompts, str) else prompts
    if not isinstance(prompts, Sequence) or not prompts or not all(isinstance(p, str) for p in prompts):
        raise ValueError(f"`{name}` must be a string or a list of strings, at least one; got {prompts!r:.80}.")
    for prompt in prompts:
        if len(prompt) > LONGEST:
            raise ValueError(f"`{name}` must have at most {LONGEST} characters each; got {len(prompt)}.")
        if any("\ud800" <= letter <= "\udfff" for letter in prompt):  # halves of a pair: no text, but bytes
            raise ValueError(f"`{name}` must be text that UTF-8 can write; got {prompt!r:.80}.")
    return list(prompts)


def split(prompt: str, cut: Callable[[str], str]) -> list[str]:
    """A prompt in parts that each fit the context, in order and with nothing left out.

    Parts end with a sentence or a clause where they can, else after a word, else within one. cut: what does not fit
    of a text, "" if all of it does (`MiniClip.cut`).
    """
    parts: list[str] = []
    for clause in re.findall(r"[^,.;:!?\n]*[,.;:!?\n]*\s*", prompt):
        longer = (parts[-1] + clause) if parts else clause
        if not cut(longer):
            parts[-1:] = [longer]
        else:
            parts += _halve(clause, cut)
    return [part.strip() for part in parts if part.strip()] or [prompt]


def _halve(text: str, cut: Callable[[str], str]) -> list[str]:
    if not cut(text):
        return [text]
    middle = len(text) // 2
    space = text.rfind(" ", 1, middle)
    middle = space + 1 if space > 0 else middle
    return [*_halve(text[:middle], cut), *_halve(text[middle:], cut)]


@cache
def _weights() -> dict[str, float]:
    """How much a word of the captions tells: log(bases / bases that have it), words of names before others."""
    names, others = Counter[str](), Counter[str]()
    families = load_emoji().families
    for variants in families.values():
        names.update({word for record in variants for word in _words(spoken_name(record))})
        others.update({word for record in variants for word in _words(" ".join(record.keywords))})
    n, first = len(families), math.log(len(families))
    return {w: math.log(n / k) for w, k in others.items()} | {w: first + math.log(n / k) for w, k in names.items()}


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def keywords(prompt: str, most: int = 4) -> str:
    """The words of a prompt that tell most, at most so many, in their order.

    Words of emoji names come before those of other keywords, and of each kind the rarest first. What no emoji is
    called is left out, unless nothing else is there; a prompt of `most` words or fewer stays.
    """
    if len(prompt.split()) <= most:
        return prompt
    words = [word for word in dict.fromkeys(_words(prompt)) if word not in _EMPTY]
    weights = _weights()
    known = [word for word in words if word in weights] or words
    best = set(sorted(known, key=lambda word: -weights.get(word, 0))[:most])
    return " ".join(word for word in known if word in best) or prompt


def expand(prompt: str, most: int = 3) -> str:
    """A longer prompt from what the emoji table knows of its words: the rewriter that needs no language model.

    The concept whose name has most words in common with the prompt lends its keywords. The sentence is worded as no
    caption is, so that a training caption can never come out.
    """
    asked = set(_words(prompt)) - _EMPTY
    styles = {word for style in STYLES for word in _words(style_words(style))}

    def overlap(record: EmojiRecord) -> float:
        name = set(_words(spoken_name(record)))
        return len(name & (asked - styles)) / len(name | (asked - styles) | {""})

    best = max(load_emoji().records, key=overlap)
    new = [word for word in best.keywords if not set(_words(word)) <= asked] if overlap(best) > 0 else []
    return f"a picture of {prompt.strip()}" + (f" that makes one think of {_listed(new[:most])}" if new else "")


def _listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


class HubRewriter:
    """A rewriter that asks any text-generation model of `transformers`, by hub name or folder, for a longer prompt.

    The model continues `instruction` with the prompt in it; what it says after that is added to the prompt, which
    is never lost. Greedy, so that it says the same every time. Raises ValueError where nothing can be loaded.
    """

    def __init__(self, name: str, *, instruction: str = "A drawing of {prompt}. It shows", tokens: int = 40):
        from transformers import pipeline

        try:
            self.model = pipeline("text-generation", model=name, model_kwargs={"use_safetensors": True})
        except Exception as error:  # whatever a stranger's folder makes transformers raise
            why = (str(error).splitlines() or [type(error).__name__])[0]
            raise ValueError(f"`rewriter` must be a text-generation model; {name!r} is none: {why}") from error
        self.instruction, self.tokens = instruction, check_int("tokens", tokens, 1, 1000)

    def __call__(self, prompt: str) -> str:
        """The prompt, followed by what the model adds in one sentence."""
        asked = self.instruction.format(prompt=prompt)
        (answer,) = self.model(asked, max_new_tokens=self.tokens, do_sample=False, return_full_text=False)
        more = re.split(r"(?<=[.!?])\s", answer["generated_text"].strip())[0]
        return f"{prompt}, {' '.join(more.split())}" if more else prompt
