"""Made-up machines: folders as /sys and /proc would be there."""


def write_tree(root, files):
    """Write each text to its path below `root`; return `root`."""
    for path, text in files.items():
        file = root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return root
