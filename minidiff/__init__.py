"""minidiff: text-to-image diffusion, small enough to read and real enough to work."""

from typing import TYPE_CHECKING, Any

from minidiff.common import Condition, Prediction, TextEmbedding

if TYPE_CHECKING:
    from minidiff.pipeline import TextToImage

__version__ = "0.1.0"
__all__ = ["Condition", "Prediction", "TextEmbedding", "TextToImage", "__version__"]


def __getattr__(name: str) -> Any:
    """Load the pipeline when it is first asked for: `import minidiff` stays as quick as `import torch`."""
    if name == "TextToImage":
        from minidiff.pipeline import TextToImage

        return TextToImage
    raise AttributeError(f"module 'minidiff' has no attribute {name!r}")
