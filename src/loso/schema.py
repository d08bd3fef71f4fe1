"""What a corpus row is: its columns, its identity, the encoder vocabulary, the codec block.

Order and names here are the contract with every trained model: the vocabulary's order is the
one-hot index inside its graph. Changing any of it needs a new ENCODER_VOCAB_VERSION and a retrain.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "CANONICAL",
    "CANONICAL_6",
    "CODEC_BLOCK_COLUMNS",
    "CODEC_BLOCK_WIDTH",
    "ENCODER_VOCAB",
    "ENCODER_VOCAB_VERSION",
    "IDENTITY",
    "REQUIRED_NUMBERS",
    "REQUIRED_TEXTS",
    "UNKNOWN_ENCODER_INDEX",
    "VMAF_RANGE",
    "FeatureSet",
    "encoder_index",
]

CANONICAL_6 = ("adm2", "vif_scale0", "vif_scale1", "vif_scale2", "vif_scale3", "motion2")
"""The six features of VMAF v0.6.1, in the order every model takes them."""


@dataclass(frozen=True)
class FeatureSet:
    """Features in the order in which a model takes them, each with the corpus column it is in."""

    name: str
    features: tuple[str, ...]
    columns: tuple[str, ...]


CANONICAL = FeatureSet("canonical6", CANONICAL_6, CANONICAL_6)

ENCODER_VOCAB = (
    "libx264",
    "libx265",
    "libsvtav1",
    "libvvenc",
    "libvpx-vp9",
    "h264_nvenc",
    "hevc_nvenc",
    "av1_nvenc",
    "h264_qsv",
    "hevc_qsv",
    "av1_qsv",
    "unknown",
)
ENCODER_VOCAB_VERSION = 2
UNKNOWN_ENCODER_INDEX = ENCODER_VOCAB.index("unknown")

CODEC_BLOCK_COLUMNS = (
    *(f"encoder_onehot[{name}]" for name in ENCODER_VOCAB),
    "preset_norm",
    "crf_norm",
)
CODEC_BLOCK_WIDTH = len(CODEC_BLOCK_COLUMNS)

REQUIRED_TEXTS = ("src", "encoder")
REQUIRED_NUMBERS = ("cq", "frame_index", "vmaf", *CANONICAL_6)

IDENTITY = ("src", "encoder", "preset", "cq", "clip", "frame_index")
"""Columns that name a row; `preset` and `clip` count where the corpus has them.

Without `frame_index` they name a clip: one encode of one source.
"""

VMAF_RANGE = (0.0, 100.0)


def encoder_index(encoder: str) -> int:
    """Return the one-hot slot of `encoder`, that of "unknown" for a name outside the vocabulary.

    >>> encoder_index("libx265"), encoder_index("theora")
    (1, 11)
    """
    try:
        return ENCODER_VOCAB.index(encoder)
    except ValueError:
        return UNKNOWN_ENCODER_INDEX
