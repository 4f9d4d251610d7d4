"""A session's handle. Its asyncio twin has the same doors; a test compares their signatures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from roleplay.domain.cast import Played, Seat
from roleplay.domain.context import ContextMessage, ContextReport
from roleplay.domain.conversation import Participant, PlayedBy, SessionInfo, Turn
from roleplay.domain.guards import StoredVerdict
from roleplay.domain.page import Page
from roleplay.domain.settings import DEFAULT_OPTIONS, SeatRef, SessionSettings, Setting, TurnOptions
from roleplay.domain.values import Value
from roleplay.operations import casts
from roleplay.session.driver import Runtime
from roleplay.session.stream import ReplyStream, RoundStream
from roleplay.store.records.new_rows import settings_of
from roleplay.turns import explaining, following, reading, seated, tree
from roleplay.turns.arguments import Speaker, options_of
from roleplay.turns.explaining import PlanPreview
from roleplay.turns.scope import SessionScope

ITER_PAGE = 100


class Preview(Value):
    """What would be sent, and why. ``settings`` names every value in force and its layer. ``messages`` are (role, name,
    text) before the dialect writes them; ``body`` is the request, byte for byte."""

    report: ContextReport
    settings: Mapping[str, Setting]
    messages: tuple[ContextMessage, ...]
    body: bytes


def preview_of(planned: PlanPreview) -> Preview:
    """Give what callers see of a planned reply."""
    plan, report = planned
    settings = settings_of(plan.settings.text)
    return Preview(report=report, settings=settings, messages=tuple(plan.draft.messages), body=plan.body)


class ChatSession:
    """A stored conversation. The handle holds an id and no history; it may be shared by threads.

    What speaks (``send``, ``stream``, ``regenerate``, ``retry``, ``resume``) raises, with nothing written:
    ``InvalidInputError``, ``NotFoundError``, ``BudgetError``, and ``ConflictError`` while another turn runs on this
    session, unless ``TurnOptions(on_conflict=...)`` says otherwise. It raises ``ChatError`` when the service failed:
    the turn is stored as failed, or as interrupted with the text that came; its id is the error's ``turn_id``, and the
    session goes on from where it stood.
    """

    def __init__(self, runtime: Runtime, scope: SessionScope) -> None:
        self._runtime = runtime
        self._scope = scope
        self.tree = Tree(runtime, scope)
        self.cast = Cast(runtime, scope)

    @property
    def id(self) -> str:
        return self._scope.session_id

    def __repr__(self) -> str:
        seat = "" if self._scope.seat is None else f".seen_by({self._scope.seat!r})"
        return f"ChatSession({self.id!r}){seat}"

    def seen_by(self, seat: SeatRef) -> ChatSession:
        """Give this session as a seat sees it, by its number or a name: the same doors, and nothing of what was not
        said to it or was said while nobody sat there (see ``SessionSettings.joiner_sees``). Reads nothing yet; whose
        name it is, is looked up each time, so that a number is safer to keep.

        Another's turn is ``NotFoundError``, as one that is not there. Of a turn that it may see, a line that it may not
        is ``None``; variants are counted among what it may see. ``calls``, reports and verdicts are those of its own
        turns and lines, ``metadata`` that of turns in which it speaks. ``info()`` and ``cast.list()`` are without
        facts, metadata and others' owners. Numbers (``seq``, ``version``) count what others say, too.

        What is said is said by this seat: ``speaker`` is it, and another is refused; a whisper is to it, too. A seat of
        the model's lets only itself speak, and one that has left says nothing. Idempotency keys are its own.
        ``regenerate``, ``retry`` and ``resume`` take a turn that it may see, and raise ``ConflictError`` where that
        would take off the path what it may not. Whatever else moves or changes the session for all (``accept``,
        ``update``, the tree's and the cast's changes) is for the session's own handle, and so is ``preview``, which
        shows what another sees: they raise ``InvalidInputError``.
        """
        return ChatSession(self._runtime, self._scope.through(seat))

    def info(self) -> SessionInfo:
        """Read the session as it stands. Raises ``NotFoundError``."""
        return self._runtime.run(reading.info(self._scope))

    def update(self, *, scene: str | None = None, settings: SessionSettings | None = None) -> SessionInfo:
        """Give the session another ``scene`` or other ``settings`` from the next turn on; gives it as it stands then.

        What is ``None`` stays. Earlier turns keep theirs. Raises ``NotFoundError`` and ``InvalidInputError``.
        """
        return self._runtime.run(tree.update(self._scope, scene, settings))

    def send(self, text: str, *, speaker: SeatRef | None = None, options: TurnOptions = DEFAULT_OPTIONS) -> Turn:
        """Say ``text`` and wait for the whole reply: one, the first speaker's. For everyone's, see ``round``.

        ``speaker`` is the human seat that says it, by its number or a name; it is needed where several humans sit here.
        """
        return self._runtime.run(seated.send(self._scope, text, speaker, options, stream=False))

    def stream(
        self, text: str, *, speaker: SeatRef | None = None, options: TurnOptions = DEFAULT_OPTIONS
    ) -> ReplyStream:
        """Say ``text`` and give the reply as it comes: one, the first speaker's. What can be known is raised before
        anything is iterated; an error in mid-reply is raised by the iteration. ``speaker`` is as for ``send``."""
        operation = seated.send(self._scope, text, speaker, options, stream=True)
        return ReplyStream(self._runtime, operation, options_of(options).on_disconnect)

    def round(
        self,
        text: str | None = None,
        *,
        speaker: SeatRef | None = None,
        max_turns: int | None = None,
        options: TurnOptions = DEFAULT_OPTIONS,
    ) -> RoundStream:
        """Say ``text``, if any, and let every seat of the model's speak that is next, one after the other, as they
        come.

        Who speaks is chosen once, by ``SessionSettings(speaking=...)``, and stored with the first turn; at most
        ``max_turns`` do, by default the setting ``round_turns``. ``speaker`` is as for ``send``. An idempotency key
        names the whole round: with it, a round that was cut off goes on where it stopped.

        When another call speaks with ``on_conflict="wait"``, the round ends after its present turn.
        """
        operation = seated.speak_round(self._scope, text, speaker, max_turns, options)
        return RoundStream(self._runtime, operation, options_of(options).on_disconnect)

    def regenerate(
        self, turn_id: str | None = None, *, hint: str = "", options: TurnOptions = DEFAULT_OPTIONS
    ) -> ReplyStream:
        """Give another variant of a turn's reply (the head's without an id) as it comes, and stand on it.

        ``hint`` is an instruction for this variant alone. The other variants stay, each with its usage.
        """
        operation = seated.regenerate(self._scope, turn_id, hint, options, stream=True)
        return ReplyStream(self._runtime, operation, options_of(options).on_disconnect)

    def speak(
        self, participant: SeatRef | None = None, *, hint: str = "", options: TurnOptions = DEFAULT_OPTIONS
    ) -> ReplyStream:
        """Let a seat of the model's speak without a human line: it opens, goes on, or answers what was added.

        ``participant`` is the seat, muted or not, by its number or a name; without it, the one that is next. ``hint``
        is an instruction for this reply alone.
        """
        operation = seated.speak(self._scope, participant, hint, options, stream=True)
        return ReplyStream(self._runtime, operation, options_of(options).on_disconnect)

    def add(self, text: str, *, speaker: Speaker = "user", options: TurnOptions = DEFAULT_OPTIONS) -> Turn:
        """Add a line without calling the model: the ``user``'s, the ``model``'s, or a ``narrator``'s, who has no seat
        and reaches the model as a user under a name of his own; or that of a seat, by its number or a name, which is
        needed where there are several. The session stands on it.

        Of the options, ``idempotency_key``, ``on_conflict``, ``wait_s``, ``metadata`` and ``audience`` count. Raises as
        ``send``.
        """
        return self._runtime.run(seated.add(self._scope, text, speaker, options))

    def retry(self, turn_id: str | None = None, *, options: TurnOptions = DEFAULT_OPTIONS) -> ReplyStream:
        """Make another attempt at a turn that failed or was interrupted (the last one without an id).

        The turn keeps its line, its idempotency key and its metadata; ``options`` with one of the latter two are
        refused. Sampling, model and facts are those of ``options``, whatever earlier attempts had, and a hint is not
        kept either: for another hint, ``regenerate`` beside it. An interrupted turn keeps its text until the attempt
        gives another. Raises ``InvalidInputError`` and ``ConflictError``, and what ``send`` raises.
        """
        operation = seated.retry(self._scope, turn_id, options, stream=True)
        return ReplyStream(self._runtime, operation, options_of(options).on_disconnect)

    def resume(self, turn_id: str | None = None, *, options: TurnOptions = DEFAULT_OPTIONS) -> ReplyStream:
        """Let the model go on from the text of a reply (the last one's without an id); only what is new comes from the
        stream.

        An interrupted turn gets another attempt, whose text begins with its own. A complete one, such as a reply that
        was cut at the length limit, stays as it is: beside it comes a variant that begins with its text, and the
        session stands on that. ``options`` are as for ``retry``. Raises ``InvalidInputError`` for a turn without text
        or that no model spoke, and what ``send`` raises.
        """
        operation = seated.resume(self._scope, turn_id, options, stream=True)
        return ReplyStream(self._runtime, operation, options_of(options).on_disconnect)

    def follow(self, turn_id: str, *, offset: int = 0) -> ReplyStream:
        """Give a turn's reply from its character ``offset`` on: as it is kept while the turn runs, in whichever
        process, or as it was. The stream ends with the turn; leaving or cancelling it changes nothing of the turn.

        Raises ``NotFoundError`` and ``InvalidInputError``; the iteration raises ``ConflictError`` when another attempt
        at the turn begins whose reply is not the one that was given so far.
        """
        return ReplyStream(self._runtime, following.follow(self._scope, turn_id, offset), at_once=True)

    def accept(self, turn_id: str) -> Turn:
        """Take an interrupted turn as it is: its text becomes the reply, and the session stands on it."""
        return self._runtime.run(tree.accept(self._scope, turn_id))

    def preview(self, text: str, *, speaker: SeatRef | None = None, options: TurnOptions = DEFAULT_OPTIONS) -> Preview:
        """Give what ``send`` would send and why; calls nothing, writes nothing."""
        return preview_of(self._runtime.run(seated.preview(self._scope, text, speaker, options)))

    def report(self, turn_id: str | None = None) -> ContextReport:
        """Say why the latest request of a turn (the head's without an id) was what it was; reads what was stored.

        Raises ``NotFoundError`` for a turn that called no model.
        """
        return self._runtime.run(explaining.report(self._scope, turn_id))

    def turns(self, *, before: str | None = None, limit: int = 50) -> Page[Turn]:
        """Give a page of the active path, oldest first; the newest page unless ``before`` is a page's ``older``.

        The newest page ends with the last attempt after the path when it has not become a reply: failed, interrupted
        or still in flight, as its ``status`` says. Raises ``NotFoundError`` and ``InvalidInputError``.
        """
        return self._runtime.run(reading.turns(self._scope, before, limit))

    def iter_turns(self) -> Iterator[Turn]:
        """Give the turns of the active path, the newest first, reading a page at a time.

        The path stays the one that it was when the first was given. Raises ``NotFoundError``.
        """
        page = self.turns(limit=ITER_PAGE)
        while True:
            yield from reversed(page.items)
            if page.older is None:
                return
            page = self.turns(before=page.older, limit=ITER_PAGE)

    def verdicts(self, turn_id: str) -> Sequence[StoredVerdict]:
        """Give what guards said of a turn's line and reply when they did not simply allow it; oldest first.

        Raises ``NotFoundError``.
        """
        return self._runtime.run(reading.verdicts(self._scope, turn_id))

    def turn(self, turn_id: str | int) -> Turn:
        """Give one turn by its id or its number ``seq``, on the active path or not. Raises ``NotFoundError``."""
        return self._runtime.run(reading.turn(self._scope, turn_id))


class Cast:
    """The seats of a session. Each change is from the next turn on; earlier turns keep what was.

    A seat is named by its number, its display name or an alias. Who sits there belongs to the session, not to the path:
    to rewind over a leave brings nobody back. Each door raises ``NotFoundError`` and ``InvalidInputError``.
    """

    def __init__(self, runtime: Runtime, scope: SessionScope) -> None:
        self._runtime = runtime
        self._scope = scope

    def list(self) -> Sequence[Participant]:
        """Give the seats in which somebody sits, in their order."""
        return self._runtime.run(casts.members(self._scope))

    def join(self, seat: Played | Seat, *, played_by: PlayedBy = PlayedBy.MODEL) -> Participant:
        """Seat somebody, last in order. What they see of what was said before, the setting ``joiner_sees`` tells.

        Who has left comes back to the same seat: the one with that persona and name; a human only by an owner.
        """
        return self._runtime.run(casts.join(self._scope, seat, played_by))

    def leave(self, seat: SeatRef) -> Participant:
        """Let somebody leave, who sees nothing of what is said from then on; the last one that the model or a human
        plays stays."""
        return self._runtime.run(casts.leave(self._scope, seat))

    def mute(self, seat: SeatRef, *, muted: bool = True) -> Participant:
        """Let a seat speak only when it is told to (``speak(participant)``), or as before."""
        return self._runtime.run(casts.mute(self._scope, seat, muted=muted))

    def move(self, seat: SeatRef, order: int) -> Participant:
        """Give a seat another place in the order of seats: before all with a higher ``order``."""
        return self._runtime.run(casts.move(self._scope, seat, order))

    def use(self, seat: SeatRef, persona: Played, *, version: int | None = None) -> Participant:
        """Seat another persona, or another version (the newest unless one is given). A display name that is not the
        persona's own stays."""
        return self._runtime.run(casts.use(self._scope, seat, persona, version))


class Tree:
    """The message tree of a session: where it stands, and the branches beside. O(1) rows each; nothing is copied.

    Raises ``NotFoundError``, ``InvalidInputError``, and ``ConflictError`` while a turn runs on the head.
    """

    def __init__(self, runtime: Runtime, scope: SessionScope) -> None:
        self._runtime = runtime
        self._scope = scope

    def choose(self, turn_id: str) -> Turn:
        """Stand on a turn that is complete, such as another variant of a reply or the tip of another branch."""
        return self._runtime.run(tree.choose(self._scope, turn_id))

    def fork(self, turn_id: str) -> Turn:
        """Stand on an earlier turn, so that the next line begins a branch of its own; what followed stays."""
        return self._runtime.run(tree.fork(self._scope, turn_id))

    def rewind(self, turns: int = 1) -> Turn | None:
        """Step back over the last ``turns`` turns; gives the turn stood on then, ``None`` before the first."""
        return self._runtime.run(tree.rewind(self._scope, turns))

    def edit(self, turn_id: str, text: str) -> Turn:
        """Give a reply other words, as a new variant beside it, and stand on it."""
        return self._runtime.run(tree.edit(self._scope, turn_id, text))

    def hide(self, turn_id: str) -> Turn:
        """Leave a turn out of contexts from now on; it stays in the transcript, marked."""
        return self._runtime.run(tree.hide(self._scope, turn_id, hidden=True))

    def show(self, turn_id: str) -> Turn:
        """Take a hidden turn into contexts again."""
        return self._runtime.run(tree.hide(self._scope, turn_id, hidden=False))

    def undo(self) -> Turn | None:
        """Take back the last move of the session that was not taken back yet; gives the turn stood on then."""
        return self._runtime.run(tree.undo(self._scope))

    def branches(self) -> Sequence[Turn]:
        """Give the last turn of every branch, newest first."""
        return self._runtime.run(tree.branches(self._scope))

    def variants(self, turn_id: str) -> Sequence[Turn]:
        """Give all variants of a turn's reply, oldest first."""
        return self._runtime.run(tree.variants(self._scope, turn_id))
