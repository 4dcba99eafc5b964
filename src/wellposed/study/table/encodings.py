"""From bytes to text: a mark at the beginning tells the encoding, or it is UTF-8, or it is asked for."""

import codecs
import gzip
import re
import zlib

from wellposed.errors import WellposedError

# The longer marks first: that of UTF-16 begins that of UTF-32.
_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_GZIP = b"\x1f\x8b"


def unpacked(name: str, content: bytes) -> bytes:
    """What a gzip file holds; other bytes as they are.

    Raises:
        WellposedError: If the file is damaged.
    """
    if not content.startswith(_GZIP):
        return content
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise WellposedError(f"{name!r} cannot be unpacked: {error}; the file is cut or damaged") from error


def decoded(name: str, content: bytes, encoding: str | None = None) -> tuple[str, tuple[str, ...]]:
    """The text of a file.

    Args:
        name: What messages call the file.
        content: Its bytes.
        encoding: How they are to be read, a name that Python knows; ``None`` is as its mark says, or UTF-8.

    Returns:
        The text without its mark, and a note where the encoding is not UTF-8.

    Raises:
        WellposedError: If the bytes are not such text; the message shows what to give.

    Example:
        >>> decoded("t.csv", "é".encode("utf-16"))
        ('é', ("Read as UTF-16, as the file's first bytes say.",))
    """
    if encoding is not None:
        try:
            return content.decode(encoding).removeprefix("\ufeff"), (f"Read as {encoding}, as --encoding says.",)
        except LookupError as error:
            raise WellposedError(
                f"--encoding was given {encoding!r}, which is no encoding that Python knows; it knows utf-8, utf-16, "
                "latin-1, windows-1252, shift-jis, ..."
            ) from error
        except UnicodeError as error:
            raise WellposedError(f"{name!r} is not text in {encoding}, as --encoding says: {error}") from error
    marked = next((told for mark, told in _MARKS.items() if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(marked)
    except UnicodeDecodeError as error:
        if marked != "utf-8":
            raise WellposedError(f"{name!r} is marked as {marked} and is not such text: {error}") from error
        raise WellposedError(
            f"{name!r} is not UTF-8 text (byte {error.start} is not){_as_western(content, error.start)}; "
            "say how it is written, as --encoding windows-1252, or latin-1, utf-16, shift-jis, ..."
        ) from error
    if "\0" in text:
        raise WellposedError(
            f"{name!r} holds zero bytes, which no table of text does; if it is UTF-16 without a mark, give --encoding "
            "utf-16-le or utf-16-be"
        )
    return text, () if marked.startswith("utf-8") else (f"Read as {marked.upper()}, as the file's first bytes say.",)


def _as_western(content: bytes, place: int) -> str:
    """How the word around a byte reads in the commonest encoding that is not UTF-8."""
    around = content[max(place - 12, 0) : place + 12].decode("windows-1252", errors="replace")
    word = next((word for word in re.findall(r"\w+", around) if not word.isascii()), "")
    return f", and reads {word!r} in windows-1252" if word else ""
