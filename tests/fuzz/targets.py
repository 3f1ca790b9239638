"""Every way in for hostile bytes, by name."""

from collections.abc import Iterator
from pathlib import Path

from tests.fuzz import (
    file_targets,
    frame_targets,
    inference_targets,
    membership_targets,
    text_targets,
    transport_targets,
)
from tests.fuzz.target import Target

CORPUS = Path(__file__).parent / "corpus"
"""Inputs that fuzzing found worth keeping, and every input that once was a finding."""

TARGETS: dict[str, Target] = {
    target.name: target
    for room in (
        frame_targets,
        text_targets,
        transport_targets,
        membership_targets,
        inference_targets,
        file_targets,
    )
    for target in room.TARGETS
}


def inputs(target: Target) -> Iterator[bytes]:
    """Yield the seeds of a target and what lies in its corpus."""
    yield from target.seeds()
    for path in sorted((CORPUS / target.name).glob("*")):
        yield path.read_bytes()
