"""The emoji data: four styles of the same concepts, and a split that gives nothing away."""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from pathlib import Path

import build_emoji
import emoji_split
import pytest
import torch

from minidiff.data.emoji import CELL, FOLDER, SPLITS, STYLES, EmojiPictures, EmojiSet, load_emoji
from minidiff.data.pixels import shift_pictures, to_float, to_uint8

EMOJI = load_emoji()
N = len(EMOJI)


def families() -> dict[str, list]:
    found = defaultdict(list)
    for record in EMOJI.records:
        found[record.base].append(record)
    return found


# The table


def test_the_table_has_the_numbers_the_documentation_states():
    assert N == 3025 and len(EMOJI.bases) == 1400
    assert Counter(r.group for r in EMOJI.records)["people-body"] == 1779
    assert Counter(r.group for r in EMOJI.records)["flags"] == 8
    assert sum(bool(r.tone) for r in EMOJI.records) == 1455
    assert [r.index for r in EMOJI.records] == list(range(N))
    assert len({r.hexcode for r in EMOJI.records}) == N


def test_flat_indices_go_there_and_back():
    for style in STYLES:
        for concept in (0, 17, N - 1):
            index = EMOJI.flat_index(concept, style)
            assert (EMOJI.style_of(index), EMOJI.concept_of(index)) == (style, concept)
    assert EMOJI.bases[EMOJI.base_of(EMOJI.find("man health worker").index)] == "health worker"


@pytest.mark.parametrize(
    ("name", "base"),
    [
        ("thumbs up: dark skin tone", "thumbs up"),
        ("woman health worker: light skin tone", "health worker"),
        ("man: medium skin tone, red hair", "person"),
        ("woman: beard", "person"),
        ("girl", "child"),
        ("old man", "older person"),
        ("princess", "person with crown"),
        ("Mrs. Claus", "mx claus"),
        ("mermaid", "merperson"),
        ("man dancing", "woman dancing"),
        ("pregnant man", "pregnant person"),
        ("breast-feeding", "person feeding baby"),
        ("red heart", "red heart"),
        ("woman’s hat", "woman’s hat"),
    ],
)
def test_a_base_is_an_emoji_without_skin_tone_gender_and_hair(name, base):
    assert EMOJI.find(name).base == base


# The split


def test_every_picture_is_in_exactly_one_split():
    parts = [EMOJI.split_indices(split) for split in SPLITS]
    assert torch.equal(torch.cat(parts).sort().values, torch.arange(4 * N))
    assert [len(part) for part in parts] == [11474, 52, 170, 404]


def test_no_variant_gives_its_sibling_away():
    for family in families().values():
        assert len({tuple(record.split.items()) for record in family}) == 1
    # In words: when a picture is held out, every emoji that differs from it in tone or gender alone is, too.
    held = {
        (style, re.sub(r"^(man|woman|men|women|person|people) |: .*", "", record.name))
        for record in EMOJI.records
        for style in STYLES
        if record.split[style] != "train" and record.group == "people-body"
    }
    for record in EMOJI.records:
        for style in STYLES:
            if (style, re.sub(r"^(man|woman|men|women|person|people) |: .*", "", record.name)) in held:
                assert record.split[style] != "train", (record.name, style)


def test_the_fractions_are_those_of_the_design_and_styles_are_held_out_evenly():
    splits = [family[0].split for family in families().values()]
    unseen = [s for s in splits if "unseen" in s.values()]
    assert all(set(s.values()) == {"unseen"} for s in unseen)
    assert len(unseen) == round(0.02 * len(splits))
    for split, part in (("test", 0.05), ("validation", 0.025)):
        chosen = [s for s in splits if split in s.values()]
        assert len(chosen) == round(part * len(splits))
        assert all(list(s.values()).count(split) == 1 and list(s.values()).count("train") == 3 for s in chosen)
        per_style = Counter(style for s in chosen for style in STYLES if s[style] == split)
        assert max(per_style.values()) - min(per_style.values()) <= 1


def test_the_split_depends_on_nothing_but_the_bases():
    bases = [f"{i:x}" for i in range(200)]
    assert emoji_split.assign_splits(bases) == emoji_split.assign_splits(bases[::-1])
    assert emoji_split.rank("1f600") == 6797798113652105041


# Pictures


def test_pictures_stand_on_white_and_show_what_their_name_says():
    for style in STYLES:
        pixels = EMOJI.pixels(style)
        assert pixels.shape == (N, 3, CELL, CELL) and pixels.dtype == torch.uint8
        corners = pixels[:, :, :: CELL - 1, :: CELL - 1].float()
        assert (corners > 245).float().mean() > 0.85
        red, green, blue = pixels[EMOJI.find("red heart").index].float().mean((1, 2))
        assert red > green + 30 and red > blue + 30
        red, green, blue = pixels[EMOJI.find("blue square").index].float().mean((1, 2))
        assert blue > red + 50


@pytest.mark.parametrize("style", STYLES)
def test_skin_gets_darker_from_tone_to_tone(style):
    pixels = EMOJI.pixels(style)
    for name in ("thumbs up", "foot", "raised fist", "man technologist", "person mountain biking", "woman: bald"):
        base = name.split(":")[0]
        members = [
            r
            for r in EMOJI.records
            if len(r.tone) == 1 and re.sub(r": .* skin tone,?", ":", r.name) == f"{base}:" + name[len(base) + 1 :]
        ]
        light = [pixels[r.index].float().mean().item() for r in sorted(members, key=lambda r: r.tone)]
        assert len(light) == 5 and light[1] > light[3] and light[1] > light[2] and light[0] > light[4], name


def test_flat_and_3d_are_drawings_of_the_same_thing():
    flat, solid = (torch.nn.functional.avg_pool2d(EMOJI.pixels(s).float(), 8).flatten(1) for s in STYLES[2:])
    nearest = torch.cdist(solid, flat).topk(5, largest=False).indices
    families_found = [EMOJI.base_of(i) in {EMOJI.base_of(j) for j in near} for i, near in enumerate(nearest.tolist())]
    assert sum(families_found) / N > 0.9
    man, woman = EMOJI.find("deaf man").index, EMOJI.find("deaf woman").index  # exchanged in the 3D package
    assert (solid[man] - flat[man]).norm() < (solid[man] - flat[woman]).norm()


def test_smaller_pictures_are_averages_of_areas():
    whole, half = EMOJI.pixels("noto")[5], EMOJI.pixels("noto", 32)[5]
    blocks = whole.view(3, 32, 2, 32, 2).float().mean((2, 4))
    assert (half.float() - blocks).abs().max() <= 0.5


def test_conversion_to_float_and_back_is_exact():
    values = torch.arange(256, dtype=torch.uint8)
    assert to_float(values).min() == -1 and to_float(values).max() == 1
    assert torch.equal(to_uint8(to_float(values)), values)


# The training source


@pytest.fixture(scope="module")
def source() -> EmojiPictures:
    return EmojiPictures(EMOJI, size=16)


def test_an_epoch_shows_every_base_in_every_style_once_and_nothing_held_out(source):
    order = source.order(seed=3, epoch=0)
    drawn = Counter((EMOJI.base_of(EMOJI.concept_of(i)), EMOJI.style_of(i)) for i in order.tolist())
    assert len(order) == len(source) == len(drawn) == 4 * 1400 - 4 * 28 - 70 - 35
    assert all(EMOJI.records[EMOJI.concept_of(i)].split[EMOJI.style_of(i)] == "train" for i in order.tolist())
    assert torch.equal(order, source.order(seed=3, epoch=0))
    assert not torch.equal(order, source.order(seed=3, epoch=1))
    assert set(order.tolist()) != set(source.order(seed=3, epoch=1).tolist()), "other variants each epoch"


def test_without_one_per_base_an_epoch_is_the_whole_split():
    every = EmojiPictures(EMOJI, "test", size=8, one_per_base=False)
    assert torch.equal(every.order(0, 0).sort().values, EMOJI.split_indices("test"))


def test_a_batch_holds_the_pictures_asked_for_with_their_style_as_label():
    chosen = EmojiPictures(EMOJI, size=16, groups=["food-drink"], styles=["twemoji", "fluent-3d"])
    indices = chosen.order(0, 0)[:9]
    x0, cond = chosen.batch(indices)
    assert cond.label is not None
    for i, picture, label in zip(indices.tolist(), x0, cond.label, strict=True):
        style = EMOJI.style_of(i)
        assert EMOJI.records[EMOJI.concept_of(i)].group == "food-drink" and STYLES.index(style) + 1 == label
        assert torch.equal(picture, to_float(EMOJI.pixels(style, 16)[EMOJI.concept_of(i)]))


def test_a_shift_moves_the_picture_and_fills_up_with_white():
    pictures = torch.randint(0, 255, (40, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    moved = shift_pictures(pictures, 2, torch.Generator().manual_seed(1))
    seen = set()
    for before, after in zip(pictures, moved, strict=True):
        padded = torch.nn.functional.pad(before, (2, 2, 2, 2), value=255)
        moves = [(y, x) for y in range(5) for x in range(5) if torch.equal(padded[:, y : y + 8, x : x + 8], after)]
        assert len(moves) == 1
        seen.update(moves)
    assert len(seen) > 12


# Bad input and damage


def test_wrong_input_gets_a_sentence():
    with pytest.raises(ValueError, match=r"`style` must be one of .* Did you mean 'fluent-3d'"):
        EMOJI.pixels("fluent3d")
    with pytest.raises(ValueError, match="`split` must be one of train, validation, test, unseen"):
        EMOJI.split_indices("training")
    with pytest.raises(ValueError, match="`groups` must be one of"):
        EmojiPictures(EMOJI, groups=["food"])
    with pytest.raises(ValueError, match="has no picture"):
        EmojiPictures(EMOJI, "validation", groups=["flags"])
    with pytest.raises(ValueError, match=r"must be the name of an emoji.*Did you mean 'red heart'"):
        EMOJI.find("red hearts")


def test_a_damaged_or_missing_file_gets_a_sentence(tmp_path: Path):
    for file in FOLDER.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    whole = (FOLDER / "noto.avif").read_bytes()
    for damaged in (whole[:1000], whole[:-1] + bytes([whole[-1] ^ 1])):
        (tmp_path / "noto.avif").write_bytes(damaged)
        with pytest.raises(ValueError, match=r"`noto.avif` .* is damaged, .* reinstall minidiff"):
            EmojiSet(tmp_path).pixels("noto")
    (tmp_path / "noto.avif").write_bytes(b"a sheet in no known format")
    known = hashlib.sha256(b"a sheet in no known format").hexdigest()
    (tmp_path / "SHA256SUMS").write_text(f"{known}  noto.avif\n{(FOLDER / 'SHA256SUMS').read_text()}")
    with pytest.raises(ValueError, match=r"`noto.avif` .* cannot be decoded"):  # by this Pillow, or by any
        EmojiSet(tmp_path).pixels("noto")
    (tmp_path / "emoji.jsonl").unlink()
    with pytest.raises(ValueError, match=r"`emoji.jsonl` cannot be read"):
        EmojiSet(tmp_path)


def test_the_bundled_files_are_whole_small_and_attributed():
    checked = EmojiSet(FOLDER)
    for style in STYLES:
        checked._read(f"{style}.avif")
    assert sum(file.stat().st_size for file in FOLDER.glob("*.avif")) <= 12e6
    attribution = (FOLDER / "ATTRIBUTION.md").read_text(encoding="utf-8")
    for package, (version, _) in build_emoji.PACKAGES.items():
        assert f"`{package}` {version}" in attribution


def test_bases_splits_and_genders_in_the_table_are_those_the_code_computes():
    codes = {record.hexcode: build_emoji.plain(record.hexcode) for record in EMOJI.records}
    bases = {record.base: emoji_split.base_code(codes[record.hexcode]) for record in EMOJI.records}
    assert len(set(bases.values())) == len(bases)
    splits = emoji_split.assign_splits(bases.values())
    for record in EMOJI.records:
        assert emoji_split.base_code(codes[record.hexcode]) == bases[record.base]
        assert record.split == splits[bases[record.base]]
        assert record.gender == emoji_split.gender_of(codes[record.hexcode])
