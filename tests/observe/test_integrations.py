"""The dashboard and the alerts name metrics and labels that there are."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("prometheus_client")
yaml: Any = pytest.importorskip("yaml")

from memover.observe.prometheus import Collector  # noqa: E402
from memover.runtime.counters import Counters  # noqa: E402

PROMTOOL = shutil.which("promtool")
INTEGRATIONS = Path(__file__).parents[2] / "integrations"
LABELS = {"prefix", "namespace", "version", "source", "le"}


class Function:
    namespace, version = "f", 1
    counters = Counters()


class Cached:
    prefix = "shop"

    def functions(self) -> list[Function]:
        return [Function()]


def samples() -> set[str]:
    return {sample.name for family in Collector(Cached()).collect() for sample in family.samples}


def dashboard() -> dict[str, Any]:
    board: dict[str, Any] = json.loads((INTEGRATIONS / "grafana-memover.json").read_text())
    return board


def rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load((INTEGRATIONS / "prometheus-alerts.yml").read_text())["groups"]
    listed: list[dict[str, Any]] = group["rules"]
    return listed


def expressions() -> list[str]:
    panels = [target["expr"] for panel in dashboard()["panels"] for target in panel["targets"]]
    variables = [each["query"]["query"] for each in dashboard()["templating"]["list"] if each["type"] == "query"]
    return [*panels, *variables, *(rule["expr"] for rule in rules())]


@pytest.mark.parametrize("expression", expressions())
def test_every_metric_and_label_exists(expression: str) -> None:
    """Of panels, variables and rules; and brackets are closed."""
    names = set(re.findall(r"\bmemover_\w+", expression))
    assert names and names <= samples()
    for labels in re.findall(r"by \(([^)]*)\)", expression):
        assert set(labels.replace(" ", "").split(",")) <= LABELS
    for opening, closing in ("()", "[]", "{}"):
        assert expression.count(opening) == expression.count(closing)


def test_panels_do_not_overlap() -> None:
    """Each has its place, an own number, and says what it shows."""
    panels = dashboard()["panels"]
    taken = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not taken & cells
        assert place["x"] + place["w"] <= 24
        taken |= cells
        assert panel["description"] and panel["title"]
    assert len({panel["id"] for panel in panels}) == len(panels)


def test_alerts_say_what_to_do() -> None:
    """With the labels that their expression keeps."""
    for rule in rules():
        kept = set(re.findall(r"\w+", " ".join(re.findall(r"by \(([^)]*)\)", rule["expr"]))))
        used = set(re.findall(r"\$labels\.(\w+)", json.dumps(rule["annotations"])))
        assert used <= kept, rule["alert"]
        assert rule["annotations"]["description"].endswith((".", "`."))


@pytest.mark.skipif(PROMTOOL is None, reason="no promtool: it is in Debian's package prometheus")
def test_alerts_fire_when_they_should() -> None:
    """Prometheus' own rule tests pass, and in them each rule fires once at least."""
    tests = yaml.safe_load((INTEGRATIONS / "prometheus-alerts-test.yml").read_text())["tests"]
    checks = [check for test in tests for check in test["alert_rule_test"]]
    assert {check["alertname"] for check in checks if check["exp_alerts"]} == {rule["alert"] for rule in rules()}
    assert PROMTOOL is not None
    done = subprocess.run(
        [PROMTOOL, "test", "rules", "prometheus-alerts-test.yml"],
        check=False,
        cwd=INTEGRATIONS,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
