"""The floor with a history on the disk, and a session of ours with a past: two sides of the comparison of contexts."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from common import FLOOR_SCHEMA, HUMAN, MODEL, PERSONA, Floor, Ours
from longpast import grow
from peers import BUDGET_TOKENS, OTHER, ROOM, SYSTEM, WINDOW, Side, Tally, about, fitting, spoken

from roleplay import EstimatingCounter, SessionSettings


class FloorSide(Floor):
    """The floor with more than one conversation, and with its history on the disk."""

    schema = FLOOR_SCHEMA + (
        "ALTER TABLE messages ADD COLUMN session INTEGER; ALTER TABLE messages ADD COLUMN tokens INTEGER;"
        "CREATE INDEX of_session ON messages (session, id);"
    )

    def __init__(self, path: Path, url: str) -> None:
        super().__init__(path, url)
        self.tally = Tally()
        self._about = self.tally.over(about)
        self._said = 0

    def keep(self, turn: int | None, role: str, name: str, text: str) -> None:
        insert = "INSERT INTO messages (turn_id, role, name, text, session, tokens) VALUES (?, ?, ?, ?, 1, ?)"
        self.db.execute(insert, (turn, role, name, text, self._about(text)))

    def sends(self, past: int) -> range:
        """As those who cut to a budget."""
        return fitting(past)

    def fill(self, messages: int) -> None:
        """Give the conversation a past."""
        self._fill(1, messages)

    def _fill(self, session: int, messages: int) -> None:
        insert = "INSERT INTO messages (turn_id, role, name, text, session, tokens) VALUES (?, ?, ?, ?, ?, ?)"
        for chunk in spoken(messages):
            self.db.execute("BEGIN IMMEDIATE")
            for line, reply in chunk:
                turn = self.db.execute(
                    "INSERT INTO turns VALUES (NULL, 'completed', 7000, 190, 7190, datetime(), datetime())"
                ).lastrowid
                self.db.execute(insert, (turn, "user", "Traveler", line, session, about(line)))
                self.db.execute(insert, (turn, "assistant", PERSONA.name, reply, session, about(reply)))
            self.db.execute("COMMIT")

    def beside(self, messages: int) -> None:
        """Write other conversations."""
        for number in range(messages // OTHER):
            self._fill(2 + number, OTHER)

    def turn(self) -> None:
        """Read what fits, post, keep."""
        self._said += 1
        text = HUMAN.format(self._said)
        left, past = ROOM - self._about(text), []
        newest = "SELECT role, name, text, tokens FROM messages WHERE session = 1 ORDER BY id DESC"
        with closing(self.db.execute(newest)) as rows:
            for role, name, said, tokens in rows:
                left -= tokens
                if left < 0:
                    break
                past.append({"role": role, "name": name, "content": said})
        past.append({"role": "system", "name": PERSONA.name, "content": SYSTEM})
        human = {"role": "user", "name": "Traveler", "content": text}
        self.say({"model": MODEL, "messages": [*reversed(past), human], "stream": False})

    def close(self) -> None:
        """Close the database."""
        self.db.close()


class Counting(EstimatingCounter):
    """The counter of ``Roleplay.open``, with a tally."""

    def __init__(self, tally: Tally) -> None:
        self._count = tally.over(super().count)

    def count(self, text: str) -> int:
        return self._count(text)


class OurSide(Ours):
    """A session of ours that begins with a past."""

    def __init__(self, path: Path, url: str) -> None:
        self.tally = Tally()
        base_url = url.removesuffix("/chat/completions")
        settings = SessionSettings(budget_tokens=BUDGET_TOKENS)
        super().__init__(path, base_url, settings, counter=Counting(self.tally))

    def sends(self, past: int) -> range:
        """From a low-water mark up to what fits, with the system's words and the examples in messages of their own."""
        return range(min(past, WINDOW // 3), WINDOW + 12)

    def fill(self, messages: int) -> None:
        """Say two things and copy the second."""
        for _ in range(2):
            self.turn()
        grow(self.database, self.session, messages)

    def beside(self, messages: int) -> None:
        """Write other sessions."""
        for _ in range(messages // OTHER):
            session = self.new_session()
            for number in range(2):
                session.send(HUMAN.format(number))
            grow(self.database, session, OTHER)


OWN: dict[str, Callable[[Path, str], Side]] = {"floor": FloorSide, "ours": OurSide}
