"""The page of `vix demo` in gradio: an image on the left, what runs make of it on the right."""

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vix_flax.demo import LAYER, ROLLOUT, File, best, examples, names_of, overlay, png, views_of
from vix_flax.run import Run

CANVAS = 320  # pixels of the square to draw on
SMALL = 64  # pixels of an image below which they are shown as squares
BESIDE = "side by side"
PALETTE = ("#ffffff", "#d62728", "#ffbf00", "#2ca02c", "#1f77b4")
CSS = """
.gradio-container { max-width: 1180px !important; width: 100%; margin: 0 auto !important; }
footer { display: none !important; }
#title h1 { font-size: 1.5rem; font-weight: 650; margin: 0.4rem 0 0.1rem; }
#title p, .caption { color: var(--body-text-color-subdued); margin: 0; overflow-wrap: anywhere; }
.caption { min-height: 1.6em; text-align: center; font-size: var(--text-sm); }
#message { color: var(--error-text-color); overflow-wrap: anywhere; }
#file img { width: 100%; height: 100%; object-fit: contain; }
.overlay img { width: 100%; object-fit: contain; border-radius: var(--radius-md); }
.small #file img, .small #examples img { image-rendering: pixelated; }
#examples .gallery { display: grid; grid-template-columns: repeat(5, 1fr); }
#examples .gallery-item { aspect-ratio: 1; width: 100%; padding: 0; }
#examples .gallery-item :is(span, .container, img) { display: block; width: 100%; height: 100%; }
#examples img { object-fit: contain; }
"""
QUIET = dict(show_progress="hidden", api_visibility="private")


def theme() -> Any:
    """Greys, one blue, and the system's own fonts: nothing is loaded from elsewhere."""
    import gradio as gr

    return gr.themes.Default(
        primary_hue="indigo",
        secondary_hue="indigo",
        neutral_hue="slate",
        font=("system-ui", "sans-serif"),
        font_mono=("ui-monospace", "monospace"),
    ).set(body_background_fill="*neutral_50", body_background_fill_dark="*neutral_950")


def page(runs: Sequence[Run], top_k: int, folder: Path) -> Any:
    """The page as `gradio.Blocks`, not yet served; every run has seen a black image, and compiled.

    Args:
        runs: one or more, each with labels.
        top_k: classes that are shown.
        folder: where the files of the examples are put.
    """
    import gradio as gr

    names = names_of(runs)
    views = [views_of(black(run), [run], [0])[0] for run in runs]
    shown_in = {name: [i] for i, name in enumerate(names)}
    if len(runs) > 1:
        shown_in[BESIDE] = list(range(len(runs)))
    rolls = any(view.rollout is not None for view in views)

    def most(which):
        """Layers and heads of the run that has most, of those shown."""
        shown = [views[i] for i in shown_in[which]]
        return max(len(view.layers) for view in shown), max(view.heads for view in shown)

    def answer(file, which):
        """The message, how far the sliders go and, for each run, its column and its classes."""
        says, trouble = {}, ""
        if file is not None:
            try:
                seen = views_of(file, runs, shown_in[which])
            except ValueError as error:
                trouble = str(error)
            else:
                for i, view in zip(shown_in[which], seen, strict=True):
                    says[i] = best(runs[i], view.probabilities, top_k)
        sliders = [
            gr.Slider(maximum=max(high, low + 1), interactive=high > 1)
            for low, high in zip((1, 0), most(which), strict=True)
        ]
        columns = [gr.Column(visible=i in shown_in[which]) for i in range(len(runs))]
        message = gr.HTML(html.escape(trouble), visible=bool(trouble))
        return [message, *sliders, *columns, *(says.get(i) for i in range(len(runs)))]

    def draw(file, which, what, layer, head):
        """The picture of each run, then the caption of each."""
        drawn = {}
        for i in shown_in[which]:
            if file is not None and i in file.views:
                weights, caption = file.views[i].chosen(what, layer, head)
                drawn[i] = overlay(file.views[i].image, weights), html.escape(caption)
        return [drawn.get(i, (None, ""))[part] for part in (0, 1) for i in range(len(runs))]

    def draw_layer(file, which, _, layer, head):
        """Moving a slider asks for one layer."""
        return [LAYER, *draw(file, which, LAYER, layer, head)]

    small = max(runs[0].image_shape[:2]) < SMALL
    with gr.Blocks(title=f"vix demo: {', '.join(names)}", analytics_enabled=False) as blocks:
        gr.HTML(heading(runs, names), elem_id="title")
        file = gr.State(None)
        with gr.Row(elem_classes="small" if small else None):
            with gr.Column(scale=4, min_width=300):
                dropped, drawing, message = image_side(gr, runs[0], folder)
            with gr.Column(scale=7, min_width=300):
                which = gr.Radio(
                    list(shown_in),
                    value=list(shown_in)[-1],
                    label="Run",
                    show_label=False,
                    visible=len(runs) > 1,
                )
                with gr.Row():
                    parts = [panel(gr, name, top_k) for name in names]
                what, layer, head = controls(gr, *most(which.value), rolls)

        columns, labels, pictures, captions = zip(*parts, strict=True)
        said = [message, layer, head, *columns, *labels]
        asked, drawn = [file, which, what, layer, head], [*pictures, *captions]
        for event in (
            dropped.change(taken, dropped, file, preprocess=False, **QUIET),
            drawing.input(as_file, drawing, file, **QUIET),
            which.input(None, None, None, **QUIET),
        ):
            event.then(answer, [file, which], said, **QUIET).then(draw, asked, drawn, **QUIET)
        drawing.clear(black_canvas, None, drawing, **QUIET)
        what.input(draw, asked, drawn, **QUIET)
        for control in (layer, head):
            control.input(draw_layer, asked, [what, *drawn], trigger_mode="always_last", **QUIET)
    return blocks


def image_side(gr: Any, run: Run, folder: Path) -> tuple:
    """Where an image is dropped, drawn and complained about."""
    grey = run.image_shape[-1] == 1
    thickness = int(np.clip(0.8 * CANVAS / max(run.image_shape[:2]), 8, 32))
    with gr.Tabs():
        with gr.Tab("Image"):
            dropped = gr.Image(
                sources=["upload", "clipboard"],
                height=CANVAS,
                show_label=False,
                buttons=[],
                elem_id="file",
                placeholder="Drop an image here\nor click to choose one",
            )
        with gr.Tab("Draw"):
            drawing = gr.ImageEditor(
                value=black_canvas(),
                type="pil",
                height=CANVAS + 80,
                canvas_size=(CANVAS, CANVAS),
                fixed_canvas=True,
                sources=(),
                transforms=(),
                layers=False,
                buttons=[],
                show_label=False,
                elem_id="canvas",
                brush=gr.Brush(
                    default_size=thickness,
                    colors=list(PALETTE[:1] if grey else PALETTE),
                    color_mode="fixed",
                ),
            )
    message = gr.HTML(visible=False, elem_id="message")
    paths = []
    for i, content in enumerate(examples(run)):
        paths.append(folder / f"example_{i}.png")
        paths[i].write_bytes(content)
    if paths:
        gr.Examples(
            [[str(path)] for path in paths],
            dropped,
            label="From the test images",
            examples_per_page=len(paths),
            elem_id="examples",
            api_visibility="private",
        )
    return dropped, drawing, message


def panel(gr: Any, name: str, top_k: int) -> tuple:
    """The column of a run: itself, its classes, its picture, its caption."""
    with gr.Column(min_width=240) as column:
        label = gr.Label(label=name, num_top_classes=top_k, elem_classes="classes")
        picture = gr.Image(
            format="png",
            show_label=False,
            interactive=False,
            buttons=["fullscreen"],
            elem_classes="overlay",
        )
        caption = gr.HTML(elem_classes="caption")
    return column, label, picture, caption


def controls(gr: Any, layers: int, heads: int, rolls: bool) -> tuple:
    """What the pictures show: rollout or a layer, which layer, which head."""
    with gr.Group(visible=layers > 0):
        what = gr.Radio(
            [ROLLOUT, LAYER],
            value=ROLLOUT if rolls else LAYER,
            visible=rolls,
            label="Attention: brighter where more is taken from",
            elem_id="what",
        )
        with gr.Row():
            made = [
                gr.Slider(
                    low,
                    max(high, low + 1),
                    value=low,
                    step=1,
                    interactive=high > 1,
                    label=label,
                    elem_id=name,
                    buttons=[],
                )
                for name, label, low, high in (
                    ("layer", "Layer", 1, layers),
                    ("head", "Head (0: mean)", 0, heads),
                )
            ]
    return what, *made


def heading(runs: Sequence[Run], names: Sequence[str]) -> str:
    """What is shown, in HTML."""
    lines = [f"{run.folder} (trained on {run.config.dataset})" for run in runs]
    return f"<h1>{html.escape(' and '.join(names))}</h1><p>{html.escape(' · '.join(lines))}</p>"


def black(run: Run) -> File:
    """An image of zeros."""
    return File(png(np.zeros(run.image_shape, np.uint8)), "black image")


def black_canvas() -> np.ndarray:
    """What is drawn on."""
    return np.zeros((CANVAS, CANVAS, 3), np.uint8)


def taken(data: Any) -> File | None:
    """A dropped file as it is: gradio would decode it in its own way."""
    if data is None:
        return None
    data = data if isinstance(data, dict) else data.model_dump()
    path = Path(data["path"])
    return File(path.read_bytes(), data.get("orig_name") or path.name)


def as_file(drawing: dict | None) -> File | None:
    """A drawing as if it were a file."""
    if drawing is None or drawing["composite"] is None:
        return None
    return File(png(np.asarray(drawing["composite"])), "drawing")
