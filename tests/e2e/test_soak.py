"""Some seconds of the soak; ``p2pnode bench soak`` runs for minutes."""

import json
import signal
import subprocess
import sys
import time

import psutil
import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

SOAK = [sys.executable, "-m", "p2pnode", "bench", "soak"]


def test_kills_and_joins_cost_no_token_and_leave_nothing_behind() -> None:
    done = subprocess.run(
        [*SOAK, "--minutes", "0.2", "--json"], capture_output=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    facts = json.loads(done.stdout)
    assert facts["answers"] > 0
    assert facts["kills"] + facts["departures"] > 0
    assert facts["broken"] == facts["failures"] == facts["processes_left"] == []


def test_an_interrupted_soak_leaves_nobody_behind() -> None:
    process = subprocess.Popen(
        [*SOAK, "--minutes", "5", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    began = time.monotonic()
    children: list[psutil.Process] = []
    while len(children) < 7 and time.monotonic() - began < 60:
        time.sleep(0.2)  # until the requester is up and the stages have been started
        children = psutil.Process(process.pid).children()
    assert len(children) == 7
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    assert b"Traceback" not in errors
    _, left = psutil.wait_procs(children, timeout=10)
    assert not left
