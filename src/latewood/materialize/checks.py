"""How often the checksums of blocks are checked: once, never, or whenever something is decoded (docs/decisions/0036)."""

from dataclasses import dataclass
from typing import Literal

from latewood.errors import SchemaError
from latewood.immutable import GenerationReader
from latewood.users import UserKeys

_ALWAYS = "always"
Verify = bool | Literal["always"]


@dataclass(frozen=True, slots=True)
class Checks:
    """A materializer's setting. Raises: SchemaError: there is none such."""

    verify: Verify

    def __post_init__(self) -> None:
        if not isinstance(self.verify, bool) and self.verify != _ALWAYS:
            raise SchemaError(f'verify is True, False or "{_ALWAYS}", not {self.verify!r}')

    @property
    def are_on(self) -> bool:
        """Whether a block is checked that was not yet."""
        return self.verify is not False

    @property
    def are_repeated(self) -> bool:
        """Whether a block is checked that was before."""
        return self.verify == _ALWAYS

    def begin(self, reader: GenerationReader, users: UserKeys) -> None:
        """To be called before anything of these users is read: what was checked before may not count any more."""
        if self.are_repeated:
            reader.forget_checks(users)
