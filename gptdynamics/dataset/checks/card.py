"""The card of a dataset folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gptdynamics.dataset.checks.findings import Findings
from gptdynamics.dataset.folder import DatasetFolder
from gptdynamics.errors import GPTDynamicsError

_REWRITE = "Run the same collect command again: it writes the card anew"


def check_card(folder: DatasetFolder, findings: Findings) -> None:
    """Check that the card's YAML lists every configuration and split that is there, and none that is not."""
    try:
        wanted = folder.patterns()
    except GPTDynamicsError:
        return  # a file has a name that is a fault already
    path = folder.root / "README.md"
    if not path.is_file():
        if wanted:
            findings.add(path, "", "there is no card: load_dataset would not find the configurations", _REWRITE)
        return
    listed = _listed(path, findings)
    if listed is None:
        return
    for config in [*wanted, *(name for name in listed if name not in wanted)]:
        there, said = wanted.get(config, {}), listed.get(config, {})
        problems = [f"split {split} is not listed" for split in there if split not in said]
        problems += [f"split {split} is listed, but not there" for split in said if split not in there]
        problems += [
            f"split {split} is {said[split]!r}, not {there[split]!r}"
            for split in there
            if split in said and said[split] != there[split]
        ]
        if config not in listed:
            problems = ["it is not listed"]
        elif config not in wanted:
            problems = ["it is listed, but not there"]
        for problem in problems:
            findings.add(path, f"configuration {config}", problem, _REWRITE)


def _listed(path: Path, findings: Findings) -> dict[str, dict[str, Any]] | None:
    """The files of each split of each configuration that the card's YAML lists."""
    from huggingface_hub import metadata_load

    try:
        metadata = metadata_load(path)
    except Exception as error:  # of the YAML parser, or of text that is not UTF-8
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        findings.add(path, "", f"its YAML cannot be read ({reason})", _REWRITE)
        return None
    configs = (metadata or {}).get("configs")
    if not isinstance(configs, list):
        findings.add(path, "", "its YAML lists no configurations", _REWRITE)
        return None
    listed: dict[str, dict[str, Any]] = {}
    for each in configs:
        try:
            name, splits = str(each["config_name"]), {str(one["split"]): one["path"] for one in each["data_files"]}
        except (TypeError, KeyError):
            findings.add(path, "", f"{each!r} does not list the files of a configuration", _REWRITE)
            continue
        if name in listed:
            findings.add(path, f"configuration {name}", "it is listed twice", _REWRITE)
        listed[name] = splits
    return listed
