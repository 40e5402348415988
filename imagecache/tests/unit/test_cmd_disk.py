# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import hashlib
import json
import subprocess

from imagecache.model import MiB
from imagecache.tests.command import CommandTestCase

UUID = "9a7e2a52-5b1f-4a75-8a33-3f1c2f3a0c11"


class DiskTestCase(CommandTestCase):

    def create(self, *argv: object, instance: str = UUID) -> dict[str, object]:
        done = self.succeed("disk", "create", "--instance", instance,
                            "-f", "json", *argv)
        found: dict[str, object] = done.json
        return found


class TestCreate(DiskTestCase):

    def test_a_disk_is_made_of_an_image(self) -> None:
        found = self.create("--image", self.image("image.qcow2"),
                            "--size", "20GiB")
        path = self.instances / UUID / "disk"
        self.assertEqual(
            (UUID, "disk", "qcow2", 20 * 1024 ** 3, str(path)),
            tuple(found[k] for k in ("instance", "name", "format", "size",
                                     "path")))
        info = json.loads(subprocess.check_output(
            ["qemu-img", "info", "-f", "qcow2", "--output=json", path]))
        self.assertEqual(20 * 1024 ** 3, info["virtual-size"])
        self.assertEqual(str(self.instances / "_base" / str(found["base"])),
                         info["full-backing-filename"])

    def test_the_storage_a_disk_occupies_is_shown(self) -> None:
        found = self.create("--image", self.image(), "--size", "1GiB")
        path = self.instances / UUID / "disk"
        self.assertEqual(path.stat().st_blocks * 512, found["allocated"])

    def test_without_a_size_it_has_the_images(self) -> None:
        self.assertEqual(MiB, self.create("--image", self.image())["size"])

    def test_a_file_url_names_an_image(self) -> None:
        self.create("--image", self.image().as_uri())

    def test_the_type_and_the_name_can_be_chosen(self) -> None:
        found = self.create("--image", self.image("image.qcow2"),
                            "--type", "raw", "--name", "root")
        self.assertEqual(("root", "raw", None), (
            found["name"], found["format"], found["base"]))

    def test_tables_show_sizes_as_people_read_them(self) -> None:
        done = self.succeed("disk", "create", "--image", self.image(),
                            "--instance", UUID, "--size", "1.5GiB")
        self.assertRegex(done.out, r"\| size +\| 1\.5 GiB +\|")

    def test_every_format_of_cliff_can_show_it(self) -> None:
        self.create("--image", self.image(), "--type", "raw")
        for name in ("yaml", "shell", "value", "table"):
            done = self.succeed("disk", "show", "--instance", UUID,
                                "-f", name)
            self.assertIn("raw", done.out)
            self.assertNotIn("Format", done.out)

    def test_all_is_silent_when_piped(self) -> None:
        done = self.succeed("disk", "create", "--image", self.image(),
                            "--instance", UUID)
        self.assertEqual("", done.err)

    def test_a_disk_that_exists_is_kept_and_the_user_told(self) -> None:
        image = self.image()
        path = self.create("--image", image, "--type", "raw")["path"]
        with open(str(path), "r+b") as f:
            f.write(b"written by the guest")
        done = self.succeed("disk", "create", "--image", image,
                            "--instance", UUID, "--size", "2MiB")
        self.assertEqual(
            f"imagecache: warning: {path} was there already, and keeps what"
            " it holds\n", done.err)
        with open(str(path), "rb") as f:
            self.assertEqual(b"written by the guest", f.read(20))
        # On record as raw: what is configured for new disks is no matter.
        self.assertIn("raw", done.out)
        self.assertIn("2.0 MiB", done.out)

    def test_a_disk_of_another_type_is_not_taken_for_this_one(self) -> None:
        image = self.image()
        self.create("--image", image, "--type", "raw")
        self.assertIn("is on record as raw: it cannot be qcow2", self.fails(
            7, "disk", "create", "--image", image, "--instance", UUID,
            "--type", "qcow2"))

    def test_the_digest_can_be_given(self) -> None:
        image = self.image()
        digest = hashlib.sha512(image.read_bytes()).hexdigest()
        self.create("--image", image, "--digest", f"sha512:{digest}")

    def test_a_wrong_digest_is_the_images_fault(self) -> None:
        image = self.image()
        self.assertIn("digest", self.fails(
            3, "disk", "create", "--image", image, "--instance", UUID,
            "--digest", f"sha256:{'0' * 64}"))
        self.assertFalse((self.instances / UUID).exists())

    def test_the_format_of_the_image_can_be_given(self) -> None:
        image = self.image("image.qcow2").rename(self.root / "image.img")
        self.fails(3, "disk", "create", "--image", image, "--instance", UUID,
                  "--image-format", "raw")
        self.create("--image", image, "--image-format", "qcow2")

    def test_a_signature_can_be_demanded(self) -> None:
        self.assertIn("has no signature", self.fails(
            3, "disk", "create", "--image", self.image(), "--instance", UUID,
            "--trusted-certificate", "x"))

    def test_a_disk_too_small_is_the_images_fault(self) -> None:
        self.assertIn("cannot hold an image of 1048576 bytes", self.fails(
            3, "disk", "create", "--image", self.image(), "--instance", UUID,
            "--size", "512KiB"))


class TestCreateGenerated(DiskTestCase):

    def test_swap_space(self) -> None:
        found = self.create("--swap", "--size", "1MiB", "--type", "raw")
        self.assertEqual("disk.swap", found["name"])
        with open(str(found["path"]), "rb") as f:
            self.assertEqual(b"SWAPSPACE2", f.read(4096)[-10:])

    def test_a_file_system(self) -> None:
        for fs_type, journals in ((), 4), (("--fs-type", "ext2"), 0):
            found = self.create("--ephemeral", "--size", "8MiB",
                                "--type", "raw", *fs_type)
            self.assertEqual("disk.eph0", found["name"])
            with open(str(found["path"]), "rb") as f:
                superblock = f.read(2048)[1024:]
            self.assertEqual(b"\x53\xef", superblock[56:58])
            self.assertEqual(journals, superblock[92] & 4)
            self.succeed("disk", "remove", "--instance", UUID,
                         "--name", "disk.eph0")

    def test_zeros(self) -> None:
        found = self.create("--blank", "--size", "1MiB", "--type", "raw")
        self.assertEqual("disk", found["name"])
        with open(str(found["path"]), "rb") as f:
            self.assertEqual(bytes(MiB), f.read())

    def test_a_generated_disk_needs_a_size(self) -> None:
        self.assertIn("--swap needs --size", self.fails(
            2, "disk", "create", "--swap", "--instance", UUID))

    def test_claims_are_of_images_alone(self) -> None:
        for claim in (("--digest", f"sha256:{'0' * 64}"),
                      ("--image-format", "raw"),
                      ("--trusted-certificate", "x")):
            self.assertIn("are of an --image", self.fails(
                2, "disk", "create", "--swap", "--instance", UUID,
                "--size", "1MiB", *claim))

    def test_a_file_system_is_of_an_ephemeral_disk_alone(self) -> None:
        self.fails(2, "disk", "create", "--swap", "--instance", UUID,
                  "--size", "1MiB", "--fs-type", "ext4")

    def test_a_disk_has_one_content(self) -> None:
        for content in ([], ["--swap", "--blank"]):
            done = self.run_command("disk", "create", "--instance", UUID,
                                    "--size", "1MiB", *content)
            self.assertEqual(2, done.code)

    def test_an_unknown_type_is_a_mistake_of_the_user(self) -> None:
        self.assertIn("flat, lvm, qcow2, raw, rbd", self.fails(
            2, "disk", "create", "--blank", "--instance", UUID,
            "--size", "1MiB", "--type", "floppy"))

    def test_an_unknown_column_is_found_before_a_disk_is_made(self) -> None:
        self.assertIn("there is no column paht", self.fails(
            2, "disk", "create", "--blank", "--instance", UUID,
            "--size", "1MiB", "-c", "paht"))
        self.assertFalse(self.instances.exists())


class TestShowAndList(DiskTestCase):

    def test_a_disk_that_is_not_there(self) -> None:
        path = self.instances / UUID / "disk"
        for command in (["show"], ["grow", "--size", "1GiB"],
                        ["extract", "--to", "x"], ["remove"]):
            self.assertIn(f"No disk at {path}", self.fails(
                7, "disk", command[0], "--instance", UUID, *command[1:]))

    def test_show_describes_one(self) -> None:
        made = self.create("--blank", "--size", "1MiB")
        done = self.succeed("disk", "show", "--instance", UUID, "-f", "json")
        self.assertEqual(made, done.json)

    def test_list_has_all_disks(self) -> None:
        a = self.create("--blank", "--size", "1MiB", instance="a")
        b = self.create("--blank", "--size", "1MiB", "--type", "raw",
                        instance="b")
        (self.instances / "compute_nodes").touch()   # as nova leaves there
        done = self.succeed("disk", "list", "-f", "json")
        self.assertEqual([a, b], done.json)

    def test_list_can_be_of_one_instance(self) -> None:
        self.create("--blank", "--size", "1MiB", instance="a")
        b = self.create("--blank", "--size", "1MiB", instance="b")
        done = self.succeed("disk", "list", "--instance", "b", "-f", "json")
        self.assertEqual([b], done.json)

    def test_a_damaged_record_hides_no_other_disk(self) -> None:
        found = [self.create("--blank", "--size", "1MiB", instance=each)
                 for each in "abc"]
        (self.instances / "b" / "disk.info").write_text("{")
        done = self.run_command("disk", "list", "-f", "json")
        self.assertEqual((5, [found[0], found[2]]), (done.code, done.json))
        self.assertIn(f"{self.instances}/b/disk.info", done.err)
        self.assertEqual(1, done.err.count("\n"), done.err)

    def test_a_damaged_disk_hides_no_other(self) -> None:
        found = [self.create("--blank", "--size", "1MiB", instance=each)
                 for each in "abc"]
        (self.instances / "b" / "disk").write_bytes(b"")
        done = self.run_command("disk", "list", "-f", "json")
        self.assertEqual((7, [found[0], found[2]]), (done.code, done.json))
        self.assertIn(f"{self.instances}/b/disk", done.err)

    def test_a_host_without_disks_has_an_empty_list(self) -> None:
        self.assertEqual([], self.succeed("disk", "list", "-f", "json").json)


class TestGrow(DiskTestCase):

    def test_a_disk_grows(self) -> None:
        self.create("--blank", "--size", "1MiB")
        done = self.succeed("disk", "grow", "--instance", UUID, "--size",
                            "3MiB", "-f", "json")
        self.assertEqual(3 * MiB, done.json["size"])

    def test_a_disk_of_that_size_is_fine(self) -> None:
        self.create("--blank", "--size", "1MiB")
        self.succeed("disk", "grow", "--instance", UUID, "--size", "1MiB")

    def test_a_disk_never_shrinks(self) -> None:
        self.create("--blank", "--size", "2MiB")
        self.assertIn("never becomes smaller", self.fails(
            7, "disk", "grow", "--instance", UUID, "--size", "1MiB"))


class TestExtract(DiskTestCase):

    def setUp(self) -> None:
        super().setUp()
        self.source = self.image("image.qcow2")
        self.create("--image", self.source)

    def test_what_a_disk_holds_is_copied(self) -> None:
        for format in ("raw", "qcow2", "vhd"):
            copy = self.root / f"copy.{format}"
            self.succeed("disk", "extract", "--instance", UUID,
                         "--to", copy, "--format", format)
            subprocess.run(
                ["qemu-img", "compare", "-f", "qcow2", "-F",
                 format.replace("vhd", "vpc"), self.source, copy],
                check=True, stdout=subprocess.DEVNULL)

    def test_a_file_that_exists_is_kept(self) -> None:
        copy = self.root / "copy"
        copy.write_text("precious")
        self.assertIn("--overwrite", self.fails(
            7, "disk", "extract", "--instance", UUID, "--to", copy))
        self.assertEqual("precious", copy.read_text())
        self.succeed("disk", "extract", "--instance", UUID, "--to", copy,
                     "--overwrite")
        self.assertEqual(b"QFI\xfb", copy.read_bytes()[:4])

    def test_a_missing_directory_is_named(self) -> None:
        self.assertIn(f"{self.root / 'missing'} does not exist", self.fails(
            7, "disk", "extract", "--instance", UUID,
            "--to", self.root / "missing" / "copy"))


class TestRemove(DiskTestCase):

    def test_several_are_deleted(self) -> None:
        for name in ("disk", "a", "b"):
            self.create("--blank", "--size", "1MiB", "--name", name)
        self.succeed("disk", "remove", "--instance", UUID, "--name", "a",
                     "--name", "b")
        left = self.succeed("disk", "list", "-f", "json").json
        self.assertEqual(["disk"], [disk["name"] for disk in left])
        self.succeed("disk", "remove", "--instance", UUID)
        self.assertFalse((self.instances / UUID).exists())

    def test_one_that_is_missing_does_not_save_the_others(self) -> None:
        self.create("--blank", "--size", "1MiB")
        self.assertIn("nope", self.fails(
            7, "disk", "remove", "--instance", UUID, "--name", "nope",
            "--name", "disk"))
        self.assertFalse((self.instances / UUID).exists())

    def test_all_disks_of_an_instance(self) -> None:
        self.create("--blank", "--size", "1MiB")
        self.create("--swap", "--size", "1MiB", "--type", "raw")
        other = self.create("--blank", "--size", "1MiB", instance="other")
        self.succeed("disk", "remove", "--instance", UUID, "--all")
        self.assertEqual([other],
                         self.succeed("disk", "list", "-f", "json").json)
