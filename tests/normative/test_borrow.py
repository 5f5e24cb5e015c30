"""Borrowing along levels, protocols that deviate, and the norms that come with the package."""

import numpy as np
import pandas as pd

from healthy_people import people
from qcord.normative.borrow import borrow
from qcord.normative.fit import fit_norms
from qcord.normative.score import score
from qcord.normative.shipped import shipped_norms


def levels(seed, n=8):
    return pd.concat([people(6, 6, seed=100 * seed + k, slope=-0.1).assign(level=f"C{k}") for k in range(1, n + 1)])


def test_borrowing_brings_effects_nearer_to_the_truth():
    """True slope -.1 a year and male 4 at all levels."""
    before, after = [], []
    for seed in range(8):
        norms = fit_norms(levels(seed))
        for found, kept in ((norms, before), (borrow(norms), after)):
            kept += [
                (
                    n.hierarchy.coefficients[1] * n.hierarchy.spread - 4,
                    n.hierarchy.coefficients[2] * n.hierarchy.spread + 2,
                )
                for n in found
            ]
    before, after = (np.sqrt(np.square(x).mean(axis=0)) for x in (before, after))
    assert (after < 0.75 * before).all()


def test_borrowing_keeps_what_levels_truly_differ_in():
    table = pd.concat([people(30, 20, seed=k, slope=-0.1 * k).assign(level=f"C{k}") for k in range(1, 7)])
    norms = fit_norms(table)
    for one, other in zip(norms, borrow(norms), strict=True):
        a, b = (n.hierarchy.coefficients[2] * n.hierarchy.spread for n in (one, other))
        assert abs(a - b) < 0.4


def test_borrowing_keeps_the_mean_of_the_people():
    table = levels(3)
    norms = fit_norms(table)
    a, b = score(norms, table), score(borrow(norms), table)
    assert np.abs(a.groupby("level")["z"].mean() - b.groupby("level")["z"].mean()).max() < 0.15


def test_two_cells_do_not_borrow():
    norms = fit_norms(levels(4, n=2))
    assert all("borrowed" not in norm.card for norm in borrow(norms))


def test_shipped_norms_know_the_cord_and_no_person():
    norms = shipped_norms()
    assert len(norms) >= 40
    area = norms["area T2w", "spinal cord", "C3"]
    h = area.hierarchy
    assert h.sites.name == ()
    man = h.coefficients[1] * h.spread
    assert 2.0 < man < 7.0  # published: 4.3 mm2 more in men
    for norm in norms:
        assert norm.count >= 60
        assert {"source", "calibration", "limits"} <= set(norm.card)


def test_shipped_norms_hold_published_means():
    """Published means: FA of white matter .689 on Siemens; area at C3 72.5 mm2; MTsat of Philips 5.9 %."""
    rows = pd.DataFrame(
        {
            "metric": ["FA", "area T2w", "MTsat"],
            "region": ["white matter", "spinal cord", "white matter"],
            "level": ["C2:C5", "C3", "C2:C5"],
            "manufacturer": ["Siemens", "Siemens", "Philips"],
            "value": [0.69, 72.5, 5.9],
            "age": 30.0,
            "sex": ["M", "F", "F"],
        }
    )
    found = score(shipped_norms(), rows)
    assert (found["z"].abs() < 0.7).all()
    assert set(found["basis"]) == {"manufacturer"}
