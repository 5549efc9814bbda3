"""`load_dataset("gptdynamics", ...)` from any folder, and `gptdynamics.load`.

`datasets` does not accept Hub ids without a namespace, and looks for registered packaged modules in the working
directory. So two of its functions are wrapped: `load_dataset_builder`, which knows the config, and
`dataset_module_factory` below it, which does not know the config but serves listing configs, and code that imported
`load_dataset_builder` before it was wrapped.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

from gptdynamics.hub import source as places
from gptdynamics.hub.source import DEFAULT_REPO, SHORT_NAME, bundled_configs, missing_config_error, source_of

_MODULE = "datasets.load"


def load(config: str, **options: Any) -> Any:
    """Load a configuration of the short name: `datasets.load_dataset` with its source filled in.

    Args:
        config: `<task>_<size>`, `<task>_<size>_runs`, `<task>_<size>_gradients` or `<task>_examples`.
        options: of `datasets.load_dataset`: `split`, `revision`, `streaming`, `num_proc`, ...

    Raises:
        SettingsError: there is no such configuration; the message lists the available ones.
        DataError: it is not in the bundled sample, and the Hub cannot be reached or does not have the repository.

    Example:
        >>> import gptdynamics
        >>> run = gptdynamics.load("rte_nano", split="test")[0]
        >>> run["run"], len(run["step"]), len(run["loss"])
        ('0004', 97, 97)
    """
    install()
    from datasets import load_dataset

    return load_dataset(SHORT_NAME, config, **options)


def install() -> None:
    """Make the short name known to `datasets`, now or when it is imported."""
    loaded = sys.modules.get(_MODULE)
    if loaded is not None and hasattr(loaded, "load_dataset"):
        _wrap(loaded)
    elif not any(isinstance(finder, _WhenImported) for finder in sys.meta_path):
        sys.meta_path.insert(0, _WhenImported())


class _WhenImported(importlib.abc.MetaPathFinder):
    """Wraps the functions as soon as their module has been executed."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Find `datasets.load` in the ordinary way, with a loader that wraps the functions afterwards; nothing else."""
        if fullname != _MODULE:
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def execute_and_wrap(module: ModuleType) -> None:
            execute(module)
            _wrap(module)

        spec.loader.exec_module = execute_and_wrap  # type: ignore[method-assign]
        return spec


def _wrap(module: ModuleType) -> None:
    """Replace both functions wherever `datasets` has them under their names."""
    for name, make in (("load_dataset_builder", _builder_maker), ("dataset_module_factory", _module_finder)):
        original = getattr(module, name)
        if getattr(original, "_knows_gptdynamics", False):
            continue
        wrapped = make(original)
        wrapped._knows_gptdynamics = True  # type: ignore[attr-defined]
        for key, other_module in list(sys.modules.items()):
            if (key == "datasets" or key.startswith("datasets.")) and vars(other_module).get(name) is original:
                setattr(other_module, name, wrapped)


def _builder_maker(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def load_dataset_builder(path: str, name: str | None = None, *args: Any, **options: Any) -> Any:
        if path != SHORT_NAME or name is None:
            return original(path, name, *args, **options)
        source = source_of(name, options.get("revision"))
        try:
            return original(source, name, *args, **options)
        except Exception as error:  # the source may have any content
            available = _available(source, options)
            if name in available:
                raise
            raise missing_config_error(name, source, error, available) from error

    return load_dataset_builder


def _available(source: str, options: dict[str, Any]) -> list[str]:
    """Configurations of a source; none if it cannot be read."""
    from datasets import DownloadConfig, get_dataset_config_names

    download = options.get("download_config") or DownloadConfig()
    if options.get("token") is not None:
        download = download.copy()
        download.token = options["token"]
    try:
        names = get_dataset_config_names(source, revision=options.get("revision"), download_config=download)
    except Exception:  # the source may have any content
        return []
    # `default` is reported for a repository without a card, or one that cannot be reached but is cached.
    return [name for name in names if name != "default"]


def _module_finder(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def dataset_module_factory(path: str, *args: Any, **options: Any) -> Any:
        if path != SHORT_NAME:
            return original(path, *args, **options)
        revision = options.get("revision") or (args[0] if args else None)
        bundled = source_of(next(iter(bundled_configs()), ""), revision)
        module = original(bundled, *args, **options)
        if bundled == str(places.BUNDLED):
            with contextlib.suppress(OSError):
                _add_configs(module, original(DEFAULT_REPO, *args, **options))
        return module

    return dataset_module_factory


def _add_configs(module: Any, other: Any) -> None:
    """Add the configurations of another dataset module that a dataset module lacks."""
    from datasets.data_files import DataFilesPatternsDict, DataFilesPatternsList

    configs = module.builder_configs_parameters.builder_configs
    names = {config.name for config in configs}
    base = other.builder_kwargs.get("base_path")
    for config in other.builder_configs_parameters.builder_configs or []:
        if config.name not in names:
            # Paths are relative to the other's folder.
            config.data_files = DataFilesPatternsDict(
                {
                    split: DataFilesPatternsList([f"{base}/{path}" for path in paths], paths.allowed_extensions)
                    for split, paths in config.data_files.items()
                }
            )
            configs.append(config)
