"""What an erasure did, to be kept as its proof."""

from __future__ import annotations

from typing import Literal

from roleplay.domain.values import Utc, Value

Files = Literal["wiped", "busy", "too large"]


class Counts(Value):
    """How many of each there were. ``verdicts`` are the guards', with the words they replaced; ``seats`` are the
    participants; ``revisions`` are those of sessions and of seats.

    What is ``blanked`` is in sessions of others in which an owner sat: that owner's seats and lines, what guards said
    of the lines, and model calls whose requests held one of them or their name. Their rows stay, without words.
    """

    sessions: int = 0
    turns: int = 0
    messages: int = 0
    model_calls: int = 0
    verdicts: int = 0
    pieces: int = 0
    head_moves: int = 0
    path_states: int = 0
    seats: int = 0
    revisions: int = 0
    personas: int = 0
    persona_versions: int = 0
    example_dialogues: int = 0
    example_lines: int = 0
    blanked_seats: int = 0
    blanked_lines: int = 0
    blanked_calls: int = 0
    blanked_verdicts: int = 0

    def plus(self, other: Counts) -> Counts:
        """Add up."""
        return Counts(**{name: getattr(self, name) + getattr(other, name) for name in Counts.model_fields})


class Receipt(Value):
    """What was erased, when, and what is left for somebody else to remove. It holds no text, name or key of it.

    ``erased`` counts rows that were deleted, or blanked; of a ``dry_run``, those that would be. ``files`` is for
    SQLite: ``wiped`` when the database file was rewritten and its log emptied, so that no byte of what was erased is in
    them; ``busy`` when a long read or write of another connection prevented it, ``too large`` when the file was not
    rewritten for its size, so that parts may be left in its gaps. It is ``None`` on PostgreSQL and of a dry run.
    ``not_ours`` lists in sentences what this library cannot remove.
    """

    at: Utc
    dry_run: bool
    erased: Counts
    files: Files | None
    not_ours: tuple[str, ...]
