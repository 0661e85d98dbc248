"""How distances between sets of images are measured: numbers of different protocols do not compare."""

from __future__ import annotations

from dataclasses import dataclass

from mfimage.errors import UsageError

MOST = 50_000  # images in a distance


@dataclass(frozen=True)
class Protocol:
    """What happens to images before their features are taken, and how many there are.

    Attributes:
        name: Stands beside every number.
        says: The same in a sentence.
        samples: Samples and real images; None for as many as there are held-out images, 50,000 at most.
        resize: To the 299 × 299 of the Inception; see `eval.InceptionFeatures`.
        jpeg: Whether both sides go through JPEG files.
        norm256: Whether reconstruction is also told as ‖x − x̂‖ with pixels in 0 … 256.
    """

    name: str
    says: str
    samples: int | None = None
    resize: str = "pytorch-fid"
    jpeg: bool = False
    norm256: bool = False


PROTOCOLS = {
    p.name: p
    for p in (
        Protocol(
            "mfimage",
            "8-bit PNG on both sides; pytorch-fid's Inception and resizing; as many samples as held-out "
            "images, 50,000 at most",
        ),
        Protocol(
            "brehmer2020",
            "as published by Brehmer and Cranmer, 2020: 1,000 samples and 1,000 real images, JPEG on both "
            "sides; reconstruction error as a norm with pixels in 0 … 256",
            samples=1000,
            jpeg=True,
            norm256=True,
        ),
        Protocol(
            "clean-fid",
            "as mfimage, but resized as by Parmar, Zhang and Zhu, 2022: bicubic and antialiased",
            resize="clean-fid",
        ),
    )
}


def protocol_of(name: str) -> Protocol:
    """Return a protocol by name; UsageError if there is none."""
    if name not in PROTOCOLS:
        raise UsageError(f"no protocol {name!r}: there are {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]
