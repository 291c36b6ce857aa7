"""``report.html`` in a real browser."""

import json
import re
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import tiny

from multigrid.report import draw_figures
from multigrid.report.page import write_page
from multigrid.report.record import RunRecord

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
in_browser = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs Chromium and its driver")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The report of a small run with two fields and a roll-out."""
    folder = tmp_path_factory.mktemp("page")
    experiment = tiny.write_experiment(
        folder / "e.yaml",
        name="steps",
        problem={"kind": "reaction_diffusion", "num_modes": 2},
        data={"rollout_steps": 4},
        model={"padding": "periodic"},
    )
    tiny.train(experiment, folder, "schedule.epochs=2", pictures=True)
    return folder / "results" / "steps" / "report.html"


@pytest.fixture(scope="module")
def browser():
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium")
    common = pytest.importorskip("selenium.common")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage",
                     "--window-size=1200,2400"):  # fmt: skip
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    try:
        driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    except common.WebDriverException as error:
        pytest.skip(f"Chromium does not start: {error.msg}")
    yield driver
    driver.quit()


@pytest.fixture
def opened(browser, page):
    browser.get(page.as_uri())
    yield browser
    assert browser.get_log("browser") == []


def test_it_needs_no_network(page):
    text = page.read_text()
    assert not re.search(r"""(src|href)\s*=\s*["'](?!data:)""", text)
    assert not re.search(r"@import|fetch\(|XMLHttpRequest|import\(", text)
    addresses = set(re.findall(r"https?://[^\s\"'<>]+", text))
    assert addresses == {"http://www.w3.org/2000/svg"}


def test_it_tells_what_the_result_files_tell(page):
    text = page.read_text()
    summary = json.loads((page.parent / "summary.json").read_text())
    assert f"{summary['test']['rel_l2']:.3%}" in text
    for part in ("<h2>Transfer</h2>", "TRANSFERRED", ">Frozen</th>", "kind: reaction_diffusion",
                 summary["torch"], summary["data_fingerprint"]):  # fmt: skip
        assert part in text


def test_names_of_fields_cannot_turn_the_text_around(tmp_path):
    fields = np.random.default_rng(0).standard_normal((2, 24, 1, 16, 16), dtype=np.float32)
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["x\u202e"], file["y\u202e\x1b"] = fields
    names = {"input": ["x\u202e"], "output": ["y\u202e\x1b"]}
    experiment = tiny.write_experiment(
        tmp_path / "e.yaml",
        problem={"kind": "file", "file": str(tmp_path / "f.h5"), **names},
        data={"train": 16, "validation": 4, "test": 4},
    )
    tiny.train(experiment, tmp_path)
    text = write_page(RunRecord.open(tmp_path / "results" / "tiny"), tmp_path).read_text()
    assert all(line.replace("\t", "").isprintable() for line in text.split("\n"))
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text)
    frame = json.loads(data)["frames"][0]
    for name in (frame["title"], *(panel["name"] for panel in frame["panels"])):
        assert name.isprintable()
    assert r"y\u202e\x1b" in frame["title"]


def test_a_run_without_its_summary_is_unfinished(page, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(page.parent, folder)
    assert "rollout" in draw_figures(RunRecord.open(folder))
    (folder / "summary.json").unlink()
    record = RunRecord.open(folder)
    assert "rollout" not in draw_figures(record)
    assert "This run is unfinished" in write_page(record, folder).read_text()


def find(driver, selector):
    return driver.find_elements("css selector", selector)


@in_browser
def test_levels_can_be_hidden(opened):
    lines = {path.get_attribute("data-level") for path in find(opened, "#chart path.level")}
    assert lines == {"0", "1"}
    find(opened, "input[name=level][value='0']")[0].click()
    lines = {path.get_attribute("data-level") for path in find(opened, "#chart path")}
    assert lines == {"1"}
    find(opened, "input[name=level][value='1']")[0].click()
    assert find(opened, "#chart path") == []
    find(opened, "input[name=level][value='0']")[0].click()
    assert len(find(opened, "#chart path.level")) == 1


@in_browser
def test_the_axis_can_be_switched(opened):
    seen = {}
    for quantity in ("epochs", "seconds", "work_units"):
        find(opened, f"input[name=quantity][value={quantity}]")[0].click()
        label = find(opened, "#x-label")[0].text
        seen[label] = find(opened, "#chart path.level")[0].get_attribute("d")
    assert [label.split()[0] for label in seen] == ["epochs", "training", "work"]
    assert len(set(seen.values())) == 3
    assert len(find(opened, "#chart path.finest")) == 2
    find(opened, "#finest")[0].click()
    assert find(opened, "#chart path.finest") == []


@in_browser
def test_a_point_tells_its_numbers(opened):
    from selenium.webdriver import ActionChains

    rows = json.loads(find(opened, "#data")[0].get_attribute("textContent"))["rows"]
    assert not find(opened, "#tip")[0].is_displayed()
    ActionChains(opened).move_to_element(find(opened, "#chart circle")[1]).perform()
    shown = find(opened, "#tip")[0].text
    assert shown.startswith("level 0, 8x8, epoch 1")
    assert f"{rows[1]['val_rel_l2']:.3g}"[:4] in shown


@in_browser
def test_predictions_can_be_flipped_through(opened):
    from selenium.webdriver import ActionChains

    data = json.loads(find(opened, "#data")[0].get_attribute("textContent"))
    titles = [frame["title"] for frame in data["frames"]]
    assert len(titles) == 3 * 2 + 2 * 5
    assert titles[-1] == "roll-out, v_next, step 4"

    def picture():
        script = "return document.querySelector('canvas.field').toDataURL()"
        return opened.execute_script(script)

    first = picture()
    find(opened, "#next")[0].click()
    assert find(opened, "#chooser")[0].get_property("value") == "1"
    find(opened, "#next")[0].click()
    assert picture() != first
    for _ in range(3):
        find(opened, "#previous")[0].click()
    assert find(opened, "#chooser")[0].get_property("value") == str(len(titles) - 1)
    ActionChains(opened).move_to_element(find(opened, "canvas.field")[0]).perform()
    assert re.match(r"point \((7|8), (7|8)\)", find(opened, "#reading")[0].text)


@in_browser
def test_values_survive_the_packing(opened):
    """The number under the pointer is that of the array."""
    data = json.loads(find(opened, "#data")[0].get_attribute("textContent"))
    panel = data["frames"][0]["panels"][0]
    assert (panel["width"], panel["height"], panel["step"]) == (16, 16, 1)
    first = opened.execute_script(
        "const p = arguments[0]; const b = Uint8Array.from(atob(p.data), (c) => c.charCodeAt(0));"
        "return p.low + (p.high - p.low) / 65535 * new Uint16Array(b.buffer)[0];",
        panel,
    )
    import numpy as np

    path = Path(opened.current_url.removeprefix("file://")).parent / "predictions.npz"
    with np.load(path) as arrays:
        assert first == pytest.approx(arrays["inputs_0"][0, 0, 0, 0], abs=1e-4 * panel["high"])
