"""The key of a view."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass

from tidemill.declarations.checks import Declaration
from tidemill.errors import DeclarationError
from tidemill.names import check_name


@dataclass(frozen=True, eq=False)
class Entity(Declaration):
    """The key of a view: a field of the event, or several together.

    `name`: its name in requests; `field`: the field's name in the event, by default the same. Of several fields, field=["shop", "currency"],
    a request gives a value for each, under the names of the fields; an event in which one of them is null has no key. As one text, such a key
    is a JSON array of texts: `["7","EUR"]`.
    """

    refused = 'for a key of several fields, write field=["shop", "currency"]'

    name: str
    _: KW_ONLY
    field: str | Sequence[str] = ""
    description: str = ""

    def __post_init__(self) -> None:
        check_name(self.name, self.declared_at, "name")
        given = self.field or self.name
        object.__setattr__(self, "field", given if isinstance(given, str) else (*given,))
        if not isinstance(given, str) and not 1 < len({*given}) == len(given):
            raise DeclarationError(
                f"Entity {self.name!r}: {given!r} are not several fields of an event",
                where=self.declared_at, field="field", mend='name each once, as in field=["shop", "currency"]',
            )  # fmt: skip

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields of the event."""
        return (self.field,) if isinstance(self.field, str) else (*self.field,)

    @property
    def names(self) -> tuple[str, ...]:
        """The names under which a request gives their values."""
        return (self.name,) if isinstance(self.field, str) else (*self.field,)
