"""The page as a person uses it, in headless Chromium (pip install playwright; a chromium on the path)."""

from __future__ import annotations

import base64
import json
import shutil
import time

import pytest

import tiny
import vision_models
from processes import serving
from tokamak.observe.history import History

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
DONE = "#speed:not(:empty)"


@pytest.fixture(scope="module")
def browser():
    driver = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium on the path")
    with driver.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    """A server of the embedded model that has been up for some minutes, as its history says."""
    path = tmp_path_factory.mktemp("page") / "history.sqlite"
    history = History(path)
    for ago in range(300, 0, -10):
        history.add({"generated_tokens_per_s": 40 + ago % 7, "memory_nbytes": 2e8}, now=time.time() - ago)
    history.close()
    with serving(None, "--history", path) as (_, found):
        yield found


@pytest.fixture(scope="module")
def two_url(tmp_path_factory):
    """One that serves two models that see images."""
    folder = tmp_path_factory.mktemp("two")
    seeing = tiny.gguf(
        folder / "seeing.gguf", "llama", "f32", metadata={"tokenizer.chat_template": tiny.TEMPLATE}
    )
    encoder = vision_models.gguf(folder / "mmproj-seeing.gguf")
    other = tiny.gguf(folder / "other.gguf", "qwen2", "f32")
    with serving([seeing, other], "--mmproj", encoder, "--context", 512, "--no-history") as (_, found):
        yield found


@pytest.fixture
def page(browser, url):
    opened = browser.new_page(viewport={"width": 1100, "height": 800})
    wrong = []
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    opened.goto(url)
    opened.wait_for_selector("#model option", state="attached")
    opened.click("#settings summary")
    opened.fill("#set-max_tokens", "12")
    yield opened
    opened.close()
    assert wrong == []


def ask(page, text):
    page.fill("#prompt", text)
    page.press("#prompt", "Enter")
    page.wait_for_selector("#messages li:last-child.assistant .body:not(.waiting) >> nth=0")
    page.wait_for_selector(DONE)


def test_an_answer_streams_in_and_says_how_fast(page):
    ask(page, "Once upon a time")
    assert page.inner_text(".message.user .body") == "Once upon a time"
    assert page.inner_text(".message.assistant .body").strip()
    assert "tok/s" in page.inner_text("#speed")
    assert page.inner_text("#said").strip()  # what a screen reader is told


def test_asking_again_makes_a_branch(page):
    ask(page, "Once upon a time")
    page.click("text=Again")
    page.wait_for_selector("text=2 of 2")
    page.wait_for_selector(DONE)
    assert page.locator(".message.user").count() == 1


def test_a_request_has_the_system_prompt_and_the_samplers_that_are_set(page):
    page.fill("#system", "Be short.")
    page.fill("#set-temperature", "0.3")
    page.click("summary:has-text('More samplers')")
    page.fill("#set-xtc_probability", "0.1")
    with page.expect_request("**/v1/chat/completions") as sent:
        ask(page, "Once")
    body = sent.value.post_data_json
    assert body["messages"] == [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "Once"},
    ]
    assert (body["max_tokens"], body["temperature"], body["xtc_probability"]) == (12, 0.3, 0.1)
    assert "top_p" not in body
    page.reload()
    page.wait_for_selector("#model option", state="attached")
    assert page.input_value("#set-temperature") == "0.3"
    page.evaluate("localStorage.clear()")


def test_images_are_attached_sent_shown_and_kept(browser, two_url):
    opened = browser.new_page()
    wrong = []
    opened.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    opened.goto(two_url)
    opened.wait_for_selector("#model option", state="attached")
    opened.click("#settings summary")
    opened.fill("#set-max_tokens", "12")
    png = vision_models.png(vision_models.picture())
    cats = [{"name": f"{name}.png", "mimeType": "image/png", "buffer": png} for name in ("cat", "dog")]
    opened.set_input_files("#files", cats)
    opened.click("[aria-label='Remove dog.png']")
    assert opened.get_attribute("#attached img", "alt") == "cat.png"
    with opened.expect_request("**/v1/chat/completions") as sent:
        ask(opened, "What is it?")
    (message,) = sent.value.post_data_json["messages"]
    url = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    assert message["content"] == [
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "text", "text": "What is it?"},
    ]
    assert opened.locator("#attached li").count() == 0
    assert opened.locator(".message.failed").count() == 0
    opened.reload()
    opened.wait_for_selector(".message.user img")
    assert opened.evaluate("document.querySelector('.message.user img').naturalWidth") > 0
    opened.set_input_files("#files", [{"name": "a.txt", "mimeType": "text/plain", "buffer": b"x"}])
    opened.wait_for_selector("#notice:not([hidden])")
    assert opened.locator("#attached li").count() == 0
    opened.close()
    assert wrong == []


def test_a_model_that_sees_nothing_takes_no_images(page):
    assert page.is_hidden("#attach")


def test_models_cut_a_text_side_by_side(browser, two_url):
    opened = browser.new_page()
    opened.goto(two_url + "#tokens")
    opened.wait_for_selector("#token-columns h3")
    assert opened.locator("#token-columns h3").all_text_contents() == [
        "seeing"
    ]  # the other is not loaded yet
    opened.check("#token-models [value=other]")
    opened.wait_for_selector("#token-columns h3 >> nth=1")
    assert opened.locator("#token-columns h3").all_text_contents() == ["seeing", "other"]
    assert opened.locator("#token-columns .token").count() > 10
    opened.close()


def test_an_edit_makes_a_branch_and_the_old_one_stays(page):
    ask(page, "First question")
    page.click("text=Edit")
    page.fill("[aria-label='Edited message']", "Second question")
    page.press("[aria-label='Edited message']", "Enter")
    page.wait_for_selector("text=2 of 2")
    page.wait_for_selector(DONE)
    assert page.inner_text(".message.user .body") == "Second question"
    page.click("[aria-label='Branch before']")
    assert page.inner_text(".message.user .body") == "First question"
    assert page.locator(".message.assistant").count() == 1
    page.reload()
    page.wait_for_selector("text=1 of 2")  # it is kept


def test_a_long_answer_is_stopped(page):
    def endless(route):
        route.continue_(
            post_data=json.dumps(route.request.post_data_json | {"ignore_eos": True, "max_tokens": 900})
        )

    page.route("**/v1/chat/completions", endless)
    page.fill("#prompt", "Once")
    page.press("#prompt", "Enter")
    escape = """() => new Promise((done) => {
      const look = () => {
        if (!document.querySelector('.message.assistant .body')?.textContent.trim()) return requestAnimationFrame(look);
        done(!document.getElementById('stop').hidden);
        document.dispatchEvent(new KeyboardEvent('keydown', { key: 'Escape' }));
      };
      look();
    })"""
    assert page.evaluate(escape) is True  # text is shown while it is written
    page.wait_for_selector("#stop", state="hidden")
    page.wait_for_selector("text=(stopped)")
    assert page.inner_text(".message.assistant .body").strip()


def test_probabilities_are_drawn(page):
    page.check("#show-probabilities")
    ask(page, "Once upon a time")
    page.hover(".probability >> nth=1")
    page.wait_for_selector("#candidates tr >> nth=4")


def test_what_a_model_writes_never_becomes_markup(page):
    code = """async () => {
      const { markdown } = await import('/ui/markdown.js');
      const box = document.createElement('div');
      box.append(markdown(`# T\\n<img src=x onerror=alert(1)> **b** \\`c<d\\`\\n\\n- one\\n  - two\\n- three\\n\\n|a|b|\\n|-|-|\\n|1|2|\\n\\n[bad](javascript:alert(1)) [good](https://example.org/)\\n\\n\\`\\`\\`py\\n<script>\\n\\`\\`\\`\\n> q`));
      return [box.querySelectorAll('img,script').length, box.querySelectorAll('a').length, box.querySelector('h3').textContent, box.querySelectorAll('li').length, box.querySelectorAll('td').length, box.querySelector('pre').textContent, box.querySelector('strong').textContent, box.querySelector('blockquote').textContent];
    }"""
    assert page.evaluate(code) == [0, 1, "T", 3, 2, "<script>", "b", "q"]


def test_the_dashboard_draws_what_happened(page):
    ask(page, "Once")
    page.clock.install()
    page.click("#tab-dashboard")
    page.wait_for_selector("figure svg polyline")
    assert page.locator("figure").count() == 8
    points = page.get_attribute("figure svg polyline >> nth=0", "points").split()
    assert len(points) >= 25  # of the 30 that the history has
    assert page.locator("#health .tile.good").count() >= 3
    assert "Tokens per second" in page.get_attribute("figure svg >> nth=0", "aria-label")
    with page.expect_request("**/status"), page.expect_request("**/history?*"):
        page.clock.fast_forward(10_000)


def test_tokens_are_coloured_and_joined_they_are_the_text(page):
    page.click("#tab-tokens")
    page.uncheck("#token-special")
    page.fill("#token-text", "Hello there, token world")
    page.wait_for_selector("text=24 bytes")
    assert "".join(page.locator(".token").all_text_contents()).strip() == "Hello there, token world"


def test_the_model_is_shown_and_tensors_are_found(page):
    page.click("#tab-model")
    page.wait_for_selector("#model-formats tr >> nth=1")
    page.click("summary:has-text('Tensors')")
    before = page.locator("#model-tensors tr").count()
    page.fill("#tensor-filter", "attn_q")
    assert 1 < page.locator("#model-tensors tr").count() < before


def test_tabs_work_from_the_keyboard_and_themes_change(page):
    page.focus("#tab-chat")
    page.keyboard.press("ArrowRight")
    page.wait_for_selector("#page-dashboard:not([hidden])")
    assert page.evaluate("() => document.activeElement.id") == "tab-dashboard"
    page.keyboard.press("End")
    page.wait_for_selector("#page-model:not([hidden])")
    ground = "() => getComputedStyle(document.body).backgroundColor"
    first = page.evaluate(ground)
    page.click("#theme")
    assert page.evaluate(ground) != first


def test_everything_that_can_be_operated_has_a_name(page):
    code = """() => [...document.querySelectorAll('button,input,select,textarea')].filter((e) =>
      !(e.textContent.trim() || e.getAttribute('aria-label') || e.labels?.length)).map((e) => e.outerHTML)"""
    assert page.evaluate(code) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_told_from_its_ground(browser, url, scheme):
    """WCAG 2: a ratio of luminances of 4.5 for text, 3 for lines of charts and borders of focus."""
    opened = browser.new_page(color_scheme=scheme)
    opened.goto(url)
    code = """() => {
      const style = getComputedStyle(document.documentElement);
      const probe = document.body.appendChild(document.createElement('i'));
      const light = (name) => {
        probe.style.color = style.getPropertyValue(name);
        const [r, g, b] = getComputedStyle(probe).color.match(/[\\d.]+/g).map(Number).map((v) => (v /= 255) <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
        return .2126 * r + .7152 * g + .0722 * b;
      };
      const ratio = (a, b) => { const [x, y] = [light(a), light(b)].sort((p, q) => q - p); return (x + .05) / (y + .05); };
      const out = {};
      for (const ground of ['--ground', '--raised']) for (const text of ['--text', '--faint', '--accent', '--bad', '--good', '--series-1', '--series-2', '--series-3']) out[text + ground] = ratio(text, ground);
      out.button = ratio('--accent-text', '--accent');
      return out;
    }"""
    ratios = opened.evaluate(code)
    opened.close()
    assert all(ratio >= (3.0 if "series" in name else 4.5) for name, ratio in ratios.items()), ratios


def test_a_phone_sees_no_sideways_scroll(page):
    page.set_viewport_size({"width": 360, "height": 740})
    for tab in ("chat", "dashboard", "tokens", "model"):
        page.click(f"#tab-{tab}")
        assert page.evaluate("() => document.documentElement.scrollWidth") <= 360, tab


def test_a_server_with_a_key_asks_for_it(browser):
    with serving(None, "--no-history", "--api-key", "secret-key") as (_, url):
        opened = browser.new_page()
        opened.goto(url)
        opened.wait_for_selector("#key-dialog[open]")
        opened.fill("#key-value", "secret-key")
        opened.click("#key-dialog .primary")
        opened.wait_for_selector("#model option", state="attached")
        opened.close()
