# SPDX-License-Identifier: Apache-2.0
"""Disks that are files: overlays, copies, and both encrypted."""
