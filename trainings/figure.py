"""A figure as SVG, by hand: means over a logarithmic x, each with the spread of its seeds. Diffs of it can be read."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 760, 340, 64, 500, 50, 290  # pixels
COLORS = ("#1f6f8b", "#c8553d", "#588b3d", "#8a5a9e")
INK, FAINT = "#222222", "#dddddd"
_STEPS = (1, 2, 5, 10)


@dataclass(frozen=True, slots=True)
class Point:
    """One mean. `low` and `high`: the lowest and highest of what it is the mean of."""

    x: float
    mean: float
    low: float
    high: float


def draw(title: str, series: Mapping[str, Sequence[Point]], axes: tuple[str, str]) -> str:
    """Lines by name, over the x that any of them has. Args: axes: what x and y are. y does not begin at 0."""
    points = [point for line in series.values() for point in line]
    places = sorted({point.x for point in points})
    step, bottom, top = _scale(min(point.low for point in points), max(point.high for point in points))

    def x(value: float) -> float:
        low, high = math.log(places[0]), math.log(places[-1])
        return LEFT + 16 + (math.log(value) - low) / ((high - low) or 1) * (RIGHT - LEFT - 32)

    def y(value: float) -> float:
        return BOTTOM - (value - bottom) / (top - bottom) * (BOTTOM - TOP)

    parts = [_text(10, 22, title, size=15, weight="bold"), _text(LEFT, TOP - 10, axes[1])]
    for i in range(round((top - bottom) / step) + 1):
        at = bottom + i * step
        parts += [_line(LEFT, y(at), RIGHT, y(at), FAINT), _text(LEFT - 8, y(at) + 4, f"{at:.3g}", anchor="end")]
    parts += [_text(x(place), BOTTOM + 18, f"{place:,}", anchor="middle") for place in places]
    parts.append(_text((LEFT + RIGHT) / 2, HEIGHT - 10, axes[0], anchor="middle"))
    for i, (name, line) in enumerate(series.items()):
        color, shift = COLORS[i % len(COLORS)], 4 * i  # so that spreads do not cover each other
        path = " ".join(f"{x(point.x) + shift:.1f},{y(point.mean):.1f}" for point in line)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"/>')
        for point in line:
            parts.append(_line(x(point.x) + shift, y(point.low), x(point.x) + shift, y(point.high), color, 2))
            parts.append(f'<circle cx="{x(point.x) + shift:.1f}" cy="{y(point.mean):.1f}" r="4" fill="{color}"/>')
        parts.append(f'<rect x="{RIGHT + 16}" y="{TOP + 20 * i}" width="12" height="12" fill="{color}"/>')
        parts.append(_text(RIGHT + 34, TOP + 20 * i + 10, name))
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" font-family="sans-serif">'
    return "\n".join([head, f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>', *parts, "</svg>", ""])


def _scale(low: float, high: float) -> tuple[float, float, float]:
    """A round step of the y axis, and where it begins and ends: about five steps around what is to be seen."""
    rough = ((high - low) or abs(high) or 1.0) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in _STEPS if factor * power >= rough * (1 - 1e-9))
    return step, math.floor(low / step) * step, math.ceil(high / step + 1e-9) * step


def _text(x: float, y: float, text: str, *, size: int = 12, anchor: str = "start", weight: str = "normal") -> str:
    style = f'font-size="{size}" text-anchor="{anchor}" font-weight="{weight}" fill="{INK}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, color: str, width: int = 1) -> str:
    ends = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {ends} stroke="{color}" stroke-width="{width}"/>'
