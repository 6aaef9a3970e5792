"""`vix demo`: what the page computes, mistakes at the door, and the page in a real browser."""

import dataclasses
import io
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from PIL import Image
from short_run import CONFIG, SIZES

from vix_flax import create_model, demo
from vix_flax.cli import main
from vix_flax.data import load_dataset, read_image
from vix_flax.demo import LAYER, ROLLOUT, File, View, best, look, names_of, overlay, png, views_of
from vix_flax.launch import train
from vix_flax.run import Run

NO_CACHE = "--no-compilation-cache"


@pytest.fixture(scope="module")
def loaded(result):
    return Run.load(result.folder)


@pytest.fixture(scope="module")
def digit():
    return load_dataset("digits").test.images[3]


def test_an_overlay_is_large_and_brightest_where_the_map_is():
    weights = np.full((2, 4), -1.0)
    weights[1, 2] = 3.0
    picture = overlay(np.full((8, 16, 1), 90, np.uint8), weights)
    assert picture.size == (384, 192)
    brightness = np.asarray(picture).sum(axis=-1)
    row, column = np.unravel_index(brightness.argmax(), brightness.shape)
    assert row >= 96
    assert 192 <= column < 288
    assert brightness.max() > 2 * brightness[:96, :96].max()


@pytest.mark.parametrize("channels", [1, 3])
def test_without_a_map_the_image_alone_is_drawn(channels):
    image = np.random.default_rng(0).integers(0, 256, (8, 8, channels), np.uint8)
    picture = np.asarray(overlay(image, None))
    assert picture.shape == (384, 384, 3)
    np.testing.assert_array_equal(picture[24::48, 24::48], np.broadcast_to(image, (8, 8, 3)))


def test_a_flat_map_is_drawn():
    assert len(np.unique(np.asarray(overlay(np.zeros((4, 4, 1), np.uint8), np.ones((2, 2)))))) <= 3


def test_layers_and_heads_are_picked_and_named():
    layers = [np.arange(12.0).reshape(3, 2, 2), None, np.ones((1, 2, 2))]
    view = View(np.zeros((4, 4, 1), np.uint8), np.ones(1), layers, 5 * np.ones((1, 2, 2)))
    assert view.heads == 3
    weights, caption = view.chosen(LAYER, 1, 2)
    np.testing.assert_array_equal(weights, layers[0][1])
    assert caption == "Layer 1 of 3, head 2 of 3"
    weights, caption = view.chosen(LAYER, 1, 0)
    np.testing.assert_array_equal(weights, layers[0].mean(axis=0))
    assert caption == "Layer 1 of 3, mean of 3 heads"
    assert view.chosen(LAYER, 2, 1) == (None, "Layer 2 of 3: its keys are no map of the image.")
    assert view.chosen(LAYER, 7, 7)[1] == "Layer 3 of 3, its only head"
    assert view.chosen(ROLLOUT, 2, 2)[0].max() == 5
    without = dataclasses.replace(view, rollout=None)
    assert without.chosen(ROLLOUT, 1, 0)[1].startswith("No rollout")


def test_the_page_sees_what_vix_predict_sees(loaded, tmp_path):
    path = tmp_path / "large.png"
    pixels = np.random.default_rng(1).integers(0, 256, (30, 20, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    (view,) = views_of(File(path.read_bytes(), "large.png"), [loaded], [0])
    image = read_image(path, loaded.image_shape)
    np.testing.assert_array_equal(view.image, image)
    np.testing.assert_array_equal(view.probabilities, loaded.predict(image[None])[0])
    top = best(loaded, view.probabilities, 3)
    order = np.argsort(-view.probabilities)
    assert list(top) == [loaded.classes[i] for i in order[:3]]
    layers, rollout = loaded.attention(image)
    np.testing.assert_array_equal(view.layers[0], layers[0])
    np.testing.assert_array_equal(view.rollout, rollout)


def test_an_image_is_computed_once_for_each_run(loaded, digit, monkeypatch):
    seen = []
    monkeypatch.setattr(demo, "look", lambda run, image: seen.append(run) or object())
    file = File(png(digit), "digit.png")
    first = views_of(file, [loaded, loaded], [0])
    assert views_of(file, [loaded, loaded], [0]) == first
    assert len(seen) == 1
    assert views_of(file, [loaded, loaded], [0, 1])[0] is first[0]
    assert len(seen) == 2


def test_what_is_no_image_is_named(loaded):
    with pytest.raises(ValueError, match=r"notes\.txt is no image"):
        views_of(File(b"words", "notes.txt"), [loaded], [0])


def test_a_model_without_maps_predicts_and_says_why(loaded, digit):
    model = create_model("mlp_mixer", image_size=8, channels=1, patch_size=4, dim=8, depth=1)
    variables = model.init(jax.random.key(0), np.zeros((1, 8, 8, 1), np.float32))
    view = look(dataclasses.replace(loaded, model=model, variables=variables), digit)
    assert view.probabilities.sum() == pytest.approx(1, rel=1e-5)
    weights, caption = view.chosen(ROLLOUT, 1, 0)
    assert weights is None
    assert "nothing in it attends" in caption


def test_examples_are_a_test_image_of_each_class(loaded):
    test = load_dataset("digits").test
    contents = demo.examples(loaded)
    assert len(contents) == 10
    for label, content in enumerate(contents):
        with Image.open(io.BytesIO(content)) as image:
            pixels = np.asarray(image)[..., None]
        found = (test.images == pixels).all(axis=(1, 2, 3))
        assert label in test.labels[found]


def test_without_its_data_set_a_run_has_no_examples(loaded, tmp_path):
    config = dataclasses.replace(loaded.config, dataset="cifar10", data_dir=str(tmp_path))
    assert demo.examples(dataclasses.replace(loaded, config=config)) == []


def test_runs_have_names_that_differ():
    def run(model, folder, **fields):
        config = SimpleNamespace(model=model, model_fields=fields)
        return SimpleNamespace(config=config, folder=Path(folder))

    runs = [run("vit", "a/x"), run("vit", "b/x"), run("vit", "c", attention="linear")]
    assert names_of(runs) == ["vit, a/x", "vit, b/x", "vit (linear)"]


@pytest.fixture
def unlabelled(result, tmp_path):
    """A run's folder that says that it was trained without labels."""
    saved = json.loads((result.folder / "config.json").read_text())
    saved["config"]["objective"] = "mpp"
    (tmp_path / "config.json").write_text(json.dumps(saved))
    (tmp_path / "checkpoint").symlink_to(result.folder / "checkpoint")
    return tmp_path


@pytest.fixture
def gradio_found(monkeypatch):
    monkeypatch.setattr("vix_flax.demo_command.find_spec", lambda name: True)


def refused(capsys, *argv):
    """The one line of an error."""
    assert main(["demo", *map(str, argv), NO_CACHE]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.usefixtures("gradio_found")
def test_mistakes_are_one_line(result, tmp_path, unlabelled, capsys):
    assert "no run" in refused(capsys, result.folder, tmp_path / "nowhere")
    assert "without labels (mpp)" in refused(capsys, unlabelled)
    assert "--top-k 0" in refused(capsys, result.folder, "--top-k", 0)
    assert "--port 70000" in refused(capsys, result.folder, "--port", 70000)
    assert "--host 192.0.2.1" in refused(capsys, result.folder, "--host", "192.0.2.1")


@pytest.mark.usefixtures("gradio_found")
def test_a_port_in_use_is_one_line(result, capsys):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        line = refused(capsys, result.folder, "--port", port)
    assert f"--port {port}: Address already in use" in line


def test_without_gradio_it_says_what_to_install(result, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert 'pip install "vix_flax[demo]"' in refused(capsys, result.folder)


# The page as a user has it: `vix demo` in a process of its own, in a real browser.

missing = [name for name in ("gradio", "playwright") if find_spec(name) is None]
missing += [] if shutil.which("chromium") else ["chromium"]
needs_browser = pytest.mark.skipif(bool(missing), reason=f"without {' and '.join(missing)}")
needs_gradio = pytest.mark.skipif(find_spec("gradio") is None, reason="without gradio")
PATIENCE = 60_000  # milliseconds


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Runs of a vit and of a vin, two layers each."""
    fields = {**SIZES, "patch_size": 2, "depth": 2, "heads": 2}
    made = []
    for model, own in (("vit", {}), ("vin", {"num_landmarks": 4})):
        config = dataclasses.replace(CONFIG, model=model, model_fields={**fields, **own})
        made.append(train(config, tmp_path_factory.mktemp("runs") / model).folder)
    return made


def started(*folders):
    """A process of `vix demo`, and the URL that it prints."""
    command = [sys.executable, "-m", "vix_flax", "demo", *map(str, folders), NO_CACHE]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell has what it starts in the background ignore Ctrl-C, and so would this.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    for line in process.stdout:
        if found := re.match(r"http://127\.0\.0\.1:\d+/", line):
            return process, found.group()
    raise AssertionError(process.communicate()[1])


@pytest.fixture(scope="module")
def url(folders):
    process, url = started(*folders)
    yield url
    process.terminate()
    process.wait()


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        path = shutil.which("chromium")
        yield playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])


@pytest.fixture
def page(browser, url):
    """The page, opened; afterwards, it has asked nobody but its own server for anything."""
    context = browser.new_context()
    context.set_default_timeout(PATIENCE)
    page, asked = context.new_page(), []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(url)
    yield page
    context.close()
    assert url in asked
    elsewhere = [u for u in asked if not u.startswith((url, "data:", f"blob:{url}"))]
    assert elsewhere == []


@pytest.fixture
def expect():
    from playwright.sync_api import expect

    return expect


@pytest.fixture
def file(digit, tmp_path):
    path = tmp_path / "digit.png"
    path.write_bytes(png(digit))
    return path


UPLOAD = "#file input[type=file]"


def shows(expect, page, place, run, view, what, layer, head):
    """Waits until the panel at that place shows this, and looks at its picture."""
    weights, caption = view.chosen(what, layer, head)
    expect(page.locator(".prose.caption").nth(place)).to_have_text(caption)
    classes = page.locator(".classes").nth(place)
    for name, share in best(run, view.probabilities, 3).items():
        expect(classes).to_contain_text(name)
        expect(classes).to_contain_text(f"{100 * share:.0f}%")
    source = page.locator(".overlay img").nth(place).get_attribute("src")
    with Image.open(io.BytesIO(page.request.get(source).body())) as picture:
        drawn = np.asarray(picture.convert("RGB"), int)
    expected = np.asarray(overlay(view.image, weights), int)
    assert np.abs(drawn - expected).max() <= 3
    return drawn


@pytest.mark.slow
@needs_browser
def test_an_image_is_uploaded_and_looked_at(page, expect, folders, digit, file):
    runs = [Run.load(folder) for folder in folders]
    views = [look(run, digit) for run in runs]
    page.set_input_files(UPLOAD, file)

    def seen(i, place, *chosen):
        return shows(expect, page, place, runs[i], views[i], *chosen)

    rolled = [seen(i, i, ROLLOUT, 1, 0) for i in (0, 1)]
    assert np.abs(rolled[0] - rolled[1]).max() > 20  # a picture for each run
    page.locator("#layer input[type=range]").press("ArrowRight")
    second = [seen(i, i, LAYER, 2, 0) for i in (0, 1)]
    assert np.abs(second[0] - rolled[0]).max() > 20
    page.locator("#head input[type=range]").press("ArrowRight")
    seen(0, 0, LAYER, 2, 1)
    page.locator("#layer input[type=range]").press("ArrowLeft")
    first = [seen(i, i, LAYER, 1, 1) for i in (0, 1)]
    assert np.abs(first[0] - second[0]).max() > 20
    page.get_by_role("radio", name="vin").click()
    expect(page.locator(".classes")).to_have_count(1)
    np.testing.assert_array_equal(seen(1, 0, LAYER, 1, 1), first[1])
    page.get_by_role("radio", name="vit").click()
    expect(page.locator(".classes")).to_contain_text("vit")
    np.testing.assert_array_equal(seen(0, 0, LAYER, 1, 1), first[0])


@pytest.mark.slow
@needs_browser
def test_a_file_that_is_no_image_gives_a_message(page, expect, file, tmp_path):
    message, shown = page.locator("#message"), page.locator(".overlay img:visible")
    page.set_input_files(UPLOAD, file)
    expect(shown).to_have_count(2)
    expect(message).to_have_count(0)
    named = tmp_path / "named.png"
    named.write_text("words")
    page.set_input_files(UPLOAD, named)
    expect(message).to_have_text(re.compile(r"named\.png is no image that can be read"))
    expect(shown).to_have_count(0)
    broken = tmp_path / "broken.png"
    broken.write_bytes(file.read_bytes()[:-40])
    page.set_input_files(UPLOAD, broken)
    expect(message).to_have_text(re.compile(r"broken\.png is no image .*truncated"))
    text = tmp_path / "notes.txt"
    text.write_text("words")
    page.set_input_files(UPLOAD, text)
    expect(page.get_by_test_id("toast-body")).to_contain_text("notes.txt")
    page.set_input_files(UPLOAD, file)
    expect(shown).to_have_count(2)
    expect(message).to_have_count(0)


@pytest.mark.slow
@needs_browser
def test_an_example_is_clicked_and_a_digit_is_drawn(page, expect):
    shown = page.locator(".overlay img:visible")
    page.locator("#examples button").nth(7).click()
    expect(shown).to_have_count(2)
    before = shown.first.get_attribute("src")
    page.get_by_role("tab", name="Draw").click()
    canvas = page.locator("#canvas canvas").first
    canvas.wait_for()
    page.wait_for_timeout(3000)  # nothing says that the editor is ready for a stroke
    box = canvas.bounding_box()
    middle, top = box["x"] + box["width"] / 2, box["y"] + 0.3 * box["height"]
    page.mouse.move(middle, top)
    page.mouse.down()
    page.mouse.move(middle, top + 0.4 * box["height"], steps=10)
    page.mouse.up()
    expect(shown.first).not_to_have_attribute("src", before)
    content = page.request.get(shown.first.get_attribute("src")).body()
    with Image.open(io.BytesIO(content)) as picture:
        grey = np.asarray(picture.convert("L"), int)
    # White on black: a white pixel below the map has 97 at least, this stroke half of it.
    assert grey[150:230, 180:204].min() > 30 > grey[:, :20].min()


@pytest.mark.slow
@needs_gradio
def test_ctrl_c_ends_it(result):
    process, url = started(result.folder)
    with urllib.request.urlopen(url) as answer:
        assert b"vix demo: vit" in answer.read()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=PATIENCE / 1000)
    assert (process.returncode, errors) == (130, "vix: interrupted\n")
    with pytest.raises(OSError):
        urllib.request.urlopen(url)
