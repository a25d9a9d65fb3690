"""TLS in front of a server that has none, with a certificate authority nobody else trusts."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import trustme

from asyncstore.testing.fault_proxy import FaultProxy
from tests.servers.base import HOST

if TYPE_CHECKING:
    from pathlib import Path


class PrivateAuthority:
    """A certificate authority; `bundle` is its certificate, a PEM file for `AWS_CA_BUNDLE`."""

    def __init__(self, directory: Path) -> None:
        self._authority = trustme.CA()
        self._certificate = self._authority.issue_cert(HOST, "localhost")
        self.bundle = directory / "private-ca.pem"
        self._authority.cert_pem.write_to_path(self.bundle)

    def in_front_of(self, target: str) -> FaultProxy:
        """A proxy, not yet started, that speaks TLS and forwards to `target`, `host:port`."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._certificate.configure_cert(context)
        return FaultProxy(target, ssl_context=context)

    def certificate_file(self, path: Path) -> Path:
        """Key and certificate of a server on loopback, in one PEM file."""
        self._certificate.private_key_and_cert_chain_pem.write_to_path(path)
        return path
