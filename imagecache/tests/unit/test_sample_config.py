# SPDX-License-Identifier: Apache-2.0
"""The sample configuration is what the generator makes of the options."""

from __future__ import annotations

import dataclasses
import io
import pathlib
import re

from oslo_config import cfg, generator

from imagecache import opts
from imagecache.opts import glance
from imagecache.tests import base

ETC = pathlib.Path(__file__).resolve().parents[3] / "etc" / "imagecache"
GENERATE = ETC / "imagecache-config-generator.conf"
SAMPLE = ETC / "imagecache.conf.sample"


class SampleTest(base.TestCase):

    def test_sample_is_current(self):
        self.assertEqual(
            paragraphs(generate()), paragraphs(SAMPLE.read_text()),
            f"the head of {GENERATE.name} says how to make it anew")

    def test_sample_without_its_comment_signs_changes_nothing(self):
        active = self.root / "active.conf"
        active.write_text(re.sub(
            r"^#(?=\w+ = (?!<None>))", "", SAMPLE.read_text(), flags=re.M))
        default, found = policy(), policy(str(active))
        self.assertNotEqual(SAMPLE.read_text(), active.read_text())
        self.assertEqual(default.locks, found.locks)
        self.assertEqual(
            default, dataclasses.replace(found, lock_directory=None))


def policy(*files):
    conf = cfg.ConfigOpts()
    opts.register_opts(conf)
    conf([], default_config_files=files)
    return opts.policy_from(conf)


def generate():
    conf = cfg.ConfigOpts()
    generator.register_cli_opts(conf)
    conf(["--config-file", str(GENERATE)], project="generator")
    output = io.StringIO()
    generator.generate(conf, output)
    return output.getvalue()


def paragraphs(sample):
    """Return what the sample says of each option, by group and name.

    keystoneauth's options, and what it says of them, are those of the version
    that is installed; they are left out.
    """
    ours = {option.dest for option in glance._OPTS}
    found, group, start = {}, None, 0
    for match in re.finditer(r"^\[(.+)\]$|^#(\w+) = .*$", sample, re.M):
        if match[1]:
            group = match[1]
        elif group != glance.GROUP or match[2] in ours:
            found[group, match[2]] = sample[start:match.end()].strip()
        start = match.end()
    return found
