"""Checkpoint files: written whole or not at all, and checked before they are read."""

import os
import zipfile
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import psutil
import torch
from lightning.fabric.plugins import TorchCheckpointIO

from lit_rl.errors import UsageError

PART = ".part"  # ends the names of files that are being written
LABEL = b"crc32 of the file without this comment: "  # the comment of the zip archive that a checkpoint is
END = b"PK\5\6"  # starts the last record of an archive, of 22 bytes without a comment


class WholeCheckpointIO(TorchCheckpointIO):
    """Lightning's way to write and read checkpoints, for which a file of that name is a whole checkpoint at any time.

    A checkpoint is written beside its place, in the same folder, synced and renamed; the folder is synced, too. What a
    killed process left there half-written is removed by the next one that saves. The files are those of ``torch.save``,
    with a checksum as the archive's comment, which is compared before a file is read.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Writes the checkpoint.

        Raises:
            UsageError: the file can't be written, for want of room or of permission; what was there is there still.
        """
        target = Path(path)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            _remove_leftovers(target.parent)
            _write(checkpoint, target)
        except OSError as error:
            kept = newest_whole(target.parent)
            raise UsageError(
                f"checkpoint.dirpath: can't write {target} ({error.strerror}); make room or choose another folder"
                + (f", and go on with --ckpt_path {kept}, which is whole" if kept else "; nothing was saved before")
            ) from None

    def load_checkpoint(self, path: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """What the file holds.

        Raises:
            UsageError: it is no whole checkpoint.
        """
        check_whole(path)
        return super().load_checkpoint(path, *args, **kwargs)


class _Summed:
    """Writes to a file and sums up what is written."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.sum = file, 0

    def write(self, data: Any) -> int:
        self.sum = zlib.crc32(data, self.sum)
        return self.file.write(data)

    def flush(self) -> None:
        self.file.flush()


def _write(checkpoint: dict[str, Any], target: Path) -> None:
    part = target.with_name(f".{target.name}.{os.getpid()}{PART}")
    try:
        with open(part, "wb") as file:
            summed: Any = _Summed(file)
            try:
                torch.save(checkpoint, summed)
            except RuntimeError as error:  # what torch makes of a write that failed
                raise error.__context__ if isinstance(error.__context__, OSError) else error from None
            file.seek(-2, os.SEEK_END)  # the length of the comment
            file.write(_seal(summed.sum))
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _seal(crc: int) -> bytes:
    """The end of an archive: the comment's length and the comment."""
    comment = LABEL + b"%08x" % crc
    return len(comment).to_bytes(2, "little") + comment


def _remove_leftovers(folder: Path) -> None:
    for part in folder.glob(f".*{PART}"):
        process = part.name.removesuffix(PART).rpartition(".")[2]
        if process.isdigit() and not psutil.pid_exists(int(process)):
            part.unlink(missing_ok=True)


def is_whole(path: str | Path) -> bool:
    """Whether the file is a checkpoint, and as it was written."""
    try:
        if not _unchanged(path):
            return False
        return "state_dict" in torch.load(path, mmap=True, map_location="cpu", weights_only=True)
    except Exception:  # whatever a broken file raises
        return False


def _unchanged(path: str | Path) -> bool:
    with open(path, "rb") as file:
        file.seek(-len(_seal(0)), os.SEEK_END)
        left = file.tell()
        end = file.read()
        if end[-22:-18] == END:  # without a comment, by another writer: torch sums up what is in it
            with zipfile.ZipFile(path) as archive:
                return archive.testzip() is None
        file.seek(0)
        crc = 0
        while left:
            piece = file.read(min(left, 2**20))
            left -= len(piece)
            crc = zlib.crc32(piece, crc)
        return end == _seal(zlib.crc32(bytes(2), crc))  # of an archive whose comment has the length 0


def newest_whole(folder: Path, but: Path | None = None) -> Path | None:
    """The checkpoint in the folder that was written last and is whole, other than ``but``; None if there is none."""
    found = sorted(folder.glob("*.ckpt"), key=lambda path: path.stat().st_mtime, reverse=True)
    return next((path for path in found if path.name != getattr(but, "name", None) and is_whole(path)), None)


def check_whole(path: str | Path, setting: str = "ckpt_path") -> None:
    """That a file is a whole checkpoint.

    Args:
        setting: that the path comes from, for messages.

    Raises:
        UsageError: it is none; names the newest whole one beside it.
    """
    if is_whole(path):
        return
    file = Path(path)
    other = newest_whole(file.parent, but=file)
    advice = f"{other} beside it is whole: give that" if other else "give one that fit has written"
    raise UsageError(f"{setting}: {path} is no checkpoint, or a broken one (cut or changed since); {advice}")
