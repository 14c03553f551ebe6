"""The command `python -m image`: writes the image's files for the Dockerfile, layer by layer.

Archives are made by `python -m release image`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from image.build import gather, layer_trees, with_bytecode
from image.faults import FAULTS
from image.tree import write_tree


def main() -> None:
    """Write every layer into a folder of its own."""
    parser = argparse.ArgumentParser(prog="python -m image", description=__doc__)
    parser.add_argument("folder", type=Path, help="gets a folder for each layer; must be missing")
    parser.add_argument("--cache", type=Path, help="keeps downloads; by default they are removed")
    arguments = parser.parse_args()
    try:
        with TemporaryDirectory(prefix="gpudetour-image-") as scratch:
            _write(arguments.folder, arguments.cache or Path(scratch))
    except FAULTS as error:
        sys.exit(f"{parser.prog}: {error}")


def _write(folder: Path, cache: Path) -> None:
    folder.mkdir(parents=True)
    ingredients = gather(Path.cwd(), cache=cache, report=_tell)
    plain = layer_trees(ingredients)
    for name, tree in plain.items():
        whole = with_bytecode(tree, system=plain["debian"], processor=ingredients.processor)
        write_tree(whole, folder / name)


def _tell(text: str) -> None:
    sys.stderr.write(f"{text}\n")


if __name__ == "__main__":
    main()
