"""Audits: a share of the hits is compared with the source. `auditor` says how; `subject` is the function that is audited."""
