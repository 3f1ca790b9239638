"""llama.cpp as a reference, in a process of its own."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from tests.engines.gguf_files import Bytes, Floats

_CHILD = Path(__file__).with_name("libllama_child.py")


class Libllama:
    """The process that holds llama.cpp; close it, or use it in a ``with``.

    Raises:
        RuntimeError: from each method: llama.cpp refused, or its process died (its own words
            are on standard error).
    """

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(_CHILD)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process."""
        self._process.communicate()

    def versions(self) -> dict[str, str]:
        """Return what the library calls itself: ``llama`` and ``ggml``."""
        answer, _ = self._ask("versions", b"")
        return {key: str(answer[key]) for key in ("llama", "ggml")}

    def logits(
        self,
        path: Path,
        ids: Sequence[int],
        *,
        n_ctx: int,
        flash: bool = False,
        kv: str = "f32",
        threads: int = 1,
        cuts: Sequence[int] = (),
    ) -> Floats:
        """Return float32 logits [tokens, vocab] of one sequence.

        Args:
            path: The GGUF file.
            ids: The tokens.
            n_ctx: Positions of the context. Above the original length of a longrope model it
                picks the long factors, whatever the sequence's own length.
            flash: Whether attention runs fused.
            kv: How keys and values are kept, ``f32`` or ``f16``.
            threads: Threads of every batch.
            cuts: Where the sequence is cut into batches; none is one batch.
        """
        answer, body = self._ask(
            "logits",
            np.asarray(ids, np.int32).tobytes(),
            path=str(path),
            n_ctx=n_ctx,
            flash=flash,
            kv=kv,
            threads=threads,
            cuts=list(cuts),
        )
        return np.frombuffer(body, np.float32).reshape(answer["shape"])

    def quantize(self, rows: Floats, kind: int) -> Bytes:
        """Return rows [..., width] in ggml's encoding of a type [..., bytes of a row].

        Types that need an importance matrix get one of ones.
        """
        flat = np.ascontiguousarray(rows, np.float32)
        answer, body = self._ask("quantize", flat.tobytes(), kind=kind, width=rows.shape[-1])
        row_bytes = answer["shape"][-1]
        return np.frombuffer(body, np.uint8).reshape(*rows.shape[:-1], row_bytes)

    def dequantize(self, rows: Bytes, kind: int, width: int) -> Floats:
        """Return what ggml reads in encoded rows: float32 [..., width]."""
        _, body = self._ask("dequantize", rows.tobytes(), kind=kind, width=width)
        return np.frombuffer(body, np.float32).reshape(*rows.shape[:-1], width)

    def _ask(self, what: str, body: bytes, **request: Any) -> tuple[dict[str, Any], bytes]:
        sink, source = self._process.stdin, self._process.stdout
        assert sink is not None
        assert source is not None
        line = json.dumps({"what": what, "bytes": len(body), **request}).encode()
        try:
            sink.write(line + b"\n" + body)
            sink.flush()
            answer = json.loads(source.readline())
        except (OSError, ValueError) as error:
            raise RuntimeError(f"the process with llama.cpp died in {what}") from error
        found = source.read(answer["bytes"])
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer, found
