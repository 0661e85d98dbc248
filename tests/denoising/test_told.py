import math
import re

from mfimage.denoising.told import FEW, amount, mean_quality, summary, told

NOTHING = "no method of this model"


def row(method="soft", sigma=0.1, **changes):
    """What the table says of an image of 8 bits that was made cleaner."""
    return {
        "path": "a.png", "method": method, "sigma": sigma, "white": 255.0, "change": 0.08, "same": False,
        "psnr_before": 20.0, "psnr": 26.0, "ssim": 0.5, "strangeness": 0.2,
    } | changes  # fmt: skip


def test_a_deviation_is_told_in_units_of_its_file():
    assert amount(25 / 255, 255) == "0.098 (25/255)"
    assert amount(0.005, 255) == "0.005 (1.3/255)"
    assert amount(0.1, 65535) == "0.1 (6554/65535)"
    assert amount(0.1, 1.0) == "0.1"


def test_few_images_are_told_one_by_one():
    rows = [row(), row("noisy", 0.01), row(same=True, path="long.png"), row("noisy", strangeness=math.inf)]
    assert told(rows, estimated=True) == [
        "  a.png     σ 0.1 (26/255) estimated  soft: changed by 0.08 (20/255)",
        f"  a.png                               left as it is: at σ = 0.01 {NOTHING} makes it better",
        "  long.png  σ 0.1 (26/255) estimated  soft: the result equals it",
        "  a.png                               left as it is: the model gives no finite numbers for it",
    ]
    assert told([row("noisy", 0.01, path="a\nb")], True)[0].startswith("  a\\nb  left as it is: at σ = 0.01")


def test_many_images_are_summed_up_by_method():
    few = [row(sigma=0.05 + 0.01 * i, same=i == 0) for i in range(3)]
    rows = [*few, *[row("noisy", 0.01)] * FEW]
    lines = told(rows, estimated=True)
    assert [re.split("  +", line.strip()) for line in lines] == [
        [
            "12", "left as they are", "σ 0.01 (2.6/255) estimated",
            f"at their noise {NOTHING} makes them better",
        ],
        [
            "3", "soft", "σ 0.05 … 0.07 (18/255) estimated",
            "changed by 0.08 (20/255) in the median; 1 result equals its input",
        ],
    ]  # fmt: skip
    assert len({line.index("σ") for line in lines}) == 1  # they stand below one another
    assert summary(rows)[1] == {
        "method": "soft", "images": 3, "sigma_least": 0.05, "sigma": 0.060000000000000005, "sigma_most": 0.07,
        "change": 0.08, "same": 1,
    }  # fmt: skip


def test_quality_is_told_beside_that_of_what_was_given():
    assert mean_quality([row(), row(psnr=28.0)]) == (
        "PSNR 27.00 dB (7.00 dB above the 20.00 dB of the input), SSIM 0.5000, mean over 2 images"
    )
    assert mean_quality([row(psnr=19.5, ssim=None)]) == (
        "PSNR 19.50 dB (0.50 dB BELOW the 20.00 dB of the input), mean over 1 image"
    )
    assert mean_quality([row(psnr_before=math.inf)]) == "PSNR 26.00 dB, SSIM 0.5000, mean over 1 image"
    assert mean_quality([row(psnr=math.inf)]) == "PSNR infinite: the results are the clean images"
    assert mean_quality([row(psnr=None)]) == "PSNR and SSIM: not measured"
