"""The Helm chart: its values, and what helm makes of them."""

import copy
import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).parents[2] / "deploy" / "helm" / "nli-stream-worker"
SCHEMA = json.loads((CHART / "values.schema.json").read_text())
DEFAULTS = yaml.safe_load((CHART / "values.yaml").read_text())
SMALL = yaml.safe_load((CHART / "ci" / "small-values.yaml").read_text())
FULL = yaml.safe_load((CHART / "ci" / "full-values.yaml").read_text())
RELEASE = "release"


class RefusedError(Exception):
    """helm took these values for none; what it said."""


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Values over values, as helm lays them."""
    whole = copy.deepcopy(dict(below))
    for key, value in above.items():
        is_map = isinstance(value, dict) and isinstance(whole.get(key), dict)
        whole[key] = merged(whole[key], value) if is_map else value
    return whole


def rendered(helm: str, given: Mapping[str, Any], chart: Path = CHART) -> dict[str, Any]:
    """What the cluster gets for these values, by kind; of several of a kind the last.

    Raises:
        RefusedError: the values are refused.
    """
    command = [helm, "template", RELEASE, str(chart), "-f", "-", "--kube-version", "1.31.0"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, input=json.dumps(given))
    if done.returncode != 0:
        raise RefusedError(done.stderr)
    return {document["kind"]: document for document in yaml.safe_load_all(done.stdout) if document}


def pod_of(made: Mapping[str, Any]) -> dict[str, Any]:
    """What a pod of the workers is made of."""
    pod: dict[str, Any] = made["StatefulSet"]["spec"]["template"]["spec"]
    return pod
