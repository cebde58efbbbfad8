"""How the book shows things: one colour-blind-safe palette, figures that always carry alt text and a caption."""

import base64
import hashlib
import html
import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import HTML, display
from matplotlib.collections import PathCollection
from PIL import Image

# Okabe and Ito's palette, which stays apart under the common kinds of colour blindness
BLUE, ORANGE, GREEN, PINK, SKY, RED, GREY = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
    "#D55E00",
    "#6E6E6E",
)
PALETTE = (BLUE, ORANGE, GREEN, PINK, SKY, RED, GREY)
DPI = 130  # of pictures on a page
COLOURS = 256  # of a picture on a page, which then weighs a third; a drawing needs no more
HAND = 4.0  # points (1/72 inch): no spot for the mouse has a smaller radius
# glyphs as paths look the same on every machine; the salt makes the names inside the same on every run
STILL_SVG = {"svg.fonttype": "path", "svg.hashsalt": "txtlib"}
NO_METADATA = dict.fromkeys(("Date", "Creator", "Format", "Type"))
MARKERS = ("o", "s", "^", "D", "v", "P", "X")  # colour is never the only difference
LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)), (0, (8, 2)))


def house_style() -> None:
    """Set matplotlib up for the book: called once at the top of a notebook."""
    mpl.rcParams.update(
        {
            "axes.prop_cycle": mpl.cycler(color=PALETTE, linestyle=LINES),
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlesize": "medium",
            "axes.titlelocation": "left",
            "figure.facecolor": "white",
            "figure.dpi": 100,
            "savefig.dpi": DPI,
            "font.size": 11,
            "legend.frameon": False,
            "figure.constrained_layout.use": True,
        }
    )


def show(
    fig: mpl.figure.Figure, *, alt: str, caption: str, points: Mapping[PathCollection, Sequence[str]] | None = None
) -> None:
    """Show a figure with its caption, then close it.

    ``points`` {scatter: a text for each of its points} says what a point is when the mouse rests on it; what stands
    before the colon of a text ("TP53: ratio 2.1") is the name by which the book's search box finds it. The figure is
    then drawn as SVG, which needs no script to be read and prints as it is, and ``data-interactive`` marks it: a page
    with such a mark may weigh more than others. A point that lies outside its axes, or has no finite place, is not in
    the picture and not found. On a narrow screen a picture scrolls in a box of its own. Raises ValueError without alt
    text, which states what is to be seen, or caption, for texts that are not as many as the points, and for a scatter
    of another figure.
    """
    if not alt.strip() or not caption.strip():
        raise ValueError(
            "A figure needs alt text, which says what it shows to somebody who cannot see it, and a caption."
        )
    picture = _pointed(fig, alt, points) if points else _still(fig, alt)
    plt.close(fig)
    display(HTML(f'<figure class="book-figure">{picture}<figcaption>{html.escape(caption)}</figcaption></figure>'))


def _still(fig: mpl.figure.Figure, alt: str) -> str:
    drawn, small = io.BytesIO(), io.BytesIO()
    fig.savefig(drawn, format="png")
    picture = Image.open(drawn).convert("RGB").quantize(COLOURS, Image.Quantize.MEDIANCUT)
    picture.save(small, format="png", optimize=True)
    source = "data:image/png;base64," + base64.b64encode(small.getvalue()).decode()
    return _boxed(f'<img src="{source}" alt="{html.escape(alt)}" style="--wide: {picture.width}px">')


def _boxed(picture: str) -> str:
    """Put a picture into a box that scrolls where the screen is too narrow to read it (book.css, reach.js)."""
    return f'<div class="book-scroll">{picture}</div>'


# --- figures whose points say what they are -----------------------------------------------------------------------


def _pointed(fig: mpl.figure.Figure, alt: str, points: Mapping[PathCollection, Sequence[str]]) -> str:
    """Return the picture as SVG under a search box, which stays hidden until a script can serve it."""
    for collection, texts in points.items():
        _check_points(fig, collection, texts)
    drawing = _drawing(fig)  # lays the figure out: only now points are where they will be seen
    spots = [spot for each in points.items() for spot in _spots(fig, *each)]
    key = "f" + hashlib.sha256("".join([drawing, alt, *map(str, spots)]).encode()).hexdigest()[:10]
    width, height = 72 * fig.get_size_inches()
    wide = f"{width / 72 * DPI:.0f}px"
    picture = (
        f'<svg class="book-picture" xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="0 0 {width:g} {height:g}" '
        f'style="--wide: {wide}; width: {wide}; max-width: 100%; height: auto; background: #fff">'
        f'<svg role="img" aria-label="{html.escape(alt)}" style="stroke-linejoin: round; stroke-linecap: butt">'
        f'{_own_names(drawing, key)}</svg><g role="list" aria-label="Points">{_circles(spots)}</g></svg>'
    )
    return _search(key, [_name(text) for *_, text in spots]) + _boxed(picture)


def _check_points(fig: mpl.figure.Figure, collection: PathCollection, texts: Sequence[str]) -> None:
    if not fig.findobj(lambda artist: artist is collection):
        raise ValueError("The points to be named are of a scatter that is not in this figure.")
    if len(texts) != (drawn := len(collection.get_offsets())):
        raise ValueError(f"A scatter of {drawn} points was given {len(texts)} texts; give one text for each point.")


def _drawing(fig: mpl.figure.Figure) -> str:
    """Return what a figure's SVG file holds inside of <svg>, without the rules that would spill onto the page."""
    file = io.StringIO()
    with mpl.rc_context(STILL_SVG):
        fig.savefig(file, format="svg", metadata=NO_METADATA)
    inside = re.search(r"<svg[^>]*>(.*)</svg>", file.getvalue(), re.S)[1]
    return re.sub(r"<!--.*?-->|<style.*?</style>", "", inside, flags=re.S)


def _own_names(drawing: str, key: str) -> str:
    """Give what is named inside a drawing a name that no other figure of the page has."""
    return re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{key}-", drawing)


def _spots(
    fig: mpl.figure.Figure, collection: PathCollection, texts: Sequence[str]
) -> Iterable[tuple[float, float, float, str]]:
    """Return x, y and radius, in points from the upper left, and the text of each point that is to be seen."""
    places = collection.get_offset_transform().transform(np.ma.filled(collection.get_offsets().astype(float), np.nan))
    radii = np.maximum(HAND, np.sqrt(np.resize(collection.get_sizes(), len(places))) / 2 + 1)
    frame = collection.axes.get_window_extent().padded(1)
    for (x, y), radius, text in zip(places, radii, texts, strict=True):
        if frame.contains(x, y):
            yield 72 * x / fig.dpi, 72 * (fig.get_figheight() - y / fig.dpi), radius, str(text)


def _circles(spots: list[tuple[float, float, float, str]]) -> str:
    """Return a circle to hover for each point; one of them is a stop of the tab key, arrows lead to the others."""
    return "".join(
        f'<circle class="book-point" cx="{x:.2f}" cy="{y:.2f}" r="{radius:.2f}" fill="none" pointer-events="all" '
        f'tabindex="{-1 if number else 0}" role="listitem" data-name="{html.escape(_name(text))}" '
        f'aria-label="{html.escape(text)}"><title>{html.escape(text)}</title></circle>'
        for number, (x, y, radius, text) in enumerate(spots)
    )


def _search(key: str, names: list[str]) -> str:
    options = "".join(f'<option value="{html.escape(name)}"></option>' for name in dict.fromkeys(names))
    return (
        f'<div class="book-search" data-interactive hidden><label>Find a point by name '
        f'<input type="search" list="{key}-names" autocomplete="off"></label><output></output></div>'
        f'<datalist id="{key}-names">{options}</datalist>'
    )


def _name(text: str) -> str:
    return text.partition(":")[0].strip()


# --- tables and numbers -------------------------------------------------------------------------------------------


def show_table(frame: pd.DataFrame, *, caption: str, digits: int = 3) -> None:
    """Show a table with its caption; floats are rounded, a missing value is an empty cell.

    Each header says whether it heads columns or rows, so that a screen reader names both with a cell.
    """
    body = frame.to_html(border=0, classes="book-table", na_rep="", float_format=lambda value: f"{value:.{digits}f}")
    start, rest = body.split(">", 1)
    head, rows = rest.split("<tbody>", 1)
    cells = f"{_scoped(head, 'col')}<tbody>{_scoped(rows, 'row')}"
    display(HTML(f"{start}><caption>{html.escape(caption)}</caption>{cells}"))


def _scoped(part: str, scope: str) -> str:
    """Write what the headers of a part of a table head; an empty one heads nothing, and becomes a plain cell."""
    part = re.sub(r"<th\b([^>]*)></th>", r"<td\1></td>", part)
    return re.sub(r"<th\b(.*?)>", lambda th: f'<th scope="{scope}{"group" * ("colspan" in th[1])}"{th[1]}>', part)


def forest(ax, found: pd.DataFrame, groups: list[int]) -> None:
    """Draw differences with their intervals, a row each, from the top: ``found`` has mean, low and high by name.

    groups (n,) are numbers that choose colour and marker. A name without a number keeps its empty row; an interval
    that is undefined is left out, and one that leaves the axes is cut there.
    """
    rows = range(len(found))
    ax.axvline(0, color=GREY, lw=1, ls="-")
    for row, group, (_, one) in zip(rows, groups, found.iterrows(), strict=True):
        colour, marker = PALETTE[group % len(PALETTE)], MARKERS[group % len(MARKERS)]
        ax.plot([one["low"], one["high"]], [row, row], color=colour, lw=1.5, ls="-")
        ax.plot([one["mean"]], [row], color=colour, marker=marker, ms=5, ls="")
    reach = found["mean"].abs().max()
    ax.set(yticks=list(rows), yticklabels=list(found.index), ylim=(len(found) - 0.5, -0.5))
    if reach > 0:  # wide intervals must not press all means together
        ax.set_xlim(-2 * reach, 2 * reach)
    ax.grid(axis="y", color="0.92")


def glue(key: str, value) -> None:
    """Keep a value for the prose, as ``{glue:text}`key```; where myst-nb is not installed, show it instead."""
    try:
        from myst_nb import glue as keep
    except ImportError:
        display(f"{key}: {value}")
    else:
        keep(key, value, display=False)


def interval(score: float, low: float, high: float, digits: int = 2) -> str:
    """Write a score with its interval: ``0.66 (0.55 to 0.76)``; without one alone, and nothing for an undefined one."""
    written = "" if math.isnan(score) else f"{score:.{digits}f}"
    return written if math.isnan(low + high) else f"{written} ({low:.{digits}f} to {high:.{digits}f})"
