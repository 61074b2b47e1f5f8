"""The playground in a real browser: it draws what Python draws from the same weights and noise, or says why not."""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
import torch
from browser import BUILT, ROOT, Browser, Page
from test_export import COMMITTED, load_stored_weights, towers

from minidiff.common import Condition, randn, seeded
from minidiff.data.pixels import to_uint8
from minidiff.pipeline import TextToImage
from minidiff.schedules import time_grid

pytestmark = pytest.mark.browser

ELEMENT = "document.querySelector('minidiff-playground')"
PARTS = f"{ELEMENT}.parts"
ASKED: dict[str, Any] = {
    "prompt": "a red heart",
    "style": "fluent-3d",
    "negative": "yellow face",
    "guidance": 4,
    "seed": 3,
    "steps": 4,
}
ODD = [
    "a red heart", "A RED Heart!", "  two   spaces ", "Bär mit Straßenschild", "ÄPFEL, ÖL & ÜBERMUT", "the cat's",
    "panda 🐼 on a 🛹", "👩🏽‍🚀", "🇩🇪 flag", "日本の城", "naïve café", "ｆｕｌｌ ｗｉｄｔｈ", "ﬁsh", "İstanbul",
    "²³½", "3d-style", "<eos><bos> <pad>", "a,b;c", "tab\tand\nline", "!!!", "…", "e\u0301", "\u200bzero", "x" * 90,
    "100%", "don't @ me #1", "heart " * 60,
]  # fmt: skip


def draw(page: Page, **settings: Any) -> dict[str, Any]:
    """Fill in the form, press the button, wait: {"seconds": ...}, or {"failed": the sentence shown}."""
    page.socket.settimeout(400)
    return page.run(f"""new Promise(done => {{
        const element = {ELEMENT}, {{ form, draw, failure }} = element.parts;
        for (const [name, value] of Object.entries({json.dumps(settings)})) form.elements[name].value = value;
        element.addEventListener("drawn", event => done(event.detail), {{ once: true }});
        new MutationObserver(() => failure.hidden || done({{ failed: failure.textContent }}))
            .observe(failure, {{ attributes: true }});
        draw.click();
    }})""")


@pytest.fixture(scope="module")
def noise() -> torch.Tensor:
    return randn((1, 3, 64, 64), [seeded(0)])


@pytest.fixture(scope="module")
def drawn(browser: Browser, address: str, noise: torch.Tensor) -> Iterator[Page]:
    """A page that has drawn what `ASKED` says, from noise that Python made."""
    page = browser.page()
    page.open(f"{address}/book/playground.html")
    page.run(f"{ELEMENT}.start = new Float32Array({noise.flatten().tolist()}), 0")
    said = draw(page, **ASKED)
    assert "failed" not in said, said
    yield page
    page.close()


@pytest.fixture(scope="module")
def twin() -> TextToImage:
    """The model of the page in Python: its stored weights made floats again."""
    pipe = TextToImage.from_pretrained("emoji-64")
    load_stored_weights(pipe, COMMITTED)
    return pipe


def numbers(page: Page, expression: str) -> torch.Tensor:
    """An array of the page."""
    return torch.tensor(page.run(f"Array.from({expression})"))


def test_the_picture_is_python_s_to_two_levels_of_brightness(
    drawn: Page, twin: TextToImage, noise: torch.Tensor
) -> None:
    cond, null = twin.condition([ASKED["prompt"]], ASKED["style"]), twin.condition([ASKED["negative"]])
    x = twin.generate(cond, 1, steps=4, guidance=4.0, null=null, seeds=[0])
    painted = numbers(drawn, f"{PARTS}.picture.getContext('2d').getImageData(0, 0, 64, 64).data").view(64, 64, 4)
    expected = to_uint8(x)[0].permute(1, 2, 0)
    assert (painted[..., :3] - expected.int()).abs().max() <= 2
    assert expected.float().std() > 20 and bool((painted[..., 3] == 255).all())


def test_the_spotlight_is_the_attention_that_python_records(drawn: Page, twin: TextToImage) -> None:
    cond = twin.condition([ASKED["prompt"]], ASKED["style"])
    assert cond is not None and cond.text is not None
    x_t = numbers(drawn, f"{ELEMENT}.frames[2].x").view(1, 3, 64, 64)  # what the fourth step looks at
    with towers(twin)[1].record_attention() as maps, torch.no_grad():
        twin.denoiser(x_t, time_grid(twin.denoiser.schedule, 4)[3:4], Condition(text=cond.text))
    mean = torch.stack([weights.mean(1) for weights in maps if weights.shape[2] == 256]).mean(0)[0]
    length = mean.shape[1]
    shown = numbers(drawn, f"{ELEMENT}.frames[3].attention").view(256, -1)
    assert (shown[:, :length] - mean).abs().max() < 1e-3 and shown[:, length:].abs().max() == 0
    words = drawn.run(f"[...{PARTS}.words.querySelectorAll('label')].map(label => label.textContent)")
    assert words == ["the whole picture", "a", "red", "heart", "fluent", "3d", "style"]
    drawn.run(f"{PARTS}.words.querySelectorAll('input')[3].click()")
    assert drawn.run(f"{PARTS}.spotlight.hidden") is False
    dark = numbers(drawn, f"{PARTS}.spotlight.getContext('2d').getImageData(0, 0, 16, 16).data").view(256, 4)[:, 3]
    place = towers(twin)[0].words("a red heart, fluent 3d style").index("heart")
    assert dark.argmin() == mean[:, 1 + place].argmax() and dark.max() == 210


def test_every_step_can_be_looked_at_again(drawn: Page, noise: torch.Tensor) -> None:
    look = f"{PARTS}.picture.toDataURL()"
    drawn.run(f"{PARTS}.time.focus()")
    drawn.press("Home")
    first = drawn.run(look)
    assert drawn.run(f"{PARTS}.step.value") == "1 of 4"
    drawn.run(f"{PARTS}.belief.click()")
    assert drawn.run(look) != first  # x0_hat, not x_t
    drawn.run(f"{PARTS}.belief.click()")
    drawn.press("End")
    assert drawn.run(look) != first


def test_a_typed_prompt_is_drawn_at_enter_and_can_be_stopped(drawn: Page) -> None:
    drawn.run(f"{ELEMENT}.start = null, {PARTS}.form.elements.prompt.select(), {PARTS}.form.elements.prompt.focus()")
    drawn.send("Input.insertText", text="a panda")
    drawn.run(f"{PARTS}.form.elements.steps.value = 40")
    drawn.press("Enter")
    stop = f"""new Promise(done => {{ (function look() {{
        const drawing = {ELEMENT}.frames.length && {ELEMENT}.asked.prompt === "a panda";
        if (!drawing) return setTimeout(look, 50);
        {ELEMENT}.addEventListener("drawn", () => done({ELEMENT}.frames.length), {{ once: true }});
        {PARTS}.draw.click();
    }})(); }})"""
    assert drawn.run(f"{PARTS}.draw.textContent") == "Stop"
    assert 1 <= drawn.run(stop) < 40
    assert drawn.run(f"{PARTS}.draw.textContent") == "Draw"
    assert drawn.run(f"{PARTS}.status.textContent").startswith("Stopped after ")
    assert drawn.run(f"{PARTS}.picture.getAttribute('aria-label')").startswith("a panda, after step ")


def test_nothing_is_asked_of_another_host_and_the_model_only_after_the_click(
    page: Page, drawn: Page, address: str
) -> None:
    page.open(f"{address}/book/playground.html")
    kinds = (".onnx", ".wasm", ".mjs", "manifest.json", "tokenizer.json", "worker.js")
    assert not [url for url in page.requests if any(kind in url for kind in kinds)]
    assert all(any(kind in url for url in drawn.requests) for kind in kinds)
    assert not [url for url in drawn.requests if not url.startswith((address, "data:", "blob:"))]


def test_prompts_become_the_same_tokens_as_in_python(page: Page, twin: TextToImage, address: str) -> None:
    page.open(f"{address}/book/playground.html")
    ask = f"""(async () => {{
        const {{ Prompts }} = await import("{address}/_static/playground/prompts.js");
        const {{ Tokenizer }} = await import("{address}/_static/vendor/tokenizers/tokenizers.min.mjs");
        const read = async name => (await fetch(`{address}/_static/playground/emoji-64/${{name}}.json`)).json();
        const prompts = new Prompts(Tokenizer, await read("tokenizer"), await read("manifest"));
        return {json.dumps(ODD)}.map(odd => [prompts.encode(odd), prompts.cut(odd), prompts.inStyle(odd, "noto")]);
    }})()"""
    encoder = towers(twin)[0]
    for odd, (encoded, cut, styled) in zip(ODD, page.run(ask), strict=True):
        ids, mask = encoder.tokenize([odd], full=True)
        assert encoded == {"ids": ids[0].tolist(), "mask": mask[0].tolist()}, odd
        assert cut == encoder.cut(odd)
        assert styled == twin.styled(odd, "noto")


def test_no_words_are_no_condition(page: Page, twin: TextToImage, address: str) -> None:
    page.open(f"{address}/book/playground.html")
    ask = f"""import("{address}/_static/playground/prompts.js").then(({{ Prompts }}) => {{
        class Never {{}}
        const prompts = new Prompts(Never, {{}}, {{ context: 40, styles: {{ noto: "noto style" }} }});
        return ["", "  ", "\\u2003\\x1c\\n"].map(blank => [prompts.encode(blank), prompts.inStyle(blank, "")]);
    }})"""
    assert all(encoded is None for encoded, _ in page.run(ask))
    cond = twin.condition(["", "\u2003\x1c\n"])
    assert cond is not None and cond.text is not None and not cond.text.mask.any()


def test_the_noise_is_normal_and_every_seed_has_its_own(page: Page, address: str) -> None:
    page.open(f"{address}/book/playground.html")
    ask = f"""import("{address}/_static/playground/sampler.js").then(({{ noise }}) =>
        [0, 1, 4294967295].map(seed => Array.from(noise(seed, 12288))))"""
    draws = np.array(page.run(ask))
    assert np.abs(draws.mean(1)).max() < 4 / 12288**0.5 and np.abs(draws.var(1) - 1).max() < 4 * (2 / 12288) ** 0.5
    assert np.abs(np.corrcoef(draws) - np.eye(3)).max() < 4 / 12288**0.5
    assert np.array_equal(draws, np.array(page.run(ask)))


def test_a_link_carries_the_settings_and_what_it_says_wrongly_is_ignored(page: Page, address: str) -> None:
    wanted = {
        "prompt": "Bär & 50% #1",
        "negative": "a+b",
        "style": "noto",
        "steps": "7",
        "guidance": "2.5",
        "seed": "12",
    }
    page.open(f"{address}/book/playground.html#" + "&".join(f"{k}={quote(v)}" for k, v in wanted.items()))
    read = f"Object.fromEntries(new FormData({PARTS}.form))"
    assert page.run(read) == wanted
    page.run(f"{PARTS}.share.click()")
    shared = page.run("location.href")
    page.open("about:blank")
    page.open(shared)
    assert page.run(read) == wanted
    page.open("about:blank")
    page.open(f"{address}/book/playground.html#prompt=cat&style=oil&steps=999&guidance=no&seed=-4")
    standard = {"prompt": "cat", "negative": "", "style": "", "steps": "12", "guidance": "4", "seed": "0"}
    assert page.run(read) == standard
    page.run("document.querySelector('.pg-gallery a').click()")
    page.run("new Promise(done => setTimeout(() => done(1), 300))")
    assert page.run(read)["prompt"] != "cat" and page.run(f"{PARTS}.status.textContent") == "Filled in. Press Draw."
    assert not [url for url in page.requests if ".onnx" in url]
    assert [error for error in page.errors if "THEBE_JS_URL" not in error] == []


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda folder: (folder / "unet.onnx").unlink(), "The file unet.onnx could not be loaded (404)."),
        (lambda folder: _flip(folder / "tokenizer.json"), "The file tokenizer.json is damaged"),
        (lambda folder: _rewrite(folder / "manifest.json", schedule="cosine"), "schedule cosine"),
        (lambda folder: _rewrite(folder / "manifest.json", format=1), "has format 1, this page reads 2"),
    ],
)
def test_a_broken_model_is_named_in_a_sentence(spoil: Any, sentence: str, page: Page, address: str) -> None:
    # A name of its own: tests may run side by side, and a browser remembers what it has loaded from an address.
    folder = BUILT / "_static" / "playground" / f"broken-{secrets.token_hex(8)}"
    shutil.copytree(COMMITTED, folder, dirs_exist_ok=True)
    try:
        spoil(folder)
        page.open(f"{address}/book/playground.html")
        page.run(f"{ELEMENT}.dataset.model = '../_static/playground/{folder.name}/'")
        assert sentence in draw(page)["failed"]
        assert page.run(f"{PARTS}.draw.textContent") == "Draw" and page.run(f"{PARTS}.progress.hidden") is True
    finally:
        shutil.rmtree(folder)


def _flip(path: Any) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _rewrite(path: Any, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_missing_program_is_named_in_a_sentence(page: Page, address: str) -> None:
    page.open(f"{address}/book/playground.html")
    page.run(f"{ELEMENT}.dataset.worker = '../_static/playground/nothing.js'")
    assert "could not be loaded" in draw(page)["failed"]


def test_a_browser_that_cannot_draw_says_so_before_the_click(page: Page, address: str) -> None:
    page.open((BUILT / "book" / "playground.html").as_uri())
    assert "make book" in page.run(f"{PARTS}.failure.textContent")
    assert page.run(f"{PARTS}.draw.disabled") is True and page.run(f"{PARTS}.failure.hidden") is False
    page.send("Page.addScriptToEvaluateOnNewDocument", source="delete window.WebAssembly")
    page.open(f"{address}/book/playground.html")
    assert "has no WebAssembly" in page.run(f"{PARTS}.failure.textContent")


def test_the_download_can_be_stopped(page: Page, address: str) -> None:
    page.open(f"{address}/book/playground.html")
    page.run(f"{PARTS}.draw.click(), {PARTS}.draw.click()")
    assert page.run(f"[{PARTS}.status.textContent, {PARTS}.draw.textContent, {ELEMENT}.drawing]") == [
        "Stopped.",
        "Draw",
        False,
    ]


def test_every_control_has_a_name_that_is_read_out(drawn: Page) -> None:
    controls = f"[...{ELEMENT}.querySelectorAll('input, select, button, progress, canvas:not([aria-hidden])')]"
    names = "e.getAttribute('aria-label') || e.closest('label')?.textContent.trim() || e.textContent.trim()"
    assert drawn.run(f"{controls}.filter(e => !({names})).map(e => e.outerHTML)") == []


def test_the_gallery_is_drawn_and_the_download_is_as_small_as_promised() -> None:
    from playground_files import PLAYGROUND, TIMES, checkpoint, downloads, fingerprint, page_examples, zipped

    wanted = page_examples(ROOT / "book" / "playground.md")
    assert len(wanted) >= 8
    assert {path.name for path in (PLAYGROUND / "gallery").glob("*.png")} == {example.file.name for example in wanted}
    assert (PLAYGROUND / "gallery" / "checkpoint.txt").read_text().strip() == checkpoint(), "run `make playground`"
    assert sum(map(zipped, downloads("emoji-64"))) <= 18e6
    took = json.loads(TIMES.read_text())
    assert took["files"] == fingerprint("emoji-64"), "run `python book/tools/playground_gallery.py times`"
    assert took["first"] <= 12
