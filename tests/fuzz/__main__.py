"""Fuzz every parser of hostile bytes, for some minutes in all: ``make fuzz``.

Each target has its own process and its share of the time, starts included; those for which none
is left are named, and come first the next time. A finding is an exception that is no
refusal, a hang, or memory beyond the target's bound; its input is kept under ``build/fuzz``, and
the exit status is 1.
"""

import argparse
import importlib.util
import subprocess
import sys
import tempfile
import time
import tracemalloc
from contextlib import suppress
from pathlib import Path

from tests.fuzz.target import Target, blob
from tests.fuzz.targets import TARGETS, inputs, packed_corpus
from tests.fuzz.turns import divide, oldest_first

_HANG = 10
"""Seconds that one input may take under instrumentation, which slows ten times and more."""

_GRACE = 2.0
"""Seconds after the end of all in which a target may still finish its input; then it is ended."""

_RSS_MB = 1024
_STOPPED = -9  # the status of a process that was killed
_BUILD = Path("build", "fuzz")
_MEASURED = 400
"""Inputs of a target whose memory is measured after its run."""


def main() -> int:
    options = _options()
    if options.replay:
        return _replay(TARGETS[options.targets[0]], options.replay)
    if importlib.util.find_spec("atheris") is None:
        print("fuzzing needs atheris: pip install 'p2pnode[fuzz]' (Linux and macOS alone)")
        return 2
    found: list[tuple[str, Path]] = []

    def fuzz(name: str, seconds: int, end: float) -> None:
        found.extend(_fuzz(TARGETS[name], seconds, end, options.keep))

    names = oldest_first(options.targets or [*TARGETS], _last_runs())
    session = divide(names, options.seconds, clock=time.monotonic, fuzz=fuzz)
    for name, path in found:
        print(f"FINDING  {path}\n  again: python -m tests.fuzz {name} --replay {path}")
    if session.left_out:
        print(f"no time left for {len(session.left_out)}: {' '.join(session.left_out)}")
    print(f"{len(session.ran)} of {len(names)} targets, {len(found)} findings")
    return 1 if found else 0


def _last_runs() -> dict[str, float]:
    return {path.parent.name: path.stat().st_mtime for path in _BUILD.glob("*/ran")}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", choices=[[], *TARGETS], metavar="TARGET")
    parser.add_argument("--seconds", type=_positive, default=600, help="for all targets together")
    parser.add_argument("--replay", type=Path, help="run one input through one target, no more")
    parser.add_argument(
        "--keep", type=int, default=0, metavar="BYTES",
        help="write what was learnt into the committed corpus, at most so many bytes a target",
    )  # fmt: skip
    return parser.parse_args()


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least one second")
    return number


def _fuzz(target: Target, seconds: int, end: float, keep: int) -> list[tuple[str, Path]]:
    """Run one target, until ``end`` at the latest; return its findings."""
    work = _BUILD / target.name
    findings = work / "findings"
    learnt = work / "corpus"
    for folder in (findings, learnt):
        folder.mkdir(parents=True, exist_ok=True)
    before = set(findings.iterdir())
    with tempfile.TemporaryDirectory() as scratch:
        words, start = Path(scratch, "words"), Path(scratch, "start")
        start.mkdir()
        for number, data in enumerate(inputs(target)):
            (start / f"{number:04}").write_bytes(data)
        words.write_text("".join(f'"{_quoted(word)}"\n' for word in target.words), "ascii")
        limit = max(0.0, end - time.monotonic()) + _GRACE
        run = _engine(
            target, limit, f"-max_total_time={seconds}", f"-artifact_prefix={findings}/",
            *([f"-dict={words}"] if target.words else []), str(learnt), str(start),
        )  # fmt: skip
        if keep:
            _keep(target, learnt, keep)
    (work / "ran").touch()
    found = sorted(set(findings.iterdir()) - before)
    if run.returncode not in {0, _STOPPED} and not found:
        print(run.stdout)
        raise SystemExit(f"{target.name}: the fuzzer itself failed")
    if found:
        print(run.stdout[-4000:])
    found += _too_large(target, learnt, findings, end)
    stopped = ", ended because the time was over" if run.returncode == _STOPPED else ""
    print(f"{target.name}: {_summary(run.stdout)}, {len(found)} findings{stopped}", flush=True)
    return [(target.name, path) for path in found]


def _engine(target: Target, limit: float, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the fuzzer; its status is ``_STOPPED`` if it had to be ended after ``limit`` seconds."""
    process = subprocess.Popen(
        [
            sys.executable, "-m", "tests.fuzz.engine", target.name,
            f"-max_len={target.max_len}", f"-timeout={_HANG}", f"-rss_limit_mb={_RSS_MB}",
            *arguments,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    )  # fmt: skip
    with process:
        try:
            output, _ = process.communicate(timeout=limit)
            status = process.returncode
        except subprocess.TimeoutExpired:
            process.kill()
            output, _ = process.communicate()
            status = _STOPPED
    return subprocess.CompletedProcess(process.args, status, output)


def _keep(target: Target, learnt: Path, most: int) -> None:
    """Replace the committed corpus by what was learnt, the shortest first, as far as it fits."""
    found = {path.read_bytes() for path in learnt.iterdir()}
    packed = b""
    for data in sorted(found, key=lambda one: (len(one), one)):
        if len(packed) + 2 + len(data) > most:
            break
        packed += blob(data)
    packed_corpus(target.name).write_bytes(packed)


def _too_large(target: Target, learnt: Path, findings: Path, end: float) -> list[Path]:
    """Return the inputs that took more memory than the target's bound, of those there is time for.

    At least one is looked at.
    """
    found = []
    tracemalloc.start()
    for path in [*learnt.iterdir()][:_MEASURED]:
        data = path.read_bytes()
        if _peak(target, data) > target.memory and _peak(target, data) > target.memory:
            kept = findings / f"memory-{path.name}"  # twice: the first may have filled a cache
            kept.write_bytes(data)
            found.append(kept)
        if time.monotonic() > end:
            break
    tracemalloc.stop()
    return found


def _peak(target: Target, data: bytes) -> int:
    tracemalloc.reset_peak()
    before, _ = tracemalloc.get_traced_memory()
    with suppress(Exception):  # what it raises, the fuzzer has judged already
        target.run(data)
    return tracemalloc.get_traced_memory()[1] - before


def _replay(target: Target, path: Path) -> int:
    data = path.read_bytes()
    print("accepted" if target.feed(data) else "refused")
    tracemalloc.start()
    peak = _peak(target, data)
    print(f"{peak} bytes of memory; the bound is {target.memory}")
    return int(peak > target.memory)


def _summary(output: str) -> str:
    last = [line for line in output.splitlines() if line.startswith("#") and " cov: " in line]
    return " ".join(last[-1].split()[:10]) if last else "no progress reported"


def _quoted(word: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word)


if __name__ == "__main__":
    sys.exit(main())
