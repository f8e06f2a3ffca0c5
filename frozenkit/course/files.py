"""The files of a course: read with an error that names them, written whole, and never over one that somebody changed.

What is made carries a digest of itself: a notebook in its metadata, a page or a map in a comment at its end. Whatever
differs from its digest, or has none, is somebody's, and is left alone.
"""

import base64
import json
import os
import re
import zipfile
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from frozenkit._files import written_aside
from frozenkit.errors import DataError, InputError

_SIGNATURE = re.compile(rb"<!-- made by frozenkit, sha256 ([0-9a-f]{64}) -->\n\Z")


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        InputError: If there is no such file.
        DataError: If it cannot be read, or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"the course must hold {path.name}; it is not in {path.parent}.") from error
    except (OSError, ValueError, RecursionError) as error:  # ValueError: not UTF-8, or not JSON
        raise _damaged(path, str(error)) from error


def read_notebook(path: Path) -> dict[str, Any]:
    """A notebook's JSON, with every part that a course relies on.

    Raises:
        InputError: If there is no such file.
        DataError: If it is no notebook.
    """
    found = read_json(path)
    if not (isinstance(found, dict) and isinstance(found.get("cells"), list) and _is_table(found.get("metadata"))):
        raise _damaged(path, "it holds no cells")
    for place, cell in enumerate(found["cells"]):
        if trouble := _trouble(cell):
            raise _damaged(path, f"cell {place} {trouble}")
    return found


def _trouble(cell: Any) -> str:
    if not (_is_table(cell) and cell.get("cell_type") in ("code", "markdown", "raw")):
        return "is neither code nor prose"
    if not (isinstance(cell.get("id", ""), str) and _is_table(cell.get("metadata"))):
        return "has no metadata"
    if not _is_text(cell.get("source")):
        return "has no source"
    tags = cell["metadata"].get("tags", [])
    if not (isinstance(tags, list) and all(isinstance(tag, str) for tag in tags)):
        return "has tags that are not words"
    if not _is_table(cell["metadata"].get("slideshow", {})):
        return "has no slide type"
    outputs = cell.get("outputs", [])
    if not (isinstance(outputs, list) and all(map(_is_output, outputs))):
        return "has outputs that are none"
    return ""


def _is_output(output: Any) -> bool:
    kinds = {"stream": "text", "display_data": "data", "execute_result": "data", "error": "traceback"}
    if not (_is_table(output) and output.get("output_type") in kinds):
        return False
    part = output.get(kinds[output["output_type"]])
    if output["output_type"] == "error":
        return isinstance(part, list) and all(isinstance(line, str) for line in part)
    if output["output_type"] == "stream":
        return _is_text(part)
    return _is_table(part) and all(_is_shown(kind, value) for kind, value in part.items())


def _is_shown(kind: str, value: Any) -> bool:
    if kind == "image/png":
        try:
            return _is_text(value) and bool(base64.b64decode("".join(value)))
        except ValueError:
            return False
    return _is_text(value) or "json" in kind


def _is_table(value: Any) -> bool:
    return isinstance(value, dict)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(line, str) for line in value))


def _damaged(path: Path, reason: str) -> DataError:
    return DataError(f"{path} is damaged: {reason}. Put back the file that came with the course.")


def signed_text(text: str) -> bytes:
    """A page or a map, with its digest in a comment at its end."""
    made = text.encode("utf-8", "backslashreplace")
    return made + f"<!-- made by frozenkit, sha256 {sha256(made).hexdigest()} -->\n".encode()


def signed_notebook(notebook: dict[str, Any]) -> bytes:
    """A notebook as a file, with its digest in its metadata."""
    signed = {**notebook, "metadata": {**notebook["metadata"]}}
    signed["metadata"]["frozenkit"] = {**signed["metadata"].get("frozenkit", {}), "made": _digest(notebook)}
    return (json.dumps(signed, indent=1, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")


def _digest(notebook: dict[str, Any]) -> str:
    about = {key: value for key, value in notebook["metadata"].get("frozenkit", {}).items() if key != "made"}
    plain = {**notebook, "metadata": {**notebook["metadata"], "frozenkit": about}}
    return sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def is_pristine(path: Path) -> bool:
    """Whether this file is missing, or exactly as frozenkit made it."""
    if not os.path.lexists(path):
        return True
    if path.is_symlink() or not path.is_file():
        return False
    try:
        if path.suffix == ".ipynb":
            notebook = read_notebook(path)
            return notebook["metadata"].get("frozenkit", {}).get("made") == _digest(notebook)
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as bundle:
                return bundle.comment.decode() == contents(bundle)
        made = path.read_bytes()
    except (OSError, AttributeError, DataError, UnicodeDecodeError, zipfile.BadZipFile):
        return False
    found = _SIGNATURE.search(made)
    return found is not None and sha256(made[: found.start()]).hexdigest() == found[1].decode()


def contents(bundle: zipfile.ZipFile) -> str:
    """What a zip made here says in its comment: a digest of its files' names and checksums."""
    listed = json.dumps([[entry.filename, entry.CRC, entry.file_size] for entry in bundle.infolist()])
    return f"made by frozenkit, sha256 {sha256(listed.encode()).hexdigest()}"


def write_made(files: Mapping[Path, bytes]) -> list[Path]:
    """Write what was made: all of it, or nothing where one of the places holds something of somebody's.

    Raises:
        InputError: If a file is there that is not as frozenkit made it, or a folder cannot be written.
    """
    theirs = [path for path in files if not is_pristine(path)]
    if theirs:
        names = ", ".join(map(str, theirs))
        raise InputError(
            f"nothing was written: not as frozenkit made it, and maybe somebody's work: {names}. "
            "Move it away to have it made anew, or choose another folder."
        )
    for path, content in files.items():
        try:
            write_whole(path, content)
        except OSError as error:
            raise InputError(f"{path} could not be written: {error.strerror or error}.") from error
    return list(files)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file aside and put it into its place at once: it is never half there."""
    with written_aside(path) as aside:
        aside.write_bytes(content)
