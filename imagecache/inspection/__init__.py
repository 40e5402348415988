# SPDX-License-Identifier: Apache-2.0
"""Checks that an image or a disk is what it claims to be, and harmless."""
