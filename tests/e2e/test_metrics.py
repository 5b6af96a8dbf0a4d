"""What alerts and dashboard ask for is told by the services that really run, with the labels that are asked for."""

import asyncio
import urllib.request

from prometheus_client.parser import text_string_to_metric_families

from tests.support.prometheus import dashboard_queries, grouped_by, rules, selectors
from tests.support.stack import SERVICES, LocalStack, until, users

FROM_PROMETHEUS = {"job", "instance"}
LATER = {
    "gpudev_missing": {"kind"},  # with the first sweep, which a stack at rest makes after minutes
    "gpudev_orphans": {"kind"},
    "gpudev_passes_failed_total": {"worker", "error"},  # with the first that fails
}
"""Metrics that a stack that is well may not tell yet, with their labels; tests/e2e/test_alerts.py has them told."""


def told_by(stack: LocalStack) -> dict[str, set[str]]:
    """Every sample's name and labels, of all services."""
    found: dict[str, set[str]] = {}
    for name, part in stack.parts().items():
        if name.rpartition("-")[0] not in SERVICES:
            continue
        with urllib.request.urlopen(f"http://127.0.0.1:{part.metrics_port}/metrics", timeout=10) as answer:
            for family in text_string_to_metric_families(answer.read().decode()):
                for sample in family.samples:
                    found.setdefault(sample.name, set()).update(sample.labels)
    return found


async def test_every_metric_of_alerts_and_dashboard_is_told_with_its_labels(stack: LocalStack) -> None:
    queries = {name: rule["expr"] for name, rule in rules().items()} | dashboard_queries()
    assert selectors(queries["GpudevSlow"]) == {"gpudev_http_request_seconds_bucket": {"route"}}
    assert grouped_by(queries["GpudevSlow"]) == {"job", "route", "le"}
    asked_for = {metric for query in queries.values() for metric in selectors(query)}
    async with users(stack, "metrics") as (user,):
        job_id = await user.submit(gpu_count=1, command="exit 0")
        await user.wait(job_id, "completed")

        async def measured() -> bool:
            told = await asyncio.to_thread(told_by, stack)
            return asked_for - LATER.keys() <= told.keys()

        await until(measured, f"the first measures of {asked_for}")
    told = await asyncio.to_thread(told_by, stack)
    for name, labels in LATER.items():
        told.setdefault(name, labels)
        assert told[name] == labels
    for name, query in queries.items():
        chosen = selectors(query)
        for metric, labels in chosen.items():
            assert metric in told, (name, metric)
            assert labels <= told[metric] | FROM_PROMETHEUS, (name, metric)
        if chosen:
            every = set().union(*(told[metric] for metric in chosen)) | FROM_PROMETHEUS
            assert grouped_by(query) <= every, name
