"""What a built core is known by: the same digest is compiled into it and, in a checkout, taken again at its import."""

from hashlib import blake2b
from pathlib import Path


def source_digest(root: Path) -> str:
    """A digest of all that the core is made from: the files of ``native`` and the way they are compiled."""
    sources = [path for path in (root / "native").rglob("*") if path.suffix in (".cpp", ".h")]
    digest = blake2b(digest_size=8)
    for path in (*sorted(sources), root / "build_tools" / "core.py"):
        digest.update(b"%s\0%s\0" % (path.name.encode(), path.read_bytes()))
    return digest.hexdigest()
