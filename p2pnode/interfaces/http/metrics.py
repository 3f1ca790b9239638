"""A node's picture as Prometheus reads it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_1_0_0, generate_latest
from prometheus_client.metrics_core import Metric

from p2pnode.interfaces.http.limits import Refusals

Body: TypeAlias = Mapping[str, Any]

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_1_0_0
_PREFIX: Final = "p2pnode_"
_PEER: Final = ("peer", "name")
_MODEL: Final = ("model",)

_HISTOGRAMS: Final = {
    "first_token": ("first_token_seconds", "From a question to the first token of its answer."),
    "step": ("token_seconds", "Between one token of an answer and the next."),
    "hop": ("hop_seconds", "A token's way from one peer to the next, the engines left out."),
}
_OWN: Final = {
    "uptime_s": ("uptime_seconds", "Since the node started."),
    "kv_used_bytes": ("kv_used_bytes", "Of KV caches, reserved by sessions."),
    "kept_bytes": ("kv_kept_bytes", "Of KV caches, kept of sessions that are over."),
    "kv_total_bytes": ("kv_total_bytes", "That this node offers for KV caches."),
}
_OF_PEER: Final = {
    "rtt_ms": ("peer_rtt_seconds", "Smoothed round trip.", 1e-3),
    "loss": ("peer_loss_ratio", "Of datagrams to it, lately.", 1.0),
    "goodput": ("peer_goodput_bytes_per_second", "Of large messages to it.", 1.0),
    "decode_us": ("peer_token_seconds", "That it says a token takes there.", 1e-6),
    "kv_free_bytes": ("peer_kv_free_bytes", "For KV caches.", 1.0),
    "last_heard_s": ("peer_last_heard_seconds", "Since anything came from it.", 1.0),
}


_OF_MODEL: Final = {
    "sessions": ("model_sessions", "Of others, that are served here.", 1.0),
    "answers": ("model_answers", "Under way for faces here.", 1.0),
    "decode_us": ("model_token_seconds", "That a token takes through the layers held.", 1e-6),
}


def metrics_text(picture: Body, timings: Body, refusals: Refusals) -> bytes:
    """Return the text of ``/metrics``.

    Args:
        picture: A snapshot.
        timings: Its node's.
        refusals: What the API itself counted.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Picture(picture, timings, refusals))
    return generate_latest(registry)


class _Picture:
    """Collects one picture."""

    def __init__(self, picture: Body, timings: Body, refusals: Refusals) -> None:
        self._picture = picture
        self._timings = timings
        self._refusals = refusals

    def collect(self) -> Iterator[Metric]:
        yield from _own(self._picture)
        yield from _models(self._picture.get("models") or ())
        yield from _counters(self._picture)
        yield from _peers(self._picture["peers"])
        yield from _histograms(self._timings)
        yield from _of_http(self._refusals)


def _own(picture: Body) -> Iterator[Metric]:
    for key, (name, what) in _OWN.items():
        yield GaugeMetricFamily(_PREFIX + name, what, value=picture[key])
    first, stop = picture["layers"]
    yield GaugeMetricFamily(f"{_PREFIX}layers_held", "Of the model.", value=stop - first)
    missing = sum(stop - first for first, stop in picture["missing_layers"])
    yield GaugeMetricFamily(f"{_PREFIX}layers_missing", "That nobody serves.", value=missing)
    answers = [one for one in picture["generations"] if one["state"] in _UNDER_WAY]
    yield GaugeMetricFamily(f"{_PREFIX}answers", "Under way for faces here.", value=len(answers))
    stages = len(picture["stages"])
    yield GaugeMetricFamily(f"{_PREFIX}stages", "Run for requesters.", value=stages)
    late = GaugeMetricFamily(
        f"{_PREFIX}loop_late_seconds", "Of the event loop's timer.", labels=("quantile",)
    )
    for quantile, milliseconds in zip(("0.5", "0.99"), picture["loop_late_ms"], strict=True):
        late.add_metric((quantile,), milliseconds / 1e3)
    yield late


def _models(models: Sequence[Body]) -> Iterator[Metric]:
    """Return what there is of each model, by its name."""
    held = GaugeMetricFamily(f"{_PREFIX}model_layers_held", "Here.", labels=_MODEL)
    missing = GaugeMetricFamily(
        f"{_PREFIX}model_layers_missing", "That nobody serves.", labels=_MODEL
    )
    for one in models:
        held.add_metric((one["name"],), one["layers"][1] - one["layers"][0])
        missing.add_metric((one["name"],), sum(stop - at for at, stop in one["missing_layers"]))
    yield held
    yield missing
    for key, (name, what, unit) in _OF_MODEL.items():
        gauge = GaugeMetricFamily(_PREFIX + name, what, labels=_MODEL)
        for one in models:
            gauge.add_metric((one["name"],), one[key] * unit)
        yield gauge


_UNDER_WAY: Final = ("opening", "running", "repairing")


def _counters(picture: Body) -> Iterator[Metric]:
    """Return every counter, and the traffic by its kind."""
    counted = CounterMetricFamily(
        f"{_PREFIX}events", "All that was dropped, refused, retried or repaired.", labels=("what",)
    )
    for what, count in sorted(picture["counters"].items()):
        counted.add_metric((what,), count)
    yield counted
    for unit in ("bytes", "frames"):
        traffic = CounterMetricFamily(
            f"{_PREFIX}traffic_{unit}", "By kind and direction.", labels=("kind", "direction")
        )
        for one in picture["traffic"]:
            for way in ("in", "out"):
                traffic.add_metric((one["kind"], way), one[f"{unit}_{way}"])
        yield traffic


def _peers(peers: Sequence[Body]) -> Iterator[Metric]:
    up = GaugeMetricFamily(f"{_PREFIX}peer_up", "1 while it is there.", labels=(*_PEER, "state"))
    for peer in peers:
        alive = peer["state"] not in ("dead", "left", "seen")
        up.add_metric((*_labels(peer), peer["state"]), float(alive))
    yield up
    for key, (name, what, unit) in _OF_PEER.items():
        gauge = GaugeMetricFamily(_PREFIX + name, what, labels=_PEER)
        for peer in peers:
            if peer.get(key) is not None:
                gauge.add_metric(_labels(peer), peer[key] * unit)
        yield gauge
    for way in ("in", "out"):
        counted = CounterMetricFamily(f"{_PREFIX}peer_bytes_{way}", "Of datagrams.", labels=_PEER)
        for peer in peers:
            counted.add_metric(_labels(peer), peer[f"bytes_{way}"])
        yield counted


def _labels(peer: Body) -> tuple[str, str]:
    return peer["node_id"][:16], peer["name"]


def _histograms(timings: Body) -> Iterator[Metric]:
    bounds = [*(f"{bound:g}" for bound in timings["bounds_s"]), "+Inf"]
    for key, (name, what) in _HISTOGRAMS.items():
        total, buckets = 0, []
        for bound, count in zip(bounds, timings[key]["counts"], strict=True):
            total += count
            buckets.append((bound, total))
        yield HistogramMetricFamily(
            _PREFIX + name, what, buckets=buckets, sum_value=timings[key]["sum_s"]
        )


def _of_http(refusals: Refusals) -> Iterator[Metric]:
    """Return what became of requests to the API, by its own count."""
    refused = CounterMetricFamily(
        f"{_PREFIX}http_refused", "Connections and requests, before any API.", labels=("why",)
    )
    for reason, count in refusals.as_mapping().items():
        refused.add_metric((str(reason),), count)
    yield refused
    answered = CounterMetricFamily(f"{_PREFIX}http_answers", "By status.", labels=("status",))
    for status, count in sorted(refusals.statuses.items()):
        answered.add_metric((f"{status}",), count)
    yield answered
