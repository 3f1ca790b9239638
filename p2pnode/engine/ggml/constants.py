"""Numbers of ggml's public headers that did not change from 0.13 to 0.26."""

from enum import IntEnum
from typing import Final


class Type(IntEnum):
    """How a tensor's numbers are stored; ggml only ever adds to these."""

    F32 = 0
    F16 = 1
    Q4_0 = 2
    Q4_1 = 3
    Q5_0 = 6
    Q5_1 = 7
    Q8_0 = 8
    Q8_1 = 9
    Q2_K = 10
    Q3_K = 11
    Q4_K = 12
    Q5_K = 13
    Q6_K = 14
    Q8_K = 15
    IQ2_XXS = 16
    IQ2_XS = 17
    IQ3_XXS = 18
    IQ1_S = 19
    IQ4_NL = 20
    IQ3_S = 21
    IQ2_S = 22
    IQ4_XS = 23
    I8 = 24
    I16 = 25
    I32 = 26
    I64 = 27
    F64 = 28
    IQ1_M = 29
    BF16 = 30
    TQ1_0 = 34
    TQ2_0 = 35
    MXFP4 = 39
    NVFP4 = 40


class DeviceType(IntEnum):
    """What a device is; other numbers are devices that we do not use."""

    CPU = 0
    GPU = 1
    INTEGRATED_GPU = 2
    ACCELERATOR = 3  # a library beside the CPU, such as BLAS; it uses the CPU's memory


EVERY_THREAD: Final = -1  # shares in an operation of one's own

STATUS_SUCCESS: Final = 0
STATUS_ALLOC_FAILED: Final = -2

ROPE_NORMAL: Final = 0  # pairs (0, 1), (2, 3), ...: llama
ROPE_NEOX: Final = 2  # pairs (0, n/2), (1, n/2 + 1), ...: qwen, gemma, phi

PREC_DEFAULT: Final = 0
PREC_F32: Final = 10

USAGE_ANY: Final = 0
USAGE_WEIGHTS: Final = 1
USAGE_COMPUTE: Final = 2

SORT_ASCENDING: Final = 0
SORT_DESCENDING: Final = 1

LOG_WARNING: Final = 3
LOG_ERROR: Final = 4
