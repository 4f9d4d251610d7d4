"""Jump pointers: how deep each goes, and how few steps they leave."""

from __future__ import annotations

from roleplay.store.records.ancestry import jump_depth, jump_of

DEPTHS = 5_000


def test_a_pointer_follows_from_the_parents() -> None:
    """The rule of skew-binary numbers: twice as far where the parent's two jumps are as long as each other."""
    assert jump_depth(1) == 1
    for depth in range(2, DEPTHS):
        parent = depth - 1
        once, twice = jump_depth(parent), jump_depth(jump_depth(parent))
        assert jump_depth(depth) == (twice if parent - once == once - twice else parent)


def test_a_new_message_looks_at_no_more_than_two_others() -> None:
    """The first names itself, half of the others their parent; for the rest the parent's pointer is looked up."""
    for depth in range(1, DEPTHS):
        to, over = jump_of(depth + 7, depth + 6 if depth > 1 else None, depth)
        assert (to is None) != (over is None)
        if to is not None:
            assert to == (depth + 6 if depth > 1 else depth + 7)
            assert jump_depth(depth) == max(depth - 1, 1)


def test_few_steps_lead_to_any_depth() -> None:
    """At most three for each doubling of the path."""
    for head in (7, 1_000, 1_024, DEPTHS - 1):
        longest = 0
        for depth in range(1, head + 1):
            here, steps = head, 0
            while here > depth:
                here = jump_depth(here) if jump_depth(here) >= depth else here - 1
                steps += 1
            longest = max(longest, steps)
        assert longest <= 3 * head.bit_length()
