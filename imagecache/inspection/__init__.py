# SPDX-License-Identifier: Apache-2.0
"""Is this image, or this disk, what it claims to be, and harmless?"""
