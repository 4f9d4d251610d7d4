"""Handles of a session, and the shells that drive operations: one with blocking calls; one with asyncio, in ``aio``."""

from roleplay.session.aio.handle import AsyncChatSession
from roleplay.session.aio.stream import AsyncReplyStream, AsyncRoundStream
from roleplay.session.handle import ChatSession, Preview
from roleplay.session.stream import ReplyStream, RoundStream

__all__ = [
    "AsyncChatSession",
    "AsyncReplyStream",
    "AsyncRoundStream",
    "ChatSession",
    "Preview",
    "ReplyStream",
    "RoundStream",
]
