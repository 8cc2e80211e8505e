"""What the site needs beyond the pages: files of the repository that pages link to lie in it as texts."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent
LINK = re.compile(r"\[([^\]]*)\]\(((?:\.\./)+[^)\s#]+)(?:#[^)\s]*)?\)")
wanted: set[str] = set()


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Let links that leave the pages lead to the site's copies of the files that they name."""
    folder = posixpath.dirname(page.file.dest_uri) or "."

    def there(found: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join("docs", posixpath.dirname(page.file.src_uri), found[2]))
        if path.startswith(("docs/", "../")) or not (ROOT / path).is_file():
            return found[0]
        wanted.add(path)
        return f'<a href="{posixpath.relpath(f"repository/{path}.txt", folder)}">{found[1]}</a>'

    return LINK.sub(there, markdown)


def on_post_build(config: Any) -> None:
    """Put those files into the site."""
    for path in sorted(wanted):
        place = Path(config["site_dir"]) / "repository" / f"{path}.txt"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes((ROOT / path).read_bytes())
