"""Certificates for tests: what an authority issued, as the PEM files that clients other than Java's take."""

from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs12

from worker.kafka.embedded_certificates import Authority


def pem_files(authority: Authority, name: str, password: str | None = None) -> tuple[Path, Path]:
    """Certificate and key of `name`; `password` locks the key."""
    opened = pkcs12.load_pkcs12(authority.issue(name).read_bytes(), authority.password.encode())
    assert opened.key is not None
    assert opened.cert is not None
    locked = (
        serialization.NoEncryption() if password is None else serialization.BestAvailableEncryption(password.encode())
    )
    certificate, key = authority.folder / f"{name}.pem", authority.folder / f"{name}.key.pem"
    certificate.write_bytes(opened.cert.certificate.public_bytes(serialization.Encoding.PEM))
    key.write_bytes(opened.key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked))
    return certificate, key
