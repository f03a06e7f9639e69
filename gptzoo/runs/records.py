"""Records of a run: one JSON object per line, appended while it trains, cut back when it resumes."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from gptzoo.errors import GPTZooError
from gptzoo.files import canonical_json, drop_torn_line, open_for_appending, sync_folder, truncate, write_line, writing


class Records:
    """One record file, open for appending: `metrics.jsonl`, `timings.jsonl` or `samples.jsonl`.

    Opening it drops a last line torn by a crash. Equal records give equal bytes; into `metrics.jsonl` goes only what a
    repeated run would write again, so that a resumed run's file equals that of a run never stopped.

    Raises:
        GPTZooError: The file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        with writing(self.path):
            self._descriptor = open_for_appending(self.path)
            self._length = drop_torn_line(self._descriptor)
            sync_folder(self.path.parent)

    def append(self, record: Mapping[str, object]) -> None:
        """Append one record; a killed process loses none that was appended.

        Raises:
            NoSpace: The disk is full; the file is as it was.
            GPTZooError: A number is not finite.
        """
        line = canonical_json(dict(record))
        write_line(self._descriptor, self.path, line)
        self._length += len(line) + 1

    @property
    def length(self) -> int:
        """Bytes written so far. They are synced first: what a checkpoint counts on must outlive a power cut."""
        with writing(self.path):
            os.fsync(self._descriptor)
        return self._length

    def truncate(self, length: int) -> None:
        """Cut the file back to the length that a checkpoint has recorded.

        Raises:
            GPTZooError: The file is shorter, or has no line end there: it is not the one that was recorded.
        """
        if length > self._length or not self._ends_a_line(length):
            raise GPTZooError(
                f"{self._length} bytes long, which does not continue from byte {length}, where the checkpoint left it. "
                "Restore the file, or remove the checkpoints that are newer than it.",
                str(self.path),
            )
        with writing(self.path):
            truncate(self._descriptor, length)
        self._length = length

    def close(self) -> None:
        """Sync and close; further appends are an error."""
        if self._descriptor >= 0:
            with writing(self.path):
                os.fsync(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Records:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @staticmethod
    def read(path: Path) -> list[dict[str, object]]:
        """All records of a file; none if there is no file. A torn last line is left out.

        Raises:
            GPTZooError: Another line is not a JSON object; its number is named.
        """
        path = Path(path)
        lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
        return [_record(line, f"{path}:{number}") for number, line in enumerate(lines, start=1)]

    def _ends_a_line(self, length: int) -> bool:
        return length == 0 or (length > 0 and os.pread(self._descriptor, 1, length - 1) == b"\n")


def _record(line: bytes, where: str) -> dict[str, object]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict):
        raise GPTZooError("not a JSON object. The file was changed by hand or damaged: remove this line.", where)
    return record
