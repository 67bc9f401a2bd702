"""The doctor tells what is there, tries every method, never dies, and leaves the patient as it was."""

import copy
import re
from dataclasses import replace
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import nn

import captum_vit as cv
from captum_vit import METHODS
from captum_vit.demo import demo_vit, digit_scenes
from captum_vit.description.measured import measured
from captum_vit.doctor import DEFECT, examination
from captum_vit.doctor.blunt import blunt
from captum_vit.models.transformer import Transformer
from captum_vit.trace.record.record import Want, record
from captum_vit.trace.run import describe
from captum_vit.trace.run.describe import transformer_of
from captum_vit.trace.run.passes import Pass
from captum_vit.trace.run.state import undisturbed
from tests.captum_vit.models.families import KNOWN, MORE, NO_HEAD_VECTORS
from tests.models import CASES, READ_HEADS, SLICE, TIMM, redrawn, timm_vit

READS = {
    "CLS": "CLS",
    "pair": r"CLS \((\d\d)%\) and token 1 \((\d\d)%\)",
    "patches": "mean of the patches",
    "words": "mean of the tokens",
    "last": "the last token",
    "end": "the last token",
    "CLS and mean": r"CLS \(\d\d%\) and the mean of the patches",
}


TURNS = 8  # a family meets every eighth method


def beyond(name: str) -> tuple[pytest.MarkDecorator, ...]:
    return (pytest.mark.full,) if name in MORE else () if name in SLICE else (pytest.mark.slow,)


@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param(name, marks=beyond(name)) for name in CASES | MORE])
def test_every_family_without_inputs(name: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest):
    """Some methods on each family, which take turns; with ``--full`` all, as tests/test_compatibility.py tries them."""
    tried = METHODS
    if not request.config.getoption("--full"):
        turn, refusing = list(CASES).index(name) % TURNS, READ_HEADS if name in NO_HEAD_VECTORS else ()
        tried = {m: make for i, (m, make) in enumerate(METHODS.items()) if i % TURNS == turn or m in refusing}
        monkeypatch.setattr(examination, "METHODS", tried)
    made = (CASES | MORE)[name]()
    embedded_outside = name == "open_clip words"  # its tower holds no vocabulary
    if embedded_outside:
        assert "doctor(model, inputs)" in cv.doctor(made.forward_func).problems[0]
    model = made.forward_func
    report = cv.doctor(model, made.inputs if embedded_outside else None)
    prefix, read = KNOWN.get(name, (1, "CLS"))
    assert (report.depth, report.width, report.heads, report.prefix) == (3, 24, 3, prefix)
    unequal = f"{report.tokens - prefix * (name != 'timm PE')} tokens, unequally"
    assert re.fullmatch(READS.get(read, unequal), report.pooling)
    assert report.family == cv.spec_of(model).family
    assert (report.attention is None) == ("DeBERTa" not in name)
    refused = {method for method, reason in report.methods.items() if reason is not None}
    assert refused == (READ_HEADS if name in NO_HEAD_VECTORS else set())
    assert report.methods.keys() == tried.keys() and not report.problems
    assert report.identities and not [one for one in report.identities if one.holds is False]
    assert max(map(len, str(report).splitlines())) < 120


def test_the_table_reads_well():
    lines = str(cv.doctor(nn.DataParallel(redrawn(timm_vit(**TIMM | {"img_size": (32, 48)}))))).splitlines()
    assert lines[:8] == [
        "DataParallel",
        "  family   timm VisionTransformer",
        "  tower    module (VisionTransformer)",
        "  blocks   3 x Block, width 24, 3 heads",
        "  tokens   25: 1 prefix, 4 x 6 patches of 32 x 48 pixels",
        "  pooling  CLS",
        "  weights  float32 on cpu",
        "",
    ]
    assert lines[8] == "7 of 7 identities hold              residual  bound    verdict   rests on it"
    assert lines[9].startswith("  two passes agree") and lines[9].endswith("holds     all methods")
    assert lines[12].endswith("  DecompX, PLUS(DecompX), SkipPLUS(DecompX), DAVE,") and lines[13].startswith(
        " " * 65 + "FullGrad"
    )
    start = lines.index(f"{len(METHODS)} of {len(METHODS)} methods work")
    assert lines[start + 1].split() == ["LayerCDAM", "works"] and lines[start - 1] == ""


@pytest.mark.slow
def test_what_rests_on_a_failed_identity_is_marked(monkeypatch: pytest.MonkeyPatch):
    def wrong(*given: Any) -> Transformer:
        found = measured(*given)
        found.blocks[1] = replace(found.blocks[1], attn_scale=lambda: torch.full((24,), 2.0))
        return found

    monkeypatch.setattr(describe, "measured", wrong)
    report = cv.doctor(redrawn(timm_vit(**TIMM)))
    (failed,) = (one for one in report.identities if one.holds is False)
    lines = {line.split()[0]: line for line in str(report).splitlines() if line.strip()}
    for name in METHODS:
        resting = report.methods[name] is None and name in failed.methods
        assert (f"works, but rests on {failed.name!r}, which does not hold here" in lines[name]) == resting
    assert (
        "works, but" in lines["AttIN"]
        and "refused" in lines["VTranM"]
        and "FAILS" in str(report)
        and "in block 1" in str(report)
    )
    assert max(map(len, str(report).splitlines())) < 120


@pytest.mark.slow
def test_inputs_and_further_arguments_are_used():
    model, ids, (mask,), _ = CASES["HF BERT"]()
    report = cv.doctor(model, ids, mask)
    assert (report.tokens, report.grid) == (9, None) and "9 of text" in str(report)
    assert cv.doctor(timm_vit(**TIMM, dynamic_img_size=True).eval(), torch.randn(2, 3, 16, 40)).grid == (2, 5)


SICK = {
    "training": (lambda: timm_vit(**TIMM), "model.eval()"),
    "ConvNet": (lambda: torchvision.models.resnet18().eval(), "ResNet"),
    "CaiT": (
        lambda: timm.create_model("cait_xxs24_224", depth=1, img_size=32).eval(),
        "linear stands between the softmax",
    ),
    "zero head": (lambda: torchvision.models.VisionTransformer(32, 8, 1, 3, 24, 48).eval(), "all zeros"),
}


@pytest.mark.slow
@pytest.mark.parametrize(("build", "said"), SICK.values(), ids=SICK)
def test_the_sick_are_told_why(build, said):
    report = cv.doctor(build(), torch.randn(1, 3, 32, 32))  # at 224 pixels every method takes seconds
    assert any(said in problem for problem in [*report.problems, report.pooling or ""])
    assert report.methods["GenAtt"] and bool(report.methods["LayerCDAM"]) == (report.stages is None)
    assert "refused" in str(report) and DEFECT not in str(report)


def test_nan_weights_are_named():
    model = redrawn(timm_vit(**TIMM))
    model.blocks[1].mlp.fc1.weight.data[0, 0] = torch.nan
    report = cv.doctor(model)
    assert report.problems == [
        "NaN or infinite weights in blocks.1.mlp.fc1.weight.",
        "The model's own output is NaN or infinite.",
    ]


def test_inputs_that_the_model_refuses():
    report = cv.doctor(redrawn(timm_vit(**TIMM)), torch.randn(1, 3, 20, 20))
    assert all("20" in reason for reason in report.methods.values())


@pytest.mark.slow
def test_an_error_that_nobody_foresaw_is_a_defect(monkeypatch: pytest.MonkeyPatch):
    def broken(model):
        raise KeyError("surprise")

    monkeypatch.setitem(METHODS, "CAT", broken)
    report = cv.doctor(redrawn(timm_vit(**TIMM)))
    assert report.methods["CAT"].startswith(f"{DEFECT} KeyError: 'surprise'")
    assert report.methods["GenAtt"] is None
    assert DEFECT in str(report)


@pytest.mark.slow
def test_the_patient_is_left_as_it_was():
    model = redrawn(timm_vit(**TIMM))
    model.blocks[0].requires_grad_(False)
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    cv.doctor(model)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert [p.requires_grad for p in model.blocks.parameters()].count(False) == len(list(model.blocks[0].parameters()))
    assert not any(m._forward_hooks or m._forward_pre_hooks or "forward" in vars(m) for m in model.modules())


@pytest.mark.slow
def test_a_method_whose_map_is_the_heads_own_row_is_named() -> None:
    """Where no attention writes anything, what is followed through it is nothing, and the row is left."""
    model, images = demo_vit(pooling="mean"), digit_scenes(1).images
    for block in model.blocks:
        torch.nn.init.zeros_(block.attn.proj.weight)
    report = cv.doctor(model, images)
    assert {"GenAtt", "VTranM", "GradSAM", "TransAttr"} <= set(report.blunt)
    assert not {"RawAttention", "RandomAttribution"} & set(report.blunt)
    assert "correlation 1.00); DecompX and" in " ".join(str(report).split())
    assert not cv.doctor(demo_vit(), images).blunt


def test_a_row_that_agrees_with_the_first_block_is_not_blunt() -> None:
    model, images = demo_vit(pooling="mean"), digit_scenes(1).images
    with undisturbed(model):
        found = record(Pass(model, (images,), (), transformer_of(model, (images,), ())), 3, Want(row="evidence"))
    row = found.layout.lay_out(found.row.squeeze(1), "grid")
    apart = row.flip(-1)
    assert set(blunt(found, {"GenAtt": row, "DecompX": apart})) == {"GenAtt"}
    assert blunt(found, {"GenAtt": row, "DecompX": row}) == {}
