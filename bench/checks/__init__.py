"""The contract of a method, as named checks: `bench check METHOD`, or as tests of the method's own package.

    from bench.checks import parametrize_with_checks

    @parametrize_with_checks("lora-fa")
    def test_contract(check):
        check()

`pytest --bench-check lora-fa` runs the same without a file. A check that does not apply is skipped, with the reason.
"""

from __future__ import annotations

from bench.checks.run import Check, Result, checks_of, parametrize_with_checks, run_checks

__all__ = ["Check", "Result", "checks_of", "parametrize_with_checks", "run_checks"]
