"""The page as a person uses it, in headless Chromium (pip install playwright; a chromium on the path)."""

from __future__ import annotations

import json
import shutil

import pytest

from processes import serving

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
def url():
    with serving(None, "--no-history") as (_, found):
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
    page.wait_for_selector("#stop:not([hidden])")
    page.press("#prompt", "Escape")
    page.wait_for_selector("#stop", state="hidden")
    page.wait_for_selector("text=(stopped)")


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
    page.click("#tab-dashboard")
    page.wait_for_selector("figure svg")
    assert page.locator("figure").count() == 8
    assert page.locator("#health .tile.good").count() >= 3
    assert "Tokens per second" in page.get_attribute("figure svg >> nth=0", "aria-label")


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
