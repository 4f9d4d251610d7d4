"""Role-play conversations that last."""

from roleplay.aio import AsyncRoleplay
from roleplay.chat.transport import Answer, AsyncAnswer, AsyncTransport, Transport
from roleplay.context.counting import Counter, EstimatingCounter
from roleplay.domain.context import ContextMessage, ContextReport, Role, SectionReport
from roleplay.domain.conversation import (
    Delta,
    DeltaKind,
    Message,
    ModelCall,
    Participant,
    PlayedBy,
    SessionInfo,
    Turn,
    TurnKind,
    TurnStatus,
)
from roleplay.domain.endpoint import ChatPath, Dialect, Endpoint, Retry
from roleplay.domain.page import Page
from roleplay.domain.persona import ExampleDialogue, ExampleLine, Persona, StoredPersona
from roleplay.domain.settings import Sampling, SessionSettings, TurnOptions
from roleplay.domain.usage import BaseResp, SensitiveCategory, Sensitivity, Usage
from roleplay.engine import Roleplay
from roleplay.errors import (
    BadReplyError,
    BudgetError,
    ChatAuthError,
    ChatError,
    ChatQuotaError,
    ChatRequestError,
    ChatUnavailableError,
    ConflictError,
    ContentFilteredError,
    EmptyReplyError,
    IdempotencyError,
    InvalidInputError,
    NotFoundError,
    RoleplayError,
    SchemaError,
    SettingsError,
    StoreError,
)
from roleplay.session import AsyncChatSession, AsyncReplyStream, ChatSession, Preview, ReplyStream
from roleplay.store.calls import UsageTotal
from roleplay.store.database import Database
from roleplay.store.doctor import Finding

__all__ = [
    "Answer",
    "AsyncAnswer",
    "AsyncChatSession",
    "AsyncReplyStream",
    "AsyncRoleplay",
    "AsyncTransport",
    "BadReplyError",
    "BaseResp",
    "BudgetError",
    "ChatAuthError",
    "ChatError",
    "ChatPath",
    "ChatQuotaError",
    "ChatRequestError",
    "ChatSession",
    "ChatUnavailableError",
    "ConflictError",
    "ContentFilteredError",
    "ContextMessage",
    "ContextReport",
    "Counter",
    "Database",
    "Delta",
    "DeltaKind",
    "Dialect",
    "EmptyReplyError",
    "Endpoint",
    "EstimatingCounter",
    "ExampleDialogue",
    "ExampleLine",
    "Finding",
    "IdempotencyError",
    "InvalidInputError",
    "Message",
    "ModelCall",
    "NotFoundError",
    "Page",
    "Participant",
    "Persona",
    "PlayedBy",
    "Preview",
    "ReplyStream",
    "Retry",
    "Role",
    "Roleplay",
    "RoleplayError",
    "Sampling",
    "SchemaError",
    "SectionReport",
    "SensitiveCategory",
    "Sensitivity",
    "SessionInfo",
    "SessionSettings",
    "SettingsError",
    "StoreError",
    "StoredPersona",
    "Transport",
    "Turn",
    "TurnKind",
    "TurnOptions",
    "TurnStatus",
    "Usage",
    "UsageTotal",
]
