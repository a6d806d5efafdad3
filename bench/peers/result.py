"""The rows of a comparison, as a text table, CSV, Markdown and a chart."""

import csv
import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TextIO

OURS = "compactattn"
COLUMNS = {
    "case": "case",
    "who": "who",
    "route": "route",
    "precision": "precision",
    "ms": "ms",
    "rate": "rate",
    "unit": "",
    "of_peak": "of peak",
    "ours_faster": "ours is faster by",
    "check": "check",
    "note": "note",
}
FORMATS = {"ms": "{:.2f}", "rate": "{:.0f}", "of_peak": "{:.0%}", "ours_faster": "{:.2f}x"}


def show(value: str | float, how: str) -> str:
    return "" if isinstance(value, float) and math.isnan(value) else how.format(value)


@dataclass
class Row:
    part: str
    case: str
    who: str
    route: str
    precision: str = ""
    ms: float = math.nan
    rate: float = math.nan
    unit: str = ""
    of_peak: float = math.nan
    ours_faster: float = math.nan
    check: str = ""
    note: str = ""

    @property
    def label(self) -> str:
        kinds = {"int8 products": ", int8 products", "int8 products and attention": ", int8", "int8 attention": ", int8"}
        kind = next((name for end, name in kinds.items() if self.route.endswith(end)), "")
        return self.who + ", sparse" * self.route.startswith("sparse") + kind

    def cells(self) -> list[str]:
        return [show(getattr(self, name), FORMATS.get(name, "{}")) for name in COLUMNS]


def write_text(rows: list[Row], out: TextIO) -> None:
    lines = [list(COLUMNS.values()), *(row.cells() for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(COLUMNS))]
    for line in lines:
        cells = (text.rjust(w) if name in FORMATS else text.ljust(w) for name, text, w in zip(COLUMNS, line, widths, strict=True))
        out.write("  ".join(cells).rstrip() + "\n")


def write_csv(rows: list[Row], path: Path) -> None:
    names = [field.name for field in fields(Row)]
    with path.open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(names)
        for row in rows:
            values = (getattr(row, name) for name in names)
            writer.writerow(show(value, "{:.6g}" if isinstance(value, float) else "{}") for value in values)


def write_markdown(rows: list[Row], about: list[str], path: Path) -> None:
    with path.open("w") as out:
        out.writelines(f"- {line}\n" for line in about)
        out.write("\n| " + " | ".join(COLUMNS.values()) + " |\n")
        out.write("|" + "|".join(" ---: " if name in FORMATS else " --- " for name in COLUMNS) + "|\n")
        out.writelines("| " + " | ".join(cell.replace("|", "\\|") for cell in row.cells()) + " |\n" for row in rows)


def draw(rows: list[Row], path: Path) -> None:
    """A panel per part: the best route of everyone that is not wrong, dense and sparse (and ours on int8) apart, case by case."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    parts = {part: [r for r in rows if r.part == part and r.ours_faster > 0] for part in dict.fromkeys(row.part for row in rows)}
    parts = {part: shown for part, shown in parts.items() if shown}
    if not parts:
        return
    labels = {row.label for shown in parts.values() for row in shown}
    palette = pyplot.get_cmap("tab10" if len(labels) <= 10 else "tab20")
    colors = {label: palette(i) for i, label in enumerate(sorted(labels, key=lambda label: (not label.startswith(OURS), label)))}
    figure, axes = pyplot.subplots(len(parts), 1, figsize=(12, 4 * len(parts)), squeeze=False, layout="constrained")
    for axis, (part, shown) in zip(axes[:, 0], parts.items(), strict=True):
        cases = list(dict.fromkeys(row.case for row in shown))
        labels = [label for label in colors if any(row.label == label for row in shown)]
        width = 0.85 / len(labels)
        for i, label in enumerate(labels):
            best = [max((row.rate for row in shown if (row.case, row.label) == (case, label)), default=math.nan) for case in cases]
            at = [x + (i - (len(labels) - 1) / 2) * width for x in range(len(cases))]
            bars = axis.bar(at, best, width, label=label, color=colors[label])
            axis.bar_label(bars, ["" if math.isnan(rate) else f"{rate:.0f}" for rate in best], fontsize=8)
        axis.set_xticks(range(len(cases)), cases, fontsize=8)
        axis.set_ylabel(shown[0].unit)
        axis.set_title(f"{part}, best route of each")
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
