"""Text of annotation files, whatever it was saved as: UTF-8, UTF-16, or what older programs on Windows write."""

from __future__ import annotations

import json
import re

from napari_kdseg.errors import SlideError

DECLARATION = re.compile(r"^\s*<\?xml[^>]*?\?>")
DECLARED = re.compile(rb"^\s*<\?xml[^>]*?encoding\s*=\s*[\"']([\w.-]+)[\"']")


def decoded(content: bytes, name: str, notes: list[str]) -> str:
    """Return the text of a file; what is not UTF-8 is said in ``notes``.

    Raises
    ------
    SlideError
        If it is damaged UTF-8, or nothing that is known here.
    """
    encoding = json.detect_encoding(content)
    if encoding.startswith("utf-16"):
        notes.append(f"{name} is UTF-16: read as such. Others may need it saved as UTF-8.")
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding == "utf-8" and not _has_utf8(content):
            try:
                text = content.decode("cp1252")
            except UnicodeDecodeError:
                pass
            else:
                notes.append(
                    f"{name} is not UTF-8: read as Windows-1252, as QuPath before 0.5 wrote on Windows."
                )
                return text
        raise SlideError(
            f"{name} is truncated or damaged: it is no JSON or XML in {encoding.upper()} ({error}). Export it again."
        ) from error


def without_declaration(text: str) -> bytes:
    """Return the text of an XML document as UTF-8, without what it said of its encoding."""
    return DECLARATION.sub("", text).encode()


def declares_another(content: bytes) -> bool:
    """Tell whether an XML document says itself that it is other than UTF-8: then its parser decodes it."""
    found = DECLARED.match(content)
    return found is not None and found[1].lower() not in (b"utf-8", b"utf8", b"utf-16")


def _has_utf8(content: bytes) -> bool:
    """Tell whether any letter beyond ASCII is proper UTF-8: then the text is UTF-8, with damage."""
    return any(ord(letter) > 127 for letter in content.decode("utf-8", errors="ignore"))
