"""The same fixtures as those of the tags' tests."""

from tests.tags.conftest import *  # noqa: F403
