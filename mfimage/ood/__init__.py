"""Out-of-distribution detection: scores, a calibrated detector, and a test of whole sets."""

from mfimage.ood.detector import Detector
from mfimage.ood.verdicts import Drift, Verdicts, drift_of

__all__ = ["Detector", "Drift", "Verdicts", "drift_of"]
