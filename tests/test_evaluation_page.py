"""The page of measured numbers is about the model that ships, and shows what was measured."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from minidiff.checkpoints import BUNDLED, fingerprint, load_denoiser, load_judge, sha256
from minidiff.data.emoji import load_emoji
from minidiff.evaluate.tasks import mark, problems, true_pictures
from minidiff.images import grid, read_settings, to_images
from minidiff.pipeline import TextToImage

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "book" / "tools"))

import evaluation_tables as evaluation  # noqa: E402

CONTROLS = ("training pictures, moved as in training", "the same, drawn again")


def test_steps_were_compared_before_the_second_training_as_the_page_says() -> None:
    before, page = TextToImage.from_pretrained("emoji-64").card["start"], ROOT / "book" / "evaluation.md"
    assert evaluation.load("steps")["weights"] == before
    assert "compared *before* the model's second training" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["evaluation", "sweep", "told"])
def test_the_numbers_are_those_of_the_model_that_ships(name: str) -> None:
    found = evaluation.load(name)
    pipe = TextToImage.from_pretrained(found["checkpoint"])
    now = fingerprint(pipe.denoiser.net), pipe.denoiser.schedule.shift, fingerprint(load_judge())  # type: ignore[attr-defined]
    then = found["weights"], found["shift"], found["judge"]
    assert then == now, f"run `minidiff evaluate` again for {name}.json"


def test_the_judge_that_ships_still_gives_the_true_pictures_the_marks_that_are_stored() -> None:
    judge, emoji = load_judge(), load_emoji()
    tasks = problems(emoji, "test", judge.bases)
    stored = evaluation.load("evaluation")["splits"]["test"]["rows"]["ceiling"]["all"]
    for name, values in mark(judge, emoji, tasks, true_pictures(emoji, tasks)).items():
        assert float(values.mean()) == pytest.approx(stored[name]["mean"], abs=0.02), name


def test_the_title_picture_was_drawn_by_the_model_that_ships() -> None:
    drawn = read_settings(ROOT / "book" / "_static" / "hero.png")
    weights = fingerprint(TextToImage.from_pretrained(drawn["checkpoint"]).denoiser.net)
    assert drawn["weights"] == weights, "run book/tools/hero.py"


def test_each_chapter_opens_with_a_strip_that_was_drawn_by_the_models_that_ship() -> None:
    folder = ROOT / "book" / "_static" / "openers"
    said = json.loads((folder / "openers.json").read_text(encoding="utf-8"))
    assert sorted(said["chapters"]) == sorted(path.stem for path in (ROOT / "notebooks").glob("0*.ipynb"))
    for name, facts in said["chapters"].items():
        with Image.open(folder / f"{name}.png") as picture:
            assert list(picture.size) == facts["size"] and facts["caption"] and facts["alt"]
    looks = sha256(BUNDLED / "midjourney" / "model.safetensors")
    now = {name: fingerprint(load_denoiser(name).net) for name in ("emoji-64", "teaching")} | {"midjourney": looks}
    assert said["weights"] == now, "run book/tools/openers.py"


def test_a_table_shows_the_numbers_of_its_file() -> None:
    found = evaluation.load("evaluation")
    test, copies = found["splits"]["test"], found["copies"]
    rows, minus = test["rows"], test["model_minus"]
    lines = {line.split(" | ")[0].strip("| *"): line for line in evaluation.TABLES["test"]()}
    assert f" {rows['model']['all']['base_100']['mean']:.2f} [" in lines["the model"]
    assert f" {rows['ceiling']['all']['style']['mean']:.2f} [" in lines["the true pictures"]
    assert len(evaluation.TABLES["settings"]()) == 2 + len(evaluation.load("sweep")["rows"])
    page = (ROOT / "book" / "evaluation.md").read_text(encoding="utf-8")
    mean = {who: {part: round(100 * rows[who][part]["base_100"]["mean"]) for part in rows[who]} for who in rows}
    moved, again = (round(100 * copies[name]["copies"]["mean"]) for name in CONTROLS)
    held_out, known = [copies[name] for name in ("test", "validation", "unseen")], copies["trained prompts"]
    trained = found["splits"]["trained prompts"]["rows"]["model"]["all"]
    ahead, gain = minus["ceiling"]["clip"], minus["best by CLIP"]
    steps = evaluation.load("steps")
    fewer, pairs = steps["rows"]["few minus many"], steps["pictures"] * steps["settings"]["repeats"]
    assert fewer["style"]["low"] > -0.02 and fewer["style"]["high"] < 0.02
    told = evaluation.load("told")["rows"]
    beside, most = told["words and prior minus words"], told["words and picture minus words"]
    assert beside["similarity"]["high"] < 0 < most["similarity"]["low"]
    assert most["base_100"]["low"] < 0 < most["base_100"]["high"]
    less = {name: -v if isinstance(v, float) else v for name, v in beside["similarity"].items()}
    less["low"], less["high"] = less["high"], less["low"]
    earlier = TextToImage.from_pretrained("emoji-64").card["begun_with"]["evaluation"]["rows"]["model"]
    model = rows["model"]["all"]
    for said in (
        f"is recognized among a hundred concepts in **{mean['model']['all']} of 100** cases",
        f"the designers' own pictures get {mean['ceiling']['all']}.",
        f"The **style** is right in {100 * model['style']['mean']:.0f} of 100",
        f"trained on, {100 * trained['base_100']['mean']:.0f} drawings of 100 are recognized",
        f"less similar to the true pictures, by {evaluation.estimate(less)}".replace("\N{NO-BREAK SPACE}", " "),
        f"that {-beside['base_100']['mean']:.2f} fewer are right",
        f"{most['similarity']['mean']:.2f} more similar, and no more right answers",
        f"had {100 * earlier['base_100']['mean']:.0f} of 100 held-out drawings right in place of",
        f"a similarity of {earlier['similarity']['mean']:.2f} in place of {model['similarity']['mean']:.2f}",
        f"to the classifier (their similarity is {fewer['alike']['mean']:.2f})",
        f"they lose {-100 * fewer['base_100']['mean']:.1f} in a hundred on these {pairs:,} pairs",
        f"Of these, {round(100 * trained['base_100']['mean'])} in a hundred are recognized",
        f"than the true pictures do, by {evaluation.estimate(ahead)}".replace("\N{NO-BREAK SPACE}", " "),
        f"score higher by {-gain['clip']['mean']:.2f} [{-gain['clip']['high']:.2f}, {-gain['clip']['low']:.2f}]",
        f"right among 100: {-gain['base_100']['mean']:.2f} [\N{MINUS SIGN}{gain['base_100']['high']:.2f}, ",
        f"{mean['model']['all']} are recognized among a hundred",
        f"of the true pictures, {mean['ceiling']['all']} are recognized",
        f"{mean['model']['no twins']} of a hundred drawings are right, with one {mean['model']['twins']}",
        f"it saw no twin, {mean['ceiling']['no twins']} of a hundred in place of all",
        f"it finds {moved} in a hundred, of those drawn again {again}. Of {sum(r['n'] for r in held_out)} drawings",
    ):
        assert said in page
    assert all(row["copies"]["mean"] == 0 for row in held_out) and round(known["copies"]["mean"] * known["n"]) == 1
    for table in evaluation.TABLES.values():
        assert len({line.count("|") for line in table()}) == 1 and len(table()) > 3


def test_a_difference_is_drawn_where_it_lies_and_in_red_where_it_is_beyond_doubt() -> None:
    values = [{"low": -0.2, "mean": -0.1, "high": 0.0}, {"low": 0.1, "mean": 0.2, "high": 0.3}]
    scale, doubtful, sure = evaluation.whiskers(values, 2)
    assert scale == "\N{MINUS SIGN}0.20 to 0.30"
    assert 'class="whisker"' in doubtful and 'class="whisker beyond"' in sure and "0.20 [0.10," in sure
    middle = 4 + 112 * 0.2 / 0.5  # of a scale from -0.2 to 0.3
    for drawing, line, dot in ((doubtful, f"M4.0 7H{middle:.1f}", "26.4"), (sure, "M71.2 7H116.0", "93.6")):
        assert f'd="M{middle:.1f} -10V24"' in drawing and f'd="{line}"' in drawing and f'cx="{dot}"' in drawing
    rows, best = evaluation.TABLES["differences"](), evaluation.load("sweep")["best"]
    assert len(rows) == 1 + len(evaluation.load("sweep")["rows"]) and not any("guidance 4" in row for row in rows)
    assert best["shift"] == 2 and any(row.startswith("| guidance 1, shift 3,") for row in rows)


def test_the_card_and_the_page_show_the_same_numbers() -> None:
    rows = evaluation.load("evaluation")["splits"]["test"]["rows"]
    for who, found in TextToImage.from_pretrained("emoji-64").card["evaluation"]["rows"].items():
        assert found == {mark: value for mark, value in rows[who]["all"].items() if mark != "n"}, who


def test_a_contact_sheet_keeps_pictures_upright_and_in_order() -> None:
    pictures = torch.zeros(3, 3, 4, 4, dtype=torch.uint8)
    pictures[1, 0, 0] = 200  # the top row of the second one is red
    sheet = np.array(grid(to_images(pictures), columns=2, gap=4))
    assert sheet.shape == (16, 16, 3)
    assert sheet[2, 10:14].tolist() == [[200, 0, 0]] * 4 and sheet[5, 11].tolist() == [0, 0, 0]
    assert sheet[10, 10].tolist() == [255, 255, 255]
