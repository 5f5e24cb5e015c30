"""The code of the page runs."""

import re
from pathlib import Path

import numpy as np
import pytest

from simulated_sites import simulate

PAGE = Path(__file__).resolve().parents[3] / "docs" / "harmonisation.md"


@pytest.mark.filterwarnings("ignore:age varies")
def test_code_of_the_page_runs():
    code = re.search(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)[1]
    table = simulate(8, errors=True, fewest=4, n_features=2).table
    table = table.rename(columns={"f0": "FA", "f1": "MTsat", "f0_se": "FA_se"})
    own = table[table["site"] == "Gamma02"].assign(site="new")
    names = {"table": table, "controls": own.iloc[:3], "people_of_the_new_site": own}
    exec(code, names)
    assert np.isfinite(names["new"][["FA", "FA_se", "MTsat_se_shift"]]).all(axis=None)
    assert (names["share"].set_index("group").loc["manufacturer", "eta_squared"] < 0.03).all()
    assert len(names["kept"]) == 4
