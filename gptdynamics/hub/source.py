"""The source of the configs of the short name: `$GPTDYNAMICS_DATASET`, the bundled sample, or the Hub."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from gptdynamics.errors import DataError, SettingsError

SHORT_NAME = "gptdynamics"
DEFAULT_REPO = "gptdynamics/gptdynamics"
VARIABLE = "GPTDYNAMICS_DATASET"
BUNDLED = Path(__file__).resolve().parents[1]

_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


def is_hub_id(name: str) -> bool:
    """Whether a name has the form `<owner>/<name>`."""
    return _ID.fullmatch(name) is not None and not name.startswith(".")


def check_source(source: str, configs: Iterable[str] = ()) -> None:
    """Check by file names that a folder exists and has these configs; Hub ids are not checked.

    Raises:
        DataError: there is no such folder.
        SettingsError: it lacks a config; the message lists the available ones.
    """
    root = Path(source)
    if source == SHORT_NAME or (is_hub_id(source) and not root.exists()):
        return
    if not root.is_dir():
        raise DataError(f"{source}: no such dataset folder. Name a folder or a Hub id <owner>/<name>")
    existing = sorted(path.stem for path in root.glob("manifests/*.json"))
    for config in configs:
        if existing and config not in existing:
            raise SettingsError(f"{source} has no runs of config {config!r}; it has: {', '.join(existing)}")


def chosen_source() -> str | None:
    """The folder (as an absolute path) or Hub id in `$GPTDYNAMICS_DATASET`, if set; SettingsError if it is neither."""
    value = os.environ.get(VARIABLE)
    if not value:
        return None
    folder = Path(value).expanduser()
    if folder.is_dir():
        return str(folder.resolve())
    if is_hub_id(value):
        return value
    raise SettingsError(f"${VARIABLE} is {value!r}: neither a folder nor a Hub id <owner>/<name>. Set it to one")


def bundled_configs() -> list[str]:
    """Names of the configurations that come with the package, including those of runs and examples."""
    card = BUNDLED / "README.md"
    if not card.is_file():
        return []
    from huggingface_hub import metadata_load

    listed = (metadata_load(card) or {}).get("configs")
    return [str(entry["config_name"]) for entry in listed] if isinstance(listed, list) else []


def source_of(config: str, revision: str | None = None) -> str:
    """The folder or Hub id that a configuration of the short name is read from.

    The bundled sample has no revisions, and is not used if `revision` is given. Raises SettingsError if a revision is
    given for a folder, or `$GPTDYNAMICS_DATASET` is invalid.
    """
    chosen = chosen_source()
    if chosen is not None:
        if revision is not None and not is_hub_id(chosen):
            raise SettingsError(f"${VARIABLE} is a folder, {chosen}, which has no revisions: leave out {revision!r}")
        return chosen
    if revision is None and config in bundled_configs():
        return str(BUNDLED)
    return DEFAULT_REPO


def missing_config_error(
    config: str, source: str, error: BaseException, available: list[str]
) -> SettingsError | DataError:
    """The error for a configuration that was not found; `available` are those of the source, empty if unreadable."""
    bundled = [] if chosen_source() is not None else _like(config, bundled_configs())
    if available:
        listed = ", ".join(dict.fromkeys([*bundled, *_like(config, available)]))
        return SettingsError(f"{SHORT_NAME} has no config {config!r} (looked in {source}); it has: {listed}")
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    sample_text = f"the bundled sample (it has: {', '.join(bundled)})" if bundled else "a bundled sample"
    place = (
        f"config {config!r} is not in {sample_text}, and {source}"
        if chosen_source() is None
        else f"{source} (${VARIABLE})"
    )
    return DataError(
        f"{place} cannot be read ({reason}). Connect to the Hub, set ${VARIABLE} to a folder or Hub id "
        f"that has {config}, or make it: gptdynamics collect {_collected(config)} --output DIR"
    )


def _like(config: str, names: list[str]) -> list[str]:
    """Those of the names that are of runs, of gradients, of examples or of trajectories, as the config is."""
    # `configs` imports this module.
    from gptdynamics.configs import RESERVED_SIZES

    parts = tuple(f"_{size}" for size in RESERVED_SIZES)
    own = next((part for part in parts if config.endswith(part)), None)
    return [name for name in names if (name.endswith(own) if own else not name.endswith(parts))]


def _collected(config: str) -> str:
    """The config to collect for a configuration of runs or of gradients."""
    return config.removesuffix("_runs").removesuffix("_gradients")
