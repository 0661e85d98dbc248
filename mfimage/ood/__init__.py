"""Out-of-distribution detection: scores, a calibrated detector, tests of whole sets and of streams."""

from mfimage.ood.detector import Detector
from mfimage.ood.stream import DriftAlarm, Stream
from mfimage.ood.verdicts import Drift, Verdicts, drift_of

__all__ = ["Detector", "Drift", "DriftAlarm", "Stream", "Verdicts", "drift_of"]
