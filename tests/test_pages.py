"""The README and the pages: their code runs, their links lead somewhere, and they are short."""

import doctest
import re
import tomllib
from pathlib import Path

import pytest
from levels import run_python

import cybn

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(path.name for path in DOCS.glob("*.md"))
WITH_CODE = [name for name in PAGES if ">>> " in (DOCS / name).read_text()]
EXAMPLES = sorted((ROOT / "examples").rglob("[!_]*.py"))
SHORT_EXAMPLES = [path for path in EXAMPLES if path.parent.name == "short"]
URLS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]


PACKAGES = "dask", "flax", "keras", "onnx", "sklearn", "torch"


def lines(path):
    return path.read_text().splitlines()


@pytest.mark.parametrize(
    "path", [ROOT / "README.md", *(DOCS / name for name in WITH_CODE)], ids=str
)
def test_code_runs(path):
    for package in PACKAGES:
        if re.search(rf"^>>> (import|from) .*\b{package}\b", path.read_text(), re.MULTILINE):
            pytest.importorskip(package)
    attempted = doctest.testfile(str(path), module_relative=False)
    assert attempted.attempted > 0
    assert attempted.failed == 0


@pytest.mark.parametrize(("name", "most"), [("README.md", 110), ("CONTRIBUTING.md", 120)])
def test_is_short(name, most):
    assert len(lines(ROOT / name)) < most


def test_quick_start_is_two_commands():
    section = (ROOT / "README.md").read_text().partition("## Quick start")[2].partition("\n## ")[0]
    (block,) = re.findall(r"```(.*?)```", section, re.DOTALL)
    language, *commands = block.strip().splitlines()
    assert language == "sh"
    assert len(commands) == 2


@pytest.mark.parametrize("name", ["README.md", "CITATION.cff", "SECURITY.md", ".github"])
def test_addresses_are_those_of_the_project(name):
    """Each leads to the repository or the site that pyproject.toml names, and to what exists."""
    path = ROOT / name
    if not path.exists():
        pytest.skip("not in the sdist")
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    text = "\n".join(file.read_text() for file in files)
    owner = URLS["Repository"].removeprefix("https://github.com/")
    found = re.findall(r"https://(?:raw\.githubusercontent|github)\.com/[\w.-]+/[\w./-]+", text)
    for address in found:
        where = re.fullmatch(rf"https://[\w.]+/{owner}(?:/(?:blob/)?main/(.+)|/[\w/]+)?", address)
        assert where, address
        assert where[1] is None or (ROOT / where[1]).exists(), address
    site = URLS["Documentation"]
    for page in re.findall(re.escape(site) + r"([\w./-]+)\.html", text):
        assert page == "gallery/index" or list(DOCS.glob(f"{page}.*")), page


def test_api_page_has_all_names():
    text = (DOCS / "api.rst").read_text()
    for name in cybn.__all__:
        assert name == "__version__" or re.search(rf"^ +{name}$|function:: {name}\(", text, re.M), (
            name
        )


def test_readme_has_absolute_links_only():
    text = (ROOT / "README.md").read_text()
    assert not re.findall(r"\]\((?!https?://)", text)
    used = {label.lower() for label in re.findall(r"\]\[([\w ]+)\]", text)}
    assert used <= set(re.findall(r"^\[(\w+)\]: https://", text, re.MULTILINE))


@pytest.mark.parametrize("name", PAGES)
def test_links_to_files_lead_somewhere(name):
    for target in re.findall(r"\]\(([^):#]+)(?:#[\w-]+)?\)", (DOCS / name).read_text()):
        assert target == "gallery/index.rst" or (DOCS / target).exists(), target


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_has_a_title_for_the_gallery(path):
    _, title, underline, *_ = lines(path)
    assert underline == "=" * len(title)


@pytest.mark.parametrize("path", SHORT_EXAMPLES, ids=lambda path: path.stem)
def test_short_example_stands_alone(path):
    pytest.importorskip("matplotlib")
    assert 20 <= len(lines(path)) <= 40
    run_python(path, MPLBACKEND="Agg")
