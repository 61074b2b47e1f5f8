"""Write book/_static/demos/data.js, what the live demos show, from minidiff. Unlike the book, this needs torch.

The mixtures are those of `minidiff.toy`, number by number; the picture is the fox of chapter 2. A test compares the
file with what this would write.
"""

import base64
import json
import pathlib
import sys
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
TARGET = ROOT / "book" / "_static" / "demos" / "data.js"
HEAD = "// Made from minidiff by book/tools/demo_data.py.\nconst demoData = "


def mixtures() -> dict[str, Any]:
    """The named mixtures of minidiff, and three overlapping classes for guidance."""
    import torch

    from minidiff.toy import POINTS, Mixture, points

    named = {name: points(name) for name in POINTS}
    # Three classes that touch in the middle: arms of four Gaussians, ever wider, 120 degrees apart.
    turn = torch.deg2rad(torch.tensor([90.0, 210.0, 330.0], dtype=torch.float64))
    arm = torch.tensor([0.3, 0.55, 0.8, 1.05], dtype=torch.float64)
    means = torch.stack([turn.cos(), turn.sin()], dim=1)[:, None, :] * arm[None, :, None]
    stds = torch.tensor([0.16, 0.17, 0.18, 0.19], dtype=torch.float64).repeat(3)
    labels = torch.arange(1, 4).repeat_interleave(4)
    named["arms"] = Mixture(torch.ones(12), means.reshape(-1, 2), stds, labels)
    return {
        name: {
            "weights": mixture.weights.tolist(),
            "means": mixture.means.tolist(),
            "stds": mixture.stds.tolist(),
            "labels": [0] * len(mixture.means) if mixture.labels is None else mixture.labels.tolist(),
        }
        for name, mixture in named.items()
    }


def fox() -> Any:
    """The fox of chapter 2, uint8 (64, 64, 3)."""
    from minidiff.data.emoji import load_emoji

    emoji = load_emoji()
    return emoji.pixels("noto")[emoji.find("fox").index].permute(1, 2, 0).contiguous().numpy()


def main() -> None:
    """Write the file; the fox's bytes as text, row by row."""
    text = json.dumps({"mixtures": mixtures(), "fox": base64.b64encode(fox()).decode()}, separators=(",", ":"))
    TARGET.write_text(f"{HEAD}{text};\n", encoding="utf-8")
    print(f"{TARGET.relative_to(ROOT)}: {TARGET.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
