"""The README's chart: python -m bench.chart draws docs/images/chart.png from docs/speed.md."""

from pathlib import Path

from matplotlib.figure import Figure

DOCS = Path(__file__).parents[1] / "docs"
TABLE = "### Training, hot"
CELLS = {
    "NC 32x64": "small dense layer\n(32, 64)",
    "NC 4096x1024": "large dense layer\n(4096, 1024)",
    "NHWC 32x256x56x56": "images, channels last\n(32, 56, 56, 256)",
    "NCHW 32x256x56x56": "images, channels first\n(32, 256, 56, 56)",
}
SYSTEMS = {
    "cybn": "#00798c",
    "PyTorch": "#d1495b",
    "oneDNN `out=`": "#e09f1f",
    "JAX": "#8a97a6",
}
WIDTH = 0.2


def read_table(path, heading):
    """Return the table below a heading as {cell: {column: text}}."""
    lines = path.read_text().partition(f"\n{heading}\n")[2].strip().splitlines()
    rows = [[text.strip(" *") for text in line.strip("|").split("|")] for line in lines]
    end = next(i for i, line in enumerate(lines) if not line.startswith("|"))
    header, _, *body = rows[:end]
    return {row[0]: dict(zip(header, row, strict=True)) for row in body}


def ratio(row, system):
    """Return a system's time over cybn's."""
    return 1.0 if system == "cybn" else float(row[system])


def draw(table, path):
    figure = Figure(figsize=(8, 3.4), layout="constrained", dpi=100)
    axes = figure.subplots()
    for i, (system, color) in enumerate(SYSTEMS.items()):
        places = [place + (i - 1.5) * WIDTH for place in range(len(CELLS))]
        ratios = [ratio(table[cell], system) for cell in CELLS]
        name = system.partition(" ")[0]
        bars = axes.bar(places, ratios, WIDTH * 0.92, color=color, label=name)
        axes.bar_label(bars, [f"{value:.1f}" for value in ratios], fontsize=9, padding=2)
    axes.set_xticks(range(len(CELLS)), CELLS.values())
    axes.set_yticks([])
    axes.tick_params(axis="x", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.set_title("Time of a training forward pass, relative to cybn", loc="left")
    axes.legend(frameon=False, loc="upper left")
    figure.savefig(path)


if __name__ == "__main__":
    draw(read_table(DOCS / "speed.md", TABLE), DOCS / "images" / "chart.png")
