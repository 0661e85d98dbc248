"""The chart of held-out error against d."""

from mfimage.eval.elbow import curve_figure


def test_the_figure_is_a_picture():
    assert (
        curve_figure([2.0**-k for k in range(9)], [3.0**-k for k in range(9)], (2.8, 3.1), 3, 3)[:4]
        == b"\x89PNG"
    )
