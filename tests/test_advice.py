"""Whatever a message tells to type exists: its options in every verb that can show it, and its verbs."""

import ast
import re

import pytest
from test_architecture import PACKAGE

from mfimage.cli import app, options_of

OPTION = re.compile(r"(?<!var\()(?<![\w-])--[a-z][a-z.-]*[a-z]")
VERB = re.compile(r"\bmfimage ((?:stylegan )?[a-z][a-z-]+)")
PROSE = {"again", "knows", "or", "reads", "that", "wrote"}  # words after "mfimage" that are no verbs
MODELS = (
    "denoise", "calibrate", "score", "log-prob", "directions", "interpolate", "evaluate", "compare",
)  # fmt: skip
SHOWN_BY = {  # the verbs that can show the messages of a file, outside the verbs themselves
    "cli/__init__.py": ("score",),
    "cli/calibrate.py": ("calibrate",),
    "cli/denoise.py": ("denoise",),
    "cli/evaluate.py": ("evaluate",),
    "cli/score.py": ("score",),
    "cli/stream.py": ("score",),
    "cli/stylegan.py": ("stylegan sample",),
    "cli/train.py": ("train",),
    "cli/values.py": ("score", "calibrate"),
    "console.py": ("train", "denoise", "evaluate"),  # which asks `options_of` whether the verb has it
    "datasets/decode.py": ("train", "pack", "dimension", *MODELS),
    "datasets/pixels.py": ("train", "pack", "dimension"),  # the others bring a size
    "denoising/image_files.py": ("denoise",),
    "denoising/restorer.py": ("denoise",),
    "eval/evaluation.py": ("evaluate", "compare"),
    "eval/inception.py": ("evaluate", "compare"),
    "experiments/reproduce.py": ("reproduce",),
    "hub.py": ("push",),
    "pretrained.py": ("train", "sample", "demo", "reproduce", *MODELS),
    "run.py": ("train",),
    "sharing.py": ("push",),
    "training.py": ("compare", "demo", "reproduce"),
}


def verbs():
    """Every verb with its options; those of the generators as two words."""
    names = [name for name in app if not name.startswith("-")]
    names += [f"stylegan {name}" for name in app["stylegan"] if not name.startswith("-")]
    return {name: options_of(name.split()) for name in names if name != "stylegan"}


VERBS = verbs()


def texts(tree):
    """The texts below a node that are no docstrings; what is put into them is left out."""
    bodies = [node.body for node in ast.walk(tree) if hasattr(node, "body") and isinstance(node.body, list)]
    notes = {id(body[0].value) for body in bodies if body and isinstance(body[0], ast.Expr)}
    parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(p.value if isinstance(p, ast.Constant) else "\0" for p in node.values)
        elif isinstance(node, ast.Constant) and id(node) not in notes | parts:
            yield str(node.value)


def messages():
    """The texts that name an option or a verb, with the verb, or the file, that they stand in."""
    for path in sorted(PACKAGE.rglob("*.py")):
        file = path.relative_to(PACKAGE).as_posix()
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            verb = getattr(node, "name", "").replace("_", "-") if file.startswith("cli/") else ""
            for text in texts(node):
                own = re.sub("pip install [^`&]*", "", text)
                if " " in own and (OPTION.search(own) or VERB.search(own)):
                    yield verb if verb in VERBS else file, own


def wrong(place, text):
    """What cannot be typed of a message: verbs that do not exist, options that a verb has not."""
    shown_by = (place,) if place in VERBS else SHOWN_BY.get(place, ("a verb that this test knows",))
    named = [(match.end(), match[1]) for match in VERB.finditer(text) if match[1].split()[0] not in PROSE]
    yield from (verb for _, verb in named if verb not in VERBS)
    for option in OPTION.finditer(text):
        before = [verb for end, verb in named if end < option.start()]
        meant = before[-1:] or shown_by
        yield from (f"{verb} {option[0]}" for verb in meant if option[0] not in VERBS.get(verb, ()))


def test_what_a_message_tells_to_type_exists():
    found = list(messages())
    assert [(place, text, bad) for place, text in found if (bad := list(wrong(place, text)))] == []
    assert len(found) > 40  # the walk sees messages at all


def test_every_file_that_names_options_for_its_verbs_is_known():
    bare = {place for place, text in messages() if OPTION.search(text) and not VERB.search(text)}
    assert bare - set(VERBS) <= set(SHOWN_BY)


@pytest.mark.parametrize(
    ("place", "text"),
    [
        ("denoise", "choose one with --size"),
        ("run.py", "choose another --outdir, or --restart it"),
        ("training.py", "train longer: --time"),  # which `demo` has not
        ("fit.py", "lower --lr"),  # which is shown by verbs that this test does not know
        ("fit.py", "mfimage train --learning-rate"),
        ("ood/detector.py", "run mfimage recalibrate"),
    ],
)
def test_the_walk_finds_advice_that_cannot_be_followed(place, text):
    assert list(wrong(place, text))


@pytest.mark.parametrize("verb", VERBS)
def test_what_the_help_of_a_verb_names_exists(verb):
    chosen = app
    for word in verb.split():
        chosen = chosen[word]
    for option in OPTION.findall(chosen.default_command.__doc__ or ""):
        assert option in VERBS[verb]


def typed_in_readme():
    """What the README says to type, by verb: in spans of code, over a line's end too, and in blocks."""
    text = (PACKAGE.parent / "README.md").read_text(encoding="utf-8")
    blocks, rest = re.findall(r"```.*?```", text, re.DOTALL), re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    spans = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", rest)]
    for line in [line for block in blocks for line in block.splitlines()] + spans:
        words = re.sub(r"\s#.*", "", line).split()
        words = words[1:] if words[:1] == ["mfimage"] else words
        verb = " ".join(words[:2]) if words[:1] == ["stylegan"] else "".join(words[:1])
        if verb in VERBS:
            yield verb, line


@pytest.mark.parametrize("verb", sorted({verb for verb, _ in typed_in_readme()}))
def test_the_readme_names_options_that_the_verb_has(verb):
    lines = [line for one, line in typed_in_readme() if one == verb]
    missing = [(line, o[0]) for line in lines for o in OPTION.finditer(line) if o[0] not in VERBS[verb]]
    assert not missing
