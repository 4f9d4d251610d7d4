"""The check-up: each kind of damage is found, named, and mended where it can be, on every database."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from sqlalchemy import Connection, text

from roleplay import ChatRequestError, ChatSession, Endpoint, Finding, Persona, Roleplay, StoreError, TurnStatus
from roleplay.store.access.database import Database
from roleplay.store.access.process import this_owner
from roleplay.testing import ScriptedModel
from tests.support import files, shells

Scripted = Callable[..., ScriptedModel]
MODEL = Endpoint("MiniMax-M2.7")
LONG_AGO, FAR_OFF = "2020-01-01 00:00:00", "2199-01-01 00:00:00"
IN_FLIGHT = "UPDATE roleplay_turns SET status = 'pending', ended_at = NULL, lease_owner = '{}', lease_until = '{}'"


class Patient:
    """A session with some past, in a database that a second tenant uses too, and what raw SQL does to it.

    Turns: 1 and 2 greetings, 3 a reply (messages 3, 4), 4 failed (message 5; 6 was given out), 5 a reply (7, 8),
    6 a variant of it (9), on which the session stands.
    """

    def __init__(self, url: str, model: ScriptedModel, rp: Roleplay) -> None:
        self.url, self.rp = url, rp
        self.database: Database = rp._runtime.database
        self.session = self._lived(rp)
        self.beside = Roleplay(self.database, model, endpoint=MODEL, tenant="beside")
        self._lived(self.beside)

    @staticmethod
    def _lived(rp: Roleplay) -> ChatSession:
        session = rp.sessions.create(cast=[rp.personas.put(Persona("Hua Tuo", greetings=["Come in.", "Sit."]))])
        session.send("It hurts.")
        with pytest.raises(ChatRequestError):
            session.send("Here.")
        session.send("And here.")
        with session.regenerate() as reply:
            list(reply)
        return session

    def damage(self, *statements: str) -> None:
        """Run statements on the session's rows that the laws of the database would forbid."""
        whole = [f"{one}{' AND' if 'WHERE' in one else ' WHERE'} {self._own(one)}" for one in statements]
        if self.database.dialect == "sqlite":
            with closing(files.connect(self.url)) as db, db:
                for one in whole:
                    db.execute(one)
            return

        def work(db: Connection) -> None:
            db.execute(text("SET LOCAL session_replication_role = replica /* tenant: none */"))
            for one in whole:
                db.execute(text(one))

        self.database.write(work)

    def _own(self, statement: str) -> str:
        key = "id" if "roleplay_sessions" in statement else "session_id"
        return f"{key} = '{self.session.id}' AND tenant = 'default'"

    def rows(self, sql: str) -> list[Any]:
        """Read rows of the session."""
        return self.database.read(lambda db: list(db.execute(text(f"{sql} WHERE {self._own(sql)} ORDER BY 1"))))


@pytest.fixture
def patient(database_url: str, scripted: Scripted) -> Iterator[Patient]:
    """A healthy session; the tenant beside it is healthy at the end too."""
    no = ChatRequestError("no")
    model = scripted("Where?", no, "I see.", "I look.", "Where?", no, "I see.", "I look.")
    with Roleplay.open(database_url, model=MODEL, chat=model, migrate="auto") as rp:
        one = Patient(database_url, model, rp)
        assert rp.doctor() == []
        yield one
        assert one.beside.doctor() == []


def told(findings: Any) -> set[tuple[str, int | None, bool, bool]]:
    """What was found, in short: kind, number, whether it can be mended, whether it was."""
    return {(one.kind, one.seq, one.mendable, one.mended) for one in findings}


MENDABLE = {
    "counters lower than turns": (
        ["UPDATE roleplay_sessions SET last_turn = 2"],
        {("counter drift", 9)},
    ),
    "counters lower than messages": (
        ["UPDATE roleplay_sessions SET head_seq = 4, last_seq = 5"],
        {("counter drift", 5)},
    ),
    "counters lower than a number given out": (
        ["UPDATE roleplay_turns SET reply_seq = 12 WHERE seq = 4"],
        {("counter drift", 9)},
    ),
    "counters lower than moves": (
        ["UPDATE roleplay_sessions SET version = 1"],
        {("counter drift", 9)},
    ),
    "a head on nothing": (
        ["UPDATE roleplay_sessions SET head_seq = 6"],
        {("lost head", 6)},
    ),
    "a head on a failed turn": (
        ["UPDATE roleplay_sessions SET head_seq = 5"],
        {("head on an unanswered turn", 4)},
    ),
    "a reply that is gone": (
        ["DELETE FROM roleplay_messages WHERE seq = 9"],
        {("missing reply", 6), ("lost head", 9)},
    ),
    "ordinals that do not follow": (
        ["UPDATE roleplay_messages SET depth = 9, human_ordinal = 7, model_ordinal = 2 WHERE seq = 7"],
        {("wrong depth", 7), ("wrong depth", 8), ("wrong depth", 9)},
    ),
    "a call without an end": (
        ["UPDATE roleplay_model_calls SET total_s = NULL, error = NULL WHERE turn_seq = 6"],
        {("unended call", 6)},
    ),
    "a path state that is lost": (
        ["DELETE FROM roleplay_path_states"],
        {("missing path state", 3), ("missing path state", 4), ("missing path state", 5), ("missing path state", 6)},
    ),
    "a path state that is no JSON": (
        ["UPDATE roleplay_path_states SET state = '{'"],
        {("unreadable path state", 3)},
    ),
    "a path state that names a text that is not there": (
        ['UPDATE roleplay_path_states SET state = \'{"1":[0,"no-such","no-such"]}\''],
        {("unreadable path state", 3)},
    ),
    "a revision of the session that is lost": (
        ["UPDATE roleplay_sessions SET revision = 9"],
        {("missing revision", None)},
    ),
    "a lease that has run out": (
        [IN_FLIGHT.format("elsewhere/1/2", LONG_AGO) + " WHERE seq = 4"],
        {("expired lease", 4)},
    ),
    "a turn of a process that died": (
        [IN_FLIGHT.format(this_owner().rpartition("/")[0] + "/1", FAR_OFF) + " WHERE seq = 4"],
        {("expired lease", 4)},
    ),
}


@pytest.mark.parametrize("case", MENDABLE)
def test_what_can_be_mended_is_mended(patient: Patient, case: str) -> None:
    """A dry run names it and changes nothing; a repair puts it right, and the session is spoken in at once."""
    statements, kinds = MENDABLE[case]
    ordinals = "SELECT seq, depth, human_ordinal, model_ordinal FROM roleplay_messages"
    before = patient.rows(ordinals)
    patient.damage(*statements)
    assert told(patient.rp.doctor()) == {(kind, seq, True, False) for kind, seq in kinds}
    assert told(patient.rp.doctor()) == {(kind, seq, True, False) for kind, seq in kinds}
    assert told(patient.rp.doctor(repair=True)) == {(kind, seq, True, True) for kind, seq in kinds}
    assert patient.rp.doctor(repair=True) == []
    assert [row for row in before if row not in patient.rows(ordinals)] == [before[-1]] * ("gone" in case)
    assert patient.session.send("And now?").status is TurnStatus.COMPLETED
    assert patient.rp.doctor() == []


def test_a_lost_head_goes_back_to_where_it_stood(patient: Patient) -> None:
    """The move to what is lost is taken back, so that undo goes on from before it; the lost reply can be retried."""
    patient.damage("DELETE FROM roleplay_messages WHERE seq = 9")
    patient.rp.doctor(repair=True)
    assert patient.session.info().head_seq == 8
    lost = next(turn for turn in all_turns(patient) if turn.status is TurnStatus.FAILED and turn.seq == 6)
    undone = patient.session.tree.undo()
    assert undone is not None
    assert undone.seq == 3
    with patient.session.retry(lost.id) as reply:
        list(reply)
    assert reply.turn.status is TurnStatus.COMPLETED
    assert patient.rp.doctor() == []


def all_turns(patient: Patient) -> list[Any]:
    """Every turn of the session, on the path or not."""
    return [patient.session.turn(row[1]) for row in patient.rows("SELECT seq, id FROM roleplay_turns")]


def test_a_head_that_never_moved_stands_on_the_newest_reply_or_nowhere(patient: Patient) -> None:
    """Where no move tells, the newest whole reply does."""
    patient.damage("DELETE FROM roleplay_head_moves", "UPDATE roleplay_sessions SET head_seq = 6")
    assert {one.mended for one in patient.rp.doctor(repair=True)} == {True}
    assert patient.session.info().head_seq == 9


NOT_MENDABLE = {
    "a turn between others": (
        ["DELETE FROM roleplay_turns WHERE seq = 2", "DELETE FROM roleplay_messages WHERE seq = 2"],
        [],
        {("gap", 2)},
    ),
    "the turn with the last number": (
        ["UPDATE roleplay_sessions SET last_turn = 8"],
        [],
        {("gap", 8)},
    ),
    "a message without its turn": (
        ["DELETE FROM roleplay_turns WHERE seq = 2"],
        [],
        {("orphan message", 2), ("gap", 2)},
    ),
    "a call without its turn": (
        ["UPDATE roleplay_model_calls SET turn_seq = 77 WHERE turn_seq = 6"],
        [],
        {("orphan call", 77)},
    ),
    "a turn of a revision that is not there": (
        ["UPDATE roleplay_turns SET revision = 7 WHERE seq = 4"],
        [],
        {("missing revision", 4)},
    ),
    "a turn of a seat that is not there": (
        ["UPDATE roleplay_turns SET speaker = 7 WHERE seq = 4"],
        [],
        {("missing seat", 4)},
    ),
    "a seat that is never named": (
        ["DELETE FROM roleplay_participant_revisions WHERE seat = 2"],
        [],
        {("missing seat", None)},
    ),
    "metadata that are no JSON": (
        ["UPDATE roleplay_turns SET metadata_json = '{' WHERE seq = 4"],
        [],
        {("unreadable row", 4)},
    ),
    "aliases that are none": (
        ["UPDATE roleplay_participant_revisions SET aliases = '[1]' WHERE seat = 2"],
        [],
        {("unreadable row", 1)},
    ),
    "a likelihood beyond all": (
        ["UPDATE roleplay_participant_revisions SET talkativeness = 1.5 WHERE seat = 2"],
        [],
        {("unreadable row", 1)},
    ),
    "an audience of nobody": (
        ["UPDATE roleplay_turns SET audience = ',,' WHERE seq = 4"],
        [],
        {("unreadable row", 4)},
    ),
    "an audience out of order": (
        ["UPDATE roleplay_messages SET audience = ',2,1,' WHERE seq = 8"],
        [],
        {("unreadable row", 8)},
    ),
    "a cut that is none": (
        ['UPDATE roleplay_model_calls SET cut = \'{"kind": "speaker"}\' WHERE turn_seq = 5'],
        [],
        {("unreadable row", 5)},
    ),
    "nobody in the last human's seat": (
        ["UPDATE roleplay_participant_revisions SET present = (1 = 0) WHERE seat = 2"],
        [],
        {("missing seat", None)},
    ),
    "an audience that is none": (
        ["UPDATE roleplay_messages SET audience = '2,5' WHERE seq = 7"],
        ["UPDATE roleplay_messages SET audience = NULL WHERE seq = 7"],
        {("unreadable row", 7)},
    ),
    "a turn without its parent": (
        ["DELETE FROM roleplay_turns WHERE seq = 2", "UPDATE roleplay_turns SET parent_turn = 2 WHERE seq = 6"],
        [],
        {("broken link", 6), ("orphan message", 2), ("gap", 2)},
    ),
    "a turn without its human line": (
        ["UPDATE roleplay_turns SET human_seq = 6 WHERE seq = 4"],
        [],
        {("missing human line", 4)},
    ),
    "a reply that others follow": (
        ["UPDATE roleplay_turns SET reply_seq = 6 WHERE seq = 3"],
        [],
        {("missing reply", 3)},
    ),
    "a seat without its persona": (
        ["UPDATE roleplay_participant_revisions SET persona_version = 99 WHERE persona_id IS NOT NULL"],
        [],
        {("missing persona", None)},
    ),
}


@pytest.mark.parametrize("case", NOT_MENDABLE)
def test_what_is_lost_is_told_and_left_alone(patient: Patient, case: str) -> None:
    """A repair says that it could not mend it, and changes nothing."""
    statements, restoring, kinds = NOT_MENDABLE[case]
    patient.damage(*statements)
    everything = "SELECT seq, status, human_seq, reply_seq, parent_turn FROM roleplay_turns"
    before = patient.rows(everything)
    assert told(patient.rp.doctor()) == {(kind, seq, False, False) for kind, seq in kinds}
    assert told(patient.rp.doctor(repair=True)) == {(kind, seq, False, False) for kind, seq in kinds}
    assert patient.rows(everything) == before
    patient.damage(*restoring)


def test_what_to_write_instead_is_told(patient: Patient) -> None:
    """Of an audience and of other names that cannot be read, which nobody but the caller can put right."""
    patient.damage("UPDATE roleplay_messages SET audience = '2,5' WHERE seq = 7")
    patient.damage("UPDATE roleplay_participant_revisions SET aliases = '{}' WHERE seat = 2")
    says = " ".join(one.says for one in patient.rp.doctor())
    assert "copy theirs, or write the speaker's seat alone, as ,2," in says
    assert "write a JSON list of names there, such as []" in says
    patient.damage("UPDATE roleplay_messages SET audience = ',1,2,' WHERE seq = 7")
    patient.damage("UPDATE roleplay_participant_revisions SET aliases = '[]' WHERE seat = 2")
    assert patient.rp.doctor() == []
    patient.damage("UPDATE roleplay_messages SET audience = NULL WHERE seq = 7")


def test_a_session_whose_path_breaks_off_stands_where_it_can_be_spoken_from(patient: Patient) -> None:
    """What follows the broken link is left; the nearest turn before it is stood on, and undo goes on from there."""
    patient.damage("UPDATE roleplay_messages SET parent_seq = 6 WHERE seq = 7")
    with pytest.raises(StoreError, match="message 6, which message 7 follows"):
        patient.session.send("And now?")
    broken = ("broken link", 7, False, False)
    assert told(patient.rp.doctor()) == {broken, ("head that cannot be spoken from", 9, True, False)}
    assert told(patient.rp.doctor(repair=True)) == {broken, ("head that cannot be spoken from", 9, True, True)}
    assert patient.session.info().head_seq == 4
    assert patient.session.send("And now?").status is TurnStatus.COMPLETED
    assert told(patient.rp.doctor()) == {broken}
    undone = [patient.session.tree.undo() for _ in range(2)]
    assert [turn.seq for turn in undone if turn] == [3, 1]
    patient.damage("UPDATE roleplay_messages SET parent_seq = 4 WHERE seq = 7")


def test_a_turn_that_somebody_holds_is_no_finding(patient: Patient) -> None:
    """A lease that has not run out, of a machine that nothing is known of, is left alone."""
    patient.damage(IN_FLIGHT.format("elsewhere/1/2", FAR_OFF) + " WHERE seq = 4")
    assert patient.rp.doctor(repair=True) == []
    patient.damage(IN_FLIGHT.format("elsewhere/1/2", LONG_AGO) + " WHERE seq = 4")
    assert [one.mended for one in patient.rp.doctor(repair=True)] == [True]


def test_rows_of_a_session_that_is_gone_are_deleted(patient: Patient) -> None:
    """Every table is looked at; rows in a session of another tenant are told and left alone."""
    rp, living = patient.rp, patient.session
    patient.session = rp.sessions.create(cast=[rp.personas.list().items[0]])
    theirs = patient.beside.sessions.list().items[0].id
    patient.damage("DELETE FROM roleplay_sessions")
    gone = rp.doctor()
    assert {(one.kind, one.session_id, one.mendable) for one in gone} == {("orphan row", patient.session.id, True)}
    assert {one.says.split()[0] for one in gone} == {
        "head_moves",
        "messages",
        "turns",
        "participant_revisions",
        "participants",
        "session_revisions",
    }
    stray = f"INSERT INTO roleplay_pieces (session_id, digest, tenant, text) VALUES ('{theirs}', 'x', 'default', '')"
    database = patient.database
    if database.dialect == "sqlite":
        with closing(files.connect(patient.url)) as db, db:
            db.execute(stray)
    else:
        database.write(
            lambda db: [
                db.execute(text(one)) for one in ("SET LOCAL session_replication_role = replica /* tenant */", stray)
            ]
        )
    assert {(one.session_id, one.mendable, one.mended) for one in rp.doctor(repair=True)} == {
        (patient.session.id, True, True),
        (theirs, False, False),
    }
    assert {one.session_id for one in rp.doctor()} == {theirs}
    assert [turn.seq for turn in living.turns()] == [1, 3, 6]


def test_both_front_doors_have_the_doctor(shell: str, database_url: str, scripted: Scripted) -> None:
    """The asyncio engine finds and mends the same."""
    assert shell in {"sync", "asyncio"}
    with shells.Roleplay.open(database_url, model=MODEL, chat=scripted("Well.")) as rp:
        session = rp.sessions.create(cast=[rp.personas.put(Persona("Hua Tuo"))])
        session.send("It hurts.")
        with Roleplay.open(database_url, model=MODEL, chat=scripted()) as plain:
            sql = "UPDATE roleplay_sessions SET last_turn = 0 WHERE tenant = 'default'"
            plain._runtime.database.write(lambda db: db.execute(text(sql)))
        [found] = rp.doctor()
        assert isinstance(found, Finding)
        assert (found.kind, found.session_id, found.mended) == ("counter drift", session.id, False)
        assert [one.mended for one in rp.doctor(repair=True)] == [True]
        assert rp.doctor() == []
