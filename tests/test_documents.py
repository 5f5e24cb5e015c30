"""What README and the other pages say is true: code runs, files and commands exist."""

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    "CONVENTIONS.md",
    "CHANGELOG.md",
    "docs/cord-network.md",
    "docs/phantom.md",
    "docs/norms.md",
    "docs/reliable-change.md",
    "docs/harmonisation.md",
    "docs/normative-database.md",
    "docs/intervals.md",
    "docs/how-to-choose.md",
)


@pytest.mark.parametrize("name", sorted(p.name for p in (ROOT / "examples").glob("*.py")))
def test_examples_run(name, capsys):
    runpy.run_path(str(ROOT / "examples" / name), run_name="__main__")
    assert len(capsys.readouterr().out) > 20


def test_code_of_the_readme_is_the_first_example():
    code = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)[1]
    example = (ROOT / "examples" / "first_light.py").read_text(encoding="utf-8")
    assert code.strip() == example.split('"""', 2)[2].strip()
    assert len([line for line in code.splitlines() if line.strip()]) <= 12


@pytest.mark.parametrize("page", PAGES)
def test_files_that_pages_mention_exist(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        if not target.startswith("http"):
            assert ((ROOT / page).parent / target).exists(), target
    for path in re.findall(r"(?:python |`)((?:benchmarks|tools|tests)/[\w/]+\.py)", text):
        assert (ROOT / path).is_file(), path


def test_verbs_that_the_readme_lists_exist():
    from qcord.cli.main import app

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for verb in ("run", "demo", "phantom", "fit", "segment", "register", "extract", "norm", "assets", "doctor"):
        assert f"`{verb}`" in text or f"qcord {verb}" in text
        assert app[verb]


def test_version_is_stated_once():
    import tomllib

    import qcord

    stated = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert qcord.__version__ == stated
    assert f"version: {stated}" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"## {stated}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_pages_of_contrasts_are_those_of_the_models():
    import sys

    sys.path.insert(0, str(ROOT / "tools"))
    try:
        from contrast_pages import FOLDER, pages
    finally:
        sys.path.pop(0)
    expected = pages()
    assert {p.name for p in FOLDER.glob("*.md")} == set(expected)
    for name, text in expected.items():
        assert (FOLDER / name).read_text(encoding="utf-8") == text, f"run python tools/contrast_pages.py ({name})"
