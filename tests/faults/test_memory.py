"""However much a service sends, a process keeps a bounded part of it."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from roleplay.testing import Simulator
from roleplay.testing.simulator import EndlessStream, HugeLine
from roleplay.wire.sse import LINE_LIMIT, REPLY_LIMIT
from tests.conftest import KEY, Ledger

ROOT = Path(__file__).parents[2]
HUGE = 3 * REPLY_LIMIT
#: What is sent, how it is asked for, and how many bytes more than before the process may need for it at its peak. A
#: text is a few times in memory: as it came, as it is put together, and as it is written.
CASES = [
    (HugeLine(1), "stream", 0),
    (HugeLine(HUGE), "stream", 6 * LINE_LIMIT),
    (HugeLine(HUGE, comment=True), "stream", 6 * LINE_LIMIT),
    (HugeLine(HUGE), "whole", 5 * REPLY_LIMIT),
    (EndlessStream(0), "stream", 8 * REPLY_LIMIT),
]


@pytest.mark.parametrize("shell", ["sync", "asyncio"])
def test_memory_is_bounded(sqlite_url: str, ledger: Ledger, shell: str) -> None:
    """A line, a body and a stream that go on and on are ended as bad replies; what was heard is stored."""
    with Simulator(KEY, chunk_characters=16_000) as simulator:
        ledger.simulators.append(simulator)
        simulator.say(*["Snow falls on the pass. " * 300] * len(CASES))
        for fault, _, _ in CASES:
            simulator.next(fault)
        modes = [mode for _, mode, _ in CASES]
        command = [sys.executable, "-m", "tests.support.memory_hog", shell, sqlite_url, simulator.base_url, KEY, *modes]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines() if line]
    assert [one["error"] for one in told] == [None] + ["bad_reply"] * 4
    assert [one["status"] for one in told] == ["completed", "failed", "failed", "failed", "interrupted"]
    assert all(one["heard"] == one["stored"] for one in told)
    assert 0.9 * REPLY_LIMIT < told[-1]["heard"] <= REPLY_LIMIT
    for (before, after), (fault, mode, most) in zip(pairwise(told), CASES[1:], strict=True):
        assert (after["peak_kib"] - before["peak_kib"]) * 1024 < most, (fault, mode)
