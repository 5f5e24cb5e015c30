"""Write a page for each registered contrast, from the model itself, and the table that lists them.

Run ``python tools/contrast_pages.py``; pages go to ``docs/contrasts``. A test holds them to the models.
"""

import ast
import inspect
import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np

from qcord.core.arrays import FloatArray
from qcord.core.model import SignalModel
from qcord.core.noise import Gaussian
from qcord.core.protocol import Protocol
from qcord.core.units import QUANTITIES
from qcord.estimate.bound import crlb
from qcord.estimate.propagate import delta
from qcord.estimate.simulate import simulate
from qcord.maps.fit import methods
from qcord.models.registry import MODELS

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "contrasts"
RATIOS = (20, 50, 100)


def main() -> None:
    """Write all pages."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")


def pages() -> dict[str, str]:
    """File name to text of each page."""
    return {"README.md": overview(), **{f"{name}.md": page(model) for name, model in MODELS.items()}}


def overview() -> str:
    """List of the contrasts."""
    rows = [
        f"| [{name}]({name}.md) | {model.title} | {', '.join(p.name for p in model.free)}"
        f"{'; ' if model.derived else ''}{', '.join(d.name for d in model.derived)} |"
        for name, model in MODELS.items()
    ]
    head = (
        "# Contrasts\n\nWritten by `tools/contrast_pages.py` from the models. [How to choose](../how-to-choose.md).\n\n"
    )
    return head + "| name | what | values |\n| --- | --- | --- |\n" + "\n".join(rows) + "\n"


def page(model: SignalModel) -> str:
    """Page of one contrast."""
    assert model.example is not None
    protocol = model.example()
    parts = [
        f"# {model.title}",
        f'`qcord fit {model.name} FILES -o OUT`, or `qcord.maps.fit.fit("{model.name}", series)`; '
        f"estimators: {', '.join(methods(model))}.",
        "## Formula\n\n```python\n" + formula(model) + "\n```",
        "## Values\n\n" + values_table(model),
        "## Protocol\n\n" + protocol_table(model, protocol),
        "## Typical values and how well they can be known\n\n" + bound_table(model, protocol),
        "## References\n\n" + "\n".join(f"- {reference}" for reference in model.references),
    ]
    return "\n\n".join(parts) + "\n"


def formula(model: SignalModel) -> str:
    """Source of the signal and of the functions of its module that it calls, without docstrings."""
    module = inspect.getmodule(model.signal)
    waiting, shown = [model.signal.__name__], []
    while waiting:
        name = waiting.pop(0)
        function = getattr(module, name, None)
        if name in shown or not inspect.isfunction(function) or inspect.getmodule(function) is not module:
            continue
        shown.append(name)
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
        waiting += [node.id for node in ast.walk(tree) if isinstance(node, ast.Name)]
    return "\n\n\n".join(without_docstring(getattr(module, name)) for name in shown)


def without_docstring(function: Callable[..., object]) -> str:
    """Source of a function without its docstring."""
    source = textwrap.dedent(inspect.getsource(function))
    lines, definition = source.splitlines(), ast.parse(source).body[0]
    assert isinstance(definition, ast.FunctionDef)
    if ast.get_docstring(definition):
        text = definition.body[0]
        lines[text.lineno - 1 : text.end_lineno] = []
    return "\n".join(lines).rstrip()


def values_table(model: SignalModel) -> str:
    """Table of free, given and derived values."""
    rows = ["| value | unit | what | kind | range |", "| --- | --- | --- | --- | --- |"]
    for kind, parameters in (("estimated", model.free), ("given", model.given)):
        for p in parameters:
            low, high = (f"{b:g}" for b in p.bounds)
            default = f", default {p.start:g}" if kind == "given" else ""
            rows.append(f"| {p.name} | {p.unit} | {p.description} | {kind}{default} | {low} to {high} |")
    rows += [f"| {d.name} | {d.unit} | | derived | |" for d in model.derived]
    return "\n".join(rows)


def protocol_table(model: SignalModel, protocol: Protocol) -> str:
    """Columns that the model needs, and those of its example."""
    rows = ["| column | unit | in the example |", "| --- | --- | --- |"]
    for name in model.needs:
        column = np.asarray(protocol.columns[name])
        unit = QUANTITIES[name].unit if name in QUANTITIES else ""
        rows.append(f"| {name} | {unit} | {summary(column)} |")
    count = f"The example has {len(protocol)} measurements."
    if model.coupled:
        count += " They belong together (one train): rows cannot be left out at will."
    return count + "\n\n" + "\n".join(rows)


def summary(column: FloatArray) -> str:
    """Short form of a column."""
    if column.ndim > 1:
        return f"{len(column)} vectors"
    values, counts = np.unique(column, return_counts=True)
    if column.dtype.kind == "b":
        return ", ".join(str(bool(v)).lower() for v in column) if len(column) < 12 else f"{column.sum()} true"
    if len(values) > 12:
        return f"{len(values)} values, {values[0]:g} to {values[-1]:g}"
    return ", ".join(f"{v:g}" + (f" ({c} times)" if c > 1 else "") for v, c in zip(values, counts, strict=True))


def bound_table(model: SignalModel, protocol: Protocol) -> str:
    """Typical values with the Cramer-Rao bound at three signal-to-noise ratios."""
    head = "| value | unit | typical | " + " | ".join(f"error at {r}" for r in RATIOS) + " |"
    blocks = [
        "Error: the least standard error with the example protocol (Cramer-Rao bound), one voxel, at three ratios of "
        "the largest signal to the standard deviation of the noise."
    ]
    for tissue in model.typical:
        theta = model.theta(tissue.values)
        sigma = float(np.abs(simulate(model, theta, protocol)).max())
        covariance = crlb(model, theta, protocol, Gaussian(sigma))
        rows = [(p.name, p.unit, theta[k], np.sqrt(covariance[k, k])) for k, p in enumerate(model.free)]
        for derived in model.derived:
            value, std = delta(derived, theta, covariance)
            rows.append((derived.name, derived.unit, value, std))
        lines = [
            f"| {name} | {unit} | {value:.3g} | " + " | ".join(f"{std / r:.2g}" for r in RATIOS) + " |"
            for name, unit, value, std in rows
        ]
        title = f"**{tissue.tissue}** ({tissue.trust}: {tissue.source})"
        blocks.append("\n".join([title, "", head, "| --- | --- | --- | --- | --- | --- |", *lines]))
    return "\n\n".join(blocks)


if __name__ == "__main__":
    main()
