"""The doctor: every line says OK, or what to do."""

import pytest

from frozenkit.app import doctor as doctor_module
from frozenkit.app.doctor import Check, Diagnosis, doctor
from frozenkit.errors import NotAvailableError


@pytest.fixture(scope="module")
def diagnosis():
    return doctor()


def test_every_check_says_what_was_found_in_words_of_its_own(diagnosis):
    """Whether this machine has all that it needs is the machine's affair; that each thing was looked at is ours."""
    names = [check.name for check in diagnosis.checks]
    assert len(set(names)) == len(names) == len(doctor_module._CHECKS)
    assert {check.status for check in diagnosis.checks} <= {"OK", "note", "to do"}
    assert all(check.found for check in diagnosis.checks)
    assert diagnosis.ok == ("to do" not in {check.status for check in diagnosis.checks})


@pytest.mark.parametrize(("status", "ok"), [("OK", True), ("note", True), ("to do", False)])
def test_only_what_is_to_do_counts(status, ok):
    assert Diagnosis((Check("a", "there"), Check("b", "something", status, "Do it."))).ok is ok


@pytest.mark.parametrize(
    ("found", "advised"),
    [({"torch": "1"}, "pip install nowhere-to-be-found"), ({}, "pip install torch nowhere-to-be-found")],
)
def test_a_missing_package_is_to_do(monkeypatch, found, advised):
    def version(package):
        if package not in found:
            raise doctor_module.PackageNotFoundError(package)
        return found[package]

    monkeypatch.setattr(doctor_module, "version", version)
    check = doctor_module._versions("torch", "nowhere-to-be-found")("PyTorch")
    assert (check.status, check.advice) == ("to do", advised)


def test_little_memory_and_many_threads_are_notes(monkeypatch):
    monkeypatch.setattr(doctor_module, "available_memory", lambda: (2**30, 2**33))
    monkeypatch.setattr(doctor_module, "available_cores", lambda: 0)
    for look in (doctor_module._memory, doctor_module._threads):
        check = look("x")
        assert check.status == "note"
        assert check.advice


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
