"""What a text-to-image model is asked, what else could answer, and how an answer is marked.

A *problem* is a held-out picture: one concept of a base, in the style in which that base was never shown. The model
has seen the base in other styles and the style on other bases; whether it can draw this one has a true answer.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from minidiff.clip import clip_score
from minidiff.common import seeded
from minidiff.data.captions import canonical_caption, canonical_captions
from minidiff.data.emoji import STYLES, EmojiRecord, EmojiSet
from minidiff.data.pixels import to_float, to_uint8
from minidiff.judge import Judge
from minidiff.metrics import bootstrap, ink_and_mask
from minidiff.text import MiniClip

BATCH = 128  # pictures generated at once: fills a GPU, and on two cores the bar still moves
AGAIN = 0.3  # the time to which copies are noised before they are drawn again
CANDIDATES, HARD = 100, 20  # bases to choose from: any, and of the same group
SEED_STRIDE = 1_000_000  # between repeats, and (from 9 on) other questions; the splits share their noise
TWINS = ("fluent-flat", "fluent-3d")  # the same drawing twice: who has seen one has as good as seen the other


class Generate(Protocol):
    """Anything that draws prompts: a guided diffusion model, or a stand-in."""

    def __call__(self, prompts: list[str], styles: list[str | None], seeds: list[int], **how: Any) -> Tensor:
        """Pictures (B, 3, H, W) in [-1, 1]; the prompts already name their style, which `styles` repeats.

        how: steps, guidance, interval and shift, as in `TextToImage`; also start (B, 3, H, W) and strength, for
        pictures that are to be noised and drawn again.
        """
        ...


@dataclass(frozen=True)
class Settings:
    """How pictures are drawn, with `repeats` different seeds for each prompt."""

    steps: int = 12
    guidance: float = 4.0
    interval: tuple[float, float] = (0.0, 1.0)
    shift: float | None = None  # the model's own
    repeats: int = 8


def draw(
    generate: Generate,
    prompts: Sequence[str],
    styles: Sequence[str | None],
    settings: Settings,
    seeds: int | Sequence[int] = 0,
    starts: Tensor | None = None,
) -> Tensor:
    """One picture per prompt, drawn in batches: uint8 (N, 3, H, W) on the CPU.

    seeds: one for each prompt, or the first of consecutive ones. starts: pictures in [-1, 1] to be noised to
    t = `AGAIN` and drawn again, in place of pure noise. Raises ValueError for another shape than asked for.
    """
    from tqdm import tqdm

    seeds = range(seeds, seeds + len(prompts)) if isinstance(seeds, int) else seeds
    how: dict[str, Any] = {name: value for name, value in asdict(settings).items() if name != "repeats"}
    parts = []
    for start in tqdm(range(0, len(prompts), BATCH), "drawing", leave=False, disable=None):  # None: not into files
        rows = range(start, min(start + BATCH, len(prompts)))
        if starts is not None:
            how |= {"start": starts[rows.start : rows.stop], "strength": AGAIN}
        x = generate([prompts[i] for i in rows], [styles[i] for i in rows], [seeds[i] for i in rows], **how)
        if x.dim() != 4 or x.shape[:2] != (len(rows), 3):
            raise ValueError(f"`generate` must return shape ({len(rows)}, 3, H, W); got {tuple(x.shape)}.")
        parts.append(to_uint8(x.detach().float().nan_to_num(0.0)).cpu())
    return torch.cat(parts)


@dataclass(frozen=True)
class Problem:
    """A picture to draw, and the bases to tell it from (its own is the first; empty when the judge knows none)."""

    record: EmojiRecord
    style: str
    candidates: tuple[str, ...]
    hard: tuple[str, ...]

    @property
    def prompt(self) -> str:
        """The canonical caption, which names the style."""
        return canonical_caption(self.record, self.style)

    @property
    def subsets(self) -> tuple[str, ...]:
        """The groups of problems that this one is reported in."""
        kind = "flags" if self.record.group == "flags" else "twins" if self.style in TWINS else "no twins"
        return ("all", kind, self.style)


def plainest(records: Sequence[EmojiRecord]) -> EmojiRecord:
    """The variant of a base without skin tone and gender, or the nearest to it."""
    return min(records, key=lambda r: (r.name != r.base, len(r.tone), r.gender is not None, r.index))


def problems(emoji: EmojiSet, split: str, known: Sequence[str], seed: int = 0) -> list[Problem]:
    """One problem per held-out (base, style) of a split, on the plainest variant; see `pose`."""
    records = [plainest(emoji.families[base]) for base in emoji.bases]
    asked = [(record, style) for record in records for style in STYLES if record.split[style] == split]
    return pose(emoji, asked, known, seed)


def pose(
    emoji: EmojiSet, asked: Iterable[tuple[EmojiRecord, str]], known: Sequence[str], seed: int = 0
) -> list[Problem]:
    """A problem for each concept and style.

    Candidates are the right base and 99 of the `known` at random; the hard list is the right base and 19 of its own
    subgroup, filled up from its group. known: the bases the judge can name.
    """
    home = {base: (plainest(rs).group, plainest(rs).subgroup) for base, rs in emoji.families.items()}
    found = []
    for record, style in asked:
        base = record.base
        if base not in known:
            found.append(Problem(record, style, (), ()))
            continue
        others = [other for other in known if other != base]
        random.Random(f"{seed}:{base}").shuffle(others)
        group, subgroup = home[base]
        near = sorted((o for o in others if home[o][0] == group), key=lambda o: home[o][1] != subgroup)
        found.append(Problem(record, style, (base, *others[: CANDIDATES - 1]), (base, *near[: HARD - 1])))
    return found


def true_pictures(emoji: EmojiSet, tasks: Sequence[Problem]) -> Tensor:
    """The right answers, uint8 (P, 3, 64, 64)."""
    return emoji.at(emoji.flat_index(task.record.index, task.style) for task in tasks)


def true_features(judge: Judge, emoji: EmojiSet, tasks: Sequence[Problem]) -> Tensor:
    """What the judge sees in the right answers, (P, 64)."""
    return judge.features(to_float(true_pictures(emoji, tasks)))


def other_styles(emoji: EmojiSet, tasks: Sequence[Problem], turn: int) -> Tensor:
    """The same concepts as trained on in another style, uint8 (P, 3, 64, 64); `turn` picks which of them."""
    rows = []
    for task in tasks:
        styles = [s for s in STYLES if task.record.split[s] == "train"]
        rows.append(emoji.flat_index(task.record.index, styles[turn % len(styles)]))
    return emoji.at(rows)


def lookup(
    emoji: EmojiSet,
    tasks: Sequence[Problem],
    similarity: Callable[[list[str], list[str]], Tensor] | None = None,
    turns: int = 1,
) -> list[Tensor]:
    """The training pictures whose captions are nearest to the prompts, uint8 (P, 3, 64, 64), for each turn.

    similarity(prompts, captions) -> (P, M), for instance a CLIP's; by default the overlap of the words, |A and B| /
    |A or B|. Captions that are equally near (with shared words, most prompts have some) take turns at random.
    """
    pictures = emoji.split_indices("train").tolist()
    captions = canonical_captions(emoji, pictures)
    scores = (similarity or word_overlap)([task.prompt for task in tasks], captions).double()
    ties = (1e-6 * torch.rand(scores.shape, generator=seeded(turn), dtype=torch.float64) for turn in range(turns))
    return [emoji.at([pictures[i] for i in (scores + luck).argmax(dim=1).tolist()]) for luck in ties]


def best_by_clip(clip: MiniClip, tasks: Sequence[Problem], drawn: Sequence[Tensor]) -> Tensor:
    """Of several drawings of each problem, uint8 (P, 3, H, W) each, those that a CLIP finds nearest to their prompts.

    So the first DALL-E chose, among 512 (Ramesh et al. 2021, section 2.6).
    """
    prompts = [task.prompt for task in tasks]
    best = torch.stack([clip_score(clip, prompts, to_float(x)) for x in drawn]).argmax(0).cpu()
    return torch.stack([*drawn])[best, torch.arange(len(tasks))]


def word_overlap(prompts: list[str], captions: list[str]) -> Tensor:
    """|A and B| / |A or B| of the words of each prompt and each caption, (P, M)."""

    def words(text: str) -> frozenset[str]:
        return frozenset(text.replace(",", " ").replace(":", " ").split())

    asked, known = [words(p) for p in prompts], [words(c) for c in captions]
    return torch.tensor([[len(a & b) / max(1, len(a | b)) for b in known] for a in asked])


@torch.no_grad()
def mark(
    judge: Judge,
    emoji: EmojiSet,
    tasks: Sequence[Problem],
    pictures: Tensor,
    clip: MiniClip | None = None,
    right: Tensor | None = None,
) -> dict[str, Tensor]:
    """Marks of pictures (P, 3, H, W), one per problem, uint8 or in [-1, 1]: each (P,) on the CPU.

    base_all, base_100, hard_20: 1 where the right base has the highest probability among all that the judge knows,
    or among the candidates. log_prob: that of the right base among the 100, in nats. style: 1 where the style is
    right. similarity: cosine of the judge's features to the true picture's. pixel_error: see `foreground_error`.
    The first four need bases that the judge knows, and are absent otherwise. clip: see `clip_score`; only with one.
    right: `true_features` (P, 64) of these tasks, for whoever marks several answers to them.
    """
    pictures = to_float(pictures)
    right = true_features(judge, emoji, tasks) if right is None else right
    features = judge.features(pictures)
    bases, styles = judge.logits(features)
    wanted = torch.tensor([STYLES.index(task.style) for task in tasks], device=styles.device)
    marks = {
        "style": (styles.argmax(1) == wanted).float(),
        "similarity": torch.cosine_similarity(features, right),
        "pixel_error": foreground_error(pictures, true_pictures(emoji, tasks)),
    }
    if clip is not None:
        marks["clip"] = clip_score(clip, [task.prompt for task in tasks], pictures)
    if tasks and all(task.candidates for task in tasks):
        place = {base: i for i, base in enumerate(judge.bases)}
        right_base = torch.tensor([place[task.record.base] for task in tasks], device=bases.device)
        marks["base_all"] = (bases.argmax(1) == right_base).float()
        rows = [
            [bases[i, [place[b] for b in names]] for i, names in enumerate(lists)]
            for lists in ([t.candidates for t in tasks], [t.hard for t in tasks])
        ]
        marks["base_100"] = torch.stack([(row.argmax() == 0).float() for row in rows[0]])
        marks["hard_20"] = torch.stack([(row.argmax() == 0).float() for row in rows[1]])
        marks["log_prob"] = torch.stack([row.log_softmax(0)[0] for row in rows[0]])
    return {name: value.float().cpu() for name, value in marks.items()}


def foreground_error(pictures: Tensor, true: Tensor) -> Tensor:
    """Root mean square difference, picture by picture, where either is not white: (P,) in [0, 2]."""
    (a, drawn_a), (b, drawn_b) = ink_and_mask(pictures), ink_and_mask(true.to(pictures.device))
    either = ((drawn_a + drawn_b) > 0).sum(1).clamp(min=1)
    return ((a - b).square().sum(1) / (3 * either)).sqrt()


def summarize(tasks: Sequence[Problem], repeats: Sequence[dict[str, Tensor]], seed: int = 0) -> dict[str, dict]:
    """subset -> mark -> mean, its 95% interval over bases (bootstrap), seed_std and n, from marks (P,) per seed.

    The problems of one base, in several styles, are drawn together: they are no independent evidence. seed_std is
    the standard deviation, over seeds, of the mean over problems (None with one seed).
    """
    summary: dict[str, dict] = {}
    for subset in sorted({name for task in tasks for name in task.subsets}):
        rows = torch.tensor([i for i, task in enumerate(tasks) if subset in task.subsets])
        bases = [tasks[i].record.base for i in rows.tolist()]
        same = torch.tensor([[base == other for base in bases] for other in dict.fromkeys(bases)]).double()
        summary[subset] = {"n": len(rows)}
        for name in repeats[0]:
            values = torch.stack([marks[name] for marks in repeats])[:, rows].double()  # (seeds, P)
            spread = float(values.mean(1).std()) if len(values) > 1 else None
            interval = bootstrap(same @ values.mean(0), same.sum(1), seed=seed)
            summary[subset][name] = interval.as_dict() | {"seed_std": spread}
    return summary
