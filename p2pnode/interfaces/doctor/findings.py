"""What a check has found: a verdict, a sentence, and what to do about it."""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from p2pnode.errors import UserError

Verdict: TypeAlias = Literal["ok", "warn", "fail"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Finding:
    """One fact about this machine or this swarm.

    Attributes:
        topic: What was looked at, e.g. ``multicast``.
        verdict: ``fail`` where a node cannot work, ``warn`` where it works badly or not alone.
        what: What is so, in a sentence.
        advice: What to do about it; empty where nothing needs doing.
    """

    topic: str
    verdict: Verdict
    what: str
    advice: str = ""


Check: TypeAlias = Callable[[], Iterable[Finding]]


def examine(topic: str, check: Check) -> list[Finding]:
    """Run one check; one that breaks is a finding itself, and stops no other."""
    try:
        return list(check())
    except UserError as error:
        return [Finding(topic, "fail", str(error), error.hint)]
    except Exception as error:
        logger.debug("the check of %s broke", topic, exc_info=error)
        what = f"could not be checked: {type(error).__name__}: {error}"
        return [Finding(topic, "warn", what, "please report this: it is a bug of p2pnode")]


def is_well(findings: Iterable[Finding]) -> bool:
    """Tell whether nothing has failed."""
    return all(finding.verdict != "fail" for finding in findings)


def mib(size: float) -> str:
    """Write a size as people read it."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"
