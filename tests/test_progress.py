"""Progress: seen while work is done, and gone from the notebook when it is."""

import nbformat
from jupyter_client.manager import start_new_kernel
from nbclient import NotebookClient

from frozenkit._progress import progress_bar

WORK = """
import time
from frozenkit._progress import progress_bar
print("before")
with progress_bar(None, 600, "efficientnet-lite0") as report:
    for _ in range(6):
        report(100)
        time.sleep(0.12)
print("after")
"""


def stored(source):
    """The outputs that a notebook keeps of a cell."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    NotebookClient(notebook, kernel_name="python3", timeout=120, allow_errors=True, store_widget_state=False).execute()
    nbformat.validate(notebook)
    return notebook.cells[0].outputs


def test_a_bar_leaves_nothing_in_the_notebook():
    outputs = stored(WORK)
    assert [o.text for o in outputs if o.output_type == "stream"] == ["before\n", "after\n"]
    assert [dict(o.data) for o in outputs if o.output_type == "display_data"] == [{}]


def test_work_that_fails_leaves_no_bar_either():
    outputs = stored(WORK.replace("report(100)", "raise ValueError"))
    assert outputs[-1].ename == "ValueError"
    assert [dict(o.data) for o in outputs if o.output_type == "display_data"] == [{}]


def test_a_bar_is_seen_while_work_is_done():
    seen = []
    manager, client = start_new_kernel(kernel_name="python3")
    try:
        client.execute_interactive(WORK, timeout=120, output_hook=lambda m: seen.append((m["msg_type"], m["content"])))
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    kinds = [kind for kind, _ in seen]
    shown, gone = kinds.index("display_data"), kinds.index("update_display_data")
    assert "application/vnd.jupyter.widget-view+json" in seen[shown][1]["data"]
    states = [content["data"].get("state", {}) for kind, content in seen[shown:gone] if kind == "comm_msg"]
    assert max(state.get("value", 0) for state in states if isinstance(state.get("value", 0), (int, float))) >= 100


def test_a_terminal_or_a_function_is_told(capsys):
    calls = []
    with progress_bar(lambda done, total: calls.append((done, total)), 5, "x") as report:
        report(2)
        report(3)
    assert calls == [(2, 5), (5, 5)]
    with progress_bar(True, 5, "named") as report:
        report(5)
    assert "named: 100%" in capsys.readouterr().err
    for quiet in (False, None):  # None: only where somebody watches
        with progress_bar(quiet, 5, "x") as report:
            report(5)
    assert capsys.readouterr().err == ""
