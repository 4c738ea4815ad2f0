"""Noise of ImageNet-C (Hendrycks and Dietterich 2019), on pixels in 0..1; `grain` weakens it in smaller images."""

import numpy as np


def gaussian_noise(x: np.ndarray, deviation: float, rng: np.random.Generator, grain: float) -> np.ndarray:
    """Of poor light."""
    return x + rng.normal(0, deviation * grain, x.shape)


def shot_noise(x: np.ndarray, photons: float, rng: np.random.Generator, grain: float) -> np.ndarray:
    """Of the discrete nature of light: so many photons a white pixel, whose number has a Poisson distribution."""
    photons /= grain**2
    return rng.poisson(x * photons) / photons


def impulse_noise(x: np.ndarray, share: float, rng: np.random.Generator, grain: float) -> np.ndarray:
    """Salt and pepper: a share of the values is 0 or 1."""
    hit = rng.random(x.shape) < share * grain
    return np.where(hit, rng.random(x.shape) < 0.5, x)


def speckle_noise(x: np.ndarray, deviation: float, rng: np.random.Generator, grain: float) -> np.ndarray:
    """The brighter, the noisier."""
    return x + x * rng.normal(0, deviation * grain, x.shape)
