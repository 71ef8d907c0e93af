"""Plugin of pytest: `pytest --bench-check METHOD` adds a test for each check of a method."""

from __future__ import annotations

from typing import Any, cast

import pytest

from bench.checks.run import Check, checks_of
from bench.core.errors import BenchError


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--bench-check`."""
    about = "add a test for each check of a method of lowrank-bench, as `bench check METHOD`; repeatable"
    group = parser.getgroup("lowrank-bench")
    group.addoption("--bench-check", metavar="METHOD", action="append", default=[], help=about)


def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    """Add the tests."""
    for method in cast("list[str]", config.getoption("--bench-check")):
        try:
            checks = checks_of(method)
        except BenchError as error:
            raise pytest.UsageError(str(error)) from error
        for check in checks:
            name = f"{method}-{check.name}-{check.on}"
            items.append(CheckItem.from_parent(session, name=name, check=check))


class CheckItem(pytest.Item):
    """One check as a test."""

    def __init__(self, *, check: Check, **options: Any) -> None:
        super().__init__(**options)
        self.check = check

    def runtest(self) -> None:
        """Run the check."""
        self.check()

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], *args: Any, **options: Any) -> Any:
        """Show the reason of a check that does not hold, and the traceback of anything else."""
        if isinstance(excinfo.value, AssertionError):
            return str(excinfo.value)
        return super().repr_failure(excinfo, *args, **options)

    def reportinfo(self) -> tuple[str, None, str]:
        """Return where it is from."""
        return "bench.checks", None, self.name
