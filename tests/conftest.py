"""Hypothesis profiles and the fixtures that several test files share."""

import os
from pathlib import Path

import hypothesis
import numpy as np
import pytest

TESTS = Path(__file__).parent
ROOT = TESTS.parent

# MINIVIT_HYPOTHESIS picks one. `ci` draws the same examples every time, so that no change fails by bad luck;
# `dev` and `thorough` draw new ones.
hypothesis.settings.register_profile("ci", max_examples=25, derandomize=True, deadline=None, database=None)
hypothesis.settings.register_profile("dev", max_examples=50, deadline=None)
hypothesis.settings.register_profile("thorough", max_examples=1000, deadline=None, print_blob=True)
hypothesis.settings.load_profile(os.environ.get("MINIVIT_HYPOTHESIS", "ci"))


@pytest.fixture(scope="session")
def shared_data():
    """Folder that holds the real data sets' archives: MINIVIT_DATA, or ``shared/data`` beside the project."""
    folder = Path(os.environ.get("MINIVIT_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip("no data folder: set MINIVIT_DATA to the folder that holds the data sets' archives")
    return folder


@pytest.fixture(scope="session")
def golden():
    """Loader of reference values: ``golden("losses")`` returns tests/golden/losses.npz as name -> array."""

    def load(name):
        with np.load(TESTS / "golden" / f"{name}.npz", allow_pickle=False) as arrays:
            return dict(arrays)

    return load
