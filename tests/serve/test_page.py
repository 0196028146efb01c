"""The page in a real browser: Chromium of the system, driven by Playwright; screenshots go to build/browser."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import mote_fast
from mote_fast.data.items import read_labels
from mote_fast.search.video_index import Index
from mote_fast.serve.app import PAGE, Example, Offer
from mote_fast.serve.engine import Engine
from tests.serve.served import DEMO, Served, running

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SHOTS = Path(__file__).parents[2] / "build" / "browser"
LABELS = ["plain red ring", "plain blue cross", "striped yellow ring", "dotted green star"]
EXAMPLES = [Example(video, read_labels(video.parent.with_suffix(".csv"))) for video in DEMO]
# Waits for the player; the page's policy forbids what Playwright would evaluate again and again.
PLAYER = "() => new Promise((done) => { const player = document.querySelector('#player'); "

pytestmark = pytest.mark.heavy


def test_the_page_names_no_other_host() -> None:
    """Its files hold no address but the name of SVG's elements, no inline script and no inline style."""
    for path in PAGE.iterdir():
        text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"(https?:)?//[\w.]+\.\w+/|@import|url\(", text), path.name
    html = (PAGE / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"<script(?! src=\"/page/)|<style|\son\w+=|\sstyle=", html)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium here; apt-get install chromium")
    with playwright.sync_playwright() as driver:
        camera = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *camera])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def site(
    engine: Engine, model: mote_fast.VideoClassifier, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    index = Index.create(tmp_path_factory.mktemp("index") / "index", model)
    index.add_videos(model, DEMO[:3], workers=1)
    with running(engine, Offer("tiny", LABELS, index, EXAMPLES)) as served:
        yield served


class Tab:
    """A page of the site, which notes what it asks for and what goes wrong."""

    def __init__(self, browser: Any, site: Served, **options: Any) -> None:
        self.page = browser.new_context(**options).new_page()
        self.page.set_default_timeout(60_000)
        self.requests: list[str] = []
        self.faults: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.goto(f"http://127.0.0.1:{site.port}/")

    def upload(self, video: Path) -> None:
        self.page.wait_for_selector("#work:not([hidden])")
        self.page.set_input_files("#file", video)

    def ranked(self) -> list[tuple[str, str]]:
        self.page.wait_for_selector("#ranked li")
        return [tuple(row.split("\n")) for row in self.page.locator("#ranked li").all_inner_texts()]

    def problem(self) -> str:
        self.page.wait_for_selector("#problem:not([hidden])")
        return self.page.inner_text("#problem")

    def close(self, site: Served) -> None:
        assert self.faults == []
        own = f"http://127.0.0.1:{site.port}/"
        assert [url for url in self.requests if not url.startswith((own, f"blob:{own}"))] == []
        self.page.context.close()


@pytest.fixture
def tab(browser: Any, site: Served) -> Iterator[Tab]:
    tab = Tab(browser, site)
    yield tab
    tab.close(site)


def shown(model: mote_fast.VideoClassifier, video: Path, labels: list[str]) -> list[tuple[str, str]]:
    return [(each.label, f"{100 * each.score:.1f} %") for each in model.classify(video, labels, topk=10)]


def test_uploads_are_ranked_as_by_classify(tab: Tab, model: mote_fast.VideoClassifier) -> None:
    """Each demo video, with labels that were typed; a screenshot of the last is kept."""
    for video, labels in EXAMPLES:
        tab.page.wait_for_selector("#work:not([hidden])")
        tab.page.fill("#labels", "\n".join(labels))
        tab.upload(video)
        tab.page.click("#classify")
        assert tab.ranked() == shown(model, video, labels)
    SHOTS.mkdir(parents=True, exist_ok=True)
    tab.page.screenshot(path=SHOTS / "ranked.png", full_page=True)


def test_faults_are_told_in_words(tab: Tab, site: Served, tmp_path: Path) -> None:
    """A damaged file, one that is too large for the page or, if it does not look, for the server; then a good one."""
    damaged, large = tmp_path / "<b>damaged<i>.mp4", tmp_path / "large.mp4"
    damaged.write_bytes(DEMO[0].read_bytes()[:300])
    large.write_bytes(bytes(site.engine.limits.upload_bytes + 2**21))
    tab.upload(damaged)
    tab.page.wait_for_selector("#unplayable:not([hidden])")
    tab.page.click("#classify")
    assert tab.problem().startswith("<b>damaged<i>.mp4: ")
    tab.upload(large)
    assert "over the limit of 3 MB" in tab.problem()
    tab.page.evaluate("state.limits.upload_bytes = 1e12")
    tab.upload(large)
    tab.page.click("#classify")
    assert "over the limit of 3 MB" in tab.problem()
    tab.page.fill("#labels", " ")
    tab.upload(DEMO[0])
    tab.page.click("#classify")
    tab.ranked()
    assert tab.page.is_hidden("#problem")


def test_two_tabs_at_once(browser: Any, site: Served, model: mote_fast.VideoClassifier) -> None:
    """Each shows its own video's labels."""
    tabs = [Tab(browser, site), Tab(browser, site)]
    for tab, video in zip(tabs, DEMO, strict=False):
        tab.upload(video)
    for tab in tabs:
        tab.page.click("#classify")
    for tab, video in zip(tabs, DEMO, strict=False):
        assert tab.ranked() == shown(model, video, LABELS)
        tab.close(site)


def test_the_timeline_jumps_and_rejects(tab: Tab, model: mote_fast.VideoClassifier) -> None:
    """An example by keyboard alone; a segment moves the player; what fits no label is said."""
    page = tab.page
    page.wait_for_selector("#examples button")
    page.focus("#examples button >> nth=1")
    page.keyboard.press("Enter")
    page.wait_for_selector("#timeline:enabled")
    page.evaluate(PLAYER + "player.readyState ? done() : player.addEventListener('loadedmetadata', done) })")
    page.focus("#timeline")
    page.keyboard.press("Enter")
    page.wait_for_selector("#segments li")
    video, labels = EXAMPLES[1]
    segment = model.timeline(video, labels).segments[0]
    assert segment.label in page.inner_text("#segments")
    page.evaluate("document.querySelector('#player').currentTime = 1")
    page.click("#track button >> nth=0")
    assert page.evaluate("document.querySelector('#player').currentTime") == pytest.approx(segment.start, abs=0.05)
    page.click("summary")
    page.check("input[value=words]")
    page.fill("#background", "\n".join(labels))
    page.fill("#labels", "a dotted purple square")
    for button, said in (("#timeline", "None of these labels at any time"), ("#classify", "None of these labels.")):
        page.click(button)
        page.wait_for_selector(f"#rejection:has-text('{said}')")


def test_search_by_words_and_by_the_video(tab: Tab, site: Served, model: mote_fast.VideoClassifier) -> None:
    """The index's videos, best first."""
    tab.page.wait_for_selector("#search:not([hidden])")
    tab.page.fill("#words", "a red ring")
    tab.page.keyboard.press("Enter")
    tab.page.wait_for_selector("#hits li")
    assert tab.page.locator("#hits li").count() == 3
    tab.upload(DEMO[1])
    tab.page.click("#like")
    tab.page.wait_for_selector(f"#hits li:first-child:has-text('{DEMO[1].name}')")
    tab.page.fill("#words", " ")
    tab.page.click("#ask button >> nth=0")
    assert "blank" in tab.problem()


def test_a_recording_is_ranked(tab: Tab) -> None:
    """The camera's picture, recorded by the browser, which writes no duration."""
    tab.page.wait_for_selector("#work:not([hidden])")
    tab.page.click("#record")
    tab.page.evaluate(PLAYER + "player.addEventListener('timeupdate', () => player.currentTime > 0.5 && done()) })")
    tab.page.click("#record")
    tab.page.wait_for_selector("#classify:enabled")
    tab.page.click("#classify")
    assert len(tab.ranked()) == len(LABELS)


def test_a_phone_in_the_dark(browser: Any, site: Served) -> None:
    """Nothing is wider than the screen, and the ground is dark."""
    tab = Tab(browser, site, viewport={"width": 360, "height": 700}, color_scheme="dark")
    tab.page.wait_for_selector("#examples button")
    tab.page.click("#examples button >> nth=3")
    tab.page.wait_for_selector("#classify:enabled")
    tab.page.click("#classify")
    tab.ranked()
    assert tab.page.evaluate("document.documentElement.scrollWidth") == 360
    assert tab.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 22, 28)"
    SHOTS.mkdir(parents=True, exist_ok=True)
    tab.page.screenshot(path=SHOTS / "phone.png", full_page=True)
    tab.close(site)


def test_the_token_is_asked_for(browser: Any, engine: Engine) -> None:
    """The page is there without it, and works with it; a wrong one is told."""
    with running(engine, Offer("tiny", LABELS), token="secret") as site:
        tab = Tab(browser, site)
        for word in ("wrong", "secret"):
            tab.page.wait_for_selector("#door:not([hidden])")
            tab.page.fill("#token", word)
            tab.page.keyboard.press("Enter")
            if word == "wrong":
                assert "token" in tab.problem()
        tab.upload(DEMO[0])
        tab.page.click("#classify")
        tab.ranked()
        tab.close(site)


def test_scripts_of_others_do_not_run(tab: Tab) -> None:
    """The header forbids what a fault in the page could fetch or run."""
    tab.page.wait_for_selector("#work:not([hidden])")
    refused = tab.page.evaluate(
        """() => new Promise((done) => {
            const seen = [];
            document.addEventListener("securitypolicyviolation", (event) => {
                seen.push(event.effectiveDirective);
                if (seen.length === 3) done(seen.sort());
            });
            const inline = document.createElement("script");
            inline.textContent = "window.ran = true";
            const far = document.createElement("img");
            far.src = "http://203.0.113.1/a.png";
            document.body.append(inline, far);
            fetch("http://203.0.113.1/").catch(() => {});
        })"""
    )
    assert refused == ["connect-src", "img-src", "script-src-elem"]
    assert tab.page.evaluate("window.ran") is None
    tab.requests.clear()
