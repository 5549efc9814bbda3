"""Rules for the card of a dataset folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gptdynamics.dataset.checks.findings import Findings
from gptdynamics.dataset.folder import DatasetFolder
from gptdynamics.errors import DataError, GPTDynamicsError

_REWRITE = "Run the same collect command again: it rewrites the card"


def check_card(folder: DatasetFolder, findings: Findings) -> None:
    """Check that the card's YAML lists exactly the configurations and splits of the folder."""
    path = folder.root / "README.md"
    try:
        expected = folder.patterns()
    except GPTDynamicsError:
        return  # a file with an invalid name, which is reported as a fault elsewhere
    if not path.is_file():
        if expected:
            findings.add(path, "", "there is no card: load_dataset would not find the configurations", _REWRITE)
        return
    try:
        listed = _listed(path, findings)
    except DataError as error:
        findings.add(path, "", str(error), _REWRITE)
        return
    for config in dict.fromkeys([*expected, *listed]):
        for problem in _problems(expected.get(config), listed.get(config)):
            findings.add(path, f"configuration {config}", problem, _REWRITE)


def _problems(expected: dict[str, str] | None, listed: dict[str, Any] | None) -> list[str]:
    if listed is None or expected is None:
        return ["it is not listed" if listed is None else "it is listed, but does not exist"]
    return [
        *(f"split {split} is not listed" for split in expected if split not in listed),
        *(f"split {split} is listed, but does not exist" for split in listed if split not in expected),
        *(
            f"split {split} is {listed[split]!r}, not {pattern!r}"
            for split, pattern in expected.items()
            if split in listed and listed[split] != pattern
        ),
    ]


def _listed(path: Path, findings: Findings) -> dict[str, dict[str, Any]]:
    """The files of each split of each configuration that the card's YAML lists.

    Raises:
        DataError: it lists none.
    """
    from huggingface_hub import metadata_load

    try:
        configs = (metadata_load(path) or {}).get("configs")
    except Exception as error:  # of the YAML parser, or of text that is not UTF-8
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(f"its YAML cannot be read ({reason})") from error
    if not isinstance(configs, list):
        raise DataError("its YAML lists no configurations")
    listed: dict[str, dict[str, Any]] = {}
    for entry in configs:
        try:
            name, splits = (
                str(entry["config_name"]),
                {str(files["split"]): files["path"] for files in entry["data_files"]},
            )
        except (TypeError, KeyError):
            findings.add(path, "", f"{entry!r} does not list the files of a configuration", _REWRITE)
            continue
        if name in listed:
            findings.add(path, f"configuration {name}", "it is listed twice", _REWRITE)
        listed[name] = splits
    return listed
