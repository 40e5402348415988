# SPDX-License-Identifier: Apache-2.0
"""The host's operating system: programs, files that survive, locks."""
