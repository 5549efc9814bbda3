"""Fixtures of tests that use the loopback Hub."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hub.server import Hub, serve
from tests.warm_python import WarmPython, warm_python


@pytest.fixture(scope="session")
def client() -> Iterator[WarmPython]:
    """Processes of their own for `datasets` and other clients that read the environment when they are imported."""
    with warm_python("pandas", "pyarrow.dataset", "pyarrow.parquet", "fsspec", "httpx2", "dill", "yaml") as warm:
        yield warm


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """An empty Hub with the users ada, ben (who may write) and cy (who may read).

    The clients in this process use it, too, with ada's token; processes of their own get it by `hub.environment`.
    """
    import datasets
    from huggingface_hub import constants
    from huggingface_hub.utils import close_session

    with serve() as running:
        token = running.store.add_user("ada")
        running.store.add_user("ben")
        running.store.add_user("cy", "read")
        monkeypatch.setattr(constants, "ENDPOINT", running.url)
        # transformers keeps a client, which may be that of an earlier test's Hub.
        if "transformers.utils.hub" in sys.modules:
            monkeypatch.setattr("transformers.utils.hub._hf_api", None)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", running.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
            monkeypatch.setattr(constants, name, str(tmp_path / "home" / "hub"))
        for name, value in {
            "HF_ENDPOINT": running.url,
            "HUB_DATASETS_URL": running.url + "/datasets/{repo_id}/resolve/{revision}/{path}",
            "HF_HUB_OFFLINE": False,
            "USE_PARQUET_EXPORT": False,
            "HF_UPDATE_DOWNLOAD_COUNTS": False,
            "HF_DATASETS_CACHE": tmp_path / "home" / "datasets",
        }.items():
            monkeypatch.setattr(datasets.config, name, value)
        monkeypatch.setenv("HF_TOKEN", token)
        # The clients keep connections, and what they know of a repository, for the whole process.
        close_session()
        yield running
        close_session()
