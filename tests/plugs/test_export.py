"""Exported programs give what the model gives, without mfimage, for batches of any size."""

import doctest
import json
import shutil
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from commands import fails
from laws import perturb
from tiny import SMALL_MODEL, bump_images

import mfimage as package
from mfimage import Detector, ModelConfig, build
from mfimage.errors import ModelError, UsageError
from mfimage.ood.calibration import parse_calibration
from mfimage.plugs import export as plug
from mfimage.plugs.export import FACTS, export
from mfimage.plugs.programs import PROGRAMS
from mfimage.pretrained import weights_hash

PAGE = Path(__file__).parents[2] / "docs" / "export.md"
BATCHES = (1, 3, 8)
STRANGER = """
import json, sys, torch
for what, given in torch.load("given.pt").items():
    extra = {"mfimage.json": ""}
    run = torch.export.load(f"{what}.pt2", extra_files=extra).module()
    torch.save([run(*[x[:n] for x in given]) for n in (1, 3, 8)], f"{what}.out")
    assert json.loads(extra["mfimage.json"])["program"] == what
assert "mfimage" not in sys.modules
"""

pytestmark = pytest.mark.filterwarnings("error", "ignore::FutureWarning:copyreg")


@pytest.fixture(scope="module")
def model(noise_aware):
    """A model that removes noise, with a calibration of the reconstruction."""
    detector = Detector(noise_aware, "reconstruction")
    noise_aware.measured["detector"] = detector.calibrate(bump_images(120), 0.1).calibration.to_json()
    yield noise_aware
    del noise_aware.measured["detector"]


@pytest.fixture(scope="module")
def given():
    """Inputs of each program, eight of each."""
    generator = torch.Generator().manual_seed(1)
    x, z = bump_images(8), torch.randn(8, 2, generator=generator)
    x[0] = torch.rand(x[0].shape, generator=generator)  # strange
    sigma = torch.tensor([1e-3, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0])
    y = x + sigma.view(-1, 1, 1, 1) * torch.randn(x.shape, generator=generator)
    y[:4] = y[:4].clamp(0, 1)
    of_x = dict.fromkeys(("project", "encode", "score", "log-prob"), (x,))
    return {**of_x, "decode": (z,), "sample": (z,), "denoise": (y, sigma)}


@pytest.fixture(scope="module")
def wanted(model, given):
    """What the model gives, by the public functions."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore", package.UnfamiliarWarning)
        (x,), (z,), verdicts = given["project"], given["sample"], Detector(model, "reconstruction")
        verdicts._calibration = parse_calibration(model.measured["detector"])
        found, noisy = verdicts.score(x), zip(*given["denoise"], strict=True)
        return {
            "project": [model.project(x)], "encode": [model.encode(x)], "log-prob": [model.log_prob(x)],
            "score": [found.scores, found.p_values, found.is_ood],
            "decode": [model.decode(z)], "sample": [model.decode(model.push_forward(z))],
            "denoise": [torch.stack([package.denoise(y, model, float(sigma)) for y, sigma in noisy])],
        }  # fmt: skip


def same(found, wanted, count):
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(torch.as_tensor(one), other[:count], atol=1e-5, rtol=1e-5)


def test_pt2_runs_in_a_process_without_mfimage(model, given, wanted, tmp_path):
    facts = {what: export(model, tmp_path / f"{what}.pt2", what) for what in PROGRAMS}
    torch.save(given, tmp_path / "given.pt")
    subprocess.run([sys.executable, "-W", "ignore", "-c", STRANGER], cwd=tmp_path, check=True)
    for what in PROGRAMS:
        for count, found in zip(BATCHES, torch.load(tmp_path / f"{what}.out"), strict=True):
            same(found, wanted[what], count)
    assert facts["denoise"]["inputs"] == "y (batch, 1, 8, 8), sigma (batch)"
    assert json.loads(facts["project"]["shape"]) == [1, 8, 8]
    assert facts["project"]["weights_sha256"] == weights_hash(model)
    assert float(facts["score"]["threshold"]) == model.measured["detector"]["scores"][-4]
    assert wanted["score"][2].tolist()[:2] == [True, False]


@pytest.mark.parametrize("what", ["score", "denoise", "log-prob"])
def test_onnx_runs_by_onnxruntime(model, given, wanted, tmp_path, what):
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    facts = export(model, tmp_path / "model.onnx", what)
    session = runtime.InferenceSession(tmp_path / "model.onnx")
    names = [one.name for one in session.get_inputs()]
    for count in BATCHES:
        part = {name: one[:count].numpy() for name, one in zip(names, given[what], strict=True)}
        same(session.run(None, part), wanted[what], count)
    assert session.get_modelmeta().custom_metadata_map == facts
    assert str(Path.cwd()).encode() not in (tmp_path / "model.onnx").read_bytes()


@pytest.fixture
def conditional():
    shape = {"hidden": 8, "density": "autoregressive", "density_steps": 2, "density_width": 8}
    model = build(ModelConfig((3,), 2, context=1, **shape))
    model.initialise(torch.randn(50, 3), torch.randn(50, 1))
    return perturb(model, 0.3)


def test_a_conditional_density_takes_its_parameters(conditional, tmp_path):
    x, theta = torch.randn(8, 3), torch.randn(8, 1)
    assert export(conditional, tmp_path / "a.pt2", "log-prob")["inputs"] == "x (batch, 3), theta (batch, 1)"
    run = torch.export.load(tmp_path / "a.pt2").module()
    for count in BATCHES:
        same(run(x[:count], theta[:count]), [conditional.log_prob(x, theta).detach()], count)


def test_autoregressive_samples_are_a_loop_in_onnx(conditional, tmp_path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    export(conditional, tmp_path / "a.onnx", "sample")
    assert "Loop" in {node.op_type for node in onnx.load(tmp_path / "a.onnx").graph.node}
    session, z, theta = runtime.InferenceSession(tmp_path / "a.onnx"), torch.randn(8, 2), torch.randn(8, 1)
    wanted = conditional.decode(conditional.push_forward(z, theta), theta).detach()
    for count in BATCHES:
        part = {"z": z[:count].numpy(), "theta": theta[:count].numpy()}
        same(session.run(None, part), [wanted], count)


SPHERE = ModelConfig((3,), 2, kind="sphere", hidden=8, density_steps=1, density_width=8)
REFUSED = {
    "ending": (
        SMALL_MODEL,
        "a.pt",
        "project",
        UsageError,
        "a.pt: the ending says what is written: .pt2 or .onnx",
    ),
    "name": (SMALL_MODEL, "a.pt2", "encoder", UsageError, "'encoder': choose from project, encode"),
    "gradient": (replace(SMALL_MODEL, kind="pie"), "a.pt2", "denoise", UsageError, "gradient of log_prob"),
    "forward mode": (SPHERE, "a.pt2", "log-prob", UsageError, "differentiates the decoder"),
    "vectors": (SPHERE, "a.pt2", "denoise", ModelError, "a model of vectors"),
    "scored vectors": (SPHERE, "a.pt2", "score", ModelError, "a model of vectors"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_exported_is_refused_and_says_why(case, tmp_path):
    config, name, what, error, words = REFUSED[case]
    with pytest.raises(error, match=words):
        export(build(config), tmp_path / name, what)
    assert list(tmp_path.iterdir()) == []


def test_estimates_are_refused(monkeypatch, tmp_path):
    monkeypatch.setattr("mfimage.plugs.programs.EXACT_DIM", 1)
    with pytest.raises(UsageError, match="d = 2 is an estimate"):
        export(build(SMALL_MODEL), tmp_path / "a.pt2", "log-prob")


def test_without_onnx_it_is_told_how_to_install_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UsageError, match=r"pip install 'mfimage\[export\]'"):
        export(build(SMALL_MODEL), tmp_path / "a.onnx")


def test_what_has_no_form_in_onnx_is_refused_and_says_which_part(tmp_path):
    pytest.importorskip("onnxscript")
    with pytest.raises(UsageError, match=r"no form in ONNX .*prod.*: write a .pt2"):
        export(build(SPHERE), tmp_path / "a.onnx", "decode")


def test_a_program_that_differs_is_not_written_and_the_old_file_stays(monkeypatch, tmp_path):
    (tmp_path / "a.pt2").write_text("old")
    write = plug._WRITERS[".pt2"]

    def wrong(*given):
        content, run = write(*given)
        return content, lambda x: [one + 1e-2 for one in run(x)]

    monkeypatch.setitem(plug._WRITERS, ".pt2", wrong)
    with pytest.raises(ModelError, match=r"does not compute what the model does: u is 0\.01 off"):
        export(build(SMALL_MODEL), tmp_path / "a.pt2", "encode")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a.pt2", "old")]


def test_the_examples_of_the_page_run(monkeypatch, tmp_path, saved_model):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    shutil.copytree(saved_model, "runs/photos")
    found = doctest.testfile(str(PAGE), module_relative=False, optionflags=doctest.ELLIPSIS)
    assert (found.failed, found.attempted > 10) == (0, True)


def test_the_verb(mfimage, saved_model):
    Path("model.pt2").write_text("what was there before")
    code, out, err = mfimage("export", saved_model, "model.pt2", "--what", "encode", "--json")
    assert (code, json.loads(out)["path"]) == (0, "model.pt2"), err
    assert "encode: x (batch, 1, 8, 8) to u" in err
    facts = {FACTS: ""}
    run = torch.export.load("model.pt2", extra_files=facts).module()
    model, x = package.from_pretrained(saved_model), bump_images(5)
    same(run(x), [model.encode(x).detach()], 5)
    assert json.loads(facts[FACTS]) == json.loads(out)["facts"]
    code, out, err = mfimage("export", saved_model, "score.pt2", "--what", "score")
    assert (code, out) == (0, "score.pt2\n")
    assert "mfimage calibrate --score reconstruction" in err


def test_the_verb_refuses(mfimage, saved_model):
    Path("folder.pt2").mkdir()
    Path("link.pt2").symlink_to(saved_model / "model.safetensors")
    before = (saved_model / "model.safetensors").read_bytes()
    assert fails(mfimage("export", saved_model, "model.pth"), 2, "the ending says what is written")
    assert fails(mfimage("export", saved_model, "folder.pt2"), 2, "is a folder")
    assert fails(mfimage("export", saved_model, "link.pt2"), 2, "an input lies there")
    assert fails(mfimage("export", saved_model, "a.pt2", "--what", "encoder"), 2, "encoder")
    assert fails(mfimage("export", "nothing", "a.pt2"), 4, "no such directory")
    assert (saved_model / "model.safetensors").read_bytes() == before
