"""What happened in a case, line by line: to read after a failure, and to see that a seed always tells the same story."""

import xxhash


class Trace:
    """Lines of who did what."""

    def __init__(self) -> None:
        self._lines: list[tuple[str, str]] = []

    def note(self, who: str, what: str) -> None:
        self._lines.append((who, what))

    def lines(self) -> list[str]:
        return [f"{who:>10}  {what}" for who, what in self._lines]

    @property
    def digest(self) -> str:
        """Equal for equal stories."""
        return xxhash.xxh3_64_hexdigest("\n".join(f"{who} {what}" for who, what in self._lines).encode())

    def __len__(self) -> int:
        return len(self._lines)
