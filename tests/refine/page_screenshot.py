"""Makes docs/images/refined.png of a refined folder's report: a wide screen in light colours, a phone in dark ones.

    jaxlm refine refinedweb pages/ refined/ --keep-dropped
    python tests/refine/page_screenshot.py refined/report.html

It needs Chromium and playwright.
"""

import base64
import pathlib
import shutil
import sys

from playwright.sync_api import sync_playwright

OUT = pathlib.Path(__file__).parents[2] / "docs" / "images" / "refined.png"
SHEET = """<body style="margin:0;padding:24px;display:flex;gap:24px;width:max-content;background:#dde3ea">
{images}</body>"""
IMAGE = (
    '<img style="border-radius:10px;box-shadow:0 2px 12px #0004" src="data:image/png;base64,{}">'
)


def main(path: str, out: pathlib.Path = OUT) -> None:
    """Writes the picture."""
    images = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        for width, scheme, stage in ((1180, "light", None), (380, "dark", "=lines")):
            page = browser.new_page(viewport={"width": width, "height": 1100}, color_scheme=scheme)
            page.goto(pathlib.Path(path).resolve().as_uri())
            if stage:
                page.select_option("#stage", stage)
                page.select_option("#rule", "=edited")
                page.evaluate("document.getElementById('browser').scrollIntoView()")
            images.append(base64.b64encode(page.screenshot()).decode())
        sheet = browser.new_page()
        sheet.set_content(SHEET.format(images="".join(map(IMAGE.format, images))))
        out.parent.mkdir(exist_ok=True)
        sheet.locator("body").screenshot(path=out)
        browser.close()


if __name__ == "__main__":
    main(*sys.argv[1:2], *map(pathlib.Path, sys.argv[2:3]))
