"""However wrongly a server answers: an error of ours or a reply, in time, with bounded memory, and the key nowhere."""

from __future__ import annotations

import asyncio
import json
import logging
import pickle
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from roleplay import AsyncRoleplay, Endpoint, Persona, Roleplay, RoleplayError
from tests.support.hostile import HEADER, HEAVY, HEAVY_CODINGS, HOSTILE_CODINGS, KEY, QUERY, TRACES, WAYS, Hostile
from tests.support.memory_hog import peak_kib

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 1.5
LATEST_S = TIMEOUT_S + 5  # many are asked at once on a machine that may be busy
AT_ONCE = 16
PEAK_KIB = 200 * 1024
BREAKS_SPEECH = {"echo-speech-tags"}  # what was shown of a secret before a tag proved to be none cannot be taken back


class Outcome(NamedTuple):
    """What became of one line."""

    way: str
    seconds: float
    heard: str
    error: BaseException | None
    turns: list[Any]


def endpoint(url: str) -> Endpoint:
    """The hostile server as a model, with a secret wherever one can be."""
    return Endpoint(
        "m",
        base_url=f"{url}/v1?sig={QUERY}",
        api_key=KEY,
        headers={"X-Tenant-Secret": HEADER},
        window_tokens=8000,
        connect_timeout_s=TIMEOUT_S,
        read_timeout_s=TIMEOUT_S,
        timeout_s=TIMEOUT_S,
        retry={"attempts": 1},
    )


def said_by_threads(url: str, model: Endpoint, asked: list[tuple[str, bool]]) -> list[Outcome]:
    """Say a line for each way, in many threads."""

    def say(one: tuple[str, bool]) -> Outcome:
        (way, stream), heard, error = one, "", None
        session = rp.sessions.create(cast=[persona])
        began = time.monotonic()
        try:
            if stream:
                with session.stream(f"way:{way} ") as reply:
                    for delta in reply:
                        heard += delta.text
            else:
                heard = session.send(f"way:{way} ").reply.text
        except BaseException as failure:  # noqa: BLE001 - what leaves is looked at
            error = failure
        return Outcome(way, time.monotonic() - began, heard, error, list(session.turns().items))

    with Roleplay.open(url, model=model) as rp, ThreadPoolExecutor(AT_ONCE) as pool:
        persona = rp.personas.put(Persona("Nova"))
        return list(pool.map(say, asked))


async def said_by_tasks(url: str, model: Endpoint, asked: list[tuple[str, bool]]) -> list[Outcome]:
    """Say a line for each way, in many tasks."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def say(way: str, *, stream: bool) -> Outcome:
        async with gate:
            heard, error = "", None
            session = await rp.sessions.create(cast=[persona])
            began = time.monotonic()
            try:
                if stream:
                    async with await session.stream(f"way:{way} ") as reply:
                        async for delta in reply:
                            heard += delta.text
                else:
                    heard = (await session.send(f"way:{way} ")).reply.text
            except BaseException as failure:  # noqa: BLE001 - what leaves is looked at
                error = failure
            return Outcome(way, time.monotonic() - began, heard, error, list((await session.turns()).items))

    async with await AsyncRoleplay.open(url, model=model) as rp:
        persona = await rp.personas.put(Persona("Nova"))
        return list(await asyncio.gather(*(say(way, stream=stream) for way, stream in asked)))


def shown(error: BaseException, *, with_locals: bool) -> str:
    """All that a tool could show of an error: its chain, its pickle and, if asked, its frames' local variables."""
    texts, values, chain = [repr(pickle.dumps(error))], dict[int, object](), [error]
    for one in chain:
        texts += [repr(one), repr(one.args), repr(vars(one)), *traceback.format_tb(one.__traceback__)]
        for frame, _ in traceback.walk_tb(one.__traceback__ if with_locals else None):
            values |= {id(value): value for value in frame.f_locals.values()}  # most stand in many frames
        chain += [other for other in (one.__cause__, one.__context__) if other is not None and other not in chain]
    return "".join([*texts, *map(repr, values.values())])


def problems(outcome: Outcome, known: set[str]) -> Iterator[str]:
    """Say what is wrong with an outcome.

    ``known`` gathers the places that errors came from. Where no secret was repeated, each is looked at closely once.
    """
    way, seconds, heard, error, turns = outcome
    if seconds > LATEST_S:
        yield f"{way}: took {seconds:.1f} s"
    if any(turn.status.in_flight for turn in turns):
        yield f"{way}: a turn is in flight"
    if way not in BREAKS_SPEECH and any(trace in heard for trace in TRACES):
        yield f"{way}: a secret was said: {heard!r}"
    if error is None:
        return
    if not isinstance(error, RoleplayError):
        yield f"{way}: {type(error).__name__} left: {error}"
        return
    if pickle.loads(pickle.dumps(error)).to_dict() != error.to_dict():  # noqa: S301 - our own
        yield f"{way}: the error does not come back from its pickle"
    place = "".join(traceback.format_tb(error.__traceback__))
    text = shown(error, with_locals="echo" in way or place not in known)
    known.add(place)
    for trace in TRACES:
        if trace in text:
            at = text.index(trace)
            yield f"{way}: {type(error).__name__} shows a secret: {text[max(at - 200, 0) : at + 40]}"


@pytest.fixture
def hostile() -> Iterator[Hostile]:
    """A server that answers wrongly."""
    server = Hostile(WAYS | HEAVY | HOSTILE_CODINGS | HEAVY_CODINGS)
    yield server
    server.close()


@pytest.mark.parametrize("shell", ["sync", "asyncio"])
def test_no_answer_does_harm(tmp_path: Path, hostile: Hostile, caplog: pytest.LogCaptureFixture, shell: str) -> None:
    """Each way, sent and streamed: ended in time by an error of ours or a reply, and no secret anywhere."""
    caplog.set_level(logging.DEBUG)
    path = tmp_path / "hostile.db"
    asked = [(way, stream) for stream in (False, True) for way in WAYS | HOSTILE_CODINGS]
    model = endpoint(hostile.url)
    if shell == "sync":
        outcomes = said_by_threads(f"sqlite:///{path}", model, asked)
    else:
        outcomes = asyncio.run(said_by_tasks(f"sqlite:///{path}", model, asked))
    known: set[str] = set()
    wrong = [problem for outcome in outcomes for problem in problems(outcome, known)]
    assert not wrong, "\n".join(wrong)
    assert [one.heard for one in outcomes if one.way == "good"] == ["The road is long."] * 2
    stored = b"".join(one.read_bytes() for one in tmp_path.glob("hostile.db*"))
    for trace in TRACES:
        assert trace.encode() not in stored
        assert trace not in caplog.text
    assert hostile.strayed == 0
    assert len(Counter(type(one.error) for one in outcomes)) > 5


@pytest.mark.parametrize("shell", ["sync", "asyncio"])
def test_no_answer_takes_much_memory(tmp_path: Path, hostile: Hostile, shell: str) -> None:
    """What goes on for many megabytes is ended, and the process never needs 200 MB."""
    url = f"sqlite:///{tmp_path / 'heavy.db'}"
    command = [sys.executable, "-m", "tests.faults.test_hostile_server", shell, url, hostile.url]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert not told["problems"], "\n".join(told["problems"])
    assert told["peak_kib"] < PEAK_KIB
    assert not [trace for trace in TRACES if trace in done.stdout + done.stderr]


def main(shell: str, database: str, url: str) -> None:
    """Say a line for each heavy way, one after the other; print what is wrong and the most memory that it took."""
    wrong: list[str] = []
    for way in HEAVY | HEAVY_CODINGS:
        for stream in (False, True):
            model, asked = endpoint(url).evolve(timeout_s=20.0), [(way, stream)]
            if shell == "sync":
                [outcome] = said_by_threads(database, model, asked)
            else:
                [outcome] = asyncio.run(said_by_tasks(database, model, asked))
            wrong += problems(outcome, set())
    sys.stdout.write(json.dumps({"problems": wrong, "peak_kib": peak_kib()}))


if __name__ == "__main__":
    main(*sys.argv[1:4])
