"""One browser for each file of tests."""

import pytest
from built import started


@pytest.fixture(scope="module")
def chrome():
    browser = started()
    yield browser
    browser.quit()
