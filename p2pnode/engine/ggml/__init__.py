"""ggml's C API through ctypes: where the library is found, how it is loaded, and what it offers."""
