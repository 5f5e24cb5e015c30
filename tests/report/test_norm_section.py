import io
import re
import warnings
from importlib.resources import files

import matplotlib.image
import numpy as np
import pandas as pd
import pytest

from healthy_people import people
from qcord.core.errors import ExtrapolationWarning
from qcord.core.labels import TRACTS
from qcord.normative.centiles import centiles
from qcord.normative.fit import fit_norm
from qcord.normative.score import score
from qcord.report import norm_charts
from qcord.report.comparison import PROBABILITIES, SCORE_COLUMNS, Comparison, Curves, discoveries
from qcord.report.norm_charts import centile_chart, charts_of, named, profile_chart
from qcord.report.norm_section import chance, chart_numbers, norm_section, signed
from qcord.report.scale import shown_unit
from qcord.report.z_colours import NO_NORM, ink_on, z_colour
from qcord.report.z_map import map_rows, painted, picture, section, shown_by, z_map
from straight_template import straight_template

LEFT, RIGHT = TRACTS[4], TRACTS[5]
CELL = ("area T2w", "spinal cord", "C3")


@pytest.fixture(scope="module")
def norm():
    return fit_norm(people(8, 8, makers=2))


def compared(norm, value=50.0, age=50.0, earlier=(), **columns):
    row = dict.fromkeys(SCORE_COLUMNS, "") | dict(zip(("metric", "region", "level"), CELL, strict=True))
    row |= {"unit": "mm2", "estimator": "mean", "value": value, "se": 1.0, "age": age, "sex": "F", "source": "T2w"}
    row |= {"site": "new", "manufacturer": "m0", "session_id": "02"} | columns
    rows = [row | {"age": a, "value": v, "session_id": s} for s, a, v in earlier]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExtrapolationWarning)
        scored = score(norm, pd.DataFrame([*rows, row]))[list(SCORE_COLUMNS)]
    ages = np.linspace(20, 100, 9)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExtrapolationWarning)
        table = centiles(norm, ages, "F", manufacturer="m0", probabilities=PROBABILITIES)
    return Comparison(
        scored.tail(1).reset_index(drop=True),
        {CELL: Curves(table, norm.count, "32 people", norm.ages)},
        scored.head(len(rows)),
        data=("The norm rests on made-up people.",),
    )


def scores(rows):
    columns = ["metric", "region", "level", "z"]
    table = pd.DataFrame(rows, columns=columns)
    return table.assign(z_low=table["z"] - 1, z_high=table["z"] + 1, discovery=table["z"].abs() > 3.5)


def drawn(monkeypatch, function, *arguments):
    """The figure that a function draws."""
    kept = []
    monkeypatch.setattr(norm_charts, "svg", lambda figure: kept.append(figure) or b"")
    function(*arguments)
    return kept[0]


def test_curves_pass_where_the_norm_says_and_the_point_lies_at_its_value(norm, monkeypatch):
    chart = charts_of(compared(norm, 61.5, 47.0))[0]
    figure = drawn(monkeypatch, centile_chart, chart)
    axis = figure.axes[0]
    said = centiles(norm, [50.0], "F", manufacturer="m0").set_index("probability")["value"]
    curves = [line for line in axis.lines if len(line.get_xdata()) == 9]
    assert len(curves) == len(PROBABILITIES)
    heights = sorted(float(np.interp(50.0, c.get_xdata(), c.get_ydata())) for c in curves)
    np.testing.assert_allclose(heights, said.to_numpy())
    full = [c for c in curves if c.get_linestyle() == "-"]
    np.testing.assert_allclose(np.interp(50.0, full[0].get_xdata(), full[0].get_ydata()), said[0.5])
    point = next(line for line in axis.lines if line.get_marker() == "o")
    assert (point.get_xdata()[0], point.get_ydata()[0]) == (47.0, 61.5)
    assert axis.get_ylabel() == "area T2w [mm²]"
    assert "women" in axis.get_title(loc="left")
    assert f"{norm.count} people, 32 people of this manufacturer (m0)" in axis.get_title(loc="left")


def test_the_numbers_of_the_script_are_those_of_the_norm(norm):
    chart = charts_of(compared(norm, 61.5))[0]
    numbers = chart_numbers(chart)
    median = next(c for c in numbers["curves"] if c["p"] == 0.5)
    with pytest.warns(ExtrapolationWarning, match="100 years"):
        said = centiles(norm, numbers["ages"], "F", manufacturer="m0", probabilities=(0.5,))
    np.testing.assert_allclose(median["value"], said["value"], rtol=1e-3)
    np.testing.assert_allclose(median["low"], said["low"], rtol=1e-3)
    assert numbers["points"][-1]["value"] == 61.5
    assert numbers["points"][-1]["z"] == pytest.approx(float(compared(norm, 61.5).scores["z"].iloc[0]), rel=1e-4)


def test_units_are_those_that_are_printed():
    assert shown_unit("MD", "mm2/s") == (1e3, "10⁻³ mm²/s")
    assert shown_unit("MTR", "percent") == (1.0, "%")
    assert shown_unit("diameter_AP T2w", "mm") == (1.0, "mm")


def test_earlier_visits_are_joined_in_order_and_named(norm, monkeypatch):
    comparison = compared(norm, 60.0, 50.0, earlier=[("00", 40.0, 66.0), ("01", 46.0, 63.0)])
    chart = charts_of(comparison)[0]
    assert [p.label for p in chart.points] == ["ses-00", "ses-01", "ses-02"]
    axis = drawn(monkeypatch, centile_chart, chart).axes[0]
    course = next(line for line in axis.lines if list(line.get_xdata()) == [40.0, 46.0, 50.0])
    assert list(course.get_ydata()) == [66.0, 63.0, 60.0]
    words = " ".join(t.get_text() for t in axis.texts)
    assert "ses-00" in words
    assert "ses-02, z" in words


def test_ages_beyond_the_norm_are_hatched_and_said_so(norm, monkeypatch):
    inside = centile_chart(charts_of(compared(norm, age=50.0))[0]).decode()
    chart = charts_of(compared(norm, age=98.0))[0]
    assert chart.extrapolated
    assert "extrapolated" in inside  # the curves reach beyond the norm though the person does not
    axis = drawn(monkeypatch, centile_chart, chart).axes[0]
    spans = [p for p in axis.patches if p.get_hatch()]
    assert spans
    assert max(p.get_x() + p.get_width() for p in spans) == pytest.approx(100)
    section_text = norm_section(compared(norm, age=98.0))
    assert "age beyond" in section_text
    assert "The age lies beyond those of the norm: extrapolated." in section_text


def test_pictures_repeat_to_the_byte(norm):
    chart = charts_of(compared(norm))[0]
    assert centile_chart(chart) == centile_chart(chart)
    scored = scores([("FA", "white matter", "C3", 1.0), ("FA", "white matter", "C3:C5", 2.0)])
    assert profile_chart(scored, ["FA"]) == profile_chart(scored, ["FA"])
    assert norm_section(compared(norm)) == norm_section(compared(norm))


def test_profile_has_the_head_on_top_and_the_usual_band(monkeypatch):
    scored = scores([("FA", LEFT, "C3", 1.0), ("FA", LEFT, "C5", -2.5), ("FA", LEFT, "C3:C5", 2.0)])
    axis = drawn(monkeypatch, profile_chart, scored, ["FA"]).axes[0]
    assert [t.get_text() for t in axis.get_yticklabels()] == ["C3", "C4", "C5"]
    assert axis.yaxis_inverted()
    points = {float(p.get_xdata()[0]): float(p.get_ydata()[0]) for p in axis.lines if p.get_marker() == "o"}
    assert points == {1.0: 0.0, -2.5: 2.0, 2.0: 1.0}
    assert axis.patches[0].get_x() == pytest.approx(-1.96, abs=1e-3)


def test_colours_of_z():
    assert z_colour(0) == "#ffffff"
    assert z_colour(3) == "#c8433f"
    assert z_colour(-3) == "#2e70b0"
    assert z_colour(40) == z_colour(4)
    assert z_colour(float("nan")) == NO_NORM
    assert ink_on(z_colour(4)) == "#ffffff"
    assert ink_on(z_colour(0.5)) == "#000000"
    steps = [int(z_colour(z)[3:5], 16) for z in np.linspace(0, 4, 41)]
    assert steps == sorted(steps, reverse=True)  # green falls all the way: darker is farther


def test_a_score_paints_its_region_and_no_other():
    template = straight_template()
    cut = section(template, "C4")
    rows = painted(scores([("FA", LEFT, "C4", 3.0), ("FA", "dorsal columns", "C4", -3.0)]))
    colours, shown = picture(template, cut, rows)
    red = np.all(np.isclose(colours, np.array([200, 67, 63]) / 255, atol=2e-3), axis=-1)
    assert red.any()
    left = template.region_names.index(LEFT)
    assert (red == (cut.owner == left)).all()
    dorsal = np.isin(cut.owner, [template.region_names.index(t) for t in (TRACTS[0], TRACTS[1])])
    assert ((shown == 1) == dorsal).all()
    assert ((shown == -2) == (cut.owner < 0)).all()
    assert (shown == -1).any()


def test_the_smallest_region_with_a_norm_is_shown():
    assert shown_by(LEFT, ["white matter", "lateral funiculi", "lateral corticospinal tract"]) == without(LEFT)
    assert shown_by(LEFT, ["white matter", "lateral funiculi"]) == "lateral funiculi"
    assert shown_by(LEFT, ["gray matter", "dorsal columns"]) is None
    assert shown_by(LEFT, [LEFT, "white matter"]) == LEFT


def without(region):
    return region.split(" ", 2)[2]


def test_the_patients_left_is_on_the_right_and_dorsal_below():
    template = straight_template()
    own = scores([("FA", TRACTS[1], "C4", 3.0)])  # right fasciculus gracilis
    raw = matplotlib.image.imread(io.BytesIO(z_map(template, own, ["FA"])))
    pixels = np.round(raw[..., :3] * 255).astype(int)
    gray = np.all(pixels == [int(NO_NORM[i : i + 2], 16) for i in (1, 3, 5)], axis=-1)
    first, last = np.flatnonzero(gray.any(axis=0))[[0, -1]]
    red = np.all(pixels == [200, 67, 63], axis=-1)
    red[:, last + 2 :] = False  # the colour bar
    names = template.region_names
    assert template.grid.affine[0, 0] > 0
    x, y = (float(np.argwhere(red)[:, i].mean()) for i in (1, 0))
    middle, centre = (first + last) / 2, float(np.argwhere(gray)[:, 0].mean())
    field = template.region_field(names[names.index(TRACTS[1])])
    world = template.grid.world(np.argwhere(field > 0.5))
    assert (x < middle) == (world[:, 0].mean() > 0)  # what lies to the patient's right is on the left
    assert (y > centre) == (world[:, 1].mean() < 2.0)  # rows of pictures run down


def test_lines_of_the_map_hold_levels_from_the_head_down():
    scored = scores([("FA", LEFT, v, 1.0) for v in ("C5", "C3:C5", "C3")] + [("MD", LEFT, "C3:C5", 1.0)])
    scored = pd.concat([scored, scores([("T1", LEFT, "C2", 0.0)])])
    assert map_rows(scored, ["FA", "MD", "T1"]) == [
        [("FA", "C3"), ("FA", "C5"), ("FA", "C3:C5")],
        [("MD", "C3:C5"), ("T1", "C2")],
    ]


def test_false_discoveries_of_the_example_of_benjamini_and_hochberg():
    from scipy.special import ndtri

    p = [0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.324, 0.4262, 0.5719, 0.6528, 0.759]
    z = [-ndtri(v / 2) for v in [*p, 0.999999]]
    assert sum(discoveries(z)) == 4
    assert discoveries(z)[:5] == [True] * 4 + [False]
    assert discoveries([]) == []


def test_the_number_of_false_alarms_is_stated():
    text = chance(scores([("FA", LEFT, "C3", v) for v in (0.1, 2.5, 4.5, *np.zeros(37))]))
    assert text.startswith("40 comparisons: of a healthy person about 2.0 lie beyond ±1.96 by chance alone; here 2 do.")
    assert "1 stands out" in text


def test_all_numbers_are_there_without_a_script(norm):
    comparison = compared(norm, 40.0)
    html = norm_section(comparison)
    assert "<script>" in html
    plain = re.sub(r"<script>.*?</script>", "", html, flags=re.S)
    row = comparison.scored.iloc[0]
    assert f">{signed(row['z'], 2)}<" in plain
    assert f"{signed(row['z_low'])} to {signed(row['z_high'])}" in plain
    assert "40.0 ± 1.0" in plain
    assert f'style="background: {z_colour(row["z"])}' in plain
    assert "data:image/svg+xml;base64," in plain
    assert "http://" not in html.replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in html
    assert " hidden" in plain  # the interactive chart shows only once the script runs


def test_the_usual_range_is_that_of_the_norm(norm):
    low, high = centiles(norm, [50.0], "F", manufacturer="m0", probabilities=(0.025, 0.975))["value"]
    assert compared(norm).curves[CELL].at(50.0, 0.025) == pytest.approx(low)
    assert f"<td>{low:.1f} to {high:.1f}</td>" in norm_section(compared(norm))


def test_a_profile_needs_two_levels(norm):
    one = compared(norm)
    assert "z by level" not in norm_section(one)
    two = Comparison(pd.concat([one.scores, one.scores.assign(level="C4")], ignore_index=True), one.curves)
    assert "z by level" in norm_section(two)


def test_rows_are_sorted_by_deviation(norm):
    one = compared(norm, 62.0)
    rows = pd.concat([one.scores, one.scores.assign(z=-5.0, level="C4"), one.scores.assign(z=4.0, level="C5")])
    comparison = Comparison(rows.reset_index(drop=True), one.curves)
    assert comparison.scored["level"].tolist() == ["C4", "C5", "C3"]
    assert comparison.scored["discovery"].tolist() == [True, True, False]


def test_text_is_escaped(norm):
    nasty = "</script><img src=x onerror=alert(1)>"
    comparison = compared(norm, 40.0, session_id=nasty, manufacturer="m0")
    comparison = Comparison(
        comparison.scores.assign(note=nasty, manufacturer=nasty),
        comparison.curves,
        data=(nasty,),
        notes=(nasty,),
        without=(nasty,),
    )
    html = norm_section(comparison)
    assert "<img src=x" not in html
    assert html.count("</script>") == 1


def test_the_script_writes_no_markup_and_asks_no_network():
    script = (files("qcord.report") / "norms.js").read_text(encoding="utf-8")
    for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "fetch(", "import "):
        assert word not in script
    assert "tabindex" in script


def test_the_basis_is_said_plainly(norm):
    known = norm.hierarchy.sites.name[0]
    maker = norm.hierarchy.sites.manufacturer[0]
    assert "of this site" in norm_section(compared(norm, site=known, manufacturer=maker))
    assert "this manufacturer only (m0, 32 people)" in norm_section(compared(norm))
    assert "holds no scanner of this manufacturer (Elsewhere)" in norm_section(compared(norm, manufacturer="Elsewhere"))


def test_without_a_score_the_section_is_a_sentence():
    html = norm_section(Comparison(pd.DataFrame(columns=list(SCORE_COLUMNS)), notes=("No comparison: why.",)))
    assert "No comparison: why." in html
    assert "<table" not in html
    assert "<script" not in html


def test_names_and_signs():
    assert named(LEFT) == "lateral corticospinal tract, left"
    assert named("white matter") == "white matter"
    assert signed(-0.04) == "0.0"
    assert signed(-2.26) == "−2.3"
    assert signed(1.0, 2) == "+1.00"
