"""Everything that measures: numbers of images and of models, evaluation, comparison, the choice of d."""

from mfimage.eval.bootstrap import Interval, bootstrap
from mfimage.eval.comparison import Comparison, compare
from mfimage.eval.evaluation import METRICS, evaluate
from mfimage.eval.features import (
    FeatureExtractor,
    InceptionFeatures,
    InceptionUnavailable,
    InceptionWeights,
    find_inception_weights,
)
from mfimage.eval.frechet import Moments, feature_distance, frechet_distance
from mfimage.eval.kernel import kernel_distance
from mfimage.eval.neighbours import copies, coverage, nearest
from mfimage.eval.numbers import Number, Report, read_report
from mfimage.eval.protocols import PROTOCOLS, Protocol
from mfimage.eval.ranking import auroc, fpr_at_tpr, histogram
from mfimage.eval.reconstruction import PCA, mse, psnr, squared_error, ssim

__all__ = [
    "METRICS",
    "PCA",
    "PROTOCOLS",
    "Comparison",
    "FeatureExtractor",
    "InceptionFeatures",
    "InceptionUnavailable",
    "InceptionWeights",
    "Interval",
    "Moments",
    "Number",
    "Protocol",
    "Report",
    "auroc",
    "bootstrap",
    "compare",
    "copies",
    "coverage",
    "evaluate",
    "feature_distance",
    "find_inception_weights",
    "fpr_at_tpr",
    "frechet_distance",
    "histogram",
    "kernel_distance",
    "mse",
    "nearest",
    "psnr",
    "read_report",
    "squared_error",
    "ssim",
]
