"""What work that failed means to its session: how it is counted, and what its requester is told."""

from p2pnode.inference.messages import OVERFLOW, Failed, Refusal
from p2pnode.inference.stage import Stage
from p2pnode.inference.work import WorkFailed
from p2pnode.sansio import NodeId


def counted(failed: WorkFailed) -> tuple[str, ...]:
    """Return the counters that a failure adds to."""
    if failed.is_undrawable:
        return ("cannot draw as asked",)
    if failed.is_overflow:
        return ("compute failed", "compute failed: no numbers came of it")
    if failed.is_memory_short:
        return ("compute failed", "compute failed: no memory")
    if failed.is_engine_gone or failed.is_engine_suspect:
        return ("compute failed", "compute failed: the engine")
    return ("compute failed",)


def told(failed: WorkFailed, stage: Stage, node_id: NodeId) -> Failed:
    """Return what the requester of ``stage`` is told; ``node_id`` is the node that computed."""
    culprit = stage.order.upstream.peer if failed.is_input_bad else node_id
    code: str = Refusal.SAMPLING if failed.is_undrawable else ""
    if failed.is_overflow and stage.requester == node_id:
        code = OVERFLOW
    return stage.failed(culprit, failed.reason, code)
