"""Role-play conversations that last."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

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
    RefusedError,
    RoleplayError,
    SchemaError,
    SettingsError,
    StoreError,
)

if TYPE_CHECKING:
    from roleplay.aio import AsyncRoleplay
    from roleplay.chat.transport import Answer, AsyncAnswer, AsyncTransport, Transport
    from roleplay.context.counting import Counter, EstimatingCounter
    from roleplay.context.languages import Words
    from roleplay.domain.cast import Seat, SpeakingMoment, Strategy
    from roleplay.domain.context import Calibration, ContextMessage, ContextReport, Role, SectionReport
    from roleplay.domain.conversation import (
        Cut,
        Delta,
        DeltaKind,
        FinishReason,
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
    from roleplay.domain.erasure import Counts, Receipt
    from roleplay.domain.events import TurnEvent
    from roleplay.domain.guards import Checked, StoredVerdict, Verdict
    from roleplay.domain.page import Page
    from roleplay.domain.persona import ExampleDialogue, ExampleLine, Persona, StoredPersona
    from roleplay.domain.settings import Fact, Sampling, SessionSettings, Setting, TurnOptions
    from roleplay.domain.sync import PersonaChange, SyncedPersona, SyncReport
    from roleplay.domain.usage import BaseResp, SensitiveCategory, Sensitivity, Usage
    from roleplay.engine import Roleplay
    from roleplay.exchange.tokenizers import TokenizerCounter
    from roleplay.session import (
        AsyncChatSession,
        AsyncReplyStream,
        AsyncRoundStream,
        ChatSession,
        Preview,
        ReplyStream,
        RoundStream,
    )
    from roleplay.store.access.database import Database
    from roleplay.store.records.calls import UsageTotal
    from roleplay.store.upkeep.checks import Finding

__all__ = [
    "Answer",
    "AsyncAnswer",
    "AsyncChatSession",
    "AsyncReplyStream",
    "AsyncRoleplay",
    "AsyncRoundStream",
    "AsyncTransport",
    "BadReplyError",
    "BaseResp",
    "BudgetError",
    "Calibration",
    "ChatAuthError",
    "ChatError",
    "ChatPath",
    "ChatQuotaError",
    "ChatRequestError",
    "ChatSession",
    "ChatUnavailableError",
    "Checked",
    "ConflictError",
    "ContentFilteredError",
    "ContextMessage",
    "ContextReport",
    "Counter",
    "Counts",
    "Cut",
    "Database",
    "Delta",
    "DeltaKind",
    "Dialect",
    "EmptyReplyError",
    "Endpoint",
    "EstimatingCounter",
    "ExampleDialogue",
    "ExampleLine",
    "Fact",
    "Finding",
    "FinishReason",
    "IdempotencyError",
    "InvalidInputError",
    "Message",
    "ModelCall",
    "NotFoundError",
    "Page",
    "Participant",
    "Persona",
    "PersonaChange",
    "PlayedBy",
    "Preview",
    "Receipt",
    "RefusedError",
    "ReplyStream",
    "Retry",
    "Role",
    "Roleplay",
    "RoleplayError",
    "RoundStream",
    "Sampling",
    "SchemaError",
    "Seat",
    "SectionReport",
    "SensitiveCategory",
    "Sensitivity",
    "SessionInfo",
    "SessionSettings",
    "Setting",
    "SettingsError",
    "SpeakingMoment",
    "StoreError",
    "StoredPersona",
    "StoredVerdict",
    "Strategy",
    "SyncReport",
    "SyncedPersona",
    "TokenizerCounter",
    "Transport",
    "Turn",
    "TurnEvent",
    "TurnKind",
    "TurnOptions",
    "TurnStatus",
    "Usage",
    "UsageTotal",
    "Verdict",
    "Words",
]

#: Where each name but the errors comes from: loaded when the name is asked for, so that the command line starts soon.
_ROOMS = {
    "aio": "AsyncRoleplay",
    "chat.transport": "Answer AsyncAnswer AsyncTransport Transport",
    "context.counting": "Counter EstimatingCounter",
    "context.languages": "Words",
    "domain.cast": "Seat SpeakingMoment Strategy",
    "domain.context": "Calibration ContextMessage ContextReport Role SectionReport",
    "domain.conversation": "Cut Delta DeltaKind FinishReason Message ModelCall Participant PlayedBy SessionInfo"
    " Turn TurnKind TurnStatus",
    "domain.events": "TurnEvent",
    "domain.guards": "Checked StoredVerdict Verdict",
    "domain.endpoint": "ChatPath Dialect Endpoint Retry",
    "domain.erasure": "Counts Receipt",
    "domain.page": "Page",
    "domain.persona": "ExampleDialogue ExampleLine Persona StoredPersona",
    "domain.settings": "Fact Sampling SessionSettings Setting TurnOptions",
    "domain.sync": "PersonaChange SyncReport SyncedPersona",
    "domain.usage": "BaseResp SensitiveCategory Sensitivity Usage",
    "engine": "Roleplay",
    "exchange.tokenizers": "TokenizerCounter",
    "session": "AsyncChatSession AsyncReplyStream AsyncRoundStream ChatSession Preview ReplyStream RoundStream",
    "store.records.calls": "UsageTotal",
    "store.upkeep.checks": "Finding",
    "store.access.database": "Database",
}

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """Give a public name of a room."""
        for room, names in _ROOMS.items():
            if name in names.split():
                return getattr(import_module(f"roleplay.{room}"), name)
        raise AttributeError(f"module 'roleplay' has no attribute {name!r}")

    def __dir__() -> list[str]:
        return __all__
