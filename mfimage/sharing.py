"""Share a model by the Hub's conventions: the folder that is pushed, its card and licence, and the push."""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from mfimage.card import CARD, SAMPLES, is_edited, licence_of, with_licence, write_card
from mfimage.errors import ModelError, UsageError
from mfimage.files import write_text
from mfimage.hub import Push
from mfimage.models import GenerativeModel
from mfimage.outputs import given
from mfimage.pretrained import FILES, from_pretrained, locate, save_pretrained
from mfimage.run import Run
from mfimage.streams import say

MANAGED = (*FILES, CARD, SAMPLES)  # what a push writes, and what it deletes where it is no longer there
_NONE = (
    "no licence says what others may do with the model: choose one (--licence cc-by-4.0, licence=), or fill "
    f"it into the card ({CARD}) beside the model"
)


def push_to_hub(
    source: GenerativeModel | str | Path,
    repo_id: str,
    *,
    token: str | None = None,
    private: bool | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    commit_message: str = "Push a model of mfimage",
    licence: str | None = None,
) -> str:
    """Push a model, its calibration and a model card to the Hugging Face Hub, in one commit.

    A card that was edited, here or on the Hub, is not written over: one here is pushed as it is, else one on
    the Hub stays.

    Args:
        source: A model, or the directory of a run or of a model, whose weights are pushed bit for bit.
        repo_id: user/name; made if it is not there. Without a user it is the token's own.
        token: That may write; None for that of this machine (hf auth login, or HF_TOKEN).
        private: Whether a new repository is private; None for what the account does by default.
        revision: Branch, made if it is not there; None for main.
        create_pr: Open a pull request in the place of a commit.
        commit_message: In one line.
        licence: Of the weights, by the Hub's name, as "cc-by-4.0"; None for that of the card here.

    Returns:
        The address of the commit, or of the pull request.

    Raises:
        UsageError: There is no licence, no right to write there, or no connection.
        ModelError: There is no model here, or it was put together by hand.
    """
    push = Push(repo_id, token, private, revision, create_pr, commit_message)
    with TemporaryDirectory() as folder:
        card = write_share(source, folder, repo_id, licence)
        if not licence_of(card):
            raise UsageError(f"{repo_id}: {_NONE}")
        theirs = "" if is_edited(card) else push.read(CARD) or ""
        if is_edited(theirs):
            say(f"note: the card of {repo_id} was edited on the Hub, and stays as it is there")
            write_text(Path(folder, CARD), with_licence(theirs, licence_of(card)))
        return push.send(Path(folder), MANAGED)


def write_share(
    source: GenerativeModel | str | Path, folder: str | Path, repo_id: str, licence: str | None = None
) -> str:
    """Write the folder that a push sends, and return the text of its card; see `push_to_hub`.

    Its files are model.safetensors, config.json, calibration.json if there is one, README.md and samples.png.
    """
    folder = Path(folder)
    if isinstance(source, GenerativeModel):
        save_pretrained(source, folder)
        return write_card(source, folder, None, repo_id, licence or "")
    if not Path(source).is_dir():
        raise ModelError(f"{source}: no such directory; a run or a model of this machine is pushed")
    directory, run = locate(source), None
    if directory.name == "model" and Run(directory.parent).begun:
        run = Run(directory.parent)
    model = from_pretrained(directory)
    folder.mkdir(parents=True, exist_ok=True)
    there = [name for name in MANAGED if (directory / name).is_file()]
    given([directory / name for name in there])
    for name in there:
        shutil.copyfile(directory / name, folder / name)
    card = write_card(model, folder, run, repo_id, licence or "")
    if is_edited(card):
        say(f"note: {directory / CARD} was edited, and is taken as it is; without it a new one is written")
    return card
