"""Write the doctests of Markdown pages as modules, for type checkers: FOLDER PAGE..."""

import sys
from doctest import DocTestParser
from pathlib import Path

folder, *pages = map(Path, sys.argv[1:])
folder.mkdir(parents=True, exist_ok=True)
for page in pages:
    examples = DocTestParser().get_examples(page.read_text())
    if examples:
        code = "".join(example.source for example in examples)
        (folder / f"{page.stem.lower()}.py").write_text(code)
