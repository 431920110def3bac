"""Failures of the guide, brought about for real: catalogue() names them, reproduce() shows them one by one."""

from harness.failures.perform import reproduce
from harness.failures.table import catalogue

__all__ = ["catalogue", "reproduce"]
