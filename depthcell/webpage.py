"""HTML files that need nothing else: no network, no other file, no style or script but those their head names."""

import base64
import hashlib
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined


def page_templates(*folders: Path) -> Environment:
    """Templates of these folders: what they are given is escaped, what they lack is an error.

    Its filter `sha256` is `csp_hash`.
    """
    environment = Environment(
        loader=FileSystemLoader(folders),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["sha256"] = csp_hash
    return environment


def csp_hash(text: str) -> str:
    """By which a page's policy names a style or script of its own: SHA-256 in base64 (W3C, CSP level 2, 4.2.5)."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
