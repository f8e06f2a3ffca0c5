"""Runs benchmarks and writes benchmarks.json: ``python -m tests.benchmarks [P4 P5 …]`` from the repository root.

Every ``p<number>…`` function of every module beside this one is a benchmark; it returns a `Figure`. A figure is the
ratio of a reference's time to ours in the same run, with the same number of threads.
"""

import json
import os
import platform
import sys
import traceback
from dataclasses import asdict
from importlib import import_module
from pathlib import Path


def main(wanted: list[str]) -> int:
    import torch

    figures, failed = [], 0
    for path in sorted(Path(__file__).parent.glob("[!_]*.py")):
        module = import_module(f"tests.benchmarks.{path.stem}")
        for name in sorted(n for n in vars(module) if n[0] == "p" and n[1:2].isdigit()):
            identity = name.split("_")[0].upper()
            if wanted and not any(identity.startswith(part) for part in wanted):
                continue
            try:
                figure = getattr(module, name)()
            except Exception:  # one benchmark that cannot run here must not hide the others
                traceback.print_exc()
                failed += 1
                continue
            print(figure, flush=True)
            figures.append({"id": identity, **asdict(figure)})
    about = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }
    Path("benchmarks.json").write_text(json.dumps({"machine": about, "figures": figures}, indent=1) + "\n")
    return 1 if failed or not figures else 0


if __name__ == "__main__":
    sys.exit(main([name.upper() for name in sys.argv[1:]]))
