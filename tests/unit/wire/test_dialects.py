"""How a context is written for each kind of server."""

from __future__ import annotations

import pytest

from roleplay.domain.context import ContextMessage, Role
from roleplay.domain.endpoint import Dialect
from roleplay.errors import InvalidInputError
from roleplay.wire.dialects import demands
from roleplay.wire.recipes import CURRENT

SYSTEM = ContextMessage(Role.SYSTEM, "Zhuge Liang", "You are Zhuge Liang.")
NOTE = ContextMessage(Role.SYSTEM, "Zhuge Liang", "It snows.")
FRONT = [
    SYSTEM,
    ContextMessage(Role.USER_SYSTEM, "Traveler", "A student."),
    ContextMessage(Role.GROUP, "Longzhong", "Longzhong"),
    ContextMessage(Role.SAMPLE_USER, "Traveler", "Will it rain?"),
    ContextMessage(Role.SAMPLE_AI, "Zhuge Liang", "At the third watch."),
    ContextMessage(Role.SAMPLE_AI, "Zhuge Liang", "Sit."),
]


def user(text: str, name: str = "Traveler") -> ContextMessage:
    return ContextMessage(Role.USER, name, text)


def assistant(text: str, name: str = "Zhuge Liang") -> ContextMessage:
    return ContextMessage(Role.ASSISTANT, name, text)


def minimax(*messages: ContextMessage) -> list[tuple[str, str, str]]:
    return [(one["role"], one["name"], one["content"]) for one in CURRENT.write(Dialect.MINIMAX, messages)]


def strict(*messages: ContextMessage) -> list[tuple[str, str]]:
    return [(one["role"], one["content"]) for one in CURRENT.write(Dialect.STRICT, messages)]


def openai(*messages: ContextMessage) -> list[tuple[str, str]]:
    return [(one["role"], one["content"]) for one in CURRENT.write(Dialect.OPENAI, messages)]


def test_demands_say_that_names_cost() -> None:
    """Names cost in both dialects: as fields in one, as headings and prefixes in the other."""
    assert (demands(Dialect.MINIMAX).names, demands(Dialect.OPENAI).names) == (True, True)
    assert (demands(Dialect.MINIMAX).fixed_tokens, demands(Dialect.MINIMAX).per_message_tokens) == (16, 5)


def test_minimax_writes_all_seven_roles_with_fixed_keys() -> None:
    """Every role keeps its place, its name and its text, and the keys their order."""
    messages = [*FRONT, user("Hello."), assistant("Welcome.")]
    written = CURRENT.write(Dialect.MINIMAX, messages)
    assert [tuple(one) for one in written] == [("role", "name", "content")] * 8
    assert minimax(*messages) == [(one.role.value, one.name, one.text) for one in messages]


def test_minimax_puts_an_instruction_before_the_next_users_words() -> None:
    """A late system message goes into the next user message, in brackets."""
    written = minimax(SYSTEM, user("Hello."), NOTE, assistant("Welcome."), user("Tell me."))
    assert written[1:] == [
        ("user", "Traveler", "Hello."),
        ("assistant", "Zhuge Liang", "Welcome."),
        ("user", "Traveler", "[It snows.]\n\nTell me."),
    ]


def test_minimax_puts_a_last_instruction_behind_the_last_users_words() -> None:
    """With no user message after it, an instruction ends the last one."""
    assert minimax(SYSTEM, user("Hello."), assistant("Welcome."), NOTE)[1] == (
        "user",
        "Traveler",
        "Hello.\n\n[It snows.]",
    )


def test_minimax_makes_an_instruction_a_message_where_there_is_no_user() -> None:
    """With no user message at all, the instruction becomes one under its own name."""
    assert minimax(SYSTEM, NOTE) == [
        ("system", "Zhuge Liang", "You are Zhuge Liang."),
        ("user", "Zhuge Liang", "[It snows.]"),
    ]


def test_minimax_merges_neighbours_of_one_speaker() -> None:
    """Two messages of one speaker become one, without a name in the text."""
    assert minimax(SYSTEM, user("One."), NOTE, user("Two."))[1:] == [
        ("user", "Traveler", "One.\n\n[It snows.]\n\nTwo.")
    ]


def test_minimax_names_the_speakers_it_merges() -> None:
    """Neighbours of several speakers are named before their words, and instructions are nobody's."""
    assert minimax(SYSTEM, user("One."), NOTE, user("Two.", "Bo"))[1:] == [
        ("user", "Traveler", "Traveler: One.\n\n[It snows.]\n\nBo: Two.")
    ]


def test_minimax_leaves_neighbouring_samples_alone() -> None:
    """Samples are not merged."""
    assert [role for role, _, _ in minimax(*FRONT)][-2:] == ["sample_message_ai", "sample_message_ai"]


def test_names_are_cleaned_and_never_blank() -> None:
    """Control characters leave a name; a name of nothing else is refused."""
    assert minimax(user("Hi.", " Bo\nthe\x00 Bold "))[0][1] == "Bo the  Bold"
    with pytest.raises(InvalidInputError, match="blank in a user message"):
        minimax(user("Hi.", "\n"))


def test_blank_messages_are_left_out() -> None:
    """No message has blank content, and its neighbours are merged."""
    assert minimax(SYSTEM, user("One."), assistant(" \n"), user("Two."))[1:] == [("user", "Traveler", "One.\n\nTwo.")]


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("<think>Hm.</think>\n\nYes.", "Yes."),
        ("<think>Hm.</think>", "…"),
        ("<think>cut off", "…"),
        ("</think>\n\nYes.", "Yes."),
        (" Yes. ", " Yes. "),
    ],
)
def test_thinking_never_goes_back(text: str, left: str) -> None:
    """Reasoning in the model's own lines is not sent; a line of nothing else is held by an ellipsis."""
    assert minimax(SYSTEM, assistant(text))[1] == ("assistant", "Zhuge Liang", left)


def test_a_user_may_write_about_tags() -> None:
    """What a user wrote is sent as it is."""
    assert minimax(user("What is <think>?"))[0][2] == "What is <think>?"


def test_openai_folds_the_front_into_one_system_message() -> None:
    """The role-play roles become sections under names, with no word of ours, and a transcript."""
    assert openai(*FRONT, user("Hello."))[0] == (
        "system",
        (
            "# Zhuge Liang\nYou are Zhuge Liang.\n\n# Traveler\nA student.\n\n# Longzhong\n\n"
            "***\nTraveler: Will it rain?\nZhuge Liang: At the third watch.\nZhuge Liang: Sit.\n***"
        ),
    )


def test_openai_sends_no_names_but_those_of_other_speakers() -> None:
    """Others than the user persona are named in the text; the model's seat is not."""
    messages = [
        *FRONT,
        user("It is late.", "Bo"),
        user("Hello."),
        assistant("Welcome.", "Kongming"),
        user("Yes.", "Bo"),
    ]
    assert [tuple(one) for one in CURRENT.write(Dialect.OPENAI, messages)] == [("role", "content")] * 4
    assert openai(*messages)[1:] == [
        ("user", "Bo: It is late.\n\nHello."),
        ("assistant", "Welcome."),
        ("user", "Bo: Yes."),
    ]


def test_openai_takes_the_first_speaker_for_the_user_without_a_persona() -> None:
    """Without a user persona the first user in the history needs no name."""
    assert openai(SYSTEM, user("Hello."), assistant("Welcome."), user("Late.", "Bo"))[1:] == [
        ("user", "Hello."),
        ("assistant", "Welcome."),
        ("user", "Bo: Late."),
    ]


def test_openai_merges_late_instructions() -> None:
    """There is one system message; late instructions go the same way as in the other dialect."""
    assert openai(SYSTEM, NOTE, user("Hello."), assistant("Welcome."), NOTE) == [
        ("system", "# Zhuge Liang\nYou are Zhuge Liang."),
        ("user", "[It snows.]\n\nHello.\n\n[It snows.]"),
        ("assistant", "Welcome."),
    ]


def test_strict_folds_the_system_text_into_the_first_user_message() -> None:
    """As the folded form, but with nothing but user and assistant in turn."""
    said = [user("Hello."), assistant("Welcome."), user("Late.", "Bo"), user("Yes."), NOTE]
    folded = openai(*FRONT, *said)
    assert strict(*FRONT, *said) == [("user", f"{folded[0][1]}\n\nHello."), *folded[2:]]
    assert strict(*FRONT, *said)[-1] == ("user", "Bo: Late.\n\nYes.\n\n[It snows.]")


def test_strict_puts_the_line_before_a_greeting_behind_the_system_text() -> None:
    """The line is a message of the history; an instruction stays with the user's next words."""
    assert strict(SYSTEM, user("(You first.)"), NOTE, assistant("Sit."), user("Hello.")) == [
        ("user", "# Zhuge Liang\nYou are Zhuge Liang.\n\n(You first.)"),
        ("assistant", "Sit."),
        ("user", "[It snows.]\n\nHello."),
    ]


def test_strict_begins_with_a_user_whatever_comes() -> None:
    """Without such a line the system text leads, as a last resort a message without words."""
    assert strict(SYSTEM, assistant("Sit.")) == [
        ("user", "# Zhuge Liang\nYou are Zhuge Liang."),
        ("assistant", "Sit."),
    ]
    assert strict(assistant("Sit.")) == [("user", "…"), ("assistant", "Sit.")]
    assert strict(SYSTEM) == [("user", "# Zhuge Liang\nYou are Zhuge Liang.")]


@pytest.mark.parametrize("dialect", list(Dialect))
def test_nothing_gives_nothing(dialect: Dialect) -> None:
    """An empty context is an empty list."""
    assert CURRENT.write(dialect, []) == []
