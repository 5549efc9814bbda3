"""Claims: several collectors share a folder without making a run twice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from gptdynamics.errors import DataError


class Claims:
    """Locks under `<folder>/.claims`, one for each job. The system releases them when their process dies.

    Args:
        root: the dataset folder.
    """

    def __init__(self, root: Path) -> None:
        self.folder = root / ".claims"
        self._held: dict[str, FileLock] = {}

    def _lock(self, name: str) -> FileLock:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"cannot write {self.folder}: {error.strerror or error}") from error
        return FileLock(self.folder / f"{name}.lock")

    def take(self, name: str) -> bool:
        """Claim a job; False if another collector has it."""
        lock = self._lock(name)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return False
        except OSError as error:
            raise DataError(f"cannot write {self.folder}: {error.strerror or error}") from error
        self._held[name] = lock
        return True

    def give_back(self, name: str) -> None:
        """Release a claim: its job is done, or another collector may do it."""
        lock = self._held.pop(name)
        # Removed before it is released, so that the next collector makes a new file and checks again whether the job
        # is done.
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()

    def give_back_all(self) -> None:
        """Release all claims of this collector."""
        for name in list(self._held):
            self.give_back(name)

    def remove_left(self) -> None:
        """Remove the claims of collectors that were killed."""
        for path in self.folder.glob("*.*.lock"):
            name = path.name.removesuffix(".lock")
            if self.take(name):
                self.give_back(name)

    @contextmanager
    def whole_folder(self) -> Iterator[None]:
        """Lock the files that several collectors write: examples, manifests, the card."""
        lock = self._lock("folder")
        try:
            lock.acquire()
        except OSError as error:
            raise DataError(f"cannot write {self.folder}: {error.strerror or error}") from error
        try:
            yield
        finally:
            lock.release()
