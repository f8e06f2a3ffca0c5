"""What all labs share: script and style, work beside the kernel, errors that show."""

import subprocess
import sys

import pytest

from frozenkit import widgets
from frozenkit.errors import DataError
from frozenkit.widgets.base import Lab, assets


def test_an_unforeseen_error_shows_and_is_raised():
    class Broken(Lab):
        _esm, _css = assets("headlab")

        def _compute(self):
            raise RuntimeError("the lamp went out")

    broken = Broken()
    with pytest.raises(RuntimeError, match="lamp"):
        broken._update_answer()
    assert broken.error == "RuntimeError: the lamp went out"


@pytest.mark.parametrize("name", ["CacheLab", "HeadLab", "LayerLab", "Quiz", "ShiftLab", "TeachLab"])
def test_script_and_style_are_one_text_each_without_a_network(name):
    kind = getattr(widgets, name)
    script, style = str(kind._esm), str(kind._css)
    assert script.startswith(assets("quiz")[0][:200])  # the shared part first
    assert script.count("export default") == 1
    assert style.count("{") == style.count("}")
    for text in (script.replace("http://www.w3.org/2000/svg", ""), style):
        assert "http" not in text
        assert "@import" not in text
        assert "innerHTML" not in text


def test_widgets_load_only_when_used():
    code = "import sys, frozenkit, frozenkit.widgets, frozenkit.course; print('anywidget' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


class Slow(Lab):
    """Counts to a hundred, and says where it was stopped."""

    seen = 0

    def _compute(self):
        return {"seen": self.seen}

    def _summary(self):
        return {}

    def go(self, to, fail=False):
        def job(progress):
            for i in range(to):
                progress(i, to)
                self.seen = i
                threading_pause()
            if fail:
                raise DataError("it failed.")
            self._update_answer()

        self._run_in_background("counting", job)


def threading_pause():
    import time

    time.sleep(0.002)


def test_a_newer_job_ends_the_older_one():
    lab = Slow()
    lab.go(100_000)
    lab.go(5)
    lab.wait(20)
    assert lab.answer == {"seen": 4}
    assert lab.work == {}
    lab.go(3, fail=True)
    lab.wait(20)
    assert lab.error == "it failed."
    lab.go(100_000)
    with pytest.raises(TimeoutError, match="counting"):
        lab.wait(0.05)
    lab.stop()
    lab.wait(20)
    assert lab.seen < 99_999
