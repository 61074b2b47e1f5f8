"""The tables of what `minidiff evaluate` found, read from the files that it wrote."""

import json
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

FOLDER = pathlib.Path(__file__).parents[1] / "_static" / "evaluation"
MARKS = {
    "base_100": "right among 100",
    "hard_20": "right among 20",
    "style": "right style",
    "similarity": "similarity",
}
FEWER = [mark for mark in MARKS if mark != "hard_20"]  # as many columns as a phone has room for two lines each
WHO = {
    "model": "**the model**",
    "unconditional": "the model, asked for nothing",
    "lookup": "picture of the nearest caption",
    "other style": "the concept in another style",
    "ceiling": "the true pictures",
}
TOLD = {
    "words": "the words",
    "words and prior": "the words, and the prior's embedding",
    "words and sentence": "the words, and the sentence's embedding",
    "words and picture": "the words, and the true picture's embedding",
    "prior": "the prior's embedding alone",
    "sentence": "the sentence's embedding alone",
    "picture": "the true picture's embedding alone",
}
SETS = {"model": "the model", "unconditional": "the model, asked for nothing"}


def load(name: str) -> dict[str, Any]:
    """A stored result: "evaluation" (held-out pictures), "sweep" (settings), "steps" (12 against 250) or "told"."""
    found: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return found


def estimate(value: dict[str, float], digits: int = 2) -> str:
    """The mean with its interval; a line breaks between the two, never inside one."""
    mean, low, high = (f"{round(value[key], digits) + 0.0:.{digits}f}" for key in ("mean", "low", "high"))  # no -0.00
    return f"{mean} [{low},\N{NO-BREAK SPACE}{high}]".replace("-", "\N{MINUS SIGN}")


def measured(value: dict[str, float], digits: int = 2) -> str:
    """The mean with its interval and, where there were several seeds, their standard deviation."""
    spread = value.get("seed_std")
    return estimate(value, digits) + (f" ±\N{NO-BREAK SPACE}{spread:.{digits}f}" if spread is not None else "")


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    """Markdown lines."""
    head = list(head)
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]


def held_out(split: str) -> list[str]:
    """Who draws the pictures of a split how well."""
    found = load("evaluation")["splits"][split]
    who = {name: row["all"] for name, row in found["rows"].items()}
    marks = [mark for mark in MARKS if mark in who["model"]]  # of a concept never seen no classifier knows the base
    rows = [[words, *(measured(who[name][mark]) for mark in marks)] for name, words in WHO.items() if name in who]
    chance = ["chance", *(f"{found['chance'][mark]:.2f}" if mark in found["chance"] else "" for mark in marks)]
    return table(["", *(MARKS[mark] for mark in marks)], [*rows, chance])


def against() -> list[str]:
    """How much higher the model's marks are than its rivals', taken picture by picture."""
    found = load("evaluation")["splits"]["test"]["model_minus"]
    rivals = {name: words for name, words in WHO.items() if name in found}
    rows = [[words, *(estimate(found[name][mark]) for mark in MARKS)] for name, words in rivals.items()]
    return table(["the model minus ...", *MARKS.values()], rows)


def by_clip() -> list[str]:
    """What a CLIP says of the drawings, and how good those are that it would choose."""
    found = load("evaluation")
    rows = found["splits"]["test"]["rows"]
    names = {"model": WHO["model"], "best by CLIP": f"CLIP's choice of its {found['settings']['repeats']}"}
    names |= {name: WHO[name] for name in ("lookup", "ceiling")}
    marks = {"clip": "CLIP score"} | MARKS
    return table(
        ["", *marks.values()], [[words, *(estimate(rows[n]["all"][m]) for m in marks)] for n, words in names.items()]
    )


def twins() -> list[str]:
    """The model's marks where the training held a twin of the picture, and where it did not."""
    found = load("evaluation")["splits"]["test"]["rows"]
    rows = [
        [
            f"{WHO[who]}, {'with a twin' if kind == 'twins' else 'without'}",
            str(found[who][kind]["n"]),
            *(measured(found[who][kind][mark]) for mark in MARKS),
        ]
        for who in ("model", "ceiling")
        for kind in ("twins", "no twins")
    ]
    return table(["", "pictures", *MARKS.values()], rows)


def distances() -> list[str]:
    """How far sets of pictures are from as many real ones."""
    rows = []
    for asked, found in load("evaluation")["distribution"].items():
        for who, value in found.items():
            if who != "n":
                frechet = measured(value["frechet"]) if "frechet" in value else "too few pictures"
                rows.append([asked, str(found["n"]), SETS.get(who, who), measured(value["kernel"], 3), frechet])
    return table(["prompts", "pictures", "set", "kernel distance", "Fréchet distance"], rows)


def copies() -> list[str]:
    """The share of pictures that are nearer to a training picture than 99% of new real pictures are."""
    found = load("evaluation")["copies"]
    rows = [[who, str(value["n"]), measured(value["copies"])] for who, value in found.items() if "copies" in value]
    return table(["set", "pictures", "share that counts as copies"], rows)


def diversity() -> list[str]:
    """How different the pictures of one prompt without a style are."""
    found = load("evaluation")["diversity"]
    names = {"model": "the model", "the four styles": "the artists, of the same things"}
    names["the four styles, of things that the judge does not know"] = "the artists, of things not learned"
    return table(["drawings of", "diversity"], [[words, measured(found[who])] for who, words in names.items()])


def whiskers(values: Sequence[dict[str, float]], digits: int) -> list[str]:
    """A column of drawings, each mean a dot, its interval a line, zero a mark, under the ends of their scale."""
    ends = [value[end] for value in values for end in ("low", "high")]
    low, high = min(ends), max(ends)

    def place(x: float) -> str:
        return f"{4 + 112 * (x - low) / (high - low):.1f}"

    drawn = [f"{low:.{digits}f} to {high:.{digits}f}".replace("-", "\N{MINUS SIGN}")]
    for value in values:
        left, dot, right = (place(value[name]) for name in ("low", "mean", "high"))
        kind = "whisker beyond" if value["low"] > 0 or value["high"] < 0 else "whisker"
        drawn.append(
            f'<svg class="{kind}" viewBox="0 0 120 14" role="img" aria-label="{estimate(value, digits)}">'
            f'<path class="zero" d="M{place(0)} -10V24"/><path d="M{left} 7H{right}"/>'
            f'<circle cx="{dot}" cy="7" r="3.2"/></svg>'
        )
    return drawn


def differences() -> list[str]:
    """A line for each setting that was compared: how much higher its marks are than the best setting's, drawn."""
    found = load("sweep")
    best, rows = found["best"], found["rows"]

    def name(row: dict[str, Any]) -> str:
        said = {
            "guidance": f"guidance {row['guidance']:g}",
            "shift": f"shift {row['shift'] or found['shift']:g}",
            "steps": f"{row['steps']} steps",
            "interval": "guided for *t* from {:g} to {:g}".format(*row["interval"]),
        }
        return ", ".join(words for setting, words in said.items() if row[setting] != best[setting])

    columns = [whiskers([row["beside_best"][mark] for row in rows], _digits(mark)) for mark in FEWER]
    head = [f"{MARKS[mark]}<br>{column[0]}" for mark, column in zip(FEWER, columns, strict=True)]
    drawn = zip(map(name, rows), *(column[1:] for column in columns), strict=True)
    return table(["", *head], [cells for cells in drawn if cells[0]])


def _digits(mark: str) -> int:
    return 3 if mark == "similarity" else 2  # it moves by less than shares of right drawings do


def settings() -> list[str]:
    """A line for each setting that was compared: its marks, and their distance from the best one's."""

    def cell(row: dict[str, Any], mark: str) -> str:
        return f"{row[mark]['mean']:.{_digits(mark)}f}<br>{estimate(row['beside_best'][mark], _digits(mark))}"

    found = load("sweep")
    best = found["best"]
    best_first = sorted(found["rows"], key=lambda row: any(row[name] != best[name] for name in best))
    rows = [
        [
            f"{row['guidance']:g}",
            f"{row['shift'] or found['shift']:g}",
            str(row["steps"]),
            "{:g} to {:g}".format(*row["interval"]),
            *(cell(row, mark) for mark in FEWER),
        ]
        for row in best_first
    ]
    return table(["guidance", "shift", "steps", "guided for t in", *(MARKS[mark] for mark in FEWER)], rows)


def steps() -> list[str]:
    """Few steps and many, from the same noise."""
    found = load("steps")
    names = {"few": f"{found['few']} steps", "many": f"{found['many']} steps", "few minus many": "the difference"}
    rows = [[words, *(estimate(found["rows"][who][mark], 3) for mark in MARKS)] for who, words in names.items()]
    return table(["", *MARKS.values()], rows)


def told() -> list[str]:
    """What the model draws that is told different things: its marks, and their distance from those of the words."""
    rows = load("told")["rows"]

    def cell(way: str, mark: str) -> str:
        beside = rows.get(f"{way} minus words")
        return f"{rows[way][mark]['mean']:.2f}" + (f"<br>{estimate(beside[mark])}" if beside else "")

    return table(
        ["told", *(MARKS[mark] for mark in FEWER)],
        [[words, *(cell(way, mark) for mark in FEWER)] for way, words in TOLD.items()],
    )


TABLES = {
    "test": lambda: held_out("test"),
    "unseen": lambda: held_out("unseen"),
    "trained": lambda: held_out("trained prompts"),
    "against": against,
    "clip": by_clip,
    "twins": twins,
    "distances": distances,
    "copies": copies,
    "diversity": diversity,
    "differences": differences,
    "settings": settings,
    "steps": steps,
    "told": told,
}
