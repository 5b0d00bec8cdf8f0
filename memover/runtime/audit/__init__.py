"""Audits: a share of the hits is compared with the source. `auditor` says how; `subject` is the function that is compared.

`differences` says where two results differ, `slots` how many audits run at a time.
"""
