"""Every method behaves as Captum's own do: classes, signatures, shapes, precision, copies."""

import copy
import inspect
import pickle
from contextlib import nullcontext

import pytest
import torch
from captum.attr import Attribution, LayerAttribution
from torch import nn
from torch.nn.functional import avg_pool2d

import captum_vit as cv
from tests.contracts.closeness import assert_close
from tests.contracts.pairs import Pair, explain, half_precision
from tests.models import AST, CASES, TEXTS


def on_vit(method: str) -> Attribution:
    return Pair(method, "timm ViT").on()


def test_it_is_a_layer_attribution(method):
    assert isinstance(on_vit(method), Attribution)
    assert isinstance(on_vit(method), LayerAttribution)


def test_attribute_is_decorated_as_noise_tunnel_and_tcav_need_it(method):
    assert callable(on_vit(method).attribute.__wrapped__)


def test_arguments_have_captums_names_and_order(method):
    names = list(inspect.signature(on_vit(method).attribute).parameters)
    path_method = names[1] == "baselines"  # Captum's order for methods that go from a baseline to the input
    assert names[: 3 + path_method] == [
        "inputs", *["baselines"] * path_method, "target", "additional_forward_args",
    ]  # fmt: skip


def test_futures_are_not_offered(method):
    with pytest.raises(NotImplementedError):
        on_vit(method).attribute_future()


def test_the_name_is_readable(method):
    name = on_vit(method).get_name()
    assert name.replace(" ", "") == type(on_vit(method)).__name__
    assert not any(len(word) == 1 for word in name.split())


def test_the_docstring_tells_the_cost_and_the_arguments(method):
    """What a method costs in passes stands in its docstring, and so does every argument it is made with."""
    cls = type(on_vit(method))
    assert "cost" in cls.__doc__.lower()
    own = [name for name in inspect.signature(cls).parameters if name not in ("forward_func", "layer", "device_ids")]
    undocumented = [name for name in own if f"{name}:" not in cls.__doc__ + cv.TokenAttribution.__doc__]
    assert not undocumented


def test_tuple_in_tuple_out(pair):
    """And the second call on one instance gives the map of the first."""
    method = pair.on()
    alone = explain(method, pair.case)
    wrapped = explain(method, pair.case, inputs=(pair.case.inputs,))
    assert isinstance(alone, torch.Tensor)
    assert isinstance(wrapped, tuple) and len(wrapped) == 1
    assert torch.equal(wrapped[0], alone)


def test_maps_are_detached_finite_and_not_empty(pair):
    found = explain(pair.on(), pair.case)
    assert not found.requires_grad and found.grad_fn is None
    assert torch.isfinite(found).all()
    assert found.flatten(1).any(1).all(), "a sample without a map"


@pytest.mark.along("dtype", [torch.float64, torch.bfloat16])
def test_precision_of_the_map(slice_pair, dtype):
    model = copy.deepcopy(slice_pair.case.forward_func).to(dtype)
    with half_precision(slice_pair.method) if dtype is torch.bfloat16 else nullcontext():
        found = explain(slice_pair.on(model), slice_pair.case)
        assert found.dtype == (torch.float64 if dtype is torch.float64 else torch.float32)


def test_shapes(pair):
    """Grid, tokens and pixels are three views of one relevance."""
    case = pair.exact
    method = pair.on(case.forward_func)
    maps = {}
    for method.output in ("tokens", "grid") if pair.model in TEXTS else ("tokens", "grid", "pixels"):
        maps[method.output] = explain(method, case)
    tokens, grid = maps["tokens"], maps["grid"]
    assert tokens.shape[0] == grid.shape[0] == 3
    if pair.model in TEXTS:
        assert tokens.shape == case.inputs.shape
        assert torch.equal(tokens, grid)
        return
    height, width = case.inputs.shape[-2:]
    assert grid.shape == (3, 1, height // 8, width // 8)
    patches = tokens[:, tokens.shape[1] - grid[0].numel() :]
    if pair.model == AST:  # its patches are numbered band by band
        patches = patches.unflatten(1, (width // 8, height // 8)).mT.flatten(1)
    assert torch.equal(grid.flatten(1), patches)
    assert maps["pixels"].shape == (3, 1, height, width)
    if pair.method == "DAVE":  # it explains pixels, and sums them over patches
        assert_close(64 * avg_pool2d(maps["pixels"], 8), grid, pair.rounding)
        return
    interpolated = LayerAttribution.interpolate(grid, (height, width), "bilinear")
    assert_close(maps["pixels"], interpolated, pair.rounding)


def test_channels_sum_to_tokens_or_are_refused(pair):
    case = pair.exact
    method = pair.on(case.forward_func)
    if "channels" not in method.outputs:
        if inspect.isclass(cv.METHODS[pair.method]):
            with pytest.raises(cv.OptionError):
                type(method)(case.forward_func, output="channels")
        return
    method.output = "tokens"
    tokens = explain(method, case)
    method.output = "channels"
    assert_close(explain(method, case).sum(-1), tokens, pair.rounding)


def test_an_unknown_output_is_refused(method):
    if inspect.isclass(cv.METHODS[method]):
        with pytest.raises(cv.OptionError, match="output"):
            cv.METHODS[method](CASES["timm ViT"]().forward_func, output="heatmap")


@pytest.mark.along("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ["copy", "pickle"])
def test_copies_explain_alike(slice_pair, copied):
    """A method and its model, copied together; the copy holds a model of its own."""
    method = slice_pair.on()
    twin = copied(method)
    assert twin.model is not method.model
    assert_close(explain(twin, slice_pair.case), explain(method, slice_pair.case), "same computation")


def test_data_parallel_on_the_cpu(slice_pair):
    wrapped = nn.DataParallel(slice_pair.case.forward_func).eval()
    assert_close(
        explain(slice_pair.on(wrapped), slice_pair.case), explain(slice_pair.on(), slice_pair.case), "same computation"
    )
