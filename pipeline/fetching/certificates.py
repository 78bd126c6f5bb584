"""Whom to trust with encrypted connections."""

import os
import ssl
from functools import cache
from pathlib import Path

import certifi

from pipeline.errors import ConfigError

_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
)


def certificate_bundle() -> str:
    """Return the file of trusted certificates: of SSL_CERT_FILE, else the system's, else certifi's.

    Raises:
        ConfigError: if SSL_CERT_FILE names no such file.
    """
    given = os.environ.get("SSL_CERT_FILE")
    if given:
        _check(given)
        return given
    candidates = (ssl.get_default_verify_paths().cafile, *_BUNDLES)
    return next((path for path in candidates if path and Path(path).is_file()), certifi.where())


@cache
def _check(path: str) -> None:
    try:
        ssl.create_default_context(cafile=path)
    except OSError as error:
        raise ConfigError(
            f"SSL_CERT_FILE is {path}, expected a file of certificates in PEM"
        ) from error
