"""A certificate authority for one test run, and the certificate of 127.0.0.1 and localhost."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import trustme

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Certificates", "issue"]


class Certificates(NamedTuple):
    """Paths of PEM files."""

    authority: Path
    certificate: Path
    key: Path


def issue(directory: Path) -> Certificates:
    """Write a new authority's certificate, and one server's certificate and key, into `directory`."""
    paths = Certificates(directory / "ca.pem", directory / "server.pem", directory / "server.key")
    authority = trustme.CA()
    server = authority.issue_cert("127.0.0.1", "localhost")
    authority.cert_pem.write_to_path(str(paths.authority))
    server.private_key_pem.write_to_path(str(paths.key))
    for n, pem in enumerate(server.cert_chain_pems):
        pem.write_to_path(str(paths.certificate), append=n > 0)
    return paths
