"""A fleet from its source into its store, on all cores."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path

from harness import interruption
from harness.diagnose.fleet.bundles import Bundle, opened
from harness.diagnose.fleet.judgement import Row, judge
from harness.diagnose.fleet.store import Store
from harness.kernel import processes

_BUNDLES, _BYTES = 256, 4 << 20  # of a batch, which is one transaction: a run that is ended loses no more
_AHEAD = 3  # batches that wait for each worker: memory is bounded by them, not by the fleet

Progress = Callable[[int, int, int | None], None]
"""Called with the bundles that are done, the bytes that are read, and all bytes (None where nobody knows)."""


def run(path: Path, store: Store, jobs: int, progress: Progress) -> tuple[int, int]:
    """Judge every bundle that has no row yet; gives how many there are and how many were judged now.

    Raises HarnessError when the fleet cannot be opened or the store cannot be written. When it is interrupted,
    what is stored stays, and the next run goes on from there.
    """
    count = judged = 0
    with opened(path) as source:
        for size, rows in _judged(_batches(source.bundles), store, jobs):
            interruption.check()
            store.add(rows)
            count, judged = count + size, judged + len(rows)
            progress(count, source.done(), source.size)
    store.finish()
    return count, judged


def _batches(bundles: Iterator[Bundle]) -> Iterator[list[Bundle]]:
    batch, size = list[Bundle](), 0
    for bundle in bundles:
        batch.append(bundle)
        size += sum(len(data) for _, data in bundle.documents)
        if len(batch) >= _BUNDLES or size >= _BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _judged(batches: Iterator[list[Bundle]], store: Store, jobs: int) -> Iterator[tuple[int, list[Row]]]:
    """For each batch how many bundles it has, and the new rows."""
    if jobs == 1:
        for batch in batches:
            yield len(batch), _judge_all(store.unknown(batch))
        return
    context = multiprocessing.get_context("fork")
    waiting: deque[tuple[int, Future[list[Row]]]] = deque()
    with ProcessPoolExecutor(jobs, context, _be_worker, (os.getpid(),)) as pool:
        try:
            for batch in batches:
                waiting.append((len(batch), pool.submit(_judge_all, store.unknown(batch))))
                if len(waiting) >= _AHEAD * jobs:
                    size, future = waiting.popleft()
                    yield size, future.result()
            while waiting:
                size, future = waiting.popleft()
                yield size, future.result()
        finally:
            for _, future in waiting:
                future.cancel()


def _be_worker(parent: int) -> None:
    """A worker ends when its parent says so or is gone: a terminal's Ctrl-C, which comes to both, is the parent's."""
    processes.die_with_parent(parent)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def _judge_all(bundles: Sequence[Bundle]) -> list[Row]:
    return [judge(bundle) for bundle in bundles]
