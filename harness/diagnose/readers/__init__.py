"""The readers: each knows one kind of text and makes facts of it. None of them raises, whatever the text."""

from __future__ import annotations

from harness.diagnose.facts import Fact, Note

Found = Fact | Note
