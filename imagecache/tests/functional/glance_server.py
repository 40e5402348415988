# SPDX-License-Identifier: Apache-2.0
"""A real Glance on a free port of 127.0.0.1: sqlite, gunicorn, its stores.

It has a virtual environment of its own, because its dependencies are not
those of this library: $IMAGECACHE_GLANCE_VENV, or .venv-glance in the
checkout.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from typing import TYPE_CHECKING

import fixtures
import glanceclient
from keystoneauth1 import session, token_endpoint

if TYPE_CHECKING:
    from imagecache.tests.functional.ceph_cluster import CephCluster

_CHECKOUT = pathlib.Path(__file__).resolve().parents[3]
_PATIENCE = 120   # seconds until Glance must have started, or stopped

_CONF = """\
[DEFAULT]
log_file = {root}/glance.log
enabled_backends = {backends}
enabled_import_methods = [copy-image]
show_image_direct_url = true
show_multiple_locations = true
image_cache_dir = {root}/cache
[glance_store]
default_backend = {default}
[main]
filesystem_store_datadir = {root}/images
[ceph]
rbd_store_pool = images
rbd_store_user = glance
rbd_store_ceph_conf = {ceph_conf}
[os_glance_staging_store]
filesystem_store_datadir = {root}/staging
[os_glance_tasks_store]
filesystem_store_datadir = {root}/tasks
[database]
connection = sqlite:///{root}/glance.sqlite
[oslo_concurrency]
lock_path = {root}/locks
[key_manager]
backend = directory_keys.DirectoryKeys
directory = {root}/keys
[oslo_policy]
policy_file = {root}/policy.yaml
[paste_deploy]
flavor = test
config_file = {root}/glance-api-paste.ini
"""

_PASTE = """\
[composite:glance-api-test]
paste.composite_factory = glance.api:root_app_factory
/: api
[composite:api]
paste.composite_factory = glance.api:pipeline_factory
test = versionnegotiation token context rootapp
[composite:rootapp]
paste.composite_factory = glance.api:root_app_factory
/: apiversions
/v2: apiv2app
[app:apiversions]
paste.app_factory = glance.api.versions:create_resource
[app:apiv2app]
paste.app_factory = glance.api.v2.router:API.factory
[filter:versionnegotiation]
paste.filter_factory = \
glance.api.middleware.version_negotiation:VersionNegotiationFilter.factory
[filter:context]
paste.filter_factory = glance.api.middleware.context:ContextMiddleware.factory
[filter:token]
paste.filter_factory = testtoken:factory
"""

# Stands where keystonemiddleware stands in production.
_TOKEN_FILTER = '''\
"""Trust the token, which is user:project:role,role."""
from urllib.parse import unquote    # glanceclient quotes it


def factory(conf):
    def middleware(app):
        def handle(environ, start_response):
            token = unquote(environ.get("HTTP_X_AUTH_TOKEN", ""))
            if token.count(":") == 2:
                user, project, roles = token.split(":")
                environ.update(
                    HTTP_X_IDENTITY_STATUS="Confirmed", HTTP_X_USER_ID=user,
                    HTTP_X_PROJECT_ID=project, HTTP_X_ROLES=roles)
            return app(environ, start_response)
        return handle
    return lambda app: middleware(app)
'''

# A user who may read an image may have it copied to another store.
_POLICY = """\
copy_image: ""
"""

_GUNICORN = """\
bind = "fd://{fd}"
accesslog = "{root}/access.log"
access_log_format = "%(m)s %(U)s %(s)s %(B)s"
workers = 1
threads = 8
worker_class = "gthread"
timeout = 0
control_socket_disable = True
"""


@functools.cache
def _database(programs: pathlib.Path) -> bytes:
    """Return an empty database; to make one takes Glance some seconds."""
    with tempfile.TemporaryDirectory() as directory:
        path = pathlib.Path(directory, "glance.sqlite")
        conf = pathlib.Path(directory, "glance-api.conf")
        conf.write_text(f"[database]\nconnection = sqlite:///{path}\n")
        subprocess.run(
            [programs / "glance-manage", "--config-file", conf, "db_sync"],
            check=True, capture_output=True, timeout=_PATIENCE,
            env=os.environ | {"OS_GLANCE_CONFIG_DIR": directory,
                              "HOME": directory})
        return path.read_bytes()


class GlanceServer(fixtures.Fixture):
    """Glance while the fixture is in use.

    A token is any "user:project:role,role"; the roles are admin, member and
    reader, and none implies another, as Keystone would have it.

    ``root / "keys"`` has the certificates by which it verifies images; see
    imagecache.tests.directory_keys.

    :param ceph: has a second store of it, "ceph", beside "main", which is a
        directory; the user glance keeps it in the pool images
    :param default: the store that uploads go to
    """

    def __init__(self, ceph: CephCluster | None = None,
                 default: str = "main") -> None:
        super().__init__()
        self._ceph = ceph
        self._default = default

    def _setUp(self) -> None:
        venv = pathlib.Path(os.environ.get("IMAGECACHE_GLANCE_VENV")
                            or _CHECKOUT / ".venv-glance")
        self._bin = venv / "bin"
        if not (self._bin / "gunicorn").exists():
            raise FileNotFoundError(
                f"No Glance in {venv}: run tools/test, which installs one, or"
                " set IMAGECACHE_GLANCE_VENV to an environment with the"
                " packages glance and gunicorn")
        self.root = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        self._environment = os.environ | {
            "PYTHONPATH": str(self.root), "OS_GLANCE_CONFIG_DIR":
            str(self.root), "HOME": str(self.root)}
        self._configure()
        self._port = 0
        self.addCleanup(self._stop)
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def client(self, token: str) -> glanceclient.v2.client.Client:
        return glanceclient.Client("2", session=session.Session(
            token_endpoint.Token(self.url, token)))

    def file(self, image_id: str) -> pathlib.Path:
        """Return the file in which the store of Glance keeps an image."""
        return self.root / "images" / image_id

    def downloads(self, image_id: str) -> list[int]:
        """Return the bytes that each download of an image has sent."""
        lines = (self.root / "access.log").read_text().splitlines()
        return [int(sent) for method, path, _, sent in map(str.split, lines)
                if method == "GET" and path == f"/images/{image_id}/file"]

    def start(self) -> None:
        """Start the server; after kill() on the same port as before."""
        with socket.create_server(("127.0.0.1", self._port)) as listener:
            self._port = listener.getsockname()[1]
            fd = listener.fileno()
            (self.root / "gunicorn.conf.py").write_text(
                _GUNICORN.format(fd=fd, root=self.root))
            with (self.root / "server.out").open("ab") as output:
                self._process = subprocess.Popen(
                    # It must not outlive tests that are killed.
                    ["setpriv", "--pdeathsig", "TERM",
                     self._bin / "gunicorn", "-c",
                     self.root / "gunicorn.conf.py",
                     "glance.wsgi.api:application"],
                    cwd=self.root, env=self._environment, pass_fds=[fd],
                    stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                    start_new_session=True)
        self._wait()

    def kill(self) -> None:
        """End the server as a power failure would."""
        self._signal(signal.SIGKILL)
        self._process.wait(_PATIENCE)
        # The port is free when the last worker is gone, too.
        deadline = time.monotonic() + _PATIENCE
        while self._is_alive() and time.monotonic() < deadline:
            time.sleep(0.01)

    def pause(self) -> None:
        """Stop the server: it is silent, and its connections stay open."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def _configure(self) -> None:
        for name in ("images", "staging", "tasks", "locks", "cache", "keys"):
            (self.root / name).mkdir()
        shutil.copy(_CHECKOUT / "imagecache/tests/directory_keys.py",
                    self.root)
        conf = _CONF.format(
            root=self.root, default=self._default,
            backends="main:file, ceph:rbd" if self._ceph else "main:file",
            ceph_conf=self._ceph.conf if self._ceph else "")
        (self.root / "access.log").touch()
        for name, text in (("glance-api.conf", conf),
                           ("glance-api-paste.ini", _PASTE),
                           ("testtoken.py", _TOKEN_FILTER),
                           ("policy.yaml", _POLICY)):
            (self.root / name).write_text(text)
        (self.root / "glance.sqlite").write_bytes(_database(self._bin))

    def _wait(self) -> None:
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline and self._process.poll() is None:
            with contextlib.suppress(OSError, http.client.HTTPException):
                connection = http.client.HTTPConnection(
                    "127.0.0.1", self._port, timeout=_PATIENCE)
                with contextlib.closing(connection):
                    connection.request("GET", "/versions")
                    if connection.getresponse().status < 400:
                        return
            time.sleep(0.05)
        raise RuntimeError("Glance did not start:\n" + "".join(
            (self.root / "server.out").read_text().splitlines(True)[-30:]))

    def _is_alive(self) -> bool:
        try:
            os.killpg(self._process.pid, 0)
        except ProcessLookupError:
            return False
        return True

    def _signal(self, number: signal.Signals) -> None:
        # It leads a session of its own, so its workers are in its group.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def _stop(self) -> None:
        if self._process.poll() is None:
            self._signal(signal.SIGCONT)
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self.kill()
