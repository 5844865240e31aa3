"""The chat page in a real browser, against a stub of the server."""

import json
import re
import shutil

import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
sync_api = pytest.importorskip("playwright.sync_api")

from page_stub import HEADERS, KEY, PAGE, RICH, Running  # noqa: E402

pytestmark = pytest.mark.slow
expect = sync_api.expect
# a limit for a machine that does other things too, not a measurement
expect.set_options(timeout=20_000)
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
KINDS = ("chat", "completion", "encoder_decoder", "encoder")


@pytest.fixture(scope="module")
def stub():
    with Running() as running:
        yield running


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        # in a container there is no user namespace for the sandbox, and /dev/shm is small
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield browser
        browser.close()


@pytest.fixture
def visit(browser, stub):
    """Opens pages, each with a storage of its own; at the end none has logged an error or asked anybody else."""
    contexts, wrong = [], []

    def visit(kind="chat", ready="#prompt", **settings):
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}} | settings)
        context.set_default_timeout(20_000)
        contexts.append(context)
        page = context.new_page()

        def log(message):
            # a violation of the content security policy is logged as an error too
            if message.type == "error" and "Failed to load resource" not in message.text:
                wrong.append(message.text)

        page.on("console", log)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on(
            "request",
            lambda request: (
                request.url.startswith((stub.url, "blob:")) or wrong.append(request.url)
            ),
        )
        page.goto(f"{stub.url}/{kind}/")
        page.wait_for_selector(ready)
        return page

    stub.stub.requests.clear()
    stub.stub.dropped.clear()
    yield visit
    for context in contexts:
        context.close()
    assert wrong == []


@pytest.fixture(scope="module")
def modules(browser, stub):
    """A page to call the modules of the page in."""
    page = browser.new_page()
    page.goto(f"{stub.url}/chat/")
    yield page
    page.close()


def send(page, text, answers=None):
    """Sends a message with the keyboard, and waits until the answer is complete."""
    before = page.locator(".message").count()
    page.fill("#prompt", text)
    page.press("#prompt", "Enter")
    expect(page.locator(".message")).to_have_count(before + 2)
    finished(page)


def finished(page):
    """Waits until nothing is written."""
    expect(page.locator("#stop")).to_be_hidden()


def answer(page):
    return page.locator(".assistant").last


def stored(page):
    """The conversations in the browser's storage."""
    text = page.evaluate(
        "JSON.stringify(Object.keys(localStorage).filter((key) => key.startsWith('jaxlm.conversation.'))"
        ".map((key) => JSON.parse(localStorage[key])))"
    )
    return json.loads(text)


@needs_browser
def test_an_answer_streams_and_shows_its_speed(visit, stub):
    page = visit()
    expect(page.locator("#model-name")).to_have_text("SmolLM2-135M-Instruct")
    expect(page.locator("#model-facts")).to_have_text(
        "chat · 135M parameters · context of 8,192 tokens"
    )
    send(page, "one two three 四五")
    # the stub splits characters between network packets
    expect(answer(page).locator(".text")).to_have_text("You said: one two three 四五")
    facts = r"[\d,.]+ tokens/s · first token after [\d.]+ s · 6 tokens · 13 of 8,192 tokens of context · seed (\d+)"
    expect(answer(page).locator(".facts")).to_have_text(re.compile(facts))
    [request] = stub.stub.requests
    seed = re.search(facts, answer(page).locator(".facts").text_content()).group(1)
    # what a person did not set is not sent; the seed is, so that the answer can be had again
    assert request == {
        "model": "SmolLM2-135M-Instruct",
        "messages": [{"role": "user", "content": "one two three 四五"}],
        "seed": int(seed),
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    send(page, "more")
    roles = [message["role"] for message in stub.stub.requests[1]["messages"]]
    assert roles == ["user", "assistant", "user"]
    expect(page.locator("#prompt")).to_be_focused()


@needs_browser
def test_events_whatever_the_packets(modules):
    """Events are the same if each byte comes alone: characters and ends of lines are put together again."""
    streams = {
        "data: 四五\n\ndata:b\n\n": ["四五", "b"],
        "data: a\r\ndata: b\r\n\r\n: comment\r\n\r\ndata: 🙂\r\n\r\n": ["a\nb", "🙂"],
        "event: x\rdata: a\rid: 1\r\rdata: b\r\r": ["a", "b"],
        # the last event without its empty line
        "data: a\n\ndata: [DONE]": ["a", "[DONE]"],
    }
    found = modules.evaluate(
        """async (texts) => {
          const { events } = await import(new URL("page/client.js", document.baseURI));
          const read = async (text, size) => {
            const bytes = new TextEncoder().encode(text);
            const stream = new ReadableStream({
              start(controller) {
                for (let at = 0; at < bytes.length; at += size) controller.enqueue(bytes.slice(at, at + size));
                controller.close();
              },
            });
            const all = [];
            for await (const data of events(stream)) all.push(data);
            return all;
          };
          return Promise.all(texts.map((text) => Promise.all([1, 2, 1000].map((size) => read(text, size)))));
        }""",
        list(streams),
    )
    assert found == [[events] * 3 for events in streams.values()]


@needs_browser
def test_hostile_output_stays_text(visit):
    page = visit()
    send(page, "hostile")
    # the same text as a title, as a user's message and in the list
    send(page, "<img src=x onerror='window.hacked=1'> hostile")
    page.reload()
    page.wait_for_selector("#conversations .open")
    page.click("#conversations .open")
    expect(page.locator(".assistant")).to_have_count(2)
    assert page.evaluate("window.hacked") is None
    found = page.evaluate(
        """() => {
          const all = [...document.querySelectorAll("#log *, #conversations *")];
          return {
            tags: [...new Set(all.map((e) => e.localName))].sort(),
            handlers: all.flatMap((e) => e.getAttributeNames()).filter((name) => name.startsWith("on")),
            links: [...new Set(all.filter((e) => e.localName === "a").map((e) => new URL(e.href).origin))].sort(),
          };
        }"""
    )
    assert not set(found["tags"]) & {"script", "img", "iframe", "style", "link", "object", "form"}
    assert found["handlers"] == []
    # an image is a link that nobody follows by itself; the addresses of other schemes are text
    assert found["links"] == ["https://attacker.test", "https://ok.test"]
    expect(answer(page).locator(".text")).to_contain_text("[click](javascript:window.hacked=1)")
    expect(answer(page).locator(".text p").first).to_contain_text(
        "<script>window.hacked = 1</script>"
    )


LINK = '<a href="{0}" title="{0}" target="_blank" rel="noopener noreferrer nofollow">{1}</a>'
MARKDOWN = {
    "a\nb": "<p>a<br>b</p>",
    "*a* **b** ***c*** ~~d~~ _e_ `f`": "<p><em>a</em> <strong>b</strong> <em><strong>c</strong></em> "
    "<del>d</del> <em>e</em> <code>f</code></p>",
    # not emphasis: inside of words, between spaces, without an end, escaped
    "snake_case_name 2 * 3 * 4 **open \\*no\\*": "<p>snake_case_name 2 * 3 * 4 **open *no*</p>",
    "*a **b** c*": "<p><em>a <strong>b</strong> c</em></p>",
    # CommonMark leaves these marks; in Chinese nobody writes a space there
    "这是**“重点”**的文字，**中文。**后文": "<p>这是<strong>“重点”</strong>的文字，<strong>中文。</strong>后文</p>",
    "``a ` b`` and `*x*`": "<p><code>a ` b</code> and <code>*x*</code></p>",
    "`open *a*": "<p>`open <em>a</em></p>",
    "a &lt;b&gt; &amp;amp; &#65; &copy;": "<p>a &lt;b&gt; &amp;amp; A &amp;copy;</p>",
    "a<br>b <b>c</b>": "<p>a<br>b &lt;b&gt;c&lt;/b&gt;</p>",
    "[a *b*](https://x.test/p_(q) 't')": "<p>"
    + LINK.format("https://x.test/p_(q)", "a <em>b</em>")
    + "</p>",
    "[a](/x) [b](ftp://x.test) [c](https://x.test": "<p>[a](/x) [b](ftp://x.test) [c]("
    + LINK.format("https://x.test/", "https://x.test")
    + "</p>",
    "见https://x.test/a。(https://x.test/b), <https://x.test/c>": "<p>见"
    + LINK.format("https://x.test/a", "https://x.test/a")
    + "。("
    + LINK.format("https://x.test/b", "https://x.test/b")
    + "), "
    + LINK.format("https://x.test/c", "https://x.test/c")
    + "</p>",
    "# A #\n### B\ntext": '<h3 class="level-1">A</h3><h5 class="level-3">B</h5><p>text</p>',
    "#no\n####### no": "<p>#no<br>####### no</p>",
    "a\n\n---\n***\nb": "<p>a</p><hr><hr><p>b</p>",
    "- a\n- b\n  - c\n\n    d\n- e": "<ul><li>a</li><li>b<ul><li><p>c</p><p>d</p></li></ul></li><li>e</li></ul>",
    "3. a\n4. b": '<ol start="3"><li>a</li><li>b</li></ol>',
    "1) a\n   ```\n   x\n   ```": "<ol><li>a<pre>x</pre></li></ol>",
    "- a\n\n- b": "<ul><li><p>a</p></li><li><p>b</p></li></ul>",
    "- [x] a\n- [ ] b": '<ul><li class="task">☑ a</li><li class="task">☐ b</li></ul>',
    "in\n1984. It": "<p>in<br>1984. It</p>",
    "> a\nb\n> > c\n\nd": "<blockquote><p>a<br>b</p><blockquote><p>c</p></blockquote></blockquote><p>d</p>",
    "```py\n<b>\n\n  x\n```\nafter": "<pre>&lt;b&gt;\n\n  x</pre><p>after</p>",
    "~~~\n```\n~~~": "<pre>```</pre>",
    # while it streams: the end of the block is not there yet
    "```\nopen": "<pre>open</pre>",
    "a | b\n:-|-:\n1 | `x\\|y`\n2": '<table><thead><tr><th>a</th><th class="right">b</th></tr></thead>'
    '<tbody><tr><td>1</td><td class="right"><code>x|y</code></td></tr></tbody></table><p>2</p>',
    "a | b\nno": "<p>a | b<br>no</p>",
}
RENDER = """async (texts) => {
  const { Markdown } = await import(new URL("page/markdown.js", document.baseURI));
  return texts.map((text) => {
    const box = document.createElement("div");
    new Markdown(box).update(text);
    for (const code of box.querySelectorAll(".code")) {
      const pre = document.createElement("pre");
      pre.textContent = code.querySelector("code").textContent;
      code.replaceWith(pre);
    }
    for (const table of box.querySelectorAll(".table")) table.replaceWith(table.firstChild);
    for (const span of box.querySelectorAll("span")) span.replaceWith(...span.childNodes);
    for (const element of box.querySelectorAll("[dir]")) element.removeAttribute("dir");
    return box.innerHTML;
  });
}"""


@needs_browser
def test_markdown(modules):
    found = dict(zip(MARKDOWN, modules.evaluate(RENDER, list(MARKDOWN))))
    assert found == MARKDOWN


@needs_browser
def test_markdown_grows_to_the_same_nodes(modules):
    """What is drawn piece by piece is what is drawn at once, and a block that is complete is not drawn again."""
    same, kept = modules.evaluate(
        """async (text) => {
          const { Markdown } = await import(new URL("page/markdown.js", document.baseURI));
          const [grown, whole] = [document.createElement("div"), document.createElement("div")];
          const view = new Markdown(grown);
          view.update(text.slice(0, 200));
          const first = grown.firstChild;
          for (let end = 1; end <= text.length; end++) view.update(text.slice(0, end < 200 ? 200 : end));
          new Markdown(whole).update(text);
          return [grown.innerHTML === whole.innerHTML, first === grown.firstChild];
        }""",
        RICH,
    )
    assert same
    assert kept


@needs_browser
def test_markdown_survives_monsters(modules):
    """Long runs of marks neither hang the page nor nest without an end."""
    monsters = ["*a " * 5000, "*a" * 5000, "**a *b " * 5000 + "c* d** " * 5000, "[" * 5000]
    monsters += ["[a](" * 5000, "`a``b" * 3000, "> " * 5000 + "a", "- " * 5000 + "a", "![" * 5000]
    monsters += ["\n".join(" " * i + "- a" for i in range(300)), "|" * 5000 + "\n" + "|-" * 5000]
    monsters += ["<" * 5000, "&#" * 5000, "_a__b" * 3000, 'a](b "' * 3000, "https://" * 3000]
    depths = modules.evaluate(
        """async (texts) => {
          const { Markdown } = await import(new URL("page/markdown.js", document.baseURI));
          const depth = (e) => 1 + Math.max(0, ...[...e.children].slice(0, 50).map(depth));
          return texts.map((text) => {
            const box = document.createElement("div");
            new Markdown(box).update(text);
            return depth(box);
          });
        }""",
        monsters,
    )
    assert max(depths) < 120


@needs_browser
def test_stopping(visit, stub):
    page = visit()
    page.fill("#prompt", "slow")
    page.press("#prompt", "Enter")
    expect(answer(page).locator(".text")).to_contain_text("word5")
    page.keyboard.press("Escape")
    expect(answer(page).locator(".note")).to_have_text("Stopped.")
    # the server sees it too: the connection is gone
    assert stub.stub.dropped.wait(20)
    expect(answer(page).locator(".text")).to_contain_text("word5")
    finished(page)
    stub.stub.dropped.clear()
    page.fill("#prompt", "slow")
    page.press("#prompt", "Enter")
    expect(answer(page).locator(".text")).to_contain_text("word2")
    page.click("#stop")
    assert stub.stub.dropped.wait(20)
    # its button is gone, the focus is not
    expect(page.locator("#prompt")).to_be_focused()
    # Escape in a panel stops the answer first, and then closes the panel
    page.keyboard.press("Alt+s")
    page.fill("#prompt", "slow")
    page.press("#prompt", "Enter")
    expect(answer(page).locator(".text")).to_contain_text("word2")
    page.focus("#set-seed")
    page.keyboard.press("Escape")
    finished(page)
    expect(page.locator("#settings")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#settings")).to_be_hidden()
    expect(page.locator("#settings-open")).to_be_focused()


@needs_browser
def test_another_conversation_while_one_is_written(visit):
    page = visit()
    page.fill("#prompt", "slow")
    page.press("#prompt", "Enter")
    expect(answer(page).locator(".text")).to_contain_text("word3")
    page.click("#new")
    send(page, "second")
    expect(page.locator(".assistant")).to_have_count(1)
    expect(page.locator("#conversations .dot")).to_have_count(1)
    page.locator("#conversations .open", has_text="slow").click()
    page.click("#stop")
    expect(page.locator("#conversations .dot")).to_have_count(0)
    assert {c["nodes"][1]["state"] for c in stored(page)} == {"stopped", "done"}


@needs_browser
def test_regenerating_and_editing_make_branches(visit, stub):
    page = visit()
    send(page, "first")
    send(page, "second")
    answer(page).get_by_role("button", name="Answer again").click()
    finished(page)
    expect(answer(page).locator(".versions")).to_contain_text("2 of 2")
    seeds = [request["seed"] for request in stub.stub.requests]
    assert len(set(seeds)) == 3
    # up in an empty box edits the last message; Escape leaves it as it was
    page.press("#prompt", "ArrowUp")
    page.keyboard.press("Escape")
    expect(page.locator(".user .text").last).to_have_text("second")
    page.locator(".user").first.get_by_role("button", name="Edit").click()
    page.get_by_label("Edit message").fill("other")
    page.keyboard.press("Enter")
    finished(page)
    expect(page.locator(".message .text")).to_have_text(["other", "You said: other"])
    assert stub.stub.requests[-1]["messages"] == [{"role": "user", "content": "other"}]
    # the way back: the branch with its two answers is still there, also after a reload
    page.locator(".user").first.get_by_role("button", name="Previous version").click()
    expect(page.locator(".message .text")).to_have_text(
        ["first", "You said: first", "second", "You said: second"]
    )
    page.reload()
    page.click("#conversations .open")
    expect(page.locator(".message")).to_have_count(4)
    page.locator(".user").first.get_by_role("button", name="Next version").click()
    expect(page.locator(".user .text")).to_have_text("other")
    # the focus is still on a button for versions
    assert page.evaluate("document.activeElement.ariaLabel") == "Previous version"


@needs_browser
def test_settings_are_sent_and_checked(visit, stub):
    page = visit()
    page.click("#settings-open")
    values = {"temperature": "0,5", "top_p": ".9", "top_k": "40", "max_tokens": "12", "seed": "7"}
    for name, value in values.items():
        page.fill(f"#set-{name}", value)
    page.fill("#set-system", "Be brief.")
    page.fill("#set-stop", "END\n\\n\\n")
    assert page.get_attribute("#set-temperature", "placeholder") == "default: 0.7"
    assert page.get_attribute("#set-top_p", "placeholder") == "default: off"
    send(page, "hello")
    request = stub.stub.requests[-1]
    assert request["messages"][0] == {"role": "system", "content": "Be brief."}
    wanted = {"temperature": 0.5, "top_p": 0.9, "top_k": 40, "max_completion_tokens": 12, "seed": 7}
    assert {name: request[name] for name in wanted} == wanted
    assert request["stop"] == ["END", "\n\n"]
    # nothing is sent while a field is wrong, and the field says what it takes
    for name, value in {"temperature": "3", "top_k": "1.5", "seed": "x"}.items():
        page.fill(f"#set-{name}", value)
        page.fill("#prompt", "refused")
        page.press("#prompt", "Enter")
        expect(page.locator(f"#set-{name}")).to_be_focused()
        expect(page.locator(f"#wrong-{name}")).to_contain_text("number from")
        page.fill(f"#set-{name}", "")
    assert len(stub.stub.requests) == 1
    # a new conversation starts with the last settings
    page.click("#new")
    assert page.input_value("#set-max_tokens") == "12"
    page.click("#reset")
    send(page, "hello")
    assert "max_completion_tokens" not in stub.stub.requests[-1]


@needs_browser
def test_errors(visit, stub):
    page = visit()
    table = {
        "fail": "The server reported an error: max_tokens is 9999, the model's limit is 8192",
        "break": "The server reported an error: out of memory",
        "cut": "The connection broke before the answer was complete.",
        "long": "Ended at the limit of tokens.",
    }
    for prompt, text in table.items():
        send(page, prompt)
        expect(answer(page).locator(".note")).to_have_text(text)
        # what had come stays
        said = "" if prompt == "fail" else f"You said: {prompt}"
        expect(answer(page).locator(".text")).to_have_text(said)
    page.route("**/v1/chat/completions", lambda route: route.abort())
    send(page, "gone")
    expect(answer(page).locator(".note")).to_contain_text("The server could not be reached.")
    page.unroute("**/v1/chat/completions")
    answer(page).get_by_role("button", name="Try again").click()
    expect(answer(page).locator(".text")).to_have_text("You said: gone")
    # an attempt without a word is replaced, not kept as a version
    expect(answer(page).locator(".versions")).to_have_count(0)
    # templates want turns to alternate: the message that was refused and the one after it are sent as one
    sent = stub.stub.requests[-1]["messages"]
    assert [message["role"] for message in sent] == ["user", "assistant"] * 3 + ["user"]
    assert sent[0]["content"] == "fail\n\nbreak"
    # what does not fit is not sent again with the next message
    send(page, "x" * 900)
    expect(answer(page).locator(".note")).to_contain_text("left out of what follows")
    send(page, "shorter")
    expect(answer(page).locator(".text")).to_have_text("You said: shorter")
    contents = [message["content"] for message in stub.stub.requests[-1]["messages"]]
    assert contents[-2:] == ["You said: gone", "shorter"]
    # a server that does not stream
    send(page, "whole")
    expect(answer(page).locator(".text")).to_have_text("You said: whole")


@needs_browser
def test_a_busy_server(visit, stub):
    page = visit()
    stub.stub.busy = 1
    send(page, "busy")
    expect(answer(page).locator(".note")).to_have_text(
        "The server is busy. It asks to wait 1 s. The queue is full."
    )
    again = answer(page).get_by_role("button", name="Try again")
    # it waits as long as the server asked for
    expect(again).to_be_enabled()
    again.click()
    expect(answer(page).locator(".text")).to_have_text("You said: busy")


@needs_browser
def test_an_api_key_is_asked_for(visit):
    page = visit("locked", ready="#key-dialog[open]")
    page.fill("#key", "wrong")
    page.keyboard.press("Enter")
    expect(page.locator("#key-help")).to_contain_text("did not accept")
    expect(page.locator("#key-dialog")).to_be_visible()
    page.fill("#key", KEY)
    page.keyboard.press("Enter")
    page.wait_for_selector("#prompt")
    send(page, "hello")
    expect(answer(page).locator(".text")).to_have_text("You said: hello")
    # kept for this tab only
    assert KEY not in page.evaluate("JSON.stringify(localStorage)")
    page.reload()
    page.wait_for_selector("#prompt")
    # without a key the page says so, and offers to try again
    page = visit("locked", ready="#key-dialog[open]")
    page.keyboard.press("Escape")
    expect(page.locator("#work")).to_contain_text("An API key is needed.")
    page.click("#load-again")
    expect(page.locator("#key-dialog")).to_be_visible()


@needs_browser
def test_enter_of_an_input_method_does_not_send(visit, stub):
    page = visit(locale="zh-CN")
    page.fill("#prompt", "nihao")
    for event in ({"isComposing": True}, {"keyCode": 229}):
        page.dispatch_event("#prompt", "keydown", {"key": "Enter", "bubbles": True, **event})
    page.press("#prompt", "Shift+Enter")
    assert page.input_value("#prompt") == "nihao\n"
    page.fill("#prompt", "  \n")
    page.press("#prompt", "Enter")
    assert stub.stub.requests == []
    expect(page.locator(".message")).to_have_count(0)


@needs_browser
def test_conversations_are_kept_renamed_searched_and_deleted(visit):
    page = visit()
    for text in ("about cats", "about dogs", "about birds"):
        page.keyboard.press("Alt+n")
        send(page, text)
    page.fill("#prompt", "a draft")
    page.reload()
    entries = page.locator("#conversations .open")
    expect(entries).to_have_text(["about birds", "about dogs", "about cats"])
    page.fill("#search", "said DOGS")
    expect(entries).to_have_text(["about dogs"])
    page.fill("#search", "")
    page.locator("#conversations li", has_text="cats").hover()
    page.get_by_role("button", name="Rename: about cats").click()
    page.get_by_label("Name of the conversation").fill("Felines")
    page.keyboard.press("Enter")
    expect(entries).to_have_text(["about birds", "about dogs", "Felines"])
    expect(page.get_by_role("button", name="Rename: Felines")).to_be_focused()
    entries.first.click()
    assert page.input_value("#prompt") == "a draft"
    # its buttons appear with the focus, too
    page.get_by_role("button", name="Delete: about birds").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Escape")
    expect(entries).to_have_count(3)
    page.get_by_role("button", name="Delete: about birds").click()
    page.locator("#confirm-dialog .danger").click()
    expect(entries).to_have_text(["about dogs", "Felines"])
    # it was the open one
    expect(page.locator(".message")).to_have_count(0)
    page.click("#delete-all")
    page.locator("#confirm-dialog .danger").click()
    expect(entries).to_have_count(0)
    assert stored(page) == []


@needs_browser
def test_a_full_storage_is_said(visit):
    page = visit()
    page.evaluate(
        """() => {
          for (let size = 2 ** 21; size >= 1; size /= 2) {
            try { for (let i = 0; ; i++) localStorage.setItem(`other${size}.${i}`, "x".repeat(size)); } catch {}
          }
        }"""
    )
    send(page, "hello")
    expect(page.locator("#notice")).to_contain_text("storage is full")
    # the page goes on, and what is not saved can be exported
    send(page, "again")
    with page.expect_download() as download:
        page.click("#export-json")
    [saved] = json.loads(download.value.path().read_text())["conversations"]
    assert len(saved["nodes"]) == 4


@needs_browser
def test_export_and_import(visit, tmp_path):
    page = visit()
    send(page, "rich")
    answer(page).get_by_role("button", name="Answer again").click()
    finished(page)
    with page.expect_download() as download:
        page.click("#export-all")
    file = tmp_path / "all.json"
    download.value.save_as(file)
    assert download.value.suggested_filename == "jaxlm-conversations.json"
    with page.expect_download() as download:
        page.click("#export-markdown")
    assert download.value.suggested_filename == "rich.md"
    text = download.value.path().read_text(encoding="utf-8")
    assert text == f"# rich\n\n## You\n\nrich\n\n## SmolLM2-135M-Instruct\n\n{RICH.strip()}\n"
    # in another browser
    page = visit()
    page.set_input_files("#import-file", file)
    expect(answer(page).locator(".versions")).to_contain_text("2 of 2")
    [mine] = stored(page)
    [theirs] = json.loads(file.read_text())["conversations"]
    assert [node["text"] for node in mine["nodes"]] == [node["text"] for node in theirs["nodes"]]
    assert mine["id"] != theirs["id"]
    good = json.loads(file.read_text())
    node = good["conversations"][0]["nodes"][0]
    bad = {
        "it is not JSON": "{",
        'its "format" is not "jaxlm.conversations"': "[]",
        "its version is 2, this page reads version 1": json.dumps(good | {"version": 2}),
        'conversations[0]: kind is "x"': json.dumps(good | {"conversations": [{"kind": "x"}]}),
        "nodes[0].parent is not a message before it": json.dumps(
            good | {"conversations": [{"kind": "chat", "nodes": [node | {"parent": node["id"]}]}]}
        ),
        'nodes[0].role is "__proto__"': json.dumps(
            good | {"conversations": [{"kind": "chat", "nodes": [node | {"role": "__proto__"}]}]}
        ),
    }
    for reason, text in bad.items():
        file.write_text(text)
        page.set_input_files("#import-file", file)
        expect(page.locator("#notice")).to_contain_text(reason)
    assert len(stored(page)) == 1


@needs_browser
def test_the_language_follows_the_browser_and_a_switch(visit):
    page = visit(locale="zh-CN")
    expect(page.locator("#prompt")).to_have_attribute("placeholder", "消息")
    assert page.get_attribute("html", "lang") == "zh-Hans"
    send(page, "chinese")
    expect(answer(page).locator(".text")).to_have_text("你好！中文。后文")
    page.click("#new")
    page.fill("#prompt", "kept")
    page.reload()
    page.wait_for_selector("#conversations .open")
    # what was typed and not sent
    expect(page.locator("#prompt")).to_have_value("kept")
    page.click("#conversations .open")
    page.fill("#prompt", "kept")
    page.click("#language")
    expect(page.locator("#prompt")).to_have_attribute("placeholder", "Message")
    # the conversation and what was typed are still there
    assert page.input_value("#prompt") == "kept"
    expect(page.locator(".message")).to_have_count(2)
    page.reload()
    expect(page.locator("#prompt")).to_have_attribute("placeholder", "Message")


@needs_browser
def test_the_theme_follows_the_system_and_a_switch(visit):
    page = visit(color_scheme="dark")
    background = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(background)
    page.click("#theme")
    light = page.evaluate(background)
    assert (dark, light) == ("rgb(21, 25, 30)", "rgb(255, 255, 255)")
    page.reload()
    page.wait_for_selector("#prompt")
    assert page.evaluate(background) == light


@needs_browser
def test_a_text_is_continued(visit, stub):
    page = visit("completion")
    page.fill("#prompt", "The quick\nbrown fox jumps")
    page.press("#prompt", "Control+Enter")
    expect(page.locator("mark")).to_have_text(" over the lazy dog.", use_inner_text=False)
    expect(page.locator("#paper")).to_have_text("The quick brown fox jumps over the lazy dog.")
    request = stub.stub.requests[-1]
    assert request["prompt"] == "The quick\nbrown fox jumps"
    assert "messages" not in request
    finished(page)
    page.get_by_role("button", name="Another continuation").click()
    expect(page.locator(".versions")).to_contain_text("2 of 2")
    page.click("#keep")
    assert page.input_value("#prompt") == "The quick\nbrown fox jumps over the lazy dog."
    page.click("#run")
    expect(page.locator(".versions")).to_contain_text("3 of 3")
    page.get_by_role("button", name="Previous version").click()
    expect(page.locator("mark")).to_have_text(" over the lazy dog.")
    # the text that belongs to it
    assert page.input_value("#prompt") == "The quick\nbrown fox jumps"


@needs_browser
def test_source_and_target(visit, stub):
    page = visit("encoder_decoder")
    page.get_by_label("Source").fill("The cat sleeps.")
    page.click("#run")
    expect(page.get_by_role("region", name="Target")).to_have_text("猫在睡觉。")
    assert stub.stub.requests[-1]["prompt"] == "The cat sleeps."
    finished(page)
    # a target does not stand beside a source that it is not of
    page.get_by_label("Source").fill("The dog")
    expect(page.locator(".document")).to_contain_text("For an earlier source: The cat sleeps.")
    page.reload()
    page.click("#conversations .open")
    expect(page.locator("#paper")).to_have_text("猫在睡觉。")
    assert page.input_value("#prompt") == "The dog"


@needs_browser
def test_an_encoder_compares_texts(visit):
    page = visit("encoder")
    expect(page.locator("#work")).to_contain_text("It does not write text.")
    expect(page.locator("#settings-open")).to_be_hidden()
    page.click("#compare")
    expect(page.locator("#work [role=alert]")).to_have_text("Enter at least two lines.")
    # the stub's vectors: length, number of a, one
    texts = {"aaa": (3, 3, 1), "bb": (2, 0, 1), "acccc": (5, 1, 1)}
    page.fill("#prompt", "\n".join(texts) + "\n")
    page.click("#compare")
    dot = lambda a, b: sum(x * y for x, y in zip(a, b))
    cosine = lambda a, b: dot(a, b) / (dot(a, a) * dot(b, b)) ** 0.5
    table = [f"{cosine(a, b):.3f}" for a in texts.values() for b in texts.values()]
    expect(page.locator("#similarities td.right")).to_have_text(table)


@needs_browser
def test_one_of_two_models(visit, stub):
    page = visit("two")
    send(page, "hello")
    page.select_option("#model-choice", "gpt2-small")
    # the conversation of the chat is not one of this model's
    expect(page.locator("#conversations .open")).to_have_count(0)
    page.fill("#prompt", "fox jumps")
    page.press("#prompt", "Control+Enter")
    expect(page.locator("mark")).to_have_text(" over the lazy dog.")
    assert stub.stub.requests[-1]["model"] == "gpt2-small"


@needs_browser
def test_a_server_that_is_not_ready(visit):
    page = visit("down", ready="#load-again")
    expect(page.locator("#work")).to_contain_text("The model is still loading.")


@needs_browser
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_cut_off(visit, kind):
    page = visit(kind)
    if kind == "chat":
        send(page, "rich")
    for width in (1600, 360):
        page.set_viewport_size({"width": width, "height": 640})
        # until the page has answered the change of its width, a panel may still be open as it was
        page.wait_for_timeout(500)
        for panel in [None] if kind == "encoder" else [None, "settings", "list"]:
            if panel and not page.locator(f"#{panel}").is_visible():
                page.click(f"#{panel}-open")
            wide = page.evaluate(
                """() => [...document.querySelectorAll("button, input, textarea, h1, h2, .message, .paper")]
                  .filter((e) => e.checkVisibility() && !e.closest(".skip, .unseen, .table, pre"))
                  .map((e) => [e, e.getBoundingClientRect()])
                  .filter(([, box]) => box.right > innerWidth + 1 || box.left < -1)
                  .map(([e]) => e.id || e.className || e.localName)"""
            )
            assert wide == [], (width, panel)
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            if panel and width == 360:
                # a drawer: the page behind it cannot be reached, Escape closes it, the focus goes back
                page.wait_for_function("document.getElementById('main').inert", timeout=20_000)
                page.keyboard.press("Escape")
                expect(page.locator(f"#{panel}-open")).to_be_focused()


@needs_browser
def test_a_screen_reader_hears_an_answer_once(visit):
    page = visit()
    page.evaluate(
        """() => {
          window.said = [];
          const status = document.getElementById("status");
          const observer = new MutationObserver(() => status.textContent && window.said.push(status.textContent));
          observer.observe(status, { childList: true, characterData: true, subtree: true });
        }"""
    )
    send(page, "rich")
    expect(page.locator("#status")).to_have_text(re.compile("^Answer: A transformer reads"))
    said = page.evaluate("window.said")
    assert said[0] == "The model is answering"
    assert len(said) == 2
    # the messages are no live region themselves
    live = "document.querySelector('#log').closest('[aria-live], [role=log], [role=status], [role=alert]')"
    assert page.evaluate(live) is None


@needs_browser
def test_the_keyboard_alone(visit, stub):
    page = visit()
    # the first link of the page, seen only with the focus on it
    page.locator("a.skip").focus()
    expect(page.locator("a.skip")).to_be_in_viewport()
    page.keyboard.press("Enter")
    expect(page.locator("#prompt")).to_be_focused()
    page.keyboard.type("hello")
    page.keyboard.press("Enter")
    expect(page.locator(".message")).to_have_count(2)
    finished(page)
    page.keyboard.press("Alt+r")
    expect(answer(page).locator(".versions")).to_contain_text("2 of 2")
    page.keyboard.press("Alt+s")
    expect(page.locator("#settings-close")).to_be_focused()
    page.keyboard.press("Alt+s")
    expect(page.locator("#settings")).to_be_hidden()
    page.keyboard.press("Alt+i")
    expect(page.locator("#prompt")).to_be_focused()
    page.keyboard.press("Control+/")
    expect(page.locator("#shortcuts-dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#prompt")).to_be_focused()


@needs_browser
@pytest.mark.parametrize("kind", ["chat", "encoder_decoder", "encoder"])
def test_accessibility_rules(visit, kind):
    """The rules of axe-core for WCAG 2.2 AA: names, roles, contrast, order."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
    # a model may leave out a level of headings
    options = {
        "runOnly": {"type": "tag", "values": tags},
        "rules": {"heading-order": {"enabled": False}},
    }
    page = visit(kind)
    if kind == "chat":
        send(page, "fail")
        send(page, "rich")
    if kind != "encoder":
        page.click("#settings-open")
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        # a panel that still fades in has too little contrast
        page.evaluate("Promise.all(document.getAnimations().map((each) => each.finished))")
        result = axe.run(page, options=options)
        wrong = [(v["id"], v["nodes"][0]["html"]) for v in result.response["violations"]]
        assert wrong == [], scheme


@needs_browser
def test_copying_code(visit):
    page = visit(permissions=["clipboard-read", "clipboard-write"])
    send(page, "rich")
    answer(page).get_by_role("button", name="Copy code").click()
    expect(page.locator("#status")).to_have_text("Copied")
    assert (
        page.evaluate("navigator.clipboard.readText()")
        == RICH.split("```")[1][len("python\n") : -1]
    )


def test_both_languages_have_the_same_words():
    source = (PAGE / "words.js").read_text(encoding="utf-8")
    tables = re.findall(r"const (en|zh) = \{\n(.*?)\n\};", source, re.S)
    words = {name: dict(re.findall(r'^  (\w+): "(.*)",$', body, re.M)) for name, body in tables}
    assert words["en"].keys() == words["zh"].keys()
    for key, text in words["en"].items():
        assert sorted(re.findall(r"\{\w+\}", text)) == sorted(
            re.findall(r"\{\w+\}", words["zh"][key])
        ), key
    # every key that the page names exists, and every one is named
    rest = "\n".join(
        path.read_text(encoding="utf-8")
        for path in PAGE.iterdir()
        if path.suffix in (".js", ".html") and path.name != "words.js"
    )
    named = set(re.findall(r'data-t(?:-label|-placeholder)?="(\w+)"', rest))
    named |= set(re.findall(r"\bt\((?:[^()\"]*\? )?\"(\w+)\"", rest))
    assert named <= words["en"].keys()
    assert [key for key in words["en"] if not re.search(rf"\b{key}\b", rest)] == [
        key
        for key in words["en"]
        if key.startswith("kind_") or key.endswith("_help")
        if not re.search(rf"\b{key}\b", rest)
    ]


def test_nothing_on_the_page_parses_text_as_html():
    for path in PAGE.iterdir():
        source = path.read_text(encoding="utf-8")
        sinks = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|DOMParser|srcdoc"
        assert not re.search(sinks, source), path.name
        # addresses other than namespaces would be asked for when the page is opened
        assert set(re.findall(r"https?://[\w.]+", source)) <= {"http://www.w3.org"}, path.name
    page = (PAGE / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"<style|style=|\son\w+=", page)
    meta = re.search(r'Content-Security-Policy" content="(.*?)"', page).group(1)
    assert meta + "; frame-ancestors 'none'" == HEADERS["Content-Security-Policy"]
