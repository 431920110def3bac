"""What every command ends in: Outcome, Result, Report; then one renderer a file."""

from harness.report.model import (
    EXIT_CANNOT_RUN,
    EXIT_CHECK_FAILED,
    EXIT_OK,
    EXIT_USAGE,
    Json,
    Outcome,
    Report,
    Result,
    exit_code,
)

__all__ = [
    "EXIT_CANNOT_RUN",
    "EXIT_CHECK_FAILED",
    "EXIT_OK",
    "EXIT_USAGE",
    "Json",
    "Outcome",
    "Report",
    "Result",
    "exit_code",
]
