# SPDX-License-Identifier: Apache-2.0
"""Pictures of what the benchmarks found; nothing else needs matplotlib."""
