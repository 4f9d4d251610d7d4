"""The schema of the API, field by field, as ``tests/data/wire/fields.json`` lists it: the public argument that sets it
in a request, and the public attribute that gives it of a reply, from JSON and from a stream alike."""

from __future__ import annotations

import json
import socket
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from roleplay import Delta, DeltaKind, Endpoint, Persona, Roleplay, Sampling, Turn, TurnOptions
from tests.conftest import Ledger
from tests.support.http import KEY, Raw

CAPTURES = Path(__file__).parents[2] / "data/wire"
FIELDS: dict[str, dict[str, Any]] = json.loads((CAPTURES / "fields.json").read_text())

#: The argument of the front door that sets each field of a request. ``model_persona`` and ``human_persona`` are
#: the ``Persona`` of each seat, ``create`` is ``sessions.create``, and ``session.stream`` says which door is taken.
ARGUMENTS = {
    "model": "Endpoint.model",
    "stream": "session.stream",
    "stream_options.include_usage": "Endpoint.stream_usage",
    "max_completion_tokens": "Sampling.max_completion_tokens",
    "temperature": "Sampling.temperature",
    "top_p": "Sampling.top_p",
    "messages[].role": "",  # which argument a text is given by decides on its role: see ROLES
    "messages[].name": "model_persona.name",
    "messages[].content": "model_persona.description",
}
#: The argument whose text is sent under each role.
ROLES = {
    "system": "model_persona.description",
    "user_system": "human_persona.description",
    "group": "create.scene",
    "sample_message_user": "model_persona.examples",
    "sample_message_ai": "model_persona.examples",
    "user": "session.text",
    "assistant": "model_persona.greetings",
}
#: The attribute of a ``Turn`` that gives each field of a reply; a chunk's ``delta`` is a reply's ``message``.
ATTRIBUTES = {
    "id": "call.response_id",
    "created": "call.response_created",
    "model": "call.model_answered",
    "choices[].finish_reason": "call.finish_reason",
    "choices[].message.content": "reply.text",
    "choices[].message.reasoning_content": "call.reasoning",
    "usage.total_tokens": "usage.total_tokens",
    "usage.prompt_tokens": "usage.prompt_tokens",
    "usage.completion_tokens": "usage.completion_tokens",
    "usage.completion_tokens_details.reasoning_tokens": "usage.reasoning_tokens",
    "usage.prompt_tokens_details.cached_tokens": "usage.cached_tokens",
    "usage.cache_creation_input_tokens": "usage.cache_write_tokens",
    "input_sensitive": "call.sensitivity.input_sensitive",
    "input_sensitive_type": "call.sensitivity.input_sensitive_type",
    "output_sensitive": "call.sensitivity.output_sensitive",
    "output_sensitive_type": "call.sensitivity.output_sensitive_type",
    "output_sensitive_int": "call.sensitivity.output_sensitive_int",
    "base_resp.status_code": "call.base_resp.status_code",
    "base_resp.status_msg": "call.base_resp.status_msg",
}


def document(fields: dict[str, Any]) -> dict[str, Any]:
    """Make the JSON object that has these fields."""
    made: dict[str, Any] = {}
    for field, value in fields.items():
        *path, last = field.split(".")
        place = made
        for step in path:
            if step.endswith("[]"):
                place = place.setdefault(step.removesuffix("[]"), [{}])[0]
            else:
                place = place.setdefault(step, {})
        place[last] = value
    return made


def leaves(value: Any, path: str = "") -> Iterator[str]:
    """Name every field of a JSON value that holds no other; what is null or empty holds nothing."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from leaves(inner, f"{path}.{name}" if path else name)
    elif isinstance(value, list):
        for inner in value:
            yield from leaves(inner, f"{path}[]")
    elif value is not None:
        yield path


def answer(body: bytes) -> bytes:
    """Answer a request of either form as the data file says."""
    if json.loads(body)["stream"]:
        kind, text = "text/event-stream", f"data: {json.dumps(document(FIELDS['chunk']))}\n\ndata: [DONE]\n\n"
    else:
        kind, text = "application/json", json.dumps(document(FIELDS["response"]))
    return f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(text)}\r\n\r\n{text}".encode()


@pytest.fixture
def raw(ledger: Ledger) -> Iterator[Raw]:
    """A server that answers with every field there is."""

    def talk(connection: socket.socket, request: bytes) -> None:
        connection.sendall(answer(body_of(request)))

    one = Raw(talk)
    yield one
    one.close()
    ledger.bodies += map(body_of, one.heard)


def body_of(request: bytes) -> bytes:
    """The body of a request as it was received."""
    return request.partition(b"\r\n\r\n")[2]


class Talk:
    """One line said through the front door: the body that the server got, the turn, and its deltas."""

    def __init__(self, url: str, raw: Raw, given: dict[str, Any]) -> None:
        of: dict[str, dict[str, Any]] = defaultdict(dict)
        for argument, value in given.items():
            owner, _, name = argument.partition(".")
            of[owner][name] = value
        endpoint = Endpoint(
            **{"model": "MiniMax-M2.7", "base_url": raw.url, "api_key": KEY, "dialect": "minimax"} | of["Endpoint"]
        )
        with Roleplay.open(url, model=endpoint) as rp:
            nova = rp.personas.put(Persona(**{"name": "Nova", "description": "A pilot."} | of["model_persona"]))
            human = rp.personas.put(Persona(**{"name": "Traveler"} | of["human_persona"]))
            session = rp.sessions.create(cast=[nova], user=human, **of["create"])
            options = TurnOptions(sampling=Sampling(**of["Sampling"]))
            line = of["session"].get("text", "Where to?")
            self.deltas: list[Delta] = []
            if of["session"].get("stream"):
                with session.stream(line, options=options) as reply:
                    self.deltas += reply
                self.turn: Turn = reply.turn
            else:
                self.turn = session.send(line, options=options)
            self.read_again = session.turn(self.turn.id)
        self.body: dict[str, Any] = json.loads(body_of(raw.heard[-1]))


VALUES = [(field, value) for field, values in FIELDS["request"].items() for value in values]


@pytest.mark.parametrize(("field", "value"), [pair for pair in VALUES if pair[0] != "messages[].role"])
def test_every_request_field_has_its_argument(field: str, value: Any, sqlite_url: str, raw: Raw) -> None:
    """What is given to the argument stands in the field."""
    given = {ARGUMENTS[field]: value}
    if field == "stream_options.include_usage":
        given["session.stream"] = True
    found: Any = Talk(sqlite_url, raw, given).body
    for step in field.split("."):
        found = found[step.removesuffix("[]")]
        found = found[0] if isinstance(found, list) else found
    assert found == value


@pytest.mark.parametrize("role", FIELDS["request"]["messages[].role"])
def test_every_role_has_its_argument(role: str, sqlite_url: str, raw: Raw) -> None:
    """The text of the argument is sent under the role that is meant for it."""
    words = f"These words are for {role}."
    given: Any = words
    if ROLES[role].endswith("examples"):
        given = [[{"{{user}}" if role.endswith("user") else "{{char}}": words}]]
    if ROLES[role].endswith("greetings"):
        given = [words]
    sent = Talk(sqlite_url, raw, {ROLES[role]: given}).body["messages"]
    assert [message["role"] for message in sent if message["content"] == words] == [role]


@pytest.mark.parametrize("form", ["response", "chunk"])
def test_every_response_field_has_its_attribute(form: str, sqlite_url: str, raw: Raw) -> None:
    """What the service said in a field is given by the attribute, at once and when it is read again."""
    said = Talk(sqlite_url, raw, {"session.stream": form == "chunk"})
    expected = {in_message(field): value for field, value in FIELDS[form].items()}
    for turn in (said.turn, said.read_again):
        given = {field: follow(turn, path) for field, path in ATTRIBUTES.items()}
        assert given == {field: expected[field] for field in ATTRIBUTES}
    if form == "chunk":
        assert [(one.kind, one.text) for one in said.deltas] == [
            (DeltaKind.REASONING, expected["choices[].message.reasoning_content"]),
            (DeltaKind.SPEECH, expected["choices[].message.content"]),
        ]


def in_message(field: str) -> str:
    """A field of a chunk as it is called in a whole reply."""
    return field.replace("[].delta.", "[].message.")


def follow(value: Any, path: str) -> Any:
    """Walk a dotted path of attributes."""
    for step in path.split("."):
        value = getattr(value, step)
    return value


def test_no_field_is_forgotten() -> None:
    """Each field of the list has its argument, its attribute, or a reason to have none; no other has."""
    assert set(ARGUMENTS) == set(FIELDS["request"])
    assert set(ROLES) == set(FIELDS["request"]["messages[].role"])
    listed = {in_message(field) for form in ("response", "chunk") for field in FIELDS[form]}
    reasons = FIELDS["without_attribute"]
    assert set(ATTRIBUTES) == listed - set(reasons)
    assert all(reasons.values())


def test_the_list_knows_every_field_that_is_sent(sqlite_url: str, raw: Raw) -> None:
    """Our requests hold what is listed, and all of it."""
    given = {f"Sampling.{name}": 1 for name in ("temperature", "top_p", "max_completion_tokens")}
    assert set(leaves(Talk(sqlite_url, raw, {"session.stream": True, **given}).body)) == set(FIELDS["request"])


def captured(path: Path) -> list[Any]:
    """The JSON objects of a capture."""
    text = path.read_text()
    if path.suffix == ".json":
        return [json.loads(text)]
    lines = (line.removeprefix("data:").strip() for line in text.splitlines() if line.startswith("data:"))
    return [json.loads(line) for line in lines if line != "[DONE]"]


REPLIES = [
    path
    for path in sorted((*CAPTURES.glob("*.json"), *CAPTURES.glob("*.sse")))
    if path.name != "fields.json" and '"choices"' in path.read_text()
]


@pytest.mark.parametrize("path", REPLIES, ids=lambda path: path.name)
def test_the_list_knows_every_field_that_is_received(path: Path) -> None:
    """A captured reply holds nothing that the list does not know."""
    known = {in_message(field) for form in ("response", "chunk") for field in FIELDS[form]}
    found = {in_message(field) for event in captured(path) for field in leaves(event)}
    assert found
    assert found - known - set(FIELDS["without_attribute"]) == set()
