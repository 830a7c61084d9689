#!/usr/bin/env python3
"""Makes tests/golden/gguf/rows.safetensors: blocks of the GGUF types IQ1 to IQ3 that together name every row of their tables.

The values are what the Python package gguf (written with 0.19.0) dequantizes them to. Scales and signs that are stored in full are random bits, and
`d` is 1, so that f16 holds each value exactly. `NAME.raw` are the blocks, `NAME.f16` their values. Needs the packages gguf, numpy and safetensors:

    python3 tests/golden/make/gguf_rows.py
"""

from pathlib import Path

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, quants
from safetensors.numpy import save_file

FILE = Path(__file__).resolve().parents[1] / "gguf" / "rows.safetensors"
ONE = int(np.float16(1).view(np.uint16))


def u16(block, at):
    return block[at : at + 2].view("<u2")


def u32(block, at):
    return block[at : at + 4].view("<u4")


def signs_and_scale(block, at, first, rng):
    """Seven signs for each of four rows of eight values, and a scale."""
    word = int(rng.integers(16)) << 28
    for j in range(4):
        word |= (first + j) % 128 << (7 * j)
    u32(block, at)[0] = word


def iq2_xxs(block, first, rng):
    for part in range(8):
        at = 2 + 8 * part
        block[at : at + 4] = range(first + 4 * part, first + 4 * part + 4)
        signs_and_scale(block, at + 4, first + 4 * part, rng)


def iq2_xs(block, first, rng):
    for row in range(32):
        u16(block, 2 + 2 * row)[0] = (first + row) | (first + row) % 128 << 9


def iq2_s(block, first, rng):
    for row in range(32):
        block[2 + row] = (first + row) % 256
    for j in range(8):
        block[66 + j] = (first // 256) * 0b01010101


def iq3_xxs(block, first, rng):
    block[2:66] = range(first, first + 64)
    for part in range(8):
        signs_and_scale(block, 66 + 4 * part, first // 2 + 4 * part, rng)


def iq3_s(block, first, rng):
    for row in range(64):
        block[2 + row] = (first + row) % 256
    block[66:74] = 255 if first >= 256 else 0


def iq1_s(block, first, rng):
    for row in range(32):
        block[2 + row] = (first + row) % 256
    for part in range(8):
        word = int(rng.integers(16)) << 12
        u16(block, 34 + 2 * part)[0] = word | (first // 256) * 0b001001001001


def iq1_m(block, first, rng):
    for row in range(32):
        block[row] = (first + row) % 256
    # The upper bits of two rows, and the sign of each one's eighth as it was drawn.
    block[32:48] = block[32:48] & 0b10001000 | (first // 256) * 0b00010001
    for j in range(4):
        word = u16(block, 48 + 2 * j)
        word[0] = int(word[0]) & 0x0FFF | (ONE >> (4 * j) & 15) << 12


TYPES = {iq1_s: (2048, 8), iq1_m: (2048, 8), iq2_xxs: (256, 8), iq2_xs: (512, 8), iq2_s: (1024, 8), iq3_xxs: (256, 4), iq3_s: (512, 4)}


def main():
    rng = np.random.default_rng(20261130)
    tensors = {}
    for fill, (rows, length) in TYPES.items():
        name = fill.__name__
        block_type = GGMLQuantizationType[name.upper()]
        per_block = 256 // length
        blocks = rng.integers(0, 256, (rows // per_block, GGML_QUANT_SIZES[block_type][1]), dtype=np.uint8)
        for n, block in enumerate(blocks):
            if fill is not iq1_m:
                u16(block, 0)[0] = ONE
            fill(block, n * per_block, rng)
        values = quants.dequantize(blocks, block_type).reshape(-1)
        halves = values.astype(np.float16)
        assert (halves.astype(np.float32) == values).all(), name
        tensors[f"{name}.raw"] = blocks
        tensors[f"{name}.f16"] = halves
    save_file(tensors, FILE)


main()
