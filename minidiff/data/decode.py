"""One picture, from whatever file or object it comes, as a square uint8 tensor on white."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from minidiff.common import check_choice

if TYPE_CHECKING:
    from PIL import Image

MAX_PIXELS = 64_000_000  # asked of the header, before anything is decoded: a few kB can claim to be gigabytes
FITS = ("crop", "pad")


def load_picture(path: str | os.PathLike[str], size: int, *, fit: str = "crop") -> Tensor:
    """Return one picture file as uint8 (3, size, size).

    Turned as its EXIF data says, the first frame if it moves, transparency on white, 16 bits scaled to 8, gray and
    CMYK as RGB, resized with Lanczos. Raises ValueError with the reason when the file cannot be read as a picture.
    """
    from PIL import Image, UnidentifiedImageError

    path = Path(path)
    check_choice("fit", fit, FITS)
    if not path.is_file():
        raise ValueError(f"{path}: is no file")
    if path.stat().st_size == 0:
        raise ValueError(f"{path}: is empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise Image.DecompressionBombError
                return to_tensor(on_paper(image), size, fit)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ValueError(f"{path}: has more than {MAX_PIXELS // 10**6} million pixels") from None
    except UnidentifiedImageError:
        raise ValueError(f"{path}: is no picture in a known format") from None
    except Exception as error:  # damaged files make decoders raise almost anything: SyntaxError, struct.error, ...
        raise ValueError(f"{path}: cannot be decoded ({error})") from None


def on_paper(image: Image.Image, paper: str = "white") -> Image.Image:
    """Return the first frame, upright, as 8-bit RGB with transparency laid on paper of that color."""
    import numpy as np
    from PIL import Image, ImageOps

    sixteen = image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG")
    image = ImageOps.exif_transpose(image)
    if sixteen:  # `convert` would cut off at 255 instead of scaling
        gray = np.rint(np.asarray(image).astype(np.float32) / 257).astype(np.uint8)
        return Image.fromarray(gray).convert("RGB")
    if image.mode in ("I", "F"):
        raise ValueError(f"mode {image.mode} has no fixed range: save it with 8 or 16 bits per channel")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, paper), image).convert("RGB")
    return image.convert("RGB")


def to_tensor(image: Image.Image, size: int, fit: str) -> Tensor:
    """Resize an RGB picture to uint8 (3, size, size)."""
    import numpy as np
    from PIL import Image, ImageOps

    method = Image.Resampling.LANCZOS
    if fit == "pad":
        square = ImageOps.pad(image, (size, size), method, color="white")
    else:
        square = ImageOps.fit(image, (size, size), method)
    return torch.from_numpy(np.array(square)).permute(2, 0, 1).contiguous()


def to_pil(picture: Any) -> Image.Image:
    """Return a tensor as a PIL image; PIL images pass through."""
    from PIL import Image

    if not isinstance(picture, Tensor):
        return picture
    if picture.dim() != 3 or picture.shape[0] not in (1, 3):
        raise ValueError(f"its shape must be (1 or 3, H, W); got {tuple(picture.shape)}")
    if picture.dtype != torch.uint8:
        if not 0 <= float(picture.min()) <= float(picture.max()) <= 1:
            raise ValueError("its values must be uint8 or in [0, 1]")
        picture = (picture.float() * 255).round().to(torch.uint8)
    return Image.fromarray(picture.expand(3, -1, -1).permute(1, 2, 0).contiguous().cpu().numpy())
