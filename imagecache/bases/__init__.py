# SPDX-License-Identifier: Apache-2.0
"""Base images: fetched once, kept in a store, leased to disks."""
