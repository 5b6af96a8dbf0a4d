"""The alert rules speak of metrics that there are, say what to do, and fire when they should, by promtool's account."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]
FILE = ROOT / "deploy/chart/gpudev/files/alerts.yaml"
PAGE = ROOT / "docs/operate/alerts.md"
RULES = {rule["alert"]: rule for rule in yaml.safe_load(FILE.read_text())["groups"][0]["rules"]}
CASES = yaml.safe_load((ROOT / "tests/data/alert_cases.yaml").read_text())
MINUTE = 30
_SUFFIXES = ("_total", "_count", "_sum", "_bucket")
# on a machine without Debian's packages it is left out; CI has them, and must not
needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None and "CI" not in os.environ, reason="promtool is not installed"
)


def metrics_in_code() -> set[str]:
    code = "\n".join(path.read_text() for name in ("shared", "services") for path in (ROOT / name).rglob("*.py"))
    return set(re.findall(r'(?:Counter|Gauge|Histogram)\(\s*"(gpudev_\w+)"', code))


def test_every_metric_of_a_rule_is_told_by_a_service() -> None:
    told = metrics_in_code()
    for name in re.findall(r"\bgpudev_\w+", FILE.read_text()):
        without = next((name.removesuffix(end) for end in _SUFFIXES if name.endswith(end)), name)
        assert name in told or without in told, name


def test_every_rule_has_its_section_and_no_other_has() -> None:
    sections = re.findall(r"^## (\w+)$", PAGE.read_text(), re.MULTILINE)
    assert sections == list(RULES)
    for name, rule in RULES.items():
        # an anchor is the heading in lower case
        assert rule["annotations"]["runbook_url"] == f"docs/operate/alerts.md#{name.lower()}"


def test_every_section_says_where_to_look_what_to_do_and_how_urgent_it_is() -> None:
    _, *parts = re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)
    for part in parts:
        name = part.partition("\n")[0]
        assert "\n- Look: " in part, name
        assert "\n- Do: " in part, name
        assert ("\nCritical." in part) == (RULES[name]["labels"]["severity"] == "critical"), name


def test_what_the_runbooks_name_is_there() -> None:
    page = PAGE.read_text()
    code = "\n".join(path.read_text() for name in ("shared", "services") for path in (ROOT / name).rglob("*.py"))
    for event in re.findall(r"`(?!gpudev_)([a-z]+(?:_[a-z]+)+)`", page):
        assert event in code, event
    for anchor in re.findall(r"\]\(#(\w+)\)", page):
        assert anchor in {name.lower() for name in RULES}
    for path in re.findall(r"\]\((\w+\.md)\)", page):
        assert (PAGE.parent / path).is_file()


def test_every_metric_is_explained_and_no_other() -> None:
    page = (ROOT / "docs/operate/metrics.md").read_text()
    made = metrics_in_code()
    assert len(made) > 10
    assert set(re.findall(r"`(gpudev_\w+)`", page)) == made


def test_the_routes_that_have_to_be_quick_are_there_and_cannot_be_held() -> None:
    (routes,) = re.findall(r'route=~"([^"]+)"', RULES["GpudevSlow"]["expr"])
    paths = json.loads((ROOT / "deploy/api/openapi.json").read_text())["paths"]
    for alternative in routes.split("|"):
        assert any(re.fullmatch(alternative, path) for path in paths), alternative
    held = {path for path, operations in paths.items() if '"Prefer"' in json.dumps(operations)}
    assert "/v1/jobs/submit" in held
    lasting = {path for path in paths if path.endswith(("/events", "/logs", "/ssh"))}
    assert not [path for path in held | lasting if re.fullmatch(routes, path)]


def test_every_rule_has_cases() -> None:
    assert CASES.keys() == RULES.keys()


@needs_promtool
def test_the_rules_fire_when_they_should_and_only_then(tmp_path: Path) -> None:
    tests = [case for name, given in CASES.items() for case in (_case(name, given, "bad"), _case(name, given, "good"))]
    file = tmp_path / "tests.yaml"
    file.write_text(yaml.safe_dump({"rule_files": [str(FILE)], "evaluation_interval": "1m", "tests": tests}))
    done = subprocess.run(["promtool", "test", "rules", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr + done.stdout


def _case(name: str, given: dict[str, Any], kind: str) -> dict[str, Any]:
    labels = [{"alertname": name, "alertstate": "firing", **RULES[name]["labels"], **one} for one in given["fires"]]
    samples = [{"labels": _series("ALERTS", one), "value": 1} for one in labels] if kind == "bad" else []
    expression = f'ALERTS{{alertname="{name}", alertstate="firing"}}'
    return {
        "name": f"{name} {kind}",
        "interval": "1m",
        "input_series": [{"series": series, "values": values} for series, values in given[kind].items()],
        "promql_expr_test": [{"expr": expression, "eval_time": f"{MINUTE}m", "exp_samples": samples}],
    }


def _series(name: str, labels: dict[str, str]) -> str:
    return name + "{" + ", ".join(f'{key}="{value}"' for key, value in labels.items()) + "}"
