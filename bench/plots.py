"""Small plots as SVG, by hand: bars on a logarithmic scale, and curves. Nothing to install, and diffs can be read."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH, LABELS, MARGIN = 920, 400, 110  # pixels: all, of it for the labels of bars, beside and for the figures
ROW, BAR, TOP, BOTTOM = 20, 13, 44, 40
COLORS = ("#1f6f8b", "#c8553d", "#588b3d", "#8a5a9e", "#b08a2e", "#4a5560")
INK, FAINT = "#222222", "#dddddd"


@dataclass(frozen=True, slots=True)
class Bar:
    """One row of a bar plot. `color` is an index of COLORS."""

    label: str
    value: float
    text: str
    color: int = 0


def bars(title: str, rows: Sequence[Bar], axis: str, mark: float | None = None) -> str:
    """Horizontal bars on a logarithmic scale. Args: axis: what the scale is. mark: a value to draw a line at."""
    values = [row.value for row in rows] + ([mark] if mark else [])
    low, high = _decades(min(values), max(values))
    height, right = TOP + ROW * len(rows) + BOTTOM, WIDTH - MARGIN

    def x(value: float) -> float:
        share = (math.log10(value) - low) / (high - low)
        return LABELS + share * (right - LABELS)

    parts = [_text(10, 22, title, size=15, weight="bold")]
    bottom = height - BOTTOM + 4
    for power in range(low, high + 1):
        parts.append(_line(x(10.0**power), TOP - 6, x(10.0**power), bottom, FAINT))
        parts.append(_text(x(10.0**power), bottom + 14, f"{10.0**power:g}", anchor="middle"))
    for i, row in enumerate(rows):
        y = TOP + i * ROW
        width, color = max(1.0, x(row.value) - LABELS), COLORS[row.color % len(COLORS)]
        parts.append(_text(LABELS - 8, y + BAR - 3, row.label, anchor="end"))
        parts.append(f'<rect x="{LABELS}" y="{y}" width="{width:.1f}" height="{BAR}" fill="{color}"/>')
        parts.append(_text(x(row.value) + 6, y + BAR - 3, row.text))
    if mark:
        parts.append(_line(x(mark), TOP - 6, x(mark), bottom, INK))
    parts.append(_text((LABELS + right) / 2, height - 8, axis, anchor="middle"))
    return _svg(WIDTH, height, parts)


def curves(title: str, series: Mapping[str, Sequence[tuple[float, float]]], axes: tuple[str, str]) -> str:
    """Lines over a logarithmic x, from y = 0. Args: series: points by name. axes: what x and y are."""
    width, height, left, right, bottom = WIDTH, 340, 60, WIDTH - 240, 290
    points = [point for line in series.values() for point in line]
    lowest, highest = math.log10(min(x for x, _ in points)), math.log10(max(x for x, _ in points))
    top = 1.15 * max(y for _, y in points)

    def place(x: float, y: float) -> tuple[float, float]:
        share = (math.log10(x) - lowest) / ((highest - lowest) or 1)
        return left + share * (right - left), bottom - y / top * (bottom - TOP)

    parts = [_text(10, 22, title, size=15, weight="bold")]
    for i in range(5):
        y = top * i / 4
        parts.append(_line(left, place(10**lowest, y)[1], right, place(10**lowest, y)[1], FAINT))
        parts.append(_text(left - 8, place(10**lowest, y)[1] + 4, f"{y:.2g}", anchor="end"))
    powers = range(math.ceil(lowest), math.floor(highest) + 1)
    parts += [_text(place(10.0**power, 0)[0], bottom + 16, f"{10**power:,}", anchor="middle") for power in powers]
    for i, (name, line) in enumerate(series.items()):
        color, placed = COLORS[i % len(COLORS)], [place(x, y) for x, y in line]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{color}"/>' for x, y in placed]
        parts.append(f'<rect x="{right + 16}" y="{TOP + 20 * i}" width="12" height="12" fill="{color}"/>')
        parts.append(_text(right + 34, TOP + 20 * i + 10, name))
    parts.append(_text((left + right) / 2, height - 12, axes[0], anchor="middle"))
    parts.append(_text(left, TOP - 10, axes[1]))
    return _svg(width, height, parts)


def _decades(low: float, high: float) -> tuple[int, int]:
    """The powers of ten that enclose a range, so that the smallest bar has a length."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    if math.isclose(10.0**first, low):
        first -= 1
    return first, max(last, first + 1)


def _text(x: float, y: float, text: str, anchor: str = "start", size: int = 11, weight: str = "normal") -> str:
    style = f'text-anchor="{anchor}" font-size="{size}" font-weight="{weight}" fill="{INK}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, color: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{color}"/>'


def _svg(width: int, height: int, parts: Sequence[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif">'
    return "\n".join([head, f'<rect width="{width}" height="{height}" fill="white"/>', *parts, "</svg>"]) + "\n"
