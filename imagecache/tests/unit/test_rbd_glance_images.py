# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import contextlib
import dataclasses
import uuid

from imagecache import exception, sources
from imagecache.backends.rbd import glance_images
from imagecache.model import Description, Format, GiB
from imagecache.policy import Policy, RbdPolicy
from imagecache.sources import Copy, templates
from imagecache.tests import base

FSID = "8d0a4c5e-0f5f-4b0e-9c55-0c0f4b0e9c55"
REF = str(uuid.UUID(int=7))
HERE = f"rbd://{FSID}/images/{REF}/snap"
STORE = "ceph"
REFUSED = exception.ImageUnacceptable(image_id=REF, reason="409")


class Cluster:
    """A cluster with the images that a test adds."""

    fsid = FSID

    def __init__(self):
        self.sizes = {("images", REF, "snap"): GiB}

    def clonable(self, *snapshot):
        return self.sizes.get(snapshot)


class Glance:
    """One image, and a story of what becomes of its copy.

    Each time it is waited, the story goes on.
    """

    def __init__(self, *urls, story=(Copy.ABSENT,), answers=()):
        self.urls = list(urls)
        self.story = list(story)
        self.answers = list(answers)
        self.asked = 0

    def describe(self, ref):
        raise AssertionError("it was described already")

    read = describe

    def locations(self, ref):
        return tuple(self.urls)

    def copy_of(self, ref, store):
        if self.story[0] is Copy.THERE and HERE not in self.urls:
            self.urls.append(HERE)
        return self.story[0]

    def request_copy(self, ref, store):
        self.asked += 1
        answer = self.answers.pop(0)
        if answer:
            raise answer

    def register(self, ref, location):
        raise NotImplementedError

    def wait(self, seconds):
        self.story.pop(0)


class Mute:
    """A store that knows no locations of its images."""

    describe = read = None


class RbdImagesTest(base.TestCase):

    def setUp(self):
        super().setUp()
        self.cluster, self.events = Cluster(), []
        self.policy = Policy(self.root, rbd=RbdPolicy(
            glance_store=STORE, glance_copy_poll_interval=1,
            glance_copy_timeout=600))

    def _image(self, store, signer=None, **described):
        return sources.Image(store, Description(**{
            "ref": REF, "identity": REF, "size": GiB, "disk_format": "raw"}
            | described), signer)

    def _find(self, store, size=None, policy=None, **described):
        return glance_images.RbdImages(
            policy or self.policy, self.events.append, self._connect,
            store.wait).find(self._image(store, **described), size)

    def _connect(self, policy):
        return contextlib.nullcontext(self.cluster)

    def _reasons(self):
        return [event.facts["reason"] for event in self.events
                if "reason" in event.facts]

    def test_location_is_read_and_written_as_glance_writes_it(self):
        for url in (HERE, f"rbd://{FSID}/a%2Fb/c%20d/e%25"):
            self.assertEqual(url, str(glance_images.Location.parse(url)))
        self.assertEqual(
            glance_images.Location(FSID, "a/b", "c d", "e%"),
            glance_images.Location.parse(f"rbd://{FSID}/a%2Fb/c%20d/e%25"))

    def test_urls_of_other_stores_are_not_locations(self):
        for url in ("", "rbd://", "rbd://image", f"file:///{REF}", f"/{REF}",
                    "rbd://a/b/c", "rbd://a/b/c/d/e", "rbd://a/b//d",
                    "rbd:a/b/c/d", "http://a/b/c/d"):
            self.assertIsNone(glance_images.Location.parse(url), url)

    def test_raw_image_in_this_cluster_is_found(self):
        for disk_format in ("raw", "iso"):
            self.assertEqual(HERE, str(self._find(
                Glance(HERE), disk_format=disk_format)))

    def test_locations_of_the_description_are_not_asked_for_again(self):
        glance = Glance()
        self.assertEqual(HERE, str(self._find(glance, locations=(HERE,))))

    def test_the_first_location_that_can_be_cloned_is_used(self):
        self.assertEqual(HERE, str(self._find(Glance(
            "file:///a", f"rbd://{uuid.uuid4()}/images/{REF}/snap", HERE))))
        self.assertEqual(["it is not a snapshot in Ceph",
                          "it is in another cluster"], self._reasons())

    def test_an_image_that_cannot_be_cloned_is_not_found(self):
        self.cluster.sizes.clear()
        self.assertIsNone(self._find(Glance(
            HERE, story=[Copy.THERE])))
        self.assertIn("it cannot be cloned from here", self._reasons())

    def test_a_disk_of_another_instance_is_not_an_image(self):
        # A tenant may have written this location into an image.
        stolen = f"{uuid.uuid4()}_disk"
        self.cluster.sizes["vms", stolen, "snap"] = GiB
        self.assertIsNone(self._find(Glance(
            f"rbd://{FSID}/vms/{stolen}/snap", story=[Copy.THERE]),
            policy=self._without_copies()))
        self.assertEqual(["it is not named as Glance names an image"],
                         self._reasons())

    def _without_copies(self):
        return dataclasses.replace(self.policy, rbd=RbdPolicy())

    def test_an_image_that_must_be_inspected_is_fetched_into_a_base(self):
        glance = Glance(HERE)
        for described in ({"disk_format": "qcow2"}, {"disk_format": None},
                          {"signer": object()},
                          {"identity": f"{REF}#sha256:00"}):
            self.assertIsNone(self._find(glance, **described), described)
        self.assertIsNone(self._find(glance, policy=dataclasses.replace(
            self.policy, accepted=frozenset({Format.QCOW2}))))
        self.assertEqual(0, glance.asked)

    def test_sources_other_than_glance_are_fetched_into_a_base(self):
        finder = glance_images.RbdImages(self.policy)
        for source in (self._image(Mute()), templates.blank(GiB),
                       sources.DelegatedImage("a" * 40, print)):
            self.assertIsNone(finder.find(source, None))

    def test_image_larger_than_the_disk_is_refused(self):
        with self.assertRaises(exception.FlavorDiskSmallerThanImage):
            self._find(Glance(HERE), GiB - 1)
        with self.assertRaises(exception.FlavorDiskSmallerThanMinDisk):
            self._find(Glance(HERE), GiB, min_disk=2 * GiB)
        with self.assertRaises(exception.ImageTooLarge):
            self._find(Glance(HERE), policy=dataclasses.replace(
                self.policy, max_virtual_size=GiB - 1))
        self.assertIsNotNone(self._find(Glance(HERE), GiB, min_disk=GiB))

    def test_image_elsewhere_is_copied_first(self):
        glance = Glance("file:///a", answers=[None], story=[
            Copy.ABSENT, Copy.ABSENT, Copy.COMING, Copy.THERE])
        self.assertEqual(HERE, str(self._find(glance)))
        self.assertEqual(1, glance.asked)
        self.assertEqual(
            ["location_not_usable", "glance_copy_started",
             "location_not_usable"], [event.name for event in self.events])

    def test_a_copy_that_runs_already_is_awaited(self):
        glance = Glance(story=[Copy.COMING, Copy.COMING, Copy.THERE])
        self.assertEqual(HERE, str(self._find(glance)))
        self.assertEqual(0, glance.asked)

    def test_another_import_of_the_image_is_awaited(self):
        # The import is into another store, so the copy is requested again.
        class Busy(Glance):
            def request_copy(self, ref, store):
                if len(self.answers) == 2:
                    self.story[0] = Copy.COMING
                return super().request_copy(ref, store)

        glance = Busy(answers=[REFUSED, None], story=[
            Copy.ABSENT, Copy.ABSENT, Copy.THERE])
        self.assertEqual(HERE, str(self._find(glance)))
        self.assertEqual(2, glance.asked)

    def test_an_import_that_ends_meanwhile_is_not_an_error(self):
        glance = Glance(answers=[REFUSED, None],
                        story=[Copy.ABSENT, Copy.THERE])
        self.assertEqual(HERE, str(self._find(glance)))
        self.assertEqual(2, glance.asked)

    def test_a_copy_that_another_host_made_is_used(self):
        class Quicker(Glance):
            def request_copy(self, ref, store):
                self.story[:] = [Copy.THERE] * 2
                return super().request_copy(ref, store)

        glance = Quicker(answers=[REFUSED])
        self.assertEqual(HERE, str(self._find(glance)))

    def test_a_copy_that_failed_earlier_is_tried_again(self):
        glance = Glance(story=[Copy.FAILED, Copy.COMING, Copy.THERE],
                        answers=[None])
        self.assertEqual(HERE, str(self._find(glance)))

    def test_an_image_whose_copy_fails_is_fetched_into_a_base(self):
        for glance in (
                Glance(story=[Copy.ABSENT, Copy.FAILED], answers=[None]),
                Glance(answers=[REFUSED, REFUSED]),
                Glance(answers=[exception.Forbidden(
                    image_id=REF, reason="not for you")])):
            self.events.clear()
            self.assertIsNone(self._find(glance))
            self.assertEqual("glance_copy_failed", self.events[-1].name)
            self.assertEqual([], glance.answers)

    def test_an_image_whose_copy_takes_too_long_is_fetched_into_a_base(self):
        policy = dataclasses.replace(self.policy, rbd=dataclasses.replace(
            self.policy.rbd, glance_copy_timeout=-1))
        glance = Glance(story=[Copy.ABSENT], answers=[None])
        self.assertIsNone(self._find(glance, policy=policy))
        self.assertIn("copy_timeout", self._reasons()[-1])

    def test_never_download_refuses_an_image_that_glance_could_copy(self):
        glance = self._image(Glance())
        others = [self._image(Mute()), templates.blank(GiB)]
        strict = dataclasses.replace(
            self.policy, rbd=RbdPolicy(never_download=True))
        for source in (glance, *others):
            glance_images.RbdImages(self.policy).require_download(source)
        for source in others:
            glance_images.RbdImages(strict).require_download(source)
        with self.assertRaises(exception.ImageUnacceptable):
            glance_images.RbdImages(strict).require_download(glance)

    def test_nothing_is_copied_unless_configured(self):
        glance = Glance("file:///a")
        self.assertIsNone(self._find(glance, policy=self._without_copies()))
        self.assertEqual(0, glance.asked)
