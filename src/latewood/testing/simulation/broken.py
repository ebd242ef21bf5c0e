"""What is wrong, when something is."""


class BrokenLawError(Exception):
    """A store did what its laws forbid; the message says which, and where."""


def require(holds: bool, *what: object) -> None:
    """Raises: BrokenLawError: it does not hold."""
    if not holds:
        raise BrokenLawError(" ".join(map(str, what)))
