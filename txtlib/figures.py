"""How the book shows things: one colour-blind-safe palette, figures that always carry alt text and a caption."""

import base64
import html
import io
import math

import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import HTML, display

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
            "savefig.dpi": 130,
            "font.size": 11,
            "legend.frameon": False,
            "figure.constrained_layout.use": True,
        }
    )


def show(fig: mpl.figure.Figure, *, alt: str, caption: str) -> None:
    """Show a figure with its caption, then close it. ValueError without alt text, which states what is to be seen."""
    if not alt.strip() or not caption.strip():
        raise ValueError(
            "A figure needs alt text, which says what it shows to somebody who cannot see it, and a caption."
        )
    picture = io.BytesIO()
    fig.savefig(picture, format="png")
    plt.close(fig)
    source = "data:image/png;base64," + base64.b64encode(picture.getvalue()).decode()
    image = f'<img src="{source}" alt="{html.escape(alt)}">'
    display(HTML(f'<figure class="book-figure">{image}<figcaption>{html.escape(caption)}</figcaption></figure>'))


def show_table(frame: pd.DataFrame, *, caption: str, digits: int = 3) -> None:
    """Show a table with its caption; floats are rounded, a missing value is an empty cell."""
    body = frame.to_html(border=0, classes="book-table", na_rep="", float_format=lambda value: f"{value:.{digits}f}")
    head, tail = body.split(">", 1)
    display(HTML(f"{head}><caption>{html.escape(caption)}</caption>{tail}"))


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
