"""What a job costs before its first image: CPU seconds of imports, of building a variant, and of one image.

Each variant has a process of its own, with random weights and one thread. `torch` is what `import torch` takes, which
no job escapes; all else is beyond it.

    python benchmarks/startup.py [VARIANT ...]
"""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise

VARIANTS = ("sam_vit_b", "mobilesam", "repvit_sam", "efficientvit_sam_l0", "nanosam", "efficientsam_ti")
STAGES = ("torch", "imports", "build", "image")
HEAVY = ("torchvision", "torch._dynamo", "sympy", "timm.models.beit", "transformers")
JOB = """
import sys, time
def lap():
    print(time.process_time(), end=" ")
import torch
lap()
import numpy as np
import sambench.evaluate.detections, sambench.evaluate.segany, sambench.records
from sambench.config import read_registries
from sambench.variants.base import Prompts, Runtime
from sambench.variants.cards import read_cards
from sambench.variants.registry import build
lap()
card = read_cards(read_registries(["variants"])["variants"])[sys.argv[1]]
variant = build(card, Runtime(device="cpu"), random_weights=True)
lap()
features = variant.encode([np.zeros((427, 640, 3), np.uint8)])[0]
variant.decode(features, Prompts(boxes=np.array([[10.0, 20, 300, 400]])))
lap()
print(*(name for name in HEAVY if name in sys.modules))
""".replace("HEAVY", repr(HEAVY))


def main(names: list[str]) -> None:
    print(f"{'CPU s':22}" + "".join(f"{stage:>9}" for stage in STAGES) + "  heavy modules")
    for name in names or VARIANTS:
        command = [sys.executable, "-W", "ignore", "-c", JOB, name]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        marks = [0.0, *map(float, output[: len(STAGES)])]
        seconds = "".join(f"{after - before:9.2f}" for before, after in pairwise(marks))
        print(f"{name:22}{seconds}  {' '.join(output[len(STAGES) :]) or '-'}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
