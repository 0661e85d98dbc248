"""The Hugging Face Hub: ids of models, files that are fetched, folders that are pushed, errors in words."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mfimage import __version__
from mfimage.errors import MfimageError, ModelError, UsageError

_ID = re.compile(r"[\w.-]+/[\w.-]+")
_LONGEST = 300  # characters of an error of others
_NOT_CACHED = ", and it is not in the Hub's cache here"
_TOKEN = "it needs a token (hf auth login, or the environment variable HF_TOKEN)"


@dataclass(frozen=True)
class Access:
    """How the Hub is asked, as `huggingface_hub` names it.

    Args:
        revision: Branch, tag or commit; None for that of the id (user/name@revision), else main.
        token: Of a private repository; None for that of this machine, False for none.
        cache_dir: Where fetched files are kept; None for the Hub's own cache, ~/.cache/huggingface/hub.
        local_files_only: Ask the cache alone.
        force_download: Fetch again what is in the cache.
    """

    revision: str | None = None
    token: str | bool | None = None
    cache_dir: str | Path | None = None
    local_files_only: bool = False
    force_download: bool = False


PLAIN = Access()


def is_hub_id(source: str) -> bool:
    """Whether a name is user/name or user/name@revision, and no path that was mistyped.

    Training writes into runs/, and what is called like a folder here lies there.
    """
    name, user = source.partition("@")[0], source.partition("/")[0]
    local = user == "runs" or user.startswith(".") or Path(user).is_dir()
    return _ID.fullmatch(name) is not None and not local


def fetch_file(source: str, name: str, access: Access) -> Path | None:
    """Fetch a file of a model's repository into the cache; None if the repository has no such file.

    Args:
        source: user/name or user/name@revision.
        name: Of the file in the repository.
        access: Whose revision goes before that of the id.

    Raises:
        ModelError: There is no such repository or revision, no access, or no Hub and nothing in the cache.
    """
    hub = import_hub()
    repo, _, own = source.partition("@")
    revision = access.revision or own or None
    with explained(f"{source}: no such directory, and", repo):
        try:
            found = hub.hf_hub_download(
                repo, name, revision=revision, token=access.token, cache_dir=access.cache_dir,
                local_files_only=access.local_files_only, force_download=access.force_download,
                library_name="mfimage", library_version=__version__,
            )  # fmt: skip
        except hub.errors.LocalEntryNotFoundError:
            raise
        except hub.errors.EntryNotFoundError:
            return None
    return Path(found)


@dataclass(frozen=True)
class Push:
    """What a push does: to which repository, and as `huggingface_hub` names it.

    Args:
        repo_id: user/name; without a user the token's own.
        token: That may write; None for that of this machine.
        private: Whether a new repository is private; None for what the account does by default.
        revision: Branch, which is made if need be; None for main.
        create_pr: Open a pull request in the place of a commit.
        message: Of the commit.
    """

    repo_id: str
    token: str | None = None
    private: bool | None = None
    revision: str | None = None
    create_pr: bool = False
    message: str = "Push a model of mfimage"

    def api(self) -> Any:
        """Give the Hub's API, with this token."""
        return import_hub().HfApi(token=self.token, library_name="mfimage", library_version=__version__)

    def read(self, name: str) -> str | None:
        """Read a text that is in the repository; None if there is none, or no repository."""
        errors = import_hub().errors
        with explained(f"{self.repo_id}:", self.repo_id, writes=True):
            try:
                with TemporaryDirectory() as folder:
                    path = self.api().hf_hub_download(
                        self.repo_id, name, revision=self.revision, cache_dir=folder
                    )
                    return Path(path).read_text(encoding="utf-8", errors="replace")
            except errors.LocalEntryNotFoundError:
                raise
            except (errors.EntryNotFoundError, errors.RepositoryNotFoundError, errors.RevisionNotFoundError):
                return None

    def send(self, folder: Path, managed: Collection[str]) -> str:
        """Push the files of a folder in one commit; return its address, or that of the pull request.

        Args:
            folder: Its files, at its top.
            managed: Names that are deleted in the repository if the folder has them no more.

        Raises:
            UsageError: No right to write there, no Hub, or a public repository that was to be private.
        """
        hub, api = import_hub(), self.api()
        with explained(f"{self.repo_id}:", self.repo_id, writes=True):
            repo = api.create_repo(self.repo_id, private=self.private, exist_ok=True).repo_id
            if self.private and not api.model_info(repo).private:
                raise UsageError(f"{repo}: is there and public: nothing is pushed (--private, private=True)")
            if self.revision and not self.revision.startswith("refs/"):
                api.create_branch(repo, branch=self.revision, exist_ok=True)
            new = {file.name: file for file in sorted(folder.iterdir())}
            gone = (set(managed) - set(new)) & set(api.list_repo_files(repo, revision=self.revision))
            changes = [hub.CommitOperationAdd(name, str(file)) for name, file in new.items()]
            done = api.create_commit(
                repo, [*changes, *map(hub.CommitOperationDelete, sorted(gone))],
                commit_message=self.message, revision=self.revision, create_pr=self.create_pr,
            )  # fmt: skip
        return str(done.pr_url or done.commit_url)


def import_hub() -> Any:
    """Import huggingface_hub, with its errors; UsageError tells how to install it."""
    try:
        import huggingface_hub
        import huggingface_hub.errors
    except ImportError as error:
        raise UsageError(
            f"models of the Hub need huggingface_hub ({error}): pip install huggingface_hub"
        ) from error
    return huggingface_hub


@contextmanager
def explained(begin: str, repo: str, writes: bool = False) -> Iterator[None]:
    """Turn what huggingface_hub raises into one sentence, "BEGIN REASON"; our own errors pass as they are.

    It is a ModelError in reading a model, a UsageError where something is written.
    """
    try:
        yield
    except MfimageError:
        raise
    except Exception as error:  # of many kinds, its own and those of what it asks by
        known = _known(error, repo, writes) or _known(error.__cause__, repo, writes)
        text = " ".join(str(error).split())[:_LONGEST] or type(error).__name__
        why = known or f"the Hub gave an error ({text})"
        raise (UsageError if writes else ModelError)(f"{begin} {why}") from error


def _known(error: BaseException | None, repo: str, writes: bool) -> str:
    """Say what an error of the Hub means; empty for others."""
    hub = import_hub().errors
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, hub.GatedRepoError):
        return f"on the Hub it is for who asks its authors, at https://huggingface.co/{repo}; then {_TOKEN}"
    if isinstance(error, hub.LocalTokenNotFoundError) or (writes and status == 401):
        return f"the Hub does not know who wants to write there: {_TOKEN}"
    if writes and status == 403:
        return "the Hub does not let this token write there"
    if isinstance(error, hub.RepositoryNotFoundError) or status in (401, 403):
        return f"the Hub has no repository {repo} that may be read from here; if it is private, {_TOKEN}"
    if isinstance(error, hub.RevisionNotFoundError):
        return f"the Hub's repository {repo} has no such revision"
    if isinstance(error, hub.LocalEntryNotFoundError | hub.OfflineModeIsEnabled):
        return "the Hub is not reached (no connection, or HF_HUB_OFFLINE)" + _NOT_CACHED * (not writes)
    return "is no id of the Hub; user/name is expected" if isinstance(error, hub.HFValidationError) else ""
