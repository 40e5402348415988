# SPDX-License-Identifier: Apache-2.0
"""A web server that implements how Glance describes and sends images.

    with glance.FakeGlance() as server:
        image_id = server.add_image(data, min_disk=1)
        store = GlanceStore.from_token(server.url, server.token)
        server.file(image_id).once(cut=1000)

Each page can misbehave as a page of imagecache.testing.web can.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from typing import Any

from imagecache.testing import web


class FakeGlance(web.WebServer):
    """Images for a client that sends the token."""

    token = "the-token"  # noqa: S105

    def add_image(self, data: bytes | None, **record: Any) -> str:
        """Add an image and return its id.

        :param data: its bytes; None: Glance has the record but no data
        :param record: fields that differ from those of an active image
        """
        image_id = str(uuid.uuid4())
        path = f"/v2/images/{image_id}"
        guard = ("X-Auth-Token", self.token)
        file = self.add(f"{path}/file", data or b"", guard=guard)
        if data is None:
            file.always(status=204)
        else:
            file.always(etag=None, last_modified=None)
        self.add(path, b"", {"Content-Type": "application/json"}, guard)
        self.change(image_id, **_record(image_id, data or b"") | record)
        return image_id

    def change(self, image_id: str, **record: Any) -> None:
        """Change fields of the record of an image."""
        page = self.record(image_id)
        known = json.loads(page.data or b"{}")
        page.data = json.dumps(known | record).encode()

    def record(self, image_id: str) -> web.Page:
        """Return the page with the record of an image."""
        return self.pages[f"/v2/images/{image_id}"]

    def file(self, image_id: str) -> web.Page:
        """Return the page with the bytes of an image."""
        return self.pages[f"/v2/images/{image_id}/file"]


def _record(image_id: str, data: bytes) -> dict[str, Any]:
    return {
        "id": image_id, "name": "an image", "status": "active",
        "visibility": "private", "size": len(data), "disk_format": "raw",
        "container_format": "bare", "min_disk": 0, "min_ram": 0,
        "checksum": hashlib.md5(data, usedforsecurity=False).hexdigest(),
        "os_hash_algo": "sha512",
        "os_hash_value": hashlib.sha512(data).hexdigest()}
