"""The stages of deploy/Dockerfile as root directories, made without a Docker engine; `.ci/image` tries the last.

Every stage gets a root directory of its own. In the place of what its base image has stand the programs of this
machine and the Python that runs this, read-only; all else is there only if the Dockerfile put it there. What the
Dockerfile says and this does not know is an error: nothing is passed over.
"""

import copy
import json
import os
import re
import shlex
import shutil
import string
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

SOURCE = Path(__file__).resolve().parent.parent
DOCKERFILE = SOURCE / "deploy" / "Dockerfile"
BUILDERS = ("PIP_", "SSL_", "http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
"""Of whoever builds: where packages come from. The image never has them."""

ENTER = r"""
set -e
root=$1 prefix=$2 mode=$3 volumes=$4 extra=$5
shift 5
into() { mkdir -p "$root$1" && mount -o "$2" "$1" "$root$1"; }
mount --bind "$root" "$root"
for folder in /usr /bin /sbin /lib /lib64 /etc/ssl; do
    if [ -d "$folder" ] && [ ! -L "$folder" ]; then into "$folder" bind,ro; fi
done
into /sys bind,ro
if [ "$prefix" != /usr ]; then into "$prefix" bind,ro; fi
mount -t tmpfs -o mode=0755 local "$root/usr/local"
mkdir "$root/usr/local/bin"
ln -s "$prefix/lib" "$root/usr/local/lib"
ln -s "$prefix/bin/python3" "$root/usr/local/bin/python"
printf '#!/bin/sh\nexec python -m pip "$@"\n' >"$root/usr/local/bin/pip"
chmod 0755 "$root/usr/local/bin/pip"
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=0755 dev "$root/dev"
for device in null zero random urandom; do
    touch "$root/dev/$device" && mount --bind "/dev/$device" "$root/dev/$device"
done
mount -t tmpfs -o mode=1777 tmp "$root/tmp"
for volume in $volumes; do mount --bind "$root$volume" "$root$volume"; done
if [ "$extra" ]; then mount -o bind,ro "$extra" "$root/etc/worker"; fi
if [ "$mode" = ro ]; then mount -o remount,bind,ro "$root"; fi
exec chroot "$root" "$@"
"""


@dataclass(slots=True)
class Image:
    """What a stage has come to."""

    root: Path
    environment: dict[str, str]
    folder: str = "/"
    user: str = "root"
    volumes: list[str] = field(default_factory=list)
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    health: list[str] = field(default_factory=list)


def instructions(text: str) -> list[tuple[str, str]]:
    """Word and rest of every instruction, with continued lines joined."""
    kept = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    lines = [line.strip() for line in kept.replace("\\\n", " ").splitlines() if line.strip()]
    return [(line.split()[0].upper(), line.split(maxsplit=1)[1]) for line in lines]


class Builder:
    """Stages of one Dockerfile, each built when it is first asked for."""

    def __init__(self, text: str, work: Path) -> None:
        self._work = work
        self._arguments: dict[str, str] = {}
        self._stages: dict[str, tuple[str, list[tuple[str, str]]]] = {}
        self._built: dict[str, Image] = {}
        name = ""
        for word, rest in instructions(text):
            if word == "ARG" and not name:
                self._arguments[rest.split("=")[0]] = rest.partition("=")[2]
            elif word == "FROM":
                base, name = re.fullmatch(r"(\S+) AS (\S+)", rest).groups()
                self._stages[name] = (string.Template(base).substitute(self._arguments), [])
            elif word.lower() in _STEPS:
                self._stages[name][1].append((word.lower(), rest))
            else:
                raise SystemExit(f"image: {DOCKERFILE.name} says {word}, which {Path(__file__).name} does not know")

    def image(self, name: str) -> Image:
        """A stage by its name, or an empty root for what is no stage."""
        if name not in self._built:
            base, steps = self._stages[name]
            made = copy.deepcopy(self.image(base)) if base in self._stages else self._bare(base)
            root = self._work / name
            if base in self._stages:
                subprocess.run(["cp", "-a", made.root, root], check=True)
            else:
                made.root.rename(root)
            made.root = root
            for word, rest in steps:
                print(f"image: {name}: {word.upper()} {rest}"[:150], flush=True)
                _STEPS[word](self, made, rest)
            self._built[name] = made
        return self._built[name]

    def _bare(self, base: str) -> Image:
        if not base.startswith("python:"):
            raise SystemExit(f"image: the base image {base} is none of Python's")
        root = self._work / "bare"
        for folder in ("dev", "proc", "tmp", "etc/ssl", "var", "usr", "root"):
            (root / folder).mkdir(parents=True)
        for link in ("bin", "sbin", "lib", "lib64"):
            if Path("/", link).is_symlink():
                (root / link).symlink_to(Path("/", link).readlink())
        (root / "etc" / "passwd").write_text("root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/usr/sbin/nologin\n")
        (root / "etc" / "group").write_text("root:x:0:\nnogroup:x:65534:\n")
        for file in ("resolv.conf", "hosts", "nsswitch.conf", "pip.conf"):
            if Path("/etc", file).is_file():
                shutil.copy(Path("/etc", file), root / "etc" / file)
        path = "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
        return Image(root, {"PATH": path, "HOME": "/root", "LANG": "C.UTF-8"})

    def run(self, image: Image, rest: str) -> None:
        """RUN: as whoever the image is by now."""
        theirs = {name: value for name, value in os.environ.items() if name.startswith(BUILDERS)}
        command = inside(image, ["/bin/sh", "-c", rest], environment=theirs)
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{done.stdout[-5000:]}\nimage: RUN {rest} ended with {done.returncode}")

    def copy(self, image: Image, rest: str) -> None:
        """COPY: out of the context, without what is ignored, or out of a stage."""
        *names, target = [word for word in rest.split() if not word.startswith("--from=")]
        stage = re.match(r"--from=(\S+) ", rest)
        source = self.image(stage[1]).root if stage else SOURCE
        into = image.root / str(Path(image.folder, target)).lstrip("/")
        for name in names:
            found = source / name.lstrip("/")
            place = into / found.name if target.endswith("/") else into
            place.parent.mkdir(parents=True, exist_ok=True)
            if stage:
                subprocess.run(["cp", "-a", found, place], check=True)
            elif ignored(found.relative_to(SOURCE)):
                raise SystemExit(f"image: {name} is copied, and Dockerfile.dockerignore leaves it out")
            elif found.is_dir():
                shutil.copytree(found, place, ignore=_left_out)
            else:
                shutil.copy(found, place)

    def env(self, image: Image, rest: str) -> None:
        """ENV."""
        for name, value in (word.split("=", 1) for word in shlex.split(rest)):
            image.environment[name] = string.Template(value).substitute(image.environment)

    def workdir(self, image: Image, rest: str) -> None:
        """WORKDIR: made where it is not there."""
        image.folder = rest
        (image.root / rest.lstrip("/")).mkdir(parents=True, exist_ok=True)

    def note(self, image: Image, key: str, rest: str) -> None:
        """What is only remembered for whoever runs the image."""
        setattr(image, key, json.loads(rest) if rest.startswith("[") else rest)


_STEPS = {
    "run": Builder.run,
    "copy": Builder.copy,
    "env": Builder.env,
    "workdir": Builder.workdir,
    "user": lambda builder, image, rest: builder.note(image, "user", rest),
    "volume": lambda builder, image, rest: builder.note(image, "volumes", rest),
    "entrypoint": lambda builder, image, rest: builder.note(image, "entrypoint", rest),
    "cmd": lambda builder, image, rest: builder.note(image, "command", rest),
    "healthcheck": lambda builder, image, rest: builder.note(image, "health", rest[rest.index("CMD ") + 4 :]),
    "expose": lambda *_: None,
}


def ignored(path: Path) -> bool:
    """Whether Dockerfile.dockerignore leaves it out, or a folder it is in; the last line that fits counts."""
    left_out = False
    for line in (DOCKERFILE.parent / "Dockerfile.dockerignore").read_text().split():
        pattern = re.escape(line.removeprefix("!")).replace(r"\*\*/", "(.*/)?").replace(r"\*", "[^/]*")
        if any(re.fullmatch(pattern, str(each)) for each in (path, *path.parents)):
            left_out = not line.startswith("!")
    return left_out


def _left_out(folder: str, names: list[str]) -> set[str]:
    return {name for name in names if ignored((Path(folder) / name).relative_to(SOURCE))}


def inside(
    image: Image,
    command: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    mode: str = "rw",
    mounted: Path | None = None,
) -> list[str]:
    """The command that runs one in an image, as its user: without rights where that is not root."""
    entered = [
        "unshare",
        "--mount",
        "--propagation=private",
        "--pid",
        "--fork",
        "--kill-child",
        "bash",
        "-c",
        ENTER,
        "-",
    ]
    entered += [str(image.root), sys.base_prefix, mode, " ".join(image.volumes), str(mounted or "")]
    told = {**image.environment, **(environment or {})}
    entered += ["env", "-i", "-C", image.folder, *(f"{name}={value}" for name, value in told.items())]
    if image.user != "root":
        users = (line.split(":") for line in (image.root / "etc" / "passwd").read_text().splitlines())
        user, group = next((line[2], line[3]) for line in users if line[0] == image.user)
        entered += ["setpriv", "--reuid", user, "--regid", group, "--clear-groups"]
        entered += ["--no-new-privs", "--inh-caps=-all", "--bounding-set=-all"]
    return [*entered, *command]
