"""Figures of simulations on the pages are those of the committed baselines."""

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "guides" / "simulate.md").read_text("utf-8")
FIGURES = (ROOT / "docs" / "figures.md").read_text("utf-8")


def rows(scenario: str) -> list[dict[str, Any]]:
    path = ROOT / "simulations" / "baselines" / f"{scenario}.json"
    found: list[dict[str, Any]] = json.loads(path.read_text("utf-8"))["rows"]
    return found


def test_the_guide_shows_the_sweep_of_losses() -> None:
    for row in rows("loss-sweep"):
        start = f"{row['weather']} +{'on' if row['fec'] else 'off'} +"
        [shown] = re.findall(f"^{start}(.*)$", GUIDE, re.MULTILINE)
        figures = [float(cell) for cell in shown.split()[:-1]]
        assert figures == [
            row["answers"],
            round(row["tokens_per_s"], 1),
            round(row["latency_p50_ms"], 1),
            round(row["latency_p99_ms"], 1),
            round(row["latency_max_ms"]),
            row["chains_broken"],
            row["retransmits"],
            row["parity_sent"],
            row["recovered"],
            row["datagrams_per_token"],
            round(row["bytes_per_token"]),
        ]
        assert shown.split()[-1] == ("yes" if row["identical"] == row["answers"] else "NO")


def test_the_guide_shows_deaths() -> None:
    words = {"middle dies": "the middle stage", "last dies": "the last stage"}
    weathers = {"no loss": "no loss", "5 %": "5 % loss each way"}
    found = rows("peer-death")
    for row in found:
        if row["trouble"] not in words:
            continue
        noticed, resumed = (
            f"{row[f'{what}_p50_ms']:.0f} / {row[f'{what}_max_ms']:.0f} ms"
            for what in ("noticed", "resumed")
        )
        who = words[row["trouble"]]
        assert f"| {weathers[row['weather']]} | {who} | {noticed} | {resumed} |" in GUIDE
    assert f"All {sum(row['identical'] for row in found)} answers had" in GUIDE


def test_the_pages_show_hostile_members() -> None:
    found = rows("hostile-members")

    def total(key: str) -> int:
        return sum(row[key] for row in found)

    answers, right = total("answers"), total("right")
    ended = f"{answers}, {right}, {total('wrong')}, {total('failed')}, {total('unfinished')}"
    assert f"| answers, right, wrong, failed, not ended | {ended} |" in FIGURES
    longest = max(row["longest_s"] for row in found)
    assert f"| longest answer | {longest:.1f} virtual s |" in FIGURES
    assert f"| {total('keys'):,}; {total('believed')} |" in FIGURES
    named = f"{total('named_hostile'):,}, {total('named_honest')}"
    assert f"| {total('broken'):,}; {named} |" in FIGURES
    assert f"Of the {len(found)} seeds' {answers} answers {right} were right" in GUIDE
    assert f"the longest took {longest:.0f} virtual seconds" in GUIDE
