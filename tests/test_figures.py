import builtins
import colorsys

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb

from txtlib import figures


@pytest.fixture
def shown(monkeypatch):
    out = []
    monkeypatch.setattr(figures, "display", lambda item: out.append(getattr(item, "data", item)))
    return out


def test_a_figure_carries_alt_text_caption_and_picture(shown):
    fig, ax = plt.subplots()
    ax.plot([0, 1])
    figures.show(fig, alt='a line "up" & on', caption="Rising < line.")
    assert 'alt="a line &quot;up&quot; &amp; on"' in shown[0] and "data:image/png;base64,iVBOR" in shown[0]
    assert "<figcaption>Rising &lt; line.</figcaption>" in shown[0]
    assert not plt.fignum_exists(fig.number)


@pytest.mark.parametrize("missing", ["alt", "caption"])
def test_a_figure_without_alt_text_or_caption_is_refused(missing):
    with pytest.raises(ValueError, match="needs alt text"):
        figures.show(plt.figure(), **{"alt": "x", "caption": "y", missing: " "})
    plt.close("all")


def test_a_table_has_caption_and_rounded_numbers(shown):
    figures.show_table(pd.DataFrame({"a": [1.23456, None]}), caption="Two rows & one gap")
    assert "<caption>Two rows &amp; one gap</caption>" in shown[0] and "1.235" in shown[0] and "NaN" not in shown[0]


def test_glue_shows_the_value_where_myst_nb_is_absent(shown, monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("myst_nb"):
            raise ImportError
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    figures.glue("n", 3)
    assert shown == ["n: 3"]


def test_colours_differ_in_lightness_or_marker_and_line():
    lightness = [colorsys.rgb_to_hls(*to_rgb(colour))[1] for colour in figures.PALETTE]
    assert len(set(figures.MARKERS)) == len(set(map(str, figures.LINES))) == len(lightness)


def test_interval_is_written_as_a_reader_wants_it():
    assert figures.interval(0.6613, 0.5501, 0.7649) == "0.66 (0.55 to 0.76)"
    nan = float("nan")
    assert figures.interval(0.5, nan, nan) == "0.50" and figures.interval(nan, nan, nan) == ""


# --- differences with their intervals -----------------------------------------------------------------------------


@pytest.fixture
def axes():
    fig, ax = plt.subplots()
    yield ax
    plt.close(fig)


def differences(rows):
    return pd.DataFrame.from_dict(rows, orient="index", columns=["mean", "low", "high"])


def drawn(ax):
    """Return the intervals {row: (low, high)} and the means {row: mean} that are to be seen."""
    lines = [line for line in ax.get_lines() if np.isfinite(line.get_xdata().astype(float)).all()]
    intervals = {line.get_ydata()[0]: tuple(line.get_xdata()) for line in lines if line.get_marker() == "None"}
    means = {line.get_ydata()[0]: line.get_xdata()[0] for line in lines if line.get_marker() in figures.MARKERS}
    return intervals, means


def forest_of(ax, rows, groups):
    ax.axvline = lambda *args, **kwargs: None  # the line at 0 is looked at elsewhere
    figures.forest(ax, differences(rows), groups)
    return drawn(ax)


def test_a_forest_has_a_row_for_each_name_from_the_top(axes):
    rows = {"first": (0.1, 0.05, 0.15), "second": (-0.2, -0.3, -0.1), "third": (0.0, -0.1, 0.1)}
    intervals, means = forest_of(axes, rows, [0, 1, 0])
    assert means == {0: 0.1, 1: -0.2, 2: 0.0}
    assert intervals == {0: (0.05, 0.15), 1: (-0.3, -0.1), 2: (-0.1, 0.1)}
    assert [label.get_text() for label in axes.get_yticklabels()] == list(rows)
    bottom, top = axes.get_ylim()
    assert bottom > 2 > 0 > top  # row 0 is the uppermost


def test_a_forest_marks_zero_and_keeps_the_means_apart(axes):
    figures.forest(axes, differences({"a": (0.1, -5.0, 5.0), "b": (-0.05, -0.1, 0.0)}), [0, 1])
    zero = axes.get_lines()[0]
    assert list(zero.get_xdata()) == [0, 0] and zero.get_color() == figures.GREY
    assert axes.get_xlim() == (-0.2, 0.2)  # the wide interval is cut


def test_a_group_has_a_colour_and_a_marker(axes):
    rows = {str(row): (0.1, 0.0, 0.2) for row in range(9)}
    figures.forest(axes, differences(rows), list(range(9)))  # more groups than colours
    marks = [line for line in axes.get_lines() if line.get_marker() in figures.MARKERS]
    kinds = [(line.get_color(), line.get_marker()) for line in marks]
    assert kinds[:7] == list(zip(figures.PALETTE, figures.MARKERS, strict=True)) and kinds[7:] == kinds[:2]


def test_what_is_undefined_is_left_out_and_keeps_its_row(axes):
    nothing = np.nan
    rows = {"no number": (nothing,) * 3, "one split": (0.1, nothing, nothing), "both": (0.2, 0.1, 0.3)}
    intervals, means = forest_of(axes, rows, [0, 0, 1])
    assert intervals == {2: (0.1, 0.3)} and means == {1: 0.1, 2: 0.2}
    assert len(axes.get_yticks()) == 3
    axes.figure.canvas.draw()


@pytest.mark.parametrize("numbers", [(np.nan,) * 3, (0.0, 0.0, 0.0)])
def test_a_forest_of_nothing_is_an_empty_figure(axes, numbers):
    figures.forest(axes, differences({"a": numbers, "b": numbers}), [0, 1])
    axes.figure.canvas.draw()
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"]


def test_each_row_of_a_forest_needs_its_group(axes):
    with pytest.raises(ValueError, match="shorter"):
        figures.forest(axes, differences({"a": (0.1, 0.0, 0.2), "b": (0.1, 0.0, 0.2)}), [0])
