"""The verb that looks at the installation itself."""

from __future__ import annotations

import sys

from mfimage.cli import options as opt


def doctor(*, device: opt.Device = "auto", talk: opt.Talk = opt.Talk()) -> None:
    """Say what is installed, and try it for ten seconds: what a bug report asks for.

    Versions, devices, caches, the weights of the FID, optional packages; then a small model is trained, read
    again and checked. Ends with code 1 if something is wrong; what is optional may be missing.
    """
    from mfimage.doctor import examine

    findings = list(examine(device))
    talk.put(
        {one.what: {"found": one.found, "wrong": one.wrong} for one in findings},
        [(one.what, f"WRONG: {one.found}" if one.wrong else one.found) for one in findings],
    )
    wrong = [one.what for one in findings if one.wrong]
    if wrong:
        talk.say(f"wrong: {', '.join(wrong)}")
        sys.exit(1)
