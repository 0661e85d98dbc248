"""StyleGAN2 by the formulas of the paper, for one image, in float64, with loops: slow and plain."""

import numpy as np

TAPS = np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 16  # of sum 4, for three of four pixels are zeros


def second_moment(x):
    return x / np.sqrt((x**2).mean() + 1e-8)


def activation(x, limit):
    return np.clip(np.sqrt(2) * np.where(x > 0, x, 0.2 * x), -limit, limit)


def insert_zeros(x):
    channels, height, width = x.shape
    out = np.zeros((channels, 2 * height, 2 * width))
    for i in range(height):
        for j in range(width):
            out[:, 2 * i, 2 * j] = x[:, i, j]
    return out


def at(x, i, j):
    inside = 0 <= i < x.shape[1] and 0 <= j < x.shape[2]
    return x[:, i, j] if inside else np.zeros(len(x))


def upsample(x):
    z = insert_zeros(x)
    out = np.zeros_like(z)
    for i in range(z.shape[1]):
        for j in range(z.shape[2]):
            for a in range(4):
                for b in range(4):
                    out[:, i, j] += TAPS[a, b] * at(z, i + a - 2, j + b - 2)
    return out


def modulated_kernel(weight, style, demodulate):
    """A kernel of the image's own: scaled by input, then each output to a norm of one."""
    kernel = np.zeros_like(weight)
    for o in range(weight.shape[0]):
        for i in range(weight.shape[1]):
            kernel[o, i] = weight[o, i] * style[i]
        if demodulate:
            kernel[o] /= np.sqrt((kernel[o] ** 2).sum() + 1e-8)
    return kernel


def correlate(x, kernel):
    out = np.zeros((len(kernel), *x.shape[1:]))
    for i in range(x.shape[1]):
        for j in range(x.shape[2]):
            for a in range(3):
                for b in range(3):
                    out[:, i, j] += kernel[:, :, a, b] @ at(x, i + a - 1, j + b - 1)
    return out


def up_convolution(x, kernel):
    """Zeros between pixels, a true convolution that keeps one row more, then the filter, zero outside."""
    z = insert_zeros(x)
    size = z.shape[1]
    wide = np.zeros((len(kernel), size + 1, size + 1))
    for i in range(size + 1):
        for j in range(size + 1):
            for a in range(3):
                for b in range(3):
                    wide[:, i, j] += kernel[:, :, a, b] @ at(z, i - a, j - b)
    out = np.zeros((len(kernel), size, size))
    for i in range(size):
        for j in range(size):
            for a in range(4):
                for b in range(4):
                    out[:, i, j] += TAPS[a, b] * at(wide, i + a - 1, j + b - 1)
    return out


def convolution(x, w, p, up, limit=np.inf, noise=True):
    """One layer; p has style_weight, style_bias, weight, bias, noise and strength."""
    kernel = modulated_kernel(p["weight"], p["style_weight"] @ w + p["style_bias"], True)
    y = up_convolution(x, kernel) if up else correlate(x, kernel)
    y = y + (p["strength"] * p["noise"] if noise else 0) + p["bias"][:, None, None]
    return activation(y, limit)


def colour(x, w, p, limit=np.inf):
    kernel = modulated_kernel(p["weight"], p["style_weight"] @ w + p["style_bias"], False)
    return np.clip(np.einsum("oi,ihw->ohw", kernel, x) + p["bias"][:, None, None], -limit, limit)
