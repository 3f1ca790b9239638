"""Whether the files of a model are here as they should be."""

from pathlib import Path

from p2pnode.node.entries import Entry


def whole_model(folder: Path, entry: Entry) -> Path | None:
    """Return the first file of a model, if all are as they were noted, by size where no hash is."""
    paths = entry.paths(folder)
    hashes = entry.sha256 or ("",) * len(paths)
    noted = zip(paths, entry.sizes, hashes, strict=True)
    return paths[0] if all(is_whole(*one) for one in noted) else None


def is_whole(path: Path, size: int, sha256: str) -> bool:
    """Read the file itself: the remembered signature cannot see a rotten disk.

    Where ``sha256`` is empty, its size alone speaks for it.
    """
    try:
        if not path.is_file() or path.stat().st_size != size:
            return False
        return not sha256 or sha256_of(path) == sha256
    except OSError:
        return False


def sha256_of(path: Path) -> str:
    """Return the hash of a file in hex.

    Raises:
        OSError: It cannot be read.
    """
    import hashlib  # a listing needs none

    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
