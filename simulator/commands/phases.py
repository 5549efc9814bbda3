"""A progress bar for each phase of something long."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from gptdynamics.console import progress_bar


@contextmanager
def phases() -> Iterator[tuple[Callable[[str, int], None], Callable[[], None]]]:
    """`on_phase(name, parts)` and `on_progress()`, shown on standard error."""
    with progress_bar() as progress:
        current = [progress.add_task("reading", total=None)]

        def on_phase(name: str, total: int) -> None:
            progress.update(current[0], visible=False)
            current[0] = progress.add_task(name, total=total)

        yield on_phase, lambda: progress.advance(current[0])
