"""Take the README's picture of a report: ``python docs/screenshot.py RUN [OUT] [--dark] [--chinese] [--width
1200]``."""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from trivium.report.gather import gather
from trivium.report.page import write_page
from trivium.stages.registry import Stages


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path, nargs="?", default=Path(__file__).with_name("report.png"))
    parser.add_argument("--dark", action="store_true")
    parser.add_argument("--chinese", action="store_true")
    parser.add_argument("--width", type=int, default=1200)
    parser.add_argument("--height", type=int, default=1500)
    given = parser.parse_args()
    browser_path = shutil.which("chromium") or shutil.which("chromium-browser")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        page_file = Path(folder) / "index.html"
        write_page(page_file, gather(given.run, Stages()))
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": given.width,
                                          "height": given.height}, color_scheme="dark" if given.dark else "light",
                                locale="zh-CN" if given.chinese else "en-US")
        page.goto(page_file.as_uri())
        page.screenshot(path=given.out)
        browser.close()
    print(given.out)


if __name__ == "__main__":
    main()
