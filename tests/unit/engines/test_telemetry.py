import subprocess
import sys

_SCRIPT = """
import os, sys
from worker.engines.load import EngineChoice, load_engine
from worker.engines import ov_machine
ov_machine.library_version()
assert os.environ["HF_HUB_DISABLE_TELEMETRY"] == "1"
from openvino.tools.ovc import telemetry_utils
print(telemetry_utils.tm.__name__)
print(any(name.startswith("openvino_telemetry.") for name in sys.modules))
"""


def test_loading_openvino_loads_none_of_its_telemetry() -> None:
    done = subprocess.run([sys.executable, "-c", _SCRIPT], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["openvino.tools.ovc.telemetry_stub", "False"]


def test_choosing_an_engine_imports_no_model_library_before_it_is_needed() -> None:
    heavy = "{'torch', 'transformers', 'openvino', 'nncf', 'huggingface_hub'}"
    script = f"import sys, worker.engines.load; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
