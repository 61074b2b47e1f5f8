"""Writes an evaluation down: evaluation.json for programs, index.html with contact sheets for people."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from minidiff.images import grid, to_images

MARKS = {
    "base_all": "right base among all",
    "base_100": "right base among 100",
    "hard_20": "right base among 20 of its group",
    "log_prob": "log p of the right base, nats",
    "style": "right style",
    "similarity": "similarity to the true picture",
    "pixel_error": "pixel error, foreground",
    "clip": "CLIP score of the prompt",
}
EXPLAINED = """
<p>Marked by a classifier that was trained on the training split alone, with another objective than the model's text
encoder. <b>Right base among 100</b>: the right concept has the highest probability among it and 99 others drawn at
random; <b>among 20 of its group</b>: among it and 19 of its own kind. <b>Similarity</b>: cosine between the
classifier's features of the picture and of the true, held-out one. <b>Pixel error</b>: root mean square difference
in [0, 2] to the true picture, over the pixels where either is not white. <b>CLIP score</b>: the cosine between prompt
and picture to the very CLIP that the model is told its prompts by. <b>Trained prompts</b> are no held-out pictures:
model and classifier were trained on them. In brackets the 95% interval over concepts
(bootstrap), after ± the standard deviation over seeds (for the concept in another style over the styles, for the
nearest caption over the equally near ones). <b>Twins</b> are Fluent flat and Fluent 3D, the same drawing
twice: who has seen one has as good as seen the other.</p>
"""
DISTANCES = """
<p>Distances between equally many pictures, in the classifier's 64 features: not comparable with KID or FID of
Inception's features. The floor is the distance that real pictures have; under it nothing can be claimed.</p>
"""
COPIES = """
<p>A picture counts as a copy when it is nearer to its nearest training picture than 99% of the real pictures that
nobody trained on (twins apart) are to theirs, both in features and, moved by up to two pixels, in foreground pixels.
Training pictures, moved as in training, and the same drawn again from t = 0.3, show how many copies this finds.
The intervals are Wilson's, a concept being one trial.</p>
"""
SHAPES = """
<p>Counted by an oracle that reads the scene back from the picture; nothing in it is learned. <b>All</b>: number,
size, color, shape and place are right at once, and nothing else is in the picture; what cannot be read is wrong in
everything. <b>Relation</b> counts the scenes with two groups. <b>Held out</b>: pairs of color and shape that no
training picture shows. <b>Ceiling</b>: real renderings of the same scenes. <b>Chance</b>: the model's pictures,
marked against other scenes.</p>
"""
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0; } .wide { overflow-x: auto; }
th, td { border-bottom: 1px solid #ccc; padding: .3rem .8rem; text-align: right; font-variant-numeric: tabular-nums; }
th:first-child, td:first-child { text-align: left; } img { max-width: 100%; image-rendering: auto; }
"""


def write_report(result: dict[str, Any], folder: str | Path) -> Path:
    """Write evaluation.json, index.html and a PNG contact sheet per set of pictures; return the page's path.

    result: of `evaluate` or `evaluate_shapes`; it is left as it is, and everything of it but `pictures` goes into the
    JSON. Raises ValueError when it is no such result.
    """
    if not isinstance(result, dict) or not {"splits", "held_out"} & set(result):
        raise ValueError("`result` must be the dict that `evaluate` or `evaluate_shapes` returns.")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    numbers = {name: value for name, value in result.items() if name != "pictures"}
    (folder / "evaluation.json").write_text(json.dumps(numbers, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    sheets = {}
    for name, (captions, pictures) in result.get("pictures", {}).items():
        sheets[name] = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") + ".png", captions
        grid(to_images(pictures), columns=16, gap=4).save(folder / sheets[name][0], optimize=True)
    page = folder / "index.html"
    page.write_text(_page(numbers, sheets), encoding="utf-8")
    return page


def _page(numbers: dict[str, Any], sheets: dict[str, tuple[str, Sequence[str]]]) -> str:
    parts = [f"<!doctype html><html lang=en><meta charset=utf-8><title>Evaluation</title><style>{STYLE}</style>"]
    told = ", ".join(f"{name} {value}" for name, value in numbers["settings"].items())
    parts.append(f"<h1>Evaluation</h1><p>{html.escape(told)}</p>")
    parts += _emoji(numbers) if "splits" in numbers else _shapes(numbers)
    parts.append("<h2>Pictures</h2>")
    for name, (file, captions) in sheets.items():
        words = html.escape(" · ".join(captions))
        parts.append(
            f"<h3>{html.escape(name)}</h3><img src='{file}' alt='Contact sheet: {html.escape(name, quote=True)}'>"
            f"<details><summary>The prompts, row by row</summary><p>{words}</p></details>"
        )
    return "\n".join(parts) + "</html>\n"


def _emoji(numbers: dict[str, Any]) -> list[str]:
    parts = [f"{EXPLAINED}<h2>What each row has seen</h2><dl>"]
    parts += [f"<dt><b>{html.escape(k)}</b><dd>{html.escape(v)}" for k, v in numbers["seen"].items()]
    parts.append("</dl>")
    for split, found in numbers["splits"].items():
        parts.append(f"<h2>{split.capitalize()} split, {found['pictures']} pictures</h2>")
        for subset in next(iter(found["rows"].values())):
            rows = {name: summary[subset] for name, summary in found["rows"].items()}
            n = next(iter(rows.values()))["n"]
            parts.append(f"<h3>{html.escape(subset)} (n = {n})</h3>{_marks(rows, found['chance'])}")
    for title, text, found in (
        ("Distances to real pictures", DISTANCES, numbers["distribution"]),
        ("Copies", COPIES, {"": numbers["copies"]}),
        ("Diversity of one prompt without a style", "", {"": numbers["diversity"]}),
    ):
        parts.append(f"<h2>{title}</h2>{text}")
        parts += [f"<h3>{html.escape(name)}</h3>{_nested(values)}" for name, values in found.items()]
    return parts


def _shapes(numbers: dict[str, Any]) -> list[str]:
    parts = [SHAPES]
    for name in ("seen", "held_out"):
        rows = {who: {k: v for k, v in row.items() if v is not None} for who, row in numbers[name].items()}
        parts.append(f"<h2>{name.replace('_', ' ').capitalize()} pairs</h2>{_nested(rows)}")
    return parts


def _marks(rows: dict[str, dict[str, Any]], chance: dict[str, Any]) -> str:
    shown = [name for name in MARKS if any(name in row for row in rows.values())]
    lines = ["<tr><th>" + "".join(f"<th>{MARKS[name]}" for name in shown)]
    for label, row in rows.items():
        lines.append(f"<tr><td>{html.escape(label)}" + "".join(f"<td>{_interval(row.get(n))}" for n in shown))
    luck = [chance.get(name) for name in shown]
    lines.append("<tr><td>chance" + "".join(f"<td>{'' if c is None else f'{c:.3f}'}" for c in luck))
    return f"<div class=wide><table>{''.join(lines)}</table></div>"


def _interval(value: dict[str, Any] | None) -> str:
    if value is None:
        return "–"
    spread = value.get("seed_std")
    return f"{value['mean']:.3f} [{value['low']:.3f}, {value['high']:.3f}]" + (f" ± {spread:.3f}" if spread else "")


def _nested(values: dict[str, Any]) -> str:
    """A table of everything in a dict of numbers, intervals and dicts of these."""
    lines = []
    for name, value in values.items():
        if isinstance(value, dict) and "mean" not in value:
            cells = [f"{k} {_interval(v) if isinstance(v, dict) else _plain(v)}" for k, v in value.items()]
        else:
            cells = [_interval(value) if isinstance(value, dict) else _plain(value)]
        lines.append(f"<tr><td>{html.escape(name)}" + "".join(f"<td>{html.escape(cell)}" for cell in cells))
    return f"<div class=wide><table>{''.join(lines)}</table></div>"


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
