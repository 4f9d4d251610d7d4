"""Handles of a session, and the shells that drive operations: one with blocking calls, one with asyncio."""

from roleplay.session.handle import AsyncChatSession, ChatSession, Preview
from roleplay.session.stream import AsyncReplyStream, ReplyStream

__all__ = ["AsyncChatSession", "AsyncReplyStream", "ChatSession", "Preview", "ReplyStream"]
