"""The import arrows of the design, held by reading the import statements.

pipeline → store; kernel → theory. Beside that, these two import the standard library, numerical
packages and their own package; the store imports nothing of the pipeline and no Dask.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DASK = ("dask", "distributed")
FILES_AND_TASKS = (*DASK, "zarr", "xarray", "store", "workflows")

# A package, what it must not import, and the part of that which it may import all the same.
# The entry that fits a module best decides.
ARROWS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "pipeline": ((), ()),
    "pipeline.kernel": ((*FILES_AND_TASKS, "pipeline"), ("pipeline.kernel", "pipeline.theory")),
    "pipeline.theory": ((*FILES_AND_TASKS, "pipeline"), ("pipeline.theory",)),
    "store": ((*DASK, "pipeline", "workflows"), ()),
    "workflows": ((*FILES_AND_TASKS, "pipeline"), ()),
}


def is_within(name: str, packages: tuple[str, ...]) -> bool:
    return any(name == package or name.startswith(package + ".") for package in packages)


def list_imports(source: str, module: str, *, is_package: bool = False) -> Iterator[str]:
    """Absolute dotted names that the source of `module` imports, anywhere in it."""
    above = module.split(".") if is_package else module.split(".")[:-1]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = above[: len(above) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            # `from pipeline import sweep` imports pipeline.sweep
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def find_breaches(source: str, module: str, *, is_package: bool = False) -> list[str]:
    """Imports in the source of `module` that go against an arrow."""
    owner = max((name for name in ARROWS if is_within(module, (name,))), key=len)
    forbidden, allowed = ARROWS[owner]
    return [
        f"{module} imports {name}"
        for name in list_imports(source, module, is_package=is_package)
        if is_within(name, forbidden) and not is_within(name, allowed)
    ]


def list_modules() -> Iterator[tuple[Path, str, bool]]:
    for top in ("pipeline", "store", "workflows"):
        for path in sorted((ROOT / top).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            is_package = parts[-1] == "__init__"
            yield path, ".".join(parts[:-1] if is_package else parts), is_package


def test_imports_follow_the_arrows() -> None:
    modules = list(list_modules())
    assert {"pipeline.campaign", "pipeline.kernel", "store"} <= {name for _, name, _ in modules}
    breaches = [
        breach
        for path, module, is_package in modules
        for breach in find_breaches(path.read_text("utf-8"), module, is_package=is_package)
    ]
    assert breaches == []


@pytest.mark.parametrize(
    ("module", "source", "breach"),
    [
        ("pipeline.kernel.flow", "import dask.array", "dask.array"),
        ("pipeline.kernel.flow", "from distributed import Client", "distributed.Client"),
        ("pipeline.kernel.flow", "def f():\n    import zarr", "zarr"),
        ("pipeline.kernel.flow", "import numpy as np, xarray as xr", "xarray"),
        ("pipeline.kernel.flow", "from store.keys import Block", "store.keys.Block"),
        ("pipeline.kernel.flow", "from pipeline import campaign", "pipeline.campaign"),
        ("pipeline.kernel.flow", "from ..campaign import Campaign", "pipeline.campaign.Campaign"),
        ("pipeline.kernel.flow", "from .. import sweep", "pipeline.sweep"),
        ("pipeline.theory.bbp", "from pipeline.kernel import flow", "pipeline.kernel.flow"),
        ("store.keys", "import pipeline", "pipeline"),
        ("store.keys", "from pipeline.campaign import Campaign", "pipeline.campaign.Campaign"),
        (
            "store.ledger",
            "try:\n    import distributed\nexcept ImportError:\n    pass",
            "distributed",
        ),
    ],
)
def test_a_breach_is_found(module: str, source: str, breach: str) -> None:
    assert find_breaches(source, module) == [f"{module} imports {breach}"]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("pipeline.sweep", "import dask, store.ledger\nfrom pipeline.kernel import block"),
        ("pipeline.kernel.flow", "import numpy\nfrom pipeline.kernel.chebyshev import step"),
        ("pipeline.kernel.flow", "from . import chebyshev\nfrom .chebyshev import step"),
        ("pipeline.kernel.flow", "import stores, dasks, pipelines"),
        ("pipeline.kernel.flow", "from pipeline.theory.laws import LabelLaw"),
        ("store.ledger", "import zarr, xarray\nfrom store import keys"),
    ],
)
def test_what_follows_the_arrows_passes(module: str, source: str) -> None:
    assert find_breaches(source, module) == []


def test_a_relative_import_in_a_package_starts_there() -> None:
    assert list(list_imports("from . import flow", "pipeline.kernel", is_package=True)) == [
        "pipeline.kernel.flow"
    ]
