"""What is measured of a model: distances between sets, reconstruction, out-of-distribution scores."""

from mfimage.eval.bootstrap import Interval, bootstrap
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
from mfimage.eval.ood import auroc, fpr_at_tpr, histogram
from mfimage.eval.reconstruction import (
    PCA,
    mse,
    psnr,
    squared_error,
    ssim,
)

__all__ = [
    "PCA",
    "FeatureExtractor",
    "InceptionFeatures",
    "InceptionUnavailable",
    "InceptionWeights",
    "Interval",
    "Moments",
    "auroc",
    "bootstrap",
    "copies",
    "coverage",
    "feature_distance",
    "find_inception_weights",
    "fpr_at_tpr",
    "frechet_distance",
    "histogram",
    "kernel_distance",
    "mse",
    "nearest",
    "psnr",
    "squared_error",
    "ssim",
]
