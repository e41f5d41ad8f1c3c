"""Follow every link inside a built site: python docs/check_links.py docs/_build/html."""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit


class Page(HTMLParser):
    """The links and the anchors of a page."""

    def __init__(self, path):
        super().__init__()
        self.links, self.anchors = [], set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name in ("href", "src") and value:
                self.links.append(value)
            elif name == "id" or (tag == "a" and name == "name"):
                self.anchors.add(value)


def broken_links(site):
    """Yield each page with a link of it that leads nowhere in the site."""
    files = sorted(site.rglob("*.html"))
    pages = {file: Page(file) for file in files if "_static" not in file.parts}
    for path, page in pages.items():
        for link in page.links:
            if urlsplit(link).scheme or link.startswith("//"):
                continue  # to another site
            target, anchor = urldefrag(link)
            target = target.partition("?")[0]
            target = (path.parent / unquote(target)).resolve() if target else path
            if target.is_dir():
                target /= "index.html"
            known = pages[target].anchors if target in pages else ()
            if not target.exists() or (anchor and target in pages and unquote(anchor) not in known):
                yield path.relative_to(site), link


def main():
    site = Path(sys.argv[1]).resolve()
    broken = list(broken_links(site))
    for page, link in broken:
        print(f"{page}: {link}")
    sys.exit(f"{len(broken)} links lead nowhere" if broken else 0)


if __name__ == "__main__":
    main()
