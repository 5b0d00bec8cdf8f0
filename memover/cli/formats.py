"""Findings as people and machines want them: a terminal, GitHub, GitLab, JSON, SARIF, Markdown."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from rich.text import Text

from memover import __version__
from memover.cli.text import count_of
from memover.schema.findings import RULES, ways_out

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.console import Console

    from memover.schema.findings import Finding

__all__ = ["FORMATS", "as_text", "on_terminal"]


def summary(findings: Sequence[Finding]) -> str:
    """One line on the whole."""
    errors = sum(each.level == "error" for each in findings)
    warnings = len(findings) - errors
    parts = [count_of(count, word) for count, word in ((errors, "error"), (warnings, "warning")) if count]
    return ", ".join(parts) or "no findings"


def place(finding: Finding) -> str:
    """`file:line`, as far as it is known."""
    return f"{finding.path}:{finding.line}" if finding.path and finding.line else finding.path


def on_terminal(findings: Sequence[Finding], console: Console) -> None:
    """Each finding with what changed and what mends it, in colour where there is any."""
    for each in findings:
        colour = "red" if each.level == "error" else "yellow"
        head = Text()
        if place(each):
            head.append(place(each), style="bold").append(": ")
        head.append(each.code, style=f"bold {colour}").append(" ")
        if each.code != "MV008":
            head.append(each.namespace, style="cyan").append(": ")
        head.append(each.message)
        lines = [head]
        for detail in each.details:
            lines.append(Text("    ").append(detail, style="magenta"))
        for word, fix in ways_out(each):
            lines.append(Text(f"{word:>5}: ", style="dim").append(fix, style="green"))
        for line in lines:
            console.print(line, soft_wrap=True, highlight=False)
    console.print(
        summary(findings), style="red" if any(each.level == "error" for each in findings) else "green", highlight=False
    )


def _plain(finding: Finding) -> str:
    head = finding.message if finding.code == "MV008" else f"{finding.namespace}: {finding.message}"
    fixes = " ".join(f"{word}: {fix}" for word, fix in ways_out(finding))
    return "\n".join([head, *finding.details, *([fixes] if fixes else [])])


def as_text(findings: Sequence[Finding]) -> str:
    """What `on_terminal` shows, without colour."""
    return "\n".join([f"{place(each)}: {each.code} {_plain(each)}" for each in findings] + [summary(findings)])


def github(findings: Sequence[Finding]) -> str:
    """Workflow commands, which GitHub shows beside the lines of a pull request."""

    def value(text: str) -> str:
        return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")

    def option(text: str) -> str:
        return value(text).replace(":", "%3A").replace(",", "%2C")

    lines = []
    for each in findings:
        options = [f"file={option(each.path)}"] if each.path else []
        options += [f"line={each.line}"] if each.line else []
        options.append(f"title={option(f'{each.code} {each.name}')}")
        lines.append(f"::{'error' if each.level == 'error' else 'warning'} {','.join(options)}::{value(_plain(each))}")
    return "\n".join([*lines, summary(findings)])


def gitlab(findings: Sequence[Finding]) -> str:
    """A GitLab Code Quality report."""
    report = [
        {
            "type": "issue",
            "check_name": each.code,
            "description": f"{each.code} {_plain(each)}",
            "categories": ["Compatibility"],
            "severity": "major" if each.level == "error" else "minor",
            "fingerprint": hashlib.sha256(f"{each.code} {each.namespace} {each.message}".encode()).hexdigest()[:40],
            "location": {"path": each.path or "pyproject.toml", "lines": {"begin": each.line or 1}},
        }
        for each in findings
    ]
    return json.dumps(report, indent=2)


def as_json(findings: Sequence[Finding]) -> str:
    """All that is known of each finding."""
    names = ("code", "name", "level", "namespace", "message", "details", "fixes", "path", "line")
    listed = [{name: getattr(each, name) for name in names} for each in findings]
    return json.dumps({"findings": listed, "failed": any(each.level == "error" for each in findings)}, indent=2)


def sarif(findings: Sequence[Finding]) -> str:
    """SARIF 2.1.0 (OASIS), for code scanning."""

    def result(each: Finding) -> dict[str, Any]:
        location: dict[str, Any] = {"artifactLocation": {"uri": each.path or "pyproject.toml"}}
        if each.line:
            location["region"] = {"startLine": each.line}
        return {
            "ruleId": each.code,
            "ruleIndex": list(RULES).index(each.code),
            "level": "error" if each.level == "error" else "warning",
            "message": {"text": _plain(each)},
            "locations": [{"physicalLocation": location}],
            "partialFingerprints": {"memover/v1": f"{each.code} {each.namespace}"},
        }

    rules = [{"id": code, "name": rule.name, "shortDescription": {"text": rule.about}} for code, rule in RULES.items()]
    run = {
        "tool": {"driver": {"name": "memover", "version": __version__, "rules": rules}},
        "results": [result(each) for each in findings],
    }
    whole = {"$schema": "https://json.schemastore.org/sarif-2.1.0.json", "version": "2.1.0", "runs": [run]}
    return json.dumps(whole, indent=2)


def markdown(findings: Sequence[Finding]) -> str:
    """A comment for a pull request."""
    if not findings:
        return "**memover check**: no findings"
    lines = [f"**memover check**: {summary(findings)}", ""]
    for each in findings:
        where = f" `{place(each)}`" if place(each) else ""
        lines.append(f"- **{each.code}** {each.name},{where} `{each.namespace}`: {each.message}")
        lines += [f"  - `{detail}`" for detail in each.details]
        lines += [f"  - {word}: `{fix}`" for word, fix in ways_out(each)]
    return "\n".join(lines)


FORMATS: dict[str, Callable[[Sequence[Finding]], str]] = {
    "github": github,
    "gitlab": gitlab,
    "json": as_json,
    "sarif": sarif,
    "markdown": markdown,
}
"""Every format but the terminal's own."""
