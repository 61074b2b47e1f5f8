"""A model on the Hugging Face hub: its files fetched from there, and the README that says there how it is used."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from minidiff.checkpoints import bundled

EMOJI_SOURCES = """emoji, which keep their own licenses: Noto Emoji (Google, Apache-2.0), Twemoji (Twitter and other
contributors, CC-BY-4.0) and Fluent Emoji (Microsoft, MIT), named by Unicode CLDR (Unicode-3.0); minidiff's
ATTRIBUTION.md has the details."""
OURS = "The weights are under the MIT license; card.json says how they were trained."


def fetch(name: str | Path, **options: Any) -> str | Path:
    """The folder into which a model "owner/name" was downloaded; any other name, or a folder's, as it is.

    options: those of huggingface_hub's download. Raises ValueError when the hub gives no such model, and for options
    of one that is not from there.
    """
    if not re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", str(name)) or Path(name).exists():
        if given := next((option for option, value in options.items() if value is not None), None):
            raise ValueError(f"`{given}` is for models of the hub, not for {str(name)!r}; to a device: .to(device).")
        return name
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        wanted = ["config.json", "card.json", "tokenizer.json", "model.safetensors"]
        return snapshot_download(str(name), allow_patterns=wanted, **options)
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"`checkpoint` must be a bundled model ({', '.join(bundled())}), a folder, or one that the hub gives us; "
            f"got {str(name)!r}, no folder here: {reason}"
        ) from error


def model_card(size: int, styles: Sequence[str], encoder: Any = None) -> str:
    """The model card of a folder of weights: how they are loaded and, where we know, license and pictures."""
    from minidiff.data.emoji import STYLES
    from minidiff.data.scenes import VOCABULARY

    words = getattr(encoder, "vocabulary", ())
    prompt = "" if encoder is None else words[1] if words else "a red heart"
    data = "pictures of its owner's: say here which, and under what license."
    if tuple(styles) == STYLES:
        data = f"{EMOJI_SOURCES} {OURS}"
    elif words == tuple(VOCABULARY):
        prompt = "two small red circles left of a blue square"
        data = f"pictures of simple shapes that minidiff draws itself. {OURS}"
    call = f'pipe("{prompt}"' + (f', style="{styles[0]}")' if styles else ")")
    return f"""---
{"license: mit" if OURS in data else "license: other"}
library_name: minidiff
pipeline_tag: {"unconditional-image-generation" if encoder is None else "text-to-image"}
---

# Pictures of {size}x{size} pixels, by minidiff

```python
from minidiff import TextToImage

pipe = TextToImage.from_pretrained("this folder, or owner/name on the hub")
images = {call}
```

The weights are safetensors in half precision, without code. Trained on {data}
"""
