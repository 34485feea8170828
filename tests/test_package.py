"""The package as a whole: it imports light, its manifest is valid, its configuration files agree."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

from npe2 import PluginManifest

ROOT = Path(__file__).resolve().parents[1]


def test_importing_the_package_loads_neither_torch_nor_qt():
    code = (
        "import sys, napari_kdseg, napari_kdseg.cli, napari_kdseg.jobs, napari_kdseg.errors;"
        "slow = ('torch', 'qtpy', 'PyQt6', 'napari', 'zarr', 'openslide', 'numpy', 'dask');"
        "heavy = [m for m in slow if m in sys.modules];"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_manifest_at_the_top_is_the_one_in_the_package():
    top, real = ROOT / "napari.yaml", ROOT / "src" / "napari_kdseg" / "napari.yaml"
    assert top.read_bytes() == real.read_bytes()


def test_manifest_is_valid_and_every_command_imports():
    manifest = PluginManifest.from_distribution("napari-kdseg")
    manifest.validate_imports()
    assert manifest.display_name == "KD Seg"
    names = {widget.display_name for widget in manifest.contributions.widgets}
    assert {"1 Slide", "2 Models", "3 Distil", "4 Compare", "Workspace"} <= names


def test_every_dependency_is_pinned_and_explained():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {dependency.split(">")[0].split("[")[0].lower() for dependency in project["dependencies"]}
    pinned = {
        line.split("==")[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text().split()
    }
    explained = (ROOT / "docs" / "dependencies.md").read_text().lower()
    assert names <= pinned, names - pinned
    assert all(name in explained for name in names), [name for name in names if name not in explained]


def test_no_qt_binding_in_the_base_dependencies():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    bindings = ("pyqt5", "pyqt6", "pyside")
    assert not [name for name in project["dependencies"] if name.lower().startswith(bindings)]


def test_every_method_is_documented():
    from napari_kdseg.distillation import METHODS

    documented = (ROOT / "docs" / "methods.md").read_text()
    for method in METHODS.values():
        needs, variants = ", ".join(method.needs) or "nothing", ", ".join(f"`:{v}`" for v in method.presets)
        cells = (f"`{method.name}`", method.sentence, method.scale, needs, variants, method.reference)
        assert f"| {' | '.join(cells)} |\n" in documented


def test_no_test_takes_nan_for_a_number_by_accident():
    """``np.testing.assert_allclose`` does unless it is told not to: each call says what it wants."""
    silent = []
    for path in sorted(ROOT.glob("tests/**/*.py")) + sorted(ROOT.glob("benchmarks/*.py")):
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        silent += [
            f"{path.relative_to(ROOT)}:{call.lineno}"
            for call in calls
            if ast.unparse(call.func).endswith("assert_allclose")
            and "equal_nan" not in {keyword.arg for keyword in call.keywords}
        ]
    assert not silent, f"say equal_nan=False (or True, where NaN is meant): {', '.join(silent)}"
