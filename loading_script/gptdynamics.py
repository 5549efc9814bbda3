"""GPTDynamics for `datasets` older than 4, which want a script for a name of one's own.

    load_dataset("loading_script/gptdynamics.py", "rte_410m", trust_remote_code=True)

Newer versions read the repository through its card and need no script. The source is, in this order, the folder given
as `data_dir`, `$GPTDYNAMICS_DATASET` (a folder or a Hub id), and the repository of the release.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import pyarrow.parquet as pq
import yaml
from huggingface_hub import snapshot_download

DEFAULT_REPO = "gptdynamics/gptdynamics"
VARIABLE = "GPTDYNAMICS_DATASET"


@dataclass
class GPTDynamicsConfig(datasets.BuilderConfig):
    """A configuration, named as in the repository's card.

    Attributes:
        revision: branch, tag or commit of the repository on the Hub.
    """

    revision: str | None = None

    def root(self) -> Path:
        """The folder that holds the card and this configuration's files; what is on the Hub is fetched first."""
        source = self.data_dir or os.environ.get(VARIABLE) or DEFAULT_REPO
        if Path(source).is_dir():
            return Path(source).resolve()
        wanted = ["README.md", f"data/{self.name}/*.parquet"]
        return Path(snapshot_download(source, repo_type="dataset", revision=self.revision, allow_patterns=wanted))

    def files(self) -> dict[str, list[str]]:
        """Paths of each split's files, in the order of the runs.

        Raises:
            ValueError: the card lists no such configuration; the message has those that it lists.
        """
        root = self.root()
        card = (root / "README.md").read_text(encoding="utf-8")
        listed = {each["config_name"]: each["data_files"] for each in yaml.safe_load(card.split("---\n")[1])["configs"]}
        if self.name not in listed:
            raise ValueError(f"gptdynamics has no config {self.name!r}; it has: {', '.join(listed)}")
        return {each["split"]: sorted(str(path) for path in root.glob(each["path"])) for each in listed[self.name]}

    def create_config_id(self, config_kwargs: dict[str, Any], custom_features: Any = None) -> str:
        """A name for the cache that changes when a file is added or replaced."""
        stats = {path: Path(path).stat() for paths in self.files().values() for path in paths}
        state = [(path, stat.st_size, stat.st_mtime_ns) for path, stat in stats.items()]
        return super().create_config_id({**config_kwargs, "state": state}, custom_features)


class GPTDynamics(datasets.ArrowBasedBuilder):
    """Reads the Parquet files that the card lists."""

    BUILDER_CONFIG_CLASS = GPTDynamicsConfig

    def _info(self) -> datasets.DatasetInfo:
        path = next(iter(self.config.files().values()))[0]
        return datasets.DatasetInfo(features=datasets.Features.from_arrow_schema(pq.read_schema(path)))

    def _split_generators(self, dl_manager: Any) -> list[datasets.SplitGenerator]:
        return [
            datasets.SplitGenerator(name=split, gen_kwargs={"paths": paths})
            for split, paths in self.config.files().items()
        ]

    def _generate_tables(self, paths: list[str]) -> Any:
        for path in paths:
            yield path, pq.read_table(path, partitioning=None)
