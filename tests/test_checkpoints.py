"""Checkpoints: the newest and the best are kept, and a damaged one is named."""

import json
import os

import pytest
import torch
from commands import raising
from hostile import cut, edit_tensors, flip_bit, garble
from safetensors.torch import load_file
from tiny import contents

from mfimage.checkpoints import Snapshots
from mfimage.errors import ModelError, ResourceError
from mfimage.files import write_text
from mfimage.schedule import Average, Progress
from mfimage.tensors import read_metadata


def trained_linear(value=0.0):
    linear = torch.nn.Linear(2, 1)
    optimiser = torch.optim.AdamW(linear.parameters(), lr=0.1)
    linear(torch.ones(1, 2)).sum().backward()
    optimiser.step()
    with torch.no_grad():
        linear.weight.fill_(value)
    return linear, optimiser


def save(snapshots, step, best):
    """Save a step, of weights that are its number, as `fit` does."""
    linear, optimiser = trained_linear(float(step))
    if best:
        snapshots.save_best(linear, Progress(step))
    snapshots.save(linear, optimiser, Progress(step))


def saved(directory, *steps, best=None):
    snapshots = Snapshots(directory / "checkpoints", "manifold")
    for step in steps:
        save(snapshots, step, step == best)
    return snapshots


def averaged(directory):
    """The checkpoint of a step 2 with an average, and its path."""
    snapshots, (linear, optimiser) = saved(directory), trained_linear(1.0)
    snapshots.save(linear, optimiser, Progress(2), Average(linear, 0.9))
    return snapshots, snapshots.newest()


def names(directory):
    return sorted(path.name for path in (directory / "checkpoints").iterdir())


def test_the_newest_three_and_a_copy_of_the_best_are_kept(tmp_path):
    snapshots = saved(tmp_path, *range(6), best=1)
    assert names(tmp_path) == [
        "best-manifold.safetensors",
        *(f"manifold-{i:08d}.safetensors" for i in (3, 4, 5)),
    ]
    linear, optimiser = trained_linear()
    snapshots.restore_best(linear)
    assert linear.weight.tolist() == [[1.0, 1.0]]
    assert snapshots.restore(linear, optimiser) == vars(Progress(5))
    assert linear.weight.tolist() == [[5.0, 5.0]]


def test_the_best_is_no_alias(tmp_path):
    snapshots = saved(tmp_path, 1, best=1)
    assert snapshots.best.stat().st_ino != snapshots.newest().stat().st_ino
    ours, theirs = load_file(snapshots.best), load_file(snapshots.newest())
    assert all(name.startswith("module.") and torch.equal(ours[name], theirs[name]) for name in ours)


def test_the_optimiser_comes_back_exactly(tmp_path):
    linear, optimiser = trained_linear(1.0)
    saved(tmp_path).save(linear, optimiser, Progress(1))
    other, other_optimiser = trained_linear(2.0)
    saved(tmp_path).restore(other, other_optimiser)
    for first, second in zip(optimiser.state.values(), other_optimiser.state.values(), strict=True):
        assert first.keys() == second.keys()
        assert all(torch.equal(first[key], second[key]) for key in first)


def test_phases_do_not_mix(tmp_path):
    saved(tmp_path, 1, best=1)
    density = Snapshots(tmp_path / "checkpoints", "density")
    assert density.newest() is None
    assert density.restore(*trained_linear()) == {}
    assert not density.best.exists()


@pytest.mark.parametrize("best", [True, False])
def test_an_interrupted_write_leaves_the_old_files_whole_and_nothing_behind(tmp_path, monkeypatch, best):
    snapshots = saved(tmp_path, 1, best=1)
    before = contents(tmp_path)
    monkeypatch.setattr(os, "replace", raising(OSError(28, "No space left on device")))
    with pytest.raises(ResourceError, match=r"safetensors: cannot be written: .*No space left") as caught:
        save(snapshots, 2, best)
    assert caught.value.exit_code == 6
    with pytest.raises(ResourceError, match="cannot be written"):
        write_text(tmp_path / "checkpoints" / "note.json", "new")
    assert contents(tmp_path) == before


def test_a_crash_between_checkpoint_and_best_keeps_no_older_best(tmp_path, monkeypatch):
    snapshots = saved(tmp_path, 1, best=1)
    replace = os.replace

    def crash_at_the_checkpoint(source, target):
        if "best" not in str(target):
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", crash_at_the_checkpoint)
    with pytest.raises(KeyboardInterrupt):
        save(snapshots, 2, True)
    linear, optimiser = trained_linear()
    assert snapshots.restore(linear, optimiser)["step"] == 1  # so step 2 is made, and saved as best, again
    snapshots.restore_best(linear)
    assert linear.weight.tolist() == [[2.0, 2.0]]


@pytest.mark.parametrize("damage", [cut, garble])
def test_a_damaged_checkpoint_is_named_with_the_way_out(tmp_path, damage):
    snapshots = saved(tmp_path, 1, 2)
    damage(snapshots.newest())
    with pytest.raises(ModelError, match=r"manifold-00000002\.safetensors: damaged .*remove this file"):
        snapshots.restore(*trained_linear())
    snapshots.newest().unlink()
    assert snapshots.restore(*trained_linear())["step"] == 1


def test_a_model_file_is_no_checkpoint(tmp_path):
    snapshots = saved(tmp_path, 1)
    edit_tensors(snapshots.newest())  # without the progress in its header
    with pytest.raises(ModelError, match="not a checkpoint of a training run"):
        snapshots.restore(*trained_linear())


def without(part):
    def change(tensors):
        for name in [name for name in tensors if name.startswith(part)]:
            del tensors[name]

    return change


def setting(name, value):
    return lambda tensors: tensors.update({name: value})


INCOMPLETE = {
    "no moments": (without("optimiser."), "the optimiser's moments are missing"),
    "half the moments": (without("optimiser.0.exp_avg_sq"), r"optimiser\.0\.exp_avg_sq is missing"),
    "other moments": (setting("optimiser.0.extra", torch.zeros(1)), r"optimiser\.0\.extra is unknown"),
    "moments of nothing": (setting("optimiser.7.step", torch.zeros(())), r"optimiser\.7\.step is unknown"),
    "bent moments": (setting("optimiser.0.exp_avg", torch.zeros(3)), r"not finite numbers of shape \(1, 2\)"),
    "NaN moments": (setting("optimiser.1.exp_avg", torch.tensor([torch.nan])), r"optimiser\.1\.exp_avg"),
    "no average": (without("average."), r"average\.bias is missing"),
    "NaN average": (setting("average.bias", torch.tensor([torch.nan])), r"average\.bias is not finite"),
    "no weights": (without("module."), "is missing"),
}


@pytest.mark.parametrize("kind", INCOMPLETE)
def test_an_incomplete_checkpoint_is_named_and_nothing_goes_on_from_it(tmp_path, kind):
    change, words = INCOMPLETE[kind]
    snapshots, path = averaged(tmp_path)
    edit_tensors(path, change, {"progress": read_metadata(path)["progress"]})
    other, other_optimiser = trained_linear(5.0)
    moments = [dict(state) for state in other_optimiser.state.values()]
    with pytest.raises(ModelError, match=rf"manifold-00000002\.safetensors: .*{words}.*remove this file"):
        snapshots.restore(other, other_optimiser, Average(other, 0.9))
    assert other.weight.tolist() == [[5.0, 5.0]]
    assert [dict(state) for state in other_optimiser.state.values()] == moments


@pytest.mark.parametrize("place", ["module.weight", "optimiser.0.exp_avg", "average.weight"])
def test_a_checkpoint_of_which_one_bit_has_changed_is_damaged(tmp_path, place):
    snapshots, path = averaged(tmp_path)
    content = path.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")  # of the header
    flip_bit(path, end + json.loads(content[8:end])[place]["data_offsets"][0])
    linear, optimiser = trained_linear()
    with pytest.raises(ModelError, match=r"damaged: it does not hold what was written .*remove this file"):
        snapshots.restore(linear, optimiser, Average(linear, 0.9))


def test_a_progress_of_which_a_digit_has_changed_is_damaged(tmp_path):
    snapshots, (linear, optimiser) = saved(tmp_path), trained_linear(1.0)
    snapshots.save(linear, optimiser, Progress(2, best=0.125))
    content = snapshots.newest().read_bytes()
    snapshots.newest().write_bytes(content.replace(b"0.125", b"0.525"))
    assert snapshots.newest().read_bytes() != content
    with pytest.raises(ModelError, match=r"damaged: it does not hold what was written .*remove this file"):
        snapshots.restore(linear, optimiser)


@pytest.mark.parametrize(
    "progress",
    ["{", "[]", "3", '{"step": 3}', '{"step": "2"}', '{"step": 2, "x": 1}', '{"step": 2, "ended": 0}'],
)
def test_a_progress_that_is_none_is_named(tmp_path, progress):
    snapshots = saved(tmp_path, 2)
    edit_tensors(snapshots.newest(), header={"progress": progress})
    for read in (snapshots.progress, lambda: snapshots.restore(*trained_linear())):
        with pytest.raises(
            ModelError, match=r"00000002\.safetensors: damaged: .*progress .*remove this file"
        ):
            read()


def test_what_only_looks_like_a_checkpoint_is_none(tmp_path):
    snapshots = saved(tmp_path, 2)
    for name in ("copy.safetensors", "old-00000009.safetensors", "00000009.safetensors.mf-01234567.tmp"):
        (tmp_path / "checkpoints" / f"manifold-{name}").write_bytes(b"")
    assert snapshots.newest().name == "manifold-00000002.safetensors"


def test_another_model_than_the_best_is_never_kept_in_silence(tmp_path):
    snapshots = saved(tmp_path, 2, best=2)
    snapshots.best.unlink()
    with pytest.raises(ModelError, match=r"best-manifold\.safetensors: is missing.*to train this phase anew"):
        snapshots.restore_best(trained_linear()[0])
