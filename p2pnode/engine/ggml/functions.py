"""The C functions that are bound, each with its signature.

A signature is the result's letter, then the arguments': ``p`` a pointer (an int, or None for
null), ``s`` a C string (bytes), ``i`` int and every enum, ``u`` uint8_t, ``l`` int64_t, ``z``
size_t, ``f`` float, ``b`` bool, ``v`` nothing, ``P`` :class:`InitParams` by value. The headers of
0.13.0, 0.20.2 and 0.21.0 agree on each, and 0.26.0 removed none.
"""

import ctypes
from collections.abc import Mapping
from typing import Any, Final, TypeAlias


class InitParams(ctypes.Structure):
    """``ggml_init_params``: what :c:func:`ggml_init` takes by value."""

    _fields_ = (
        ("mem_size", ctypes.c_size_t),
        ("mem_buffer", ctypes.c_void_p),
        ("no_alloc", ctypes.c_bool),
    )


class ThreadpoolParams(ctypes.Structure):
    """``ggml_threadpool_params``, filled by ``threadpool_params_init``.

    The layout has stood since the structure exists. The spare bytes let a later library, which
    knows more fields, fill them.
    """

    _fields_ = (
        ("cpumask", ctypes.c_bool * 512),
        ("n_threads", ctypes.c_int),
        ("prio", ctypes.c_int),
        ("poll", ctypes.c_uint32),  # 0: idle threads sleep at once; 100: they spin
        ("strict_cpu", ctypes.c_bool),
        ("paused", ctypes.c_bool),
        ("spare", ctypes.c_uint8 * 512),
    )


class TensorHead(ctypes.Structure):
    """The first fields of ``ggml_tensor``: ``TensorHead.from_address(tensor)``."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("buffer", ctypes.c_void_p),
        ("ne", ctypes.c_int64 * 4),
        ("nb", ctypes.c_size_t * 4),
    )


class TypeTraits(ctypes.Structure):
    """The first fields of ``ggml_type_traits``: from 0.13 to 0.26 the same."""

    _fields_ = (
        ("type_name", ctypes.c_char_p),
        ("blck_size", ctypes.c_int64),
        ("blck_size_interleave", ctypes.c_int64),
        ("type_size", ctypes.c_size_t),
        ("is_quantized", ctypes.c_bool),
        ("to_float", ctypes.c_void_p),
    )


LETTERS: Final[Mapping[str, Any]] = {
    "p": ctypes.c_void_p,
    "s": ctypes.c_char_p,
    "i": ctypes.c_int,
    "u": ctypes.c_uint8,
    "l": ctypes.c_int64,
    "z": ctypes.c_size_t,
    "f": ctypes.c_float,
    "b": ctypes.c_bool,
    "v": None,
    "P": InitParams,
}

Signatures: TypeAlias = Mapping[str, str]
"""From a C name without ``ggml_`` to its signature."""

_GRAPHS: Final = {
    "init": "pP",
    "free": "vp",
    "tensor_overhead": "z",
    "graph_overhead_custom": "zzb",
    "new_graph_custom": "ppzb",
    "build_forward_expand": "vpp",
    "graph_n_nodes": "ip",
    "graph_node": "ppi",
    "new_tensor_1d": "ppil",
    "new_tensor_2d": "ppill",
    "new_tensor_3d": "ppilll",
    "new_tensor_4d": "ppillll",
    "set_name": "pps",
    "set_output": "vp",
    "nbytes": "zp",
    "nelements": "lp",
    "get_data": "pp",
    "row_size": "zil",
    "type_size": "zi",
    "blck_size": "li",
    "type_name": "si",
    "is_quantized": "bi",
    "status_to_string": "si",
    "log_set": "vpp",
    "quantize_chunk": "zipplllp",
    "time_init": "v",
    "threadpool_params_init": "vpi",
}

_SHAPES: Final = {
    "view_2d": "ppp" + "ll" + "zz",
    "view_3d": "ppp" + "lll" + "zzz",
    "reshape_1d": "pppl",
    "reshape_2d": "pppll",
    "reshape_3d": "ppplll",
    "permute": "pppiiii",
    "transpose": "ppp",
    "cont": "ppp",
    "cast": "pppi",
    "dup": "ppp",
    "get_rows": "pppp",
    "set_rows": "ppppp",
    "repeat": "pppp",
    "repeat_4d": "pppllll",
    "concat": "ppppi",
    "pad": "pppiiii",
}

_ARITHMETIC: Final = {
    "add": "pppp",
    "mul": "pppp",
    "div": "pppp",
    "sqrt": "ppp",
    "exp": "ppp",
    "sum_rows": "ppp",
    "clamp": "pppff",
    "rms_norm": "pppf",
    "norm": "pppf",
    "mul_mat": "pppp",
    "mul_mat_id": "ppppp",
    "flash_attn_ext": "ppppppfff",
    "soft_max": "ppp",
    "soft_max_ext": "ppppff",
    "rope_ext": "ppppp" + "iii" + "ffffff",
    "swiglu": "ppp",
    "swiglu_split": "pppp",
    "geglu_split": "pppp",
    "argsort": "pppi",
}

_BACKENDS: Final = {
    "backend_load": "ps",
    "backend_dev_count": "z",
    "backend_dev_get": "pz",
    "backend_dev_by_type": "pi",
    "backend_dev_name": "sp",
    "backend_dev_description": "sp",
    "backend_dev_type": "ip",
    "backend_dev_memory": "vppp",
    "backend_dev_init": "pps",
    "backend_dev_buffer_type": "pp",
    "backend_dev_supports_op": "bpp",
    "backend_dev_backend_reg": "pp",
    "backend_reg_get_proc_address": "pps",
    "backend_free": "vp",
    "backend_get_device": "pp",
    "backend_graph_compute": "ipp",
}

_MEMORY: Final = {
    "backend_cpu_buffer_from_ptr": "ppz",
    "backend_cpu_buffer_type": "p",
    "backend_buft_alloc_buffer": "ppz",
    "backend_buft_name": "sp",
    "backend_buffer_free": "vp",
    "backend_buffer_set_usage": "vpi",
    "backend_tensor_alloc": "ippp",
    "backend_alloc_ctx_tensors": "ppp",
    "backend_alloc_ctx_tensors_from_buft": "ppp",
    "backend_tensor_set": "vppzz",
    "backend_tensor_get": "vppzz",
    "gallocr_new": "pp",
    "gallocr_alloc_graph": "bpp",
    "gallocr_free": "vp",
}

REQUIRED: Final[Signatures] = {**_GRAPHS, **_SHAPES, **_ARITHMETIC, **_BACKENDS, **_MEMORY}

OPTIONAL: Final[Signatures] = {
    "custom_4d": "pp" + "illll" + "pi" + "pip",  # an operation of the caller's own
    "get_type_traits": "pi",
    "cpu_fp16_to_fp32": "vppl",  # where the CPU back end is linked in
}
"""Absent from some library: the attribute is None there."""

OF_THE_CPU: Final[Signatures] = {
    "backend_cpu_set_threadpool": "vpp",
    "backend_set_n_threads": "vpi",
    "threadpool_new": "pp",
    "threadpool_free": "vp",
    "backend_dev_get_extra_bufts": "pp",
    "backend_get_features": "pp",
}
"""Found by ``backend_reg_get_proc_address``: where the CPU back end is itself chosen at run time,
no library that we open has them."""
