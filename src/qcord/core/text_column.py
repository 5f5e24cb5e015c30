"""Columns of text in tables."""

from typing import Any

import pandas as pd

TEXT = pd.Series(["text"]).dtype
"""How this pandas holds text: ``str`` from 3.0 on, objects before."""

_MAY_HOLD_ANYTHING = str(TEXT) == "object"


def as_text(column: "pd.Series[Any]") -> "pd.Series[Any]":
    """Column as text; what is missing stays missing."""
    if column.dtype == TEXT and not _MAY_HOLD_ANYTHING:
        return column
    if isinstance(column.dtype, pd.CategoricalDtype):
        return column.astype(TEXT)
    return column.astype(object).map(str, na_action="ignore").astype(TEXT)
