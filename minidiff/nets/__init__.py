"""Networks. They know their inputs' shapes, and no schedule, loss or sampler."""

from minidiff.nets.mlp import MLP
from minidiff.nets.unet import UNet, UNetConfig

__all__ = ["MLP", "UNet", "UNetConfig"]
