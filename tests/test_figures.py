import builtins
import colorsys

import matplotlib.pyplot as plt
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
    assert figures.interval(float("nan"), float("nan"), float("nan")) == ""
