"""The figures that chapters share: rows of pictures, films of a denoising, clouds of points over their density.

Everything is drawn with matplotlib on white, so that a figure reads the same on a light and on a dark page.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from minidiff.frames import as_frame

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from minidiff.toy import Mixture

INK = "#24211f"  # lines that matter most, and text
QUIET = "#938b82"  # what stands in the background
WARM, COOL = "#d1662b", "#2f7f8f"  # two things compared: apart for every kind of color vision, and in gray
GOLD, PLUM = "#a97f14", "#7a4a76"
_CLOSE: dict[str, Any] = {"w_pad": 0.02, "h_pad": 0.02, "wspace": 0.02, "hspace": 0.02}
LINEAR, COSINE = WARM, COOL  # the two noise schedules, the same throughout the book


def use_style() -> None:
    """Set matplotlib's defaults to the book's look, for the rest of the session; notebooks draw for sharp screens."""
    import matplotlib.pyplot as plt
    from cycler import cycler
    from IPython import get_ipython

    if get_ipython() is not None:
        from matplotlib_inline.backend_inline import set_matplotlib_formats

        set_matplotlib_formats("retina")  # twice as many pixels, shown at the same size

    plt.rcParams.update(
        {
            "figure.facecolor": "white",
            "figure.dpi": 110,
            "figure.constrained_layout.use": True,
            "figure.constrained_layout.w_pad": 0.08,  # inches, or the numbers of two axes run together
            "figure.constrained_layout.h_pad": 0.06,
            "font.size": 10,
            "axes.titlesize": 10,
            "axes.spines.top": False,
            "axes.spines.right": False,
            **dict.fromkeys(("axes.edgecolor", "axes.labelcolor", "text.color", "xtick.color", "ytick.color"), INK),
            "axes.prop_cycle": cycler(color=[COOL, WARM, PLUM, GOLD, INK, QUIET]),
            "legend.frameon": False,
            "lines.linewidth": 1.8,
        }
    )


def show(
    pictures: Sequence[Any] | Tensor,
    titles: Sequence[str] | None = None,
    columns: int | None = None,
    size: float = 1.2,
    rows: Sequence[str] | None = None,
    frame: bool = False,
) -> None:
    """Show pictures, tensors (3, H, W) in [-1, 1] (values outside are clipped) or PIL's, in rows of `columns`.

    titles: a word above each picture, or above those of the first row. rows: a word before each row. size: inches.
    frame: a thin line around each, for pictures on white.
    Raises ValueError for an empty list.
    """
    import matplotlib.pyplot as plt

    if len(pictures) == 0:
        raise ValueError("`pictures` must hold at least one picture; got none.")
    width = columns or len(pictures)
    height = -(-len(pictures) // width)
    title = 0.22 if titles is None else 0.22 * (1 if len(titles) <= width else height)
    words = 0.08 * max((len(line) for row in rows or () for line in row.split("\n")), default=0)
    figsize = size * width + words, size * height + title
    figure, axes = plt.subplots(height, width, figsize=figsize, squeeze=False, layout="constrained")
    figure.get_layout_engine().set(**_CLOSE)  # type: ignore[union-attr]
    for axis in axes.flat[len(pictures) :]:
        axis.set_axis_off()
    for axis in axes.flat[: len(pictures)]:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set(visible=frame, color=QUIET, linewidth=0.8)
    for i, (axis, picture) in enumerate(zip(axes.flat, pictures, strict=False)):
        axis.imshow(as_frame(picture), interpolation="nearest")
        if titles is not None and i < len(titles):
            axis.set_title(titles[i], fontsize=9)
    for axis, word in zip(axes[:, 0], rows or (), strict=False):
        axis.set_ylabel(word, fontsize=9, rotation=0, ha="right", va="center")
    plt.show()


def panels(n: int, size: float = 2.2, limit: float | None = 1.4, columns: int | None = None) -> list[Axes]:
    """n square axes in one figure, [-limit, limit]^2 without ticks (None: leave the limits to the data)."""
    import matplotlib.pyplot as plt

    width = columns or n
    height = -(-n // width)
    _, axes = plt.subplots(
        height, width, figsize=(size * width, (size + 0.25) * height), squeeze=False, layout="constrained"
    )
    for axis in axes.flat[n:]:
        axis.set_axis_off()
    for axis in axes.flat[:n]:
        axis.set(aspect="equal", xticks=[], yticks=[])
        axis.spines[:].set(visible=True, color=QUIET, linewidth=0.8)
        if limit is not None:
            axis.set(xlim=(-limit, limit), ylim=(-limit, limit))
    return list(axes.flat)[:n]


def cloud(axis: Axes, x: Tensor, color: Any = INK, size: float = 2.0, **look: Any) -> None:
    """Draw points (N, 2)."""
    x = x.detach().cpu()
    axis.scatter(x[:, 0], x[:, 1], **{"s": size, "c": color, "linewidths": 0, "alpha": 0.6, **look})


def density(axis: Axes, mixture: Mixture, limit: float = 1.4) -> None:
    """Shade the density of a 2-D mixture over [-limit, limit]^2."""
    line = torch.linspace(-limit, limit, 161, dtype=torch.float64)
    places = torch.cartesian_prod(line, line)  # the first coordinate counts slowest
    p = mixture.log_prob(places).exp().view(len(line), -1).T
    top = float(p.max())
    # Bands, not a gradient: they show the shape as well and make a figure half as heavy. vmax keeps them pale enough
    # for points to be seen on them.
    levels = [top * (i + 0.3) / 9 for i in range(10)]
    axis.contourf(line, line, p, levels=levels, cmap="Greys", vmin=0, vmax=1.6 * top)


def arrows(axis: Axes, start: Tensor, end: Tensor, color: Any = WARM, **look: Any) -> None:
    """Draw an arrow from each point of `start` (N, 2) to the one of `end` (N, 2)."""
    start, way = start.detach().cpu(), (end - start).detach().cpu()
    style = {"angles": "xy", "scale_units": "xy", "scale": 1, "width": 0.006, "color": color, **look}
    axis.quiver(start[:, 0], start[:, 1], way[:, 0], way[:, 1], **style)
