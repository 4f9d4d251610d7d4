"""A URL with a password is read, or refused, and the password stands nowhere."""

from __future__ import annotations

import asyncio
import pickle
import traceback
from collections.abc import Iterator

import pytest

from roleplay import AsyncRoleplay, Endpoint, Roleplay, RoleplayError, SettingsError, StoreError
from roleplay.store.access import address, postgres
from roleplay.store.access.address import Address
from roleplay.store.access.database import open_engine

#: A password, and the pieces of it that must not be seen, as it stands in the URL and as it is meant.
PASSWORDS = {
    "plain": "S3cretWord",
    "an @": "S3cr@tWord",
    "two @": "S3@cre@tWord",
    "an @ and a slash": "S3cr@et/tWord",
    "an @ and a question mark": "S3cr@et?tWord",
    "an @ and a parameter": "S3cr@et?tWord=1",
    "an @ and a colon": "S3cr@et:tWord",
    "an @ and a number sign": "S3cr@et#tWord",
    "an escaped @": "S3cr%40tWord",
    "escaped signs": "S3cr%2Fet%3AtWord",
    "a slash": "S3cr/tWord",
    "a colon": "S3cr:tWord",
    "a percent sign": "S3cr%tWord",
    "a NUL": "S3cr%00tWord",
    "a space": "S3cr tWord",
}
REFUSED = {name for name in PASSWORDS if name.startswith(("an @", "two @", "a NUL"))}
PIECES = ("S3cr", "S3@", "tWord", "S3")


def shown(error: BaseException) -> Iterator[str]:
    """Whatever an error shows to whom: itself, its chain, the variables of our frames and of those below."""
    yield from (str(error), repr(error), repr(pickle.loads(pickle.dumps(error))))  # noqa: S301 - our own
    todo: list[BaseException | None] = [error]
    seen = set()
    while todo:
        one = todo.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        todo += [one.__cause__, one.__context__, getattr(one, "orig", None)]
        yield from (str(one), repr(one), repr(vars(one)))
        for frame, _line in traceback.walk_tb(one.__traceback__):
            if frame.f_code.co_filename != __file__:
                yield from (f"{frame.f_code.co_qualname}: {value!r}" for value in frame.f_locals.values())


def error_of(url: str, shell: str) -> RoleplayError:
    async def opened() -> object:
        return await AsyncRoleplay.open(url, model=Endpoint("MiniMax-M2.7", api_key="k"))

    with pytest.raises(RoleplayError) as caught:
        if shell == "sync":
            Roleplay.open(url, model=Endpoint("MiniMax-M2.7", api_key="k"))
        else:
            asyncio.run(opened())
    return caught.value


@pytest.mark.parametrize("driver", ["postgresql", "postgres", "postgresql+psycopg2"])
@pytest.mark.parametrize("name", PASSWORDS)
def test_no_part_of_a_password_is_shown(name: str, driver: str) -> None:
    for shell in ("sync", "asyncio"):
        error = error_of(f"{driver}://user:{PASSWORDS[name]}@127.0.0.1:1/db?connect_timeout=2", shell)
        assert isinstance(error, SettingsError if name in REFUSED else StoreError)
        assert [text for text in shown(error) if any(piece in text for piece in PIECES)] == []


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://127.0.0.1:1/db?user=ann&password=S3cretWord",
        "postgresql://ann@127.0.0.1:1/db?sslpassword=S3cretWord",
        "postgresql+asyncpg://ann:S3cretWord@127.0.0.1:1/db",
        "mysql://ann:S3cretWord@127.0.0.1:1/db",
        "postgresql://ann:S3cretWord@127.0.0.1:tWord/db",
        "postgresql:/ann:S3cretWord@127.0.0.1/db",
        "postgresql://ann:S3cretWord@127.0.0.1:1/db?command_timeout=soon",
    ],
)
def test_other_ways_to_show_a_password(url: str) -> None:
    for shell in ("sync", "asyncio"):
        assert [text for text in shown(error_of(url, shell)) if any(piece in text for piece in PIECES)] == []


def test_what_is_no_password_may_hold_an_at() -> None:
    assert address.read("postgresql://ann@corp:pw@host/db?application_name=a@b").username == "ann@corp"
    assert address.read("postgresql://ann:pw@/db?host=@socket").query["host"] == "@socket"
    assert address.read("sqlite:///me@home/a:b@c.db").database == "me@home/a:b@c.db"
    assert repr(Address("postgresql://ann:pw@host/db")) == "Address(***)"


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("postgres://h/db", "postgresql+psycopg"),
        ("postgresql://h/db", "postgresql+psycopg"),
        ("postgres+psycopg://h/db", "postgresql+psycopg"),
        ("postgresql+psycopg_async://h/db", "postgresql+psycopg"),
        ("postgresql+psycopg2://h/db", "postgresql+psycopg2"),
    ],
)
def test_the_driver_is_named(written: str, meant: str) -> None:
    assert open_engine(written).url.drivername == meant
    assert postgres.with_driver(address.read(written), for_asyncio=True).drivername == "postgresql+psycopg"


@pytest.mark.parametrize("driver", ["asyncpg", "pg8000", "psycopg2cffi", "aiopg", "pygresql"])
def test_a_driver_that_cannot_work_is_refused_by_name(driver: str) -> None:
    for scheme in ("postgresql", "postgres"):
        with pytest.raises(SettingsError, match=rf"'{driver}'.*postgresql://"):
            open_engine(f"{scheme}+{driver}://h/db")
