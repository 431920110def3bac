"""Failures of the guide, brought about for real: catalogue() names them, reproduce() shows them, tell() tells all."""

from harness.failures.perform import reproduce
from harness.failures.table import catalogue
from harness.failures.telling import tell

__all__ = ["catalogue", "reproduce", "tell"]
