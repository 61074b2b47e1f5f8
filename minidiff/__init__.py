"""minidiff: text-to-image diffusion, small enough to read and real enough to work."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from minidiff.common import Condition, Prediction, TextEmbedding
    from minidiff.pipeline import TextToImage

__version__ = "0.1.0"
__all__ = ["Condition", "Prediction", "TextEmbedding", "TextToImage", "__version__"]


def __getattr__(name: str) -> Any:
    """Load what is asked for when it is first asked for: `minidiff --help` need not wait for torch."""
    if name in __all__:
        return getattr(import_module("minidiff.pipeline" if name == "TextToImage" else "minidiff.common"), name)
    raise AttributeError(f"module 'minidiff' has no attribute {name!r}")
