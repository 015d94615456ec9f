"""From logits to a token: parameters, filters, penalties, the draw, stop strings. Knows no model and no request."""

from tokamak.sampling.params import SamplingParams
from tokamak.sampling.random import fresh_seed
from tokamak.sampling.sampler import (
    Place,
    Sampled,
    Sampler,
    TextIsComplete,
    TokenLogprob,
    log_probabilities,
    sample_rows,
)
from tokamak.sampling.stop import StopStrings

__all__ = [
    "Place",
    "Sampled",
    "Sampler",
    "SamplingParams",
    "StopStrings",
    "TextIsComplete",
    "TokenLogprob",
    "fresh_seed",
    "log_probabilities",
    "sample_rows",
]
