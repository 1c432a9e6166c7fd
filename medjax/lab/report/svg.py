"""Pictures as SVG inside a page, with the page's colours."""

import io
import re
import xml.etree.ElementTree as ElementTree
from contextlib import AbstractContextManager
from typing import Any
from xml.etree.ElementTree import Element

import matplotlib
from markupsafe import Markup
from matplotlib.figure import Figure

from medjax.lab import plots

# A stand-in for the page's text colour, to tell it from lines that are meant to be black.
_INK = "#010203"
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: it can be read, found and copied, and is smaller
    "svg.hashsalt": "medjax",  # the same picture is the same bytes
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    **dict.fromkeys(
        ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), _INK
    ),
}
# The page may replace them by others, if it is dark.
_COLOURS = {hue.lower(): f"var(--series-{k}, {hue})" for k, hue in enumerate(plots.COLOURS)}
_COLOURS |= {"#000000": "currentColor", "#ffffff": "var(--paper)"}
_HREF = "{http://www.w3.org/1999/xlink}href"
_REFERENCE = re.compile(r"url\(#(.+?)\)")
_FONT = re.compile(r"font-family: [^;]*;?|font: ([0-9.]+px) [^;]*;?")


def page_style() -> AbstractContextManager[None]:
    """Give the page's style to figures that are made and turned into SVG in its block."""
    return matplotlib.rc_context(_STYLE)


def inline(figure: Figure, name: str) -> Markup:
    """Turn a figure into an `svg` element.

    Args:
        figure: the figure.
        name: unique in the page: the ids in the element begin with it.
    """
    file = io.BytesIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    root = ElementTree.fromstring(file.getvalue())
    used = {match for x in root.iter() for match in _references(x)}
    for parent in list(root.iter()):
        for child in list(parent):
            if _local(child.tag) in ("metadata", "style"):  # the page has the style
                parent.remove(child)
    for element in root.iter():
        _adapt(element, name, used)
    width = root.get("width", "")
    root.attrib = {"viewBox": root.get("viewBox", ""), "style": f"--width: {width}"}
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _adapt(element: Element, name: str, used: set[str]) -> None:
    """Drop namespaces, which HTML doesn't have; make ids unique; use the page's colours."""
    text = _local(element.tag) in ("text", "tspan")
    attributes = {}
    for key, value in element.attrib.items():
        if key == "id":
            if value not in used:
                continue
            value = f"{name}-{value}"
        elif key == _HREF:
            value = f"#{name}-{value[1:]}" if value.startswith("#") else value
        value = _REFERENCE.sub(rf"url(#{name}-\1)", value)
        attributes[_local(key)] = _restyled(value, text) if key == "style" else value
    element.tag, element.attrib = _local(element.tag), attributes
    element.text = element.text and element.text.strip()
    element.tail = element.tail and element.tail.strip()


def _restyled(style: str, text: bool) -> str:
    style = _FONT.sub(lambda match: f"font-size: {match[1]};" if match[1] else "", style)
    style = style.replace(_INK, "currentColor")
    if not text:  # a line in black, the white within a mark; a word on a coloured cell stays
        for colour, name in _COLOURS.items():
            style = style.replace(colour, name)
    return style.strip().rstrip(";")


def _references(element: Element) -> list[str]:
    found = [match for value in element.attrib.values() for match in _REFERENCE.findall(value)]
    href = element.get(_HREF, "")
    return [*found, href[1:]] if href.startswith("#") else found


def _local(name: str) -> str:
    return name.rpartition("}")[2]
