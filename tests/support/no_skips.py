"""A pytest plugin: a test that was skipped or expected to fail counts as a failure of the run.

A skipped test reads like a passed one and holds nothing. Registered by ``pytest_plugins`` in the top ``conftest.py``;
under pytest-xdist the reports of every worker reach the controller, which is where the verdict falls.
"""

from __future__ import annotations

import pytest


class NoSkips:
    """Collects what did not run and turns a green run with such tests into a failed one."""

    def __init__(self) -> None:
        self.unheld: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a test that was skipped, or whose failure was expected, or that passed against expectation."""
        if report.skipped or hasattr(report, "wasxfail"):
            self.unheld[report.nodeid] = reason_of(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Note a whole module that skipped itself while being imported."""
        if report.skipped:
            self.unheld[report.nodeid] = reason_of(report)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Fail the run when it would have been green."""
        if self.unheld and exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Name each such test with its reason."""
        if not self.unheld:
            return
        terminalreporter.section("not run, and so failed")
        for nodeid, reason in sorted(self.unheld.items()):
            terminalreporter.write_line(f"{nodeid}: {reason}")


def reason_of(report: pytest.TestReport | pytest.CollectReport) -> str:
    """Give the reason that a report carries, in one line."""
    expected = getattr(report, "wasxfail", None)
    if expected is not None:
        return f"xfail {expected}".strip()
    if isinstance(report.longrepr, tuple):
        return str(report.longrepr[2])
    return str(report.longrepr).strip().rpartition("\n")[2]


def pytest_configure(config: pytest.Config) -> None:
    """Put the collector in, on the controller alone: the workers only pass reports on."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(NoSkips(), "roleplay-no-skips")
