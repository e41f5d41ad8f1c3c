"""Settings of the documentation site: see tools/docs, which builds it."""

import tomllib
from pathlib import Path

import cybn

ROOT = Path(__file__).parents[1]
URLS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]

project = "cybn"
author = copyright = "The cybn developers"
version = release = cybn.__version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
]
templates_path = ["_templates"]
exclude_patterns = [
    "_build",
    "gallery/**/*.ipynb",
    "sg_execution_times.rst",
    "**/sg_execution_times.rst",
]
nitpicky = True
# Attributes without a page, and other packages, whose pages are on the network.
nitpick_ignore_regex = [("py:.*", r"copy|count|fit|mean|(dask|numpy|sklearn|torch)\..*")]
default_role = "autolink"  # `name` in a docstring links to what it names, if there is such a page

# The API pages: one for each name, and a parameter a line in long signatures.
autosummary_generate = True
autodoc_preserve_defaults = True
autodoc_member_order = "groupwise"
add_module_names = False
toc_object_entries_show_parents = "hide"
maximum_signature_line_length = 72
numpydoc_show_class_members = False
numpydoc_use_plots = False

myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

sphinx_gallery_conf = {
    "examples_dirs": str(ROOT / "examples"),
    "gallery_dirs": "gallery",
    "filename_pattern": r"/short/",  # the long ones take minutes: their pictures are in images/
    "ignore_pattern": r"^_",
    "within_subsection_order": "FileNameSortKey",
    "download_all_examples": False,
    "remove_config_comments": True,
    "min_reported_time": 60,
    "show_memory": False,
}

html_theme = "pydata_sphinx_theme"
html_title = "cybn"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
html_sidebars = {"index": [], "tutorial": []}
html_theme_options = {
    "github_url": URLS["Repository"],
    "header_links_before_dropdown": 7,
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "show_prev_next": False,
    "footer_start": ["copyright"],
    "footer_end": [],
}


def adapt_page(app, name, source):
    """Let links out of docs/ lead to the repository; drop the line that ends a doctest's block."""
    text = source[0].replace("](../", f"]({URLS['Repository']}/blob/main/")
    source[0] = text.replace("\n\n```\n", "\n```\n")


def setup(app):
    app.connect("source-read", adapt_page)
