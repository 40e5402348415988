# SPDX-License-Identifier: Apache-2.0
"""The fixture for unit tests of programs that embed this library.

Its manual is in ``imagecache.testing.fixture``.
"""

from imagecache.testing.fixture import ImageCacheFixture

__all__ = ["ImageCacheFixture"]
