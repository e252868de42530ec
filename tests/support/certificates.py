"""Certificates for tests: an authority, and what it signs for a broker or a client, as PEM files."""

import datetime as dt
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_DAY = dt.timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Authority:
    """Who signs; `ca` is its certificate on disk."""

    folder: Path
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @classmethod
    def create(cls, folder: Path) -> "Authority":
        """A new authority whose files lie in `folder`."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name("authority")
        built = _builder(name, name, key.public_key()).add_extension(
            x509.BasicConstraints(ca=True, path_length=0), critical=True
        )
        made = cls(folder, key, built.sign(key, hashes.SHA256()))
        made.ca.write_bytes(made.certificate.public_bytes(serialization.Encoding.PEM))
        return made

    @property
    def ca(self) -> Path:
        """The file to trust."""
        return self.folder / "ca.pem"

    def issue(self, name: str, password: str | None = None) -> tuple[Path, Path, Path]:
        """Certificate, key, and both in one file, for `name` at 127.0.0.1; `password` locks the key."""
        key = ec.generate_private_key(ec.SECP256R1())
        addresses = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        built = _builder(_name(name), self.certificate.subject, key.public_key()).add_extension(
            addresses, critical=False
        )
        certificate = built.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        locked = (
            serialization.NoEncryption()
            if password is None
            else serialization.BestAvailableEncryption(password.encode())
        )
        private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked)
        files = tuple(self.folder / f"{name}{suffix}.pem" for suffix in ("", ".key", ".both"))
        for file, content in zip(files, (certificate, private, private + certificate), strict=True):
            file.write_bytes(content)
        return files[0], files[1], files[2]


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _DAY)
        .not_valid_after(now + _DAY)
    )
