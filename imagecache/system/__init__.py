# SPDX-License-Identifier: Apache-2.0
"""The operating system: programs, durable files, locks, the sandbox."""
