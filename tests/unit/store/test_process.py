"""Who holds a turn: a process knows itself, and knows when another of its host is gone."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from roleplay.store.access import process
from roleplay.store.access.process import is_dead, this_owner

NAME_YOURSELF = """
import sys
from roleplay.store.access.process import this_owner
print(this_owner(), flush=True)
sys.stdin.read()
"""


def another() -> tuple[subprocess.Popen[str], str]:
    """Another process that waits, and its name."""
    arguments = [sys.executable, "-c", NAME_YOURSELF]
    process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def test_a_process_is_alive_to_itself() -> None:
    """The name is the same each time, short enough for its column, and never that of a dead process."""
    assert this_owner() == this_owner()
    assert len(this_owner()) <= 200
    assert not is_dead(this_owner())


@pytest.mark.parametrize("how", ["ends", "is killed"])
def test_another_process_dies(how: str) -> None:
    """A running process is not dead; one that ended or was killed is, even before its parent has heard of it."""
    process, name = another()
    with process:
        assert name != this_owner()
        assert not is_dead(name)
        if how == "ends":
            assert process.stdin is not None
            process.stdin.close()
        else:
            process.kill()
        give_up = time.monotonic() + 10
        while not is_dead(name):  # not waited for yet: what is left of it must not count as alive
            assert time.monotonic() < give_up
            time.sleep(0.005)
        process.wait()
        assert is_dead(name)


def test_a_process_id_that_was_given_again() -> None:
    """A running process under the old one's number is another process: it started at another time."""
    host, pid, started = this_owner().rsplit("/", 2)
    assert (pid, started.isdigit()) == (str(os.getpid()), True)
    assert is_dead(f"{host}/{pid}/{int(started) - 1}")
    assert is_dead(f"{host}/{pid}/")


def test_of_other_hosts_nothing_is_known() -> None:
    """Another host, another boot of this one and another container are left to their leases."""
    host, _, started = this_owner().rsplit("/", 2)
    name, boot, namespace = host.rsplit(":", 2)
    for elsewhere in (f"x{name}:{boot}:{namespace}", f"{name}:00000000:{namespace}", f"{name}:{boot}:1", "", name):
        assert not is_dead(f"{elsewhere}/999999999/{started}")


@pytest.mark.parametrize("tail", ["", "/", "//", "/²/1", "/-1/1", "/1.5/1", "/x/1", "1"])
def test_what_is_no_name(tail: str) -> None:
    """A text that is no process's name is nobody known to be dead, and no failure."""
    assert not is_dead(f"{process._host()}{tail}")


@pytest.mark.parametrize("pid", ["999999999", "99999999999999999999999", "0"])
def test_a_number_that_no_process_has(pid: str) -> None:
    """A number that cannot be running belongs to a process that is gone."""
    assert is_dead(f"{process._host()}/{pid}/1")
