"""What an asker is told where nobody covers the layers of an answer: why, and what to do."""

from p2pnode.scheduler.chain import NoCover


def uncovered(missing: NoCover) -> tuple[str, str]:
    """Return why an answer ends for which no chain exists, and the hint to its asker."""
    if missing.unable:
        return missing.unable, "ask with fewer options, or update their nodes"
    layers = ", ".join(f"[{run.start}, {run.stop})" for run in missing.missing)
    reasons = "; ".join(missing.reasons)
    why = f"no peer serves layers {layers}" + (f": {reasons}" if reasons else "")
    return why, _hint(missing)


def _hint(missing: NoCover) -> str:
    first = missing.missing[0]
    run = f"{first.start}:{first.stop}"  # beside the node that was asked, so with its own state
    serve = f"p2pnode doctor, or p2pnode up --layers {run} --state DIR --port 0"
    if missing.resting:
        return f"wait for who holds them and rests ({missing.resting}): --wait SECONDS; or {serve}"
    return serve
