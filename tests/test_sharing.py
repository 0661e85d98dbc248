"""Models that are shared over a Hub: pushed, found, cached, and refused in words."""

import doctest
import inspect
import json
import shutil
import sys
from pathlib import Path

import huggingface_hub
import pytest
import torch
from hubserver import TOKEN, Repo, hub_server
from huggingface_hub import constants
from PIL import Image
from tiny import SMALL_MODEL, VECTORS, bump_images, contents, draw_bumps, learn

from mfimage import build, card, denoise, evaluate, from_pretrained, push_to_hub, save_pretrained, score
from mfimage.errors import ModelError, UsageError
from mfimage.eval.verdict import verdict_of
from mfimage.pretrained import weights_hash

NAME = "org/bumps"
pytestmark = pytest.mark.filterwarnings(
    "ignore:Use 'content=<...>' to upload:DeprecationWarning"
)  # huggingface_hub's


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A Hub that huggingface_hub asks in the place of the true one, with a cache and a token of this test."""
    with hub_server() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.address)
        template = f"{server.address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield server


def copy_of(run, folder):
    return shutil.copytree(run, folder / "run", ignore=shutil.ignore_patterns("checkpoints", "metrics.json"))


def edit_text(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.fixture
def offline(monkeypatch):
    return lambda: monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def test_what_is_asked_of_huggingface_hub_is_in_its_signatures():
    def names(function):
        return set(inspect.signature(function).parameters)

    api = huggingface_hub.HfApi
    assert {"revision", "token", "cache_dir", "local_files_only", "force_download", "library_name"} <= names(
        huggingface_hub.hf_hub_download
    )
    assert {"private", "exist_ok"} <= names(api.create_repo)
    assert {"branch", "exist_ok"} <= names(api.create_branch)
    assert {"commit_message", "revision", "create_pr"} <= names(api.create_commit)
    assert {"revision"} <= names(api.list_repo_files)
    ours, mixin = names(push_to_hub), names(huggingface_hub.ModelHubMixin.push_to_hub)
    assert ours & mixin == {"repo_id", "token", "private", "create_pr", "commit_message"}
    words = {"force_download", "token", "cache_dir", "local_files_only", "revision"}
    assert words <= names(from_pretrained) & names(huggingface_hub.ModelHubMixin.from_pretrained)


@pytest.mark.filterwarnings("ignore::mfimage.errors.UnfamiliarWarning")
def test_a_colleague_gets_what_was_trained_to_the_last_bit(hub, tiny_run, offline):
    address = push_to_hub(tiny_run, NAME, licence="cc-by-4.0")
    assert address.startswith(f"{hub.address}/{NAME}/commit/")
    files = hub.repos[NAME].files()
    assert set(files) == {"model.safetensors", "config.json", "calibration.json", "README.md", "samples.png"}
    for name in ("model.safetensors", "config.json", "calibration.json"):
        assert files[name] == (tiny_run / "model" / name).read_bytes()
    mine, theirs, x = from_pretrained(tiny_run), from_pretrained(NAME), bump_images(4)
    assert theirs.measured == mine.measured
    assert torch.equal(denoise(x, theirs, sigma=0.1), denoise(x, mine, sigma=0.1))
    assert score(x[0], theirs) == score(x[0], mine)
    asked = len(hub.asked)
    offline()
    assert weights_hash(from_pretrained(NAME)) == weights_hash(mine)
    assert weights_hash(from_pretrained(f"{NAME}@main", local_files_only=True)) == weights_hash(mine)
    assert len(hub.asked) == asked


def test_the_card_says_what_the_run_knows(hub, tiny_run):
    push_to_hub(tiny_run, NAME, licence="mit")
    card = huggingface_hub.ModelCard(hub.repos[NAME].files()["README.md"].decode())
    front = card.data.to_dict()
    assert front["library_name"] == "mfimage"
    assert front["pipeline_tag"] == "unconditional-image-generation"
    assert front["license"] == "mit"
    assert "mfimage" in front["tags"]
    data = json.loads((tiny_run / "data.json").read_text())
    verdict = str(verdict_of(from_pretrained(tiny_run)))
    for said in (
        data["sha256"],
        f"examples: {data['count']:,} of shape (1, 8, 8)",
        verdict,
        f'"{NAME}"',
        "seed: 0",
    ):
        assert said in card.text
    assert "source: bumps.npy" in card.text
    assert str(Path(data["data"]).parent) not in card.text  # nobody needs to know my folders


def test_numbers_of_an_evaluation_are_in_the_card_with_n_and_protocol(hub, tiny_run, bumps, tmp_path):
    run = copy_of(tiny_run, tmp_path)
    model = from_pretrained(run)
    found = evaluate(bumps, model, bumps, metrics=("reconstruction",))
    found.save(run / "metrics.json")
    push_to_hub(run, NAME, licence="mit")
    card = hub.repos[NAME].files()["README.md"].decode()
    number = found.numbers["psnr"]
    assert f"protocol {found.protocol['name']}" in card
    assert f"| {number.n:,} |" in card
    assert found.verdict in card
    save_pretrained(build(model.config, seed=5), run / "model")
    push_to_hub(run, NAME, licence="mit")  # of which nothing was measured
    assert "psnr" not in hub.repos[NAME].files()["README.md"].decode()


def test_without_a_licence_nothing_is_pushed(hub, saved_model):
    with pytest.raises(UsageError, match=r"org/bumps: no licence says what others may do .*--licence cc-by"):
        push_to_hub(saved_model, NAME)
    with pytest.raises(UsageError, match="licence CC BY: name it as the Hub does: mit"):
        push_to_hub(saved_model, NAME, licence="CC BY")
    assert not hub.asked


def test_an_edited_card_is_never_written_over(hub, tiny_run, tmp_path, capsys):
    run = copy_of(tiny_run, tmp_path)
    card, remote = run / "model" / "README.md", lambda: hub.repos[NAME].files()["README.md"].decode()
    edit_text(card, "license:", "license: mit")
    push_to_hub(run, NAME)  # the licence is no edit: the rest is written anew
    assert "license: mit\n" in remote()
    assert "Not chosen yet" not in remote()
    assert f'from_pretrained("{NAME}")' in remote()
    hub.repos[NAME].commit(
        "main", {**hub.repos[NAME].files(), "README.md": remote().encode() + b"Mine, there.\n"}
    )
    push_to_hub(run, NAME)
    assert remote().endswith("Mine, there.\n")
    assert "the card of org/bumps was edited on the Hub, and stays" in capsys.readouterr().err
    edit_text(card, "## Licence", "Mine, here.\n\n## Licence")
    push_to_hub(run, NAME)
    assert remote() == card.read_text()
    assert "was edited, and is taken as it is" in capsys.readouterr().err
    with pytest.raises(UsageError, match=r"the licence is other, and the card \(README.md\) says mit"):
        push_to_hub(run, NAME, licence="other")


def test_no_folders_of_mine_are_in_a_card():
    words = {
        "/home/me/my photos/": "my photos/", "--config=/home/me/c.json": "--config=c.json", "x/y": "x/y",
        "hf:/home/me/set:train": "hf:set:train", "~/x.zip": "x.zip", "--outdir": "--outdir", "/": "/",
    }  # fmt: skip
    assert {word: card._shown(word) for word in words} == words


def test_other_lines_of_a_licence_stay(hub, tiny_run, tmp_path):
    run = copy_of(tiny_run, tmp_path)
    edit_text(run / "model" / "README.md", "license:", "license: other\nlicense_name: mine")
    push_to_hub(run, NAME, licence="other")
    assert b"license: other\nlicense_name: mine\n---" in hub.repos[NAME].files()["README.md"]
    (run / "model" / "README.md").write_bytes(b"\xff")
    with pytest.raises(UsageError, match=r"README.md: is no text in UTF-8"):
        push_to_hub(run, NAME, licence="other")


def test_a_card_of_vectors_promises_no_images(circle, tmp_path):
    learn(circle, tmp_path / "run", VECTORS)
    text = (tmp_path / "run" / "model" / "README.md").read_text()
    assert "pipeline_tag" not in text
    assert "vectors of length 2" in text
    assert not (tmp_path / "run" / "model" / "samples.png").exists()


def test_without_huggingface_hub_it_is_told_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UsageError, match=r"pip install huggingface_hub"):
        from_pretrained(NAME)


def test_a_card_without_front_matter_gets_a_licence(hub, saved_model):
    (saved_model / "README.md").write_text("# Mine\n")
    push_to_hub(saved_model, NAME, licence="mit")
    assert hub.repos[NAME].files()["README.md"] == b"---\nlicense: mit\n---\n# Mine\n"


def test_a_model_that_was_never_saved_is_pushed_and_takes_old_files_away(hub, tiny_run):
    push_to_hub(tiny_run, NAME, licence="mit")
    model = build(SMALL_MODEL, seed=2)
    push_to_hub(model, NAME, licence="mit")
    assert "calibration.json" not in hub.repos[NAME].files()
    again = from_pretrained(NAME)
    assert (weights_hash(again), again.measured) == (weights_hash(model), {})


def test_branches_commits_pull_requests_and_privacy(hub, saved_model, monkeypatch):
    first, second = (build(SMALL_MODEL, seed=seed) for seed in (1, 2))
    push_to_hub(first, NAME, licence="mit", private=True, commit_message="One")
    push_to_hub(second, NAME, licence="mit", revision="second")
    assert hub.messages == ["One", "Push a model of mfimage"]
    assert hub.repos[NAME].private
    assert weights_hash(from_pretrained(NAME)) == weights_hash(first)
    assert weights_hash(from_pretrained(f"{NAME}@second")) == weights_hash(second)
    commit = hub.repos[NAME].sha("second")
    assert weights_hash(from_pretrained(NAME, revision=commit)) == weights_hash(second)
    address = push_to_hub(second, NAME, licence="mit", create_pr=True)
    assert address == f"{hub.address}/{NAME}/discussions/1"
    assert weights_hash(from_pretrained(f"{NAME}@refs/pr/1")) == weights_hash(second)
    assert weights_hash(from_pretrained(NAME)) == weights_hash(first)
    hub.repos["org/seen"] = Repo()
    with pytest.raises(UsageError, match="org/seen: is there and public: nothing is pushed"):
        push_to_hub(first, "org/seen", licence="mit", private=True)
    with pytest.raises(UsageError, match="is a directory here; a revision is of an id of the Hub"):
        from_pretrained(saved_model, revision="main")
    monkeypatch.setenv("HF_TOKEN", "of_another")
    with pytest.raises(
        ModelError, match=r"no such directory, and the Hub has no repository org/bumps that may"
    ):
        from_pretrained(NAME, force_download=True)


def test_a_new_commit_is_fetched_and_an_old_one_stays_in_the_cache(hub, tmp_path):
    first, second = (build(SMALL_MODEL, seed=seed) for seed in (1, 2))
    push_to_hub(first, NAME, licence="mit")
    old = hub.repos[NAME].sha("main")
    assert weights_hash(from_pretrained(NAME, cache_dir=tmp_path / "own")) == weights_hash(first)
    push_to_hub(second, NAME, licence="mit")
    assert weights_hash(from_pretrained(NAME, cache_dir=tmp_path / "own")) == weights_hash(second)
    assert weights_hash(from_pretrained(f"{NAME}@{old}", cache_dir=tmp_path / "own")) == weights_hash(first)
    assert not (tmp_path / "cache" / "models--org--bumps" / "blobs").exists()


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "org/other: this repository of the Hub holds no model of mfimage"),
        ({"config.json": b'{"model_type": "bert"}', "model.safetensors": b"x"}, "holds no model of mfimage"),
        ({"config.json": b"{", "model.safetensors": b"x"}, "holds no model of mfimage"),
        ({"config.json": b'{"format": "mfimage-4"}'}, "holds no model of mfimage"),
        (
            {"config.json": b'{"format": "mfimage-1"}', "model.safetensors": b"x"},
            "a model of mfimage ≤ 0.1.0",
        ),
    ],
)
def test_a_repository_without_a_model_is_told_before_its_weights_are_fetched(hub, files, said):
    hub.repos["org/other"] = Repo()
    hub.repos["org/other"].commit("main", files)
    with pytest.raises(ModelError, match=said):
        from_pretrained("org/other")
    fetched = [path for method, path in hub.asked if method == "GET"]
    assert "mfimage-1" in str(files) or not any("safetensors" in path for path in fetched)


def test_who_may_not_is_told_why(hub, saved_model, monkeypatch):
    hub.repos["org/gated"] = Repo()
    hub.repos["org/gated"].gated = True
    for name, said in {
        "org/gated": "org/gated: .*asks its authors, at https://huggingface.co/org/gated",
        "org/none": "org/none: no such directory, and the Hub has no repository org/none",
        f"{NAME}@nowhere": "the Hub's repository org/bumps has no such revision",
    }.items():
        if "@" in name:
            push_to_hub(saved_model, NAME, licence="mit")
        with pytest.raises(ModelError, match=said) as caught:
            from_pretrained(name)
        assert "\n" not in str(caught.value)
    for name, token, said in (
        ("else/bumps", TOKEN, "else/bumps: the Hub does not let this token write there"),
        (NAME, "of_another", "org/bumps: the Hub does not let this token write there"),
        (NAME, None, r"org/bumps: .*it needs a token \(hf auth login"),
        ("no id/at/all", TOKEN, "no id/at/all: is no id of the Hub; user/name is expected"),
    ):
        monkeypatch.delenv("HF_TOKEN") if token is None else monkeypatch.setenv("HF_TOKEN", token)
        with pytest.raises(UsageError, match=said) as caught:
            push_to_hub(saved_model, name, licence="mit")
        assert "\n" not in str(caught.value)
        monkeypatch.setenv("HF_TOKEN", TOKEN)


def test_offline_without_a_cache_is_told(hub, saved_model, offline):
    offline()
    with pytest.raises(ModelError, match=r"the Hub is not reached .* not in the Hub's cache here"):
        from_pretrained(NAME)
    with pytest.raises(UsageError, match=r"org/bumps: the Hub is not reached .*HF_HUB_OFFLINE\)$"):
        push_to_hub(saved_model, NAME, licence="mit")
    assert not hub.asked


def test_half_a_model_in_the_cache_is_none(hub, offline, tiny_run):
    push_to_hub(tiny_run, NAME, licence="mit")
    huggingface_hub.hf_hub_download(NAME, "config.json")
    huggingface_hub.hf_hub_download(NAME, "calibration.json")
    offline()
    with pytest.raises(ModelError, match="the Hub is not reached"):
        from_pretrained(NAME)


def test_only_a_model_of_this_machine_is_pushed(hub, tmp_path):
    with pytest.raises(ModelError, match="someone/else: no such directory; a run or a model of this machine"):
        push_to_hub("someone/else", NAME, licence="mit")
    with pytest.raises(ModelError, match="no model here"):
        push_to_hub(tmp_path, NAME, licence="mit")


def test_every_verb_takes_an_id(hub, tiny_run, bumps, mfimage):
    push_to_hub(tiny_run, NAME, licence="mit", revision="v1")
    image = Path("x.png")
    Image.fromarray(draw_bumps(1)[0]).save(image)
    for verb in (
        ("score", image, "-m", f"{NAME}@v1"),
        ("denoise", image, "-m", f"{NAME}@v1", "-o", "clean"),
        ("sample", "-n", 2, "-m", f"{NAME}@v1", "-o", "drawn"),
        ("log-prob", image, "-m", f"{NAME}@v1"),
        ("evaluate", f"{NAME}@v1", bumps, "--metrics", "reconstruction"),
    ):
        code, out, err = mfimage(*verb)
        assert code == 0, err
        assert out
    code, out, _ = mfimage("score", image, "-m", f"{NAME}@v1")
    assert out == mfimage("score", image, "-m", tiny_run)[1]
    code, _, err = mfimage("calibrate", bumps, "-m", f"{NAME}@v1")
    assert code == 2
    assert "a calibration lies beside the weights: give a directory of this machine" in err


def test_the_verb_pushes_or_writes_what_it_would_push(hub, tiny_run, mfimage):
    code, out, err = mfimage("push", tiny_run, NAME, "--dry-run")
    assert (code, out) == (0, "bumps\n")
    assert "there is no licence yet" in err
    assert not hub.asked
    assert set(contents("bumps")) == {
        "model.safetensors",
        "config.json",
        "calibration.json",
        "README.md",
        "samples.png",
    }
    code, out, err = mfimage("push", "bumps", NAME, "--licence", "cc-by-4.0", "--private", "--json")
    assert code == 0, err
    assert json.loads(out)["address"].startswith(f"{hub.address}/{NAME}/commit/")
    files = hub.repos[NAME].files()
    assert files["model.safetensors"] == (tiny_run / "model" / "model.safetensors").read_bytes()
    assert b"license: cc-by-4.0" in files["README.md"]
    assert json.loads((tiny_run / "data.json").read_text())["sha256"].encode() in files["README.md"]
    code, _, err = mfimage("push", "bumps", NAME)
    assert code == 2
    assert "no licence says what others may do" in err
    code, _, err = mfimage("push", tiny_run, NAME, "--dry-run")
    assert code == 2
    assert "bumps: there is something in it: choose another --outdir" in err
    assert "**Not chosen yet**" in Path("bumps/README.md").read_text()
    assert mfimage("push", tiny_run, NAME, "-o", "x")[0] == 2


def test_the_page_on_sharing_says_what_happens(hub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = Path(__file__).parents[1] / "docs" / "sharing.md"
    text = page.read_text(encoding="utf-8").replace("  # doctest: +SKIP", "")  # the Hub is there
    examples = doctest.DocTestParser().get_doctest(text, {}, page.name, str(page), 0)
    assert len(examples.examples) > 10
    assert doctest.DocTestRunner().run(examples).failed == 0
