"""How much is logged: the functions of transformers' `logging`, and what they do."""

import logging

import pytest
import transformers

import torchgguf


@pytest.fixture(autouse=True)
def restored():
    logger = logging.getLogger("torchgguf")
    before = logger.level, logger.propagate, [*logger.handlers]
    yield
    torchgguf.logging.disable_default_handler()
    torchgguf.logging.enable_progress_bar()
    logger.level, logger.propagate, logger.handlers[:] = before


def test_levels_are_set_as_in_transformers():
    for name in ("debug", "info", "warning", "error"):
        before = transformers.logging.get_verbosity()
        try:
            for package in (torchgguf, transformers):
                getattr(package.logging, f"set_verbosity_{name}")()
            assert torchgguf.logging.get_verbosity() == transformers.logging.get_verbosity()
        finally:
            transformers.logging.set_verbosity(before)


def test_a_level_applies_to_all_modules(caplog):
    logger = torchgguf.logging.get_logger("torchgguf.models.io.assembling")
    torchgguf.logging.set_verbosity_error()
    logger.warning("hidden")
    torchgguf.logging.set_verbosity(torchgguf.logging.WARNING)
    logger.warning("shown")
    assert [record.message for record in caplog.records] == ["shown"]


def test_handlers_and_formats(caplog, capsys):
    logger = torchgguf.logging.get_logger()
    torchgguf.logging.disable_propagation()
    torchgguf.logging.enable_default_handler()
    torchgguf.logging.enable_default_handler()
    torchgguf.logging.enable_explicit_format()
    logger.warning("once")
    torchgguf.logging.reset_format()
    logger.warning("plain")
    torchgguf.logging.disable_default_handler()
    torchgguf.logging.enable_propagation()
    logger.warning("here")
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("[WARNING|test_logging.py:") and first.endswith(">> once")
    assert second == "plain"
    assert [record.message for record in caplog.records] == ["here"]


def test_info_appears_where_a_program_has_no_handlers(capsys, monkeypatch):
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    torchgguf.logging.set_verbosity_info()
    torchgguf.logging.get_logger("torchgguf.x").info("hello")
    assert capsys.readouterr().err == "hello\n"


def test_progress_bars():
    assert torchgguf.logging.is_progress_bar_enabled() and torchgguf.logging.bar_disabled() is None
    torchgguf.logging.disable_progress_bar()
    assert not torchgguf.logging.is_progress_bar_enabled() and torchgguf.logging.bar_disabled() is True
