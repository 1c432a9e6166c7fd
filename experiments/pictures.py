"""Write a study's pictures."""

from pathlib import Path

from matplotlib.figure import Figure

from medjax.lab.storage import results


def write_picture(folder: Path, name: str, figure: Figure) -> None:
    """Write a picture as PNG and as SVG.

    Args:
        folder: where the files go.
        name: the files' name, without an ending.
        figure: the picture.
    """
    for suffix in ("png", "svg"):
        results.write_figure(folder / f"{name}.{suffix}", figure)
