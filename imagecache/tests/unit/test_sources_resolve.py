# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import subprocess
import sys

from imagecache import exception
from imagecache.sources import resolve
from imagecache.tests import base

UUID = "d3b07384-d113-4ec2-a3b9-0123456789ab"


class KindOfTest(base.TestCase):

    def test_each_store_has_its_shape(self):
        for ref, kind in ((UUID, "glance"), (UUID.upper(), "glance"),
                          ("http://host/x", "http"),
                          ("HTTPS://user:word@host/x#sha256=0", "http"),
                          ("file:///x", "file"), ("/x", "file"),
                          ("./x:y", "file"), ("../x", "file"),
                          ("images/x", "file"), ("/a:b/http://c", "file")):
            with self.subTest(ref):
                self.assertEqual(kind, resolve.kind_of(ref))

    def test_bare_name_is_a_path_if_something_is_there(self):
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(self.root)
        (self.root / "disk.img").touch()
        self.assertEqual("file", resolve.kind_of("disk.img"))
        with self.assertRaises(exception.InvalidImageRef):
            resolve.kind_of("disk.iso")

    def test_anything_else_is_refused_with_the_choices(self):
        for ref in ("", "cirros", "ftp://host/x", "rbd:pool/image",
                    "json:{\"driver\": \"file\", \"x\": \"a/b\"}",
                    "nbd://host/x", "data:,x", UUID.replace("-", ""),
                    f"{{{UUID}}}", f"urn:uuid:{UUID}", "a\0b"):
            with self.subTest(ref):
                with self.assertRaises(exception.InvalidImageRef) as caught:
                    resolve.kind_of(ref)
                self.assertIn("UUID", str(caught.exception))
                self.assertIn("https://", str(caught.exception))
                self.assertIn("path", str(caught.exception))

    def test_login_is_not_repeated(self):
        with self.assertRaises(exception.InvalidImageRef) as caught:
            resolve.kind_of("ftp://user:secret@host/x")
        self.assertNotIn("secret", repr(caught.exception))


class ImportTest(base.TestCase):

    def test_telling_references_apart_loads_no_client(self):
        subprocess.run(
            [sys.executable, "-c", "import sys; import imagecache;"
             " import imagecache.sources.resolve, imagecache.sources.file;"
             " sys.exit(bool({'requests', 'glanceclient', 'keystoneauth1'}"
             " & set(sys.modules)))"], check=True)
