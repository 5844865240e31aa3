"""Makes docs/images/chat.png: the chat page on a wide screen in light colours, beside a phone in dark ones.

    python tests/serve/page_screenshot.py

It needs Chromium, playwright, and a font with Chinese characters (Debian: fonts-noto-cjk or fonts-wqy-microhei).
"""

import base64
import pathlib
import shutil

from page_stub import Running
from playwright.sync_api import expect, sync_playwright

OUT = pathlib.Path(__file__).parents[2] / "docs" / "images" / "chat.png"
HEIGHT = 860
SHEET = """<body style="margin:0;padding:24px;display:flex;gap:24px;width:max-content;background:#dde3ea">
{images}</body>"""
IMAGE = (
    '<img style="border-radius:10px;box-shadow:0 2px 12px #0004" src="data:image/png;base64,{}">'
)


def main() -> None:
    """Writes the picture."""
    images = []
    with Running() as server, sync_playwright() as playwright:
        server.stub.pace = 0.02
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )

        def picture(width: int, locale: str, scheme: str, prompts: list[str]) -> None:
            page = browser.new_page(
                viewport={"width": width, "height": HEIGHT}, locale=locale, color_scheme=scheme
            )
            page.goto(f"{server.url}/chat/")
            for number, prompt in enumerate(prompts, start=1):
                page.fill("#prompt", prompt)
                page.press("#prompt", "Enter")
                expect(page.locator(".assistant[aria-busy=false]")).to_have_count(number)
            if width > 1000:
                page.click("#settings-open")
                page.focus("#prompt")
            page.wait_for_timeout(500)
            images.append(base64.b64encode(page.screenshot()).decode())

        picture(1440, "en-US", "light", ["How does attention work?"])
        picture(360, "zh-CN", "dark", ["注意力是什么？"])
        sheet = browser.new_page()
        sheet.set_content(SHEET.format(images="".join(map(IMAGE.format, images))))
        OUT.parent.mkdir(exist_ok=True)
        sheet.locator("body").screenshot(path=OUT)
        browser.close()


if __name__ == "__main__":
    main()
