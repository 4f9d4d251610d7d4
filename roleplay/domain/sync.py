"""What a sync of personas with a folder did, or would do."""

from __future__ import annotations

from enum import StrEnum

from roleplay.domain.values import Value


class PersonaChange(StrEnum):
    """What a sync does to a persona. ``changed`` is a new version, or one that was archived and is back."""

    ADDED = "added"
    CHANGED = "changed"
    UNCHANGED = "unchanged"
    ARCHIVED = "archived"


class SyncedPersona(Value):
    """One persona of a sync. ``version`` is the one that it has afterwards; ``file`` is ``None`` where it is gone."""

    key: str
    change: PersonaChange
    version: int
    file: str | None


class SyncReport(Value):
    """What a sync did to each persona, by key; with ``dry_run``, what it would do."""

    dry_run: bool
    personas: tuple[SyncedPersona, ...]

    @property
    def added(self) -> tuple[str, ...]:
        """The keys of personas that are new."""
        return self._keys(PersonaChange.ADDED)

    @property
    def changed(self) -> tuple[str, ...]:
        """The keys of personas with a new version, or back from the archive."""
        return self._keys(PersonaChange.CHANGED)

    @property
    def unchanged(self) -> tuple[str, ...]:
        """The keys of personas that were as their files say."""
        return self._keys(PersonaChange.UNCHANGED)

    @property
    def archived(self) -> tuple[str, ...]:
        """The keys of personas whose files are gone."""
        return self._keys(PersonaChange.ARCHIVED)

    def _keys(self, change: PersonaChange) -> tuple[str, ...]:
        return tuple(one.key for one in self.personas if one.change is change)
