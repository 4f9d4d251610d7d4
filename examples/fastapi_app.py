"""A chat service, for one user in a session or for several: DATABASE_URL=sqlite:///chats.db uvicorn fastapi_app:app.

Needs fastapi, uvicorn, the async extra.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any, Literal

from fastapi import Depends, FastAPI, Header, Request
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel

from roleplay import (
    AsyncChatSession,
    AsyncReplyStream,
    AsyncRoleplay,
    NotFoundError,
    Persona,
    PlayedBy,
    RoleplayError,
    Seat,
    TurnOptions,
)

FERRYMAN = Persona("Ferryman", "{{char}} rows people over at night and asks no names.", key="ferryman")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Have the engine open as long as the service runs."""
    async with await AsyncRoleplay.open(os.environ["DATABASE_URL"]) as app.state.rp:
        await app.state.rp.recover()
        await app.state.rp.personas.put(FERRYMAN)
        yield


app = FastAPI(lifespan=lifespan)
User = Annotated[str, Header(alias="X-User")]  # yours comes from a token


async def own_seat(request: Request, session_id: str, user: User) -> AsyncChatSession:
    """Look at a session through the user's seat. A session without one counts as not found."""
    session: AsyncChatSession = await request.app.state.rp.sessions.get(session_id, owner=user)
    for seat in (await session.info()).humans:
        if seat.owner == user:
            return session.seen_by(seat.seat)
    raise NotFoundError("session", session_id)


Session = Annotated[AsyncChatSession, Depends(own_seat)]


class Line(BaseModel):
    """What the user says, to all or to some seats alone. The same key is the same line, however often it is sent."""

    text: str
    key: str
    to: list[str] | None = None
    on_disconnect: Literal["interrupt", "finish"] = "finish"


class Guest(BaseModel):
    """Another user, and the name that he has in the session."""

    user: str
    name: str


@app.exception_handler(RoleplayError)
async def tell(_: Request, error: RoleplayError) -> JSONResponse:
    """Answer with the error as data, under the status that fits it."""
    return JSONResponse(error.to_dict(), error.http_status)


@app.post("/sessions", status_code=201)
async def begin(request: Request, user: User) -> dict[str, str]:
    """Begin a session, in which the user sits."""
    session = await request.app.state.rp.sessions.create(cast=["ferryman"], user=Seat(owner=user), owner=user)
    return {"id": session.id}


@app.post("/sessions/{session_id}/guests", status_code=201)
async def invite(request: Request, session_id: str, user: User, guest: Guest) -> dict[str, int]:
    """Seat another user, who sees what is said from then on; whose session it is may do so."""
    session = await request.app.state.rp.sessions.get(session_id, owner=user)
    if (await session.info()).owner != user:
        raise NotFoundError("session", session_id)
    seat = await session.cast.join(Seat(name=guest.name, owner=guest.user), played_by=PlayedBy.HUMAN)
    return {"seat": seat.seat}


@app.post("/sessions/{session_id}/lines")
async def say(session: Session, line: Line) -> StreamingResponse:
    """Say a line and stream the reply."""
    options = TurnOptions(idempotency_key=line.key, on_disconnect=line.on_disconnect, audience=line.to)
    return streaming(await session.stream(line.text, options=options))


@app.get("/sessions/{session_id}/turns/{turn_id}/text")
async def follow(session: Session, turn_id: str, offset: int = 0) -> StreamingResponse:
    """Stream a reply from a character on, while it comes or later."""
    return streaming(await session.follow(turn_id, offset=offset))


@app.get("/sessions/{session_id}/turns")
async def turns(session: Session, before: str | None = None) -> dict[str, Any]:
    """Read a page of the messages that the user's seat may see."""
    page = await session.turns(before=before)
    return {"items": [turn.model_dump(mode="json") for turn in page], "older": page.older}


def streaming(reply: AsyncReplyStream) -> StreamingResponse:
    """Give a reply as plain text, and which turn it is."""

    async def words() -> AsyncIterator[str]:
        async with reply:
            async for delta in reply:
                if delta.kind == "speech":
                    yield delta.text

    return StreamingResponse(words(), media_type="text/plain", headers={"X-Turn": reply.turn_id})
