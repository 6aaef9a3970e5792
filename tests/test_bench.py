"""`vix bench`: what is counted and fitted is right; what is measured is there, or says why not."""

import itertools
import json

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn
from PIL import Image

from vix_flax import bench, scale
from vix_flax.attention import Chunked, Softmax
from vix_flax.cli import main
from vix_flax.flops import count_flops, largest_product
from vix_flax.scale import Limits, Point, Sizes, check_mixes, measure_mix, parse_tokens
from vix_flax.scale_report import (
    crossover,
    exponent,
    fits,
    fitted_from,
    plot_scale,
    read_points,
    write_rows,
)
from vix_flax.timing import Pace, median_seconds

jax.devices()  # now, so that no command here makes the CPU more devices for the files after this

SIZES = Sizes(heads=2, dim_head=4)
ROOMY = Limits(2**30)
TINY = [
    "--set", "image_size=8", "--set", "patch_size=4", "--set", "depth=1", "--set", "dim=16",
    "--set", "heads=1", "--set", "dim_head=8", "--set", "mlp_dim=16",
]  # fmt: skip


def flops_of(f, *shapes):
    return count_flops(jax.make_jaxpr(f)(*(jnp.zeros(shape) for shape in shapes)))


def test_flops_of_a_matrix_product_and_of_its_gradient():
    assert flops_of(jnp.matmul, (3, 5), (5, 7)) == 2 * 3 * 5 * 7
    both = jax.value_and_grad(lambda a, b: (a @ b).sum(), argnums=(0, 1))
    assert flops_of(both, (3, 5), (5, 7)) == 2 * (2 * 3 * 5 * 7) + 2 * 3 * 5 * 7


def test_what_nobody_uses_is_not_counted():
    gradient = jax.grad(lambda a, b: (a @ b).sum(), argnums=(0, 1))
    assert flops_of(gradient, (3, 5), (5, 7)) == 2 * (2 * 3 * 5 * 7)
    inside = jax.jit(lambda a: (a @ a, a)[1])
    assert flops_of(lambda a: (inside(a), a @ a @ a)[0], (4, 4)) == 0


def test_a_scans_body_counts_as_often_as_it_runs_and_the_larger_branch_once():
    def scanned(x):
        return jax.lax.scan(lambda x, _: (x @ x, None), x, length=6)[0]

    def chosen(x):
        return jax.lax.cond(x[0, 0] > 0, lambda x: x @ x, lambda x: x @ x @ x, x)

    assert flops_of(scanned, (4, 4)) == 6 * 2 * 4**3
    assert flops_of(jax.checkpoint(scanned), (4, 4)) == 6 * 2 * 4**3
    assert flops_of(chosen, (4, 4)) == 2 * 2 * 4**3


def test_a_mapped_function_counts_on_every_device():
    auto = (jax.sharding.AxisType.Auto,)
    mesh, cut = jax.sharding.AbstractMesh((4,), ("data",), axis_types=auto), jax.P("data")
    mapped = jax.shard_map(lambda x: x @ x.T @ x, mesh=mesh, in_specs=cut, out_specs=cut)
    assert flops_of(mapped, (12, 5)) == 4 * 2 * (2 * 3 * 5 * 3)


def test_a_strided_convolutions_gradient_does_not_count_zeros():
    def convolved(x, kernel):
        return jax.lax.conv_general_dilated(
            x, kernel, (2, 2), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    forward = flops_of(convolved, (1, 8, 8, 3), (2, 2, 3, 5))
    assert forward == 2 * (4 * 4 * 5) * (2 * 2 * 3)
    _, back = jax.vjp(convolved, jnp.zeros((1, 8, 8, 3)), jnp.zeros((2, 2, 3, 5)))
    assert flops_of(back, (1, 4, 4, 5)) == 2 * forward


@pytest.mark.parametrize("core", [Softmax(), Chunked(query_chunk=8, key_chunk=4)])
def test_softmax_has_two_products_however_it_is_cut(core):
    b, n, h, d = shape = (1, 16, 2, 4)
    counted = flops_of(lambda q, k, v: core.apply({}, q, k, v), shape, shape, shape)
    assert counted == 2 * (2 * b * h * n * n * d)


def test_the_largest_product_of_softmax_is_its_scores():
    x = jnp.zeros((1, 16, 2, 4))
    assert largest_product(jax.make_jaxpr(Softmax().apply)({}, x, x, x)) == 4 * 2 * 16 * 16


def test_the_exponent_of_powers():
    powers = {n: 3e-9 * n**1.7 for n in (64, 256, 1024, 4096)}
    assert exponent(powers) == pytest.approx(1.7)
    hidden = {n: 1.0 if n < 1024 else value for n, value in powers.items()}
    assert exponent(hidden, 1024) == pytest.approx(1.7)
    assert exponent({64: 1.0, 2048: 2.0}, 1024) is None


@pytest.mark.parametrize(
    ("tokens", "first"),
    [((64, 256, 1024, 4096), 1024), ((16, 32, 64, 2048), 64), ((16, 32, 64), 32), ((16,), 16)],
)
def test_what_counts_for_the_exponent(tokens, first):
    assert fitted_from(tokens) == first


@pytest.mark.parametrize(
    ("values", "tokens"),
    [
        (lambda n: 100 * n, 100),
        (lambda n: n * n / 2, 16),  # from the first on
        (lambda n: 2 * n * n, None),  # never
        (lambda n: 2 * n * n if 16 < n < 1000 else n * n / 2, 512),  # what happens before is noise
    ],
)
def test_the_crossover_with_a_square(values, tokens):
    counts = (16, 64, 256, 1024)
    found = crossover({n: values(n) for n in counts}, {n: n * n for n in counts})
    assert found == (tokens and pytest.approx(tokens))


def test_a_crossover_needs_points_that_both_have():
    assert crossover({64: 1.0}, {16: 2.0}) is None


def test_numbers_of_tokens():
    assert parse_tokens(" 64, 16,64") == (16, 64)
    for text in ("", "64,", "many", "1", "1.5", "-4"):
        with pytest.raises(ValueError, match="tokens="):
            parse_tokens(text)


def test_every_attention_is_measured_and_takes_the_sizes():
    check_mixes(scale.MIXES, SIZES)
    with pytest.raises(ValueError, match="heads=0"):
        Sizes(heads=0)
    with pytest.raises(ValueError, match="dtype='bf16'"):
        Sizes(dtype="bf16")
    with pytest.raises(ValueError, match="nb_features=0"):
        check_mixes(["performer"], Sizes(dim_head=1))


@pytest.mark.parametrize("name", ["linformer", "performer", "fourier"])
def test_points_are_whole(name):
    (point,) = measure_mix(name, [8], SIZES, ROOMY, 0)
    assert (point.attention, point.tokens, point.left_out) == (name, 8, "")
    assert point.seconds > 0
    assert point.flops > 0
    assert point.bytes > 4 * 8 * 2 * 4  # one of its inputs


@pytest.mark.parametrize("name", ["linformer", "fourier"])
def test_mixes_compute_in_the_dtype_asked_for(name):
    _, (_, given, out) = scale._abstract(name, 8, Sizes(heads=2, dim_head=4, dtype="bfloat16"))
    assert {x.dtype for x in (*given, out)} == {jnp.dtype("bfloat16")}


class Scores(nn.Module):
    """Exact attention that forms its scores, however many there are."""

    dtype: str

    @nn.compact
    def __call__(self, q, k, v, *, train=False):
        weights = nn.softmax(jnp.einsum("bnhd,bmhd->bhnm", q, k))
        return jnp.einsum("bhnm,bmhe->bnhe", weights, v)


def test_a_point_that_needs_too_much_memory_is_not_run(monkeypatch):
    monkeypatch.setattr(scale, "median_seconds", lambda *_: pytest.fail("it was run"))
    monkeypatch.setitem(scale.MIXES, "scores", Scores)
    (compiled,) = measure_mix("scores", [16], SIZES, Limits(4 * 2 * 16 * 16))
    assert "needs" in compiled.left_out
    assert compiled.bytes > 4 * 2 * 16 * 16
    # What nothing could compile: scores of two exbibytes.
    (hopeless,) = measure_mix("scores", [2**29], SIZES, ROOMY)
    assert "for one product" in hopeless.left_out
    assert hopeless.bytes is hopeless.seconds is None
    assert hopeless.flops == 6 * (2 * 2 * 2**58 * 4)


def test_a_point_that_would_take_too_long_is_not_run(monkeypatch):
    monkeypatch.setattr(scale, "median_seconds", lambda *_: (2.0, 3))
    points = list(measure_mix("softmax", (16, 32), SIZES, Limits(2**30, seconds=10)))
    assert [point.seconds for point in points] == [2.0, None]
    assert points[1].left_out == "two calls would take 16 s, of 10"
    assert points[1].bytes > points[0].bytes


@pytest.mark.parametrize(
    "error", [MemoryError(), jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: 3 GiB")]
)
def test_running_out_of_memory_is_not_fatal(monkeypatch, error):
    def median_seconds(*_):
        raise error

    monkeypatch.setattr(scale, "median_seconds", median_seconds)
    monkeypatch.setattr(bench, "median_seconds", median_seconds)
    (point,) = measure_mix("softmax", [16], SIZES, ROOMY)
    assert point.left_out == "out of memory"


def test_other_errors_are(monkeypatch):
    def median_seconds(*_):
        raise jax.errors.JaxRuntimeError("INTERNAL: broken")

    monkeypatch.setattr(scale, "median_seconds", median_seconds)
    with pytest.raises(jax.errors.JaxRuntimeError, match="broken"):
        list(measure_mix("softmax", [16], SIZES, ROOMY))


@pytest.mark.parametrize(
    ("pace", "calls"),
    [
        (Pace(calls=5), 5),
        (Pace(seconds=0), 3),
        (Pace(seconds=10), 10),
        (Pace(calls=50, most=9), 5),  # after four calls nine seconds are not yet over
        (Pace(calls=50, most=0), 1),
    ],
)
def test_how_often_is_called(monkeypatch, pace, calls):
    monkeypatch.setattr("vix_flax.timing.time.perf_counter", itertools.count().__next__)
    made = []
    assert median_seconds(lambda: made.append(1), pace) == (1, calls)
    assert len(made) == calls + 1  # the first does not count


POINTS = [
    Point("softmax", 16, 100, 1000, 0.5),
    Point("softmax", 32, 400, 4000, 2.0),
    Point("softmax", 64, 1600, left_out="needs 3 GiB, of 2"),
    Point("linear", 16, 300, 2000, 1.0),
    Point("linear", 32, 600, 4000 // 3, 1.9),
    Point("linear", 64, 1200, 8000, left_out="out of memory"),
]


def test_points_survive_a_csv_file(tmp_path):
    write_rows(tmp_path / "points.csv", POINTS)
    assert read_points(tmp_path / "points.csv") == POINTS


def test_fits_of_points():
    softmax, linear = fits(POINTS)
    assert (softmax.attention, softmax.faster_from, softmax.smaller_from) == ("softmax", None, None)
    assert softmax.time is softmax.memory is None  # the upper half has one point of it
    assert 16 < linear.smaller_from < linear.faster_from < 32


def test_the_picture(tmp_path):
    plot_scale(tmp_path / "scale.png", POINTS, "a machine")
    with Image.open(tmp_path / "scale.png") as picture:
        assert min(picture.size) > 400


def test_models_are_measured_in_training_and_inference(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(bench, "PEAK_SIDE", {"cpu": 64})
    file = tmp_path / "bench.json"
    argv = ["bench", "vit", "--calls", "1", "-b", "2", "--json", str(file), *TINY]
    assert main(argv) == 0
    printed = capsys.readouterr().out
    result = json.loads(file.read_text())
    assert {"device", "date", "versions", "peak_flops_per_second"} < set(result)
    training, inference = result["results"]
    assert (training["task"], inference["task"]) == ("training", "inference")
    headings = ("parameters", "images/s", "of peak", "MFLOPs", "compiled in")  # none is cut
    assert all(word in printed for word in (*headings, "inference"))
    assert f"{training['parameters']:,}" in printed
    for row in (training, inference):
        assert row["images_per_second"] == pytest.approx(2 / row["seconds"])
        peak = result["peak_flops_per_second"]["float32"]
        assert row["share_of_peak"] == pytest.approx(row["flops"] * 2 / row["seconds"] / peak)
        assert row["bytes"] > 4 * row["parameters"]
    assert 2 < training["flops"] / inference["flops"] <= 3


def test_a_model_that_does_not_fit_is_left_out(monkeypatch, capsys):
    monkeypatch.setattr(bench, "PEAK_SIDE", {"cpu": 64})
    monkeypatch.setattr(bench, "bytes_there", lambda: 1024)
    assert main(["bench", "vit", "--calls", "1", "-b", "2", *TINY]) == 0
    printed = capsys.readouterr().out
    assert "vit, training is left out: needs" in printed
    assert "vit, inference is left out: needs" in printed


def test_scale_leaves_tables_and_a_picture(tmp_path, capsys):
    sizes = ["--tokens", "8,16", "--heads", "2", "--dim-head", "4", "--seconds", "0.001"]
    chosen = ["--attentions", "softmax,linear", "--output", str(tmp_path)]
    assert main(["bench", "scale", *chosen, *sizes]) == 0
    printed = capsys.readouterr().out
    assert "exponent" in printed
    points = read_points(tmp_path / "points.csv")
    assert [(point.attention, point.tokens) for point in points] == [
        ("softmax", 8), ("softmax", 16), ("linear", 8), ("linear", 16),
    ]  # fmt: skip
    about = json.loads((tmp_path / "about.json").read_text())
    assert (about["heads"], about["dim_head"], about["batch"]) == (2, 4, 1)
    assert (tmp_path / "scale.png").stat().st_size > 1000
    assert (tmp_path / "fits.csv").read_text().count("\n") == 3


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["vitt"], ["unknown model 'vitt'", "'vit'"]),
        (["vit", "vinn"], ["unknown model 'vinn'", "'vin'"]),
        (["vit", "--set", "dimm=3"], ["'dimm'", "'dim'"]),
        (["vit", "--set", "dtype=foo"], ["foo"]),
        (["vit", "-b", "0"], ["--batch-size 0"]),
        (["vit", "--calls", "0"], ["--calls 0"]),
        (["vit", "--seconds", "nan"], ["--seconds nan"]),
        (["vit", "--json", "/no/such/file"], ["/no/such/file"]),
        (["scale", "--attentions", "softmax,liner"], ["unknown attention 'liner'", "'linear'"]),
        (["scale", "--attentions", ""], ["unknown attention ''"]),
        (["scale", "--tokens", "64;256"], ["tokens='64;256'"]),
        (["scale", "--heads", "0"], ["heads=0"]),
        (["scale", "--memory-limit", "-1"], ["--memory-limit -1"]),
        (["scale", "--point-seconds", "0"], ["--point-seconds 0"]),
        (["scale", "--seconds", "0"], ["--seconds 0"]),
        (["scale", "--output", __file__], [__file__]),
    ],
    ids=lambda value: " ".join(value)[:40],
)
def test_a_mistake_is_one_line_before_anything_is_compiled(capsys, monkeypatch, argv, words):
    monkeypatch.setattr("vix_flax.scale.measure_mix", lambda *_: pytest.fail("measured"))
    monkeypatch.setattr("vix_flax.bench.measure_model", lambda *_: pytest.fail("measured"))
    assert main(["bench", *argv]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert all(word in line for word in words), line
