"""Everything that measures: numbers of images and of models, evaluation, comparison, the choice of d."""

from mfimage.eval.comparison import Comparison, compare
from mfimage.eval.evaluation import evaluate
from mfimage.eval.features import FeatureExtractor, InceptionFeatures
from mfimage.eval.image_metrics import PCA, copies, mse, nearest, psnr, squared_error, ssim
from mfimage.eval.inception import InceptionUnavailable, InceptionWeights, find_inception_weights
from mfimage.eval.metrics import METRICS
from mfimage.eval.numbers import Evaluation, Interval, Number, bootstrap, read_evaluation
from mfimage.eval.protocols import PROTOCOLS, Protocol
from mfimage.eval.score_metrics import auroc, fpr_at_tpr, histogram
from mfimage.eval.set_metrics import coverage, frechet_distance, kernel_distance, squared_mmd

__all__ = [
    "METRICS",
    "PCA",
    "PROTOCOLS",
    "Comparison",
    "Evaluation",
    "FeatureExtractor",
    "InceptionFeatures",
    "InceptionUnavailable",
    "InceptionWeights",
    "Interval",
    "Number",
    "Protocol",
    "auroc",
    "bootstrap",
    "compare",
    "copies",
    "coverage",
    "evaluate",
    "find_inception_weights",
    "fpr_at_tpr",
    "frechet_distance",
    "histogram",
    "kernel_distance",
    "mse",
    "nearest",
    "psnr",
    "read_evaluation",
    "squared_error",
    "squared_mmd",
    "ssim",
]
