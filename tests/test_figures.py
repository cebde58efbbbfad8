import base64
import builtins
import colorsys
import io
import re
from xml.etree import ElementTree

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

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


def test_a_picture_is_light_and_looks_as_it_was_drawn(shown):
    fig, ax = plt.subplots()
    ax.imshow(np.random.default_rng(0).normal(size=(60, 80)))
    drawn = io.BytesIO()
    fig.savefig(drawn, format="png")
    figures.show(fig, alt="a", caption="c")
    kept = base64.b64decode(re.search(r"base64,([^\"]+)", shown[0])[1])
    one, other = (np.asarray(Image.open(file).convert("RGB")).astype(int) for file in (drawn, io.BytesIO(kept)))
    assert len(kept) < len(drawn.getvalue()) / 2
    assert np.abs(one - other).mean() < 1 and (other[0, 0] == 255).all()  # of 255; what was white stays white
    assert f"--wide: {one.shape[1]}px" in shown[0]


def test_a_picture_lies_in_a_box_that_can_scroll_without_its_caption(shown):
    figures.show(plt.figure(), alt="a", caption="c")
    pointed(shown, ["A", "B", "C"])
    for drawing in shown:
        assert re.search(r'<div class="book-scroll"><(img [^>]*|svg .*</svg)></div><figcaption>', drawing, re.S)


@pytest.mark.parametrize("missing", ["alt", "caption"])
def test_a_figure_without_alt_text_or_caption_is_refused(missing):
    with pytest.raises(ValueError, match="needs alt text"):
        figures.show(plt.figure(), **{"alt": "x", "caption": "y", missing: " "})
    plt.close("all")


def test_a_table_has_caption_and_rounded_numbers(shown):
    figures.show_table(pd.DataFrame({"a": [1.23456, None]}), caption="Two rows & one gap")
    assert "<caption>Two rows &amp; one gap</caption>" in shown[0] and "1.235" in shown[0] and "NaN" not in shown[0]


def test_headers_of_a_table_say_what_they_head(shown):
    rows = pd.MultiIndex.from_tuples([("g", "u"), ("g", "v")], names=["group", "method"])
    columns = pd.MultiIndex.from_tuples([("C-index", "mean"), ("C-index", "low"), ("other", "n")])
    figures.show_table(pd.DataFrame([[1, 2, 3], [4, 5, 6]], rows, columns), caption="c")
    headers = re.findall(r"<th\b([^>]*)>(.*?)</th>", shown[0])
    scopes = {text: re.search(r'scope="(\w+)"', about)[1] for about, text in headers}
    assert scopes["C-index"] == "colgroup" and {scopes["mean"], scopes["other"], scopes["group"]} == {"col"}
    assert {scopes["g"], scopes["u"], scopes["v"]} == {"row"}
    assert "" not in scopes  # an empty header is none


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


# --- figures whose points say what they are -------------------------------------------------------------------------

SVG = "{http://www.w3.org/2000/svg}"


def scattered(x=(0.0, 1.0, 2.0), y=(0.0, 3.0, 1.0), **options):
    """Return a figure with a scatter, and the scatter."""
    fig, ax = plt.subplots()
    return fig, ax.scatter(x, y, **options)


def pointed(shown, texts, caption="Points.", **options):
    """Show a scatter with texts; return what was shown, and its SVG as a tree."""
    fig, points = scattered(**options)
    figures.show(fig, alt="three points", caption=caption, points={points: texts})
    drawing = shown[-1]
    return drawing, ElementTree.fromstring(drawing[drawing.index("<svg") : drawing.rindex("</svg>") + 6])


def circles(tree):
    return list(tree.iter(f"{SVG}circle"))


def test_each_point_says_what_it_is_without_a_script(shown):
    drawing, tree = pointed(shown, ["A: 1", "B: 2", "C"])
    assert [circle.find(f"{SVG}title").text for circle in circles(tree)] == ["A: 1", "B: 2", "C"]
    assert [circle.get("aria-label") for circle in circles(tree)] == ["A: 1", "B: 2", "C"]
    assert [circle.get("data-name") for circle in circles(tree)] == ["A", "B", "C"]
    assert [circle.get("tabindex") for circle in circles(tree)] == ["0", "-1", "-1"]  # one stop of the tab key
    assert {circle.get("role") for circle in circles(tree)} == {"listitem"}
    assert drawing.startswith('<figure class="book-figure">') and "<script" not in drawing
    assert drawing.endswith("<figcaption>Points.</figcaption></figure>") and not plt.get_fignums()


def test_the_search_box_is_hidden_and_knows_each_name_once(shown):
    drawing, _ = pointed(shown, ["A: 1", "B: 2", "A: 3"])
    assert '<div class="book-search" data-interactive hidden><label>' in drawing and "<output></output>" in drawing
    assert drawing.count("<option") == 2
    key = drawing.partition('<input type="search" list="')[2].partition('"')[0]
    assert f'<datalist id="{key}">' in drawing


def test_the_picture_has_its_alt_text_and_no_rule_for_the_page(shown):
    drawing, tree = pointed(shown, ["A", "B", "C"])
    picture = next(part for part in tree.iter(f"{SVG}svg") if part.get("role") == "img")
    assert picture.get("aria-label") == "three points" and "#fff" in tree.get("style")
    assert not any(part in drawing for part in ("<style", "<?xml", "<!DOCTYPE", "<!--", "<metadata"))


def places(collection):
    """Return where matplotlib drew the points: copies of one marker, or a path for each."""
    copies = [(float(use.get("x")), float(use.get("y"))) for use in collection.iter(f"{SVG}use")]
    paths = [re.findall(r"-?[\d.]+", path.get("d")) for path in collection.iter(f"{SVG}path")]
    corners = [np.array(path, float).reshape(-1, 2) for path in paths]
    return copies or [(path.min(0) + path.max(0)) / 2 for path in corners]


@pytest.mark.parametrize("options", [{}, {"s": [10, 200, 900]}, {"marker": "s", "c": ["r", "g", "b"]}])
def test_circles_lie_where_matplotlib_puts_the_points(shown, options):
    _, tree = pointed(shown, ["A", "B", "C"], **options)
    drawn = next(part for part in tree.iter(f"{SVG}g") if "PathCollection" in part.get("id", ""))
    ours = [(float(circle.get("cx")), float(circle.get("cy"))) for circle in circles(tree)]
    assert len(ours) == 3 and np.allclose(ours, places(drawn), atol=0.01)
    sizes = np.resize(options.get("s", 36), 3)  # matplotlib's area: the square of a marker's width
    assert all(float(circle.get("r")) >= np.sqrt(size) / 2 for circle, size in zip(circles(tree), sizes, strict=True))


def test_circles_lie_right_on_a_log_scale_beside_another_panel(shown):
    with plt.rc_context({"figure.constrained_layout.use": True}):
        fig, (_, ax) = plt.subplots(1, 2, figsize=(9, 3))
    points = ax.scatter([1, 10, 1000], [1, 2, 3])
    ax.set(xscale="log", ylabel="a label that takes room")
    figures.show(fig, alt="a", caption="c", points={points: ["A", "B", "C"]})
    tree = ElementTree.fromstring(shown[-1][shown[-1].index("<svg") : shown[-1].rindex("</svg>") + 6])
    there = [float(use.get("x")) for use in list(tree.iter(f"{SVG}use")) if use.get("y") and use.get("style")]
    ours = [float(circle.get("cx")) for circle in circles(tree)]
    assert all(np.min(np.abs(np.array(there) - x)) < 0.01 for x in ours)
    assert ours[2] - ours[1] == pytest.approx(2 * (ours[1] - ours[0]), abs=0.05)


def test_what_is_not_to_be_seen_is_not_to_be_found(shown):
    fig, points = scattered([0.0, np.nan, 2.0, 50.0], [0.0, 1.0, 1.0, 1.0])
    points.axes.set_xlim(-1, 3)
    figures.show(fig, alt="a", caption="c", points={points: ["A: in", "B: no place", "C: in", "D: outside"]})
    assert all(text in shown[0] for text in ("A: in", "C: in"))
    assert not any(text in shown[0] for text in ("B: no place", "D: outside", 'value="D"'))


def test_texts_and_names_are_escaped(shown):
    text = '<b>"A" & \'co\'</b>: 1 < 2 & "so on"'
    drawing, tree = pointed(shown, [text, "B", "C"], caption="a < b")
    assert circles(tree)[0].find(f"{SVG}title").text == circles(tree)[0].get("aria-label") == text
    assert circles(tree)[0].get("data-name") == text.partition(":")[0]
    assert "<b>" not in drawing and "a &lt; b" in drawing


def test_a_figure_is_the_same_on_every_run_and_another_has_other_names(shown):
    texts = ["A", "B", "C"]
    first, second = pointed(shown, texts)[0], pointed(shown, texts)[0]
    _, other = pointed(shown, texts, x=(5.0, 6.0, 9.0))
    assert first == second
    _, tree = pointed(shown, texts)
    assert not {part.get("id") for part in tree.iter() if part.get("id")} & {part.get("id") for part in other.iter()}


def test_everything_that_a_drawing_refers_to_is_in_it(shown):
    drawing, tree = pointed(shown, ["A", "B", "C"])
    names = [part.get("id") for part in tree.iter() if part.get("id")]
    asked = re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', drawing)
    assert asked and {a or b for a, b in asked} <= set(names) and len(set(names)) == len(names)


def test_texts_must_be_as_many_as_points():
    fig, points = scattered()
    with pytest.raises(ValueError, match="A scatter of 3 points was given 2 texts"):
        figures.show(fig, alt="a", caption="c", points={points: ["A", "B"]})
    plt.close("all")


def test_a_scatter_of_another_figure_is_refused():
    (fig, _), (_, other) = scattered(), scattered()
    with pytest.raises(ValueError, match="not in this figure"):
        figures.show(fig, alt="a", caption="c", points={other: ["A", "B", "C"]})
    plt.close("all")


def test_a_figure_without_points_to_name_is_a_picture_as_ever(shown):
    figures.show(scattered()[0], alt="a", caption="c", points={})
    assert "data:image/png;base64,iVBOR" in shown[0]


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
