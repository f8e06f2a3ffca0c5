"""The doctor: every line says OK, or what to do."""

import pytest

from frozenkit import doctor as doctor_module
from frozenkit.doctor import Check, Diagnosis, doctor
from frozenkit.errors import NotAvailableError


@pytest.fixture(scope="module")
def diagnosis():
    return doctor()


def test_this_machine_is_fit_to_run_the_course(diagnosis):
    assert [check.name for check in diagnosis.checks if check.status == "to do"] == []
    assert diagnosis.ok


def test_whatever_is_not_ok_says_what_to_do(diagnosis):
    assert all(check.advice for check in diagnosis.checks if check.status != "OK")
    names = " ".join(check.name for check in diagnosis.checks)
    for part in ("Python", "PyTorch", "Device", "Threads", "Memory", "cache", "browser"):
        assert part in names


def test_tables_mark_everything_that_differs_between_machines(diagnosis):
    import re

    other = Diagnosis(tuple(Check(check.name, "something else") for check in diagnosis.checks))
    text = re.compile("⟦[^⟧]*⟧")
    mark = re.compile('<span class="fk-measured">[^<]*</span>')
    assert text.sub("", repr(diagnosis)) == text.sub("", repr(other))
    assert mark.sub("", diagnosis._repr_html_()) == mark.sub("", other._repr_html_())


def test_names_are_escaped():
    page = Diagnosis((Check("disk", "<script>alert(1)</script>", "to do", "<b>move</b>"),))._repr_html_()
    assert "<script>" not in page
    assert "<b>move" not in page


def test_a_check_that_fails_is_a_finding_and_not_the_end(monkeypatch):
    def fail(name):
        raise NotAvailableError("the weights are gone. Install them.")

    check = doctor_module._safely("weights", fail)
    assert check.status == "to do"
    assert "the weights are gone" in f"{check.found} {check.advice}"
    assert not Diagnosis((check,)).ok
