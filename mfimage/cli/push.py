"""The verb that shares a model: push."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from mfimage.cli import options as opt
from mfimage.errors import UsageError
from mfimage.outputs import hold


def push(
    model: str,
    repo: str,
    /,
    *,
    licence: Annotated[str | None, Parameter(name=("--licence", "--license"))] = None,
    private: opt.Flag = False,
    revision: str | None = None,
    create_pr: opt.Flag = False,
    message: str = "Push a model of mfimage",
    dry_run: opt.Flag = False,
    outdir: opt.OwnOutdir = None,
    talk: opt.Talk = opt.Talk(),
) -> None:
    """Push a model, its calibration and a model card to the Hugging Face Hub; its address is the result.

    The card (README.md beside the model) says what the run knows, and what evaluate measured. Edit it as you
    like: an edited card is never written over, here or on the Hub. Log in first: hf auth login.

    Args:
        model: Run or model directory.
        repo: Where to: user/name, made if it is not there.
        licence: Of the weights, as the Hub names it, such as cc-by-4.0; needed unless the card says one.
        private: Make the repository private.
        revision: Branch, made if it is not there; main if none.
        create_pr: Open a pull request in the place of a commit.
        message: Of the commit.
        dry_run: Write the folder that would be pushed, into --outdir, and push nothing.
        outdir: Where --dry-run writes; NAME of user/name if none.
    """
    from mfimage.card import licence_of
    from mfimage.sharing import push_to_hub, write_share

    if not dry_run:
        if outdir is not None:
            raise UsageError("--outdir is where --dry-run writes; without it everything goes to the Hub")
        address = push_to_hub(
            model, repo, private=private or None, revision=revision, create_pr=create_pr,
            commit_message=message, licence=licence,
        )  # fmt: skip
        talk.put({"address": address}, [address])
        return
    folder = outdir or Path(repo.rpartition("/")[2])
    if folder.is_dir() and any(folder.iterdir()):
        raise UsageError(f"{folder}: there is something in it: choose another --outdir for --dry-run")
    hold(folder)
    if not licence_of(write_share(model, folder, repo, licence)):
        talk.say(
            "note: there is no licence yet, and without one nothing is pushed: --licence, or in the card"
        )
    talk.put({"folder": str(folder), "files": sorted(one.name for one in folder.glob("*"))}, [folder])
