"""The service's own words, made fit to be shown, logged and stored."""

from __future__ import annotations

import re

from roleplay.wire.secrets import NONE, Secrets

WORDS_LIMIT = 300

_KEYS = re.compile(
    r"""(?P<label>\bbearer\s+|\b(?:api[_-]?key|authorization|access[_-]?token)["']?\s*[:=]\s*["']?(?:bearer\s+)?)
        [^\s"',;<>]+
      | \bsk-[\w*.-]{4,}
      | \beyJ[\w-]{8,}(?:\.[\w-]*)*""",
    re.IGNORECASE | re.VERBOSE,
)
_INVISIBLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]+")
_SURROGATE = re.compile(r"[\ud800-\udfff]")


def service_words(text: str, limit: int = WORDS_LIMIT, secrets: Secrets = NONE) -> str:
    """Give ``text`` as one line of at most ``limit`` characters, without control characters and without keys.

    ``secrets`` and what looks like a key (``sk-…``, ``Bearer …``, a JWT) become ``***``.
    """
    text = secrets.in_words(text)
    # Keys are looked for well beyond the limit, so that none is cut into a part that no longer looks like one.
    text = _SURROGATE.sub("\ufffd", text[: limit * 8])
    text = _KEYS.sub(lambda found: (found["label"] or "") + "***", text)
    return _INVISIBLE.sub(" ", text).strip()[:limit].rstrip()
