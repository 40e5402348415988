# SPDX-License-Identifier: Apache-2.0
"""Configuration: nova's names, beside nova's own, and every one read."""

from __future__ import annotations

import contextlib
import operator
import pathlib
from collections.abc import Iterator
from typing import Any
from unittest import mock

import ddt
from oslo_config import cfg
from oslo_log import versionutils

from imagecache import opts
from imagecache.model import GiB, Limits, Sandbox
from imagecache.policy import Policy
from imagecache.sources import registry
from imagecache.tests import base

# Those of nova's that are other in default, help, type or choices.
NOVAS = (
    (None, cfg.StrOpt("instances_path", default="/nova/instances", help="x")),
    (None, cfg.BoolOpt("use_cow_images", default=False, help="x")),
    (None, cfg.BoolOpt("force_raw_images", default=False, help="x")),
    (None, cfg.StrOpt("preallocate_images", default="space", help="x",
                      choices=["none", "space"])),
    ("libvirt", cfg.StrOpt("images_type", default="raw", help="x", choices=[
        "raw", "flat", "qcow2", "lvm", "rbd", "ploop", "default"])),
    ("libvirt", cfg.IntOpt("images_cpu_time_limit", default=7, help="x")),
    ("image_cache", cfg.StrOpt("subdirectory_name", default="_nova")),
)

# Read when an image store is made, and by whom.
STORES = {("image_cache", name) for name in (
    "connect_timeout", "read_timeout", "http_redirects", "http_ca_file")}

# Those of [glance] that are not of its client.
SIGNATURES = {("glance", name) for name in (
    "verify_glance_signatures", "enable_certificate_validation",
    "default_trusted_certificate_ids")}


def conf_of(text: str = "", path: pathlib.Path | None = None
            ) -> cfg.ConfigOpts:
    conf = cfg.ConfigOpts()
    files = []
    if path is not None:
        path.write_text(text)
        files = [str(path)]
    conf([], project="x", default_config_files=files)
    opts.register_opts(conf)
    return conf


class Recording:
    """A configuration that notes which options are asked for."""

    def __init__(self, conf: Any, group: str, asked: set[tuple[str, str]]
                 ) -> None:
        self._conf, self._group, self._asked = conf, group, asked

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._conf, name)
        if isinstance(found, cfg.ConfigOpts.GroupAttr):
            return Recording(found, name, self._asked)
        self._asked.add((self._group, name))
        return found


@ddt.ddt
class OptsTest(base.TestCase):

    def test_every_option_is_read(self) -> None:
        asked: set[tuple[str, str]] = set()
        conf = Recording(conf_of(), "DEFAULT", asked)
        opts.policy_from(conf)
        registry.ImageStores(conf)._http
        there = {(group, option.dest) for group, options in opts.list_opts()
                 if group != "glance" for option in options}
        self.assertEqual(there | SIGNATURES, asked)

    def test_defaults_are_those_of_the_policy(self) -> None:
        found = opts.policy_from(conf_of())
        self.assertEqual(Policy(found.instances), found)

    @ddt.data(
        ("DEFAULT", "instances_path = /x", "instances", pathlib.Path("/x")),
        ("DEFAULT", "use_cow_images = false", "use_cow", False),
        ("DEFAULT", "force_raw_images = false", "force_raw", False),
        ("DEFAULT", "preallocate_images = space", "preallocate", True),
        ("DEFAULT", "resize_fs_using_block_device = true",
         "resize_fs_using_block_device", True),
        ("DEFAULT", "default_ephemeral_format = xfs", "ephemeral_format",
         "xfs"),
        ("libvirt", "images_type = raw", "images_type", "raw"),
        ("libvirt", "snapshot_compression = true", "compress_snapshots",
         True),
        ("libvirt", "hw_disk_discard = unmap", "discard", "unmap"),
        ("libvirt", "virt_type = lxc", "virt_type", "lxc"),
        ("image_cache", "subdirectory_name = x", "base_subdirectory", "x"),
        ("image_cache", "lock_path = /x", "lock_directory",
         pathlib.Path("/x")),
        ("image_cache", "lock_prefix = nova-", "lock_prefix", "nova-"),
        ("image_cache", "resized_bases = true", "resized_bases", True),
        ("image_cache", "max_image_size = 3", "max_image_size", 3 * GiB),
        ("image_cache", "max_image_size = 0", "max_image_size", None),
        ("image_cache", "max_virtual_size = 3", "max_virtual_size", 3 * GiB),
        ("image_cache", "download_retries = 9", "retries", 9),
        ("glance", "verify_glance_signatures = true", "verify_signatures",
         True),
        ("glance", "enable_certificate_validation = true",
         "validate_certificates", True),
        ("glance", "default_trusted_certificate_ids = a,b",
         "trusted_certificates", ("a", "b")))
    @ddt.unpack
    def test_an_option_decides(self, group: str, line: str, name: str,
                               expected: object) -> None:
        conf = conf_of(f"[{group}]\n{line}\n", self.root / "conf")
        self.assertEqual(expected, getattr(opts.policy_from(conf), name))

    def test_limits_are_set(self) -> None:
        found = opts.policy_from(conf_of(
            "[libvirt]\nimages_cpu_time_limit = 7\n"
            "images_address_space_limit = 3\n"
            "[image_cache]\ninspection_timeout = 8\nsandbox = never\n"
            "conversion_timeout = 9\nconversion_cpu_time_limit = 10\n"
            "conversion_address_space_limit = 5\n",
            self.root / "conf"))
        self.assertEqual(
            Limits(cpu_time=7, address_space=3 * GiB, wall_clock=8,
                   sandbox=Sandbox.NEVER),
            found.inspection)
        self.assertEqual(
            Limits(cpu_time=10, address_space=5 * GiB, wall_clock=9,
                   sandbox=Sandbox.NEVER),
            found.conversion)

    def test_the_options_that_errors_name_are_there(self) -> None:
        conf = conf_of("", self.root / "conf")
        found = opts.policy_from(conf)
        for limits in (found.inspection, found.conversion):
            self.assertIs(Sandbox.AVAILABLE, limits.sandbox)
            for limit, option in limits.options.items():
                group, name = option[1:].split("] ")
                unit = GiB if limit == "address_space" else 1
                self.assertEqual(getattr(limits, limit),
                                 conf[group][name] * unit)

    @ddt.data("[DEFAULT]\npreallocate_images = some",
              "[image_cache]\nmax_image_size = -1",
              "[image_cache]\nhttp_redirects = all",
              "[libvirt]\nimages_cpu_time_limit = 0")
    def test_nonsense_is_refused(self, text: str) -> None:
        conf = conf_of(text, self.root / "conf")
        with self.assertRaises(ValueError):
            opts.policy_from(conf)
            registry.ImageStores(conf)._http

    def test_paths_are_absolute(self) -> None:
        found = opts.policy_from(conf_of(
            "[DEFAULT]\ninstances_path = here\n"
            "[image_cache]\nlock_path = there\n", self.root / "conf"))
        for path in (found.instances, found.bases, found.locks):
            self.assertTrue(path.is_absolute(), path)

    def test_registering_twice_changes_nothing(self) -> None:
        conf = conf_of()
        before = opts.policy_from(conf)
        opts.register_opts(conf)
        self.assertEqual(before, opts.policy_from(conf))

    def test_the_host_programs_own_options_stand(self) -> None:
        conf = cfg.ConfigOpts()
        for group, option in NOVAS:
            conf.register_opt(option, group=group)
        conf([], project="x", default_config_files=[])
        opts.register_opts(conf)
        found = opts.policy_from(conf)
        self.assertEqual(
            (pathlib.Path("/nova/instances"), False, False, True, "raw", 7,
             "_nova"),
            (found.instances, found.use_cow, found.force_raw,
             found.preallocate, found.images_type, found.inspection.cpu_time,
             found.base_subdirectory))

    @ddt.data(
        ("libvirt_images_type = raw", "images_type", "raw"),
        ("libvirt_snapshot_compression = true", "compress_snapshots", True),
        ("image_cache_subdirectory_name = x", "base_subdirectory", "x"),
        ("base_dir_name = x", "base_subdirectory", "x"),
        ("libvirt_images_volume_group = x", "lvm.volume_group", "x"),
        ("libvirt_sparse_logical_volumes = true", "lvm.sparse", True),
        ("libvirt_images_rbd_pool = x", "rbd.pool", "x"),
        ("libvirt_images_rbd_ceph_conf = x", "rbd.conf", "x"),
        ("rbd_user = x", "rbd.user", "x"),
        ("rbd_secret_uuid = x", "rbd.secret", "x"))
    @ddt.unpack
    def test_names_of_older_novas_are_understood_and_deprecated(
            self, line: str, name: str, expected: object) -> None:
        conf = conf_of(f"[DEFAULT]\n{line}\n", self.root / "conf")
        with self.deprecating() as log:
            found = operator.attrgetter(name)(opts.policy_from(conf))
        self.assertEqual(expected, found)
        self.assertIn(f'"{line.split()[0]}" from group "DEFAULT" is'
                      " deprecated", "".join(log.output))

    @contextlib.contextmanager
    def deprecating(self) -> Iterator[Any]:
        """Listen as if this process had not been warned before."""
        with mock.patch.dict(versionutils._deprecated_messages_sent,
                             clear=True), \
                self.assertLogs("oslo_config", "WARNING") as log:
            yield log

    def test_a_new_name_counts_and_not_the_old_one(self) -> None:
        found = opts.policy_from(conf_of(
            "[DEFAULT]\nlibvirt_images_type = raw\n"
            "[libvirt]\nimages_type = qcow2\n", self.root / "conf"))
        self.assertEqual("qcow2", found.images_type)

    def test_use_cow_images_decides_and_is_deprecated(self) -> None:
        [option] = [each for each in opts.DEFAULT_OPTS
                    if each.dest == "use_cow_images"]
        with mock.patch.object(option, "_logged_deprecation", False), \
                self.deprecating() as log:
            self.assertFalse(opts.policy_from(conf_of(
                "[DEFAULT]\nuse_cow_images = false\n",
                self.root / "conf")).use_cow)
        self.assertIn("images_type", "".join(log.output))

    def test_every_option_says_what_it_is_for(self) -> None:
        for group, options in opts.list_opts():
            for option in options:
                self.assertTrue(option.help, f"[{group}] {option.dest}")

    def test_the_generators_list_is_no_door_to_ours(self) -> None:
        opts.list_opts()[0][1].clear()
        self.assertTrue(opts.list_opts()[0][1])
