"""From the key to the image: how long HeadLab's strength slider takes to answer on the screen, and TeachLab to learn.

    pytest -s tests/browser/benchmark_paint.py

Not collected with the tests: it prints times, and no test may depend on one.
"""

import numpy as np

FEATURES = """
import torch
from frozenkit import FeatureSet, HeadLab
def made(n, seed):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 10
    x = torch.randn(n, 1280, generator=generator) + torch.nn.functional.one_hot(labels, 1280) * 4
    return FeatureSet.from_arrays(x, labels, classes=list("abcdefghij"))
lab = HeadLab(made(2000, 0), made(1000, 1))
lab
"""
TEACH = """
import time
from frozenkit import TeachLab, load_dataset
emoji = load_dataset("emoji-google")
images = [[emoji[i][0] for i in (emoji.labels == k).nonzero().squeeze(1)[:10].tolist()] for k in (1, 2)]
start = time.perf_counter()
lab = TeachLab(["animals", "food"])
for name, some in zip(lab.classes, images):
    for image in some:
        lab.add(name, [image])
print(f"{time.perf_counter() - start:.2f} s for {lab.features.features.shape[0]} images, one by one")
"""
PAINT = """async (key) => {
  const slider = [...document.querySelectorAll('.fk-lab input[type=range]')].find((i) =>
    document.querySelector(`label[for="${i.id}"]`).textContent.startsWith('Strength'));
  const figure = document.querySelector('.fk-lab .fk-figure');
  const start = performance.now();
  const painted = new Promise((done) => new MutationObserver((_, o) => {
    o.disconnect();
    requestAnimationFrame(() => setTimeout(() => done(performance.now() - start)));
  }).observe(figure, { childList: true }));
  slider.value = slider.valueAsNumber + key;
  slider.dispatchEvent(new Event('input', { bubbles: true }));
  return painted;
}"""


ANSWERED = """async ([label, value]) => {
  const lab = document.querySelector('.fk-lab');
  const control = [...lab.querySelectorAll('select')].find((i) =>
    document.querySelector(`label[for="${i.id}"]`).textContent.startsWith(label));
  const start = performance.now();
  const seen = new Promise((done) => new MutationObserver((_, o) => {
    if (!lab.querySelector('.fk-status').textContent && lab.querySelector('.fk-work').hidden
        && !lab.querySelector('.fk-figure').dataset.moved) return;
    o.disconnect();
    requestAnimationFrame(() => setTimeout(() => done(performance.now() - start)));
  }).observe(lab, { subtree: true, childList: true, characterData: true, attributes: true }));
  new MutationObserver((_, o) => { o.disconnect(); lab.querySelector('.fk-figure').dataset.moved = 'yes'; })
    .observe(lab.querySelector('.fk-figure'), { childList: true });
  delete lab.querySelector('.fk-figure').dataset.moved;
  control.value = value;
  control.dispatchEvent(new Event('change', { bubbles: true }));
  return seen;
}"""


def test_input_to_paint(open_notebook):
    with open_notebook("paint", [FEATURES.strip()]) as notebook:
        notebook.run_all()
        notebook.page.locator(".fk-lab svg").first.wait_for()
        for warm in (-1, -1, 1):
            notebook.page.evaluate(PAINT, warm)
        times = [notebook.page.evaluate(PAINT, -1 if i % 20 < 10 else 1) for i in range(60)]
        middle, late = np.quantile(times, [0.5, 0.95])
        print(f"\ninput to paint, 2,000 × 1,280, 10 classes: median {middle:.0f} ms, 95th percentile {late:.0f} ms")
        for move in (("Head", "mlp"), ("Head", "softmax"), ("Also show", "boundary"), ("Also show", "learning curve")):
            spent = notebook.page.evaluate(ANSWERED, list(move))
            print(f"{' → '.join(move)}: progress or answer after {spent:.0f} ms")
            notebook.page.wait_for_function("() => document.querySelector('.fk-work').hidden")
        print("TeachLab:", notebook.ask(TEACH))
