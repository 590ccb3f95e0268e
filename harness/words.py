"""Numbers in sentences."""

from __future__ import annotations

from typing import Any

__all__ = ["counted"]


def counted(count: Any, noun: str) -> str:
    """The count and its noun: one pass, two passes, ? images."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}{'es' if noun.endswith(('s', 'x')) else 's'}"
