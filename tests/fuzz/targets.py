"""Every way in for hostile bytes, by name."""

from collections.abc import Iterator
from pathlib import Path

from tests.fuzz import (
    answer_targets,
    file_targets,
    frame_targets,
    inference_targets,
    kv_targets,
    membership_targets,
    prompt_targets,
    text_targets,
    transport_targets,
)
from tests.fuzz.target import Script, Target

CORPUS = Path(__file__).parent / "corpus"
"""A file a target of inputs that fuzzing found worth keeping, each behind two bytes of length,
and a folder a target of those that once were findings, under a name that says what was wrong."""

TARGETS: dict[str, Target] = {
    target.name: target
    for room in (
        frame_targets,
        text_targets,
        prompt_targets,
        answer_targets,
        transport_targets,
        membership_targets,
        inference_targets,
        kv_targets,
        file_targets,
    )
    for target in room.TARGETS
}


def packed_corpus(name: str) -> Path:
    return CORPUS / f"{name}.bin"


def inputs(target: Target) -> Iterator[bytes]:
    """Yield the seeds of a target and what lies in its corpus."""
    yield from target.seeds()
    packed = packed_corpus(target.name)
    script = Script(packed.read_bytes() if packed.exists() else b"")
    while script:
        yield script.blob()
    for path in sorted((CORPUS / target.name).glob("*")):
        yield path.read_bytes()
