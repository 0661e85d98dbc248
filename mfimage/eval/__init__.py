"""What is measured of a model: Fréchet distance, reconstruction, density, out-of-distribution scores."""

from mfimage.eval.density import density_summary
from mfimage.eval.features import (
    FeatureExtractor,
    InceptionFeatures,
    InceptionUnavailable,
    InceptionWeights,
    find_inception_weights,
)
from mfimage.eval.frechet import Moments, fid, frechet_distance, moments
from mfimage.eval.ood import auroc, fpr_at_tpr, histogram
from mfimage.eval.reconstruction import (
    PCA,
    mse,
    psnr,
    reconstruction_summary,
    reconstruction_table,
    squared_error,
    ssim,
)

__all__ = [
    "PCA",
    "FeatureExtractor",
    "InceptionFeatures",
    "InceptionUnavailable",
    "InceptionWeights",
    "Moments",
    "auroc",
    "density_summary",
    "fid",
    "find_inception_weights",
    "fpr_at_tpr",
    "frechet_distance",
    "histogram",
    "moments",
    "mse",
    "psnr",
    "reconstruction_summary",
    "reconstruction_table",
    "squared_error",
    "ssim",
]
