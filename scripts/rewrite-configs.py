#!/usr/bin/env python3
"""Loads and saves the config.json of every fixture with the installed transformers, as a user's tool would.

    usage: scripts/rewrite-configs.py

Writes tests/golden/configs-of-transformers/<fixture>.json and prints the families that transformers does not know, which have no such file.
Needs the package `transformers`, without PyTorch; its version is written into each file as `transformers_version`.
"""

import json
import pathlib
import tempfile

from transformers import AutoConfig

ROOT = pathlib.Path(__file__).resolve().parent.parent / "tests" / "golden"


def rewritten(fixture: pathlib.Path) -> dict:
    config = AutoConfig.from_pretrained(fixture)
    with tempfile.TemporaryDirectory() as folder:
        config.save_pretrained(folder)
        return json.loads((pathlib.Path(folder) / "config.json").read_text())


def main() -> None:
    target = ROOT / "configs-of-transformers"
    target.mkdir(exist_ok=True)
    for fixture in sorted((ROOT / "fixtures").iterdir()):
        try:
            config = rewritten(fixture)
        except Exception as error:  # whatever the class of a family raises
            print(f"{fixture.name}: {type(error).__name__}: {str(error).splitlines()[0][:150]}")
            continue
        (target / f"{fixture.name}.json").write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
