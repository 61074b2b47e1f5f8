"""What the README shows can be typed, in its order, and ends in a picture."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

README = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")


def test_its_python_trains_and_draws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    train, draw = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert "steps=600" in train and "steps=50" in draw
    assert ".cpu()" in draw  # where the noise is drawn, whatever `train` has found
    names: dict[str, object] = {}
    exec(train.replace("steps=600", "steps=2"), names)
    exec(draw.replace("steps=50", "steps=2"), names)
    assert (tmp_path / "faces.png").stat().st_size > 1000
