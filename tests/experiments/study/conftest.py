"""What several tests of the study begin with."""

import pytest
import rich.progress

from experiments.study import work


@pytest.fixture
def desk(tmp_path):
  """The desk of a study that has no results yet."""
  with rich.progress.Progress(disable=True) as bar:
    yield work.Desk(tmp_path / "results", tmp_path / "locks", bar)
