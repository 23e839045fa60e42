"""Compiled programs are kept where that is possible, and never an error."""

import re
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache as of_jax

from experiments.training import compilation_cache


@pytest.fixture
def unset():
  """As a user's process begins, who has named no folder."""
  before = jax.config.jax_compilation_cache_dir
  jax.config.update("jax_compilation_cache_dir", None)
  of_jax.reset_cache()
  yield
  jax.config.update("jax_compilation_cache_dir", before)
  of_jax.reset_cache()


def said():
  sentences = []
  compilation_cache.keep(sentences.append)
  (sentence,) = sentences
  return sentence


def test_the_folder_is_of_a_version_and_a_device(unset, tmp_path, monkeypatch):
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  folder = compilation_cache.folder()
  assert said() == f"Compiled programs are kept in {folder}."
  assert folder.parent == tmp_path / "gmixout-jax"
  assert re.fullmatch(rf"{jax.__version__}-cpu-\w+-[0-9a-f]{{8}}", folder.name)
  assert jax.config.jax_compilation_cache_dir == str(folder)
  assert list(folder.iterdir()) == []
  monkeypatch.delenv("XDG_CACHE_HOME")
  monkeypatch.setenv("HOME", str(tmp_path / "home"))
  home = tmp_path / "home/.cache/gmixout-jax"
  assert compilation_cache.folder().parent == home


def test_a_folder_that_was_named_wins(monkeypatch, tmp_path):
  named = jax.config.jax_compilation_cache_dir  # by conftest
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  assert said() == f"Compiled programs are kept in {named}."
  assert list(tmp_path.iterdir()) == []


def test_where_nothing_can_be_written_it_is_said(unset, tmp_path, monkeypatch):
  (tmp_path / "file").write_text("")
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
  assert said().startswith("Compiled programs are not kept: ")
  assert jax.config.jax_compilation_cache_dir is None


def test_without_a_cache_nothing_is_said(unset, tmp_path, monkeypatch):
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  jax.config.update("jax_enable_compilation_cache", False)
  try:
    compilation_cache.keep(pytest.fail)
  finally:
    jax.config.update("jax_enable_compilation_cache", True)
  assert jax.config.jax_compilation_cache_dir is None


def test_a_program_cut_off_by_a_kill_is_compiled_again(
  unset, tmp_path, monkeypatch
):
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  said()

  def compiled():
    jax.clear_caches()
    of_jax.reset_cache()
    return jax.jit(lambda x: jnp.sin(x) * 0.125)(jnp.arange(5.0))

  expected = compiled()
  kept = list(compilation_cache.folder().glob("*-cache"))
  assert kept
  for path in kept:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    np.testing.assert_array_equal(compiled(), expected)
