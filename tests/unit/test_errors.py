"""Errors are data: each class can be made, told, sent to another process, and read by a program."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Iterator

import pytest

from roleplay import (
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

ONE_OF_EACH: list[RoleplayError] = [
    RoleplayError("something", turn_id="t1"),
    SettingsError("no key"),
    InvalidInputError("name", "is blank", allowed="words"),
    NotFoundError("session", "s1", hint="look again"),
    ConflictError("moved on", expected=3, found=4, turn_id="t1"),
    IdempotencyError("used before", found="t0"),
    BudgetError({"system": 30, "newest": 20}, 40),
    RefusedError("polite", "human", "rude"),
    ChatError("failed", code=1000, status=500, turn_id="t1"),
    ChatUnavailableError("busy", code=1002, status=429, retry_after_s=1.5, turn_id="t1"),
    ChatAuthError("refused", code=1004, status=401),
    ChatQuotaError("used up", code=1008, status=429, retry_after_s=60.0),
    ChatRequestError("unknown model", code=2013, status=400),
    ContentFilteredError("sensitive", side="input", category="abuse", code=1026, status=422),
    BadReplyError("unreadable", raw="<html>" * 200),
    EmptyReplyError("nothing said"),
    StoreError("disk full"),
    SchemaError("older", found="0001", expected="0002"),
]


def classes(root: type[RoleplayError] = RoleplayError) -> Iterator[type[RoleplayError]]:
    """The root and every class below it."""
    yield root
    for kind in root.__subclasses__():
        yield from classes(kind)


def test_one_of_each_is_here() -> None:
    """No class of the tree is left out of these tests."""
    assert {type(error) for error in ONE_OF_EACH} == set(classes())


@pytest.mark.parametrize("error", ONE_OF_EACH, ids=lambda error: type(error).__name__)
def test_an_error_is_json(error: RoleplayError) -> None:
    """Slug, message, whether to try again, turn and details, ready for JSON."""
    told = error.to_dict()
    assert json.loads(json.dumps(told)) == told
    assert (told["slug"], told["message"], told["retryable"]) == (error.slug, str(error), error.retryable)
    assert told["turn_id"] == error.turn_id
    assert str(error) == f"{error}" != ""


@pytest.mark.parametrize("error", ONE_OF_EACH, ids=lambda error: type(error).__name__)
def test_an_error_survives_another_process(error: RoleplayError) -> None:
    """Pickled or copied, an error keeps its class, its sentence and its data, as pools of processes need."""
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):  # noqa: S301 - ours
        assert type(again) is type(error)
        assert (str(again), again.args, again.to_dict()) == (str(error), error.args, error.to_dict())
        assert vars(again) == vars(error)


def test_the_builtin_kinds() -> None:
    """What programs catch already catches ours."""
    assert issubclass(InvalidInputError, ValueError)
    assert issubclass(NotFoundError, LookupError)
    assert not issubclass(NotFoundError, KeyError)


def test_only_what_may_pass_is_retryable() -> None:
    """An unavailable service and a lost race may be tried again; nothing else is."""
    assert {kind for kind in classes() if kind.retryable} == {ChatUnavailableError, ConflictError}


def test_sentences() -> None:
    """The class writes the sentence from its data."""
    assert str(InvalidInputError("name", "is blank")) == "name: is blank"
    assert str(NotFoundError("session", "x\n", hint="look again")) == "no session 'x\\n'; look again"
    assert str(BudgetError({"system": 30, "newest": 20}, 40)) == (
        "the required sections need 50 tokens, the budget is 40: system 30, newest 20"
    )
    assert str(ChatRequestError("unknown model", code=2013)) == "unknown model (code 2013)"
    assert str(ChatRequestError("unknown model")) == "unknown model"


def test_the_raw_answer_is_short_and_private() -> None:
    """At most 500 characters of an unreadable answer are kept, and they are in no text."""
    error = BadReplyError("unreadable", raw="x" * 5000)
    assert len(error.raw) == 500
    assert "xxxx" not in str(error) + json.dumps(error.to_dict())
