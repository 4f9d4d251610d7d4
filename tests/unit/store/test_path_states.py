"""What a path hands on, as a value, as a row and as a turn's map."""

from __future__ import annotations

import pytest

from roleplay import StoreError
from roleplay.store.records.path_states import LIMIT, SeatState, map_with, read_map, read_state

FRONT, SETTINGS = "f" * 32, "s" * 32


@pytest.mark.parametrize(
    "state", [SeatState(0, FRONT), SeatState(7, FRONT, SETTINGS), SeatState(7, FRONT, SETTINGS, "keep-abc:0:ff")]
)
def test_a_state_is_read_as_it_was_written(state: SeatState) -> None:
    """Written and read it is equal, and it names its texts."""
    assert read_state(state.written()) == state == state.fitting()
    assert state.digests == {FRONT, SETTINGS} - ({SETTINGS} if not state.settings else set())


@pytest.mark.parametrize("stored", [None, "{}"])
def test_nothing_was_handed_on(stored: str | None) -> None:
    """No row, and one that was emptied, are no state."""
    assert read_state(stored) is None


@pytest.mark.parametrize(
    "stored",
    [
        "{",
        "[5]",
        "5",
        '{"1":[0,"a","b"]}',
        '{"window_start":"0"}',
        '{"window_start":-1}',
        '{"window_start":true}',
        '{"front":5}',
        '{"front":null}',
        '{"examples":[1]}',
        b"\x00\xff",
    ],
)
def test_what_was_never_written_is_an_error(stored: object) -> None:
    """It is one of the database, and names the doctor."""
    with pytest.raises(StoreError, match="doctor"):
        read_state(stored)  # type: ignore[arg-type]


def test_a_state_that_is_too_long_loses_its_dialogues() -> None:
    """A row holds 8 KB; without the choice of dialogues any state has room."""
    long = SeatState(2**31, FRONT, SETTINGS, "random-" + "f" * LIMIT)
    assert long.fitting() == long._replace(examples="")
    assert len(long.fitting().written()) < LIMIT
    whole = SeatState(7, FRONT, SETTINGS, "")
    room = LIMIT - len(whole._replace(examples="x").written()) + 1
    assert whole._replace(examples="x" * room).fitting().examples
    assert not whole._replace(examples="x" * (room + 1)).fitting().examples


def test_a_turn_names_itself_for_what_it_changed() -> None:
    """Everything else stays as its parent names it, seats in their order; without a change nothing is written anew."""
    assert map_with(None, (), 4) is None
    assert map_with(None, (3,), 4) == '{"3":4}'
    assert map_with('{"3":4}', (), 5) == '{"3":4}'
    assert map_with('{"3":4,"12":2}', (1, 3), 5) == '{"1":5,"3":5,"12":2}'
    assert read_map('{"1":5,"3":5,"12":2}') == {1: 5, 3: 5, 12: 2}
    assert read_map(None) == {}


@pytest.mark.parametrize(
    "stored", ["{", "[]", "5", '{"a":1}', '{"-1":1}', '{"1":0}', '{"1":"2"}', '{"1":null}', b"\xff"]
)
def test_a_map_that_was_never_written_is_an_error(stored: object) -> None:
    """As it is for a state."""
    with pytest.raises(StoreError, match="doctor"):
        read_map(stored)  # type: ignore[arg-type]
