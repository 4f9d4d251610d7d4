"""A process of its own that asks hostile servers: `python -m tests.support.bombed SHELL URL MODE:PORT...`.

It prints a line of JSON for each: the error's slug, the peak of its memory so far, and for asyncio the most processor
time that its event loop took without a turn for others, which other processes make no longer.
"""

from __future__ import annotations

import asyncio
import json
import re
import resource
import sys
import time
from pathlib import Path

from roleplay import AsyncRoleplay, Endpoint, Persona, Retry, Roleplay, RoleplayError

MIRA = Persona("Mira")


async def ask(mode: str, url: str, endpoint: Endpoint) -> tuple[str, float]:
    """Ask with asyncio, beside a task that notes what the loop does until it wakes."""
    worst = 0.0

    async def tick() -> None:
        nonlocal worst
        while True:
            before = time.thread_time()
            await asyncio.sleep(0.01)
            worst = max(worst, time.thread_time() - before)

    async with await AsyncRoleplay.open(url, model=endpoint) as rp:
        session = await rp.sessions.create(cast=[await rp.personas.put(MIRA)])
        ticking = asyncio.create_task(tick())
        await asyncio.sleep(0.05)
        told = ""
        try:
            if mode == "send":
                await session.send("Where to?")
            else:
                async with await session.stream("Where to?") as reply:
                    async for _ in reply:
                        pass
        except RoleplayError as error:
            told = error.slug
        await asyncio.sleep(0.02)
        ticking.cancel()
    return told, worst


def ask_blocking(mode: str, url: str, endpoint: Endpoint) -> str:
    """Ask with the blocking engine."""
    with Roleplay.open(url, model=endpoint) as rp:
        session = rp.sessions.create(cast=[rp.personas.put(MIRA)])
        try:
            if mode == "send":
                session.send("Where to?")
            else:
                with session.stream("Where to?") as reply:
                    for _ in reply:
                        pass
        except RoleplayError as error:
            return error.slug
    return ""


def main(shell: str, url: str, *asked: str) -> None:
    """Ask, and print what came of it."""
    for one in asked:
        mode, _, port = one.partition(":")
        base = f"http://127.0.0.1:{port}"
        endpoint = Endpoint("MiniMax-M2.7", base_url=base, api_key="k", timeout_s=1, retry=Retry(attempts=1))
        if shell == "sync":
            told, blocked = ask_blocking(mode, url, endpoint), 0.0
        else:
            told, blocked = asyncio.run(ask(mode, url, endpoint))
        print(json.dumps({"error": told, "peak_mib": peak_kib() / 1024, "blocked_s": blocked}))  # noqa: T201


def peak_kib() -> int:
    """Give the most memory that this process had; where Linux tells it, without that of the process that started it."""
    status = Path("/proc/self/status")
    if status.exists() and (found := re.search(r"VmHWM:\s+(\d+) kB", status.read_text())):
        return int(found[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


main(*sys.argv[1:])
