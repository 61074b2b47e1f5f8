"""The shapes data: captions and scenes are one-to-one, pictures show their scene, and the oracle can be trusted."""

import time
from dataclasses import replace
from itertools import pairwise, product

import numpy as np
import pytest
import torch
from scene_words import all_groups, encode, held_out, parse
from torch.nn import functional as F

from minidiff.data.scenes import (
    CAPTION_LENGTH,
    COLORS,
    HELD_OUT,
    RELATIONS,
    SHAPES,
    SIZES,
    VOCABULARY,
    Group,
    Scene,
    random_scene,
)
from minidiff.data.shapes import ShapeScenes, render, stamp
from minidiff.data.shapes_oracle import ATTRIBUTES, adherence, compare, read, spots

SENTENCE = "two small red circles left of a large blue square"
REDS, BLUE = Group(2, "small", "red", "circle"), Group(1, "large", "blue", "square")
SCENE = Scene(REDS, "left of", BLUE)


@pytest.fixture(scope="module")
def source():
    return ShapeScenes(500, seed=3, device="cpu")


@pytest.fixture(scope="module")
def clean(source):
    return source.batch(torch.arange(len(source)))[0]


def blurred(x, sigma):
    taps = torch.exp(-(torch.arange(-2.0, 3.0) ** 2) / (2 * sigma**2))
    kernel = torch.outer(taps, taps) / taps.sum() ** 2
    return F.conv2d(F.pad(x, (2, 2, 2, 2), value=1.0), kernel.expand(3, 1, 5, 5), groups=3)


def noisy(x, sigma, seed=0):
    return x + sigma * torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))


# --- language


def test_a_scene_and_its_caption_say_the_same():
    assert SCENE.caption() == SENTENCE and parse(SENTENCE) == SCENE
    assert parse("An orange heart.").caption() == "an orange heart"


def test_every_group_has_a_caption_of_its_own_that_parses_back():
    groups = list(all_groups())
    captions = [group.caption() for group in groups]
    assert len(set(captions)) == len(groups) == 3 * 3 * len(COLORS) * len(SHAPES)
    assert [parse(caption).first for caption in captions] == groups


def test_every_relation_parses_back():
    for relation in RELATIONS:
        scene = replace(SCENE, relation=relation)
        assert parse(scene.caption()) == scene


def test_mirroring_twice_is_the_identity():
    assert SCENE.mirrored() == Scene(BLUE, "right of", REDS)
    assert SCENE.mirrored().mirrored() == SCENE


def test_encoding_is_one_id_per_word_and_padding_is_masked():
    ids, mask = encode([SENTENCE, "a red star", ""])
    assert ids.shape == mask.shape == (3, CAPTION_LENGTH) and mask.dtype == torch.bool
    assert [VOCABULARY[i] for i in ids[0]] == SENTENCE.split()
    assert mask.sum(1).tolist() == [10, 3, 0] and (ids[~mask] == 0).all() and (ids[mask] > 0).all()


def test_the_vocabulary_is_exactly_what_captions_use():
    rng = np.random.default_rng(0)
    used = {word for _ in range(3000) for word in random_scene(rng, rng.random() < 0.5).caption().split()}
    assert used == set(VOCABULARY[1:]) and len(set(VOCABULARY)) == len(VOCABULARY)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: encode(["a red circel"]), r"`words` must be one of a, .*got 'circel'. Did you mean 'circle'\?"),
        (lambda: encode("a red circle"), r"`prompts` must be a list of strings"),
        (lambda: encode([7]), r"`prompts` must be strings; got int"),  # type: ignore[list-item]
        (lambda: encode(["red " * 11]), r"10 words each; got 11"),
        (lambda: Group(4, None, "red", "star"), r"`count` must be an integer from 1 to 3; got 4"),
        (lambda: Group(1, None, "rad", "star"), r"`color` .* Did you mean 'red'\?"),
        (lambda: Scene(REDS, "above"), r"`relation` and `second` go together"),
        (lambda: Scene(REDS, "above", REDS), r"`second` must differ from `first`"),
        (lambda: render(SCENE, np.random.default_rng(0), 8), r"`size` must be an integer from 16 to 256; got 8"),
        (lambda: ShapeScenes(0), r"`n` must be an integer from 1 to 1000000; got 0"),
        (lambda: read(torch.zeros(3, 30, 30)), r"`picture` must have shape \(3, S, S\) .* got \(3, 30, 30\)"),
        (lambda: adherence(torch.zeros(2, 3, 32, 32), [SCENE]), r"equally many.* got 2 and 1"),
    ],
)
def test_wrong_input_gets_a_sentence(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()


# --- the split


def test_held_out_pairs_never_appear_in_training_and_always_in_the_held_out_scenes():
    rng = np.random.default_rng(1)
    assert not any(held_out(random_scene(rng)) for _ in range(3000))
    held = [random_scene(rng, held_out=True) for _ in range(3000)]
    assert all(held_out(scene) for scene in held)
    assert {(g.color, g.shape) for scene in held for g in scene.groups} >= set(HELD_OUT)


def test_training_shows_each_color_and_each_shape_and_all_their_other_pairs():
    rng = np.random.default_rng(2)
    seen = {(g.color, g.shape) for _ in range(3000) for g in random_scene(rng).groups}
    assert seen == set(product(COLORS, SHAPES)) - set(HELD_OUT)


# --- pictures


def test_a_picture_is_its_seed_and_nothing_else():
    first, again, other = (render(SCENE, np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert first.dtype == torch.uint8 and first.shape == (3, 32, 32)
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_shapes_never_touch_and_never_leave_the_picture(source):
    for scene, picture in zip(source.scenes[:300], source.pictures, strict=False):
        found = spots(picture)
        assert found is not None and len(found) == sum(group.count for group in scene.groups)
        for a, b in product(found, found):
            assert a is b or (a.y - b.y) ** 2 + (a.x - b.x) ** 2 > 36


def test_a_larger_picture_shows_the_same_scene():
    pictures = torch.stack([render(SCENE, np.random.default_rng(seed), size=64) for seed in range(20)])
    assert adherence(pictures, [SCENE] * 20)["all"] == 1
    grainy = noisy(pictures.float() / 127.5 - 1, 0.6)  # which the average of four pixels halves
    assert adherence(grainy, [SCENE] * 20)["all"] >= 0.95


def test_twenty_thousand_scenes_render_within_a_minute():
    start = time.process_time()
    ShapeScenes(2000, seed=9, device="cpu")
    assert time.process_time() - start < 6  # 0.3 s measured


# --- the oracle


@pytest.mark.parametrize(
    ("damage", "floor"),
    [  # measured: all of 6,000 scenes right in every row
        (lambda x: x, 0.999),
        (lambda x: noisy(x, 0.1), 0.998),
        (lambda x: noisy(x, 0.15), 0.998),
        (lambda x: noisy(x, 0.2), 0.995),
        (lambda x: blurred(x, 0.5), 0.998),
        (lambda x: noisy(blurred(x, 0.5), 0.1), 0.995),
    ],
    ids=["clean", "noise 0.1", "noise 0.15", "noise 0.2", "blur 0.5 px", "blur and noise"],
)
def test_the_oracle_reads_renders_through_noise_and_blur(source, clean, damage, floor):
    scores = adherence(damage(clean), source.scenes)
    assert all(scores[name] >= floor for name in ("all", "readable", *ATTRIBUTES)), scores


def test_the_oracle_reads_pairs_that_no_training_picture_shows():
    held = ShapeScenes(300, seed=0, held_out=True, device="cpu")
    assert adherence(held.pictures, held.scenes)["all"] >= 0.99


@pytest.mark.parametrize(
    ("attribute", "wanted"),
    [
        ("count", replace(SCENE, first=replace(REDS, count=3))),
        ("size", replace(SCENE, first=replace(REDS, size="large"))),
        ("color", replace(SCENE, first=replace(REDS, color="green"))),
        ("shape", replace(SCENE, first=replace(REDS, shape="heart"))),
        ("relation", replace(SCENE, relation="above")),
        ("relation", replace(SCENE, relation="right of")),
    ],
)
def test_one_wrong_attribute_is_exactly_one_wrong_attribute(attribute, wanted):
    answers = compare(wanted, read(render(SCENE, np.random.default_rng(4))))
    assert [name for name in ATTRIBUTES if not answers[name]] == [attribute] and not answers["all"]


def test_a_relation_is_counted_only_where_one_was_asked_for() -> None:
    alone = Scene(REDS)
    assert adherence([alone, SCENE], [alone, replace(SCENE, relation="above")])["relation"] == 0


def test_swapped_colors_are_wrong_though_both_colors_are_there():
    swapped = Scene(replace(REDS, color="blue"), "left of", replace(BLUE, color="red"))
    answers = compare(swapped, read(render(SCENE, np.random.default_rng(4))))
    assert not answers["color"] and answers["relation"]


def test_a_size_that_is_not_said_is_right_either_way():
    for size in ("small", "large"):
        seen = read(render(Scene(Group(1, size, "red", "star")), np.random.default_rng(0)))
        assert compare(parse("a red star"), seen)["all"]


def test_what_cannot_be_read_is_a_failure_in_everything():
    white, noise = torch.ones(3, 32, 32), noisy(torch.zeros(3, 32, 32), 1.0)
    grey, broken = torch.zeros(3, 32, 32), torch.full((3, 32, 32), torch.nan)
    broken[:, 1:] = render(SCENE, np.random.default_rng(0))[:, 1:] / 127.5 - 1  # one row of NaN is enough
    pictures = torch.stack([white, noise, grey, broken])
    assert [read(picture) for picture in pictures] == [None] * 4
    assert set(adherence(pictures, [SCENE] * 4).values()) == {0.0}


def disc(color, radius, squash=1.0):
    y, x = (torch.arange(32.0) - 16)[:, None], (torch.arange(32.0) - 16)[None]
    inside = x**2 + (y / squash) ** 2 <= radius**2
    return torch.where(inside, torch.tensor(color, dtype=torch.float)[:, None, None], 255.0).to(torch.uint8)


def test_the_oracle_refuses_colors_shapes_and_sizes_that_are_none_of_its_own():
    assert read(disc(COLORS["red"], 4.75)) == parse("a large red circle")
    for color in ((255, 150, 190), (128, 128, 128), (60, 200, 210), (120, 80, 40)):  # pink, grey, cyan, brown
        assert read(disc(color, 4.75)) is None
    assert read(disc(COLORS["red"], 9)) is None  # huge
    for squash in (0.5, 0.55, 0.6, 0.65, 0.7):
        assert read(disc(COLORS["red"], 5, squash=squash)) is None  # a flat ellipse


def drawn(*stars):
    """A picture of stars, each given as (color, size, row, column) of its box of 12 pixels."""
    picture = torch.full((3, 32, 32), 255.0)
    for color, size, row, column in stars:
        ink = 255 - torch.tensor(COLORS[color], dtype=torch.float)[:, None, None]
        picture[:, row : row + 12, column : column + 12] -= ink * torch.from_numpy(
            stamp("star", SIZES[size], 0, 0, 12)
        )
    return picture.round().to(torch.uint8)


def test_four_of_a_kind_and_mixed_sizes_are_unreadable():
    corners = [("red", "large", *corner) for corner in ((0, 0), (0, 18), (18, 0), (18, 18))]
    assert read(drawn(*corners[:3])) == parse("three large red stars")
    assert read(drawn(*corners)) is None
    assert read(drawn(("red", "large", 0, 0), ("red", "small", 0, 18))) is None


def test_a_group_is_above_another_only_if_all_of_it_is():
    left, right, blue = ("red", "large", 0, 0), ("red", "large", 20, 20), ("blue", "large", 20, 4)
    assert read(drawn(left, blue)) == parse("a large red star above a large blue star")
    assert read(drawn(left, right, blue)) is None


# --- the training source


def test_the_source_gives_pictures_and_words_in_the_order_asked_for(source):
    indices = torch.tensor([7, 0, 7])
    x0, (ids, mask) = source.batch(indices)
    assert x0.dtype == torch.float32 and x0.shape == (3, 3, 32, 32) and x0.min() >= -1 and x0.max() == 1
    want_ids, want_mask = encode([source.scenes[i].caption() for i in indices])
    assert torch.equal(ids, want_ids) and torch.equal(mask, want_mask) and torch.equal(x0[0], x0[2])
    assert adherence(x0, [source.scenes[i] for i in indices])["all"] == 1


def test_orders_are_permutations_that_seed_and_epoch_decide(source):
    orders = [source.order(0, 0), source.order(0, 1), source.order(1, 0), source.order(1, 1)]
    assert all(torch.equal(order.sort().values, torch.arange(len(source))) for order in orders)
    assert not any(torch.equal(a, b) for a, b in pairwise(orders)) and torch.equal(orders[0], source.order(0, 0))


def test_the_same_seed_gives_the_same_data_and_held_out_scenes_are_others():
    one, same, held = (
        ShapeScenes(20, 4, device="cpu"),
        ShapeScenes(20, 4, device="cpu"),
        ShapeScenes(20, 4, True, "cpu"),
    )
    assert torch.equal(one.pictures, same.pictures) and one.scenes == same.scenes and one.scenes != held.scenes
