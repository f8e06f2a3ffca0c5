"""Glossary and cheat sheet: every name, from the tables, whole without a network."""

import re

import frozenkit
from frozenkit.course.reference import build_reference, cheatsheet, glossary


def test_the_glossary_has_every_name_and_a_sentence_for_it():
    rows = re.findall(r'<code id="(\w+)">.*?</td><td[^>]*>(.*?)</td>', glossary())
    assert sorted(name for name, _ in rows) == sorted(frozenkit.__all__)
    assert [name for name, text in rows if len(text) < 10] == []


def test_the_cheat_sheet_is_made_from_the_tables():
    page = cheatsheet()
    for rule in (*frozenkit.HEAD_RULES["per-class"], *frozenkit.HEAD_RULES["data-size"]):
        assert rule.advice in page
    for name in ("layer_report", "domain_bound", "finetune", "load_dataset"):
        assert f"<code>{name}</code>" in page


def test_pages_need_nothing_from_outside(tmp_path):
    for path in build_reference(tmp_path):
        assert not re.search(r"""(src|href)=["']https?://|@import|url\(|<link""", path.read_text(encoding="utf-8"))
