"""The alert rules of docs/operate speak of metrics that there are, and every metric is explained."""

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[3]
RULES = yaml.safe_load((ROOT / "docs/operate/alerts.yaml").read_text())["groups"][0]["rules"]
_SUFFIXES = ("_total", "_count", "_sum", "_bucket")


def test_every_metric_of_a_rule_is_told_by_a_service() -> None:
    code = "\n".join(path.read_text() for name in ("shared", "services") for path in (ROOT / name).rglob("*.py"))
    told = set(re.findall(r'"(gpudev_\w+)"', code))

    for rule in RULES:
        for name in re.findall(r"\bgpudev_\w+", rule["expr"]):
            without = next((name.removesuffix(end) for end in _SUFFIXES if name.endswith(end)), name)
            assert name in told or without in told, (rule["alert"], name)


def test_every_rule_is_explained() -> None:
    page = (ROOT / "docs/operate/alerts.md").read_text()

    assert {rule["alert"] for rule in RULES} == set(re.findall(r"^\| `(\w+)`", page, re.MULTILINE))


def test_every_metric_is_explained_and_no_other() -> None:
    code = "\n".join(path.read_text() for name in ("shared", "services") for path in (ROOT / name).rglob("*.py"))
    made = set(re.findall(r'(?:Counter|Gauge|Histogram)\(\s*"(gpudev_\w+)"', code))
    page = (ROOT / "docs/operate/metrics.md").read_text()

    assert len(made) > 10
    assert set(re.findall(r"`(gpudev_\w+)`", page)) == made
